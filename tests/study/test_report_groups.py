"""What the report tells of strata, folds, deployed predictors and saved memory."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medadv.study.records import Record, present_records, write_record
from medadv.study.report import build
from medadv.study.report.delivery import agreement
from medadv.study.report.groups import UNTOLD, by_fold, by_stratum, cross_validation
from medadv.study.report.provenance import environment, savings
from medadv.study.results import Results, read_results

HOSTILE = "=1+1<script>alert(1)</script>"


@pytest.fixture(scope="module")
def plain(run_folder: Path) -> Results:
    return read_results(run_folder)


def changed(results: Results, change: Callable[[Record], dict[str, object]]) -> Results:
    """The same results with other records."""
    arms = (
        replace(arm, records={case: record.model_copy(update=change(record)) for case, record in arm.records.items()})
        for arm in results.arms
    )
    return replace(results, arms=tuple(arms))


def number(record: Record) -> int:
    return int(record.case.removeprefix("PHANTOM_"))


def graded(record: Record) -> dict[str, object]:
    """Five of high grade, four of low grade, three of which nothing is told."""
    return {"stratum": ("HGG", "LGG", None)[number(record) // 5 if number(record) < 9 else 2]}


def folded(record: Record) -> dict[str, object]:
    """Three folds of four, numbered so that their order as words is another."""
    return {"fold": (2, 10, 0)[number(record) % 3]}


def dice(results: Results, condition: str, chosen: Callable[[Record], bool]) -> np.ndarray:
    """WT of the chosen cases, in their order, straight from the records."""
    arm = results.arm("unet", condition)
    assert arm is not None
    kept = [record for _, record in sorted(arm.records.items()) if chosen(record)]
    return np.array([s.value for r in kept for s in r.scores if (s.region, s.metric) == ("WT", "dice")])


def test_a_stratum_is_told_by_its_own_cases(plain: Results) -> None:
    results = changed(plain, graded)
    table = by_stratum(results, "unet")
    assert table is not None
    conditions = [arm.condition for arm in results.of("unet") if arm.presented.role == "attack"]
    assert len(table.rows) == 3 * len(conditions)
    assert table.breaks == {3 * i for i in range(1, len(conditions))}
    rows = iter(table.rows)
    for condition in conditions:
        for stratum in ("HGG", "LGG", None):
            _, name, *told = next(rows)
            clean, attacked = (dice(results, c, lambda r, s=stratum: r.stratum == s) for c in ("clean", condition))
            assert name == (stratum or UNTOLD)
            assert told[0] == len(clean)
            assert told[1:] == pytest.approx([np.median(clean), np.median(attacked), np.median(attacked - clean)])
    assert "supports no claim" in table.caption


def test_scans_of_a_patient_count_once_in_a_stratum(plain: Results) -> None:
    """Cases 0 and 1 are one patient's; the mean of both is one value of HGG."""
    results = changed(plain, lambda r: {**graded(r), "patient": f"p{max(1, number(r))}"})
    results = replace(results, arms=tuple(replace(arm, unit="patients") for arm in results.arms))
    table = by_stratum(results, "unet")
    assert table is not None
    values = dice(results, "clean", lambda r: r.stratum == "HGG")
    assert table.rows[0][2] == 4
    assert table.rows[0][3] == pytest.approx(np.median([values[:2].mean(), *values[2:]]))


def test_a_case_without_one_of_both_scores_is_not_counted(plain: Results) -> None:
    """Clean keeps all five of HGG; the first attack lacks one, so the medians are of four."""
    results = changed(plain, graded)
    first = next(arm for arm in results.arms if arm.presented.role == "attack")
    kept = {case: record for case, record in first.records.items() if case != "PHANTOM_000"}
    results = replace(results, arms=tuple(replace(a, records=kept) if a is first else a for a in results.arms))
    table = by_stratum(results, "unet")
    assert table is not None
    assert table.rows[0][2] == 4
    clean = dice(results, "clean", lambda r: r.stratum == "HGG" and r.case != "PHANTOM_000")
    assert table.rows[0][3] == pytest.approx(np.median(clean))


