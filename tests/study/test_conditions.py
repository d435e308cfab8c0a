"""The ways a case is presented: what they may change, what they are called, what they are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from study.small_study import Glow, small

from medadv.attack.budget import Budget
from medadv.attack.rng import Rng
from medadv.attack.threat import Linf
from medadv.data.brats import MODALITIES
from medadv.labels import BRATS_2018
from medadv.study.attacks import Fgsm, Ifgsm, Pgd
from medadv.study.conditions import CLEAN, IDENTITY, Attacked, Condition, Need, Scene
from medadv.study.controls import Permuted, SignNoise
from medadv.study.records import digest
from medadv.study.spec import Study
from medadv.study.suite import conditions, primary_conditions
from medadv.victims.head import Softmax
from medadv.victims.segmentation import Segmenter

WIDE = Linf(Budget(0.3), None)
CLIPPED = Linf(Budget(0.3))


def scene(seed: int = 0, stored: dict[Need, torch.Tensor] | None = None) -> Scene:
    generator = torch.Generator().manual_seed(seed)
    x = 500 + 100 * torch.randn((1, 4, 8, 8, 8), generator=generator)
    x[:, :, :2] = 0
    truth = torch.tensor([0, 1, 2, 4])[torch.randint(0, 4, (1, 8, 8, 8), generator=generator)]
    victim = Segmenter(Glow(), Softmax(BRATS_2018), MODALITIES)
    return Scene(victim, x, truth, Rng.seeded(seed, ["case"]), stored or {}, x != 0, MODALITIES, (1.0, 1.0, 1.0))


def attacked(threat: Linf = CLIPPED) -> Attacked:
    return Attacked("mine", Fgsm(preset="fgsm"), threat)


def met(study: Study) -> tuple[Condition, ...]:
    return conditions(study, next(iter(study.entrants.values())))


@pytest.mark.parametrize("condition", [CLEAN, IDENTITY])
def test_clean_and_identity_show_the_case_itself(condition: Condition) -> None:
    given_scene = scene()
    assert torch.equal(condition.show(given_scene).x, given_scene.x)
    assert condition.threat is None
    assert condition.presented.amount is None


@given(st.integers(0, 100), st.sampled_from([WIDE, CLIPPED]))
@settings(max_examples=10)
def test_noise_takes_the_whole_budget_up_or_down(seed: int, threat: Linf) -> None:
    s = scene(seed)
    allowed = threat(s.x, s.x != 0)
    x = SignNoise(threat).show(s).x
    assert bool(allowed.inside(x).all())
    change = (x - s.x).double()
    inside = s.x != 0
    assert bool((change[~inside] == 0).all())
    share = (change.abs() / allowed.radius.view(1, 4, 1, 1, 1))[inside]
    if threat.legal is None:
        assert share.min() > 0.999
    assert share.max() <= 1
    up = (change > 0)[inside].double().mean()
    assert 0.42 < up < 0.58


def test_noise_is_of_its_case_and_not_of_chance() -> None:
    noise = SignNoise(CLIPPED)
    first = noise.show(scene(1)).x
    torch.manual_seed(9)
    assert torch.equal(noise.show(scene(1)).x, first)
    other = replace(scene(1), rng=Rng.seeded(1, ["b"]))
    assert not torch.equal(noise.show(other).x, first)


def shuffled(s: Scene, condition: Permuted) -> torch.Tensor:
    delivered = condition.of.show(s).x
    return condition.show(replace(s, stored={Need(condition.of.name): delivered})).x


@given(st.integers(0, 100))
@settings(max_examples=10)
def test_permuted_keeps_every_change_and_moves_it(seed: int) -> None:
    """Where no range clips, the changes are the same multiset, modality by modality, to float32's last digit."""
    s = scene(seed)
    permuted = Permuted(attacked(WIDE))
    attack, control = (x - s.x for x in (permuted.of.show(s).x, shuffled(s, permuted)))
    assert not torch.equal(attack, control)
    for c in range(4):
        inside = s.x[0, c] != 0
        assert bool((control[0, c][~inside] == 0).all())
        before, after = (change[0, c][inside].sort().values for change in (attack, control))
        torch.testing.assert_close(after, before, rtol=0, atol=4 * torch.finfo(torch.float32).eps * 1000)
        assert int((before > 0).sum()) == int((after > 0).sum())


@given(st.integers(0, 100))
@settings(max_examples=10)
def test_permuted_stays_inside_the_threat_where_it_clips(seed: int) -> None:
    s = scene(seed)
    allowed = CLIPPED(s.x, s.x != 0)
    assert bool(allowed.inside(shuffled(s, Permuted(attacked()))).all())


def test_an_attack_shows_what_it_found_and_how() -> None:
    s = scene()
    shown = attacked().show(s)
    assert shown.adversarial is not None
    assert torch.equal(shown.x, shown.adversarial.x)
    assert shown.adversarial.size[0] <= 1


# Names


