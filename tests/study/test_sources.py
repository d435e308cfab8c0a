"""What a user writes under ``data``: the cohort that it means, and what of it stays private."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from study.small_study import contents, small

from medadv.data.case import Cohort
from medadv.data.files import read
from medadv.errors import ConfigError, Reason, RunError
from medadv.labels import BRATS_2018
from medadv.study.cohort import Parts, gather
from medadv.study.folder import RunFolder
from medadv.study.names import Names
from medadv.study.progress import Silent
from medadv.study.sources import imported
from medadv.study.spec import Study

KINDS = ("t1", "t1ce", "t2", "flair")
IDS = [f"Phantom_0000{n}" for n in range(3)]


def study(data: dict[str, Any], **changes: Any) -> Study:
    return small(Path("unused"), data=data, **changes)


def cohort(data: dict[str, Any]) -> Cohort:
    return imported(study(data).data, Path("unused"), 0, alone=True)


def as_brats(root: Path) -> dict[str, Any]:
    return {"importer": "brats", "root": str(root), "release": "2021"}


def as_pattern(root: Path) -> dict[str, Any]:
    images = {kind: f"{{case}}/{{case}}_{kind}.nii.gz" for kind in KINDS}
    label = "{case}/{case}_seg.nii.gz"
    return {"importer": "pattern", "root": str(root), "images": images, "label": label, "labels": "brats2018"}


def as_datalist(root: Path) -> dict[str, Any]:
    entries = [
        {"image": [f"{i}/{i}_{kind}.nii.gz" for kind in KINDS], "label": f"{i}/{i}_seg.nii.gz", "fold": n % 2}
        for n, i in enumerate(IDS)
    ]
    (root / "list.json").write_text(json.dumps({"training": entries}))
    labels = {"background": 0, "necrosis": 1, "edema": 2, "enhancing tumour": 4}
    data = {"importer": "datalist", "datalist": str(root / "list.json"), "labels": labels}
    return {**data, "modalities": ["T1", "T1Gd", "T2", "FLAIR"]}


def as_nnunet(root: Path) -> dict[str, Any]:
    files = {
        i: {"images": [f"{i}/{i}_{kind}.nii.gz" for kind in KINDS], "label": f"{i}/{i}_seg.nii.gz"} for i in IDS
    }
    declared = {
        "channel_names": dict(enumerate(KINDS)),
        "labels": {"background": 0, "whole tumor": [1, 2, 4], "tumor core": [1, 4], "enhancing tumor": [4]},
        "regions_class_order": [2, 1, 4],
        "file_ending": ".nii.gz",
        "dataset": files,
    }
    (root / "dataset.json").write_text(json.dumps(declared))
    return {"importer": "nnunet", "root": str(root)}


SOURCES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "brats": as_brats,
    "pattern": as_pattern,
    "datalist": as_datalist,
    "nnunet": as_nnunet,
}


@pytest.fixture
def own(three: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(three, tmp_path / "own"))


@pytest.mark.parametrize("kind", SOURCES)
def test_the_same_files_are_the_same_cases_whoever_imports_them(own: Path, kind: str) -> None:
    found = cohort(SOURCES[kind](own))
    assert found.refused == []
    assert [case.case for case in found.cases] == IDS
    assert found.modalities == KINDS
    assert found.scheme.numbers == BRATS_2018.numbers
    assert {name: set(members) for name, members in found.scheme.regions.items()} == {
        name: set(members) for name, members in BRATS_2018.regions.items()
    }
    ours, theirs = read(found.cases[1]), read(cohort(as_brats(own)).cases[1])
    assert ours.x.equal(theirs.x)
    assert ours.truth is not None
    assert theirs.truth is not None
    assert ours.truth.equal(theirs.truth)


@pytest.mark.parametrize("kind", SOURCES)
def test_a_grid_is_set_on_every_case_in_any_spelling(own: Path, kind: str) -> None:
    data = SOURCES[kind](own)
    assert {case.grid for case in cohort(data).cases} == {None}
    assert {case.grid for case in cohort({**data, "grid": "T1Gd"}).cases} == {"t1ce"}
    with pytest.raises(ConfigError, match=r"(?s)data.grid names no modality.*dwi"):
        cohort({**data, "grid": "dwi"})


@pytest.mark.parametrize("kind", ["pattern", "nnunet"])
def test_ids_tell_patient_and_group(own: Path, kind: str) -> None:
    found = cohort({**SOURCES[kind](own), "patient": "Phantom_{patient}", "stratum": "{stratum}_*"})
    assert [(case.patient, case.stratum) for case in found.cases] == [(f"0000{n}", "Phantom") for n in range(3)]


def test_folds_that_part_a_patient_are_refused(own: Path) -> None:
    data = as_datalist(own)
    assert [case.fold for case in cohort(data).cases] == [0, 1, 0]
    content = json.loads((own / "list.json").read_text())
    for entry in content["training"]:
        entry["who"] = "Mary" if entry["fold"] == 0 else "John"
    (own / "list.json").write_text(json.dumps(content))
    assert [case.patient for case in cohort({**data, "patient": "who"}).cases] == ["Mary", "John", "Mary"]
    content["training"][2]["fold"] = 1
    (own / "list.json").write_text(json.dumps(content))
    cohort(data)
    with pytest.raises(ConfigError, match=r"(?s)folds part patients.*1 patients"):
        cohort({**data, "patient": "who"})


def test_parts_of_a_study_make_no_phantoms(tmp_path: Path) -> None:
    data = study({"importer": "phantom", "cases": 1, "shape": [24, 24, 24]}).data
    with pytest.raises(RunError, match="not made yet"):
        imported(data, tmp_path, 0, alone=False)
    made = imported(data, tmp_path, 3, alone=True)
    assert [case.case for case in imported(data, tmp_path, 3, alone=False).cases] == [case.case for case in made.cases]


PATTERN = as_pattern(Path("x"))
UNMEANT: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown importer": ({"importer": "folder", "root": "x"}, "'nnunet', 'datalist', 'pattern'"),
    "an unknown key": ({**PATTERN, "split": "x"}, r"unknown key.*images, importer, label"),
    "an unknown scheme": ({**PATTERN, "labels": "brats"}, "(?s)no such label scheme.*msd-task01"),
    "labels without background": ({**PATTERN, "labels": {"a": 1}}, "no 'background'"),
    "labels that are none": ({**PATTERN, "labels": {"background": 0, "a": True}}, "labels"),
    "a label without a number": ({**PATTERN, "labels": {"background": 0, "a": []}}, "labels"),
    "no labels": ({k: v for k, v in PATTERN.items() if k != "labels"}, "labels: Field required"),
    "no images": ({**PATTERN, "images": {}}, "images: .*at least 1 item"),
    "a pattern upwards": ({**PATTERN, "label": "../{case}"}, "data.label leaves the folder"),
    "an unknown section": (
        {"importer": "datalist", "datalist": "x", "modalities": ["t1"], "labels": "brats2018", "section": "train"},
        "section",
    ),
    "no modality": ({"importer": "datalist", "datalist": "x", "modalities": [], "labels": "brats2018"}, "modalities"),
}


@pytest.mark.parametrize(("data", "words"), UNMEANT.values(), ids=UNMEANT)
def test_data_that_cannot_be_meant_is_told(data: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        cohort(data)


@pytest.mark.parametrize("kind", SOURCES)
def test_a_resolved_source_is_the_same_source(own: Path, kind: str) -> None:
    spelt = study(SOURCES[kind](own))
    assert Study.model_validate(yaml.safe_load(yaml.safe_dump(spelt.model_dump(mode="json", by_alias=True)))) == spelt


# What stays private


def gathered(spelt: Study, runs: Path) -> tuple[Parts, str]:
    """What a run knows, and all that it wrote and would quarantine, but for the owner's table of names."""
    names = Names(b"k" * 32)
    folder = RunFolder.open(spelt, runs, names)
    parts = gather(spelt, folder.path, names, Silent())
    for refusal in parts.refused:
        folder.quarantine(refusal)
    found = contents(folder.path)
    found.pop("ids.local.json")
    return parts, "\n".join(f"{path}\n{content.decode()}" for path, content in found.items())


