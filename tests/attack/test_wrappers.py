"""Restarts and the worst of several: who is delivered, in whose eyes, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from attack.stand_ins import Stateless, linear, scene
from attack.test_loop import Counted
from runtime_types import unchecked
from torch import Tensor

from medadv.attack import loop
from medadv.attack.budget import Budget, Unit
from medadv.attack.loop import Adversarial, Attack, random
from medadv.attack.losses import cross_entropy, logit_margin
from medadv.attack.objective import Away, Towards, dice_lost, dice_won
from medadv.attack.presets import fgsm, ifgsm, mifgsm, pgd, tifgsm
from medadv.attack.relabel import erase
from medadv.attack.rng import Rng
from medadv.attack.steps import Plain
from medadv.attack.threat import Linf
from medadv.attack.victim import Passes, Victim
from medadv.attack.wrappers import Attacker, Restarts, Transfer, WorstOf
from medadv.errors import ConfigError, VictimError

BALL = Linf(Budget(0.3, Unit.STORED))
STARTS = Attack(BALL, Away(merit=dice_lost), Plain(0.1), 2, random)
STREAMS = Rng.seeded(7, ["a", "b", "c"])


@dataclass(frozen=True, eq=False)
class Delivers:
    """An attacker that delivers what it was given, whatever the threat."""

    x: Tensor
    share: float = 0.0
    threat: Linf = Linf(Budget(0.5, Unit.STORED), None)  # noqa: RUF009

    def __call__(
        self, victim: Victim, x: Tensor, truth: Tensor, *, support: Tensor | None = None, rng: Rng | None = None
    ) -> Adversarial:
        number = torch.full((len(x),), self.share, dtype=x.dtype)
        return Adversarial(self.x, number, {}, number, number, Passes(10, 1), 0.0)


def merit_of(judge: Away | Towards, victim: Victim, x: Tensor, found: Tensor, truth: Tensor) -> Tensor:
    """What a judge says of an input, asked by hand."""
    with torch.no_grad():
        return judge.prepare(victim(x), victim.targets(truth), Rng.seeded(0, len(x)))(victim(found), 1.0).merit


# Restarts


def test_one_start_is_the_attack_itself() -> None:
    victim, x, truth = scene()
    for attack in (STARTS, ifgsm(BALL, 3), pgd("0.2 sigma", 3)):
        once, itself = Restarts(attack, 1)(victim, x, truth, rng=STREAMS), attack(victim, x, truth, rng=STREAMS)
        assert torch.equal(once.x, itself.x)
        assert torch.equal(once.size, itself.size)
        assert torch.equal(once.zero_gradient_share, itself.zero_gradient_share)
        assert once.passes == itself.passes + Passes(2, 0)  # the clean answer and the delivered input, for the judge
        assert torch.equal(once.merit, merit_of(Away(merit=dice_lost), victim, x, itself.x, truth))


def test_restarts_differ_in_their_streams_alone_and_the_best_of_each_sample_is_delivered() -> None:
    victim, x, truth = scene()
    found = Restarts(STARTS, 5)(victim, x, truth, rng=STREAMS)
    streams = [STREAMS, *(STREAMS.fork(f"restart {i}") for i in range(1, 5))]
    for part, rng in zip(found.parts, streams, strict=True):
        assert torch.equal(part.x, STARTS(victim, x, truth, rng=rng).x)
    judge = Away(merit=dice_lost)
    merits = torch.stack([merit_of(judge, victim, x, part.x, truth) for part in found.parts])
    assert torch.equal(found.trace["merit"], merits)
    assert torch.equal(found.merit, merits.amax(0))
    assert torch.equal(found.merit, merit_of(judge, victim, x, found.x, truth))
    assert (merits.argmax(0) > 0).any()  # a restart was of use
    assert len(set(merits.argmax(0).tolist())) > 1  # to each sample another one


def test_more_restarts_are_never_worse() -> None:
    victim, x, truth = scene()
    merits = torch.stack([Restarts(STARTS, n)(victim, x, truth, rng=STREAMS).merit for n in (1, 2, 4, 8)])
    assert (merits.diff(dim=0) >= 0).all()
    assert (merits[-1] > merits[0]).any()


@pytest.mark.parametrize("count", [0, -1, 2.5, 3.0, "3", None, True])
def test_a_count_that_is_none_is_refused(count: Any) -> None:
    with unchecked(), pytest.raises(ConfigError, match="once or more"):
        Restarts(STARTS, count)


@pytest.mark.parametrize(
    "attack",
    [
        ifgsm(BALL),
        mifgsm(BALL),
        WorstOf([ifgsm(BALL), fgsm(BALL)]),
        Transfer(ifgsm(BALL), linear(torch.ones(1))),
        Restarts(ifgsm(BALL), 1),
        WorstOf([WorstOf([fgsm(BALL)])]),
    ],
    ids=["ifgsm", "momentum", "worst of", "transfer", "once", "nested"],
)
def test_restarts_from_the_clean_input_are_refused(attack: Attacker) -> None:
    with pytest.raises(ConfigError, match="finds the same however often") as refusal:
        Restarts(attack, 3)
    assert "start=medadv.attack.loop.random" in refusal.value.details["try"]
    Restarts(attack, 1)
    Restarts(WorstOf([attack, pgd(BALL)]), 3)  # a part of it starts at random
    Restarts(replace(ifgsm(BALL), start=loop.random), 3)


# The worst of several


def test_each_sample_gets_its_own_worst_and_its_record() -> None:
    victim = linear(10 * torch.ones(1))
    x, truth = torch.full((3, 1, 4), 0.2, dtype=torch.float64), torch.ones(3, 4, dtype=torch.int64)
    half, other = x.clone(), x.clone()
    half[0, :, :2] = -0.2
    half[1, :, :2] = -0.2
    other[1] = -0.1
    found = WorstOf([Delivers(half, 0.25), Delivers(other, 0.75)])(victim, x, truth)
    assert torch.equal(found.x, torch.stack([half[0], other[1], half[2]]))
    torch.testing.assert_close(found.merit, torch.tensor([1 / 3, 1, 0], dtype=torch.float64))  # 1 - 2·2 / (2 + 4)
    assert found.zero_gradient_share.tolist() == [0.25, 0.75, 0.25]  # of equals, the first
    torch.testing.assert_close(found.size, torch.tensor([0.8, 0.6, 0], dtype=torch.float64))
    assert found.passes == Passes(20 + 3, 2)
    assert [torch.equal(part.x, given) for part, given in zip(found.parts, (half, other), strict=True)] == [True, True]


def test_what_the_threat_does_not_allow_is_not_delivered() -> None:
    victim = linear(10 * torch.ones(1))
    x, truth = torch.full((2, 1, 4), 0.2, dtype=torch.float64), torch.ones(2, 4, dtype=torch.int64)
    far, near = x - 0.6, x.clone()
    near[0] = -0.2  # of the second sample nothing is allowed that fools anybody
    found = WorstOf([Delivers(far), Delivers(near)])(victim, x, truth)
    assert torch.equal(found.x, near)
    assert found.merit.tolist() == [1, 0]
    assert (found.size <= 1).all()
    none = WorstOf([Delivers(far, 0.5), Delivers(far + 9)])(victim, x, truth)
    assert torch.equal(none.x, x)
    assert none.merit.tolist() == [0, 0]
    assert none.size.tolist() == [0, 0]
    wrong = WorstOf([Delivers(far)])(victim, x, 1 - truth)  # the clean input has a merit, too
    assert wrong.merit.tolist() == [1, 1]


def test_a_worse_part_does_not_take_the_place_of_the_clean_input_alone() -> None:
    """One attack is delivered even where it helps the victim: it is that attack's record, not a defence of it."""
    victim = linear(10 * torch.ones(1))
    x, truth = torch.full((1, 1, 4), -0.2, dtype=torch.float64), torch.ones(1, 4, dtype=torch.int64)
    found = WorstOf([Delivers(x + 0.4)])(victim, x, truth)
    assert torch.equal(found.x, x + 0.4)
    assert found.merit.tolist() == [0]


