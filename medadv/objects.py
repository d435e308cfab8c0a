"""``Objects``: what an image shows, object by object: a box and a class each. Below victims and data, as labels are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from medadv.errors import ConfigError

Boxes = Float[Tensor, "n corners"]
"""Lowest corner, then highest corner, along the image's axes in their order: of a picture row, column, row, column.

In voxels, whose edges are whole numbers: voxel i reaches from i to i + 1. A box around the one voxel (3, 5) is
(3, 5, 4, 6).
"""


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects of one image: an expert's, or those that a detector reports.

    Attributes:
        boxes: where they are, ``(n, 2 axes)``; see ``Boxes``.
        labels: what they are, ``(n,)``: stored numbers of a label scheme.
        scores: how sure the detector is of each, ``(n,)``, 0 to 1; None of an expert's.
        difficult: those that count neither as found nor as missed, ``(n,)``: ``difficult`` of Pascal VOC, ``iscrowd``
            of COCO; None for none of them.

    Raises:
        ConfigError: lists of different lengths, or boxes without two corners.
    """

    boxes: Boxes
    labels: Int[Tensor, "n"]
    scores: Float[Tensor, "n"] | None = None
    difficult: Bool[Tensor, "n"] | None = None

    def __post_init__(self) -> None:
        lengths = {len(each) for each in (self.boxes, self.labels, self.scores, self.difficult) if each is not None}
        if len(lengths) > 1 or self.boxes.ndim != 2 or self.boxes.shape[1] % 2:
            raise ConfigError(
                "each object has one box of two corners, one label, and one score if any",
                got=f"boxes {tuple(self.boxes.shape)}, labels {tuple(self.labels.shape)}",
                expected="(n, 4) and (n,) of a picture, (n, 6) and (n,) of a volume",
            )

    @classmethod
    def none(cls, axes: int) -> Objects:
        """No objects in an image of so many axes."""
        return cls(torch.zeros(0, 2 * axes), torch.zeros(0, dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def counted(self) -> Bool[Tensor, "n"]:
        """Those that are to be found."""
        return torch.ones(len(self), dtype=torch.bool) if self.difficult is None else ~self.difficult

    def take(self, which: Tensor) -> Objects:
        """A part of them: by numbers, or by a mask."""
        scores, difficult = (None if each is None else each[which] for each in (self.scores, self.difficult))
        return Objects(self.boxes[which], self.labels[which], scores, difficult)

    def to(self, device: torch.device | str) -> Objects:
        """On a device."""
        scores, difficult = (None if each is None else each.to(device) for each in (self.scores, self.difficult))
        return Objects(self.boxes.to(device), self.labels.to(device), scores, difficult)

    def renumbered(self, table: Mapping[int, int]) -> Objects:
        """With other labels: number → number; those that the table does not name stay."""
        labels = self.labels.clone()
        for number, into in table.items():
            labels[self.labels == number] = into
        return replace(self, labels=labels)


Truth = Int[Tensor, "b *s"] | Sequence[Objects]
"""What is true of a batch, one a sample: label maps in stored numbers, or objects."""


def overlap(boxes: Boxes, others: Float[Tensor, "m corners"]) -> Float[Tensor, "n m"]:
    """Intersection over union of every box with every other, along any number of axes (Jaccard 1901); 0 of empty ones.

    Args:
        boxes, others: ``(n, 2 axes)`` and ``(m, 2 axes)``.
    """
    axes = boxes.shape[1] // 2
    low = torch.maximum(boxes[:, None, :axes], others[None, :, :axes])
    high = torch.minimum(boxes[:, None, axes:], others[None, :, axes:])
    common = (high - low).clamp(min=0).prod(-1)
    sizes = [(each[:, axes:] - each[:, :axes]).clamp(min=0).prod(-1) for each in (boxes, others)]
    union = sizes[0][:, None] + sizes[1] - common
    return torch.where(union > 0, common / union.clamp(min=torch.finfo(union.dtype).tiny), 0.0)
