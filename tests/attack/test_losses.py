"""Losses against independent statements: torch, NumPy loops, and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from attack.stand_ins import ORGANS, normal, organs
from monai.losses import DiceLoss
from torch import Tensor

from medadv.attack.losses import LOSSES, cross_entropy, dice_cross_entropy, logit_margin, soft_dice
from medadv.labels import BRATS_2018
from medadv.victims.head import Sigmoid, Softmax, Voxels

SHAPES = [(9,), (5, 4), (3, 4, 2)]


def softmax_scene(shape: tuple[int, ...], share: float = 0.7) -> tuple[Tensor, Voxels]:
    """Logits over three classes for two samples, and targets of which some are void."""
    targets = Voxels.of(Softmax(ORGANS), organs((2, *shape)))
    return 3 * normal((2, 3, *shape)), targets.within(torch.rand(targets.labels.shape) < share)


def sigmoid_scene(shape: tuple[int, ...], share: float = 0.7) -> tuple[Tensor, Voxels]:
    """The same for a region head: its logits are (0, z)."""
    head = Sigmoid(BRATS_2018, ("WT", "TC", "ET"))
    targets = Voxels.of(head, torch.tensor([0, 1, 2, 4])[torch.randint(0, 4, (2, *shape))])
    return head.logits(3 * normal((2, 3, *shape))), targets.within(torch.rand(targets.labels.shape) < share)


SCENES = {"softmax": softmax_scene, "sigmoid": sigmoid_scene}


@pytest.mark.parametrize("shape", SHAPES)
def test_cross_entropy_is_minus_the_log_of_the_share(shape: tuple[int, ...]) -> None:
    logits, targets = softmax_scene(shape)
    shares = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(1, keepdims=True)
    own = np.take_along_axis(shares, targets.labels.numpy()[:, None], 1)[:, 0]
    expected = [-np.log(own[i][targets.where[i].numpy()]).sum() for i in range(2)]
    np.testing.assert_allclose(cross_entropy(logits, targets), expected, rtol=1e-13)


@pytest.mark.parametrize("shape", SHAPES)
def test_cross_entropy_of_a_region_head_is_binary_cross_entropy(shape: tuple[int, ...]) -> None:
    logits, targets = sigmoid_scene(shape)
    z, region = logits[:, 1], targets.labels.double()
    each = F.binary_cross_entropy_with_logits(z, region, reduction="none")
    torch.testing.assert_close(
        cross_entropy(logits, targets), (each * targets.where).flatten(1).sum(1), rtol=1e-15, atol=1e-15
    )


def test_cross_entropy_of_a_confident_answer_stays_finite() -> None:
    targets = Voxels.of(Softmax(ORGANS), torch.zeros(1, 1, dtype=torch.int64))
    logits = torch.tensor([[[-1e4], [1e4], [0.0]]], requires_grad=True)
    loss = cross_entropy(logits, targets)
    loss.sum().backward()
    assert loss.item() == 2e4
    assert logits.grad.flatten().tolist() == [-1, 1, 0]


@pytest.mark.parametrize("kind", SCENES)
@pytest.mark.parametrize("shape", SHAPES)
def test_margin_by_hand(kind: str, shape: tuple[int, ...]) -> None:
    logits, targets = SCENES[kind](shape)
    expected = np.zeros(2)
    for place in np.ndindex(*targets.labels.shape):
        if targets.where[place]:
            column = logits[(place[0], slice(None), *place[1:])].tolist()
            own = column.pop(int(targets.labels[place]))
            expected[place[0]] += max(column) - own
    np.testing.assert_allclose(logit_margin(logits, targets), expected, rtol=1e-13)


def dice_of(shares: np.ndarray, truth: np.ndarray) -> float:
    """Soft Dice with one voxel added above and below, from its definition."""
    return (2 * (shares * truth).sum() + 1) / (shares.sum() + truth.sum() + 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_soft_dice_by_its_definition(shape: tuple[int, ...]) -> None:
    logits, targets = softmax_scene(shape)
    shares = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(1, keepdims=True)
    for i in range(2):
        where = targets.where[i].numpy()
        truth = targets.labels[i].numpy()[where]
        expected = np.mean([1 - dice_of(shares[i, c][where], truth == c) for c in (1, 2)])
        np.testing.assert_allclose(soft_dice(logits, targets)[i], expected, rtol=1e-13)


@pytest.mark.parametrize("shape", SHAPES)
def test_soft_dice_of_regions_by_its_definition(shape: tuple[int, ...]) -> None:
    logits, targets = sigmoid_scene(shape)
    shares = 1 / (1 + np.exp(-logits[:, 1].numpy()))
    for i in range(2):
        wheres, truths = targets.where[i].numpy(), targets.labels[i].numpy()
        expected = np.mean([1 - dice_of(shares[i, r][wheres[r]], truths[r][wheres[r]]) for r in range(3)])
        np.testing.assert_allclose(soft_dice(logits, targets)[i], expected, rtol=1e-13)


def test_soft_dice_is_monais_up_to_its_smoothing() -> None:
    logits, targets = softmax_scene((3, 4, 2), share=2.0)
    monai = DiceLoss(include_background=False, softmax=True, to_onehot_y=True, smooth_nr=1, smooth_dr=1)
    for i in range(2):
        reference = monai(logits[i : i + 1], targets.labels[i : i + 1].unsqueeze(1))
        torch.testing.assert_close(soft_dice(logits, targets)[i], reference, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", SCENES)
def test_dice_and_cross_entropy_in_equal_parts(kind: str) -> None:
    logits, targets = SCENES[kind]((5, 4))
    counted = targets.where.flatten(1).sum(1)
    parts = soft_dice(logits, targets) + cross_entropy(logits, targets) / counted
    torch.testing.assert_close(dice_cross_entropy(logits, targets), parts)


@pytest.mark.parametrize("kind", SCENES)
@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_those_of_finite_differences(loss: str, kind: str) -> None:
    logits, targets = SCENES[kind]((3, 2))
    assert torch.autograd.gradcheck(lambda z: LOSSES[loss](z, targets), logits.detach().clone().requires_grad_())


@pytest.mark.parametrize("kind", SCENES)
@pytest.mark.parametrize("loss", LOSSES)
def test_void_targets_have_no_say(loss: str, kind: str) -> None:
    logits, targets = SCENES[kind]((5, 4))
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(LOSSES[loss](logits, targets).sum(), logits)
    void = (~targets.where).unsqueeze(1).expand_as(gradient)
    assert (gradient[void] == 0).all()
    assert (gradient[~void] != 0).any()
    nothing = targets.within(torch.zeros_like(targets.where))
    (gradient,) = torch.autograd.grad(LOSSES[loss](logits, nothing).sum(), logits)
    assert (gradient == 0).all()


@pytest.mark.parametrize("kind", SCENES)
@pytest.mark.parametrize("loss", LOSSES)
def test_each_sample_has_its_own_loss(loss: str, kind: str) -> None:
    logits, targets = SCENES[kind]((5, 4))
    for i in range(2):
        part = torch.tensor([i])
        torch.testing.assert_close(LOSSES[loss](logits, targets)[part], LOSSES[loss](logits[part], targets.take(part)))


@pytest.mark.parametrize("loss", LOSSES)
def test_a_better_answer_has_a_lower_loss(loss: str) -> None:
    logits, targets = softmax_scene((5, 4), share=2.0)
    right = torch.nn.functional.one_hot(targets.labels, 3).movedim(-1, 1)
    assert (LOSSES[loss](logits + right, targets) < LOSSES[loss](logits, targets)).all()


def test_the_margin_does_not_saturate_where_cross_entropy_does() -> None:
    targets = Voxels.of(Softmax(ORGANS), torch.zeros(1, 6, dtype=torch.int64))
    logits = torch.tensor([200.0, 0.0, -50.0]).view(1, 3, 1).repeat(1, 1, 6).requires_grad_()
    (lost,) = torch.autograd.grad(cross_entropy(logits, targets).sum(), logits)
    (kept,) = torch.autograd.grad(logit_margin(logits, targets).sum(), logits)
    assert (lost == 0).all()
    assert kept[0, :, 0].tolist() == [-1, 1, 0]
