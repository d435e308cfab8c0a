"""Normalisations of all kinds: the values of MONAI and nnU-Net, the gradient of finite differences."""

from __future__ import annotations

from dataclasses import asdict

import monai.transforms as mt
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from runtime_types import unchecked
from torch import Tensor

from medadv.errors import ConfigError, VictimError
from medadv.victims.checkpoint import Preprocessing
from medadv.victims.normalize import Normalisation, PerChannel, Standard, Unchanged, ZScore, head_of
from medadv.victims.ranges import MinMax, Percentiles, ScaleRange, quantiles


def scan(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Three modalities around a background of zeros, each with a hole of its own."""
    torch.manual_seed(3)
    x = torch.randn(1, 3, *shape, dtype=dtype) * torch.tensor([1.0, 30.0, 200.0]).view(1, 3, *[1] * len(shape)) + 4
    x[..., 0] = 0
    x[..., -1] = 0
    x[:, 0, 2] = 0
    x[(..., *[2] * len(shape))] = 0
    return x


PAIRS = [
    (ScaleRange(-20.0, 80.0, 0.5, 2.0), mt.ScaleIntensityRange(-20, 80, 0.5, 2.0)),
    (ScaleRange(-20.0, 80.0, 0.5, 2.0, clip=True), mt.ScaleIntensityRange(-20, 80, 0.5, 2.0, clip=True)),
    (ScaleRange(-20.0, 80.0), mt.ScaleIntensityRange(-20, 80)),
    (ScaleRange(-20.0, 80.0, None, 1.0, clip=True), mt.ScaleIntensityRange(-20, 80, None, 1.0, clip=True)),
    (MinMax(), mt.ScaleIntensity()),
    (MinMax(-1.0, 3.0, channel_wise=True), mt.ScaleIntensity(-1, 3, channel_wise=True)),
    (Percentiles(5.0, 90.0), mt.ScaleIntensityRangePercentiles(5, 90, 0, 1)),
    (Percentiles(5.0, 95.0, -1.0, 1.0, True, True), mt.ScaleIntensityRangePercentiles(5, 95, -1, 1, True, False, True)),
    (
        Percentiles(10.0, 90.0, 0.0, 200.0, True, True, relative=True),
        mt.ScaleIntensityRangePercentiles(10, 90, 0, 200, True, True, True),
    ),
    (Percentiles(0.0, 100.0, None, None), mt.ScaleIntensityRangePercentiles(0, 100, None, None)),
    (
        Standard((1.0, 2.0, 3.0), (4.0, 0.0, 6.0)),
        mt.NormalizeIntensity([1.0, 2.0, 3.0], [4.0, 0.0, 6.0], channel_wise=True),
    ),
    (
        Standard((1.0, 2.0, 3.0), (4.0, 5.0, 6.0), nonzero=True),
        mt.NormalizeIntensity([1.0, 2.0, 3.0], [4.0, 5.0, 6.0], nonzero=True, channel_wise=True),
    ),
    (ZScore(channel_wise=False), mt.NormalizeIntensity(nonzero=True)),
    (ZScore(nonzero=False, channel_wise=False), mt.NormalizeIntensity()),
]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=[f"{i}-{ours.name}" for i, (ours, _) in enumerate(PAIRS)])
@pytest.mark.parametrize("shape", [(7, 6, 5), (9, 8)])
def test_values_are_monais(ours: Normalisation, theirs: mt.Transform, shape: tuple[int, ...]) -> None:
    x = scan(*shape)
    expected = torch.as_tensor(theirs(x[0].clone()))
    torch.testing.assert_close(ours(x)[0], expected, rtol=1e-5, atol=1e-5)
    both = ours(torch.cat([x, 2 * x]))
    assert torch.equal(both[:1], ours(x))  # a batch mate changes nothing


@pytest.mark.filterwarnings("ignore:Divide by zero:Warning")
@pytest.mark.parametrize("value", [3.0, 0.0, -2.5])
def test_a_constant_image_is_what_monai_makes_of_it(value: float) -> None:
    x = torch.full((1, 2, 4, 4), value)
    x[0, 1] = torch.randn(4, 4)
    for ours, theirs in [
        (MinMax(2.0, 3.0, channel_wise=True), mt.ScaleIntensity(2, 3, channel_wise=True)),
        (
            Percentiles(10.0, 90.0, 1.0, 2.0, True, True),
            mt.ScaleIntensityRangePercentiles(10, 90, 1, 2, True, False, True),
        ),
        (
            Percentiles(10.0, 90.0, 1.0, None, False, True),
            mt.ScaleIntensityRangePercentiles(10, 90, 1, None, channel_wise=True),
        ),
    ]:
        expected = torch.as_tensor(theirs(x[0].clone()))
        torch.testing.assert_close(ours(x)[0], expected, rtol=1e-5, atol=1e-5)


def nnunet(scheme: str, x: np.ndarray, mask: np.ndarray | None = None, **properties: float) -> np.ndarray:
    module = pytest.importorskip("nnunetv2.preprocessing.normalization.default_normalization_schemes")
    seg = None if mask is None else np.where(mask, 0, -1)
    return getattr(module, scheme)(mask is not None, properties).run(x.copy(), seg)


def test_values_are_nnunets() -> None:
    cropping = pytest.importorskip("nnunetv2.preprocessing.cropping.cropping")
    x = scan(7, 6, 5)
    ct = {"mean": 12.0, "std": 20.0, "percentile_00_5": -15.0, "percentile_99_5": 70.0}
    mask = cropping.create_nonzero_mask(x[0].numpy())
    assert mask[2, 2, 2]  # a hole, filled
    assert not (x[..., 2, 2, 2] != 0).any()
    np.testing.assert_array_equal(head_of(x)[0, 0].numpy(), mask)
    schemes = [
        (ZScore(joint=True), "ZScoreNormalization", mask, {}),
        (ZScore(nonzero=False), "ZScoreNormalization", None, {}),
        (Standard((12.0,), (20.0,), (-15.0,), (70.0,)), "CTNormalization", None, ct),
        (MinMax(channel_wise=True), "RescaleTo01Normalization", None, {}),
        (Unchanged(), "NoNormalization", None, {}),
    ]
    for ours, scheme, where, properties in schemes:
        expected = np.stack([nnunet(scheme, one, where, **properties) for one in x[0].numpy()])
        np.testing.assert_allclose(ours(x)[0].numpy(), expected, rtol=1e-5, atol=1e-5, err_msg=scheme)
    picture = torch.randint(0, 256, (1, 3, 6, 5)).float()
    expected = nnunet("RGBTo01Normalization", picture[0].numpy())
    np.testing.assert_allclose(ScaleRange(0.0, 255.0, 0.0, 1.0)(picture)[0].numpy(), expected, rtol=1e-6)


def test_each_channel_has_its_own_scheme_and_the_mask_is_that_of_all() -> None:
    x = scan(7, 6, 5)
    steps = (ZScore(joint=True), Standard((1.0,), (2.0,)), Percentiles(1.0, 99.0))
    y = PerChannel(steps)(x)
    assert torch.equal(y[:, :1], ZScore(joint=True)(x)[:, :1])
    assert torch.equal(y[:, 1:2], steps[1](x[:, 1:2]))
    assert torch.equal(y[:, 2:], steps[2](x[:, 2:]))
    assert not torch.equal(y[:, :1], ZScore(joint=True)(x[:, :1]))
    with pytest.raises(VictimError, match="one normalisation for each modality"):
        PerChannel(steps[:2])(x)


def test_the_holes_of_a_picture_stay_open_as_in_nnunets_single_slice() -> None:
    cropping = pytest.importorskip("nnunetv2.preprocessing.cropping.cropping")
    x = scan(7, 6)
    np.testing.assert_array_equal(head_of(x)[0].numpy(), cropping.create_nonzero_mask(x[0].numpy()[:, None]))


@pytest.mark.parametrize("step", [ZScore(joint=True), PerChannel((Unchanged(), ZScore(joint=True), Unchanged()))])
def test_a_shared_mask_is_that_of_the_clean_image_until_it_is_prepared_anew(step: Normalisation) -> None:
    x = scan(7, 6, 5)
    placed = step.prepare(x, None)
    moved = x.clone()
    moved[..., 0] = 1.0
    assert torch.equal(placed(x), step(x))
    assert not torch.equal(placed(moved), step(moved))
    assert torch.equal(step.prepare(moved, None)(moved), step(moved))
    assert torch.equal(placed(torch.cat([x, x]))[1:], step(x))  # a part of a batch, or more of the same
    with pytest.raises(VictimError, match="different masks") as refusal:
        step.prepare(torch.cat([x, moved]), None)
    assert "one case at a time" in refusal.value.details["try"]


def bent(z: Tensor) -> Tensor:
    """Pushes all voxels one way and bends: a constant statistic would be seen."""
    weight = torch.linspace(0.5, 2.0, z.numel(), dtype=z.dtype).view_as(z)
    return (weight * z + 0.3 * z.sin()).sum()


SMOOTH = [ours for ours, _ in PAIRS] + [
    ZScore(joint=True),
    Standard((12.0,), (20.0,), (-15.0,), (70.0,)),
    PerChannel((ZScore(joint=True), MinMax(), Percentiles(3.0, 97.0, clip=True))),
]


@pytest.mark.parametrize("step", SMOOTH, ids=[f"{i}-{step.name}" for i, step in enumerate(SMOOTH)])
def test_the_gradient_is_that_of_finite_differences(step: Normalisation) -> None:
    x = scan(4, 4, 4, dtype=torch.float64)
    placed = step.prepare(x, None)
    leaf = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(bent(placed(leaf)), leaf)
    h = 1e-6
    for place in (x != 0).nonzero():
        moved = torch.zeros_like(x)
        moved[tuple(place)] = h
        slope = (bent(placed(x + moved)) - bent(placed(x - moved))).item() / (2 * h)
        assert found[tuple(place)].item() == pytest.approx(slope, rel=1e-5, abs=1e-7)


def test_percentiles_as_constants_would_be_found_out() -> None:
    """The planted fault: what MONAI's transform gives for volumes of a million voxels and more."""
    x = scan(4, 4, 4, dtype=torch.float64).requires_grad_()
    (found,) = torch.autograd.grad(bent(Percentiles(5.0, 95.0)(x)), x)
    low, high = (torch.quantile(x.detach(), q) for q in (0.05, 0.95))
    (constant,) = torch.autograd.grad(bent((x - low) / (high - low)), x)
    assert (found - constant).abs().max() > 0.1 * constant.abs().max()


@given(
    values=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=40),
    shares=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_quantiles_are_numpys(values: list[float], shares: tuple[float, float]) -> None:
    rows = torch.tensor([values, values[::-1]], dtype=torch.float64)
    found = quantiles(rows, shares)
    np.testing.assert_allclose(found[0].numpy(), np.quantile(values, shares), rtol=1e-9, atol=1e-9)
    assert torch.equal(found[0], found[1])


def test_a_quantile_of_a_large_volume() -> None:
    x = torch.arange(2**21 + 2, dtype=torch.float32).flip(0)[None].requires_grad_()
    middle = quantiles(x, (0.5,))
    assert middle.item() == 2**20 + 0.5
    (gradient,) = torch.autograd.grad(middle.sum(), x)
    assert (x.detach()[gradient != 0]).tolist() == [2**20 + 1, 2**20]


@pytest.mark.parametrize("step", SMOOTH, ids=[f"{i}-{step.name}" for i, step in enumerate(SMOOTH)])
def test_a_step_is_a_setting_in_json(step: Normalisation) -> None:
    steps = TypeAdapter(Preprocessing)
    assert steps.validate_json(steps.dump_json(step)) == step
    with pytest.raises(ValueError, match="surprise"):
        steps.validate_python(asdict(step) | {"surprise": 1})


@pytest.mark.parametrize(
    "make",
    [
        lambda: ZScore(nonzero=False, joint=True),
        lambda: Standard((1.0, 2.0), (1.0,)),
        lambda: Standard((1.0,), (-1.0,)),
        lambda: Standard((), ()),
        lambda: ScaleRange(1.0, 1.0),
        lambda: Percentiles(50.0, 50.0),
        lambda: Percentiles(-1.0, 50.0),
        lambda: Percentiles(1.0, 99.0, None, 1.0, relative=True),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(make: object) -> None:
    with unchecked(), pytest.raises(ConfigError):
        make()


def test_other_modalities_than_there_are_numbers_for_are_refused() -> None:
    with pytest.raises(VictimError, match="another number of modalities"):
        Standard((1.0, 2.0), (1.0, 2.0))(scan(4, 4))
