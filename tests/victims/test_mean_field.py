"""The mean-field CRF: brute force, closed forms, finite differences, symmetries, and what it refuses."""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import product
from math import exp

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from runtime_types import unchecked
from torch import Tensor

from medadv.errors import ConfigError, VictimError
from medadv.victims import bilateral
from medadv.victims.mean_field import MeanField

TINY = MeanField(appearance=1.5, smoothness=0.7, alpha=2.5, beta=1.2, gamma=1.4, iterations=3, radius=None)
SHAPES = [(5, 4), (3, 2, 4)]


def pair(*shape: int, classes: int = 3, batch: int = 1) -> tuple[Tensor, Tensor]:
    """Logits, and an image of two modalities with some zeros, in double precision."""
    logits = 2 * torch.randn(batch, classes, *shape, dtype=torch.float64)
    x = 1.5 * torch.randn(batch, 2, *shape, dtype=torch.float64) + 4
    return logits, torch.where(torch.rand(batch, 2, *shape) < 0.15, 0.0, x)


def by_loops(crf: MeanField, logits: Tensor, x: Tensor) -> Tensor:
    """The definition, voxel by voxel: no tensors, no separation of axes, no shifting of exponents."""
    unary, image, shape = logits[0].numpy(), x[0].numpy(), x.shape[2:]
    voxels = list(product(*map(range, shape)))
    reach = max(shape) if crf.radius is None else crf.radius
    z = unary.copy()
    for _ in range(crf.iterations):
        odds = np.exp(z)
        q, z = odds / odds.sum(0), unary.copy()
        for i in voxels:
            near = [j for j in voxels if max(abs(a - b) for a, b in zip(i, j, strict=True)) <= reach]
            far = {j: sum((a - b) ** 2 for a, b in zip(i, j, strict=True)) for j in near}
            unlike = {j: ((image[(slice(None), *i)] - image[(slice(None), *j)]) ** 2).sum() for j in near}
            k = {j: exp(-far[j] / (2 * crf.alpha**2) - unlike[j] / (2 * crf.beta**2)) for j in near}
            kappa = {j: exp(-far[j] / (2 * crf.gamma**2)) for j in near}
            for weight, kernel in ((crf.appearance, k), (crf.smoothness, kappa)):
                message = sum(kernel[j] * q[(slice(None), *j)] for j in near)
                z[(slice(None), *i)] += weight * message / sum(kernel.values())
    return torch.from_numpy(z)[None]


# Values


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("radius", [None, 1, 2])
def test_it_is_its_definition(shape: tuple[int, ...], radius: int | None) -> None:
    crf, (logits, x) = replace(TINY, radius=radius), pair(*shape)
    torch.testing.assert_close(crf(logits, x), by_loops(crf, logits, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(9, 6), (4, 3, 5)])
def test_a_window_that_covers_the_image_is_exact(shape: tuple[int, ...]) -> None:
    """Values, and gradients through both: one by autograd, one in closed form."""
    logits, x = pair(*shape, batch=2)
    weight = torch.randn_like(logits)
    found = []
    for radius in (None, max(shape) - 1, 50):
        u, v = logits.clone().requires_grad_(), x.clone().requires_grad_()
        z = replace(TINY, radius=radius)(u, v)
        found.append((z.detach(), *torch.autograd.grad((z * weight).sum(), (u, v))))
    for other in found[1:]:
        for one, windowed in zip(found[0], other, strict=True):
            torch.testing.assert_close(windowed, one, rtol=1e-12, atol=1e-12)


