"""The share of the clean data-set score that victims keep, over the budget (Arnab et al. 2018, figures 2 and 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medadv.study.arm import Arm
from medadv.study.report.curves import doubling, on_axis
from medadv.study.report.numbers import spelled
from medadv.study.report.pictures.over_data import OverData
from medadv.study.report.pictures.panels import panels, worn_by
from medadv.study.report.style import QUIET, Look
from medadv.study.results import Results


def swept(results: Results) -> Mapping[tuple[str, str], list[Arm]]:
    """Family and unit → the arms of attacks of one amount on the victims themselves, where there are two budgets."""
    found: dict[tuple[str, str], list[Arm]] = {}
    for arm in results.arms:
        shown = arm.presented
        if shown.role == "attack" and on_axis(arm) and shown.unit is not None and shown.source is None:
            found.setdefault((shown.family, shown.unit), []).append(arm)
    return {key: arms for key, arms in found.items() if len({arm.presented.amount for arm in arms}) > 1}


def ratio_curves(results: Results, over: OverData) -> Figure | None:
    """A panel an attack, a line a victim; None where no attack was run at two budgets."""
    clean = {victim: results.clean(victim) for victim in results.victims}
    kept = {(a.victim, a.condition): over.retained(a, clean[a.victim]) for a in results.arms}
    every = [arms for arms in swept(results).values() if any(kept[a.victim, a.condition] for a in arms)]
    looks = worn_by(results.victims)

    def draw(axes: Axes, arms: Sequence[Arm]) -> None:
        shown = arms[0].presented
        axes.axhline(1, color=QUIET, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        for victim in results.victims:
            mine = ((a.presented.amount or 0.0, kept[victim, a.condition]) for a in arms if a.victim == victim)
            points = [(amount, *left) for amount, left in mine if left is not None]
            name = f"{victim} ({'mIoU' if over.lead(victim) == 'iou' else 'mAP'})"
            _line(axes, points, name, looks[victim])
        _budgets(axes, sorted({a.presented.amount or 0.0 for a in arms}))
        axes.set(title=fill(shown.title, 34), xlabel=f"budget ({spelled(shown.unit or '')})")
        axes.set_ylim(-0.02, max(1.05, axes.get_ylim()[1]))

    return panels(every, draw, "share of the clean score left") if every else None


Point = tuple[float, float, float | None, float | None]
"""An amount, the share that is left, and the ends of its interval."""


def _line(axes: Axes, points: Sequence[Point], name: str, look: Look) -> None:
    """One victim: amounts, shares, and the ends of their intervals where all have them."""
    if not points:
        return
    amounts, values, low, high = zip(*points, strict=True)
    axes.plot(amounts, values, label=name, **look.line())
    if None not in (*low, *high):
        axes.fill_between(amounts, low, high, color=look.colour, alpha=0.14, linewidth=0)


def _budgets(axes: Axes, amounts: Sequence[float]) -> None:
    """The axis of the budgets: each is named; powers of two are equally far apart."""
    if doubling(amounts):
        axes.set_xscale("log", base=2)
    else:
        axes.set_xlim(left=0)
    axes.set_xticks(amounts, [f"{amount:g}" for amount in amounts])
    axes.minorticks_off()


