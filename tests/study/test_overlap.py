"""Nobody is tested on whom a victim has learnt from: each way in which training and test could share a patient."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from study.identities import LABELS, lesion, nifti, scan, untrained
from study.small_study import TRAINED, trained

from medadv.errors import ConfigError, Reason
from medadv.study.cohort import gather
from medadv.study.names import Names
from medadv.study.progress import Silent
from medadv.study.run import train
from medadv.study.spec import Study
from medadv.victims.checkpoint import training_cases, training_patients
from medadv.vocabulary import declared_scheme

SCANS = ("P1-0", "P1-1", "P2-0", "P3-0")
SMALL = {
    **TRAINED,
    "inference": {"name": "whole"},
    "training": {"steps": 1, "batch": 1, "roi": [8, 8, 8], "validate_every": 1},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four scans of three patients, and a fifth that is the first under another name; laid out as nnU-Net wants."""
    root = tmp_path_factory.mktemp("overlap")
    for n, name in enumerate((*SCANS, "P4-0")):
        nifti(root / "imagesTr" / f"{name}_0000.nii.gz", scan(n % 4))
        nifti(root / "labelsTr" / f"{name}.nii.gz", lesion())
    return root


def pattern(root: Path) -> dict[str, Any]:
    files = {"images": {"t1": "imagesTr/{case}_0000.nii.gz"}, "label": "labelsTr/{case}.nii.gz"}
    return {"importer": "pattern", "root": str(root), "labels": LABELS, "patient": "{patient}-*", **files}


def study(data: dict[str, Any], split: dict[str, Any], weights: Path | None = None, **changes: Any) -> Study:
    victims = {"net": SMALL if weights is None else {"weights": str(weights)}}
    region = {"primary": {"region": "tumour"}, "regions": ["tumour"]}
    return trained(**{"ids": "pseudonyms", "data": data, "split": split, "victims": victims, **region, **changes})


def refused(asked: Study, runs: Path, words: str) -> str:
    with pytest.raises(ConfigError, match=words) as caught:
        train(asked, runs=runs)
    assert not list(runs.rglob("weights.safetensors"))
    return str(caught.value)


def card(folder: Path, patients: Sequence[str]) -> Path:
    keyed = Names.pseudonyms()
    return untrained(folder, ["t1"], declared_scheme("declared", LABELS), [keyed[patient] for patient in patients])


def test_another_scan_of_a_patient_who_was_learnt_from_is_refused(root: Path, tmp_path: Path) -> None:
    """By weights from elsewhere, whose card knows the patient by the pseudonym of the same key."""
    asked = study(pattern(root), {"test": ["P1-1", "P2-0"]}, card(tmp_path / "net", ["P7", "P1"]))
    told = refused(asked, tmp_path / "runs", "trained on other scans of patients")
    names = Names.pseudonyms()
    assert names["P1-1"] in told
    assert names["P2-0"] not in told
    assert "P1" not in told


def test_a_teacher_from_elsewhere_that_has_seen_a_tested_patient_is_refused(root: Path, tmp_path: Path) -> None:
    """And so is a defence from elsewhere; the undefended victim knows nobody."""
    innocent, guilty = card(tmp_path / "new", ["P7"]), card(tmp_path / "net", ["P1"])
    elsewhere = {"like": "net", "weights": str(guilty), "defence": {"name": "elsewhere", "at": 10}}
    student = {"like": "net", "defence": {"name": "distillation", "at": 10, "teacher": "teacher"}}
    own = {"network": SMALL["network"], "training": SMALL["training"]}
    victims = {"net": {"weights": str(innocent), **own}, "teacher": elsewhere, "student": student}
    asked = study(pattern(root), {"train": ["P3-0"], "test": ["P1-1", "P2-0"]}, victims=victims)
    told = refused(asked, tmp_path / "runs", "trained on other scans of patients")
    assert "the victim 'teacher'" in told


def test_patients_who_are_new_are_tested(root: Path, tmp_path: Path) -> None:
    asked = study(pattern(root), {"test": ["P2-0", "P3-0"]}, card(tmp_path / "net", ["P7", "P1"]))
    assert train(asked, runs=tmp_path / "runs").is_dir()


def test_what_is_trained_remembers_scans_and_patients_by_their_pseudonyms(root: Path, tmp_path: Path) -> None:
    asked = study(pattern(root), {"train": ["P1-0", "P1-1"], "validate": ["P2-0"], "test": ["P3-0"]})
    place = train(asked, runs=tmp_path) / "victims" / "net"
    names = Names.pseudonyms()
    assert training_patients(place) == {names["P1"], names["P2"]}
    assert len(training_cases(place)) == 3
    other = study(pattern(root), {"test": ["P1-0"]}, place, study="other")
    with pytest.raises(ConfigError, match="trained on cases that it would be tested on"):
        train(other, runs=tmp_path)


def test_one_scan_under_two_ids_is_used_once(root: Path, tmp_path: Path) -> None:
    """Else it could be learnt from and tested, or count twice among the tested."""
    asked = study(pattern(root), {"train": ["P1-0"], "validate": ["P2-0"], "test": ["P3-0", "P4-0"]})
    parts = gather(asked, tmp_path, Names(None), Silent())
    assert [case.case for case in parts.test] == ["P3-0"]
    assert {refusal.case: refusal.reason for refusal in parts.refused} == {"P4-0": Reason.DUPLICATE}
    assert "one scan under two ids" in parts.refused[0].message


def test_lists_that_share_a_patient_are_refused(root: Path, tmp_path: Path) -> None:
    asked = study(pattern(root), {"train": ["P1-0"], "validate": ["P2-0"], "test": ["P1-1"]})
    refused(asked, tmp_path, "a patient stands in two parts of the split")


def test_folds_of_a_list_that_part_a_patient_are_refused(root: Path, tmp_path: Path) -> None:
    entries = [
        {"image": f"imagesTr/{name}_0000.nii.gz", "label": f"labelsTr/{name}.nii.gz", "who": name[:2], "fold": n % 3}
        for n, name in enumerate(SCANS)
    ]
    (tmp_path / "list.json").write_text(json.dumps({"training": entries}))
    data = {"importer": "datalist", "datalist": str(tmp_path / "list.json"), "root": str(root), "labels": LABELS}
    asked = study({**data, "modalities": ["t1"], "patient": "who"}, {"folds": "data", "validate": 1})
    refused(asked, tmp_path / "runs", "the data's folds part patients")


FOLDS = {
    "a case that is learnt from and tested": ([["P1-0", "P1-1", "P2-0"], ["P2-0", "P3-0"]], "cases that it trains on"),
    "a patient who is tested twice": ([["P2-0", "P3-0"], ["P1-0"]], "the data's folds part patients"),
}


@pytest.mark.parametrize(("first", "words"), FOLDS.values(), ids=FOLDS)
def test_splits_that_share_a_patient_are_refused(
    root: Path, tmp_path: Path, first: list[list[str]], words: str
) -> None:
    """nnU-Net's splits_final.json."""
    learnt, tested = first
    others = [name for name in SCANS if name not in tested]
    folds = [{"train": learnt, "val": tested}, {"train": tested, "val": others}]
    (tmp_path / "splits.json").write_text(json.dumps(folds))
    declared = {"channel_names": {"0": "T1"}, "labels": LABELS, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(declared))
    data = {"importer": "nnunet", "root": str(root), "splits": str(tmp_path / "splits.json"), "patient": "{patient}-*"}
    refused(study(data, {"folds": "data", "validate": 1}), tmp_path / "runs", words)
