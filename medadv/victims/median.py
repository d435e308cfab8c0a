"""The median of each voxel's neighbourhood, a few rows at a time, with its exact gradient."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from medadv.victims.preprocess import Image

CHUNK = 2**24
"""Numbers that the neighbourhoods of a median hold at a time."""


class Median(Function):
    """The median of each neighbourhood's voxels that count; backwards, to the voxel that it is."""

    @staticmethod
    def forward(ctx: Any, x: Image, size: int, inside: Bool[Tensor, "b c *s"]) -> Image:
        """The medians; 0 where nothing in reach counts."""
        axes, margin = x.ndim - 2, size // 2
        around = functional.pad(torch.where(inside, x, torch.nan), [margin] * (2 * axes), value=torch.nan)
        y, ctx.size = torch.empty_like(x), size
        selected = torch.empty(x.shape, dtype=torch.int32, device=x.device)
        rows = max(CHUNK // max(x.select(2, 0).numel() * size**axes, 1), 1)
        for first in range(0, x.shape[2], rows):
            part = around[:, :, first : first + rows + 2 * margin]
            for axis in range(2, x.ndim):
                part = part.unfold(axis, size, 1)
            near = part.flatten(x.ndim)
            middle = near.nanmedian(-1).values  # NaN where all are zero
            y[:, :, first : first + rows] = middle
            # Of equal ones the first: which one nanmedian names differs between devices.
            selected[:, :, first : first + rows] = (near == middle[..., None]).to(torch.uint8).argmax(-1)
        ctx.save_for_backward(selected)
        return y.nan_to_num_(0)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator, unused-ignore]
    def backward(ctx: Any, g: Image) -> tuple[Image, None, None]:
        """To the voxels that were selected."""
        (selected,) = ctx.saved_tensors
        shape, size = g.shape[2:], ctx.size
        around = g.new_zeros(*g.shape[:2], *(n + size - 1 for n in shape))
        # One neighbour after the other, in the order of ``unfold``: sums in one order, on any device.
        for number, offsets in enumerate(product(range(size), repeat=len(shape))):
            _moved(around, offsets, shape).add_(torch.where(selected == number, g, 0))
        return _moved(around, (size // 2,) * len(shape), shape), None, None


def _moved(around: Tensor, offsets: Sequence[int], shape: Sequence[int]) -> Tensor:
    """The part of a padded image, of this shape, that begins there."""
    for axis, (first, length) in enumerate(zip(offsets, shape, strict=True)):
        around = around.narrow(axis + 2, first, length)
    return around
