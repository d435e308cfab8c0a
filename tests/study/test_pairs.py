"""Scores meet by id and by nothing else; patients are averaged over the cases that both conditions have."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medadv.errors import ConfigError
from medadv.study.pairs import Pairs
from medadv.study.signed_rank import signed_rank

share = st.floats(0, 1, allow_nan=False)


def test_ids_are_matched_and_the_rest_is_listed() -> None:
    pairs = Pairs({"b": 0.2, "c": 0.3, "a": 0.1}, {"c": 0.9, "d": 0.8, "b": 0.7}, {})
    assert (pairs.ids, pairs.missing, pairs.unit) == (("b", "c"), ("a", "d"), "cases")
    assert [values.tolist() for values in pairs.values] == [[0.2, 0.3], [0.7, 0.9]]


@given(st.dictionaries(st.text(max_size=3), st.tuples(share, share), max_size=9), st.randoms(use_true_random=False))
def test_the_order_of_ids_never_matters(scores: dict[str, tuple[float, float]], order: random.Random) -> None:
    def shuffled(side: int) -> dict[str, float]:
        ids = list(scores)
        order.shuffle(ids)
        return {case: scores[case][side] for case in ids}

    there, again = (Pairs(shuffled(0), shuffled(1), {}) for _ in range(2))
    assert there.ids == again.ids == tuple(sorted(scores))
    assert signed_rank(there) == signed_rank(again)


def test_the_unit_is_the_patient() -> None:
    patients = {"p1-a": "p1", "p1-b": "p1", "p2-a": "p2"}
    pairs = Pairs({"p1-a": 0.2, "p1-b": 0.4, "p2-a": 0.5}, {"p1-a": 0.6, "p1-b": 1.0, "p2-a": 0.9}, patients)
    assert (pairs.unit, pairs.ids) == ("patients", ("p1", "p2"))
    assert [values.tolist() for values in pairs.values] == [pytest.approx([0.3, 0.5]), pytest.approx([0.8, 0.9])]


def test_a_scan_that_one_condition_lacks_does_not_count_in_the_other() -> None:
    patients = {"p1-a": "p1", "p1-b": "p1"}
    pairs = Pairs({"p1-a": 0.2}, {"p1-a": 0.6, "p1-b": 0.0}, patients)
    assert pairs.missing == ("p1-b",)
    assert [values.tolist() for values in pairs.values] == [[0.2], [0.6]]


@pytest.mark.parametrize("patients", [{"a": "p", "b": None}, {"a": "p"}, {"a": "p", "b": "p", "elsewhere": None}])
def test_one_unknown_patient_makes_all_units_cases(patients: dict[str, str | None]) -> None:
    pairs = Pairs({"a": 0.1, "b": 0.2}, {"a": 0.3, "b": 0.4}, patients)
    assert (pairs.unit, pairs.ids) == ("cases", ("a", "b"))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("side", [0, 1])
def test_scores_that_are_not_finite_are_refused_with_their_case(bad: float, side: int) -> None:
    scores = [{"good": 0.1, "ill": 0.2}, {"good": 0.3, "ill": 0.4}]
    scores[side]["ill"] = bad
    with pytest.raises(ConfigError, match=r"not finite(.|\n)*\['ill'\](.|\n)*strict policy"):
        Pairs(scores[0], scores[1], {})


def test_pairs_do_not_change_with_what_they_were_made_of() -> None:
    scores = {"a": 0.1}
    pairs = Pairs(scores, {"a": 0.2, "b": 0.3}, {})
    scores["b"] = 0.9
    assert pairs.ids == ("a",)
