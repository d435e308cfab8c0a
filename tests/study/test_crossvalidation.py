"""A cross-validation from end to end: one network a fold, each case tested once, by the one that has not seen it."""

from __future__ import annotations

import csv
import html
import json
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from study.processes import run_until
from study.small_study import TRAINED, every_record, go, records, tables, trained

from medadv.data.brats import brats_cohort
from medadv.data.phantom import phantom
from medadv.errors import ConfigError
from medadv.study.inputs import digests_of, read_labelled
from medadv.study.lineup import try_out
from medadv.study.records import write_record
from medadv.study.run import finish, train
from medadv.study.spec import Study

FOLDS = 2
LEARN = "medadv.defense.training:_Course.learn"
STEPS: int = TRAINED["training"]["steps"]  # type: ignore[index]


@pytest.fixture(scope="session")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four cases in the layout of 2018: three high-grade gliomas, one of low grade; not to be changed by a test."""
    made, root = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("graded")
    phantom(made, 4, (24, 24, 24))
    for number, folder in enumerate(sorted(made.iterdir())):
        shutil.copytree(folder, root / ("LGG" if number == 3 else "HGG") / folder.name)
    return root


def crossed(root: Path, **changes: Any) -> Study:
    data = {"importer": "brats", "root": str(root), "release": "2018"}
    return trained(**{"study": "crossed", "data": data, "split": {"folds": FOLDS, "validate": 1}, **changes})


@pytest.fixture(scope="session")
def undisturbed(graded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole run with its report; not to be changed by a test."""
    runs = tmp_path_factory.mktemp("undisturbed")
    assert run_until(crossed(graded), runs, None, quick=False) == 0
    return runs / "crossed"


def card(folder: Path, fold: int | None) -> dict[str, Any]:
    return dict(json.loads((folder / "victims" / "unet" / f"fold_{fold}" / "victim.json").read_text()))


def test_every_case_is_scored_once_by_the_network_that_has_not_seen_it(graded: Path, undisturbed: Path) -> None:
    voxels = {case.case: digests_of(read_labelled(case)).voxels for case in brats_cohort(graded, "2018").cases}
    found = every_record(undisturbed)
    for condition in {record.condition for record in found}:
        assert sorted(record.case for record in found if record.condition == condition) == sorted(voxels)
    assert {record.fold for record in found} == set(range(FOLDS))
    for record in found:
        own, other = card(undisturbed, record.fold), card(undisturbed, 1 - (record.fold or 0))
        assert record.inputs["weights"] == own["weights_sha256"] != other["weights_sha256"]
        assert voxels[record.case] == record.inputs["voxels"]
        assert voxels[record.case] not in own["trained_on"]
        assert voxels[record.case] in other["trained_on"]
    for fold in range(FOLDS):
        tested = {voxels[record.case] for record in found if record.fold == fold}
        assert {*card(undisturbed, fold)["trained_on"]} == set(voxels.values()) - tested


def test_the_table_tells_grade_and_fold(undisturbed: Path) -> None:
    with (undisturbed / "scores.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {(row["case"], row["stratum"]) for row in rows} == {
        *((f"Phantom_0000{i}", "HGG") for i in range(3)),
        ("Phantom_00003", "LGG"),
    }
    told = {(row["case"], row["fold"]) for row in rows}
    assert told == {(record.case, str(record.fold)) for record in every_record(undisturbed)}


def test_the_report_tells_of_folds_and_strata(undisturbed: Path) -> None:
    page = (undisturbed / "report" / "index.html").read_text(encoding="utf-8")
    text = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())
    assert "Cross-validation of 2 folds" in text
    assert "The networks of unet were trained here, and none has seen a case that it is tested on" in text
    assert "fold 0 (n = 2) fold 1 (n = 2)" in text
    assert "By stratum: WT" in text
    assert "No training is on record" not in text
    assert page.count('alt="Training of unet: ') == 1
    assert (undisturbed / "report" / "tables" / "strata-unet-WT.csv").read_text().count("LGG") == 1


