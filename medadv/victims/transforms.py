"""Input transforms: smoothing, fewer grey levels, fewer voxels, in front of all that a victim does to stored voxels.

They were proposed as defences (feature squeezing: Xu et al. 2018, arXiv:1704.01155). What they hide from an attack is
at most their gradient, and ``StraightThrough`` gives it another one (Athalye et al. 2018, arXiv:1802.00420).

All of them leave zeros zero and non-zeros non-zero, since the head is found by its zeros, and work inside each
modality's own non-zero voxels: what lies beyond does not count, and does not darken the border of the head. In pictures
zeros are black: with ``nonzero=False`` they are voxels like all others. Lengths are in voxels of the stored grid,
whatever their size in mm; the grid stays. Two and three axes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from math import inf
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor
from torch.autograd import Function

from medadv.errors import ConfigError
from medadv.victims.jpeg import Jpeg
from medadv.victims.median import Median
from medadv.victims.preprocess import UNSAID, Image, Intensity
from medadv.victims.resample import Matrix, Stage

REACH = 4
"""Standard deviations after which a Gaussian ends: SciPy's ``truncate``."""

TINY = torch.finfo(torch.float32).tiny
"""What stands for a zero that a transform made of something else: still no zero where a predictor reads float32."""


@dataclass(frozen=True)
class GaussianSmoothing(Intensity):
    """Each voxel becomes a Gaussian mean of its neighbourhood, over the non-zero voxels in it.

    With G SciPy's ``gaussian_filter(mode="constant")`` and m the mask of non-zero voxels: y = G(x) / G(m) inside m.
    The gradient is exact, with the mask held fixed.

    Attributes:
        sigma: the standard deviation along each axis, voxels.
        nonzero: False counts zeros as well and changes them: for pictures.

    Raises:
        ConfigError: no positive number.
    """

    sigma: float
    nonzero: bool = field(default=True, metadata=UNSAID)
    name: Literal["gaussian smoothing"] = "gaussian smoothing"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (a study may not misspell a key)

    def __post_init__(self) -> None:
        if not is_number(self.sigma) or not 0 < self.sigma < inf:
            raise ConfigError(
                "a Gaussian has a positive width",
                got=f"sigma = {self.sigma!r}",
                expected="its standard deviation in voxels: for example 1.0",
                advice="for no smoothing, leave the transform away",
            )
        object.__setattr__(self, "sigma", float(self.sigma))

    def __call__(self, x: Image) -> Image:
        """Smooth."""
        return _averaged(x, Stage(tuple(_gaussian(n, self.sigma) for n in x.shape[2:])), self.nonzero)


@dataclass(frozen=True)
class MedianSmoothing(Intensity):
    """Each voxel becomes the median of the non-zero voxels in a cube around it; of an even number, the lower one.

    Where no voxel of the cube is zero, it is SciPy's ``median_filter``. The gradient is exact: it goes to the voxel
    that was selected, of equal ones to the first.

    Attributes:
        size: of the cube along each axis, voxels; odd.
        nonzero: False counts zeros as well and changes them: for pictures.

    Raises:
        ConfigError: no odd number.
    """

    size: int
    nonzero: bool = field(default=True, metadata=UNSAID)
    name: Literal["median smoothing"] = "median smoothing"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (a study may not misspell a key)

    def __post_init__(self) -> None:
        if type(self.size) is not int or self.size < 1 or self.size % 2 == 0:
            raise ConfigError(
                "a median is taken of an odd number of voxels along each axis, so that one is in the middle",
                got=f"size = {self.size!r}",
                expected="3, 5 or another odd number",
            )

    def __call__(self, x: Image) -> Image:
        """Smooth."""
        smooth: Image = Median.apply(x, self.size, _counted(x, self.nonzero))
        return kept(x, smooth) if self.nonzero else smooth


