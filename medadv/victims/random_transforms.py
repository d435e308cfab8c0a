"""Random input transforms: another size and place, noise, flips, in front of all that a victim does to stored voxels.

They were proposed as defences (Xie et al. 2018, arXiv:1711.01991). Each draws once for an attack that is prepared, from
the attack's own streams, so that its gradient is exact; ``Draws`` averages the loss over several draws (Athalye et al.
2018, arXiv:1802.00420). What is scored draws anew, from a stream that hangs on the image alone: fresh to the attack,
and the same whenever the same image is scored. Two and three axes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from medadv.attack.rng import Rng
from medadv.errors import ConfigError, VictimError
from medadv.victims.combine import resized
from medadv.victims.grid import after
from medadv.victims.preprocess import Affine, Image, Placed, Step
from medadv.victims.transforms import TINY, is_number, kept

Box = tuple[tuple[int, int], ...]  # along each axis: the first voxel, and how many


class _Drawing:
    """What all random steps have in common: where their draws come from."""

    def drawn(self, rng: Rng) -> Step:
        """The step with the draws of these streams, one a sample."""
        return _Bound(self, rng)

    def prepare(self, x: Image, affine: Affine | None) -> Placed:
        """The step with draws that hang on each image alone."""
        return self.placed(x, affine, of_images(x))

    def placed(self, x: Image, affine: Affine | None, rng: Rng) -> Placed:
        """The step on these images, with these draws."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class _Bound:
    """A random step with streams of its own."""

    step: Any
    rng: Rng

    @property
    def name(self) -> str:
        return str(self.step.name)

    def prepare(self, x: Image, affine: Affine | None) -> Placed:
        placed: Placed = self.step.placed(x, affine, self.rng)
        return placed


def of_images(x: Image) -> Rng:
    """A stream for each image, by its voxels: for what is scored."""
    voxels = x.detach().cpu().contiguous().numpy()
    return Rng.seeded(0, [hashlib.sha256(one.tobytes()).hexdigest() for one in voxels]).fork("deployed")


@dataclass(frozen=True)
class RandomResizePad(_Drawing):
    """Each image in another size, at another place of a larger frame (Xie et al. 2018).

    One factor for all axes is drawn evenly, then the place of each axis, among all that fit. The frame is as large as
    the largest size, so that images of a batch go on together. Interpolation is linear; logits come back the same way.

    Attributes:
        scales: the least and the largest factor. Xie et al. resize 299 pixels to 299 … 330, in a frame of 331.
        value: what fills the frame, in stored units.
        nonzero: for heads: zeros do not count. A new voxel is a mean over non-zero ones, and zero where half of its
            weight or more is not theirs: a border that darkens would change the head's statistics. False for pictures.

    Raises:
        ConfigError: no two positive numbers in order, or a value that is none.
    """

    scales: tuple[float, float] = (1.0, 1.1)
    value: float = 0.0
    nonzero: bool = True
    name: Literal["random resize-pad"] = "random resize-pad"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (a study may not misspell a key)

    def __post_init__(self) -> None:
        given = self.scales if isinstance(self.scales, Sequence) else ()
        if len(given) != 2 or not all(map(is_number, given)) or not 0 < given[0] <= given[1] < inf:
            raise ConfigError(
                "a random size lies between two factors",
                got=repr(self.scales),
                expected="the least and the largest, positive: for example (1.0, 1.1)",
            )
        if not is_number(self.value) or not -inf < self.value < inf:
            raise ConfigError("a frame is filled with a number", got=repr(self.value))
        object.__setattr__(self, "scales", (float(given[0]), float(given[1])))
        object.__setattr__(self, "value", float(self.value))

    def placed(self, x: Image, affine: Affine | None, rng: Rng) -> Placed:
        """Sizes and places for these images.

        Raises:
            VictimError: several images, and a place in space that they would not share afterwards.
        """
        _check_place(affine, x, self.name)
        shape, (least, largest) = tuple(x.shape[2:]), self.scales
        frame = tuple(max(round(n * largest), 1) for n in shape)
        boxes = []
        for draw in rng.uniform(torch.empty(len(x), 1 + len(shape), dtype=torch.float64)).tolist():
            factor = least + (largest - least) * draw[0]
            sizes = [min(max(round(n * factor), 1), size) for n, size in zip(shape, frame, strict=True)]
            firsts = [int(u * (n - size + 1)) for u, n, size in zip(draw[1:], frame, sizes, strict=True)]
            boxes.append(tuple(zip(firsts, sizes, strict=True)))
        way = np.eye(len(shape) + 1)
        for axis, ((first, size), n) in enumerate(zip(boxes[0], shape, strict=True)):
            way[axis, axis], way[axis, -1] = n / size, (0.5 - first) * n / size - 0.5
        return _Framed(tuple(boxes), shape, frame, self.value, self.nonzero, after(affine, way))


