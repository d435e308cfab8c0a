"""What victims are shown that was found for others: the matrix of transfers, sums, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from study.small_study import small
from study.test_conditions import scene

from medadv.attack.budget import Budget
from medadv.attack.threat import Linf
from medadv.attack.unbounded import Unbounded
from medadv.errors import ConfigError
from medadv.study.attacks import Fgsm
from medadv.study.conditions import Attacked, Condition, Need
from medadv.study.controls import Permuted
from medadv.study.reach import Reach
from medadv.study.records import digest
from medadv.study.spec import Study
from medadv.study.suite import conditions, depths, judgement, primary_family
from medadv.study.sums import Summed, to_norm_of
from medadv.study.transfer import Shared, Transferred

WHOLE = {"inference": {"name": "whole"}}
THREE = {"a": WHOLE, "b": WHOLE, "c": WHOLE}
DAG = {"preset": "dag", "goal": {"permute": "random"}}


def three(**changes: Any) -> Study:
    content: dict[str, Any] = {"victims": THREE, "controls": [], "budgets": ["0.1 sigma"]}
    return small(Path("data"), **(content | changes))


def met(study: Study) -> dict[str, list[Condition]]:
    return {name: list(conditions(study, entrant)) for name, entrant in study.entrants.items()}


def names(study: Study) -> dict[str, list[str]]:
    return {victim: [condition.name for condition in every] for victim, every in met(study).items()}


# Transfers


def test_the_matrix_is_complete_and_each_cell_needs_the_attack_on_its_source() -> None:
    study = three(transfers={})
    for target, every in met(study).items():
        own = {c.name for c in every if isinstance(c, Attacked)}
        shown = {c.name: c for c in every if isinstance(c, Transferred)}
        assert own == {"fgsm-0.1-sigma", "ifgsm-0.1-sigma"}
        others = [victim for victim in THREE if victim != target]
        assert set(shown) == {f"transfer-{a}-from-{v}-0.1-sigma" for a in ("fgsm", "ifgsm") for v in others}
        for attack in ("fgsm", "ifgsm"):
            for source in others:
                condition = shown[f"transfer-{attack}-from-{source}-0.1-sigma"]
                assert condition.needs == (Need(f"{attack}-0.1-sigma", source),)
                assert condition.presented.source == source
                assert condition.settings()["of"] == condition.of.settings()


def test_only_what_is_asked_for_is_transferred() -> None:
    wanted = {"attacks": ["ifgsm"], "budgets": ["0.30 sigma"], "from": ["a", "b"], "to": ["b", "c"]}
    found = names(three(transfers=wanted, budgets=["0.1 sigma", "0.3 sigma"]))
    shown = {victim: [name for name in every if name.startswith("transfer")] for victim, every in found.items()}
    assert shown == {
        "a": [],
        "b": ["transfer-ifgsm-from-a-0.3-sigma"],
        "c": ["transfer-ifgsm-from-a-0.3-sigma", "transfer-ifgsm-from-b-0.3-sigma"],
    }


def test_an_attack_for_some_victims_is_met_by_them_and_transferred_to_all() -> None:
    attacks = {"for-two": {"preset": "fgsm", "victims": ["a", "b"]}, "for-one": {"preset": "fgsm", "victims": ["c"]}}
    study = three(attacks=attacks, transfers={}, primary={"region": "WT", "attacks": ["for-two"]})
    for victim, every in met(study).items():
        own = [c.family for c in every if isinstance(c, Attacked)]
        assert own == (["for-one"] if victim == "c" else ["for-two"])
    assert {n for n in names(study)["c"] if n.startswith("transfer")} == {
        "transfer-for-two-from-a-0.1-sigma",
        "transfer-for-two-from-b-0.1-sigma",
    }
    assert primary_family(study).victims == ("a", "b")
    with pytest.raises(ConfigError, match="no victim meets all"):
        primary_family(three(attacks=attacks))
    assert attacks["for-two"].keys() - met(study)["a"][1].settings()["attack"].keys() == {"victims"}


def test_a_study_of_defences_keeps_the_names_that_it_had() -> None:
    """What both the suite and the matrix ask for is shown once, under the suite's name, and judged as ever."""
    defended = {"victims": {"plain": WHOLE, "hard": {"like": "plain", "defence": {"name": "distillation", "at": 10}}}}
    before, after = three(**defended), three(**defended, transfers={"attacks": ["ifgsm"]})
    old, new = names(before), names(after)
    assert new["hard"] == old["hard"]
    assert set(new["plain"]) - set(old["plain"]) == {"transfer-ifgsm-from-hard-0.1-sigma"}
    told = judgement(after)
    assert told is not None
    assert "transfer-from-plain-0.1-sigma" in told.added
    assert "transfer-ifgsm-from-hard-0.1-sigma" not in told.added  # the study names it itself
    assert "transfer-ifgsm-from-hard-0.1-sigma" in told.worst["plain"]["worst-0.1-sigma"]