def test_nothing_of_a_list_of_people_is_told(own: Path, tmp_path: Path) -> None:
    """Files called after people, under ids that are not: whole, damaged, and missing."""
    people = ["CANARY^MARY", "CANARY^JOHN", "CANARY^ANNE", "CANARY^PAUL"]
    for person, i in zip(people, IDS, strict=False):
        for file in list((own / i).iterdir()):
            file.rename(own / file.name.replace(i, person))
    (own / "CANARY^JOHN_t2.nii.gz").write_bytes(b"torn")
    entries = [
        {"scan": n, **{kind: f"{person}_{kind}.nii.gz" for kind in KINDS}, "label": f"{person}_seg.nii.gz"}
        for n, person in enumerate(people)
    ]
    (own / "CANARY_list.json").write_text(json.dumps({"training": entries}))
    data = {**as_datalist(own), "datalist": str(own / "CANARY_list.json"), "root": str(own), "case": "scan"}
    parts, told = gathered(study(data, ids="pseudonyms"), tmp_path / "runs")
    assert {refusal.reason for refusal in parts.refused} == {Reason.UNREADABLE, Reason.MISSING_MODALITY}
    assert len(parts.test) == 2
    assert "unreadable" in told
    assert "CANARY" not in told
    assert str(own) not in told


