"""Victims held against each other: matched pairs, declared families, non-inferiority within a margin."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from study.test_worst import ATTACKS, WORST, made

from medadv.study.judgement import Judgement
from medadv.study.pairs import Pairs
from medadv.study.records import Record
from medadv.study.rivals import between, non_inferiority, on_common
from medadv.study.stats import Comparison, PrimaryFamily, Question, adjusted, holm
from medadv.study.worst import worst_cases

VICTIMS = ("plain", "one", "two")
UNDEFENDED = {"one": "plain", "two": "plain"}
JUDGEMENT = Judgement(
    judged=VICTIMS, undefended=UNDEFENDED, worst={v: {WORST: ATTACKS} for v in VICTIMS}, margin=0.05
)
PRIMARY = PrimaryFamily(region="WT", victims=VICTIMS, conditions=("a-0.1-sigma",))
RIVALS = PrimaryFamily(region="WT", victims=("one", "two"), conditions=(WORST,), rivals=UNDEFENDED)
CLEAN = Question("one", "WT", "dice", "clean", "clean", "non-inferiority", "plain")


def study(cases: int = 8) -> list[Record]:
    """Three victims on some patients, clean and under two attacks and their worst case."""
    random = np.random.default_rng(0)
    lift = {"plain": 0.0, "one": 0.02, "two": 0.3}

    def dice(victim: str, condition: str, base: float) -> float:
        return float(np.clip(base + lift[victim] * (condition != "clean") + random.normal(0, 0.01), 0, 1))

    return [
        made(condition, f"case{k}", dice(v, condition, base), 9.0, v, f"p{k}")
        for v in VICTIMS
        for condition, base in (("clean", 0.8), (ATTACKS[0], 0.3), (ATTACKS[1], 0.4), (WORST, 0.2))
        for k in range(cases)
    ]


def found(rows: list[Comparison], **wanted: object) -> list[Comparison]:
    return [row for row in rows if all(getattr(row, name) == value for name, value in wanted.items())]


def test_every_pair_of_victims_meets_under_every_condition_both_have() -> None:
    rows = between(study(), PRIMARY, JUDGEMENT, ["WT"])
    two_sided = found(rows, margin=None)
    pairs = {(row.victim, row.rival) for row in two_sided}
    assert pairs == {("one", "plain"), ("two", "plain"), ("two", "one")}
    assert {row.condition for row in two_sided} == {"clean", *ATTACKS, WORST}
    assert len(two_sided) == 3 * 4 * 2
    assert all(row.condition == row.against for row in rows)


def test_pairs_are_matched_by_case_whatever_the_order_of_records() -> None:
    """Planted fault: scores taken in order instead of by case give other differences."""
    records = study()
    straight = between(records, PRIMARY, JUDGEMENT, ["WT"])
    assert between(records[::-1], PRIMARY, JUDGEMENT, ["WT"]) == straight
    scores = {(r.victim, r.condition, r.case): r.scores[0].value for r in records}
    (row,) = found(straight, victim="two", rival="plain", condition=WORST, metric="dice")
    mine, theirs = (np.array([scores[v, WORST, f"case{k}"] for k in range(8)]) for v in ("two", "plain"))
    assert row.p == pytest.approx(stats.wilcoxon(mine, theirs, method="exact").pvalue, rel=1e-12)
    assert row.mean_condition == pytest.approx(mine.mean())
    assert row.mean_against == pytest.approx(theirs.mean())


def test_a_case_that_one_victim_lacks_is_left_out_and_told() -> None:
    records = [r for r in study() if (r.victim, r.condition, r.case) != ("one", WORST, "case3")]
    rows = between(records, PRIMARY, JUDGEMENT, ["WT"])
    (row,) = found(rows, victim="one", condition=WORST, metric="dice", margin=None)
    assert (row.n, row.missing) == (7, ("case3",))


def test_scans_of_one_patient_are_one_pair() -> None:
    records = [r.model_copy(update={"patient": f"p{int(r.case[4:]) // 2}"}) for r in study(12)]
    rows = between(records, PRIMARY, JUDGEMENT, ["WT"])
    (row,) = found(rows, victim="one", condition=WORST, metric="dice", margin=None)
    assert (row.n, row.unit) == (6, "patients")


def test_the_family_of_rivals_is_corrected_by_itself() -> None:
    rows = between(study(), PRIMARY, JUDGEMENT, ["WT"])
    family = found(rows, family="rivals")
    assert {(row.victim, row.rival, row.condition, row.metric) for row in family} == {
        ("one", "plain", WORST, "dice"),
        ("two", "plain", WORST, "dice"),
    }
    assert [row.p_adjusted for row in family] == holm([row.p for row in family])
    assert all(row.p_adjusted is None for row in found(rows, family="exploratory"))
    assert not found(rows, family="primary")


def test_declared_against_the_undefended_they_are_the_primary_family() -> None:
    rows = between(study(), RIVALS, JUDGEMENT, ["WT"])
    primary = found(rows, family="primary")
    assert {(row.victim, row.rival, row.condition) for row in primary} == {
        ("one", "plain", WORST),
        ("two", "plain", WORST),
    }
    assert [row.p_adjusted for row in primary] == holm([row.p for row in primary])
    assert not found(rows, family="rivals")


def test_a_declared_comparison_without_scores_keeps_its_place_in_the_family() -> None:
    records = [r for r in study() if (r.victim, r.condition) != ("two", WORST)]
    lost, other = sorted(found(between(records, RIVALS, JUDGEMENT, ["WT"]), family="primary"), key=lambda row: row.n)
    assert (lost.victim, lost.n, lost.p, lost.p_adjusted) == ("two", 0, 1.0, 1.0)
    assert other.p_adjusted == min(1.0, 2 * other.p)


def test_each_family_is_corrected_by_itself_and_not_all_together() -> None:
    """Planted fault: Holm over all declared rows together gives 4, 3, 2 and 1 times where it has to be 2 and 1."""
    rows = between(study(), PRIMARY, JUDGEMENT, ["WT"])
    (row, *_) = found(rows, family="rivals")
    p_values = {"rivals": (0.01, 0.02), "non-inferiority": (0.012, 0.001), "exploratory": (0.0005,)}
    made_up = [row.model_copy(update={"family": f, "p": p}) for f, values in p_values.items() for p in values]
    told = [(r.family, r.p_adjusted) for r in adjusted(made_up)]
    assert told == [
        ("rivals", pytest.approx(0.02)),
        ("rivals", pytest.approx(0.02)),
        ("non-inferiority", pytest.approx(0.012)),
        ("non-inferiority", pytest.approx(0.002)),
        ("exploratory", None),
    ]


def test_a_defended_detector_is_told_in_its_own_metric_beside_a_defended_segmenter() -> None:
    """Planted fault: in the study's metric it has no score, so n is 0 and its p is 1."""
    detectors = {"one": "recall", "plain": "recall"}
    records = [
        r.model_copy(update={"scores": [r.scores[0].model_copy(update={"metric": "recall"})]})
        if r.victim in detectors
        else r
        for r in study()
    ]
    records += [r.model_copy(update={"victim": "bare"}) for r in records if r.victim == "two"]
    undefended = {"one": "plain", "two": "bare"}
    judgement = Judgement(
        judged=("plain", "one", "bare", "two"),
        undefended=undefended,
        worst={v: {WORST: ATTACKS} for v in ("plain", "one", "bare", "two")},
        margin=0.05,
    )
    for primary in (PRIMARY, RIVALS.model_copy(update={"rivals": undefended})):
        mixed = primary.model_copy(update={"metrics": detectors})
        rows = between(records, mixed, judgement, ["WT"])
        for family in ("primary" if mixed.rivals else "rivals", "non-inferiority"):
            told = {row.victim: (row.metric, row.n) for row in found(rows, family=family)}
            assert told == {"one": ("recall", 8), "two": ("dice", 8)}
    silent = [r for r in records if r.victim not in detectors]
    lost = found(between(silent, mixed, judgement, ["WT"]), victim="one")
    assert {(row.metric, row.n, row.family) for row in lost} >= {("recall", 0, "primary")}


