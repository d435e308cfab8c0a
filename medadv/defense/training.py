"""``fit``: the one training loop. What is learnt, from what, and how it is judged come in as three callables."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn

from medadv.atomic import write_atomically, write_text
from medadv.defense.crops import Batch
from medadv.errors import ConfigError, RunError, VictimError
from medadv.victims.memory import is_full

CHECKPOINT, CURVE = "checkpoint.pt", "training.csv"

_DAMAGED = (RuntimeError, ValueError, LookupError, TypeError, AttributeError, EOFError, OSError, UnpicklingError)
"""What a file raises that is no checkpoint, or not a whole one."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Attributes:
        steps: optimiser steps.
        rate: the highest learning rate of AdamW; it rises over the first twentieth and falls along a cosine.
        decay: weight decay.
        clip: the largest norm of a gradient.
        validate_every: steps between validations; the last step is always one.
        seed: of dropout and the like.
    """

    steps: int = 250
    rate: float = 2e-3
    decay: float = 1e-5
    clip: float = 10.0
    validate_every: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.validate_every < 1:
            raise ConfigError("a training takes at least one step", got=self)

    def rate_at(self, step: int) -> float:
        """The learning rate of a step."""
        warm = max(self.steps // 20, 1)
        if step < warm:
            return self.rate * (step + 1) / warm
        return self.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(self.steps - warm, 1))))


@dataclass(frozen=True)
class Point:
    """One step of the training curve; ``dice`` and ``attacked`` are the validation's, None where it was not asked."""

    step: int
    loss: float
    rate: float
    dice: float | None = None
    attacked: float | None = None


Watch = Callable[[Point, int], None]


def fit(
    lesson: nn.Module,
    network: nn.Module,
    batches: Callable[[int], Batch],
    schedule: Schedule,
    *,
    folder: Path,
    validate: Callable[[], float],
    watch: Watch = lambda point, steps: None,  # noqa: ARG005
) -> list[Point]:
    """Train ``network`` in place through ``lesson``; it ends with the weights of the best validation.

    A run that was killed goes on from its last validation and reaches the same weights, bit for bit on one CPU process.
    The checkpoint stays: whoever has put the weights away may delete it.

    Args:
        lesson: ``lesson(batch)`` is the loss; it holds ``network``.
        network: whose parameters are learnt.
        batches: step → batch, a function of the step alone.
        schedule: how long and how fast.
        folder: where the checkpoint and the curve are kept.
        validate: the mean Dice of the deployed network as it is now; higher is better.
        watch: told of every step.

    Returns:
        The training curve.

    Raises:
        VictimError: the loss is not finite.
        RunError: the checkpoint is damaged or of another schedule.
    """
    course = _Course(lesson, network, schedule, folder / CHECKPOINT)
    course.resume()
    for step in range(len(course.curve), schedule.steps):
        point = course.learn(batches(step), step)
        last = step == schedule.steps - 1
        validated = last or (step + 1) % schedule.validate_every == 0
        if validated:
            point = replace(point, dice=course.judge(validate))
        course.curve.append(point)
        watch(point, schedule.steps)
        if validated:
            course.save()
    network.load_state_dict(course.best)
    network.eval()
    write_text(folder / CURVE, curve_table(course.curve))
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

    def __init__(self, lesson: nn.Module, network: nn.Module, schedule: Schedule, path: Path) -> None:
        self.lesson = lesson
        self.network = network
        self.schedule = schedule
        self.path = path
        self.optimiser = torch.optim.AdamW(network.parameters(), lr=schedule.rate, weight_decay=schedule.decay)
        self.curve: list[Point] = []
        self.best: dict[str, Any] = _copied(network)
        self.best_dice = -math.inf

    def learn(self, batch: Batch, step: int) -> Point:
        """One step of the optimiser."""
        self.lesson.train()
        rate = self.schedule.rate_at(step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        with torch.random.fork_rng():
            torch.manual_seed(self.schedule.seed * 1_000_003 + step)
            self.optimiser.zero_grad(set_to_none=True)
            loss = self.lesson(batch)
            loss.backward()
        if not torch.isfinite(loss):
            raise VictimError(
                f"the training's loss is {loss.item()} at step {step}",
                cause="a learning rate that is too high, or cases that are not finite",
                advice="lower training.rate, and look at medadv's quarantine for the cases",
            )
        nn.utils.clip_grad_norm_(self.network.parameters(), self.schedule.clip)
        self.optimiser.step()
        return Point(step, loss.item(), rate)

    def judge(self, validate: Callable[[], float]) -> float:
        """Validate, and keep the weights if they are the best so far."""
        self.lesson.eval()
        with torch.no_grad():
            dice = validate()
        if dice > self.best_dice:
            self.best_dice, self.best = dice, _copied(self.network)
        return dice

    def save(self) -> None:
        """Write all that is needed to go on."""
        state = {
            "schedule": asdict(self.schedule),
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "curve": [asdict(point) for point in self.curve],
            "best": self.best,
            "best_dice": self.best_dice,
        }
        write_atomically(self.path, lambda temporary: torch.save(state, temporary))

    def resume(self) -> None:
        """Go on from a checkpoint, if there is one."""
        if not self.path.exists():
            return
        try:
            state = torch.load(self.path, weights_only=True, map_location="cpu")
            if state["schedule"] != asdict(self.schedule):
                raise RunError(
                    "the checkpoint belongs to another training schedule",
                    got=state["schedule"],
                    expected=asdict(self.schedule),
                    advice=f"give the study another name, or delete {self.path} to begin this training anew",
                )
            self.network.load_state_dict(state["network"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.curve = [Point(**point) for point in state["curve"]]
            self.best, self.best_dice = state["best"], state["best_dice"]
        except _DAMAGED as error:
            if is_full(error):
                raise
            raise RunError(
                "the training's checkpoint is damaged", got=error, advice=f"delete {self.path} to begin anew"
            ) from error


def _copied(network: nn.Module) -> dict[str, Any]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
