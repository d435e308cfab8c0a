"""How well one prediction meets the expert's label map, or the objects that the expert drew.

Scores are strict: an empty region is never a missing value. MONAI's defaults return NaN exactly where an attack has
deleted a tumour or invented one, and its reductions drop NaN. Void voxels are in no count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int
from monai.metrics.utils import get_mask_edges, get_surface_distance
from torch import Tensor

from medadv.errors import CaseError, ConfigError, Reason
from medadv.labels import LabelScheme
from medadv.objects import Objects
from medadv.study.intersection import intersection_over_union
from medadv.study.matching import OVERLAP, Rule, match
from medadv.study.metrics import MetricName
from medadv.study.records import ALL, POLICY, Score

_PERCENTILE = 95

VOLUMES: tuple[MetricName, ...] = ("dice", "hd95")
PICTURES: tuple[MetricName, ...] = ("iou",)
DETECTION: tuple[MetricName, ...] = ("recall", "false positives")
"""The metrics that are scored where a study does not say which."""

CONFIDENCE = 0.5
"""The score that a detection must reach to count in one image. Average precision counts them all."""


@dataclass(frozen=True)
class Measure:
    """One score of one prediction.

    Attributes:
        region: a region or tissue of the label scheme, or ``ALL``.
        metric: see ``METRICS``.
        value: the score under the strict policy; always finite.
        truth, predicted, hit: voxels of the region in the truth, in the prediction, and in both; or objects to be
            found, reported, and found.
    """

    region: str
    metric: MetricName
    value: float
    truth: int
    predicted: int
    hit: int


@dataclass(frozen=True)
class _Masks:
    """One region in the prediction and in the truth."""

    found: npt.NDArray[np.bool_]
    wanted: npt.NDArray[np.bool_]
    spacing: Sequence[float]

    @cached_property
    def counts(self) -> tuple[int, int, int]:
        """Voxels in the truth, in the prediction, and in both."""
        return int(self.wanted.sum()), int(self.found.sum()), int((self.found & self.wanted).sum())


def score(
    prediction: Int[Tensor, "*s"],
    truth: Int[Tensor, "*s"],
    scheme: LabelScheme,
    spacing: Sequence[float],
    regions: Sequence[str],
    metrics: Sequence[MetricName] = VOLUMES,
) -> list[Measure]:
    """Each metric of each region, in the order of ``regions``, then of ``metrics``.

    Dice is twice the common voxels over the sum of both (Dice 1945). HD95 is the larger of the two directed 95th
    percentiles of the distances between the surfaces, as in MONAI and the BraTS challenges. IoU is the common voxels
    over those of either (Jaccard 1901). The region ``ALL`` has the mean over the tissues, background among them, that
    the truth or the prediction shows; its counts are of voxels: judged, judged, and rightly labelled.

    Args:
        prediction, truth: label maps in stored numbers of ``scheme``, 2-D or 3-D. What is void in the truth counts in
            neither.
        spacing: the size of a voxel along each axis, in mm; ones for distances in pixels.
        regions: regions or tissues of ``scheme``, background too, or ``ALL``.
        metrics: ``dice``, ``hd95`` or ``iou``.

    Raises:
        CaseError: the two maps have different shapes.
        ConfigError: an unknown region or metric, or a spacing that does not fit.
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
    if strange := [name for name in metrics if name not in _MEASURES]:
        raise ConfigError("label maps have no such metric", got=strange, expected=f"some of {list(_MEASURES)}")
    judged = scheme.judged(truth)

    def masks(region: str) -> _Masks:
        found, wanted = (scheme.mask(labels, region) & judged for labels in (prediction, truth))
        return _Masks(found.cpu().numpy(), wanted.cpu().numpy(), spacing)

    measures: list[Measure] = []
    for region in regions:
        if region == ALL:
            measures += _over_all([masks(tissue) for tissue in scheme.tissues], int(judged.sum()), metrics)
        else:
            own = masks(region)
            measures += [Measure(region, metric, _MEASURES[metric](own), *own.counts) for metric in metrics]
    return measures


def _over_all(tissues: Sequence[_Masks], judged: int, metrics: Sequence[MetricName]) -> list[Measure]:
    """The mean over what is shown; of nothing, which is an image that is all void, what two empty masks have."""
    shown = [masks for masks in tissues if any(masks.counts)] or list(tissues[:1])
    right = sum(masks.counts[2] for masks in tissues)
    return [Measure(ALL, name, fmean(_MEASURES[name](m) for m in shown), judged, judged, right) for name in metrics]


