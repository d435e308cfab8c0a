"""Crops and padding: boxes of the old grid, with their gradient and their way back.

Voxels are cut away or set around, and none is changed. On the way back, what was cut away is background.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from medadv.errors import VictimError
from medadv.victims.grid import after, each, listed
from medadv.victims.preprocess import Affine, Image, Placed

Box = tuple[tuple[int, int], ...]  # first voxel and one past the last, along each axis; may reach beyond the image


@dataclass(frozen=True)
class CropForeground:
    """The box around what is above a threshold: MONAI's ``CropForeground``.

    The box is a discrete choice: made by the clean image when an attack is prepared, and made anew for scoring.

    Attributes:
        margin: voxels around it, along each axis or along all. Beyond the image they are zeros.
        channels: the modalities that decide, by their place; None: any of them.
        above: foreground is above this.
        allow_smaller: the margin ends where the image ends.
        k_divisible: the box grows to a multiple of this, along each axis or along all.

    Raises:
        ConfigError: settings that are no whole numbers or below nothing.
    """

    margin: int | tuple[int, ...] = 0
    channels: tuple[int, ...] | None = None
    above: float = 0.0
    allow_smaller: bool = False
    k_divisible: int | tuple[int, ...] = 1
    name: Literal["crop-foreground"] = "crop-foreground"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (a study may not misspell a key)

    def __post_init__(self) -> None:
        listed(self, "margin", 0)
        listed(self, "k_divisible", 1)
        if self.channels is not None:
            listed(self, "channels", 0)

    def prepare(self, x: Image, affine: Affine | None) -> Placed:
        """The step with the box of this image.

        Raises:
            VictimError: nothing is above the threshold, the samples of a batch have different boxes, or the settings
                are made for another number of axes or modalities.
        """
        shape = tuple(x.shape[2:])
        if self.channels is not None and max(self.channels) >= x.shape[1]:
            raise VictimError(
                f"the step {self.name!r} looks at modalities that the image does not have",
                got=f"{x.shape[1]} modalities",
                expected=f"more than {max(self.channels)}",
            )
        seen = x if self.channels is None else x[:, list(self.channels)]
        found = _box((seen > self.above).any(1), self.name)
        margins, multiples = each(self.margin, len(shape), self.name), each(self.k_divisible, len(shape), self.name)
        box = []
        for (first, end), margin, k, size in zip(found, margins, multiples, shape, strict=True):
            first, end = first - margin, end + margin
            if self.allow_smaller:
                first, end = max(first, 0), min(end, size)
            missing = -(end - first) % k
            box.append((first - missing // 2, end + missing - missing // 2))
        return _Boxed.of(tuple(box), shape, affine)


@dataclass(frozen=True)
class CropNonzero:
    """The box of all voxels that are not zero in any modality: nnU-Net's ``crop_to_nonzero``.

    The box is a discrete choice: made by the clean image when an attack is prepared, and made anew for scoring.
    """

    name: Literal["crop-nonzero"] = "crop-nonzero"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (a study may not misspell a key)

    def prepare(self, x: Image, affine: Affine | None) -> Placed:
        """The step with the box of this image; the whole of it where all is zero.

        Raises:
            VictimError: the samples of a batch have different boxes.
        """
        seen = (x != 0).any(1)
        shape = tuple(x.shape[2:])
        return _Boxed.of(_box(seen, self.name) if seen.any() else tuple((0, n) for n in shape), shape, affine)


@dataclass(frozen=True)
class Pad:
    """At least a given size: MONAI's ``SpatialPad(spatial_size, method)`` with a constant.

    Attributes:
        to: voxels along each axis, or along all; 0 or less keeps an axis.
        method: ``symmetric`` (the odd voxel at the end) or ``end``.
        value: what is set around; for each modality, or for all.

    Raises:
        ConfigError: sizes that are no whole numbers.
    """

    to: int | tuple[int, ...]
    method: Literal["symmetric", "end"] = "symmetric"
    value: float | tuple[float, ...] = 0.0
    name: Literal["pad"] = "pad"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (a study may not misspell a key)

    def __post_init__(self) -> None:
        listed(self, "to")
        if isinstance(self.value, list):
            object.__setattr__(self, "value", tuple(self.value))

    def prepare(self, x: Image, affine: Affine | None) -> Placed:
        """The step for images of this shape.

        Raises:
            VictimError: the image has another number of axes, or of modalities.
        """
        if isinstance(self.value, tuple) and len(self.value) != x.shape[1]:
            raise VictimError(
                f"the step {self.name!r} has a value for each of other modalities than the image has",
                got=f"{len(self.value)} values",
                expected=f"{x.shape[1]}, or one for all",
            )
        return _padded(x, each(self.to, x.ndim - 2, self.name), self.method, self.value, affine)


@dataclass(frozen=True)
class DivisiblePad:
    """Sizes that can be divided: MONAI's ``DivisiblePad(k, method)`` with a constant.

    Attributes:
        k: along each axis, or along all; 0 or less keeps an axis.
        method: ``symmetric`` (the odd voxel at the end) or ``end``.
        value: what is set around.

    Raises:
        ConfigError: divisors that are no whole numbers.
    """

    k: int | tuple[int, ...]
    method: Literal["symmetric", "end"] = "symmetric"
    value: float = 0.0
    name: Literal["divisible-pad"] = "divisible-pad"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (a study may not misspell a key)

    def __post_init__(self) -> None:
        listed(self, "k")

    def prepare(self, x: Image, affine: Affine | None) -> Placed:
        """The step for images of this shape.

        Raises:
            VictimError: the image has another number of axes.
        """
        divisors = each(self.k, x.ndim - 2, self.name)
        sizes = tuple(n + (-n % k if k > 0 else 0) for n, k in zip(x.shape[2:], divisors, strict=True))
        return _padded(x, sizes, self.method, self.value, affine)


@dataclass(frozen=True)
class CenterSpatialCrop:
    """At most a given size, around the middle: MONAI's ``CenterSpatialCrop(roi_size)``.

    Attributes:
        to: voxels along each axis, or along all; 0 or less keeps an axis.

    Raises:
        ConfigError: sizes that are no whole numbers.
    """

    to: int | tuple[int, ...]
    name: Literal["center-spatial-crop"] = "center-spatial-crop"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (a study may not misspell a key)

    def __post_init__(self) -> None:
        listed(self, "to")

    def prepare(self, x: Image, affine: Affine | None) -> Placed:
        """The step for images of this shape.

        Raises:
            VictimError: the image has another number of axes.
        """
        shape = tuple(x.shape[2:])
        sizes = [size if size > 0 else n for n, size in zip(shape, each(self.to, len(shape), self.name), strict=True)]
        firsts = [max(n // 2 - size // 2, 0) for n, size in zip(shape, sizes, strict=True)]
        box = tuple((first, min(first + size, n)) for first, size, n in zip(firsts, sizes, shape, strict=True))
        return _Boxed.of(box, shape, affine)


@dataclass(frozen=True, eq=False)
class _Boxed:
    """A box of the old grid; where it reaches beyond, it is filled."""

    box: Box
    shape: tuple[int, ...]
    value: float | tuple[float, ...]
    affine: Affine | None

    @classmethod
    def of(
        cls, box: Box, shape: tuple[int, ...], affine: Affine | None, value: float | tuple[float, ...] = 0.0
    ) -> _Boxed:
        way = np.eye(len(shape) + 1)
        way[:-1, -1] = [first for first, _ in box]
        return cls(box, shape, value, after(affine, way))

    def __call__(self, x: Image) -> Float[Tensor, "b c *after"]:
        if not any(self._widths):
            return x
        if isinstance(self.value, tuple):
            channels = zip(x.unbind(1), self.value, strict=True)
            return torch.cat([F.pad(one[:, None], self._widths, value=value) for one, value in channels], 1)
        return F.pad(x, self._widths, value=self.value)

    def back(self, answer: Float[Tensor, "b k *after"], outside: Float[Tensor, "k"]) -> Float[Tensor, "b k *s"]:
        if not any(self._widths):
            return answer
        inside = [(max(first, 0), min(end, n)) for (first, end), n in zip(self.box, self.shape, strict=True)]
        ends = zip(inside, self.box, strict=True)
        there: tuple[Any, ...] = (..., *(slice(a - first, b - first) for (a, b), (first, _) in ends))
        kept = answer[there]
        if kept.shape[2:] == self.shape:
            return kept
        blank = outside.to(answer).view(1, -1, *[1] * len(self.shape))
        whole = blank.expand(*answer.shape[:2], *self.shape).clone()
        here: tuple[Any, ...] = (..., *(slice(a, b) for a, b in inside))
        whole[here] = kept
        return whole

    def labels(self, truth: Int[Tensor, "b *s"]) -> Int[Tensor, "b *after"]:
        return F.pad(truth, self._widths) if any(self._widths) else truth

    @property
    def _widths(self) -> list[int]:
        """What is set around, last axis first, as ``torch.nn.functional.pad`` wants it; negative where it is cut."""
        ends = zip(reversed(self.box), reversed(self.shape), strict=True)
        return [width for (first, end), size in ends for width in (-first, end - size)]


def _padded(
    x: Image, to: tuple[int, ...], method: str, value: float | tuple[float, ...], affine: Affine | None
) -> _Boxed:
    shape = tuple(x.shape[2:])
    widths = [max(size - n, 0) for n, size in zip(shape, to, strict=True)]
    before = [width // 2 if method == "symmetric" else 0 for width in widths]
    box = tuple((-a, n + width - a) for a, n, width in zip(before, shape, widths, strict=True))
    return _Boxed.of(box, shape, affine, value)


def _box(seen: Bool[Tensor, "b *s"], step: str) -> Box:
    """The smallest box around what is seen, the same for all samples."""
    axes = range(seen.ndim - 1)
    boxes = set()
    for sample in seen:
        if not sample.any():
            raise VictimError(
                f"the step {step!r} finds nothing that it could crop to",
                got="an image without foreground",
                advice="look at the image; where background is not zero, say above what foreground lies",
            )
        lines = [sample.any([other for other in axes if other != axis]).nonzero() for axis in axes]
        boxes.add(tuple((int(line[0]), int(line[-1]) + 1) for line in lines))
    if len(boxes) > 1:
        raise VictimError(
            f"the step {step!r} crops the images of this batch to different boxes",
            got=f"{len(boxes)} boxes in a batch of {len(seen)}",
            advice="give one case at a time",
        )
    return boxes.pop()
