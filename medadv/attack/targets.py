"""Everything is a set of classified targets (Xie et al. 2017): a voxel, a voxel of a region, a pixel, a proposal.

Each target has logits over classes and a label. A victim says what the truth means for its own targets; losses and
objectives see nothing else, and so serve them all.
"""

from __future__ import annotations

from typing import Protocol, Self, runtime_checkable

from jaxtyping import Bool, Int
from torch import Tensor


@runtime_checkable
class Targets(Protocol):
    """The labelled targets of a batch."""

    @property
    def labels(self) -> Int[Tensor, "b *targets"]:
        """The class of each target."""
        ...

    @property
    def where(self) -> Bool[Tensor, "b *targets"]:
        """The targets that count; the others are void."""
        ...

    @property
    def grouped(self) -> bool:
        """Whether the first axis of the targets separates independent heads: the regions of a sigmoid head."""
        ...

    def region(self, name: str) -> Bool[Tensor, "b *targets"]:
        """The targets that the truth assigns to a region or tissue."""
        ...

    def turned(self, source: str, into: str) -> Self:
        """The targets as they would be labelled if a region were of another tissue."""
        ...

    def mapped(self, truth: Int[Tensor, "b *s"]) -> Self:
        """The targets as another truth would label them."""
        ...

    def within(self, where: Bool[Tensor, "b *targets"]) -> Self:
        """The same labels; only these targets count."""
        ...

    def take(self, index: Int[Tensor, "kept"]) -> Self:
        """The targets of a part of the batch."""
        ...