# Over what both met

MORE = JUDGEMENT.model_copy(
    update={"worst": {"plain": {WORST: ATTACKS}, "one": {WORST: (*ATTACKS, "c-0.1-sigma")}, "two": {WORST: ATTACKS}}}
)


def neutral(seed: int, cases: int) -> list[Record]:
    """A defence that changes nothing, which meets one attack more that is as strong."""
    random = np.random.default_rng(seed)
    met = {"plain": ATTACKS, "one": (*ATTACKS, "c-0.1-sigma")}
    return [
        made(condition, f"case{k}", float(random.normal(0.4, 0.05)), 9.0, victim, f"p{k}")
        for victim, conditions in met.items()
        for condition in conditions
        for k in range(cases)
    ]


def worse(seed: int, cases: int) -> tuple[bool, bool]:
    """Whether harm would be told of the whole lists, and over what both met."""
    records = neutral(seed, cases)
    every = [*records, *worst_cases(records, MORE)]
    (row,) = found(between(every, PRIMARY, MORE, ["WT"]), victim="one", rival="plain", condition=WORST, metric="dice")
    even = on_common(every, MORE, row)
    return tuple(r.p < 0.05 and (r.estimate or 0) < 0 for r in (row, even))


def test_a_defence_that_only_meets_more_is_not_worse_over_what_both_met() -> None:
    """Planted fault: a minimum over three is lower than one over two, in every third study of these."""
    told = [worse(seed, 24) for seed in range(100)]
    assert sum(whole for whole, _ in told) > 15
    assert sum(whole and even for whole, even in told) <= 100 * 0.025 + 3 * (100 * 0.025 * 0.975) ** 0.5


