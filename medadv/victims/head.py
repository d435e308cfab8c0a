"""What a network's channels mean: one class a tissue (softmax), or one channel a region (sigmoid).

Both answer as classified targets: a softmax head classifies each voxel into tissues, a sigmoid head each voxel of each
region into "outside" and "inside". A two-class softmax of (0, z) is the sigmoid of z, so every loss serves both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from medadv.errors import ConfigError, VictimError
from medadv.labels import BACKGROUND, LabelScheme

SURE = 30.0
"""A logit beyond doubt: the odds are e**30."""


@runtime_checkable
class Head(Protocol):
    """The meaning of the channels that a network answers with."""

    @property
    def name(self) -> str:
        """``softmax`` or ``sigmoid``."""
        ...

    @property
    def scheme(self) -> LabelScheme:
        """What the victim's label numbers mean."""
        ...

    @property
    def channels(self) -> tuple[str, ...]:
        """The name of each channel, in order."""
        ...

    @property
    def grouped(self) -> bool:
        """Whether the first axis of the targets separates independent heads."""
        ...

    @property
    def nothing(self) -> tuple[float, ...]:
        """The answer, channel by channel, that says background and nothing else."""
        ...

    def logits(self, answer: Float[Tensor, "b k *s"]) -> Float[Tensor, "b classes *targets"]:
        """The network's answer as logits over classes, target by target."""
        ...

    def decide(self, logits: Float[Tensor, "b classes *targets"]) -> Int[Tensor, "b *s"]:
        """Logits → label map in stored numbers."""
        ...

    def encode(self, truth: Int[Tensor, "b *s"]) -> Int[Tensor, "b *targets"]:
        """Label map in stored numbers → the class of each target."""
        ...

    def spread(self, mask: Bool[Tensor, "b *s"]) -> Bool[Tensor, "b *targets"]:
        """A mask over voxels as a mask over targets."""
        ...

    def answers(self, name: str) -> bool:
        """Whether the decided label map can tell a region or tissue of the scheme.

        Raises:
            ConfigError: the name is neither.
        """
        ...


@dataclass(frozen=True)
class Softmax:
    """One channel a tissue, in the order of the scheme's numbers; exactly one holds in each voxel."""

    scheme: LabelScheme
    grouped: bool = field(default=False, init=False)
    name: Literal["softmax"] = field(default="softmax", init=False)

    @property
    def channels(self) -> tuple[str, ...]:
        """The tissues, background first if its number is lowest."""
        return self.scheme.tissues

    @property
    def nothing(self) -> tuple[float, ...]:
        """0 for background, far below for every tissue."""
        return tuple(0.0 if tissue == BACKGROUND else -SURE for tissue in self.channels)

    def logits(self, answer: Float[Tensor, "b k *s"]) -> Float[Tensor, "b k *s"]:
        """The answer itself."""
        return answer

    def decide(self, logits: Float[Tensor, "b k *s"]) -> Int[Tensor, "b *s"]:
        """The likeliest tissue."""
        return self.scheme.stored(logits.argmax(1))

    def encode(self, truth: Int[Tensor, "b *s"]) -> Int[Tensor, "b *s"]:
        """The index of the tissue."""
        return self.scheme.classes(truth)

    def spread(self, mask: Bool[Tensor, "b *s"]) -> Bool[Tensor, "b *s"]:
        """The mask itself."""
        return mask

    def answers(self, name: str) -> bool:
        """Always: every tissue has its channel."""
        return bool(self.scheme.members(name))


