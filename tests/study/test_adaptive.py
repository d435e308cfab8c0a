"""What a study with a defence runs beside its own attacks, by name, and what it declares."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from study.defended_study import DISTILLED, defended
from study.small_study import small

from medadv.attack.losses import LOSSES, Tempered
from medadv.errors import ConfigError
from medadv.study.adaptive import base_of, budgets_of, sources_of, temperatures_of
from medadv.study.attack_base import TemperedLoss
from medadv.study.attacks import Ifgsm
from medadv.study.conditions import Attacked, Need
from medadv.study.judgement import Judgement, Varied
from medadv.study.machine import Machine
from medadv.study.plan import plan
from medadv.study.spec import Study
from medadv.study.stats import PrimaryFamily
from medadv.study.suite import conditions, judgement, primary_family
from medadv.study.transfer import Transferred

ROOT = Path("data")
PLAIN: dict[str, Any] = {"inference": {"name": "whole"}}
HARD: dict[str, Any] = {"like": "glow", "defence": {"name": "adversarial training", "budgets": ["0.1 sigma"]}}


def names(study: Study, victim: str) -> list[str]:
    return [condition.name for condition in conditions(study, study.entrants[victim])]


def test_a_study_without_a_defence_gains_nothing() -> None:
    study = small(ROOT, victims={"glow": PLAIN, "other": {"like": "glow"}})
    assert names(study, "other") == names(study, "glow")
    assert len(names(study, "glow")) == 12
    assert judgement(study) is None
    assert not primary_family(study).rivals


def test_every_temperature_above_one_is_tried_on_every_victim() -> None:
    at = {"like": "glow", "defence": {"name": "distillation", "at": [5, 20, 0.5]}}
    study = defended(ROOT, victims={"glow": PLAIN, "soft": at}, adaptive={"temperatures": [2]})
    assert temperatures_of(study) == (2, 5, 20)
    for victim in ("glow", "soft-T5", "soft-T20", "soft-T0.5"):
        tempered = {name for name in names(study, victim) if name.startswith("ifgsm-T")}
        assert tempered == {f"ifgsm-T{t}-0.3-sigma" for t in (2, 5, 20)}


def test_logits_are_divided_by_ten_where_nobody_was_trained_at_a_temperature() -> None:
    study = defended(ROOT, victims={"glow": PLAIN, "hard": HARD})
    assert temperatures_of(study) == (10,)
    expected = ["clean", "ifgsm", "noise", "ifgsm-T10", "ifgsm-margin", "transfer-from-glow"]
    assert names(study, "hard") == [name if name == "clean" else f"{name}-0.3-sigma" for name in expected]
    assert names(study, "glow") == names(study, "hard")[:-1]  # and nothing of others


def test_a_defence_is_shown_what_was_found_for_the_undefended_victim_and_its_teacher() -> None:
    study = defended(ROOT, victims={"glow": PLAIN, "loud": DISTILLED, "hard": HARD})
    sources = {name: sources_of(entrant) for name, entrant in study.entrants.items()}
    assert sources == {"glow": (), "loud": ("glow", "loud-teacher"), "loud-teacher": (), "hard": ("glow",)}


def test_a_defence_meets_all_that_the_undefended_victim_meets_and_more() -> None:
    study = defended(ROOT, victims={"glow": PLAIN, "loud": DISTILLED, "hard": HARD})
    assert set(names(study, "glow")) < set(names(study, "loud"))
    assert set(names(study, "glow")) < set(names(study, "hard"))


ATTACKS = {
    "tifgsm": {"preset": "tifgsm", "steps": 90, "goal": {"erase": "WT"}},
    "region": {"preset": "pgd", "steps": 20, "region": "WT"},
    "first": {"preset": "ifgsm", "steps": 20},
    "second": {"preset": "pgd", "steps": 20},
    "fgsm": {"preset": "fgsm"},
}


def test_the_untargeted_attack_of_most_steps_is_varied() -> None:
    assert base_of(defended(ROOT, attacks=ATTACKS)) == "first"
    assert base_of(defended(ROOT, attacks=ATTACKS, adaptive={"attack": "fgsm"})) == "fgsm"
    assert base_of(defended(ROOT, attacks={name: ATTACKS[name] for name in ("tifgsm", "region")})) == "region"
    with pytest.raises(ConfigError, match="no untargeted attack"):
        base_of(defended(ROOT, attacks={"tifgsm": ATTACKS["tifgsm"]}))


def test_it_is_varied_at_the_primary_budgets() -> None:
    many = {"budgets": ["0.1 sigma", "0.2 sigma", "0.3 sigma"]}
    assert budgets_of(defended(ROOT, **many)) == ("0.1 sigma", "0.2 sigma", "0.3 sigma")
    primary = {"region": "WT", "budgets": ["0.2 sigma"]}
    assert budgets_of(defended(ROOT, **many, primary=primary)) == ("0.2 sigma",)
    assert budgets_of(defended(ROOT, **many, primary=primary, adaptive={"budgets": ["0.1"]})) == ("0.1 sigma",)
    # a budget of its own: the attack itself is run there too, or its files could not be shown to others
    study = defended(ROOT, **many, adaptive={"budgets": ["0.5 sigma"]})
    assert {"ifgsm-0.5-sigma", "ifgsm-margin-0.5-sigma", "ifgsm-T100-0.5-sigma"} <= set(names(study, "glow"))
    assert "transfer-from-glow-0.5-sigma" in names(study, "loud")


def test_the_worst_case_is_of_all_that_is_delivered_at_its_budget() -> None:
    """A targeted attack, noise and what is permuted are allowed as well: whoever attacks may choose them."""
    study = defended(ROOT, attacks=ATTACKS, controls=["identity", "noise", "permuted"], budgets=["0.3 sigma", "0.5"])
    declared = judgement(study)
    assert declared is not None
    kinds = {*ATTACKS, *(f"permuted-{name}" for name in ATTACKS), "noise", "first-T100", "first-margin"}
    others = {"transfer-from-glow", "transfer-from-loud-teacher"}
    assert set(declared.worst["loud"]["worst-0.3-sigma"]) == {f"{kind}-0.3-sigma" for kind in kinds | others}
    assert set(declared.worst["glow"]["worst-0.3-sigma"]) == {f"{kind}-0.3-sigma" for kind in kinds}
    assert set(declared.worst["loud"]) == {"worst-0.3-sigma", "worst-0.5-sigma"}
    assert set(declared.worst) == {"glow", "loud"}


REACHES = {
    "wide": {"preset": "ifgsm", "steps": 2},
    "narrow": {"preset": "fgsm", "modalities": ["t1", "t2"]},
    "single": {"preset": "fgsm", "modalities": ["t1"]},
}


@pytest.mark.parametrize(("base", "within"), [("wide", set(REACHES)), ("narrow", {"narrow", "single"})])
def test_what_reaches_fewer_modalities_is_within_the_threat_and_what_reaches_more_is_not(
    base: str, within: set[str]
) -> None:
    study = defended(ROOT, attacks=REACHES, adaptive={"attack": base})
    declared = judgement(study)
    assert declared is not None
    members = declared.worst["loud"]["worst-0.3-sigma"]
    names_of = {name: f"{study.family(name)}-0.3-sigma" for name in REACHES}
    assert {name for name, condition in names_of.items() if condition in members} == within


def test_the_declaration_says_what_was_varied_how_and_for_whom() -> None:
    """Attacks of the user's own may be called like added ones, or be one of them under another name."""
    attacks = {
        "ifgsm": {"preset": "ifgsm", "steps": 2},
        "fgsm-margin": {"preset": "fgsm"},
        "scanner-T3": {"preset": "fgsm"},
        "mine": {"preset": "ifgsm", "steps": 2, "loss": "logit margin"},
    }
    declared = judgement(defended(ROOT, attacks=attacks, adaptive={"temperatures": [20]}))
    assert declared is not None
    assert declared.varied["worst-0.3-sigma"] == Varied(
        base="ifgsm-0.3-sigma",
        tempered=((20.0, "ifgsm-T20-0.3-sigma"), (100.0, "ifgsm-T100-0.3-sigma")),
        margin="mine-0.3-sigma",
        noise="noise-0.3-sigma",
        sources={source: f"transfer-from-{source}-0.3-sigma" for source in ("glow", "loud-teacher")},
    )
    every = {f"{kind}-0.3-sigma" for kind in ("ifgsm-T20", "ifgsm-T100")}
    assert set(declared.added) == every | {*declared.varied["worst-0.3-sigma"].sources.values()}
    assert Judgement.of({"judgement": json.loads(declared.model_dump_json())}) == declared


