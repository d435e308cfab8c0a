"""The attacks that a study can name: each is the preset it says, in its threat; several victims, several draws."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from study.small_study import small
from study.test_conditions import CLIPPED, scene

from medadv.attack import presets
from medadv.attack.budget import Budget
from medadv.attack.exchange import Exchange
from medadv.attack.joint import Joint, Together
from medadv.attack.loop import Attack
from medadv.attack.objective import Towards
from medadv.attack.relabel import LeastLikely, Permute, erase
from medadv.attack.threat import Linf
from medadv.attack.unbounded import Unbounded
from medadv.attack.victim import Passes
from medadv.errors import ConfigError
from medadv.study.attacks import AttackSpec
from medadv.study.conditions import Attacked, Partner, threat_settings
from medadv.study.reach import Reach
from medadv.study.records import digest

SPACING = (1.0, 1.0, 1.0)
GREY = Linf(Budget.parse("8 0-255"))
STEP = Unbounded(Budget.parse("0.5 0-255"))
GOAL = {"permute": "random"}


def read(preset: str, **written: Any) -> Any:
    return TypeAdapter(AttackSpec).validate_python({"preset": preset, **written})


ATTACKS: dict[str, tuple[Any, Linf | Unbounded, Attack]] = {
    "FGSM-ll": (read("fgsm_ll"), GREY, presets.fgsm_ll(GREY)),
    "i-FGSM-ll, 10 steps": (read("ifgsm_ll"), GREY, presets.ifgsm_ll(GREY, 10)),
    "i-FGSM-ll, found at each step, 3 steps": (
        read("ifgsm_ll", steps=3, size=0.5, target="each step"),
        GREY,
        Attack(GREY, Towards(LeastLikely(), follow=True), presets.Plain(0.5), 3, keep="last"),
    ),
    "i-FGSM-ll, Kurakin's steps": (read("ifgsm_ll", steps="kurakin"), GREY, presets.ifgsm_ll(GREY, 10, size=1 / 8)),
    "i-FGSM, Kurakin's steps, from its own prediction": (
        read("ifgsm", steps="kurakin", labels="prediction"),
        GREY,
        presets.ifgsm(GREY, 10, size=1 / 8, labels="prediction"),
    ),
    "DAG, permute tissues at random, at most 200 steps, as written": (
        read("dag", goal=GOAL),
        STEP,
        presets.dag(STEP, Permute()),
    ),
    "DAG, permute tissues at random, at most 150 steps, as released, 1 % may be left, what vanishes is let be": (
        read("dag", goal=GOAL, steps=150, active="released", tolerance=0.01, let_vanish=True),
        STEP,
        Attack(STEP, Exchange(Permute(), "released", 0.01, True), presets.Plain(1.0), 150, keep="until done"),
    ),
    "DAG, permute tissues at random, at most 200 steps, as written, fooled from a score of 0.8 after NMS at 0.35": (
        read("dag", goal=GOAL, strong={}),
        STEP,
        presets.dag(STEP, Permute(), strong=presets.Strong()),
    ),
}


@pytest.mark.parametrize("title", ATTACKS)
def test_an_attack_is_the_preset_that_it_names(title: str) -> None:
    spec, threat, attack = ATTACKS[title]
    assert spec.attack(threat, SPACING) == attack
    assert spec.title == title
    assert spec.steps_at(threat.budget) == attack.steps


@pytest.mark.parametrize("preset", ["fgsm", "ifgsm", "fgsm_ll", "ifgsm_ll", "tifgsm", "dag", "mifgsm", "pgd"])
def test_whose_labels_is_heard_by_every_attack(preset: str) -> None:
    goal = {"goal": GOAL} if preset in ("tifgsm", "dag") else {}
    attack = read(preset, labels="prediction", **goal).attack(STEP if preset == "dag" else GREY, SPACING)
    assert attack.objective.labels == "prediction"


@pytest.mark.parametrize(
    ("epsilon", "steps"), [(0.25, 1), (0.5, 1), (1, 2), (2, 3), (4, 5), (8, 10), (16, 20), (32, 36)]
)
def test_kurakins_schedule_follows_the_budget(epsilon: float, steps: int) -> None:
    spec, threat = read("ifgsm", steps="kurakin"), Linf(Budget.parse(f"{epsilon} 0-255"))
    attack = spec.attack(threat, SPACING)
    assert spec.steps_at(threat.budget) == attack.steps == steps
    assert attack.step.size == pytest.approx(min(1, 1 / epsilon))


def test_dag_has_a_budget_of_its_own_and_a_threat_without_a_ball() -> None:
    attacks = {"dag": {"preset": "dag", "goal": GOAL}, "fgsm": {"preset": "fgsm"}}
    study = small(Path("data"), attacks=attacks, legal=None)
    assert study.budgets_of("dag") == ("0.5 0-255",)
    assert study.budgets_of("fgsm") == ("0.1 sigma", "0.3 sigma")
    spec = study.attacks["dag"]
    threat = spec.threat(Budget.parse("0.5 0-255"), None, (0.0, 255.0))
    assert threat == Unbounded(Budget.parse("0.5 0-255"), None, (0.0, 255.0))
    told = threat_settings(threat, Reach())
    assert (told["ball"], told["span"], told["legal"]) == ("unbounded", [0.0, 255.0], None)
    assert "span" not in threat_settings(CLIPPED, Reach())  # older records keep their keys


def test_what_came_later_is_told_only_where_it_is_used() -> None:
    plain = read("ifgsm").settings()
    assert set(plain) == {"preset", "loss", "steps", "size"}
    assert read("ifgsm", victims=["a"]).settings() == plain
    assert read("tifgsm", goal={"permute": "random"}).settings()["goal"].keys() == {"permute", "background", "where"}
    several = [
        plain,
        read("ifgsm", draws=4).settings(),
        read("ifgsm", joint=["a", "b"]).settings(),
        read("ifgsm", joint=["a", "b", "c"]).settings(),
        read("tifgsm", joint=["a", "b"], goal={"erase": "ET"}).settings(),
        read("tifgsm", joint={"a": {"erase": "ET"}, "b": {"erase": "TC"}}).settings(),
        read("tifgsm", joint={"a": {"erase": "ET"}, "b": {"erase": "WT"}}).settings(),
        read("dag", goal=GOAL).settings(),
        read("dag", goal=GOAL, active="released").settings(),
    ]
    assert len({digest(one) for one in several}) == len(several)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no goal": ({"preset": "dag"}, "has a goal, or joint"),
    "two goals": ({"preset": "dag", "goal": GOAL, "joint": {"a": GOAL, "b": GOAL}}, "one of them"),
    "a goal that moves": ({"preset": "dag", "goal": {"least_likely": "each step"}}, "for tifgsm"),
    "a loss of DAG": ({"preset": "dag", "goal": GOAL, "loss": "dice"}, "loss"),
    "letting vanish as written": ({"preset": "dag", "goal": GOAL, "let_vanish": True}, "active: released"),
    "maps for one of several": ({"preset": "dag", "joint": {"a": {"draw": "maps"}, "b": GOAL}}, "drawn for all"),
    "two schedules": ({"preset": "ifgsm", "steps": "kurakin", "size": 0.1}, "leave out size"),
    "no draws": ({"preset": "fgsm", "draws": 0}, "greater than or equal to 1"),
    "Kurakin's steps in sigma": ({"preset": "ifgsm", "steps": "kurakin"}, "counts in grey levels"),
}


@pytest.mark.parametrize(("attack", "told"), WRONG.values(), ids=WRONG)
def test_an_attack_that_cannot_be_meant_is_told(attack: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        small(Path("data"), attacks={"x": attack})


def test_together_each_victim_is_attacked_towards_its_own_goal() -> None:
    s = scene(1)
    other = scene(2).victim
    with torch.no_grad():
        other.network.answer.weight.mul_(-0.5)  # type: ignore[union-attr, operator]
    spec = read("tifgsm", steps=2, joint={"a": {"erase": "ET"}, "b": {"erase": "WT"}})
    asked = replace(s, partners={"b": Partner(other, s.truth, None)})
    shown = Attacked("x", spec, CLIPPED).show(asked)
    aims = Together((Towards(erase("ET")), Towards(erase("WT"))))
    attack = Attack(CLIPPED, aims, presets.Plain(), 2, keep="last")
    expected = attack(Joint((s.victim, other)), s.x, s.truth, support=s.support, rng=s.rng)
    assert torch.equal(shown.x, expected.x)
    assert shown.step_cost == Passes(2, 2)
    alone = Attacked("x", read("tifgsm", steps=2, goal={"erase": "ET"}), CLIPPED).show(s)
    assert not torch.equal(shown.x, alone.x)


def test_a_victim_together_with_itself_is_attacked_as_alone() -> None:
    s = scene(1)
    asked = replace(s, partners={"b": Partner(s.victim, s.truth, None)})
    shown, alone = (
        Attacked("x", read("fgsm", **more), CLIPPED).show(asked) for more in ({"joint": ["a", "b"]}, {})
    )
    assert torch.equal(shown.x, alone.x)


def test_draws_of_a_victim_that_draws_nothing_are_the_attack_at_so_many_times_the_cost() -> None:
    s = scene(1)
    one, four = (Attacked("x", read("fgsm", draws=n), CLIPPED).show(s) for n in (1, 4))
    assert torch.equal(one.x, four.x)
    assert one.adversarial is not None
    assert four.adversarial is not None
    assert four.adversarial.passes == one.adversarial.passes * 4
    assert four.step_cost == one.step_cost * 4
