"""The metrics of a study: what they are called, what they are measured in, and which way is worse."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: what records and comparisons call it.
        title: for headings and axes.
        words: for sentences.
        unit: empty for a share.
        worse: the sign of a change for the worse.
        highest: the largest value that there is, if there is one.
    """

    name: str
    title: str
    words: str
    unit: str
    worse: int
    highest: float | None

    @property
    def headed(self) -> str:
        """The title with its unit: ``HD95 (mm)``."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    def loss(self, before: float, after: float) -> float:
        """How much worse ``after`` is than ``before``, in the metric's unit; negative where it is better."""
        return self.worse * (after - before)


_DICE = Metric("dice", "Dice", "Dice", "", worse=-1, highest=1.0)
_HD95 = Metric("hd95", "HD95", "95 % Hausdorff distance", "mm", worse=1, highest=None)

METRICS = {metric.name: metric for metric in (_DICE, _HD95)}
