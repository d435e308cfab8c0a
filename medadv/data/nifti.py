"""NIfTI: its header held against the file, and files with a fresh header."""

from __future__ import annotations

import gzip
from math import prod
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from jaxtyping import Float64, Shaped
from nibabel.spatialimages import HeaderDataError

from medadv.data.header import Header, check_size, dimensions, placed, readable
from medadv.errors import CaseError, Reason

SUFFIXES = (".nii", ".nii.gz")

SCANNER = 1
"""NIFTI_XFORM_SCANNER_ANAT: coordinates are millimetres in the scanner's frame."""


def packed(voxels: Shaped[np.ndarray, "..."], affine: Float64[np.ndarray, "4 4"], description: str = "") -> bytes:
    """A ``.nii.gz`` that says nothing but its grid: slope 1, intercept 0, mm; equal input gives equal bytes.

    Nothing is copied from another header, where names of patients survive. The affine stands in the sform, and in the
    qform too unless it is sheared, which a qform cannot tell.

    Args:
        voxels: three axes of space, and channels if there are four; stored in their own data type.
        affine: voxel → millimetres.
        description: up to 79 characters.
    """
    image: Any = nib.Nifti1Image(voxels, None)  # type: ignore[no-untyped-call]
    image.set_sform(affine, SCANNER)
    zooms = np.linalg.norm(affine[:3, :3], axis=0)
    axes = affine[:3, :3] / zooms
    straight = np.allclose(axes.T @ axes, np.eye(3), atol=1e-4)
    image.header.set_zooms((*zooms, *[1.0] * (voxels.ndim - 3)))
    image.set_qform(affine, SCANNER if straight else 0, update_affine=False)
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(1, 0)
    image.header["descrip"] = description.encode("ascii")
    return gzip.compress(image.to_bytes(), compresslevel=1, mtime=0)


def check_nifti(path: Path) -> Header:
    """Read a NIfTI file's header and hold it against the file, without allocating a voxel.

    Raises:
        CaseError: UNREADABLE, DIMENSIONS, HEADER_SIZE, DATA_TYPE or AFFINE_INVALID.
    """
    with readable(path):
        zipped = path.name.endswith(".gz")
        with gzip.open(path, "rb") if zipped else path.open("rb") as stream:
            header = _parse(path, stream.read(nib.Nifti2Header.sizeof_hdr))
        rank = int(header["dim"][0])
        declared = [int(n) for n in header["dim"][1 : 1 + rank]] if 1 <= rank <= 7 else []
        sizes = list(declared)
        while len(sizes) > 3 and sizes[-1] == 1:
            sizes.pop()
        shape, channels = dimensions(path, sizes)
        dtype = _data_type(path, header)
        begin = float(header["vox_offset"])
        if 0 < begin < header.single_vox_offset:
            raise CaseError(
                Reason.HEADER_SIZE,
                f"{path.name} says that its voxels begin inside its header",
                got=f"byte {begin:g}",
                expected=f"byte {header.single_vox_offset} or later",
                advice="copy the file again from its source",
            )
        promised = begin + prod(declared) * dtype.itemsize
        check_size(path, promised, packing="gzip" if zipped else None)
        return Header(path, shape, channels, dtype, _affine(path, header))


def _parse(path: Path, raw: bytes) -> nib.Nifti1Header:
    for kind in (nib.Nifti1Header, nib.Nifti2Header):
        if len(raw) >= kind.sizeof_hdr and kind.may_contain_header(raw):  # type: ignore[no-untyped-call]
            # Not checked by nibabel: it repairs, and logs what it repaired.
            return kind(raw[: kind.sizeof_hdr], check=False)  # type: ignore[no-untyped-call]
    raise CaseError(
        Reason.UNREADABLE,
        f"{path.name} is not NIfTI",
        got="a file of another kind" if raw else "an empty file",  # not its first bytes: they may be a name
        advice="convert the image to NIfTI, for instance with dcm2niix",
    )


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


def _affine(path: Path, header: nib.Nifti1Header) -> Float64[np.ndarray, "4 4"]:
    zooms = np.asarray(header["pixdim"][1:4], np.float64)
    if not (np.isfinite(zooms).all() and zooms.min() > 0):  # nibabel would repair it, and other readers rely on it
        raise CaseError(
            Reason.AFFINE_INVALID,
            f"{path.name} has voxels of no size",
            got=f"pixdim {zooms.tolist()}",
            expected="three sizes above 0, in mm",
            advice="convert the image again from its source",
        )
    try:
        affine = header.get_best_affine()  # type: ignore[no-untyped-call]
    except (HeaderDataError, ValueError, np.linalg.LinAlgError):  # a quaternion longer than 1
        affine = np.full((4, 4), np.nan)
    return placed(path, np.asarray(affine, np.float64))
