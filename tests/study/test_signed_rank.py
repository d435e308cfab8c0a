"""The test against SciPy, against the enumeration of all signs, and against the definition of its interval."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from medadv.errors import ConfigError
from medadv.study.pairs import Pairs
from medadv.study.signed_rank import EXACT_UP_TO, PER_UNIT, Sided, SignedRank, signed_rank

SIDES: tuple[Sided, ...] = ("two-sided", "greater", "less")
sides = st.sampled_from(SIDES)
# Few magnitudes, so that ties and zeros are the rule.
tied = st.lists(st.integers(-4, 4).map(lambda step: step / 100), min_size=1, max_size=11)


def run(differences: Sequence[float], sided: Sided = "two-sided", confidence: float = 0.95) -> SignedRank:
    condition = {f"case{k:04}": 0.5 + d for k, d in enumerate(differences)}
    return signed_rank(Pairs(condition, dict.fromkeys(condition, 0.5), {}), sided, confidence)


def signs(n: int) -> np.ndarray:
    return np.array(list(itertools.product((-1.0, 1.0), repeat=n)))


def enumerated(differences: Sequence[float], sided: Sided) -> float:
    """The p-value from its definition: the share of all 2^n sign patterns that are as extreme."""
    d = np.array(differences)
    ranks = stats.rankdata(np.abs(d)) * (d != 0)
    sums = (ranks * (signs(len(d)) > 0)).sum(1)
    seen = (ranks * (d > 0)).sum()
    less, greater = float((sums <= seen).mean()), float((sums >= seen).mean())
    return {"less": less, "greater": greater, "two-sided": min(1.0, 2 * min(less, greater))}[sided]


@pytest.mark.parametrize("sided", SIDES)
@pytest.mark.parametrize("n", [1, 2, 5, 6, 9, 17, 33, 50])
def test_scipy_agrees_where_it_is_exact(n: int, sided: Sided) -> None:
    differences = np.random.default_rng(n).normal(0.05, 0.2, n).round(6)
    assert len(set(np.abs(differences)) - {0.0}) == n, "the reference is exact without ties and zeros only"
    ours = run(list(differences), sided)
    theirs = stats.wilcoxon(differences, alternative=sided, method="exact")
    assert ours.method == "exact"
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-12)
    expected = min(ours.w_plus, ours.w_minus) if sided == "two-sided" else ours.w_plus
    assert theirs.statistic == expected


@given(tied, sides)
def test_ties_and_zeros_equal_the_enumeration_of_all_signs(differences: list[float], sided: Sided) -> None:
    assert run(differences, sided).p == pytest.approx(enumerated(differences, sided), abs=1e-12)


@pytest.mark.parametrize("sided", SIDES)
def test_beyond_the_exact_range_scipy_agrees_with_ties_and_zeros(sided: Sided) -> None:
    steps = np.random.default_rng(3).integers(-9, 11, EXACT_UP_TO + 1)
    ours = run(list(steps / 100), sided)
    theirs = stats.wilcoxon(steps, zero_method="pratt", correction=False, alternative=sided, method="asymptotic")
    assert ours.method == "asymptotic"
    assert ours.zeros == (steps == 0).sum() > 0
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-10)


def test_exact_and_asymptotic_meet_at_the_border() -> None:
    steps = np.random.default_rng(5).normal(0.02, 0.2, EXACT_UP_TO + 1)
    exact, asymptotic = run(list(steps[:-1])), run(list(steps))
    assert (exact.method, asymptotic.method) == ("exact", "asymptotic")
    assert exact.p == pytest.approx(asymptotic.p, rel=0.2)
    assert exact.confidence == pytest.approx(asymptotic.confidence, abs=1e-3)
    assert exact.low == pytest.approx(asymptotic.low, abs=2e-3)


@given(tied)
def test_swapping_the_sides_negates_everything(differences: list[float]) -> None:
    there, back = run(differences), run([-d for d in differences])
    assert (back.p, back.w_plus, back.w_minus) == (there.p, there.w_minus, there.w_plus)
    assert (there.estimate, there.low, there.high) == tuple(
        -value for value in (back.estimate, back.high, back.low) if value is not None
    )
    assert back.rank_biserial == pytest.approx(-there.rank_biserial, abs=1e-15)
    assert run(differences, "greater").p == run([-d for d in differences], "less").p


@given(tied)
def test_a_symmetric_sample_shows_nothing(differences: list[float]) -> None:
    result = run([*differences, *(-d for d in differences)])
    assert (result.p, result.estimate, result.rank_biserial) == (1.0, 0.0, 0.0)
    assert result.w_plus == result.w_minus


@given(tied)
def test_the_estimate_is_the_median_of_the_means_of_all_pairs(differences: list[float]) -> None:
    walsh = [(a + b) / 2 for i, a in enumerate(differences) for b in differences[i:]]
    result = run(differences)
    assert result.estimate == pytest.approx(np.median(walsh), abs=1e-12)
    assert result.low is not None
    assert result.high is not None
    assert min(walsh) - 1e-12 <= result.low <= float(np.median(walsh)) + 1e-12
    assert result.high <= max(walsh) + 1e-12


def covered(sizes: Sequence[float], confidence: float) -> tuple[float, float]:
    """How often the interval holds the true shift, 0, over all signs; and the confidence that it names."""
    results = [run(list(pattern * np.array(sizes)), confidence=confidence) for pattern in signs(len(sizes))]
    held = [r.low is not None and r.high is not None and r.low <= 0 <= r.high for r in results]
    return float(np.mean(held)), results[0].confidence


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95])
@pytest.mark.parametrize("n", [1, 3, 5, 6, 8])
def test_the_interval_covers_exactly_as_often_as_it_says(n: int, confidence: float) -> None:
    share, stated = covered([2.0**k / 1000 for k in range(n)], confidence)  # powers of two: no Walsh averages tie
    assert share == pytest.approx(stated, abs=1e-12)
    assert stated >= confidence or stated == 1 - 2.0 ** (1 - n), "short of it only as the full range"


@given(st.lists(st.integers(0, 3).map(lambda step: step / 100), min_size=1, max_size=7))
def test_the_interval_covers_at_least_as_often_with_ties_and_zeros(sizes: list[float]) -> None:
    share, stated = covered(sizes, 0.9)
    assert share >= stated - 1e-12


def test_the_interval_is_the_one_of_the_published_tables() -> None:
    """Hollander and Wolfe, example 3.1 (depression scale factor IV): the interval of 96 % is (-.786, -.010)."""
    before = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
    after = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]
    result = run([b - a for a, b in zip(before, after, strict=True)], "less")
    assert (result.w_plus, result.w_minus) == (5, 40)
    assert result.p == pytest.approx(0.01953125)
    assert result.estimate == pytest.approx(-0.46)
    assert (result.low, result.high) == pytest.approx((-0.786, -0.010))
    assert result.confidence == pytest.approx(0.9609375)


@pytest.mark.parametrize("sizes", [[1, 2, 3, 4, 5, 6, 7, 8, 9], [0, 0, 1, 1, 1, 2, 2, 3, 5]])
def test_the_test_keeps_its_level(sizes: list[int]) -> None:
    """Over all signs, p is at most .05 in at most 5 % of them, and nearly as often as the discreteness allows."""
    p = np.array([run(list(pattern * np.array(sizes) / 100)).p for pattern in signs(len(sizes))])
    assert 0.01 < (p <= 0.05).mean() <= 0.05


@pytest.mark.parametrize("n", [1, 5, 6, 12])
def test_the_smallest_attainable_p_is_attained(n: int) -> None:
    differences = [-0.1 - k / 50 for k in range(n)]
    assert run(differences).p == run(differences).smallest_p == min(1.0, 2.0 ** (1 - n))
    assert run(differences, "less").p == run(differences, "less").smallest_p == 2.0**-n
    assert run([*differences, 0.0]).smallest_p == run(differences).smallest_p, "zeros carry no sign"


def test_zeros_and_ties_are_counted() -> None:
    result = run([0.0, 0.0, 0.1, 0.1, -0.1, 0.3, -0.2])
    assert (result.n, result.zeros, result.ties) == (7, 2, 3)
    assert (result.w_plus, result.w_minus) == (4 + 4 + 7, 4 + 6)  # Pratt: the zeros have taken ranks 1 and 2


def test_equal_scores_that_differ_in_their_last_bits_are_equal() -> None:
    noisy = [0.1 + 0.2 - 0.3, 0.3 - 0.1, 0.2, 0.7 - 0.5, 4e-7, -4e-7]
    result = run(noisy)
    assert (result.zeros, result.ties) == (3, 3)
    assert str(run([-1e-12]).low) == "0.0"


def test_differences_of_nothing_show_nothing() -> None:
    result = run([0.0] * 7)
    assert (result.n, result.zeros, result.p, result.smallest_p) == (7, 7, 1.0, 1.0)
    assert (result.estimate, result.low, result.high, result.rank_biserial) == (0.0, 0.0, 0.0, 0.0)
    many = run([0.0] * (EXACT_UP_TO + 1))
    assert (many.p, many.zeros) == (1.0, EXACT_UP_TO + 1)


def test_no_pairs_no_estimate() -> None:
    result = run([])
    assert (result.n, result.p, result.estimate, result.low, result.high, result.confidence) == (
        0,
        1,
        None,
        None,
        None,
        0,
    )


def test_resolution() -> None:
    assert run([1 / PER_UNIT]).estimate == 1e-6
    assert run([0.4 / PER_UNIT]).zeros == 1


@pytest.mark.parametrize("confidence", [0.0, 1.0, float("nan"), 95.0])
def test_a_confidence_is_a_share(confidence: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        run([0.1], confidence=confidence)
