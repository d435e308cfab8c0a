"""What a network learns from: random, augmented crops of normalised cases, the same for the same step.

A case is normalised whole, with its own clean statistics, and then cropped: a crop's statistics are not its volume's.
Where a lesson attacks what it learns from, that is the space it attacks in, with a radius measured on the whole case.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
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

from medadv.attack.rng import Rng
from medadv.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Example:
    """A whole normalised case on the network's grid.

    Attributes:
        z: what the network is fed.
        truth: its label map in the victim's stored numbers.
        support: where an attack inside a lesson may change it; None: everywhere.
        radius: the largest radius of such an attack in units of ``z``, by channel; None for lessons that do not attack.
        soft: a teacher's soft labels: the probability of each class of a softmax head, or of each region of a sigmoid
            head; None where there is no teacher, or it is asked on line.
        case: its id in results.
    """

    z: Float[Tensor, "c *s"]
    truth: Int[Tensor, "*s"]
    support: Bool[Tensor, "c *s"] | None = None
    radius: Float[Tensor, "c"] | None = None
    soft: Float[Tensor, "k *s"] | None = None
    case: str = ""


@dataclass(frozen=True, eq=False)
class Batch:
    """Crops of examples, with the same fields.

    Attributes:
        cases: the case of each crop.
        rng: one stream a crop, keyed by seed, epoch and case: what is drawn for a crop does not depend on batch mates
            or ranks. None draws as seed 0.
    """

    z: Float[Tensor, "b c *roi"]
    truth: Int[Tensor, "b *roi"]
    support: Bool[Tensor, "b c *roi"] | None = None
    radius: Float[Tensor, "b c"] | None = None
    soft: Float[Tensor, "b k *roi"] | None = None
    cases: tuple[str, ...] = ()
    rng: Rng | None = None

    @classmethod
    def of(cls, crops: Sequence[Example], rng: Rng | None = None) -> Batch:
        """Crops of one size, stacked."""
        z, truth = torch.stack([c.z for c in crops]), torch.stack([c.truth for c in crops])
        support, radius, soft = (_stacked(crops, name) for name in ("support", "radius", "soft"))
        return cls(z, truth, support, radius, soft, tuple(c.case for c in crops), rng)

    @property
    def streams(self) -> Rng:
        """One random stream a crop."""
        return self.rng or Rng.seeded(0, len(self.z))

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return replace(self, **self._each(lambda tensor: tensor.to(device)))

    def take(self, index: Int[Tensor, "kept"]) -> Batch:
        """A part of the batch."""
        cases = tuple(self.cases[i] for i in index.tolist()) if self.cases else ()
        return replace(self, **self._each(lambda tensor: tensor[index]), cases=cases, rng=self.streams.take(index))

    def _each(self, change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        tensors = {name: getattr(self, name) for name in ("z", "truth", "support", "radius", "soft")}
        return {name: None if tensor is None else change(tensor) for name, tensor in tensors.items()}


@dataclass(frozen=True, eq=False)
class Mixed:
    """Clean examples, and adversarial copies of the same cases made beforehand: a larger training set.

    Which one is drawn is a function of seed, epoch and case alone.

    Attributes:
        clean: the examples as they are.
        adversarial: one sequence or several of copies, in the order of ``clean``: one for each attack and budget.
        share: of the crops that are drawn from a copy, each of them equally often.

    Raises:
        ConfigError: no copies, not one for each case, or a share outside [0, 1].
    """

    clean: Sequence[Example]
    adversarial: Sequence[Sequence[Example]]
    share: float = 0.5

    def __post_init__(self) -> None:
        copies = [len(each) for each in self.adversarial]
        if not copies or set(copies) != {len(self.clean)}:
            raise ConfigError(
                "augmentation takes an adversarial copy of every training case",
                got=f"{len(self.clean)} cases, copies {copies}",
            )
        check_share(self.share)

    def __len__(self) -> int:
        return len(self.clean)

    def drawn(self, index: int, seed: int, epoch: int) -> Example:
        """The example of a case in an epoch: itself, or one of its copies."""
        clean = self.clean[index]
        random = np.random.default_rng(keyed(seed, "mixed", epoch, clean.case or index))
        if random.random() >= self.share:
            return clean
        return self.adversarial[int(random.integers(len(self.adversarial)))][index]


@dataclass(frozen=True, eq=False)
class Crops:
    """Batches of random crops, each a function of (seed, step, rank) alone: a resumed run sees what it would have seen.

    Labels, support and soft labels are padded, cropped and mirrored with the image; intensities change in ``z`` alone,
    and a radius stays what it was measured to be. No range of legal intensities is kept: an augmented crop leaves it
    anyway.

    Attributes:
        examples: the training cases; ``Mixed`` to draw adversarial copies of them, too.
        roi: the size of a crop; smaller cases are padded with zeros, which are outside the support.
        size: crops a batch.
        flips: the axes that may be mirrored, each half of the time.
        seed: of cases, places and augmentation.
        rank: which of ``ranks`` processes draws here. Two of batch 1 see together what one of batch 2 sees.
        ranks: how many processes learn together.
    """

    examples: Sequence[Example] | Mixed
    roi: tuple[int, ...]
    size: int = 2
    flips: tuple[int, ...] = (0,)
    seed: int = 0
    rank: int = 0
    ranks: int = 1

    def __call__(self, step: int) -> Batch:
        """The micro-batch of a step. Every epoch shows every case once, in its own order."""
        first = (step * self.ranks + self.rank) * self.size
        crops, keys = zip(*[self._crop(first + slot) for slot in range(self.size)], strict=True)
        return Batch.of(crops, Rng.seeded(self.seed, keys))

    def _crop(self, count: int) -> tuple[Example, str]:
        """The crop of a slot, and the name of its random stream."""
        epoch, place = divmod(count, len(self.examples))
        order = np.random.default_rng(keyed(self.seed, "epoch", epoch)).permutation(len(self.examples))
        index = int(order[place])
        examples = self.examples
        example = examples.drawn(index, self.seed, epoch) if isinstance(examples, Mixed) else examples[index]
        case = example.case or str(index)
        channels = _channels(example)
        augment = self._augment(list(channels), example.truth)
        augment.set_random_state(seed=keyed(self.seed, "crop", count) % 2**32)
        (drawn,) = augment(channels)
        support, soft = drawn.get("support"), drawn.get("soft")
        crop = Example(
            z=drawn["z"].as_tensor().float(),
            truth=drawn["truth"].as_tensor()[0].long(),
            support=None if support is None else support.as_tensor().bool(),
            radius=example.radius,
            soft=None if soft is None else soft.as_tensor(),
            case=case,
        )
        return crop, f"{epoch}/{case}"

    def _augment(self, every: list[str], truth: Int[Tensor, "*s"]) -> Compose:
        # Two crops of three around a labelled voxel, where there are labelled voxels and others.
        mixed = bool((truth > 0).any()) and bool((truth <= 0).any())
        crop = (
            RandCropByPosNegLabeld(every, "truth", self.roi, pos=2, neg=1, num_samples=1)
            if mixed
            else RandSpatialCropSamplesd(every, self.roi, num_samples=1, random_size=False)
        )
        return Compose(
            [
                SpatialPadd(every, self.roi),
                crop,
                *(RandFlipd(every, prob=0.5, spatial_axis=axis) for axis in self.flips),
                RandScaleIntensityd("z", factors=0.1, prob=0.5),
                RandShiftIntensityd("z", offsets=0.1, prob=0.5),
                RandGaussianNoised("z", std=0.1, prob=0.3),
            ]
        )


def check_share(share: float) -> None:
    """Refuse what is no share.

    Raises:
        ConfigError: outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ConfigError("a share of the crops is between none and all of them", got=share, expected="0 to 1")


def _channels(example: Example) -> dict[str, Tensor]:
    """What moves with the voxels of an example, channel first."""
    found = {"z": example.z, "truth": example.truth[None]}
    if example.support is not None:
        found["support"] = example.support.byte()
    if example.soft is not None:
        found["soft"] = example.soft
    return found


def _stacked(crops: Sequence[Example], name: str) -> Tensor | None:
    tensors = [getattr(crop, name) for crop in crops]
    if any(tensor is None for tensor in tensors):
        return None
    return torch.stack(tensors)


def keyed(*parts: object) -> int:
    """A seed that is a function of its parts alone."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big")
