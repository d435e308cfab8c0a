"""What the defences are worth, drawn: naive against worst case for each victim, and each patient beside undefended."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medadv.study.report.defences.standing import OVERSTATED, Standing
from medadv.study.report.numbers import hundredths, measured
from medadv.study.report.style import COLOURS, FAINT, INK, QUIET, style

ACROSS = 4
"""Panels side by side, before a row is full."""

NAIVE, WORST = COLOURS[4], COLOURS[0]
"""Orange and blue: far apart in hue and in lightness, and their markers differ too."""


def dumbbells(by_level: Sequence[Sequence[Standing]]) -> Figure:
    """A panel a budget, a line a victim in the study's order: from the naive score to the worst case, clean a tick.

    A dashed line goes down from each undefended victim's worst case: a defence that does not reach beyond it is none.
    """
    victims = max(len(standings) for standings in by_level)
    with style():
        figure = Figure(figsize=(1.6 + 3.1 * len(by_level), 1.5 + 0.42 * victims), layout="constrained")
        every = figure.subplots(1, len(by_level), sharey=True, squeeze=False)[0]
        for axes, standings in zip(every, by_level, strict=True):
            _dumbbell(axes, standings)
        every[0].set_yticks(range(len(by_level[0])), [fill(s.entrant.name, 24) for s in by_level[0]])
        every[0].invert_yaxis()
        handles, labels = every[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, handlelength=1.6)
    return figure


def _dumbbell(axes: Axes, standings: Sequence[Standing]) -> None:
    level, region, score = standings[0].level, standings[0].region, standings[0].metric.words
    naive = next(filter(None, (s.results.arm(s.entrant.name, level.varied.base) for s in standings)), None)
    for row, standing in enumerate(standings):
        ends = [value for value in (standing.naive, standing.worst) if value is not None]
        axes.plot(ends, [row] * len(ends), color=QUIET, linewidth=2.4, solid_capstyle="butt", zorder=2)
        gap = standing.overstated
        if gap is not None and gap > OVERSTATED and len(ends) == 2:
            axes.text(sum(ends) / 2, row - 0.18, f"−{hundredths(gap)}", ha="center", va="bottom", fontsize=8, color=INK)
        if standing.entrant.undefended is None and standing.worst is not None:
            axes.axvline(standing.worst, color=QUIET, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    places = range(len(standings))
    title = f"naive: {naive.presented.title}" if naive else "naive"
    tick = {"marker": "|", "color": INK, "markersize": 13, "markeredgewidth": 2}
    drawn: tuple[tuple[list[float | None], dict[str, Any], str], ...] = (
        ([s.clean for s in standings], tick, "clean"),
        ([s.naive for s in standings], _dot("o", 10.0, NAIVE, "white"), title),
        ([s.worst for s in standings], _dot("D", 6.0, WORST, WORST), "worst case of all"),
    )
    for values, look, label in drawn:
        known = [(value, place) for value, place in zip(values, places, strict=True) if value is not None]
        axes.plot([v for v, _ in known], [p for _, p in known], linestyle="none", label=label, zorder=3, **look)
    axes.plot([], [], color=QUIET, linewidth=1, linestyle=(0, (4, 3)), label="worst case, undefended")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.6, len(standings) - 0.4))
    axes.set(xlabel=f"mean {score} of {region}", title=level.title)
    axes.grid(axis="x", color=FAINT)
    axes.grid(visible=False, axis="y")


def _dot(marker: str, size: float, edge: str, face: str) -> dict[str, Any]:
    colours = {"markeredgecolor": edge, "markerfacecolor": face, "markeredgewidth": 2}
    return {"marker": marker, "markersize": size, **colours}


def paired_worst(standings: Sequence[Standing]) -> Figure | None:
    """A panel a defence at one budget: each patient's (or case's) worst case, undefended and defended, and the means.

    None where no defence can be held against its undefended victim.
    """
    told = [(standing, pairs) for standing in standings if (pairs := _pairs(standing))]
    if not told:
        return None
    level, region = standings[0].level, standings[0].region
    across = min(ACROSS, len(told))
    down = -(-len(told) // across)
    with style():
        figure = Figure(figsize=(max(4.0, 1.0 + 2.1 * across), 0.4 + 3.1 * down), layout="constrained")
        every = figure.subplots(down, across, sharey=True, squeeze=False)
        for axes, (standing, pairs) in zip(every.flat, told, strict=False):
            _panel(axes, standing, pairs)
        for axes in every.flat[len(told) :]:
            axes.set_visible(False)
        for row in every:
            row[0].set(ylabel=f"worst-case {standings[0].metric.words} of {region}")
        figure.suptitle(f"Worst case at {level.title}", x=0.01, ha="left", fontsize=10, fontweight="bold")
    return figure


def _pairs(standing: Standing) -> list[tuple[float, float]]:
    """Undefended and defended worst case of each patient (or case) that has both."""
    if standing.entrant.undefended is None:
        return []
    names = (standing.entrant.undefended, standing.entrant.name)
    before, after = (standing.results.arm(name, standing.level.worst) for name in names)
    if before is None or after is None:
        return []
    then, now = (arm.values(standing.region, standing.metric.name) for arm in (before, after))
    return [(then[unit], now[unit]) for unit in sorted(then.keys() & now.keys())]


def _panel(axes: Axes, standing: Standing, pairs: Sequence[tuple[float, float]]) -> None:
    for pair in pairs:
        axes.plot((0, 1), pair, color=WORST, alpha=0.4, linewidth=1, marker=".", markersize=5)
    means = [sum(side) / len(pairs) for side in zip(*pairs, strict=True)]
    axes.plot((0, 1), means, color=INK, linewidth=2.2, marker="D", markersize=6, label="mean")
    row = standing.against
    if row is not None and row.estimate is not None:
        note = f"shift {measured(row.estimate, standing.metric)}"
        axes.text(0.5, 1.03, note, ha="center", va="bottom", fontsize=8, color=QUIET)
    axes.set(xlim=(-0.3, 1.3), ylim=(-0.02, 1.12))
    axes.set_xticks((0, 1), [fill(str(name), 13) for name in (standing.entrant.undefended, standing.entrant.name)])
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