def test_over_what_both_met_means_the_conditions_that_both_lists_name() -> None:
    records = [r for r in study() if r.condition != WORST]
    records += [made("c-0.1-sigma", f"case{k}", 0.0, 99.0, "one", f"p{k}") for k in range(8)]
    every = [*records, *worst_cases(records, MORE)]
    (row,) = found(between(every, PRIMARY, MORE, ["WT"]), victim="one", rival="plain", condition=WORST, metric="dice")
    even = on_common(every, MORE, row)
    scores = {(r.victim, r.condition, r.case): r.scores[0].value for r in records}
    least = {v: [min(scores[v, a, f"case{k}"] for a in ATTACKS) for k in range(8)] for v in ("one", "plain")}
    assert row.mean_condition == 0
    assert (even.mean_condition, even.mean_against) == pytest.approx([np.mean(least[v]) for v in ("one", "plain")])
    assert (even.family, even.p_adjusted) == ("exploratory", None)


# Non-inferiority


def pairs(defended: np.ndarray, undefended: np.ndarray) -> Pairs:
    return Pairs(
        {f"c{k}": float(value) for k, value in enumerate(defended)},
        {f"c{k}": float(value) for k, value in enumerate(undefended)},
        {f"c{k}": f"p{k}" for k in range(len(defended))},
    )


@given(st.integers(0, 1000), st.integers(6, 20), st.sampled_from([0.01, 0.05]))
@settings(max_examples=30, deadline=None)
def test_the_test_is_scipys_of_differences_lifted_by_the_margin(seed: int, n: int, margin: float) -> None:
    random = np.random.default_rng(seed)
    undefended = np.round(random.uniform(0.6, 0.9, n), 6)
    defended = np.round(undefended - 0.03 + 0.02 * random.normal(size=n), 6)
    row = non_inferiority(CLEAN, pairs(defended, undefended), margin)
    difference = defended - undefended
    if len(np.unique(np.round(np.abs(difference + margin), 6))) == n:  # SciPy's exact test knows no ties
        expected = stats.wilcoxon(difference + margin, alternative="greater", method="exact").pvalue
        assert row.p == pytest.approx(expected, rel=1e-9)
    first, second = np.triu_indices(n)
    walsh = np.sort((difference[first] + difference[second]) / 2)
    assert row.estimate == pytest.approx(np.median(walsh), abs=2e-6)
    assert row.low is not None
    assert row.high is None
    assert row.confidence >= 0.95
    assert (row.p <= 0.05) == (row.low > -margin)
    assert np.isclose(walsh, row.low, atol=2e-6).any()
    assert (row.sided, row.margin) == ("greater", margin)


