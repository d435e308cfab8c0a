"""Decathlon folders: what dataset.json declares is what comes out, and what it cannot mean is advice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medadv.data.files import read
from medadv.data.msd import msd_cohort
from medadv.errors import ConfigError, Reason
from medadv.labels import MSD_TASK01

TASK01: dict[str, Any] = {
    "name": "BRATS",
    "tensorImageSize": "4D",
    "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
    "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
    "numTraining": 1,
    "training": [{"image": "./imagesTr/BRATS_001.nii.gz", "label": "./labelsTr/BRATS_001.nii.gz"}],
    "test": ["./imagesTs/BRATS_485.nii.gz"],
}
TASK04: dict[str, Any] = {
    "name": "Hippocampus",
    "modality": {"0": "MRI"},
    "labels": {"0": "Background", "1": "Anterior", "2": "Posterior"},
    "training": [{"image": f"./imagesTr/h_{n:03d}.nii.gz", "label": f"./labelsTr/h_{n:03d}.nii.gz"} for n in (4, 1)],
}


def lay_out(root: Path, declared: dict[str, Any]) -> Path:
    (root / "dataset.json").write_text(json.dumps(declared))
    channels = len(declared["modality"])
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir()
        for pair in declared["training"]:
            shape = (4, 5, 6, channels) if folder == "imagesTr" and channels > 1 else (4, 5, 6)
            voxels = np.zeros(shape, np.int16)
            voxels[1:3, 1:3] = 1
            voxels[2, 2, 2] = 2 + np.arange(channels) if len(shape) == 4 else 2
            nib.save(nib.Nifti1Image(voxels, np.eye(4)), root / folder / Path(pair["image"]).name)
    return root


def test_task01_has_canonical_channels_in_the_order_of_its_files(tmp_path: Path) -> None:
    cohort = msd_cohort(lay_out(tmp_path, TASK01))
    assert cohort.modalities == ("flair", "t1", "t1ce", "t2")
    assert cohort.scheme is MSD_TASK01
    (case,) = cohort.cases
    assert (case.case, case.patient) == ("BRATS_001", None)
    volume = read(case)
    assert volume.x[:, 2, 2, 2].tolist() == [2, 3, 4, 5]
    assert volume.truth is not None
    assert int(case.scheme.mask(volume.truth, "TC").sum()) == 1
    assert int(case.scheme.mask(volume.truth, "WT").sum()) == 24


def test_other_tasks_keep_their_names_and_gain_a_foreground(tmp_path: Path) -> None:
    cohort = msd_cohort(lay_out(tmp_path, TASK04))
    assert cohort.modalities == ("MRI",)
    assert cohort.scheme.name == "Hippocampus"
    assert cohort.scheme.numbers == {"background": 0, "Anterior": 1, "Posterior": 2}
    assert cohort.scheme.regions == {"foreground": ("Anterior", "Posterior")}
    assert [case.case for case in cohort.cases] == ["h_004", "h_001"]
    assert read(cohort.cases[0]).x.shape == (1, 4, 5, 6)


def test_one_tissue_needs_no_region(tmp_path: Path) -> None:
    cohort = msd_cohort(lay_out(tmp_path, {**TASK04, "labels": {"0": "background", "1": "left atrium", "2": "wall"}}))
    assert cohort.scheme.names == ("foreground", "left atrium", "wall")
    (tmp_path / "dataset.json").write_text(json.dumps({**TASK04, "labels": {"0": "BACKGROUND", "1": "left atrium"}}))
    assert msd_cohort(tmp_path).scheme.names == ("left atrium",)


def test_two_channels_share_one_file(tmp_path: Path) -> None:
    cohort = msd_cohort(lay_out(tmp_path, {**TASK04, "modality": {"1": "ADC", "0": "T2"}}))
    assert cohort.modalities == ("t2", "ADC")
    assert len(set(cohort.cases[0].images.values())) == 1


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        ({"image": "../outside.nii.gz", "label": "labelsTr/h_001.nii.gz"}, Reason.MISSING_MODALITY),
        ({"image": "imagesTr/../../outside.nii.gz", "label": "labelsTr/h_001.nii.gz"}, Reason.MISSING_MODALITY),
        ({"image": "/outside.nii.gz", "label": "labelsTr/h_001.nii.gz"}, Reason.MISSING_MODALITY),
        ({"image": "..\\outside.nii.gz", "label": "labelsTr/h_001.nii.gz"}, Reason.MISSING_MODALITY),
        ({"image": "imagesTr/h_999.nii.gz", "label": "labelsTr/h_001.nii.gz"}, Reason.MISSING_MODALITY),
        ({"image": "imagesTr/h_001.nii.gz", "label": "labelsTr/h_999.nii.gz"}, Reason.MISSING_LABEL),
        ({"image": "imagesTr/h_004.nii.gz", "label": "labelsTr/h_004.nii.gz"}, Reason.EXTRA_MODALITY),
    ],
)
def test_one_bad_pair_costs_one_case(tmp_path: Path, pair: dict[str, str], reason: Reason) -> None:
    root = tmp_path / "task"
    root.mkdir()
    lay_out(root, TASK04)
    (tmp_path / "outside.nii.gz").write_bytes(b"another's file")
    (root / "dataset.json").write_text(json.dumps({**TASK04, "training": [TASK04["training"][0], pair]}))
    cohort = msd_cohort(root)
    assert [case.case for case in cohort.cases] == ["h_004"]
    (refusal,) = cohort.refused
    assert refusal.reason is reason
    assert refusal.case != "h_004"
    assert ("leaves the data set's folder" in refusal.message) == ("outside" in pair["image"])


def test_of_pairs_of_one_name_the_whole_one_is_the_case(tmp_path: Path) -> None:
    lay_out(tmp_path, TASK04)
    good = TASK04["training"][0]
    pairs = [{**good, "label": "labelsTr/none.nii.gz"}, good, good, TASK04["training"][1]]
    (tmp_path / "dataset.json").write_text(json.dumps({**TASK04, "training": pairs}))
    cohort = msd_cohort(tmp_path)
    assert [case.case for case in cohort.cases] == ["h_004", "h_001"]
    assert [(refusal.case, refusal.reason) for refusal in cohort.refused] == [
        ("h_004-entry-1", Reason.MISSING_LABEL),
        ("h_004-entry-3", Reason.EXTRA_MODALITY),
    ]


MALFORMED: dict[str, str] = {
    "not JSON": "{",
    "a list": "[]",
    "no labels": json.dumps({k: v for k, v in TASK04.items() if k != "labels"}),
    "names for numbers": json.dumps({**TASK04, "labels": {"background": 0, "Anterior": 1}}),
    "no background": json.dumps({**TASK04, "labels": {"1": "Anterior", "2": "Posterior"}}),
    "one name twice": json.dumps({**TASK04, "labels": {"0": "background", "1": "A", "2": "A"}}),
    "a channel is missing": json.dumps({**TASK04, "modality": {"0": "T2", "2": "ADC"}}),
    "one channel twice": json.dumps({**TASK04, "modality": {"0": "T2", "1": "T2"}}),
    "a channel that is a path": json.dumps({**TASK04, "modality": {"0": "../T2"}}),
    "no pairs": json.dumps({**TASK04, "training": []}),
    "paths alone": json.dumps({**TASK04, "training": ["./imagesTr/h_001.nii.gz"]}),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_declaration_is_advice(tmp_path: Path, name: str) -> None:
    lay_out(tmp_path, TASK04)
    (tmp_path / "dataset.json").write_text(MALFORMED[name])
    with pytest.raises(ConfigError) as refused:
        msd_cohort(tmp_path)
    assert refused.value.details["got"] is not None


def test_nnunets_declaration_is_told_from_a_decathlons(tmp_path: Path) -> None:
    nnunet = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "whole": [1, 2]}, "file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps(nnunet))
    with pytest.raises(ConfigError, match=r"(?s)nnU-Net's, not a Decathlon's.*importer: nnunet"):
        msd_cohort(tmp_path)


def test_entries_of_hidden_files_are_passed_over(tmp_path: Path) -> None:
    left = [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in ("._h_001.nii.gz", "_h.nii.gz")]
    lay_out(tmp_path, {**TASK04, "training": [*left, *TASK04["training"]]})
    cohort = msd_cohort(tmp_path)
    assert [case.case for case in cohort.cases] == ["h_004", "h_001"]
    assert cohort.refused == []


def test_a_folder_without_a_declaration_is_advice(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the folder that holds"):
        msd_cohort(tmp_path)
