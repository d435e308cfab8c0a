"""What the report says of defences: which sentence follows from which numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from study.defended import HARDENED, MASKED, Defended, Left, column, judged, pair, undeclared

from medadv.study.report.defences.lineage import lineage
from medadv.study.report.defences.section import section
from medadv.study.report.defences.standing import Standing
from medadv.study.report.defences.tables import worth
from medadv.study.report.defences.words import Finding, finding, sentences
from medadv.study.report.numbers import share
from medadv.study.results import Results

NBSP = "\N{NO-BREAK SPACE}"


@pytest.fixture(scope="module")
def results() -> Results:
    return Defended().results()


CASES: Mapping[str, tuple[Callable[[], tuple[Standing, Standing]], Finding, str]] = {
    "an artefact of vanishing gradients": (
        lambda: pair(replace(MASKED, tempered=0.22, margin=0.23)),
        Finding.ARTEFACT,
        "; the rest is an artefact of vanishing gradients (54 % exactly zero, 0 % undefended).",
    ),
    "an artefact of the attack": (
        lambda: pair(replace(MASKED, tempered=0.22, margin=0.23, zeros=0.02)),
        Finding.ARTEFACT,
        "is left in the worst case, which was not shown to differ from 0 (Hodges–Lehmann shift",
    ),
    "zeros that the undefended one has too": (
        lambda: pair(replace(MASKED, tempered=0.22, margin=0.23), Left(zeros=0.4)),
        Finding.ARTEFACT,
        "an artefact of the naive attack, which",
    ),
    "most of it an artefact": (
        lambda: pair(replace(MASKED, tempered=0.30, margin=0.33)),
        Finding.PARTLY,
        "most of the difference is an artefact of vanishing gradients (54 % exactly zero, 0 % undefended); in the "
        "worst case .0",
    ),
    "a defence that holds": (
        lambda: pair(HARDENED),
        Finding.HOLDS,
        "the defence raises Dice in the worst case (Hodges–Lehmann shift .2",
    ),
    "a defence that holds, declared beside another primary family": (
        lambda: pair(HARDENED, primary=False),
        Finding.HOLDS,
        "the defence raises Dice in the worst case (Hodges–Lehmann shift .2",
    ),
    "a defence that holds, not declared": (
        lambda: undeclared(*pair(HARDENED, primary=False)),
        Finding.HOLDS,
        "Dice in the worst case is higher with the defence (Hodges–Lehmann shift .2",
    ),
    "a defence that harms": (
        lambda: pair(Left(ifgsm=0.12, tempered=0.11)),
        Finding.HARMS,
        "the defence lowers Dice in the worst case (Hodges–Lehmann shift −.1",
    ),
    "a defence that only meets more": (
        lambda: pair(Left(transfer=0.10), spread=0.03),
        Finding.UNEVEN,
        "the defence was not shown to lower Dice: its worst case is the lower one, but of more conditions, and over "
        "those that both met no harm was shown (",
    ),
    "no difference": (
        lambda: pair(Left(), spread=0.03),
        Finding.NOT_SHOWN,
        "the defence was not shown to change Dice in the worst case (",
    ),
    "too few pairs": (
        lambda: pair(MASKED, cases=5),
        Finding.TOO_FEW,
        "no claim is made about the defence, 5 pairs are too few.",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_sentence_follows_from_the_numbers(name: str) -> None:
    make, wanted, words = CASES[name]
    defended, undefended = make()
    assert finding(defended, undefended) is wanted
    first = sentences(defended, undefended)[0]
    assert words in first.replace(NBSP, " ")
    claimed = wanted in (Finding.HOLDS, Finding.HARMS, Finding.PARTLY) and "not declared" not in name
    assert ("exploratory, so no claim" in first) == ("not declared" in name)
    assert ("Holm-adjusted" in first) == (claimed or wanted in (Finding.ARTEFACT, Finding.NOT_SHOWN, Finding.UNEVEN))


def test_harm_that_is_not_shown_over_what_both_met_is_noted_in_the_table() -> None:
    for left, note in ((Left(transfer=0.10), "harm not shown over what both met"), (Left(tempered=0.1), "")):
        found = pair(left, spread=0.03)
        assert found[0].against is not None
        assert found[0].against.p < 0.05
        assert (found[0].against.estimate or 0) < -0.05
        titles = [c.title for c in worth(found[::-1]).columns]
        assert (column(worth(found[::-1]), "note") == ["", note]) if note else "note" not in titles


def test_the_first_sentence_gives_all_four_scores() -> None:
    defended, undefended = pair(MASKED)
    told = sentences(defended, undefended)[0].replace(NBSP, " ")
    wanted = (
        f"distilled (distillation at T = 10): Dice of WT under the naive attack (i-FGSM, 10 steps, 0.1 σ) "
        f".{100 * (defended.naive or 0):.0f}, under the worst case of 6 attacks and 1 "
        f"control .{100 * (defended.worst or 0):.0f}; "
        f"undefended (unet) .{100 * (undefended.naive or 0):.0f} and .{100 * (undefended.worst or 0):.0f}: "
    )
    assert told.startswith(wanted)


def test_nothing_is_said_without_a_worst_case(results: Results) -> None:
    lacking = replace(results, comparisons=tuple(r for r in results.comparisons if not r.condition.startswith("worst")))
    found = judged(lacking)
    assert finding(found["distilled"], found["unet"]) is Finding.UNKNOWN
    assert "nothing is said about the defence" in sentences(found["distilled"], found["unet"])[0]
    bare = replace(results, arms=tuple(a for a in results.arms if a.presented.family != "worst"))
    made = section(bare, lineage(bare), Path("nowhere"))
    assert made is not None
    assert (made.budgets, made.overview, made.answer, made.tables) == ((), (), (), ()) or not made.budgets


def test_a_naive_score_that_overstates_is_said_to(results: Results) -> None:
    defended, undefended = pair(replace(HARDENED, ifgsm=0.70, zeros=0.3))
    assert finding(defended, undefended) is Finding.HOLDS
    told = " ".join(sentences(defended, undefended)).replace(NBSP, " ")
    assert re.search(r"The naive score overstates the defence by \.2\d; 30 % of the gradients in it were exactly", told)
    quiet = judged(results)
    assert "overstates" not in " ".join(sentences(quiet["hardened"], quiet["unet"]))


def test_what_clean_files_cost_is_told() -> None:
    defended, undefended = pair(replace(HARDENED, clean=0.80))
    costly = " ".join(sentences(defended, undefended))
    assert f"Clean Dice {share(defended.clean)} against {share(undefended.clean)}: " in costly
    assert "the defence costs clean Dice (Hodges–Lehmann shift −.1" in costly
    free = " ".join(sentences(*pair(replace(HARDENED, clean=0.90), spread=0.03)))
    assert "costs clean Dice" not in free


@pytest.mark.parametrize(
    ("clean", "spread", "told", "cell"),
    [
        (0.89, 0.005, r": non-inferior within \.05 \(lower 9[5-9](\.\d)? % limit of the shift −\.0\d+, one-", "yes"),
        (0.80, 0.005, r": not shown to be non-inferior within \.05 \(lower", "not shown"),
    ],
)
def test_non_inferiority_is_told_with_its_margin(clean: float, spread: float, told: str, cell: str) -> None:
    found = pair(replace(HARDENED, clean=clean), spread=spread)
    assert re.search(told, sentences(*found)[-1])
    table = worth(found[::-1])
    assert column(table, "non-inferior within .05") == ["", cell]


def test_few_pairs_say_nothing_of_clean_files_either() -> None:
    found = pair(HARDENED, cases=5)
    assert "whether it loses less than .05 cannot be told from 5 pairs" in sentences(*found)[-1]
    assert column(worth(found[::-1]), "non-inferior within .05") == ["", "–"]


def test_without_a_margin_that_is_said() -> None:
    found = pair(replace(HARDENED, clean=0.90), spread=0.03, margin=None)
    assert "no margin of non-inferiority was declared" in sentences(*found)[-1]
    assert not [c.title for c in worth(found).columns if "inferior" in c.title]