def test_a_defence_that_costs_nothing_is_not_inferior_and_one_that_costs_more_is_not_shown_to_be() -> None:
    rows = {row.victim: row for row in found(between(study(), PRIMARY, JUDGEMENT, ["WT"]), family="non-inferiority")}
    assert rows["one"].verdict == "non-inferior within 0.05"
    assert (rows["one"].condition, rows["one"].against, rows["one"].rival) == ("clean", "clean", "plain")
    records = [
        made(r.condition, r.case, r.scores[0].value - 0.1 * (r.victim == "one"), 9.0, r.victim, r.patient or "")
        for r in study()
    ]
    costly = {row.victim: row for row in found(between(records, PRIMARY, JUDGEMENT, ["WT"]), family="non-inferiority")}
    assert costly["one"].verdict == "not shown to be non-inferior within 0.05"
    assert costly["one"].estimate == pytest.approx(-0.1, abs=0.02)
    assert costly["two"].verdict == "non-inferior within 0.05"


def test_the_verdict_is_of_the_adjusted_p() -> None:
    """Six pairs reach 1/64: below .05 alone and in two tests, not in four."""
    many = tuple(f"d{k}" for k in range(4))
    names = ("plain", *many)
    judgement = Judgement(judged=names, undefended=dict.fromkeys(many, "plain"), worst={}, margin=0.05)
    judgement = judgement.model_copy(update={"worst": {name: {} for name in names}})
    records = [made("clean", f"c{k}", 0.8, 9.0, name, f"p{k}") for name in names for k in range(6)]
    rows = found(between(records, PRIMARY, judgement, ["WT"]), family="non-inferiority")
    assert {row.p for row in rows} == {1 / 64}
    assert {row.p_adjusted for row in rows} == {4 / 64}
    assert {row.verdict for row in rows} == {"not shown to be non-inferior within 0.05"}


def test_below_six_pairs_there_is_no_claim() -> None:
    rows = found(between(study(5), PRIMARY, JUDGEMENT, ["WT"]), family="non-inferiority")
    assert {row.p for row in rows} == {1 / 32}
    assert all(row.verdict.startswith("no claim") for row in rows)


def test_without_a_margin_nothing_is_said_of_inferiority() -> None:
    silent = JUDGEMENT.model_copy(update={"margin": None})
    assert not [row for row in between(study(), PRIMARY, silent, ["WT"]) if row.margin is not None]


@pytest.mark.parametrize("n", [6, 12])
def test_at_the_margin_it_errs_no_more_than_one_time_in_twenty(n: int) -> None:
    """1000 studies of a defence that costs exactly the margin: the type-I error, with three standard errors."""
    random = np.random.default_rng(n)
    wrong = 0
    for _ in range(1000):
        undefended = random.uniform(0.6, 0.9, n)
        row = non_inferiority(CLEAN, pairs(undefended - 0.05 + random.laplace(0, 0.03, n), undefended), 0.05)
        wrong += row.p < 0.05
    assert wrong / 1000 <= 0.05 + 3 * (0.05 * 0.95 / 1000) ** 0.5
    assert wrong > 0  # it does claim sometimes


# In a run


def test_the_table_of_a_run_has_them(judged: Path) -> None:
    with (judged / "comparisons.csv").open() as table:
        rows = [row for row in csv.DictReader(table) if row["rival"]]
    assert {(row["victim"], row["rival"]) for row in rows} == {("loud", "glow")}
    names = {row["condition"] for row in rows}
    shared = {f"{kind}-0.3-sigma" for kind in ("ifgsm", "ifgsm-T100", "ifgsm-margin", "worst")}
    assert names == {"clean"} | shared  # what is transferred has another source for each
