"""Which comparisons a study makes, what is declared and what is not, and what happens to incomplete records."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from medadv.errors import ConfigError, RunError
from medadv.study.pairs import Pairs
from medadv.study.records import Presented, Record, Score
from medadv.study.signed_rank import signed_rank
from medadv.study.stats import NO_CLAIM, Comparison, PrimaryFamily, compare, holm

CONDITIONS = {
    "clean": Presented(role="clean", family="clean", title="clean"),
    "identity": Presented(role="control", family="identity", title="identity"),
    "noise": Presented(role="control", family="noise", title="sign noise", amount=0.1, unit="sigma"),
    "fgsm-0.2": Presented(role="attack", family="fgsm", title="FGSM", amount=0.2, unit="sigma"),
    "fgsm-0.1": Presented(role="attack", family="fgsm", title="FGSM", amount=0.1, unit="sigma"),
    "permuted-fgsm-0.1": Presented(
        role="control", family="permuted fgsm", title="FGSM, permuted", amount=0.1, unit="sigma", of="fgsm-0.1"
    ),
}
DECLARED = PrimaryFamily(region="WT", conditions=("fgsm-0.1", "fgsm-0.2"))
REGIONS = ["WT", "TC"]


def dice(victim: str, condition: str, case: int, region: str) -> float:
    """Repeatable scores: attacks lower them, controls do not."""
    g = np.random.default_rng([*f"{victim}{case}{region}".encode()])
    drop = {"fgsm-0.1": 0.3, "fgsm-0.2": 0.5}.get(condition, 0.0)
    return float(0.8 + 0.1 * g.random() - drop * (0.5 + g.random()) - 0.002 * (condition == "noise") * g.random())


def record(victim: str, condition: str, case: int, patient: str | None) -> Record:
    scores = [
        Score(
            region=region,
            metric=metric,
            policy="strict",
            value=dice(victim, condition, case, region) if metric == "dice" else 3.0,
            computed=0.5,
            truth=9,
            predicted=8,
            hit=7,
        )
        for region in REGIONS
        for metric in ("dice", "hd95")
    ]
    return Record(
        key=f"{victim}{condition}{case}",
        victim=victim,
        condition=condition,
        case=f"case{case:02}",
        patient=patient,
        presented=CONDITIONS[condition],
        inputs={},
        radii=None,
        size=None,
        delivered={},
        effort=None,
        fidelity=[],
        scores=scores,
    )


def study(
    victims: Iterable[str] = ("unet",), cases: int = 8, patient: Callable[[int], str | None] = lambda case: None
) -> list[Record]:
    return [record(v, c, k, patient(k)) for v in victims for c in CONDITIONS for k in range(cases)]


def asked(comparisons: Iterable[Comparison]) -> list[tuple[str, str]]:
    return [(row.condition, row.against) for row in comparisons]


def test_every_condition_meets_clean_and_every_attack_its_own_permutation() -> None:
    comparisons = compare(study(("unet", "segresnet")), DECLARED, REGIONS)
    assert [(row.victim, row.region) for row in comparisons[::6]] == [
        (victim, region) for victim in ("segresnet", "unet") for region in REGIONS
    ]
    for start in range(0, 24, 6):
        assert asked(comparisons[start : start + 6]) == [
            ("fgsm-0.1", "clean"),
            ("fgsm-0.2", "clean"),
            ("identity", "clean"),
            ("noise", "clean"),
            ("permuted-fgsm-0.1", "clean"),
            ("fgsm-0.1", "permuted-fgsm-0.1"),
        ]


def test_a_row_is_the_test_of_its_pairs() -> None:
    row = compare(study(), DECLARED, REGIONS)[0]
    scores = [{f"case{k:02}": dice("unet", c, k, "WT") for k in range(8)} for c in ("fgsm-0.1", "clean")]
    result = signed_rank(Pairs(scores[0], scores[1], {}))
    for name in (
        "n",
        "zeros",
        "ties",
        "p",
        "w_plus",
        "w_minus",
        "estimate",
        "low",
        "high",
        "confidence",
        "rank_biserial",
    ):
        assert getattr(row, name) == getattr(result, name), name
    assert (row.n, row.method, row.zero_method, row.sided, row.unit) == (8, "exact", "pratt", "two-sided", "cases")
    assert row.mean_condition == pytest.approx(np.mean([*scores[0].values()]))
    assert row.mean_against == pytest.approx(np.mean([*scores[1].values()]))
    assert row.estimate is not None
    assert row.estimate < 0, "condition - against: an attack that works has a negative shift of Dice"


def test_the_declared_family_is_adjusted_over_all_victims_and_nothing_else_is() -> None:
    comparisons = compare(study(("unet", "segresnet")), DECLARED, REGIONS)
    primary = [row for row in comparisons if row.family == "primary"]
    assert [(row.victim, row.region, row.condition, row.against) for row in primary] == [
        (victim, "WT", condition, "clean") for victim in ("segresnet", "unet") for condition in DECLARED.conditions
    ]
    expected = multipletests([row.p for row in primary], method="holm")[1]
    assert [row.p_adjusted for row in primary] == pytest.approx(list(expected), rel=1e-12)
    assert all(row.p_adjusted is None for row in comparisons if row.family == "exploratory")
    assert len(primary) == 4 < len(comparisons)


@pytest.mark.parametrize(
    "declared",
    [
        PrimaryFamily(region="WT", conditions=()),
        PrimaryFamily(region="WT", conditions=("fgsm-0.1",), metric="hd95"),
    ],
)
def test_without_a_declaration_in_this_metric_everything_is_exploratory(declared: PrimaryFamily) -> None:
    assert {row.family for row in compare(study(), declared, REGIONS)} == {"exploratory"}


def test_another_metric_is_compared_by_its_own_scores() -> None:
    comparisons = compare(study(), DECLARED, ["WT"], metric="hd95")
    assert {(row.metric, row.mean_condition, row.p, row.zeros) for row in comparisons} == {("hd95", 3.0, 1.0, 8)}


def test_a_family_against_another_condition_is_asked_for() -> None:
    declared = PrimaryFamily(region="WT", conditions=("fgsm-0.2",), against="noise")
    comparisons = compare(study(), declared, REGIONS)
    assert asked(row for row in comparisons if row.family == "primary") == [("fgsm-0.2", "noise")]
    assert ("fgsm-0.2", "noise") not in asked(row for row in comparisons if row.region == "TC")


def test_a_declared_condition_without_scores_keeps_its_place_in_the_family() -> None:
    records = [r for r in study() if r.condition != "fgsm-0.2"]
    first, second = [row for row in compare(records, DECLARED, REGIONS) if row.family == "primary"]
    assert first.p_adjusted == pytest.approx(2 * first.p)
    assert (second.condition, second.n, second.p, second.p_adjusted, second.verdict) == ("fgsm-0.2", 0, 1, 1, NO_CLAIM)
    assert (second.estimate, second.low, second.mean_condition, second.mean_against) == (None, None, None, None)
    assert len(second.missing) == 8


def test_missing_cases_are_left_out_and_listed() -> None:
    gone = {("fgsm-0.1", "case03"), ("clean", "case05")}
    row = compare([r for r in study() if (r.condition, r.case) not in gone], DECLARED, REGIONS)[0]
    assert (row.n, row.missing) == (6, ("case03", "case05"))


@pytest.mark.parametrize(("cases", "verdict"), [(5, NO_CLAIM), (6, "")])
def test_below_six_pairs_no_claim_is_made(cases: int, verdict: str) -> None:
    for row in compare(study(cases=cases), DECLARED, REGIONS):
        assert (row.n, row.verdict) == (cases, verdict)
        assert row.p >= 2.0 ** (1 - cases)


def test_the_unit_is_the_patient_and_one_unknown_makes_all_of_them_cases() -> None:
    known = compare(study(cases=12, patient=lambda k: f"p{k // 2}"), DECLARED, REGIONS)
    assert {(row.unit, row.n) for row in known} == {("patients", 6)}
    mixed = compare(study(cases=12, patient=lambda k: f"p{k // 2}" if k else None), DECLARED, REGIONS)
    assert {(row.unit, row.n) for row in mixed} == {("cases", 12)}


@settings(max_examples=10)
@given(st.permutations(study(("unet", "segresnet"), cases=3)))
def test_the_order_of_records_never_matters(shuffled: list[Record]) -> None:
    records = study(("unet", "segresnet"), cases=3)
    assert compare(shuffled, DECLARED, REGIONS) == compare(records, DECLARED, REGIONS)


def test_scores_of_another_policy_are_not_mixed_in() -> None:
    records = [
        r.model_copy(update={"scores": [*r.scores, r.scores[0].model_copy(update={"policy": "brats", "value": 0.0})]})
        for r in study()
    ]
    assert compare(records, DECLARED, REGIONS) == compare(study(), DECLARED, REGIONS)


def test_a_score_that_is_nan_is_refused() -> None:
    records = study()
    ill = records[3].scores[0].model_copy(update={"value": math.nan})
    records[3] = records[3].model_copy(update={"scores": [ill, *records[3].scores[1:]]})
    with pytest.raises(ConfigError, match="case03"):
        compare(records, DECLARED, REGIONS)


def test_two_records_of_one_cell_are_refused() -> None:
    with pytest.raises(RunError, match="two records of one cell: unet, clean, case00"):
        compare([*study(), study()[0]], DECLARED, REGIONS)


def test_a_case_of_two_patients_is_refused() -> None:
    records = study(patient=lambda k: f"p{k}")
    records[-1] = records[-1].model_copy(update={"patient": "p0"})
    with pytest.raises(RunError, match="case07 belongs to two patients"):
        compare(records, DECLARED, REGIONS)


def test_a_declared_region_that_is_not_compared_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"got: WT(.|\n)*one of \['TC'\]"):
        compare(study(), DECLARED, ["TC"])


def test_comparisons_and_declarations_survive_json() -> None:
    for row in compare(study(cases=2), DECLARED, REGIONS):
        assert Comparison.model_validate_json(row.model_dump_json()) == row
    assert PrimaryFamily.model_validate_json(DECLARED.model_dump_json()) == DECLARED


@pytest.mark.parametrize(
    "p_values",
    [
        [0.03],
        [0.01, 0.04, 0.03, 0.005],
        [0.02, 0.02, 0.02, 1.0, 0.0],
        [0.9, 0.8, 0.7],
        list(np.random.default_rng(0).random(12) ** 4),
    ],
)
def test_holm_is_statsmodels(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(list(multipletests(p_values, method="holm")[1]), rel=1e-12)


@given(st.lists(st.floats(0, 1, allow_nan=False), max_size=12))
def test_holm_only_raises_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= a <= 1 for p, a in zip(p_values, adjusted, strict=True))
    assert all(adjusted[i] <= adjusted[k] for i, p in enumerate(p_values) for k, q in enumerate(p_values) if p < q)


@pytest.mark.parametrize("bad", [math.nan, -0.1, 1.1])
def test_holm_refuses_what_is_no_p_value(bad: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        holm([0.5, bad])
