"""One FGSM step written plainly: what a careful engineer would write for one network, without medadv.

Nothing here imports medadv. Windows: a forward pass without graph, the loss's gradient on the stitched logits, then
forward and backward a window.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from monai.data.utils import compute_importance_map, dense_patch_slices
from monai.inferers import sliding_window_inference
from monai.networks.nets import UNet
from torch import Tensor, nn

CLASSES = 4


def unet() -> nn.Module:
    """MONAI's UNet of 16 to 128 channels with one residual unit, frozen, in evaluation mode."""
    torch.manual_seed(0)
    network = UNet(3, 4, CLASSES, channels=(16, 32, 64, 128), strides=(2, 2, 2), num_res_units=1)
    return network.eval().requires_grad_(False)


def scan(edge: int) -> tuple[Tensor, Tensor]:
    """Four modalities of a ball in an empty background ``(1, 4, e, e, e)``, and class indices ``(1, e, e, e)``."""
    generator = torch.Generator().manual_seed(1)
    axis = torch.linspace(-1, 1, edge)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))
    inside = grid.square().sum(0) < 0.8
    x = (torch.randn(1, 4, edge, edge, edge, generator=generator) * 80 + 400).clamp(min=20) * inside
    classes = torch.randint(0, CLASSES, (1, edge, edge, edge), generator=generator) * inside
    return x, classes


def z_score(x: Tensor) -> Tensor:
    """Each modality over its non-zero voxels; autograd differentiates the statistics."""
    mask = x != 0
    n = mask.sum((2, 3, 4), keepdim=True)
    mean = (x * mask).sum((2, 3, 4), keepdim=True) / n
    centred = (x - mean) * mask
    return centred / (centred.square().sum((2, 3, 4), keepdim=True) / n).sqrt()


def bounds(x: Tensor, share: float) -> tuple[Tensor, Tensor, Tensor]:
    """Radius, lower and upper bound: so many standard deviations, inside each modality's own range."""
    radius, lower, upper = torch.zeros(1, 4, 1, 1, 1), x.clone(), x.clone()
    for i in range(4):
        mask = x[0, i] != 0
        voxels = x[0, i][mask]
        radius[0, i] = share * voxels.std(correction=0)
        lower[0, i][mask] = (voxels - radius[0, i]).clamp(min=voxels.min()).flatten()
        upper[0, i][mask] = (voxels + radius[0, i]).clamp(max=voxels.max()).flatten()
    return radius, lower, upper


def whole_gradient(network: nn.Module, x: Tensor, classes: Tensor) -> Tensor:
    """The gradient of the summed cross entropy, the volume at once."""
    leaf = x.detach().requires_grad_()
    loss = F.cross_entropy(network(z_score(leaf)), classes, reduction="sum")
    return torch.autograd.grad(loss, leaf)[0]


def windowed_gradient(edge: int) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    """The same through overlapping windows of this edge (half overlap, Gaussian blend), one graph at a time."""
    plans: dict[torch.Size, tuple[list[tuple[slice, ...]], Tensor, Tensor]] = {}

    def plan(shape: torch.Size) -> tuple[list[tuple[slice, ...]], Tensor, Tensor]:
        if shape not in plans:
            places = [(..., *p) for p in dense_patch_slices(shape, (edge,) * 3, (edge // 2,) * 3)]
            weight = compute_importance_map((edge,) * 3, mode="gaussian", dtype=torch.float32)
            total = torch.zeros(shape)
            for place in places:
                total[place] += weight
            plans[shape] = places, weight, total
        return plans[shape]

    def gradient(network: nn.Module, x: Tensor, classes: Tensor) -> Tensor:
        places, weight, total = plan(x.shape[2:])
        leaf = x.detach().requires_grad_()
        z = z_score(leaf)
        stitched = torch.zeros(1, CLASSES, *x.shape[2:])
        with torch.no_grad():
            for place in places:
                stitched[place] += network(z[place]) * weight
        stitched = (stitched / total).requires_grad_()
        loss = F.cross_entropy(stitched, classes, reduction="sum")
        share = torch.autograd.grad(loss, stitched)[0] / total
        slope = torch.zeros_like(x)
        for place in places:
            window = z[place].detach().requires_grad_()
            slope[place] += torch.autograd.grad(network(window), window, share[place] * weight)[0]
        return torch.autograd.grad(z, leaf, slope)[0]

    return gradient


def full_gradient(edge: int) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    """The same by full autograd: MONAI's sliding windows with the graph of all of them at once."""

    def gradient(network: nn.Module, x: Tensor, classes: Tensor) -> Tensor:
        leaf = x.detach().requires_grad_()
        logits = sliding_window_inference(z_score(leaf), (edge,) * 3, 1, network, overlap=0.5, mode="gaussian")
        return torch.autograd.grad(F.cross_entropy(logits, classes, reduction="sum"), leaf)[0]

    return gradient


def network_alone(network: nn.Module, x: Tensor, window: int | None) -> None:
    """The forward and backward passes that nobody can save: the volume once, or each window with one forward more."""
    if window is None:
        pieces = [x]
    else:
        places = dense_patch_slices(x.shape[2:], (window,) * 3, (window // 2,) * 3)
        pieces = [x[(..., *place)] for place in places]
        with torch.no_grad():
            for piece in pieces:
                network(piece)
    for piece in pieces:
        leaf = piece.detach().requires_grad_()
        answer = network(leaf)
        torch.autograd.grad(answer, leaf, answer.detach())


def fgsm(
    gradient: Callable[[nn.Module, Tensor, Tensor], Tensor],
    network: nn.Module,
    x: Tensor,
    classes: Tensor,
    share: float,
    steps: int = 1,
) -> Tensor:
    """Bounds, then so many steps of the whole budget."""
    radius, lower, upper = bounds(x, share)
    moved = x
    for _ in range(steps):
        moved = torch.clamp(moved + radius * gradient(network, moved, classes).sign(), lower, upper)
    return moved
