"""Resampling as one small matrix for each axis: fast, linear, with the transposed matrices for its gradient.

Interpolation on a grid is separable: each axis is resampled on its own, and what a library does to one axis of n voxels
is an (m × n) matrix. ``Resample`` is nnU-Net's; MONAI's is in ``spacing``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from scipy import ndimage
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from medadv.errors import ConfigError, VictimError
from medadv.victims.grid import after, known, lengths, within
from medadv.victims.preprocess import Affine, Image, Placed

Matrix = Float64[Tensor, "_ _"]  # new voxels × old voxels
Places = Float64[np.ndarray, "after"]
Shape = tuple[int, ...]
Order = Literal[0, 1, 2, 3, 4, 5]

ANISOTROPY = 3
"""nnU-Net resamples the coarse axis on its own where it is more than this many times coarser."""


@dataclass(frozen=True)
class Resample:
    """nnU-Net's resampling (``resample_data_or_seg_to_shape`` of nnU-Net v2): splines, voxel centres scaled.

    Where a volume is more than three times coarser along one axis, before or after, that axis is resampled on its own
    with ``order_z`` and the planes across it one by one, each clipped to its own range; else the volume is clipped to
    its range. Clipping matters for orders above 1, which overshoot; its gradient goes to the voxel that is the limit.

    Attributes:
        mm: the distance of neighbouring voxels along each axis of the array; None keeps an axis; one number less than
            the image has axes keeps the first, as nnU-Net's 2-D configuration does.
        order: of the splines onwards.
        order_z: along an axis that is resampled on its own.
        back_order: of the splines on the way back, for logits.
        back_order_z: along an axis that is resampled on its own, on the way back.
        force_separate_z: True resamples the coarsest axis on its own, False never; None lets the spacing decide.

    Raises:
        ConfigError: no sizes, none that a voxel can have, or an order that is none.
    """

    mm: tuple[float | None, ...]
    order: Order = 3
    order_z: Order = 0
    back_order: Order = 1
    back_order_z: Order = 0
    force_separate_z: bool | None = None
    name: Literal["resample"] = "resample"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (a study may not misspell a key)

    def __post_init__(self) -> None:
        check_sizes(self)
        orders = (self.order, self.order_z, self.back_order, self.back_order_z)
        if not all(isinstance(order, int) and 0 <= order <= 5 for order in orders):
            raise ConfigError("a spline has an order from 0 to 5", got=orders)

    def prepare(self, x: Image, affine: Affine | None) -> Placed:
        """The step for images of this shape and spacing.

        Raises:
            VictimError: nobody has said where voxels lie, or the image has another number of axes.
        """
        affine = known(affine, self.name)
        axes = x.ndim - 2
        if len(self.mm) not in (axes, axes - 1):
            raise VictimError(
                f"the step {self.name!r} was made for another number of axes than the image has",
                got=f"{axes} axes",
                expected=f"{len(self.mm)}, one a number of {self.mm}",
            )
        now = lengths(within(affine, axes)).tolist()
        wanted = ((None,) * (axes - len(self.mm))) + self.mm
        then = [size if mm is None or mm <= 0 else float(mm) for mm, size in zip(wanted, now, strict=True)]
        before = tuple(x.shape[2:])
        shape = tuple(max(round(a / b * n), 1) for a, b, n in zip(now, then, before, strict=True))
        way = np.eye(axes + 1)
        for axis, (n, m) in enumerate(zip(before, shape, strict=True)):
            way[axis, axis], way[axis, axes] = n / m, 0.5 * n / m - 0.5
        alone = _coarse_axis(now, then, self.force_separate_z)
        alone_back = _coarse_axis(then, now, self.force_separate_z)
        return Resampled(
            _splines(before, shape, alone, self.order, self.order_z),
            _splines(shape, before, alone_back, self.back_order, self.back_order_z),
            tuple(nearest(_centres(n, m), n) if n != m else None for n, m in zip(before, shape, strict=True)),
            after(affine, way),
        )


@dataclass(frozen=True, eq=False)
class Stage:
    """A matrix for each axis, None where nothing changes; then, where asked for, the clip to what came in.

    Attributes:
        matrices: one an axis.
        clipped: the axes over which the range of what came in is taken; none: no clip.
    """

    matrices: tuple[Matrix | None, ...]
    clipped: tuple[int, ...] = ()

    def __call__(self, x: Float[Tensor, "b c *s"]) -> Float[Tensor, "b c *after"]:
        """The resampled image."""
        y = x
        changing = [(axis, matrix) for axis, matrix in enumerate(self.matrices) if matrix is not None]
        # Axes that shrink go first: the order does not matter to the result, and less is left for the others.
        for axis, matrix in sorted(changing, key=lambda one: one[1].shape[0] / one[1].shape[1]):
            with torch.autocast(x.device.type, enabled=False):  # half precision would move voxels
                y = _along(y, matrix.to(y), axis)
        if self.clipped and changing:
            y = _Clip.apply(y, x, tuple(axis + 2 for axis in self.clipped))
        return y


@dataclass(frozen=True, eq=False)
class Resampled:
    """A change of grid, axis by axis, prepared.

    Attributes:
        onward: what is done to an image.
        backward: what is done to an answer.
        nearest: for each axis, the old voxel nearest to each new one; None where nothing changes.
        affine: where the new voxels lie.
    """

    onward: tuple[Stage, ...]
    backward: tuple[Stage, ...]
    nearest: tuple[Int[Tensor, "_"] | None, ...]
    affine: Affine | None

    def __call__(self, x: Image) -> Float[Tensor, "b c *after"]:
        """The image on the new grid."""
        for stage in self.onward:
            x = stage(x)
        return x

    def back(self, answer: Float[Tensor, "b k *after"], outside: Float[Tensor, "k"]) -> Float[Tensor, "b k *s"]:  # noqa: ARG002
        """The answer on the old grid; nothing was cut away."""
        for stage in self.backward:
            answer = stage(answer)
        return answer

    def labels(self, truth: Int[Tensor, "b *s"]) -> Int[Tensor, "b *after"]:
        """The label of the nearest voxel."""
        for axis, places in enumerate(self.nearest):
            if places is not None:
                truth = truth.index_select(axis + 1, places.to(truth.device))
        return truth


class _Clip(Function):
    """Clip to the range of another image; what is cut off the gradient goes to the voxels that are the limits.

    The same as ``torch.clamp`` between ``amin`` and ``amax``, with a third of the time in its backward pass.
    """

    @staticmethod
    def forward(ctx: Any, y: Float[Tensor, "b c *new"], x: Float[Tensor, "b c *old"], axes: Shape) -> Tensor:
        ctx.axes, limits = axes, (x.amin(axes, keepdim=True), x.amax(axes, keepdim=True))
        ctx.save_for_backward(y, x, *limits)
        return y.clamp(*limits)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator, unused-ignore]
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None]:
        y, x, low, high = ctx.saved_tensors
        kept, caught = g.clone(), torch.zeros_like(x)
        for limit, beyond in ((low, y < low), (high, y > high)):
            kept.masked_fill_(beyond, 0)
            cut = (g * beyond).sum(ctx.axes, keepdim=True)
            extreme = x == limit
            caught += extreme * (cut / extreme.sum(ctx.axes, keepdim=True))
        return kept, caught, None


def _along(x: Float[Tensor, "b c *s"], matrix: Float[Tensor, "after before"], axis: int) -> Float[Tensor, "b c *after"]:
    """One axis resampled. The last axis is multiplied from the right, so that nothing is copied to turn it."""
    new, old = matrix.shape
    axis += 2
    rest = x.shape[axis + 1 :].numel()
    y = x.reshape(-1, old) @ matrix.T if rest == 1 else matrix @ x.reshape(x.shape[:axis].numel(), old, rest)
    return y.reshape(*x.shape[:axis], new, *x.shape[axis + 1 :])


def _centres(before: int, after: int) -> Places:
    """Where the voxels of the new axis lie on the old one, when both cover the same length."""
    return (np.arange(after) + 0.5) * (before / after) - 0.5


def nearest(places: Places, before: int) -> Int[Tensor, "after"]:
    """The old voxel nearest to each place."""
    return torch.as_tensor(np.floor(places.clip(0, before - 1) + 0.5).astype(np.int64)).clamp(max=before - 1)


def _coarse_axis(now: list[float], then: list[float], force: bool | None) -> int | None:
    """The axis that nnU-Net resamples on its own, by the spacing before and after; None: no such axis."""
    if len(now) != 3 or force is False:
        return None
    spacing = next((s for s in (now, then) if force or max(s) / min(s) > ANISOTROPY), None)
    if spacing is None:
        return None
    # Two coarse axes are none; lengths of an oblique affine's columns are equal up to rounding.
    coarse = np.flatnonzero(np.isclose(spacing, max(spacing), rtol=1e-6))
    return int(coarse[0]) if len(coarse) == 1 else None


def _splines(
    before: Sequence[int], after: Sequence[int], alone: int | None, order: Order, order_z: Order
) -> tuple[Stage, ...]:
    """The stages of nnU-Net's resampling from one shape to another."""
    if tuple(before) == tuple(after):
        return ()
    together = tuple(axis for axis in range(len(before)) if axis != alone)
    matrices = tuple(
        _spline(n, m, order) if axis in together and n != m else None
        for axis, (n, m) in enumerate(zip(before, after, strict=True))
    )
    first = Stage(matrices, together if order > 1 else ())
    if alone is None or before[alone] == after[alone]:
        return (first,)
    last = _spline_at(before[alone], after[alone], order_z)
    return first, Stage(tuple(last if axis == alone else None for axis in range(len(before))))


