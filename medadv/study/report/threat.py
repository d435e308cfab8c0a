"""The threat model: what the attacker may change, in words and in every unit of budgets."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from medadv.attack.budget import Budget
from medadv.errors import RunError
from medadv.study.report.numbers import budget, significant, spelled
from medadv.study.report.provenance import without_folders
from medadv.study.report.style import slug
from medadv.study.report.tables import Cell, Column, Table
from medadv.study.report.wording import worded
from medadv.study.results import Arm, Results


def radii(results: Results, victim: str) -> Table:
    """Each budget in each unit and modality, mean over cases; once more where other modalities are changed alone."""
    budgets: dict[tuple[Budget, tuple[str, ...], bool], Arm] = {}
    for arm in results.of(victim):
        if arm.presented.role == "attack" and arm.presented.budget is not None:
            budgets.setdefault((Budget.parse(arm.presented.budget), _only(arm), arm.step_bounded), arm)
    rows: list[list[Cell]] = []
    breaks: set[int] = set()
    for arm in (budgets[key] for key in sorted(budgets, key=lambda key: (key[0].unit, key[0].amounts, *key[1:]))):
        known = [record.radii for record in arm.records.values() if record.radii]
        breaks.add(len(rows))
        for unit in dict.fromkeys(unit for by_unit in known for unit in by_unit):
            each = ([by_unit[unit][m] for by_unit in known if m in by_unit.get(unit, {})] for m in results.modalities)
            rows.append([budget(arm), spelled(unit), *(fmean(values) if values else None for values in each)])
    caption = (
        "The largest allowed change of a voxel, mean over cases, in each unit. σ: the standard deviation of "
        "that modality inside that case's support; p1–p99 and min–max: shares of these ranges inside the support; "
        "0–255: grey levels, of which 255 span the legal range if that is a pair, else the support's smallest to "
        "largest value."
        + (" Without a bound it is the length of a step." if any(arm.step_bounded for arm in budgets.values()) else "")
    )
    return Table(
        name=slug("threat", victim),
        caption=worded(results, caption),
        columns=(Column("budget"), Column("unit"), *(Column(m, significant) for m in results.modalities)),
        rows=rows,
        breaks=frozenset(breaks - {0}),
    )


def words(results: Results, victim: str) -> tuple[str, ...]:
    """The threat model in sentences, as far as the records tell it."""
    return tuple(worded(results, said) for said in _told(results, victim))


def _told(results: Results, victim: str) -> tuple[str, ...]:
    attacks = [arm for arm in results.of(victim) if arm.presented.role == "attack"]
    records = [record for arm in attacks for record in arm.records.values()]
    threats = [record.inputs["condition"]["threat"] for record in records]
    known = [(t["ball"], r.size) for r, t in zip(records, threats, strict=True) if r.size is not None]
    sizes, sums = ([size for found, size in known if found == ball] for ball in ("linf", "unbounded"))
    said = []
    if any(record.effort and record.effort.backward for record in records):
        said.append("The attacker knows the network and its whole pipeline, and follows its gradients (white box).")
    for surrogate in dict.fromkeys(r.inputs["source"]["victim"] for r in records if "source" in r.inputs):
        said.append(
            f"The attacker never saw this victim: the changes were computed on {surrogate}, and the altered scans were "
            "segmented elsewhere (black box, transfer)."
        )
    said.append(
        "What is changed are stored voxels, before any normalisation: the altered scan is written as a file, read "
        "again and segmented as any other scan would be."
    )
    for tell in (_ball, _support, _modalities, _legal):
        said += filter(None, dict.fromkeys(map(tell, threats)))
    if sizes:
        said.append(
            f"Measured on the files as they were read again, the largest change was {max(sizes):.3f} of the budget "
            "(1 is the whole budget)."
        )
    if sums:
        said.append(f"Where only steps are bounded, the largest change was {max(sums):.1f} times a step’s length.")
    return tuple(said)


def _ball(threat: Mapping[str, Any]) -> str:
    if threat["ball"] not in _BALLS:
        raise _untold("ball", threat)
    return _BALLS[threat["ball"]]


_BALLS = {
    "linf": "Each voxel may move up or down by the budget at most, independently of all others (L∞ ball).",
    "unbounded": "Where the budget is that of one step (DAG), the largest change in a step is the budget, and the sum "
    "of all steps has no bound: how large it became is told as distortion.",
}

_SUPPORTS = {
    "nonzero": "Only voxels that are not zero in the clean scan may change: zeros stay zero, and no other voxel "
    "becomes zero.",
    "otsu": "Only voxels of the head, found in the clean scan by Otsu's threshold, may change, and none of them that "
    "is not zero becomes zero.",
    "mask": "Only voxels inside each case's own mask may change, and none of them that is not zero becomes zero.",
    "volume": "Every voxel may change, those of the background too; none that is not zero becomes zero. Where zeros "
    "tell a pipeline the head from the air, this is also an attack on that.",
    "everywhere": "Every pixel of the picture may change.",
}


def _support(threat: Mapping[str, Any]) -> str:
    if threat["support"] not in _SUPPORTS:
        raise _untold("support", threat)
    return _SUPPORTS[threat["support"]]


def _only(arm: Arm) -> tuple[str, ...]:
    """The modalities that an attack is confined to; none are named where it changes all."""
    for record in arm.records.values():
        return tuple(record.inputs["condition"]["threat"].get("modalities", ()))
    return ()


def _modalities(threat: Mapping[str, Any]) -> str | None:
    return f"Some attacks change {' and '.join(threat['modalities'])} alone." if "modalities" in threat else None


def _legal(threat: Mapping[str, Any]) -> str:
    match threat["legal"]:
        case None:
            return "There is no legal range beside the budget: a voxel may leave the range of the clean scan."
        case "clean":
            return "No voxel leaves the range of its modality in the clean scan, smallest to largest value."
        case [float() | int() as low, float() | int() as high]:
            return (
                f"No voxel is moved out of the legal range, {low:g} to {high:g} stored units in every modality; one "
                "that lies outside in the clean scan may stay where it is or move towards that range."
            )
    raise _untold("legal range", threat)


def _untold(part: str, threat: Mapping[str, Any]) -> RunError:
    return RunError(
        f"a record's {part} is none that this version of medadv knows how to tell",
        got=dict(threat),
        cause="the run was made by another version",
        advice="make the report with the version that made the run; environment.json names it",
    )


def settings(results: Results) -> tuple[tuple[str, str], ...]:
    """The attacks as the study declares them: name and settings, without the folders of given maps."""
    return tuple((name, _flat(without_folders(value))) for name, value in results.specification["attacks"].items())


def _flat(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_flat(inner)}" for key, inner in value.items() if inner is not None)
    if isinstance(value, list):
        return "[" + ", ".join(_flat(inner) for inner in value) + "]"
    return str(value)
