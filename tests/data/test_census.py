"""However often an id is met, whole or broken: it is used once, and what is refused bears a name of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medadv.data.case import Case
from medadv.data.census import Census, hidden, present
from medadv.errors import CaseError, Reason
from medadv.labels import BRATS_2018

MET = st.lists(st.tuples(st.sampled_from(["a", "b", "x-a", "x a", "a+"]), st.sampled_from("xyz"), st.booleans()))


@given(MET)
def test_no_id_is_both_used_and_refused_and_none_is_lost(met: list[tuple[str, str, bool]]) -> None:
    census = Census(name for name, _, _ in met)
    for name, folder, is_whole in met:
        with census.at(name, f"{folder}/{name}"):
            if not is_whole:
                raise CaseError(Reason.UNREADABLE, f"{name} is torn")
            census.take(Case(name, None, {"t1": Path(folder)}, None, BRATS_2018))
    cohort = census.cohort(("t1",), BRATS_2018)
    used, refused = [case.case for case in cohort.cases], [refusal.case for refusal in cohort.refused]
    assert len(used) + len(refused) == len(met)
    assert len({*used, *refused}) == len(met)
    first = {name: folder for name, folder, is_whole in reversed(met) if is_whole}
    assert {case.case: str(case.images["t1"]) for case in cohort.cases} == first


def test_what_the_disk_refuses_costs_one_case_and_tells_no_path() -> None:
    census = Census(["a"])
    with census.at("a", "a"):
        raise PermissionError(13, "Permission denied", "/clinic/Mary/t1.nii")
    (refusal,) = census.cohort(("t1",), BRATS_2018).refused
    assert (refusal.case, refusal.reason, refusal.message) == ("a", Reason.UNREADABLE, "a: Permission denied")


def test_a_missing_files_name_is_told_and_marked_as_a_name(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match=r"missing_label.*a: the label has no file a_seg\.nii"):
        present(tmp_path / "a_seg.nii", "a", "the label", Reason.MISSING_LABEL)
    with pytest.raises(CaseError, match="t1 has no file Mary_t1") as refused:
        present(tmp_path / "Mary_t1.nii", "scan7", "t1")
    assert list(refused.value.names) == ["Mary_t1.nii"]  # a study's results give it another name
    assert present(tmp_path, "a", "t1") == tmp_path


def test_hidden_is_what_begins_with_a_dot_or_an_underscore() -> None:
    assert [name for name in ("._a", "_a", "a_", "a.b", ".") if hidden(name)] == ["._a", "_a", "."]