# Sums


def perturbed(seed: int, n: int, threat: Linf | Unbounded) -> tuple[Any, Summed, list[torch.Tensor]]:
    """A scene with n attacks' stored voxels, and their changes in float64."""
    s = scene(seed)
    generator = torch.Generator().manual_seed(seed)
    of, stored = [], {}
    for i in range(n):
        attack = Attacked("fgsm", Fgsm(preset="fgsm"), threat)
        noise = s.x + 9 * torch.randn(s.x.shape, generator=generator)
        stored[Need(attack.name, f"v{i}")] = s.allowed(threat, Reach()).project(noise)
        of.append((f"v{i}", attack))
    changes = [x.double() - s.x.double() for x in stored.values()]
    return replace(s, stored=stored), Summed("r", tuple(of)), changes


FREE = (Linf(Budget(0.3), None), Unbounded(Budget(0.3), None))


@given(st.integers(0, 100), st.integers(2, 4), st.sampled_from(FREE))
@settings(max_examples=10)
def test_a_sum_is_the_sum(seed: int, n: int, threat: Linf | Unbounded) -> None:
    s, summed, changes = perturbed(seed, n, threat)
    shown = summed.show(s).x.double() - s.x.double()
    torch.testing.assert_close(shown, torch.stack(changes).sum(0), rtol=0, atol=1e-4)  # the last digit around 500
    allowed = s.allowed(summed.threat, summed.reach)
    assert bool(allowed.inside(summed.show(s).x).all())


@given(st.integers(0, 100))
@settings(max_examples=5)
def test_within_a_legal_range_the_sum_is_cut_at_it(seed: int) -> None:
    for threat in (Linf(Budget(0.3), (300.0, 700.0)), Unbounded(Budget(0.3), (300.0, 700.0))):
        s, summed, changes = perturbed(seed, 3, threat)
        inside = (s.x >= 300) & (s.x <= 700) & (s.x != 0)
        expected = (s.x.double() + torch.stack(changes).sum(0)).clamp(300, 700)
        torch.testing.assert_close(summed.show(s).x[inside].double(), expected[inside], rtol=0, atol=1e-4)


@given(st.integers(0, 100), st.sampled_from(["mean", "first"]))
@settings(max_examples=10)
def test_the_rescaled_sum_has_the_norm_of_one_and_the_direction_of_all(seed: int, how: Any) -> None:
    s, summed, changes = perturbed(seed, 3, FREE[1])
    shown = replace(summed, rescaled=how).show(s).x.double() - s.x.double()
    lengths = [change.norm().item() for change in changes]
    assert shown.norm().item() == pytest.approx(lengths[0] if how == "first" else sum(lengths) / 3, rel=1e-5)
    total = torch.stack(changes).sum(0)
    assert torch.nn.functional.cosine_similarity(shown.flatten(), total.flatten(), dim=0).item() > 1 - 1e-9


