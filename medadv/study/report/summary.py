"""The scores of every condition on one region, in one table."""

from __future__ import annotations

from medadv.study.report.numbers import percent, size, tenth, thousandths, whole
from medadv.study.report.style import slug
from medadv.study.report.tables import Cell, Column, Table
from medadv.study.results import Arm, Results

_COLUMNS = (
    Column("condition"),
    Column("budget"),
    Column("mean Dice", thousandths),
    Column("median Dice", thousandths),
    Column("relative reduction", percent),
    Column("mean HD95 (mm)", tenth),
    Column("deletions", whole),
    Column("hallucinations", whole),
)


def summary(results: Results, victim: str, region: str) -> Table:
    """One row a condition: clean, attacks, controls."""
    arms = [arm for arm in results.of(victim) if arm.scores(region)]
    clean = results.clean(victim)
    before = clean.mean(region) if clean else None
    families = [(arm.presented.role, arm.presented.family) for arm in arms]
    breaks = {i for i in range(1, len(arms)) if families[i] != families[i - 1]}
    return Table(
        name=slug("summary", victim, region),
        caption=(
            f"{region}, {results.units} {results.unit}. Scores of the delivered files. Relative reduction: the share "
            "of the clean mean that is lost. Deletions and hallucinations count cases: nothing predicted where the "
            "expert drew the region; the region predicted where the expert drew none. Such a case scores Dice 0, "
            "and the image's diagonal as HD95."
        ),
        columns=_COLUMNS,
        rows=[_row(arm, region, before) for arm in arms],
        breaks=frozenset(breaks),
    )


def _row(arm: Arm, region: str, before: float | None) -> list[Cell]:
    mean = arm.mean(region)
    lost = (before - mean) / before if before and mean is not None and arm.presented.role != "clean" else None
    amount = size(arm.presented.amount, arm.presented.unit) if arm.presented.amount is not None else ""
    title = arm.presented.title
    counts = (arm.deletions(region), arm.hallucinations(region))
    return [title, amount, mean, arm.median(region), lost, arm.mean(region, "hd95"), *counts]
