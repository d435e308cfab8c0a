"""Several victims at once, or one victim in several draws: answers that are tuples, and what is wanted of them.

The loop does not look inside an answer. It asks ``goal_of`` for a goal, which takes a tuple apart and judges each part
as it would be judged alone: of several victims the values add up; of several draws they are averaged, which is the
expectation over transformations of Athalye et al. 2018 (arXiv:1802.00420; arXiv:1707.07397): of the loss, not of the
logits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from medadv.attack import checks
from medadv.attack.objective import Goal, Judgement, Objective
from medadv.attack.rng import Rng
from medadv.attack.targets import Targets, Truths
from medadv.attack.victim import Passes, Victim
from medadv.errors import ConfigError
from medadv.objects import Objects, Truth


@dataclass(frozen=True, eq=False)
class Several:
    """The targets of each part of a tuple answer.

    Attributes:
        parts: targets, or again several.
        averaged: whether the parts are draws of one thing, and not things of their own.
    """

    parts: tuple[Any, ...]
    averaged: bool

    @property
    def labels(self) -> tuple[Any, ...]:
        """Those of each part."""
        return tuple(part.labels for part in self.parts)


@dataclass(frozen=True, eq=False)
class Joint:
    """Several victims that one perturbation shall fool; its answer is a tuple of theirs.

    With the objective of one victim all of them are attacked by it; ``Together`` gives each its own. All read the same
    image: ``victim.reading(modalities)`` makes one of fewer modalities fit. Memory is that of all their graphs.

    Attributes:
        victims: at least one; a list becomes a tuple.

    Raises:
        ConfigError: none.
        VictimError: something that is no victim.
    """

    victims: Sequence[Victim]

    def __post_init__(self) -> None:
        if not isinstance(self.victims, Sequence) or not self.victims:
            raise ConfigError("several victims at once are a list of victims", got=repr(self.victims))
        object.__setattr__(self, "victims", tuple(self.victims))
        for victim in self.victims:
            checks.check_victim(victim)

    @property
    def answer_cost(self) -> Passes:
        """That of all."""
        return sum((victim.answer_cost for victim in self.victims), start=Passes())

    @property
    def gradient_cost(self) -> Passes:
        """That of all."""
        return sum((victim.gradient_cost for victim in self.victims), start=Passes())

    def prepare(self, x0: Float[Tensor, "b c *s"], rng: Rng) -> Joint:
        """Each as it would be alone."""
        return Joint(tuple(victim.prepare(x0, rng) for victim in self.victims))

    def take(self, index: Int[Tensor, "kept"]) -> Joint:
        """Each for a part of the batch."""
        return Joint(tuple(victim.take(index) for victim in self.victims))

    def targets(self, truth: Truths) -> Any:
        """Those of each victim, in one truth or each in its own.

        Raises:
            ConfigError: not one truth a victim.
        """
        each = truth if _one_each(truth) else (truth,) * len(self.victims)
        if len(each) != len(self.victims):
            raise ConfigError("there is not one truth for each victim", got=len(each), expected=len(self.victims))
        return Several(tuple(v.targets(cast(Truth, t)) for v, t in zip(self.victims, each, strict=True)), False)

    def __call__(self, x: Float[Tensor, "b c *s"]) -> Any:
        """The answers, in order."""
        return tuple(victim(x) for victim in self.victims)

    def predict(self, x: Float[Tensor, "b c *s"]) -> Any:
        """The deployed answers, in order."""
        return tuple(victim.predict(x) for victim in self.victims)

    def modules(self) -> Iterable[nn.Module]:
        """Those of all."""
        return [module for victim in self.victims for module in victim.modules()]


@dataclass(frozen=True, eq=False)
class Draws:
    """One victim in several random draws, all held while it is attacked; its answer is a tuple of theirs.

    The first draw is that of the victim alone, so that one draw is the plain attack. The deployed answer draws anew.
    Passes and memory are so many times those of the victim.

    Attributes:
        victim: one that draws in ``prepare``; of another all draws are alike.
        count: how many draws.
        drawn: the prepared victims.

    Raises:
        ConfigError: no whole count, or less than one.
        VictimError: something that is no victim.
    """

    victim: Victim
    count: int
    drawn: tuple[Victim, ...] = ()

    def __post_init__(self) -> None:
        checks.check_victim(self.victim)
        if not isinstance(self.count, int) or isinstance(self.count, bool) or self.count < 1:
            raise ConfigError("a loss is averaged over one draw or more", got=repr(self.count), expected="e.g. 8")

    @property
    def answer_cost(self) -> Passes:
        """That of all draws."""
        return self.victim.answer_cost * self.count

    @property
    def gradient_cost(self) -> Passes:
        """That of all draws."""
        return self.victim.gradient_cost * self.count

    def prepare(self, x0: Float[Tensor, "b c *s"], rng: Rng) -> Draws:
        """The draws, each from a stream of its own."""
        streams = [rng, *(rng.fork(f"draw {i}") for i in range(1, self.count))]
        return replace(self, drawn=tuple(self.victim.prepare(x0, each) for each in streams))

    def take(self, index: Int[Tensor, "kept"]) -> Draws:
        """Each draw for a part of the batch."""
        return replace(self, victim=self.victim.take(index), drawn=tuple(each.take(index) for each in self.drawn))

    def targets(self, truth: Truths) -> Any:
        """Those of each draw."""
        return Several(tuple(victim.targets(cast(Truth, truth)) for victim in self._drawn), True)

    def __call__(self, x: Float[Tensor, "b c *s"]) -> Any:
        """The answers, in order."""
        drawn = self._drawn if self.drawn else self.prepare(x, Rng.seeded(0, len(x))).drawn
        return tuple(victim(x) for victim in drawn)

    def predict(self, x: Float[Tensor, "b c *s"]) -> Truth:
        """The victim's own deployed answer."""
        return self.victim.predict(x)

    def modules(self) -> Iterable[nn.Module]:
        """The victim's."""
        return self.victim.modules()

    @property
    def _drawn(self) -> tuple[Victim, ...]:
        return self.drawn or (self.victim,) * self.count


