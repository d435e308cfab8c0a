"""mIoU, the IoU ratio and average precision of arms: from records alone, with intervals from units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from medadv.labels import BACKGROUND, LabelScheme
from medadv.objects import Objects
from medadv.study.arm import Arm, arms_of
from medadv.study.average_precision import Sight, average_precision
from medadv.study.dataset_scores import TITLES, DatasetScore, dataset_scores
from medadv.study.judgement import Judgement
from medadv.study.object_list import ObjectList
from medadv.study.records import ALL, POLICY, Presented, Record, Score
from medadv.study.worst import worst_cases

SCHEME = LabelScheme("animals", {BACKGROUND: 0, "cat": 3, "dog": 7})
CLEAN = Presented(role="clean", family="clean", title="clean")
ATTACK = Presented(role="attack", family="dag", title="DAG")


def iou(region: str, truth: int, predicted: int, hit: int, attack: str | None = None) -> Score:
    union = truth + predicted - hit
    told = {"value": hit / union if union else 1.0, "truth": truth, "predicted": predicted, "hit": hit}
    return Score(region=region, metric="iou", policy=POLICY, computed=0.0, attack=attack, **told)


def record(
    case: str, shown: Presented, scores: Sequence[Score] = (), patient: str | None = None, **rest: object
) -> Record:
    return Record(
        key=f"{case}-{shown.family}",
        victim="fcn",
        condition=shown.family,
        case=case,
        patient=patient,
        presented=shown,
        inputs={"regions": ["cat"], "condition": {}},
        radii=None,
        size=None,
        delivered={},
        effort=None,
        fidelity=[],
        scores=list(scores),
        tissues=tuple(s.region for s in scores if s.region != ALL),
        **rest,
    )


def segmented(shown: Presented, hits: Sequence[int], patients: Sequence[str] | None = None) -> list[Record]:
    """Pictures of 20 pixels, ten of them cats, of which some are found; the others are called background."""
    return [
        record(
            f"c{place}",
            shown,
            [
                iou(ALL, 20, 20, 10 + hit),
                iou("cat", 10, hit, hit),
                iou("dog", 0, 0, 0),
                iou(BACKGROUND, 10, 20 - hit, 10),
            ],
            patients[place] if patients else None,
        )
        for place, hit in enumerate(hits)
    ]


def by_metric(rows: Sequence[DatasetScore], condition: str) -> dict[tuple[str, str], DatasetScore]:
    return {(row.metric, row.region): row for row in rows if row.condition == condition}


def test_miou_and_its_ratio_by_hand() -> None:
    records = segmented(CLEAN, [10, 8, 6, 10, 10, 10]) + segmented(ATTACK, [0, 3, 3, 0, 0, 0])
    rows = dataset_scores(arms_of(records))
    before, after = by_metric(rows, "clean"), by_metric(rows, "dag")
    assert before["iou", "cat"].value == 54 / 60
    assert before["iou", BACKGROUND].value == 60 / 66
    assert ("iou", "dog") not in before, "it never occurs"
    assert before["iou", ALL].value == pytest.approx((54 / 60 + 60 / 66) / 2)
    assert after["iou", ALL].value == pytest.approx((6 / 60 + 60 / 114) / 2)
    ratio = after["iou ratio", ALL]
    assert ratio.value == pytest.approx(after["iou", ALL].value / before["iou", ALL].value)
    assert ("iou ratio", ALL) not in before
    assert (ratio.n, ratio.unit, ratio.images) == (6, "cases", 6)
    assert {row.metric for row in rows} <= set(TITLES)
    for row in rows:
        assert row.low is not None
        assert row.high is not None
        assert 0 <= row.low <= row.value <= row.high <= 1


def test_an_interval_is_seeded_and_follows_the_draws() -> None:
    """Of two kinds of images, half and half, the share of summed pixels is binomial: 95 % of .5 ± 1.96 · .5/√40."""
    arms = arms_of(segmented(CLEAN, [10, 0] * 20))
    row = by_metric(dataset_scores(arms, draws=4000), "clean")["iou", "cat"]
    assert (row.value, row.low, row.high) == (0.5, pytest.approx(0.35, abs=0.026), pytest.approx(0.65, abs=0.026))
    assert dataset_scores(arms) == dataset_scores(arms)
    assert dataset_scores(arms) != dataset_scores(arms, seed=1)


def test_units_are_patients_where_they_are_known() -> None:
    """Ten scans of each of two patients are two facts: too few for an interval."""
    patients = ["a", "b"] * 10
    (few,) = arms_of(segmented(CLEAN, [10, 0] * 10, patients))
    row = by_metric(dataset_scores([few]), "clean")["iou", "cat"]
    assert (row.n, row.unit, row.images, row.low, row.high) == (2, "patients", 20, None, None)
    many = arms_of(segmented(CLEAN, [10, 0] * 10, [f"{i // 2 % 6}{'ab'[i % 2]}" for i in range(20)]))
    alone = arms_of(segmented(CLEAN, [10, 0] * 10))
    apart = [by_metric(dataset_scores(arms), "clean")["iou", "cat"] for arms in (many, alone)]
    assert apart[0].value == apart[1].value
    assert apart[0].n == 12
    assert (apart[0].high or 0) - (apart[0].low or 0) > (apart[1].high or 0) - (apart[1].low or 0)


def test_a_ratio_is_of_the_images_that_both_have() -> None:
    records = segmented(CLEAN, [10, 10, 0, 0]) + segmented(ATTACK, [5, 5])
    ratio = by_metric(dataset_scores(arms_of(records)), "dag")["iou ratio", ALL]
    assert ratio.value == pytest.approx((10 / 20 + 20 / 30) / 2)
    assert ratio.images == 2
    lost = [record("c0", shown, [iou("cat", 4, 0, 0)]) for shown in (CLEAN, ATTACK)]
    assert [row.metric for row in dataset_scores(arms_of(lost))] == ["iou", "iou"] * 2, "nothing was there to lose"


def test_a_class_that_only_the_attack_brings_in_is_in_neither_side_of_the_ratio() -> None:
    """Planted fault: three of 400 pixels called a dog, and a mean over two classes is divided by one over three."""
    clean: list[Record] = []
    attacked: list[Record] = []
    for place in range(8):
        cat = iou("cat", 40, 40, 40)
        clean.append(record(f"c{place}", CLEAN, [cat, iou(BACKGROUND, 10, 10, 10), iou("dog", 0, 0, 0)]))
        attacked.append(record(f"c{place}", ATTACK, [cat, iou(BACKGROUND, 10, 9, 9), iou("dog", 0, 1, 0)]))
    rows = by_metric(dataset_scores(arms_of([*clean, *attacked])), "dag")
    assert rows["iou", ALL].value == pytest.approx((1 + 0.9 + 0) / 3)
    ratio = rows["iou ratio", ALL]
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((0.95, 0.95, 0.95))


def test_miou_is_of_the_tissues_and_of_nothing_else() -> None:
    """A region that is a union of tissues is told, and counts in no mean; without every tissue there is no mean."""
    animals = iou("animals", 10, 5, 5)
    shown = [iou("cat", 10, 5, 5), iou(BACKGROUND, 10, 15, 10)]
    whole = [record(f"c{place}", CLEAN, [animals, *shown]) for place in range(2)]
    whole = [each.model_copy(update={"tissues": (BACKGROUND, "cat")}) for each in whole]
    rows = by_metric(dataset_scores(arms_of(whole)), "clean")
    assert rows["iou", ALL].value == pytest.approx((0.5 + 10 / 15) / 2)
    assert rows["iou", "animals"].value == 0.5
    some = [each.model_copy(update={"tissues": ()}) for each in whole]
    assert {row.region for row in dataset_scores(arms_of(some))} == {"animals", "cat", BACKGROUND}


def test_a_worst_case_has_no_confusion() -> None:
    """Each of its classes is another answer's."""
    records = segmented(ATTACK, [5, 5]) + segmented(replace_family(ATTACK, "ifgsm"), [3, 6])
    judgement = Judgement(judged=("fcn",), undefended={}, worst={"fcn": {"worst-1": ("dag", "ifgsm")}}, margin=None)
    worst = worst_cases(records, judgement)
    assert len(worst) == 2
    assert dataset_scores(arms_of(worst)) == []


