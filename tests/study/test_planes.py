"""Permuted planes: whole rows, columns and slices of a perturbation in another order (PERM of Xie et al. 2017)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from study.small_study import small
from study.test_conditions import WIDE, attacked, met, scene

from medadv.attack.rng import Rng
from medadv.study.conditions import Need
from medadv.study.controls import AXIS, Permuted, Planes, shuffled_planes

SHAPES = st.sampled_from([(3, 7, 5), (1, 4, 9), (2, 6, 5, 4), (4, 3, 3, 8)])


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(SHAPES, st.integers(0, 2), st.integers(0, 1000))
@settings(max_examples=40)
def test_where_all_is_support_whole_planes_move_and_nothing_else(shape: tuple[int, ...], axis: int, seed: int) -> None:
    """Each plane of the control is one of the perturbation, bit by bit; histogram, L2 and L∞ are those of before."""
    axis %= len(shape) - 1
    change = torch.randn(shape, generator=drawn(seed))
    shuffled = shuffled_planes(change, torch.ones(shape, dtype=torch.bool), axis, drawn(seed + 1))
    before, after = (np.moveaxis(t.numpy(), axis + 1, 0) for t in (change, shuffled))
    order = [next(j for j, plane in enumerate(before) if np.array_equal(plane, each)) for each in after]
    assert sorted(order) == list(range(shape[axis + 1]))
    for c in range(shape[0]):
        assert torch.equal(shuffled[c].flatten().sort().values, change[c].flatten().sort().values)
    assert shuffled.double().square().sum().item() == pytest.approx(change.double().square().sum().item(), rel=1e-12)
    assert torch.equal(shuffled.abs().amax(), change.abs().amax())


@given(SHAPES, st.integers(0, 2), st.integers(0, 1000), st.floats(0.05, 0.95))
@settings(max_examples=40)
def test_any_support_keeps_every_value_and_stays_within_itself(
    shape: tuple[int, ...], axis: int, seed: int, share: float
) -> None:
    axis %= len(shape) - 1
    where = torch.rand(shape, generator=drawn(seed)) < share
    change = torch.randn(shape, generator=drawn(seed + 1)) * where
    shuffled = shuffled_planes(change, where, axis, drawn(seed + 2))
    assert bool((shuffled[~where] == 0).all())
    for c in range(shape[0]):
        assert torch.equal(shuffled[c][where[c]].sort().values, change[c][where[c]].sort().values)


def test_the_support_is_read_plane_by_plane_and_filled_again() -> None:
    """By hand: rows of one, three and two values, read in the order that is drawn."""
    where = torch.tensor([[[1, 0, 0], [1, 1, 1], [0, 1, 1]]]).bool()
    change = torch.tensor([[[1.0, 0, 0], [2, 3, 4], [0, 5, 6]]])
    rows = {0: [1.0], 1: [2.0, 3.0, 4.0], 2: [5.0, 6.0]}
    seen = set()
    for seed in range(20):
        order = torch.randperm(3, generator=drawn(seed)).tolist()
        shuffled = shuffled_planes(change, where, 0, drawn(seed))
        assert shuffled[where].tolist() == [value for row in order for value in rows[row]]
        seen.add(tuple(order))
    assert len(seen) > 3


@pytest.mark.parametrize("planes", AXIS)
def test_the_control_moves_planes_across_its_own_axis_alike_in_all_modalities(planes: Planes) -> None:
    """Planted fault: another axis, or an order of its own for each modality, keeps no plane of all modalities."""
    s = scene(3)
    s = replace(s, support=torch.ones_like(s.x, dtype=torch.bool))
    attack = attacked(WIDE)
    stored = s.x + torch.randn(s.x.shape, generator=drawn(4))
    shown = Permuted(attack, planes).show(replace(s, stored={Need(attack.name): stored})).x
    before, after = ((x - s.x)[0].movedim(1 + AXIS[planes], 0) for x in (stored, shown))
    distance = (after[:, None] - before[None]).abs().flatten(2).amax(2)
    order = distance.argmin(1)
    assert order.sort().values.tolist() == list(range(8))
    assert distance.amin(1).amax() < 2e-4  # the last digit of intensities around 500
    assert order.tolist() != list(range(8))


def test_draws_differ_and_the_first_has_no_number() -> None:
    s, attack = scene(1), attacked(WIDE)
    stored = {Need(attack.name): s.x + torch.randn(s.x.shape, generator=drawn(5)) * s.support}
    shown = []
    for draw in (1, 2, 3):
        control = Permuted(attack, "rows", draw)
        rng = Rng.seeded(0, ["case"]).fork(str(control.settings()))  # as a cell forks it
        shown.append(control.show(replace(s, stored=stored, rng=rng)).x)
    assert not torch.equal(shown[0], shown[1])
    assert not torch.equal(shown[1], shown[2])
    names = [Permuted(attack, planes, draw).name for planes in (None, "rows") for draw in (1, 2)]  # type: ignore[arg-type]
    of = attack.name
    assert names == [f"permuted-{of}", f"permuted-2-{of}", f"permuted-rows-{of}", f"permuted-rows-2-{of}"]


def test_a_study_has_as_many_draws_of_each_kind_as_it_asks_for() -> None:
    attacks = {"fgsm": {"preset": "fgsm", "budgets": ["0.1 sigma"]}}
    study = small(Path("data"), attacks=attacks, controls=["permuted", "rows", "slices"], permutations=2)
    controls = [c for c in met(study) if isinstance(c, Permuted)]
    assert [c.name.removesuffix("fgsm-0.1-sigma") for c in controls] == [
        f"permuted-{how}" for how in ("", "2-", "rows-", "rows-2-", "slices-", "slices-2-")
    ]
    families = [c.presented.family for c in controls]
    assert families[0] == "permuted fgsm"
    assert len(set(families)) == 6
    assert {c.presented.of for c in controls} == {"fgsm-0.1-sigma"}
    assert controls[3].presented.title == "FGSM, rows permuted (draw 2)"
    assert controls[0].settings() == {"kind": "permuted", "of": controls[0].of.settings()}  # as ever: keys stay
