"""Folds of a cross-validation: whole patients, each case tested once, by a victim that has not seen it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from medadv.data.case import Case
from medadv.errors import ConfigError
from medadv.labels import BRATS_2018
from medadv.study.names import Names
from medadv.study.sections import Split
from medadv.study.split import Fold, _first, divide

PATIENTS = st.lists(st.integers(0, 40), min_size=4, max_size=14, unique=True)


def cases(patients: list[int], scans: int = 2, folds: dict[int, int] | None = None) -> list[Case]:
    said = folds or {}
    return [Case(f"p{p}-{s}", f"p{p}", {}, None, BRATS_2018, fold=said.get(p)) for p in patients for s in range(scans)]


def divided(folder: Path, of: list[Case], seed: int = 0, **asked: object) -> tuple[Fold, ...]:
    return divide(Split.model_validate(asked), seed, of, set(), Names(None), folder / "split.json")


@given(PATIENTS, st.integers(2, 4), st.integers(0, 5))
def test_folds_part_no_patient_and_are_as_large_as_they_can_be(patients: list[int], count: int, seed: int) -> None:
    placed = _first(Split.model_validate({"folds": count}), seed, cases(patients), set())
    homes: dict[str, set[str]] = {}
    for role, case in placed:
        homes.setdefault(str(case.patient), set()).add(role)
    assert {len(home) for home in homes.values()} == {1}
    sizes = [sum(home == {f"fold {k}"} for home in homes.values()) for k in range(count)]
    assert sum(sizes) == len(patients)
    assert max(sizes) - min(sizes) <= 1


def test_every_case_is_tested_once_and_never_seen_by_its_own_fold(tmp_path: Path) -> None:
    folds = divided(tmp_path, cases(list(range(7))), folds=3, validate=1)
    assert [fold.number for fold in folds] == [0, 1, 2]
    assert sorted(c.case for fold in folds for c in fold.test) == sorted(c.case for c in cases(list(range(7))))
    for fold in folds:
        train, validate, test = ({c.patient for c in part} for part in (fold.train, fold.validate, fold.test))
        assert train.isdisjoint(validate)
        assert test.isdisjoint(train | validate)
        assert len(validate) == 1
        assert len(train | validate | test) == 7


def test_the_data_sets_own_folds_are_taken(tmp_path: Path) -> None:
    said = {0: 2, 1: 0, 2: 2, 3: 1}
    folds = divided(tmp_path, cases(list(said), folds=said), folds="data")
    assert {str(c.patient): fold.number for fold in folds for c in fold.test} == {f"p{p}": f for p, f in said.items()}


@pytest.mark.parametrize("fault", ["missing", "parted"])
def test_folds_that_the_data_do_not_say_are_told(tmp_path: Path, fault: str) -> None:
    of = cases([0, 1, 2], folds={0: 0, 1: 1, 2: 2})
    of[3] = replace(of[3], fold=None if fault == "missing" else 2)
    with pytest.raises(ConfigError, match="one fold for each patient") as told:
        divided(tmp_path, of, folds="data")
    assert "p1" in str(told.value)


def test_folds_stay_and_new_scans_join_their_patient(tmp_path: Path) -> None:
    before = divided(tmp_path, cases([1, 2, 3, 4], 1), folds=2)
    more = [*cases([1, 2, 3, 4]), *cases([9])]
    after = divided(tmp_path, more, folds=2)
    homes = {c.patient: fold.number for fold in before for c in fold.test}
    for fold in after:
        assert all(homes.get(c.patient, 0) == fold.number for c in fold.test)
    assert sum(len(fold.test) for fold in after) == len(more)


def test_another_seed_divides_anew(tmp_path: Path) -> None:
    first, other = (divided(tmp_path, cases(list(range(12))), seed, folds=3) for seed in (0, 1))
    assert [[c.case for c in f.test] for f in first] != [[c.case for c in f.test] for f in other]


@pytest.mark.parametrize("also", [{"train": 3}, {"test": 2}, {"validate": ["a"]}, {"folds": 1}])
def test_folds_stand_alone(also: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Split.model_validate({"folds": 3, **also})


@pytest.mark.parametrize(
    ("asked", "told"), [({"folds": 9}, "more folds than patients"), ({"folds": 2, "validate": 2}, "no patient is left")]
)
def test_too_few_patients_are_told(tmp_path: Path, asked: dict[str, int], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        divided(tmp_path, cases([1, 2, 3, 4]), **asked)


def test_a_case_found_later_joins_the_fold_that_the_data_declare(tmp_path: Path) -> None:
    """Its victim may come from outside, and only the one of that fold has not seen it."""
    said = {0: 0, 1: 0, 2: 1, 3: 1}
    divided(tmp_path, cases([0, 1, 2], 1, folds=said), folds="data")
    after = divided(tmp_path, cases([0, 1, 2, 3], 1, folds=said), folds="data")
    assert {c.patient: fold.number for fold in after for c in fold.test} == {f"p{p}": f for p, f in said.items()}


def test_a_fold_says_whether_it_was_made(tmp_path: Path) -> None:
    said = {0: 0, 1: 1, 2: 0}
    assert {fold.made for fold in divided(tmp_path / "a", cases([0, 1, 2]), folds=2)} == {True}
    assert {fold.made for fold in divided(tmp_path / "b", cases([0, 1, 2], folds=said), folds="data")} == {False}
    assert not divided(tmp_path / "c", cases([0, 1, 2]))[0].made


def test_folds_that_the_data_have_changed_are_refused(tmp_path: Path) -> None:
    divided(tmp_path, cases([0, 1, 2, 3], folds={0: 0, 1: 0, 2: 1, 3: 1}), folds="data")
    with pytest.raises(ConfigError, match="other folds than those that this study was begun with") as told:
        divided(tmp_path, cases([0, 1, 2, 3], folds={0: 0, 1: 1, 2: 1, 3: 0}), folds="data")
    assert "4 cases" in str(told.value)
