"""The scores of every condition on one region, in one table."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from medadv.study.report.numbers import budget, percent, tenth, thousandths, whole
from medadv.study.report.style import slug
from medadv.study.report.tables import Cell, Column, Table
from medadv.study.results import Arm, Results
from medadv.study.scores import relative_reduction

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
    before = clean.values(region) if clean else {}
    without = sum(relative_reduction(value, value) is None for value in before.values())
    families = [(arm.presented.role, arm.presented.family) for arm in arms]
    breaks = {i for i in range(1, len(arms)) if families[i] != families[i - 1]}
    return Table(
        name=slug("summary", victim, region),
        caption=(
            f"{region}, {results.units} {results.unit}. Scores of the delivered files. Relative reduction: the share "
            f"of its clean Dice that each of the {results.unit} loses, mean over {results.unit}"
            + (f"; {without} with a clean Dice of 0 had none to lose and are not counted in it" if without else "")
            + ". Deletions and hallucinations count cases: nothing predicted where the "
            "expert drew the region; the region predicted where the expert drew none. Such a case scores Dice 0, "
            "and the image's diagonal as HD95."
        ),
        columns=_COLUMNS,
        rows=[_row(arm, region, before) for arm in arms],
        breaks=frozenset(breaks),
    )


def _row(arm: Arm, region: str, before: Mapping[str, float]) -> list[Cell]:
    after = {} if arm.presented.role == "clean" else arm.values(region)
    shares = [relative_reduction(before[unit], after[unit]) for unit in sorted(before.keys() & after.keys())]
    lost = [share for share in shares if share is not None]
    scores = (arm.mean(region), arm.median(region), fmean(lost) if lost else None, arm.mean(region, "hd95"))
    return [arm.presented.title, budget(arm), *scores, arm.deletions(region), arm.hallucinations(region)]
