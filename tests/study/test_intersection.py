"""IoU against torchmetrics and against its definition: of an image, of a data set, and without void pixels."""

from __future__ import annotations

import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics.classification import MulticlassJaccardIndex
from torchmetrics.segmentation import MeanIoU

from medadv.errors import ConfigError
from medadv.labels import BACKGROUND, LabelScheme
from medadv.study.intersection import by_confusion, intersection_over_union, mean_over_classes
from medadv.study.metrics import MetricName
from medadv.study.records import ALL
from medadv.study.scores import Measure, score

CLASSES = (BACKGROUND, "cat", "dog", "cow")
SCHEME = LabelScheme("animals", {name: 10 * number for number, name in enumerate(CLASSES)}, void=255)
TISSUES = SCHEME.tissues


def maps(count: int, seed: int, void: float = 0.1) -> tuple[Tensor, Tensor]:
    """Predictions and truths of small pictures in stored numbers; some of the truth is void."""
    g = torch.Generator().manual_seed(seed)
    prediction, truth = (10 * torch.randint(0, 4, (count, 6, 7), generator=g) for _ in range(2))
    truth = torch.where(torch.rand(truth.shape, generator=g) < 0.4, prediction, truth)
    truth[torch.rand(truth.shape, generator=g) < void] = 255
    return prediction, truth


def measured(
    prediction: Tensor, truth: Tensor, regions: tuple[str, ...], metrics: tuple[MetricName, ...] = ("iou",)
) -> list[Measure]:
    return score(prediction, truth, SCHEME, (1.0, 1.0), regions, metrics)


def counts(prediction: Tensor, truth: Tensor) -> np.ndarray:
    each = [measured(p, t, TISSUES) for p, t in zip(prediction, truth, strict=True)]
    return np.array([[(m.truth, m.predicted, m.hit) for m in row] for row in each])


@pytest.mark.parametrize("void", [0.0, 0.3])
def test_the_iou_of_a_data_set_is_torchmetrics(void: float) -> None:
    prediction, truth = maps(5, 1, void)
    index = MulticlassJaccardIndex(4, ignore_index=25, average=None)
    theirs = index(prediction // 10, truth // 10)  # 255 // 10
    found = by_confusion(counts(prediction, truth))[0]
    assert found.tolist() == pytest.approx(theirs.tolist(), abs=1e-6)
    mean = MulticlassJaccardIndex(4, ignore_index=25)(prediction // 10, truth // 10)
    assert mean_over_classes(found[None])[0] == pytest.approx(mean.item(), abs=1e-6)


def test_the_iou_of_an_image_is_torchmetrics() -> None:
    prediction, truth = maps(4, 2, void=0)
    theirs = MeanIoU(4, per_class=False, include_background=True, input_format="index")
    for p, t in zip(prediction, truth, strict=True):
        (over_all,) = measured(p, t, (ALL,))
        assert over_all.value == pytest.approx(theirs(p[None] // 10, t[None] // 10).item(), abs=1e-6)
        assert (over_all.truth, over_all.predicted, over_all.hit) == (42, 42, (p == t).sum())


def test_iou_by_hand() -> None:
    """Three of five cats found, one invented in a dog's place, and one on void."""
    truth = torch.tensor([[10, 10, 10, 10, 10, 20, 20, 255, 0, 0]])
    prediction = torch.tensor([[10, 10, 10, 0, 0, 10, 20, 10, 0, 0]])
    cat, dog, cow, background, over_all = measured(prediction, truth, ("cat", "dog", "cow", BACKGROUND, ALL))
    assert (cat.truth, cat.predicted, cat.hit, cat.value) == (5, 4, 3, 3 / 6)
    assert (dog.value, background.value) == (1 / 2, 2 / 4)
    assert cow.value == 1, "neither shows a cow"
    assert over_all.value == 0.5, "the mean over what is shown: the cow is not"
    assert (over_all.truth, over_all.predicted, over_all.hit) == (9, 9, 6)


@pytest.mark.parametrize(
    ("truth", "predicted", "hit", "value"), [(0, 0, 0, 1.0), (0, 3, 0, 0.0), (3, 0, 0, 0.0), (4, 3, 2, 0.4)]
)
def test_an_empty_class_is_scored_strictly(truth: int, predicted: int, hit: int, value: float) -> None:
    assert intersection_over_union(truth, predicted, hit) == value


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([0.0, 0.5, 1.0]))
def test_void_pixels_count_in_no_metric(seed: int, void: float) -> None:
    (prediction,), (truth,) = maps(1, seed, void)
    other = torch.where(truth == 255, 10 * torch.randint(0, 4, truth.shape), prediction)
    names = (*TISSUES, ALL)
    metrics: tuple[MetricName, ...] = ("dice", "hd95", "iou")
    found = measured(prediction, truth, names, metrics)
    assert found == measured(other, truth, names, metrics)
    assert all(math.isfinite(m.value) for m in found)
    for m in found:
        if m.metric != "hd95":
            assert 0 <= m.value <= 1


@given(st.integers(0, 2**31))
def test_iou_follows_from_dice(seed: int) -> None:
    (prediction,), (truth,) = maps(1, seed)
    found = measured(prediction, truth, TISSUES, ("iou", "dice"))
    for iou, dice in zip(found[::2], found[1::2], strict=True):
        assert (iou.metric, dice.metric) == ("iou", "dice")
        assert dice.value == pytest.approx(2 * iou.value / (1 + iou.value))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.permutations(range(5)))
def test_the_order_of_images_changes_nothing(seed: int, order: list[int]) -> None:
    each = counts(*maps(5, seed))
    assert by_confusion(each[order]).tolist() == by_confusion(each).tolist()


def test_a_bootstrap_draw_is_the_same_as_repeated_images() -> None:
    each = counts(*maps(4, 3))
    times = np.array([[1, 1, 1, 1], [0, 3, 1, 0]])
    found = by_confusion(each, times)
    assert found[0].tolist() == by_confusion(each)[0].tolist()
    assert found[1].tolist() == by_confusion(each[[1, 1, 1, 2]])[0].tolist()


def test_a_data_set_is_no_mean_of_images() -> None:
    """One large object missed, one small one found: 10/101 of the pixels, half of the images."""
    each = np.array([[[100, 0, 0]], [[1, 1, 1]]])
    assert by_confusion(each).tolist() == [[float(Fraction(1, 101))]]


def test_a_class_that_nobody_shows_is_in_no_mean() -> None:
    each = np.array([[[4, 2, 2], [0, 0, 0], [0, 5, 0]]])
    with warnings.catch_warnings(action="error"):
        found = by_confusion(each)
        assert np.isnan(found).tolist() == [[False, True, False]]
        assert mean_over_classes(found).tolist() == [0.25]
        assert np.isnan(mean_over_classes(np.full((1, 2), np.nan))).all()


def test_a_metric_of_objects_is_none_of_label_maps() -> None:
    (prediction,), (truth,) = maps(1, 0)
    with pytest.raises(ConfigError, match="recall"):
        measured(prediction, truth, ("cat",), ("recall",))
