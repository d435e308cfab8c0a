"""What the run cost, what it refused, where it ran, and how to repeat it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from statistics import fmean
from typing import Any

import yaml

from medadv.study.report.numbers import decimal, tenth, titled, whole
from medadv.study.report.tables import Cell, Column, Table
from medadv.study.report.wording import worded
from medadv.study.results import Arm, Results
from medadv.study.sources import PATHS


def cost(results: Results) -> Table:
    """Passes through the network and seconds, mean over cases."""
    timed = bool(results.seconds)
    columns = [Column("victim"), Column("condition"), Column("steps", whole), Column("forward", tenth)]
    columns += [Column("backward", tenth), Column("zero gradients", _percent)]
    return Table(
        name="cost",
        caption="Passes through the network for one case, mean over cases; the share of "
        f"{worded(results, 'voxels')} whose gradient was exactly zero"
        + ("; and seconds for one case, attack and scoring together." if timed else "."),
        columns=[*columns, *([Column("seconds", tenth)] if timed else [])],
        rows=[_effort(results, arm, timed) for arm in results.arms if _measured(results, arm)],
    )


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{decimal(100 * value, 1)} %"


def _measured(results: Results, arm: Arm) -> bool:
    return bool(_times(results, arm)) or any(record.effort for record in arm.records.values())


def _times(results: Results, arm: Arm) -> list[float]:
    keys = ((arm.victim, arm.condition, case) for case in arm.records)
    return [results.seconds[key] for key in keys if key in results.seconds]


def _effort(results: Results, arm: Arm, timed: bool) -> list[Cell]:
    spent = [record.effort for record in arm.records.values() if record.effort]
    row: list[Cell] = [arm.victim, titled(arm)]
    if spent:
        row += [fmean(e.steps for e in spent), fmean(e.forward for e in spent), fmean(e.backward for e in spent)]
        row += [fmean(e.zero_gradient_share for e in spent)]
    else:
        row += [None, None, None, None]
    times = _times(results, arm)
    return [*row, *([fmean(times) if times else None] if timed else [])]


def quarantine(results: Results) -> Table:
    """The cases that were refused, and why."""
    return Table(
        name="quarantine",
        caption=f"Scored: {len(results.cases)} cases. Refused: {len(results.quarantine)}; no score of theirs is in "
        "any number of this page.",
        columns=(Column("case"), Column("reason"), Column("message")),
        rows=[[row.case, row.reason, worded(results, row.message)] for row in results.quarantine],
    )


def environment(results: Results) -> tuple[tuple[str, str], ...]:
    """Versions and machine: every version of a package that computed a cell, and what the last command ran on."""
    told = {str(name): str(value) for name, value in results.environment.items()}
    told |= {name: ", ".join(found) for name, found in results.versions.items()}
    return (*told.items(), ("device", ", ".join(sorted({record.device for record in results.records}))))


def savings(results: Results) -> tuple[str, ...]:
    """Where cells were computed in less memory, a sentence for each victim and way."""
    ways = [(arm.victim, record.savings) for arm in results.arms for record in arm.records.values()]
    return tuple(
        f"{ways.count((victim, way))} of {sum(name == victim for name, _ in ways)} cells of {victim} were computed in "
        f"less memory: {' and '.join(way)}. Patch, budget and data type were not changed, so numbers differ by "
        "rounding at most."
        for victim, way in sorted(set(ways))
        if way
    )


def mixed(results: Results) -> str:
    """Whether cells were computed with different versions, in a sentence; empty where they were not."""
    several = [f"{name} ({', '.join(found)})" for name, found in results.versions.items() if len(found) > 1]
    if not several:
        return ""
    return (
        f"The cells were computed with more than one version of {', '.join(several)}. Differences between conditions "
        "may in part be differences between versions."
    )


@dataclass(frozen=True)
class Repetition:
    """How the run is repeated: what has to be known, and the command."""

    notes: tuple[str, ...]
    command: str


def repetition(results: Results) -> Repetition:
    """How the run is repeated, from its own specification where that is whole."""
    content = results.specification
    victims = content["victims"]
    lists = any(isinstance(chosen, list) for chosen in content.get("split", {}).values())
    paths = {f"data.{key}": content["data"][key] for key in PATHS if key in content["data"]}
    paths |= {f"victims.{name}.weights": victim.get("weights") for name, victim in victims.items()}
    goals = {name: attack.get("goal") or {} for name, attack in content.get("attacks", {}).items()}
    paths |= {f"attacks.{name}.goal.draw": goal["draw"] for name, goal in goals.items() if "draw" in goal}
    private = content.get("ids") == "pseudonyms" and (lists or any(paths.values()))
    notes = [
        "The study.yaml in the run’s folder does not repeat the run: names are private in this study, and it "
        "holds no path and no id of a case. The author’s own YAML repeats it:"
        if private
        else "This command repeats the run, with the study.yaml that lies in the run’s folder:"
    ]
    relative = [f"{key} ({path})" for key, path in paths.items() if path is not None and not _anchored(path)]
    if relative and not private:
        notes.append(
            f"Relative paths, {', '.join(relative)}, start from the folder in which the command is given. The run was "
            "started in the one that holds runs/, unless --runs said otherwise."
        )
    handed = [name for name, victim in victims.items() if not victim.get("weights") and not results.curves(name)]
    if handed:
        notes.append(
            f"No training is on record of {', '.join(handed)}: a network that was handed over in Python is handed over "
            "again, by medadv.run(…, victims=…)."
        )
    return Repetition(tuple(notes), "medadv run STUDY.yaml" if private else "medadv run study.yaml")


def specification(results: Results) -> str:
    """``study.yaml`` as text, with folders left out of paths: they say who ran it and where."""
    return yaml.safe_dump(without_folders(dict(results.specification)), sort_keys=False, allow_unicode=True)


def without_folders(value: Any) -> Any:
    """The same value; of each absolute path only the last part is kept."""
    if isinstance(value, dict):
        return {key: without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(inner) for inner in value]
    if isinstance(value, str):
        for path in (PurePosixPath(value), PureWindowsPath(value)):
            if path.is_absolute() or value.startswith("~"):
                return f"…/{path.name}"
    return value


def _anchored(path: str) -> bool:
    """Whether a path means the same wherever the command is given."""
    return bool(without_folders(path) != path)
