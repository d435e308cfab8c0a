"""One case in three planes: clean, adversarial, and the difference, with the expert's and the network's outlines.

Of a picture see ``pictures/montage``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D

from medadv.objects import Objects
from medadv.study.report.pictures.marks import sure
from medadv.study.report.pictures.montage import picture_montage
from medadv.study.report.style import INK, style
from medadv.study.slices import Slices

TRUTH = "#f0e442"
PREDICTED = "#56b4e9"
MARGIN_MM = 4.0

# Square panels on a figure of 7.0 by 8.08 inches.
_EDGES = {"left": 0.055, "right": 0.99, "top": 0.9, "bottom": 0.09, "wspace": 0.03, "hspace": 0.03}

# Flair shows oedema, and with it the whole lesion; elsewhere the first modality is as good as any.
SHOWN_FIRST = ("flair", "t2f", "t1ce", "t1c")


@dataclass(frozen=True)
class Plane:
    """How a plane is laid on the page.

    Attributes:
        axes: the volume's axes that run to the right and upward.
        flip: whether each is turned round.
        letters: what lies left, right, below and above.
    """

    title: str
    axes: tuple[int, int]
    flip: tuple[bool, bool]
    letters: tuple[str, ...]

    def lay(self, image: np.ndarray) -> np.ndarray:
        """A plane's image ``(h, w)`` as rows from the bottom and columns from the left."""
        laid = image.T if self.axes[0] < self.axes[1] else image
        laid = laid[:, ::-1] if self.flip[0] else laid
        return laid[::-1] if self.flip[1] else laid


_OPPOSITE = dict(zip("LRAPSI", "RLPAIS", strict=True))
_KIND = dict(zip("LRAPSI", "xxyyzz", strict=True))
# Radiological convention: the patient's left is on the right of the page, anterior or superior on top.
_WANTED = {"x": "L", "y": "A", "z": "S"}
_NAMES = {"x": "sagittal", "y": "coronal", "z": "axial"}


def planes(directions: tuple[str, ...]) -> list[tuple[int, Plane]]:
    """The axis each plane is cut across and how it is laid, axial first."""
    kinds = [_KIND[d] for d in directions]
    laid = []
    for across in "zyx":
        right, up = ("xy", "xz", "yz")["zyx".index(across)]
        axes = (kinds.index(right), kinds.index(up))
        # A sagittal plane looks to the left of the page: anterior there, posterior on the right.
        wanted = ("P" if across == "x" else _WANTED[right], _WANTED[up])
        flip = (directions[axes[0]] != wanted[0], directions[axes[1]] != wanted[1])
        letters = (_OPPOSITE[wanted[0]], wanted[0], _OPPOSITE[wanted[1]], wanted[1])
        laid.append((kinds.index(across), Plane(_NAMES[across], axes, flip, letters)))
    return laid


def montage(slices: Slices, region: str, title: str, scores: tuple[str, str]) -> Figure:
    """Rows are planes; columns are the clean scan, the adversarial scan, and their difference in σ.

    Args:
        slices: what was kept of the case.
        region: whose outlines are drawn.
        title: a line above all.
        scores: a line under "clean" and under "adversarial", such as the case's Dice.

    Returns:
        the figure; of a picture, its own kind (``picture_montage``).
    """
    if slices.picture:
        return picture_montage(slices, title, scores)
    channel = _shown(slices.modalities)
    modality = slices.modalities[channel]
    rows = planes(slices.directions)
    name, numbers = slices.members(region)
    side = max(_extent(slices, channel, across, plane) for across, plane in rows)
    inside = np.concatenate([image[channel][image[channel] != 0] for image in slices.clean])
    grey = {"cmap": "gray", "vmin": 0.0, "vmax": float(np.percentile(inside, 99.5)) if inside.size else 1.0}
    sigma = slices.sigma[channel] or 1.0  # a modality without a σ does not change
    changed = [(a - c)[channel] / sigma for a, c in zip(slices.adversarial, slices.clean, strict=True)]
    limit = max(float(np.abs(change).max()) for change in changed) or 1.0
    shown = ((slices.clean, slices.predicted_clean), (slices.adversarial, slices.predicted_adversarial))
    with style():
        figure = Figure(figsize=(7.0, 8.08))
        grid = figure.subplots(3, 3, gridspec_kw=_EDGES)
        for (across, plane), line in zip(rows, grid, strict=True):
            for axes, (images, predictions) in zip(line[:2], shown, strict=True):
                _image(axes, images[across][channel], slices, plane, grey)
                _outline(axes, _mask(slices, slices.truth, across, numbers), slices, plane, TRUTH)
                _outline(axes, _mask(slices, predictions, across, numbers), slices, plane, PREDICTED)
            mapping = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
            drawn = _image(line[2], changed[across], slices, plane, mapping)
            right, up = _centre(slices, channel, across, plane)
            for axes, ink in zip(line, ("white", "white", INK), strict=True):
                axes.set(xlim=(right - side / 2, right + side / 2), ylim=(up - side / 2, up + side / 2))
                _letters(axes, plane, ink)
            line[0].set_ylabel(f"{plane.title}, voxel {slices.position[across]}")
        headings = (f"clean\n{scores[0]}", f"adversarial\n{scores[1]}", f"difference\nin σ of {modality}")
        for axes, heading in zip(grid[0], headings, strict=True):
            axes.set_title(heading, fontweight="normal", fontsize=9)
        _scale_bar(grid[2, 0], side)
        bar = figure.colorbar(drawn, cax=figure.add_axes((0.705, 0.068, 0.27, 0.016)), orientation="horizontal")
        bar.set_ticks([share * limit for share in (-1, -0.5, 0, 0.5, 1)], labels=_ticks(limit))
        bar.set_label("adversarial − clean (σ)")
        handles = [Line2D([], [], color=colour, linewidth=3) for colour in (TRUTH, PREDICTED)]
        names = [f"{name}, expert", f"{name}, network"]
        legend = figure.legend(handles, names, title=f"shown: {modality}", ncols=2, loc="lower left")
        legend.set_bbox_to_anchor((0.045, 0.005))
        figure.suptitle(title, x=0.055, ha="left", fontsize=10, fontweight="bold")
    return figure