def test_attacks_in_a_worst_case_find_what_they_find_alone() -> None:
    victim, x, truth = scene()
    attacks = [pgd(BALL, 3), pgd(BALL, 3, logit_margin), ifgsm(BALL, 2), Restarts(STARTS, 2)]
    found = WorstOf(attacks)(victim, x, truth, rng=STREAMS)
    for attack, part in zip(attacks, found.parts, strict=True):
        assert torch.equal(part.x, attack(victim, x, truth, rng=STREAMS).x)
    assert torch.equal(found.merit, found.trace["merit"].amax(0))
    assert len(found.parts[3].parts) == 2
    assert WorstOf(attacks)(victim, x, truth).x.equal(WorstOf(attacks)(victim, x, truth, rng=Rng.seeded(0, 3)).x)


def test_the_judge_decides() -> None:
    """What one judge likes best another does not: the erased spleen, or the Dice of everything."""
    victim, x, truth = scene()
    attacks = [pgd(BALL, 5), tifgsm(BALL, erase("spleen"), 5), ifgsm(BALL, 5, region="liver")]
    delivered = {}
    for name, judge in {"away": Away(merit=dice_lost), "erase": Towards(erase("spleen"), merit=dice_won)}.items():
        found = WorstOf(attacks, judge)(victim, x, truth)
        rows = torch.stack([merit_of(judge, victim, x, part.x, truth) for part in found.parts])
        torch.testing.assert_close(found.merit, rows.amax(0), check_dtype=False)
        delivered[name] = found.x
    assert not torch.equal(delivered["away"], delivered["erase"])


