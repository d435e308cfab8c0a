"""The metrics, and that everything which names one accepts them all."""

from __future__ import annotations

from typing import get_args

import pytest

from medadv.study.arm import arms_of
from medadv.study.judgement import Judgement
from medadv.study.metrics import METRICS, MetricName, in_order
from medadv.study.records import POLICY, Presented, Record, Score
from medadv.study.rivals import between
from medadv.study.spec import Primary
from medadv.study.stats import PrimaryFamily, compare, occurring

SHOWN = {
    "clean": Presented(role="clean", family="clean", title="clean"),
    "dag": Presented(role="attack", family="dag", title="DAG"),
}


def record(victim: str, condition: str, case: str, metrics: tuple[MetricName, ...], value: float) -> Record:
    counts = {"truth": 4, "predicted": 0 if condition == "dag" else 4, "hit": 0}
    return Record(
        key=f"{victim}-{condition}-{case}",
        victim=victim,
        condition=condition,
        case=case,
        patient=None,
        presented=SHOWN[condition],
        inputs={},
        radii=None,
        size=None,
        delivered={},
        effort=None,
        fidelity=[],
        scores=[
            Score(region="cat", metric=name, policy=POLICY, value=value, computed=value, **counts) for name in metrics
        ],
    )


def records(*metrics: MetricName) -> list[Record]:
    return [
        record(victim, condition, case, metrics, {"clean": 0.75, "dag": 0.25}[condition] + place / 100)
        for victim in ("plain", "hardened")
        for condition in SHOWN
        for place, case in enumerate("abcdef")
    ]


def test_every_name_is_a_metric() -> None:
    assert tuple(METRICS) == get_args(MetricName)
    assert in_order(["recall", "hd95", "iou", "hd95", "none"]) == ("hd95", "iou", "recall")
    assert occurring(records("iou", "dice")) == ("dice", "iou")


def test_which_way_is_worse() -> None:
    assert {name: metric.loss(2.0, 3.0) for name, metric in METRICS.items()} == {
        "dice": -1,
        "hd95": 1,
        "iou": -1,
        "recall": -1,
        "false positives": 1,
    }
    assert [name for name, metric in METRICS.items() if metric.share] == ["dice", "iou", "recall"]


def test_lengths_in_pictures_are_pixels() -> None:
    assert METRICS["hd95"].of_pictures.headed == "HD95 (px)"
    assert METRICS["iou"].of_pictures is METRICS["iou"]


@pytest.mark.parametrize("metric", get_args(MetricName))
def test_a_study_may_be_about_any_of_them(metric: MetricName) -> None:
    assert Primary(region="cat", metric=metric).metric == metric
    family = PrimaryFamily(region="cat", metric=metric, conditions=("dag",))
    rows = [row for row in compare(records(metric), family, ["cat"], metric) if row.family == "primary"]
    assert {(row.metric, row.n) for row in rows} == {(metric, 6)}
    assert {round(row.estimate or 0, 6) for row in rows} == {-0.5}


@pytest.mark.parametrize(
    ("primary", "scored", "margin_of"),
    [
        ("iou", ("iou",), "iou"),
        ("hd95", ("dice", "hd95"), "dice"),
        ("false positives", ("recall", "false positives"), "recall"),
    ],
)
def test_a_margin_is_of_a_share(primary: MetricName, scored: tuple[MetricName, ...], margin_of: str) -> None:
    judgement = Judgement(
        judged=("plain", "hardened"),
        undefended={"hardened": "plain"},
        worst={"plain": {}, "hardened": {}},
        margin=0.05,
    )
    family = PrimaryFamily(region="cat", metric=primary, conditions=("dag",))
    rows = between(records(*scored), family, judgement, ["cat"])
    (test,) = (row for row in rows if row.family == "non-inferiority")
    assert (test.metric, test.n) == (margin_of, 6)
    assert {row.metric for row in rows if row.family == "exploratory"} == set(scored)


@pytest.mark.parametrize("metrics", [("dice", "hd95"), ("iou",), ("recall", "false positives")])
def test_deletions_are_counted_whatever_is_scored(metrics: tuple[MetricName, ...]) -> None:
    arms = {arm.condition: arm for arm in arms_of([r for r in records(*metrics) if r.victim == "plain"])}
    assert (arms["dag"].deletions("cat"), arms["clean"].deletions("cat")) == (6, 0)
    assert arms["dag"].hallucinations("cat") == 0
