"""Resampling: MONAI's Spacing and nnU-Net's splines, voxel by voxel, onwards and back."""

from __future__ import annotations

import monai.transforms as mt
import numpy as np
import pytest
import torch
from torch import Tensor
from victims.grids import adjoint_gap, affine_of, meta, same_as_monai

from medadv.errors import VictimError
from medadv.victims.resample import Resample, Resampled
from medadv.victims.spacing import Spacing

SHAPES = [(7, 5, 6), (4, 9, 3)]


def noise(*shape: int) -> Tensor:
    return torch.randn(1, 2, *shape)


@pytest.mark.filterwarnings("ignore:Since version 1.3.0, affine_grid:UserWarning")  # torch, about axes of one voxel
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mm", [(1.0, 1.0, 1.0), (0.7, 2.5, 1.3), (5.0, 1.0, 0.5), (1.0, 2.0), (-1.0, 1.4, -1.0)])
@pytest.mark.parametrize("affine", [((1.2, 0.8, 3.0), "RAS", 0.0), ((1.2, 0.8, 3.0), "PIR", 0.3)])
@pytest.mark.parametrize("extent", [False, True])
def test_spacing_is_monais(shape: tuple[int, ...], mm: tuple[float, ...], affine: tuple, extent: bool) -> None:
    """Odd sizes, axes that end as one voxel, oblique and flipped grids."""
    x, place = noise(*shape), affine_of(*affine)
    # MONAI wants align_corners with scale_extent; with border padding it changes axes of one voxel alone.
    placed = Spacing(mm, align_corners=extent, scale_extent=extent).prepare(x, place)
    same_as_monai(placed, mt.Spacing(mm, scale_extent=extent, align_corners=extent), x, place)


@pytest.mark.filterwarnings("ignore:Since version 1.3.0, affine_grid:UserWarning")  # torch, about axes of one voxel
@pytest.mark.parametrize("mm", [(2.0, 0.6), (1.0, 1.0), (9.0, 1.7)])
@pytest.mark.parametrize("corners", [False, True])
def test_spacing_of_a_picture_is_monais(mm: tuple[float, ...], corners: bool) -> None:
    x, place = noise(8, 5), affine_of((1.3, 0.9, 1.0), "LPS")
    placed = Spacing(mm, align_corners=corners).prepare(x, place)
    same_as_monai(placed, mt.Spacing(mm, align_corners=corners), x, place)


def test_a_volume_of_less_than_a_voxel_is_refused_and_its_single_voxel_is_monais() -> None:
    x, place = noise(7, 5, 6), affine_of((1.2, 0.8, 3.0))
    placed = Spacing((20.0, 1.0, 0.5)).prepare(x, place)
    assert placed(x).shape[2] == 1
    same_as_monai(placed, mt.Spacing((20.0, 1.0, 0.5)), x, place)
    with pytest.raises(VictimError, match="leaves no voxel"):
        Spacing((20.0, 1.0, 0.5), scale_extent=True).prepare(x, place)


def test_spacing_by_the_nearest_voxel_is_monais_and_so_are_labels() -> None:
    x, place = noise(7, 5, 6), affine_of((1.17, 0.83, 3.1), "LAS")
    placed = Spacing((0.77, 1.9, 1.31), mode="nearest").prepare(x, place)
    theirs = mt.Spacing((0.77, 1.9, 1.31), mode="nearest")
    same_as_monai(placed, theirs, x, place)
    truth = torch.randint(0, 4, (1, 7, 5, 6))
    assert torch.equal(placed.labels(truth)[0].float(), theirs(meta(truth.float(), place)).as_tensor()[0])


@pytest.mark.parametrize("grids", [((0.9375, 0.9375, 3.0), (1.875, 1.875, 3.0)), ((1.5, 1.5, 2.0), (1.0, 1.0, 1.0))])
def test_where_grids_meet_the_same_voxels_are_zero_as_in_monai(grids: tuple) -> None:
    """1e-16 of a neighbour is foreground to a crop, and non-zero to a z-score; rounding decides, and is MONAI's."""
    x, place = torch.zeros(1, 1, 48, 50, 46), affine_of(grids[0])
    x[..., 8:40, 7:43, 9:37] = torch.rand(1, 1, 32, 36, 28) + 1
    theirs = mt.Spacing(grids[1])(meta(x[0], place)).as_tensor()
    assert torch.equal(Spacing(grids[1]).prepare(x, place)(x)[0] != 0, theirs != 0)
    assert ((theirs != 0) & (theirs.abs() < 1e-6)).any()


