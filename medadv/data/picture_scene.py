"""What generated pictures show: plain shapes with colours and textures, some in front of others, on textured ground."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy.random import Generator
from scipy import ndimage

Plane = Float[np.ndarray, "h w"]
Mask = Bool[np.ndarray, "h w"]

SHAPES: Mapping[str, Callable[[Plane, Plane], Mask]] = {
    "disc": lambda u, v: u**2 + v**2 < 0.92,
    "square": lambda u, v: np.maximum(abs(u), abs(v)) < 0.8,
    "triangle": lambda u, v: (v < 0.6) & (1.9 * abs(u) - v < 1.05),
    "ring": lambda u, v: (u**2 + v**2 < 1) & (u**2 + v**2 > 0.3),
    "cross": lambda u, v: (np.minimum(abs(u), abs(v)) < 0.3) & (np.maximum(abs(u), abs(v)) < 1),
}
"""Shape → whether a point is inside of one of radius 1."""
VOID = 255

_FINE = 3
"""Samples of a pixel along each axis."""
_EMPTY = 0.08
"""The share of pictures that show no object."""
_HIDDEN = 0.35
"""Of an object at least this much is seen; less than twice as much is called difficult."""
_TRIES = 12
_SHINE = (0.45, 0.75)
"""How much of a shape's colour is seen. Colours as strong as paint are told apart whatever an attack does."""


@dataclass(frozen=True)
class Thing:
    """One object of a picture.

    Attributes:
        name: its shape.
        box: xmin, ymin, xmax, ymax of what is seen of it, counted from 1, the last pixel included: as VOC counts.
        truncated: whether the picture's edge cuts it.
        difficult: whether much of it is hidden.
    """

    name: str
    box: tuple[int, int, int, int]
    truncated: bool
    difficult: bool


@dataclass(frozen=True, eq=False)
class Scene:
    """One picture, its label map (shapes numbered from 1 in their order, outlines void), and its objects."""

    pixels: UInt8[np.ndarray, "h w 3"]
    labels: UInt8[np.ndarray, "h w"]
    things: Sequence[Thing]


def scene(size: tuple[int, int], shapes: Sequence[str], rng: Generator) -> Scene:
    """One picture of none to four objects.

    Args:
        size: height and width.
        shapes: the classes, in the order of their numbers.
        rng: of everything.
    """
    colours = _ground(size, rng)
    owner = np.zeros(size, int)  # which object is seen: 0 none, else its place, from 1
    drawn: list[tuple[int, Mask, bool]] = []
    wanted = 0 if rng.random() < _EMPTY else int(rng.integers(1, 5))
    for _ in range(wanted):
        number = int(rng.integers(len(shapes)))
        for _ in range(_TRIES):
            cover, truncated = _placed(size, shapes[number], rng)
            inside = cover > 0.5
            sizes = [((owner == place) & ~inside).sum() / mask.sum() for place, (_, mask, _) in enumerate(drawn, 1)]
            if inside.sum() >= 24 and min(sizes, default=1.0) >= _HIDDEN:
                colours = _coat(colours, cover, number / len(shapes), rng)
                drawn.append((number, inside, truncated))
                owner[inside] = len(drawn)
                break
    classes = np.array([0, *(number + 1 for number, _, _ in drawn)])
    labels = classes[owner].astype(np.uint8)
    reach = ndimage.maximum_filter(owner, 3) != ndimage.minimum_filter(owner, 3)
    labels[reach] = VOID
    things = []
    for place, (number, mask, truncated) in enumerate(drawn, 1):
        seen = owner == place
        rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        box = (int(columns[0]) + 1, int(rows[0]) + 1, int(columns[-1]) + 1, int(rows[-1]) + 1)
        things.append(Thing(shapes[number], box, truncated, bool(seen.sum() < 2 * _HIDDEN * mask.sum())))
    noisy = 255 * colours + rng.uniform(2, 7) * rng.standard_normal((*size, 3))
    return Scene(np.clip(np.rint(noisy), 0, 255).astype(np.uint8), labels, things)


