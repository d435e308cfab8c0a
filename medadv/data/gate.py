"""The one gate of the data room: every image and label map passes it, before and after its voxels are read.

Each check raises ``CaseError`` with the reason that stands in ``quarantine.json``. Nothing is repaired.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from nibabel.spatialimages import HeaderDataError
from torch import Tensor

from medadv.errors import CaseError, Reason
from medadv.labels import LabelScheme, fitting

LONGEST_AXIS = 2048
MOST_VOXELS = 512**3 * 8
ZOOMS = (0.05, 20.0)
"""Voxel sizes in mm that a scan can have."""
AFFINE_TOLERANCE = 1e-3
"""How far apart, in mm, two modalities may lie at any corner of the grid."""

_CHUNK = 1 << 20
_SLACK = 1 << 20
_DEFLATE_LIMIT = 1032
"""No deflate stream expands by more than this factor (zlib's technical details)."""
_DAMAGED = (OSError, EOFError, ValueError, zlib.error, struct.error)


@dataclass(frozen=True, eq=False)
class Header:
    """What a NIfTI file says of itself, checked against what it holds.

    Attributes:
        path: the file.
        shape: voxels along the three axes of space.
        channels: length of the fourth axis; None for a 3-D file.
        dtype: how voxels are stored, before slope and intercept.
        affine: voxel → millimetres, ``(4, 4)``.
    """

    path: Path
    shape: tuple[int, int, int]
    channels: int | None
    dtype: np.dtype[Any]
    affine: Float64[np.ndarray, "4 4"]


def check_header(path: Path) -> Header:
    """Read a NIfTI file's header and hold it against the file, without allocating a voxel.

    A compressed file is streamed once through a small buffer, which also checks its checksum: readers of NIfTI stop
    before they reach it, and a flipped bit would go unnoticed.

    Raises:
        CaseError: UNREADABLE, DIMENSIONS, HEADER_SIZE, DATA_TYPE or AFFINE_INVALID.
    """
    with _readable(path):
        packed = path.name.endswith(".gz")
        if not path.name.endswith((".nii", ".nii.gz")):
            raise CaseError(Reason.UNREADABLE, f"{path.name} is not NIfTI", expected="a .nii or .nii.gz file")
        with gzip.open(path, "rb") if packed else path.open("rb") as stream:
            header = _parse(path, stream.read(nib.Nifti2Header.sizeof_hdr))
        shape, channels = _dimensions(path, header)
        dtype = _data_type(path, header)
        _check_size(path, header, dtype, packed)
        return Header(path, shape, channels, dtype, _affine(path, header))


def check_geometry(headers: Mapping[str, Header]) -> None:
    """Hold the modalities of one case against each other: the same shape, the same place in space.

    Raises:
        CaseError: SHAPE_MISMATCH, or AFFINE_MISMATCH where any of the grid's eight corners is further apart than
            ``AFFINE_TOLERANCE``.
    """
    names = list(headers)
    first = headers[names[0]]
    for name in names[1:]:
        other = headers[name]
        if other.shape != first.shape:
            raise CaseError(
                Reason.SHAPE_MISMATCH,
                f"{name} does not have the shape of {names[0]}",
                got=other.shape,
                expected=first.shape,
                advice="resample all modalities onto one grid before the study",
            )
        if problem := _apart(first, other):
            raise CaseError(
                Reason.AFFINE_MISMATCH,
                f"{name} does not lie where {names[0]} lies: {problem}",
                got=other.affine.tolist(),
                expected=first.affine.tolist(),
                advice="resample all modalities onto one grid before the study",
            )


def check_intensities(x: Float[Tensor, "c *s"], modalities: tuple[str, ...]) -> None:
    """Refuse voxels that no statistics can be taken of.

    Raises:
        CaseError: NOT_FINITE, or CONSTANT_MODALITY for a modality that is zero everywhere or has one value where it
            is not zero.
    """
    for voxels, name in zip(x, modalities, strict=True):
        bad = int((~torch.isfinite(voxels)).sum())
        if bad:
            raise CaseError(
                Reason.NOT_FINITE,
                f"{name} holds NaN or infinite voxels",
                got=f"{bad} of {voxels.numel()} voxels",
                advice="find the step of preprocessing that divides by zero or leaves the grid",
            )
        inside = voxels[voxels != 0]
        if inside.numel() == 0 or bool(inside.min() == inside.max()):
            raise CaseError(
                Reason.CONSTANT_MODALITY,
                f"{name} shows nothing",
                got="zero everywhere" if inside.numel() == 0 else f"{float(inside[0])} wherever it is not zero",
                expected="an image",
                advice="check that this is the scan and not a mask",
            )


def check_labels(
    labels: Float64[Tensor, "*s"], label: Header, image: Header, scheme: LabelScheme
) -> Int64[Tensor, "*s"]:
    """Take a label map as read from its file, and give it back as whole numbers that the scheme knows.

    Raises:
        CaseError: LABEL_GRID, LABEL_NOT_INTEGER or LABEL_OUTSIDE_SCHEME; the last lists the numbers found and the
            schemes that they would fit.
    """
    if label.shape != image.shape or label.channels is not None:
        shape = label.shape if label.channels is None else (*label.shape, label.channels)
        raise CaseError(Reason.LABEL_GRID, "the label map has another shape", got=shape, expected=image.shape)
    if problem := _apart(image, label):
        raise CaseError(
            Reason.LABEL_GRID,
            f"the label map does not lie on the image: {problem}",
            got=label.affine.tolist(),
            expected=image.affine.tolist(),
        )
    fractions = (labels != labels.round()) | torch.isinf(labels)  # NaN is unequal to itself
    if bool(fractions.any()):
        raise CaseError(
            Reason.LABEL_NOT_INTEGER,
            "the label map holds numbers that are not whole",
            got=f"{int(fractions.sum())} voxels, such as {labels[fractions][:3].tolist()}",
            advice="resample label maps with nearest neighbour",
        )
    whole = labels.to(torch.int64)
    if unknown := scheme.unknown(whole):
        found = torch.unique(whole).tolist()
        shown = found if len(found) <= 20 else [*found[:20], "…"]
        raise CaseError(
            Reason.LABEL_OUTSIDE_SCHEME,
            f"the label scheme {scheme.name!r} does not know {unknown[:20]}",
            got=shown,
            expected=sorted(scheme.numbers.values()),
            advice=f"these numbers would fit {fitting(found) or 'none of the named schemes'}; declare the right one",
        )
    return whole


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Whatever a damaged file makes its readers raise becomes one reason."""
    try:
        yield
    except _DAMAGED as error:
        raise CaseError(
            Reason.UNREADABLE,
            f"{path.name} cannot be read",
            got=f"{type(error).__name__}: {error}",
            expected="a whole NIfTI file",
            advice="copy the file again from its source",
        ) from error


def _parse(path: Path, raw: bytes) -> nib.Nifti1Header:
    for kind in (nib.Nifti1Header, nib.Nifti2Header):
        if len(raw) >= kind.sizeof_hdr and kind.may_contain_header(raw):  # type: ignore[no-untyped-call]
            # Not checked by nibabel: it repairs, and logs what it repaired.
            return kind(raw[: kind.sizeof_hdr], check=False)  # type: ignore[no-untyped-call]
    raise CaseError(
        Reason.UNREADABLE,
        f"{path.name} is not NIfTI",
        got=f"a file that begins with {raw[:8]!r}" if raw else "an empty file",
        advice="convert the image to NIfTI, for instance with dcm2niix",
    )


def _dimensions(path: Path, header: nib.Nifti1Header) -> tuple[tuple[int, int, int], int | None]:
    rank = int(header["dim"][0])
    sizes = [int(n) for n in header["dim"][1 : 1 + rank]] if 1 <= rank <= 7 else []
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes.pop()
    if sizes and (min(sizes) < 1 or max(sizes) > LONGEST_AXIS or prod(sizes) > MOST_VOXELS):
        raise CaseError(
            Reason.HEADER_SIZE,
            f"{path.name} declares a size that no scan has",
            got=sizes,
            expected=f"axes of 1 to {LONGEST_AXIS} voxels, {MOST_VOXELS} voxels in all",
        )
    if len(sizes) not in (3, 4) or min(sizes[:3]) == 1:
        raise CaseError(
            Reason.DIMENSIONS,
            f"{path.name} is not a volume",
            got=sizes or f"a rank of {rank}",
            expected="three axes of space, each longer than 1, and at most one axis of channels",
        )
    return (sizes[0], sizes[1], sizes[2]), sizes[3] if len(sizes) == 4 else None


def _data_type(path: Path, header: nib.Nifti1Header) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = np.dtype(header.get_data_dtype())  # type: ignore[no-untyped-call]
    except (HeaderDataError, KeyError) as error:
        code = int(header["datatype"])
        raise CaseError(Reason.DATA_TYPE, f"{path.name} has an unknown data type", got=f"code {code}") from error
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if dtype.kind not in "iuf" or not np.isfinite([slope, intercept]).all():
        raise CaseError(
            Reason.DATA_TYPE,
            f"{path.name} does not hold one real number a voxel",
            got=f"{dtype}, slope {slope}, intercept {intercept}",
            expected="integers or floating-point numbers with a finite slope and intercept",
        )
    return dtype


def _check_size(path: Path, header: nib.Nifti1Header, dtype: np.dtype[Any], packed: bool) -> None:
    """What the header promises against what the file holds. In floats: an offset may be NaN."""
    voxels = prod(int(n) for n in header["dim"][1 : 1 + int(header["dim"][0])])
    promised = float(header["vox_offset"]) + voxels * dtype.itemsize
    held = path.stat().st_size
    if packed:
        held *= _DEFLATE_LIMIT
        if held >= promised:
            held = _unpacked(path, promised + _SLACK)
    if not promised <= held <= promised + _SLACK:
        raise CaseError(
            Reason.HEADER_SIZE,
            f"{path.name} does not hold what its header promises",
            got=f"{held} bytes",
            expected=f"{promised:.0f} bytes for {voxels} voxels of {dtype}",
            advice="copy the file again from its source",
        )


def _unpacked(path: Path, most: float) -> int:
    """The size of a compressed file's content; reading stops one chunk after ``most``."""
    size = 0
    with gzip.open(path, "rb") as stream:
        while size <= most and (chunk := stream.read(_CHUNK)):
            size += len(chunk)
    return size


def _affine(path: Path, header: nib.Nifti1Header) -> Float64[np.ndarray, "4 4"]:
    try:
        affine = header.get_best_affine()  # type: ignore[no-untyped-call]
    except (HeaderDataError, ValueError, np.linalg.LinAlgError):  # a quaternion longer than 1
        affine = np.full((4, 4), np.nan)
    # NIfTI stores single precision; what is written and read again is then the same affine.
    affine = np.asarray(affine, np.float32).astype(np.float64)
    zooms = np.linalg.norm(affine[:3, :3], axis=0)
    plausible = np.isfinite(affine).all() and ZOOMS[0] <= zooms.min() and zooms.max() <= ZOOMS[1]
    if not plausible or abs(np.linalg.det(affine[:3, :3] / zooms)) < 1e-3:
        raise CaseError(
            Reason.AFFINE_INVALID,
            f"{path.name} does not say where its voxels lie",
            got=affine.tolist(),
            expected=f"a finite, invertible affine with voxels of {ZOOMS[0]} to {ZOOMS[1]} mm",
            advice="convert the image again from its source; check its unit, which must be mm",
        )
    return affine


def _apart(one: Header, other: Header) -> str | None:
    """How far two grids of the same shape lie apart, in words; None if nowhere."""
    corners = np.array([(*corner, 1) for corner in product(*((0, n - 1) for n in one.shape))], np.float64)
    here, there = corners @ one.affine.T, corners @ other.affine.T
    distance = float(np.linalg.norm(here - there, axis=1).max())
    if distance <= AFFINE_TOLERANCE:
        return None
    if np.allclose(sorted(here.round(3).tolist()), sorted(there.round(3).tolist()), atol=2 * AFFINE_TOLERANCE):
        return "an axis is flipped, or axes are exchanged"
    return f"corners are up to {distance:.3g} mm apart"