def test_worst_of_nests_and_a_nest_is_worth_its_leaves() -> None:
    victim, x, truth = scene()
    leaves = [pgd(BALL, 2), Restarts(STARTS, 3), ifgsm(BALL, 2, logit_margin)]
    flat = WorstOf(leaves)(victim, x, truth)
    nest = WorstOf([WorstOf(leaves[:2]), WorstOf(leaves[2:])])(victim, x, truth)
    assert torch.equal(flat.x, nest.x)
    assert torch.equal(flat.merit, nest.merit)
    again = Restarts(WorstOf(leaves), 2)(victim, x, truth)
    assert torch.equal(again.parts[0].x, flat.x)
    assert (again.merit >= flat.merit).all()


def test_different_threats_have_no_common_worst_case() -> None:
    for other in (Linf(Budget(0.4, Unit.STORED)), Linf(Budget(0.3)), Linf(Budget(0.3, Unit.STORED), None)):
        with pytest.raises(ConfigError, match="different threats"):
            WorstOf([pgd(BALL), ifgsm(BALL), pgd(other)])
    assert WorstOf([pgd(BALL), Restarts(STARTS, 2)]).threat == BALL


@pytest.mark.parametrize("attacks", [[], (), None, pgd(BALL), [pgd], [BALL], [lambda *_: None], "pgd", [None]])
def test_no_attacks_are_refused(attacks: Any) -> None:
    with unchecked(), pytest.raises(ConfigError, match=r"worst of no attacks|is no attack"):
        WorstOf(attacks)


@pytest.mark.parametrize("judge", [dice_lost, Away, "dice lost", None])
def test_a_judge_that_is_no_objective_is_refused(judge: Any) -> None:
    victim = linear(torch.ones(1))
    with unchecked():
        for make in (
            lambda: Restarts(STARTS, 2, judge),
            lambda: WorstOf([STARTS], judge),
            lambda: Transfer(STARTS, victim, judge),
        ):
            with pytest.raises(ConfigError, match="judge of several attacks"):
                make()


# All of them


