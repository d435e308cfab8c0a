"""What a plan says is what a run then does."""

from __future__ import annotations

from pathlib import Path

import pytest
from study.small_study import TRAINED, contents, every_record, finished, small, three, trained  # noqa: F401

from medadv.attack.victim import Passes
from medadv.errors import ConfigError
from medadv.study.machine import Machine
from medadv.study.plan import duration, plan, told
from medadv.study.spec import Study

CPU = Machine("cpu")


def untrained(root: Path, **changes: object) -> Study:
    """The small study with a victim that the plan must build itself."""
    return small(root, victims={"unet": TRAINED}, split={"train": 1, "validate": 1}, **changes)


def test_cells_and_passes_are_those_of_the_run(three: Path, finished: Path, tmp_path: Path) -> None:  # noqa: F811
    """Held against the records of the same study, run: one victim, whole volumes."""
    victims = {"unet": {**TRAINED, "inference": {"name": "whole", "multiple": 2}}}
    planned = plan(small(three, victims=victims), CPU, tmp_path, timed=False)
    ran = every_record(finished)
    assert planned.cells == len(ran)
    assert (planned.cases, planned.patients) == (3, 3)
    spent = sum((Passes(r.effort.forward, r.effort.backward) for r in ran if r.effort), Passes())
    scored = Passes(forward=2 * len(ran))
    assert sum((line.passes for line in planned.lines), Passes()).backward == spent.backward
    counted = sum((line.passes for line in planned.lines), Passes()).forward
    # An attack's first answer serves as its first step's, which the plan counts as part of the gradient.
    assert abs(counted - (spent + scored).forward) <= sum(r.effort is not None for r in ran)


def test_nothing_is_written_or_trained(three: Path, tmp_path: Path) -> None:  # noqa: F811
    before = contents(three)
    planned = plan(untrained(three), CPU, tmp_path / "runs")
    assert planned.trained == {"unet": 6}
    assert planned.seconds is not None
    assert planned.seconds > 0
    assert contents(three) == before
    assert not list(tmp_path.iterdir())


def test_what_a_defence_costs_to_train_is_told(three: Path, tmp_path: Path) -> None:  # noqa: F811
    range_of = {"budgets": ["0.1 sigma", "0.2 sigma"]}
    defences = {
        "distilled": {"name": "distillation", "at": 10},
        "cached": {"name": "distillation", "at": 10, "labels": "cached"},
        "pgd": {"name": "adversarial training", "steps": 3, **range_of},
        "half": {"name": "adversarial training", "steps": 4, "share": 0.5, **range_of},
        "trades": {"name": "trades", "steps": 5, **range_of},
        "augmented": {"name": "augmentation", **range_of},
    }
    victims = {"unet": TRAINED, **{name: {"like": "unet", "defence": made} for name, made in defences.items()}}
    planned = plan(
        small(three, victims=victims, split={"train": 1, "validate": 1}), CPU, tmp_path / "runs", timed=False
    )
    assert planned.dearer == pytest.approx({"distilled": 4 / 3, "pgd": 4, "half": 3, "trades": 7 + 1 / 3})
    assert planned.copied == {"augmented": 2 * 2 * 1}  # attacks, budgets, training cases
    words = "\n".join(told(planned))
    assert "pgd: to be trained, 6 steps, each as dear as 4 plain ones" in words
    assert "augmented: to be trained, 6 steps, after 4 attacks on training cases" in words


def test_every_fold_is_trained_and_every_case_attacked(three: Path, tmp_path: Path) -> None:  # noqa: F811
    asked = small(three, victims={"unet": TRAINED}, split={"folds": 3, "validate": 1})
    planned = plan(asked, CPU, tmp_path, timed=False)
    assert planned.trained == {"unet": 18}
    assert planned.cases == 3


def test_what_so_few_pairs_can_show_is_told(three: Path, tmp_path: Path) -> None:  # noqa: F811
    """Three pairs: the smallest two-sided p is 2 / 2**3, and the family has four comparisons."""
    planned = plan(small(three, victims={"unet": TRAINED}), CPU, tmp_path, timed=False)
    assert (planned.family, planned.reachable) == (4, 1.0)
    assert any("nothing could be claimed" in line for line in told(planned))
    more = plan(trained(data={"importer": "phantom", "cases": 12, "shape": [24, 24, 24]}), CPU, tmp_path, timed=False)
    assert more.reachable == 2.0**-9
    assert any("enough" in line for line in told(more))


@pytest.mark.parametrize(("keep", "cells"), [("all", 11 * 3), ("worst", 4), ("none", 0)])
def test_the_files_that_stay_are_counted(three: Path, tmp_path: Path, keep: str, cells: int) -> None:  # noqa: F811
    asked = small(three, victims={"unet": TRAINED}, volumes={"keep": keep})
    kept = plan(asked, CPU, tmp_path, timed=False).kept
    assert (kept > 0) == (cells > 0)
    every = plan(small(three, victims={"unet": TRAINED}, volumes={"keep": "all"}), CPU, tmp_path, timed=False).kept
    assert kept == pytest.approx(every * cells / 33, abs=2)


def test_a_plan_that_attacks_nothing_is_told(three: Path, tmp_path: Path) -> None:  # noqa: F811
    with pytest.raises(ConfigError, match="no case would be attacked"):
        plan(small(three, split={"train": 2, "validate": 1}, victims={"unet": TRAINED}), CPU, tmp_path, timed=False)


@pytest.mark.parametrize(("seconds", "text"), [(3.21, "3.2 s"), (90.0, "1.5 min"), (7200.0, "2.0 h"), (2e5, "2.3 d")])
def test_time_is_told_in_two_digits(seconds: float, text: str) -> None:
    assert duration(seconds) == text
