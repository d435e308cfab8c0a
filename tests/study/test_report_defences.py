"""What the report says of defences: which sentence, which numbers, and what is drawn."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from study.defended import HARDENED, MASKED, PLAIN, SLUG, TEACHER, UNDEFENDED, VICTIMS, Defended, Left

from medadv.errors import RunError
from medadv.study.report import build
from medadv.study.report.defences.figures import dumbbells, paired_worst
from medadv.study.report.defences.lineage import called, lineage
from medadv.study.report.defences.section import section, teachers
from medadv.study.report.defences.standing import Level, Standing, levels, standings
from medadv.study.report.defences.tables import worth
from medadv.study.report.defences.words import Finding, finding, sentences
from medadv.study.report.numbers import share
from medadv.study.report.tables import Table
from medadv.study.results import Results, read_results

NBSP = "\N{NO-BREAK SPACE}"
PAIR = {name: VICTIMS[name] for name in ("unet", "distilled")}


def judged(results: Results) -> dict[str, Standing]:
    """The standings of all judged victims on WT."""
    known = lineage(results)
    shown = known.judged(results)
    (level,) = levels(shown)
    return {s.entrant.name: s for s in standings(shown, known, level, "WT")}


def pair(defended: Left, undefended: Left = PLAIN, **settings: Any) -> tuple[Standing, Standing]:
    """One distilled victim and the undefended one."""
    left = {"unet": undefended, "distilled": defended, TEACHER: defended}
    found = judged(Defended(left=left, victims=PAIR, **settings).results())
    return found["distilled"], found["unet"]


def undeclared(defended: Standing, undefended: Standing) -> tuple[Standing, Standing]:
    """The same, had nothing been declared of rivals."""
    update = {"family": "exploratory", "p_adjusted": None}
    rows = [r.model_copy(update=update) if r.rival else r for r in defended.results.comparisons]
    results = replace(defended.results, comparisons=tuple(rows))
    return replace(defended, results=results), replace(undefended, results=results)


@pytest.fixture(scope="module")
def results() -> Results:
    return Defended().results()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    left = {"unet": PLAIN, "distilled": MASKED, TEACHER: MASKED}
    study = Defended(cases=6, regions=("WT",), victims=PAIR, left=left)
    return build(study.write(tmp_path_factory.mktemp("defences") / "study"))


def column(table: Table, title: str) -> list[Any]:
    """A column's raw values."""
    (place,) = (i for i, each in enumerate(table.columns) if each.title == title)
    return [row[place] for row in table.rows]


