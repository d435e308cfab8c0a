"""How a gradient becomes a move: the rule of the iterate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from medadv.attack.threat import Image, ThreatModel


@dataclass(frozen=True, eq=False)
class State:
    """Where an attack stands.

    Attributes:
        x: the iterate.
        gradient: of the value, at ``x``.
        value: what is ascended, at ``x``.
        k, n: this step, and how many there are.
        memory: what the step remembers, by name; its own business.
    """

    x: Image
    gradient: Image
    value: Float[Tensor, "b"]
    k: int
    n: int
    memory: dict[str, Tensor]

    def take(self, index: Int[Tensor, "kept"]) -> State:
        """The state of a part of the batch."""
        memory = {name: tensor[index] for name, tensor in self.memory.items()}
        return State(self.x[index], self.gradient[index], self.value[index], self.k, self.n, memory)


@runtime_checkable
class Step(Protocol):
    """From one iterate to the next; the loop projects what comes out."""

    def __call__(self, state: State, threat: ThreatModel) -> State:
        """The state with its next ``x`` and memory."""
        ...


def _length(size: float | None, n: int) -> float:
    """The step as a share of the budget: all of it in one step, else 2.5 / n, so that the far side can be reached."""
    return size if size is not None else min(1.0, 2.5 / n)


@dataclass(frozen=True)
class Plain:
    """Straight along the ascent: FGSM in one step, I-FGSM in many (Kurakin et al. 2017, arXiv:1607.02533).

    Attributes:
        size: the step as a share of the budget; None for 2.5 / n, at most 1 (Madry et al. 2018, arXiv:1706.06083).
    """

    size: float | None = None

    def __call__(self, state: State, threat: ThreatModel) -> State:
        """Move along the gradient."""
        move = threat.ascent(state.gradient).mul_(_length(self.size, state.n))
        return replace(state, x=move.add_(state.x))


@dataclass(frozen=True)
class Momentum:
    """Along a decaying sum of gradients, each of unit L1 norm (Dong et al. 2018, arXiv:1710.06081, eq. 6).

    The norm is over the support: what may not change has no say in how much a step counts.
    """

    decay: float = 1.0
    size: float | None = None

    def __call__(self, state: State, threat: ThreatModel) -> State:
        """Add this gradient to the memory, and move along the memory."""
        gradient = state.gradient * threat.support
        norm = gradient.abs().flatten(1).sum(1).clamp(min=torch.finfo(gradient.dtype).tiny)
        direction = gradient.div_(norm.view(-1, *[1] * (gradient.ndim - 1)))
        if "velocity" in state.memory:
            direction = direction.add_(state.memory["velocity"], alpha=self.decay)
        move = threat.ascent(direction).mul_(_length(self.size, state.n))
        return replace(state, x=move.add_(state.x), memory={**state.memory, "velocity": direction})
