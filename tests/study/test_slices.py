"""Which planes are kept of a delivered case."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from medadv.attack.budget import Scales, Unit
from medadv.data.case import Case, Volume
from medadv.labels import BRATS_2018
from medadv.study.slices import SLICES, Views, read_slices, save_slices


def position(tmp_path: Path, truth: torch.Tensor, fooled: torch.Tensor) -> tuple[int, ...]:
    x = torch.rand(1, *truth.shape) + 1
    volume = Volume(Case("a", None, {"t1": Path("a")}, None, BRATS_2018), x, truth, np.eye(4))
    save_slices(tmp_path, Views(x, x, truth, truth, fooled), volume, BRATS_2018)
    return read_slices(tmp_path / SLICES).position


def test_planes_go_through_the_lesion_even_where_most_errors_lie_elsewhere(tmp_path: Path) -> None:
    truth = torch.zeros(12, 12, 12, dtype=torch.int64)
    truth[2:5, 2:5, 2:5] = 2
    fooled = truth.clone()
    fooled[8:12, 8:12, 8:12] = 2
    fooled[3, 3, 3] = 0
    assert position(tmp_path, truth, fooled) == (3, 3, 3)


def test_sigma_is_that_of_the_voxels_that_may_change(tmp_path: Path) -> None:
    """The unit of a study's budgets, whatever its support."""
    x = torch.rand(2, 6, 6, 6, generator=torch.Generator().manual_seed(0)) * (torch.arange(6) > 2)
    labels = torch.zeros(6, 6, 6, dtype=torch.int64)
    volume = Volume(Case("a", None, {"t1": Path("a"), "t2": Path("b")}, None, BRATS_2018), x, labels, np.eye(4))
    views = Views(x, x, labels, labels, labels)
    nothing = torch.zeros_like(x, dtype=torch.bool)
    supports = (None, x != 0, torch.ones_like(nothing), nothing)
    found = []
    for support in supports:
        save_slices(tmp_path, views, volume, BRATS_2018, support)
        found.append(read_slices(tmp_path / SLICES).sigma)
    for sigma, where in zip(found[1:3], supports[1:3], strict=True):
        scales = Scales(x[None], where[None]).of(Unit.SIGMA)  # type: ignore[index]
        assert sigma == pytest.approx(scales[0].tolist(), rel=1e-12)
    assert found[0] == found[1] != found[2]
    assert found[3] == (0.0, 0.0)


def test_without_a_lesion_planes_go_through_what_was_invented(tmp_path: Path) -> None:
    truth = torch.zeros(12, 12, 12, dtype=torch.int64)
    fooled = truth.clone()
    fooled[9, 8, 7] = 4
    assert position(tmp_path, truth, fooled) == (9, 8, 7)