@dataclass(frozen=True)
class RandomNoise(_Drawing):
    """Noise added to each voxel, drawn for each on its own.

    Attributes:
        size: the standard deviation of Gaussian noise; of uniform noise the largest value, whose negative is the least.
        kind: ``gaussian`` or ``uniform``.
        unit: ``stored``, or ``sigma``: standard deviations of each modality over its voxels that count, of the image on
            which the step is prepared.
        nonzero: zeros stay zero, do not count, and nothing else becomes zero: for heads. False for pictures.

    Raises:
        ConfigError: no positive size, or another word.
    """

    size: float
    kind: Literal["gaussian", "uniform"] = "gaussian"
    unit: Literal["stored", "sigma"] = "stored"
    nonzero: bool = True
    name: Literal["random noise"] = "random noise"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (a study may not misspell a key)

    def __post_init__(self) -> None:
        if not is_number(self.size) or not 0 < self.size < inf:
            raise ConfigError(
                "noise has a positive size",
                got=f"size = {self.size!r}",
                expected="in stored units, for pictures grey levels: for example 8.0",
                advice="for no noise, leave the transform away",
            )
        object.__setattr__(self, "size", float(self.size))
        if self.kind not in ("gaussian", "uniform") or self.unit not in ("stored", "sigma"):
            raise ConfigError(
                "there is no such noise",
                got=f"{self.kind!r} in {self.unit!r}",
                expected="gaussian or uniform, in stored or sigma",
            )

    def placed(self, x: Image, affine: Affine | None, rng: Rng) -> Placed:
        """The noise of these images."""
        noise = rng.normal(x) if self.kind == "gaussian" else rng.uniform(x) * 2 - 1
        return _Noisy(noise * self.size * self._one(x), self.nonzero, affine)

    def _one(self, x: Image) -> float | Float[Tensor, "b c *_"]:
        """One unit, in stored units."""
        if self.unit == "stored":
            return 1.0
        inside = x != 0 if self.nonzero else torch.ones_like(x, dtype=torch.bool)
        axes = tuple(range(2, x.ndim))
        count = inside.sum(axes, keepdim=True).clamp(min=1)
        apart = torch.where(inside, x - torch.where(inside, x, 0).sum(axes, keepdim=True) / count, 0)
        return (apart.square().sum(axes, keepdim=True) / count).sqrt()


@dataclass(frozen=True)
class RandomFlip(_Drawing):
    """Each image mirrored along some axes, or not; logits are turned back.

    Attributes:
        axes: axes of space, from 0: of a picture, 1 turns left to right.
        probability: of a flip, for each axis on its own.

    Raises:
        ConfigError: no axes of space, each once, or no probability.
    """

    axes: tuple[int, ...] = (1,)
    probability: float = 0.5
    name: Literal["random flip"] = "random flip"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (a study may not misspell a key)

    def __post_init__(self) -> None:
        given = tuple(self.axes) if isinstance(self.axes, Sequence) else ()
        if not given or not all(type(axis) is int and axis >= 0 for axis in given) or len(set(given)) < len(given):
            raise ConfigError("flips take axes of space, each once", got=repr(self.axes), expected="for example (1,)")
        if not is_number(self.probability) or not 0 < self.probability <= 1:
            raise ConfigError("a flip has a probability", got=repr(self.probability), expected="above 0, and at most 1")
        object.__setattr__(self, "axes", given)
        object.__setattr__(self, "probability", float(self.probability))

    def placed(self, x: Image, affine: Affine | None, rng: Rng) -> Placed:
        """The flips of these images.

        Raises:
            VictimError: no such axis; or several images, and a place in space that they would not share afterwards.
        """
        _check_place(affine, x, self.name)
        if max(self.axes) >= x.ndim - 2:
            raise VictimError("flips take axes of space", got=list(self.axes), expected=f"below {x.ndim - 2}")
        draws = rng.uniform(torch.empty(len(x), len(self.axes), dtype=torch.float64)) < self.probability
        flips = tuple(tuple(a for a, yes in zip(self.axes, one, strict=True) if yes) for one in draws.tolist())
        way = np.eye(x.ndim - 1)
        for axis in flips[0]:
            way[axis, axis], way[axis, -1] = -1, x.shape[axis + 2] - 1
        return _Flipped(flips, after(affine, way))


RandomTransform = RandomResizePad | RandomNoise | RandomFlip
"""What a study can name as a defence that draws: told apart by ``name``."""


