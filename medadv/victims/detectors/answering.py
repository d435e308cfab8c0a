"""Detectors of a user's own: any module that answers logits and boxes, always for the same places in the same order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from monai.data.box_utils import batched_nms
from torch import Tensor, nn

from medadv.errors import ConfigError, VictimError
from medadv.objects import Objects
from medadv.victims.sight import Places, gathered, numbered, with_background


@dataclass(frozen=True)
class Answering:
    """A module from images ``(b, c, *s)`` to logits ``(b, k, n)`` and boxes ``(b, n, 2 axes)``, in two axes or three.

    Boxes are in pixels of the image that comes in, corners in the order of its axes: row, column, row, column. What is
    reported are the boxes that a class scores above the threshold, after non-maximum suppression within each class.

    Attributes:
        exclusive: the classes share a softmax, whose first is the background; False: each class has a sigmoid, and the
            background none: k is one less than there are classes.
        threshold: the least score that is reported.
        nms: the overlap above which a box is suppressed by a better one of its class.
        count: how many are reported at most.

    Raises:
        ConfigError: thresholds that are no shares.
    """

    exclusive: bool = True
    threshold: float = 0.05
    nms: float = 0.5
    count: int = 100
    name: Literal["answering"] = "answering"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    def __post_init__(self) -> None:
        if not (0 < self.threshold < 1 and 0 < self.nms <= 1 and self.count >= 1):
            raise ConfigError("thresholds are shares, and at least one box is reported", got=self)

    def classes(self, network: nn.Module) -> int | None:  # noqa: ARG002
        """A module does not say; its answers do."""
        return None

    def look(self, network: nn.Module, x: Float[Tensor, "b c *s"]) -> tuple[Places, Float[Tensor, "b classes n"]]:
        """Its answer."""
        logits, boxes = self._answer(network, x)
        return numbered(list(boxes)), logits

    def logits(self, network: nn.Module, x: Float[Tensor, "b c *s"], places: Places) -> Float[Tensor, "b classes n"]:
        """The logits of its answer."""
        return gathered(self._answer(network, x)[0].transpose(1, 2), places.own)

    def scores(self, logits: Float[Tensor, "b classes n"]) -> Float[Tensor, "b classes n"]:
        """Softmax, or a sigmoid each."""
        return logits.softmax(1) if self.exclusive else logits.sigmoid()

    def detect(self, network: nn.Module, x: Float[Tensor, "b c *s"]) -> list[Objects]:
        """Scores above the threshold, the best of each place in each class."""
        logits, boxes = self._answer(network, x)
        return [self._best(*one) for one in zip(self.scores(logits), boxes, strict=True)]

    def losses(self, network: nn.Module, x: Tensor, objects: Sequence[Objects]) -> Float[Tensor, ""]:  # noqa: ARG002
        """None of its own.

        Raises:
            VictimError: always.
        """
        raise VictimError("a module of your own has no loss that is known", advice="train it in your own program")

    def describe(self, network: nn.Module) -> dict[str, Any]:  # noqa: ARG002
        """Nothing more than these settings."""
        return {}

    def _answer(self, network: nn.Module, x: Tensor) -> tuple[Float[Tensor, "b k n"], Float[Tensor, "b n corners"]]:
        answer = network(x)
        pair = isinstance(answer, tuple | list) and len(answer) == 2 and all(isinstance(one, Tensor) for one in answer)
        shapes = [tuple(one.shape) for one in answer] if pair else type(answer).__name__
        corners = 2 * (x.ndim - 2)
        if not pair or answer[0].shape[::2] != answer[1].shape[:2] or answer[1].shape[2:] != (corners,):
            raise VictimError(
                "a detector of your own answers logits and boxes",
                got=shapes,
                expected=f"({len(x)}, classes, n) and ({len(x)}, n, {corners})",
                advice="transpose the logits if classes come last; for another kind of answer, write a Sight",
            )
        logits, boxes = answer
        if not self.exclusive:
            logits = with_background(logits.transpose(1, 2), self.threshold).transpose(1, 2)
        return logits, boxes

    def _best(self, scores: Float[Tensor, "classes n"], boxes: Float[Tensor, "n corners"]) -> Objects:
        label, place = (scores[1:] > self.threshold).nonzero().unbind(1)
        sure, where = scores[1:][label, place], boxes[place]
        kept = torch.as_tensor(batched_nms(where, sure, label, self.nms, self.count), dtype=torch.int64)
        return Objects(where[kept], label[kept] + 1, sure[kept])
