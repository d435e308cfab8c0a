"""Apart from the clean answer: the divergence by its definition, what counts as changed, and where an attack goes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from attack.stand_ins import ORGANS, linear, normal, organs, scene
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, kl_divergence

from medadv.attack.budget import Budget, Unit
from medadv.attack.loop import Attack, near, random
from medadv.attack.objective import Apart, dice_lost
from medadv.attack.presets import klpgd
from medadv.attack.rng import Rng
from medadv.attack.steps import Plain
from medadv.attack.threat import Linf
from medadv.labels import BRATS_2018
from medadv.victims.head import Sigmoid, Softmax, Voxels

REGIONS = Sigmoid(BRATS_2018, ("WT", "TC", "ET"))
STREAMS = Rng.seeded(0, 2)


def softmax_scene() -> tuple[Tensor, Tensor, Voxels]:
    """The clean answer, another one, and targets of which some are void."""
    targets = Voxels.of(Softmax(ORGANS), organs((2, 5, 4)))
    targets = targets.within(torch.rand(targets.labels.shape) < 0.7)
    return 2 * normal((2, 3, 5, 4), 1), 2 * normal((2, 3, 5, 4), 2), targets


def sigmoid_scene() -> tuple[Tensor, Tensor, Voxels]:
    """The same for a region head."""
    targets = Voxels.of(REGIONS, torch.tensor([0, 1, 2, 4])[torch.randint(0, 4, (2, 5, 4))])
    targets = targets.within(torch.rand(targets.labels.shape) < 0.7)
    return REGIONS.logits(2 * normal((2, 3, 5, 4), 1)), REGIONS.logits(2 * normal((2, 3, 5, 4), 2)), targets


SCENES = {"softmax": softmax_scene, "sigmoid": sigmoid_scene}


@pytest.mark.parametrize("kind", SCENES)
def test_the_value_is_the_divergence_from_the_clean_answer_summed_over_what_counts(kind: str) -> None:
    clean, raw, targets = SCENES[kind]()
    if kind == "softmax":
        each = kl_divergence(*(Categorical(logits=z.movedim(1, -1)) for z in (clean, raw)))
    else:  # each region's own probability
        each = kl_divergence(*(Bernoulli(logits=z[:, 1]) for z in (clean, raw)))
    expected = (each * targets.where).flatten(1).sum(1)
    value = Apart().prepare(clean, targets, STREAMS)(raw, 0.0).value
    torch.testing.assert_close(value, expected)
    other_way = Apart().prepare(raw, targets, STREAMS)(clean, 0.0).value
    assert ((value - other_way).abs() > 0.5).all()  # and which of the two is the reference makes a difference


@pytest.mark.parametrize("kind", SCENES)
def test_the_merit_is_the_share_of_decisions_that_changed(kind: str) -> None:
    clean, raw, targets = SCENES[kind]()
    changed = clean.argmax(1) != raw.argmax(1)
    judgement = Apart().prepare(clean, targets, STREAMS)(raw, 0.0)
    counted = targets.where.flatten(1).sum(1)
    torch.testing.assert_close(judgement.merit, (changed & targets.where).flatten(1).sum(1) / counted)
    assert (judgement.merit > 0.2).all()
    assert not judgement.done.any()
    all_else = Apart().prepare(clean, targets, STREAMS)(-clean if kind == "sigmoid" else clean.roll(1, 1), 0.0)
    assert all_else.done.all()
    assert all_else.merit.tolist() == [1, 1]
    here = Apart().prepare(clean, targets, STREAMS)(clean, 0.0)
    assert here.merit.tolist() == [0, 0]


def test_another_merit_is_asked_about_the_clean_decision() -> None:
    clean, raw, targets = softmax_scene()
    lost = Apart(dice_lost).prepare(clean, targets, STREAMS)(raw, 0.0).merit
    by_hand = dice_lost(targets.where, raw, targets.labelled(clean.argmax(1)))
    assert torch.equal(lost, by_hand)
    assert not torch.equal(lost, dice_lost(targets.where, raw, targets))


@pytest.mark.parametrize("kind", SCENES)
def test_the_truth_has_no_say(kind: str) -> None:
    clean, raw, targets = SCENES[kind]()
    other = targets.labelled(1 - targets.labels.clamp(max=1))
    one, two = (Apart().prepare(clean, t, STREAMS)(raw, 0.0) for t in (targets, other))
    assert torch.equal(one.value, two.value)
    assert torch.equal(one.merit, two.merit)


@pytest.mark.parametrize("kind", SCENES)
def test_its_gradient_is_that_of_finite_differences(kind: str) -> None:
    clean, raw, targets = SCENES[kind]()
    goal = Apart().prepare(clean, targets, STREAMS)
    assert torch.autograd.gradcheck(lambda z: goal(z, 0.0).value, raw.requires_grad_())


@pytest.mark.parametrize("kind", SCENES)
def test_at_the_clean_answer_there_is_no_gradient_but_rounding(kind: str) -> None:
    clean, raw, targets = SCENES[kind]()
    goal = Apart().prepare(clean, targets, STREAMS)
    sizes = {}
    for name, z in (("clean", clean), ("other", raw)):
        at = z.clone().requires_grad_()
        judgement = goal(at, 0.0)
        (gradient,) = torch.autograd.grad(judgement.value.sum(), at)
        sizes[name] = gradient.abs().amax().item()
        assert (judgement.value >= -1e-12).all()
    assert sizes["clean"] < 1e-15
    assert sizes["other"] > 0.1


def test_a_clean_answer_with_a_graph_is_held_without() -> None:
    clean, raw, targets = softmax_scene()
    assert not Apart().prepare(clean.requires_grad_(), targets, STREAMS)(raw, 0.0).value.requires_grad


def test_very_large_logits_stay_finite() -> None:
    targets = Voxels.of(Softmax(ORGANS), organs((2, 5, 4)))
    clean, raw = 1e4 * normal((2, 3, 5, 4), 1), (1e4 * normal((2, 3, 5, 4), 2)).requires_grad_()
    value = Apart().prepare(clean, targets, STREAMS)(raw, 0.0).value
    (gradient,) = torch.autograd.grad(value.sum(), raw)
    assert torch.isfinite(value).all()
    assert torch.isfinite(gradient).all()
    assert gradient.abs().sum() > 0


def test_a_part_of_the_batch_is_judged_as_in_it() -> None:
    clean, raw, targets = softmax_scene()
    goal = Apart().prepare(clean, targets, STREAMS)
    part = goal.take(torch.tensor([1]))(raw[1:], 0.0)
    torch.testing.assert_close(part.value, goal(raw, 0.0).value[1:])
    torch.testing.assert_close(part.merit, goal(raw, 0.0).merit[1:])


def test_on_a_linear_victim_each_voxel_goes_on_to_the_side_where_it_starts() -> None:
    """The divergence of a sigmoid grows with the distance from the clean logit, on either side of it."""
    x, weight = normal((2, 1, 30), 1), normal((2, 1, 30), 2)
    nudge = 0.02 * normal((2, 1, 30), 3).sign()
    attack = Attack(Linf(Budget(0.4, Unit.STORED), None), Apart(), Plain(0.25), 8, near(x + nudge), keep="last")
    found = attack(linear(weight), x, torch.zeros(2, 30, dtype=torch.int64))
    np.testing.assert_allclose(found.x.numpy(), (x + 0.4 * nudge.sign()).numpy(), rtol=0, atol=1e-12)
    assert found.zero_gradient_share.tolist() == [0, 0]


def test_the_best_kept_is_where_most_has_changed() -> None:
    victim, x, truth = scene()
    attack = Attack(Linf(Budget(0.5, Unit.STORED)), Apart(), Plain(0.5), 6, random)
    found = attack(victim, x, truth)
    changed = victim.predict(found.x) != victim.predict(x)
    torch.testing.assert_close(found.merit, changed.flatten(1).double().mean(1))
    assert torch.equal(found.merit, found.trace["merit"].amax(0))
    assert (found.merit > 0.1).all()


def test_the_preset_climbs_the_divergence_from_a_random_start_and_needs_no_truth() -> None:
    victim, x, truth = scene()
    attack = klpgd("0.3 stored", steps=5, size=0.2)
    assert attack == Attack(Linf(Budget(0.3, Unit.STORED)), Apart(), Plain(0.2), 5, random, keep="last")
    found = attack(victim, x, truth)
    assert (found.trace["value"].diff(dim=0)[-1] > 0).all()
    assert (found.trace["value"][0] > 0).all()
    assert torch.equal(found.x, attack(victim, x, torch.zeros_like(truth)).x)
    assert klpgd("0.3 stored", steps=5) == replace(attack, step=Plain())


def test_batch_mates_do_not_matter() -> None:
    victim, x, truth = scene()
    rng = Rng.seeded(4, ["a", "b", "c"])
    attack = Attack(Linf(Budget(0.3)), Apart(), Plain(), 6, random)
    together = attack(victim, x, truth, rng=rng)
    for i in range(3):
        part = torch.tensor([i])
        alone = attack(victim, x[part], truth[part], rng=rng.take(part))
        torch.testing.assert_close(together.x[part], alone.x, rtol=0, atol=1e-12)
