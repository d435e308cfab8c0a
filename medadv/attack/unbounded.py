"""``Unbounded``: the budget is the length of a step, and their sum has no bound (Xie et al. 2017, arXiv:1703.08603)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from medadv.attack.rng import Rng
from medadv.attack.threat import Box, Budgeted, Image, Legal, can_reach_zero


@dataclass(frozen=True)
class Unbounded(Budgeted):
    """Every step is of length γ in L∞, along the gradient itself; how far they lead is not limited.

    The amount of change is then a result, and no premise: report it. Attributes and errors are those of ``Budgeted``,
    but ``budget`` is γ, and there is no legal range unless one is given: Xie et al. clip nothing.
    """

    legal: Legal = None

    def __call__(self, x0: Image, support: Bool[Tensor, "b c *s"]) -> Space:
        """All that is legal inside the support, ``x0`` itself outside; ``x0`` is legal in any case."""
        radius = self.budget.resolve(self.scales(x0, support))
        lower, upper = x0.clone(), x0.clone()
        for i in range(x0.shape[0]):
            for j in range(x0.shape[1]):
                clean, where = x0[i, j], support[i, j]
                low, high = self.range(clean, where)
                lower[i, j] = torch.where(where, clean.clamp(max=low), clean)
                upper[i, j] = torch.where(where, clean.clamp(min=high), clean)
        return Space(x0, lower, upper, radius, support, can_reach_zero(x0, lower, upper))


@dataclass(frozen=True, eq=False)
class Space(Box):
    """The allowed inputs of an unbounded threat: the legal range inside the support, and γ for each modality.

    As in a ``Box``, a voxel that was not zero never becomes exactly zero.
    """

    def ascent(self, gradient: Image) -> Image:
        """γ g / ‖g‖∞ for each sample, over its support; zero where there is no gradient (Xie et al. 2017, Algorithm 1).

        Modalities of different γ are measured each in its own: with u = x / γ, the move is ∇u / ‖∇u‖∞ of u. So the
        largest move is γ of its modality, and does not depend on the modalities' units.
        """
        axes = (1,) * (gradient.ndim - 2)
        radius = self.radius.to(gradient.dtype).view(*self.radius.shape, *axes)
        widest = radius.amax(1, keepdim=True)
        share = torch.where(widest > 0, radius / widest, 0)  # one γ for all: 1, and the gradient is as it came
        move = gradient * self.support
        move.mul_(share)
        peak = move.abs().flatten(1).amax(1).view(-1, 1, *axes)
        return move.div_(torch.where(peak > 0, peak, 1)).mul_(radius)

    def inside(self, x: Image) -> Bool[Tensor, "b"]:
        """Finite, legal, and unchanged outside the support."""
        return super().inside(x) & torch.isfinite(x).flatten(1).all(1)

    def sample(self, rng: Rng) -> Image:
        """At most one step away, each voxel by itself, uniformly: there is no uniform draw from all of it."""
        radius = self.radius.to(self.clean.dtype).view(*self.radius.shape, *[1] * (self.clean.ndim - 2))
        return self.project(self.clean + (2 * rng.uniform(self.clean) - 1) * radius * self.support)

    def size(self, x: Image) -> Float[Tensor, "b"]:
        """The largest change as a number of γ of its modality: at most the number of steps."""
        return super().size(x)