def _dice(masks: _Masks) -> float:
    truth, predicted, hit = masks.counts
    return 2 * hit / (truth + predicted) if truth + predicted else 1.0


def _iou(masks: _Masks) -> float:
    return intersection_over_union(*masks.counts)


def _hd95(masks: _Masks) -> float:
    found, wanted, spacing = masks.found, masks.wanted, masks.spacing
    if not found.any() and not wanted.any():
        return 0.0
    if not found.any() or not wanted.any():
        return math.hypot(*(count * size for count, size in zip(wanted.shape, spacing, strict=True)))
    # MONAI crops to both masks and looks neighbours up in a k-d tree of the surface: speed follows the surface.
    surfaces = get_mask_edges(found, wanted)
    directed = (get_surface_distance(a, b, spacing=tuple(spacing)) for a, b in (surfaces, surfaces[::-1]))
    return max(float(np.percentile(distances, _PERCENTILE)) for distances in directed)


_MEASURES: Mapping[MetricName, Callable[[_Masks], float]] = {"dice": _dice, "hd95": _hd95, "iou": _iou}


def score_objects(
    found: Objects,
    objects: Objects,
    scheme: LabelScheme,
    regions: Sequence[str],
    *,
    confidence: float = CONFIDENCE,
    rule: Rule = "voc",
) -> list[Measure]:
    """Recall and false positives of each region, in the order of ``regions``, at an overlap of one half.

    Recall is the share of the objects to be found that were found; strict: 1 where there are none. False positives are
    counted: detections of nothing, and the second and later ones of one object. Difficult objects, and what detects
    them, count nowhere, so ``predicted`` - ``hit`` are the false positives.

    Args:
        found: what the detector reports, in stored numbers of ``scheme``, with scores.
        objects: what the expert drew.
        regions: regions or tissues of ``scheme``, whose classes are pooled, or ``ALL`` for every class.
        confidence: detections of a lower score are left out.
        rule: how detections and objects are matched; see ``match``.

    Raises:
        ConfigError: an unknown region, or detections without scores.
    """
    if found.scores is not None:
        found = found.take(found.scores >= confidence)
    outcome = match(found, objects, rule, OVERLAP)
    wanted, shown = objects.labels[objects.counted], found.labels[torch.from_numpy(~outcome.ignored)]
    measures: list[Measure] = []
    for region in regions:
        members = scheme.tissues if region == ALL else scheme.members(region)
        numbers = torch.tensor([scheme.numbers[name] for name in members])
        truth, predicted, hit = (
            int(torch.isin(labels.cpu(), numbers).sum())
            for labels in (wanted, shown, found.labels[torch.from_numpy(outcome.hit)])
        )
        counts = truth, predicted, hit
        measures.append(Measure(region, "recall", hit / truth if truth else 1.0, *counts))
        measures.append(Measure(region, "false positives", float(predicted - hit), *counts))
    return measures


def rows(
    file_measures: Sequence[Measure],
    memory_measures: Sequence[Measure],
    eight_bit_measures: Sequence[Measure] | None = None,
) -> list[Score]:
    """The scores of a record: the delivered file's, with those of the voxels in memory beside them.

    Args:
        file_measures: of the delivered file, read again.
        memory_measures: of the same voxels in memory.
        eight_bit_measures: of the delivered picture's 8-bit copy; None where there is none.

    Raises:
        ConfigError: they were not measured on the same regions of the same truth.
    """
    delivered, computed, rounded = (
        [(m.region, m.metric, m.truth) for m in measures]
        for measures in (file_measures, memory_measures, eight_bit_measures or file_measures)
    )
    for other in (computed, rounded):
        if other != delivered:
            raise ConfigError(
                "the scores of the file and of the voxels in memory are not of the same regions and truth",
                got=other,
                expected=delivered,
            )
    copies = [None] * len(file_measures) if eight_bit_measures is None else [m.value for m in eight_bit_measures]
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
            eight_bit=eight_bit,
        )
        for m, memory, eight_bit in zip(file_measures, memory_measures, copies, strict=True)
    ]


def relative_reduction(clean: float, adversarial: float) -> float | None:
    """The share of the clean Dice that is lost, (clean - adversarial) / clean; None where there was none to lose."""
    return (clean - adversarial) / clean if clean else None
