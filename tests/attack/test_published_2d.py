"""The attacks of Arnab et al. 2018 on a small picture network, in 0 to 255 and without a legal range, from their code's
formulas stated once more."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from attack.stand_ins import Curved, Stateless
from runtime_types import unchecked
from torch import Tensor
from torch.nn.functional import cross_entropy

from medadv.attack.losses import logit_margin
from medadv.attack.presets import dag, fgsm, fgsm_ll, ifgsm, ifgsm_ll, kurakin, tifgsm
from medadv.attack.relabel import LeastLikely, Rank
from medadv.attack.threat import Linf
from medadv.attack.unbounded import Unbounded
from medadv.errors import BudgetError, ConfigError
from medadv.labels import LabelScheme
from medadv.victims.head import Softmax

ZOO = LabelScheme("zoo", {"background": 0, "cat": 1, "cow": 2, "dog": 3}, void=255)
EVERYWHERE = torch.ones(2, 3, 7, 6, dtype=torch.bool)
Labels = Callable[[Tensor], Tensor]


def scene() -> tuple[Stateless, Tensor, Tensor]:
    """A network that subtracts means, pictures of grey levels, and a truth with void pixels."""
    torch.manual_seed(7)
    network = Curved(3, 4).double().eval()
    means = torch.tensor([103.939, 116.779, 123.68], dtype=torch.float64).view(1, 3, 1, 1)
    victim = Stateless(lambda x: network((x - means) / 20), Softmax(ZOO))
    truth = torch.randint(0, 4, (2, 7, 6))
    truth[:, 0] = 255
    return victim, torch.randint(0, 256, (2, 3, 7, 6)).double(), truth


def ball(epsilon: float) -> Linf:
    with unchecked():
        return Linf(f"{epsilon} 0-255", None, (0, 255))


def attacked(
    victim: Stateless, x0: Tensor, labels: Labels, epsilon: float, alpha: float, steps: int, sign: int
) -> Tensor:
    """x ← clip(x + sign · α · sign(∇ CE(f(x), labels of x)), x0 ± ε), the pixels' losses summed, void ones left out."""
    x = x0.clone()
    for _ in range(steps):
        leaf = x.clone().requires_grad_()
        loss = cross_entropy(victim(leaf), labels(x), ignore_index=255, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, leaf)
        x = (x + sign * alpha * gradient.sign()).clamp(x0 - epsilon, x0 + epsilon)
    return x


def ranked(victim: Stateless, void: Tensor, rank: int) -> Labels:
    """The class of a rank, of the likeliest 1, at whatever input is asked; void pixels stay void."""
    return lambda x: torch.where(void, 255, victim(x).sort(1, descending=True).indices[:, rank - 1])


@pytest.mark.parametrize("epsilon", [0.25, 4.0, 32.0])
def test_fgsm_and_ifgsm_are_those_of_the_paper(epsilon: float) -> None:
    victim, x, truth = scene()
    own = victim(x).argmax(1)  # the expert's void is a class like another
    steps, size = kurakin(f"{epsilon} 0-255")
    for attack, labels, alpha, n in [
        (fgsm(ball(epsilon)), truth, epsilon, 1),
        (fgsm(ball(epsilon), labels="prediction"), own, epsilon, 1),
        (ifgsm(ball(epsilon), steps, size=size), truth, min(1.0, epsilon), steps),
        (ifgsm(ball(epsilon), steps, size=size, labels="prediction"), own, min(1.0, epsilon), steps),
    ]:
        found = attack(victim, x, truth, support=EVERYWHERE)
        expected = attacked(victim, x, lambda _, labels=labels: labels, epsilon, alpha, n, 1)
        torch.testing.assert_close(found.x, expected, rtol=0, atol=1e-6)
        assert (found.x - x).abs().max().item() == pytest.approx(min(epsilon, n * alpha))
    assert found.x.min() < 0 or epsilon < 1  # nothing is clipped at 0 and 255


@pytest.mark.parametrize("epsilon", [0.5, 8.0])
@pytest.mark.parametrize("rank", [None, 2, 3])
def test_the_targeted_ones_descend_towards_a_rank_fixed_or_anew(epsilon: float, rank: int | None) -> None:
    victim, x, truth = scene()
    wanted = ranked(victim, truth == 255, rank or 4)
    fixed = wanted(x)
    alpha = min(1.0, epsilon)
    size = alpha / epsilon
    one = fgsm_ll(ball(epsilon), rank=rank)(victim, x, truth, support=EVERYWHERE)
    expected = attacked(victim, x, lambda _: fixed, epsilon, epsilon, 1, -1)
    torch.testing.assert_close(one.x, expected, rtol=0, atol=1e-6)
    many = ifgsm_ll(ball(epsilon), 7, size=size, rank=rank)(victim, x, truth, support=EVERYWHERE)
    torch.testing.assert_close(many.x, attacked(victim, x, lambda _: fixed, epsilon, alpha, 7, -1), rtol=0, atol=1e-6)
    anew = ifgsm_ll(ball(epsilon), 7, size=size, rank=rank, follow=True)(victim, x, truth, support=EVERYWHERE)
    torch.testing.assert_close(anew.x, attacked(victim, x, wanted, epsilon, alpha, 7, -1), rtol=0, atol=1e-6)


