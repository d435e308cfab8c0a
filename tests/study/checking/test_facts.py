"""What one case holds, against what was put into it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from medadv.data.brats import MODALITIES, brats
from medadv.data.case import Case, Volume
from medadv.data.files import read
from medadv.labels import BACKGROUND, BRATS_2018, LabelScheme
from medadv.study.checking.facts import BINS, facts_of, labels_of

ONE = LabelScheme("one", {BACKGROUND: 0, "lesion": 1})


def volume(x: np.ndarray, truth: np.ndarray, affine: np.ndarray | None = None) -> Volume:
    names = MODALITIES[: len(x)]
    case = Case("a", "p", {name: Path(name) for name in names}, Path("seg"), BRATS_2018)
    stored = dict.fromkeys(names, np.dtype(np.int16))
    affine = np.diag([-1.0, -1.0, 2.0, 1.0]) if affine is None else affine
    return Volume(case, torch.from_numpy(x.astype(np.float32)), torch.from_numpy(truth), affine, stored)


def test_statistics_are_those_of_the_voxels_that_are_not_0() -> None:
    x = np.zeros((2, 10, 10, 10))
    x[0].ravel()[:101] = np.arange(101) + 100
    x[1] = -1.0
    x[1, 0] = 1.0
    facts = facts_of(volume(x, np.zeros((10, 10, 10), np.int64)))
    t1, t1ce = facts.intensities["t1"], facts.intensities["t1ce"]
    assert (t1.low, t1.p1, t1.mean, t1.p99, t1.high) == (100, 101, 150, 199, 200)
    assert t1.sigma == pytest.approx(np.sqrt((101**2 - 1) / 12))  # of the whole numbers in a row
    assert (t1.zeros, t1.negative) == (pytest.approx(0.899), 0)
    assert len(t1.histogram) == BINS
    assert sum(t1.histogram) == 99
    assert (t1ce.zeros, t1ce.negative) == (0, pytest.approx(0.9))


def test_a_grid_is_told_in_millimetres_and_directions() -> None:
    facts = facts_of(volume(np.arange(1, 61).reshape(1, 3, 4, 5), np.zeros((3, 4, 5), np.int64)))
    assert (facts.shape, facts.spacing, facts.orientation) == ((3, 4, 5), (1, 1, 2), "LPS")
    assert facts.millilitres == pytest.approx(0.002)
    turned = np.array([[0, 0, 3.0, 0], [1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    facts = facts_of(volume(np.arange(1, 61).reshape(1, 3, 4, 5), np.zeros((3, 4, 5), np.int64), turned))
    assert (facts.orientation, facts.spacing) == ("AIR", (1, 1, 3))


def test_labels_are_counted() -> None:
    truth = np.zeros((20, 20, 20), np.int64)
    truth[2:12, 2:12, 2:12] = 2
    truth[4:10, 4:10, 4:10] = 4
    truth[6:8, 6:8, 6:8] = 1
    truth[15, 15, 15] = 4
    labels = labels_of(truth, BRATS_2018, 4000)
    assert labels.tissues == {"necrosis": 8, "oedema": 1000 - 216, "enhancing": 216 - 8 + 1}
    assert labels.regions == {"WT": 1001, "TC": 217, "ET": 209}
    assert labels.components == {"WT": 2, "TC": 2, "ET": 2, "necrosis": 1, "oedema": 1}
    assert labels.foreground == pytest.approx(1001 / 4000)
    assert labels.enhancing_alone == pytest.approx(1 / 209)
    surface = 10**3 - 8**3
    assert labels.surface == pytest.approx({"necrosis": 0, "oedema": surface / 489, "enhancing": 1 / 489})


@pytest.mark.parametrize("scheme", [BRATS_2018, ONE])
def test_an_empty_label_map_is_counted_too(scheme: LabelScheme) -> None:
    labels = labels_of(np.zeros((4, 4, 4), np.int64), scheme, 0)
    assert set(labels.tissues.values()) | set(labels.components.values()) | {labels.foreground} == {0}
    assert (labels.enhancing_alone, labels.surface) == (None, {})


def test_parts_that_share_a_corner_are_one() -> None:
    truth = np.zeros((5, 5, 5), np.int64)
    truth[0, 0, 0] = truth[1, 1, 1] = truth[4, 4, 4] = 1
    assert labels_of(truth, ONE, 125).components == {"lesion": 2}


def test_content_has_one_digest_whatever_its_file(three: Path) -> None:
    case = brats(three / "Phantom_00000")
    facts = facts_of(read(case))
    voxels = np.ascontiguousarray(read(case).x[0].numpy())
    state = hashlib.sha256(repr(voxels.shape).encode() + voxels.tobytes())
    assert facts.intensities["t1"].digest == state.hexdigest()
    assert len({each.digest for each in facts.intensities.values()}) == 4
