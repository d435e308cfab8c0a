"""A transfer matrix as a picture: dark where little of the clean score is left, with each cell's number."""

from __future__ import annotations

from textwrap import fill

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from medadv.study.report.pictures.matrix import Cells, Matrix
from medadv.study.report.style import INK, style

MAP = "cividis"
"""Told apart with every common kind of colour vision, and printed in grey (Nuñez et al. 2018)."""

_CELL = (0.92, 0.42)


def heat_map(matrix: Matrix, cells: Cells) -> Figure:
    """Rows: made for; columns: shown to; framed where the attacker knew the victim."""
    lines, targets = matrix.lines, matrix.targets
    shares = np.array([[_share(cells.retained(line.arms.get(v))) for v in targets] for line in lines])
    names = [fill(line.title, 30) for line in lines]
    left = 0.25 + 0.072 * max(len(part) for name in names for part in name.split("\n"))
    heads = [f"{fill(v, 14)}\n{fill(cells.heading(v), 14)}" for v in targets]
    tall, wide = _CELL[1] * len(lines), max(_CELL[0] * len(targets), 2.4)
    title = fill(matrix.title, int(11 * (left + wide)))
    above = 0.2 + 0.17 * (title.count("\n") + 1) + 0.15 * max(head.count("\n") + 1 for head in heads)
    high = above + tall + 0.62
    with style():
        figure = Figure(figsize=(left + wide + 0.15, high))
        axes = figure.add_axes((left / (left + wide + 0.15), 0.62 / high, wide / (left + wide + 0.15), tall / high))
        drawn = axes.pcolormesh(np.ma.masked_invalid(shares), cmap=MAP, vmin=0, vmax=1, edgecolors="white", linewidth=1)
        axes.set(facecolor="white", ylim=(len(lines), 0))
        axes.set_yticks([row + 0.5 for row in range(len(lines))], names)
        axes.set_xticks([column + 0.5 for column in range(len(targets))], heads, fontsize=8)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        _numbers(axes, matrix, cells, shares)
        figure.text(0.1 / figure.get_figwidth(), 1 - 0.08 / high, title, va="top", weight="bold", fontsize=10)
        bar = figure.add_axes((left / (left + wide + 0.15), 0.4 / high, wide / (left + wide + 0.15), 0.09 / high))
        figure.colorbar(drawn, cax=bar, orientation="horizontal")
        bar.set_xticks([0, 0.5, 1], ["0", ".5", "1"], fontsize=8)
        bar.set_xlabel("share of the clean score left", fontsize=8, labelpad=1)
    return figure


def _share(value: float | None) -> float:
    return np.nan if value is None else value


def _numbers(axes: Axes, matrix: Matrix, cells: Cells, shares: np.ndarray) -> None:
    colours = mpl.colormaps[MAP]
    for row, line in enumerate(matrix.lines):
        for column, victim in enumerate(matrix.targets):
            arm = line.arms.get(victim)
            if arm is None:
                continue
            share = shares[row, column]
            red, green, blue, _ = colours(float(np.clip(np.nan_to_num(share), 0, 1)))
            dark = not np.isnan(share) and 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            words = cells.spelled(victim, cells.value(arm))
            own = victim in line.own and line.kind != "control"
            text = axes.text(column + 0.5, row + 0.5, words, ha="center", va="center", fontsize=9)
            text.set(color="white" if dark else INK, weight="bold" if own else "normal")
            if own:
                frame = Rectangle((column + 0.04, row + 0.1), 0.92, 0.8, fill=False, linewidth=1.8, zorder=4)
                frame.set_edgecolor("#d55e00")
                axes.add_patch(frame)
    for row, line in enumerate(matrix.lines[1:], start=1):
        before = matrix.lines[row - 1]
        if (line.kind == "attack") != (before.kind == "attack"):
            axes.axhline(row, color="white", linewidth=4)
