"""Where voxels lie: the affine of a grid, before and after a step of preprocessing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64
from monai.data.utils import to_affine_nd

from medadv.errors import ConfigError, VictimError
from medadv.victims.preprocess import Affine

Square = Float64[np.ndarray, "n n"]


def known(affine: Affine | None, step: str) -> Affine:
    """The affine, for a step that cannot do without.

    Raises:
        VictimError: nobody has said where the voxels lie, or the affine is not finite or not invertible.
    """
    if affine is None:
        raise VictimError(
            f"the step {step!r} has to know where voxels lie, and nobody has said",
            got="an image without affine",
            expected="the 4 × 4 matrix from voxels to mm",
            advice="tell the victim: victim.at(volume.affine)",
        )
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise VictimError(
            f"the step {step!r} has to know where voxels lie, and the affine cannot be meant",
            got=affine.tolist(),
            expected="finite numbers, and three axes that span space",
        )
    return affine


def within(affine: Affine, axes: int) -> Square:
    """The affine of an image with this many axes, as MONAI cuts it out of the 4 × 4 matrix."""
    square: Square = to_affine_nd(axes, affine)
    return square


def after(affine: Affine | None, way: Square) -> Affine | None:
    """The affine of a grid whose voxel v lies at ``way @ v`` of the old grid."""
    if affine is None:
        return None
    lifted: Affine = np.eye(4)
    axes = len(way) - 1
    lifted[:axes, :axes], lifted[:axes, 3] = way[:axes, :axes], way[:axes, axes]
    moved: Affine = affine @ lifted
    return moved


def lengths(affine: Square) -> Float64[np.ndarray, "axes"]:
    """The distance of neighbouring voxels along each axis, mm."""
    norms: Float64[np.ndarray, "axes"] = np.sqrt(np.square(affine[:-1, :-1]).sum(0))
    return norms


def each(value: int | Sequence[int], axes: int, step: str) -> tuple[int, ...]:
    """A setting for each axis; one number means all of them.

    Raises:
        VictimError: the image has another number of axes.
    """
    values = (value,) * axes if isinstance(value, int) else tuple(value)
    if len(values) != axes:
        raise VictimError(
            f"the step {step!r} was made for another number of axes than the image has",
            got=f"{axes} axes",
            expected=f"{len(values)}, one a number of {values}",
        )
    return values


def listed(setting: Any, field: str, least: int | None = None) -> None:
    """Make a frozen setting's field a whole number or a tuple of them.

    Raises:
        ConfigError: it is neither, or one of them is below ``least``.
    """
    value = getattr(setting, field)
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    whole = [v for v in values if isinstance(v, int) and (least is None or v >= least)]
    if len(whole) < max(len(values), 1):
        raise ConfigError(
            f"{field} of the step {setting.name!r} takes whole numbers",
            got=repr(value),
            expected="one number, or one for each axis" + ("" if least is None else f", {least} or more"),
        )
    if isinstance(value, Sequence):
        object.__setattr__(setting, field, values)
