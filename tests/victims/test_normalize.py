"""The z-score is MONAI's in value; its gradient is the true one, through mean and standard deviation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.transforms import NormalizeIntensity
from torch import Tensor

from medadv.victims.normalize import Unchanged, ZScore


def scan(seed: int, shape: tuple[int, ...], scale: float, offset: float, zeros: float) -> Tensor:
    """Two samples of two modalities and, last, one that is all zero."""
    r = np.random.default_rng(seed)
    x = (r.normal(size=(2, 3, *shape)) + offset) * scale
    x[r.random(x.shape) < zeros] = 0
    x[:, 2] = 0
    return torch.tensor(x, dtype=torch.float32)


@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple),
    scale=st.sampled_from([1e-3, 1.0, 300.0, 1e5]),
    offset=st.sampled_from([0.0, 3.0, -5.0]),
    zeros=st.sampled_from([0.0, 0.4, 0.95]),
    nonzero=st.booleans(),
)
def test_values_are_monais(
    seed: int, shape: tuple[int, ...], scale: float, offset: float, zeros: float, nonzero: bool
) -> None:
    x = scan(seed, shape, scale, offset, zeros)
    ours = ZScore(nonzero)(x)
    monai = NormalizeIntensity(nonzero=nonzero, channel_wise=True)
    for i in range(len(x)):
        reference = torch.as_tensor(monai(x[i].clone()))
        for channel, own, theirs in zip(x[i], ours[i], reference, strict=True):
            voxels = channel[channel != 0] if nonzero else channel
            if voxels.unique().numel() == 1:  # constant: MONAI then divides by rounding, see below
                assert own.abs().max() <= 1e-5 * scale
            else:
                torch.testing.assert_close(own, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(5,), (16, 17), (24, 24, 24)])
def test_values_of_a_large_scan_are_those_of_numpy(shape: tuple[int, ...]) -> None:
    x = scan(0, shape, 1e5, 3.0, 0.5)
    z = ZScore()(x).double().numpy()
    for i, j in np.ndindex(2, 2):
        v = x[i, j].double().numpy()
        inside = v != 0
        np.testing.assert_allclose(z[i, j][inside], (v[inside] - v[inside].mean()) / v[inside].std(), atol=1e-5)
        assert (z[i, j][~inside] == 0).all()


@pytest.mark.parametrize("value", [4.0, -1000.0, 2.0**17])
def test_a_constant_modality_is_only_shifted_as_in_monai(value: float) -> None:
    x = torch.full((1, 1, 4, 4), value)
    x[..., 0] = 0
    reference = torch.as_tensor(NormalizeIntensity(nonzero=True, channel_wise=True)(x[0].clone()))
    assert torch.equal(ZScore()(x)[0], reference)
    assert (ZScore()(x) == 0).all()


@given(
    st.floats(2.0**-20, 2.0**20, width=32) | st.sampled_from([0.1, 3.3, 1e5 + 0.3]),
    st.sampled_from([7, 1000, 13**3, 60000]),
)
def test_the_rounding_of_a_constants_mean_is_no_spread(value: float, voxels: int) -> None:
    """The mean of many 0.1 is not 0.1; dividing by what is left would turn a constant into ±1, with a huge gradient."""
    x = torch.full((1, 1, voxels), value, requires_grad=True)
    z = ZScore()(x)
    assert z.abs().max() <= 1e-5 * abs(value)
    (gradient,) = torch.autograd.grad(z[..., 0].sum(), x)
    assert gradient.abs().max() <= 1


def test_a_small_spread_on_a_large_mean_is_a_spread() -> None:
    x = torch.tensor([[[1000.0, 1000.25, 999.75, 1000.0]]])
    torch.testing.assert_close(ZScore()(x)[0, 0], torch.tensor([0.0, 2**0.5, -(2**0.5), 0.0]))


def test_one_voxel_and_none() -> None:
    x = torch.zeros(1, 2, 3, 3)
    x[0, 0, 1, 1] = 7
    assert (ZScore()(x) == 0).all()


def loss(z: Tensor) -> Tensor:
    """Pushes all voxels one way and bends: a constant statistic would be seen."""
    weight = torch.linspace(0.5, 2.0, z.numel(), dtype=z.dtype).view_as(z)
    return (weight * z + 0.3 * z.sin()).sum()


def differences(normalise: object, x: Tensor, where: Tensor, h: float = 1e-6) -> Tensor:
    """Central finite differences of the loss in every voxel of a mask."""
    gradient = torch.zeros_like(x)
    for place in where.nonzero():
        moved = torch.zeros_like(x)
        moved[tuple(place)] = h
        gradient[tuple(place)] = (loss(normalise(x + moved)) - loss(normalise(x - moved))) / (2 * h)
    return gradient


def detached(x: Tensor) -> Tensor:
    """The planted fault: statistics that the gradient takes for constants."""
    z = x.clone()
    for i, j in np.ndindex(*x.shape[:2]):
        inside = x[i, j] != 0
        v = x[i, j][inside]
        z[i, j] = torch.where(inside, (x[i, j] - v.mean().detach()) / v.std(correction=0).detach(), x[i, j])
    return z


def gradient_of(normalise: object, x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(loss(normalise(leaf)), leaf)[0]


@pytest.mark.parametrize("shape", [(9,), (4, 5), (3, 3, 3)])
@pytest.mark.parametrize("nonzero", [True, False])
def test_the_gradient_passes_through_the_statistics(shape: tuple[int, ...], nonzero: bool) -> None:
    x = scan(1, shape, 2.0, 1.0, 0.3).double()[:, :2]
    where = x != 0 if nonzero else torch.ones_like(x, dtype=torch.bool)
    found, expected = gradient_of(ZScore(nonzero), x), differences(ZScore(nonzero), x, where)
    torch.testing.assert_close(found[where], expected[where], rtol=1e-6, atol=1e-7)
    if nonzero:  # the background is left as it is, and so is its gradient
        torch.testing.assert_close(found[~where], gradient_of(Unchanged(), ZScore()(x))[~where])


def test_constant_statistics_would_be_found_out() -> None:
    x = scan(1, (4, 5), 2.0, 1.0, 0.3).double()[:, :2]
    where = x != 0
    torch.testing.assert_close(detached(x), ZScore()(x))  # the same in value …
    expected = differences(ZScore(), x, where)
    with pytest.raises(AssertionError):  # … and another gradient
        torch.testing.assert_close(gradient_of(detached, x)[where], expected[where], rtol=1e-6, atol=1e-7)
    assert (gradient_of(detached, x)[where].sign() != expected[where].sign()).double().mean() > 0.2


def test_the_gradient_of_a_constant_modality_is_that_of_the_shift() -> None:
    x = torch.full((1, 1, 5), 3.0, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(ZScore()(x)[0, 0, 0], x)
    assert gradient.flatten().tolist() == pytest.approx([0.8, -0.2, -0.2, -0.2, -0.2])


def test_samples_and_modalities_do_not_see_each_other() -> None:
    x = scan(2, (6, 6), 1.0, 2.0, 0.2)
    other = x.clone()
    other[1] *= 9
    other[0, 1] += 4
    assert torch.equal(ZScore()(x)[0, 0], ZScore()(other)[0, 0])


def test_the_input_is_not_written_to() -> None:
    x = scan(3, (6, 6), 1.0, 2.0, 0.2)
    before = x.clone()
    ZScore()(x.requires_grad_()).sum().backward()
    assert torch.equal(x.detach(), before)
    assert Unchanged()(x) is x
