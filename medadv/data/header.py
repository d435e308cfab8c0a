"""What a file says of itself, whatever its container: size, type and place, held against plausibility and each other.

Affines are RAS+ throughout, as in NIfTI: x grows to the right, y to the front, z to the top of the head.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Float, Float64

from medadv.errors import CaseError, Reason

LONGEST_AXIS = 2048
MOST_VOXELS = 512**3 * 8
ZOOMS = (0.05, 20.0)
"""Voxel sizes in mm that a scan can have."""
AFFINE_TOLERANCE = 1e-3
"""How far apart, in mm, two grids may lie at any corner and still be one."""
DEFLATE_LIMIT = 1032
"""No deflate stream expands by more than this factor (zlib's technical details)."""

_CHUNK = 1 << 20
_SLACK = 1 << 20
_DAMAGED = (OSError, EOFError, ValueError, zlib.error, struct.error)


@dataclass(frozen=True, eq=False)
class Header:
    """What an image says of itself, checked against what it holds.

    Attributes:
        path: the file, or the folder of a DICOM series.
        shape: voxels along the three axes of space.
        channels: how many numbers a voxel holds; None for one.
        dtype: how voxels are stored, before slope and intercept.
        affine: voxel → millimetres, ``(4, 4)``, RAS+.
        slices: the files of a DICOM series in the order of the third axis; empty for a single file.
    """

    path: Path
    shape: tuple[int, int, int]
    channels: int | None
    dtype: np.dtype[Any]
    affine: Float64[np.ndarray, "4 4"]
    slices: tuple[Path, ...] = ()


def ras(affine: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "4 4"]:
    """An affine of ITK and DICOM, where x grows to the left and y to the back (LPS), as RAS+; and the other way round.

    This is the one place where it is turned. Voxels stay in their order.
    """
    turned: Float64[np.ndarray, "4 4"] = affine * np.array([[-1.0], [-1.0], [1.0], [1.0]])
    return turned


def dimensions(path: Path, sizes: Sequence[int]) -> tuple[tuple[int, int, int], int | None]:
    """Three axes of space, and channels, of the sizes that a header declares.

    Raises:
        CaseError: HEADER_SIZE for sizes that no scan has, DIMENSIONS for what is not a volume.
    """
    if sizes and (min(sizes) < 1 or max(sizes) > LONGEST_AXIS or prod(sizes) > MOST_VOXELS):
        raise CaseError(
            Reason.HEADER_SIZE,
            f"{path.name} declares a size that no scan has",
            got=list(sizes),
            expected=f"axes of 1 to {LONGEST_AXIS} voxels, {MOST_VOXELS} voxels in all",
        )
    if len(sizes) not in (3, 4) or min(sizes[:3]) == 1:
        raise CaseError(
            Reason.DIMENSIONS,
            f"{path.name} is not a volume",
            got=list(sizes) or "no sizes",
            expected="three axes of space, each longer than 1, and at most one axis of channels",
        )
    return (sizes[0], sizes[1], sizes[2]), sizes[3] if len(sizes) == 4 else None


def placed(path: Path, affine: Float[np.ndarray, "4 4"]) -> Float64[np.ndarray, "4 4"]:
    """A RAS+ affine as it is kept, if voxels can lie like that.

    Raises:
        CaseError: AFFINE_INVALID.
    """
    # NIfTI stores single precision; what is written and read again is then the same affine.
    with np.errstate(over="ignore"):
        kept = np.asarray(affine, np.float32).astype(np.float64)
    finite = bool(np.isfinite(kept).all())
    zooms = np.linalg.norm(kept[:3, :3], axis=0) if finite else np.zeros(3)
    plausible = ZOOMS[0] <= zooms.min() and zooms.max() <= ZOOMS[1]
    if not plausible or abs(np.linalg.det(kept[:3, :3] / zooms)) < 1e-3:
        raise CaseError(
            Reason.AFFINE_INVALID,
            f"{path.name} does not say where its voxels lie",
            got=kept.tolist(),
            expected=f"a finite, invertible affine with voxels of {ZOOMS[0]} to {ZOOMS[1]} mm",
            advice="convert the image again from its source; check its unit, which must be mm",
        )
    return kept


def check_size(path: Path, promised: int | float, *, begin: int = 0, packing: str | None = None) -> None:
    """Hold what a header promises against what the file holds.

    A compressed file is streamed through a small buffer, which also checks its checksum: readers stop before they reach
    it, and a flipped bit would go unnoticed.

    Args:
        path: the file.
        promised: bytes of content, not packed; of a damaged header maybe NaN.
        begin: where in the file that content begins, in bytes.
        packing: ``"gzip"``, ``"zlib"`` or None.

    Raises:
        CaseError: HEADER_SIZE.
        EOFError: a stream that ends too early.
    """
    held: int | float = path.stat().st_size - begin
    if packing is not None:
        held *= DEFLATE_LIMIT
        if held >= promised:
            with path.open("rb") as stream:
                stream.seek(begin)
                held = sum(_unpacked(stream, packing, promised + _SLACK))
    if not promised <= held <= promised + _SLACK:
        raise CaseError(
            Reason.HEADER_SIZE,
            f"{path.name} does not hold what its header promises",
            got=f"{held:.0f} bytes",
            expected=f"{promised:.0f} bytes",
            advice="copy the file again from its source",
        )


def _unpacked(stream: IO[bytes], packing: str, most: int | float) -> Iterator[int]:
    """Sizes of the pieces of a compressed stream's content; reading stops one piece after ``most``."""
    size = 0
    if packing == "gzip":
        with gzip.GzipFile(fileobj=stream) as content:
            while size <= most and (piece := content.read(_CHUNK)):
                size += len(piece)
                yield len(piece)
        return
    engine = zlib.decompressobj()
    while not engine.eof and size <= most:
        packed = engine.unconsumed_tail or stream.read(_CHUNK)
        piece = engine.decompress(packed, _CHUNK)
        if not packed and not piece:
            raise EOFError("the compressed stream ends too early")
        size += len(piece)
        yield len(piece)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Whatever a damaged file makes its readers raise becomes one reason.

    Raises:
        CaseError: UNREADABLE.
    """
    try:
        yield
    except _DAMAGED as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> CaseError:
    """The refusal of a file that its reader stumbled over. What its message says is left out where it names a path."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    first = (said.splitlines() or [""])[0]
    private = not first or path.name in first or "/" in first or "\\" in first
    return CaseError(
        Reason.UNREADABLE,
        f"{path.name} cannot be read",
        got=type(error).__name__ + ("" if private else f": {first}"),
        expected="a whole image",
        advice="copy it again from its source",
    )


def apart(one: Header, other: Header) -> str | None:
    """How far two grids of the same shape lie apart, in words; None if nowhere."""
    corners = np.array([(*corner, 1) for corner in product(*((0, n - 1) for n in one.shape))], np.float64)
    here, there = corners @ one.affine.T, corners @ other.affine.T
    distance = float(np.linalg.norm(here - there, axis=1).max())
    if distance <= AFFINE_TOLERANCE:
        return None
    if np.allclose(sorted(here.round(3).tolist()), sorted(there.round(3).tolist()), atol=2 * AFFINE_TOLERANCE):
        return "an axis is flipped, or axes are exchanged"
    return f"corners are up to {distance:.3g} mm apart"


def same_grid(one: Header, other: Header) -> bool:
    """Whether two images have the same shape in the same place."""
    return one.shape == other.shape and apart(one, other) is None
