"""How a bundle's answers go back to the stored grid: as probabilities, or by their nearest neighbour.

MONAI's bundles mostly take softmax or sigmoid first and then invert the preprocessing: between two grid points, it is
probabilities that are interpolated. medadv's steps carry logits back. The difference is whole voxels wherever the
network is unsure, so that the way that is attacked must do what the way that is scored does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor

from medadv.victims.preprocess import Affine, Image, Placed, Step, Way
from medadv.victims.spacing import Spacing

Answers = Literal["softmax", "sigmoid", "logits"]

LEAST, FAINT = 1e-37, 1e-25
"""The smallest probability that is told apart from none, normal in float32; and background's where nothing is known."""


@dataclass(frozen=True)
class BackAsInverted:
    """Steps whose answers go back as MONAI's ``Invertd`` takes them, between voxels and at the edge of what was cut.

    Probabilities are told as logits again: ``log(back(softmax(z)))``, or the log-odds of ``back(sigmoid(z))``.

    Attributes:
        steps: the preprocessing.
        answers: what goes back: ``softmax`` over the channels, ``sigmoid`` of each, or ``logits`` as they are.
    """

    steps: tuple[Step, ...]
    answers: Answers
    name: Literal["back-as-inverted"] = "back-as-inverted"

    def prepare(self, x: Image, affine: Affine | None) -> Placed:
        """The steps on this image.

        Raises:
            VictimError: as they do.
        """
        return _AsInverted(Way.prepared(self.steps, x, affine), self.answers)


@dataclass(frozen=True, eq=False)
class _AsInverted:
    way: Way
    answers: Answers

    @property
    def affine(self) -> Affine | None:
        return self.way.steps[-1].affine

    def __call__(self, x: Image) -> Float[Tensor, "b c *after"]:
        return self.way(x)

    def back(self, answer: Float[Tensor, "b k *after"], outside: Float[Tensor, "k"]) -> Float[Tensor, "b k *s"]:
        # MONAI sets zeros where something was cut away: no class at all, which interpolation does not mix with.
        # Background is given so much more than nothing that it wins where nothing else is.
        nothing = (outside == outside.max()).to(outside)
        if self.answers == "logits":
            return self.way.back(answer, nothing * FAINT)
        if self.answers == "softmax":
            return self._log(answer.softmax(1), nothing * FAINT)
        # Each side by itself: 1 - p would round what is nearly sure.
        return self._log(answer.sigmoid(), outside.sigmoid()) - self._log((-answer).sigmoid(), (-outside).sigmoid())

    def _log(self, probability: Tensor, outside: Tensor) -> Tensor:
        return self.way.back(probability, outside).clamp(min=LEAST).log()

    def labels(self, truth: Int[Tensor, "b *s"]) -> Int[Tensor, "b *after"]:
        return self.way.labels(truth)


@dataclass(frozen=True)
class BackByNearest:
    """Voxels of a given size, and answers back by their nearest neighbour: ``Invertd(nearest_interp=True)``.

    Attributes:
        spacing: the step onwards.
    """

    spacing: Spacing
    name: Literal["back-by-nearest"] = "back-by-nearest"

    def prepare(self, x: Image, affine: Affine | None) -> Placed:
        """The step for images of this shape, at this place.

        Raises:
            VictimError: as it does.
        """
        nearest = replace(self.spacing, mode="nearest")
        return _ByNearest(self.spacing.prepare(x, affine), nearest.prepare(x, affine))


@dataclass(frozen=True, eq=False)
class _ByNearest:
    onward: Placed
    nearest: Placed

    @property
    def affine(self) -> Affine | None:
        return self.onward.affine

    def __call__(self, x: Image) -> Float[Tensor, "b c *after"]:
        return self.onward(x)

    def back(self, answer: Float[Tensor, "b k *after"], outside: Float[Tensor, "k"]) -> Float[Tensor, "b k *s"]:
        return self.nearest.back(answer, outside)

    def labels(self, truth: Int[Tensor, "b *s"]) -> Int[Tensor, "b *after"]:
        return self.onward.labels(truth)


def turning_back(steps: tuple[Step, ...], answers: Answers, nearest: bool) -> tuple[Step, ...]:
    """The same preprocessing, with answers going back as the bundle's postprocessing takes them.

    Args:
        steps: medadv's.
        answers: what is inverted.
        nearest: whether the inversion takes the nearest neighbour, and so does not care.
    """
    if not any(isinstance(step, Spacing) for step in steps):
        return steps  # nothing lies between two voxels
    if nearest:
        return tuple(BackByNearest(step) if isinstance(step, Spacing) else step for step in steps)
    return (BackAsInverted(steps, answers),)
