"""What the run cost, what it refused, where it ran, and how to repeat it."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath
from statistics import fmean
from typing import Any

import yaml

from medadv.study.report.numbers import decimal, tenth, titled, whole
from medadv.study.report.tables import Cell, Column, Table
from medadv.study.results import Arm, Results


def cost(results: Results) -> Table:
    """Passes through the network and seconds, mean over cases."""
    timed = bool(results.seconds)
    columns = [Column("victim"), Column("condition"), Column("steps", whole), Column("forward", tenth)]
    columns += [Column("backward", tenth), Column("zero gradients", _percent)]
    return Table(
        name="cost",
        caption="Passes through the network for one case, mean over cases; the share of voxels whose gradient was "
        "exactly zero" + ("; and seconds for one case, attack and scoring together." if timed else "."),
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
        rows=[[row.case, row.reason, row.message] for row in results.quarantine],
    )


def environment(results: Results) -> tuple[tuple[str, str], ...]:
    """Versions and machine, as they were recorded."""
    return tuple((str(name), str(value)) for name, value in results.environment.items())


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
