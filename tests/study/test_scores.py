"""Dice and HD95 against MONAI and against their definitions; empty regions."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_dice, compute_hausdorff_distance
from torch import Tensor

from medadv.errors import CaseError, ConfigError, Reason
from medadv.labels import BACKGROUND, BRATS_2018, LabelScheme
from medadv.study.scores import Measure, relative_reduction, rows, score

BINARY = LabelScheme("binary", {BACKGROUND: 0, "lesion": 1})
REGIONS = ("WT", "TC", "ET")


def labels(shape: tuple[int, ...], seed: int) -> Tensor:
    numbers = torch.tensor(sorted(BRATS_2018.numbers.values()))
    return numbers[torch.randint(4, shape, generator=torch.Generator().manual_seed(seed))]


def one(prediction: Tensor, truth: Tensor, spacing: tuple[float, ...], metric: str) -> float:
    measures = score(prediction, truth, BINARY, spacing, ["lesion"])
    return next(m.value for m in measures if m.metric == metric)


def surface(mask: np.ndarray) -> list[tuple[int, ...]]:
    """Voxels of the mask with a face neighbour that is not of it, or that lies outside the image."""
    inside = {tuple(int(i) for i in place) for place in np.argwhere(mask)}
    moves = [tuple(s * (a == b) for b in range(mask.ndim)) for a in range(mask.ndim) for s in (-1, 1)]
    return [p for p in sorted(inside) if any(tuple(map(sum, zip(p, m, strict=True))) not in inside for m in moves)]


def hd95_by_definition(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> float:
    first, second = surface(a), surface(b)
    apart = np.array([[math.dist(np.multiply(p, spacing), np.multiply(q, spacing)) for q in second] for p in first])
    return max(float(np.percentile(apart.min(axis), 95)) for axis in (0, 1))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([(7, 6), (5, 4, 6), (3, 1, 4)]).flatmap(
        lambda shape: st.tuples(
            st.just(shape),
            st.tuples(*(st.floats(0.3, 5) for _ in shape)),
            st.floats(0.05, 0.9),
            st.integers(0, 2**31),
        )
    )
)
def test_hd95_equals_its_definition(drawn: tuple[tuple[int, ...], tuple[float, ...], float, int]) -> None:
    shape, spacing, density, seed = drawn
    g = np.random.default_rng(seed)
    found, wanted = g.random(shape) < density, g.random(shape) < density
    found.flat[g.integers(found.size)] = wanted.flat[g.integers(found.size)] = True
    value = one(torch.tensor(found.astype(int)), torch.tensor(wanted.astype(int)), spacing, "hd95")
    assert value == pytest.approx(hd95_by_definition(found, wanted, spacing), rel=1e-6)


@pytest.mark.parametrize("shape", [(24, 20), (14, 12, 10)])
def test_monai_agrees_where_it_has_an_answer(shape: tuple[int, ...]) -> None:
    prediction, truth = labels(shape, 0), labels(shape, 1)
    prediction[:6] = 0
    spacing = (1.5, 0.7, 3.0)[: len(shape)]
    measures = score(prediction, truth, BRATS_2018, spacing, [*REGIONS, "oedema"])
    assert [(m.region, m.metric) for m in measures] == list(itertools.product([*REGIONS, "oedema"], ["dice", "hd95"]))
    for m in measures:
        p, t = (BRATS_2018.mask(x, m.region)[None, None].float() for x in (prediction, truth))
        with warnings.catch_warnings(action="ignore"):
            expected = (
                compute_dice(p, t)
                if m.metric == "dice"
                else compute_hausdorff_distance(p, t, include_background=True, percentile=95, spacing=spacing)
            )
        assert m.value == pytest.approx(expected.item(), rel=1e-6)
        assert (m.predicted, m.truth, m.hit) == (p.sum(), t.sum(), (p * t).sum())


EMPTY, FULL = torch.zeros(4, 6, 3, dtype=torch.int64), torch.ones(4, 6, 3, dtype=torch.int64)
DIAGONAL = math.hypot(4 * 1.0, 6 * 2.0, 3 * 0.5)


@pytest.mark.parametrize(
    ("prediction", "truth", "dice", "hd95", "monai_dice", "monai_hd95"),
    [
        pytest.param(EMPTY, EMPTY, 1.0, 0.0, math.nan, math.nan, id="both empty"),
        pytest.param(FULL, EMPTY, 0.0, DIAGONAL, math.nan, math.nan, id="invented"),
        pytest.param(EMPTY, FULL, 0.0, DIAGONAL, 0.0, math.nan, id="deleted"),
        pytest.param(FULL, FULL, 1.0, 0.0, 1.0, 0.0, id="equal"),
    ],
)
def test_empty_regions_are_scored_where_monai_has_nan(
    prediction: Tensor, truth: Tensor, dice: float, hd95: float, monai_dice: float, monai_hd95: float
) -> None:
    spacing = (1.0, 2.0, 0.5)
    assert one(prediction, truth, spacing, "dice") == dice
    assert one(prediction, truth, spacing, "hd95") == pytest.approx(hd95)
    with warnings.catch_warnings(action="ignore"):
        p, t = prediction[None, None].float(), truth[None, None].float()
        theirs = compute_dice(p, t).item(), compute_hausdorff_distance(p, t, True, percentile=95).item()
    assert theirs == pytest.approx((monai_dice, monai_hd95), nan_ok=True), "MONAI's answer, which strict replaces"


@given(st.integers(0, 2**31), st.sampled_from([(5, 4), (4, 3, 2), (1, 1, 1)]))
def test_scores_are_finite_bounded_and_symmetric(seed: int, shape: tuple[int, ...]) -> None:
    g = torch.Generator().manual_seed(seed)
    a, b = ((torch.rand(shape, generator=g) < torch.rand((), generator=g) - 0.2).long() for _ in range(2))
    spacing = (2.0, 1.0, 3.0)[: len(shape)]
    there, back = score(a, b, BINARY, spacing, ["lesion"]), score(b, a, BINARY, spacing, ["lesion"])
    assert [m.value for m in there] == [m.value for m in back]
    dice, hd95 = (m.value for m in there)
    assert 0 <= dice <= 1
    assert 0 <= hd95 <= math.hypot(*np.multiply(shape, spacing))


def test_where_the_regions_lie_in_the_image_does_not_matter() -> None:
    small = labels((6, 7, 5), 3), labels((6, 7, 5), 4)
    at_corner, inside = (
        tuple(torch.nn.functional.pad(x, padding) for x in small) for padding in ((0, 6) * 3, (2, 4, 3, 3, 4, 2))
    )
    assert score(*at_corner, BRATS_2018, (1.0, 1.0, 2.0), REGIONS) == score(
        *inside, BRATS_2018, (1.0, 1.0, 2.0), REGIONS
    )


@pytest.fixture
def unchecked() -> Iterator[None]:
    """As users run it: the annotations of shapes are checked in tests only."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("unchecked")
