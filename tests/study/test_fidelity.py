"""SSIM against MONAI, PSNR against its formula."""

from __future__ import annotations

import math

import pytest
import torch
from monai.metrics import SSIMMetric
from torch import Tensor
from torch.nn import functional

from medadv.errors import CaseError, ConfigError
from medadv.study.fidelity import distortion, fidelity


def image(*shape: int) -> Tensor:
    g = torch.Generator().manual_seed(1)
    x = torch.rand(shape, generator=g) * 900 + 100
    x[..., 0] = 0
    return x


@pytest.mark.parametrize("shape", [(2, 24, 24, 24), (2, 16, 12, 3), (1, 8, 2), (3, 30, 20), (1, 1, 5, 4)])
def test_fidelity_on_any_size(shape: tuple[int, ...]) -> None:
    clean = image(*shape)
    slightly, strongly = (clean + amount * torch.randn(shape).sign() * (clean != 0) for amount in (5.0, 100.0))
    names = [f"m{c}" for c in range(shape[0])]
    for little, much in zip(fidelity(clean, slightly, names), fidelity(clean, strongly, names), strict=True):
        assert little.psnr_db is not None
        assert much.psnr_db is not None
        assert 1 > little.ssim > much.ssim
        assert little.psnr_db == pytest.approx(much.psnr_db + 20 * math.log10(20), abs=1e-3)


def test_psnr_is_the_formula_and_ssim_is_monais() -> None:
    clean = image(1, 16, 15, 14)
    adversarial = clean + 7 * (clean != 0)
    (found,) = fidelity(clean, adversarial, ["t1"])
    inside = clean[clean != 0]
    width = (inside.max() - inside.min()).item()
    error = 49 * (clean != 0).float().mean().item()
    assert found.psnr_db == pytest.approx(10 * math.log10(width**2 / error), abs=1e-4)
    theirs = SSIMMetric(3, data_range=width)(adversarial[None], clean[None])
    assert found.ssim == pytest.approx(torch.as_tensor(theirs).item(), abs=1e-5)


def test_an_unchanged_modality_has_ssim_one_and_no_psnr() -> None:
    clean = image(2, 9, 8, 7)
    adversarial = clean.clone()
    adversarial[1, 4, 4, 4] += 1
    same, changed = fidelity(clean, adversarial, ["t1", "t2"])
    assert (same.modality, same.ssim, same.psnr_db) == ("t1", 1.0, None)
    assert changed.psnr_db is not None
    assert changed.ssim < 1


@pytest.mark.parametrize("scale", [1e-5, 1e5, 1e18])
def test_fidelity_does_not_depend_on_the_stored_scale(scale: float) -> None:
    clean = image(1, 12, 12, 12)
    adversarial = clean + 20 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(2)) * (clean != 0)
    (here,), (there,) = fidelity(clean, adversarial, ["t1"]), fidelity(clean * scale, adversarial * scale, ["t1"])
    assert there.ssim == pytest.approx(here.ssim, abs=1e-5)
    assert there.psnr_db == pytest.approx(here.psnr_db, abs=1e-3)


def test_fidelity_refuses_what_does_not_fit() -> None:
    with pytest.raises(ConfigError, match="one name a channel"):
        fidelity(image(2, 5, 5), image(2, 5, 5), ["t1"])
    flat = torch.full((1, 5, 5), 3.0)
    with pytest.raises(CaseError, match="data range of t1 is zero"):
        fidelity(flat, flat + 1, ["t1"])


def picture(seed: int = 3) -> Tensor:
    return (255 * torch.rand((3, 21, 17), generator=torch.Generator().manual_seed(seed))).round()


def test_the_fidelity_of_a_picture_is_monais_at_a_range_of_255() -> None:
    clean = picture()
    adversarial = clean + 8 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(4))
    found = fidelity(clean, adversarial, ["red", "green", "blue"], data_range=255.0)
    for channel, row in enumerate(found):
        a, b = clean[None, channel : channel + 1], adversarial[None, channel : channel + 1]
        theirs = SSIMMetric(2, data_range=255.0)(b, a)
        assert row.ssim == pytest.approx(torch.as_tensor(theirs).item(), abs=1e-5)
        assert row.psnr_db == pytest.approx(10 * math.log10(255**2 / (b - a).square().mean().item()), abs=1e-4)


def test_a_black_picture_has_a_fidelity() -> None:
    black = torch.zeros(1, 12, 12)
    (row,) = fidelity(black, black + 1, ["red"], data_range=255.0)
    assert row.psnr_db == pytest.approx(20 * math.log10(255))


def test_distortion_by_hand() -> None:
    """Of 357 pixels one changes by (3, 4, 12): 13 long."""
    clean = picture()
    adversarial = clean.clone()
    adversarial[:, 5, 6] += torch.tensor([3.0, -4.0, 12.0])
    found = distortion(clean, adversarial)
    assert (found.linf, found.l2) == (12, 13)
    assert found.perceptibility == pytest.approx(13 / 255 / math.sqrt(21 * 17))
    assert distortion(clean, clean).perceptibility == 0


def test_a_change_of_half_a_grey_level_is_hardly_perceptible() -> None:
    """In every channel of every pixel: √3 · 0.5 / 255, as large as those of Xie et al."""
    clean = picture()
    found = distortion(clean, clean + 0.5 * torch.randn(clean.shape).sign())
    assert found.perceptibility == pytest.approx(math.sqrt(3) * 0.5 / 255)
    assert found.linf == 0.5


def test_padding_does_not_dilute_perceptibility() -> None:
    """Planted fault: on a canvas of three times the size it is less by the root of three."""
    clean = picture()
    change = 8 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(5))
    alone = distortion(clean, clean + change)
    pad = (0, 0, 0, 2 * clean.shape[1])
    canvas, padded = functional.pad(clean, pad), functional.pad(change, pad)
    where = functional.pad(torch.ones(clean.shape[1:], dtype=torch.bool), pad)
    found = distortion(canvas, canvas + padded, where=where)
    assert (found.linf, found.l2) == pytest.approx((alone.linf, alone.l2))
    assert found.perceptibility == pytest.approx(alone.perceptibility)
    assert distortion(canvas, canvas + padded).perceptibility == pytest.approx(alone.perceptibility / math.sqrt(3))
