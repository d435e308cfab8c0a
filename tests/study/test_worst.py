"""The worst case: of each patient the attack that did most harm, never of the mean."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from statistics import fmean

import pytest
from study.defended_study import by_place
from study.small_study import every_record

from medadv.study.judgement import Judgement
from medadv.study.records import POLICY, Presented, Record, Score, digest
from medadv.study.results import read_results
from medadv.study.worst import worst_cases

WORST = "worst-0.1-sigma"
ATTACKS = ("a-0.1-sigma", "b-0.1-sigma")
JUDGEMENT = Judgement(judged=("plain",), undefended={}, worst={"plain": {WORST: ATTACKS}})


def score(metric: str, value: float, region: str = "WT") -> Score:
    counts = {"truth": 9, "predicted": 9, "hit": 4}
    return Score(region=region, metric=metric, policy=POLICY, value=value, computed=value, **counts)


def made(condition: str, case: str, dice: float, hd95: float, victim: str = "plain", patient: str = "p") -> Record:
    """One cell with two scores."""
    role = "clean" if condition == "clean" else "attack"
    shown = Presented(role=role, family=condition[0], title=condition, budget="0.1 sigma", amount=0.1, unit="sigma")
    return Record(
        key=digest([condition, case, victim]),
        victim=victim,
        condition=condition,
        case=case,
        patient=patient,
        presented=shown,
        inputs={"regions": ["WT"], "condition": {"kind": role}},
        radii={"stored": {"t1": 1.0}},
        size=0.5,
        delivered={},
        effort=None,
        fidelity=[],
        scores=[score("dice", dice), score("hd95", hd95)],
    )


def crossed() -> list[Record]:
    """Each attack is the worse one for one case: the mean of either is .5, the worst case's mean is .1."""
    return [
        made(ATTACKS[0], "one", 0.1, 5.0, patient="p"),
        made(ATTACKS[1], "one", 0.9, 40.0, patient="p"),
        made(ATTACKS[0], "two", 0.9, 30.0, patient="q"),
        made(ATTACKS[1], "two", 0.1, 2.0, patient="q"),
    ]


def values(records: list[Record], metric: str = "dice") -> dict[str, float]:
    return {r.case: s.value for r in records for s in r.scores if s.metric == metric}


def test_it_is_the_mean_of_minima_and_not_the_minimum_of_means() -> None:
    found = worst_cases(crossed(), JUDGEMENT)
    assert values(found) == {"one": 0.1, "two": 0.1}
    means = [fmean(s.value for r in crossed() if r.condition == a for s in r.scores[:1]) for a in ATTACKS]
    assert fmean(values(found).values()) == pytest.approx(0.1)
    assert min(means) == pytest.approx(0.5)


def test_each_metric_has_its_own_worst_attack_and_says_which() -> None:
    found = {record.case: record for record in worst_cases(crossed(), JUDGEMENT)}
    assert values(list(found.values()), "hd95") == {"one": 40.0, "two": 30.0}
    assert [s.attack for s in found["one"].scores] == [ATTACKS[0], ATTACKS[1]]
    assert [s.attack for s in found["two"].scores] == [ATTACKS[1], ATTACKS[0]]


def test_of_equals_it_names_the_first() -> None:
    even = [made(a, "one", 0.5, 3.0) for a in reversed(ATTACKS)]
    (found,) = worst_cases(even, JUDGEMENT)
    assert {s.attack for s in found.scores} == {ATTACKS[0]}


@pytest.mark.parametrize("lost", range(4))
def test_a_case_that_lacks_an_attack_has_no_worst_case(lost: int) -> None:
    records = crossed()
    gone = records.pop(lost)
    assert {record.case for record in worst_cases(records, JUDGEMENT)} == {"one", "two"} - {gone.case}


def test_another_attack_of_the_same_budget_does_not_count_unless_it_was_declared() -> None:
    control = made("noise-0.1-sigma", "one", 0.0, 90.0)
    assert values(worst_cases([*crossed(), control], JUDGEMENT)) == {"one": 0.1, "two": 0.1}


def test_it_is_told_as_an_attack_and_has_a_key_of_its_own() -> None:
    first, second = worst_cases(crossed(), JUDGEMENT)
    assert (first.condition, first.presented.family, first.presented.role) == (WORST, "worst", "attack")
    assert first.presented.title == "worst case of 2 attacks"
    assert (first.presented.budget, first.presented.amount, first.presented.unit) == ("0.1 sigma", 0.1, "sigma")
    assert len({first.key, second.key, *(r.key for r in crossed())}) == 6
    assert first.inputs["condition"]["of"] == list(ATTACKS)


def test_a_control_that_does_more_harm_is_the_worst_case_and_the_title_counts_it() -> None:
    noise = [made("noise-0.1-sigma", case, 0.05, 9.0, patient=case) for case in ("one", "two")]
    records = [*crossed(), *(r.model_copy(update={"presented": blind(r.presented)}) for r in noise)]
    wider = JUDGEMENT.model_copy(update={"worst": {"plain": {WORST: (*ATTACKS, "noise-0.1-sigma")}}})
    found = worst_cases(records, wider)
    assert values(found) == {"one": 0.05, "two": 0.05}
    assert {r.scores[0].attack for r in found} == {"noise-0.1-sigma"}
    assert {r.presented.title for r in found} == {"worst case of 2 attacks and 1 control"}
    assert {r.presented.role for r in found} == {"attack"}


def blind(shown: Presented) -> Presented:
    return shown.model_copy(update={"role": "control"})


def test_a_study_without_a_defence_has_none() -> None:
    assert worst_cases(crossed(), None) == []


# In a run


def test_it_is_in_the_tables_and_the_results_and_not_among_the_cells(judged: Path) -> None:
    results = read_results(judged)
    arm = results.arm("loud", "worst-0.3-sigma")
    assert arm is not None
    assert len(arm.records) == 3
    assert arm.presented.title == "worst case of 5 attacks and 1 control"
    assert not (judged / "records" / "loud" / "worst-0.3-sigma").exists()
    found = by_place(every_record(judged))
    members = results.judgement.worst["loud"]["worst-0.3-sigma"]
    for case, score in arm.scores("WT").items():
        by_hand = {name: found["loud", name, case].scores[0].value for name in members}
        assert score.value == min(by_hand.values())
        assert by_hand[score.attack] == score.value
    with (judged / "scores.csv").open() as table:
        rows = [row for row in csv.DictReader(table) if row["condition"] == "worst-0.3-sigma"]
    assert len(rows) == 2 * 3 * 2
    assert all(row["attack"] in members or row["victim"] == "glow" for row in rows)


def test_it_may_be_what_the_study_declares(three: Path) -> None:
    from study.defended_study import defended

    from medadv.study.suite import judgement, primary_family

    study = defended(three, primary={"region": "WT", "attacks": ["worst"], "against": "undefended"})
    family = primary_family(study)
    assert family.conditions == ("worst-0.3-sigma",)
    assert (family.victims, family.rivals) == (("loud",), {"loud": "glow"})
    against_clean = primary_family(defended(three, primary={"region": "WT", "attacks": ["worst", "ifgsm"]}))
    assert against_clean.conditions == ("worst-0.3-sigma", "ifgsm-0.3-sigma")
    assert against_clean.victims == ("glow", "loud")
    declared = judgement(study)
    assert declared is not None
    assert json.loads(declared.model_dump_json())["worst"]["glow"]
