"""What a network learns from: random, augmented crops of normalised cases, the same for the same step.

A case is normalised whole, with its own clean statistics, and then cropped: a crop's statistics are not its volume's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from monai.transforms import (
    Compose,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandGaussianNoised,
    RandScaleIntensityd,
    RandShiftIntensityd,
    RandSpatialCropSamplesd,
    SpatialPadd,
)
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Example:
    """A normalised case ``z (c, *s)`` and its label map ``(*s)`` in the victim's stored numbers."""

    z: Float[Tensor, "c *s"]
    truth: Int[Tensor, "*s"]


@dataclass(frozen=True, eq=False)
class Batch:
    """Crops ``z (b, c, *roi)``, their label maps ``(b, *roi)``, and the ids of the cases in results where known."""

    z: Float[Tensor, "b c *roi"]
    truth: Int[Tensor, "b *roi"]
    cases: tuple[str, ...] = ()

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(self.z.to(device), self.truth.to(device), self.cases)


@dataclass(frozen=True, eq=False)
class Crops:
    """Batches of random crops, each a function of (seed, step) alone: a resumed run sees what it would have seen.

    Attributes:
        examples: the training cases.
        roi: the size of a crop; smaller cases are padded with zeros.
        size: crops a batch.
        flips: the axes that may be mirrored, each half of the time.
        seed: of cases, places and augmentation.
    """

    examples: Sequence[Example]
    roi: tuple[int, ...]
    size: int = 2
    flips: tuple[int, ...] = (0,)
    seed: int = 0

    def __call__(self, step: int) -> Batch:
        """The batch of a step. Every epoch shows every case once, in its own order."""
        crops = [self._crop(step * self.size + slot) for slot in range(self.size)]
        return Batch(torch.stack([c.z for c in crops]), torch.stack([c.truth for c in crops]))

    def _crop(self, count: int) -> Example:
        epoch, place = divmod(count, len(self.examples))
        order = np.random.default_rng(_number(self.seed, "epoch", epoch)).permutation(len(self.examples))
        example = self.examples[int(order[place])]
        augment = self._augment(example.truth).set_random_state(seed=_number(self.seed, "crop", count) % 2**32)
        (drawn,) = augment({"z": example.z, "truth": example.truth[None]})
        return Example(drawn["z"].as_tensor().float(), drawn["truth"].as_tensor()[0].long())

    def _augment(self, truth: Int[Tensor, "*s"]) -> Compose:
        both = ["z", "truth"]
        # Two crops of three around a labelled voxel, where there are labelled voxels and others.
        mixed = bool((truth > 0).any()) and bool((truth <= 0).any())
        crop = (
            RandCropByPosNegLabeld(both, "truth", self.roi, pos=2, neg=1, num_samples=1)
            if mixed
            else RandSpatialCropSamplesd(both, self.roi, num_samples=1, random_size=False)
        )
        return Compose(
            [
                SpatialPadd(both, self.roi),
                crop,
                *(RandFlipd(both, prob=0.5, spatial_axis=axis) for axis in self.flips),
                RandScaleIntensityd("z", factors=0.1, prob=0.5),
                RandShiftIntensityd("z", offsets=0.1, prob=0.5),
                RandGaussianNoised("z", std=0.1, prob=0.3),
            ]
        )


def _number(*parts: object) -> int:
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big")
