"""Is it the structure? Clean, attacked, and the same values permuted (Xie et al. 2017, table 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from medadv.study.arm import Arm
from medadv.study.report.numbers import percent, titled, whole
from medadv.study.report.pictures.matrix import Cells, settings_of
from medadv.study.report.style import slug
from medadv.study.report.tables import Cell, Column, Table
from medadv.study.report.wording import worded
from medadv.study.results import Results

VOXELS = "voxels"
KINDS = (VOXELS, "rows", "columns", "slices")

LEAST = 0.01
"""The smallest drop of a score of which a share is told."""

FAR = 0.5
"""ADVR is far below ORIG where no more than this share of it is left."""

SMALL = 0.05
"""What PERM may lose of what ADVR loses, where it is the structure that does the harm (Xie et al. 2017, table 1)."""


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

    sized = any(record.distortion is not None for record in results.records)

    def score(value: float | None) -> str:
        return cells.spelled(victim, value)

    clean = cells.value(results.clean(victim))
    rows: list[list[Cell]] = []
    breaks: set[int] = set()
    for arm in results.of(victim):
        breaks.add(len(rows))
        for kind in (kind for kind in kinds if kind in made.get(arm.condition, ())):
            attacked, values = cells.value(arm), _values(cells, made[arm.condition][kind])
            if values:
                ends: list[Cell] = [min(values), max(values), len(values)] if several else []
                rest = _share(clean, attacked, fmean(values))
                kept: list[Cell] = [_kept(arm, made[arm.condition][kind])] if sized else []
                rows.append([titled(arm), worded(results, kind), clean, attacked, fmean(values), *ends, *kept, rest])
    return Table(
        name=slug("permuted", victim),
        caption=f"{cells.heading(victim)}. ORIG: clean. ADVR: attacked. PERM: the same perturbation with its "
        f"{'pixels, or whole rows or columns' if results.pictures else 'voxels, or whole rows, columns or slices'} "
        "of all channels alike, in a random order: the same values and norms, no aim, until what would leave the legal "
        "range is clipped. "
        "“Share of the drop”: what PERM loses of what ADVR loses; near 0 it is the structure that does the harm, and "
        "not the size."
        + (
            " “L2 kept”: the length of PERM’s change as delivered, as a share of ADVR’s, mean over images; below 100 % "
            "clipping took the rest, and PERM is that much smaller."
            if sized
            else ""
        )
        + (" PERM is the mean over random draws, from least to most." if several else ""),
        columns=[
            Column("attack"),
            Column("moved"),
            Column("ORIG", score),
            Column("ADVR", score),
            Column("PERM", score),
            *([Column("least", score), Column("most", score), Column("draws", whole)] if several else []),
            *([Column("L2 kept", percent)] if sized else []),
            Column("share of the drop", percent),
        ],
        rows=rows,
        breaks=frozenset(breaks - {0, len(rows)}),
    )


def verdict(tables: Sequence[tuple[str, Table]]) -> str:
    """Whether victims' tables have the shape that is expected of structure: ADVR far below ORIG, PERM close to it."""
    every = [(victim, row) for victim, table in tables for row in table.rows]
    far = sum(_far(row[2], row[3]) for _, row in every)
    shares = [(float(row[-1]), f"{victim}, {row[0]}, {row[1]}") for victim, row in every if row[-1] is not None]
    said = f"ADVR is far below ORIG, at half of it or less, in {far} of {len(every)} rows"
    if not shares:
        return f"{said}; nowhere is there a drop of which PERM’s could be a share, so this is not the expected shape."
    largest, where = max(shares)
    small = sum(share <= SMALL for share, _ in shares)
    said += f"; PERM’s drop is at most {percent(SMALL)} of ADVR’s in {small} of {len(shares)} rows with a drop"
    if small < len(shares):
        said += f", and {percent(largest)} at most ({where})"
    expected = far == len(every) and small == len(shares)
    return f"{said}: {'this is' if expected else 'this is not'} the shape that is expected of structure."


def _far(clean: Cell, attacked: Cell) -> bool:
    return isinstance(clean, float) and isinstance(attacked, float) and attacked <= FAR * clean


def _values(cells: Cells, arms: Sequence[Arm]) -> list[float]:
    return [value for value in map(cells.value, arms) if value is not None]


def _kept(attack: Arm, permuted: Sequence[Arm]) -> float | None:
    """The length of the permuted changes over that of the attack's, mean over draws and images; None where unknown."""
    lengths = {case: record.distortion.l2 for case, record in attack.records.items() if record.distortion is not None}
    shares = [
        record.distortion.l2 / lengths[case]
        for arm in permuted
        for case, record in arm.records.items()
        if record.distortion is not None and lengths.get(case)
    ]
    return fmean(shares) if shares else None


def _share(clean: float | None, attacked: float | None, permuted: float) -> float | None:
    """What is lost under permutation as a share of what the attack takes; None where it takes next to nothing."""
    if clean is None or attacked is None or clean - attacked < LEAST:
        return None
    return (clean - permuted) / (clean - attacked)
