"""What is drawn on a picture: masks and boxes in their classes' colours, each with its name where there is room."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.textpath import TextPath
from scipy import ndimage

from medadv.labels import BACKGROUND
from medadv.objects import Objects
from medadv.study.report.numbers import share

FLOOR = 0.5
"""Objects that a detector is less sure of are not drawn."""

SMALLEST = 0.004
"""A patch of a class below this share of the picture bears no name; the legend does."""

# Okabe & Ito 2008, without black and grey: told apart with every common kind of colour vision. The strokes behind a
# line tell apart classes that share a colour.
_COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#f0e442", "#d55e00", "#0072b2")
_STROKES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)))
_SIZE = 6.5


@dataclass(frozen=True)
class Worn:
    """How a class is drawn: a colour, and the stroke of its lines."""

    name: str
    colour: str
    stroke: Any

    @property
    def ink(self) -> str:
        """What can be read on its colour."""
        red, green, blue = to_rgb(self.colour)
        return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.45 else "white"


def worn(numbers: Mapping[str, int]) -> dict[int, Worn]:
    """Label number → how its class is drawn, the same in every picture of a study; the background is not drawn."""
    names = sorted((n for n in numbers if n != BACKGROUND), key=numbers.__getitem__)
    cycles = ((place % len(_COLOURS), place // len(_COLOURS) % len(_STROKES)) for place in range(len(names)))
    return {numbers[n]: Worn(n, _COLOURS[c], _STROKES[s]) for n, (c, s) in zip(names, cycles, strict=True)}


def sure(objects: Objects) -> list[int]:
    """The objects that are drawn: an expert's all, a detector's from the surest down to ``FLOOR``."""
    if objects.scores is None:
        return list(range(len(objects)))
    order = objects.scores.argsort(descending=True, stable=True).tolist()
    return [place for place in order if float(objects.scores[place]) >= FLOOR]


@dataclass
class Panel:
    """A picture on the page, and the places on it that names already have.

    Attributes:
        axes: in pixels, rows downward.
        size: rows and columns of the picture.
        scale: pixels of the picture a point on the page.
    """

    axes: Axes
    size: tuple[int, int]
    scale: float
    _taken: list[tuple[float, float, float, float]] = field(default_factory=list)

    def masks(self, labels: np.ndarray, looks: Mapping[int, Worn]) -> None:
        """Fill and outline each class of a label map ``(h, w)``, and name its largest patch."""
        height, width = labels.shape
        fill = np.zeros((height, width, 4))
        for number in _present(labels, looks):
            fill[labels == number] = (*to_rgb(looks[number].colour), 0.7)
        self.axes.imshow(fill, extent=(0, width, height, 0), interpolation="nearest")
        for number in _present(labels, looks):
            # A frame around the picture, so that outlines are closed where a class reaches its edge.
            mask = np.pad(labels == number, 1).astype(np.float32)
            columns, rows = np.arange(width + 2) - 0.5, np.arange(height + 2) - 0.5
            stroke = [looks[number].stroke]
            look: dict[str, Any] = {"colors": [looks[number].colour], "linestyles": stroke, "linewidths": 1.3}
            drawn = self.axes.contour(columns, rows, mask, levels=[0.5], **look)
            drawn.set_path_effects([withStroke(linewidth=2.2, foreground="black")])
        for number in _present(labels, looks):
            self._name(labels == number, looks[number])

    def boxes(self, objects: Objects, looks: Mapping[int, Worn]) -> None:
        """Draw objects with their classes, and scores if there are any; those that count for nothing are dotted."""
        shown = sure(objects)
        for place in reversed(shown):
            self._box(objects, place, looks)
        for place in shown:
            look = looks[int(objects.labels[place])]
            score = "" if objects.scores is None else f" {share(float(objects.scores[place]))}"
            self._tag(objects.boxes[place].tolist(), f"{look.name}{score}", look)

    def _box(self, objects: Objects, place: int, looks: Mapping[int, Worn]) -> None:
        top, left, bottom, right = objects.boxes[place].tolist()
        look = looks[int(objects.labels[place])]
        stroke = look.stroke if bool(objects.counted[place]) else (0, (1, 1.5))
        drawn = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=look.colour, linewidth=1.4)
        drawn.set_linestyle(stroke)
        drawn.set_path_effects([withStroke(linewidth=2.4, foreground="black")])
        self.axes.add_patch(drawn)

    def _tag(self, box: Sequence[float], words: str, look: Worn) -> None:
        """A name on its class's colour, at the first corner of the box where there is room; else none."""
        top, left, bottom, right = box
        width, height = self._extent(words)
        corners = [(left, top - height), (left, top), (right - width, top - height), (left, bottom)]
        corners += [(right - width, bottom - height), (left, bottom - height)]
        for x, y in corners:
            if self._take(x, y, width, height):
                plate = Rectangle((x, y), width, height, facecolor=look.colour, edgecolor="black", linewidth=0.4)
                self.axes.add_patch(plate)
                self._write(x + width / 2, y + height / 2, words, look.ink)
                return

    def _name(self, mask: np.ndarray, look: Worn) -> None:
        """A class's name in the middle of its largest patch, if it is large enough and there is room."""
        patches, count = ndimage.label(mask)
        sizes = ndimage.sum_labels(mask, patches, range(1, count + 1))
        if not count or sizes.max() < SMALLEST * mask.size:
            return
        depth = ndimage.distance_transform_edt(np.pad(patches == 1 + sizes.argmax(), 1))[1:-1, 1:-1]
        row, column = np.unravel_index(depth.argmax(), depth.shape)
        width, height = self._extent(look.name)
        x = min(max(column + 0.5 - width / 2, 0), self.size[1] - width)
        y = min(max(row + 0.5 - height / 2, 0), self.size[0] - height)
        if self._take(x, y, width, height):
            text = self._write(x + width / 2, y + height / 2, look.name, "white")
            text.set_path_effects([withStroke(linewidth=1.8, foreground="black")])

    def _write(self, x: float, y: float, words: str, colour: str) -> Any:
        look: dict[str, Any] = {"fontsize": _SIZE, "color": colour, "parse_math": False, "clip_on": True}
        return self.axes.text(x, y, words, ha="center", va="center_baseline", **look)

    def _extent(self, words: str) -> tuple[float, float]:
        """Width and height of a name with a little room around it, in pixels of the picture."""
        drawn = TextPath((0, 0), words.replace("$", "S"), size=_SIZE, prop=FontProperties(family="DejaVu Sans"))
        return (drawn.get_extents().width + 4) * self.scale, 1.45 * _SIZE * self.scale

    def _take(self, x: float, y: float, width: float, height: float) -> bool:
        """Take a place, if it lies on the picture and nothing else has it."""
        rows, columns = self.size
        if x < 0 or y < 0 or x + width > columns or y + height > rows:
            return False
        if any(x < r and left < x + width and y < b and t < y + height for left, t, r, b in self._taken):
            return False
        self._taken.append((x, y, x + width, y + height))
        return True


def _present(labels: np.ndarray, looks: Mapping[int, Worn]) -> Iterator[int]:
    """The drawn classes of a label map."""
    return (number for number in looks if (labels == number).any())