@dataclass(frozen=True, eq=False)
class _Framed:
    """Each sample resized into a box of a frame: for each axis its first voxel and its length."""

    boxes: tuple[Box, ...]
    shape: tuple[int, ...]
    frame: tuple[int, ...]
    value: float
    nonzero: bool
    affine: Affine | None

    def __call__(self, x: Image) -> Float[Tensor, "b c *after"]:
        return torch.cat([self._put(self._small(one[None], _sizes(box)), box) for one, box in self._each(x)])

    def _small(self, x: Float[Tensor, "1 c *s"], sizes: list[int]) -> Float[Tensor, "1 c *small"]:
        y = resized(x, sizes)
        if not self.nonzero:
            return y
        weight = resized((x != 0).to(x.dtype), sizes)
        inside = weight > 0.5
        y = torch.where(inside, y / torch.where(inside, weight, 1), 0)
        return y + (inside & (y == 0)) * TINY

    def back(self, answer: Float[Tensor, "b k *after"], outside: Float[Tensor, "k"]) -> Float[Tensor, "b k *s"]:  # noqa: ARG002
        return torch.cat([resized(one[_inside(box)][None], self.shape) for one, box in self._each(answer)])

    def labels(self, truth: Int[Tensor, "b *s"]) -> Int[Tensor, "b *after"]:
        def near(one: Int[Tensor, "*s"], box: Box) -> Float[Tensor, "1 1 *small"]:
            return F.interpolate(one[None, None].double(), _sizes(box), mode="nearest-exact")

        return torch.cat([self._put(near(one, box), box, 0.0)[:, 0] for one, box in self._each(truth)]).to(truth)

    def take(self, index: Int[Tensor, "kept"]) -> _Framed:
        boxes = tuple(self.boxes[i] for i in index.tolist())
        return _Framed(boxes, self.shape, self.frame, self.value, self.nonzero, self.affine)

    def _each(self, x: Tensor) -> list[tuple[Tensor, Box]]:
        return list(zip(x, self.boxes, strict=True))

    def _put(self, small: Tensor, box: Box, value: float | None = None) -> Tensor:
        ends = zip(reversed(box), reversed(self.frame), strict=True)
        widths = [width for (first, size), n in ends for width in (first, n - first - size)]
        return F.pad(small, widths, value=self.value if value is None else value)


@dataclass(frozen=True, eq=False)
class _Noisy:
    """Noise that is added."""

    noise: Float[Tensor, "b c *s"]
    nonzero: bool
    affine: Affine | None

    def __call__(self, x: Image) -> Image:
        return kept(x, x + self.noise) if self.nonzero else x + self.noise

    def back(self, answer: Float[Tensor, "b k *s"], outside: Float[Tensor, "k"]) -> Float[Tensor, "b k *s"]:  # noqa: ARG002
        return answer

    def labels(self, truth: Int[Tensor, "b *s"]) -> Int[Tensor, "b *s"]:
        return truth

    def take(self, index: Int[Tensor, "kept"]) -> _Noisy:
        return _Noisy(self.noise[index], self.nonzero, self.affine)


@dataclass(frozen=True, eq=False)
class _Flipped:
    """Each sample flipped along axes of its own."""

    flips: tuple[tuple[int, ...], ...]
    affine: Affine | None

    def __call__(self, x: Image) -> Image:
        return self._turned(x, 1)

    def back(self, answer: Float[Tensor, "b k *s"], outside: Float[Tensor, "k"]) -> Float[Tensor, "b k *s"]:  # noqa: ARG002
        return self._turned(answer, 1)

    def labels(self, truth: Int[Tensor, "b *s"]) -> Int[Tensor, "b *s"]:
        return self._turned(truth, 0)

    def take(self, index: Int[Tensor, "kept"]) -> _Flipped:
        return _Flipped(tuple(self.flips[i] for i in index.tolist()), self.affine)

    def _turned(self, x: Tensor, channels: int) -> Tensor:
        each = zip(x, self.flips, strict=True)
        return torch.stack([one.flip([axis + channels for axis in axes]) if axes else one for one, axes in each])


def _sizes(box: Box) -> list[int]:
    return [size for _, size in box]


def _inside(box: Box) -> tuple[Any, ...]:
    return (..., *(slice(first, first + size) for first, size in box))


def _check_place(affine: Affine | None, x: Image, step: str) -> None:
    """Refuse a batch that would lie at several places in space."""
    if affine is not None and len(x) > 1:
        raise VictimError(
            f"the step {step!r} moves each image of a batch in another way, and a later step may ask where it lies",
            got=f"{len(x)} images at one place in space",
            advice="give one case at a time, or tell no affine: victim.at(None)",
        )
