"""Average precision: by hand in fractions, by brute force, against pycocotools through torchmetrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from medadv.errors import ConfigError
from medadv.objects import Objects
from medadv.study.average_precision import Curves, Kind, Sight, VocKind, average_precision

KINDS: tuple[Kind, ...] = ("voc07", "voc10", "coco")
VOC: tuple[VocKind, ...] = ("voc07", "voc10")


def row(pattern: str, truths: int) -> list[Sight]:
    """One image with objects side by side; the detections are hits (h) or false (f), the surest first."""
    boxes = torch.tensor([[0.0, 20 * i, 10, 20 * i + 10] for i in range(truths)])
    hits = iter(range(truths))
    found = [
        boxes[next(hits)] if kind == "h" else torch.tensor([50.0, 20 * i, 60, 20 * i + 10])
        for i, kind in enumerate(pattern)
    ]
    scores = torch.linspace(0.9, 0.1, len(pattern)) if pattern else torch.zeros(0)
    labels = torch.ones(len(pattern), dtype=torch.int64)
    reported = Objects(torch.stack(found) if found else torch.zeros(0, 4), labels, scores)
    return [Sight(Objects(boxes, torch.ones(truths, dtype=torch.int64)), reported)]


@pytest.mark.parametrize(
    ("pattern", "truths", "voc07", "voc10"),
    [
        # Precision 1, 1/2, 2/3, 3/4, 3/5, 4/6 at recall 1/5, 1/5, 2/5, 3/5, 3/5, 4/5
        pytest.param("hfhhfh", 5, (3 + 4 * Fraction(3, 4) + 2 * Fraction(2, 3)) / 11, Fraction(19, 30), id="mixed"),
        pytest.param("hhh", 10, Fraction(4, 11), Fraction(3, 10), id="three tenths are three tenths"),
        pytest.param("hhhhhh", 10, Fraction(7, 11), Fraction(6, 10), id="six tenths are six tenths"),
        pytest.param("hhhhhhh", 10, Fraction(8, 11), Fraction(7, 10), id="seven tenths are seven tenths"),
        pytest.param("fh", 1, Fraction(1, 2), Fraction(1, 2), id="second"),
        pytest.param("ffff", 3, Fraction(0), Fraction(0), id="nothing right"),
        pytest.param("", 3, Fraction(0), Fraction(0), id="nothing found"),
        pytest.param("hhhff", 3, Fraction(1), Fraction(1), id="what comes after the last hit costs nothing"),
    ],
)
def test_average_precision_by_hand(pattern: str, truths: int, voc07: Fraction, voc10: Fraction) -> None:
    for kind, expected in (("voc07", voc07), ("voc10", voc10)):
        classes, mean = average_precision(row(pattern, truths), kind)
        assert classes == {1: pytest.approx(float(expected), abs=1e-12)}
        assert mean == classes[1]


def drawn(seed: int, count: int = 5, coarse: bool = False) -> list[Sight]:
    """Pictures of a few objects of three classes; detections near them and elsewhere, with many ties if coarse."""
    g = torch.Generator().manual_seed(seed)

    def boxes(n: int) -> Tensor:
        corner = 40 * torch.rand(n, 2, generator=g)
        return torch.cat([corner, corner + 5 + 10 * torch.rand(n, 2, generator=g)], 1)

    images = []
    for _ in range(count):
        n, others = (int(torch.randint(0, 5, (), generator=g)) for _ in range(2))
        truth = Objects(boxes(n), torch.randint(1, 4, (n,), generator=g), difficult=torch.rand(n, generator=g) < 0.25)
        near = [truth.boxes + torch.randn(n, 4, generator=g) * spread for spread in (0.5, 1.5)]
        labels = torch.cat([truth.labels, truth.labels, torch.randint(1, 5, (others,), generator=g)])
        scores = torch.rand(2 * n + others, generator=g)
        found = Objects(torch.cat([*near, boxes(others)]), labels, (4 * scores).round() / 4 if coarse else scores)
        images.append(Sight(truth, found))
    return images


def iou(a: Sequence[float], b: Sequence[float]) -> Fraction:
    a, b = [Fraction(x) for x in a], [Fraction(x) for x in b]
    high = [max(Fraction(0), min(a[k + 2], b[k + 2]) - max(a[k], b[k])) for k in (0, 1)]
    common = high[0] * high[1]
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
    return common / union


def counted(image: Sight, label: int, least: float) -> tuple[int, int]:
    """Hits and false detections of one class in one image at a threshold, by the words of the devkit."""
    wanted = [
        (box, bool(easy))
        for box, easy, its in zip(
            image.objects.boxes.tolist(), image.objects.counted, image.objects.labels, strict=True
        )
        if its == label
    ]
    assert image.found.scores is not None
    rows = zip(image.found.scores.tolist(), image.found.boxes.tolist(), image.found.labels.tolist(), strict=True)
    taken: set[int] = set()
    false = 0
    for _, box in sorted(((s, b) for s, b, its in rows if its == label and s >= least), key=lambda pair: -pair[0]):
        overlaps = [iou(box, other) for other, _ in wanted]
        nearest = max(range(len(wanted)), key=overlaps.__getitem__, default=None)
        if nearest is None or overlaps[nearest] < Fraction(1, 2) or (nearest in taken and wanted[nearest][1]):
            false += 1
        elif wanted[nearest][1]:
            taken.add(nearest)
    return len(taken), false


def brute_force(images: Sequence[Sight], label: int, kind: Kind) -> Fraction | None:
    """Every threshold by itself, from the start; precision at a recall is a maximum over thresholds."""
    truths = sum(int(((i.objects.labels == label) & i.objects.counted).sum()) for i in images)
    if not truths:
        return None
    points = []
    for least in {s for i in images for s in (i.found.scores.tolist() if i.found.scores is not None else [])}:
        hits, false = (sum(part) for part in zip(*(counted(i, label, least) for i in images), strict=True))
        if hits:
            points.append((Fraction(hits, truths), Fraction(hits, hits + false)))
    steps = (
        [Fraction(k, 10) for k in range(11)] if kind == "voc07" else [Fraction(k + 1, truths) for k in range(truths)]
    )
    return Fraction(sum(max((p for r, p in points if r >= step), default=Fraction(0)) for step in steps), len(steps))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31), st.booleans(), st.sampled_from(VOC))
def test_voc_is_the_devkits_words(seed: int, coarse: bool, kind: VocKind) -> None:
    images = drawn(seed, coarse=coarse)
    expected = {label: brute_force(images, label, kind) for label in range(1, 5)}
    classes, mean = average_precision(images, kind)
    assert classes == {label: pytest.approx(float(ap), abs=1e-12) for label, ap in expected.items() if ap is not None}
    assert mean == (pytest.approx(sum(classes.values()) / len(classes)) if classes else None)


@pytest.mark.parametrize("seed", range(6))
def test_coco_is_torchmetrics(seed: int) -> None:
    images = drawn(seed, 8)
    thresholds = {"iou_thresholds": np.linspace(0.5, 0.95, 10), "rec_thresholds": np.linspace(0, 1, 101)}
    told = {name: values.tolist() for name, values in thresholds.items()}  # its own are float32: .8 is more than 8/10
    theirs = MeanAveragePrecision(backend="pycocotools", class_metrics=True, **told)
    turned = [1, 0, 3, 2]  # column, row, column, row
    theirs.update(
        [{"boxes": i.found.boxes[:, turned], "scores": i.found.scores, "labels": i.found.labels} for i in images],
        [
            {"boxes": i.objects.boxes[:, turned], "labels": i.objects.labels, "iscrowd": (~i.objects.counted).int()}
            for i in images
        ],
    )
    answer = theirs.compute()
    each = zip(answer["classes"].tolist(), answer["map_per_class"].tolist(), strict=True)
    classes, mean = average_precision(images, "coco")
    assert classes == pytest.approx({label: value for label, value in each if value >= 0}, abs=1e-6)
    assert mean == pytest.approx(answer["map"].item(), abs=1e-6)
    assert mean is not None
    assert 0 < mean < 1


def test_they_are_three_numbers() -> None:
    images = drawn(5, 10)
    means = {kind: average_precision(images, kind)[1] for kind in KINDS}
    assert len(set(means.values())) == 3


def surely(objects: Objects, score: float = 1.0) -> Objects:
    """What a perfect detector reports."""
    return Objects(objects.boxes, objects.labels, torch.full((len(objects),), score))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(KINDS))
def test_perfect_is_one_and_nothing_is_none(seed: int, kind: Kind) -> None:
    images = drawn(seed)
    perfect = average_precision([Sight(i.objects, surely(i.objects.take(i.objects.counted))) for i in images], kind)
    nothing = average_precision([Sight(i.objects, surely(Objects.none(2))) for i in images], kind)
    assert perfect[0] == dict.fromkeys(perfect[0], pytest.approx(1.0))
    assert nothing[0] == dict.fromkeys(perfect[0], 0.0)
    assert len(perfect[0]) == len({int(n) for i in images for n in i.objects.labels[i.objects.counted]})


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(KINDS), st.booleans())
def test_the_order_of_images_and_detections_changes_nothing(seed: int, kind: Kind, coarse: bool) -> None:
    images = drawn(seed, coarse=coarse and kind != "coco")
    g = torch.Generator().manual_seed(seed)

    def shuffled(objects: Objects) -> Objects:
        return objects.take(torch.randperm(len(objects), generator=g))

    other = [Sight(shuffled(i.objects), shuffled(i.found)) for i in images]
    other = [other[i] for i in torch.randperm(len(other), generator=g).tolist()]
    assert average_precision(other, kind)[0] == pytest.approx(average_precision(images, kind)[0], abs=1e-12)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(KINDS))
def test_what_is_difficult_never_counts(seed: int, kind: Kind) -> None:
    """Difficult objects far from the others, whether they are found or not."""
    images = drawn(seed)
    far = torch.tensor([[500.0, 500, 520, 520], [600, 600, 630, 640]])
    labels = torch.tensor([1, 2])
    more = [
        Sight(
            Objects(
                torch.cat([i.objects.boxes, far]),
                torch.cat([i.objects.labels, labels]),
                difficult=torch.cat([~i.objects.counted, torch.ones(2, dtype=torch.bool)]),
            ),
            Objects(
                torch.cat([i.found.boxes, far[:1], far[:1]]),
                torch.cat([i.found.labels, labels[:1], labels[:1]]),
                torch.cat([i.found.scores, torch.tensor([0.99, 0.98])]) if i.found.scores is not None else None,
            ),
        )
        for i in images
    ]
    assert average_precision(more, kind)[0] == pytest.approx(average_precision(images, kind)[0], abs=1e-12)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(KINDS))
def test_a_second_detection_of_an_object_is_false(seed: int, kind: Kind) -> None:
    images = drawn(seed)
    once = [Sight(replace(i.objects, difficult=None), surely(i.objects, 0.5)) for i in images]
    first = [Sight(i.objects, replace(i.found, scores=torch.full((len(i.found),), 0.7))) for i in once]
    twice = [
        Sight(
            a.objects,
            Objects(
                *(torch.cat([getattr(x.found, name) for x in (a, a, b)]) for name in ("boxes", "labels", "scores"))
            ),
        )
        for a, b in zip(first, once, strict=True)
    ]
    classes = average_precision(twice, kind)[0]
    if kind != "coco":  # a threshold takes both of a pair that shares a score
        assert classes == dict.fromkeys(classes, pytest.approx(0.5))
    alone = average_precision(once, kind)[0]
    assert all(classes[label] <= alone[label] for label in alone)


@pytest.mark.parametrize("kind", VOC)
def test_a_bootstrap_draw_is_the_same_as_repeated_images(kind: VocKind) -> None:
    images = drawn(3, 6)
    curves = Curves.of(images, kind)
    times = np.array([[1] * 6, [2, 0, 0, 3, 1, 0], [0] * 6])
    found = curves(times)
    for each, values in zip(times[:2], found, strict=False):
        again = average_precision([image for image, n in zip(images, each, strict=True) for _ in range(n)], kind)[0]
        assert {k: v for k, v in zip(curves.labels, values, strict=True) if not np.isnan(v)} == pytest.approx(again)
    assert np.isnan(found[2]).all()


@pytest.mark.parametrize("kind", VOC)
def test_volumes_have_average_precision_too(kind: VocKind) -> None:
    """Pictures one voxel thick."""
    images = drawn(4, 6)

    def thick(objects: Objects) -> Objects:
        boxes = torch.cat(
            [torch.zeros(len(objects), 1), objects.boxes[:, :2], torch.ones(len(objects), 1), objects.boxes[:, 2:]], 1
        )
        return replace(objects, boxes=boxes)

    volumes = [Sight(thick(i.objects), thick(i.found)) for i in images]
    assert average_precision(volumes, kind) == average_precision(images, kind)
    with pytest.raises(ConfigError, match="of pictures"):
        average_precision(volumes, "coco")


@pytest.mark.parametrize("kind", KINDS)
def test_a_data_set_without_anything_has_none(kind: Kind) -> None:
    for images in ([], [Sight(Objects.none(2), surely(Objects.none(2)))]):
        assert average_precision(images, kind) == ({}, None)
    invented = [Sight(Objects.none(2), surely(Objects(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([1]))))]
    assert average_precision(invented, kind) == ({}, None)


@pytest.mark.parametrize("kind", KINDS)
def test_detections_without_scores_are_refused(kind: Kind) -> None:
    bare = row("h", 1)[0]
    with pytest.raises(ConfigError, match="order of their scores"):
        average_precision([Sight(bare.objects, bare.objects)], kind)
