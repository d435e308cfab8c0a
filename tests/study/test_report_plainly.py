"""The report claims no more than there is: of steps without a bound, of nothing attacked, of nothing lost."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from study.pictured import DETECTOR, pictured

from medadv.study.records import Effort, Record, read_record
from medadv.study.report import build, threat
from medadv.study.report.curves import budget_curves, off_axis
from medadv.study.report.numbers import titled
from medadv.study.report.pictures.matrix import Cells
from medadv.study.report.pictures.over_data import OverData
from medadv.study.report.pictures.permuted import permuted_table, verdict
from medadv.study.report.pictures.ratio import swept
from medadv.study.report.summary import summary
from medadv.study.report.tables import Cell, Table
from medadv.study.report.wording import of_pictures, titled_for_people, worded
from medadv.study.report.words import answer, sentence
from medadv.study.report.worst import none_worse, worst_kept
from medadv.study.results import Arm, Results, read_results


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return read_results(pictured(tmp_path_factory.mktemp("plainly") / "study", epsilons=(0.5, 8.0)))


def with_records(results: Results, condition: str, change: Callable[[Record], Record]) -> Results:
    """The same results with other records of a condition, and of what is made of it."""

    def changed(arm: Arm) -> Arm:
        if condition not in (arm.condition, arm.presented.of):
            return arm
        return replace(arm, records={case: change(record) for case, record in arm.records.items()})

    return replace(results, arms=tuple(map(changed, results.arms)))


def by_steps(record: Record) -> Record:
    """The same under a threat that bounds steps alone."""

    def unbounded(settings: Mapping[str, Any]) -> dict[str, Any]:
        if "threat" in settings:
            return {**settings, "threat": {**settings["threat"], "ball": "unbounded"}}
        return {**settings, "of": unbounded(settings["of"])}

    return record.model_copy(update={"inputs": {**record.inputs, "condition": unbounded(record.inputs["condition"])}})


def test_the_length_of_a_step_is_drawn_as_no_budget(results: Results) -> None:
    steps = with_records(results, "dag-0.5", by_steps)
    assert "DAG" in [line.get_label() for line in budget_curves(results, "fcn", "all", "0-255").axes[0].lines]
    assert "DAG" not in [line.get_label() for line in budget_curves(steps, "fcn", "all", "0-255").axes[0].lines]
    assert not any(family == "dag" for family, _ in swept(steps))
    assert off_axis(results, "fcn") == ""
    told = "γ\N{NO-BREAK SPACE}0.5\N{NO-BREAK SPACE}of 0–255 a step"
    assert off_axis(steps, "fcn") == (
        f"Not drawn, since the amount is that of a step, and what the steps add up to has no bound: DAG at {told}."
    )
    shown = {str(row[0]): row[1] for row in summary(steps, "fcn", "all").rows}
    assert (shown["DAG"], shown["DAG,  permuted"]) == (told, told)
    # In the threat's table it stands beside the budget of the same amount, and is not taken for it.
    amounts = [row[0] for row in threat.radii(steps, "fcn").rows]
    assert {told, "0.5\N{NO-BREAK SPACE}of 0–255"} <= set(amounts)


@pytest.mark.parametrize(
    ("active", "words"),
    [
        ([0.0], "in 7 of 7 pictures there was no target; the attack changed nothing"),
        (None, "the attack changed nothing in 7 of 7 pictures"),  # the trace counts no targets
    ],
)
def test_an_attack_of_nothing_shows_nothing(results: Results, active: list[float] | None, words: str) -> None:
    def nothing(record: Record) -> Record:
        assert record.distortion is not None
        trace = {"active": active} if active else {}
        effort = Effort(steps=0, forward=1, backward=0, zero_gradient_share=0, trace=trace)
        zero = record.distortion.model_copy(update={"perceptibility": 0.0, "linf": 0.0, "l2": 0.0})
        return record.model_copy(update={"distortion": zero, "effort": effort})

    still = with_records(results, "ifgsm-8", nothing)
    row = still.compared("fcn", "all", "ifgsm-8", "clean", "iou")
    assert row is not None
    assert "was not shown to change" in sentence(results, row)
    assert words in sentence(still, row)
    assert not re.search("lowers|was not shown", sentence(still, row))
    # Another attack is the answer's; that this one was none is told there too.
    idle_dag = with_records(results, "dag-0.5", nothing)
    assert not any(words in told for told in answer(results, "fcn").sentences)
    assert f"Under DAG at 0.5\N{NO-BREAK SPACE}of 0–255 {words}." in answer(idle_dag, "fcn").sentences


def test_of_some_pictures_without_a_target_the_number_is_told(results: Results) -> None:
    def nothing(record: Record) -> Record:
        assert record.distortion is not None
        linf = record.distortion.linf if record.case == "picture_0" else 0.0
        return record.model_copy(update={"distortion": record.distortion.model_copy(update={"linf": linf})})

    row = results.compared("fcn", "all", "ifgsm-8", "clean", "iou")
    assert row is not None
    told = sentence(with_records(results, "ifgsm-8", nothing), row)
    assert told == f"{sentence(results, row)} The attack changed nothing in 6 of 7 pictures."


def test_no_share_is_told_of_a_drop_that_is_none(results: Results) -> None:
    """Where ADVR is no lower than ORIG, PERM's drop is no share of it."""

    def unharmed(arm: Arm) -> Arm:
        if arm.condition != "dag-0.5":
            return arm
        clean = results.clean(arm.victim)
        assert clean is not None
        records = {c: r.model_copy(update={"scores": clean.records[c].scores}) for c, r in arm.records.items()}
        return replace(arm, records=records)

    none = replace(results, arms=tuple(map(unharmed, results.arms)))

    def table(of: Results) -> Table:
        found = permuted_table(of, Cells(of, OverData.of(of)), "fcn")
        assert found is not None
        return found

    shares = [row[-1] for row in table(results).rows if row[0] == titled(arm(results, "fcn", "dag-0.5"))]
    assert all(isinstance(share, float) and 0 < share < 0.05 for share in shares)
    assert {row[-1] for row in table(none).rows if str(row[0]).startswith("DAG, 0.5")} == {None}
    assert "this is not the shape" in verdict([("fcn", table(none))])


