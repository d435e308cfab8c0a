"""One picture: what the expert sees, what the victim answers to it clean and attacked, and what was changed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator

from medadv.objects import Objects
from medadv.study.report.numbers import MINUS, percent, share
from medadv.study.report.pictures.marks import FLOOR, Panel, Worn, sure, worn
from medadv.study.report.style import FAINT, INK, style
from medadv.study.slices import Slices

COLOURS = ("red", "green", "blue")
"""The modalities of a colour picture, as they are mixed on a screen."""

HALF = 0.5
"""A change of less than half a grey level is nothing in a file of 8 bits."""

# Red, green and blue as curves that are told apart without colour as well.
_CURVES = {"red": ("#d55e00", "-"), "green": ("#009e73", (0, (4, 1.5))), "blue": ("#0072b2", (0, (1, 1)))}
_WIDTH, _SIDE, _GAP = 7.0, 0.1, 0.12
_PANEL = (_WIDTH - 2 * _SIDE - 2 * _GAP) / 3
_TALLEST = 3.2
_LINE = 0.17
_BELOW = 1.0


def picture_montage(slices: Slices, title: str, scores: tuple[str, str]) -> Figure:
    """Above: the clean picture, the attacked one, and the change, grey for none. In the middle: masks or boxes, the
    expert's and the victim's of both pictures. Below: how often which change occurs, and the classes.

    Args:
        slices: what was kept of the case.
        title: a line above all.
        scores: a line for the clean and one for the attacked answer, such as the picture's score.
    """
    rows, columns = slices.clean[0].shape[1:]
    tall = min(_PANEL * rows / columns, _TALLEST)
    change = slices.adversarial[0].astype(np.float64) - slices.clean[0]
    limit = float(np.abs(change).max()) or 1.0
    looks = worn(slices.numbers)
    shown = (
        (slices.clean[0], slices.truth, ["expert"]),
        (slices.clean[0], slices.predicted_clean, ["network, clean", scores[0]]),
        (slices.adversarial[0], slices.predicted_adversarial, ["network, attacked", scores[1]]),
    )
    lines = [[*words, *_unsure(marks)] for _, marks, words in shown]
    second = _LINE * max(map(len, lines)) + 0.08
    high = 0.34 + _LINE + tall + 0.6 + second + tall + 0.4 + _BELOW + 0.42
    with style():
        figure = Figure(figsize=(_WIDTH, high))
        figure.suptitle(title, x=_SIDE / _WIDTH, y=1 - 0.08 / high, ha="left", va="top", fontsize=10, weight="bold")
        top = high - 0.34 - _LINE - tall
        before, after, changed = (_panel(figure, place, top, (tall, high)) for place in range(3))
        for axes, image, name in ((before, slices.clean[0], "clean"), (after, slices.adversarial[0], "adversarial")):
            _picture(axes, _screen(image, slices.modalities), [name])
        _change(changed, change, limit, slices.modalities)
        _scale(figure, changed, limit)
        for place, (image, marks, _) in enumerate(shown):
            axes = _panel(figure, place, top - 0.6 - second - tall, (tall, high))
            base = _screen(image, slices.modalities)
            if not isinstance(marks, Objects):  # on grey the colours of the masks are their own
                base = np.repeat((base @ (0.299, 0.587, 0.114))[..., None], 3, axis=-1)
            _picture(axes, base, lines[place])
            _marked(axes, marks, looks, (rows, columns), max(columns / _PANEL, rows / tall) / 72)
        _histogram(figure, change, limit, slices.modalities)
        _legend(figure, _classes(slices, looks), isinstance(slices.truth, Objects))
    return figure


def _unsure(marks: tuple[np.ndarray, ...] | Objects) -> list[str]:
    """How many boxes are not drawn, since the detector is not sure of them."""
    left = len(marks) - len(sure(marks)) if isinstance(marks, Objects) else 0
    return [f"{left} more of score < {share(FLOOR)}"] if left else []


def _panel(figure: Figure, place: int, low: float, sizes: tuple[float, float]) -> Axes:
    """A place for a picture: the n-th from the left, so many inches from below."""
    tall, high = sizes
    left = _SIDE + place * (_PANEL + _GAP)
    return figure.add_axes((left / _WIDTH, low / high, _PANEL / _WIDTH, tall / high))


def _screen(image: np.ndarray, modalities: Sequence[str]) -> np.ndarray:
    """Grey levels ``(c, h, w)`` as a screen shows them, ``(h, w, 3)``: in colour, or the first channel in grey."""
    channels = [modalities.index(c) for c in COLOURS] if set(COLOURS) <= set(modalities) else [0, 0, 0]
    return np.clip(np.moveaxis(image[channels], 0, -1) / 255, 0, 1)


def _picture(axes: Axes, pixels: np.ndarray, heading: Sequence[str]) -> None:
    rows, columns = pixels.shape[:2]
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.imshow(pixels, extent=(0, columns, rows, 0), interpolation="nearest")
    axes.set_anchor("NW")
    axes.set_title("\n".join(heading), fontweight="normal", fontsize=9, pad=4)


def _marked(
    axes: Axes, marks: tuple[np.ndarray, ...] | Objects, looks: dict[int, Worn], size: tuple[int, int], scale: float
) -> None:
    panel = Panel(axes, size, scale)
    if isinstance(marks, Objects):
        panel.boxes(marks, looks)
    else:
        panel.masks(marks[0], looks)
    axes.set(xlim=(0, size[1]), ylim=(size[0], 0))


def _change(axes: Axes, change: np.ndarray, limit: float, modalities: Sequence[str]) -> None:
    """What was changed: each colour by its own change around grey."""
    colour = set(COLOURS) <= set(modalities)
    channels = [modalities.index(c) for c in COLOURS] if colour else [0, 0, 0]
    named = "change" if colour else f"change of {modalities[0]}"
    times = f"{named}, × {255 / (2 * limit):.3g}"
    _picture(axes, np.moveaxis(0.5 + change[channels] / (2 * limit), 0, -1), [times])


def _scale(figure: Figure, axes: Axes, limit: float) -> None:
    """The grey levels of the change, under its picture."""
    left, low, width, _ = axes.get_position().bounds
    high = figure.get_figheight()
    bar = figure.add_axes((left + 0.12 * width, low - 0.16 / high, 0.76 * width, 0.08 / high))
    bar.imshow(np.linspace(0, 1, 256)[None], cmap="gray", aspect="auto", extent=(-limit, limit, 0, 1))
    bar.set_yticks([])
    _ends(bar, limit)
    bar.set_xlabel("adversarial − clean (grey levels)", fontsize=8, labelpad=1)
    bar.grid(visible=False)


def _ends(axes: Axes, limit: float) -> None:
    axes.set_xticks([-limit, 0, limit], [f"{MINUS}{limit:.3g}", "0", f"+{limit:.3g}"])
    axes.tick_params(length=2, labelsize=8)


def _histogram(figure: Figure, change: np.ndarray, limit: float, modalities: Sequence[str]) -> None:
    """How often which change occurs, a line a channel; shaded is what an 8-bit copy cannot hold."""
    high = figure.get_figheight()
    axes = figure.add_axes((0.62 / _WIDTH, 0.42 / high, 2.75 / _WIDTH, _BELOW / high))
    edges = np.linspace(-1.05 * limit, 1.05 * limit, 64)
    axes.axvspan(-min(HALF, edges[-1]), min(HALF, edges[-1]), color=FAINT, zorder=0, linewidth=0)
    for name, values in zip(modalities, change, strict=True):
        counts, _ = np.histogram(values, edges)
        colour, stroke = _CURVES.get(name, (INK, "-"))
        axes.stairs(counts / values.size, edges, color=colour, linestyle=stroke, linewidth=1.3, label=name)
    axes.set_yscale("log")
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0.3 / change[0].size, 2))
    axes.yaxis.set_major_locator(LogLocator(numticks=4))
    axes.minorticks_off()
    _ends(axes, limit)
    axes.set_ylabel("share of pixels", fontsize=8, labelpad=1)
    axes.set_xlabel("change (grey levels)", fontsize=8, labelpad=1)
    few = percent(float((np.abs(change) < HALF).mean()))
    axes.set_title(f"{few} of changes below ½ grey level (shaded)", fontweight="normal", fontsize=9)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, handlelength=1.8, labelspacing=0.3)


def _classes(slices: Slices, looks: dict[int, Worn]) -> list[Worn]:
    """The classes that any of the three answers shows."""
    shown: set[int] = set()
    for marks in (slices.truth, slices.predicted_clean, slices.predicted_adversarial):
        found = marks.labels[sure(marks)].tolist() if isinstance(marks, Objects) else np.unique(marks[0]).tolist()
        shown |= set(found)
    return [look for number, look in looks.items() if number in shown]


def _legend(figure: Figure, classes: Sequence[Worn], boxes: bool) -> None:
    """The colours of the classes; those of many in a smaller print."""
    handles: list[Patch | Line2D] = [
        Line2D([], [], color=look.colour, linestyle=look.stroke, linewidth=2)
        if boxes
        else Patch(facecolor=look.colour, edgecolor="black", linestyle=look.stroke, linewidth=1)
        for look in classes
    ]
    if not handles:
        return
    high = figure.get_figheight()
    place = (4.25 / _WIDTH, (0.42 + _BELOW + 0.2) / high)
    columns = min(3, -(-len(handles) // 6))
    figure.legend(
        handles,
        [look.name.replace("$", r"\$") for look in classes],  # a pair of dollars would be set as a formula
        title="classes",
        loc="upper left",
        bbox_to_anchor=place,
        ncols=columns,
        fontsize=8 if columns < 3 else 6.5,
        title_fontsize=9,
        alignment="left",
        borderaxespad=0.0,
        handlelength=1.8,
        labelspacing=0.3,
        columnspacing=1.0,
    )