@dataclass(frozen=True)
class BitDepth(Intensity):
    """Each modality on 2**bits levels, evenly from its minimum to its maximum over the non-zero voxels.

    The gradient of rounding is zero almost everywhere. Minimum and maximum have one, and nothing else has: an attack
    through the bare transform is blind, and ``StraightThrough`` is not.

    Attributes:
        bits: 1 to 24, which is all that float32 holds.
        span: the lowest and the highest level, the same for every image: (0, 255) for pictures. What lies beyond is
            clipped. None: each modality's minimum and maximum.
        nonzero: False counts zeros as well and changes them: for pictures.

    Raises:
        ConfigError: another number of bits, or a span that is none.
    """

    bits: int
    span: tuple[float, float] | None = field(default=None, metadata=UNSAID)
    nonzero: bool = field(default=True, metadata=UNSAID)
    name: Literal["bit depth"] = "bit depth"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (a study may not misspell a key)

    def __post_init__(self) -> None:
        if type(self.bits) is not int or not 1 <= self.bits <= 24:
            raise ConfigError(
                "a bit depth is a whole number of bits",
                got=f"bits = {self.bits!r}",
                expected="1 to 24: float32 holds no more",
                advice="4 bits are 16 grey levels",
            )
        if self.span is not None:
            if not ascending(self.span):
                raise ConfigError("levels lie between two numbers", got=self.span, expected="for example (0, 255)")
            object.__setattr__(self, "span", tuple(map(float, self.span)))

    def __call__(self, x: Image) -> Image:
        """Round to the nearest level, half to even."""
        inside, axes = _counted(x, self.nonzero), tuple(range(2, x.ndim))
        if self.span is None:
            low = torch.where(inside, x, inf).amin(axes, keepdim=True)
            high = torch.where(inside, x, -inf).amax(axes, keepdim=True)
        else:
            low, high = (x.new_full((len(x), x.shape[1], *[1] * len(axes)), limit) for limit in self.span)
        varies = low < high  # neither a constant modality nor an empty one
        low, high = torch.where(varies, low, 0), torch.where(varies, high, 1)
        steps = 2**self.bits - 1
        level = torch.round((x - low) / (high - low) * steps).clamp(0, steps)
        y = torch.where(varies, torch.lerp(low, high, level / steps), x)
        return kept(x, y) if self.nonzero else y


@dataclass(frozen=True)
class Resampled(Intensity):
    """Onto a grid with larger voxels and back, linearly along each axis, over the non-zero voxels.

    Down as ``torch.nn.functional.interpolate(antialias=True)``: a triangle as wide as two new voxels, so that every old
    voxel counts; up by linear interpolation. An axis of n voxels has n / factor in between, rounded. With A both
    together and m the mask of non-zero voxels: y = A(x) / A(m) inside m. The gradient is exact, with the mask held
    fixed.

    Attributes:
        factor: how many times longer voxels become; 1 changes nothing.
        nonzero: False counts zeros as well and changes them: for pictures.

    Raises:
        ConfigError: less than 1.
    """

    factor: float
    nonzero: bool = field(default=True, metadata=UNSAID)
    name: Literal["resampling"] = "resampling"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (a study may not misspell a key)

    def __post_init__(self) -> None:
        if not is_number(self.factor) or not 1 <= self.factor < inf:
            raise ConfigError(
                "resampling makes voxels larger, and then small again",
                got=f"factor = {self.factor!r}",
                expected="1 or more: 2 halves the number of voxels along each axis",
            )
        object.__setattr__(self, "factor", float(self.factor))

    def __call__(self, x: Image) -> Image:
        """Down, and up again."""
        stage = Stage(tuple(_down_and_up(n, max(round(n / self.factor), 1)) for n in x.shape[2:]))
        return _averaged(x, stage, self.nonzero)


InputTransform = GaussianSmoothing | MedianSmoothing | BitDepth | Resampled | Jpeg
"""What a study can name as a defence: told apart by ``name``."""


