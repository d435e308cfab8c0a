"""Average precision over a data set: of Pascal VOC 2007, of Pascal VOC 2010, and of COCO. They are three numbers.

====== =============================== ================= =====================================================
kind   precision is averaged over      overlap           reference
====== =============================== ================= =====================================================
voc07  11 recalls: 0, .1, … 1          .5                Everingham et al. 2010, section 4.2.1
voc10  all recalls: the area below     .5                Everingham et al. 2015, section 4.1; devkits since 2010
coco   101 recalls: 0, .01, … 1        .5, .55, … .95    Lin et al. 2014, by pycocotools itself
====== =============================== ================= =====================================================

Precision at a recall is the highest at that recall or a higher one. Classes without an object to be found have none.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from medadv.errors import ConfigError
from medadv.objects import Objects
from medadv.study.intersection import Times
from medadv.study.matching import in_order, match, scores_of

VocKind = Literal["voc07", "voc10"]
Kind = VocKind | Literal["coco"]

_AT_ONCE = 2_000_000
"""How many numbers of a bootstrap are held at a time."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sight:
    """One image: what is to be found in it, and what was reported, with scores. Labels are numbers of any scheme."""

    objects: Objects
    found: Objects


def average_precision(images: Sequence[Sight], kind: Kind) -> tuple[dict[int, float], float | None]:
    """Class → its average precision, of those that have an object to be found, and their mean; None without any.

    The order of images and of detections does not matter: of VOC's kinds, detections that share a score come at once,
    as a threshold would take them. pycocotools takes equal scores in the order of the images.

    Args:
        images: the data set.
        kind: whose.

    Raises:
        ConfigError: detections without scores, or COCO's average precision of volumes.
    """
    if kind == "coco":
        known = _coco(images)
    else:
        curves = Curves.of(images, kind)
        values = curves(np.ones((1, len(images)), dtype=np.int64))[0].tolist()
        known = {label: v for label, v in zip(curves.labels, values, strict=True) if not math.isnan(v)}
    return known, fmean(known.values()) if known else None


def _labels(images: Sequence[Sight]) -> tuple[int, ...]:
    """The classes that any image shows or is said to show."""
    each = [labels for image in images for labels in (image.objects.labels, image.found.labels)]
    return tuple(sorted({number for labels in each for number in labels.tolist()}))


# Pascal VOC


@dataclass(frozen=True, eq=False)
class _Curve:
    """The judged detections of one class over all images, the surest first.

    Attributes:
        score, hit, image: of each detection.
        truths: of each image, how many objects are to be found.
    """

    score: Values
    hit: npt.NDArray[np.int64]
    image: npt.NDArray[np.int64]
    truths: npt.NDArray[np.int64]

    def points(self, times: Times) -> tuple[Times, Times, Times]:
        """Hits and detections ``(draws, thresholds)`` down to each score that occurs, and truths ``(draws, 1)``."""
        last = np.flatnonzero(np.diff(self.score, append=-np.inf))
        each = times[:, self.image]
        return (each * self.hit).cumsum(1)[:, last], each.cumsum(1)[:, last], (times @ self.truths)[:, None]


def _eleven_points(hits: Times, precision: Values, truths: Times) -> Values:
    """VOC 2007. Recalls are compared as whole numbers: in floating point 3/10 is below 3 times .1."""
    reached = [np.where(10 * hits >= k * truths, precision, 0.0).max(1, initial=0.0) for k in range(11)]
    values: Values = np.mean(reached, axis=0)
    return values


def _all_points(hits: Times, precision: Values, truths: Times) -> Values:
    """VOC since 2010: the area below the precision, made monotone."""
    highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    values: Values = (np.diff(hits, axis=1, prepend=0) * highest).sum(1) / np.maximum(truths[:, 0], 1)
    return values


_Interpolation = Callable[[Times, Values, Times], Values]

_INTERPOLATIONS: Mapping[VocKind, _Interpolation] = {"voc07": _eleven_points, "voc10": _all_points}