def test_each_condition_comes_after_what_it_needs_under_a_name_of_its_own() -> None:
    every = met(small(Path("data")))
    names = [condition.name for condition in every]
    assert len(set(names)) == len(names) == 12
    assert names[0] == "clean"
    for place, condition in enumerate(every):
        assert {need.condition for need in condition.needs} <= set(names[:place])


def test_names_and_titles_are_those_that_people_read() -> None:
    shown = {condition.name: condition.presented for condition in met(small(Path("data")))}
    assert set(shown) == {"clean", "identity"} | {
        f"{kind}-{budget}-sigma"
        for kind in ("noise", "fgsm", "ifgsm", "permuted-fgsm", "permuted-ifgsm")
        for budget in (0.1, 0.3)
    }
    permuted = shown["permuted-ifgsm-0.1-sigma"]
    assert (permuted.role, permuted.family, permuted.of) == ("control", "permuted ifgsm", "ifgsm-0.1-sigma")
    assert permuted.title == "i-FGSM, 2 steps, permuted"
    assert (permuted.amount, permuted.unit) == (0.1, "sigma")


@pytest.mark.parametrize(
    ("controls", "kinds"),
    [
        ((), {"clean", "fgsm"}),
        (("identity",), {"clean", "fgsm", "identity"}),
        (("noise",), {"clean", "fgsm", "noise"}),
        (("permuted",), {"clean", "fgsm", "permuted"}),
    ],
)
def test_only_the_controls_that_are_asked_for(controls: tuple[str, ...], kinds: set[str]) -> None:
    study = small(Path("data"), controls=controls, attacks={"fgsm": {"preset": "fgsm"}})
    assert {condition.name.split("-")[0] for condition in met(study)} == kinds


def test_one_noise_a_budget_however_many_attacks_use_it() -> None:
    attacks = {"a": {"preset": "fgsm"}, "b": {"preset": "fgsm", "budgets": ["0.3 sigma", "0.5 sigma"]}}
    names = [c.name for c in met(small(Path("data"), attacks=attacks)) if c.name.startswith("noise")]
    assert sorted(names) == ["noise-0.1-sigma", "noise-0.3-sigma", "noise-0.5-sigma"]


PRIMARY: list[tuple[dict[str, object], set[str]]] = [
    ({}, {"fgsm-0.1-sigma", "fgsm-0.3-sigma", "ifgsm-0.1-sigma", "ifgsm-0.3-sigma"}),
    ({"attacks": ["ifgsm"]}, {"ifgsm-0.1-sigma", "ifgsm-0.3-sigma"}),
    ({"budgets": ["0.30 sigma"]}, {"fgsm-0.3-sigma", "ifgsm-0.3-sigma"}),
    ({"attacks": ["fgsm"], "budgets": ["0.1"]}, {"fgsm-0.1-sigma"}),
]


@pytest.mark.parametrize(("primary", "names"), PRIMARY, ids=[str(primary) for primary, _ in PRIMARY])
def test_the_family_is_what_was_declared(primary: dict[str, object], names: set[str]) -> None:
    study = small(Path("data"), primary={"region": "WT", **primary})
    found = primary_conditions(study)
    assert set(found) == names
    assert len(found) == len(names)
    assert set(found) <= {condition.name for condition in met(study)}


# Settings: what goes into a key

BASE = Ifgsm(preset="ifgsm", steps=2)

OTHERS: dict[str, Callable[[], Condition]] = {
    "steps": lambda: Attacked("a", Ifgsm(preset="ifgsm", steps=3), CLIPPED),
    "loss": lambda: Attacked("a", Ifgsm(preset="ifgsm", steps=2, loss="dice"), CLIPPED),
    "step size": lambda: Attacked("a", Ifgsm(preset="ifgsm", steps=2, size=0.5), CLIPPED),
    "preset": lambda: Attacked("a", Pgd(preset="pgd", steps=2), CLIPPED),
    "budget": lambda: Attacked("a", BASE, Linf(Budget(0.4))),
    "unit": lambda: Attacked("a", BASE, Linf(Budget.parse("0.3 stored"))),
    "amounts": lambda: Attacked("a", BASE, Linf(Budget.parse("0.3/0.3/0.3/0.4 sigma"))),
    "range": lambda: Attacked("a", BASE, Linf(Budget(0.3), (0.0, 900.0))),
    "no range": lambda: Attacked("a", BASE, WIDE),
    "a control": lambda: Permuted(Attacked("a", BASE, CLIPPED)),
    "noise": lambda: SignNoise(CLIPPED),
    "identity": lambda: IDENTITY,
    "clean": lambda: CLEAN,
}


def test_whatever_changes_the_numbers_changes_the_key() -> None:
    keys = [digest(make().settings()) for make in OTHERS.values()] + [digest(Attacked("a", BASE, CLIPPED).settings())]
    assert len(set(keys)) == len(keys)


def test_what_changes_no_number_changes_no_key() -> None:
    listed = Ifgsm(preset="ifgsm", steps=2, budgets=("0.3 sigma",))
    assert Attacked("a", listed, CLIPPED).settings() == Attacked("b", BASE, CLIPPED).settings()
