"""What a network is to learn: a module from a batch to a loss. The training loop never learns which one it runs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medadv.attack.losses import Loss, dice_cross_entropy
from medadv.defense.crops import Batch
from medadv.victims.head import Head, Voxels

Lesson = Callable[[Batch], Float[Tensor, ""]]


class Plain(nn.Module):
    """The labels as they are: Dice and cross entropy on clean crops.

    Args:
        network: what learns.
        head: what its channels mean.
        loss: how wrong it is.
    """

    def __init__(self, network: nn.Module, head: Head, loss: Loss = dice_cross_entropy) -> None:
        super().__init__()
        self.network = network
        self.head = head
        self.loss = loss

    def forward(self, batch: Batch) -> Float[Tensor, ""]:
        """The mean loss of a batch."""
        logits = self.head.logits(self.network(batch.z))
        losses: Tensor = self.loss(logits, Voxels.of(self.head, batch.truth))
        return torch.mean(losses)