def _ticks(limit: float) -> list[str]:
    return [f"{share * limit:.2g}".replace("-", "−") for share in (-1, -0.5, 0, 0.5, 1)]


def _shown(modalities: tuple[str, ...]) -> int:
    named = [modality.lower() for modality in modalities]
    return next((named.index(name) for name in SHOWN_FIRST if name in named), 0)


def _millimetres(slices: Slices, plane: Plane, image: np.ndarray) -> tuple[float, float]:
    height, width = plane.lay(image).shape
    return width * slices.spacing[plane.axes[0]], height * slices.spacing[plane.axes[1]]


def _image(axes: Axes, image: np.ndarray, slices: Slices, plane: Plane, mapping: Mapping[str, Any]) -> AxesImage:
    width, height = _millimetres(slices, plane, image)
    extent = (0.0, width, 0.0, height)
    axes.set_facecolor("black" if mapping["cmap"] == "gray" else "#f7f7f7")
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    drawn = axes.imshow(plane.lay(image), origin="lower", extent=extent, interpolation="nearest", **mapping)
    axes.set_aspect("equal", adjustable="box")
    return drawn


def _mask(slices: Slices, shown: tuple[np.ndarray, ...] | Objects, across: int, numbers: Sequence[int]) -> np.ndarray:
    """Where a plane shows a region; of objects, where it cuts their boxes."""
    if not isinstance(shown, Objects):
        return np.isin(shown[across], numbers)
    mask = np.zeros(slices.clean[across].shape[1:], dtype=bool)
    rows, columns = (axis for axis in range(3) if axis != across)
    for place in sure(shown):
        box = [round(edge) for edge in shown.boxes[place].tolist()]
        cut = box[across] <= slices.position[across] < box[across + 3]
        if cut and int(shown.labels[place]) in numbers:
            mask[max(box[rows], 0) : max(box[rows + 3], 0), max(box[columns], 0) : max(box[columns + 3], 0)] = True
    return mask


def _outline(axes: Axes, mask: np.ndarray, slices: Slices, plane: Plane, colour: str) -> None:
    if not mask.any() or mask.all():
        return
    width, height = _millimetres(slices, plane, mask)
    laid = plane.lay(mask).astype(np.float32)
    right = (np.arange(laid.shape[1]) + 0.5) * width / laid.shape[1]
    up = (np.arange(laid.shape[0]) + 0.5) * height / laid.shape[0]
    axes.contour(right, up, laid, levels=[0.5], colors=[colour], linewidths=1.4)


def _box(slices: Slices, channel: int, across: int, plane: Plane) -> tuple[float, float, float, float]:
    inside = plane.lay(slices.clean[across][channel] != 0)
    if not inside.any():
        inside = np.ones_like(inside)
    columns, rows = np.flatnonzero(inside.any(axis=0)), np.flatnonzero(inside.any(axis=1))
    right, up = slices.spacing[plane.axes[0]], slices.spacing[plane.axes[1]]
    return columns[0] * right, (columns[-1] + 1) * right, rows[0] * up, (rows[-1] + 1) * up


def _centre(slices: Slices, channel: int, across: int, plane: Plane) -> tuple[float, float]:
    left, right, low, high = _box(slices, channel, across, plane)
    return (left + right) / 2, (low + high) / 2


def _extent(slices: Slices, channel: int, across: int, plane: Plane) -> float:
    left, right, low, high = _box(slices, channel, across, plane)
    return max(right - left, high - low) + 2 * MARGIN_MM


def _letters(axes: Axes, plane: Plane, colour: str) -> None:
    places = ((0.02, 0.5), (0.98, 0.5), (0.5, 0.02), (0.5, 0.98))
    horizontal, vertical = {0.02: "left", 0.98: "right"}, {0.02: "bottom", 0.98: "top"}
    for letter, (x, y) in zip(plane.letters, places, strict=True):
        ha, va = horizontal.get(x, "center"), vertical.get(y, "center")
        axes.text(x, y, letter, color=colour, fontsize=7, ha=ha, va=va, transform=axes.transAxes)


def _scale_bar(axes: Axes, side: float) -> None:
    length = max((mm for mm in (1, 2, 5, 10, 20, 50, 100) if mm <= side / 3), default=1)
    left, low = axes.get_xlim()[0] + 0.06 * side, axes.get_ylim()[0] + 0.06 * side
    axes.plot([left, left + length], [low, low], color="white", linewidth=2.5, solid_capstyle="butt")
    axes.text(left + length / 2, low + 0.02 * side, f"{length} mm", color="white", fontsize=7, ha="center", va="bottom")