def test_almost_the_right_spacing_is_left_alone_as_in_monai() -> None:
    x, place = noise(7, 5, 6), affine_of((1.0004, 0.9996, 1.0))
    assert Spacing().prepare(x, place)(x) is x
    same_as_monai(Spacing().prepare(x, place), mt.Spacing((1.0, 1.0, 1.0)), x, place)


def test_the_noise_of_a_header_is_no_shear_and_a_shear_is_refused() -> None:
    x, place = noise(7, 5, 6), affine_of((1.2, 0.8, 3.0), "PIR", 0.3)
    rounded = place.astype(np.float32).astype(np.float64)
    same_as_monai(Spacing().prepare(x, rounded), mt.Spacing((1.0, 1.0, 1.0)), x, rounded)
    place[0, 1] += 0.3
    with pytest.raises(VictimError, match="right angles") as refusal:
        Spacing().prepare(x, place)
    assert "sheared" in refusal.value.details["got"]


def test_half_precision_around_it_moves_no_voxel() -> None:
    x, place = noise(7, 5, 6), affine_of((1.2, 0.8, 3.0))
    placed = Spacing().prepare(x, place)
    with torch.autocast("cpu", torch.bfloat16):
        inside = placed(x)
    assert torch.equal(inside, placed(x))


# nnU-Net: spacings are voxel order, its arrays are what comes in


def nnunet_resampled(x: Tensor, shape: tuple[int, ...], now: tuple, then: tuple, **settings: object) -> np.ndarray:
    module = pytest.importorskip("nnunetv2.preprocessing.resampling.default_resampling")
    return module.resample_data_or_seg_to_shape(x[0].numpy(), shape, now, then, **settings)


@pytest.mark.parametrize(
    ("now", "then"),
    [
        ((1.0, 1.0, 1.0), (0.7, 1.3, 1.0)),
        ((1.0, 1.0, 1.0), (2.0, 2.0, 0.5)),
        ((5.0, 0.8, 0.9), (3.0, 1.0, 1.0)),  # slices: the first axis alone
        ((0.8, 0.9, 5.0), (1.1, 1.0, 2.0)),  # slices: the last
        ((0.9, 5.0, 0.8), (1.0, 5.0, 1.1)),  # slices that stay where they are
        ((1.0, 1.0, 1.0), (1.0, 4.0, 1.0)),  # anisotropic only afterwards
        ((4.0, 1.0, 4.0), (2.0, 1.0, 2.0)),  # two coarse axes are none
        ((3.0, 1.0, 1.0), (1.0, 1.0, 1.0)),  # three times is not more than three times
        ((1.0, 1.0, 1.0), (1.0, 1.0, 40.0)),  # one slice is left
    ],
)
@pytest.mark.parametrize("force", [None, True, False])
@pytest.mark.parametrize("orders", [(3, 0), (1, 1), (0, 0)])
def test_splines_are_nnunets(now: tuple, then: tuple, force: bool | None, orders: tuple[int, int]) -> None:
    x, shape = noise(7, 6, 9), (7, 6, 9)
    step = Resample(then, *orders, force_separate_z=force)
    placed = step.prepare(x, affine_of(now))
    ours = placed(x)
    expected = tuple(round(a / b * n) or 1 for a, b, n in zip(now, then, shape, strict=True))
    assert tuple(ours.shape[2:]) == expected
    theirs = nnunet_resampled(x, expected, now, then, order=orders[0], order_z=orders[1], force_separate_z=force)
    np.testing.assert_allclose(ours[0].numpy(), theirs, rtol=1e-4, atol=1e-4)
    logits = 10 * torch.randn(1, 3, *expected)
    home = nnunet_resampled(logits, shape, then, now, order=1, order_z=0, force_separate_z=force)
    np.testing.assert_allclose(placed.back(logits, torch.zeros(3))[0].numpy(), home, rtol=1e-4, atol=1e-4)


