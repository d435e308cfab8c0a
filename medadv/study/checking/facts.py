"""What one case holds: its grid, the intensities of each modality, and its label map."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from math import prod

import nibabel as nib
import numpy as np
from jaxtyping import Bool, Int64, Shaped
from scipy import ndimage

from medadv.data.case import Volume
from medadv.labels import BACKGROUND, LabelScheme
from medadv.objects import Objects

BINS = 24
"""Bars of a histogram, between p1 and p99."""
TUMOUR = ("necrosis", "oedema", "enhancing")
"""The tissues of a glioma, of which it is known how they lie."""

_PICTURE = 2
"""The axes of a picture."""


def _touching(axes: int) -> Bool[np.ndarray, "..."]:
    """Voxels that share a face, an edge or a corner touch."""
    return np.ones((3,) * axes, bool)


@dataclass(frozen=True)
class Intensities:
    """One modality of one case, in stored units; statistics inside the support: where it is not 0.

    Attributes:
        stored: the data type of the file.
        low, high: minimum and maximum.
        p1, p99: percentiles.
        mean, sigma: mean and standard deviation (of the population), the unit of budgets.
        zeros: the share of the grid's voxels that are exactly 0.
        negative: the share of the support that is below 0.
        histogram: voxels in ``BINS`` equal steps from p1 to p99.
        digest: SHA-256 of shape and voxels, whatever the file and its header.
    """

    stored: str
    low: float
    high: float
    p1: float
    p99: float
    mean: float
    sigma: float
    zeros: float
    negative: float
    histogram: tuple[int, ...]
    digest: str


@dataclass(frozen=True)
class Labels:
    """One label map.

    Attributes:
        tissues: tissue → voxels, background left out.
        regions: region → voxels.
        components: region → connected parts (26 neighbours).
        foreground: the share of the images' non-zero voxels that any tissue takes.
        enhancing_alone: of the enhancing tissue, the share whose connected part touches no other tumour; None where
            there is none, or no such tissues.
        surface: tissue of a glioma → its share of the tumour's outer surface; empty where there are no such tissues.
        digest: SHA-256 of shape and numbers.
    """

    tissues: dict[str, int]
    regions: dict[str, int]
    components: dict[str, int]
    foreground: float
    enhancing_alone: float | None
    surface: dict[str, float]
    digest: str


@dataclass(frozen=True)
class Facts:
    """One case that passed the gate.

    Attributes:
        case, patient, stratum, fold: as imported.
        shape: voxels along each axis.
        spacing: mm along each axis.
        orientation: where the axes lead, e.g. ``LPS``: to the left, the back and the top; nothing of a picture.
        intensities: modality → what it holds.
        labels: what the label map holds; nothing but background where there is none.
        objects: class → objects of an expert's list that count; None without a list.
    """

    case: str
    patient: str | None
    stratum: str | None
    fold: int | None
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    orientation: str
    intensities: dict[str, Intensities]
    labels: Labels
    objects: dict[str, int] | None = None

    @property
    def picture(self) -> bool:
        """Whether this is a picture, which has no millimetres."""
        return len(self.shape) == _PICTURE

    @property
    def millilitres(self) -> float:
        """The size of a voxel."""
        return prod(self.spacing) / 1000

    def shown(self, name: str) -> int:
        """Voxels of a region or tissue, and objects."""
        return self.labels.regions.get(name, self.labels.tissues[name]) + (self.objects or {}).get(name, 0)


def facts_of(volume: Volume) -> Facts:
    """Measure a case that has a label map, or objects."""
    case, x = volume.case, volume.x.numpy()
    nothing = _nothing(case.scheme)
    truth = np.full(x.shape[1:], nothing) if volume.truth is None else volume.truth.numpy()
    inside = np.zeros(x.shape[1:], bool)
    intensities = {}
    for name, voxels in zip(case.modalities, x, strict=True):
        support = voxels != 0
        inside |= support
        intensities[name] = _intensities(voxels, support, str(volume.stored[name]))
    return Facts(
        case.case,
        case.patient,
        case.stratum,
        case.fold,
        x.shape[1:],
        volume.spacing,
        "" if x.ndim == 1 + _PICTURE else _orientation(volume),
        intensities,
        labels_of(truth, case.scheme, int(inside.sum())),
        None if case.objects is None else _counted(case.objects, case.scheme),
    )


def _nothing(scheme: LabelScheme) -> int:
    """The number of what shows no tissue: the background's, or void."""
    if BACKGROUND in scheme.numbers or scheme.void is None:
        return scheme.numbers[BACKGROUND]
    return scheme.void