def test_images_of_different_shapes_are_refused() -> None:
    with pytest.raises(CaseError, match=r"\(4, 3, 6\)(.|\n)*\(4, 6, 3\)") as error:
        score(EMPTY.mT, EMPTY, BINARY, (1.0, 1.0, 1.0), ["lesion"])
    assert error.value.reason is Reason.LABEL_GRID


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.0, 0.0, 1.0), (1.0, math.nan, 1.0), (1.0, -1.0, 1.0)])
def test_a_spacing_that_does_not_fit_is_refused(spacing: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="3 positive numbers, in mm"):
        score(EMPTY, FULL, BINARY, spacing, ["lesion"])


def test_an_unknown_region_is_refused() -> None:
    with pytest.raises(ConfigError, match="WT"):
        score(EMPTY, FULL, BINARY, (1.0, 1.0, 1.0), ["WT"])


def test_rows_hold_the_file_and_the_memory_side_by_side() -> None:
    in_file = [Measure("WT", "dice", 0.4, 10, 5, 3), Measure("WT", "hd95", 2.0, 10, 5, 3)]
    in_memory = [Measure("WT", "dice", 0.5, 10, 6, 4), Measure("WT", "hd95", 1.0, 10, 6, 4)]
    dice, hd95 = rows(in_file, in_memory)
    assert (dice.value, dice.computed, dice.policy, dice.truth, dice.predicted, dice.hit) == (
        0.4,
        0.5,
        "strict",
        10,
        5,
        3,
    )
    assert (hd95.metric, hd95.value, hd95.computed) == ("hd95", 2.0, 1.0)


@pytest.mark.parametrize("other", [[], [Measure("TC", "dice", 0.5, 10, 6, 4)], [Measure("WT", "dice", 0.5, 11, 6, 4)]])
def test_scores_of_different_regions_or_truths_are_not_put_side_by_side(other: list[Measure]) -> None:
    with pytest.raises(ConfigError, match="not of the same regions and truth"):
        rows([Measure("WT", "dice", 0.4, 10, 5, 3)], other)


def test_relative_reduction() -> None:
    assert relative_reduction(0.8, 0.2) == pytest.approx(0.75)
    assert relative_reduction(0.5, 0.6) == pytest.approx(-0.2)
    assert relative_reduction(0.0, 0.0) is None
