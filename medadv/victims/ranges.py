"""Intensities from one range to another: a fixed one, from minimum to maximum, or between percentiles.

Where a range is the image's own, its limits are voxels, and the gradient reaches them. MONAI takes minimum and maximum
into the graph, too, but percentiles of large volumes for constants: an attack that does so is computed on an image that
nobody will read.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from medadv.errors import ConfigError
from medadv.victims.preprocess import Image, Intensity


@dataclass(frozen=True)
class ScaleRange(Intensity):
    """A given range to another: MONAI's ``ScaleIntensityRange``. With (0, 255, 0, 1) nnU-Net's ``RGBTo01``.

    Attributes:
        a_min: what becomes ``b_min``.
        a_max: what becomes ``b_max``.
        b_min: the new lower end; None together with ``b_max``: 0 to 1.
        b_max: the new upper end.
        clip: what lies beyond the ends becomes the ends, and its gradient 0; an end that is None does not clip.

    Raises:
        ConfigError: a range without length.
    """

    a_min: float
    a_max: float
    b_min: float | None = None
    b_max: float | None = None
    clip: bool = False
    name: Literal["scale-range"] = "scale-range"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (a study may not misspell a key)

    def __post_init__(self) -> None:
        if self.a_min == self.a_max:
            raise ConfigError("a range without length cannot be scaled", got=f"a_min = a_max = {self.a_min}")

    def __call__(self, x: Image) -> Image:
        """Scale."""
        y = (x - self.a_min) / (self.a_max - self.a_min)
        if self.b_min is not None and self.b_max is not None:
            y = y * (self.b_max - self.b_min) + self.b_min
        return y.clamp(self.b_min, self.b_max) if self.clip and (self.b_min, self.b_max) != (None, None) else y


@dataclass(frozen=True)
class MinMax(Intensity):
    """From the image's minimum and maximum to a range: MONAI's ``ScaleIntensity``; with ``channel_wise`` nnU-Net's
    ``RescaleTo01``.

    A constant image is multiplied with ``minv``, as in MONAI.

    Attributes:
        minv: what the minimum becomes.
        maxv: what the maximum becomes.
        channel_wise: each modality by itself; False: by the extremes over all modalities, as is MONAI's default.
    """

    minv: float = 0.0
    maxv: float = 1.0
    channel_wise: bool = False
    name: Literal["min-max"] = "min-max"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (a study may not misspell a key)

    def __call__(self, x: Image) -> Image:
        """Scale; the gradient reaches the extremes, shared where several voxels are extreme."""
        axes = tuple(range(2 if self.channel_wise else 1, x.ndim))
        low, high = x.amin(axes, keepdim=True), x.amax(axes, keepdim=True)
        constant = low == high
        start = torch.where(constant, low * self.minv, self.minv)
        return (x - low) / torch.where(constant, 1, high - low) * (self.maxv - self.minv) + start


@dataclass(frozen=True)
class Percentiles(Intensity):
    """From the image's own percentiles to a range: MONAI's ``ScaleIntensityRangePercentiles``.

    Percentiles are interpolated between two voxels, and both get their share of the gradient.

    Attributes:
        lower: the percentile that becomes ``b_min``, 0 to 100.
        upper: the percentile that becomes ``b_max``, 0 to 100.
        b_min: the new lower end; None together with ``b_max``: 0 to 1.
        b_max: the new upper end.
        clip: what lies beyond the ends becomes the ends, and its gradient 0; an end that is None does not clip.
        channel_wise: each modality by itself; False: by the percentiles over all modalities, as is MONAI's default.
        relative: the ends are those percentiles of the range from ``b_min`` to ``b_max``.

    Raises:
        ConfigError: no percentiles, or relative to no range.
    """

    lower: float
    upper: float
    b_min: float | None = 0.0
    b_max: float | None = 1.0
    clip: bool = False
    channel_wise: bool = False
    relative: bool = False
    name: Literal["percentiles"] = "percentiles"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (a study may not misspell a key)

    def __post_init__(self) -> None:
        if not 0 <= self.lower < self.upper <= 100:
            raise ConfigError(
                "these are no percentiles", got=(self.lower, self.upper), expected="0 ≤ lower < upper ≤ 100"
            )
        if self.relative and (self.b_min is None or self.b_max is None):
            raise ConfigError("percentiles of a range need the range", got=(self.b_min, self.b_max))

    def __call__(self, x: Image) -> Image:
        """Scale; the gradient reaches the voxels that are the percentiles."""
        rows = x.reshape(x.shape[0] * (x.shape[1] if self.channel_wise else 1), -1)
        ends = quantiles(rows, (self.lower / 100, self.upper / 100))
        shape = (x.shape[0], -1, *[1] * (x.ndim - 2))
        low, high = ends[:, 0].view(shape), ends[:, 1].view(shape)
        flat = low == high  # MONAI then only shifts, and does not clip
        y = (x - low) / torch.where(flat, 1, high - low)
        b_min, b_max = self.b_min, self.b_max
        if b_min is not None and b_max is not None:
            if self.relative:
                b_min, b_max = (b_min + (b_max - b_min) * share / 100 for share in (self.lower, self.upper))
            y = y * torch.where(flat, 1, b_max - b_min) + b_min
        elif b_min is not None:
            y = torch.where(flat, y + b_min, y)
        if not self.clip or (b_min, b_max) == (None, None):
            return y
        return torch.where(flat, y, y.clamp(b_min, b_max))


def quantiles(rows: Float[Tensor, "rows n"], shares: tuple[float, ...]) -> Float[Tensor, "rows shares"]:
    """Quantiles of each row, linear between neighbours, as NumPy's; by selection, and with a gradient."""
    last = rows.shape[1] - 1
    places = [share * last for share in shares]
    ranks = sorted({rank for place in places for rank in (floor(place), min(floor(place) + 1, last))})
    values = rows.gather(1, _places(rows.detach(), ranks))
    ends = []
    for place in places:
        low, high = values[:, ranks.index(floor(place))], values[:, ranks.index(min(floor(place) + 1, last))]
        ends.append(torch.lerp(low, high, place - floor(place)))
    return torch.stack(ends, 1)


def _places(rows: Float[Tensor, "rows n"], ranks: list[int]) -> Int[Tensor, "rows ranks"]:
    """Where in each row the k-th smallest elements stand."""
    if rows.is_cuda:
        return torch.stack([torch.kthvalue(rows, rank + 1).indices for rank in ranks], 1)
    return torch.as_tensor(
        np.stack([np.argpartition(row, ranks)[ranks] for row in rows.cpu().numpy()]), device=rows.device
    )