def test_the_size_of_a_chunk_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    crf, (logits, x) = replace(TINY, radius=2), pair(11, 7)
    at_once = crf(logits, x)
    monkeypatch.setattr(bilateral, "CHUNK", {"cpu": 1})
    torch.testing.assert_close(crf(logits, x), at_once, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("radius", [None, 2])
@pytest.mark.parametrize("none", [{"iterations": 0}, {"appearance": 0.0, "smoothness": 0.0}])
def test_without_weights_or_iterations_the_logits_stay(radius: int | None, none: dict[str, float]) -> None:
    logits, x = pair(5, 4)
    crf = replace(TINY, radius=radius, **none)
    assert torch.equal(crf(logits, x), logits)
    assert torch.equal(crf(logits, x).softmax(1), logits.softmax(1))


@pytest.mark.parametrize("radius", [None, 1])
def test_two_voxels_have_a_closed_form(radius: int | None) -> None:
    """One iteration: each voxel gets the other's share, by how near and how alike it is."""
    crf = replace(TINY, iterations=1, radius=radius)
    u, v, apart = 0.8, -1.7, 1.1
    logits = torch.tensor([[[[0.0, 0.0]], [[u, v]]]], dtype=torch.float64)
    x = torch.tensor([[[[3.0, 3.0 + apart]]]], dtype=torch.float64)
    one, other = (1 / (1 + exp(-w)) for w in (u, v))
    k = exp(-1 / (2 * crf.alpha**2) - apart**2 / (2 * crf.beta**2))
    kappa = exp(-1 / (2 * crf.gamma**2))
    a, s = crf.appearance / (1 + k), crf.smoothness / (1 + kappa)
    expected = [
        w + (a + s) * (2 * p - 1) + (a * k + s * kappa) * (2 * q - 1) for w, p, q in ((u, one, other), (v, other, one))
    ]
    z = crf(logits, x)
    np.testing.assert_allclose((z[0, 1] - z[0, 0])[0].numpy(), expected, rtol=1e-12)


def test_the_defaults_are_crf_rnns() -> None:
    told = asdict(MeanField())
    assert [told[name] for name in ("appearance", "smoothness", "alpha", "beta", "gamma")] == [5, 3, 160, 3, 3]
    assert told["iterations"] == 5


def test_edges_hold_a_label_back_and_flat_regions_let_it_through() -> None:
    """A doubtful pixel takes the label of those that look like it, not of those that are nearer."""
    x = torch.full((1, 1, 1, 6), 10.0)
    x[..., 3:] = 200.0
    logits = torch.zeros(1, 2, 1, 6)
    logits[:, 0, :, :3] = logits[:, 1, :, 4:] = 4.0
    refined = MeanField(smoothness=0.0, radius=5)(logits, x)
    assert refined.argmax(1).flatten().tolist() == [0, 0, 0, 1, 1, 1]
    assert MeanField(smoothness=0.0, beta=1e4)(logits, x).argmax(1)[..., 3].item() == 0  # three against two


def test_in_single_precision_on_grey_levels_it_is_the_same_to_rounding() -> None:
    torch.manual_seed(3)
    logits, x = torch.randn(1, 5, 12, 10), (255 * torch.rand(1, 3, 12, 10)).round()
    crf = MeanField(beta=40.0)
    torch.testing.assert_close(crf(logits, x).double(), crf(logits.double(), x.double()), rtol=1e-5, atol=1e-5)


# Gradients


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 2)])
@pytest.mark.parametrize("radius", [None, 1, 2])
@pytest.mark.parametrize("unit", ["stored", "sigma"])
def test_the_full_gradient_is_that_of_finite_differences(shape: tuple[int, ...], radius: int | None, unit: str) -> None:
    crf, (logits, x) = replace(TINY, radius=radius, unit=unit, iterations=2), pair(*shape)
    # A voxel that is zero lies outside the mask of its σ, and moving it would move it inside.
    x = x if unit == "stored" else torch.where(x == 0, 1.0, x)
    assert torch.autograd.gradcheck(crf, (logits.requires_grad_(), x.requires_grad_()), atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("radius", [None, 2])
def test_a_detached_kernel_has_the_gradient_of_the_logits_alone(radius: int | None) -> None:
    logits, x = pair(6, 5)
    found = {}
    for gradient in ("full", "detached"):
        u, v = logits.clone().requires_grad_(), x.clone().requires_grad_()
        z = replace(TINY, radius=radius, gradient=gradient)(u, v)
        found[gradient] = (z.detach(), *torch.autograd.grad(z.square().sum(), (u, v), allow_unused=True))
    assert torch.equal(found["full"][0], found["detached"][0])
    torch.testing.assert_close(found["full"][1], found["detached"][1], rtol=1e-12, atol=1e-12)
    assert found["full"][2].abs().max() > 0.01
    assert found["detached"][2] is None


@pytest.mark.parametrize("radius", [None, 2])
def test_on_a_constant_image_the_kernel_has_no_gradient(radius: int | None) -> None:
    logits, x = pair(6, 5)
    x = torch.full_like(x, 70.0).requires_grad_()
    (slope,) = torch.autograd.grad(replace(TINY, radius=radius)(logits, x).square().sum(), x)
    assert slope.abs().max() < 1e-12


# Symmetries


@pytest.mark.parametrize("radius", [None, 2])
def test_what_is_turned_before_is_turned_after(radius: int | None) -> None:
    crf, (logits, x) = replace(TINY, radius=radius), pair(5, 7, 3)
    for turned in (lambda t: t.flip(2), lambda t: t.flip(3, 4), lambda t: t.transpose(2, 4)):
        torch.testing.assert_close(crf(turned(logits), turned(x)), turned(crf(logits, x)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("radius", [None, 2])
def test_constants_and_the_order_of_classes_and_modalities_do_not_matter(radius: int | None) -> None:
    crf, (logits, x) = replace(TINY, radius=radius), pair(5, 4)
    z, shift = crf(logits, x), torch.randn(1, 1, 5, 4, dtype=torch.float64)
    torch.testing.assert_close(crf(logits + shift, x), z + shift, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(crf(logits[:, [2, 0, 1]], x), z[:, [2, 0, 1]], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(crf(logits, x[:, [1, 0]] + 50), z, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("radius", [None, 2])
def test_samples_and_regions_are_refined_alone(radius: int | None) -> None:
    crf = replace(TINY, radius=radius)
    logits, x = pair(5, 4, classes=2, batch=3)
    regions = torch.stack([logits, logits.flip(0)], 2)  # two heads, outside and inside each
    together = crf(regions, x)
    for b in range(3):
        for r, one in enumerate((logits, logits.flip(0))):
            torch.testing.assert_close(together[b : b + 1, :, r], crf(one[b : b + 1], x[b : b + 1]), rtol=1e-12, atol=0)


@pytest.mark.parametrize("radius", [None, 2])
def test_in_sigmas_the_scale_of_the_scanner_does_not_matter(radius: int | None) -> None:
    crf, (logits, x) = replace(TINY, radius=radius, unit="sigma", beta=0.5), pair(5, 4)
    z = crf(logits, x)
    torch.testing.assert_close(crf(logits, x * torch.tensor([1e-3, 500.0]).view(1, 2, 1, 1)), z, rtol=1e-9, atol=1e-9)
    seen = x[0, 0][x[0, 0] != 0]
    alone = replace(crf, unit="stored", beta=0.5 * seen.std(correction=0).item())
    torch.testing.assert_close(crf(logits, x[:, :1]), alone(logits, x[:, :1]), rtol=1e-9, atol=1e-9)


def test_a_modality_without_spread_is_none_in_sigmas_either() -> None:
    logits, x = pair(5, 4)
    x[:, 1] = 0.1
    leaf = x.requires_grad_()
    (slope,) = torch.autograd.grad(replace(TINY, unit="sigma")(logits, leaf).square().sum(), leaf)
    assert slope.isfinite().all()


# What is refused, and what can be written


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"appearance": -1.0}, "weight"),
        ({"smoothness": float("nan")}, "weight"),
        ({"appearance": "5"}, "weight"),
        ({"alpha": 0.0}, "width"),
        ({"beta": float("inf")}, "width"),
        ({"gamma": True}, "width"),
        ({"iterations": -1}, "iterations"),
        ({"iterations": 2.0}, "iterations"),
        ({"radius": 0}, "whole number of voxels"),
        ({"radius": 1.5}, "whole number of voxels"),
        ({"unit": "mm"}, "unit"),
        ({"gradient": "none"}, "gradient"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, object], word: str) -> None:
    with unchecked(), pytest.raises(ConfigError, match=word) as refusal:
        MeanField(**settings)  # type: ignore[arg-type]
    assert refusal.value.details["expected"]
    assert repr(next(iter(settings.values()))) in refusal.value.details["got"]


def test_all_pairs_of_a_large_image_are_refused_with_advice() -> None:
    x = torch.zeros(1, 1, 64, 33)
    with pytest.raises(ConfigError, match="too many") as refusal:
        MeanField(radius=None)(torch.zeros(1, 2, 64, 33), x)
    assert "radius" in refusal.value.details["try"]


def test_another_grid_is_refused() -> None:
    for logits in (torch.zeros(1, 2, 5, 4), torch.zeros(2, 2, 4, 5)):
        with unchecked(), pytest.raises(VictimError, match="different grids"):
            MeanField()(logits, torch.zeros(1, 1, 4, 5))


def test_it_can_be_read_from_a_study() -> None:
    reader = TypeAdapter(MeanField)
    crf = MeanField(beta=0.5, unit="sigma", gradient="detached", radius=2)
    assert reader.validate_python(asdict(crf)) == crf
    assert reader.validate_python({"name": "mean-field CRF"}) == MeanField()
    for wrong in ({"betta": 3}, {"name": "CRF"}, {"unit": "mm"}):
        with pytest.raises(ValidationError):
            reader.validate_python(wrong)
