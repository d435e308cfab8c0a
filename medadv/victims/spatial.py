"""Spatial preprocessing: all its steps, and those that turn axes.

Each step is linear between two grids. Its gradient is the adjoint, and its way back takes answers to where the voxels
came from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import nibabel as nib
import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from medadv.errors import ConfigError, VictimError
from medadv.victims.crop import CenterSpatialCrop, CropForeground, CropNonzero, DivisiblePad, Pad
from medadv.victims.grid import after, each, known, listed, within
from medadv.victims.preprocess import Affine, Image, Placed
from medadv.victims.resample import Resample
from medadv.victims.spacing import Spacing

orientations: Any = nib.orientations  # it has no types

DIRECTIONS = {"L": 0, "R": 0, "P": 1, "A": 1, "I": 2, "S": 2}


@dataclass(frozen=True)
class Orientation:
    """Axes in a given order and direction: MONAI's ``Orientation(axcodes)``.

    Attributes:
        axes: where the index grows to along each axis, in nibabel's letters: ``RAS`` grows to the right, to the front
            and upwards. A 2-D image uses the first two.

    Raises:
        ConfigError: no such letters, or one direction twice.
    """

    axes: str = "RAS"
    name: Literal["orientation"] = "orientation"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (a study may not misspell a key)

    def __post_init__(self) -> None:
        if sorted(DIRECTIONS.get(letter, -1) for letter in self.axes) not in ([0, 1], [0, 1, 2]):
            raise ConfigError(
                "an orientation is one letter an axis",
                got=repr(self.axes),
                expected="one of L and R, one of A and P, one of I and S: for example RAS or LPS",
            )

    def prepare(self, x: Image, affine: Affine | None) -> Placed:
        """The step for images of this shape, at this place.

        Raises:
            VictimError: nobody has said where voxels lie, or the letters do not fit the image's axes.
        """
        affine = known(affine, self.name)
        axes = x.ndim - 2
        now = orientations.io_orientation(within(affine, axes))
        wanted = orientations.axcodes2ornt(self.axes[:axes])
        if np.isnan(now).any() or sorted(now[:, 0]) != sorted(wanted[:, 0]):
            raise VictimError(
                f"the step {self.name!r} cannot turn this image",
                got=f"{axes} axes along {''.join(c or '?' for c in orientations.ornt2axcodes(now))}",
                expected=f"axes that can be turned to {self.axes}",
            )
        return _Turned.by(orientations.ornt_transform(now, wanted), tuple(x.shape[2:]), affine)


@dataclass(frozen=True)
class Transpose:
    """Axes in another order, as NumPy's ``transpose`` and nnU-Net's ``transpose_forward`` say it.

    Attributes:
        order: for each new axis, the old one.

    Raises:
        ConfigError: an axis twice or none.
    """

    order: tuple[int, ...]
    name: Literal["transpose"] = "transpose"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (a study may not misspell a key)

    def __post_init__(self) -> None:
        listed(self, "order")
        if not isinstance(self.order, tuple) or sorted(self.order) != list(range(len(self.order))):
            raise ConfigError("a transposition names each axis once", got=self.order, expected="for example (2, 1, 0)")

    def prepare(self, x: Image, affine: Affine | None) -> Placed:
        """The step for images of this shape.

        Raises:
            VictimError: the image has another number of axes.
        """
        each(self.order, x.ndim - 2, self.name)
        turn = np.array([[self.order.index(axis), 1] for axis in range(len(self.order))], dtype=np.float64)
        return _Turned.by(turn, tuple(x.shape[2:]), affine)


Spatial = (
    Orientation | Transpose | Spacing | Resample | CropForeground | CropNonzero | Pad | DivisiblePad | CenterSpatialCrop
)


@dataclass(frozen=True, eq=False)
class _Turned:
    """Flips of the old axes, then another order of them."""

    flipped: tuple[int, ...]
    order: tuple[int, ...]
    affine: Affine | None

    @classmethod
    def by(cls, turn: np.ndarray, shape: tuple[int, ...], affine: Affine | None) -> _Turned:
        """By nibabel's description: for each old axis, the new one and its direction."""
        flipped = tuple(int(axis) for axis in np.flatnonzero(turn[:, 1] < 0))
        order = tuple(int(axis) for axis in np.argsort(turn[:, 0]))
        return cls(flipped, order, after(affine, orientations.inv_ornt_aff(turn, shape)))

    def __call__(self, x: Image) -> Float[Tensor, "b c *after"]:
        x = x.flip([axis + 2 for axis in self.flipped]) if self.flipped else x
        return x if self._in_order else x.permute(0, 1, *(axis + 2 for axis in self.order))

    def back(self, answer: Float[Tensor, "b k *after"], outside: Float[Tensor, "k"]) -> Float[Tensor, "b k *s"]:  # noqa: ARG002
        if not self._in_order:
            answer = answer.permute(0, 1, *(self.order.index(axis) + 2 for axis in range(len(self.order))))
        return answer.flip([axis + 2 for axis in self.flipped]) if self.flipped else answer

    def labels(self, truth: Int[Tensor, "b *s"]) -> Int[Tensor, "b *after"]:
        truth = truth.flip([axis + 1 for axis in self.flipped]) if self.flipped else truth
        return truth if self._in_order else truth.permute(0, *(axis + 1 for axis in self.order))

    @property
    def _in_order(self) -> bool:
        return self.order == tuple(range(len(self.order)))