def test_a_teacher_is_attacked_at_its_own_temperature_for_what_is_transferred() -> None:
    """At temperature 1 it is as masked as its student, and the attack on it would find nothing to transfer."""
    at = {"like": "glow", "defence": {"name": "distillation", "at": [5, 20, 0.5]}}
    study = defended(ROOT, victims={"glow": PLAIN, "soft": at})
    assert names(study, "soft-T5-teacher") == ["clean", "ifgsm-T5-0.3-sigma"]
    assert names(study, "soft-T20-teacher") == ["clean", "ifgsm-T20-0.3-sigma"]
    assert names(study, "soft-T0.5-teacher") == ["clean", "ifgsm-0.3-sigma"]
    shown = {c.source: c for c in conditions(study, study.entrants["soft-T20"]) if isinstance(c, Transferred)}
    assert {source: c.of.spec.loss for source, c in shown.items()} == {
        "glow": "cross entropy",
        "soft-T20-teacher": TemperedLoss(temperature=20),
    }


def test_a_judged_teacher_is_attacked_once_whatever_the_study_calls_it() -> None:
    taught = {"like": "glow", "defence": {"name": "distillation", "at": 5, "teacher": "wise"}}
    victims = {"glow": PLAIN, "wise": {"like": "glow", "defence": {"name": "teacher", "at": 5}}, "soft": taught}
    loss = {"of": "cross entropy", "temperature": 5}
    attacks = {"ifgsm": {"preset": "ifgsm", "steps": 2}, "mine": {"preset": "ifgsm", "steps": 2, "loss": loss}}
    study = defended(ROOT, victims=victims, attacks=attacks, adaptive={"attack": "ifgsm"})
    (transfer,) = (c for c in conditions(study, study.entrants["soft"]) if getattr(c, "source", None) == "wise")
    assert transfer.needs == (Need("mine-0.3-sigma", "wise"),)
    assert "mine-0.3-sigma" in names(study, "wise")
    assert "ifgsm-T5-0.3-sigma" not in names(study, "wise")


