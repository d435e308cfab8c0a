"""The bilateral filter: a mean over voxels that are near and look alike, differentiable in values and in image.

With p the place of a voxel and I its intensities, k(i, j) = exp(-‖p_i - p_j‖² / 2α² - ‖I_i - I_j‖² / 2), a voxel itself
included, and y_i = Σ_j k(i, j) v_j / Σ_j k(i, j) (Tomasi & Manduchi 1998). Over all pairs of voxels, or over those
inside a cube around each; then the image is worked on in small tiles, and the kernel of a few of them exists at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from medadv.errors import ConfigError

EXACT = 2048
"""Voxels of which all pairs are held at once, at most."""

CHUNK = {"cpu": 2**18}
"""Numbers of the kernel that exist at a time: on the CPU as many as a core keeps near itself."""

Values = Float[Tensor, "b k *s"]
Guide = Float[Tensor, "b c *s"]


def bilateral(values: Values, guide: Guide, alpha: float, radius: int | None) -> Values:
    """Filter each channel of the values, guided by an image.

    Args:
        values: what is averaged.
        guide: the image, in units of the kernel's width in intensity.
        alpha: the kernel's width in space, voxels.
        radius: how far it reaches along each axis, voxels; None: as far as the image does.

    Returns:
        Means on the same grid. Their gradient is exact, and is not itself differentiable where there is a radius.

    Raises:
        ConfigError: no radius, and too many voxels for all their pairs.
    """
    if radius is None:
        return _of_all_pairs(values, guide, alpha)
    tiles = _tiles(tuple(values.shape[2:]), min(radius, max(values.shape[2:])), alpha, values.device, values.dtype)
    result: Tensor = _Windowed.apply(values, guide, tiles)
    return result


def _of_all_pairs(values: Values, guide: Guide, alpha: float) -> Values:
    shape = values.shape[2:]
    if prod(shape) > EXACT:
        raise ConfigError(
            "all pairs of the voxels of this image are too many",
            got=f"{prod(shape)} voxels",
            expected=f"{EXACT} at most",
            advice="give a radius: 5 for pictures, 2 or 3 for volumes",
        )
    places = torch.cartesian_prod(*[torch.arange(n) for n in shape]).view(-1, len(shape)).to(values)
    exponent = -(places[:, None] - places).square().sum(-1) / (2 * alpha**2)
    for seen in guide.flatten(2).unbind(1):
        exponent = exponent - (seen[:, :, None] - seen[:, None]).square() / 2
    weight = exponent.softmax(-1)  # a voxel's own exponent is 0, the largest
    return (values.flatten(2) @ weight.mT).view_as(values)


@dataclass(frozen=True, eq=False)
class _Tiles:
    """A padded grid cut into tiles, each with its surroundings; places are numbers in the flattened grid.

    Attributes:
        shape: of the grid without padding.
        radius: voxels padded at each side, and more at the far ends where tiles do not fit.
        corners: the first place of each tile's surroundings.
        inner: the voxels of a tile, from its corner.
        around: the voxels of its surroundings, from its corner.
        apart: -|p_i - p_j|² / 2α² of both; minus infinity beyond the radius.
    """

    shape: tuple[int, ...]
    radius: int
    corners: Int[Tensor, "tiles"]
    inner: Int[Tensor, "t"]
    around: Int[Tensor, "n"]
    apart: Float[Tensor, "t n"]

    @property
    def padded(self) -> tuple[int, ...]:
        """The shape of the padded grid."""
        return _padded(self.shape, self.radius)

    def lay(self, x: Float[Tensor, "k *s"]) -> Float[Tensor, "places k"]:
        """An image on the padded grid, zeros around it, flattened."""
        far = [p - n - self.radius for p, n in zip(self.padded, self.shape, strict=True)]
        x = functional.pad(x, [n for after in reversed(far) for n in (self.radius, after)])
        return x.flatten(1).T.contiguous()

    def lift(self, laid: Float[Tensor, "places k"]) -> Float[Tensor, "k *s"]:
        """Back onto the grid without padding."""
        x = laid.T.reshape(-1, *self.padded)
        for axis, n in enumerate(self.shape, start=1):
            x = x.narrow(axis, self.radius, n)
        return x

    def kernels(self, guide: Float[Tensor, "places c"]) -> Iterator[_Kernel]:
        """The kernel of a few tiles after the other."""
        some = max(CHUNK.get(guide.device.type, 2**24) // self.apart.numel(), 1)
        for corners in torch.split(self.corners, some):
            rows, columns = corners[:, None] + self.inner, corners[:, None] + self.around
            exponent, differences = self.apart, []
            for one, other in zip(guide[rows].unbind(-1), guide[columns].unbind(-1), strict=True):
                difference = one[:, :, None] - other[:, None]
                exponent = torch.addcmul(exponent, difference, difference, value=-0.5)
                differences.append(difference)
            yield _Kernel(rows, columns, exponent.exp_(), differences)


@dataclass(frozen=True, eq=False)
class _Kernel:
    """k(i, j) of a few tiles, and I_i - I_j of each modality."""

    rows: Int[Tensor, "m t"]
    columns: Int[Tensor, "m n"]
    weight: Float[Tensor, "m t n"]
    differences: Sequence[Float[Tensor, "m t n"]]


def _padded(shape: Sequence[int], radius: int) -> tuple[int, ...]:
    return tuple(-(-n // _edge(shape)) * _edge(shape) + 2 * radius for n in shape)


def _edge(shape: Sequence[int]) -> int:
    """A tile's edge in voxels: larger ones share more of their surroundings, and see more that is beyond the radius."""
    return 4 if len(shape) < 3 else 2


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # kept beyond this call, and then perhaps needed in a graph
def _tiles(shape: tuple[int, ...], radius: int, alpha: float, device: torch.device, dtype: torch.dtype) -> _Tiles:
    edge, padded, axes = _edge(shape), _padded(shape, radius), len(shape)

    def flat(places: Sequence[Tensor]) -> Tensor:
        numbers = torch.zeros(1, dtype=torch.int64)
        for along, size in zip(places, padded, strict=True):
            numbers = (numbers[:, None] * size + along).flatten()
        return numbers.to(device)

    inner, around = torch.arange(radius, radius + edge), torch.arange(edge + 2 * radius)
    one, other = (torch.cartesian_prod(*[a] * axes).view(-1, axes) for a in (inner, around))
    offsets = one[:, None] - other
    apart = -offsets.square().sum(-1).double() / (2 * alpha**2)
    apart[(offsets.abs() > radius).any(-1)] = -torch.inf
    corners = flat([torch.arange(0, size - 2 * radius, edge) for size in padded])
    return _Tiles(shape, radius, corners, flat([inner] * axes), flat([around] * axes), apart.to(device, dtype))


