"""What an attack needs of a victim, what its calls cost, and how its modules are held still meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from medadv.attack.rng import Rng
from medadv.attack.targets import Targets
from medadv.objects import Truth


@dataclass(frozen=True)
class Passes:
    """Forwards and backwards of the network over the whole input. Recomputation counts."""

    forward: int = 0
    backward: int = 0

    def __add__(self, other: Passes) -> Passes:
        return Passes(self.forward + other.forward, self.backward + other.backward)

    def __mul__(self, times: int) -> Passes:
        return Passes(self.forward * times, self.backward * times)


@runtime_checkable
class Victim(Protocol):
    """A predictor, differentiable from stored voxels or pixels to logits."""

    @property
    def answer_cost(self) -> Passes:
        """What one call without gradient costs."""
        ...

    @property
    def gradient_cost(self) -> Passes:
        """What one call and its gradient cost together."""
        ...

    def prepare(self, x0: Float[Tensor, "b c *s"], rng: Rng) -> Self:
        """Freeze the discrete decisions of the clean input: crop box, proposals, seeds."""
        ...

    def take(self, index: Int[Tensor, "kept"]) -> Self:
        """The victim of a part of the batch."""
        ...

    def targets(self, truth: Truth) -> Targets:
        """What the truth says of this victim's own targets."""
        ...

    def __call__(self, x: Float[Tensor, "b c *s"]) -> Float[Tensor, "b classes *targets"]:
        """Logits, never probabilities."""
        ...

    def predict(self, x: Float[Tensor, "b c *s"]) -> Truth:
        """The deployed answer, with everything fresh: label maps or objects; for scoring only."""
        ...

    def modules(self) -> Iterable[nn.Module]:
        """What is held still during an attack."""
        ...


def tensors(raw: Any) -> list[Tensor]:
    """The parts of an answer: of several victims at once a tuple, whose parts may be tuples again."""
    return [each for part in raw for each in tensors(part)] if isinstance(raw, tuple) else [raw]


def detached(raw: Any) -> Any:
    """An answer without its graph, of whatever parts."""
    return tuple(detached(part) for part in raw) if isinstance(raw, tuple) else raw.detach()


@contextmanager
def held_still(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Evaluation mode and no parameter gradients inside; everything as it was afterwards, whatever happens."""
    parts = [part for module in modules for part in module.modules()]
    training = [part.training for part in parts]
    parameters = [p for part in parts for p in part.parameters(recurse=False)]
    flags = [p.requires_grad for p in parameters]
    try:
        for part in parts:
            part.training = False
        for parameter in parameters:
            parameter.requires_grad_(False)
        # Gradients are wanted even when the caller has switched them off around us.
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for part, mode in zip(parts, training, strict=True):
            part.training = mode
        for parameter, flag in zip(parameters, flags, strict=True):
            parameter.requires_grad_(flag)