def _orientation(volume: Volume) -> str:
    return "".join(axis or "?" for axis in nib.aff2axcodes(volume.affine))  # type: ignore[no-untyped-call]


def _counted(objects: Objects, scheme: LabelScheme) -> dict[str, int]:
    labels = objects.labels[objects.counted].tolist()
    return {name: count for name, number in scheme.numbers.items() if (count := labels.count(number))}


def _intensities(voxels: Shaped[np.ndarray, "*s"], support: Bool[np.ndarray, "*s"], stored: str) -> Intensities:
    values = voxels[support]
    p1, p99 = (float(value) for value in np.percentile(values, (1, 99)))
    return Intensities(
        stored,
        float(values.min()),
        float(values.max()),
        p1,
        p99,
        float(values.mean(dtype=np.float64)),
        float(values.std(dtype=np.float64)),
        1 - values.size / voxels.size,
        float((values < 0).mean()),
        tuple(int(n) for n in np.histogram(values, BINS, (p1, max(p99, np.nextafter(p1, np.inf))))[0]),
        _digest(voxels),
    )


def labels_of(truth: Int64[np.ndarray, "*s"], scheme: LabelScheme, inside: int) -> Labels:
    """Measure a label map.

    Args:
        truth: stored label numbers, all known to the scheme.
        scheme: what they mean.
        inside: how many voxels the images show, for the share of the foreground.
    """
    tissues = [tissue for tissue in scheme.tissues if tissue != BACKGROUND]
    nothing = _nothing(scheme)
    small = truth.astype(np.int32)
    boxes = ndimage.find_objects((small != nothing).astype(np.uint8))
    # The tumour alone, and a voxel around it: most of a scan is background.
    cut = np.pad(small[boxes[0]] if boxes else np.full((1,) * small.ndim, nothing), 1, constant_values=nothing)
    where = {tissue: cut == scheme.numbers[tissue] for tissue in tissues}
    voxels = {tissue: int(mask.sum()) for tissue, mask in where.items()}
    regions = {name: np.any([where[t] for t in members], axis=0) for name, members in scheme.regions.items()}
    glioma = set(TUMOUR) <= set(tissues)
    return Labels(
        voxels,
        {name: sum(voxels[tissue] for tissue in members) for name, members in scheme.regions.items()},
        {name: _components(mask) for name, mask in {**where, **regions}.items() if name in scheme.names},
        sum(voxels.values()) / max(inside, 1),
        _alone(where["enhancing"], where["necrosis"] | where["oedema"]) if glioma else None,
        _surface({tissue: where[tissue] for tissue in TUMOUR}) if glioma else {},
        _digest(small),
    )


def _components(mask: Bool[np.ndarray, "*s"]) -> int:
    return int(ndimage.label(mask, _touching(mask.ndim))[1]) if mask.any() else 0


def _alone(mask: Bool[np.ndarray, "*s"], others: Bool[np.ndarray, "*s"]) -> float | None:
    """The share of a mask in connected parts that touch none of the others."""
    if not mask.any():
        return None
    parts, count = ndimage.label(mask, _touching(mask.ndim))
    beside = ndimage.binary_dilation(others, _touching(mask.ndim))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    touching = np.bincount(parts[beside & mask], minlength=count + 1)[1:] > 0
    return float(sizes[~touching].sum() / sizes.sum())


def _surface(where: dict[str, Bool[np.ndarray, "*s"]]) -> dict[str, float]:
    """Tissue → its share of those voxels of the whole that touch something else by a face."""
    whole = np.any(list(where.values()), axis=0)
    edge = whole & ~ndimage.binary_erosion(whole)
    total = int(edge.sum())
    return {tissue: float((mask & edge).sum() / total) for tissue, mask in where.items()} if total else {}


def _digest(voxels: Shaped[np.ndarray, "*s"]) -> str:
    state = hashlib.sha256(repr(voxels.shape).encode())
    state.update(np.ascontiguousarray(voxels).data)
    return state.hexdigest()
