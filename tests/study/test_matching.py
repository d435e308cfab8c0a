"""Detections matched with objects: Pascal VOC's rule and COCO's, by hand and against pycocotools."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from medadv.errors import ConfigError
from medadv.labels import BACKGROUND, LabelScheme
from medadv.objects import Objects
from medadv.study.matching import Rule, match
from medadv.study.records import ALL
from medadv.study.scores import Measure, rows, score_objects

SCHEME = LabelScheme("animals", {BACKGROUND: 0, "cat": 3, "dog": 7}, {"pet": ("cat", "dog")})
RULES: tuple[Rule, ...] = ("voc", "coco")


def objects(*places: tuple[float, ...], labels: list[int] | None = None, **rest: list[float] | list[bool]) -> Objects:
    """Boxes as (row, column, row, column); cats, unless said otherwise."""
    boxes = torch.tensor(places, dtype=torch.float32).reshape(-1, 4)
    return Objects(
        boxes,
        torch.tensor(labels or [3] * len(boxes), dtype=torch.int64),
        *(torch.tensor(rest[name]) if name in rest else None for name in ("scores", "difficult")),
    )


def drawn(seed: int, count: int = 6) -> tuple[Objects, Objects]:
    """What is to be found, and detections: each object is met a few times, more or less well, and some are nowhere."""
    g = torch.Generator().manual_seed(seed)
    corner = 40 * torch.rand(count, 2, generator=g)
    boxes = torch.cat([corner, corner + 4 + 12 * torch.rand(count, 2, generator=g)], 1)
    difficult = torch.rand(count, generator=g) < 0.3
    again = torch.cat([boxes + torch.randn(count, 4, generator=g) * s for s in (0.3, 1.5, 2.5)])
    again[:, 2:] = torch.maximum(again[:, 2:], again[:, :2] + 1)
    labels = torch.randint(0, 2, (count,), generator=g) * 4 + 3
    found = Objects(again, labels.repeat(3), torch.rand(3 * count, generator=g))
    return Objects(boxes, labels, difficult=difficult), found


def outcome(found: Objects, wanted: Objects, rule: Rule) -> str:
    """One letter a detection: hit, ignored or false."""
    matching = match(found, wanted, rule)
    return "".join("h" if h else "i" if i else "f" for h, i in zip(matching.hit, matching.ignored, strict=True))


@pytest.mark.parametrize("rule", RULES)
def test_each_object_is_found_once(rule: Rule) -> None:
    wanted = objects((0, 0, 10, 10), (50, 50, 60, 60))
    found = objects((0, 0, 10, 9), (0, 0, 10, 10), (50, 50, 60, 54), (0, 0, 10, 8), scores=[0.6, 0.9, 0.8, 0.7])
    assert outcome(found, wanted, rule) == "fhff", "the surest takes it; .4 is too little"


@pytest.mark.parametrize("rule", RULES)
def test_an_overlap_of_one_half_is_enough(rule: Rule) -> None:
    wanted = objects((0, 0, 3, 10))
    assert outcome(objects((0, 0, 3, 5), scores=[0.9]), wanted, rule) == "h"
    assert outcome(objects((0, 0, 3, 4.99), scores=[0.9]), wanted, rule) == "f"


@pytest.mark.parametrize("rule", RULES)
def test_the_class_must_agree(rule: Rule) -> None:
    wanted = objects((0, 0, 10, 10), labels=[7])
    assert outcome(objects((0, 0, 10, 10), (0, 0, 10, 10), labels=[3, 7], scores=[0.9, 0.8]), wanted, rule) == "fh"


def test_voc_takes_the_nearest_object_and_no_other() -> None:
    """Both detections overlap the first object most; COCO lets the second take the one that is free."""
    wanted = objects((0, 0, 10, 10), (0, 2, 10, 12))
    found = objects((0, 0, 10, 10), (0, 0.5, 10, 10.5), scores=[0.9, 0.8])
    assert outcome(found, wanted, "voc") == "hf"
    assert outcome(found, wanted, "coco") == "hh"


def test_what_finds_a_difficult_object_is_ignored_each_time() -> None:
    wanted = objects((0, 0, 10, 10), difficult=[True])
    found = objects((0, 0, 10, 10), (0, 0, 10, 9), (0, 0, 10, 3), scores=[0.9, 0.8, 0.7])
    assert outcome(found, wanted, "voc") == "iif"
    assert outcome(found, wanted, "coco") == "iii", "a crowd: the third lies in it"


def test_coco_prefers_what_counts_to_a_crowd() -> None:
    wanted = objects((0, 0, 10, 10), (0, 3, 10, 13), difficult=[True, False])
    found = objects((0, 0, 10, 10), scores=[0.9])
    assert outcome(found, wanted, "voc") == "i"
    assert outcome(found, wanted, "coco") == "h"


@pytest.mark.parametrize("rule", RULES)
def test_boxes_without_area_are_false_and_find_nothing(rule: Rule) -> None:
    wanted = objects((0, 0, 10, 10), (5, 5, 5, 5), difficult=[False, True])
    assert outcome(objects((5, 5, 5, 5), (3, 3, 3, 9), scores=[0.9, 0.8]), wanted, rule) == "ff"


def test_volumes_are_matched_as_pictures_are() -> None:
    wanted = Objects(torch.tensor([[0.0, 0, 0, 4, 4, 4]]), torch.tensor([3]))
    boxes = torch.tensor([[0.0, 0, 0, 4, 4, 2], [0, 0, 0, 4, 4, 1]])
    found = Objects(boxes, torch.tensor([3, 3]), torch.tensor([0.5, 1]))
    assert outcome(found, wanted, "voc") == "hf"


def by_pycocotools(wanted: Objects, found: Objects) -> tuple[set[float], set[float]]:
    """The scores of the detections that hit, and of those that are ignored, at an overlap of .5."""
    with redirect_stdout(io.StringIO()):
        sides = []
        for each in (wanted, found):
            low, high = each.boxes.double()[:, :2], each.boxes.double()[:, 2:]
            both = torch.cat([low.flip(1), (high - low).flip(1)], 1).tolist()
            scores = each.scores.tolist() if each.scores is not None else [0.0] * len(each)
            rows = zip(both, each.labels.tolist(), (~each.counted).int().tolist(), scores, strict=True)
            side = COCO()
            side.dataset = {
                "images": [{"id": 0}],
                "categories": [{"id": 3}, {"id": 7}],
                "annotations": [
                    {"id": i, "image_id": 0, "category_id": c, "bbox": b, "area": b[2] * b[3], "iscrowd": d, "score": s}
                    for i, (b, c, d, s) in enumerate(rows, start=1)
                ],
            }
            side.createIndex()
            sides.append(side)
        evaluation = COCOeval(*sides, "bbox")
        evaluation.evaluate()
    hit, ignored = set(), set()
    for result in evaluation.evalImgs:
        if result is not None and result["aRng"][1] == 1e10 and not result["aRng"][0]:
            for score, matched, left in zip(
                result["dtScores"], result["dtMatches"][0], result["dtIgnore"][0], strict=True
            ):
                (ignored if left else hit if matched else set()).add(score)
    return hit, ignored


@pytest.mark.parametrize("seed", range(12))
def test_coco_is_pycocotools(seed: int) -> None:
    wanted, found = drawn(seed)
    matching = match(found, wanted, "coco")
    assert found.scores is not None
    scores = np.array(found.scores.tolist())
    hit, ignored = by_pycocotools(wanted, found)
    assert set(scores[matching.hit]) == hit
    assert set(scores[matching.ignored]) == ignored
    assert hit, "else this shows nothing"


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(RULES), st.booleans())
def test_the_order_of_lists_changes_nothing(seed: int, rule: Rule, tied: bool) -> None:
    wanted, found = drawn(seed)
    if tied:
        found = replace(found, scores=torch.full((len(found),), 0.5))
    there, back = (torch.randperm(n, generator=torch.Generator().manual_seed(seed)) for n in (len(wanted), len(found)))
    one, other = match(found, wanted, rule), match(found.take(back), wanted.take(there), rule)
    assert one.hit[back].tolist() == other.hit.tolist()
    assert one.ignored[back].tolist() == other.ignored.tolist()


def test_detections_without_scores_are_refused() -> None:
    for scores in ({}, {"scores": [float("nan")]}):
        with pytest.raises(ConfigError, match="order of their scores"):
            match(objects((0, 0, 1, 1), **scores), objects((0, 0, 1, 1)))


# Scores of one image


def told(found: Objects, wanted: Objects, regions: tuple[str, ...], confidence: float = 0.5) -> list[Measure]:
    return score_objects(found, wanted, SCHEME, regions, confidence=confidence)


def test_recall_and_false_positives_by_hand() -> None:
    wanted = objects((0, 0, 9, 9), (20, 0, 29, 9), (40, 0, 49, 9), labels=[3, 3, 7], difficult=[False, False, True])
    found = objects(
        (0, 0, 9, 9), (0, 0, 9, 8), (20, 0, 29, 9), (40, 0, 49, 9), (70, 0, 79, 9),
        labels=[3, 3, 3, 7, 7], scores=[0.9, 0.8, 0.4, 0.9, 0.9],
    )  # fmt: skip
    measures = told(found, wanted, ("cat", "dog", "pet", ALL, BACKGROUND))
    assert [(m.region, m.metric, m.value) for m in measures] == [
        ("cat", "recall", 0.5),
        ("cat", "false positives", 1.0),
        ("dog", "recall", 1.0),
        ("dog", "false positives", 1.0),
        ("pet", "recall", 0.5),
        ("pet", "false positives", 2.0),
        ("all", "recall", 0.5),
        ("all", "false positives", 2.0),
        ("background", "recall", 1.0),
        ("background", "false positives", 0.0),
    ]
    cat, dog = measures[0], measures[2]
    assert (cat.truth, cat.predicted, cat.hit) == (2, 2, 1), "what is unsure does not count"
    assert (dog.truth, dog.predicted, dog.hit) == (0, 1, 0), "what is difficult counts neither way"
    assert told(found, wanted, ("cat",), confidence=0.4)[0].value == 1.0


def test_an_image_without_objects_has_a_recall_of_one() -> None:
    nothing = replace(Objects.none(2), scores=torch.zeros(0))
    assert [m.value for m in told(nothing, Objects.none(2), (ALL,))] == [1.0, 0.0]
    assert [m.value for m in told(nothing, objects((0, 0, 2, 2)), (ALL,))] == [0.0, 0.0]
    assert [m.value for m in told(objects((0, 0, 2, 2), scores=[0.9]), Objects.none(2), (ALL,))] == [1.0, 1.0]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 1))
def test_one_more_detection_of_the_same_is_one_more_false_one(seed: int, confidence: float) -> None:
    wanted, found = drawn(seed)
    assert found.scores is not None
    twice = Objects(*(torch.cat([part, part]) for part in (found.boxes, found.labels, found.scores)))
    once, again = told(found, wanted, (ALL,), confidence), told(twice, wanted, (ALL,), confidence)
    assert once[0].value == again[0].value
    assert once[0].hit == again[0].hit
    assert again[1].value == 2 * once[1].value + once[0].hit
    assert once[1].value == once[1].predicted - once[1].hit


def test_rows_hold_the_eight_bit_copy_beside_the_file() -> None:
    file, memory, copy = ([Measure(ALL, "recall", value, 2, 2, hit)] for value, hit in ((0.5, 1), (1.0, 2), (0.0, 0)))
    (row,) = rows(file, memory, copy)
    assert (row.value, row.computed, row.eight_bit) == (0.5, 1.0, 0.0)
    assert rows(file, memory)[0].eight_bit is None
    with pytest.raises(ConfigError, match="not of the same regions and truth"):
        rows(file, memory, [Measure(ALL, "recall", 0.5, 3, 2, 1)])
