"""Attacks made of attacks: restarts, the worst of several, transfer.

What the parts deliver is judged anew, by one common objective and on the victim asked for, because the merits of
different objectives do not compare. Each sample gets its own best, whichever part found it.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool
from torch import Tensor

from medadv.attack import checks
from medadv.attack.joint import goal_of
from medadv.attack.loop import Adversarial, Attack, clean
from medadv.attack.objective import Away, Objective, dice_lost
from medadv.attack.rng import Rng
from medadv.attack.targets import Truths
from medadv.attack.threat import Image, Threat
from medadv.attack.victim import Victim, held_still, tensors
from medadv.errors import ConfigError, VictimError

DICE_LOST = Away(merit=dice_lost)
"""The judge who is not told otherwise: 1 - Dice with the truth."""


@runtime_checkable
class Attacker(Protocol):
    """Whatever attacks as an ``Attack`` does: also what is made of attacks."""

    @property
    def threat(self) -> Threat:
        """What may change."""
        ...

    def __call__(
        self,
        victim: Victim,
        x: Image,
        truth: Truths,
        *,
        support: Bool[Tensor, "b c *s"] | None = None,
        rng: Rng | None = None,
    ) -> Adversarial:
        """Attack a batch; arguments and errors are those of ``Attack``."""
        ...


Run = tuple[Attacker, Victim, Rng]
"""Who attacks whom, with which random streams."""


class _Judged(ABC):
    """Several runs around one input, and one judge: what all attacks made of attacks have in common."""

    judge: Objective

    @property
    @abstractmethod
    def threat(self) -> Threat:
        """What may change: nothing else is delivered."""

    @abstractmethod
    def _runs(self, victim: Victim, rng: Rng) -> list[Run]:
        """What to run, in order: of equals the first is delivered."""

    def __call__(
        self,
        victim: Victim,
        x: Image,
        truth: Truths,
        *,
        support: Bool[Tensor, "b c *s"] | None = None,
        rng: Rng | None = None,
    ) -> Adversarial:
        """Attack a batch; arguments and errors are those of ``Attack``.

        The victim is prepared anew for the judge, with random streams of its own: what won by the luck of a draw is
        not praised for it. Where no part has delivered an allowed input, the clean one is.
        """
        began = time.perf_counter()
        checks.check_victim(victim)
        checks.check_input(x)
        checks.check_truth(truth, len(x))
        rng = rng or Rng.seeded(0, len(x))
        parts = []
        for attack, attacked, streams in self._runs(victim, rng):
            try:
                parts.append(attack(attacked, x, truth, support=support, rng=streams))
            except VictimError as error:
                if attacked is not victim:
                    error.add_note("This was the source of a transfer: it must read the same images as the victim.")
                raise
        found = self._judged(victim, x, truth, support, rng, parts)
        return replace(found, seconds=time.perf_counter() - began)

    def _judged(
        self,
        victim: Victim,
        x: Image,
        truth: Truths,
        support: Bool[Tensor, "b c *s"] | None,
        rng: Rng,
        parts: Sequence[Adversarial],
    ) -> Adversarial:
        """Of each sample the best allowed input; a forward for each part, and one for the clean answer."""
        with held_still(victim.modules()), torch.no_grad():
            x = x.detach().clone() if x.is_inference() else x.detach()
            threat = self.threat(x, x != 0 if support is None else support)
            still = victim.prepare(x, rng.fork("judge"))
            raw0 = still(threat.clean)
            for answer in tensors(raw0):
                checks.check_answer(answer)
            goal = goal_of(self.judge, still, raw0, truth, rng.fork("objective"))
            best, zeros = threat.clean.clone(), parts[0].zero_gradient_share
            merit = torch.full_like(zeros, torch.nan)
            trace: dict[str, list[Tensor]] = {"value": [], "merit": []}
            for part in parts:
                judgement = goal(still(part.x), 1.0)
                trace["value"].append(judgement.value)
                trace["merit"].append(judgement.merit)
                takes = threat.inside(part.x) & (merit.isnan() | (judgement.merit > merit))
                best = torch.where(takes.view(-1, *[1] * (x.ndim - 1)), part.x, best)
                merit = torch.where(takes, judgement.merit.to(merit.dtype), merit)
                zeros = torch.where(takes, part.zero_gradient_share, zeros)
            merit = torch.where(merit.isnan(), goal(raw0, 0.0).merit.to(merit.dtype), merit)
            passes = sum((part.passes for part in parts), start=still.answer_cost * (1 + len(parts)))
            rows = {name: torch.stack(row) for name, row in trace.items()}
            return Adversarial(best, merit, rows, threat.size(best), zeros, passes, 0.0, tuple(parts))


@dataclass(frozen=True)
class Restarts(_Judged):
    """One attack from several random starts.

    The first is the attack itself, so that more restarts are never worse in the judge's eyes. Each later one draws
    everything anew that is random: the start, and a goal that is drawn.

    Attributes:
        attack: what is repeated.
        count: how many times, the first included; at least one.
        judge: who says which result is best. A targeted attack is judged by its own objective: ``attack.objective``.

    Raises:
        ConfigError: nothing that attacks or judges, no whole count, less than one, or several from the clean input.
    """

    attack: Attacker
    count: int
    judge: Objective = DICE_LOST

    def __post_init__(self) -> None:
        _check_attacker(self.attack)
        _check_judge(self.judge)
        if not isinstance(self.count, int) or isinstance(self.count, bool) or self.count < 1:
            raise ConfigError(
                "an attack is started once or more",
                got=repr(self.count),
                expected="a whole number, the first start included",
            )
        if self.count > 1 and _from_clean(self.attack):
            raise ConfigError(
                "an attack that starts at the clean input finds the same however often it is started",
                got=f"{self.count} starts of the same",
                expected="an attack with a random start",
                advice="take pgd(...), or dataclasses.replace(attack, start=medadv.attack.loop.random)",
            )

    @property
    def threat(self) -> Threat:
        """That of the attack."""
        return self.attack.threat

    def _runs(self, victim: Victim, rng: Rng) -> list[Run]:
        streams = [rng, *(rng.fork(f"restart {i}") for i in range(1, self.count))]
        return [(self.attack, victim, each) for each in streams]


@dataclass(frozen=True)
class WorstOf(_Judged):
    """Several attacks in one threat; of each sample the worst for the victim.

    Each gets the same random streams as if it were alone, and so finds the same.

    Attributes:
        attacks: at least one; a list becomes a tuple.
        judge: who says which result is worst for the victim.

    Raises:
        ConfigError: no attacks, something that attacks or judges nothing, or attacks in different threats.
    """

    attacks: Sequence[Attacker]
    judge: Objective = DICE_LOST

    def __post_init__(self) -> None:
        if not isinstance(self.attacks, Sequence) or not self.attacks:
            raise ConfigError(
                "the worst of no attacks",
                got=repr(self.attacks),
                expected="a list of attacks",
                advice="write WorstOf([attack])" if isinstance(self.attacks, Attacker) else None,
            )
        object.__setattr__(self, "attacks", tuple(self.attacks))
        for attack in self.attacks:
            _check_attacker(attack)
        _check_judge(self.judge)
        if other := [attack.threat for attack in self.attacks if attack.threat != self.threat]:
            raise ConfigError(
                "the worst case of different threats is a worst case of none of them",
                got=f"{self.threat} and {other[0]}",
                expected="one budget, ball and legal range for all attacks",
                advice="make one WorstOf for each budget",
            )

    @property
    def threat(self) -> Threat:
        """The one of all attacks."""
        return self.attacks[0].threat

    def _runs(self, victim: Victim, rng: Rng) -> list[Run]:
        return [(attack, victim, rng) for attack in self.attacks]


@dataclass(frozen=True)
class Transfer(_Judged):
    """What an attack finds for another victim, delivered to the one asked for.

    It needs no gradient of the victim asked for, and so is not deceived by one that is masked (Papernot et al. 2017,
    arXiv:1602.02697; Athalye et al. 2018, arXiv:1802.00420). The threat is that of the same input: what the budget is
    worth does not depend on who is attacked.

    Attributes:
        attack: what is done to the source.
        source: another victim, of the same images and label numbers; its head may be another.
        judge: who says how much it does to the victim asked for.

    Raises:
        ConfigError: nothing that attacks or judges.
        VictimError: a source that is no victim.
    """

    attack: Attacker
    source: Victim
    judge: Objective = DICE_LOST

    def __post_init__(self) -> None:
        _check_attacker(self.attack)
        _check_judge(self.judge)
        checks.check_victim(self.source)

    @property
    def threat(self) -> Threat:
        """That of the attack."""
        return self.attack.threat

    def _runs(self, victim: Victim, rng: Rng) -> list[Run]:  # noqa: ARG002
        return [(self.attack, self.source, rng)]


def _from_clean(attack: Attacker) -> bool:
    """Whether all of it starts at the clean input, whatever the random streams say."""
    if isinstance(attack, WorstOf):
        return all(_from_clean(each) for each in attack.attacks)
    if isinstance(attack, Transfer | Restarts):
        return _from_clean(attack.attack)
    return isinstance(attack, Attack) and attack.start is clean


def _check_attacker(attack: object) -> None:
    if isinstance(attack, type) or not isinstance(attack, Attacker):
        raise ConfigError(
            "this is no attack",
            got=repr(attack),
            expected="an Attack, as the presets make them, or Restarts, WorstOf or Transfer",
            advice='for example pgd("0.1 sigma")',
        )


def _check_judge(judge: object) -> None:
    if isinstance(judge, type) or not isinstance(judge, Objective):
        raise ConfigError(
            "the judge of several attacks is an objective",
            got=repr(judge),
            expected="for example Away(merit=dice_lost), or the objective of a targeted attack",
        )