def test_what_adds_up_to_nothing_stays_nothing() -> None:
    one = torch.randn(1, 2, 3)
    assert torch.equal(to_norm_of(one - one, [one, -one]), torch.zeros(1, 2, 3))


def test_a_sum_may_use_the_budgets_of_its_summands_together() -> None:
    attack = Attacked("fgsm", Fgsm(preset="fgsm"), Linf(Budget.parse("0.1/0.2/0.3/0.1 sigma")))
    several = Summed("r", (("a", attack), ("b", attack), ("c", attack)))
    assert several.threat == Linf(Budget.parse("0.3/0.6/0.9/0.3 sigma"))
    assert several.name == "sum-r-0.1_0.2_0.3_0.1-sigma"
    free = replace(attack, threat=Unbounded(Budget.parse("0.5 0-255")))
    assert Summed("r", (("a", free), ("b", free))).threat == free.threat
    one, two = (replace(attack, reach=Reach("nonzero", (name,))) for name in ("t1", "t2"))
    assert Summed("r", (("a", two), ("b", one))).reach.modalities == ("t1", "t2")
    assert Summed("r", (("a", two), ("b", attack))).reach.modalities is None


def test_a_sum_is_shown_with_its_controls_and_needs_all_its_victims() -> None:
    sums = {"r": {"of": ["a", "b"], "attack": "fgsm", "to": ["b", "c"]}}
    found = met(three(sums=sums, controls=["rows"], permutations=2))
    assert not [c for c in found["a"] if "sum" in c.name]
    for victim in ("b", "c"):
        shown = {c.name: c for c in found[victim] if "sum" in c.name}
        plain, slug = "sum-r-0.1-sigma", "0.1-sigma"
        assert list(shown) == [
            plain, f"permuted-rows-{plain}", f"permuted-rows-2-{plain}", f"rescaled-sum-r-{slug}"
        ]  # fmt: skip
        needs = (Need("fgsm-0.1-sigma", "a"), Need("fgsm-0.1-sigma", "b"))
        assert shown[plain].needs == shown[f"rescaled-{plain}"].needs == needs
        assert shown[f"permuted-rows-{plain}"].needs == (Need(plain),)
        roles = [c.presented.role for c in shown.values()]
        assert roles == ["attack", "control", "control", "control"]
        assert shown[plain].presented.source == "a + b"
        assert shown[plain].presented.title == "FGSM, found for a and b, added"
        assert shown[f"rescaled-{plain}"].presented.of == plain
        assert shown[plain].presented.amount == 0.2


def test_each_victim_may_be_attacked_in_its_own_way() -> None:
    attacks = {"one": {**DAG, "victims": ["a"], "steps": 150}, "two": {**DAG, "victims": ["b"]}}
    primary = {"region": "WT", "attacks": ["one"]}
    study = three(attacks=attacks, primary=primary, sums={"r": {"of": {"a": "one", "b": "two"}}})
    (summed,) = [c for c in met(study)["c"] if isinstance(c, Summed) and not c.rescaled]
    assert summed.needs == (Need("one-0.5-0-255", "a"), Need("two-0.5-0-255", "b"))
    assert summed.threat == Unbounded(Budget.parse("0.5 0-255"), "clean")


def test_order_of_cells_follows_chains_of_needs() -> None:
    """A permuted sum needs a sum of its own victim, which needs attacks on others: no flat order would do."""
    study = three(transfers={}, sums={"r": {"of": ["b", "c"], "attack": "fgsm"}}, controls=["rows"])
    every = met(study)
    depth = depths(every)
    placed = [(Need(c.name, v), c) for v, known in every.items() for c in known]
    made: list[Need] = []
    for place, condition in sorted(placed, key=lambda one: depth[one[0]]):
        assert {Need(need.condition, need.victim or place.victim) for need in condition.needs} <= set(made)
        made.append(place)
    assert {depth[Need(f"{kind}sum-r-0.1-sigma", "a")] for kind in ("", "permuted-rows-", "rescaled-")} == {1}


