"""What a detector is to learn: the losses that its own network computes in training mode."""

from __future__ import annotations

from typing import Self

from jaxtyping import Float
from torch import Tensor, nn

from medadv.defense.pictures import Batch
from medadv.labels import LabelScheme
from medadv.objects import Objects
from medadv.victims.sight import Sight

_NORMS = (nn.modules.batchnorm._BatchNorm,)


class Detecting(nn.Module):
    """Objects as they are: the sum of the network's own losses on whole pictures.

    What is drawn on the way (which anchors and proposals count) is drawn from torch's random numbers, which the
    training loop seeds for every step. Difficult objects and void ones are not learnt.

    Args:
        network: what learns.
        sight: how this kind of detector is looked through: ``Detector(network, scheme).looking``.
        scheme: what the stored numbers of the objects mean.
        frozen_norm: whether batch norm keeps its statistics, as torchvision trains from a pretrained backbone; small
            batches have no statistics worth learning.
    """

    def __init__(self, network: nn.Module, sight: Sight, scheme: LabelScheme, frozen_norm: bool = False) -> None:
        super().__init__()
        self.network = network
        self.sight = sight
        self.scheme = scheme
        self.frozen_norm = frozen_norm

    def train(self, mode: bool = True) -> Self:
        """Training mode, but for batch norm where that is frozen."""
        super().train(mode)
        if self.frozen_norm:
            for part in self.modules():
                if isinstance(part, _NORMS):
                    part.train(False)
        return self

    def forward(self, batch: Batch) -> Float[Tensor, ""]:
        """The loss of a batch, as the network means it."""
        return self.sight.losses(self.network, batch.z, [self._classes(each) for each in batch.objects])

    def _classes(self, objects: Objects) -> Objects:
        known = objects.take(objects.counted.to(objects.labels.device) & self.scheme.judged(objects.labels))
        return Objects(known.boxes, self.scheme.classes(known.labels))
