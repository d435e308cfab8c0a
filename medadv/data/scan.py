"""A case that is a scan, read: NIfTI, NRRD, MHA and DICOM through the gate, on the stored grid."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from monai.data import NibabelReader
from monai.transforms import LoadImage
from nibabel.filebasedimages import ImageFileError
from torch import Tensor

from medadv.data.case import Case, Volume
from medadv.data.gate import (
    check_geometry,
    check_header,
    check_intensities,
    check_labels,
    check_mask,
    check_objects,
)
from medadv.data.header import Header, same_grid, unreadable
from medadv.data.itk import SimpleITKReader
from medadv.data.nifti import SUFFIXES
from medadv.data.resample import resample
from medadv.errors import CaseError, ConfigError, Reason
from medadv.labels import LabelScheme

_READER = (OSError, EOFError, ValueError, RuntimeError, zlib.error, ImageFileError)


def read_scan(case: Case) -> Volume:
    """Read a scan; see ``files.read``.

    Raises:
        CaseError: the case cannot be used; its reason says why.
        ConfigError: a grid that is no modality.
    """
    headers = _headers(case)
    first = next(iter(headers.values()))
    image = headers.get(case.grid or "", first)
    x = torch.cat([_on(image, header, _load(header, np.float32)) for header in headers.values()])
    check_intensities(x, case.modalities)
    truth = mask = None
    if case.label is not None:
        voxels, label = _flat(case, case.label, image, Reason.MISSING_LABEL)
        truth = check_labels(voxels, label, image, case.scheme)
    if case.mask is not None:
        mask = check_mask(*_flat(case, case.mask, image, Reason.MISSING_MASK), image)
    if case.objects is not None:
        check_objects(case.objects, image.shape, case.scheme)
    stored = {}
    for name in case.modalities:
        header = headers.get(name, first)
        stored[name] = header.dtype if same_grid(header, image) else np.dtype(np.float32)
    return Volume(case, x, truth, image.affine, stored, mask)


def read_labels(path: Path, volume: Volume, scheme: LabelScheme) -> Int[Tensor, "x y z"]:
    """A label map on a scan's grid, in numbers that the scheme knows.

    Raises:
        CaseError: the file is damaged, or the map is no such answer.
    """
    label = check_header(path)
    first, second, third = volume.x.shape[1:]
    grid = Header(path, (first, second, third), None, np.dtype(np.float32), volume.affine)
    return check_labels(_load(label, np.float64)[0], label, grid, scheme)


def _headers(case: Case) -> dict[str, Header]:
    """The checked header of each file: one a modality, or one for a 4-D file that holds them all."""
    if case.grid is not None and case.grid not in case.images:
        raise ConfigError("the grid is no modality", got=case.grid, expected=f"one of {list(case.modalities)}")
    for name, path in case.images.items():
        if not path.exists():
            raise CaseError(Reason.MISSING_MODALITY, f"{case.case}: {name} has no file {path.name}")
    distinct = dict.fromkeys(case.images.values())
    if len(distinct) == 1:
        headers = {case.modalities[0]: check_header(case.images[case.modalities[0]])}
    else:
        headers = {name: check_header(path) for name, path in case.images.items()}
    for name, header in headers.items():
        declared = len(case.images) if len(distinct) == 1 else 1
        found = header.channels or 1
        if found != declared or len(distinct) not in (1, len(case.images)):
            raise CaseError(
                Reason.MISSING_MODALITY if found < declared else Reason.EXTRA_MODALITY,
                f"{case.case}: {header.path.name} does not hold what is declared of it",
                got=f"{found} channels",
                expected=f"{declared}: {list(case.modalities) if declared > 1 else name}",
                advice="name one 3-D file a modality, or one 4-D file with a channel for each",
            )
    if case.grid is None:
        check_geometry(headers)
    return headers


def _load(header: Header, dtype: type[np.floating[Any]]) -> Float[Tensor, "c *s"]:
    """Voxels on the stored grid, channels first."""
    nifti = header.path.name.endswith(SUFFIXES)
    reader = NibabelReader(squeeze_non_spatial_dims=True) if nifti else SimpleITKReader()
    load = LoadImage(dtype=dtype, ensure_channel_first=True, expanduser=False)
    try:
        # Given here and not above, the reader is the only one: MONAI would try others after it.
        loaded = load([str(path) for path in header.slices or (header.path,)], reader=reader)
    except _READER as error:
        raise unreadable(header.path, error) from error
    voxels = torch.as_tensor(loaded.as_tensor()).contiguous()
    if voxels.shape != (header.channels or 1, *header.shape):
        raise CaseError(
            Reason.UNREADABLE,
            f"{header.path.name} holds something else than its header says",
            got=tuple(voxels.shape),
            expected=(header.channels or 1, *header.shape),
        )
    return voxels


def _on(image: Header, header: Header, voxels: Float[Tensor, "c *s"]) -> Float[Tensor, "c *r"]:
    """Voxels on the grid of ``image``: as they are where they lie on it."""
    if same_grid(header, image):
        return voxels
    check_intensities(voxels, (header.path.name,))  # before NaN is spread by interpolation, or cut off
    return torch.stack([resample(channel, header, image) for channel in voxels])


def _flat(case: Case, path: Path, image: Header, missing: Reason) -> tuple[Float64[Tensor, "*s"], Header]:
    """A label map or a mask: its voxels, and where they lie; on the grid of ``image`` where the case wants one grid."""
    if not path.exists():
        raise CaseError(missing, f"{case.case}: there is no file {path.name}")
    if path.is_dir():
        raise CaseError(Reason.UNREADABLE, f"{case.case}: {path.name} is a folder", expected="a file")
    header = check_header(path)
    voxels = _load(header, np.float64)[0]
    if case.grid is None or header.channels is not None or same_grid(header, image):
        return voxels, header
    return resample(voxels, header, image, nearest=True), replace(header, shape=image.shape, affine=image.affine)
