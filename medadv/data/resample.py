"""One image onto the grid of another that lies in the same space, with SimpleITK."""

from __future__ import annotations

import numpy as np
import SimpleITK
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from medadv.data.header import Header, ras
from medadv.errors import CaseError, Reason

LEAST_OVERLAP = 0.9
"""The share of the reference grid that an image must cover."""
_LATTICE = 32


def resample(
    voxels: Float[Tensor, "*s"], header: Header, onto: Header, *, nearest: bool = False
) -> Float[Tensor, "*r"]:
    """Bring voxels onto another grid, as the two lie in space: the images are presumed to be registered.

    Args:
        voxels: as read, ``header.shape``.
        header: where they lie.
        onto: the grid they are brought to.
        nearest: the nearest voxel's value, for label maps and masks; else linear interpolation.

    Returns:
        ``onto.shape``, in the same precision; 0 where ``header`` has no voxels.

    Raises:
        CaseError: GRID_OVERLAP where less than ``LEAST_OVERLAP`` of the grid is covered.
    """
    covered = overlap(header, onto)
    if covered < LEAST_OVERLAP:
        raise CaseError(
            Reason.GRID_OVERLAP,
            f"{header.path.name} covers {covered:.0%} of the grid of {onto.path.name}",
            expected=f"{LEAST_OVERLAP:.0%} or more",
            advice="register the images to each other first, or take the smaller one's grid",
        )
    image = _placed(SimpleITK.GetImageFromArray(voxels.permute(2, 1, 0).contiguous().numpy()), header)
    grid = _placed(SimpleITK.Image(onto.shape, SimpleITK.sitkUInt8), onto)
    interpolator = SimpleITK.sitkNearestNeighbor if nearest else SimpleITK.sitkLinear
    moved = SimpleITK.Resample(image, grid, SimpleITK.Transform(), interpolator, 0.0, image.GetPixelID())
    return torch.from_numpy(SimpleITK.GetArrayFromImage(moved)).permute(2, 1, 0).contiguous()


def overlap(header: Header, onto: Header) -> float:
    """The share of one grid's box that lies inside another's, voxels with their full size; on a lattice of 32³."""
    ticks = [(np.arange(_LATTICE) + 0.5) / _LATTICE * n - 0.5 for n in onto.shape]
    points = np.stack([*(axis.ravel() for axis in np.meshgrid(*ticks, indexing="ij")), np.ones(_LATTICE**3)])
    there = (np.linalg.inv(header.affine) @ onto.affine @ points)[:3]
    inside = (there >= -0.5 - 1e-6) & (there <= np.reshape(header.shape, (3, 1)) - 0.5 + 1e-6)
    return float(inside.all(0).mean())


def _placed(image: SimpleITK.Image, header: Header) -> SimpleITK.Image:
    affine: Float64[np.ndarray, "4 4"] = ras(header.affine)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    return image
