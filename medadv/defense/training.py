"""``fit``: the one training loop. What is learnt, from what, and how it is judged come in as three callables."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from signal import SIGTERM, Signals
from typing import Any, Protocol, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medadv.atomic import write_text
from medadv.defense.checkpoints import Checkpoints, plain
from medadv.defense.precision import bf16
from medadv.defense.ranks import ALONE, Group
from medadv.defense.schedule import Schedule
from medadv.defense.stopping import Interrupted, Stopping
from medadv.errors import RunError, StoppedError, VictimError
from medadv.victims.memory import is_full

CURVE = "training.csv"


@dataclass(frozen=True)
class Validation:
    """What the deployed network reaches on the validation cases: mean Dice, and mean Dice under attack if asked."""

    dice: float
    attacked: float | None = None

    @property
    def merit(self) -> float:
        """By what the best checkpoint is chosen: Dice under attack where it is known, else Dice."""
        return self.dice if self.attacked is None else self.attacked


@dataclass(frozen=True)
class Point:
    """One step of the training curve; ``dice`` and ``attacked`` are the validation's, None where it was not asked.

    The loss is the mean over micro-batches and ranks; NaN or infinite where the step was skipped for it.
    """

    step: int
    loss: float
    rate: float
    dice: float | None = None
    attacked: float | None = None


class Batch(Protocol):
    """What a lesson is given: ``crops.Batch``, ``pictures.Batch`` or another; the loop looks at no more than this."""

    @property
    def z(self) -> Float[Tensor, "b c *s"]:
        """What the network is fed."""
        ...

    @property
    def cases(self) -> tuple[str, ...]:
        """The case of each sample."""
        ...

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        ...


Watch = Callable[[Point, int], None]


def fit(
    lesson: nn.Module,
    network: nn.Module,
    batches: Callable[[int], Batch],
    schedule: Schedule,
    *,
    folder: Path | Checkpoints,
    validate: Callable[[], Validation],
    watch: Watch = lambda point, steps: None,  # noqa: ARG005
    group: Group = ALONE,
) -> list[Point]:
    """Train ``network`` in place through ``lesson``; it ends with the weights of the best validation.

    A run that was killed goes on from its last checkpoint and reaches the same weights, bit for bit on one CPU process:
    every draw is a function of the seed, the step and the rank. SIGTERM and SIGINT finish the step, save, and raise
    ``StoppedError``; a validation in hand is dropped, and comes first when the run goes on. Checkpoints stay: whoever
    has put the weights away calls ``Checkpoints.clear``.

    Args:
        lesson: ``lesson(batch)`` is the loss; it holds ``network``, and no other parameters that learn.
        network: whose parameters are learnt.
        batches: k → the k-th micro-batch of this rank, a function of k alone.
        schedule: how long and how fast.
        folder: where checkpoints and the curve are kept; ``Checkpoints`` also say what is learnt, and whom to tell.
        validate: what the deployed network reaches as it is now, in float32. Every rank calls it; the main rank's
            answer counts, so that cases may be divided by ``group.sum``.
        watch: told of every step.
        group: the ranks that learn together.

    Returns:
        The training curve.

    Raises:
        VictimError: loss or gradient are not finite in too many steps, or a validation is not.
        RunError: checkpoints that are damaged, another training's, or cannot be written; a rank that is gone.
        StoppedError: a signal asked for it.
    """
    kept = Checkpoints(folder) if isinstance(folder, Path) else folder
    course = _Course(lesson, network, schedule, kept, group)
    with course.stopping.listening():
        course.resume()
        if course.curve and course.curve[-1].dice is None and schedule.validates(len(course.curve) - 1):
            watch(course.judge(validate), schedule.steps)
        for step in range(len(course.curve), schedule.steps):
            point = course.learn(batches, step)
            if schedule.validates(step):
                point = course.judge(validate)
            watch(point, schedule.steps)
            if schedule.saves(step):
                course.save()
        if group.agree(course.stopping.signal > 0):
            raise course.stopped()
    network.load_state_dict(course.best)
    network.eval()
    if group.main:
        write_text(kept.folder / CURVE, curve_table(course.curve))
    return course.curve


def curve_table(curve: list[Point]) -> str:
    """The training curve as CSV."""
    text = io.StringIO()
    table = csv.DictWriter(text, [f.name for f in fields(Point)], lineterminator="\n")
    table.writeheader()
    table.writerows(asdict(point) for point in curve)
    return text.getvalue()


class _Course:
    """A training on its way: all that a checkpoint holds."""

    def __init__(
        self, lesson: nn.Module, network: nn.Module, schedule: Schedule, kept: Checkpoints, group: Group
    ) -> None:
        self.network = network
        self.schedule = schedule
        self.kept = kept
        self.group = group
        self.stopping = Stopping()
        self.lesson = group.wrap(lesson)
        self.optimiser = torch.optim.AdamW(network.parameters(), lr=schedule.rate, weight_decay=schedule.decay)
        self.curve: list[Point] = []
        self.best: dict[str, Any] = _copied(network)
        self.best_merit = -math.inf
        self.skipped = 0

    def learn(self, batches: Callable[[int], Batch], step: int) -> Point:
        """One step of the optimiser; skipped where the loss or the gradient is not finite.

        Raises:
            VictimError: too many steps were skipped in a row.
            StoppedError: a signal came meanwhile; the step is saved.
        """
        self.lesson.train()
        rate = self.schedule.rate_at(step)
        for parameters in self.optimiser.param_groups:
            parameters["lr"] = rate
        before = [buffer.clone() for buffer in self.network.buffers()]
        self.optimiser.zero_grad(set_to_none=True)
        own, cases = 0.0, list[str]()
        for i in range(self.schedule.accumulate):
            k = step * self.schedule.accumulate + i
            batch = batches(k)
            last = i == self.schedule.accumulate - 1
            with self._draws(k), self.group.averaging(self.lesson, last):
                with bf16(self.network, batch.z.device) if self.schedule.precision == "bf16" else nullcontext():
                    loss = self.lesson(batch) / self.schedule.accumulate
                loss.backward()
            own += loss.item()
            cases += batch.cases
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.schedule.clip).item()
        fault = not (math.isfinite(own) and math.isfinite(norm))
        told, faults, asked = self.group.sum(own, float(fault), float(self.stopping.signal > 0))
        point = Point(step, told / self.group.size, rate)
        if faults:
            self._skip(point, before, own, cases)
        else:
            self.optimiser.step()
            self.group.level(self.network)
            self.skipped = 0
        self.curve.append(point)
        if asked:
            self.save()
            raise self.stopped()
        return point

    def judge(self, validate: Callable[[], Validation]) -> Point:
        """Validate, put it into the curve, and keep the weights if they are the best so far.

        Raises:
            VictimError: the validation is no number.
            StoppedError: a signal came meanwhile; what was learnt is saved, to be validated when the run goes on.
        """
        self.lesson.eval()
        try:
            with self.stopping.droppable(), torch.no_grad():
                found = validate()
                self.group.barrier()
        except Interrupted:
            if self.group.main:  # no rank waits for another here: they may be elsewhere in their validations
                self.kept.write(len(self.curve), self._state())
            raise self.stopped() from None
        attacked = math.nan if found.attacked is None else found.attacked
        dice, attacked = self.group.as_main(found.dice, attacked)
        found = Validation(dice, None if found.attacked is None else attacked)
        if not math.isfinite(found.merit):
            raise VictimError(
                "the validation of a training is no finite number",
                got=found,
                cause="weights that have grown beyond all bounds, or no validation case",
                advice="lower training.rate",
            )
        if found.merit > self.best_merit:
            self.best_merit, self.best = found.merit, _copied(self.network)
        self.curve[-1] = replace(self.curve[-1], dice=found.dice, attacked=found.attacked)
        return self.curve[-1]

    def save(self) -> None:
        """Let the main rank write all that is needed to go on.

        Raises:
            RunError: it could not be written; the checkpoint before stays.
        """
        refused: RunError | None = None
        if self.group.main:
            try:
                self.kept.write(len(self.curve), self._state())
            except RunError as error:
                refused = error
        self.group.barrier()
        if self.group.agree(refused is not None):
            raise refused or RunError("the main rank could not write the checkpoint", advice="see what it tells")

    def resume(self) -> None:
        """Go on from the newest whole checkpoint, if there is one.

        Raises:
            RunError: there is none that can be gone on from, or not every rank sees it.
        """
        state = self.kept.newest(self._identity(), lambda rows: [Point(**row) for row in rows])
        if state is not None:
            try:
                self.network.load_state_dict(state["network"])
                self.optimiser.load_state_dict(state["optimiser"])
            except (RuntimeError, ValueError, LookupError) as error:
                if is_full(error):
                    raise
                raise self.kept.refuse_network(error) from error
            self.curve, self.skipped = state["curve"], state["skipped"]
            self.best, self.best_merit = state["best"], state["best_merit"]
        (done,) = self.group.as_main(float(len(self.curve)))
        if self.group.agree(len(self.curve) != done):
            raise RunError(
                "the ranks see different checkpoints",
                got=f"{len(self.curve)} steps here, {done:.0f} on the main rank",
                advice="let runs/ lie on a disk that all nodes share",
            )

    def stopped(self) -> StoppedError:
        """What to raise when a signal came, to this rank or another."""
        number = self.stopping.signal or SIGTERM
        where = f"after step {len(self.curve)} of {self.schedule.steps}"
        return StoppedError(f"the training was stopped by {Signals(number).name} {where}", number)

    @contextmanager
    def _draws(self, k: int) -> Iterator[None]:
        """Torch's random numbers for the k-th micro-batch of this rank, and as they were afterwards."""
        device = next(self.network.parameters()).device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(self.schedule.seed * 1_000_003 + k + (self.group.rank << 53))
            yield

    def _skip(self, point: Point, before: list[Tensor], own: float, cases: list[str]) -> None:
        """Leave the network as it was before the step, and tell."""
        with torch.no_grad():
            for buffer, old in zip(self.network.buffers(), before, strict=True):
                buffer.copy_(old)
        self.skipped += 1
        word = "gradient" if math.isfinite(own) else "loss"
        told = self.group.gathered(f"{word}/{', '.join(cases)}")
        # A loss that is not finite tells on its rank alone; the gradient is the sum of all.
        guilty = [text for text in told if text.startswith("loss/")] or told
        names = ", ".join(name for text in guilty if (name := text.partition("/")[2])) or "unknown"
        problem = f"the training's loss is {point.loss} at step {point.step}"
        if math.isfinite(point.loss):
            problem = f"the training's gradient is not finite at step {point.step}"
        if self.skipped > self.schedule.skips:
            raise VictimError(
                problem,
                got=f"the cases {names}, after {self.skipped - 1} steps in a row that were skipped for the same",
                cause="a learning rate that is too high, or cases that are not finite",
                advice="lower training.rate, and look at medadv's quarantine for the cases",
            )
        if self.group.main:
            self.kept.say(f"{problem}; the step is skipped (cases: {names})")

    def _identity(self) -> dict[str, Any]:
        """What a checkpoint belongs to: all that the weights depend on."""
        how = {name: value for name, value in asdict(self.schedule).items() if name not in ("save_every", "skips")}
        return {**plain(self.kept.identity), "schedule": how, "ranks": self.group.size}

    def _state(self) -> dict[str, Any]:
        return {
            "identity": self._identity(),
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "curve": [asdict(point) for point in self.curve],
            "best": self.best,
            "best_merit": self.best_merit,
            "skipped": self.skipped,
        }


def _copied(network: nn.Module) -> dict[str, Any]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