def test_the_two_dimensional_configuration_keeps_the_first_axis() -> None:
    x, now = noise(4, 9, 8), (3.0, 0.8, 0.9)
    placed = Resample((1.1, 0.7)).prepare(x, affine_of(now))
    expected = nnunet_resampled(x, (4, 7, 10), now, (3.0, 1.1, 0.7), order=3, order_z=0, force_separate_z=None)
    np.testing.assert_allclose(placed(x)[0].numpy(), expected, rtol=1e-4, atol=1e-4)


def test_a_picture_is_resampled_as_nnunets_one_slice() -> None:
    x = noise(9, 8)
    placed = Resample((1.1, 5.0)).prepare(x, affine_of((0.8, 1.9, 1.0)))
    expected = nnunet_resampled(x[:, :, None], (1, 7, 3), (999.0, 0.8, 1.9), (999.0, 1.1, 5.0), force_separate_z=None)
    np.testing.assert_allclose(placed(x)[0].numpy(), expected[:, 0], rtol=1e-4, atol=1e-4)


def test_a_spline_is_clipped_to_what_came_in_and_its_gradient_knows() -> None:
    """A step overshoots under a cubic spline; finite differences see the clip, and the voxel that is the limit."""
    x = torch.zeros(1, 1, 6, 5, 4, dtype=torch.float64)
    x[:, :, 3:] = 1
    x += 0.01 * torch.randn_like(x)
    placed = Resample((0.6, 0.7, 0.8)).prepare(x, affine_of())
    y = placed(x)
    assert (y == x.max()).any()
    assert (y == x.min()).any()
    weight = torch.randn_like(y)
    leaf = x.clone().requires_grad_()
    (found,) = torch.autograd.grad((placed(leaf) * weight).sum(), leaf)
    for place in [*(x == x.max()).nonzero(), *(x == x.min()).nonzero(), torch.tensor([0, 0, 2, 2, 1])]:
        moved = torch.zeros_like(x)
        moved[tuple(place)] = 1e-7
        slope = ((placed(x + moved) - placed(x - moved)) * weight).sum() / 2e-7
        assert found[tuple(place)].item() == pytest.approx(slope.item(), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("now", [(1.0, 1.0, 1.0), (5.0, 0.8, 0.9)])
def test_the_matrices_of_a_spline_have_their_transposes_as_gradient(now: tuple[float, ...]) -> None:
    x = noise(7, 6, 9).double()
    placed = Resample((1.3, 0.7, 1.2), order=3, order_z=1).prepare(x, affine_of(now))
    assert isinstance(placed, Resampled)

    def unclipped(x: Tensor) -> Tensor:
        for stage in placed.onward:
            x = type(stage)(stage.matrices)(x)
        return x

    assert adjoint_gap(unclipped, x) < 1e-9


def test_both_grids_of_nnunet_cover_the_same_space() -> None:
    x, place = noise(7, 6, 9), affine_of((1.0, 2.0, 0.5), "PIR", 0.3)
    placed = Resample((0.5, 3.0, 0.5)).prepare(x, place)
    assert placed.affine is not None
    for corner in ((-0.5, -0.5, -0.5), (6.5, 5.5, 8.5)):
        far = [-0.5 if old < 0 else n - 0.5 for old, n in zip(corner, placed(x).shape[2:], strict=True)]
        np.testing.assert_allclose((place @ [*corner, 1]), placed.affine @ [*far, 1], atol=1e-9)


def test_another_number_of_axes_is_refused() -> None:
    with pytest.raises(VictimError, match="another number of axes"):
        Resample((1.0,)).prepare(noise(7, 6, 9), affine_of())


def test_labels_go_to_the_nearest_voxel() -> None:
    truth = torch.arange(6).view(1, 6, 1, 1).expand(1, 6, 2, 2)
    placed = Resample((3.0, 1.0, 1.0)).prepare(noise(6, 2, 2), affine_of())
    assert placed.labels(truth)[0, :, 0, 0].tolist() == [1, 4]
