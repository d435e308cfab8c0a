"""Dense adversary generation against its Algorithm 1, written down once more in ten lines."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from attack.stand_ins import ORGANS, Stateless, curved, normal, organs
from torch import Tensor

from medadv.attack.budget import Budget, Unit
from medadv.attack.exchange import Exchange
from medadv.attack.loop import Attack
from medadv.attack.losses import cross_entropy
from medadv.attack.presets import dag
from medadv.attack.relabel import Draw, Fill, Permute
from medadv.attack.rng import Rng
from medadv.attack.steps import Plain
from medadv.attack.threat import Linf
from medadv.attack.unbounded import Unbounded
from medadv.attack.victim import Passes
from medadv.errors import ConfigError
from medadv.labels import LabelScheme
from medadv.victims.head import Softmax, Voxels

GAMMA = 0.05
STEP = Unbounded(Budget(GAMMA, Unit.STORED))
SWAPPED = Permute({"liver": "spleen", "spleen": "liver"})
CLASSES = torch.tensor([0, 0, 1, 1, 1, 2])
"""Stored number → class of ``ORGANS``: 0, 2, 5."""


def linear_classes(shape: tuple[int, ...], bias: float = 0.0) -> Stateless:
    """Three classes, each a weighted sum of two modalities, voxel by voxel."""
    weight = normal((1, 3, 2, *shape), seed=21)

    def answer(x: Tensor) -> Tensor:
        z = (weight * x.unsqueeze(1)).sum(2)
        return z + bias * torch.arange(3).view(1, 3, *[1] * len(shape))

    return Stateless(answer, Softmax(ORGANS))


def small_conv() -> Stateless:
    network = curved().network
    return Stateless(network, Softmax(ORGANS))


def algorithm_1(
    answer: Stateless, x: Tensor, own: Tensor, wanted: Tensor, steps: int, active: str, allowed: int = 0
) -> tuple[Tensor, list[int], list[float]]:
    """Xie et al. 2017, Algorithm 1, of one picture: its X_m, the active targets at each m, and every ‖r'‖∞."""
    counts, lengths = [], []
    for _ in range(steps):
        x = x.detach().requires_grad_()
        f = answer(x)
        at_work = (f.argmax(1) == own) if active == "written" else (f.argmax(1) != wanted)
        at_work = at_work & (own != wanted)
        counts.append(int(at_work.sum()))
        if counts[-1] <= allowed:
            return x.detach(), counts, lengths
        one_hot = torch.nn.functional.one_hot
        sign = (one_hot(wanted, 3) - one_hot(own, 3)).movedim(-1, 1) * at_work.unsqueeze(1)
        (r,) = torch.autograd.grad((sign * f).sum(), x)
        move = GAMMA * r / r.abs().max()
        lengths.append(move.abs().max().item())
        x = x + move
    return x.detach(), counts, lengths


def swapped(truth: Tensor) -> Tensor:
    return torch.where(truth == 2, 5, torch.where(truth == 5, 2, truth))


@pytest.mark.parametrize("active", ["written", "released"])
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_dag_is_algorithm_1(kind: str, active: str) -> None:
    """To the last bit of float64, over more than a hundred steps, and with as many active targets at each."""
    victim = linear_classes((6, 5), 3.0) if kind == "linear" else small_conv()
    x, truth = normal((1, 2, 6, 5)) + 4, organs((1, 6, 5))
    own, wanted = CLASSES[truth], CLASSES[swapped(truth)]
    expected, counts, lengths = algorithm_1(victim, x, own, wanted, 150, active)
    found = dag(STEP, SWAPPED, 150, active=active)(victim, x, truth)
    torch.testing.assert_close(found.x, expected, rtol=0, atol=1e-12)
    n = len(counts)
    assert found.trace["active"][:n, 0].tolist() == counts
    assert n > 100 or counts[-1] == 0
    assert max(abs(length - GAMMA) for length in lengths) < 1e-15
    assert found.size.item() > 3  # further than any one step


