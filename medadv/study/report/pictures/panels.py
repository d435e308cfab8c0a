"""Panels side by side, one an attack, that share a vertical axis and a legend of the victims."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medadv.study.report.style import COLOURS, MARKERS, Look, style

ACROSS = 3
"""Panels side by side, before a row is full."""

T = TypeVar("T")


def worn_by(victims: Sequence[str]) -> Mapping[str, Look]:
    """Victim → how it is drawn, the same in every figure that holds several."""
    return {v: Look(COLOURS[i % 6], MARKERS[(i + i // 6) % 6], control=False) for i, v in enumerate(victims)}


def panels(each: Sequence[T], draw: Callable[[Axes, T], None], ylabel: str) -> Figure:
    """A panel for each, drawn by ``draw``; what is labelled in several has one line in the legend."""
    across = min(ACROSS, len(each))
    down = -(-len(each) // across)
    with style():
        figure = Figure(figsize=(max(4.4, 0.8 + 3.0 * across), 0.7 + 3.0 * down), layout="constrained")
        every = figure.subplots(down, across, sharey=True, squeeze=False)
        known: dict[str, Artist] = {}
        for axes, one in zip(every.flat, each, strict=False):
            draw(axes, one)
            known |= {label: line for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        for axes in every.flat[len(each) :]:
            axes.set_visible(False)
        for row in every:
            row[0].set(ylabel=ylabel)
        columns = min(4 if across > 1 else 2, len(known))
        figure.legend(known.values(), known.keys(), loc="outside lower center", ncols=columns, handlelength=2.6)
    return figure
