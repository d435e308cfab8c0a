"""How a network meets a volume: whole, or through overlapping windows, with the exact gradient of either.

The stitched answer is linear in the windows' answers. So its gradient needs no graph over all windows: a forward pass
without one, the loss's gradient on the stitched logits once, and a vector-Jacobian product a window. One window of
memory, no approximation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from math import ceil
from operator import index
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from monai.data.utils import compute_importance_map, dense_patch_slices
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from medadv.attack.victim import Passes
from medadv.errors import ConfigError, VictimError

Window = tuple[Any, ...]  # an index: (..., slice, slice, slice)
Network = Callable[[Float[Tensor, "b c *s"]], Float[Tensor, "b k *s"]]


@dataclass(frozen=True)
class WholeVolume:
    """The network sees the volume at once.

    Attributes:
        multiple: the volume is padded with zeros at its far ends until each axis is a multiple of this, and the answer
            is cut back: networks that halve their grid n times need 2**n.

    Raises:
        ConfigError: no whole number, or less than 1.
    """

    multiple: int = 1
    name: Literal["whole"] = "whole"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (a study may not misspell a key)

    answer_cost = Passes(forward=1)
    gradient_cost = Passes(forward=1, backward=1)

    def __post_init__(self) -> None:
        if not isinstance(self.multiple, int) or self.multiple < 1:
            raise ConfigError(
                "a volume cannot be padded to multiples of this",
                got=self.multiple,
                expected="a whole number, 1 or more",
                advice="2**n for a network that halves its grid n times; 1 for no padding",
            )

    def __call__(self, network: Network, z: Float[Tensor, "b c *s"]) -> Float[Tensor, "b k *s"]:
        """The network's answer on the volume's own grid.

        Raises:
            VictimError: the network changes the grid.
        """
        shape = z.shape[2:]
        padding = [(0, -size % self.multiple) for size in shape]
        z = _padded(z, padding)
        advice = "pad to what it can halve and double again: WholeVolume(multiple=2**n) for n halvings"
        return _cropped(on_grid(network(z), z.shape[2:], advice), padding, shape)


@dataclass(frozen=True)
class SlidingWindow:
    """Overlapping windows, blended: MONAI's ``sliding_window_inference``, or nnU-Net's own, with a gradient that needs
    one window of memory.

    Attributes:
        roi: the window, voxels along each axis, 0 for the whole of an axis; a list becomes a tuple.
        overlap: the share of a window that the next one covers again, in [0, 1).
        blend: the weight of a voxel inside its window: ``gaussian`` or ``constant``.
        sigma: the width of the Gaussian, as a share of the window.
        batch: windows at a time.
        grid: where the windows lie and how a Gaussian ends. ``monai``: a fixed stride, the last window moved inwards.
            ``nnunet``: windows spread evenly, ``overlap`` at least, and the weights in the half precision that nnU-Net
            blends with; a window of one voxel along an axis takes the slices of that axis one by one.

    Raises:
        ConfigError: windows that cannot be laid.
    """

    roi: tuple[int, ...]
    overlap: float = 0.5
    blend: Literal["gaussian", "constant"] = "gaussian"
    batch: int = 1
    sigma: float = 0.125
    grid: Literal["monai", "nnunet"] = "monai"
    name: Literal["window"] = "window"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (a study may not misspell a key)

    # The windows are answered twice, once without graph; overlap is the deployed pipeline's own cost, not the attack's.
    answer_cost = Passes(forward=1)
    gradient_cost = Passes(forward=2, backward=1)

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "roi", tuple(map(index, self.roi)))
        except TypeError:
            raise ConfigError(
                "the size of a window is a whole number along each axis",
                got=repr(self.roi),
                expected="as many numbers as the volume has axes",
                advice="write for example SlidingWindow((64, 64, 64))",
            ) from None
        sizes = self.batch >= 1 and min(self.roi, default=0) >= 0 and self.sigma > 0
        words = self.blend in ("gaussian", "constant") and self.grid in ("monai", "nnunet")
        if not (sizes and words and 0 <= self.overlap < 1):
            raise ConfigError(
                "these windows cannot be laid",
                got=self,
                expected="sizes of at least 1 (0: the whole axis), a batch of at least 1, an overlap of at least 0 and "
                "below 1, gaussian or constant, the grid of monai or nnunet, and a positive sigma",
            )

    def __call__(self, network: Network, z: Float[Tensor, "b c *s"]) -> Float[Tensor, "b k *s"]:
        """The stitched answer on the volume's own grid.

        Raises:
            VictimError: windows and volume have different numbers of axes, or the network changes the grid.
        """
        shape = z.shape[2:]
        if len(shape) != len(self.roi):
            raise VictimError("the windows have another number of axes than the volume", got=self.roi, expected=shape)
        way = replace(self, roi=tuple(roi or size for roi, size in zip(self.roi, shape, strict=True)))
        missing = [max(roi - size, 0) for roi, size in zip(way.roi, shape, strict=True)]
        padding = [(m // 2, m - m // 2) for m in missing]
        z = _padded(z, padding)
        plan = _plan(way, tuple(z.shape[2:]), z.device, z.dtype)
        if torch.is_grad_enabled() and z.requires_grad:
            stitched = _Stitched.apply(z, network, plan)
        else:
            stitched = _stitch(z, network, plan)
        return _cropped(stitched, padding, shape)


@dataclass(frozen=True, eq=False)
class _Plan:
    """Which windows there are, a group at a time; a voxel's weight in its window; the sum of all weights on a voxel."""

    groups: Sequence[Sequence[Window]]
    weight: Float[Tensor, "*roi"]
    total: Float[Tensor, "*s"]