def test_folds_stand_in_the_order_of_their_numbers(plain: Results) -> None:
    results = changed(plain, folded)
    table = by_fold(results, "unet")
    assert table is not None
    assert [column.title for column in table.columns] == ["condition", *(f"fold {k} (n = 4)" for k in (0, 2, 10))]
    attacks = [arm.condition for arm in results.of("unet") if arm.presented.role == "attack"]
    assert len(table.rows) == 1 + len(attacks)
    for row, condition in zip(table.rows, ["clean", *attacks], strict=True):
        wanted = [np.median(dice(results, condition, lambda r, k=k: r.fold == k)) for k in (0, 2, 10)]
        assert row[1:] == pytest.approx(wanted)


def test_without_strata_and_folds_nothing_is_said_of_them(plain: Results) -> None:
    assert by_stratum(plain, "unet") is None
    assert by_fold(plain, "unet") is None
    assert cross_validation(plain) == ""


def test_a_cross_validation_says_who_vouches_for_its_networks(plain: Results) -> None:
    results = changed(plain, folded)
    curve = results.training["unet"]
    trained = replace(results, training={"unet/fold_2": curve, "unet/fold_10": curve})
    assert list(trained.curves("unet")) == ["unet, fold 2", "unet, fold 10"]
    assert cross_validation(trained).startswith("Cross-validation of 3 folds")
    assert "The networks of unet were trained here, and none has seen" in cross_validation(trained)
    brought = cross_validation(replace(results, training={}))
    assert "The networks of unet were trained before" in brought
    assert "trained here" not in brought


@pytest.mark.parametrize(
    ("shares", "told", "too_little"),
    [
        ((None, None), "", False),
        ((1.0, 0.99996), "at least 0.9999 of", False),
        ((1.0, 0.999), "on 0.999 or more in 276 of 276 cells", False),
        ((1.0, 0.99899), "at least 0.9989 of", True),
        ((1.0, 0.95), "on 0.999 or more in 253 of 276 cells. Below that", True),
    ],
)
def test_the_lowest_agreement_is_told_and_never_rounded_up(
    plain: Results, shares: tuple[float | None, float | None], told: str, too_little: bool
) -> None:
    """One case of twelve has the second share, under all 23 conditions."""
    results = changed(plain, lambda r: {"agreement": shares[number(r) == 7]})
    words, disagreeing = agreement(results, "unet")
    assert told in words
    assert bool(words) == bool(told)
    assert disagreeing == too_little


def test_saved_memory_is_told_with_its_cells(plain: Results) -> None:
    assert savings(plain) == ()
    ways = ((), ("one window at a time",), ("one window at a time", "activation checkpointing"))
    results = changed(plain, lambda r: {"savings": ways[number(r) % 3], "device": ("cpu", "cuda:0")[number(r) % 2]})
    one, two = savings(results)
    assert one.startswith("92 of 276 cells of unet were computed in less memory: one window at a time. ")
    assert "in less memory: one window at a time and activation checkpointing. " in two
    assert dict(environment(results))["device"] == "cpu, cuda:0"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, write_run: Callable[..., Path]) -> Path:
    """A report on hostile strata, folds, a deployed predictor that differs, and saved memory."""
    folder = tmp_path_factory.mktemp("grouped") / "study"
    write_run(folder, budgets=(0.1,), cases=tuple(f"c{i}" for i in range(6)))
    for record in present_records(folder):
        odd = int(record.case[1]) % 2
        told: dict[str, object] = {"stratum": (HOSTILE, "site A")[odd], "fold": odd, "agreement": 0.9}
        told["savings"] = ("one window at a time",)
        write_record(folder, record.model_copy(update=told))
    return build(folder)


def test_all_of_it_is_on_the_page_and_a_stratum_is_text(page: Path) -> None:
    source = page.read_text(encoding="utf-8")
    text = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", source)).split())
    assert "<script" not in source
    for words in ("By stratum: WT", "By fold: WT", "Cross-validation of 2 folds", "site A", HOSTILE):
        assert words in text
    assert source.count('class="stamp">unet is scored by its format’s own predictor') == 2
    assert "cells of unet were computed in less memory: one window at a time" in text
    table = (page.parent / "tables" / "strata-unet-WT.csv").read_text(encoding="utf-8")
    assert table.count("'=1+1<script>") == table.count("=1+1<script>") == 3