def test_the_two_active_sets_differ() -> None:
    victim, x, truth = linear_classes((6, 5), 3.0), normal((1, 2, 6, 5)) + 4, organs((1, 6, 5))
    written, released = (dag(STEP, SWAPPED, 60, active=a)(victim, x, truth) for a in ("written", "released"))
    assert not torch.equal(written.x, released.x)
    assert written.trace["active"][0] < released.trace["active"][0]


def test_it_runs_over_a_hundred_steps_when_it_must() -> None:
    """The comparison with Algorithm 1 is of a long run, not of one that is soon done."""
    victim, x, truth = linear_classes((6, 5), 3.0), normal((1, 2, 6, 5)) + 4, organs((1, 6, 5))
    _, counts, _ = algorithm_1(victim, x, CLASSES[truth], CLASSES[swapped(truth)], 150, "released")
    assert len(counts) > 100


def test_its_gradient_is_that_of_two_cross_entropies() -> None:
    """CE(l) - CE(l') = f(l') - f(l): the log of the sum of exponentials cancels."""
    raw = normal((2, 3, 4, 5), seed=5).requires_grad_()
    own, wanted = (Voxels.of(Softmax(ORGANS), organs((2, 4, 5), seed)) for seed in (1, 2))
    goal = Exchange(Draw(wanted.truth), labels="truth").prepare(raw.detach(), own, Rng.seeded(0, 2))
    active = (raw.argmax(1) == own.labels) & (own.labels != wanted.labels)
    assert active.any()
    (ours,) = torch.autograd.grad(goal(raw, 0.0).value.sum(), raw)
    difference = cross_entropy(raw, own.within(active)) - cross_entropy(raw, wanted.within(active))
    (theirs,) = torch.autograd.grad(difference.sum(), raw)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    torch.testing.assert_close(goal(raw, 0.0).value, difference, rtol=0, atol=1e-10)
    assert ours.abs().max() == 1


@pytest.mark.parametrize("active", ["written", "released"])
def test_on_a_linear_victim_the_active_targets_only_get_fewer(active: str) -> None:
    """Voxel by voxel, each active one climbs along its own gradient, and only active ones move."""
    weight = normal((1, 3, 2, 40), seed=3)
    victim = Stateless(lambda x: (weight * x.unsqueeze(1)).sum(2), Softmax(ORGANS))
    x, truth = normal((2, 2, 40)), organs((2, 40))
    found = dag(STEP, Fill("spleen"), 80, active=active)(victim, x, truth)
    counts = found.trace["active"].nan_to_num(0)
    assert (counts.diff(dim=0) <= 0).all()
    assert counts[0].sum() > 10


def test_a_sample_that_is_done_is_delivered_as_it_was_then() -> None:
    """Alone or beside one that takes longer; and what it cost is told truly."""
    victim = linear_classes((6, 5))
    x, truth = normal((3, 2, 6, 5)) + torch.tensor([0.0, 0.6, 1.2]).view(3, 1, 1, 1), organs((3, 6, 5))
    attack = dag(STEP, SWAPPED, 400)
    together = attack(victim, x, truth)
    asked: list[int] = []
    lengths = []
    for i in range(3):
        asked.clear()
        counting = replace(victim, answer=lambda z: (asked.append(len(z)), victim.answer(z))[1])
        alone = attack(counting, x[i : i + 1], truth[i : i + 1])
        own, wanted = CLASSES[truth[i : i + 1]], CLASSES[swapped(truth[i : i + 1])]
        expected, counts, _ = algorithm_1(victim, x[i : i + 1], own, wanted, 400, "written")
        assert torch.equal(alone.x, together.x[i : i + 1])
        torch.testing.assert_close(alone.x, expected, rtol=0, atol=1e-12)
        assert alone.merit.tolist() == [1]
        assert alone.passes == Passes(len(asked), len(asked))  # until done: never the last look of one forward
        assert len(counts) <= len(asked) < len(counts) + 10
        assert alone.trace["active"].flatten().tolist() == counts  # and not of the steps until the host asks again
        assert alone.moves.tolist() == [together.moves[i].item()] == [len(counts) - 1]
        told = together.trace["active"][:, i]
        assert told[~told.isnan()].tolist() == counts
        lengths.append(len(counts))
    assert len(set(lengths)) == 3