WRAPPED = {
    "restarts": Restarts(STARTS, 3),
    "worst of": WorstOf([pgd(BALL, 3), mifgsm(BALL, 3), Restarts(STARTS, 2)]),
    "transfer": Transfer(Restarts(STARTS, 2), Stateless(lambda x: torch.stack([x[:, 0], x[:, 1], -x[:, 0]], 1))),
}


@pytest.mark.parametrize("name", ["restarts", "worst of"])
def test_batch_mates_do_not_matter(name: str) -> None:
    victim, x, truth = scene()
    x = x * torch.tensor([0.3, 1.0, 7.0], dtype=torch.float64).view(3, 1, 1, 1)
    together = WRAPPED[name](victim, x, truth, rng=STREAMS)
    for stay in ([0], [1], [2], [2, 0]):
        part = torch.tensor(stay)
        alone = WRAPPED[name](victim, x[part], truth[part], rng=STREAMS.take(part))
        torch.testing.assert_close(together.x[part], alone.x, rtol=0, atol=1e-12)
        torch.testing.assert_close(together.merit[part], alone.merit, rtol=0, atol=1e-6)
        torch.testing.assert_close(together.size[part], alone.size)
        torch.testing.assert_close(together.zero_gradient_share[part], alone.zero_gradient_share)


@pytest.mark.parametrize(
    ("attack", "passes"),
    [
        (Restarts(pgd(BALL, 2), 3), Passes(3 * 4 + 4, 3 * 2)),
        (WorstOf([ifgsm(BALL, 2), pgd(BALL, 2)]), Passes(2 + 4 + 3, 4)),
        (WorstOf([Restarts(pgd(BALL, 2), 2), fgsm(BALL)]), Passes((2 * 4 + 3) + 1 + 3, 5)),
    ],
)
def test_passes_are_those_that_happen(attack: Attacker, passes: Passes) -> None:
    victim, x, truth = scene(batch=1)
    counted = Counted(victim.network)
    found = attack(victim, x, truth)
    assert found.passes == passes
    assert counted.seen == {"forward": passes.forward, "backward": passes.backward}


def test_a_support_holds_for_all_parts() -> None:
    victim, x, truth = scene()
    support = torch.rand(x.shape) < 0.4
    for attack in (Restarts(STARTS, 3), WorstOf([pgd(BALL, 2), ifgsm(BALL, 2)])):
        found = attack(victim, x, truth, support=support)
        assert BALL(x, support).inside(found.x).all()
        assert torch.equal(found.x[~support], x[~support])
        assert not torch.equal(found.x, x)
        assert all(torch.equal(part.x[~support], x[~support]) for part in found.parts)


def test_a_zero_is_kept_without_a_support() -> None:
    victim, x, truth = scene()
    x[:, :, :2] = 0
    found = Restarts(STARTS, 3)(victim, x, truth)
    assert (found.x[:, :, :2] == 0).all()
    assert (found.size > 0).all()


def test_settings_are_values() -> None:
    assert Restarts(STARTS, 2) == Restarts(STARTS, 2)
    assert WorstOf([STARTS]) == WorstOf((STARTS,))
    assert hash(WorstOf([STARTS])) == hash(WorstOf((STARTS,)))
    assert Restarts(STARTS, 2, Away(cross_entropy)) != Restarts(STARTS, 2)


def test_what_is_no_victim_is_refused_before_anything_is_attacked() -> None:
    victim, x, truth = scene()
    with unchecked(), pytest.raises(VictimError, match="is no victim"):
        Restarts(STARTS, 2)(victim.network, x, truth)
    with unchecked(), pytest.raises(ConfigError, match="needs the truth"):
        Restarts(STARTS, 2)(victim, x, None)


def test_an_answer_is_asked_for_inside_inference_mode() -> None:
    victim, x, truth = scene()
    expected = Restarts(STARTS, 2)(victim, x, truth)
    with torch.inference_mode():
        found = Restarts(STARTS, 2)(victim, x * 1, truth)
    assert torch.equal(found.x, expected.x)
