"""Is it the structure? Clean, attacked, and the same values permuted (Xie et al. 2017, table 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from medadv.study.arm import Arm
from medadv.study.report.numbers import budget, percent
from medadv.study.report.pictures.matrix import Cells, settings_of
from medadv.study.report.style import slug
from medadv.study.report.tables import Cell, Column, Table
from medadv.study.results import Results

VOXELS = "voxels"
KINDS = (VOXELS, "rows", "columns", "slices")


def controls(results: Results, victim: str) -> Mapping[str, Mapping[str, Sequence[Arm]]]:
    """Attack → what was moved → the draws of its permuted perturbation."""
    found: dict[str, dict[str, list[Arm]]] = {}
    for arm in results.of(victim):
        settings = settings_of(arm)
        if settings.get("kind") == "permuted" and arm.presented.of is not None:
            kind = str(settings.get("planes") or VOXELS)
            found.setdefault(arm.presented.of, {}).setdefault(kind, []).append(arm)
    return found


def permuted_table(results: Results, cells: Cells, victim: str) -> Table | None:
    """One row an attack: ORIG, ADVR, and PERM of each kind; None where there is no more than one draw of voxels, which
    the other tables tell, and the study is none of pictures."""
    made = controls(results, victim)
    kinds = [kind for kind in KINDS if any(kind in each for each in made.values())]
    several = any(len(arms) > 1 for each in made.values() for arms in each.values())
    if not kinds or not (results.pictures or several or kinds != [VOXELS]):
        return None
    metric = cells.heading(victim)

    def score(value: float | None) -> str:
        return cells.spelled(victim, value)

    columns = [Column("attack"), Column("ORIG", score), Column("ADVR", score)]
    for kind in kinds:
        columns += [Column(f"PERM, {kind}", score)]
        columns += [Column("least", score), Column("most", score)] if several else []
        columns += [Column("of ADVR’s drop", percent)]
    clean = cells.value(results.clean(victim))
    rows: list[list[Cell]] = []
    for arm in results.of(victim):
        if arm.condition in made:
            row: list[Cell] = [f"{arm.presented.title}, {budget(arm)}", clean, cells.value(arm)]
            for kind in kinds:
                row += _kind(clean, cells.value(arm), _values(cells, made[arm.condition].get(kind, ())), several)
            rows.append(row)
    return Table(
        name=slug("permuted", victim),
        caption=f"{metric}. ORIG: clean. ADVR: attacked. PERM: the same perturbation with its voxels, or whole rows, "
        "columns or slices of all channels alike, in a random order: the same values and norms, no aim. “Of ADVR’s "
        "drop”: what PERM loses of what ADVR loses; near 0 it is the structure that does the harm, and not the size."
        + (" PERM is the mean over random draws, from least to most." if several else ""),
        columns=columns,
        rows=rows,
    )


def _values(cells: Cells, arms: Sequence[Arm]) -> list[float]:
    return [value for value in map(cells.value, arms) if value is not None]


def _kind(clean: float | None, attacked: float | None, values: Sequence[float], several: bool) -> list[Cell]:
    """The mean over draws, its range, and the drop as a share of the attack's; dashes where there is none."""
    if not values:
        return [None] * (4 if several else 2)
    mean = fmean(values)
    told: list[Cell] = [mean, *((min(values), max(values)) if several else ())]
    lost = clean - attacked if clean is not None and attacked is not None else 0.0
    return [*told, (clean - mean) / lost if clean is not None and lost else None]
