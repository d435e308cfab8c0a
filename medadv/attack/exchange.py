"""``Exchange``: one label for another, target by target, as dense adversary generation does it (Xie et al. 2017).

The value is the sum over the active targets of f(l') - f(l), logits without a softmax: the gradient of the cross
entropy of l minus that of l', and it does not saturate. Which targets are active is asked anew at each step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from medadv.attack.losses import Logits
from medadv.attack.objective import Judgement, Labels, check_source, share_won
from medadv.attack.relabel import Relabel, as_relabel
from medadv.attack.rng import Rng
from medadv.attack.targets import Targets
from medadv.errors import ConfigError
from medadv.labels import BACKGROUND

Active = Literal["written", "released"]
"""Which targets are still pushed: by the paper as it is written, or by the code that was released with it."""


@dataclass(frozen=True)
class Strong:
    """When a box is fooled for sure, as Xie et al.'s code for detection asks: being decided as l' is not enough.

    The fooled boxes that non-maximum suppression leaves, whatever their classes, are those that would be reported. One
    of them whose score is too low counts as not fooled, and is pushed on; the suppressed ones need no score.

    Attributes:
        score: of l', at least.
        nms: the overlap above which a box is suppressed by a better one.

    Raises:
        ConfigError: no shares.
    """

    score: float = 0.8
    nms: float = 0.35
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (a study may not misspell a key)

    def __post_init__(self) -> None:
        if not (0 < self.score < 1 and 0 < self.nms <= 1):
            raise ConfigError("score and overlap of a fooled box are shares", got=self, expected="score=0.8, nms=0.35")


@runtime_checkable
class Boxed(Targets, Protocol):
    """Targets that are boxes: they have scores as they are deployed, and suppress each other."""

    def reported(
        self, raw: Logits, where: Bool[Tensor, "b n"], nms: float
    ) -> tuple[Bool[Tensor, "b n"], Float[Tensor, "b n"]]:
        """Those of some targets that suppression by overlap leaves, and the score of every target's decided class."""
        ...


@dataclass(frozen=True)
class Exchange:
    """Each label l exchanged for another one, l' (Xie et al. 2017, arXiv:1703.08603, eq. 1 and Algorithm 1).

    Attributes:
        relabel: which l', and where; a target whose l' is its l does not count.
        active: ``"written"``: the targets still decided as l (Algorithm 1: it is enough that they leave it);
            ``"released"``: those not yet decided as l' (their code for segmentation).
        tolerance: done when no more targets are active than this share of those that count and are not background in
            truth: 0.01 in their code for segmentation.
        let_vanish: whether a target that is decided as background is let be; with ``"released"`` alone, their code for
            detection. That code ends as soon as none is decided as l; here it goes on while any target is pushed.
        strong: of boxes: which of those that are decided as l' are fooled for sure; None: all.
        labels: whether l is that of the ``"truth"``, or the victim's own clean ``"prediction"``.

    Raises:
        ConfigError: nothing that relabels, or a setting that is none.
    """

    relabel: Relabel
    active: Active = "written"
    tolerance: float = 0.0
    let_vanish: bool = False
    labels: Labels = "truth"
    strong: Strong | None = None

    def __post_init__(self) -> None:
        as_relabel(self.relabel)
        check_source(self.labels)
        if self.active not in ("written", "released"):
            raise ConfigError("there are no such active targets", got=self.active, expected='"written" or "released"')
        if not 0 <= self.tolerance < 1:
            raise ConfigError("the tolerance is a share of the targets", got=self.tolerance, expected="0, or 0.01")
        if self.let_vanish and self.active == "written":
            raise ConfigError(
                "as Algorithm 1 is written, a target is let be as soon as it has left its label, for background or not",
                got='let_vanish=True and active="written"',
                expected='active="released", or let_vanish=False',
            )

    def prepare(self, raw0: Logits, targets: Targets, rng: Rng) -> Exchanging:
        """Which label each target has, and which one it shall have."""
        if self.strong is not None and not isinstance(targets, Boxed):
            raise ConfigError(
                "only boxes suppress each other, and the victim's targets are none",
                got=self.strong,
                advice="leave out strong, or attack a detector",
            )
        own = targets if self.labels == "truth" else targets.decided(raw0)
        wanted = self.relabel(own, raw0, rng)
        where = wanted.where & (wanted.labels != own.labels)
        return Exchanging(self, own.within(where), wanted.within(where))


@dataclass(frozen=True, eq=False)
class Exchanging:
    """An exchange prepared on a clean answer.

    Attributes:
        settings: what was asked for.
        own: the targets with their labels l; those that count are to be exchanged.
        wanted: the same targets with their labels l'.
    """

    settings: Exchange
    own: Targets
    wanted: Targets

    def __call__(self, raw: Logits, progress: float) -> Judgement:  # noqa: ARG002
        """Judge an answer; the number of active targets is noted."""
        raw = self.own.logits(raw)
        active = self._active(raw)
        count = active.flatten(1).sum(1)
        gain = _of(raw, self.wanted.labels) - _of(raw, self.own.labels)
        value = torch.where(active, gain, 0).flatten(1).sum(1)
        foreground = (self.own.where & (self.own.labels != self._background)).flatten(1).sum(1)
        merit = share_won(self.own.where & ~active, raw, self.own)
        done = count <= self.settings.tolerance * foreground
        return Judgement(value, merit, done, {"active": count.to(raw.dtype)})

    def active(self, raw: Logits) -> Bool[Tensor, "b *targets"]:
        """The targets that a victim's raw answer leaves to be pushed."""
        return self._active(self.own.logits(raw))

    @torch.no_grad()
    def _active(self, logits: Logits) -> Bool[Tensor, "b *targets"]:
        best = logits.amax(1)
        kept, won = (_of(logits, each.labels) >= best for each in (self.own, self.wanted))
        weak = self._weak(logits, won & self.own.where)
        if self.settings.active == "written":
            return self.own.where & (kept | weak)
        let_be = won
        if self.settings.let_vanish and self._background >= 0:
            let_be = won | (logits[:, self._background] >= best)
        return self.own.where & (~let_be | weak)

    def _weak(self, logits: Logits, fooled: Bool[Tensor, "b *targets"]) -> Bool[Tensor, "b *targets"]:
        """The fooled targets that are not fooled for sure."""
        strong = self.settings.strong
        if strong is None:
            return torch.zeros_like(fooled)
        assert isinstance(self.own, Boxed)  # by Exchange.prepare
        reported, scores = self.own.reported(logits, fooled, strong.nms)
        return reported & (scores < strong.score)

    @property
    def _background(self) -> int:
        """The class of background; of a region head, outside; -1 where there is none."""
        tissues = self.own.scheme.tissues
        return 0 if self.own.grouped else tissues.index(BACKGROUND) if BACKGROUND in tissues else -1

    def take(self, index: Int[Tensor, "kept"]) -> Exchanging:
        """The goal for a part of the batch."""
        return replace(self, own=self.own.take(index), wanted=self.wanted.take(index))


def _of(logits: Logits, labels: Int[Tensor, "b *targets"]) -> Float[Tensor, "b *targets"]:
    """The logit of each target's label."""
    return logits.gather(1, labels.unsqueeze(1)).squeeze(1)