def test_keys_tell_sums_apart() -> None:
    attack = Attacked("fgsm", Fgsm(preset="fgsm"), FREE[0])
    plain = Summed("r", (("a", attack), ("b", attack)))
    several: Mapping[str, Condition] = {
        "sum": plain,
        "of three": Summed("r", (*plain.of, ("c", attack))),
        "mean": replace(plain, rescaled="mean"),
        "first": replace(plain, rescaled="first"),
        "rows": Permuted(plain, "rows"),
        "transfer": Transferred(attack, "a"),
        "shared": Shared(attack, "a"),
    }
    assert len({digest(condition.settings()) for condition in several.values()}) == len(several)
    assert Summed("other", plain.of).settings() == plain.settings()  # what it is called is no part of the key


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"transfers": {"attacks": ["pgd"]}}, "transfers.attacks names"),
    ({"transfers": {"from": ["d"]}}, "transfers.from names"),
    ({"transfers": {"to": ["d"]}}, "transfers.to names"),
    ({"transfers": {"budgets": ["0.7 sigma"]}}, "transfers.budgets names"),
    ({"transfers": {"from": ["a"], "to": ["a"]}}, "needs two victims"),
    ({"transfers": {"form": ["a"]}}, "form"),
    ({"attacks": {"x": {"preset": "fgsm", "victims": ["a"]}}, "transfers": {"from": ["b"]}}, "meet none"),
    ({"attacks": {"x": {"preset": "fgsm", "victims": ["d"]}}}, "is for"),
    ({"attacks": {"x": {"preset": "fgsm", "victims": ["a", "a"]}}}, "twice"),
    ({"attacks": {"x": {"preset": "fgsm", "joint": ["a"]}}}, "joint"),
    ({"attacks": {"x": {"preset": "fgsm", "joint": ["a", "b"], "victims": ["a"]}}}, "leave out victims"),
    ({"sums": {"r": {"of": ["a"], "attack": "fgsm"}}}, "of"),
    ({"sums": {"r": {"of": ["a", "a"], "attack": "fgsm"}}}, "each victim once"),
    ({"sums": {"r": {"of": ["a", "b"]}}}, "one of them"),
    ({"sums": {"r": {"of": {"a": "fgsm", "b": "fgsm"}, "attack": "fgsm"}}}, "one of them"),
    ({"sums": {"r": {"of": ["a", "d"], "attack": "fgsm"}}}, "sums.r.of names"),
    ({"sums": {"r": {"of": ["a", "b"], "attack": "pgd"}}}, "sums.r names"),
    ({"sums": {"r": {"of": ["a", "b"], "attack": "fgsm", "to": ["d"]}}}, "sums.r.to names"),
    ({"sums": {"r": {"of": ["a", "b"], "attack": "fgsm", "budgets": ["1 sigma"]}}}, "sums.r.budgets names"),
    ({"sums": {"r 1": {"of": ["a", "b"], "attack": "fgsm"}}}, "name of a sum"),
    ({"attacks": {"sum-x": {"preset": "fgsm"}}}, "name of a attack"),
    (
        {
            "attacks": {"x": {"preset": "fgsm", "budgets": ["0.5 0-255"]}, "dag": DAG},
            "sums": {"r": {"of": {"a": "x", "b": "dag"}}},
        },
        "without one",
    ),
    (
        {"attacks": {"x": {"preset": "fgsm"}, "dag": DAG}, "sums": {"r": {"of": {"a": "x", "b": "dag"}}}},
        "share no budget",
    ),
]


@pytest.mark.parametrize(("changes", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_what_cannot_be_meant_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        three(**changes)


def test_conditions_that_would_be_called_the_same_are_refused() -> None:
    attacks = {"fgsm": {"preset": "fgsm"}, "rows-fgsm": {"preset": "ifgsm"}}
    with pytest.raises(ConfigError, match="called the same"):
        met(three(attacks=attacks, controls=["permuted", "rows"]))