CASES: Mapping[str, tuple[Callable[[], tuple[Standing, Standing]], Finding, str]] = {
    "an artefact of vanishing gradients": (
        lambda: pair(replace(MASKED, tempered=0.22, margin=0.23)),
        Finding.ARTEFACT,
        "the difference is an artefact of vanishing gradients (54 % exactly zero, 0 % undefended); in the worst case "
        "none was shown",
    ),
    "an artefact of the attack": (
        lambda: pair(replace(MASKED, tempered=0.22, margin=0.23, zeros=0.02)),
        Finding.ARTEFACT,
        "the difference is an artefact of the naive attack, which another one overcomes; in the worst case none",
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
    assert ("Holm-adjusted" in first) == (claimed or wanted in (Finding.ARTEFACT, Finding.NOT_SHOWN))


def test_the_first_sentence_gives_all_four_scores() -> None:
    defended, undefended = pair(MASKED)
    told = sentences(defended, undefended)[0].replace(NBSP, " ")
    wanted = (
        f"distilled (distillation at T = 10): Dice of WT under the naive attack (i-FGSM, 10 steps, 0.1 σ) "
        f".{100 * (defended.naive or 0):.0f}, under the worst case of 6 attacks .{100 * (defended.worst or 0):.0f}; "
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


def test_the_table_holds_what_the_records_hold(results: Results) -> None:
    found = judged(results)
    table = worth(list(found.values()))
    assert column(table, "victim") == ["unet", "hardened", "distilled"]
    records = results.records

    def each(victim: str, condition: str) -> dict[str, float]:
        cells = (r for r in records if (r.victim, r.condition) == (victim, condition))
        return {r.case: s.value for r in cells for s in r.scores if (s.region, s.metric) == ("WT", "dice")}

    for name, title in (("ifgsm", "naive score"), ("ifgsm-T10", "logits / 10"), ("ifgsm-margin", "logit margin")):
        means = [fmean(each(victim, f"{name}-{SLUG}").values()) for victim in found]
        assert column(table, title) == pytest.approx(means)
    attacks = [f"{name}-{SLUG}" for name in ("fgsm", "ifgsm", "ifgsm-T10", "ifgsm-margin")]
    sources = {"unet": ["hardened", "distilled"], "hardened": ["unet"], "distilled": ["unet", TEACHER]}
    for victim, worst in zip(found, column(table, "worst case"), strict=True):
        met = [each(victim, c) for c in (*attacks, *(f"transfer-from-{s}-{SLUG}" for s in sources[victim]))]
        assert worst == pytest.approx(fmean(min(of[case] for of in met) for case in met[0]))
        assert worst < min(fmean(of.values()) for of in met)  # a mean of least ones is less than the least mean
    assert column(table, "zero gradients") == pytest.approx([0, 0, 0.54])
    assert column(table, "transfer from undefended")[0] is None
    assert column(table, "transfer from teacher")[:2] == [None, None]
    lowest = min(fmean(each("unet", f"transfer-from-{s}-{SLUG}").values()) for s in UNDEFENDED)
    assert column(table, "transfer from defended, lowest") == [pytest.approx(lowest), None, None]


def test_the_difference_from_undefended_is_the_comparison(results: Results) -> None:
    table = worth(list(judged(results).values()))
    wanted = (f"worst-{SLUG}", "WT", "dice", "unet")
    rows = [r for r in results.comparisons if (r.condition, r.region, r.metric, r.rival) == wanted]
    assert [r.victim for r in rows] == ["hardened", "distilled"]
    assert column(table, "shift from undefended") == [None, *(r.estimate for r in rows)]
    assert column(table, "p, Holm") == [None, *(r.p_adjusted for r in rows)]
    loose = worth(undeclared(*pair(MASKED)))
    assert "p, unadjusted" in [c.title for c in loose.columns]


def test_only_the_worst_case_is_bold(results: Results) -> None:
    table = worth(list(judged(results).values()))
    assert [c.title for c in table.columns if c.strong] == ["worst case"]
    bold = re.findall(r"\\textbf\{([^}]*)\}", table.latex())
    assert bold == [f".{1000 * value:.0f}" for value in column(table, "worst case")]


def test_the_overstatement_is_a_number_where_it_is_large(results: Results) -> None:
    table = worth(list(judged(results).values()))
    (place,) = (i for i, each in enumerate(table.columns) if each.title == "overstates by")
    told = [row[place] for row in table.spelled()]
    assert told[:2] == [f"≤{NBSP}.05"] * 2
    assert float(told[2]) == pytest.approx(column(table, "naive score")[2] - column(table, "worst case")[2], abs=1e-3)


def test_which_attack_was_worst_adds_up_to_all_cases(results: Results) -> None:
    found = judged(results)
    for standing in found.values():
        assert sum(standing.blamed.values()) == 12
    assert set(found["distilled"].blamed) <= {"logits / 10", "logit margin", "from unet", f"from {TEACHER}"}
    assert found["distilled"].blamed["logits / 10"] > 6


def test_the_dumbbell_goes_from_naive_to_worst_in_the_studys_order(results: Results) -> None:
    found = list(judged(results).values())
    axes = dumbbells([found]).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["unet", "hardened", "distilled"]
    assert axes.yaxis_inverted()
    lines = {str(line.get_label()): line for line in axes.lines}
    for label, values in (
        ("clean", [s.clean for s in found]),
        ("naive: i-FGSM, 10 steps", [s.naive for s in found]),
        ("worst case of all attacks", [s.worst for s in found]),
    ):
        assert np.allclose(np.asarray(lines[label].get_xydata()), list(zip(values, range(3), strict=True)))
    assert axes.get_xlabel() == "mean Dice of WT"
    assert [text.get_text() for text in axes.texts] == [f"−.{100 * (found[2].overstated or 0):.0f}"]


def test_every_patient_is_a_line_from_undefended_to_defended(results: Results) -> None:
    found = judged(results)
    figure = paired_worst(list(found.values()))
    assert figure is not None
    assert len(figure.axes) == 2
    for axes, name in zip(figure.axes, ("hardened", "distilled"), strict=True):
        arms = [results.arm(victim, f"worst-{SLUG}") for victim in ("unet", name)]
        values = [arm.values("WT") for arm in arms if arm]
        drawn = sorted(tuple(line.get_ydata()) for line in axes.lines[:-1])
        assert drawn == sorted((values[0][unit], values[1][unit]) for unit in values[0])
        assert axes.lines[-1].get_ydata() == pytest.approx([fmean(v.values()) for v in values])
    assert paired_worst([found["unet"]]) is None


def test_a_teacher_is_told_of_in_the_provenance_alone(results: Results, page: Path) -> None:
    known = lineage(results)
    assert TEACHER in results.victims
    assert known.judged(results).victims == ("unet", "hardened", "distilled")
    written = read_results(page.parent.parent)
    (told,) = teachers(written, known)
    clean = written.clean(TEACHER)
    assert clean is not None
    assert told.startswith(f"{TEACHER} taught distilled and is not judged itself; it learnt the labels at T")
    assert f"2 steps, best validation Dice .80; clean Dice of WT {share(clean.mean('WT'))}." in told
    text = page.read_text(encoding="utf-8")
    before, _, after = text.partition('<section id="provenance">')
    assert told in html.unescape(after)
    assert f"<h3>{TEACHER}" not in text
    assert TEACHER in before  # only as where a transferred attack came from
    assert not re.search(rf"{TEACHER} \(", before)


def test_the_page_shows_the_defences_first(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    shown = re.findall(r'<section[^>]* id="(\w+)"', text)
    assert shown[:3] == ["answer", "defences", "scores"]
    plain = " ".join(html.unescape(re.sub(r"<[^>]+>", "", text)).split())
    assert plain.index("distilled (distillation at T = 10): Dice of WT") < plain.index("Each victim against its own")
    assert '<td class="n strong">' in text
    assert not re.search(r"robust|secure|\bsafe", plain, re.IGNORECASE)
    assert "Between victims: Primary, Dice (1)" in plain
    written = {path.name for path in page.parent.rglob("*") if path.is_file()}
    tables = {f"defences-WT-{SLUG}{suffix}" for suffix in (".csv", ".tex")}
    figures = {f"defences{part}{suffix}" for part in ("-WT", f"-paired-WT-{SLUG}") for suffix in (".png", ".pdf")}
    assert tables | figures <= written


def test_a_study_without_a_defence_has_no_such_section(run_folder: Path) -> None:
    plain = read_results(run_folder)
    known = lineage(plain)
    assert known.judged(plain) is plain
    assert section(plain, known, Path("nowhere")) is None
    assert teachers(plain, known) == ()


def test_a_specification_that_says_nothing_of_use_is_an_error_with_advice(results: Results) -> None:
    torn = {**results.specification, "victims": {"a": {"defence": {"name": "prayer"}}}}
    with pytest.raises(RunError, match="does not say who is a defence of whom"):
        lineage(replace(results, specification=torn))


def test_each_defence_has_words() -> None:
    known = lineage(Defended().results()).entrants
    told = [called(known[name].spec.defence).replace(NBSP, " ") for name in ("unet", "hardened", "distilled")]
    assert told == ["undefended", "adversarial training, 5 steps", "distillation at T = 10"]


def test_budgets_are_judged_one_by_one() -> None:
    left = {"unet": PLAIN, "distilled": MASKED}
    study = Defended(budgets=("0.05 sigma", "0.1 sigma"), cases=6, victims=PAIR, left=left)
    found = levels(study.results())
    assert found == tuple(
        Level(slug, "ifgsm", (10.0,), title)
        for slug, title in (("0.05-sigma", f"0.05{NBSP}σ"), (SLUG, f"0.1{NBSP}σ"))
    )
