"""What the report tells of pictures, and of victims of several tasks: each in its own metric, and over the data set."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from study.pictured import CLASSES, DETECTOR, EPSILONS, SEGMENTERS, pictured

from medadv.study.records import ALL, Effort, Record
from medadv.study.report import build, threat
from medadv.study.report.curves import budget_curves, doubling
from medadv.study.report.delivery import vanishing
from medadv.study.report.pictures.certainty import certainty_table
from medadv.study.report.pictures.convergence import convergence, distortion_table, iterations, iterations_table, shares
from medadv.study.report.pictures.over_data import OverData, classes_table, scores_table
from medadv.study.report.pictures.ratio import ratio_curves
from medadv.study.report.pictures.section import parts
from medadv.study.report.summary import by_class, shown_alone, summary
from medadv.study.report.tables import Table
from medadv.study.report.words import answer
from medadv.study.results import Arm, Results, read_results


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return read_results(pictured(tmp_path_factory.mktemp("pictured") / "study"))


@pytest.fixture(scope="module")
def over(results: Results) -> OverData:
    return OverData.of(results)


def titles(table: Table) -> list[str]:
    return [column.title for column in table.columns]


def column(table: Table, title: str) -> list[object]:
    place = titles(table).index(title)
    return [row[place] for row in table.rows]


def arm(results: Results, victim: str, condition: str) -> Arm:
    found = results.arm(victim, condition)
    assert found is not None
    return found


def changed(results: Results, **update: object) -> Results:
    """The same results with other records."""
    arms = (
        replace(a, records={case: record.model_copy(update=update) for case, record in a.records.items()})
        for a in results.arms
    )
    return replace(results, arms=tuple(arms))


def test_each_victim_is_told_in_a_metric_that_it_has(results: Results) -> None:
    assert results.pictures
    assert results.metric.name == "iou"
    assert [results.metric_of(v).name for v in (*SEGMENTERS, DETECTOR)] == ["iou", "iou", "recall"]
    assert results.regions_of(DETECTOR) == (ALL,)
    assert set(results.regions_of("fcn")) == {*CLASSES, ALL}
    assert results.regions_of("fcn")[0] == ALL
    assert "mean IoU of all" in answer(results, "fcn").sentences[0]
    assert "mean recall of all" in answer(results, DETECTOR).sentences[0]
    axes = budget_curves(results, DETECTOR, ALL, "0-255").axes[0]
    line = next(each for each in axes.lines if each.get_label() == "i-FGSM")
    arms = [results.clean(DETECTOR), *(arm(results, DETECTOR, f"ifgsm-{e:g}") for e in EPSILONS)]
    assert np.allclose(line.get_ydata(), [a.mean(ALL, "recall") for a in arms if a])


def test_many_permutations_are_one_part_of_a_sentence(results: Results) -> None:
    told = " ".join(answer(results, DETECTOR).sentences)
    assert told.count("its own perturbation, permuted in 6 ways") == 1


def test_columns_are_what_the_records_hold(results: Results) -> None:
    plain = ["condition", "budget", "mean IoU", "median IoU", "mean IoU, 8-bit copy", "relative reduction"]
    assert titles(summary(results, "fcn", ALL)) == plain
    assert titles(summary(results, "fcn", "disc")) == [*plain, "deletions", "hallucinations"]
    table = summary(results, DETECTOR, ALL)
    assert titles(table)[-1] == "false positives per image"
    assert column(table, "mean recall") == pytest.approx([a.mean(ALL, "recall") for a in results.of(DETECTOR)])
    copies = [s.eight_bit for s in arm(results, "fcn", "ifgsm-1").scores(ALL, "iou").values()]
    place = [a.condition for a in results.of("fcn")].index("ifgsm-1")
    assert column(summary(results, "fcn", ALL), "mean IoU, 8-bit copy")[place] == pytest.approx(np.mean(copies))


def test_of_many_classes_one_table_tells_all(results: Results) -> None:
    assert by_class(results, "fcn") is None
    assert len(shown_alone(results, "fcn")) == 5
    more = [score.model_copy(update={"region": f"class {n}"}) for n in range(9) for score in first(results).scores[:1]]
    arms = (
        replace(a, records={c: r.model_copy(update={"scores": [*r.scores, *more]}) for c, r in a.records.items()})
        for a in results.of("fcn")
    )
    many = replace(results, arms=tuple(arms))
    assert shown_alone(many, "fcn") == (ALL,)
    table = by_class(many, "fcn")
    assert table is not None
    assert titles(table)[1:] == list(many.regions_of("fcn"))


def first(results: Results) -> Record:
    return next(iter(results.of("fcn")[0].records.values()))


def counted(arm: Arm) -> float:
    """The mIoU in percent, straight from the counts."""
    rows = [score for record in arm.records.values() for score in record.scores if score.metric == "iou"]
    values = []
    for name in CLASSES:
        truth, predicted, hit = (
            sum(getattr(s, part) for s in rows if s.region == name) for part in ("truth", "predicted", "hit")
        )
        values.append(hit / (truth + predicted - hit))
    return float(np.mean(values))


def test_scores_over_the_data_set_are_those_of_summed_counts(results: Results, over: OverData) -> None:
    table = scores_table(results, over, "fcn")
    arms = results.of("fcn")
    assert column(table, "mIoU (%)") == pytest.approx([counted(a) for a in arms])
    clean = counted(arm(results, "fcn", "clean"))
    ratios = column(table, "IoU ratio")
    assert ratios[0] is None
    assert ratios[1:] == pytest.approx([counted(a) / clean for a in arms[1:]])
    assert table.spelled()[0][1] == f"{100 * clean:.1f}"
    assert "nothing is tested" in table.caption
    assert {"mAP VOC07 (%)", "mAP VOC10 (%)", "mAP COCO (%)"} <= set(titles(scores_table(results, over, DETECTOR)))
    classes = classes_table(results, over, "fcn")
    assert classes is not None
    assert titles(classes)[2:] == list(CLASSES)


def test_the_ratio_is_drawn_over_powers_of_two(results: Results, over: OverData) -> None:
    figure = ratio_curves(results, over)
    assert isinstance(figure, Figure)
    (axes,) = figure.axes  # DAG has one budget, and what was transferred is no sweep
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == [f"{e:g}" for e in EPSILONS]
    lines = {str(line.get_label()): line for line in axes.lines}
    clean = counted(arm(results, "deeplab", "clean"))
    wanted = [counted(arm(results, "deeplab", f"ifgsm-{e:g}")) / clean for e in EPSILONS]
    assert np.allclose(lines["deeplab (mIoU)"].get_ydata(), wanted)
    values = [over.value(arm(results, DETECTOR, name), "voc07") for name in ("clean", "ifgsm-8")]
    assert lines[f"{DETECTOR} (mAP)"].get_ydata()[-1] == pytest.approx(values[1] / values[0])  # type: ignore[operator]


def test_only_powers_of_two_are_doubling() -> None:
    assert doubling([0.25, 0.5, 8])
    assert not doubling([0.25, 0.3])
    assert not doubling([0.0, 1.0])


def test_attacks_below_half_a_grey_level_are_named(results: Results) -> None:
    told = vanishing(results, "fcn")
    assert "i-FGSM, 0.25\N{NO-BREAK SPACE}of 0–255:" in told
    assert "0.5" not in told
    assert "the 8-bit copy is the clean picture" in " ".join(told.split())


def test_active_targets_are_shares_of_the_first_and_who_is_done_stays(results: Results) -> None:
    dag = arm(results, "fcn", "dag-0.5")
    left = shares(dag)
    traces = [r.effort.trace["active"] for r in dag.records.values() if r.effort]
    assert left.shape == (len(traces), max(map(len, traces)))
    for row, trace in zip(left, traces, strict=True):
        assert np.allclose(row[: len(trace)], np.array(trace) / trace[0])
        assert np.all(row[len(trace) :] == trace[-1] / trace[0])
    table = iterations_table(results)
    row = dict(zip(titles(table), table.rows[[r[1] for r in table.rows].index("fcn")], strict=True))
    assert row["most"] == max(map(len, traces)) - 1
    assert row["mean iterations"] == pytest.approx(np.mean([len(t) - 1 for t in traces]))
    figure = convergence(results)
    assert figure is not None
    assert {line.get_label() for line in figure.axes[0].lines} == {*SEGMENTERS, DETECTOR}


def test_distortion_is_told_by_percentiles_of_images(results: Results) -> None:
    table = distortion_table(results)
    assert table is not None
    place = next(i for i, row in enumerate(table.rows) if row[0] == "fcn" and "2\N{NO-BREAK SPACE}of" in str(row[1]))
    assert table.rows[place][2:] == pytest.approx([2, 2, 2, 2, 2, 2, 96, 96, 96])
    assert not any("permuted" in str(row[1]) or "transferred" in str(row[1]) for row in table.rows)


def test_certainty_is_told_where_records_have_it(results: Results) -> None:
    assert certainty_table(results) is None
    sure = changed(results, certainty={"confidence": 0.9, "entropy": 0.3})
    table = certainty_table(sure)
    assert table is not None
    assert titles(table) == ["victim", "condition", "confidence", "entropy"]
    assert column(table, "confidence") == pytest.approx([0.9] * len(table.rows))
    assert "entropy: −Σ p log p, in nats" in table.caption


def test_a_plain_study_of_volumes_has_none_of_it(run_folder: Path, tmp_path: Path) -> None:
    assert parts(read_results(run_folder), tmp_path) == ()


def test_steps_without_a_bound_are_told_as_steps(results: Results) -> None:
    def unbounded(record: Record) -> dict[str, object]:
        threats = record.inputs["condition"].get("threat")
        if threats is None:
            return {}
        condition = {**record.inputs["condition"], "threat": {**threats, "ball": "unbounded", "support": "everywhere"}}
        return {"inputs": {**record.inputs, "condition": condition}, "size": 7.5}

    arms = (
        replace(a, records={c: r.model_copy(update=unbounded(r)) for c, r in a.records.items()})
        for a in results.of("fcn")
    )
    told = " ".join(threat.words(replace(results, arms=tuple(arms)), "fcn"))
    assert "the sum of all steps has no bound" in told
    assert "7.5 times a step’s length" in told
    assert "Every pixel of the picture may change." in told
    assert "voxel" not in told


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(pictured(tmp_path_factory.mktemp("page") / "study", epsilons=(0.25, 8.0), victims=("fcn", DETECTOR)))


def test_the_page_has_a_section_for_all_of_it(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    sections = re.findall(r'<section id="([^"]+)"', text)
    assert sections.index("data-set") == sections.index("scores") + 1
    further = ["transfer", "structure", "convergence", "distortion", "images"]
    assert sections[sections.index("paired") + 1 :][: len(further)] == further
    assert "IoU, Recall against the budget" in text
    assert "<script" not in text
    assert "jdoe" not in text
    figures = {path.stem for path in (page.parent / "figures").glob("*.png")}
    assert {"data-set-ratio", "convergence", f"montage-{DETECTOR}-dag-0.5-picture_0"} <= figures
    assert not any("transfer-dag-from" in name for name in figures)  # the matrix tells these
    with (page.parent / "tables" / "distortion.csv").open(encoding="utf-8") as stream:
        assert len(list(csv.reader(stream))) > 10


@pytest.mark.parametrize(
    ("active", "value", "expected"),
    [
        ([9, 4, 0], [1.0, 0.5, 0.0], 2),
        ([9, 0, 0, 0], [1.0, 0.0, 0.0, 0.0], 1),  # asked only later who is done
        ([9, 4, 4, 4], [1.0, 0.5, 0.4, 0.3], 3),  # never done: it moved to the end
        ([0], [0.0], 0),
    ],
)
def test_an_image_that_stands_still_takes_no_more_iterations(
    active: list[float], value: list[float], expected: int
) -> None:
    trace = {"active": active, "value": value}
    effort = Effort(steps=9, forward=9, backward=9, zero_gradient_share=0.0, trace=trace)
    assert iterations(effort) == expected
