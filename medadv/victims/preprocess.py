"""Preprocessing: the steps from a stored volume to what the network is fed, and the way back for its answer.

A step is a setting. Prepared on an image, whose discrete choices (which box holds the head) and place in space it then
knows, it is a linear map between two grids, or a change of intensities; its gradient is the adjoint of that map.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from medadv.attack.rng import Rng
from medadv.errors import ConfigError

Image = Float[Tensor, "b c *s"]
Affine = Float64[np.ndarray, "4 4"]


def matrix(affine: object) -> Affine:
    """An affine as it is meant: 4 × 4 numbers, in an array, a tensor or lists.

    Raises:
        ConfigError: anything else.
    """
    try:
        found = np.array(affine.detach().cpu().numpy() if isinstance(affine, Tensor) else affine, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise _no_matrix(type(affine).__name__) from error
    if found.shape != (4, 4):
        raise _no_matrix(f"an array of shape {found.shape}")
    return found  # whether its numbers can be meant is asked by the steps that need them


def _no_matrix(got: object) -> ConfigError:
    return ConfigError(
        "where voxels lie is told by the 4 × 4 matrix from voxels to mm",
        got=got,
        expected="16 numbers, in four rows",
        advice="take it from the image: victim.at(volume.affine); with nibabel, nibabel.load(path).affine",
    )


@runtime_checkable
class Placed(Protocol):
    """A step that knows its image."""

    @property
    def affine(self) -> Affine | None:
        """Voxel → mm of the grid after the step; None where nobody has said where voxels lie."""
        ...

    def __call__(self, x: Image) -> Float[Tensor, "b c *after"]:
        """Onwards: differentiable."""
        ...

    def back(self, answer: Float[Tensor, "b k *after"], outside: Float[Tensor, "k"]) -> Float[Tensor, "b k *s"]:
        """An answer's way back; voxels that the step has cut away get ``outside``, which says background."""
        ...

    def labels(self, truth: Int[Tensor, "b *s"]) -> Int[Tensor, "b *after"]:
        """A label map onwards: nearest neighbour, background where there is nothing."""
        ...


@runtime_checkable
class Step(Protocol):
    """One step of preprocessing, as a frozen setting that can be written as JSON."""

    @property
    def name(self) -> str:
        """What a study calls it."""
        ...

    def prepare(self, x: Image, affine: Affine | None) -> Placed:
        """The step on this image.

        Raises:
            VictimError: the step has to know where voxels lie and nobody has said, or the samples of a batch differ.
        """
        ...


@runtime_checkable
class Random(Protocol):
    """A step that draws: anew for each image that is scored, once for an attack that is prepared."""

    def drawn(self, rng: Rng) -> Step:
        """The step with the draws of these streams, one a sample."""
        ...


@runtime_checkable
class Drawn(Protocol):
    """A prepared step that treats each sample of its batch in another way."""

    def take(self, index: Int[Tensor, "kept"]) -> Self:
        """The step of a part of the batch."""
        ...


UNSAID = {"unsaid": True}
"""Metadata of a setting that came later: where it is its default, nothing is said, and records keep their keys."""


def described(step: Step) -> dict[str, Any]:
    """A step and its settings as JSON."""

    def told(value: Any) -> Any:
        if not is_dataclass(value):
            return value
        said = [f for f in fields(value) if not (f.metadata == UNSAID and getattr(value, f.name) == f.default)]
        return {f.name: told(getattr(value, f.name)) for f in said}

    plain: dict[str, Any] = json.loads(json.dumps(told(step)))
    return plain


@dataclass(frozen=True, eq=False)
class Way:
    """All steps of a pipeline, prepared on one image."""

    steps: tuple[Placed, ...]

    @classmethod
    def prepared(cls, steps: Sequence[Step], x: Image, affine: Affine | None) -> Way:
        """Each step on what the steps before it make of the image."""
        placed: list[Placed] = []
        x = x.detach()
        with torch.no_grad():
            for i, step in enumerate(steps):
                placed.append(step.prepare(x, affine))
                affine = placed[-1].affine
                if i + 1 < len(steps):
                    x = placed[-1](x)
        return cls(tuple(placed))

    def __call__(self, x: Image) -> Float[Tensor, "b c *network"]:
        """Stored voxels → the network's input."""
        for step in self.steps:
            x = step(x)
        return x

    def back(self, answer: Float[Tensor, "b k *network"], outside: Float[Tensor, "k"]) -> Float[Tensor, "b k *s"]:
        """The network's answer → the stored grid."""
        for step in reversed(self.steps):
            answer = step.back(answer, outside)
        return answer

    def take(self, index: Int[Tensor, "kept"]) -> Way:
        """The way of a part of the batch."""
        if not any(isinstance(step, Drawn) for step in self.steps):
            return self
        return Way(tuple(step.take(index) if isinstance(step, Drawn) else step for step in self.steps))

    def labels(self, truth: Int[Tensor, "b *s"]) -> Int[Tensor, "b *network"]:
        """A stored label map → the network's grid."""
        for step in self.steps:
            truth = step.labels(truth)
        return truth


@dataclass(frozen=True, eq=False)
class _Pointwise:
    """A change of intensities: the grid stays."""

    step: Intensity
    affine: Affine | None

    def __call__(self, x: Image) -> Image:
        return self.step(x)

    def back(self, answer: Float[Tensor, "b k *s"], outside: Float[Tensor, "k"]) -> Float[Tensor, "b k *s"]:  # noqa: ARG002
        return answer

    def labels(self, truth: Int[Tensor, "b *s"]) -> Int[Tensor, "b *s"]:
        return truth


class Intensity:
    """What all normalisations have in common: they change intensities, by the image's own statistics, and no grid."""

    def __call__(self, x: Image) -> Image:
        """Stored units → what the network was trained on; differentiable."""
        raise NotImplementedError

    def prepare(self, x: Image, affine: Affine | None) -> Placed:  # noqa: ARG002
        """The same on any image."""
        return _Pointwise(self, affine)
