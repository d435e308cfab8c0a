"""What the attacker wants, and the one place where a loss gets its sign.

``Away`` from the truth ascends a loss; ``Towards`` other labels descends it, and always says *where*. Value and merit
are two things: the value is what one step ascends, and may be weighted anew each step; the merit says which iterate was
best.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, Protocol, Self, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from medadv.attack.losses import Logits, Loss, as_loss, cross_entropy
from medadv.attack.rng import Rng
from medadv.attack.targets import Targets
from medadv.errors import ConfigError
from medadv.labels import BACKGROUND


@dataclass(frozen=True, eq=False)
class Judgement:
    """One judgement of a raw answer, a number a sample.

    Attributes:
        value: to be ascended.
        merit: which iterate is better; comparable from step to step.
        done: whether there is nothing left to gain.
    """

    value: Float[Tensor, "b"]
    merit: Float[Tensor, "b"]
    done: Bool[Tensor, "b"]

    def take(self, index: Int[Tensor, "kept"]) -> Judgement:
        """The judgement of a part of the batch."""
        return Judgement(self.value[index], self.merit[index], self.done[index])


@runtime_checkable
class Goal(Protocol):
    """An objective prepared on the clean answer of one batch."""

    def __call__(self, raw: Logits, progress: float) -> Judgement:
        """Judge an answer; ``progress`` runs from 0 to 1 over the attack."""
        ...

    def take(self, index: Int[Tensor, "kept"]) -> Self:
        """The goal for a part of the batch."""
        ...


@runtime_checkable
class Objective(Protocol):
    """What the attacker wants, as settings."""

    def prepare(self, raw0: Logits, targets: Targets, rng: Rng) -> Goal:
        """Make it concrete; ``raw0`` is the detached clean answer."""
        ...


Merit = Callable[[Bool[Tensor, "b *targets"], Logits, Targets], Float[Tensor, "b"]]


def share_won(won: Bool[Tensor, "b *targets"], _raw: Logits, targets: Targets) -> Float[Tensor, "b"]:
    """The share of the targets that count which the attacker has won; 1 where there is nothing to attack."""
    counted = targets.where.flatten(1).sum(1)
    share = won.flatten(1).sum(1) / counted.clamp(min=1)
    return torch.where(counted > 0, share, 1.0)


def dice_lost(_won: Bool[Tensor, "b *targets"], raw: Logits, targets: Targets) -> Float[Tensor, "b"]:
    """1 - Dice of the decided labels, averaged over the classes but background: for ``Away``, near the score."""
    grouped = int(targets.grouped)
    axes = tuple(range(1 + grouped, raw.ndim - 1))
    best = raw.amax(1)
    losses = []
    for c in range(1, raw.shape[1]):
        said = (raw[:, c] >= best) & targets.where
        truth = (targets.labels == c) & targets.where
        total = said.sum(axes) + truth.sum(axes)
        losses.append(torch.where(total > 0, 1 - 2 * (said & truth).sum(axes) / total.clamp(min=1), 0.0))
    stacked = torch.stack(losses, 1)
    return stacked.flatten(1).mean(1)


def dice_won(won: Bool[Tensor, "b *targets"], raw: Logits, targets: Targets) -> Float[Tensor, "b"]:
    """Dice of the decided labels with the wanted ones: the same for ``Towards``."""
    return 1 - dice_lost(won, raw, targets)


@dataclass(frozen=True, eq=False)
class Contest:
    """A goal over labelled targets: ``sign`` times a loss, and which targets are won.

    A target is won when its label is no longer the decided class (sign +1), or has become it (-1). With ``pending``
    only targets not yet won are pushed: the active set of Xie et al. 2017, and what keeps a margin from being spent on
    the same voxels twice.
    """

    loss: Loss
    sign: Literal[1, -1]
    targets: Targets
    merit: Merit
    pending: bool

    def __call__(self, raw: Logits, progress: float) -> Judgement:  # noqa: ARG002
        """Judge an answer."""
        with torch.no_grad():
            decided = raw.gather(1, self.targets.labels.unsqueeze(1)).squeeze(1) >= raw.amax(1)
            won = (decided if self.sign < 0 else ~decided) & self.targets.where
            merit = self.merit(won, raw, self.targets)
            done = won.flatten(1).sum(1) == self.targets.where.flatten(1).sum(1)
        pushed = self.targets.within(self.targets.where & ~won) if self.pending else self.targets
        return Judgement(self.sign * self.loss(raw, pushed), merit, done)

    def take(self, index: Int[Tensor, "kept"]) -> Contest:
        """The goal for a part of the batch."""
        return replace(self, targets=self.targets.take(index))


@dataclass(frozen=True)
class Away:
    """Away from the truth: untargeted. The loss is a function, or its name in ``LOSSES``."""

    loss: Loss | str = cross_entropy
    merit: Merit = share_won
    pending: bool = False

    def __post_init__(self) -> None:
        as_loss(self.loss)

    def prepare(self, raw0: Logits, targets: Targets, rng: Rng) -> Contest:  # noqa: ARG002
        """Ascend the loss of the true labels."""
        return Contest(as_loss(self.loss), 1, targets, self.merit, self.pending)


@runtime_checkable
class Relabel(Protocol):
    """What the targets shall be taken for, and which of them count."""

    def __call__(self, targets: Targets) -> Targets:
        """The targets with the labels that the attacker wants, where he wants them."""
        ...


@dataclass(frozen=True)
class Turn:
    """Turn one region into another tissue, where the region truly is."""

    source: str
    into: str

    def __call__(self, targets: Targets) -> Targets:
        """Relabel the region's targets; only they count."""
        return targets.turned(self.source, self.into).within(targets.region(self.source) & targets.where)


def erase(region: str) -> Turn:
    """Make a region vanish: turn it into background, where it truly is."""
    return Turn(region, BACKGROUND)


@dataclass(frozen=True, eq=False)
class Draw:
    """Make the victim see a given label map.

    Attributes:
        truth: the wanted map ``(b, *s)`` in stored label numbers.
        where: the voxels of it that matter; the others are free.
    """

    truth: Int[Tensor, "b *s"]
    where: Bool[Tensor, "b *s"]

    def __call__(self, targets: Targets) -> Targets:
        """Relabel all targets; those under ``where`` count."""
        wanted = targets.mapped(self.truth)
        where = self.where.unsqueeze(1).expand_as(wanted.labels) if targets.grouped else self.where
        return wanted.within(where & targets.where)


@dataclass(frozen=True)
class Towards:
    """Towards other labels: targeted. The relabelling says where; the loss is a function, or its name in ``LOSSES``."""

    relabel: Relabel
    loss: Loss | str = cross_entropy
    merit: Merit = share_won
    pending: bool = False

    def __post_init__(self) -> None:
        as_loss(self.loss)
        if not isinstance(self.relabel, Relabel):
            raise ConfigError(
                "a targeted attack has to know what to make of which voxels",
                got=repr(self.relabel),
                expected="erase(region), Turn(region, tissue) or Draw(truth, where)",
                advice=f'to make it vanish, give erase("{self.relabel}")' if isinstance(self.relabel, str) else None,
            )
        if self.merit is dice_lost:
            raise ConfigError(
                "a targeted attack that loses Dice would keep the iterate farthest from the labels it wants",
                got="Towards(merit=dice_lost)",
                expected="share_won or dice_won",
            )

    def prepare(self, raw0: Logits, targets: Targets, rng: Rng) -> Contest:  # noqa: ARG002
        """Descend the loss of the wanted labels."""
        return Contest(as_loss(self.loss), -1, self.relabel(targets), self.merit, self.pending)
