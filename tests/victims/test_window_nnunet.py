"""nnU-Net's grid and weights are nnU-Net's own, voxel by voxel, and the gradient through them is exact."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from medadv.victims.window import SlidingWindow, _even_windows, _half_weight

theirs = pytest.importorskip("nnunetv2.inference.sliding_window_prediction")


@given(
    st.lists(st.tuples(st.integers(2, 40), st.integers(0, 90)), min_size=1, max_size=3),
    st.sampled_from([0.25, 0.5, 0.75, 1.0]),
)
def test_the_windows_lie_where_nnunet_lays_them(axes: list[tuple[int, int]], step: float) -> None:
    roi, shape = tuple(roi for roi, _ in axes), tuple(roi + more for roi, more in axes)
    if any(n * step < 1 for n in roi):
        return  # nnU-Net would answer one place twice
    expected = [
        (..., *(slice(start, start + n) for start, n in zip(place, roi, strict=True)))
        for place in product(*theirs.compute_steps_for_sliding_window(shape, roi, step))
    ]
    assert _even_windows(SlidingWindow(roi, 1 - step, grid="nnunet"), shape) == expected


@pytest.mark.parametrize("roi", [(4, 4), (7, 12), (16, 16, 16), (20, 12, 5), (28, 40, 24)])
def test_the_weights_are_nnunets_to_the_bit(roi: tuple[int, ...]) -> None:
    expected = theirs.compute_gaussian(roi, 1 / 8, 10, torch.float16, torch.device("cpu"))
    found = _half_weight(SlidingWindow(roi, grid="nnunet"))
    assert found.dtype == torch.float16
    assert torch.equal(found, expected)
    assert found.min() > 0


def network(dimensions: int) -> nn.Module:
    torch.manual_seed(5)
    conv = nn.Conv2d if dimensions == 2 else nn.Conv3d
    layers = nn.Sequential(conv(2, 5, 3, padding=1), nn.GELU(), conv(5, 3, 3, padding=1))
    return layers.double().requires_grad_(False)


def stitched(layers: nn.Module, z: Tensor, roi: tuple[int, ...]) -> Tensor:
    """The same by hand, under full autograd, with nnU-Net's own functions."""
    weight = theirs.compute_gaussian(roi, 1 / 8, 10, torch.float16, torch.device("cpu")).double()
    total, blended = torch.zeros(z.shape[2:]).double(), torch.zeros(1, 3, *z.shape[2:]).double()
    for place in product(*theirs.compute_steps_for_sliding_window(tuple(z.shape[2:]), roi, 0.5)):
        window = (..., *(slice(start, start + n) for start, n in zip(place, roi, strict=True)))
        around = [(at, size - at - n) for at, size, n in zip(place, z.shape[2:], roi, strict=True)]
        widths = [n for pair in reversed(around) for n in pair]
        total = total + nn.functional.pad(weight, widths)
        blended = blended + nn.functional.pad(weight * layers(z[window]), widths)
    return blended / total


@pytest.mark.parametrize(("shape", "roi"), [((11, 8), (5, 4)), ((9, 7, 6), (4, 4, 4)), ((4, 5, 7), (4, 4, 4))])
@pytest.mark.parametrize("batch", [1, 3])
def test_values_and_gradient_are_those_of_full_autograd(
    shape: tuple[int, ...], roi: tuple[int, ...], batch: int
) -> None:
    layers, way = network(len(shape)), SlidingWindow(roi, batch=batch, grid="nnunet")
    z = torch.randn(1, 2, *shape, dtype=torch.float64, requires_grad=True)
    ours, expected = way(layers, z), stitched(layers, z, roi)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)
    (found,) = torch.autograd.grad(ours.tanh().square().sum(), z)
    (wanted,) = torch.autograd.grad(expected.tanh().square().sum(), z)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


def test_a_window_of_one_voxel_takes_an_axis_slice_by_slice() -> None:
    places = [window[1:] for window in _even_windows(SlidingWindow((1, 4, 4), grid="nnunet"), (3, 4, 6))]
    assert [(z.start, x.start) for z, _, x in places] == [(z, x) for z in range(3) for x in (0, 2)]


def test_a_volume_smaller_than_the_window_is_padded_as_nnunet_pads() -> None:
    padding = pytest.importorskip("acvl_utils.cropping_and_padding.padding")
    layers, z = network(3), torch.randn(1, 2, 3, 6, 2, dtype=torch.float64)
    padded, inside = padding.pad_nd_image(z[0], (4, 4, 5), "constant", {"value": 0}, True, None)
    expected = SlidingWindow((4, 4, 5), grid="nnunet")(layers, padded[None])[0][(slice(None), *inside[1:])]
    torch.testing.assert_close(SlidingWindow((4, 4, 5), grid="nnunet")(layers, z)[0], expected, rtol=0, atol=0)


def test_the_two_grids_are_not_the_same() -> None:
    layers, z = network(2), torch.randn(1, 2, 11, 9, dtype=torch.float64)
    ours = SlidingWindow((5, 4), grid="nnunet")(layers, z)
    assert (ours - SlidingWindow((5, 4))(layers, z)).abs().max() > 1e-3