@dataclass(frozen=True, eq=False)
class Curves:
    """A data set matched once by the rule of Pascal VOC; its average precision may be asked of any of its images.

    Attributes:
        curves: of each class that any image shows or is said to show, in order.
        kind: how precision is averaged.
    """

    curves: Mapping[int, _Curve]
    kind: VocKind

    @classmethod
    def of(cls, images: Sequence[Sight], kind: VocKind) -> Curves:
        """Match a data set.

        Raises:
            ConfigError: detections without scores.
        """
        outcomes = [match(image.found, image.objects, "voc") for image in images]
        judged = ~_joined([outcome.ignored for outcome in outcomes]).astype(bool)
        hit = _joined([outcome.hit for outcome in outcomes])
        labels, image_of = _labelled([image.found for image in images])
        score = _joined([scores_of(image.found) for image in images], np.float64)
        wanted, wanted_in = _labelled([image.objects.take(image.objects.counted) for image in images])
        curves = {}
        for label in _labels(images):
            mine = np.flatnonzero((labels == label) & judged)
            mine = mine[np.argsort(-score[mine], kind="stable")]
            truths = np.bincount(wanted_in[wanted == label], minlength=len(images))
            curves[label] = _Curve(score[mine], hit[mine], image_of[mine], truths)
        return cls(curves, kind)

    @property
    def labels(self) -> tuple[int, ...]:
        """The classes, in order."""
        return tuple(self.curves)

    def __call__(self, times: Times) -> Values:
        """The average precision of each class, ``(draws, classes)``; NaN where there is nothing to be found.

        Args:
            times: how often each image counts, ``(draws, images)``: ones, or the draws of a bootstrap.
        """
        values = np.full((len(times), len(self.curves)), np.nan)
        for place, curve in enumerate(self.curves.values()):
            step = max(1, _AT_ONCE // max(len(curve.score), 1))
            for start in range(0, len(times), step):
                hits, shown, truths = curve.points(times[start : start + step])
                found = _INTERPOLATIONS[self.kind](hits, hits / np.maximum(shown, 1), truths)
                values[start : start + step, place] = np.where(truths[:, 0] > 0, found, np.nan)
        return values


def _labelled(images: Sequence[Objects]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The labels of all objects, and the images that they are in."""
    labels = _joined([image.labels.numpy(force=True) for image in images])
    return labels, np.repeat(np.arange(len(images)), [len(image) for image in images])


def _joined(parts: Sequence[npt.NDArray[Any]], kind: type[np.generic] = np.int64) -> npt.NDArray[Any]:
    return np.concatenate([np.zeros(0, dtype=kind), *(part.astype(kind) for part in parts)])


# COCO


def _coco(images: Sequence[Sight]) -> dict[int, float]:
    """By pycocotools: objects of all sizes, and at most a hundred detections of a class in an image."""
    from pycocotools.cocoeval import COCOeval

    labels = _labels(images)
    if not labels:
        return {}
    with redirect_stdout(io.StringIO()):  # it prints what it does
        truth, answer = _dataset(images, labels, False), _dataset(images, labels, True)
        evaluation = COCOeval(truth, answer, "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = evaluation.params.areaRng[:1], ["all"]
        evaluation.params.maxDets = evaluation.params.maxDets[-1:]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][..., 0, 0]  # overlaps, recalls, classes; -1 of what has no truth
    pairs = zip(labels, precision.mean((0, 1)).tolist(), strict=True)
    return {label: value for label, value in pairs if value >= 0}


def _dataset(images: Sequence[Sight], labels: Sequence[int], found: bool) -> Any:
    """What is to be found, or what was, as pycocotools holds it: column, row, width, height; numbers begin at 1."""
    from pycocotools.coco import COCO

    rows: list[dict[str, Any]] = []
    for place, sight in enumerate(images):
        image = sight.found if found else sight.objects
        if image.boxes.shape[1] != 4:
            raise ConfigError(
                "COCO's average precision is of pictures",
                got=f"boxes of {image.boxes.shape[1] // 2} axes",
                advice="of volumes ask for voc07 or voc10",
            )
        scores = scores_of(image) if found else np.zeros(len(image))
        for i in in_order(image.boxes, -scores):
            low_row, low_column, high_row, high_column = image.boxes[i].double().tolist()
            width, height = max(high_column - low_column, 0.0), max(high_row - low_row, 0.0)
            rows.append(
                {
                    "id": len(rows) + 1,
                    "image_id": place,
                    "category_id": int(image.labels[i]),
                    "bbox": [low_column, low_row, width, height],
                    "area": width * height,
                    "iscrowd": int(not image.counted[i]),
                    "score": float(scores[i]),
                }
            )
    dataset = COCO()
    dataset.dataset = {
        "images": [{"id": place} for place in range(len(images))],
        "categories": [{"id": label} for label in labels],
        "annotations": rows,
    }
    dataset.createIndex()
    return dataset
