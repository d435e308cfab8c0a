"""Intensity normalisation that a gradient can pass: the perturbed image's own statistics, differentiated.

MONAI's ``NormalizeIntensity`` treats mean and standard deviation as constants, or raises. An attack with constant
statistics arrives on disk weaker than it was computed, because a file is normalised again when it is read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import Bool
from pydantic import Field
from scipy.ndimage import binary_fill_holes
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from medadv.errors import ConfigError, VictimError
from medadv.victims.preprocess import Affine, Image, Intensity, Placed
from medadv.victims.ranges import MinMax, Percentiles, ScaleRange

Mask = Bool[Tensor, "_ 1 ..."]


@dataclass(frozen=True)
class ZScore(Intensity):
    """Each sample to mean 0 and standard deviation 1, modality by modality.

    In value it is MONAI's ``NormalizeIntensity(nonzero=nonzero, channel_wise=channel_wise)``: population standard
    deviation, zeros stay zero and do not count; ``joint`` is nnU-Net's z-score. A modality that is constant up to
    rounding is only shifted (MONAI divides by the rounding's standard deviation where that is not exactly zero).

    Attributes:
        nonzero: statistics over, and changes to, the non-zero voxels alone.
        joint: the voxels that are not zero in any modality, holes filled, instead of each modality's own: nnU-Net's
            ``use_mask_for_norm``. That mask is a discrete choice, made by the clean image when an attack is prepared.
        channel_wise: statistics of each modality; False: of all modalities together.

    Raises:
        ConfigError: ``joint`` without ``nonzero``.
    """

    nonzero: bool = True
    joint: bool = False
    channel_wise: bool = True
    name: Literal["z-score"] = "z-score"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (a study may not misspell a key)

    def __post_init__(self) -> None:
        if self.joint and not self.nonzero:
            raise ConfigError(
                "a z-score over the whole image has no mask",
                got="joint without nonzero",
                advice="leave joint away, or set nonzero",
            )

    def __call__(self, x: Image) -> Image:
        """Normalise; the gradient passes through mean and standard deviation, with the mask held fixed."""
        return self.inside(x, head_of(x) if self.joint else None)

    def prepare(self, x: Image, affine: Affine | None) -> Placed:
        """With the mask of this image, where modalities share one.

        Raises:
            VictimError: the samples of a batch have different masks.
        """
        return _Inside.of(self, x, affine) if self.joint else super().prepare(x, affine)

    def inside(self, x: Image, head: Mask | None) -> Image:
        """Normalise inside a mask; without one, inside each modality's own."""
        own = x != 0 if self.nonzero else torch.ones_like(x, dtype=torch.bool)
        result: Image = _Standardise.apply(x, own if head is None else head.expand_as(x), self.channel_wise)
        return result


@dataclass(frozen=True)
class Standard(Intensity):
    """Clip to a range, subtract, divide: by numbers that are known beforehand.

    It is nnU-Net's ``CTNormalization`` (``low`` and ``high`` the 0.5th and 99.5th percentile of the training data's
    foreground) and MONAI's ``NormalizeIntensity(subtrahend, divisor)``. The gradient is 0 where a voxel is clipped.

    Attributes:
        mean: what is subtracted, one number a modality, or one for all.
        std: what divides; 0 divides by 1, as in MONAI.
        low: the lower limit; None: no limit.
        high: the upper limit; None: no limit.
        nonzero: only non-zero voxels are changed.

    Raises:
        ConfigError: other numbers of means and standard deviations, or a negative one of these.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    nonzero: bool = False
    name: Literal["standard"] = "standard"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (a study may not misspell a key)

    def __post_init__(self) -> None:
        given = [tuple(values) for values in (self.mean, self.std, self.low, self.high) if values is not None]
        if not given[0] or len({len(values) for values in given}) > 1 or min(given[1]) < 0:
            raise ConfigError(
                "a fixed normalisation has one number a modality, and no negative standard deviation",
                got=self,
                expected="as many of each, or one of each for all modalities",
            )

    def __call__(self, x: Image) -> Image:
        """Normalise.

        Raises:
            VictimError: other modalities than there are numbers for.
        """
        if len(self.mean) not in (1, x.shape[1]):
            raise VictimError(
                "a fixed normalisation was made for another number of modalities",
                got=f"{x.shape[1]} modalities",
                expected=f"{len(self.mean)}, as it has means",
            )

        def along(values: Iterable[float]) -> Tensor:
            return x.new_tensor(list(values)).view(1, -1, *[1] * (x.ndim - 2))

        y = x
        if self.low is not None or self.high is not None:
            y = y.clamp(*(None if limit is None else along(limit) for limit in (self.low, self.high)))
        y = (y - along(self.mean)) / along(std or 1.0 for std in self.std)
        return torch.where(x != 0, y, x) if self.nonzero else y


@dataclass(frozen=True)
class Unchanged(Intensity):
    """No normalisation: the network wants stored units."""

    name: Literal["none"] = "none"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (a study may not misspell a key)

    def __call__(self, x: Image) -> Image:
        """The input itself."""
        return x


Single = ZScore | Standard | ScaleRange | MinMax | Percentiles | Unchanged


@dataclass(frozen=True)
class PerChannel(Intensity):
    """A normalisation of its own for each modality: nnU-Net chooses by what a channel is.

    Attributes:
        steps: one a modality, in order.
    """

    steps: tuple[Annotated[Single, Field(discriminator="name")], ...]
    name: Literal["per-channel"] = "per-channel"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (a study may not misspell a key)

    def __call__(self, x: Image) -> Image:
        """Normalise each modality.

        Raises:
            VictimError: other modalities than there are steps.
        """
        return self.inside(x, head_of(x) if self._joint else None)

    def prepare(self, x: Image, affine: Affine | None) -> Placed:
        """With the mask of this image, where modalities share one.

        Raises:
            VictimError: the samples of a batch have different masks.
        """
        return _Inside.of(self, x, affine) if self._joint else super().prepare(x, affine)

    def inside(self, x: Image, head: Mask | None) -> Image:
        """Normalise each modality; those that share a mask take this one."""
        if len(self.steps) != x.shape[1]:
            raise VictimError(
                "there is not one normalisation for each modality",
                got=f"{x.shape[1]} modalities",
                expected=f"{len(self.steps)}: {', '.join(step.name for step in self.steps)}",
            )
        done = []
        for i, step in enumerate(self.steps):
            one = x[:, i : i + 1]
            done.append(step.inside(one, head) if isinstance(step, ZScore) and step.joint else step(one))
        return torch.cat(done, 1)

    @property
    def _joint(self) -> bool:
        return any(isinstance(step, ZScore) and step.joint for step in self.steps)


Normalisation = Single | PerChannel


def head_of(x: Image) -> Mask:
    """nnU-Net's mask of a volume: what is not zero in any modality, holes filled. A picture's holes stay open.

    nnU-Net takes a picture for a volume of one slice, where every hole is open to the side.
    """
    seen: Mask = (x.detach() != 0).any(1, keepdim=True)
    if x.ndim < 5:
        return seen
    filled = np.stack([binary_fill_holes(one) for one in seen[:, 0].cpu().numpy()])
    return torch.as_tensor(filled, device=x.device)[:, None]


@dataclass(frozen=True, eq=False)
class _Inside(Intensity):
    """A normalisation inside the mask that the clean image has chosen."""

    step: ZScore | PerChannel
    head: Mask

    @classmethod
    def of(cls, step: ZScore | PerChannel, x: Image, affine: Affine | None) -> Placed:
        head = head_of(x)
        if (head != head[:1]).any():
            raise VictimError(
                f"the step {step.name!r} normalises the images of this batch inside different masks",
                got=f"a batch of {len(x)}",
                advice="give one case at a time",
            )
        return Intensity.prepare(cls(step, head[:1]), x, affine)

    def __call__(self, x: Image) -> Image:
        return self.step.inside(x, self.head)


class _Standardise(Function):
    """z = (x - m) / s on the mask. Backward in closed form, so that only z and the mask are kept.

    With n voxels in the mask, g the incoming gradient on it, and s > 0: dx = (g - mean(g) - z · mean(g z)) / s.
    """

    @staticmethod
    def forward(ctx: Any, x: Image, mask: Bool[Tensor, "b c *s"], channel_wise: bool) -> Image:
        axes = ctx.axes = tuple(range(2 if channel_wise else 1, x.ndim))
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
    def backward(ctx: Any, g: Image) -> tuple[Image, None, None]:
        z, mask, n, spread, varies = ctx.saved_tensors
        axes = ctx.axes
        buffer = g * mask
        mean = buffer.sum(axes, keepdim=True) / n
        along = torch.mul(g, z, out=buffer).sum(axes, keepdim=True) / n  # outside the mask z is 0
        slope = torch.where(varies, along, 0)
        inside = torch.addcmul(g, z, slope, value=-1, out=buffer).sub_(mean).div_(spread)
        return torch.where(mask, inside, g, out=inside), None, None