@dataclass(frozen=True)
class StraightThrough(Intensity):
    """A transform forwards, bit for bit, and the gradient of another one backwards: the identity's, if none is named.

    It is the straight-through estimator (Bengio et al. 2013, arXiv:1308.3432), and what an adaptive attack on a
    transform without useful gradient does (BPDA: Athalye et al. 2018, arXiv:1802.00420). The gradient that results is
    that of a substitute: finite differences of the victim do not find it.

    Attributes:
        step: what is done to the image.
        backward: whose gradient is used; None for the identity.

    Raises:
        ConfigError: something that is no transform.
    """

    step: Annotated[InputTransform, Field(discriminator="name")]
    backward: Annotated[InputTransform, Field(discriminator="name")] | None = None
    name: Literal["straight-through"] = "straight-through"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (a study may not misspell a key)

    def __post_init__(self) -> None:
        if not isinstance(self.step, InputTransform) or not isinstance(self.backward, InputTransform | None):
            raise no_transform(self.backward if isinstance(self.step, InputTransform) else self.step)

    def __call__(self, x: Image) -> Image:
        """The transform's own answer; the substitute's gradient."""
        with torch.no_grad():
            exact = self.step(x)
        if not (torch.is_grad_enabled() and x.requires_grad):
            return exact
        result: Image = _Instead.apply(x if self.backward is None else self.backward(x), exact)
        return result


def no_transform(got: object) -> ConfigError:
    """The error of something that is no input transform."""
    return ConfigError(
        "this is no input transform",
        got=repr(got),
        expected="GaussianSmoothing(sigma), MedianSmoothing(size), BitDepth(bits), Resampled(factor) or Jpeg(quality)",
        advice="other steps of preprocessing stand in the victim's own: Segmenter(preprocess=…)",
    )


def is_number(value: object) -> bool:
    """An int or a float."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def ascending(values: object) -> bool:
    """Two finite numbers, the second above the first."""
    given = tuple(values) if isinstance(values, tuple | list) else ()
    return len(given) == 2 and all(map(is_number, given)) and -inf < given[0] < given[1] < inf


def kept(x: Image, y: Image) -> Image:
    """What was zero as it was, and the rest as it has become, but never zero."""
    inside = x != 0
    y = torch.where(inside, y, x)
    return y + (inside & (y == 0)) * TINY


def _counted(x: Image, nonzero: bool) -> Bool[Tensor, "b c *s"]:
    """The voxels that count."""
    return x != 0 if nonzero else torch.ones_like(x, dtype=torch.bool)


def _averaged(x: Image, stage: Stage, nonzero: bool) -> Image:
    """Weighted means over the voxels that count: the weights of a linear map, summing to 1 among them."""
    inside = _counted(x, nonzero)
    weight = stage(inside.to(x.dtype))
    y = stage(x * inside) / torch.where(inside, weight, 1)  # each voxel has a weight in its own mean
    return kept(x, y) if nonzero else y


@lru_cache(maxsize=64)
def _gaussian(n: int, sigma: float) -> Matrix:
    """The weights of an axis of n voxels with zeros beyond its ends, as SciPy's but for their scale, which cancels."""
    places = torch.arange(n, dtype=torch.float64)
    apart = (places[:, None] - places).abs()
    weights = torch.exp(-0.5 * (apart / sigma).square())
    return torch.where(apart <= REACH * sigma + 0.5, weights, 0) / weights[n // 2].sum()


@lru_cache(maxsize=64)
def _down_and_up(n: int, m: int) -> Matrix | None:
    """An axis of n voxels averaged to m, and interpolated to n again; None where nothing changes."""
    if m == n:
        return None
    old, new = torch.arange(n, dtype=torch.float64), torch.arange(m, dtype=torch.float64)
    centres = (new + 0.5) * (n / m) - 0.5
    down = (1 - (centres[:, None] - old).abs() * (m / n)).clamp(min=0)
    places = ((old + 0.5) * (m / n) - 0.5).clamp(0, m - 1)
    up = (1 - (places[:, None] - new).abs()).clamp(min=0)
    return up @ (down / down.sum(1, keepdim=True))


class _Instead(Function):
    """The second forwards, the first backwards."""

    @staticmethod
    def forward(ctx: Any, substitute: Image, exact: Image) -> Float[Tensor, "b c *s"]:  # noqa: ARG004
        return exact.view_as(exact)

    @staticmethod
    def backward(ctx: Any, g: Image) -> tuple[Image, None]:  # noqa: ARG004
        return g, None