def arm(results: Results, victim: str, condition: str) -> Arm:
    found = results.arm(victim, condition)
    assert found is not None
    return found


def rows(*given: tuple[float, float, float | None]) -> list[tuple[str, Table]]:
    made: list[list[Cell]] = [["DAG", "rows", orig, advr, share] for orig, advr, share in given]
    return [("fcn", Table("t", "", [], made))]


def test_the_expected_shape_is_judged() -> None:
    assert verdict(rows((0.8, 0.1, 0.02), (0.8, 0.4, -0.01))) == (
        "ADVR is far below ORIG, at half of it or less, in 2 of 2 rows; PERM’s drop is at most 5 % of ADVR’s in 2 of 2 "
        "rows with a drop: this is the shape that is expected of structure."
    )
    told = verdict(rows((0.8, 0.1, 0.02), (0.8, 0.5, 0.3)))
    assert "in 1 of 2 rows; " in told
    assert told.endswith("and 30 % at most (fcn, DAG, rows): this is not the shape that is expected of structure.")
    assert "nowhere is there a drop" in verdict(rows((0.8, 0.8, None)))


def test_a_case_that_got_no_worse_is_nobodys_worst_case(results: Results) -> None:
    kept = {a.presented.family for a, _, _ in worst_kept(results, "fcn", "all")}
    assert kept == {"ifgsm", "dag"}
    assert none_worse(results, "fcn", "all") == ""
    clean = arm(results, "fcn", "clean")
    held = with_records(
        results, "dag-0.5", lambda r: r.model_copy(update={"scores": clean.records[r.case].scores})
    )
    assert {a.presented.family for a, _, _ in worst_kept(held, "fcn", "all")} == {"ifgsm"}
    assert none_worse(held, "fcn", "all") == "No kept case got worse in IoU of all under DAG."


def test_the_least_score_of_what_is_found_is_told(results: Results) -> None:
    assert "score ≥ .5 and IoU ≥ .5" in summary(results, DETECTOR, "all").caption


def test_words_of_scans_are_not_said_of_pictures(tmp_path: Path) -> None:
    folder = pictured(tmp_path / "study", images=2, epsilons=(8.0,), victims=("fcn",))
    for path in (folder / "records" / "fcn").glob("dag-0.5/*.json"):
        record = read_record(path)
        title = "DAG, permute tissues at random"
        shown = record.presented.model_copy(update={"title": title})
        path.write_text(record.model_copy(update={"presented": shown, "agreement": 0.9}).model_dump_json())
    refused = [{"case": "x", "reason": "missing_modality", "message": "A modality that the data set declares has none"}]
    (folder / "quarantine.json").write_text(json.dumps(refused))
    page = build(folder)
    text = re.sub(r"<pre>.*?</pre>|<[^>]+>", " ", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert "permute classes at random" in text
    assert "A channel that the data set declares has none" in text
    tables = " ".join(path.read_text(encoding="utf-8") for path in (page.parent / "tables").glob("*.tex"))
    found = re.findall(r".{30}\b(?:voxels?|tissues?|scans?|modalit(?:y|ies)|slices|clinical)\b.{30}", text + tables)
    assert found == []


def test_words_of_scans_stay_with_volumes(run_folder: Path) -> None:
    results = read_results(run_folder)
    assert titled_for_people(results) is results
    assert worded(results, "tissues of scans") == "tissues of scans"
    assert of_pictures("Modality by modality, missing_modality; voxels of tissues") == (
        "Channel by channel, missing_modality; pixels of classes"
    )