def test_what_the_study_runs_itself_is_not_run_again_under_another_name() -> None:
    own = {"ifgsm": {"preset": "ifgsm", "steps": 2}, "mine": {"preset": "ifgsm", "steps": 2, "loss": "logit margin"}}
    study = defended(ROOT, attacks=own)
    assert "ifgsm-margin-0.3-sigma" not in names(study, "loud")
    declared = judgement(study)
    assert declared is not None
    assert "mine-0.3-sigma" in declared.worst["loud"]["worst-0.3-sigma"]


def test_an_attack_with_the_name_of_an_added_one_is_refused() -> None:
    attacks = {"ifgsm": {"preset": "ifgsm", "steps": 2}, "ifgsm-margin": {"preset": "fgsm"}}
    study = defended(ROOT, attacks=attacks)
    with pytest.raises(ConfigError, match="called the same"):
        conditions(study, study.entrants["loud"])


def test_a_worst_case_is_declared_only_where_the_suite_is_run() -> None:
    budgets = ["0.1 sigma", "0.3 sigma"]
    primary = {"region": "WT", "attacks": ["worst"], "budgets": budgets}
    with pytest.raises(ConfigError, match="adaptive attacks are not run"):
        primary_family(defended(ROOT, budgets=budgets, primary=primary, adaptive={"budgets": ["0.1 sigma"]}))
    family = primary_family(defended(ROOT, budgets=budgets, primary=primary))
    assert family.conditions == ("worst-0.1-sigma", "worst-0.3-sigma")