def test_nothing_of_a_folder_of_people_is_told(own: Path, tmp_path: Path) -> None:
    for person, i in zip(("CANARY^MARY", "CANARY^JOHN"), IDS, strict=False):
        (own / i).rename(own / f"Dr CANARY {person}")
    (own / IDS[2]).rename(own / f"Dr CANARY {IDS[2]}")
    (own / f"Dr CANARY {IDS[2]}" / f"{IDS[2]}_t2.nii.gz").write_bytes(b"torn")
    images = {kind: f"Dr CANARY {{case}}/*_{kind}.nii.gz" for kind in KINDS}
    label = "Dr CANARY {case}/*_seg.nii.gz"
    data = {**as_pattern(own), "images": images, "label": label, "patient": "*{patient}"}
    with pytest.raises(ConfigError, match="two ways"):
        cohort(data)
    del data["patient"]
    parts, told = gathered(study(data, ids="pseudonyms"), tmp_path / "runs")
    assert [refusal.reason for refusal in parts.refused] == [Reason.UNREADABLE]
    assert len(parts.test) == 2
    assert "CANARY" not in told
    assert str(own) not in told
    stored = yaml.safe_load((tmp_path / "runs" / "small" / "study.yaml").read_text())["data"]
    digests = [*stored["images"].values(), stored["label"]]
    assert list(stored["images"]) == list(KINDS)
    assert all(re.fullmatch(r"private c[0-9a-f]{12}", digest) for digest in digests)
    assert len(set(digests)) == len(KINDS) + 1
    assert (stored["root"], stored["mask"]) == ("private", None)
    assert stored["labels"] == "brats2018"


def test_where_files_lie_may_change_and_what_they_mean_may_not(own: Path, tmp_path: Path) -> None:
    data = as_datalist(own)
    folder = RunFolder.open(study(data), tmp_path / "runs", Names(None))
    (folder.path / "records").mkdir()
    shutil.copy(own / "list.json", own / "moved.json")
    moved = {**data, "datalist": str(own / "moved.json"), "root": str(own)}
    RunFolder.open(study(moved), tmp_path / "runs", Names(None))
    with pytest.raises(RunError, match=r"data\.grid"):
        RunFolder.open(study({**data, "grid": "t1"}), tmp_path / "runs", Names(None))


REDECLARED: dict[str, tuple[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "two modalities, swapped": (
        "data.images",
        lambda data: {"images": data["images"] | {"t1": data["images"]["flair"], "flair": data["images"]["t1"]}},
    ),
    "another label": ("data.label", lambda _: {"label": "{case}/{case}_rater2.nii.gz"}),
    "a mask": ("data.mask", lambda _: {"mask": "{case}/{case}_t1.nii.gz"}),
    "patients": ("data.patient", lambda _: {"patient": "{patient}_*"}),
    "groups": ("data.stratum", lambda _: {"stratum": "{stratum}_*"}),
}


@pytest.mark.parametrize(("key", "change"), REDECLARED.values(), ids=REDECLARED)
def test_what_private_data_mean_may_not_change(
    own: Path, tmp_path: Path, key: str, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    data, names = as_pattern(own), Names(b"k" * 32)
    folder = RunFolder.open(study(data, ids="pseudonyms"), tmp_path / "runs", names)
    (folder.path / "victims").mkdir()
    RunFolder.open(study({**data, "root": str(tmp_path / "moved")}, ids="pseudonyms"), tmp_path / "runs", names)
    before = contents(folder.path)
    changed = study({**data, **change(data)}, ids="pseudonyms")
    with pytest.raises(RunError, match=rf"belongs to another study(?s:.)*{re.escape(key)}[.:]") as refused:
        RunFolder.open(changed, tmp_path / "runs", names)
    assert not [word for word in ("nii.gz", "{case}", "{patient}", "{stratum}") if word in str(refused.value)]
    assert contents(folder.path) == before


def test_keys_of_a_private_list_may_not_change(own: Path, tmp_path: Path) -> None:
    data, names = {**as_datalist(own), "case": "scan"}, Names(b"k" * 32)
    folder = RunFolder.open(study(data, ids="pseudonyms"), tmp_path / "runs", names)
    (folder.path / "records").mkdir()
    RunFolder.open(study({**data, "datalist": "/moved.json"}, ids="pseudonyms"), tmp_path / "runs", names)
    with pytest.raises(RunError, match=r"data\.case: private c\w+ there, private c\w+ here"):
        RunFolder.open(study({**data, "case": "id"}, ids="pseudonyms"), tmp_path / "runs", names)
