"""The anatomy of the phantom: where its brain is folded, where it is hollow, and what grows in it.

A brain of soft implicit shapes on any grid. Lengths are in half brain lengths: a brain reaches from -1 (back) to +1
(front); x points right, y forward, z up. Negative distances are inside.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, sin

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy.random import Generator
from scipy import fft, ndimage

Grid = Float[np.ndarray, "x y z"]
Mask = Bool[np.ndarray, "x y z"]
Point = tuple[float, float, float]

EXTENT = (0.80, 1.0, 0.76)
"""Half width, half length and half height of a brain (an adult's are about 70, 88 and 67 mm)."""

HEMISPHERE = ((0.24, 0.0, 0.12), (0.55, 0.99, 0.63))
TEMPORAL_LOBE = ((0.48, 0.16, -0.28), (0.28, 0.56, 0.27))
CEREBELLUM = ((0.20, -0.55, -0.44), (0.37, 0.38, 0.27))
BRAINSTEM = ((0.0, -0.16, -0.40), (0.14, 0.17, 0.38))
DEEP_GREY = {
    "thalamus": ((0.13, -0.10, 0.03), (0.09, 0.17, 0.12)),
    "lentiform nucleus": ((0.30, 0.10, 0.0), (0.08, 0.21, 0.13)),
    "head of caudate": ((0.17, 0.29, 0.09), (0.06, 0.14, 0.12)),
}
LATERAL_VENTRICLE = (
    ((0.08, 0.45, 0.10), 0.060),
    ((0.10, 0.30, 0.19), 0.075),
    ((0.10, 0.05, 0.24), 0.065),
    ((0.13, -0.20, 0.21), 0.075),
    ((0.22, -0.40, 0.10), 0.095),
    ((0.20, -0.60, 0.08), 0.050),
    ((0.33, -0.28, -0.10), 0.040),
    ((0.38, -0.05, -0.22), 0.035),
)
"""Centre line and radii: frontal horn, body, atrium, occipital horn, temporal horn."""


@dataclass(frozen=True)
class Anatomy:
    """One phantom's head.

    Attributes:
        tissues: tissue → the share of each voxel that it fills; the shares sum to 1.
        brain: where the brain is.
        labels: 0, 1 necrosis, 2 oedema, 4 enhancing rim (BraTS 2021).
    """

    tissues: dict[str, Grid]
    brain: Mask
    labels: UInt8[np.ndarray, "x y z"]


@dataclass(frozen=True)
class Head:
    """Where each voxel lies in the head, before anything is drawn."""

    x: Grid
    y: Grid
    z: Grid
    voxel: float
    """Size of a voxel in half brain lengths."""

    @staticmethod
    def on(shape: tuple[int, int, int], rng: Generator) -> Head:
        """A head that fills a grid of any shape, a little turned and stretched by chance."""
        largest = [0.47 * n / extent for n, extent in zip(shape, EXTENT, strict=True)]
        # A brain may be stretched a little to fill an odd grid, not more.
        scale = [min(s, 1.15 * min(largest)) * rng.uniform(0.93, 1.0) for s in largest]
        axes = [(np.arange(n, dtype=np.float32) - (n - 1) / 2) / s for n, s in zip(shape, scale, strict=True)]
        x, y, z = np.meshgrid(*axes, indexing="ij")
        turn = rng.normal(0, 0.04)
        x, y = x * cos(turn) + y * sin(turn), y * cos(turn) - x * sin(turn)
        return Head(x, y, z, float(1 / np.mean(scale)))

    def distance(self, centre: Point, radii: Point) -> Grid:
        """To the surface of an ellipsoid (first order), and to its mirror image in the other hemisphere."""
        p = (np.abs(self.x) - centre[0] if centre[0] else self.x, self.y - centre[1], self.z - centre[2])
        near = np.sqrt(sum(np.square(a / r) for a, r in zip(p, radii, strict=True)))
        far = np.sqrt(sum(np.square(a / r**2) for a, r in zip(p, radii, strict=True)))
        return np.asarray(near * (near - 1) / np.maximum(far, 1e-6), np.float32)

    def pushed(self, centre: Point, radius: float, by: float) -> Head:
        """The head with its inside pushed away from a mass."""
        d = (self.x - centre[0], self.y - centre[1], self.z - centre[2])
        r = np.sqrt(sum(np.square(a) for a in d)) + 1e-6
        move = by * np.exp(-np.square(r / radius)) / r * np.minimum(r / 0.1, 1)
        return Head(self.x - move * d[0], self.y - move * d[1], self.z - move * d[2], self.voxel)


def waves(rng: Generator, shape: tuple[int, ...], wavelength: float) -> Grid:
    """A random field, mean 0 and deviation 1, that varies over about ``wavelength`` voxels."""
    spectrum = fft.rfftn(rng.standard_normal(shape, dtype=np.float32))
    axes = [fft.fftfreq(n) for n in shape[:-1]] + [fft.rfftfreq(shape[-1])]
    frequency = np.sqrt(sum(np.square(f) for f in np.meshgrid(*axes, indexing="ij", sparse=True)))
    field = fft.irfftn(spectrum * np.exp(-0.5 * np.square((frequency * wavelength - 1.0) / 0.35)), shape)
    return np.asarray((field - field.mean()) / field.std(), np.float32)


def grow(shape: tuple[int, int, int], rng: Generator) -> Anatomy:
    """Draw a head with a glioma.

    Args:
        shape: voxels along each axis, 24 or more.
        rng: where all chance comes from.
    """
    head = Head.on(shape, rng)
    rough = waves(rng, shape, 0.5 / head.voxel)
    depth, pial = _surface(head, rough, rng)
    # A skull strip follows the hull and dips a little into the sulci.
    brain = _largest((depth > 0) & ((pial > -0.3 * head.voxel) | (depth > 0.035)))

    cortex = max(0.055, 1.05 * head.voxel)
    white = _soft(pial - cortex - 0.008 * waves(rng, shape, 0.3 / head.voxel), head.voxel)
    mass = _seat(head, white > 0.9, depth, rng)
    inside = head.pushed(mass, 0.45, rng.uniform(0.02, 0.06))
    hollow = _soft(-_ventricles(inside, rng) + 0.01 * rough, head.voxel)
    deep = _soft(-_deep_grey(inside) + 0.012 * rough, head.voxel)

    csf = np.maximum(1 - _soft(pial, head.voxel), hollow)
    tissues = {"csf": csf, "white": white * (1 - deep) * (1 - csf), "deep": deep * white * (1 - csf)}
    tissues["grey"] = np.clip(1 - sum(tissues.values()), 0, 1)
    labels = _glioma(head, mass, tissues, brain & (hollow < 0.5), rng)
    for tissue, number in {"necrosis": 1, "oedema": 2, "enhancing": 4}.items():
        tissues[tissue] = ndimage.gaussian_filter((labels == number).astype(np.float32), 0.45)
    grown = sum(tissues[t] for t in ("necrosis", "oedema", "enhancing"))
    for tissue in ("csf", "white", "deep", "grey"):
        tissues[tissue] = tissues[tissue] * np.clip(1 - grown, 0, 1)
    return Anatomy(tissues, brain, labels)


def _soft(inside: Grid, voxel: float) -> Grid:
    """The share of a voxel that lies inside a surface, from the distance to it."""
    return np.asarray(np.clip(inside / voxel + 0.5, 0, 1), np.float32)


def _largest(mask: Mask) -> Mask:
    pieces, count = ndimage.label(mask)
    if count < 2:
        return mask
    return np.asarray(pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:])))


