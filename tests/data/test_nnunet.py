"""nnU-Net raw folders, made to the letter of its documentation; what cannot be used is refused and named."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medadv.data.files import read
from medadv.data.nnunet import nnunet_cohort
from medadv.errors import CaseError, ConfigError, Reason
from medadv.labels import MSD_TASK01

BRATS: dict[str, Any] = {
    "channel_names": {"0": "T1", "1": "T1ce", "2": "T2", "3": "Flair"},
    "labels": {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": [3]},
    "regions_class_order": [1, 2, 3],
    "numTraining": 2,
    "file_ending": ".nii.gz",
    "license": "passed over",
}
PROSTATE: dict[str, Any] = {
    "channel_names": {"1": "ADC", "0": "T2"},
    "labels": {"background": 0, "PZ": 1, "TZ": 2},
    "numTraining": 2,
    "file_ending": ".nii.gz",
    "overwrite_image_reader_writer": "SimpleITKIO",
}
CASES = ("case_001", "case_002")


def save(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.zeros((8, 8, 8), np.uint8)
    voxels[2:6, 2:6, 2:6] = value
    voxels[2, 2, 2] = 1 if value > 1 else 2
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)


def declare(root: Path, declared: dict[str, Any]) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(declared))
    return root


def lay_out(root: Path, declared: dict[str, Any], cases: Sequence[str] = CASES) -> Path:
    """Each channel is an image of its own number, so that none can be mistaken."""
    for case in cases:
        for channel in range(len(declared["channel_names"])):
            save(root / "imagesTr" / f"{case}_{channel:04d}{declared['file_ending']}", 10 + channel)
        save(root / "labelsTr" / f"{case}{declared['file_ending']}", 2)
    return declare(root, declared)


def refused(root: Path) -> dict[str, Reason]:
    return {refusal.case: refusal.reason for refusal in nnunet_cohort(root).refused}


def test_regions_and_channels_of_brats_have_their_names_here(tmp_path: Path) -> None:
    cohort = nnunet_cohort(lay_out(tmp_path, BRATS))
    assert cohort.refused == []
    assert cohort.modalities == ("t1", "t1ce", "t2", "flair")
    assert cohort.scheme.numbers == MSD_TASK01.numbers
    assert [(case.case, case.patient, case.fold) for case in cohort.cases] == [(c, None, None) for c in CASES]
    volume = read(cohort.cases[1])
    assert volume.x[:, 4, 4, 4].tolist() == [10, 11, 12, 13]
    assert volume.truth is not None
    assert int(cohort.scheme.mask(volume.truth, "TC").sum()) == 63
    assert int(cohort.scheme.mask(volume.truth, "WT").sum()) == 64


def test_channels_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    cohort = nnunet_cohort(lay_out(tmp_path, PROSTATE))
    assert cohort.modalities == ("t2", "ADC")
    assert cohort.scheme.names == ("foreground", "PZ", "TZ")
    assert read(cohort.cases[0]).x[:, 4, 4, 4].tolist() == [10, 11]


@pytest.mark.parametrize("ending", [".nii", ".nrrd", ".mha"])
def test_every_ending_of_volumes_is_found(tmp_path: Path, ending: str) -> None:
    lay_out(tmp_path, {**PROSTATE, "file_ending": ".nii"})
    for file in [*tmp_path.glob("*Tr/*.nii")]:
        file.rename(file.with_name(file.name.removesuffix(".nii") + ending))
    cohort = nnunet_cohort(declare(tmp_path, {**PROSTATE, "file_ending": ending}))
    assert [case.case for case in cohort.cases] == list(CASES)
    assert all(path.name.endswith(ending) for case in cohort.cases for path in case.images.values())


def test_a_list_of_files_may_point_elsewhere(tmp_path: Path) -> None:
    """As Dataset226 does: nothing is copied; absolute paths and paths from the folder on."""
    lay_out(tmp_path / "there", PROSTATE)
    there = [str(tmp_path / "there" / "imagesTr" / f"case_001_{n:04d}.nii.gz") for n in (0, 1)]
    listed = {
        "b": {"images": there, "label": str(tmp_path / "there" / "labelsTr" / "case_001.nii.gz")},
        "a": {
            "images": [f"../there/imagesTr/case_002_{n:04d}.nii.gz" for n in (0, 1)],
            "label": "../there/labelsTr/case_002.nii.gz",
        },
        "one channel": {"images": there[:1], "label": "../there/labelsTr/case_001.nii.gz"},
        "three channels": {"images": [*there, there[0]], "label": "../there/labelsTr/case_001.nii.gz"},
        "no label": {"images": there, "label": "../there/labelsTr/case_009.nii.gz"},
        "no images": {"images": [], "label": "../there/labelsTr/case_001.nii.gz"},
        "variable": {"images": there, "label": "$HOME/case_001.nii.gz"},
        "nothing": None,
    }
    root = declare(tmp_path / "here", {**PROSTATE, "dataset": listed})
    assert [case.case for case in nnunet_cohort(root).cases] == ["a", "b"]
    assert read(nnunet_cohort(root).cases[0]).x[:, 4, 4, 4].tolist() == [10, 11]
    assert refused(root) == {
        "one channel": Reason.MISSING_MODALITY,
        "three channels": Reason.EXTRA_MODALITY,
        "no label": Reason.MISSING_LABEL,
        "no images": Reason.DECLARATION,
        "variable": Reason.DECLARATION,
        "nothing": Reason.DECLARATION,
    }


def test_one_bad_case_costs_itself(tmp_path: Path) -> None:
    cases = ("good", "no_image", "no_label", "only_label", "one_more", "plain")
    lay_out(tmp_path, PROSTATE, cases)
    images = tmp_path / "imagesTr"
    (images / "no_image_0001.nii.gz").unlink()
    (tmp_path / "labelsTr" / "no_label.nii.gz").unlink()
    for channel in (0, 1):
        (images / f"only_label_{channel:04d}.nii.gz").unlink()
    (images / "one_more_0001.nii.gz").rename(images / "one_more_0007.nii.gz")
    (images / "plain_0000.nii.gz").rename(images / "plain.nii.gz")
    for left in ("._good_0000.nii.gz", "_good_0000.nii.gz", "notes.txt"):
        (images / left).write_bytes(b"what a file system leaves behind")
    assert [case.case for case in nnunet_cohort(tmp_path).cases] == ["good"]
    assert refused(tmp_path) == {
        "no_image": Reason.MISSING_MODALITY,
        "no_label": Reason.MISSING_LABEL,
        "only_label": Reason.MISSING_MODALITY,
        "one_more": Reason.EXTRA_MODALITY,
        "plain": Reason.EXTRA_MODALITY,
    }


def folds(first: Sequence[str], second: Sequence[str]) -> str:
    return json.dumps([{"train": list(second), "val": list(first)}, {"train": list(first), "val": list(second)}])


def test_a_case_is_of_the_fold_that_validates_on_it(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "raw", PROSTATE, (*CASES, "case_003"))
    (tmp_path / "splits.json").write_text(folds(["case_002"], ["case_001"]))
    told = nnunet_cohort(root, tmp_path / "splits.json")
    assert {case.case: case.fold for case in told.cases} == {"case_001": 1, "case_002": 0, "case_003": None}
    (root / "splits_final.json").write_text(folds(["case_003"], ["case_001"]))
    beside = nnunet_cohort(root).cases
    assert {case.case: case.fold for case in beside} == {"case_001": 1, "case_002": None, "case_003": 0}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot be read"),
        ("{", "cannot be read"),
        ('{"train": []}', "cannot be read"),
        ('[{"train": ["case_001"]}]', "cannot be read"),
        (folds(["x"], ["y"]), "none of the data set's cases"),
        (folds(["case_001"], ["case_001"]), "another fold validates on"),
    ],
)
def test_splits_that_cannot_be_meant_are_advice(tmp_path: Path, content: str | None, told: str) -> None:
    root = lay_out(tmp_path / "raw", PROSTATE)
    if content is not None:
        (tmp_path / "splits.json").write_text(content)
    with pytest.raises(ConfigError, match=told):
        nnunet_cohort(root, tmp_path / "splits.json")


def test_folds_that_overlap_stop_nobody_who_does_not_ask_for_them(tmp_path: Path) -> None:
    """As nnU-Net users write them for repeated random splits: a case is in the val of several folds."""
    root = lay_out(tmp_path, PROSTATE)
    splits = root / "splits_final.json"
    splits.write_text(json.dumps([{"train": ["case_002"], "val": ["case_001"]}] * 2))
    assert [(case.case, case.fold) for case in nnunet_cohort(root).cases] == [(case, None) for case in CASES]
    with pytest.raises(ConfigError, match=r"(?s)another fold validates on.*leave data\.splits out"):
        nnunet_cohort(root, splits)


UNMEANT: dict[str, tuple[str, str]] = {
    "not JSON": ("{", "not nnU-Net's"),
    "nested without end": ("[" * 100_000, "not nnU-Net's"),
    "a list": ("[]", "not nnU-Net's"),
    "a Decathlon's": ('{"modality": {"0": "T2"}, "labels": {"0": "background"}, "numTraining": 1}', "importer: msd"),
    "pictures": (json.dumps({**PROSTATE, "file_ending": ".png"}), "pictures"),
    "no ending": (json.dumps({k: v for k, v in PROSTATE.items() if k != "file_ending"}), "file_ending"),
    "no labels": (json.dumps({k: v for k, v in PROSTATE.items() if k != "labels"}), "labels"),
    "a label that is no number": (json.dumps({**PROSTATE, "labels": {"background": 0, "PZ": "1"}}), "labels.PZ"),
    "a label that is true": (json.dumps({**PROSTATE, "labels": {"background": 0, "PZ": True}}), "labels.PZ"),
    "no background": (json.dumps({**PROSTATE, "labels": {"PZ": 1, "TZ": 2}}), "no 'background'"),
    "one number twice": (json.dumps({**PROSTATE, "labels": {"background": 0, "PZ": 1, "TZ": 1}}), "one number twice"),
    "a channel is missing": (json.dumps({**PROSTATE, "channel_names": {"0": "T2", "2": "ADC"}}), "number its channels"),
    "one channel twice": (json.dumps({**PROSTATE, "channel_names": {"0": "T2", "1": "T2w"}}), "one name"),
    "an order of others": (json.dumps({**BRATS, "regions_class_order": [3, 2, 1]}), "later region"),
    "an ignore label": (
        json.dumps({**PROSTATE, "labels": {**PROSTATE["labels"], "ignore": 3}}),
        "(?s)not annotated.*densely annotated cases",
    ),
}


@pytest.mark.parametrize("name", UNMEANT)
def test_a_declaration_that_cannot_be_meant_is_advice(tmp_path: Path, name: str) -> None:
    content, told = UNMEANT[name]
    lay_out(tmp_path, PROSTATE, CASES[:1])
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(ConfigError, match=told):
        nnunet_cohort(tmp_path)


def test_a_folder_without_cases_is_advice(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the folder that holds"):
        nnunet_cohort(tmp_path)
    declare(tmp_path, PROSTATE)
    with pytest.raises(ConfigError, match=r"CASE_0000\.nii\.gz"):
        nnunet_cohort(tmp_path)


def test_without_its_ignore_label_only_annotated_cases_are_read(tmp_path: Path) -> None:
    """What the advice says: cases that hold the number are refused one by one."""
    lay_out(tmp_path, PROSTATE)
    save(tmp_path / "labelsTr" / "case_002.nii.gz", 3)
    dense, sparse = nnunet_cohort(tmp_path).cases
    assert read(dense).truth is not None
    with pytest.raises(CaseError, match="label_outside_scheme"):
        read(sparse)
