"""The Wilcoxon signed-rank test of paired scores, exact with ties and zeros, and the shift that belongs to it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from medadv.errors import ConfigError
from medadv.study.pairs import Pairs

Sided = Literal["two-sided", "greater", "less"]

EXACT_UP_TO = 500
"""The largest number of pairs whose null distribution is computed exactly (some tens of milliseconds)."""

PER_UNIT = 1_000_000
"""Differences are rounded to 1e-6 before they are ranked: equal scores differ in their last bits."""

_Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SignedRank:
    """The result of a signed-rank test, with all that is needed to judge it.

    Attributes:
        n: pairs; ``zeros`` of them do not differ, ``ties`` are non-zero and share their size with another.
        method: ``exact`` (conditional on ties and zeros) or ``asymptotic``.
        zero_method: ``pratt``: zeros are ranked with the others, then dropped.
        sided: the alternative; ``greater``: the condition scores higher than what it is held against.
        w_plus, w_minus: the sums of ranks of positive and of negative differences, condition - against.
        p: the p-value; 1 when all differences are zero, or there is no pair.
        smallest_p: the least p-value that an exact test of as many non-zero differences could reach.
        estimate: the Hodges-Lehmann shift, condition - against; None without pairs.
        low, high: its two-sided interval; None without pairs.
        confidence: the confidence that the interval has, at least what was asked for unless n is too small for it.
        rank_biserial: (w_plus - w_minus) / (w_plus + w_minus), 0 when all differences are zero (Kerby 2014).
    """

    n: int
    zeros: int
    ties: int
    method: Literal["exact", "asymptotic"]
    zero_method: Literal["pratt"]
    sided: Sided
    w_plus: float
    w_minus: float
    p: float
    smallest_p: float
    estimate: float | None
    low: float | None
    high: float | None
    confidence: float
    rank_biserial: float


def signed_rank(pairs: Pairs, sided: Sided = "two-sided", confidence: float = 0.95) -> SignedRank:
    """Test whether paired differences are symmetric about zero (Wilcoxon 1945), with Pratt's ranking of zeros (1959).

    Up to ``EXACT_UP_TO`` pairs the null distribution is that of independent, equally likely signs on the midranks that
    were seen, so ties and zeros need no correction; beyond, the normal distribution of the same mean and variance.
    The two-sided p-value is twice the smaller tail, at most 1.

    The interval holds the middle Walsh averages (Hodges & Lehmann 1963), counted off by the null distribution without
    ties for all n pairs, zeros among them. As a closed interval it keeps its confidence when there are ties and zeros
    (Noether 1967); with them it can disagree with p at the margin. Where n is too small, it is the full range of the
    differences, and ``confidence`` says what that is worth.

    Raises:
        ConfigError: a confidence outside (0, 1).
    """
    if not 0 < confidence < 1:
        raise ConfigError("a confidence lies between 0 and 1", got=confidence, expected="for example 0.95")
    condition, against = pairs.values
    # Whole numbers from here on, so that what is equal compares equal; adding zero turns -0.0 into 0.0.
    steps = np.rint((condition - against) * PER_UNIT) + 0.0
    moved = steps != 0
    doubled = 2 * stats.rankdata(np.abs(steps))[moved]
    plus, total = float(doubled[steps[moved] > 0].sum()), float(doubled.sum())
    _, counts = np.unique(np.abs(steps[moved]), return_counts=True)
    exact = len(steps) <= EXACT_UP_TO or not total
    tail = 2.0**-doubled.size
    estimate, low, high, reached = _shift(steps, confidence)
    return SignedRank(
        n=len(steps),
        zeros=int((~moved).sum()),
        ties=int(counts[counts > 1].sum()),
        method="exact" if exact else "asymptotic",
        zero_method="pratt",
        sided=sided,
        w_plus=plus / 2,
        w_minus=(total - plus) / 2,
        p=(_exact_p if exact else _asymptotic_p)(doubled, plus, sided),
        smallest_p=min(1.0, 2 * tail) if sided == "two-sided" else tail,
        estimate=estimate,
        low=low,
        high=high,
        confidence=reached,
        rank_biserial=2 * plus / total - 1 if total else 0.0,
    )


def _null(doubled: _Array) -> _Array:
    """P(W+ = k / 2) for k = 0, 1 …: each rank, given twice its size so that midranks are whole, is in or out."""
    mass = np.zeros(int(doubled.sum()) + 1)
    mass[0] = 1.0
    reach = 1
    for rank in doubled.astype(int):
        half = mass[:reach] / 2
        mass[:reach] = half
        mass[rank : rank + reach] += half
        reach += rank
    return mass


def _exact_p(doubled: _Array, plus: float, sided: Sided) -> float:
    mass = _null(doubled)
    at = int(plus)
    # The distribution is symmetric, and a lower tail is a sum of small numbers that loses no digits.
    less, greater = float(mass[: at + 1].sum()), float(mass[: len(mass) - at].sum())
    p = {"less": less, "greater": greater, "two-sided": 2 * min(less, greater)}[sided]
    return min(1.0, p)


def _asymptotic_p(doubled: _Array, plus: float, sided: Sided) -> float:
    # The moments of independent signs on the midranks that were seen: the corrections for ties and zeros are in them.
    z = (plus - doubled.sum() / 2) / (math.sqrt(float(np.square(doubled).sum())) / 2)
    less, greater = float(stats.norm.cdf(z)), float(stats.norm.sf(z))
    return {"less": less, "greater": greater, "two-sided": min(1.0, 2 * min(less, greater))}[sided]


def _shift(steps: _Array, confidence: float) -> tuple[float | None, float | None, float | None, float]:
    """Hodges-Lehmann shift, interval and achieved confidence."""
    n = len(steps)
    if not n:
        return None, None, None, 0.0
    first, second = np.triu_indices(n)
    doubled = np.sort(steps[first] + steps[second])  # twice the Walsh averages, still whole
    outside, reached = _outside(n, confidence)
    estimate, low, high = (
        float(d) / (2 * PER_UNIT) for d in (np.median(doubled), doubled[outside], doubled[-1 - outside])
    )
    return estimate, low, high, reached


@lru_cache(maxsize=256)
def _outside(n: int, confidence: float) -> tuple[int, float]:
    """How many of the sorted Walsh averages to leave out at either end, and the confidence of what remains.

    Leaving out c misses the shift when W+ or W- is at most c, without ties.
    """
    if n <= EXACT_UP_TO:
        below = np.cumsum(_null(2.0 * np.arange(1, n + 1, dtype=np.float64))[::2])
        c = max(int(np.searchsorted(2 * below, 1 - confidence, side="right")) - 1, 0)
        return c, 1 - 2 * float(below[c])
    mean = n * (n + 1) / 4
    deviation = math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
    c = math.floor(mean + deviation * float(stats.norm.ppf((1 - confidence) / 2)) - 0.5)
    return c, 1 - 2 * float(stats.norm.cdf((c + 0.5 - mean) / deviation))