def test_of_its_own_answer_the_targeted_ones_push_void_pixels_too() -> None:
    victim, x, truth = scene()
    wanted = ranked(victim, truth == 256, 4)
    one = fgsm_ll(ball(8.0), labels="prediction")(victim, x, truth, support=EVERYWHERE)
    torch.testing.assert_close(one.x, attacked(victim, x, wanted, 8.0, 8.0, 1, -1), rtol=0, atol=1e-6)
    anew = ifgsm_ll(ball(8.0), 5, size=1 / 8, follow=True, labels="prediction")(victim, x, truth, support=EVERYWHERE)
    torch.testing.assert_close(anew.x, attacked(victim, x, wanted, 8.0, 1.0, 5, -1), rtol=0, atol=1e-6)


def test_fixed_and_each_step_are_two_attacks() -> None:
    victim, x, truth = scene()
    fixed, anew = (
        ifgsm_ll(ball(32), 20, size=1 / 8, follow=follow)(victim, x, truth, support=EVERYWHERE).x
        for follow in (False, True)
    )
    assert not torch.equal(fixed, anew)


def test_the_last_rank_is_the_least_likely_class() -> None:
    victim, x, truth = scene()
    for last, least in [
        (fgsm_ll(ball(4), rank=4), fgsm_ll(ball(4))),
        (ifgsm_ll(ball(4), rank=4, follow=True), tifgsm(ball(4), LeastLikely(), follow=True)),
        (ifgsm_ll(ball(4), 3, "logit margin"), tifgsm(ball(4), LeastLikely(), 3, logit_margin)),
    ]:
        ours, theirs = (attack(victim, x, truth, support=EVERYWHERE).x for attack in (last, least))
        assert torch.equal(ours, theirs)
    assert fgsm_ll(ball(4)) == tifgsm(ball(4), LeastLikely(), 1)


@pytest.mark.parametrize("rank", [0, 1, -1, 2.0, True, None])
def test_the_decided_class_is_no_aim(rank: object) -> None:
    with unchecked(), pytest.raises(ConfigError, match="second likeliest"):
        Rank(rank)


def test_a_rank_beyond_the_classes_is_refused() -> None:
    victim, x, truth = scene()
    with pytest.raises(ConfigError, match="fewer classes"):
        fgsm_ll(ball(4), rank=5)(victim, x, truth, support=EVERYWHERE)


def test_kurakins_schedule() -> None:
    found = {epsilon: kurakin(f"{epsilon} 0-255") for epsilon in (0.25, 0.5, 1, 2, 4, 8, 16, 32)}
    assert [steps for steps, _ in found.values()] == [1, 1, 2, 3, 5, 10, 20, 36]
    for epsilon, (_, size) in found.items():
        assert math.isclose(size * epsilon, min(epsilon, 1))  # one grey level, at most the budget
    assert kurakin("0 0-255") == (1, 1.0)


@pytest.mark.parametrize("budget", [8, "8", "8 sigma", "0.1 minmax", "8 stored", "8/4/8 0-255"])
def test_what_counts_in_no_grey_levels_has_no_such_schedule(budget: object) -> None:
    with pytest.raises(BudgetError, match="grey levels"):
        kurakin(budget)


def test_one_step_of_the_whole_budget_is_fgsm() -> None:
    """Where Kurakin's schedule has one step of ε, the iterative attack equals the single step."""
    victim, x, truth = scene()
    for epsilon in (0.25, 0.5):
        steps, size = kurakin(f"{epsilon} 0-255")
        one, many = fgsm(ball(epsilon)), ifgsm(ball(epsilon), steps, size=size)
        assert torch.equal(one(victim, x, truth, support=EVERYWHERE).x, many(victim, x, truth, support=EVERYWHERE).x)


def test_dag_counts_no_void_pixel_and_clips_nothing() -> None:
    victim, x, truth = scene()
    seen = torch.where(truth == 255, 255, victim(x).argmax(1))
    with unchecked():
        attack = dag(Unbounded("6 0-255", None, (0, 255)), steps=60)
    found = attack(victim, x, seen, support=EVERYWHERE)
    active = found.trace["active"].nan_to_num(0)
    assert torch.equal(active[0], ((seen != 255) & (seen != 0)).flatten(1).sum(1).double())
    assert active[-1].sum() < active[0].sum() / 2
    assert found.x.min() < 0
    assert dag("0.5 0-255") == dag()
