"""What a person is told to look at: each fault is planted into real files, and found; nothing where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from study.checking.sets import IDS, PATTERN, change

from medadv.data.brats import MODALITIES
from medadv.data.phantom import phantom
from medadv.study.checking import Survey, check
from medadv.study.checking.remarks import remarks


def seen(root: Path, **declared: Any) -> dict[str, tuple[str, ...]]:
    return {remark.message: remark.cases for remark in remarks(check(root, declared))}


def test_nothing_is_said_of_sound_data(three: Path) -> None:
    assert seen(three) == {}


def copied(root: Path) -> None:
    for kind in (*MODALITIES, "seg"):
        shutil.copy(root / IDS[0] / f"{IDS[0]}_{kind}.nii.gz", root / IDS[2] / f"{IDS[2]}_{kind}.nii.gz")


def copied_labels(root: Path) -> None:
    shutil.copy(root / IDS[0] / f"{IDS[0]}_seg.nii.gz", root / IDS[1] / f"{IDS[1]}_seg.nii.gz")


def copied_modality(root: Path) -> None:
    for case in IDS:
        shutil.copy(root / case / f"{case}_t1.nii.gz", root / case / f"{case}_flair.nii.gz")


def without_enhancing(root: Path) -> None:
    for case in IDS:
        change(root, case, "seg", lambda v: np.where(v == 4, 1, v).astype(np.uint8))


def blank(root: Path) -> None:
    change(root, IDS[1], "seg", lambda v: 0 * v)


def exchanged(root: Path) -> None:
    for case in IDS:
        change(root, case, "seg", lambda v: np.choose(v, [0, 2, 1, 3, 4]).astype(np.uint8))


def apart(root: Path) -> None:
    for case in IDS:
        change(root, case, "seg", lambda v: np.where(v == 1, 4, np.where(v == 2, 1, 0) * (v == 1)).astype(np.uint8))


def filled(root: Path) -> None:
    change(root, IDS[0], "seg", lambda v: np.full_like(v, 2))


def scaled(root: Path) -> None:
    change(root, IDS[2], "t2", lambda v: (v / 20).astype(np.float32))


def negative(root: Path) -> None:
    change(root, IDS[0], "flair", lambda v: np.where(v, v - 300.5, 0).astype(np.float32))


FAULTS: dict[str, tuple[Callable[[Path], None], str, tuple[str, ...]]] = {
    "a case twice": (copied, "the same voxels under 2 ids of different patients", (IDS[0], IDS[2])),
    "a label map twice": (copied_labels, "the same label map under 2 ids of different patients", (IDS[0], IDS[1])),
    "a modality twice": (copied_modality, "the same voxels in t1 and flair, in all 3 cases", ()),
    "a tissue nowhere": (without_enhancing, "no voxel of ET, in all 3 cases", ()),
    "a blank label map": (blank, "the label map is all background, in 1 of 3 cases", (IDS[1],)),
    "numbers exchanged": (exchanged, "necrosis lies outside the oedema, in all 3 cases", ()),
    "enhancing tissue alone": (apart, "most of the enhancing tissue touches no other tumour, in all 3 cases", ()),
    "a mask for a label": (filled, "the labels take more than half of the image, in 1 of 3 cases", (IDS[0],)),
    "another scale": (scaled, "another scale of t2: σ is", (IDS[2],)),
    "values below 0": (negative, "values below 0 in flair, in 1 of 3 cases", (IDS[0],)),
}


@pytest.mark.parametrize(("plant", "message", "cases"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_told(own: Path, plant: Callable[[Path], None], message: str, cases: tuple[str, ...]) -> None:
    plant(own)
    found = {said: where for said, where in seen(own).items() if said.startswith(message)}
    assert list(found.values()) == [cases], seen(own)


def test_unknown_patients_are_told(own: Path) -> None:
    assert seen(own, **PATTERN) == {"patients are unknown, and every case counts as one, in all 3 cases": ()}
    assert seen(own, **PATTERN, patient="Phantom_{patient}") == {}


@pytest.mark.parametrize(("spacing", "told"), [(1.0, False), (5.0, True)])
def test_a_head_with_its_skull_is_told_and_a_cut_out_is_not(tmp_path: Path, spacing: float, told: bool) -> None:
    phantom(tmp_path, 1, (24, 24, 24), spacing=spacing)
    for kind in MODALITIES:
        change(tmp_path, IDS[0], kind, lambda v: (v + 1).astype(np.int16))
    said = [remark for remark in remarks(check(tmp_path, {})) if "skull-stripped" in remark.message]
    assert bool(said) == told
    if told:
        assert "support: otsu" in str(said[0].advice)


def test_grids_that_differ_are_told(three: Path) -> None:
    survey = check(three)
    turned = replace(survey.facts[2], orientation="RAS", spacing=(1.0, 1.0, 3.0))
    said = [remark.message for remark in remarks(replace(survey, facts=[*survey.facts[:2], turned]))]
    assert said == [
        "the axes lead into different directions: LPS (2), RAS (1), in 1 of 3 cases",
        "voxels differ in size: 1 to 3 mm along axis 2, in 1 of 3 cases",
    ]


def test_ids_that_make_no_file_name_are_told(own: Path) -> None:
    (own / IDS[0]).rename(own / "Mary Doe")
    data = PATTERN | {"patient": "{patient}"}
    assert seen(own, **data) == {"ids that make no file names, in 1 of 3 cases": ("Mary Doe",)}


def test_nothing_is_said_of_nothing(three: Path) -> None:
    survey = check(three)
    assert remarks(Survey("", (), [], [], survey.modalities, survey.scheme)) == []
