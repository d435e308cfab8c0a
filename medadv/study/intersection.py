"""Intersection over union, from voxel counts: of one image, and of a data set by its confusion.

The two are not the same number. That of a data set adds up the counts of all images first, as Pascal VOC and Cityscapes
do: large objects and frequent classes weigh more, and it has no pairs. That of an image is what can be tested.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

TRUTH, PREDICTED, HIT = range(3)
"""What is counted, along the last axis of ``Counts``."""

Counts = npt.NDArray[np.int64]
"""``(images, classes, 3)``: the voxels of each class in the truth, in the prediction, and in both."""

Times = npt.NDArray[np.int64]
"""``(draws, images)``: how often each image is counted; once each, but in a bootstrap."""


def intersection_over_union(truth: int, predicted: int, hit: int) -> float:
    """The common voxels over those of either (Jaccard 1901); strict: 1 where both are empty, 0 where one is."""
    union = truth + predicted - hit
    return hit / union if union else 1.0


def by_confusion(counts: Counts, times: Times | None = None) -> npt.NDArray[np.float64]:
    """The IoU of each class over all images, ``(draws, classes)``; NaN of classes that neither side ever shows.

    Σ hit / (Σ truth + Σ predicted - Σ hit), which is that of the data set's confusion matrix (Everingham et al. 2010,
    section 4.2). Their mean over the classes that occur, ``mean_over_classes``, is the mIoU.

    Args:
        counts: of each image; void voxels are in none of them.
        times: how often each image counts; None for once, a single draw.
    """
    times = np.ones((1, len(counts)), dtype=np.int64) if times is None else times
    summed = (times @ counts.reshape(len(counts), -1)).reshape(len(times), *counts.shape[1:])
    union = summed[..., TRUTH] + summed[..., PREDICTED] - summed[..., HIT]
    return _shares(summed[..., HIT], union)


def mean_over_classes(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The mean over the last axis, without classes that are NaN; NaN where all are."""
    known = ~np.isnan(values)
    return _shares(np.where(known, values, 0.0).sum(-1), known.sum(-1))


def _shares(part: npt.NDArray[Any], whole: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Part over whole; NaN of nothing."""
    shares: npt.NDArray[np.float64] = np.full(whole.shape, np.nan)
    np.divide(part, whole, out=shares, where=whole > 0)
    return shares
