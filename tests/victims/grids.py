"""Grids for the tests of spatial steps: affines of all kinds, MONAI's side of a comparison, and linearity."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor

from medadv.victims.preprocess import Affine, Placed


def affine_of(mm: tuple[float, ...] = (1.0, 1.0, 1.0), turn: str = "RAS", angle: float = 0.0) -> Affine:
    """Voxels of a size, along the axes that nibabel's letters name, turned about all axes by an angle."""
    affine = np.eye(4)
    for axis, (letter, size) in enumerate(zip(turn, mm, strict=True)):
        line = {"L": 0, "R": 0, "P": 1, "A": 1, "I": 2, "S": 2}[letter]
        affine[:3, axis] = 0
        affine[line, axis] = size if letter in "RAS" else -size
    c, s = np.cos(angle), np.sin(angle)
    about_z = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    affine[:3, :3] = about_x @ about_z @ affine[:3, :3]
    affine[:3, 3] = (-30.5, 12.25, 7.0)
    return affine


def meta(x: Tensor, affine: Affine) -> MetaTensor:
    """A sample as MONAI's transforms take it."""
    return MetaTensor(x.clone(), affine=torch.as_tensor(affine))


def same_as_monai(placed: Placed, transform: Callable[[MetaTensor], MetaTensor], x: Tensor, affine: Affine) -> None:
    """Image, affine and way back of random logits are MONAI's; labels have the new shape."""
    theirs = transform(meta(x[0], affine))
    ours = placed(x)
    torch.testing.assert_close(ours[0], theirs.as_tensor(), rtol=1e-5, atol=1e-5)
    assert placed.affine is not None
    np.testing.assert_allclose(placed.affine, theirs.affine.numpy(), atol=1e-6)
    logits = torch.randn(1, 3, *ours.shape[2:])
    answered = MetaTensor(logits[0].clone(), affine=theirs.affine, applied_operations=theirs.applied_operations)
    home = placed.back(logits, torch.zeros(3))
    torch.testing.assert_close(home[0], transform.inverse(answered).as_tensor(), rtol=1e-5, atol=1e-5)
    assert home.shape[2:] == x.shape[2:]
    assert placed.labels(torch.ones(1, *x.shape[2:], dtype=torch.long)).shape[1:] == ours.shape[2:]


def adjoint_gap(linear: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """How far <A x, y> is from <x, Aᵀ y>, with the adjoint by autograd, and A x + A z from A (x + z)."""
    leaf = x.clone().requires_grad_()
    image = linear(leaf)
    y = torch.randn_like(image)
    (adjoint,) = torch.autograd.grad(image, leaf, y, allow_unused=False)
    other = torch.randn_like(x)
    still = linear(torch.zeros_like(x))
    sums = (linear(x + other) - linear(x) - linear(other) + still).abs().max().item()
    gap = ((image - still) * y).sum() - (x * adjoint).sum()
    return max(abs(gap.item()), sums)
