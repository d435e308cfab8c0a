"""What a detector learns from: whole images of one size with their objects, mirrored at random.

The same for the same step, as crops are: a resumed run sees what it would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from medadv.defense.crops import keyed
from medadv.errors import ConfigError
from medadv.objects import Objects


@dataclass(frozen=True, eq=False)
class Picture:
    """A whole normalised image and what it shows; a volume, too.

    Attributes:
        z: what the network is fed.
        objects: boxes in pixels, labels in the victim's stored numbers.
        case: its id in results.
    """

    z: Float[Tensor, "c *s"]
    objects: Objects
    case: str = ""

    def mirrored(self, axis: int) -> Picture:
        """The mirror image along one axis of space."""
        axes, edge = self.z.ndim - 1, self.z.shape[axis + 1]
        boxes = self.objects.boxes.clone()
        boxes[:, axis] = edge - self.objects.boxes[:, axis + axes]
        boxes[:, axis + axes] = edge - self.objects.boxes[:, axis]
        return replace(self, z=self.z.flip(axis + 1), objects=replace(self.objects, boxes=boxes))


@dataclass(frozen=True, eq=False)
class Batch:
    """Pictures of one size.

    Attributes:
        z: what the network is fed.
        objects: what each of them shows.
        cases: the case of each.
    """

    z: Float[Tensor, "b c *s"]
    objects: tuple[Objects, ...]
    cases: tuple[str, ...] = ()

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return replace(self, z=self.z.to(device), objects=tuple(each.to(device) for each in self.objects))


@dataclass(frozen=True, eq=False)
class Pictures:
    """Batches of whole pictures, each a function of (seed, step, rank) alone.

    Attributes:
        examples: the training cases, all of one size.
        size: pictures a batch.
        flips: the axes that may be mirrored, each half of the time: 1 is left and right of a picture.
        seed: of order and mirrors.
        rank: which of ``ranks`` processes draws here. Two of batch 1 see together what one of batch 2 sees.
        ranks: how many processes learn together.

    Raises:
        ConfigError: no pictures, or pictures of several sizes.
    """

    examples: Sequence[Picture]
    size: int = 4
    flips: tuple[int, ...] = (1,)
    seed: int = 0
    rank: int = 0
    ranks: int = 1

    def __post_init__(self) -> None:
        if len(sizes := {tuple(each.z.shape) for each in self.examples}) != 1:
            raise ConfigError(
                "a detector learns from pictures of one size",
                got=sorted(sizes) or "no pictures",
                advice="crop or pad them to one size beforehand",
            )

    def __call__(self, step: int) -> Batch:
        """The micro-batch of a step. Every epoch shows every case once, in its own order."""
        first = (step * self.ranks + self.rank) * self.size
        drawn = [self._drawn(first + slot) for slot in range(self.size)]
        cases = tuple(each.case for each in drawn)
        return Batch(torch.stack([each.z for each in drawn]), tuple(each.objects for each in drawn), cases)

    def _drawn(self, count: int) -> Picture:
        epoch, place = divmod(count, len(self.examples))
        order = np.random.default_rng(keyed(self.seed, "epoch", epoch)).permutation(len(self.examples))
        picture = self.examples[int(order[place])]
        mirrors = np.random.default_rng(keyed(self.seed, "mirror", count)).random(len(self.flips)) < 0.5
        for axis, wanted in zip(self.flips, mirrors, strict=True):
            picture = picture.mirrored(axis) if wanted else picture
        return picture
