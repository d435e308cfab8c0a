"""Which planes are kept of a delivered case."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

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


def test_without_a_lesion_planes_go_through_what_was_invented(tmp_path: Path) -> None:
    truth = torch.zeros(12, 12, 12, dtype=torch.int64)
    fooled = truth.clone()
    fooled[9, 8, 7] = 4
    assert position(tmp_path, truth, fooled) == (9, 8, 7)
