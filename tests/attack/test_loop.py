"""The one loop: the published formulas, the best iterate, and an honest account of what it cost."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import pytest
import torch
from attack.stand_ins import Stateless, linear, normal, organs, scene
from torch import Tensor, nn

from medadv.attack import loop
from medadv.attack.budget import Budget, Unit
from medadv.attack.loop import Attack, near, random
from medadv.attack.losses import logit_margin
from medadv.attack.objective import Away, Towards, dice_lost
from medadv.attack.presets import fgsm, ifgsm, mifgsm, pgd
from medadv.attack.relabel import erase
from medadv.attack.rng import Rng
from medadv.attack.steps import Momentum, Plain
from medadv.attack.threat import Box, Linf
from medadv.attack.victim import Passes
from medadv.errors import ConfigError
from medadv.victims.segmentation import Segmenter
from medadv.victims.window import SlidingWindow

RADIUS = 0.3
BALL = Linf(Budget(RADIUS, Unit.STORED))


def formula(
    victim: Segmenter, x0: Tensor, truth: Tensor, steps: int, size: float, decay: float | None = None
) -> Tensor:
    """FGSM, I-FGSM and MI-FGSM as in their papers, in plain torch."""
    index = torch.searchsorted(torch.tensor([0, 2, 5]), truth)
    low, high = x0.amin((2, 3), keepdim=True), x0.amax((2, 3), keepdim=True)
    x, velocity = x0, torch.zeros_like(x0)
    for _ in range(steps):
        x = x.detach().requires_grad_()
        loss = torch.nn.functional.cross_entropy(victim.network(x), index, reduction="sum")
        (direction,) = torch.autograd.grad(loss, x)
        if decay is not None:
            velocity = decay * velocity + direction / direction.abs().sum((1, 2, 3), keepdim=True)
            direction = velocity
        moved = x + size * RADIUS * direction.sign()
        x = torch.minimum(torch.maximum(moved, x0 - RADIUS), x0 + RADIUS).clamp(low, high)
    return x.detach()


@pytest.mark.parametrize(
    ("attack", "steps", "size", "decay"),
    [
        (fgsm("0.3 stored"), 1, 1.0, None),
        (ifgsm("0.3 stored", steps=10), 10, 0.25, None),
        (ifgsm("0.3 stored", steps=2), 2, 1.0, None),
        (ifgsm("0.3 stored", steps=5, size=0.07), 5, 0.07, None),
        (mifgsm("0.3 stored", steps=6), 6, 1 / 6, 1.0),
        (mifgsm("0.3 stored", steps=6, decay=0.5), 6, 1 / 6, 0.5),
        (Attack(BALL, Away(), Momentum(0.9, 0.4), 4, keep="last"), 4, 0.4, 0.9),
    ],
)
def test_the_last_iterate_is_that_of_the_published_formula(
    attack: Attack, steps: int, size: float, decay: float | None
) -> None:
    victim, x, truth = scene()
    found = attack(victim, x, truth)
    torch.testing.assert_close(found.x, formula(victim, x, truth, steps, size, decay), rtol=0, atol=1e-12)
    assert found.merit.isnan().all()
    assert len(found.trace["value"]) == steps
    assert (found.size > 0.99 * min(1, steps * size)).all() or decay
    assert (found.size <= 1).all()


@pytest.mark.parametrize("start", [loop.clean, random])
@pytest.mark.parametrize("merit", [dice_lost, None])
@pytest.mark.parametrize("size", [None, 1.0])
def test_the_best_merit_never_decreases_with_more_steps(start: loop.Start, merit: object, size: float | None) -> None:
    """Steps of a fixed length make runs of n steps prefixes of one another."""
    victim, x, truth = scene()
    objective = Away(merit=dice_lost) if merit else Away()
    merits = []
    for steps in range(1, 9):
        found = Attack(BALL, objective, Plain(size or 0.4), steps, start)(victim, x, truth)
        assert torch.equal(found.merit, found.trace["merit"].nan_to_num(-1).amax(0))
        assert len(found.trace["merit"]) == steps + 1
        merits.append(found.merit)
    assert (torch.stack(merits).diff(dim=0) >= 0).all()
    assert (merits[-1] > found.trace["merit"][0]).any()


@pytest.mark.parametrize(
    "objective", [Away(merit=dice_lost), Towards(erase("spleen")), Away(logit_margin, pending=True)]
)
def test_merit_and_value_are_those_of_the_delivered_input(objective: Away | Towards) -> None:
    victim, x, truth = scene()
    found = Attack(BALL, objective, Plain(0.4), 7, random)(victim, x, truth)
    with torch.no_grad():
        raw0 = victim(x)
        again = objective.prepare(raw0, victim.targets(truth), Rng.seeded(0, 3))(victim(found.x), 1.0)
    assert torch.equal(again.merit, found.merit)
    assert BALL(x, x != 0).inside(found.x).all()


def test_only_a_strictly_better_iterate_takes_the_place() -> None:
    """On a victim that cannot be fooled every merit is 0: the start is delivered, not the last."""
    victim, x, truth = linear(torch.ones(1), bias=50.0), normal((2, 1, 7)), torch.ones(2, 7, dtype=torch.int64)
    found = Attack(BALL, Away(logit_margin), Plain(), 5)(victim, x, truth)
    assert torch.equal(found.x, x)
    assert found.merit.tolist() == [0, 0]
    last = Attack(BALL, Away(logit_margin), Plain(), 5, keep="last")(victim, x, truth)
    assert not torch.equal(last.x, x)


class Lenient(Box):
    """A threat model that lets everything pass and knows what is allowed, as a budget that shrinks on the way does."""

    def project(self, x: Tensor) -> Tensor:
        return x.clone()


class Unprojected(Linf):
    """Its threat."""

    def __call__(self, x0: Tensor, support: Tensor) -> Lenient:
        return Lenient(**vars(super().__call__(x0, support)))


def test_iterates_outside_the_threat_are_not_delivered_and_do_not_leave() -> None:
    victim = linear(torch.ones(1), bias=-1.0)
    x, truth = torch.full((1, 1, 4), 0.01, dtype=torch.float64), torch.zeros(1, 4, dtype=torch.int64)
    attack = Attack(Unprojected(Budget(0.5, Unit.STORED), None), Away(), Plain(), 3, near(x + 9))
    found = attack(victim, x, truth)
    assert found.trace["merit"].flatten().tolist() == [1, 1, 1, 1]  # fooled everywhere, and still not done
    assert torch.equal(found.x, x)
    assert found.merit.isnan().all()


class Counted(nn.Module):
    """Counts the samples that go through a network forwards and backwards."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.seen: Counter[str] = Counter()
        network.register_forward_hook(self._forward)
        network.register_full_backward_hook(self._backward)

    def _forward(self, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        self.seen["forward"] += len(output)

    def _backward(self, module: nn.Module, received: object, sent: object) -> None:
        self.seen["backward"] += 1


@pytest.mark.parametrize("windows", [0, 9])
@pytest.mark.parametrize(
    ("attack", "passes"),
    [
        (fgsm("0.1 sigma"), (1, 1)),
        (ifgsm("0.1 sigma", steps=4), (4, 4)),
        (Attack(BALL, Away(), Plain(), 4), (5, 4)),  # the last iterate is judged, too
        (Attack(BALL, Away(), Plain(), 4, random, keep="last"), (5, 4)),  # the clean answer is asked for
        (pgd("0.1 sigma", steps=4), (6, 4)),
    ],
)
def test_passes_are_those_that_happen(attack: Attack, passes: tuple[int, int], windows: int) -> None:
    """Counted by hooks; a windowed gradient answers once more, without graph, each time it is asked for."""
    victim, x, truth = scene(batch=1)
    counted = Counted(victim.network)
    if windows:
        victim = replace(victim, inference=SlidingWindow((3, 3), overlap=0.5))
        x, truth = normal((1, 2, 5, 5)), organs((1, 5, 5))
    found = attack(victim, x, truth)
    forward, backward = passes
    expected = Passes(forward + (backward if windows else 0), backward)
    assert found.passes == expected
    assert counted.seen == {
        "forward": expected.forward * (windows or 1),
        "backward": expected.backward * (windows or 1),
    }


def test_no_steps_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least one step"):
        ifgsm("0.1 sigma", steps=0)


@pytest.mark.parametrize("budget", ["0 sigma", "0.5 sigma"])
def test_no_budget_or_no_support_delivers_the_same_bits(budget: str) -> None:
    victim, x, truth = scene()
    for attack in (fgsm(budget), mifgsm(budget), pgd(budget, steps=3)):
        nowhere = torch.zeros_like(x, dtype=torch.bool) if budget != "0 sigma" else None
        found = attack(victim, x, truth, support=nowhere)
        assert torch.equal(found.x.view(torch.int64), x.view(torch.int64))
        assert found.x.data_ptr() != x.data_ptr()
        assert found.size.tolist() == [0, 0, 0]


def test_progress_runs_from_zero_to_one() -> None:
    seen: list[float] = []

    @dataclass(frozen=True)
    class Watched(Away):
        def prepare(self, raw0: Tensor, targets: object, rng: Rng) -> object:
            goal = super().prepare(raw0, targets, rng)

            class Watch:
                def __call__(self, raw: Tensor, progress: float) -> object:
                    seen.append(progress)
                    return goal(raw, progress)

                def take(self, index: Tensor) -> object:
                    return self

            return Watch()

    victim, x, truth = scene()
    Attack(BALL, Watched(), Plain(), 4)(victim, x, truth)
    assert seen == [0, 0.25, 0.5, 0.75, 1]


def test_the_clean_answer_that_a_goal_keeps_has_no_graph() -> None:
    """A goal that held the graph of the clean answer would cancel its own gradient."""

    @dataclass(frozen=True)
    class AwayFromClean:
        def prepare(self, raw0: Tensor, targets: object, rng: Rng) -> object:
            assert not raw0.requires_grad
            return Away(lambda raw, t: ((raw - raw0) * raw0).flatten(1).sum(1)).prepare(raw0, targets, rng)

    victim = Stateless(lambda x: torch.stack([-x[:, 0], x[:, 0]], 1))
    x = normal((1, 1, 9))
    found = Attack(BALL, AwayFromClean(), Plain(), 1, keep="last")(victim, x, torch.zeros(1, 9, dtype=torch.int64))
    low, high = x.amin(), x.amax()
    torch.testing.assert_close(found.x, (x + RADIUS * x.sign()).clamp(low, high))