def _placed(size: tuple[int, int], shape: str, rng: Generator) -> tuple[Plane, bool]:
    """How much of each pixel a shape covers, and whether the picture's edge cuts it."""
    height, width = size
    radius = min(size) * rng.uniform(0.13, 0.3)
    row, column = rng.uniform(0.7 * radius, height - 0.7 * radius), rng.uniform(0.7 * radius, width - 0.7 * radius)
    angle, stretch = rng.uniform(-0.45, 0.45), rng.uniform(0.85, 1.15)
    y, x = np.meshgrid(*((np.arange(n * _FINE) + 0.5) / _FINE for n in size), indexing="ij")
    dy, dx = (y - row) / radius / stretch, (x - column) / radius * stretch
    inside = SHAPES[shape](np.cos(angle) * dx + np.sin(angle) * dy, np.cos(angle) * dy - np.sin(angle) * dx)
    cover = inside.reshape(height, _FINE, width, _FINE).mean((1, 3))
    edge = np.concatenate([cover[0], cover[-1], cover[:, 0], cover[:, -1]])
    return cover, bool((edge > 0.5).any())


def _ground(size: tuple[int, int], rng: Generator) -> Float[np.ndarray, "h w 3"]:
    """Soft blotches of dull colours, and grain."""
    hue, saturation, value = (_blotches(size, rng) for _ in range(3))
    ground = np.stack([(rng.random() + 0.12 * hue) % 1, 0.2 + 0.08 * saturation, rng.uniform(0.35, 0.65) + 0.1 * value])
    grain = 0.03 * _blotches(size, rng, 1.2)
    return np.asarray(np.clip(_rgb(np.moveaxis(np.clip(ground, 0, 1), 0, -1)) + grain[..., None], 0, 1))


def _coat(colours: Float[np.ndarray, "h w 3"], cover: Plane, hue: float, rng: Generator) -> Float[np.ndarray, "h w 3"]:
    """A shape laid over a picture: a hue near that of its class, or any; plain, striped or blotched."""
    size = cover.shape
    own = (hue + 0.05 * rng.standard_normal()) % 1 if rng.random() < 0.85 else rng.random()
    value = rng.uniform(0.55, 0.95)
    y, x = np.meshgrid(*(np.arange(n) for n in size), indexing="ij")
    angle, period = rng.uniform(0, np.pi), rng.uniform(3, 9)
    stripes = np.sin(2 * np.pi * (np.cos(angle) * x + np.sin(angle) * y) / period)
    texture = [np.zeros(size), stripes, _blotches((size[0], size[1]), rng, 2.5)][rng.integers(3)]
    parts = np.stack([np.full(size, own), np.full(size, rng.uniform(0.35, 0.85)), value + 0.12 * texture], -1)
    shine = rng.uniform(*_SHINE) * cover[..., None]
    return np.asarray(colours + shine * (_rgb(np.clip(parts, 0, 1)) - colours))


def _rgb(hsv: Float[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w 3"]:
    """Hue, saturation and value, all 0 to 1, as red, green and blue (Smith 1978, without a case for each sector)."""
    hue, saturation, value = (hsv[..., part, None] for part in range(3))
    turn = (np.array([5.0, 3.0, 1.0]) + 6 * hue) % 6
    return np.asarray(value - value * saturation * np.clip(np.minimum(turn, 4 - turn), 0, 1))


def _blotches(size: tuple[int, int], rng: Generator, scale: float | None = None) -> Plane:
    """Smooth noise of mean 0 and variance 1."""
    smooth = ndimage.gaussian_filter(rng.standard_normal(size), scale or min(size) / 6, mode="reflect")
    return np.asarray((smooth - smooth.mean()) / max(smooth.std(), 1e-12))
