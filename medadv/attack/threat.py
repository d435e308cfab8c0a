"""What may change: a ball around the clean input, a legal range, a support.

A ``Threat`` is settings and holds no tensors. Called with the clean inputs of a batch it becomes a ``ThreatModel``,
whose bounds are computed once in float64 and rounded inward, so that the budget holds exactly in the input's own
precision.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Protocol, Self, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from medadv.attack.budget import Budget, Scales
from medadv.attack.rng import Rng
from medadv.errors import ConfigError

Image = Float[Tensor, "b c *s"]


@runtime_checkable
class ThreatModel(Protocol):
    """A threat made concrete around one batch."""

    @property
    def clean(self) -> Image:
        """The clean input, around which everything is allowed or not."""
        ...

    @property
    def support(self) -> Bool[Tensor, "b c *s"]:
        """Where an input may change at all."""
        ...

    def project(self, x: Image) -> Image:
        """The nearest allowed input."""
        ...

    def ascent(self, gradient: Image) -> Image:
        """The move of unit budget that climbs fastest along a gradient."""
        ...

    def inside(self, x: Image) -> Bool[Tensor, "b"]:
        """Whether an input is allowed: exact, no tolerance."""
        ...

    def sample(self, rng: Rng) -> Image:
        """A random allowed input."""
        ...

    def size(self, x: Image) -> Float[Tensor, "b"]:
        """How much of the budget an input uses: 1 is all of it."""
        ...

    def zero_share(self, gradient: Image) -> Float[Tensor, "b"]:
        """The share of the support on which a gradient is exactly zero."""
        ...

    def take(self, index: Int[Tensor, "kept"]) -> ThreatModel:
        """The same for a part of the batch."""
        ...


@runtime_checkable
class Threat(Protocol):
    """What may change, as settings."""

    def __call__(self, x0: Image, support: Bool[Tensor, "b c *s"]) -> ThreatModel:
        """Make the threat concrete around clean inputs."""
        ...

    def scaled(self, factor: float) -> Threat:
        """The same threat with so many times the budget."""
        ...


Pair = tuple[int | float, int | float]
"""A lowest and a highest number."""

Legal = Literal["clean"] | Pair | None
"""The range of legal intensities: from the minimum to the maximum of each modality's support, a pair, or none."""


@dataclass(frozen=True)
class Budgeted:
    """What threats have in common: an amount, a legal range, and what a unit is worth.

    Attributes:
        budget: how much; a text or a number is read by ``Budget.parse``.
        legal: the range of legal intensities: ``"clean"`` for the minimum to maximum of each modality's support, a pair
            in stored units, or None.
        span: the range that 255 grey levels share where ``legal`` is no pair: ``(0, 255)`` of pictures; None for the
            support's minimum to maximum.

    Raises:
        BudgetError: a budget that cannot be read.
        ConfigError: a legal range or a span that is none.
    """

    budget: Budget
    legal: Legal = "clean"
    span: Pair | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "budget", Budget.parse(self.budget))
        for name in ("legal", "span"):
            if isinstance(pair := getattr(self, name), list | tuple) and _is_pair(tuple(pair)):
                object.__setattr__(self, name, tuple(map(float, pair)))
        if not _is_pair(self.legal) and self.legal not in ("clean", None):
            raise ConfigError(
                "this is no legal range",
                got=self.legal,
                expected='"clean", a pair (lowest, highest) in stored units, or None',
            )
        if self.span is not None and not (_is_pair(self.span) and self.span[0] < self.span[1]):
            raise ConfigError("grey levels share no such range", got=self.span, expected="(0, 255), or None")

    def scales(self, x0: Image, support: Bool[Tensor, "b c *s"]) -> Scales:
        """What each unit is worth around these inputs."""
        return Scales(x0, support, self.legal if isinstance(self.legal, tuple) else self.span)

    def scaled(self, factor: float) -> Self:
        """The same threat with so many times the budget."""
        return replace(self, budget=self.budget.scaled(factor))

    def range(self, clean: Float[Tensor, "*s"], where: Bool[Tensor, "*s"]) -> tuple[float, float]:
        """The lowest and the highest legal intensity of one modality of one sample."""
        if self.legal is None or not where.any():
            return -torch.inf, torch.inf
        if self.legal == "clean":
            low, high = torch.where(where, clean, torch.inf).amin(), torch.where(where, clean, -torch.inf).amax()
            return low.item(), high.item()
        return self.legal


def _is_pair(numbers: object) -> bool:
    listed = isinstance(numbers, tuple) and len(numbers) == 2 and all(isinstance(n, int | float) for n in numbers)
    return listed and bool(numbers[0] <= numbers[1])  # type: ignore[index]


