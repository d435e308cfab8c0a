"""What the attacker wants, and the one place where a loss gets its sign.

``Away`` from the labels ascends a loss; ``Towards`` other labels descends it, and always says *where*. The labels are
the expert's, or the victim's own clean answer. ``Apart`` knows no labels: from the clean answer as a whole. Value and
merit are two things: the value is what one step ascends, and may be weighted anew each step; the merit says which
iterate was best.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, Self, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from medadv.attack.losses import Logits, Loss, as_loss, cross_entropy
from medadv.attack.relabel import Relabel, as_relabel
from medadv.attack.rng import Rng
from medadv.attack.targets import Targets
from medadv.errors import ConfigError

Labels = Literal["truth", "prediction"]
"""Whose labels an attacker has: the expert's, or the victim's own decision on the clean input.

By the victim's own, what is void to the expert counts as well: an attacker without the expert's map does not know it.
"""


@dataclass(frozen=True, eq=False)
class Judgement:
    """One judgement of a raw answer, a number a sample.

    Attributes:
        value: to be ascended.
        merit: which iterate is better; comparable from step to step.
        done: whether there is nothing left to gain.
        notes: what else the trace shall hold, by name.
    """

    value: Float[Tensor, "b"]
    merit: Float[Tensor, "b"]
    done: Bool[Tensor, "b"]
    notes: Mapping[str, Float[Tensor, "b"]] = field(default_factory=dict)

    def take(self, index: Int[Tensor, "kept"]) -> Judgement:
        """The judgement of a part of the batch."""
        notes = {name: numbers[index] for name, numbers in self.notes.items()}
        return Judgement(self.value[index], self.merit[index], self.done[index], notes)


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


@torch.no_grad()
def _won(raw: Logits, targets: Targets, sign: Literal[1, -1]) -> Bool[Tensor, "b *targets"]:
    """The targets whose label is no longer the decided class (sign +1), or has become it (-1)."""
    decided = raw.gather(1, targets.labels.unsqueeze(1)).squeeze(1) >= raw.amax(1)
    return (decided if sign < 0 else ~decided) & targets.where


@torch.no_grad()
def _standing(
    won: Bool[Tensor, "b *targets"], raw: Logits, targets: Targets, merit: Merit
) -> tuple[Float[Tensor, "b"], Bool[Tensor, "b"]]:
    """The merit, and whether there is nothing left to win."""
    return merit(won, raw, targets), won.flatten(1).sum(1) == targets.where.flatten(1).sum(1)


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
        raw = self.targets.logits(raw)
        won = _won(raw, self.targets, self.sign)
        merit, done = _standing(won, raw, self.targets, self.merit)
        pushed = self.targets.within(self.targets.where & ~won) if self.pending else self.targets
        return Judgement(self.sign * self.loss(raw, pushed), merit, done)

    def take(self, index: Int[Tensor, "kept"]) -> Contest:
        """The goal for a part of the batch."""
        return replace(self, targets=self.targets.take(index))


@dataclass(frozen=True, eq=False)
class Following:
    """A goal whose wanted labels follow the current answer, step by step (the least likely class of Arnab et al. 2018).

    No label stays to be reached, so what is won is what has left the first labels.
    """

    contest: Contest
    first: Targets
    relabel: Relabel
    rng: Rng

    def __call__(self, raw: Logits, progress: float) -> Judgement:
        """Judge an answer by the labels that it asks for itself."""
        wanted = self.relabel(self.first, raw.detach(), self.rng)
        pushed = replace(self.contest, targets=wanted)(raw, progress)
        with torch.no_grad():
            first = replace(self.contest, sign=1, merit=share_won, targets=self.first.within(wanted.where))
            return replace(first(raw, progress), value=pushed.value)

    def take(self, index: Int[Tensor, "kept"]) -> Following:
        """The goal for a part of the batch."""
        contest, first = self.contest.take(index), self.first.take(index)
        return replace(self, contest=contest, first=first, rng=self.rng.take(index))


@dataclass(frozen=True, eq=False)
class Divergence:
    """A goal without labels: the answer's divergence from the clean one, target by target.

    Attributes:
        clean: log-probabilities of the clean answer, without graph.
        targets: labelled by the clean answer's own decision, each target by itself; won are those it no longer holds.
        merit: which iterate is better.
    """

    clean: Logits
    targets: Targets
    merit: Merit

    def __call__(self, raw: Logits, progress: float) -> Judgement:  # noqa: ARG002
        """Judge an answer."""
        raw = self.targets.logits(raw)
        each = F.kl_div(raw.log_softmax(1), self.clean, reduction="none", log_target=True).sum(1)
        value = torch.where(self.targets.where, each, 0).flatten(1).sum(1)
        return Judgement(value, *_standing(_won(raw, self.targets, 1), raw, self.targets, self.merit))

    def take(self, index: Int[Tensor, "kept"]) -> Divergence:
        """The goal for a part of the batch."""
        return replace(self, clean=self.clean[index], targets=self.targets.take(index))


@dataclass(frozen=True)
class Apart:
    """Apart from the clean answer, whatever it says: the inner objective of TRADES.

    Ascends KL(softmax(clean answer) ‖ softmax(answer)), summed over the targets that count; for a region head, that of
    each region's own probability (Zhang et al. 2019, arXiv:1901.08573, eq. 5). Where nothing has changed yet, the
    divergence is at its minimum: at the clean input the gradient is zero but for rounding, whose signs lead nowhere.
    So start at random, as ``klpgd`` does.

    Attributes:
        merit: which iterate is better, judged by the clean answer's own decision of each target: ``share_won`` is the
            share of targets whose decision has changed.
    """

    merit: Merit = share_won

    def prepare(self, raw0: Logits, targets: Targets, rng: Rng) -> Divergence:  # noqa: ARG002
        """Ascend the divergence from this answer."""
        logits = targets.logits(raw0.detach())
        return Divergence(logits.log_softmax(1), targets.labelled(logits.argmax(1)), self.merit)


@dataclass(frozen=True)
class Away:
    """Away from the labels: untargeted.

    Attributes:
        loss: a function, or its name in ``LOSSES``.
        merit: which iterate is better.
        pending: whether only targets not yet won are pushed.
        labels: away from the ``"truth"``, or from the victim's own clean ``"prediction"``, as an attacker without an
            expert's label map must.
        region: the region or tissue to be attacked alone, as the two-class problem of its inside and outside; None for
            all classes.

    Raises:
        ConfigError: no such loss, or no such labels.
    """

    loss: Loss | str = cross_entropy
    merit: Merit = share_won
    pending: bool = False
    labels: Labels = "truth"
    region: str | None = None

    def __post_init__(self) -> None:
        as_loss(self.loss)
        check_source(self.labels)

    def prepare(self, raw0: Logits, targets: Targets, rng: Rng) -> Contest:  # noqa: ARG002
        """Ascend the loss of the labels."""
        targets = targets if self.labels == "truth" else targets.decided(raw0)
        targets = targets if self.region is None else targets.alone(self.region)
        return Contest(as_loss(self.loss), 1, targets, self.merit, self.pending)


@dataclass(frozen=True)
class Towards:
    """Towards other labels: targeted.

    Attributes:
        relabel: which labels, and where.
        loss: a function, or its name in ``LOSSES``.
        merit: which iterate is better.
        pending: whether only targets not yet won are pushed.
        labels: what is relabelled: the ``"truth"``, or the victim's own clean ``"prediction"``. A region then lies
            where the victim sees it.
        follow: whether the answer that ``relabel`` is given is the current one at each step, not the clean one.

    Raises:
        ConfigError: nothing that relabels, no such loss or labels, or a merit that turns the attack around.
    """

    relabel: Relabel
    loss: Loss | str = cross_entropy
    merit: Merit = share_won
    pending: bool = False
    labels: Labels = "truth"
    follow: bool = False

    def __post_init__(self) -> None:
        as_loss(self.loss)
        check_source(self.labels)
        as_relabel(self.relabel)
        if self.merit is dice_lost:
            raise ConfigError(
                "a targeted attack that loses Dice would keep the iterate farthest from the labels it wants",
                got="Towards(merit=dice_lost)",
                expected="share_won or dice_won",
            )

    def prepare(self, raw0: Logits, targets: Targets, rng: Rng) -> Contest | Following:
        """Descend the loss of the wanted labels."""
        targets = targets if self.labels == "truth" else targets.decided(raw0)
        wanted = self.relabel(targets, raw0, rng)
        contest = Contest(as_loss(self.loss), -1, wanted, self.merit, self.pending)
        return Following(contest, targets, self.relabel, rng) if self.follow else contest


def check_source(labels: object) -> None:
    """Refuse labels that an attacker cannot have.

    Raises:
        ConfigError: neither ``"truth"`` nor ``"prediction"``.
    """
    if labels not in ("truth", "prediction"):
        raise ConfigError("an attacker has no such labels", got=labels, expected='"truth" or "prediction"')