def replace_family(shown: Presented, family: str) -> Presented:
    return shown.model_copy(update={"family": family})


# Objects


def objects(*boxes: tuple[float, ...], labels: Sequence[int], **rest: Sequence[float] | Sequence[bool]) -> Objects:
    told = (torch.tensor(rest[name]) if name in rest else None for name in ("scores", "difficult"))
    return Objects(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), torch.tensor(labels, dtype=torch.int64), *told
    )


WANTED = objects((0, 0, 9.1, 9), (20, 0, 29, 9), labels=[3, 7], difficult=[False, True])
FOUND = objects((0, 0, 9, 9), (50, 0, 59, 9), labels=[3, 3], scores=[0.3, 0.9])
NOTHING = replace(Objects.none(2), scores=torch.zeros(0))


def test_objects_come_back_as_they_were() -> None:
    for each in (WANTED, FOUND, NOTHING, Objects.none(3)):
        told = ObjectList.of(each, SCHEME)
        again = ObjectList.model_validate_json(told.model_dump_json()).objects(SCHEME.numbers)
        for name in ("boxes", "labels", "scores", "difficult"):
            before, after = getattr(each, name), getattr(again, name)
            assert (before is None and after is None) or torch.equal(before, after)
            assert before is None or before.shape == after.shape
    assert ObjectList.of(WANTED, SCHEME).labels == ("cat", "dog")


