"""What papers on natural images print: mIoU, the IoU ratio and average precision, over a whole data set.

They describe. Nothing is claimed of them, since a data set has one of each and no pairs: the tests are of the scores of
single images. Their intervals come from a bootstrap over patients, or over images where patients are unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from medadv.study.arm import Arm
from medadv.study.average_precision import Curves, Sight, VocKind, average_precision
from medadv.study.intersection import TRUTH, Counts, Times, by_confusion, mean_over_classes
from medadv.study.pairs import Unit
from medadv.study.records import ALL, Record, Score
from medadv.study.stats import FEWEST

DatasetMetric = Literal["iou", "iou ratio", "voc07", "voc10", "coco"]

TITLES: Mapping[DatasetMetric, str] = {
    "iou": "IoU",
    "iou ratio": "IoU ratio",
    "voc07": "AP (VOC 2007, 11 points)",
    "voc10": "AP (VOC 2010, all points)",
    "coco": "AP (COCO, .5 to .95)",
}
"""For headings: of the region ``ALL`` they are means over classes, mIoU and mAP."""

DRAWS = 1000
"""Of the bootstrap."""

LEVEL = 0.95
"""Of its intervals."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class DatasetScore:
    """One number about all images of a victim under a condition.

    Attributes:
        region: a class, or ``ALL`` for the mean over the classes that occur; of IoU, over the tissues that do.
        metric: see ``TITLES``. All are shares, and more is better; only the ratio may exceed 1.
        low, high: the percentile interval (Efron and Tibshirani 1993, section 13.3); None below six units, and of
            COCO's average precision, which pycocotools would have to make anew for each draw.
        n, unit: how many patients or images there were to draw from.
        images: how many there are.
    """

    victim: str
    condition: str
    region: str
    metric: DatasetMetric
    value: float
    low: float | None
    high: float | None
    n: int
    unit: Unit
    images: int


def dataset_scores(arms: Sequence[Arm], draws: int = DRAWS, seed: int = 0) -> list[DatasetScore]:
    """The numbers of every arm that has any, in the order of the arms; of each metric ``ALL`` first, then the classes.

    - ``iou``: from summed voxel counts, of arms whose images have an IoU of each region; ``ALL`` is the mIoU, over the
      tissues of the label scheme that either side shows. There is none where a tissue was not scored.
    - ``iou ratio``: mIoU over that of the victim's clean arm, on the images that both have (Arnab et al. 2018), both
      over the tissues that the truth of these images shows: one that is only predicted, and so would count 0 here and
      not at all there, is in neither. None where the clean one is 0.
    - ``voc07``, ``voc10``, ``coco``: average precision, of arms whose records hold objects; COCO's of pictures alone.

    Worst cases have none of them: they are made of several answers.

    Args:
        arms: those of a study.
        draws: how many data sets are drawn for an interval.
        seed: of the draws; arms on the same images get the same ones.
    """
    clean = {arm.victim: arm for arm in arms if arm.presented.role == "clean"}
    found: list[DatasetScore] = []
    for arm in arms:
        bootstrap = _Bootstrap.of(arm, draws, seed)
        if classes := _classes(arm):
            found += bootstrap.rows("iou", classes, _iou(arm, classes), _tissues(arm))
            if arm.victim in clean and arm.presented.role != "clean":
                found += _ratio(arm, clean[arm.victim], draws, seed)
        if records := [r for r in arm.records.values() if r.found is not None and r.objects is not None]:
            found += _precision(replace(arm, records={record.case: record for record in records}), draws, seed)
    return found


@dataclass(frozen=True, eq=False)
class _Bootstrap:
    """One arm, and how often each of its images is counted: once each, then as the draws of units have it."""

    arm: Arm
    n: int
    times: Times

    @classmethod
    def of(cls, arm: Arm, draws: int, seed: int) -> _Bootstrap:
        units = [str(r.patient) if arm.unit == "patients" else r.case for r in arm.records.values()]
        names, unit_of = np.unique(units, return_inverse=True)
        n = len(names)
        drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws if n >= FEWEST else 0)
        times = np.concatenate([np.ones((1, len(units)), dtype=np.int64), drawn[:, unit_of]])
        return cls(arm, n, times)

    def rows(
        self,
        metric: DatasetMetric,
        regions: Sequence[str],
        statistic: Callable[[Times], Values],
        over: Sequence[str] | None = None,
    ) -> Iterator[DatasetScore]:
        """The numbers of a metric.

        Args:
            metric: which.
            regions: the classes, in the order of the statistic's.
            statistic: how often each image counts → the value of each class; NaN where a class does not occur.
            over: the classes whose mean is ``ALL``; None for all of them.
        """
        values = statistic(self.times)
        meant = [place for place, region in enumerate(regions) if over is None or region in over]
        yield from self.told(metric, ALL, mean_over_classes(values[:, meant]))
        for place, region in enumerate(regions):
            yield from self.told(metric, region, values[:, place])

    def told(self, metric: DatasetMetric, region: str, values: Values) -> Iterator[DatasetScore]:
        """The row of one value and its draws; none where there is no value."""
        if np.isnan(values[0]):
            return
        drawn = values[1:][~np.isnan(values[1:])]
        tail = 100 * (1 - LEVEL) / 2
        low, high = np.percentile(drawn, [tail, 100 - tail]).tolist() if len(drawn) else (None, None)
        place = self.arm.victim, self.arm.condition, region, metric
        yield DatasetScore(*place, float(values[0]), low, high, self.n, self.arm.unit, len(self.arm.records))