@pytest.mark.parametrize(
    ("moment", "learnt"),
    [((LEARN, STEPS + 4), STEPS - 2), (("medadv.attack.steps:Plain.__call__", 3), 0)],
    ids=["in the training of the second fold, after its checkpoint at 2", "in the attack on the third case"],
)
def test_a_killed_run_goes_on_without_learning_anything_again(
    graded: Path, undisturbed: Path, tmp_path: Path, moment: tuple[str, int], learnt: int
) -> None:
    study, folder = crossed(graded), tmp_path / "crossed"
    assert run_until(study, tmp_path, moment) == -signal.SIGKILL
    assert (folder / "victims" / "unet" / "fold_0" / "victim.json").exists()
    assert (folder / "victims" / "unet" / "fold_1" / "victim.json").exists() == (learnt == 0)
    assert run_until(study, tmp_path, (LEARN, learnt + 1)) == 0  # one step more would be killed
    assert tables(folder) == tables(undisturbed)
    assert records(folder) == records(undisturbed)


def test_parts_come_to_the_same(graded: Path, undisturbed: Path, tmp_path: Path, no_report: None) -> None:
    study = crossed(graded)
    train(study, runs=tmp_path)
    halves = [go(study, tmp_path, part=f"{i}/2") for i in (1, 2)]
    assert [half.scored for half in halves] == [2, 2]
    finish(tmp_path / "crossed")
    assert tables(tmp_path / "crossed") == tables(undisturbed)
    assert records(tmp_path / "crossed") == records(undisturbed)


def test_weights_of_a_cross_validation_name_their_fold(
    graded: Path, undisturbed: Path, tmp_path: Path, no_report: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same weights for every fold have seen most of what they would be tested on."""

    def taken(name: str, weights: Path) -> Study:
        return crossed(graded, study=name, victims={"taken": {"weights": str(weights)}})

    networks = undisturbed / "victims" / "unet"
    with pytest.raises(ConfigError, match=r"(?s)'taken' would be tested on cases that it may have seen.*\{fold\}"):
        go(taken("one", networks / "fold_0"), tmp_path)
    for fold in range(FOLDS):
        shutil.copytree(networks / f"fold_{fold}", tmp_path / "exchanged" / f"fold_{1 - fold}")
    with pytest.raises(ConfigError, match="trained on cases that it would be tested on"):
        go(taken("two", tmp_path / "exchanged" / "fold_{fold}"), tmp_path)
    asked: list[str] = []
    real = try_out
    monkeypatch.setattr("medadv.study.run.try_out", lambda name, *given: asked.append(name) or real(name, *given))
    folder = go(taken("three", networks / "fold_{fold}"), tmp_path).folder
    assert asked == ["taken"] * FOLDS  # each network, before the study rests on it
    scores = (folder / "scores.csv").read_text()
    assert scores.replace("taken,", "unet,") == (undisturbed / "scores.csv").read_text()


def test_a_group_that_is_corrected_costs_no_attack(
    graded: Path, undisturbed: Path, tmp_path: Path, no_report: None
) -> None:
    """Records of before there were strata, or of a wrong one, tell the right one after the next run."""
    shutil.copytree(undisturbed, tmp_path / "crossed")
    before = records(tmp_path / "crossed")
    for record in every_record(tmp_path / "crossed"):
        write_record(tmp_path / "crossed", record.model_copy(update={"stratum": "another", "fold": None}))
    seconds = {p: p.read_bytes() for p in (tmp_path / "crossed" / "timings").rglob("*.json")}
    go(crossed(graded), tmp_path)
    assert records(tmp_path / "crossed") == before
    assert {p: p.read_bytes() for p in (tmp_path / "crossed" / "timings").rglob("*.json")} == seconds
