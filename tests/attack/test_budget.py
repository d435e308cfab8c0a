"""Budgets in every unit, against NumPy's definitions; what is read and written; what is refused."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from attack.stand_ins import normal
from hypothesis import given
from hypothesis import strategies as st
from runtime_types import unchecked

from medadv.attack.budget import Budget, Scales, Unit
from medadv.errors import BudgetError

SPAN = (-100.0, 410.0)

DEFINITIONS = {
    Unit.SIGMA: np.std,
    Unit.STORED: lambda v: 1.0,
    Unit.PERCENTILE: lambda v: np.percentile(v, 99) - np.percentile(v, 1),
    Unit.MINMAX: np.ptp,
    Unit.GREY: lambda v: (SPAN[1] - SPAN[0]) / 255,
}


@pytest.mark.parametrize("unit", Unit)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(17,), (4, 9), (5, 6, 7)])
def test_each_unit_is_what_numpy_says(unit: Unit, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x = (normal((2, 3, *shape)) * torch.tensor([1.0, 300.0, 1e5]).view(1, 3, *[1] * len(shape)) + 50).to(dtype)
    support = normal((2, 3, *shape), seed=1) > -0.5
    radius = Budget(0.3, unit).resolve(Scales(x, support, SPAN))
    assert radius.dtype == torch.float64
    for i, j in np.ndindex(2, 3):
        voxels = x[i, j][support[i, j]].double().numpy()
        np.testing.assert_allclose(radius[i, j].item(), 0.3 * DEFINITIONS[unit](voxels), rtol=1e-12)


def test_grey_levels_share_the_support_where_there_is_no_range() -> None:
    x = torch.tensor([[[0.0, 10.0, 265.0]]])
    assert Budget(2.0, Unit.GREY).resolve(Scales(x, x != 0)).item() == 2.0


def test_each_modality_has_its_own_amount() -> None:
    x = normal((2, 3, 40))
    scales = Scales(x, torch.ones_like(x, dtype=torch.bool))
    radius = Budget((0.1, 0.0, 3.0)).resolve(scales)
    np.testing.assert_allclose(radius.numpy(), x.numpy().std(2) * [0.1, 0, 3], rtol=1e-12)


def test_a_modality_without_support_has_no_budget() -> None:
    x = torch.stack([torch.ones(5), torch.zeros(5)])[None]
    for unit in Unit:
        assert Budget(1.0, unit).resolve(Scales(x, x != 0))[0, 1] == 0


@given(st.integers(1, 60), st.integers(0, 2**31))
def test_percentiles_are_numpys_at_every_number_of_voxels(n: int, seed: int) -> None:
    x = torch.tensor(np.random.default_rng(seed).normal(size=(1, 1, n)))
    radius = Budget(1.0, Unit.PERCENTILE).resolve(Scales(x, torch.ones_like(x, dtype=torch.bool)))
    low, high = np.percentile(x.numpy(), [1, 99])
    np.testing.assert_allclose(radius.item(), high - low, rtol=1e-12, atol=1e-14)


def test_one_radius_is_told_in_every_unit() -> None:
    x, support = normal((2, 2, 90)) * 40, normal((2, 2, 90), seed=1) > 0
    scales = Scales(x, support, SPAN)
    radius = Budget(0.25).resolve(scales)
    told = scales.equivalents(radius)
    assert set(told) == set(Unit)
    for unit, amount in told.items():
        for i in range(2):
            back = Budget(tuple(amount[i].tolist()), unit).resolve(Scales(x[i : i + 1], support[i : i + 1], SPAN))
            torch.testing.assert_close(back[0], radius[i])
    torch.testing.assert_close(told[Unit.SIGMA], torch.full((2, 2), 0.25, dtype=torch.float64))


def test_a_constant_modality_has_no_sigma_and_no_division() -> None:
    x = torch.full((1, 1, 9), 7.0)
    scales = Scales(x, x != 0)
    told = scales.equivalents(Budget(2.0, Unit.STORED).resolve(scales))
    assert told[Unit.SIGMA].item() == 0
    assert told[Unit.STORED].item() == 2.0


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("0.1 sigma", Budget(0.1)),
        ("0.1sigma", Budget(0.1)),
        ("0.1 σ", Budget(0.1)),
        ("0.1", Budget(0.1)),
        (0.1, Budget(0.1)),
        (2, Budget(2.0)),
        (" 20 stored ", Budget(20.0, Unit.STORED)),
        ("0.02 p1-p99", Budget(0.02, Unit.PERCENTILE)),
        ("0.02 MinMax", Budget(0.02, Unit.MINMAX)),
        ("8 0-255", Budget(8.0, Unit.GREY)),
        ("8 255", Budget(8.0, Unit.GREY)),
        ("1e-3 sigma", Budget(1e-3)),
        ("0.1/0.2 sigma", Budget((0.1, 0.2))),
    ],
)
def test_budgets_are_read(text: str | float, budget: Budget) -> None:
    assert Budget.parse(text) == budget
    assert Budget.parse(budget) is budget


@given(
    st.floats(0, 1e300) | st.lists(st.floats(0, 1e300), min_size=2, max_size=4).map(tuple),
    st.sampled_from(list(Unit)),
)
def test_what_is_written_is_read_back_exactly(amount: float | tuple[float, ...], unit: Unit) -> None:
    budget = Budget(amount, unit)
    assert Budget.parse(str(budget)) == budget


def test_amounts_are_written_shortly() -> None:
    assert str(Budget(8.0, Unit.GREY)) == "8 0-255"
    assert str(Budget((0.05, 0.1))) == "0.05/0.1 sigma"


@pytest.mark.parametrize("amount", [-0.1, math.nan, math.inf, -math.inf, (0.1, -0.1), (0.1, math.nan)])
def test_amounts_that_cannot_be_meant_are_refused(amount: float | tuple[float, ...]) -> None:
    with pytest.raises(BudgetError, match="finite amount that is not negative"):
        Budget(amount)


@pytest.mark.parametrize("text", ["8/255", " 8/255 ", "8/255.0"])
def test_a_fraction_of_255_is_no_amount_of_sigma(text: str) -> None:
    with pytest.raises(BudgetError, match="need their unit") as refusal:
        Budget.parse(text)
    assert refusal.value.details["try"] == 'write "8 0-255"'
    assert Budget.parse("8/255 sigma") == Budget((8.0, 255.0))  # whoever says so


@pytest.mark.parametrize("text", ["0.1/0.2", "0.1/0.2/0.1/0.3", "1/255/255"])
def test_several_amounts_need_their_unit(text: str) -> None:
    with pytest.raises(BudgetError, match="need their unit") as refusal:
        Budget.parse(text)
    assert refusal.value.details["try"] == f'write "{text} sigma"'


def test_amounts_and_units_are_taken_in_any_plain_form() -> None:
    with unchecked():
        assert Budget([0.1, 0.2]) == Budget((0.1, 0.2))
        assert hash(Budget([1, 2], "stored")) == hash(Budget((1.0, 2.0), Unit.STORED))
        assert Budget(torch.tensor(0.5)) == Budget(0.5)
        assert Budget(8, "0-255").unit is Budget(8, "grey").unit is Unit.GREY
        assert isinstance(Budget(8).amount, float)


def test_an_unknown_unit_is_told_the_known_ones() -> None:
    with unchecked(), pytest.raises(BudgetError, match="no such unit") as refusal:
        Budget(0.1, "sgima")
    assert refusal.value.details["expected"] == f"one of {[u.value for u in Unit]}"


@pytest.mark.parametrize("amount", ["0.1 sigma", "0.1", None, [0.1, "x"], [[0.1]]])
def test_an_amount_that_is_no_number_is_advice(amount: object) -> None:
    with unchecked(), pytest.raises(BudgetError, match="is a number") as refusal:
        Budget(amount)
    assert 'Budget.parse("0.1 sigma")' in refusal.value.details["try"]


@pytest.mark.parametrize(
    "text", ["-0.1 sigma", "nan", "inf sigma", "0.1 parsec", "sigma", "", "1.2.3", "0.1/ sigma", "/", "1e999"]
)
def test_texts_that_are_no_budget_are_refused(text: str) -> None:
    with pytest.raises(BudgetError, match=r"budget") as refusal:
        Budget.parse(text)
    assert re.search("0.1 sigma", str(refusal.value))


def test_another_number_of_modalities_is_refused() -> None:
    x = torch.ones(1, 4, 3)
    for amounts in ((0.1, 0.2), ()):
        with pytest.raises(BudgetError, match="another number of modalities") as refusal:
            Budget(amounts).resolve(Scales(x, x != 0))
        assert refusal.value.details["got"] == len(amounts)
        assert "4" in refusal.value.details["expected"]


def test_scaling_keeps_unit_and_modalities() -> None:
    assert Budget(0.2, Unit.MINMAX).scaled(0.5) == Budget(0.1, Unit.MINMAX)
    assert Budget((0.2, 0.4)).scaled(2.0) == Budget((0.4, 0.8))
    with pytest.raises(BudgetError):
        Budget(0.2).scaled(-1.0)
