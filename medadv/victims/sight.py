"""``Sight``: how a kind of detector is looked through, from its frozen targets to what it reports.

A detector classifies places: proposals, anchors, points. Which places there are is a discrete choice that the clean
image makes; it is frozen for an attack (Xie et al. 2017, arXiv:1703.08603) and made anew for every image that is
scored. A sight is a setting and holds no network, and adding one changes nothing else.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from medadv.objects import Objects


@dataclass(frozen=True, eq=False)
class Places:
    """The places that a detector classifies, frozen; padded to the same number for every sample of a batch.

    Attributes:
        boxes: where they are in the stored image, corners in the order of its axes.
        own: what the sight finds them by: boxes in the network's own frame, or the numbers of anchors.
        valid: which of them are places, and no padding.
    """

    boxes: Float[Tensor, "b n corners"]
    own: Shaped[Tensor, "b n k"]
    valid: Bool[Tensor, "b n"]

    @classmethod
    def of(cls, boxes: Sequence[Float[Tensor, "_ corners"]], own: Sequence[Shaped[Tensor, "_ k"]]) -> Places:
        """The places of each sample."""
        valid = [torch.ones(len(each), dtype=torch.bool, device=each.device) for each in boxes]
        return cls(padded(boxes), padded(own), padded(valid))

    def take(self, index: Int[Tensor, "kept"]) -> Places:
        """The places of a part of the batch."""
        return Places(self.boxes[index], self.own[index], self.valid[index])

    def only(self, where: Bool[Tensor, "b n"]) -> Places:
        """A part of the places."""
        where = where & self.valid
        boxes, own = ([each[w] for each, w in zip(all_, where, strict=True)] for all_ in (self.boxes, self.own))
        return Places.of(boxes, own)


@runtime_checkable
class Sight(Protocol):
    """How one kind of detector is looked through. Images are ``(b, c, *s)``, as the network was trained on them."""

    @property
    def name(self) -> str:
        """What a study calls it."""
        ...

    def classes(self, network: nn.Module) -> int | None:
        """How many classes a network tells, the background among them; None where it does not say."""
        ...

    def look(self, network: nn.Module, x: Float[Tensor, "b c *s"]) -> tuple[Places, Float[Tensor, "b classes n"]]:
        """The places that the network classifies in these images, and their logits, in one pass."""
        ...

    def logits(self, network: nn.Module, x: Float[Tensor, "b c *s"], places: Places) -> Float[Tensor, "b classes n"]:
        """The logits of these places, background first, with features that are computed anew; differentiable."""
        ...

    def scores(self, logits: Float[Tensor, "b classes n"]) -> Float[Tensor, "b classes n"]:
        """What the network itself makes of its logits: probabilities."""
        ...

    def detect(self, network: nn.Module, x: Float[Tensor, "b c *s"]) -> list[Objects]:
        """What the whole detector reports of these images, everything fresh; labels are numbers of classes."""
        ...

    def losses(self, network: nn.Module, x: Float[Tensor, "b c *s"], objects: Sequence[Objects]) -> Float[Tensor, ""]:
        """What the network in training mode is to descend; labels are numbers of classes.

        Raises:
            VictimError: a kind of detector that has no lesson of its own.
        """
        ...

    def describe(self, network: nn.Module) -> dict[str, Any]:
        """What could change a network's reports beside its weights, as JSON: sizes, thresholds."""
        ...


def changed(module: nn.Module, **changes: Any) -> Any:
    """A shallow copy of a module with other settings or parts; weights are shared, and the module stays as it was."""
    clone = copy.copy(module)
    parts = {name: value for name, value in changes.items() if name in clone._modules}
    clone._modules = {**clone._modules, **parts}
    for name, value in changes.items():
        if name not in parts:
            setattr(clone, name, value)
    return clone


def padded(each: Sequence[Shaped[Tensor, "_ ..."]]) -> Shaped[Tensor, "b n ..."]:
    """Tensors of different lengths in one, filled with zeros."""
    return pad_sequence(list(each), batch_first=True)


def gathered(values: Float[Tensor, "b all k"], numbers: Int[Tensor, "b n 1"]) -> Float[Tensor, "b k n"]:
    """The rows of these numbers, classes first."""
    return values.gather(1, numbers.expand(-1, -1, values.shape[2])).transpose(1, 2)


def numbered(boxes: Sequence[Float[Tensor, "_ corners"]]) -> Places:
    """All places of a detector whose places are always the same ones, found by their numbers."""
    return Places.of(boxes, [torch.arange(len(each), device=each.device)[:, None] for each in boxes])


def with_background(logits: Float[Tensor, "b n k"], threshold: float) -> Float[Tensor, "b n classes"]:
    """Logits of one sigmoid a class, and before them that of the background: the odds of the score threshold.

    A class above the background is then a class whose score is above the threshold: what is deployed.
    """
    least = min(max(threshold, 1e-4), 1 - 1e-4)
    nothing = torch.full_like(logits[..., :1], least).logit()
    return torch.cat([nothing, logits], -1)


def turned(boxes: Float[Tensor, "... 4"]) -> Float[Tensor, "... 4"]:
    """Boxes of a picture from (column, row, column, row) to (row, column, row, column), and back."""
    return boxes[..., [1, 0, 3, 2]]
