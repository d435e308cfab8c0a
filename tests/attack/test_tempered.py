"""A loss at logits / T: by its definition, and where logits are so large that the softmax has no gradient."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from attack.stand_ins import LESION, ORGANS, Stateless, normal, organs
from runtime_types import unchecked
from torch import Tensor

from medadv.attack.checks import silent_share
from medadv.attack.losses import LOSSES, Loss, Tempered, cross_entropy, logit_margin, soft_dice
from medadv.attack.presets import fgsm, ifgsm
from medadv.errors import ConfigError, GradientWarning
from medadv.labels import BRATS_2018
from medadv.victims.head import Head, Sigmoid, Softmax, Voxels
from medadv.victims.normalize import ZScore
from medadv.victims.segmentation import Segmenter

REGIONS = Sigmoid(BRATS_2018, ("WT", "TC", "ET"))


def softmax_scene() -> tuple[Tensor, Voxels]:
    return 3 * normal((2, 3, 5, 4)), Voxels.of(Softmax(ORGANS), organs((2, 5, 4)))


def sigmoid_scene() -> tuple[Tensor, Voxels]:
    truth = torch.tensor([0, 1, 2, 4])[torch.randint(0, 4, (2, 5, 4))]
    return REGIONS.logits(3 * normal((2, 3, 5, 4))), Voxels.of(REGIONS, truth)


SCENES = {"softmax": softmax_scene, "sigmoid": sigmoid_scene}


@pytest.mark.parametrize("kind", SCENES)
@pytest.mark.parametrize("loss", LOSSES)
def test_at_one_it_is_the_loss_itself(loss: str, kind: str) -> None:
    logits, targets = SCENES[kind]()
    assert torch.equal(Tempered(loss, 1)(logits, targets), LOSSES[loss](logits, targets))
    assert not torch.equal(Tempered(loss, 2)(logits, targets), LOSSES[loss](logits, targets))


@pytest.mark.parametrize("kind", SCENES)
def test_cross_entropy_at_a_temperature_by_its_definition(kind: str) -> None:
    logits, targets = SCENES[kind]()
    powers = (logits / 7).exp()
    own = (powers / powers.sum(1, keepdim=True)).gather(1, targets.labels.unsqueeze(1))
    torch.testing.assert_close(Tempered(cross_entropy, 7.0)(logits, targets), -own.log().flatten(1).sum(1))


def test_the_margin_shrinks_with_the_temperature_and_does_not_turn() -> None:
    logits, targets = softmax_scene()
    torch.testing.assert_close(Tempered(logit_margin, 8)(logits, targets), logit_margin(logits, targets) / 8)


@pytest.mark.parametrize("kind", SCENES)
def test_its_gradient_is_that_of_finite_differences(kind: str) -> None:
    logits, targets = SCENES[kind]()
    assert torch.autograd.gradcheck(lambda z: Tempered("dice", 3)(z, targets), logits.requires_grad_())


def test_losses_of_one_temperature_are_equal_and_nest() -> None:
    logits, targets = softmax_scene()
    assert Tempered("dice", 2) == Tempered(soft_dice, 2.0)
    assert hash(Tempered("dice", 2)) == hash(Tempered(soft_dice, 2.0))
    twice = Tempered(Tempered("dice", 2), 4)
    torch.testing.assert_close(twice(logits, targets), Tempered("dice", 8)(logits, targets))


@pytest.mark.parametrize("temperature", [0, 0.0, -1, math.inf, math.nan, None, "10", True])
def test_no_temperature_above_zero_is_refused(temperature: Any) -> None:
    with unchecked(), pytest.raises(ConfigError, match="temperature above 0"):
        Tempered("dice", temperature)


def test_an_unknown_loss_is_refused_beforehand() -> None:
    with pytest.raises(ConfigError, match="no such loss"):
        Tempered("dcie", 10)


SCALE = 100.0
"""Logits of a network that was trained at this temperature and deployed without it."""


def saturated(head: Head, channels: int) -> tuple[Stateless, Tensor, Tensor]:
    """A linear victim in float32, right everywhere, at SCALE times its logits; an image of its channels, its answer."""
    x = normal((2, channels, 9, 8)).float()
    x += x.sign()  # no voxel lies on the edge, where any scale has a gradient
    victim = Stateless(lambda image: head.logits(SCALE * image), head)
    return victim, x, victim.predict(x)


HEADS: dict[str, tuple[Head, int]] = {
    "two classes": (Softmax(LESION), 2),
    "four classes": (Softmax(BRATS_2018), 4),
    "one region": (Sigmoid(BRATS_2018, ("WT",)), 1),
}


@pytest.mark.parametrize("head", HEADS)
def test_large_logits_hide_the_gradient_of_cross_entropy_alone(head: str) -> None:
    """The share of exactly zero gradients, in float32, as an attack records it."""
    victim, x, truth = saturated(*HEADS[head])
    shares: dict[str, float] = {}
    losses: dict[str, Loss] = {
        "plain": cross_entropy,
        "dice": soft_dice,
        "tempered": Tempered(cross_entropy, SCALE),
        "tempered dice": Tempered(soft_dice, SCALE),
        "margin": logit_margin,
    }
    for name, loss in losses.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GradientWarning)
            shares[name] = fgsm("0.1 stored", loss)(victim, x, truth).zero_gradient_share.min().item()
    classes = len(HEADS[head][0].channels)
    assert shares["plain"] > 0.5
    assert shares["dice"] > 0.5
    assert shares["tempered"] == 0
    assert shares["tempered dice"] == 0
    idle = max(classes - 2, 0)  # of a margin only the label's class and the best other one move
    assert shares["margin"] == pytest.approx(idle / classes)


@pytest.mark.parametrize("head", HEADS)
def test_the_tempered_attack_moves_a_saturated_victim_as_the_plain_one_would_without_its_scale(head: str) -> None:
    kind, channels = HEADS[head]
    victim, x, truth = saturated(kind, channels)
    unscaled = Stateless(kind.logits, kind)
    tempered = ifgsm("2.5 stored", 8, Tempered("cross entropy", SCALE))(victim, x, truth)
    plain = ifgsm("2.5 stored", 8)(unscaled, x, truth)
    torch.testing.assert_close(tempered.x, plain.x, rtol=0, atol=1e-6)
    assert (victim.predict(tempered.x) != truth).double().mean() > 0.2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GradientWarning)
        blind = ifgsm("2.5 stored", 8)(victim, x, truth)
    assert (victim.predict(blind.x) != truth).sum() < (victim.predict(tempered.x) != truth).sum()


def test_a_silent_target_is_one_whose_share_is_one_to_the_last_digit() -> None:
    """A region's cross entropy has the gradient p - y at its logit: 0 where p, in float32, is y."""
    z = torch.linspace(-200, 200, 401)
    victim = Stateless(lambda x: Sigmoid(LESION, ("L",)).logits(x), Sigmoid(LESION, ("L",)))
    x, truth = z.view(1, 1, -1), (torch.arange(401) % 2).view(1, -1)
    odds = np.exp(-np.abs(z.numpy()), dtype=np.float32)
    share = np.where(z.numpy() > 0, 1 / (1 + odds), odds / (1 + odds))
    silent = share == truth[0].numpy()
    assert 0.2 < silent.mean() < 0.5
    assert silent_share(victim, x, truth).item() == pytest.approx(silent.mean(), abs=2 / 401)
    assert silent_share(victim, x, truth, Tempered("cross entropy", 100)).item() == 0
    assert silent_share(victim, x, truth, "logit margin").item() == 0


@pytest.mark.parametrize("head", HEADS)
def test_a_z_score_hides_silence_from_the_gradient_of_the_input(head: str) -> None:
    """Normalised by its own statistics, every voxel has a little of all others' gradient: none is exactly zero."""
    kind, channels = HEADS[head]
    network = torch.nn.Conv2d(channels, channels, 1, bias=False)
    with torch.no_grad():
        network.weight.copy_(SCALE * torch.eye(channels).view(channels, channels, 1, 1))
    victim = Segmenter(network, kind, tuple(f"m{i}" for i in range(channels)), preprocess=ZScore())
    _, x, _ = saturated(kind, channels)
    truth = victim.predict(x)
    recorded = fgsm("0.1 stored")(victim, x, truth).zero_gradient_share
    assert (recorded < 0.1).all()
    assert (silent_share(victim, x, truth) > 0.2).all()
    assert silent_share(victim, x, truth, Tempered("cross entropy", SCALE)).tolist() == [0, 0]
    for i in range(2):
        part = silent_share(victim, x[i : i + 1], truth[i : i + 1])
        assert part.item() == pytest.approx(silent_share(victim, x, truth)[i].item())
