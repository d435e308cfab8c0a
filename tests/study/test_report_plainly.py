"""The report claims no more than there is: of steps without a bound, of nothing attacked, of nothing lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from study.pictured import pictured

from medadv.study.records import Record
from medadv.study.report import threat
from medadv.study.report.curves import budget_curves, off_axis
from medadv.study.report.pictures.ratio import swept
from medadv.study.report.summary import summary
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
