"""Files to voxels and back: ``read`` a case, ``write`` an adversarial one, and the digests that tell them apart.

Voxels stay as they are stored: on the stored grid, in stored units. Turning, resampling and normalising them is the
victim's business. The one exception is a case that says so: with ``Case.grid``, registered modalities are brought onto
the grid of one of them.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Shaped
from monai.data import NibabelReader
from monai.transforms import LoadImage
from nibabel.filebasedimages import ImageFileError
from torch import Tensor

from medadv.atomic import write_atomically
from medadv.data.case import Case, Volume
from medadv.data.gate import check_geometry, check_header, check_intensities, check_labels, check_mask
from medadv.data.header import Header, same_grid, unreadable
from medadv.data.itk import SimpleITKReader
from medadv.data.nifti import SUFFIXES, packed
from medadv.data.resample import resample
from medadv.errors import CaseError, ConfigError, Reason
from medadv.labels import LabelScheme

Container = Literal["float32", "as-stored"]

MARK = "ADVERSARIAL"
"""What every adversarial file's name and NIfTI description begin with."""

_READER = (OSError, EOFError, ValueError, RuntimeError, zlib.error, ImageFileError)
_PLAIN = re.compile(r"[\w][\w .+-]*")


def read(case: Case) -> Volume:
    """Read a case from its files, through the gate: NIfTI, NRRD, MHA, folders of a DICOM series, in any mixture.

    Returns:
        The volume: ``x (c, *s)`` float32 in stored units (slope and intercept applied), channels in the order of
        ``case.images``; truth ``(*s)`` int64 in stored label numbers, None for a case without a label; mask ``(*s)``.
        With ``case.grid``, all on the grid of that modality: images interpolated linearly, label and mask by the
        nearest voxel, 0 where there is nothing.

    Raises:
        CaseError: the case cannot be used; its reason says why.
        ConfigError: a path and not a case, or a grid that is no modality.
    """
    if not isinstance(case, Case):
        raise ConfigError(
            "what is read is a case: its files, and what they mean",
            got=repr(case),
            expected="a Case",
            cause="a path does not say which modality a file is, nor what its label numbers mean",
            advice="brats(folder, release) for a BraTS case; brats_cohort(root).cases, msd_cohort(root).cases for all",
        )
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
    stored = {}
    for name in case.modalities:
        header = headers.get(name, first)
        stored[name] = header.dtype if same_grid(header, image) else np.dtype(np.float32)
    return Volume(case, x, truth, image.affine, stored, mask)


def read_label(path: Path, volume: Volume, scheme: LabelScheme) -> Int[Tensor, "*s"]:
    """Read a label map that answers a volume, through the gate: of the volume's grid, in numbers that the scheme knows.

    Raises:
        CaseError: the file is damaged, or the map is no such answer.
    """
    label = check_header(path)
    first, second, third = volume.x.shape[1:]
    grid = Header(path, (first, second, third), None, np.dtype(np.float32), volume.affine)
    return check_labels(_load(label, np.float64)[0], label, grid, scheme)


