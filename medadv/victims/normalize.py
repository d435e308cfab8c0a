"""Intensity normalisation that a gradient can pass: the perturbed image's own statistics, differentiated.

MONAI's ``NormalizeIntensity`` treats mean and standard deviation as constants, or raises. An attack with constant
statistics arrives on disk weaker than it was computed, because a file is normalised again when it is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from medadv.victims.preprocess import Image, Intensity


@dataclass(frozen=True)
class ZScore(Intensity):
    """Each sample and modality to mean 0 and standard deviation 1.

    In value it is MONAI's ``NormalizeIntensity(nonzero=nonzero, channel_wise=True)``: population standard deviation,
    zeros stay zero and do not count. A modality that is constant up to rounding is only shifted (MONAI divides by
    the rounding's standard deviation where that is not exactly zero).

    Attributes:
        nonzero: statistics over, and changes to, the non-zero voxels alone.
    """

    nonzero: bool = True
    name: Literal["z-score"] = "z-score"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (a study may not misspell a key)

    def __call__(self, x: Image) -> Image:
        """Normalise; the gradient passes through mean and standard deviation, with the mask held fixed."""
        result: Image = _Standardise.apply(x, x != 0 if self.nonzero else torch.ones_like(x, dtype=torch.bool))
        return result


@dataclass(frozen=True)
class Unchanged(Intensity):
    """No normalisation: the network wants stored units."""

    name: Literal["none"] = "none"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (a study may not misspell a key)

    def __call__(self, x: Image) -> Image:
        """The input itself."""
        return x


Normalisation = ZScore | Unchanged


class _Standardise(Function):
    """z = (x - m) / s on the mask. Backward in closed form, so that only z and the mask are kept.

    With n voxels in the mask, g the incoming gradient on it, and s > 0: dx = (g - mean(g) - z · mean(g z)) / s.
    """

    @staticmethod
    def forward(ctx: Any, x: Image, mask: Bool[Tensor, "b c *s"]) -> Image:
        axes = tuple(range(2, x.ndim))
        n = mask.sum(axes, keepdim=True).clamp(min=1)
        mean = x.sum(axes, keepdim=True) / n  # outside the mask x is 0
        z = (x - mean).mul_(mask)
        spread = (z.square().sum(axes, keepdim=True) / n).sqrt()
        # A constant's mean is rounded, and what is left of it is no spread: 16 roundings of the mean are within reach.
        varies = spread > 16 * torch.finfo(x.dtype).eps * mean.abs()
        spread = torch.where(varies, spread, 1)
        z.div_(spread)
        ctx.save_for_backward(z, mask, n, spread, varies)
        return z

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator, unused-ignore]
    def backward(ctx: Any, g: Image) -> tuple[Image, None]:
        z, mask, n, spread, varies = ctx.saved_tensors
        axes = tuple(range(2, g.ndim))
        buffer = g * mask
        mean = buffer.sum(axes, keepdim=True) / n
        along = torch.mul(g, z, out=buffer).sum(axes, keepdim=True) / n  # outside the mask z is 0
        slope = torch.where(varies, along, 0)
        inside = torch.addcmul(g, z, slope, value=-1, out=buffer).sub_(mean).div_(spread)
        return torch.where(mask, inside, g, out=inside), None