def _shown(record: Record) -> dict[str, Score]:
    """Class → its IoU, of an image's own answer: a worst case takes each class from another one."""
    return {s.region: s for s in record.scores if s.metric == "iou" and s.region != ALL and s.attack is None}


def _classes(arm: Arm) -> tuple[str, ...]:
    """The classes that every image has an IoU of."""
    shown = [_shown(record) for record in arm.records.values()]
    return tuple(region for region in shown[0] if all(region in each for each in shown)) if shown else ()


def _tissues(arm: Arm) -> tuple[str, ...]:
    """The regions that are every tissue, each once; none where some image lacks the IoU of one."""
    told = {record.tissues for record in arm.records.values()}
    tissues = told.pop() if len(told) == 1 else ()
    return tissues if set(tissues) <= set(_classes(arm)) else ()


def _counts(arm: Arm, classes: Sequence[str]) -> Counts:
    shown = [_shown(record) for record in arm.records.values()]
    counts = [[(s.truth, s.predicted, s.hit) for s in map(each.__getitem__, classes)] for each in shown]
    return np.array(counts, dtype=np.int64).reshape(len(shown), len(classes), 3)


def _iou(arm: Arm, classes: Sequence[str]) -> Callable[[Times], Values]:
    counts = _counts(arm, classes)
    return lambda times: by_confusion(counts, times)


def _iou_of_truth(arm: Arm, tissues: Sequence[str], times: Times) -> Values:
    """The mIoU of each draw over the tissues that the truth of its images shows."""
    counts = _counts(arm, tissues)
    shown = times @ counts[..., TRUTH] > 0
    return mean_over_classes(np.where(shown, by_confusion(counts, times), np.nan))


def _ratio(arm: Arm, clean: Arm, draws: int, seed: int) -> Iterator[DatasetScore]:
    """mIoU over the clean mIoU, both of the same draws of the images that both have, and over the same tissues."""
    common = [case for case in arm.records if case in clean.records]
    tissues = _tissues(arm)
    if not common or not tissues or tissues != _tissues(clean):
        return
    own, other = (replace(each, records={case: each.records[case] for case in common}) for each in (arm, clean))
    bootstrap = _Bootstrap.of(own, draws, seed)
    after, before = (_iou_of_truth(each, tissues, bootstrap.times) for each in (own, other))
    if before[0] > 0:
        values = np.divide(after, before, out=np.full(len(after), np.nan), where=before > 0)
        yield from bootstrap.told("iou ratio", ALL, values)


def _precision(arm: Arm, draws: int, seed: int) -> Iterator[DatasetScore]:
    """Average precision of an arm all of whose records hold objects."""
    names, images = _sights(arm)
    bootstrap = _Bootstrap.of(arm, draws, seed)
    kinds: tuple[VocKind, ...] = ("voc07", "voc10")
    matched = Curves.of(images, "voc07")
    for kind in kinds:
        yield from bootstrap.rows(kind, [names[label] for label in matched.labels], replace(matched, kind=kind))
    if all(each.boxes.shape[1] == 4 for image in images for each in (image.objects, image.found)):
        values, mean = average_precision(images, "coco")
        told = {ALL: mean, **{names[label]: value for label, value in values.items()}}
        for region, value in told.items():
            if value is not None:
                yield from bootstrap.told("coco", region, np.array([value]))


def _sights(arm: Arm) -> tuple[list[str], list[Sight]]:
    """The names of the classes in order, and each image with its objects, numbered by them."""
    lists = [(r.objects, r.found) for r in arm.records.values() if r.objects is not None and r.found is not None]
    names = sorted({name for pair in lists for each in pair for name in each.labels})
    numbers = {name: number for number, name in enumerate(names)}
    return names, [Sight(wanted.objects(numbers), found.objects(numbers)) for wanted, found in lists]
