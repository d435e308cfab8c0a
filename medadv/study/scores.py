"""How well one prediction meets the expert's label map.

Scores are strict: an empty region is never a missing value. MONAI's defaults return NaN exactly where an attack has
deleted a tumour or invented one, and its reductions drop NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from jaxtyping import Int
from monai.metrics.utils import get_mask_edges, get_surface_distance
from torch import Tensor

from medadv.errors import CaseError, ConfigError, Reason
from medadv.labels import LabelScheme
from medadv.study.records import POLICY, Score

_PERCENTILE = 95


@dataclass(frozen=True)
class Measure:
    """One score of one prediction.

    Attributes:
        region: a region or tissue of the label scheme.
        metric: ``dice`` (share) or ``hd95`` (mm).
        value: the score under the strict policy; always finite.
        truth, predicted, hit: voxels of the region in the truth, in the prediction, and in both.
    """

    region: str
    metric: Literal["dice", "hd95"]
    value: float
    truth: int
    predicted: int
    hit: int


def score(
    prediction: Int[Tensor, "*s"],
    truth: Int[Tensor, "*s"],
    scheme: LabelScheme,
    spacing: Sequence[float],
    regions: Sequence[str],
) -> list[Measure]:
    """Dice and HD95 of each region, in the order of ``regions``.

    Dice is twice the common voxels over the sum of both (Dice 1945). HD95 is the larger of the two directed 95th
    percentiles of the distances between the surfaces, in mm, as in MONAI and the BraTS challenges.

    Args:
        prediction, truth: label maps in stored numbers of ``scheme``, 2-D or 3-D.
        spacing: the size of a voxel along each axis, in mm.
        regions: regions or tissues of ``scheme``.

    Raises:
        CaseError: the two maps have different shapes.
        ConfigError: an unknown region, or a spacing that does not fit.
    """
    if prediction.shape != truth.shape:
        raise CaseError(
            Reason.LABEL_GRID,
            "the prediction and the label map have different shapes",
            got=tuple(prediction.shape),
            expected=tuple(truth.shape),
        )
    if len(spacing) != truth.ndim or not all(math.isfinite(size) and size > 0 for size in spacing):
        raise ConfigError(
            "the spacing does not fit the label map",
            got=tuple(spacing),
            expected=f"{truth.ndim} positive numbers, in mm",
        )
    measures: list[Measure] = []
    for region in regions:
        found = scheme.mask(prediction, region).cpu().numpy()
        wanted = scheme.mask(truth, region).cpu().numpy()
        counts = int(wanted.sum()), int(found.sum()), int((found & wanted).sum())
        measures += [
            Measure(region, "dice", _dice(*counts), *counts),
            Measure(region, "hd95", _hd95(found, wanted, spacing), *counts),
        ]
    return measures


def _dice(truth: int, predicted: int, hit: int) -> float:
    return 2 * hit / (truth + predicted) if truth + predicted else 1.0


def _hd95(found: npt.NDArray[np.bool_], wanted: npt.NDArray[np.bool_], spacing: Sequence[float]) -> float:
    if not found.any() and not wanted.any():
        return 0.0
    if not found.any() or not wanted.any():
        return math.hypot(*(count * size for count, size in zip(wanted.shape, spacing, strict=True)))
    # MONAI crops to both masks and looks neighbours up in a k-d tree of the surface: speed follows the surface.
    surfaces = get_mask_edges(found, wanted)
    directed = (get_surface_distance(a, b, spacing=tuple(spacing)) for a, b in (surfaces, surfaces[::-1]))
    return max(float(np.percentile(distances, _PERCENTILE)) for distances in directed)


def rows(file_measures: Sequence[Measure], memory_measures: Sequence[Measure]) -> list[Score]:
    """The scores of a record: the delivered file's, with those of the voxels in memory beside them.

    Raises:
        ConfigError: the two were not measured on the same regions of the same truth.
    """
    delivered, computed = (
        [(m.region, m.metric, m.truth) for m in measures] for measures in (file_measures, memory_measures)
    )
    if delivered != computed:
        raise ConfigError(
            "the scores of the file and of the voxels in memory are not of the same regions and truth",
            got=computed,
            expected=delivered,
        )
    return [
        Score(
            region=m.region,
            metric=m.metric,
            policy=POLICY,
            value=m.value,
            computed=memory.value,
            truth=m.truth,
            predicted=m.predicted,
            hit=m.hit,
        )
        for m, memory in zip(file_measures, memory_measures, strict=True)
    ]


def relative_reduction(clean: float, adversarial: float) -> float | None:
    """The share of the clean Dice that is lost, (clean - adversarial) / clean; None where there was none to lose."""
    return (clean - adversarial) / clean if clean else None