@dataclass(frozen=True)
class Linf(Budgeted):
    """Every voxel may change by at most the budget of its modality (Goodfellow et al. 2015, arXiv:1412.6572).

    Attributes and errors are those of ``Budgeted``.
    """

    def __call__(self, x0: Image, support: Bool[Tensor, "b c *s"]) -> Box:
        """The box around ``x0``: ball and legal range inside the support, ``x0`` itself outside."""
        radius = self.budget.resolve(self.scales(x0, support))
        lower, upper = torch.empty_like(x0), torch.empty_like(x0)
        for i in range(x0.shape[0]):
            for j in range(x0.shape[1]):  # a channel at a time: float64 copies of a whole volume would cost memory
                clean, where = x0[i, j], support[i, j]
                low, high = self.range(clean, where)
                reach = radius[i, j] * where
                lower[i, j] = _lowest(clean, reach, low)
                upper[i, j] = -_lowest(-clean, reach, -high)
        return Box(x0, lower, upper, radius, support, can_reach_zero(x0, lower, upper))


def can_reach_zero(clean: Image, lower: Image, upper: Image) -> bool:
    """Whether any voxel between two bounds could become zero that is not, or is -0.0."""
    return bool(((lower <= 0) & (upper >= 0) & ((clean != 0) | clean.signbit())).any())


@dataclass(frozen=True, eq=False)
class Box:
    """The allowed inputs of an L∞ threat: between two bounds, voxel by voxel.

    A voxel that was not zero never becomes exactly zero: pipelines find the head by its zeros, and a zero inside it
    would be an attack on that search, not on the network.
    """

    clean: Image
    lower: Image
    upper: Image
    radius: Float[Tensor, "b c"]
    support: Bool[Tensor, "b c *s"]
    zeros: bool
    """Whether any voxel could reach zero, or is -0.0: else a clamp is all."""

    def project(self, x: Image) -> Image:
        """Clamp to the bounds, and off the zero."""
        y = torch.clamp(x, self.lower, self.upper)
        if not self.zeros:
            return y
        # Where the clean voxel is 0 so is tiny, with its sign, which a clamp may lose.
        tiny = self.clean.abs().clamp_(max=torch.finfo(x.dtype).tiny).copysign_(self.clean)
        return torch.where(y == 0, tiny, y)

    def ascent(self, gradient: Image) -> Image:
        """The sign of the gradient times the radius; zero outside the support. Not cut at the box: steps come back."""
        radius = self.radius.to(gradient.dtype).view(*self.radius.shape, *[1] * (gradient.ndim - 2))
        return gradient.sign().mul_(radius).mul_(self.support)

    def inside(self, x: Image) -> Bool[Tensor, "b"]:
        """Against the bounds themselves."""
        fits = (x >= self.lower) & (x <= self.upper)
        if self.zeros:
            fits &= (x != 0) | (self.clean == 0)
        return fits.flatten(1).all(1)

    def sample(self, rng: Rng) -> Image:
        """Uniform between the bounds, each voxel by itself."""
        return self.project(torch.lerp(self.lower, self.upper, rng.uniform(self.clean)))

    def size(self, x: Image) -> Float[Tensor, "b"]:
        """The largest change over its modality's radius; 0 where there is no radius."""
        # A channel at a time, because float64 copies of a whole volume cost memory.
        farthest = [
            (a.double() - b.double()).abs().amax()
            for a, b in zip(x.flatten(0, 1), self.clean.flatten(0, 1), strict=True)
        ]
        change = torch.stack(farthest).view_as(self.radius)
        shares = torch.where(self.radius > 0, change / self.radius, torch.where(change > 0, torch.inf, 0.0))
        return shares.amax(1)

    def zero_share(self, gradient: Image) -> Float[Tensor, "b"]:
        """Exactly zero gradients inside the support, over its voxels."""
        voxels = self.support.flatten(1).sum(1)
        return ((gradient == 0) & self.support).flatten(1).sum(1) / voxels.clamp(min=1)

    def take(self, index: Int[Tensor, "kept"]) -> Self:
        """The same for a part of the batch."""
        clean, lower, upper, radius, support = (
            t[index] for t in (self.clean, self.lower, self.upper, self.radius, self.support)
        )
        return type(self)(clean, lower, upper, radius, support, self.zeros)


def _lowest(clean: Float[Tensor, "*s"], reach: Float[Tensor, "*s"], low: float) -> Float[Tensor, "*s"]:
    """The smallest allowed numbers of the input's precision: measured in float64, which rounds, too."""
    exact = clean.double()
    lowest = (exact - reach).to(clean.dtype)
    lowest = torch.where(exact - lowest.double() > reach, _above(lowest), lowest)
    edge = clean.new_tensor(low)
    return lowest.clamp(min=edge if edge.item() >= low else _above(edge)).minimum(clean)


def _above(x: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    return x.nextafter(x.new_tensor(torch.inf))
