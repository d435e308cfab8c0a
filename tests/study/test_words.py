"""Sentences say what their comparison says: no number of their own, and no claim that it does not support."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medadv.atomic import write_text
from medadv.study.report.numbers import decimal, equals, probability, share, significant
from medadv.study.report.words import answer, claims, family_note, gaps, sentence, unit_note
from medadv.study.results import Arm, Results, read_results
from medadv.study.stats import NO_CLAIM, Comparison
from medadv.study.tables import comparisons_table

FULL = re.compile(
    r"(?P<subject>.+) at (?P<amount>[\d.]+)\sσ (?P<verb>lowers|raises) the mean Dice of (?P<region>\w+) "
    r"from (?P<against>[−.\d]+) to (?P<condition>[−.\d]+) \(Hodges–Lehmann shift (?P<estimate>[−.\d]+); "
    r"(?P<confidence>[\d.]+) % interval (?P<low>[−.\d]+) to (?P<high>[−.\d]+); "
    r"Holm-adjusted p\s=\s(?P<p>[.\d]+); n\s=\s(?P<n>\d+) cases\)\."
)


def number(text: str) -> float:
    return float(text.replace("−", "-"))


def told(text: str, true: float) -> bool:
    """Whether a printed number is the true one, to half a unit of its last place."""
    places = len(text.partition(".")[2])
    return abs(number(text) - true) <= 0.5 * 10**-places + 1e-12


@pytest.fixture(scope="module")
def results(run_folder: Path) -> Results:
    return read_results(run_folder)


@pytest.fixture(scope="module")
def row(results: Results) -> Comparison:
    found = results.compared("unet", "WT", "ifgsm-0.1-sigma", "clean")
    assert found is not None
    return found


def changed(row: Comparison, **fields: Any) -> Comparison:
    return row.model_copy(update=fields)


def test_every_number_of_the_answer_is_its_comparisons(results: Results) -> None:
    said = answer(results, "unet")
    for words, source in ((said.sentences[0], said.rows[0]), (said.sentences[-1], said.rows[-1])):
        match = FULL.search(words)
        assert match is not None, words
        assert match["region"] == source.region
        assert told(match["against"], source.mean_against or 9)
        assert told(match["condition"], source.mean_condition or 9)
        assert told(match["estimate"], source.estimate or 9)
        assert told(match["low"], source.low or 9)
        assert told(match["high"], source.high or 9)
        assert told(match["p"], source.p_adjusted or 9)
        assert told(match["confidence"], 100 * source.confidence)
        assert int(match["n"]) == source.n
    controls = re.findall(r"([−.\d]*\d) \(", said.sentences[1])
    assert len(controls) == 2
    assert all(told(text, source.estimate or 9) for text, source in zip(controls, said.rows[1:3], strict=True))


def test_the_answer_is_the_largest_loss_and_the_smallest_budget_with_one(results: Results) -> None:
    said = answer(results, "unet")
    primary = [r for r in results.comparisons if r.family == "primary"]
    assert said.rows[0].estimate == min(r.estimate for r in primary if r.estimate is not None)
    assert said.rows[-1].condition == "ifgsm-0.05-sigma"
    assert {r.condition for r in said.rows[1:3]} == {"noise-0.2-sigma", "permuted-ifgsm-0.2-sigma"}


def test_the_answer_follows_the_table_and_nothing_else(run_folder: Path, results: Results, tmp_path: Path) -> None:
    folder = tmp_path / "phantom"
    shutil.copytree(run_folder, folder, ignore=shutil.ignore_patterns("report", "volumes"))
    worst = answer(results, "unet").rows[0]
    rows = [changed(r, mean_condition=0.1234) if r == worst else r for r in results.comparisons]
    write_text(folder / "comparisons.csv", comparisons_table(rows))
    assert " to .12 (" in answer(read_results(folder), "unet").sentences[0]


@pytest.mark.parametrize(
    ("fields", "words", "claimed"),
    [
        ({}, "lowers the mean Dice of WT", True),
        ({"estimate": 0.2, "low": 0.1, "high": 0.3}, "raises the mean Dice of WT", True),
        ({"p_adjusted": 0.05}, "was not shown to change the mean Dice of WT", False),
        ({"p_adjusted": 0.6}, "Holm-adjusted p\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}.60", False),
        ({"family": "exploratory", "p_adjusted": None, "p": 0.0002}, "exploratory, so no claim", False),
        ({"n": 5, "verdict": NO_CLAIM, "p_adjusted": 0.01}, "No claim is made about i-FGSM (10 steps)", False),
        ({"n": 0, "estimate": None, "low": None, "high": None, "mean_condition": None}, "No claim", False),
    ],
)
def test_no_sentence_claims_more_than_its_comparison(
    results: Results, row: Comparison, fields: dict[str, Any], words: str, claimed: bool
) -> None:
    altered = changed(row, **fields)
    assert words in sentence(results, altered)
    assert claims(altered) is claimed
    verbs = ("lowers", "raises")
    assert any(verb in sentence(results, altered) for verb in verbs) is claimed


@given(
    n=st.integers(0, 40),
    p=st.floats(0, 1),
    estimate=st.floats(-1, 1),
    family=st.sampled_from(["primary", "exploratory"]),
    metric=st.sampled_from(["dice", "hd95"]),
)
def test_no_sentence_is_a_verdict_on_the_network(
    results: Results, row: Comparison, n: int, p: float, estimate: float, family: str, metric: str
) -> None:
    adjusted = p if family == "primary" else None
    altered = changed(row, n=n, p=p, p_adjusted=adjusted, estimate=estimate, family=family, metric=metric)
    words = sentence(results, altered)
    assert not re.search(r"robust|secure|\bsafe|vulnerab", words, re.IGNORECASE)
    assert ("lowers" in words or "raises" in words) == (n >= 6 and family == "primary" and p < 0.05)


def test_cases_are_stamped_and_late_declarations_told(results: Results) -> None:
    assert "n counts cases, not patients" in unit_note(results)
    assert "declared before any score existed" in family_note(results)
    late = Results(**{**vars(results), "declarations": ({"primary": {}, "after_scores": True},)})
    assert "declared after scores existed" in family_note(late)
    undeclared = tuple(changed(row, family="exploratory", p_adjusted=None) for row in results.comparisons)
    none = Results(**{**vars(results), "comparisons": undeclared})
    assert "No primary comparison was declared" in family_note(none)
    assert "exploratory, so no claim" in answer(none, "unet").sentences[0]


def test_distances_that_rise_are_losses(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    results = read_results(write_run(tmp_path / "study", metric="hd95"))
    said = answer(results, "unet")
    primary = [row for row in results.comparisons if row.family == "primary"]
    assert {row.metric for row in primary} == {"hd95"}
    worst = max(primary, key=lambda row: row.estimate or 0.0)
    assert said.rows[0] == worst
    pattern = r"(.+) raises the mean 95 % Hausdorff distance of WT from ([\d.]+)\smm to ([\d.]+)\smm \("
    match = re.match(pattern, said.sentences[0])
    assert match is not None, said.sentences[0]
    assert told(match[2], worst.mean_against or 0)
    assert told(match[3], worst.mean_condition or 0)
    assert said.sentences[-1].startswith("The smallest budget that was shown to raise it: ")
    assert said.rows[-1].condition.endswith("-0.05-sigma")
    better = tuple(
        changed(row, estimate=-(row.estimate or 0.0)) if row.family == "primary" else row for row in results.comparisons
    )
    mended = answer(Results(**{**vars(results), "comparisons": better}), "unet")
    assert len(mended.sentences) == 2  # distances that shrink are no loss that a smallest budget could have


def test_budgets_of_modalities_are_told_whole(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    """Two budgets with one first amount are two, each with its own controls; neither has an order with 0.05 σ."""
    budgets = ("0.1/0.2/0.3/0.4 sigma", "0.1/5/5/5 sigma", "0.1 sigma", "0.05 sigma")
    results = read_results(write_run(tmp_path / "study", budgets=budgets))
    for slug, spelled in (("0.1_0.2_0.3_0.4", "0.1/0.2/0.3/0.4"), ("0.1_5_5_5", "0.1/5/5/5")):
        worst = f"ifgsm-{slug}-sigma"
        rows = (changed(r, estimate=-0.9) if r.condition == worst else r for r in results.comparisons)
        said = answer(Results(**{**vars(results), "comparisons": tuple(rows)}), "unet")
        assert f" at {spelled}\N{NO-BREAK SPACE}σ lowers " in said.sentences[0]
        assert [row.condition for row in said.rows] == [
            *(worst, f"noise-{slug}-sigma", f"permuted-{worst}"),
            "ifgsm-0.05-sigma",
        ]
        assert said.sentences[-1].startswith("The smallest budget of one amount in σ that was shown to lower it: ")
    rows = (
        changed(r, estimate=-0.9) if r.condition == "ifgsm-0.1-sigma" and r.family == "primary" else r
        for r in results.comparisons
    )
    scoped = answer(Results(**{**vars(results), "comparisons": tuple(rows)}), "unet")
    assert scoped.sentences[-1].startswith("The smallest budget of one amount in σ that was shown to lower it: ")
    assert scoped.rows[-1].condition == "ifgsm-0.05-sigma"


def test_an_incomplete_run_says_so(results: Results) -> None:
    assert gaps(results) == ""
    arm = results.arms[-1]
    torn = Arm(**{**vars(arm), "records": dict(list(arm.records.items())[:-2])})
    partial = Results(**{**vars(results), "arms": (*results.arms[:-1], torn)})
    assert f"2 of {23 * 12} cells have no record" in gaps(partial)


def test_without_comparisons_there_is_no_answer(results: Results) -> None:
    silent = Results(**{**vars(results), "comparisons": ()})
    assert answer(silent, "unet").rows == ()
    assert "nothing to answer" in answer(silent, "unet").sentences[0]


@given(st.floats(-1, 1))
def test_shares_are_spelled_to_half_a_unit(value: float) -> None:
    text = share(value)
    assert told(text, value)
    assert not text.startswith(("0", "−0", "-"))


@given(st.floats(0.0001, 1))
def test_p_values_keep_a_significant_digit(value: float) -> None:
    assert told(probability(value), value)
    assert number(probability(value)) > 0


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        (share(0.0), ".00"),
        (share(-0.0), ".00"),
        (share(1.0), "1.00"),
        (share(-0.0031), "−.003"),
        (share(None), "–"),
        (decimal(-0.0004, 2), "0.00"),
        (probability(0.00004), "< .0001"),
        (equals(0.00004), "<\N{NO-BREAK SPACE}.0001"),
        (probability(2 / 4096), ".0005"),
        (significant(12412.0), "12\u202f400"),
        (significant(0.0001312), "0.000131"),
    ],
)
def test_numbers_are_spelled_as_people_write_them(text: str, spelled: str) -> None:
    assert text == spelled