def _surface(head: Head, rough: Grid, rng: Generator) -> tuple[Grid, Grid]:
    """Depth below the hull, and below the folded surface (pia): sulci are level sets of random waves."""
    shape = head.x.shape
    hemisphere = 0.022 * rough - head.distance(*HEMISPHERE)
    temporal = 0.015 * rough - head.distance(*TEMPORAL_LOBE)
    cerebellum = 0.012 * rough - head.distance(*CEREBELLUM)
    stem = -head.distance(*BRAINSTEM)
    cerebrum = np.maximum(hemisphere, temporal)
    depth = np.maximum(np.maximum(cerebrum, cerebellum), stem)

    def fissure(level: Grid, reach: Grid | float) -> Grid:
        """Distance to a fold: the zero level of a field, down to a depth."""
        slope = np.sqrt(sum(np.square(g) for g in np.gradient(level))) / head.voxel
        near = level / np.maximum(slope, np.percentile(slope, 5))
        return np.asarray(np.hypot(near, np.maximum(depth - reach, 0)), np.float32)

    gyrus = max(0.34, 9.5 * head.voxel)
    reach = np.clip(0.22 + 0.07 * waves(rng, shape, 0.4 / head.voxel), 0.08, 0.36)
    sulci = fissure(waves(rng, shape, gyrus / head.voxel), reach)
    folia = fissure(waves(rng, shape, max(0.5 * gyrus / head.voxel, 6.0)), 0.12)
    sylvian = np.hypot(fissure(hemisphere - temporal, 0.26), np.maximum(0.42 - np.abs(head.x), 0))
    falx = np.hypot(head.x + 0.01 * rough, np.maximum(0.30 - head.z, 0) * (np.abs(head.y) < 0.6))
    tentorium = fissure(cerebrum - cerebellum, 0.5)

    small = cerebellum > cerebrum
    trunk = stem > np.maximum(cerebrum, cerebellum)
    folds = np.where(small, np.minimum(folia + 0.01, tentorium), np.minimum(sulci, np.minimum(sylvian, tentorium)))
    folds = np.where(trunk, depth, np.minimum(folds, falx + small))
    width = max(0.012, 0.3 * head.voxel)
    return depth, np.asarray(np.minimum(depth, folds - width), np.float32)


