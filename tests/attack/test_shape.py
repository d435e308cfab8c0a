"""Figures that are drawn: how many voxels, where, of which tissue, and what counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from attack.stand_ins import ORGANS, organs
from runtime_types import unchecked
from torch import Tensor

from medadv.attack.relabel import Fill
from medadv.attack.rng import Rng
from medadv.attack.shape import Shape
from medadv.attack.targets import Targets
from medadv.errors import ConfigError
from medadv.labels import BRATS_2018, LabelScheme
from medadv.victims.head import Sigmoid, Softmax, Voxels

SEA = LabelScheme("sea", {"background": 0, "boat": 1, "buoy": 2, "bird": 3})


def asked(shape: Shape, truth: Tensor, head: Softmax | Sigmoid | None = None, seed: int = 0) -> Targets:
    targets = Voxels.of(head or Softmax(SEA), truth)
    return shape(targets, torch.zeros(0, 0, 0), Rng.seeded(seed, len(truth)))


def figure(kind: str, sides: tuple[int, ...], **settings: object) -> np.ndarray:
    return asked(Shape(kind, "boat", **settings), torch.zeros(1, *sides, dtype=torch.int64)).truth[0].numpy() == 1


@pytest.mark.parametrize("sides", [(12,), (12, 20), (16, 12, 14)])
def test_a_square_has_the_volume_of_a_box(sides: tuple[int, ...]) -> None:
    for size in (1 / 3, 0.5, 1.0):
        drawn = figure("square", sides, size=size)
        assert drawn.sum() == round(size * 12) ** len(sides)
        assert np.array_equal(drawn, np.flip(drawn))  # in the middle


def test_a_circle_is_the_voxels_whose_centres_are_near() -> None:
    drawn = figure("circle", (30, 40), size=0.8)
    rows, columns = np.mgrid[:30, :40]
    assert np.array_equal(drawn, np.hypot(rows + 0.5 - 15, columns + 0.5 - 20) <= 12)
    assert drawn.sum() == pytest.approx(math.pi * 12**2, rel=0.02)
    assert figure("circle", (40, 40, 44), size=0.9).sum() == pytest.approx(4 / 3 * math.pi * 18**3, rel=0.02)


def test_a_diamond_is_half_a_square() -> None:
    drawn = figure("diamond", (41, 61), size=41 / 41)
    rows, columns = np.mgrid[:41, :61]
    assert np.array_equal(drawn, np.abs(rows - 20) + np.abs(columns - 30) <= 20.5)
    assert drawn.sum() == 2 * 20**2 + 2 * 20 + 1  # the centred square number of 20


def test_strips_are_four_bars_and_three_gaps() -> None:
    drawn = figure("strips", (28, 30), size=1.0)
    bars = np.repeat([True, False] * 4, 4)[:28]
    expected = np.zeros((28, 30), dtype=bool)
    expected[:, 1:29] = bars[:, None]
    assert np.array_equal(drawn, expected)


def test_the_centre_is_a_share_of_each_side() -> None:
    drawn = figure("square", (20, 40), size=0.2, centre=(0.25, 0.9))
    expected = np.zeros((20, 40), dtype=bool)
    expected[3:7, 34:38] = True
    assert np.array_equal(drawn, expected)
    assert np.array_equal(figure("circle", (20, 40), centre=(0.5, 0.5)), figure("circle", (20, 40)))


def test_outside_the_figure_all_stays() -> None:
    truth = organs((2, 12, 12))
    inside = asked(Shape("square", "spleen"), truth, Softmax(ORGANS))
    everywhere = asked(Shape("square", "spleen", where="everywhere"), truth, Softmax(ORGANS))
    changed = asked(Shape("square", "spleen", where="changed"), truth, Softmax(ORGANS))
    mask = torch.zeros(12, 12, dtype=torch.bool)
    mask[3:9, 3:9] = True
    assert torch.equal(inside.truth, torch.where(mask, 5, truth))
    assert torch.equal(everywhere.labels, inside.labels)
    assert torch.equal(inside.where, mask.expand(2, -1, -1))
    assert everywhere.where.all()
    assert torch.equal(changed.where, mask & (truth != 5))


def test_void_voxels_never_count() -> None:
    truth = torch.zeros(1, 8, 8, dtype=torch.int64)
    truth[:, 4] = 255
    scheme = LabelScheme("sea", SEA.numbers, void=255)
    wanted = asked(Shape("square", "boat", size=1.0), truth, Softmax(scheme))
    assert torch.equal(wanted.where, truth != 255)


def test_a_region_head_draws_it_in_all_its_regions() -> None:
    head = Sigmoid(BRATS_2018, ("WT", "TC", "ET"))
    wanted = asked(Shape("square", "oedema"), torch.zeros(2, 8, 8, dtype=torch.int64), head)
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[2:6, 2:6] = True
    assert torch.equal(wanted.where, mask.expand(2, 3, 8, 8))
    assert torch.equal(wanted.labels[:, 0] == 1, mask.expand(2, 8, 8))
    assert not wanted.labels[:, 1:].any()


def test_a_tissue_is_drawn_among_those_that_are_absent() -> None:
    truth = torch.zeros(3, 8, 8, dtype=torch.int64)
    truth[0, 0, 0], truth[1, 0, 0] = 1, 2
    truth[2, 0, :2] = torch.tensor([1, 3])
    drawn = [asked(Shape("circle"), truth, seed=seed).truth[:, 4, 4].tolist() for seed in range(20)]
    assert {first for first, _, _ in drawn} == {2, 3}
    assert {second for _, second, _ in drawn} == {1, 3}
    assert {third for _, _, third in drawn} == {2}
    alone = asked(Shape("circle"), truth[1:2], seed=4)
    assert alone.truth.shape == (1, 8, 8)
    again = [asked(Shape("circle"), truth, seed=seed).truth[:, 4, 4].tolist() for seed in range(20)]
    assert again == drawn


def test_where_nothing_is_absent_a_tissue_must_be_named() -> None:
    truth = torch.arange(4).view(1, 2, 2)
    with pytest.raises(ConfigError, match="none is left") as refusal:
        asked(Shape("square"), truth)
    assert "name" in refusal.value.details["try"]
    assert asked(Shape("square", "bird"), truth).truth.shape == (1, 2, 2)


@pytest.mark.parametrize(
    "settings", [{"kind": "star"}, {"size": 0.0}, {"size": 1.5}, {"centre": (0.5, 1.5)}, {"centre": [0.5]}]
)
def test_what_is_no_figure_is_advice(settings: dict[str, object]) -> None:
    with unchecked(), pytest.raises(ConfigError):
        asked(Shape(**{"kind": "square", "tissue": "boat", **settings}), torch.zeros(1, 4, 4, dtype=torch.int64))


def test_a_figure_over_all_is_fill() -> None:
    """A figure over all of a picture is Fill."""
    truth = organs((1, 6, 6))
    whole = asked(Shape("square", "liver", size=1.0, where="everywhere"), truth, Softmax(ORGANS))
    filled = Fill("liver", "everywhere")(Voxels.of(Softmax(ORGANS), truth), torch.zeros(0, 0, 0), Rng.seeded(0, 1))
    assert torch.equal(whole.labels, filled.labels)
    assert torch.equal(whole.where, filled.where)