@dataclass(frozen=True)
class Together:
    """An objective for each victim of a ``Joint``: one perturbation, several aims (Xie et al. 2017, figures).

    Values add up. The merit is the least of them, for a perturbation that fools all but one has not fooled all; done
    when all are.

    Attributes:
        objectives: one a victim, in their order; a list becomes a tuple.

    Raises:
        ConfigError: no objectives; when it is prepared: for another number of victims.
    """

    objectives: Sequence[Objective]

    def __post_init__(self) -> None:
        if not isinstance(self.objectives, Sequence) or not self.objectives:
            raise ConfigError("what is wanted of several victims is a list", got=repr(self.objectives))
        object.__setattr__(self, "objectives", tuple(self.objectives))
        if strange := [each for each in self.objectives if isinstance(each, type) or not isinstance(each, Objective)]:
            raise ConfigError("this is no objective", got=repr(strange[0]), expected="for example Away()")

    def prepare(self, raw0: Any, targets: Any, rng: Rng) -> Goal:
        """A goal for each victim, with the same random streams."""
        if not isinstance(targets, Several) or len(targets.parts) != len(self.objectives):
            victims = len(targets.parts) if isinstance(targets, Several) else 1
            raise ConfigError(
                "there is not one objective for each victim",
                got=f"{len(self.objectives)} for {victims}",
                expected="attack(Joint([victim, …]), x, truth), and as many objectives",
            )
        parts = zip(self.objectives, raw0, targets.parts, strict=True)
        return _Goals(tuple(_prepared(each, raw, its, rng) for each, raw, its in parts), False)


@dataclass(frozen=True, eq=False)
class _Goals:
    """The goals of all parts, and how their judgements become one."""

    goals: tuple[Goal, ...]
    averaged: bool

    def __call__(self, raw: Any, progress: float) -> Judgement:
        each = [goal(part, progress) for goal, part in zip(self.goals, raw, strict=True)]
        values, merits = torch.stack([j.value for j in each]), torch.stack([j.merit for j in each])
        done = torch.stack([j.done for j in each]).all(0)
        notes = {name: torch.stack([j.notes[name] for j in each if name in j.notes]) for j in each for name in j.notes}
        if self.averaged:
            return Judgement(values.mean(0), merits.mean(0), done, {name: rows.mean(0) for name, rows in notes.items()})
        return Judgement(values.sum(0), merits.amin(0), done, {name: rows.sum(0) for name, rows in notes.items()})

    def take(self, index: Int[Tensor, "kept"]) -> _Goals:
        return replace(self, goals=tuple(goal.take(index) for goal in self.goals))


def goal_of(objective: Objective, victim: Victim, raw0: Any, truth: Truths, rng: Rng) -> Goal:
    """What an objective wants of a victim, prepared on its clean answer: the one place that takes tuples apart.

    Args:
        objective: what the attacker wants; of several victims at once ``Together``, or one objective for all.
        victim: prepared.
        raw0: its detached clean answer.
        truth: what its ``targets`` understands.
        rng: the streams of the objective.

    Raises:
        VictimError: truth and answer lie on different grids.
        ConfigError: not one objective or truth a victim, or a goal that the truth cannot serve.
    """
    targets = victim.targets(cast(Truth, truth))
    checks.check_labels(raw0, targets.labels)
    return _prepared(objective, raw0, targets, rng)


def _prepared(objective: Objective, raw0: Any, targets: Targets | Several, rng: Rng) -> Goal:
    if not isinstance(targets, Several):
        return objective.prepare(raw0, targets, rng)
    if isinstance(objective, Together) and not targets.averaged:
        return objective.prepare(raw0, targets, rng)
    parts = zip(raw0, targets.parts, strict=True)
    return _Goals(tuple(_prepared(objective, raw, its, rng) for raw, its in parts), targets.averaged)


def _one_each(truth: Truths) -> bool:
    """Whether this is a truth for each of several victims, and not one for all: a tuple, but not of objects."""
    return isinstance(truth, tuple) and not all(isinstance(each, Objects) for each in truth)
