"""One case in three planes: clean, adversarial, and the difference, with the expert's and the network's outlines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D

from medadv.study.report.slices import Slices
from medadv.study.report.style import INK, style

TRUTH = "#f0e442"
PREDICTED = "#56b4e9"
MARGIN_MM = 4.0

# Flair shows oedema, and with it the whole lesion; elsewhere the first modality is as good as any.
SHOWN_FIRST = ("flair", "t2f", "t1ce", "t1c")


@dataclass(frozen=True)
class Plane:
    """How a plane is laid on the page.

    Attributes:
        axes: the volume's axes that run to the right and upward.
        flip: whether each is turned round.
        letters: what lies left, right, below and above; empty where it is not known.
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


def planes(directions: tuple[str, ...] | None) -> list[tuple[int, Plane]]:
    """The axis each plane is cut across and how it is laid, axial first where directions are known."""
    if directions is None or sorted(_KIND.get(d, "") for d in directions) != ["x", "y", "z"]:
        rest = {0: (1, 2), 1: (0, 2), 2: (0, 1)}
        return [(axis, Plane(f"across axis {axis}", rest[axis], (False, False), ())) for axis in (2, 1, 0)]
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


def montage(slices: Slices, region: str, headings: tuple[str, str]) -> Figure:
    """Rows are planes; columns are the clean scan, the adversarial scan, and their difference in σ.

    Args:
        slices: what was kept of the case.
        region: whose outlines are drawn.
        headings: a line under "clean" and under "adversarial", such as the case's Dice.
    """
    channel = _shown(slices.modalities)
    modality = slices.modalities[channel]
    rows = planes(slices.directions)
    changed = [(a - c)[channel] / slices.sigma[channel] for a, c in zip(slices.adversarial, slices.clean, strict=True)]
    limit = max(float(np.abs(change).max()) for change in changed) or 1.0
    grey = np.percentile(np.concatenate([c[channel][c[channel] != 0] for c in slices.clean] or [np.ones(1)]), (1, 99.5))
    side = max(_extent(slices, channel, across, plane) for across, plane in rows)
    name, numbers = slices.members(region)
    with style():
        figure = Figure(figsize=(7.4, 7.9), layout="constrained")
        grid = figure.subplots(3, 3)
        for row, (across, plane) in enumerate(rows):
            images = (slices.clean, slices.adversarial)
            predicted = (slices.predicted_clean, slices.predicted_adversarial)
            for column in (0, 1):
                axes = grid[row, column]
                _image(axes, images[column][across][channel], slices, plane, cmap="gray", vmin=grey[0], vmax=grey[1])
                _outline(axes, np.isin(slices.truth[across], numbers), slices, plane, TRUTH)
                _outline(axes, np.isin(predicted[column][across], numbers), slices, plane, PREDICTED)
            drawn = _image(grid[row, 2], changed[across], slices, plane, cmap="RdBu_r", vmin=-limit, vmax=limit)
            for column, axes in enumerate(grid[row]):
                right, up = _centre(slices, channel, across, plane)
                axes.set(xlim=(right - side / 2, right + side / 2), ylim=(up - side / 2, up + side / 2))
                _letters(axes, plane, "white" if column < 2 else INK)
            grid[row, 0].set_ylabel(f"{plane.title}\nvoxel {slices.position[across]}")
        titles = (f"clean\n{headings[0]}", f"adversarial\n{headings[1]}", f"difference\nin σ of {modality}")
        for axes, title in zip(grid[0], titles, strict=True):
            axes.set_title(title, fontweight="normal")
        _scale_bar(grid[2, 0], side)
        figure.colorbar(drawn, ax=list(grid[:, 2]), shrink=0.5, aspect=30, label="adversarial − clean (σ)")
        handles = [Line2D([], [], color=TRUTH, linewidth=3), Line2D([], [], color=PREDICTED, linewidth=3)]
        names = [f"{name}, expert", f"{name}, network"]
        figure.legend(handles, names, loc="outside lower center", ncols=2, title=f"shown: {modality}")
    return figure


def _shown(modalities: tuple[str, ...]) -> int:
    named = [modality.lower() for modality in modalities]
    return next((named.index(name) for name in SHOWN_FIRST if name in named), 0)


def _millimetres(slices: Slices, plane: Plane, image: np.ndarray) -> tuple[float, float]:
    height, width = plane.lay(image).shape
    return width * slices.spacing[plane.axes[0]], height * slices.spacing[plane.axes[1]]


def _image(axes: Axes, image: np.ndarray, slices: Slices, plane: Plane, **mapping: object) -> AxesImage:
    width, height = _millimetres(slices, plane, image)
    extent = (0.0, width, 0.0, height)
    axes.set_facecolor("black" if mapping["cmap"] == "gray" else "#f7f7f7")
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    drawn = axes.imshow(plane.lay(image), origin="lower", extent=extent, interpolation="nearest", **mapping)  # type: ignore[arg-type]
    axes.set_aspect("equal", adjustable="box")
    return drawn


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
    for letter, (x, y) in zip(plane.letters, places, strict=False):
        ha, va = horizontal.get(x, "center"), vertical.get(y, "center")
        axes.text(x, y, letter, color=colour, fontsize=7, ha=ha, va=va, transform=axes.transAxes)


def _scale_bar(axes: Axes, side: float) -> None:
    length = max((mm for mm in (1, 2, 5, 10, 20, 50, 100) if mm <= side / 3), default=1)
    left, low = axes.get_xlim()[0] + 0.06 * side, axes.get_ylim()[0] + 0.06 * side
    axes.plot([left, left + length], [low, low], color="white", linewidth=2.5, solid_capstyle="butt")
    axes.text(left + length / 2, low + 0.02 * side, f"{length} mm", color="white", fontsize=7, ha="center", va="bottom")
