"""A run's folder read back: whole, or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import pytest

from medadv.atomic import write_text
from medadv.errors import RunError
from medadv.study.records import MANIFEST, present_records, write_record
from medadv.study.results import read_results
from medadv.study.stats import PrimaryFamily, compare
from medadv.study.tables import comparisons_table


@pytest.fixture
def copied(run_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(run_folder, tmp_path / "phantom", ignore=shutil.ignore_patterns("report"))
    return tmp_path / "phantom"


def test_everything_that_was_written_is_read(run_folder: Path) -> None:
    results = read_results(run_folder)
    assert results.name == "phantom"
    assert (results.unit, results.units, len(results.cases)) == ("cases", 12, 12)
    assert results.regions == ("WT", "TC", "ET")
    assert results.modalities == ("t1", "t1ce", "t2", "flair")
    assert sum(len(arm.records) for arm in results.arms) == len(present_records(run_folder))
    assert len(results.seconds) == 23 * 12
    assert results.training["unet"][-1].step == 250


def test_comparisons_survive_the_table(run_folder: Path) -> None:
    records = present_records(run_folder)
    attacks = tuple(c for c in dict.fromkeys(r.condition for r in records) if c.startswith(("fgsm", "ifgsm")))
    rows = compare(records, PrimaryFamily(region="TC", conditions=attacks), ["WT", "TC"])
    rows[0] = rows[0].model_copy(update={"missing": ("=1+1", "case-2"), "verdict": "no claim: fewer than six pairs"})
    rows[1] = rows[1].model_copy(update={"estimate": None, "low": None, "high": None, "n": 0})
    write_text(run_folder / "other" / "comparisons.csv", comparisons_table(rows))
    for name in ("study.yaml", "environment.json", "quarantine.json", "records", MANIFEST):
        (run_folder / "other" / name).symlink_to(run_folder / name)
    assert read_results(run_folder / "other").comparisons == tuple(rows)
    shutil.rmtree(run_folder / "other")


def test_arms_stand_in_the_order_clean_attacks_controls(run_folder: Path) -> None:
    arms = read_results(run_folder).of("unet")
    roles = [arm.presented.role for arm in arms]
    assert roles == ["clean"] + ["attack"] * 9 + ["control"] * 13
    amounts = [arm.presented.amount for arm in arms if arm.presented.family == "ifgsm"]
    assert amounts == [0.05, 0.1, 0.2]


def test_scans_of_one_patient_are_averaged(copied: Path) -> None:
    records = present_records(copied)
    shutil.rmtree(copied / "records")
    for record in records:
        patient = "p0" if record.case in ("PHANTOM_000", "PHANTOM_001") else record.case
        write_record(copied, record.model_copy(update={"patient": patient}))
    results = read_results(copied)
    arm = results.arm("unet", "ifgsm-0.1-sigma")
    assert arm is not None
    assert (results.unit, results.units, len(results.cases)) == ("patients", 11, 12)
    scores = {case: score.value for case, score in arm.scores("WT").items()}
    assert arm.values("WT")["p0"] == pytest.approx(fmean([scores["PHANTOM_000"], scores["PHANTOM_001"]]), abs=1e-12)
    assert arm.mean("WT") == pytest.approx(fmean(arm.values("WT").values()), abs=1e-12)


def test_one_unknown_patient_makes_the_unit_cases(copied: Path) -> None:
    records = present_records(copied)
    shutil.rmtree(copied / "records")
    for record in records:
        write_record(copied, record.model_copy(update={"patient": None if record.case == "PHANTOM_003" else "p"}))
    results = read_results(copied)
    assert (results.unit, results.units) == ("cases", 12)


def test_deletions_and_hallucinations_are_counted(run_folder: Path) -> None:
    results = read_results(run_folder)
    arm = results.arm("unet", "ifgsm-0.2-sigma")
    assert arm is not None
    scores = arm.scores("ET").values()
    assert arm.deletions("ET") == sum(s.truth > 0 and s.predicted == 0 for s in scores) > 0
    assert arm.hallucinations("ET") == 1  # the fifth case has no enhancing tumour


@pytest.mark.parametrize("name", ["study.yaml", "environment.json", "comparisons.csv", "quarantine.json"])
@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00", b'{"half": ', b"- a\n- [b"])
def test_a_missing_or_damaged_part_is_an_error_with_advice(copied: Path, name: str, content: bytes | None) -> None:
    if content is None:
        (copied / name).unlink()
    elif name == "comparisons.csv":
        (copied / name).write_bytes((copied / name).read_bytes()[:-25])
    else:
        (copied / name).write_bytes(content)
    with pytest.raises(RunError, match=name) as raised:
        read_results(copied)
    assert "try: " in str(raised.value)


def test_a_damaged_training_curve_is_named(copied: Path) -> None:
    write_text(copied / "victims" / "unet" / "training.csv", "step,loss\n1,much\n")
    with pytest.raises(RunError, match=r"training\.csv"):
        read_results(copied)


def test_an_older_record_of_a_cell_does_not_count(copied: Path) -> None:
    record = present_records(copied)[0]
    before = read_results(copied).arms
    write_record(copied, record.model_copy(update={"key": "0" * 64, "scores": []}))
    assert read_results(copied).arms == before


def test_budgets_of_modalities_stand_beside_each_other(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    budgets = ("0.1/5/5/5 sigma", "0.1/0.2/0.3/0.4 sigma", "0.3 sigma", "0.1 sigma")
    results = read_results(write_run(tmp_path / "study", budgets=budgets, cases=tuple("abcdef")))
    told = [arm.presented.budget for arm in results.arms if arm.presented.family == "ifgsm"]
    assert told == ["0.1 sigma", "0.1/0.2/0.3/0.4 sigma", "0.1/5/5/5 sigma", "0.3 sigma"]


def test_the_metric_is_that_of_the_primary_family(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    for metric in ("dice", "hd95"):
        folder = write_run(tmp_path / metric, budgets=(0.1,), cases=tuple("abcdef"), metric=metric)
        assert read_results(folder).metric.name == metric


def test_all_versions_of_the_records_are_known(copied: Path) -> None:
    records = present_records(copied)
    assert read_results(copied).versions == {"medadv": ("0.1.0",), "torch": ("2.15.0",), "monai": ("1.6.1",)}
    write_record(copied, records[0].model_copy(update={"versions": {"torch": "2.9.1"}}))
    assert read_results(copied).versions["torch"] == ("2.15.0", "2.9.1")


@pytest.mark.parametrize("made", [True, False])
def test_a_folder_without_cells_is_no_run(tmp_path: Path, made: bool) -> None:
    folder = tmp_path / "nothing"
    if made:
        folder.mkdir()
    with pytest.raises(RunError, match="no finished cell"):
        read_results(folder)
