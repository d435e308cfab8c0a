"""What a run computes, what it does not compute again, and what stands in its tables."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from study.small_study import Glow, contents, every_record, go, records, small, tables, trained

from medadv.data.phantom import phantom
from medadv.errors import ConfigError, RunError
from medadv.study.cells import Cell
from medadv.study.run import Part, finish, run, train


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The condition and case of every cell that is computed from now on."""
    cells: list[tuple[str, str]] = []
    real = Cell.compute

    def compute(cell: Cell, pictured: bool) -> object:
        cells.append((cell.condition.name, cell.bench.case.case))
        return real(cell, pictured)

    monkeypatch.setattr(Cell, "compute", compute)
    return cells


def conditions(folder: Path) -> set[str]:
    """The conditions in the table."""
    with (folder / "scores.csv").open(newline="") as stream:
        return {row["condition"] for row in csv.DictReader(stream)}


# What is computed, and what is not


def test_a_finished_run_computes_and_reads_nothing(
    three: Path, runs: Path, computed: list[object], no_report: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {**records(runs / "small"), **tables(runs / "small")}
    monkeypatch.setattr("medadv.study.bench.read_labelled", None)
    outcome = go(small(three, volumes={"keep": "all"}), runs)
    assert computed == []
    assert (outcome.scored, outcome.quarantined) == (3, 0)
    assert {**records(runs / "small"), **tables(runs / "small")} == before


def test_a_budget_more_computes_its_cells_alone(
    three: Path, runs: Path, computed: list[tuple[str, str]], no_report: None
) -> None:
    before = records(runs / "small")
    folder = go(small(three, budgets=["0.1 sigma", "0.2 sigma", "0.3 sigma"], volumes={"keep": "all"}), runs).folder
    attacks = {"fgsm-0.2-sigma", "ifgsm-0.2-sigma"}
    expected = attacks | {f"permuted-{attack}" for attack in attacks} | {"noise-0.2-sigma"}
    assert {condition for condition, _ in computed} == expected
    assert len(computed) == 3 * 5
    assert before.items() <= records(folder).items()
    assert expected <= conditions(folder)


def test_a_budget_less_leaves_the_tables_and_comes_back_without_computing(
    three: Path, runs: Path, computed: list[object], no_report: None
) -> None:
    before = tables(runs / "small")
    folder = go(small(three, budgets=["0.1 sigma"], volumes={"keep": "all"}), runs).folder
    assert not {name for name in conditions(folder) if "0.3" in name}
    assert {name for name in conditions(folder) if "0.1" in name}
    go(small(three, volumes={"keep": "all"}), runs)
    assert computed == []
    assert tables(folder) == before


def test_an_attack_that_changes_supersedes_its_own_cells_alone(
    three: Path, runs: Path, computed: list[tuple[str, str]], no_report: None
) -> None:
    before = tables(runs / "small")
    changed = {"fgsm": {"preset": "fgsm"}, "ifgsm": {"preset": "ifgsm", "steps": 3}}
    folder = go(small(three, attacks=changed), runs).folder
    assert {condition for condition, _ in computed} == {
        f"{kind}ifgsm-{budget}-sigma" for kind in ("", "permuted-") for budget in (0.1, 0.3)
    }
    assert tables(folder)["scores.csv"] != before["scores.csv"]
    computed.clear()
    go(small(three), runs)
    assert computed == []
    assert tables(folder) == before


def test_what_is_made_of_an_attack_is_made_of_this_form_of_it(
    three: Path, runs: Path, finished: Path, no_report: None
) -> None:
    """Files of two steps lie there; then of three; then a control of the two steps is asked for anew."""
    changed = {"fgsm": {"preset": "fgsm"}, "ifgsm": {"preset": "ifgsm", "steps": 3}}
    folder = runs / "small"
    controls = [path for path in folder.rglob("*.json") if path.parts[-2].startswith("permuted-ifgsm")]
    assert len(controls) >= 6
    for path in controls:
        path.unlink()
    go(small(three, attacks=changed, volumes={"keep": "all"}), runs)
    go(small(three, volumes={"keep": "all"}), runs)
    assert tables(folder) == tables(finished)


@pytest.mark.parametrize("keep", ["all", "worst"])
def test_files_of_another_form_of_an_attack_are_no_result(
    three: Path, runs: Path, no_report: None, keep: str
) -> None:
    """What lies beside a record are its own files, or none."""
    changed = {"fgsm": {"preset": "fgsm"}, "ifgsm": {"preset": "ifgsm", "steps": 3}}
    go(small(three, attacks=changed, volumes={"keep": keep}), runs)
    folder = go(small(three, volumes={"keep": keep}), runs).folder
    with (folder / "scores.csv").open(newline="") as stream:
        cells = {(row["condition"], row["case"]) for row in csv.DictReader(stream)}
    stored = {
        (record["condition"], record["case"], json.dumps(record["delivered"], sort_keys=True))
        for record in map(json.loads, records(folder).values())
    }
    found = 0
    for note in folder.glob("volumes/*/*/*/ADVERSARIAL.json"):
        condition, case = note.parts[-3], note.parts[-2]
        assert (condition, case) in cells
        assert (condition, case, json.dumps(json.loads(note.read_text())["files"], sort_keys=True)) in stored
        found += 1
    assert found > 0


def test_files_that_were_not_kept_are_made_again_for_what_needs_them(
    three: Path, tmp_path: Path, finished: Path, computed: list[tuple[str, str]], no_report: None
) -> None:
    go(small(three, controls=[], volumes={"keep": "none"}), tmp_path)
    assert not list((tmp_path / "small").rglob("*.nii.gz"))
    folder = go(small(three, volumes={"keep": "none"}), tmp_path).folder
    assert tables(folder) == tables(finished)
    assert not list(folder.rglob("*.nii.gz"))


def test_the_worst_cases_keep_their_files(three: Path, tmp_path: Path, no_report: None) -> None:
    folder = go(small(three, volumes={"keep": "worst", "count": 2}), tmp_path).folder
    dice = {(r.condition, r.case): r.scores[0].value for r in every_record(folder)}
    attacks = {r.condition for r in every_record(folder) if r.presented.role == "attack"}
    for attack in attacks:
        losses = {case: dice["clean", case] - value for (condition, case), value in dice.items() if condition == attack}
        kept = {path.parent.name for path in (folder / "volumes" / "glow" / attack).glob("*/ADVERSARIAL.json")}
        assert kept == set(sorted(losses, key=losses.__getitem__)[-2:])
        assert all((folder / "volumes" / "glow" / attack / case / "slices.npz").is_file() for case in kept)
    assert {path.parts[-3] for path in folder.rglob("ADVERSARIAL.json")} == attacks


def test_weights_that_change_are_another_victim(
    three: Path, runs: Path, computed: list[tuple[str, str]], no_report: None
) -> None:
    network = Glow()
    with torch.no_grad():
        network.answer.bias[1] += 0.5
    go(small(three), runs, network=network)
    assert len(computed) == 3 * 12


# Parts


def test_parts_give_the_tables_of_one_run(three: Path, tmp_path: Path, finished: Path, no_report: None) -> None:
    study = small(three, volumes={"keep": "all"})
    outcomes = [go(study, tmp_path, part) for part in ("2/2", "1/2")]
    assert [(outcome.scored, outcome.quarantined) for outcome in outcomes] == [(1, 0), (2, 0)]
    folder = tmp_path / "small"
    assert not (folder / "scores.csv").exists()
    finish(folder)
    assert tables(folder) == tables(finished)
    assert records(folder) == records(finished)


def test_more_parts_than_cases_leave_some_with_nothing(three: Path, tmp_path: Path, no_report: None) -> None:
    assert [go(small(three), tmp_path, f"{i}/4").scored for i in range(1, 5)] == [1, 1, 1, 0]


def test_a_part_does_not_train(tmp_path: Path, no_report: None) -> None:
    with pytest.raises(RunError, match=r"(?s)not made yet.*medadv train"):
        go(trained(), tmp_path, "1/1")
    shutil.rmtree(tmp_path / "trained")
    phantom(tmp_path / "data", 3, (24, 24, 24))
    data = {"importer": "brats", "root": str(tmp_path / "data"), "release": "2021"}
    with pytest.raises(RunError, match=r"(?s)'unet' is not trained yet.*medadv train"):
        go(trained(data=data), tmp_path, "1/1")
    shutil.rmtree(tmp_path / "trained")
    train(trained(), runs=tmp_path)
    assert go(trained(), tmp_path, "1/1").scored == 1


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/", "/2", "a/b", "1/2/3", "-1/2", "1.0/2", "²/3"])
def test_a_part_that_is_none_is_told(text: str) -> None:
    with pytest.raises(ConfigError, match=r"a part is i/n|there is no such part"):
        Part.parse(text)


# Declarations


def declarations(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "declarations.jsonl").read_text().splitlines()]


