"""What the report shows of defences: which numbers, what is drawn, and where."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from study.defended import (
    MASKED,
    PAIR,
    PLAIN,
    SLUG,
    TEACHER,
    Defended,
    column,
    judged,
    pair,
    undeclared,
)

from medadv.errors import RunError
from medadv.study.report import build
from medadv.study.report.defences.figures import dumbbells, paired_worst
from medadv.study.report.defences.lineage import called, declared, lineage
from medadv.study.report.defences.section import section, teachers
from medadv.study.report.defences.standing import levels
from medadv.study.report.defences.tables import worth
from medadv.study.report.numbers import share
from medadv.study.results import Results, read_results

NBSP = "\N{NO-BREAK SPACE}"


@pytest.fixture(scope="module")
def results() -> Results:
    return Defended().results()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    left = {"unet": PLAIN, "distilled": MASKED, TEACHER: MASKED}
    study = Defended(cases=6, regions=("WT",), victims=PAIR, left=left)
    return build(study.write(tmp_path_factory.mktemp("defences") / "study"))


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
    attacks = [f"{name}-{SLUG}" for name in ("fgsm", "ifgsm", "ifgsm-T10", "ifgsm-margin", "noise")]
    sources = {"unet": [], "hardened": ["unet"], "distilled": ["unet", TEACHER]}
    for victim, worst in zip(found, column(table, "worst case"), strict=True):
        met = [each(victim, c) for c in (*attacks, *(f"transfer-from-{s}-{SLUG}" for s in sources[victim]))]
        assert worst == pytest.approx(fmean(min(of[case] for of in met) for case in met[0]))
        assert worst < min(fmean(of.values()) for of in met)  # a mean of least ones is less than the least mean
    assert column(table, "zero gradients") == pytest.approx([0, 0, 0.54])
    assert column(table, "transfer from undefended")[0] is None
    assert column(table, "transfer from teacher")[:2] == [None, None]
    assert column(table, "sign noise") == pytest.approx([fmean(each(v, f"noise-{SLUG}").values()) for v in found])


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
        ("worst case of all", [s.worst for s in found]),
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
    assert [(level.worst, level.slug, level.title) for level in found] == [
        (f"worst-{slug}", slug, title) for slug, title in (("0.05-sigma", f"0.05{NBSP}σ"), (SLUG, f"0.1{NBSP}σ"))
    ]
    assert [level.varied.base for level in found] == ["ifgsm-0.05-sigma", f"ifgsm-{SLUG}"]


def test_attacks_that_a_user_calls_like_added_ones_do_not_confuse_it(results: Results) -> None:
    """What was varied is read from the declaration: names say nothing, a user may choose any."""
    (level,) = levels(results)
    strange = {f"fgsm-margin-{SLUG}": "fgsm-margin", f"scanner-T3-{SLUG}": "scanner-T3"}
    (like,) = (arm for arm in results.arms if (arm.victim, arm.condition) == ("unet", f"fgsm-{SLUG}"))
    shown = {name: like.presented.model_copy(update={"family": family}) for name, family in strange.items()}
    users = tuple(replace(like, condition=name, presented=shown[name]) for name in strange)
    more = replace(results, arms=(*users, *results.arms))
    assert levels(more) == (level,)
    assert level.varied.tempered == ((10.0, f"ifgsm-T10-{SLUG}"),)
    kept = {arm.condition for arm in declared(more).arms}
    assert set(strange) <= kept
    assert kept >= {f"ifgsm-{SLUG}", f"fgsm-{SLUG}", f"noise-{SLUG}"}
    assert not kept & {f"ifgsm-T10-{SLUG}", f"ifgsm-margin-{SLUG}", f"transfer-from-unet-{SLUG}"}


def test_what_was_worst_is_one_attack_on_the_page_and_all_in_the_csv(results: Results) -> None:
    found = judged(results)
    table = worth(list(found.values()))
    (place,) = (i for i, each in enumerate(table.columns) if each.title == "worst was")
    (most, count), *rest = sorted(found["distilled"].blamed.items(), key=lambda item: -item[1])
    assert rest
    assert table.spelled()[2][place].replace(NBSP, " ") == f"{most}: {count}"
    assert all(f"{name}: {number}" in table.csv() for name, number in rest)
    assert not table.columns[place].numeric
