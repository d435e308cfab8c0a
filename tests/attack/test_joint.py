"""Several victims at once, and one victim in several draws."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from attack.stand_ins import LESION, ORGANS, Stateless, curved, linear, normal, organs, scene
from runtime_types import unchecked
from torch import Tensor

from medadv.attack.budget import Budget, Unit
from medadv.attack.checks import check_steady
from medadv.attack.exchange import Exchange
from medadv.attack.joint import Draws, Joint, Together
from medadv.attack.loop import Attack, random
from medadv.attack.losses import cross_entropy, logit_margin
from medadv.attack.objective import Away, Towards, dice_lost
from medadv.attack.presets import dag, ifgsm, pgd, tifgsm
from medadv.attack.relabel import Fill, Permute, erase
from medadv.attack.rng import Rng
from medadv.attack.shape import Shape
from medadv.attack.steps import Plain
from medadv.attack.threat import Linf
from medadv.attack.unbounded import Unbounded
from medadv.attack.victim import Passes
from medadv.attack.wrappers import Restarts, Transfer, WorstOf
from medadv.errors import ConfigError, GradientError, VictimError
from medadv.objects import Objects
from medadv.victims.head import Softmax, Voxels

BALL = Linf(Budget(0.3, Unit.STORED), None)
STREAMS = Rng.seeded(5, 3)
ATTACKS = {
    "ifgsm": ifgsm(BALL, 6),
    "pgd": pgd(BALL, 5),
    "permuted": tifgsm(BALL, Permute(), 5),
    "followed": Attack(BALL, Towards(Fill("liver"), follow=True), Plain(), 4),
    "dag": dag(Unbounded(Budget(0.05, Unit.STORED)), Permute(), 12),
}


@dataclass(frozen=True, eq=False)
class Noisy(Stateless):
    """A victim that adds noise of its own to the image, drawn when it is prepared."""

    noise: Tensor | None = None

    def prepare(self, x0: Tensor, rng: Rng) -> Noisy:
        return replace(self, noise=rng.fork("noise").uniform(x0) - 0.5)

    def take(self, index: Tensor) -> Noisy:
        return replace(self, noise=None if self.noise is None else self.noise[index])

    def __call__(self, x: Tensor) -> Tensor:
        return self.answer(x if self.noise is None else x + self.noise)


def noisy() -> Noisy:
    return Noisy(curved().network, Softmax(ORGANS))


def same(one: object, other: object) -> None:
    for name in ("x", "merit", "size", "zero_gradient_share"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=0, atol=0, equal_nan=True)
    assert one.passes == other.passes
    assert set(one.trace) == set(other.trace)
    for name, row in one.trace.items():
        torch.testing.assert_close(row, other.trace[name], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", ATTACKS)
def test_one_victim_jointly_is_that_victim(name: str) -> None:
    victim, x, truth = scene()
    attack = ATTACKS[name]
    plain = attack(victim, x, truth, rng=STREAMS)
    same(attack(Joint([victim]), x, truth, rng=STREAMS), plain)
    same(replace(attack, objective=Together([attack.objective]))(Joint([victim]), x, (truth,), rng=STREAMS), plain)
    same(attack(Joint([Joint([victim])]), x, truth, rng=STREAMS), plain)


@pytest.mark.parametrize("name", ATTACKS)
def test_one_draw_is_the_plain_attack(name: str) -> None:
    _, x, truth = scene()
    same(ATTACKS[name](Draws(noisy(), 1), x, truth, rng=STREAMS), ATTACKS[name](noisy(), x, truth, rng=STREAMS))


def test_two_linear_victims_are_climbed_by_the_sum_of_their_weights() -> None:
    first, second = normal((1, 1, 40), 1), normal((1, 1, 40), 2)
    x, truth = normal((2, 1, 40)), torch.randint(0, 2, (2, 40))
    found = ifgsm(BALL, 3, logit_margin)(Joint([linear(first), linear(second)]), x, truth)
    sign = torch.where(truth == 1, -1, 1).unsqueeze(1)
    expected = x + 0.3 * (sign * (first + second)).sign()
    torch.testing.assert_close(found.x, expected)
    alone = ifgsm(BALL, 3, logit_margin)(linear(first), x, truth)
    assert not torch.equal(found.x, alone.x)
    assert found.passes == Passes(6, 6)


def test_each_victim_may_have_an_aim_of_its_own() -> None:
    """One perturbation, and a different answer of each of two linear victims."""
    first, second = torch.zeros(1, 2, 30).double(), torch.zeros(1, 2, 30).double()
    first[:, 0], second[:, 1] = normal((1, 30), 1), normal((1, 30), 2)  # each looks at a modality of its own
    x, truth = normal((1, 2, 30)), torch.randint(0, 2, (1, 30))
    objectives = [Towards(Fill("lesion", "everywhere")), Towards(Fill("background", "everywhere"))]
    attack = Attack(BALL, Together(objectives), Plain(), 3, keep="last")
    found = attack(Joint([linear(first), linear(second)]), x, truth)
    expected = torch.stack([x[:, 0] + 0.3 * first[:, 0].sign(), x[:, 1] - 0.3 * second[:, 1].sign()], 1)
    torch.testing.assert_close(found.x, expected)
    assert not torch.allclose(replace(attack, objective=objectives[0])(linear(first), x, truth).x, expected)


def test_two_networks_can_be_shown_two_figures() -> None:
    """The figure of Xie et al.: one perturbation, and each network sees a mask of its own."""
    own = normal((1, 2, 12, 12), 4)
    halves = [torch.cat([own, 0 * own], 1), torch.cat([0.3 * own, own], 1)]  # the second looks at all, most at its own
    joint = Joint([linear(each, -1.0) for each in halves])
    x, truth = normal((1, 4, 12, 12)) * 0.2, torch.zeros(1, 12, 12, dtype=torch.int64)
    figures = [Shape("square", "lesion", where="everywhere"), Shape("circle", "lesion", 0.8, where="everywhere")]
    wanted = [Exchange(each, "released") for each in figures]
    attack = replace(dag(Unbounded(Budget(0.2, Unit.STORED)), steps=200), objective=Together(wanted))
    found = attack(joint, x, truth)
    streams = Rng.seeded(0, 1)
    aims = [each(Voxels.of(Softmax(LESION), truth), torch.zeros(0, 0, 0), streams).truth for each in figures]
    for seen, aim in zip(joint.predict(found.x), aims, strict=True):
        assert torch.equal(seen[aim == 1], aim[aim == 1])
    assert found.merit.tolist() == [1]
    counts = [(aim == 1).sum() for aim in aims]
    assert found.trace["active"][0].item() == sum(counts) > max(counts)


def test_the_merit_is_the_least_and_done_is_all() -> None:
    """A victim that was wrong all along does not end the attack on the other, nor praise it."""
    x, truth = normal((2, 1, 20)), torch.ones(2, 20, dtype=torch.int64)
    lost, firm = linear(torch.zeros(1, 1, 20).double(), -1.0), linear(torch.ones(1, 1, 20).double(), 50.0)
    found = Attack(BALL, Away(logit_margin), Plain(), 4)(Joint([lost, firm]), x, truth)
    assert found.merit.tolist() == [0, 0]
    assert found.passes == Passes(10, 8)  # nobody left
    soon = Attack(BALL, Away(logit_margin), Plain(), 4)(Joint([lost, lost]), x, truth)
    assert soon.merit.tolist() == [1, 1]
    assert soon.passes == Passes(2, 2)


def test_several_draws_are_climbed_by_the_mean_of_their_losses() -> None:
    victim, x, truth = noisy(), normal((3, 2, 6, 5)), organs((3, 6, 5))
    draws = Draws(victim, 4).prepare(x, STREAMS.fork("victim"))
    assert len({tuple(each.noise.flatten().tolist()) for each in draws.drawn}) == 4
    leaf = x.clone().requires_grad_()
    losses = torch.stack([cross_entropy(each(leaf), each.targets(truth)) for each in draws.drawn])
    (gradient,) = torch.autograd.grad(losses.mean(0).sum(), leaf)
    found = Attack(BALL, Away(), Plain(0.5), 1, keep="last")(Draws(victim, 4), x, truth, rng=STREAMS)
    torch.testing.assert_close(found.x, x + 0.15 * gradient.sign(), rtol=0, atol=1e-12)
    torch.testing.assert_close(found.trace["value"][0], losses.mean(0))
    assert found.passes == Passes(4, 4)
    won = [(each(x).argmax(1) != each.targets(truth).labels).flatten(1).double().mean(1) for each in draws.drawn]
    torch.testing.assert_close(found.trace["merit"][0], torch.stack(won).mean(0))


def test_draws_do_not_depend_on_batch_mates() -> None:
    _, x, truth = scene()
    attack = Attack(BALL, Away(logit_margin, pending=True), Plain(), 12, random)
    together = attack(Draws(noisy(), 3), x, truth, rng=STREAMS)
    for i in range(3):
        index = torch.tensor([i])
        alone = attack(Draws(noisy(), 3), x[index], truth[index], rng=STREAMS.take(index))
        torch.testing.assert_close(alone.x, together.x[index], rtol=0, atol=1e-9)


def test_draws_may_be_of_several_victims_and_several_of_draws() -> None:
    victim, x, truth = noisy(), normal((2, 2, 6, 5)), organs((2, 6, 5))
    both = Together([Away(), Towards(erase("liver"))])
    attack = Attack(BALL, both, Plain(0.5), 3)
    inner, outer = Draws(Joint([victim, curved()]), 2), Joint([Draws(victim, 2), Draws(curved(), 2)])
    one, other = attack(inner, x, truth), attack(outer, x, truth)
    torch.testing.assert_close(one.trace["value"], other.trace["value"])  # the mean of sums is the sum of means
    assert one.passes == other.passes == Passes(4, 4) * 3 + Passes(4, 0)


@pytest.mark.parametrize(
    "make", [lambda a: WorstOf([a, ifgsm(BALL, 2)], Away(merit=dice_lost)), lambda a: Restarts(a, 3)]
)
def test_attacks_made_of_attacks_take_them_as_one_victim(make: object) -> None:
    victim, x, truth = scene()
    other = replace(curved(), network=torch.nn.Conv2d(2, 3, 1).double())
    whole = make(pgd(BALL, 3))
    same(whole(Joint([victim]), x, truth, rng=STREAMS), whole(victim, x, truth, rng=STREAMS))
    found = whole(Joint([victim, other]), x, truth, rng=STREAMS)
    assert torch.equal(found.merit, found.trace["merit"].amax(0))
    drawn = whole(Draws(noisy(), 2), x, truth, rng=STREAMS)
    assert torch.equal(drawn.merit, drawn.trace["merit"].amax(0))
    shown = Transfer(pgd(BALL, 3), Joint([victim, other]))(victim, x, truth, rng=STREAMS)
    assert torch.equal(shown.x, pgd(BALL, 3)(Joint([victim, other]), x, truth, rng=STREAMS).x)


def test_all_that_can_be_doubted_of_one_answer_is_doubted_of_each() -> None:
    victim, x, truth = scene()
    nan = Stateless(lambda z: victim(z) * torch.nan, Softmax(ORGANS))
    sure = Stateless(lambda z: victim(z).softmax(1), Softmax(ORGANS))
    cut = Stateless(lambda z: victim(z).detach(), Softmax(ORGANS))
    for bad, match in ((nan, "NaN or infinity"), (sure, "probabilities")):
        for whole in (Joint([victim, bad]), Draws(bad, 2)):
            with pytest.raises(VictimError, match=match):
                ATTACKS["ifgsm"](whole, x, truth)
    with pytest.raises(GradientError, match="does not depend"):
        ATTACKS["ifgsm"](Joint([cut, cut]), x, truth)
    with pytest.raises(VictimError, match="different grids"):
        ATTACKS["ifgsm"](Joint([victim, Stateless(lambda z: victim(z)[..., :2], Softmax(ORGANS))]), x, truth)
    check_steady(Draws(noisy(), 3), x)
    check_steady(Joint([victim, noisy()]), x)
    with pytest.raises(VictimError, match="differently between calls"):
        check_steady(Joint([victim, Stateless(lambda z: victim(z) + torch.rand_like(z[:, :1]))]), x)


def test_each_victim_may_have_a_truth_of_its_own() -> None:
    x = normal((2, 1, 20))
    first, second = torch.zeros(2, 20, dtype=torch.int64), torch.ones(2, 20, dtype=torch.int64)
    weights = [normal((1, 1, 20), seed) for seed in (1, 2)]
    joint = Joint([linear(each) for each in weights])
    found = ifgsm(BALL, 2, logit_margin)(joint, x, (first, second))
    torch.testing.assert_close(found.x, x + 0.3 * (weights[0] - weights[1]).sign())
    with pytest.raises(ConfigError, match="one truth for each victim"):
        ifgsm(BALL, 2)(joint, x, (first, second, first))
    with pytest.raises(ConfigError, match="needs the truth"), unchecked():
        ifgsm(BALL, 2)(joint, x, (first, None))


def test_a_truth_is_a_map_or_one_list_of_objects_a_sample() -> None:
    victim, x, truth = scene()
    none = Objects.none(2)
    with unchecked():
        with pytest.raises(ConfigError, match="needs the truth") as refusal:
            ATTACKS["ifgsm"](victim, x, none)
        assert "into a list" in refusal.value.details["try"]
        with pytest.raises(ConfigError, match="another number of samples"):
            ATTACKS["ifgsm"](victim, x, [none, none])
        for strange in ([None] * 3, "abc", [truth] * 3):
            with pytest.raises(ConfigError, match="needs the truth"):
                ATTACKS["ifgsm"](victim, x, strange)
        for listed in ([none] * 3, (none,) * 3):
            with pytest.raises(VictimError, match="attacked by a label map"):
                ATTACKS["ifgsm"](victim, x, listed)


def test_what_goes_together_is_counted() -> None:
    victim, x, truth = scene()
    with pytest.raises(ConfigError, match="one objective for each victim"):
        Attack(BALL, Together([Away(), Away()]), Plain(), 2)(Joint([victim]), x, truth)
    with pytest.raises(ConfigError, match="one objective for each victim"):
        Attack(BALL, Together([Away()]), Plain(), 2)(victim, x, truth)
    with unchecked():
        for make in (lambda: Joint([]), lambda: Joint(victim), lambda: Together([]), lambda: Together([Away])):
            with pytest.raises(ConfigError):
                make()
        with pytest.raises(VictimError, match="no victim"):
            Joint([victim, torch.nn.Conv2d(2, 3, 1)])
        with pytest.raises(VictimError, match="no victim"):
            Draws(torch.nn.Conv2d(2, 3, 1), 3)
        for count in (0, -1, 2.0, True):
            with pytest.raises(ConfigError, match="one draw or more"):
                Draws(victim, count)


def test_networks_are_as_they_were_afterwards() -> None:
    victims = [curved(), curved()]
    victims[0].network.train()
    x, truth = normal((1, 2, 6, 5)), organs((1, 6, 5))
    before = [(p.requires_grad, p.clone()) for v in victims for p in v.network.parameters()]
    ifgsm(BALL, 3)(Joint([*victims, Draws(victims[0], 2)]), x, truth)
    assert [v.network.training for v in victims] == [True, False]
    for (flag, values), p in zip(before, [p for v in victims for p in v.network.parameters()], strict=True):
        assert p.requires_grad == flag
        assert torch.equal(p, values)


def test_answers_of_a_joint_are_those_of_its_victims() -> None:
    victim, x, _ = scene()
    lesion = Stateless(lambda z: victim(z)[:, :2], Softmax(LESION))
    first, second = Joint([victim, lesion]).predict(x)
    assert torch.equal(first, victim.predict(x))
    assert torch.equal(second, lesion.predict(x))
    assert torch.equal(Draws(victim, 3).predict(x), victim.predict(x))