def write(
    volume: Volume,
    x: Float[Tensor, "c *s"],
    folder: Path,
    *,
    stem: str,
    container: Container = "float32",
    note: Mapping[str, Any] | None = None,
) -> Case:
    """Write adversarial voxels as NIfTI that says what it is.

    File names and descriptions begin with ``ADVERSARIAL``; headers are fresh (grid and unit, nothing of the source);
    ``ADVERSARIAL.json`` beside them holds ``note`` and the files' SHA-256. A file appears whole or not at all, and this
    one last: where it lies, all the others do.

    Args:
        volume: the clean case, whose grid the voxels are on.
        x: the voxels, in stored units; of any precision, if the container holds each of them exactly.
        folder: where to; made if it is missing.
        stem: what the files are called after ``ADVERSARIAL_``.
        container: ``float32`` keeps every bit of single precision, and refuses what double precision adds: rounding
            could carry a voxel out of its budget; ``as-stored`` takes the source's data type with slope 1, and refuses
            values that it cannot hold.
        note: what else to say: budget, digest of the source.

    Returns:
        The case that reads the files back, with the id, label and scheme of ``volume.case``.

    Raises:
        ConfigError: another shape, an unknown container, or a stem or modality that makes no file name.
        CaseError: NOT_FINITE, or BUDGET_NOT_STORABLE in the container.
        RunError: the folder cannot be written, or the disk is full.
    """
    if container not in get_args(Container):
        raise ConfigError("there is no such container", got=container, expected=f"one of {get_args(Container)}")
    if x.shape != volume.x.shape:
        raise ConfigError("the voxels are not on the volume's grid", got=tuple(x.shape), expected=tuple(volume.x.shape))
    if not bool(torch.isfinite(x).all()):
        raise CaseError(Reason.NOT_FINITE, "the adversarial voxels are not all finite", advice="check the attack")
    exact = x.detach().cpu()
    case, voxels = volume.case, (exact if exact.dtype == torch.float32 else exact.double()).numpy()
    together = len(set(case.images.values())) < len(case.images)
    parts = {None: np.moveaxis(voxels, 0, -1)} if together else dict(zip(case.modalities, voxels, strict=True))
    files = {name: folder / _file_name(stem, name) for name in parts}
    contents: dict[Path, bytes] = {}
    for name, part in parts.items():
        stored = volume.stored[name or case.modalities[0]] if container == "as-stored" else np.dtype(np.float32)
        kept = _fitted(part, stored, name or "file")
        contents[files[name]] = packed(kept, volume.affine, f"{MARK} example, not a scan; made by medadv")
    digests = {path.name: hashlib.sha256(content).hexdigest() for path, content in contents.items()}
    said = {**(note or {}), "adversarial": True, "container": container, "files": digests}
    contents[folder / f"{MARK}.json"] = json.dumps(said, indent=1, allow_nan=False).encode()
    for path, content in contents.items():
        write_atomically(path, partial(Path.write_bytes, data=content))
    images = {name: files[None if together else name] for name in case.modalities}
    return replace(case, images=images)


def written(case: Case, folder: Path) -> Case | None:
    """The case that reads back what ``write`` put into a folder; None where it is not all there, or damaged.

    Args:
        case: the clean case, whose modalities are looked for.
        folder: where ``write`` wrote, one case a folder.
    """
    try:
        digests = dict(json.loads((folder / f"{MARK}.json").read_text(encoding="utf-8"))["files"])
        files = [folder / Path(name).name for name in digests]
        found = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if found != list(digests.values()) or len(files) not in (1, len(case.images)):
        return None
    each = files * len(case.images) if len(files) == 1 else files
    return replace(case, images=dict(zip(case.modalities, each, strict=True)))


def content_digest(volume: Volume) -> str:
    """SHA-256 of a volume's shape, affine, voxels and mask: the same for the same content, whatever file it lies in."""
    voxels = _digest(volume.x.numpy().astype("<f4"), volume.affine)
    if volume.mask is None:
        return voxels
    return hashlib.sha256((voxels + _digest(volume.mask.numpy(), volume.affine)).encode()).hexdigest()


def label_digest(volume: Volume) -> str | None:
    """SHA-256 of a volume's label map, None where there is none."""
    return None if volume.truth is None else _digest(volume.truth.numpy().astype("<i8"), volume.affine)


def _digest(voxels: Shaped[np.ndarray, "..."], affine: Float64[np.ndarray, "4 4"]) -> str:
    state = hashlib.sha256(repr(voxels.shape).encode())
    state.update(affine.astype("<f8").tobytes())
    state.update(voxels.tobytes())
    return state.hexdigest()


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


def _fitted(voxels: Float[np.ndarray, "..."], dtype: np.dtype[Any], name: str) -> Shaped[np.ndarray, "..."]:
    """The voxels in another data type, if it holds every one of them exactly."""
    with np.errstate(invalid="ignore"):  # what does not fit is compared, and refused, below
        kept = voxels.astype(dtype)
    if not np.array_equal(kept.astype(np.float64), voxels.astype(np.float64)):
        raise CaseError(
            Reason.BUDGET_NOT_STORABLE,
            f"{dtype} cannot hold the adversarial {name}",
            got=f"values from {voxels.min()} to {voxels.max()}, not all of them storable",
            expected="whole numbers in the type's range" if dtype.kind in "iu" else "values exact in this precision",
            advice="attack in single precision: attack(victim, x.float(), truth)"
            if dtype == np.float32
            else 'write with container="float32"',
        )
    return kept


def _file_name(stem: str, modality: str | None) -> str:
    for part in (stem, modality or stem):
        if not _PLAIN.fullmatch(part):
            raise ConfigError(
                "this makes no file name", got=part, expected="letters, digits, spaces and . _ + -, no leading dot"
            )
    return f"{MARK}_{stem}.nii.gz" if modality is None else f"{MARK}_{stem}_{modality}.nii.gz"
