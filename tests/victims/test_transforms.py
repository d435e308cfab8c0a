"""Input transforms: SciPy's and torch's values, closed forms, zeros that stay, and gradients by finite differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import TypeAdapter, ValidationError
from runtime_types import unchecked
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from medadv.errors import ConfigError
from medadv.victims import median
from medadv.victims.normalize import ZScore
from medadv.victims.preprocess import Way
from medadv.victims.transforms import (
    BitDepth,
    GaussianSmoothing,
    InputTransform,
    MedianSmoothing,
    Resampled,
    StraightThrough,
)

EVERY = [GaussianSmoothing(0.8), MedianSmoothing(3), BitDepth(2), Resampled(2.5), StraightThrough(BitDepth(3))]
SMOOTH = [GaussianSmoothing(0.8), MedianSmoothing(3), Resampled(2.5)]
SHAPES = [(7, 6), (5, 6, 4)]


def scan(*shape: int, holes: float = 0.3) -> Tensor:
    """Two modalities on scales of their own, each with zeros of its own."""
    x = torch.randn(1, 2, *shape, dtype=torch.float64) + 4
    x *= torch.tensor([1.0, 300.0], dtype=torch.float64).view(1, 2, *[1] * len(shape))
    return torch.where(torch.rand(1, 2, *shape) < holes, 0.0, x)


def by_scipy(x: Tensor, filtered: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    return torch.as_tensor(np.stack([[filtered(one) for one in sample] for sample in x.numpy()]))


# Values


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sigma", [0.05, 0.7, 1.5, 40.0])
def test_a_gaussian_is_scipys_divided_by_that_of_the_mask(shape: tuple[int, ...], sigma: float) -> None:
    x = scan(*shape)

    def divided(one: np.ndarray) -> np.ndarray:
        inside = (one != 0).astype(np.float64)
        above, below = (ndimage.gaussian_filter(part, sigma, mode="constant") for part in (one, inside))
        return np.where(inside, above / np.where(inside, below, 1), 0)

    torch.testing.assert_close(GaussianSmoothing(sigma)(x), by_scipy(x, divided), rtol=1e-9, atol=0)


def test_inside_a_full_head_a_gaussian_is_scipys_own() -> None:
    x = scan(20, 18, holes=0)
    expected = by_scipy(x, lambda one: ndimage.gaussian_filter(one, 1.0))
    inner = (..., slice(4, -4), slice(4, -4))
    torch.testing.assert_close(GaussianSmoothing(1.0)(x)[inner], expected[inner], rtol=1e-12, atol=0)


@pytest.mark.parametrize("step", [GaussianSmoothing(2.0), Resampled(3.0)], ids=lambda step: step.name)
def test_the_border_of_a_head_is_not_darkened(step: GaussianSmoothing | Resampled) -> None:
    x = torch.where(scan(9, 8, 7) != 0, 250.0, 0.0)
    torch.testing.assert_close(step(x), x, rtol=1e-6, atol=0)
    assert (ndimage.gaussian_filter(x[0, 0].numpy(), 2.0)[x[0, 0] != 0] < 240).any()  # what happens otherwise


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("chunk", [1, 2**24], ids=["row by row", "at once"])
def test_a_median_is_that_of_the_voxels_that_are_not_zero(
    shape: tuple[int, ...], size: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = scan(*shape, holes=0.4)
    monkeypatch.setattr(median, "CHUNK", chunk)

    def lower(near: np.ndarray) -> float:
        there = np.sort(near[near != 0])  # zeros beyond the image's ends, too
        return there[(len(there) - 1) // 2] if len(there) else 0.0

    def filtered(one: np.ndarray) -> np.ndarray:
        return np.where(one != 0, ndimage.generic_filter(one, lower, size, mode="constant"), 0)

    assert torch.equal(MedianSmoothing(size)(x), by_scipy(x, filtered))


def test_inside_a_full_head_a_median_is_scipys_own() -> None:
    x = scan(8, 7, 6, holes=0).float()
    expected = by_scipy(x, lambda one: ndimage.median_filter(one, 3))
    inner = (..., slice(1, -1), slice(1, -1), slice(1, -1))
    assert torch.equal(MedianSmoothing(3)(x)[inner], expected[inner])


@pytest.mark.parametrize("bits", [1, 2, 5])
def test_bit_depth_rounds_to_levels_between_the_extremes(bits: int) -> None:
    x = scan(6, 5, 4)
    y, steps = BitDepth(bits)(x), 2**bits - 1
    for before, after in zip(x[0].numpy(), y[0].numpy(), strict=True):
        seen = before[before != 0]
        low, high = seen.min(), seen.max()
        expected = low + np.round((seen - low) / (high - low) * steps) / steps * (high - low)
        np.testing.assert_allclose(after[before != 0], expected, rtol=1e-12)
        assert len(np.unique(after[before != 0])) <= 2**bits
        assert (after[before != 0].min(), after[before != 0].max()) == (low, high)


@pytest.mark.parametrize("factor", [1.4, 2.0, 3.0, 50.0])
def test_resampling_is_torchs_interpolation_down_and_up(factor: float) -> None:
    """Of a volume, first two axes and then the third: torch averages pictures only."""
    x = scan(9, 8, 7, holes=0)

    def there_and_back(planes: Tensor, axes: int) -> Tensor:
        shape = planes.shape[2:]
        small = [*(max(round(n / factor), 1) for n in shape[:axes]), *shape[axes:]]
        less = functional.interpolate(planes, small, mode="bilinear", antialias=True)
        return functional.interpolate(less, shape, mode="bilinear")

    across = there_and_back(x[0].transpose(0, 1), 2)  # the first axis of space stands for the batch
    expected = there_and_back(across.permute(3, 1, 0, 2), 1).permute(1, 2, 3, 0)
    torch.testing.assert_close(Resampled(factor)(x)[0], expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(Resampled(factor)(x[..., 0]), there_and_back(x[..., 0], 2), rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    "step", [GaussianSmoothing(0.1), MedianSmoothing(1), Resampled(1.0)], ids=lambda step: step.name
)
def test_some_settings_change_nothing(step: InputTransform) -> None:
    x = scan(5, 4, 6).float()
    assert torch.equal(step(x), x)


def test_many_bits_change_next_to_nothing() -> None:
    x = scan(5, 4, 6)
    torch.testing.assert_close(BitDepth(24)(x), x, rtol=0, atol=300 * 8 / 2**24)


# Zeros


@pytest.mark.parametrize("step", EVERY, ids=lambda step: step.name)
@given(
    values=st.one_of(*(hnp.arrays(np.float32, (1, 1, *s), elements=st.integers(-2, 2)) for s in ((4, 5), (3, 2, 4))))
)
def test_zeros_stay_zero_and_nothing_else_becomes_zero(step: InputTransform, values: np.ndarray) -> None:
    """Also where means and levels of values of both signs are exactly zero."""
    x = torch.as_tensor(values).requires_grad_()
    y = step(x)
    assert torch.equal(y != 0, x != 0)
    assert torch.equal(y.detach().double().float() != 0, x != 0)
    (g,) = torch.autograd.grad(y.sum(), x)
    assert torch.isfinite(g).all()


def test_a_level_at_zero_is_one_that_float32_can_tell_from_zero() -> None:
    x = torch.tensor([-1.0, 0.2, 1.0, 0.0], dtype=torch.float64).view(1, 1, 2, 2)
    y = MedianSmoothing(3)(torch.where(x == 0.2, 0.0, x))
    assert (y != 0).sum() == 2
    smooth = GaussianSmoothing(1e3)(torch.tensor([-1.0, 1.0], dtype=torch.float64).view(1, 1, 1, 2))
    assert (smooth.float() != 0).all()
    assert smooth.abs().max() < 1e-5


@pytest.mark.parametrize("step", EVERY, ids=lambda step: step.name)
def test_constant_and_empty_modalities_stay_what_they_are(step: InputTransform) -> None:
    x = torch.zeros(1, 2, 5, 4, dtype=torch.float64)
    x[:, 0, 1:4] = 70.0
    leaf = x.clone().requires_grad_()
    y = step(leaf)
    torch.testing.assert_close(y, x, rtol=1e-14, atol=0)
    assert torch.isfinite(torch.autograd.grad(y.sum(), leaf)[0]).all()


@pytest.mark.parametrize("step", EVERY, ids=lambda step: step.name)
def test_modalities_and_batch_mates_do_not_mix(step: InputTransform) -> None:
    x = torch.cat([scan(5, 6), 2 * scan(5, 6)])
    apart = torch.cat([torch.cat([step(one[None, None]) for one in sample], 1) for sample in x])
    torch.testing.assert_close(step(x), apart, rtol=1e-12, atol=0)


# Gradients


def loss(y: Tensor) -> Tensor:
    weight = torch.linspace(-1.0, 2.0, y.numel(), dtype=y.dtype).view_as(y)
    return (weight * (y / 100).sin()).sum()


@pytest.mark.parametrize("step", SMOOTH, ids=lambda step: step.name)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_gradient_is_that_of_finite_differences(step: InputTransform, shape: tuple[int, ...]) -> None:
    """Before a z-score, with the statistics of what comes out; the mask is held fixed."""
    x = scan(*shape)
    way = Way.prepared((step, ZScore()), x, None)
    leaf = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(100 * way(leaf)), leaf)
    for place in (x != 0).nonzero():
        h = 1e-5 * (1.0, 300.0)[int(place[1])]
        there, back = x.clone(), x.clone()
        there[tuple(place)] += h
        back[tuple(place)] -= h
        measured = (loss(100 * way(there)) - loss(100 * way(back))) / (2 * h)
        torch.testing.assert_close(found[tuple(place)], measured, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("step", EVERY, ids=lambda step: step.name)
def test_a_zero_has_its_own_gradient_and_no_others(step: InputTransform) -> None:
    """As before a z-score: it stays what it is, and counts in nothing."""
    leaf = scan(5, 6, 4).requires_grad_()
    y = step(leaf)
    weight = torch.randn_like(y)
    (g,) = torch.autograd.grad((y * weight).sum(), leaf)
    assert torch.equal(g[leaf == 0], weight[leaf == 0])


def test_of_equal_voxels_the_first_has_the_medians_gradient() -> None:
    x = torch.full((1, 1, 1, 3), 5.0, requires_grad=True)
    (g,) = torch.autograd.grad((MedianSmoothing(3)(x) * torch.tensor([1.0, 10.0, 100.0])).sum(), x)
    assert g.flatten().tolist() == [11.0, 100.0, 0.0]


def test_bit_depth_has_a_gradient_at_the_extremes_alone() -> None:
    x = scan(6, 5, 4, holes=0).requires_grad_()
    (g,) = torch.autograd.grad(loss(BitDepth(3)(x)), x)
    extreme = (x == x.amin((2, 3, 4), keepdim=True)) | (x == x.amax((2, 3, 4), keepdim=True))
    assert torch.equal(g != 0, extreme)


@pytest.mark.parametrize("step", [*SMOOTH, BitDepth(2)], ids=lambda step: step.name)
def test_straight_through_is_the_step_forwards_and_the_identity_backwards(step: InputTransform) -> None:
    leaf = scan(5, 6, 4).requires_grad_()
    y = StraightThrough(step)(leaf)
    assert torch.equal(y, step(leaf.detach()))
    assert torch.equal(StraightThrough(step)(leaf.detach()), y)
    weight = torch.randn_like(y)
    (g,) = torch.autograd.grad((y * weight).sum(), leaf)
    assert torch.equal(g, weight)


def test_a_substitutes_gradient_may_be_anothers() -> None:
    leaf, smooth = scan(5, 6).requires_grad_(), GaussianSmoothing(1.0)
    y = StraightThrough(MedianSmoothing(3), smooth)(leaf)
    assert torch.equal(y, MedianSmoothing(3)(leaf.detach()))
    weight = torch.randn_like(y)
    (g,) = torch.autograd.grad((y * weight).sum(), leaf)
    (expected,) = torch.autograd.grad((smooth(leaf) * weight).sum(), leaf)
    assert torch.equal(g, expected)


# Settings


@pytest.mark.parametrize(
    ("make", "words"),
    [
        *((lambda sigma=s: GaussianSmoothing(sigma), "positive width") for s in (0, -1.0, np.nan, np.inf, "1", True)),
        *((lambda size=s: MedianSmoothing(size), "odd number") for s in (4, 0, -3, 3.0, "3", True)),
        *((lambda bits=b: BitDepth(bits), "whole number of bits") for b in (0, -1, 25, 4.0, "4", True)),
        *((lambda factor=f: Resampled(factor), "voxels larger") for f in (0.5, 0, -2, np.nan, np.inf, "2", True)),
        (lambda: StraightThrough(ZScore()), "no input transform"),
        (lambda: StraightThrough(StraightThrough(BitDepth(4))), "no input transform"),
        (lambda: StraightThrough(BitDepth(4), ZScore()), "no input transform"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(make: Callable[[], object], words: str) -> None:
    with unchecked(), pytest.raises(ConfigError, match=words) as refusal:
        make()
    assert refusal.value.details["expected"]


@pytest.mark.parametrize("step", [*EVERY, StraightThrough(MedianSmoothing(3), GaussianSmoothing(1.0))], ids=str)
def test_a_transform_is_what_it_was_after_json(step: InputTransform | StraightThrough) -> None:
    adapter: TypeAdapter[object] = TypeAdapter(InputTransform | StraightThrough)
    assert adapter.validate_json(adapter.dump_json(step)) == step
    assert adapter.validate_python(asdict(step)) == step


@pytest.mark.parametrize(
    "written",
    [
        {"name": "gaussian smoothing", "sigma": 1.0, "mm": True},
        {"name": "gaussian smoothing"},
        {"name": "median smoothing", "size": 2.5},
        {"name": "blur", "sigma": 1.0},
    ],
)
def test_what_a_study_misspells_is_refused(written: dict[str, object]) -> None:
    from typing import Annotated

    from pydantic import Field

    adapter: TypeAdapter[object] = TypeAdapter(Annotated[InputTransform, Field(discriminator="name")])
    with pytest.raises(ValidationError):
        adapter.validate_python(written)
    assert adapter.validate_python({"name": "resampling", "factor": 2}) == Resampled(2.0)
