"""Which delivered files stay."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from study.small_study import every_record

from medadv.study.gallery import Gallery
from medadv.study.records import Record
from medadv.study.sections import Volumes
from medadv.study.stats import PrimaryFamily

DICE = st.sampled_from([0.0, 0.1, 0.4, 0.4, 0.9])


@pytest.fixture(scope="module")
def cells(finished: Path) -> dict[str, Record]:
    """A clean record and one of an attack."""
    return {record.condition: record for record in every_record(finished)}


def changed(record: Record, case: str, value: float, metric: str) -> Record:
    scores = [
        score.model_copy(update={"value": value}) if (score.region, score.metric) == ("WT", metric) else score
        for score in record.scores
    ]
    return record.model_copy(update={"case": case, "scores": scores})


@pytest.mark.parametrize(("metric", "sign"), [("dice", 1), ("hd95", -1)])
@given(st.lists(st.tuples(DICE, DICE), min_size=1, max_size=8), st.integers(1, 3), st.integers(0, 9))
def test_the_worst_of_all_are_kept_in_whatever_order_they_come(
    cells: dict[str, Record], metric: str, sign: int, pairs: list[tuple[float, float]], count: int, seed: int
) -> None:
    cases = {f"case{i}": pair for i, pair in enumerate(pairs)}
    gallery = Gallery(Volumes(keep="worst", count=count), PrimaryFamily(region="WT", metric=metric, conditions=()))  # type: ignore[arg-type]
    order = list(cases)
    random.Random(seed).shuffle(order)
    kept: set[str] = set()
    for case in order:
        clean, attacked = cases[case]
        gallery.hang(changed(cells["clean"], case, clean, metric))
        record = changed(cells["fgsm-0.1-sigma"], case, attacked, metric)
        gallery.hang(record)
        kept.add(case)
        kept -= set(gallery.unwanted(record))
    expected = sorted(cases, key=lambda case: (-sign * (cases[case][0] - cases[case][1]), case))[:count]
    assert kept == set(expected)


@pytest.mark.parametrize(("keep", "attack", "control"), [("all", 0, 0), ("worst", 0, 1), ("none", 1, 1)])
def test_controls_are_kept_only_with_all(cells: dict[str, Record], keep: str, attack: int, control: int) -> None:
    gallery = Gallery(Volumes(keep=keep), PrimaryFamily(region="WT", conditions=()))  # type: ignore[arg-type]
    for name, count in (("clean", 0), ("fgsm-0.1-sigma", attack), ("identity", control), ("noise-0.1-sigma", control)):
        record = cells[name]
        gallery.hang(record)
        assert len(gallery.unwanted(record)) == count, name
        assert gallery.wants(record) == (keep == "all" and name != "clean")
        assert gallery.pictures(record.presented) == (keep != "none" and name.startswith("fgsm"))