@pytest.mark.parametrize(
    "damage", [{"labels": ["cat"]}, {"boxes": [[0, 0, 1], [0, 0, 1, 1]]}, {"scores": [0.5]}, {"scores": [0.5, None]}]
)
def test_lists_that_do_not_fit_are_refused(damage: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ObjectList.model_validate(ObjectList.of(WANTED, SCHEME).model_dump() | damage)


def detected(found: Sequence[Objects]) -> tuple[Arm, ...]:
    told = ObjectList.of(WANTED, SCHEME)
    return arms_of(
        [
            record(f"c{place}", CLEAN, found=ObjectList.of(each, SCHEME), objects=told)
            for place, each in enumerate(found)
        ]
    )


def test_average_precision_comes_from_records_alone() -> None:
    """Written, read again, and named by class."""
    found = [FOUND, NOTHING, FOUND, FOUND, NOTHING, FOUND]
    arms = detected(found)
    again = arms_of([Record.model_validate_json(r.model_dump_json()) for r in arms[0].records.values()])
    rows = by_metric(dataset_scores(again), "clean")
    images = [Sight(WANTED, each) for each in found]
    for kind in ("voc07", "voc10", "coco"):
        classes, mean = average_precision(images, kind)
        assert rows[kind, "cat"].value == pytest.approx(classes[3])
        assert rows[kind, ALL].value == pytest.approx(mean)
        assert (kind, "dog") not in rows, "the only dogs are difficult"
    assert rows["voc10", "cat"].value == pytest.approx(4 / 6 / 2)
    assert rows["coco", ALL].low is None
    assert rows["voc07", ALL].low is not None


def test_records_of_volumes_have_no_coco() -> None:
    """Nor has an arm without objects any of them."""
    thick = Objects(torch.tensor([[0.0, 0, 0, 2, 2, 2]]), torch.tensor([3]), torch.tensor([0.5]))
    told = ObjectList.of(thick, SCHEME)
    (arm,) = arms_of([record("a", CLEAN, found=told, objects=told)])
    assert {row.metric for row in dataset_scores([arm])} == {"voc07", "voc10"}
    assert dataset_scores(arms_of([record("a", CLEAN)])) == []


def test_a_worst_case_has_no_detections_of_its_own() -> None:
    told = ObjectList.of(WANTED, SCHEME)
    recall = Score(region=ALL, metric="recall", policy=POLICY, value=1.0, computed=1.0, truth=1, predicted=1, hit=1)
    one = record("a", ATTACK, [recall], found=ObjectList.of(FOUND, SCHEME), objects=told)
    judgement = Judgement(judged=("fcn",), undefended={}, worst={"fcn": {"worst-1": ("dag",)}}, margin=None)
    (worst,) = worst_cases([one], judgement)
    assert worst.found is None
    assert dataset_scores(arms_of([worst])) == []


def test_old_records_still_load() -> None:
    told = record("a", CLEAN, [iou("cat", 1, 1, 1)]).model_dump()
    for name in ("distortion", "found", "objects"):
        told.pop(name)
    told["scores"][0].pop("eight_bit")
    again = Record.model_validate(told)
    assert (again.found, again.objects, again.distortion, again.scores[0].eight_bit) == (None,) * 4