class _Windowed(Function):
    """y_i = Σ_j k_ij v_j / n_i, n_i = Σ_j k_ij, with the kernel made anew in each pass. Backwards, in closed form:

    With h = g / n and s_i = h_i · y_i, dv_j = Σ_i k_ij h_i, for k is symmetric; a pair's weight has the slope
    e_ij = h_i · v_j - s_i + h_j · v_i - s_j, and dI_i = -Σ_j e_ij k_ij (I_i - I_j). All are sums over the surroundings
    of i: nothing is scattered, and sums have one order. Voxels of the padding have neither values nor a count of one.
    """

    @staticmethod
    def forward(ctx: Any, values: Values, guide: Guide, tiles: _Tiles) -> Values:
        mean, total = torch.empty_like(values), torch.empty_like(values[:, :1])
        for b, counted in enumerate(torch.cat([values, torch.ones_like(total)], 1)):
            laid = tiles.lay(counted)
            sums = torch.zeros_like(laid)
            for kernel in tiles.kernels(tiles.lay(guide[b])):
                sums[kernel.rows] = kernel.weight @ laid[kernel.columns]
            total[b] = tiles.lift(sums)[-1:]
            mean[b] = tiles.lift(sums)[:-1] / total[b]
        ctx.save_for_backward(values, guide, mean, total)
        ctx.tiles = tiles
        return mean

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator, unused-ignore]
    def backward(ctx: Any, g: Values) -> tuple[Values, Guide | None, None]:
        values, guide, mean, total = ctx.saved_tensors
        tiles: _Tiles = ctx.tiles
        h = g / total
        s, one = (h * mean).sum(1, keepdim=True), torch.ones_like(total)
        dv, k = torch.empty_like(values), values.shape[1]
        di = torch.empty_like(guide) if ctx.needs_input_grad[1] else None
        for b in range(len(values)):
            seen, right = tiles.lay(guide[b]), tiles.lay(torch.cat([h[b], values[b], -s[b], one[b]]))
            left = tiles.lay(torch.cat([values[b], h[b], one[b], -s[b]]))
            sums, moved = torch.zeros_like(right[:, :k]), torch.zeros_like(seen)
            for kernel in tiles.kernels(seen):
                near = right[kernel.columns]
                sums[kernel.rows] = kernel.weight @ near[..., :k]
                if di is not None:
                    slope = (left[kernel.rows] @ near.mT).mul_(kernel.weight)
                    moved[kernel.rows] = -torch.stack([(slope * d).sum(-1) for d in kernel.differences], -1)
            dv[b] = tiles.lift(sums)
            if di is not None:
                di[b] = tiles.lift(moved)
        return dv, di, None
