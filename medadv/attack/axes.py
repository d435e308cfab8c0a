"""Numbers along the axes of an image, however many it has, and what is within their reach."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor

from medadv.errors import ConfigError


def whole(numbers: object) -> int | tuple[int, ...]:
    """One whole number, or a tuple of them.

    Raises:
        ConfigError: anything else.
    """
    several = isinstance(numbers, Sequence) and not isinstance(numbers, str)
    each = tuple(numbers) if isinstance(numbers, Sequence) and several else (numbers,)
    if not each or not all(isinstance(n, int) and not isinstance(n, bool) for n in each):
        raise ConfigError("voxels are counted in whole numbers, one an axis", got=repr(numbers), expected="(4, 0, 0)")
    return each if several else each[0]


def as_tuple(numbers: int | tuple[int, ...]) -> tuple[int, ...]:
    """One number as a tuple of one."""
    return numbers if isinstance(numbers, tuple) else (numbers,)


def each_axis(numbers: int | tuple[int, ...], mask: Bool[Tensor, "b *s"]) -> tuple[int, ...]:
    """A number for each axis of an image.

    Raises:
        ConfigError: numbers for another number of axes.
    """
    each = numbers if isinstance(numbers, tuple) else (numbers,) * (mask.ndim - 1)
    if len(each) != mask.ndim - 1:
        raise other_axes(each, mask)
    return each


def other_axes(numbers: Sequence[int | float], mask: Tensor) -> ConfigError:
    """Advice on numbers for another number of axes than the image has."""
    return ConfigError("the image has another number of axes", got=list(numbers), expected=f"{mask.ndim - 1} numbers")


def dilated(mask: Bool[Tensor, "b *s"], reach: Sequence[int]) -> Bool[Tensor, "b *s"]:
    """The voxels within reach of a mask along each axis: one maximum an axis, since a box is a product of lines."""
    for axis, n in enumerate(reach, 1):
        lines = mask.movedim(axis, -1)
        flat = lines.reshape(1, -1, lines.shape[-1]).float()
        mask = (F.max_pool1d(flat, 2 * n + 1, 1, n) > 0).view(lines.shape).movedim(-1, axis)
    return mask