def test_an_attack_that_is_not_done_in_time_says_how_far_it_came() -> None:
    victim, x, truth = linear_classes((6, 5), 3.0), normal((1, 2, 6, 5)) + 4, organs((1, 6, 5))
    found = dag(STEP, SWAPPED, 7)(victim, x, truth)
    active = found.trace["active"][:, 0]
    assert found.moves.tolist() == [7]
    assert active.shape == (8,)  # at seven iterates, and at the one delivered
    assert active[-1] > 0
    counted = (truth != 0).sum()
    torch.testing.assert_close(found.merit[0], 1 - active[-1] / counted)
    assert found.passes == Passes(8, 7)


def test_some_foreground_may_be_left() -> None:
    victim, x, truth = linear_classes((6, 5)), normal((1, 2, 6, 5)), organs((1, 6, 5))
    allowed = int(0.3 * (truth != 0).sum())
    own, wanted = CLASSES[truth], CLASSES[swapped(truth)]
    expected, counts, _ = algorithm_1(victim, x, own, wanted, 99, "released", allowed)
    found = dag(STEP, SWAPPED, 99, active="released", tolerance=0.3)(victim, x, truth)
    torch.testing.assert_close(found.x, expected, rtol=0, atol=1e-12)
    assert 0 < counts[-1] <= allowed < counts[0]


def test_background_does_not_raise_what_may_be_left() -> None:
    """The tolerance is a share of what counts and is not background: of nothing else, nothing may be left."""
    truth = torch.zeros(1, 10, dtype=torch.int64)
    raw = torch.zeros(1, 3, 10).index_fill_(1, torch.tensor([0]), 1.0)
    goal = Exchange(Fill("liver"), tolerance=0.9).prepare(raw, Voxels.of(Softmax(ORGANS), truth), Rng.seeded(0, 1))
    assert not goal(raw, 0.0).done
    half = truth.clone()
    half[:, 5:] = 5
    goal = Exchange(Fill("liver"), tolerance=0.9).prepare(raw, Voxels.of(Softmax(ORGANS), half), Rng.seeded(0, 1))
    judged = goal(raw, 0.0)  # five spleen voxels, none of them seen; five of background, all seen: over 0.9 of five
    assert judged.notes["active"].tolist() == [5]
    assert not judged.done


def test_what_vanishes_may_be_let_be() -> None:
    scheme = LabelScheme("zoo", {"cat": 1, "dog": 3, "background": 2})  # background is not the lowest number
    targets = Voxels.of(Softmax(scheme), torch.tensor([[1, 1, 1, 1]]))
    raw = torch.eye(3)[None][..., [0, 1, 2, 1]]  # decided as cat, background, dog, background
    counts = {}
    for vanish in (False, True):
        goal = Exchange(Fill("dog"), "released", let_vanish=vanish).prepare(raw, targets, Rng.seeded(0, 1))
        assert torch.equal(goal.active(raw).sum(1), goal(raw, 0.0).notes["active"].long())
        counts[vanish] = goal.active(raw).tolist()
    assert counts == {False: [[True, True, False, True]], True: [[True, False, False, False]]}


def test_it_is_not_done_while_targets_are_pushed() -> None:
    """Nobody is decided as l, nor as l' or background: the clean picture is no adversarial one."""
    zoo = LabelScheme("zoo", {"background": 0, "cat": 1, "cow": 2, "dog": 3})
    targets = Voxels.of(Softmax(zoo), torch.ones(1, 8, dtype=torch.int64))
    seen = torch.tensor([3, 3, 3, 0, 0, 2, 2, 2])  # three dogs, while cats shall be cows
    raw = torch.eye(4)[seen].T[None]
    for tolerance, done in ((0.0, False), (0.25, False), (0.375, True)):
        exchange = Exchange(Fill("cow"), "released", tolerance, let_vanish=True)
        judged = exchange.prepare(raw, targets, Rng.seeded(0, 1))(raw, 0.0)
        assert judged.notes["active"].tolist() == [3]
        assert judged.done.tolist() == [done]