@lru_cache(maxsize=64)
def _spline(before: int, after: int, order: Order) -> Matrix:
    """``skimage.transform.resize(…, mode="edge", anti_aliasing=False)`` of one axis, before its clip."""
    columns = [
        ndimage.zoom(unit, 1 / (before / after), order=order, mode="nearest", grid_mode=True)
        for unit in np.eye(before, dtype=np.float64)
    ]
    return torch.as_tensor(np.stack(columns, 1))


@lru_cache(maxsize=64)
def _spline_at(before: int, after: int, order: Order) -> Matrix:
    """``scipy.ndimage.map_coordinates(…, mode="nearest")`` of one axis, at the centres of the new voxels."""
    places = _centres(before, after)[None]
    columns = [ndimage.map_coordinates(unit, places, order=order, mode="nearest") for unit in np.eye(before)]
    return torch.as_tensor(np.stack(columns, 1))


def check_sizes(step: Any) -> None:
    """Make the sizes of voxels, a setting's ``mm``, a tuple of floating-point numbers.

    Raises:
        ConfigError: they are none.
    """
    try:
        sizes = tuple(None if mm is None else float(mm) for mm in step.mm)
    except (TypeError, ValueError):
        sizes = ()
    if isinstance(step.mm, str) or not sizes or not all(mm is None or np.isfinite(mm) for mm in sizes):
        raise ConfigError(
            f"the step {step.name!r} takes the size of a voxel along each axis",
            got=repr(step.mm),
            expected="millimetres, or None for an axis that stays: for example (1, 1, None)",
        )
    object.__setattr__(step, "mm", sizes)
