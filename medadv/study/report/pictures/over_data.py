"""Scores over the whole data set: mIoU, the IoU ratio and average precision, as papers on natural images print them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medadv.study.arm import Arm
from medadv.study.dataset_scores import TITLES, DatasetMetric, DatasetScore, dataset_scores
from medadv.study.records import ALL
from medadv.study.report.numbers import points, thousandths, titled
from medadv.study.report.style import slug
from medadv.study.report.tables import Cell, Column, Table
from medadv.study.report.wording import worded
from medadv.study.results import Results

LEADS: tuple[DatasetMetric, ...] = ("iou", "voc07", "voc10", "coco")
"""What stands for a victim where one number must do: the first of these that it has."""

SHORT: Mapping[DatasetMetric, str] = {
    "iou": "mIoU",
    "voc07": "mAP VOC07",
    "voc10": "mAP VOC10",
    "coco": "mAP COCO",
    "iou ratio": "IoU ratio",
}


@dataclass(frozen=True)
class OverData:
    """The data-set scores of a study's arms.

    Attributes:
        rows: victim, condition, region and metric → the score.
    """

    rows: Mapping[tuple[str, str, str, DatasetMetric], DatasetScore]

    @classmethod
    def of(cls, results: Results) -> OverData:
        """Those of every arm that has any; a study of volumes, scored by Dice, has none."""
        scores = dataset_scores(results.arms)
        return cls({(s.victim, s.condition, s.region, s.metric): s for s in scores})

    def score(self, arm: Arm | None, metric: DatasetMetric | None, region: str = ALL) -> DatasetScore | None:
        """One number about an arm; None where there is none."""
        if arm is None or metric is None:
            return None
        return self.rows.get((arm.victim, arm.condition, region, metric))

    def value(self, arm: Arm | None, metric: DatasetMetric | None, region: str = ALL) -> float | None:
        """The same without its interval."""
        score = self.score(arm, metric, region)
        return None if score is None else score.value

    def metrics(self, victim: str) -> tuple[DatasetMetric, ...]:
        """What a victim has, in the order of ``TITLES``."""
        has = {metric for name, _, region, metric in self.rows if (name, region) == (victim, ALL)}
        return tuple(metric for metric in TITLES if metric in has)

    def lead(self, victim: str) -> DatasetMetric | None:
        """The metric that stands for a victim; None where it has none."""
        has = self.metrics(victim)
        return next((metric for metric in LEADS if metric in has), None)

    def retained(self, arm: Arm, clean: Arm | None) -> tuple[float, float | None, float | None] | None:
        """The share of the clean score that is left, with its interval if it has one.

        Of IoU it is the IoU ratio of Arnab et al. 2018, on the images that both have.
        """
        if (ratio := self.score(arm, "iou ratio")) is not None:
            return ratio.value, ratio.low, ratio.high
        metric = self.lead(arm.victim)
        before, after = self.value(clean, metric), self.value(arm, metric)
        return (after / before, None, None) if before and after is not None else None


def scores_table(results: Results, over: OverData, victim: str) -> Table:
    """One row a condition: each data-set score in percent, with its interval."""
    metrics = over.metrics(victim)
    columns = [Column("condition")]
    for metric in metrics:
        ratio = metric == "iou ratio"
        spell = thousandths if ratio else points
        columns.append(Column(SHORT[metric] if ratio else f"{SHORT[metric]} (%)", spell))
        if _intervals(over, victim, metric):
            columns += [Column("low", spell), Column("high", spell)]
    arms = [arm for arm in results.of(victim) if any(over.score(arm, metric) for metric in metrics)]
    rows: list[list[Cell]] = []
    for arm in arms:
        row: list[Cell] = [titled(arm)]
        for metric in metrics:
            score = over.score(arm, metric)
            row.append(score.value if score else None)
            if _intervals(over, victim, metric):
                row += [score.low if score else None, score.high if score else None]
        rows.append(row)
    return Table(slug("data-set", victim), worded(results, _caption(over, victim, metrics)), columns, rows)


def _intervals(over: OverData, victim: str, metric: DatasetMetric) -> bool:
    return any(s.low is not None for (v, _, _, m), s in over.rows.items() if (v, m) == (victim, metric))


def _caption(over: OverData, victim: str, metrics: Sequence[DatasetMetric]) -> str:
    first = next(score for score in over.rows.values() if score.victim == victim)
    said = [f"Over the whole data set, {first.images} images, and not a mean over images: nothing is tested."]
    if "iou" in metrics:
        said.append(
            "mIoU: the voxels of all images are counted first, void ones left out; then the mean over the classes that "
            "the expert or the victim shows: a class that is only predicted, in however few places, counts 0. "
            "IoU ratio: the mIoU as a share of the clean one (Arnab et al. 2018), both over the classes that the "
            "expert shows, so that a class which only an attack brings in is in neither."
        )
    named = [TITLES[metric] for metric in metrics if metric not in ("iou", "iou ratio")]
    if named:
        said.append(f"mAP: the mean over classes of the average precision, {'; '.join(named)}; they do not compare.")
    if any(_intervals(over, victim, metric) for metric in metrics):
        said.append(f"From low to high: 95 % percentile bootstrap interval over {first.n} {first.unit}.")
    return " ".join(said)


def classes_table(results: Results, over: OverData, victim: str) -> Table | None:
    """The lead metric class by class under every condition; None where there is one class alone."""
    metric = over.lead(victim)
    found = dict.fromkeys(r for name, _, r, m in over.rows if (name, m) == (victim, metric) and r != ALL)
    if metric is None or len(found) < 2:
        return None
    arms = [arm for arm in results.of(victim) if over.score(arm, metric)]
    title = "IoU" if metric == "iou" else TITLES[metric]
    return Table(
        name=slug("data-set-classes", victim),
        caption=f"{title} of each class over the whole data set, in percent.",
        columns=[Column("condition"), Column(SHORT[metric], points), *(Column(r, points) for r in found)],
        rows=[[titled(arm), over.value(arm, metric), *(over.value(arm, metric, r) for r in found)] for arm in arms],
    )