def test_the_family_is_declared_once_before_any_score(three: Path, finished: Path, runs: Path, no_report: None) -> None:
    (declared,) = declarations(finished)
    assert declared["after_scores"] is False
    assert str(declared["declared"]).endswith("+00:00")
    assert declared["primary"] == {
        "metric": "dice",
        "region": "WT",
        "victims": ["glow"],
        "conditions": ["fgsm-0.1-sigma", "fgsm-0.3-sigma", "ifgsm-0.1-sigma", "ifgsm-0.3-sigma"],
        "against": "clean",
    }
    go(small(three), runs)
    assert declarations(runs / "small") == [declared]


def test_a_family_that_is_declared_late_says_so(three: Path, runs: Path, no_report: None) -> None:
    narrow = {"region": "WT", "attacks": ["ifgsm"], "budgets": ["0.3 sigma"]}
    for primary in (narrow, {"region": "WT"}):
        go(small(three, primary=primary), runs)
    first, second, third = declarations(runs / "small")
    assert [entry["after_scores"] for entry in (first, second, third)] == [False, True, True]
    assert second["primary"]["conditions"] == ["ifgsm-0.3-sigma"]  # type: ignore[index]
    assert third["primary"] == first["primary"]


# Whose folder it is

ANOTHER: dict[str, tuple[dict[str, object], str]] = {
    "other data": ({"data": {"importer": "brats", "root": "ROOT", "release": "2020"}}, "data.release: 2021 there"),
    "another split": ({"split": {"train": 1}}, "split"),
    "another seed": ({"seed": 1}, "seed: 0 there, 1 here"),
    "other names": ({"ids": "pseudonyms"}, "ids: as-is there, pseudonyms here"),
    "another victim of the same name": ({"victims": {"glow": {"inference": {"name": "whole", "multiple": 2}}}}, "glow"),
}