@dataclass(frozen=True)
class Sigmoid:
    """One channel a region; regions may overlap (WT ⊃ TC ⊃ ET)."""

    scheme: LabelScheme
    regions: tuple[str, ...]
    grouped: bool = field(default=True, init=False)
    name: Literal["sigmoid"] = field(default="sigmoid", init=False)

    def __post_init__(self) -> None:
        if not self.regions or not set(self.regions) <= set(self.scheme.regions):
            raise ConfigError(
                f"a sigmoid head has one channel a region of its label scheme, here {self.scheme.name!r}",
                got=list(self.regions),
                expected=f"some of {list(self.scheme.regions)}",
                advice="declare the region in the scheme; a scheme without regions wants a softmax head",
            )

    @property
    def channels(self) -> tuple[str, ...]:
        """The regions."""
        return self.regions

    @property
    def nothing(self) -> tuple[float, ...]:
        """Far below even odds in every region."""
        return (-SURE,) * len(self.regions)

    def logits(self, answer: Float[Tensor, "b r *s"]) -> Float[Tensor, "b 2 r *s"]:
        """(0, z) for each region: outside, inside."""
        return torch.stack([torch.zeros_like(answer), answer], 1)

    def decide(self, logits: Float[Tensor, "b 2 r *s"]) -> Int[Tensor, "b *s"]:
        """Regions above even odds, painted into one label map."""
        return self.scheme.paint(logits[:, 1] > logits[:, 0], self.regions)

    def encode(self, truth: Int[Tensor, "b *s"]) -> Int[Tensor, "b r *s"]:
        """1 where the region holds."""
        return torch.stack([self.scheme.mask(truth, region) for region in self.regions], 1).long()

    def spread(self, mask: Bool[Tensor, "b *s"]) -> Bool[Tensor, "b r *s"]:
        """The mask for every region."""
        return mask.unsqueeze(1).expand(-1, len(self.regions), *mask.shape[1:])

    def answers(self, name: str) -> bool:
        """Whether a flawless answer, painted, shows the name where the truth has it: asked of one voxel a tissue.

        (WT, TC, ET) tell the three tissues apart; WT alone tells WT, painted in one of its tissues, and nothing else.
        """
        truth = self.scheme.stored(torch.arange(len(self.scheme.tissues))).unsqueeze(0)
        told = self.scheme.paint(self.encode(truth).bool(), self.regions)
        return torch.equal(self.scheme.mask(told, name), self.scheme.mask(truth, name))


@dataclass(frozen=True, eq=False)
class Voxels:
    """The targets of a segmentation: every voxel (of every region), labelled by a label map.

    Attributes:
        head: how label maps become classes.
        truth: the label map ``(b, *s)`` in the victim's stored numbers.
        labels: the class of each target.
        where: the targets that count.
    """

    head: Head
    truth: Int[Tensor, "b *s"]
    labels: Int[Tensor, "b *targets"]
    where: Bool[Tensor, "b *targets"]

    @classmethod
    def of(cls, head: Head, truth: Int[Tensor, "b *s"]) -> Voxels:
        """All voxels, as a label map has them.

        Raises:
            VictimError: the label map holds numbers that the head's scheme does not know.
        """
        if unknown := head.scheme.unknown(truth):
            raise VictimError(
                "the label map holds numbers that the victim does not know",
                got=unknown,
                expected=dict(head.scheme.numbers),
                advice="translate the labels first: data_scheme.translate(truth, victim.head.scheme)",
            )
        labels = head.encode(truth)
        return cls(head, truth, labels, torch.ones_like(labels, dtype=torch.bool))

    @property
    def grouped(self) -> bool:
        """Whether the first axis of the targets is regions."""
        return self.head.grouped

    def region(self, name: str) -> Bool[Tensor, "b *targets"]:
        """The targets in the voxels of a region or tissue."""
        return self.head.spread(self.head.scheme.mask(self.truth, name))

    def turned(self, source: str, into: str) -> Voxels:
        """As if a region were of another tissue."""
        scheme = self.head.scheme
        (tissue,) = scheme.members(into)[:1]
        return self.mapped(torch.where(scheme.mask(self.truth, source), scheme.numbers[tissue], self.truth))

    def mapped(self, truth: Int[Tensor, "b *s"]) -> Voxels:
        """As another label map would have them.

        Raises:
            VictimError: the label map holds numbers that the head's scheme does not know.
        """
        return replace(Voxels.of(self.head, truth), where=self.where)

    def within(self, where: Bool[Tensor, "b *targets"]) -> Voxels:
        """The same labels; only these targets count."""
        return replace(self, where=where)

    def take(self, index: Int[Tensor, "kept"]) -> Voxels:
        """The targets of a part of the batch."""
        return Voxels(self.head, self.truth[index], self.labels[index], self.where[index])


def make_head(name: Literal["softmax", "sigmoid"], scheme: LabelScheme, regions: Sequence[str] | None = None) -> Head:
    """A head by its name: ``softmax`` over the scheme's tissues, or ``sigmoid`` over regions (None: all it has)."""
    return Softmax(scheme) if name == "softmax" else Sigmoid(scheme, tuple(regions or scheme.regions))
