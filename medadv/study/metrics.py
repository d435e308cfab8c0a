"""The metrics of a study: what they are called, what they are measured in, and which way is worse."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Literal

MetricName = Literal["dice", "hd95", "iou", "recall", "false positives"]
"""What scores, comparisons and studies call the metrics of one image."""


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: what records and comparisons call it.
        title: for headings and axes.
        words: for sentences.
        unit: empty for a share; lengths are in mm, in pixels of a picture (``of_pictures``).
        worse: the sign of a change for the worse.
        highest: the largest value that there is, if there is one.
    """

    name: MetricName
    title: str
    words: str
    unit: str
    worse: int
    highest: float | None

    @property
    def headed(self) -> str:
        """The title with its unit: ``HD95 (mm)``."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def of_pictures(self) -> Metric:
        """The same metric of images whose voxels have no size: lengths in pixels."""
        return replace(self, unit="px") if self.unit == "mm" else self

    @property
    def share(self) -> bool:
        """Whether it lies between 0 and 1, and 1 is best."""
        return self.worse < 0 and self.highest == 1

    def loss(self, before: float, after: float) -> float:
        """How much worse ``after`` is than ``before``, in the metric's unit; negative where it is better."""
        return self.worse * (after - before)


_DICE = Metric("dice", "Dice", "Dice", "", worse=-1, highest=1.0)
_HD95 = Metric("hd95", "HD95", "95 % Hausdorff distance", "mm", worse=1, highest=None)

_IOU = Metric("iou", "IoU", "IoU", "", worse=-1, highest=1.0)
_RECALL = Metric("recall", "Recall", "recall", "", worse=-1, highest=1.0)
_FALSE = Metric("false positives", "False positives", "number of false positives", "per image", worse=1, highest=None)

METRICS: dict[str, Metric] = {metric.name: metric for metric in (_DICE, _HD95, _IOU, _RECALL, _FALSE)}


def in_order(names: Iterable[str]) -> tuple[MetricName, ...]:
    """The metrics among some names, each once, in the order of ``METRICS``."""
    found = set(names)
    return tuple(metric.name for metric in METRICS.values() if metric.name in found)


SHARES: tuple[MetricName, ...] = ("iou", "dice", "recall")
"""The metrics that a victim may be judged by where it is not scored in the study's."""


def judged_by(wanted: str, has: Collection[str]) -> Metric:
    """The metric that a victim is judged by: the study's, else the first of ``SHARES`` that the victim is scored in.

    Args:
        wanted: the study's.
        has: those that the victim is scored in; Dice is told of one that is scored in none.
    """
    return METRICS[wanted if wanted in has else next((name for name in SHARES if name in has), "dice")]