@pytest.mark.parametrize(("changes", "told"), ANOTHER.values(), ids=ANOTHER)
def test_a_name_of_another_study_is_refused(
    three: Path, runs: Path, changes: dict[str, object], told: str, no_report: None
) -> None:
    before = contents(runs / "small")
    if "data" in changes:
        changes = {"data": {**changes["data"], "root": str(three)}}  # type: ignore[dict-item]
    with pytest.raises(RunError, match=rf"(?s)belongs to another study.*{told}.*try: "):
        go(small(three, **changes), runs)
    assert contents(runs / "small") == before


def test_data_that_moved_are_the_same_data(three: Path, runs: Path, tmp_path: Path, no_report: None) -> None:
    moved = tmp_path / "moved"
    moved.symlink_to(three)
    before = records(runs / "small")
    outcome = go(small(moved, volumes={"keep": "all"}), runs)
    assert (outcome.scored, outcome.quarantined) == (3, 0)
    assert records(outcome.folder) == before


def test_a_first_attempt_that_failed_may_be_mended(three: Path, tmp_path: Path, no_report: None) -> None:
    for wrong in ({"split": {"train": 9}}, {"regions": ["brain"]}, {"seed": 3, "split": {"train": 9}}):
        with pytest.raises(ConfigError):
            go(small(three, **wrong), tmp_path)
    assert go(small(three), tmp_path).scored == 3


def test_a_folder_of_something_else_is_left_alone(three: Path, tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="holds something that is no study"):
        go(small(three), tmp_path)
    assert [path.name for path in (tmp_path / "small").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("content", ["", "{", "[]", "a: &a [*a]", "data: 3\nvictims: 4\n", "\udcff"])
def test_a_damaged_specification_is_told(three: Path, runs: Path, content: str) -> None:
    (runs / "small" / "study.yaml").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(RunError, match=r"study.yaml is damaged"):
        go(small(three), runs)


def test_runs_that_cannot_be_written_are_told(three: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    for runs in (tmp_path / "file", tmp_path / "file" / "runs"):
        with pytest.raises(RunError, match=r"(?s)could not be written.*may be written"):
            go(small(three), runs)


def test_a_damaged_record_is_told_and_never_used_in_part(three: Path, runs: Path) -> None:
    path = next((runs / "small").glob("records/*/*/*.json"))
    path.write_bytes(path.read_bytes()[:-20])
    for attempt in (lambda: go(small(three), runs), lambda: finish(runs / "small")):
        with pytest.raises(RunError, match=r"(?s)the record .* is damaged.*delete it and run"):
            attempt()


# Victims that do not fit


def test_overrides_of_a_study_in_memory_are_told(three: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="overrides go over a YAML file"):
        run(small(three), overrides=["seed=1"], runs=tmp_path)


def test_a_folder_without_scores_has_nothing_to_report(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"(?s)list of cells .* cannot be read.*medadv run"):
        finish(tmp_path / "nowhere")


def test_several_victims_stand_side_by_side(three: Path, tmp_path: Path, finished: Path, no_report: None) -> None:
    brighter = Glow()
    with torch.no_grad():
        brighter.answer.bias += 0.2
    spec = {"inference": {"name": "whole"}}
    study = small(three, victims={"glow": spec, "brighter": spec})
    folder = run(study, victims={"glow": Glow(), "brighter": brighter}, runs=tmp_path, tracked=False).folder
    alone = {path: content for path, content in records(folder).items() if path.startswith("glow/")}
    assert alone == records(finished)
    assert len(records(folder)) == 2 * len(alone)
