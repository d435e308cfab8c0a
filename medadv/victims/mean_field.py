"""A dense CRF behind a segmenter: voxels that are near and look alike are to have the same label.

Inference is the mean-field approximation of Krähenbühl & Koltun 2011 (arXiv:1210.5644), unrolled for a fixed number of
iterations as in CRF-RNN (Zheng et al. 2015, arXiv:1502.03240). Two and three axes, softmax and region heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import inf
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from medadv.errors import ConfigError, VictimError
from medadv.victims.bilateral import bilateral
from medadv.victims.resample import Matrix, Stage

Logits = Float[Tensor, "b classes *targets"]
Image = Float[Tensor, "b c *s"]
Gradient = Literal["full", "detached", "by-passed"]
Unit = Literal["stored", "sigma"]


@dataclass(frozen=True)
class MeanField:
    """Logits refined by a mean field: ``Segmenter(..., refine=MeanField())``.

    With u the network's logits and Q = softmax(z), from z = u, so many times::

        z_i(l) = u_i(l) + a Σ_j k(i, j) Q_j(l) / Σ_j k(i, j) + s Σ_j κ(i, j) Q_j(l) / Σ_j κ(i, j)
        k(i, j) = exp(-‖p_i - p_j‖² / 2α² - ‖I_i - I_j‖² / 2β²),  κ(i, j) = exp(-‖p_i - p_j‖² / 2γ²)

    That is Potts compatibility: less energy for the same label, which the softmax cannot tell from more for another.
    As in CRF-RNN each kernel is normalised voxel by voxel, and a voxel takes part in its own sums. α and γ are in
    voxels, whatever their size in mm. I are the stored voxels of the victim's own modalities, and ‖·‖ adds these up.

    Attributes:
        appearance: a, the weight of the appearance kernel.
        smoothness: s, the weight of the smoothness kernel.
        alpha: α, how near, for the appearance kernel; voxels.
        beta: β, how alike, for the appearance kernel; in ``unit``.
        gamma: γ, how near, for the smoothness kernel; voxels.
        iterations: of the mean field. 0 leaves the logits as they are.
        radius: how far both kernels reach along each axis, voxels: beyond it they are 0, as in ConvCRF (Teichmann &
            Cipolla 2018, arXiv:1805.04777). None: as far as the image does, for up to 2048 voxels.
        unit: of β. ``stored``: stored units, grey levels for a picture. ``sigma``: the standard deviation of each
            modality over its non-zero voxels, of the image at hand, differentiated: MR has no unit of its own.
        gradient: what an attack differentiates. ``full``: logits and kernel both depend on the image. ``detached``: the
            kernel is held constant, as the published code of CRF-RNN does. ``by-passed``: the network's own logits, as
            if there were no CRF. What is deployed and scored is refined in any case.

    Raises:
        ConfigError: weights below 0, widths that are not positive, or no such unit, gradient or number of iterations.
    """

    appearance: float = 5.0
    smoothness: float = 3.0
    alpha: float = 160.0
    beta: float = 3.0
    gamma: float = 3.0
    iterations: int = 5
    radius: int | None = 5
    unit: Unit = "stored"
    gradient: Gradient = "full"
    name: Literal["mean-field CRF"] = "mean-field CRF"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (a study may not misspell a key)

    def __post_init__(self) -> None:
        for name in ("appearance", "smoothness", "alpha", "beta", "gamma"):
            value, width = getattr(self, name), name in ("alpha", "beta", "gamma")
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 <= value < inf or (width and value == 0):
                raise ConfigError(
                    f"the {name} of a mean-field CRF is {'a width' if width else 'a weight'}",
                    got=f"{name} = {value!r}",
                    expected="a positive number" if width else "a number, 0 or more",
                )
            object.__setattr__(self, name, float(value))
        if type(self.iterations) is not int or self.iterations < 0:
            raise ConfigError(
                "a mean field takes a whole number of iterations",
                got=f"iterations = {self.iterations!r}",
                expected="5 as CRF-RNN is trained with, 10 as it is tested with; 0 changes nothing",
            )
        if self.radius is not None and (type(self.radius) is not int or self.radius < 1):
            raise ConfigError(
                "a mean-field CRF reaches a whole number of voxels along each axis",
                got=f"radius = {self.radius!r}",
                expected="1 or more; None, for tiny images, as far as the image does",
            )
        for name, known in (("unit", get_args(Unit)), ("gradient", get_args(Gradient))):
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"a mean-field CRF has no such {name}",
                    got=repr(getattr(self, name)),
                    expected=" or ".join(map(repr, known)),
                )

    @property
    def by_passed(self) -> bool:
        """Whether an attack differentiates the network's own logits."""
        return self.gradient == "by-passed"

    def __call__(self, logits: Logits, x: Image) -> Logits:
        """Refined logits, never probabilities.

        Args:
            logits: of each voxel; where heads are independent, regions come before the axes of space.
            x: the stored voxels that the kernel looks at.

        Raises:
            VictimError: the logits lie on another grid.
            ConfigError: no radius, and too many voxels for all their pairs.
        """
        space = x.shape[2:]
        if len(logits) != len(x) or logits.shape[-len(space) :] != space:
            raise VictimError(
                "logits and image of a mean-field CRF lie on different grids",
                got=f"logits {tuple(logits.shape)}, an image {tuple(x.shape)}",
                expected="the same batch and the same axes of space",
            )
        with torch.autocast(x.device.type, enabled=False):
            precision = torch.promote_types(logits.dtype, x.dtype)
            return self._refined(logits.to(precision), x.to(precision))

    def _refined(self, unary: Logits, x: Image) -> Logits:
        guide = self._guide(x)
        spread = Stage(tuple(_gaussian(n, self.gamma, self.radius) for n in x.shape[2:]))
        logits = unary
        for _ in range(self.iterations):
            shares = logits.softmax(1).flatten(1, unary.ndim - x.ndim + 1)
            messages = torch.zeros_like(shares)
            if self.appearance:
                messages = messages + self.appearance * bilateral(shares, guide, self.alpha, self.radius)
            if self.smoothness:
                messages = messages + self.smoothness * spread(shares)
            logits = unary + messages.view_as(unary)
        return logits

    def _guide(self, x: Image) -> Image:
        """The image in units of β."""
        x = x.detach() if self.gradient == "detached" else x
        if self.unit == "stored":
            return x / self.beta
        inside, axes = x != 0, tuple(range(2, x.ndim))
        n = inside.sum(axes, keepdim=True).clamp(min=1)
        mean = x.sum(axes, keepdim=True) / n
        variance = ((x - mean) * inside).square().sum(axes, keepdim=True) / n
        # A constant's mean is rounded, and what is left of it is no spread: as a z-score has it.
        varies = variance > (16 * torch.finfo(x.dtype).eps * mean).square()
        return x / (self.beta * torch.where(varies, variance, 1).sqrt())


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # kept beyond this call, and then perhaps needed in a graph
def _gaussian(n: int, gamma: float, radius: int | None) -> Matrix:
    """The smoothness kernel along one axis, its rows summing to 1; over several axes it is a product."""
    places = torch.arange(n, dtype=torch.float64)
    apart = (places[:, None] - places).abs()
    weights = torch.exp(-(apart / gamma).square() / 2)
    weights = weights if radius is None else torch.where(apart <= radius, weights, 0)
    return weights / weights.sum(1, keepdim=True)
