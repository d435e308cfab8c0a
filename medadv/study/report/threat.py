"""The threat model: what the attacker may change, in words and in every unit of budgets."""

from __future__ import annotations

from statistics import fmean

from medadv.study.report.numbers import budget, significant
from medadv.study.report.style import slug
from medadv.study.report.tables import Cell, Column, Table
from medadv.study.results import Arm, Results

_UNITS = {
    "sigma": "σ",
    "stored": "stored units",
    "p1-p99": "share of p1–p99",
    "minmax": "share of min–max",
    "0-255": "0–255 equivalent",
}


def radii(results: Results, victim: str) -> Table:
    """Each budget in each unit and modality, mean over cases."""
    budgets: dict[str, Arm] = {}
    for arm in results.of(victim):
        if arm.presented.role == "attack" and arm.presented.amount is not None:
            budgets.setdefault(budget(arm), arm)
    rows: list[list[Cell]] = []
    breaks: set[int] = set()
    for name, arm in sorted(budgets.items(), key=lambda item: item[1].presented.amount or 0.0):
        known = [record.radii for record in arm.records.values() if record.radii]
        breaks.add(len(rows))
        for unit in dict.fromkeys(unit for by_unit in known for unit in by_unit):
            each = ([by_unit[unit][m] for by_unit in known if m in by_unit.get(unit, {})] for m in results.modalities)
            rows.append([name, _UNITS.get(unit, unit), *(fmean(values) if values else None for values in each)])
    return Table(
        name=slug("threat", victim),
        caption="The largest allowed change of a voxel, mean over cases, in each unit. σ: the standard deviation of "
        "that modality inside that case's support.",
        columns=(Column("budget"), Column("unit"), *(Column(m, significant) for m in results.modalities)),
        rows=rows,
        breaks=frozenset(breaks - {0}),
    )


def words(results: Results, victim: str) -> tuple[str, ...]:
    """The threat model in sentences, as far as the records tell it."""
    attacks = [arm for arm in results.of(victim) if arm.presented.role == "attack"]
    records = [record for arm in attacks for record in arm.records.values()]
    sizes = [record.size for record in records if record.size is not None]
    threats = [record.inputs.get("condition", {}).get("threat", {}) for record in records]
    said = []
    if any(record.effort and record.effort.backward for record in records):
        said.append("The attacker knows the network and its whole pipeline, and follows its gradients (white box).")
    said.append(
        "What is changed are stored voxels, before any normalisation: the altered scan is written as a file, read "
        "again and segmented as any other scan would be."
    )
    for key in ("ball", "support", "legal"):
        said += dict.fromkeys(_RULES.get((key, str(threat.get(key)))) or "" for threat in threats if key in threat)
    if sizes:
        said.append(
            f"Measured on the files as they were read again, the largest change was {max(sizes):.3f} of the budget "
            "(1 is the whole budget)."
        )
    return tuple(filter(None, said))


_RULES = {
    ("ball", "linf"): "Each voxel may move up or down by the budget at most, independently of all others (L∞ ball).",
    ("support", "nonzero"): "Only voxels that are not zero in the clean scan may change: zeros stay zero, and no other "
    "voxel becomes zero.",
    ("legal", "clean"): "No voxel leaves the range of its modality in the clean scan, smallest to largest value.",
    ("legal", "None"): "There is no legal range beside the budget.",
}


def settings(results: Results) -> tuple[tuple[str, str], ...]:
    """The attacks as the study declares them: name and settings."""
    declared = results.specification.get("attacks", {})
    items = declared.items() if isinstance(declared, dict) else enumerate(declared or (), start=1)
    return tuple((str(name), _flat(value)) for name, value in items)


def _flat(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_flat(inner)}" for key, inner in value.items() if inner is not None)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_flat(inner) for inner in value) + "]"
    return str(value)
