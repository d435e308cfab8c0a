"""Everything is a set of classified targets (Xie et al. 2017): a voxel, a voxel of a region, a pixel, a proposal.

Each target has logits over classes and a label. A victim says what a truth means for its own targets, a label map or
objects; losses and objectives see nothing else, and so serve them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, Self, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor

from medadv.errors import ConfigError
from medadv.labels import LabelScheme
from medadv.objects import Truth

Truths = Truth | tuple[Truth, ...]
"""What is true of a batch; of several victims at once, also a tuple of one truth each."""


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

    @property
    def truth(self) -> Truth:
        """What they are labelled by, in stored numbers: a label map or objects, the expert's or the victim's own."""
        ...

    @property
    def scheme(self) -> LabelScheme:
        """What its numbers mean."""
        ...

    def logits(self, raw: Float[Tensor, "b k *all"]) -> Float[Tensor, "b classes *targets"]:
        """The victim's raw answer as logits over the classes of these targets: the same, but of a region alone."""
        ...

    def decided(self, raw: Float[Tensor, "b k *all"]) -> Self:
        """The targets as a raw answer of the victim labels them, once it is decided as it is deployed.

        Which of them count is the answer's to say, too: the expert's void is not known to who has the answer alone.
        """
        ...

    def alone(self, region: str) -> Self:
        """The targets of a two-class problem: outside a region or tissue, and inside."""
        ...

    def region(self, name: str) -> Bool[Tensor, "b *targets"]:
        """The targets that the truth assigns to a region or tissue."""
        ...

    def present(self) -> list[frozenset[str]]:
        """The tissues that the truth of each sample shows."""
        ...

    def renumbered(self, tables: Sequence[Mapping[int, int]]) -> Self:
        """The targets as they would be labelled if the truth had other numbers: one table a sample, number → number.

        All numbers change at once; those that a table does not name stay.
        """
        ...

    def mapped(self, truth: Int[Tensor, "b *s"]) -> Self:
        """The targets as another label map would label them.

        Raises:
            ConfigError: they are not labelled by a label map.
        """
        ...

    def labelled(self, labels: Int[Tensor, "b *targets"]) -> Self:
        """The same targets with other classes."""
        ...

    def within(self, where: Bool[Tensor, "b *targets"]) -> Self:
        """The same labels; only these targets count."""
        ...

    def take(self, index: Int[Tensor, "kept"]) -> Self:
        """The targets of a part of the batch."""
        ...


def label_map(targets: Targets) -> Int[Tensor, "b *s"]:
    """The label map of targets that are labelled by one.

    Raises:
        ConfigError: they are labelled by objects.
    """
    if not isinstance(targets.truth, Tensor):
        raise ConfigError(
            "this goal draws on a label map, and the victim's truth is objects",
            expected="a goal that renames: erase, Turn, Fill, Permute, LeastLikely or Rank",
        )
    return targets.truth