@lru_cache(maxsize=4)
@torch.inference_mode(False)  # kept beyond this call, and then perhaps needed in a graph
def _plan(way: SlidingWindow, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> _Plan:
    if way.grid == "nnunet":
        windows = _even_windows(way, shape)
        weight = _half_weight(way).to(device, dtype)
    else:
        interval = [
            roi if roi == size else max(int(roi * (1 - way.overlap)), 1)
            for roi, size in zip(way.roi, shape, strict=True)
        ]
        windows = [(..., *place) for place in dense_patch_slices(shape, way.roi, interval)]
        weight = compute_importance_map(way.roi, mode=way.blend, sigma_scale=way.sigma, device=device, dtype=dtype)
    total = torch.zeros(shape, device=device, dtype=dtype)
    for window in windows:
        total[window] += weight
    return _Plan([windows[i : i + way.batch] for i in range(0, len(windows), way.batch)], weight, total)


def _even_windows(way: SlidingWindow, shape: tuple[int, ...]) -> list[Window]:
    """As few windows along each axis as the overlap allows, spread evenly: nnU-Net's grid (Isensee et al. 2021)."""
    starts = []
    for roi, size in zip(way.roi, shape, strict=True):
        last = ceil((size - roi) / max(roi * (1 - way.overlap), 1))
        starts.append([round((size - roi) / max(last, 1) * i) for i in range(last + 1)])
    return [(..., *(slice(at, at + n) for at, n in zip(place, way.roi, strict=True))) for place in product(*starts)]


def _half_weight(way: SlidingWindow) -> Float[Tensor, "*roi"]:
    """nnU-Net's weight of a voxel: a Gaussian of height 10 in half precision; what underflows is given the least."""
    if way.blend == "constant":
        return torch.ones(way.roi)
    peak = np.zeros(way.roi)
    peak[tuple(n // 2 for n in way.roi)] = 1
    gaussian = gaussian_filter(peak, [n * way.sigma for n in way.roi], mode="constant")
    weight = torch.from_numpy(gaussian / (gaussian.max() / 10)).half()
    return weight.where(weight > 0, weight[weight > 0].min())


def _stacked(z: Tensor, group: Sequence[Window]) -> Tensor:
    return torch.cat([z[window] for window in group])


def _stitch(z: Float[Tensor, "b c *s"], network: Network, plan: _Plan) -> Float[Tensor, "b k *s"]:
    stitched: Tensor | None = None
    for group in plan.groups:
        advice = "choose a roi that the network can halve and double again: a multiple of 2**n for n halvings"
        answers = on_grid(network(_stacked(z, group)), plan.weight.shape, advice)
        if stitched is None:
            stitched = z.new_zeros(len(z), answers.shape[1], *z.shape[2:])
        for window, answer in zip(group, torch.split(answers, len(z)), strict=True):
            stitched[window] += answer * plan.weight
    assert stitched is not None  # a grid has at least one window
    return stitched.div_(plan.total)


class _Stitched(Function):
    """Forward without graph; backward one vector-Jacobian product a group of windows."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, network: Network, plan: _Plan) -> Tensor:
        ctx.save_for_backward(z)
        ctx.network, ctx.plan = network, plan
        # The backward pass may run outside the caller's autocast, and would then differentiate another function.
        kind = z.device.type
        ctx.autocast = torch.autocast(kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
        return _stitch(z, network, plan)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator, unused-ignore]
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        (z,) = ctx.saved_tensors
        plan: _Plan = ctx.plan
        share = g / plan.total
        gradient = torch.zeros_like(z)
        for group in plan.groups:
            with torch.enable_grad(), ctx.autocast:
                inputs = _stacked(z.detach(), group).requires_grad_()
                answers = ctx.network(inputs)
            (each,) = torch.autograd.grad(answers, inputs, _stacked(share, group) * plan.weight)
            for window, part in zip(group, torch.split(each, len(z)), strict=True):
                gradient[window] += part
        return gradient, None, None


def on_grid(answer: object, shape: Sequence[int], advice: str) -> Float[Tensor, "b k *any"]:
    """The answer, if it lies where it was asked: cropping or stretching it would move every voxel a little.

    Raises:
        VictimError: several answers, or one on another grid.
    """
    if not isinstance(answer, Tensor):
        raise VictimError(
            "the network answers with several things, and not with logits alone",
            got=f"a {type(answer).__name__}" + (f" of {list(answer)}" if isinstance(answer, Mapping) else ""),
            expected="one tensor of logits (b, channels, *s)",
            advice="name the one that is deployed: Segmenter(Upsampled(network, key='out'), …)",
        )
    if answer.shape[2:] != torch.Size(shape):
        if answer.ndim == len(shape) + 2 and all(2 * n <= m for n, m in zip(answer.shape[2:], shape, strict=True)):
            advice += "; logits of lower resolution by design are interpolated: Segmenter(Upsampled(network), …)"
        raise VictimError(
            "the network does not answer on its input's grid",
            got=f"answers of {tuple(answer.shape[2:])} to inputs of {tuple(shape)}",
            cause="sizes that the network halves and rounds, or convolutions without padding",
            advice=advice,
        )
    return answer


def _padded(z: Tensor, padding: Sequence[tuple[int, int]]) -> Tensor:
    if not any(before or after for before, after in padding):
        return z
    return F.pad(z, [n for pair in reversed(padding) for n in pair])


def _cropped(y: Tensor, padding: Sequence[tuple[int, int]], shape: Sequence[int]) -> Tensor:
    kept: Window = (..., *(slice(before, before + size) for (before, _), size in zip(padding, shape, strict=True)))
    return y[kept]


Inference = WholeVolume | SlidingWindow
