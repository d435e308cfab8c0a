"""MONAI's change of voxel size, as one small matrix for each axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from monai.data.utils import AFFINE_TOL, compute_shape_offset, zoom_affine
from monai.networks.utils import to_norm_affine

from medadv.errors import VictimError
from medadv.victims.grid import Square, after, known, lengths, within
from medadv.victims.preprocess import Affine, Image, Placed
from medadv.victims.resample import Matrix, Places, Resampled, Shape, Stage, check_sizes, nearest

SKEW = 0.01
"""How many voxels off its axis a voxel may end up before an affine counts as sheared; float32 headers reach 1e-4."""


@dataclass(frozen=True)
class Spacing:
    """Voxels of a given size: MONAI's ``Spacing(pixdim, mode=mode, padding_mode="border")`` and its inverse.

    Attributes:
        mm: the distance of neighbouring voxels along each axis; None or -1 keeps an axis; a short list goes on with its
            last number, as in MONAI.
        mode: ``bilinear`` (linear along each axis) or ``nearest``, onwards and back.
        align_corners: as in MONAI; with border padding it changes an axis of one voxel alone.
        scale_extent: the volume's edges stay where they are, and not the centres of its outer voxels.

    Raises:
        ConfigError: no sizes, or none that a voxel can have.
    """

    mm: tuple[float | None, ...] = (1.0, 1.0, 1.0)
    mode: Literal["bilinear", "nearest"] = "bilinear"
    align_corners: bool = False
    scale_extent: bool = False
    name: Literal["spacing"] = "spacing"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (a study may not misspell a key)

    def __post_init__(self) -> None:
        check_sizes(self)

    def prepare(self, x: Image, affine: Affine | None) -> Placed:
        """The step for images of this shape, at this place.

        Raises:
            VictimError: nobody has said where voxels lie, the axes are not at right angles, or no voxel would be left.
        """
        affine = known(affine, self.name)
        axes = x.ndim - 2
        old = within(affine, axes)
        now = lengths(old)
        wanted = [-1.0 if mm is None else float(mm) for mm in self.mm[:axes]]
        wanted += wanted[-1:] * (axes - len(wanted))
        kept = [mm <= 0 or abs(mm - size) <= AFFINE_TOL for mm, size in zip(wanted, now, strict=True)]
        new: Square = zoom_affine(old, np.where(kept, now, wanted), diagonal=False)
        with np.errstate(divide="ignore", invalid="ignore"):
            shape, offset = compute_shape_offset(x.shape[2:], old, new, self.scale_extent)
        if shape.min() < 1:
            raise VictimError(
                f"the step {self.name!r} leaves no voxel of this image",
                got=f"{tuple(x.shape[2:])} voxels of {[round(float(size), 3) for size in now]} mm",
                expected=f"more than half a voxel of {self.mm} mm along each axis",
            )
        new[:-1, -1] = offset
        before, then = tuple(x.shape[2:]), tuple(int(size) for size in shape)
        way: Square = np.linalg.solve(old, new)
        if _alike(old, new, way, before == then):
            return Resampled((), (), (None,) * axes, affine)
        onward = self._places(way, before, then)
        backward = self._places(np.linalg.solve(new, old), then, before)
        return Resampled(
            (Stage(tuple(map(self._matrix, onward, before))),),
            (Stage(tuple(map(self._matrix, backward, then))),),
            tuple(nearest(places, size) for places, size in zip(onward, before, strict=True)),
            after(affine, way),
        )

    def _places(self, way: Square, before: Shape, shape: Shape) -> list[Places]:
        """Along each axis, where the voxels of a new grid lie on the old one.

        Computed through torch's normalised coordinates, as MONAI does, and not by ``way`` itself: where both grids
        meet, its rounding decides whether 1e-16 of a neighbour counts as foreground.
        """
        axes = len(shape)
        skew = np.abs(way[:axes, :axes] - np.diag(np.diag(way)[:axes])) @ (np.array(shape) - 1)
        if skew.max() > SKEW:
            raise VictimError(
                f"the step {self.name!r} wants an image whose axes are at right angles",
                got=f"a sheared affine: voxels up to {skew.max():.2g} voxels off their axis",
                cause="a registration with shears was written into the header",
                advice="resample the image to a grid without shears first",
            )
        theta = to_norm_affine(torch.as_tensor(way)[None], before, shape, self.align_corners)[0]
        places = []
        for axis, (old, new) in enumerate(zip(before, shape, strict=True)):
            # affine_grid puts a single voxel in the middle
            line = torch.linspace(-1, 1, new, dtype=torch.float64) if new > 1 else torch.zeros(1, dtype=torch.float64)
            line = line if self.align_corners else line * (new - 1) / new
            line = line * theta[axis, axis] + theta[axis, axes]
            places.append(((line + 1) / 2 * (old - 1) if self.align_corners else ((line + 1) * old - 1) / 2).numpy())
        return places

    def _matrix(self, places: Places, before: int) -> Matrix:
        places = places.clip(0, before - 1)
        low = np.rint(places) if self.mode == "nearest" else np.floor(places).clip(max=max(before - 2, 0))
        matrix = torch.zeros(len(places), before, dtype=torch.float64)
        rows, columns, share = torch.arange(len(places)), torch.as_tensor(low).long(), torch.as_tensor(places - low)
        matrix[rows, columns] = torch.ones_like(share) if self.mode == "nearest" else 1 - share
        if self.mode == "bilinear" and before > 1:
            matrix[rows, columns + 1] = share
        return matrix


def _alike(old: Square, new: Square, way: Square, same_shape: bool) -> bool:
    """Whether MONAI takes two grids for one, and leaves the image as it is."""
    near = np.allclose(old, new, atol=AFFINE_TOL) or np.allclose(way, np.eye(len(way)), atol=AFFINE_TOL)
    return same_shape and near
