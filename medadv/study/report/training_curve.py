"""How the victims were trained: loss and validation Dice over the steps, all of them in one figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from medadv.study.report.style import COLOURS, INK, MARKERS, QUIET, Picture, publish, style
from medadv.study.results import Results, TrainingStep

COLUMNS = 4
CLEAN: dict[str, Any] = {"color": COLOURS[0], "marker": MARKERS[0], "markersize": 4, "linestyle": "-"}
ATTACKED: dict[str, Any] = {"color": COLOURS[1], "marker": MARKERS[1], "markersize": 4, "linestyle": (0, (4, 2))}
KEPT: dict[str, Any] = {"marker": "o", "markersize": 11, "color": INK, "markerfacecolor": "none", "linestyle": "none"}

Curve = Sequence[TrainingStep]


def training_picture(results: Results, folder: Path) -> Picture | None:
    """The figure of all victims that the study trained, written into a folder; None where it trained none."""
    trained = dict.fromkeys((*results.victims, *(name.split("/")[0] for name in results.training)))
    curves = {victim: tuple(found.values()) for victim in trained if (found := results.curves(victim))}
    if not curves:
        return None
    alt = f"Training of {', '.join(curves)}: loss, and Dice of the validation cases, over the steps"
    picture = publish(training_curves(curves), folder, "training", alt)
    return replace(picture, wide=len(curves) > 1)


def training_curves(curves: Mapping[str, Sequence[Curve]]) -> Figure:
    """For each victim two panels over the optimiser's steps: training loss, and mean Dice of the validation cases.

    A victim has one curve, or one for each fold. A ring is where the weights are from that were kept.
    """
    columns = min(len(curves), COLUMNS)
    rows = math.ceil(len(curves) / columns)
    with style():
        size = (6.4, 4.2) if columns == 1 else (0.6 + 2.5 * columns, 3.7 * rows)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(2 * rows, columns, squeeze=False)
        for axes in panels.flat:
            axes.set_visible(False)
        for place, (victim, found) in enumerate(curves.items()):
            row, column = divmod(place, columns)
            above, below = panels[2 * row, column], panels[2 * row + 1, column]
            above.sharex(below)
            _loss(above, found)
            _validation(below, found)
            below.set_xlim(0, 1.02 * max([1, *(step.step for curve in found for step in curve)]))
            above.tick_params(labelbottom=False)
            above.set(title=victim, ylabel="" if column else "training loss")
            below.set(xlabel="optimiser step", ylabel="" if column else "validation Dice")
        figure.legend(handles=_legend(curves), loc="outside lower center", ncols=4, handlelength=3)
    return figure


def chosen(curve: Curve) -> TrainingStep | None:
    """The validation whose weights were kept: the first of the highest Dice, under attack where that was measured."""
    validated = [step for step in curve if step.dice is not None]
    return max(validated, key=_merit, default=None)


def _merit(step: TrainingStep) -> float:
    merit = step.dice if step.attacked is None else step.attacked
    assert merit is not None
    return merit


def _loss(axes: Axes, curves: Sequence[Curve]) -> None:
    axes.set_visible(True)
    finite = [[(s.step, s.loss) for s in curve if math.isfinite(s.loss)] for curve in curves]
    for points in filter(None, finite):
        steps, losses = np.array(points).reshape(-1, 2).T
        if len(curves) == 1:
            axes.plot(steps, losses, color=QUIET, linewidth=0.6, alpha=0.6)
        axes.plot(*_running_mean(steps, losses), color=INK, linewidth=1.2, alpha=1.0 if len(curves) == 1 else 0.7)
    if all(loss > 0 for points in finite for _, loss in points):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.minorticks_off()


def _running_mean(steps: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Over the fortieth part of a training: batches are small, and their losses scatter."""
    window = max(1, len(steps) // 40)
    weights = np.full(window, 1 / window)
    return np.convolve(steps, weights, "valid"), np.convolve(losses, weights, "valid")


def _validation(axes: Axes, curves: Sequence[Curve]) -> None:
    axes.set_visible(True)
    for curve in curves:
        for column, look in (("dice", CLEAN), ("attacked", ATTACKED)):
            points = [(s.step, value) for s in curve if (value := getattr(s, column)) is not None]
            if points:
                axes.plot(*zip(*points, strict=True), linewidth=1.4, clip_on=False, **look)
        if (best := chosen(curve)) is not None:
            axes.plot([best.step], [_merit(best)], clip_on=False, zorder=4, **KEPT)
    axes.set_ylim(0, 1)


def _legend(curves: Mapping[str, Sequence[Curve]]) -> list[Line2D]:
    handles = [Line2D([], [], color=INK, linewidth=1.2, label="loss, running mean")]
    handles.append(Line2D([], [], label="Dice", **CLEAN))
    if any(step.attacked is not None for found in curves.values() for curve in found for step in curve):
        handles.append(Line2D([], [], label="Dice under attack", **ATTACKED))
    return [*handles, Line2D([], [], label="weights kept", **KEPT)]
