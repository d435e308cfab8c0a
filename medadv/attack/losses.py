"""Losses over classified targets, one number a sample, to be *ascended* by whoever attacks.

Those that add up over targets are summed, not averaged: with two million voxels a mean brings float16 gradients under
the smallest number, and the sign of a sum is the sign of a mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from medadv.attack.targets import Targets
from medadv.errors import ConfigError

Logits = Float[Tensor, "b classes *targets"]


@runtime_checkable
class Loss(Protocol):
    """How wrong the logits are about the labels, one number a sample."""

    def __call__(self, logits: Logits, targets: Targets) -> Float[Tensor, "b"]:
        """The loss of each sample."""
        ...


def cross_entropy(logits: Logits, targets: Targets) -> Float[Tensor, "b"]:
    """Cross entropy of the softmax, summed over the targets that count; for a region head, binary cross entropy."""
    each = F.cross_entropy(logits, targets.labels, reduction="none")
    return torch.where(targets.where, each, 0).flatten(1).sum(1)


def logit_margin(logits: Logits, targets: Targets) -> Float[Tensor, "b"]:
    """Best other logit minus the label's own, summed; never saturates (Carlini & Wagner 2017, arXiv:1608.04644)."""
    labels = targets.labels.unsqueeze(1)
    own = logits.gather(1, labels).squeeze(1)
    other = logits.scatter(1, labels, -torch.inf).amax(1)
    return torch.where(targets.where, other - own, 0).flatten(1).sum(1)


def soft_dice(logits: Logits, targets: Targets) -> Float[Tensor, "b"]:
    """1 - soft Dice, averaged over the classes that are not background.

    Milletari et al. 2016 (arXiv:1606.04797) without squares, and one voxel added to both parts of the fraction. An
    empty class takes part: to invent it is what an attack may want.
    """
    grouped = int(targets.grouped)
    axes = tuple(range(1 + grouped, logits.ndim - 1))
    shares = logits.softmax(1)
    losses = []
    for c in range(1, logits.shape[1]):
        share = torch.where(targets.where, shares[:, c], 0)
        truth = (targets.labels == c) & targets.where
        hit = torch.where(truth, share, 0).sum(axes)
        losses.append(1 - (2 * hit + 1) / (share.sum(axes) + truth.sum(axes) + 1))
    return torch.stack(losses).flatten(2).mean((0, 2)) if grouped else torch.stack(losses).mean(0)


def dice_cross_entropy(logits: Logits, targets: Targets) -> Float[Tensor, "b"]:
    """Soft Dice and mean cross entropy in equal parts, the loss that most segmentation networks were trained with."""
    voxels = targets.where.flatten(1).sum(1).clamp(min=1)
    return soft_dice(logits, targets) + cross_entropy(logits, targets) / voxels


LOSSES: dict[str, Loss] = {
    "cross entropy": cross_entropy,
    "dice": soft_dice,
    "dice + cross entropy": dice_cross_entropy,
    "logit margin": logit_margin,
}
"""The losses that have a name."""


def as_loss(loss: Loss | str) -> Loss:
    """A loss by its name in ``LOSSES``, or the loss itself.

    Raises:
        ConfigError: there is no loss of this name, or it cannot be called.
    """
    found = LOSSES.get(loss) if isinstance(loss, str) else loss
    if found is None or not callable(found):
        raise ConfigError(
            "there is no such loss",
            got=loss,
            expected=f"one of {list(LOSSES)}, or a function of (logits, targets) with one number a sample",
        )
    return found


@dataclass(frozen=True)
class Tempered:
    """A loss at logits / T: what cross entropy and Dice see of a network whose logits are very large.

    A distilled network is trained at a temperature and deployed without it, at logits so many times larger, where the
    softmax has no gradient left in float32: the attack fails, not the network. Divided by the temperature, the decision
    is the same and the gradient is back (Carlini & Wagner 2016, arXiv:1607.04311; 2017, arXiv:1608.04644). Of a region
    alone, it is its two logits that are divided.

    Attributes:
        loss: a function, or its name in ``LOSSES``.
        temperature: T, above 0; at 1 this is the loss itself.

    Raises:
        ConfigError: no such loss, or a temperature that is none.
    """

    loss: Loss | str
    temperature: int | float

    def __post_init__(self) -> None:
        object.__setattr__(self, "loss", as_loss(self.loss))
        number = isinstance(self.temperature, int | float) and not isinstance(self.temperature, bool)
        if not number or not 0 < self.temperature < math.inf:
            raise ConfigError(
                "logits are divided by a temperature above 0",
                got=repr(self.temperature),
                expected="a finite number, e.g. 10",
                advice="for the loss itself, give temperature 1",
            )

    def __call__(self, logits: Logits, targets: Targets) -> Float[Tensor, "b"]:
        """The loss of each sample at logits / T."""
        return as_loss(self.loss)(logits / self.temperature, targets)
