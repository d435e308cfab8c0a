"""Strata stand beside pseudonyms as they are: groups are told, and what is all but a name is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from study.small_study import contents, every_record, go, small

from medadv.data.case import Case, Cohort
from medadv.errors import ConfigError
from medadv.labels import BRATS_2018
from medadv.study.cohort import MOST_STRATA, check_strata, gather
from medadv.study.names import Names
from medadv.study.progress import Silent

MODALITIES = ("t1", "t1ce", "t2", "flair")


def cohort(*told: tuple[str, str | None, str | None]) -> Cohort:
    """Cases of (id, patient, stratum)."""
    cases = [Case(case, patient, {}, None, BRATS_2018, stratum=stratum) for case, patient, stratum in told]
    return Cohort(cases, [], MODALITIES, BRATS_2018)


def groups(count: int, size: int) -> Cohort:
    return cohort(*((f"c{i}-{k}", None, f"site {i}") for i in range(count) for k in range(size)))


@pytest.mark.parametrize(
    "fine",
    [
        cohort(("a", None, None), ("b", None, None)),
        cohort(("a", None, "HGG"), ("b", None, "LGG")),  # two cases of two grades: words of the release
        cohort(("a", None, "HGG"), ("b", None, "HGG"), *((f"c{i}", None, "site") for i in range(3))),
        groups(MOST_STRATA, 3),
        cohort(*((f"c{i}", None, "site 1" if i else "site 2") for i in range(6))),  # one alone among large ones
        cohort(*((str(i), str(i), str(i % 3)) for i in range(12))),  # sites with numbers, as patients have
    ],
)
def test_groups_are_told(fine: Cohort) -> None:
    check_strata(fine)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (groups(MOST_STRATA + 1, 3), "21 strata of 63 patients"),
        (groups(3, 2), "3 strata of 6 patients"),
        (cohort(("s1", None, "Smith"), ("s2", None, "Jones")), "2 strata of 2 patients"),
        (cohort(*((f"c{i}", f"p{i // 5}", f"folder {i // 5}") for i in range(20))), "4 strata of 4 patients"),
        (cohort(("c", "Mary", "mary"), *((f"c{i}", f"p{i}", "A") for i in range(9))), "1 strata called after"),
        (cohort(("ward-7", None, "ward-7"), *((f"c{i}", None, "A") for i in range(9))), "1 strata called after"),
    ],
    ids=["many", "small", "names", "scans of one patient", "a patient", "a case"],
)
def test_what_is_all_but_a_name_is_refused(names: Cohort, told: str) -> None:
    with pytest.raises(ConfigError, match="would tell who is who") as caught:
        check_strata(names)
    assert told in str(caught.value)
    assert not any(case.stratum in str(caught.value) for case in names.cases if case.stratum not in (None, "A"))


def sorted_by(root: Path, there: Path, folders: dict[str, str]) -> dict[str, Any]:
    """The three phantoms in folders of a stratum each, and how a study names them."""
    for case, stratum in folders.items():
        shutil.copytree(root / case, there / stratum / case)
    images = {name: f"{{stratum}}/{{case}}/{{case}}_{name}.nii.gz" for name in MODALITIES}
    label = "{stratum}/{case}/{case}_seg.nii.gz"
    return {"importer": "pattern", "root": str(there), "images": images, "label": label, "labels": "brats2018"}


ONE_EACH = {f"Phantom_0000{i}": name for i, name in enumerate(("smith", "jones", "brown"))}
TOGETHER = dict.fromkeys(ONE_EACH, "site A")


def test_a_folder_a_patient_taken_for_a_group_is_refused_before_anything_is_read(three: Path, tmp_path: Path) -> None:
    study = small(three, ids="pseudonyms", data=sorted_by(three, tmp_path / "data", ONE_EACH))
    with pytest.raises(ConfigError, match="would tell who is who"):
        go(study, tmp_path / "runs")
    left = b"\n".join(contents(tmp_path / "runs").values())
    assert b"pattern" in left
    assert not any(name.encode() in left for name in ONE_EACH.values())
    assert not (tmp_path / "runs" / "small" / "inputs.json").exists()


def test_public_ids_may_have_any_strata(three: Path, tmp_path: Path) -> None:
    study = small(three, data=sorted_by(three, tmp_path / "data", ONE_EACH))
    parts = gather(study, tmp_path, Names(None), Silent())
    assert {case.case: case.stratum for case in parts.test} == ONE_EACH


def test_a_group_is_told_as_it_is_beside_pseudonyms(three: Path, tmp_path: Path, no_report: None) -> None:
    study = small(
        three, ids="pseudonyms", data=sorted_by(three, tmp_path / "data", TOGETHER), attacks={"f": {"preset": "fgsm"}}
    )
    folder = go(study, tmp_path / "runs").folder
    found = every_record(folder)
    assert {record.stratum for record in found} == {"site A"}
    assert {record.case for record in found} == set(json.loads((folder / "ids.local.json").read_text()).values())
    assert {record.fold for record in found} == {None}
    head, *rows = (folder / "scores.csv").read_text().splitlines()
    assert {row.split(",")[head.split(",").index("stratum")] for row in rows} == {"site A"}


def test_a_fold_of_the_data_is_told_only_where_the_study_uses_it(three: Path, tmp_path: Path) -> None:
    """``Case.fold`` is what the data say; in a study it is what the study does."""
    entries = [
        {
            **{name: f"Phantom_0000{i}/Phantom_0000{i}_{name}.nii.gz" for name in MODALITIES},
            "label": f"Phantom_0000{i}/Phantom_0000{i}_seg.nii.gz",
            "fold": 7 + i,
        }
        for i in range(3)
    ]
    (tmp_path / "list.json").write_text(json.dumps({"training": entries}))
    data = {"importer": "datalist", "datalist": str(tmp_path / "list.json"), "root": str(three)}
    data |= {"modalities": MODALITIES, "labels": "brats2018"}
    told = []
    for place, split in (("once", {}), ("folds", {"folds": "data", "validate": 1})):
        (tmp_path / place).mkdir()
        parts = gather(small(three, data=data, split=split), tmp_path / place, Names(None), Silent())
        told.append(sorted((case.case, case.fold) for case in parts.test))
    assert told == [[(f"Phantom_0000{i}", fold(i)) for i in range(3)] for fold in (lambda _: None, lambda i: 7 + i)]
    learnt = {case.case: case.fold for fold in parts.folds for case in (*fold.train, *fold.validate)}
    assert learnt == {f"Phantom_0000{i}": 7 + i for i in range(3)}