def _ventricles(head: Head, rng: Generator) -> Grid:
    """Distance to the lateral ventricles, the third and the fourth."""
    size = rng.uniform(0.9, 1.5)
    sides = rng.uniform(0.9, 1.1, 2)
    swell = np.where(head.x > 0, sides[0], sides[1]) * size
    distance = np.full_like(head.x, np.inf)
    p = np.stack([np.abs(head.x), head.y, head.z])
    # The temporal horn leaves the atrium (point 4), not the occipital horn.
    for start, end in ((0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (4, 6), (6, 7)):
        (a, ra), (b, rb) = LATERAL_VENTRICLE[start], LATERAL_VENTRICLE[end]
        along = np.subtract(b, a).astype(np.float32)
        from_a = p - np.asarray(a, np.float32)[:, None, None, None]
        t = np.clip(np.tensordot(along, from_a, 1) / (along @ along), 0, 1)
        off = from_a - along[:, None, None, None] * t
        # Flat against the midline, as septum and corpus callosum leave them.
        length = np.sqrt(np.square(1.25 * off[0]) + np.square(off[1]) + np.square(off[2]))
        distance = np.minimum(distance, length - swell * (ra + (rb - ra) * t))
    third = head.distance((0.0, -0.03, 0.02), (0.025 * size, 0.17, 0.13))
    fourth = head.distance((0.0, -0.36, -0.40), (0.06, 0.05, 0.11))
    return np.asarray(np.minimum(distance, np.minimum(third, fourth)), np.float32)


def _deep_grey(head: Head) -> Grid:
    distances = [head.distance(*nucleus) for nucleus in DEEP_GREY.values()]
    return np.asarray(np.minimum.reduce(distances), np.float32)


def _seat(head: Head, white: Mask, depth: Grid, rng: Generator) -> Point:
    """A place in the white matter of one hemisphere for a tumour to grow from."""
    side = np.sign(head.x) == rng.choice([-1, 1])
    good = white & side & (depth > 0.22) & (np.abs(head.x) > 0.28) & (head.z > -0.1) & (np.abs(head.y) < 0.62)
    if not good.any():
        good = side & (depth > 0.2)
    at = tuple(rng.choice(np.argwhere(good)))
    return float(head.x[at]), float(head.y[at]), float(head.z[at])


def _glioma(
    head: Head, seat: Point, tissues: dict[str, Grid], solid: Mask, rng: Generator
) -> UInt8[np.ndarray, "x y z"]:
    """Oedema along the white matter, an enhancing rim in it, a necrotic core in that; sizes are shares of the brain."""
    shape = head.x.shape
    stretch = rng.uniform(0.8, 1.25, 3)
    p = [(a - c) * s for a, c, s in zip((head.x, head.y, head.z), seat, stretch, strict=True)]
    far = np.sqrt(sum(np.square(a) for a in p)) + 0.03 * waves(rng, shape, 0.30 / head.voxel)
    whole = int(solid.sum() * rng.uniform(0.028, 0.055))
    core = _nearest(far + 0.02 * waves(rng, shape, 0.16 / head.voxel), solid, int(whole * rng.uniform(0.35, 0.6)))
    core = ndimage.binary_fill_holes(core) & solid

    # Oedema follows the white matter, spares the cortex and does not cross the falx.
    resisted = far + 0.35 * (tissues["grey"] + tissues["csf"]) + 0.3 * (head.x * seat[0] < 0)
    resisted += 0.05 * waves(rng, shape, 0.25 / head.voxel)
    swollen = _nearest(np.where(core, -1, resisted), solid, max(whole, int(core.sum())))
    within = ndimage.distance_transform_edt(core) * head.voxel + 0.012 * waves(rng, shape, 0.18 / head.voxel)
    dead = _nearest(-within, core, max(1, int(core.sum() * rng.uniform(0.25, 0.5))))
    labels = np.zeros(shape, np.uint8)
    labels[swollen] = 2
    labels[core] = 4
    labels[dead] = 1
    return labels


def _nearest(distance: Grid, within: Mask, count: int) -> Mask:
    """The connected part of the ``count`` voxels of a mask that are nearest."""
    edge = np.partition(distance[within], count - 1)[count - 1]
    return _largest(within & (distance <= edge))