def test_a_family_may_be_about_some_of_the_victims() -> None:
    smooth = {"like": "plain", "defence": {"name": "gaussian smoothing", "sigma": 1.0}}
    three = {"plain": {}, "one": smooth, "two": {**smooth, "defence": {"name": "median smoothing", "size": 3}}}

    def family(**primary: Any) -> PrimaryFamily:
        return primary_family(defended(ROOT, victims=three, primary={"region": "WT", **primary}))

    assert family(against="undefended").victims == ("one", "two")
    assert family(against="undefended", victims=["two"]).rivals == {"two": "plain"}
    assert family(victims=["two", "plain"]).victims == ("plain", "two")
    with pytest.raises(ConfigError, match="cannot all be in it"):
        family(against="undefended", victims=["plain"])
    with pytest.raises(ConfigError, match=r"primary\.victims names \['nobody'\]"):
        family(victims=["nobody"])


def test_victims_outside_cannot_be_in_a_family_about_defences() -> None:
    for primary in ({"attacks": ["worst"]}, {"against": "undefended"}):
        study = defended(ROOT, primary={"region": "WT", "returned": ["nnunet"], **primary})
        with pytest.raises(ConfigError, match="victims outside cannot"):
            primary_family(study)


def test_a_plan_counts_what_each_victim_meets(three: Path, tmp_path: Path) -> None:
    study = defended(three, victims={"glow": PLAIN, "loud": DISTILLED})
    planned = plan(study, Machine(), tmp_path, timed=False)
    assert planned.cells == 3 * sum(len(names(study, victim)) for victim in study.entrants)
    assert planned.family == 2
    transfers = [line for line in planned.lines if line.what.startswith("transfer-from")]
    assert {(line.victim, line.what) for line in transfers} == {
        ("loud", "transfer-from-glow"),
        ("loud", "transfer-from-loud-teacher"),
    }
    assert all(line.passes.backward == 0 for line in transfers)


# The loss at logits / T, as a study writes it


def test_a_loss_at_logits_over_t_is_written_as_one() -> None:
    study = small(ROOT, attacks={"a": {"preset": "pgd", "loss": {"of": "dice", "temperature": 10}}})
    spec = study.attacks["a"]
    assert spec.ascended == Tempered(LOSSES["dice"], 10.0)
    assert spec.title == "PGD, 20 steps, logits / 10"
    assert spec.settings()["loss"] == {"of": "dice", "temperature": 10}


@pytest.mark.parametrize("loss", [{"of": "none", "temperature": 10}, {"temperature": 0}, {"temperature": -1}, "none"])
def test_a_loss_that_is_none_is_refused(loss: object) -> None:
    with pytest.raises(ConfigError):
        small(ROOT, attacks={"a": {"preset": "pgd", "loss": loss}})


def test_losses_by_name_keep_the_settings_that_older_records_have() -> None:
    plain = Ifgsm(preset="ifgsm", steps=2)
    assert plain.settings() == {"preset": "ifgsm", "loss": "cross entropy", "steps": 2, "size": None}
    assert plain.ascended is LOSSES["cross entropy"]
    assert Ifgsm(preset="ifgsm", steps=2, loss=TemperedLoss(temperature=1)).settings() != plain.settings()


def test_the_logit_margin_is_told_in_the_title_of_what_was_added() -> None:
    study = defended(ROOT)
    every = {condition.name: condition for condition in conditions(study, study.entrants["loud"])}
    margin, base = every["ifgsm-margin-0.3-sigma"], every["ifgsm-0.3-sigma"]
    assert isinstance(margin, Attacked)
    assert margin.title == "i-FGSM, 2 steps, logit margin"
    assert base.presented.title == "i-FGSM, 2 steps"
    assert every["ifgsm-T100-0.3-sigma"].presented.title == "i-FGSM, 2 steps, logits / 100"
