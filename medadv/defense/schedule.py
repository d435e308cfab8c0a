"""How a training goes: how long, how fast, in what numbers, and when it is judged and saved."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from medadv.errors import ConfigError


@dataclass(frozen=True)
class Schedule:
    """How long, how fast, and in what numbers.

    Attributes:
        steps: optimiser steps.
        rate: the highest learning rate of AdamW; it rises over the first twentieth and falls along a cosine.
        decay: weight decay.
        clip: the largest norm of a gradient.
        validate_every: steps between validations; the last step is always one.
        save_every: steps between checkpoints, None to save after each validation; the last step always saves.
        seed: of dropout and the like.
        precision: of the network inside the lesson; its answer, the loss, parameters and validation are float32.
        accumulate: micro-batches whose gradients are averaged for one step.
        skips: how many steps in a row may be skipped because the loss or a gradient is not finite.
    """

    steps: int = 250
    rate: float = 2e-3
    decay: float = 1e-5
    clip: float = 10.0
    validate_every: int = 50
    save_every: int | None = None
    seed: int = 0
    precision: Literal["float32", "bf16"] = "float32"
    accumulate: int = 1
    skips: int = 3

    def __post_init__(self) -> None:
        if min(self.steps, self.validate_every, self.save_every or 1, self.accumulate) < 1 or self.skips < 0:
            raise ConfigError("a training takes at least one step, of at least one batch", got=self)

    def rate_at(self, step: int) -> float:
        """The learning rate of a step."""
        warm = max(self.steps // 20, 1)
        if step < warm:
            return self.rate * (step + 1) / warm
        return self.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(self.steps - warm, 1))))

    def validates(self, step: int) -> bool:
        """Whether a validation follows this step."""
        return step == self.steps - 1 or (step + 1) % self.validate_every == 0

    def saves(self, step: int) -> bool:
        """Whether a checkpoint follows this step."""
        return step == self.steps - 1 or (step + 1) % (self.save_every or self.validate_every) == 0