def test_a_target_that_is_to_stay_does_not_count() -> None:
    truth = organs((1, 30))
    everywhere = Permute({"liver": "spleen", "spleen": "liver"}, where="everywhere")
    raw = normal((1, 3, 30))
    goals = [
        Exchange(relabel, "released").prepare(raw, Voxels.of(Softmax(ORGANS), truth), Rng.seeded(0, 1))
        for relabel in (SWAPPED, everywhere)
    ]
    assert torch.equal(goals[0].own.where, goals[1].own.where)
    assert not goals[1].own.where[truth == 0].any()


class Blind(Stateless):
    """A victim that has no targets, whatever the truth."""

    def targets(self, truth: Tensor) -> Voxels:
        return Voxels.of(self.head, truth[:, :0])


def test_without_targets_it_is_done_at_once() -> None:
    """A detector that proposes nothing: its empty answer may not even depend on the input."""
    for connected in (True, False):

        def answer(x: Tensor, connected: bool = connected) -> Tensor:
            return x[:, :1, :0].expand(-1, 3, -1) if connected else x.new_zeros(len(x), 3, 0)

        victim = Blind(answer, Softmax(ORGANS))
        x, truth = normal((2, 1, 9)), organs((2, 9))
        found = dag(STEP, SWAPPED)(victim, x, truth)
        assert torch.equal(found.x, x)
        assert found.merit.tolist() == [1, 1]
        assert found.trace["active"].tolist() == [[0, 0]]
        assert found.passes == Passes(1, 0)
        for keep in ("best", "last"):
            attack = Attack(Linf(Budget(0.1)), Exchange(SWAPPED), Plain(), 3, keep=keep)
            assert torch.equal(attack(victim, x, truth).x, x)


def test_no_other_goal_notes_active_targets() -> None:
    victim, x, truth = curved(), normal((2, 2, 6, 5)), organs((2, 6, 5))
    threat = Linf(Budget(0.3, Unit.STORED))
    exchanged = Attack(threat, Exchange(SWAPPED), Plain(), 3)(victim, x, truth)
    assert set(exchanged.trace) == {"value", "merit", "active"}
    assert threat(x, x != 0).inside(exchanged.x).all()


def test_another_label_than_the_prediction_is_taken_from_it() -> None:
    victim, x = curved(), normal((2, 2, 6, 5))
    unread = torch.zeros(2, 6, 5, dtype=torch.int64)
    own = dag(STEP, SWAPPED, 5, labels="prediction")(victim, x, unread)
    told = dag(STEP, SWAPPED, 5)(victim, x, victim.predict(x))
    assert torch.equal(own.x, told.x)
    assert not torch.equal(own.x, x)


@pytest.mark.parametrize(
    "settings",
    [{"active": "used"}, {"tolerance": 1.0}, {"tolerance": -0.1}, {"labels": "mine"}, {"let_vanish": True}],
)
def test_a_setting_that_is_none_is_advice(settings: dict[str, object]) -> None:
    from runtime_types import unchecked

    with unchecked(), pytest.raises(ConfigError):
        Exchange(SWAPPED, **settings)
    with unchecked(), pytest.raises(ConfigError, match="what to make of which voxels"):
        Exchange("spleen")


@pytest.mark.parametrize(("active", "let_vanish"), [("written", False), ("released", True)])
def test_labels_without_background_are_exchanged_too(active: str, let_vanish: bool) -> None:
    """Cityscapes: every pixel that is judged shows a thing, and all of them are foreground."""
    streets = LabelScheme("streets", {"road": 0, "car": 1, "sky": 2}, void=255)
    scheme = Softmax(streets)
    victim = Stateless(curved().network, scheme)
    x = normal((1, 2, 6, 5), seed=4)
    truth = victim.head.decide(victim(x))
    exchange = dag(STEP, Permute(), steps=30, active=active, let_vanish=let_vanish, tolerance=0.1)  # type: ignore[arg-type]
    found = exchange(victim, x, truth)
    assert found.trace["active"][-1].item() < found.trace["active"][0].item() == truth.numel()
