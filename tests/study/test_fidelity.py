"""SSIM against MONAI, PSNR against its formula."""

from __future__ import annotations

import math

import pytest
import torch
from monai.metrics import SSIMMetric
from torch import Tensor

from medadv.errors import CaseError, ConfigError
from medadv.study.fidelity import fidelity


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
