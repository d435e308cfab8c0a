"""``Attack``: the one gradient loop. ``Adversarial``: the record of what it did."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, NoReturn

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from medadv.attack import checks
from medadv.attack.joint import goal_of
from medadv.attack.losses import Logits
from medadv.attack.objective import Goal, Judgement, Objective
from medadv.attack.rng import Rng
from medadv.attack.steps import State, Step
from medadv.attack.targets import Truths
from medadv.attack.threat import Image, Threat, ThreatModel
from medadv.attack.victim import Passes, Victim, detached, held_still, tensors
from medadv.errors import ConfigError

SYNC_EVERY = 10
"""The host asks the device how it goes at most once in so many steps."""

Start = Callable[[ThreatModel, Rng], Image]


def clean(threat: ThreatModel, _rng: Rng) -> Image:
    """Start at the clean input; its answer then serves as the first step's."""
    return threat.clean


def random(threat: ThreatModel, rng: Rng) -> Image:
    """Start at a random allowed input."""
    return threat.sample(rng)


def near(x: Image) -> Start:
    """Start at the allowed input nearest to ``x``."""

    def start(threat: ThreatModel, _rng: Rng) -> Image:
        return threat.project(x)

    return start


def counted(steps: int | float) -> int:
    """A number of steps; 10.0 is 10.

    Raises:
        ConfigError: no whole number, or less than one.
    """
    if not (isinstance(steps, int | float) and steps >= 1 and steps == steps // 1):
        raise ConfigError(
            "an attack takes at least one step, and whole ones",
            got=repr(steps),
            advice="for no change at all, use budget 0",
        )
    return int(steps)


@dataclass(frozen=True, eq=False)
class Adversarial:
    """What an attack found, and how.

    Attributes:
        x: the adversarial input, allowed by the threat model.
        merit: of ``x``; NaN where the last iterate was delivered unjudged (``keep="last"``).
        trace: ``value`` and ``merit`` at each iterate that was judged, ``(n, b)``, and what else the goal notes; NaN
            after a sample had left, or stood still. Of an attack made of attacks: one row for each part's input, as the
            common judge sees it.
        size: the share of the budget that ``x`` uses.
        zero_gradient_share: of the support, over all steps at which there was something left to gain. Of an attack made
            of attacks: that of the part, for each sample, whose input is delivered.
        passes: forwards and backwards of the network; of all parts and of the judge, whosever network it is.
        seconds: of the whole call.
        parts: what each attack delivered of which this one is made, as it was delivered; none for an ``Attack``. Their
            traces are of unequal length, and stay with them.
        moves: of ``keep="until done"``, after how many steps each sample stood still: the last, if it was never done.
    """

    x: Image
    merit: Float[Tensor, "b"]
    trace: dict[str, Float[Tensor, "n b"]]
    size: Float[Tensor, "b"]
    zero_gradient_share: Float[Tensor, "b"]
    passes: Passes
    seconds: float
    parts: tuple[Adversarial, ...] = ()
    moves: Float[Tensor, "b"] | None = None


@dataclass(frozen=True)
class Attack:
    """A gradient attack: threat × objective × step × number of steps × start.

    Attributes:
        threat: what may change.
        objective: what the attacker wants.
        step: how a gradient becomes a move.
        steps: how many, a whole number; at least one.
        start: where the first iterate is.
        keep: ``"last"`` delivers the last iterate, as published FGSM and I-FGSM do; ``"until done"`` the first at which
            a sample is done, or else the last, as DAG does; ``"best"`` the one of highest merit, and lets samples leave
            when they are done.

    Raises:
        ConfigError: no whole number of steps, or another word for ``keep``.
    """

    threat: Threat
    objective: Objective
    step: Step
    steps: int
    start: Start = clean
    keep: Literal["best", "last", "until done"] = "best"

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", counted(self.steps))
        if self.keep not in ("best", "last", "until done"):
            raise ConfigError(
                "an attack keeps its best iterate or its last",
                got=self.keep,
                expected='"best", "last", or "until done": the last, but of a sample that is done no more steps',
            )

    def __call__(
        self,
        victim: Victim,
        x: Image,
        truth: Truths,
        *,
        support: Bool[Tensor, "b c *s"] | None = None,
        rng: Rng | None = None,
    ) -> Adversarial:
        """Attack a batch.

        Args:
            victim: who is attacked. Its modules are in evaluation mode meanwhile, and restored.
            x: the clean input ``(b, c, *s)`` in stored units, float32 or float64.
            truth: what the victim's ``targets`` understands: a label map, or for a detector a list of one ``Objects`` a
                sample; of several victims at once, a tuple of one truth each will do.
            support: where the input may change; None for its non-zero voxels.
            rng: one stream a sample; None for seed 0.

        Raises:
            VictimError: an input, a truth or an answer that cannot be attacked.
            GradientError: a gradient that is missing or not finite.
            ConfigError: no truth, or a support or random streams of another shape.
        """
        began = time.perf_counter()
        checks.check_victim(victim)
        checks.check_input(x)
        checks.check_truth(truth, len(x))
        if support is not None:
            checks.check_support(x, support)
        with held_still(victim.modules()):
            x = x.detach().clone() if x.is_inference() else x.detach()
            rng = rng or Rng.seeded(0, x.shape[0])
            threat = self.threat(x, x != 0 if support is None else support)
            journal = _Journal.blank(x)
            best = self._climb(victim.prepare(x, rng.fork("victim")), threat, truth, rng, journal)
        shares = journal.zeros / journal.judged.clamp(min=1)
        checks.doubt_zero(shares)
        moves = journal.done_at.clamp(max=self.steps) if self.keep == "until done" else None
        found = (best.x, best.merit, journal.curves(moves), threat.size(best.x), shares, journal.passes)
        return Adversarial(*found, time.perf_counter() - began, moves=moves)

    def doubt(self, raw: Logits) -> None:
        """Refuse a first answer that cannot be attacked.

        Raises:
            VictimError: NaN or infinite logits, or probabilities.
        """
        checks.check_answer(raw)

    def refuse(self, broken: Bool[Tensor, "b"], step: int) -> NoReturn:
        """Refuse to go on after a gradient that was not finite.

        Raises:
            GradientError: always, naming the samples.
        """
        checks.refuse_broken(broken, step)

    def _begin(
        self, victim: Victim, threat: ThreatModel, truth: Truths, rng: Rng, journal: _Journal
    ) -> tuple[_Front, Judgement | None]:
        """All samples at their start, with a goal; and the first step's judgement where the clean answer serves."""
        x = threat.project(self.start(threat, rng.fork("start"))).requires_grad_()
        raw = victim(x) if self.start is clean else None
        if raw is None:
            journal.passes += victim.answer_cost
            with torch.no_grad():
                raw0 = victim(threat.clean)
        else:
            raw0 = detached(raw)  # a goal that held the graph would cancel its own gradient
        for part in tensors(raw0):
            self.doubt(part)
        journal.vacant = not any(part.numel() for part in tensors(raw0))
        goal = goal_of(self.objective, victim, raw0, truth, rng.fork("objective"))
        front = _Front(torch.arange(len(x), device=x.device), x, victim, threat, goal, {})
        return front, None if raw is None else goal(raw, 0.0)

    def _climb(self, victim: Victim, threat: ThreatModel, truth: Truths, rng: Rng, journal: _Journal) -> _Best:
        """All steps; the inputs to deliver."""
        front, judgement = self._begin(victim, threat, truth, rng, journal)
        best = _Best(threat.clean, torch.full_like(journal.zeros, torch.nan))
        for k in range(self.steps):
            if judgement is None:
                judgement = front.goal(front.victim(front.x), k / self.steps)
            judgement, gradient = journal.climb(front, judgement)
            best = self._kept(best, front, judgement.merit)
            if k % SYNC_EVERY == 0 or k == self.steps - 1:
                done = judgement.done & front.threat.inside(front.x)
                broken, leaving = torch.stack([journal.broken.any(), done.any()]).tolist()
                if broken:
                    self.refuse(journal.broken, k)
                if leaving and self.keep != "last":
                    stay = (~done).nonzero().flatten()
                    front, judgement, gradient = front.take(stay), judgement.take(stay), gradient[stay]
                    if len(stay) == 0:
                        return best
            state = State(front.x.detach(), gradient, judgement.value, k, self.steps, front.memory)
            moved = self.step(state, front.threat)
            if self.keep == "until done":  # until the host asks again, who is done stands still
                moved = replace(moved, x=torch.where(_wide(judgement.done, moved.x), state.x, moved.x))
            front, judgement = front.moved(moved), None
            del state, moved, gradient  # whole volumes, not to be held during the next pass
        if self.keep == "last":
            return replace(best, x=front.x.detach())
        return self._kept(best, front, journal.look(front).merit)

    def _kept(self, best: _Best, front: _Front, merit: Float[Tensor, "kept"]) -> _Best:
        """What to deliver, were this the end; nothing yet where the last iterate will be."""
        if self.keep == "last":
            return best
        return best.or_better(front, merit) if self.keep == "best" else best.replaced(front, merit)


@dataclass(frozen=True, eq=False)
class _Front:
    """The samples still under attack, and where they stand."""

    index: Int[Tensor, "kept"]
    x: Image
    victim: Victim
    threat: ThreatModel
    goal: Goal
    memory: dict[str, Tensor]

    def moved(self, state: State) -> _Front:
        """The same samples after a step, where they are allowed to be."""
        return replace(self, x=self.threat.project(state.x).requires_grad_(), memory=state.memory)

    def take(self, stay: Int[Tensor, "kept"]) -> _Front:
        """Those that stay."""
        parts = (self.victim.take(stay), self.threat.take(stay), self.goal.take(stay))
        memory = {name: tensor[stay] for name, tensor in self.memory.items()}
        return _Front(self.index[stay], self.x.detach()[stay], *parts, memory)


@dataclass(frozen=True, eq=False)
class _Best:
    """The best allowed input of every sample so far."""

    x: Image
    merit: Float[Tensor, "b"]

    def or_better(self, front: _Front, merit: Float[Tensor, "kept"]) -> _Best:
        """Only an allowed input takes the place, and only a strictly better one."""
        old = self.merit[front.index]
        improves = front.threat.inside(front.x) & ((merit > old) | old.isnan())
        x = torch.where(_wide(improves, self.x), front.x.detach(), self.x[front.index])
        return self._with(front, x, torch.where(improves, merit.to(old.dtype), old))

    def replaced(self, front: _Front, merit: Float[Tensor, "kept"]) -> _Best:
        """Where the front stands, better or not."""
        return self._with(front, front.x.detach(), merit.to(self.merit.dtype))

    def _with(self, front: _Front, x: Image, merit: Float[Tensor, "kept"]) -> _Best:
        return _Best(self.x.index_copy(0, front.index, x), self.merit.index_copy(0, front.index, merit))


def _wide(sample: Bool[Tensor, "kept"], x: Image) -> Bool[Tensor, "kept ..."]:
    """One answer a sample, for all its voxels."""
    return sample.view(-1, *[1] * (x.ndim - 1))


@dataclass(eq=False)
class _Journal:
    """What happened on the way, kept on the device."""

    trace: dict[str, list[Tensor]]
    zeros: Float[Tensor, "b"]
    judged: Float[Tensor, "b"]
    broken: Bool[Tensor, "b"]
    done_at: Float[Tensor, "b"]  # since which judgement; infinity: it is not
    passes: Passes
    vacant: bool = False
    """Whether the victim answers no target at all."""

    @classmethod
    def blank(cls, x: Image) -> _Journal:
        """An empty journal for a batch."""
        none = x.new_zeros(len(x))
        return cls({"value": [], "merit": []}, none, none.clone(), none.bool(), none + torch.inf, Passes())

    def climb(self, front: _Front, judgement: Judgement) -> tuple[Judgement, Image]:
        """The judgement without its graph, and the gradient, where the front stands."""
        if self.vacant:  # no targets, as of a detector without proposals: an outcome, and no reason to move
            gradient = torch.zeros_like(front.x)
            self.passes += front.victim.answer_cost
        else:
            checks.check_connected(judgement.value)
            (gradient,) = torch.autograd.grad(judgement.value.sum(), front.x)
            self.passes += front.victim.gradient_cost
        judgement = replace(judgement, value=judgement.value.detach())
        self.broken[front.index] |= ~torch.isfinite(gradient.flatten(1).sum(1) + judgement.value)
        contested = (~judgement.done).to(self.zeros.dtype)  # a zero gradient is no surprise where all is won
        self.zeros[front.index] += front.threat.zero_share(gradient) * contested
        self.judged[front.index] += contested
        self._note(front, judgement)
        return judgement, gradient

    def look(self, front: _Front) -> Judgement:
        """Judgement alone."""
        with torch.no_grad():
            judgement = front.goal(front.victim(front.x), 1.0)
        self.passes += front.victim.answer_cost
        self._note(front, judgement)
        return judgement

    def curves(self, moves: Float[Tensor, "b"] | None) -> dict[str, Float[Tensor, "n b"]]:
        """The trace, of each sample until it stood still."""
        every = {name: torch.stack(rows) for name, rows in self.trace.items()}
        if moves is None:
            return every
        k = torch.arange(1 + int(moves.max()), device=moves.device).unsqueeze(1)
        return {name: rows[: len(k)].masked_fill(k > moves, torch.nan) for name, rows in every.items()}

    def _note(self, front: _Front, judgement: Judgement) -> None:
        since = self.done_at[front.index].clamp(max=len(self.trace["value"]))
        self.done_at[front.index] = torch.where(judgement.done, since, torch.inf)
        for name, number in {"value": judgement.value, "merit": judgement.merit, **judgement.notes}.items():
            row = torch.full_like(self.zeros, torch.nan)
            row[front.index] = number.to(row.dtype)
            self.trace.setdefault(name, []).append(row)
