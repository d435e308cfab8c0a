"""Files to voxels and back: ``read`` a case, ``write`` an adversarial one, and the digests that tell them apart.

Voxels stay as they are stored: on the stored grid, in stored units. Turning, resampling and normalising them is the
victim's business. The one exception is a case that says so: with ``Case.grid``, registered modalities are brought onto
the grid of one of them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Shaped
from torch import Tensor

from medadv.atomic import write_atomically
from medadv.data.case import Case, Picture, Volume
from medadv.data.nifti import packed
from medadv.data.picture import is_picture_case, read_numbers, read_picture
from medadv.data.pixels import CHANNELS, encoded
from medadv.data.scan import read_labels, read_scan
from medadv.errors import CaseError, ConfigError, Reason, RunError
from medadv.labels import LabelScheme

Container = Literal["float32", "as-stored"]

MARK = "ADVERSARIAL"
"""What every adversarial file's name and description begin with."""
_CONTENT = "content"
_COPY = ".png"

_PLAIN = re.compile(r"[\w][\w .+-]*")


def read(case: Case) -> Volume:
    """Read a case from its files, through the gate: NIfTI, NRRD, MHA, folders of a DICOM series, in any mixture.

    Pictures come by the same door: one PNG, JPEG, TIFF or npy for red, green and blue; ``x (3, h, w)`` is then 0 to
    255 as stored.

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
    return read_picture(case) if is_picture_case(case) else read_scan(case)


def read_label(path: Path, volume: Volume, scheme: LabelScheme) -> Int[Tensor, "*s"]:
    """Read a label map that answers a volume, through the gate: of the volume's grid, in numbers that the scheme knows.

    Raises:
        CaseError: the file is damaged, or the map is no such answer.
    """
    if volume.x.ndim == 3:
        return read_numbers(path, (volume.x.shape[1], volume.x.shape[2]), scheme)
    return read_labels(path, volume, scheme)


def write(
    volume: Volume,
    x: Float[Tensor, "c *s"],
    folder: Path,
    *,
    stem: str,
    container: Container = "float32",
    note: Mapping[str, Any] | None = None,
) -> Case:
    """Write adversarial voxels as NIfTI that says what it is; a picture as npy, ``(h, w, 3)``, with an 8-bit PNG copy.

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
    voxels = (exact if exact.dtype == torch.float32 else exact.double()).numpy()
    packing = _as_picture if volume.x.ndim == 3 else _as_nifti
    images, contents = packing(volume, voxels, folder, stem, container)
    digests = {path.name: hashlib.sha256(content).hexdigest() for path, content in contents.items()}
    said = {**(note or {}), **_content(volume), "adversarial": True, "container": container, "files": digests}
    contents[folder / f"{MARK}.json"] = json.dumps(said, indent=1, allow_nan=False).encode()
    for path, content in contents.items():
        write_atomically(path, partial(Path.write_bytes, data=content))
    return _delivered(volume.case, images, said.get(_CONTENT))


def written(case: Case, folder: Path) -> Case | None:
    """The case that reads back what ``write`` put into a folder; None where it is not all there, or damaged.

    Args:
        case: the clean case, whose modalities are looked for.
        folder: where ``write`` wrote, one case a folder.
    """
    try:
        said = json.loads((folder / f"{MARK}.json").read_text(encoding="utf-8"))
        digests = dict(said["files"])
        files = [folder / Path(name).name for name in digests]
        found = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    files = [file for file in files if file.suffix != _COPY]
    if found != list(digests.values()) or len(files) not in (1, len(case.images)):
        return None
    each = files * len(case.images) if len(files) == 1 else files
    return _delivered(case, dict(zip(case.modalities, each, strict=True)), said.get(_CONTENT))


def eight_bit(case: Case, folder: Path) -> Case:
    """The case that reads the 8-bit copy of a picture that ``write`` put into a folder.

    Args:
        case: the clean case.
        folder: where ``write`` wrote, one case a folder.

    Raises:
        RunError: it is not there, or damaged.
    """
    exact = written(case, folder)
    copies = {path.with_suffix(_COPY) for path in exact.images.values()} if exact else set()
    if exact is None or len(copies) != 1 or not all(copy.is_file() for copy in copies):
        raise RunError("there is no 8-bit copy of the adversarial picture", advice="attack this case again")
    return replace(exact, images=dict.fromkeys(case.modalities, copies.pop()))


def content_digest(volume: Volume) -> str:
    """SHA-256 of a volume's shape, affine, voxels and mask: the same for the same content, whatever file it lies in."""
    voxels = _digest(volume.x.numpy().astype("<f4"), volume.affine)
    if volume.mask is None:
        return voxels
    return hashlib.sha256((voxels + _digest(volume.mask.numpy(), volume.affine)).encode()).hexdigest()


def label_digest(volume: Volume) -> str | None:
    """SHA-256 of what is true of a volume: its label map, its objects, or both; None where there is neither."""
    labels = None if volume.truth is None else _digest(volume.truth.numpy().astype("<i8"), volume.affine)
    objects = volume.case.objects
    if objects is None:
        return labels
    parts = (objects.boxes.numpy().astype("<f4"), objects.labels.numpy().astype("<i8"), (~objects.counted).numpy())
    told = "".join((labels or "", *(_digest(part, volume.affine) for part in parts)))
    return hashlib.sha256(told.encode()).hexdigest()


def _digest(voxels: Shaped[np.ndarray, "..."], affine: Float64[np.ndarray, "4 4"]) -> str:
    state = hashlib.sha256(repr(voxels.shape).encode())
    state.update(affine.astype("<f8").tobytes())
    state.update(voxels.tobytes())
    return state.hexdigest()


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


def _as_nifti(
    volume: Volume, voxels: Float[np.ndarray, "c x y z"], folder: Path, stem: str, container: Container
) -> tuple[dict[str, Path], dict[Path, bytes]]:
    """The file of each modality, and what each file holds."""
    case = volume.case
    together = len(set(case.images.values())) < len(case.images)
    parts = {None: np.moveaxis(voxels, 0, -1)} if together else dict(zip(case.modalities, voxels, strict=True))
    files = {name: folder / f"{_file_name(stem, name)}.nii.gz" for name in parts}
    contents: dict[Path, bytes] = {}
    for name, part in parts.items():
        stored = volume.stored[name or case.modalities[0]] if container == "as-stored" else np.dtype(np.float32)
        kept = _fitted(part, stored, name or "file")
        contents[files[name]] = packed(kept, volume.affine, f"{MARK} example, not a scan; made by medadv")
    return {name: files[None if together else name] for name in case.modalities}, contents


def _as_picture(
    volume: Volume, voxels: Float[np.ndarray, "c h w"], folder: Path, stem: str, container: Container
) -> tuple[dict[str, Path], dict[Path, bytes]]:
    """One npy for all channels, and its 8-bit copy beside it."""
    case = volume.case
    stored = next(iter(volume.stored.values())) if container == "as-stored" else np.dtype(np.float32)
    order = [case.modalities.index(name) for name in CHANNELS]
    kept = _fitted(np.moveaxis(voxels[order], 0, -1), stored, "file")
    name = folder / f"{_file_name(stem, None)}.npy"
    exact, copy = encoded(kept, f"{MARK} example, not a photograph; made by medadv")
    return dict.fromkeys(case.modalities, name), {name: exact, name.with_name(f"{name.stem}.png"): copy}


def _content(volume: Volume) -> dict[str, list[int]]:
    """How much of a canvas is the picture."""
    if (where := volume.content) is None:
        return {}
    return {_CONTENT: [int(where.any(1).sum()), int(where.any(0).sum())]}


def _delivered(case: Case, images: Mapping[str, Path], content: Sequence[int] | None) -> Case:
    """The case with other files."""
    if content is None:
        return replace(case, images=images)
    height, width = content
    return replace(case, images=images, picture=replace(case.picture or Picture(), content=(height, width)))


def _file_name(stem: str, modality: str | None) -> str:
    for part in (stem, modality or stem):
        if not _PLAIN.fullmatch(part):
            raise ConfigError(
                "this makes no file name", got=part, expected="letters, digits, spaces and . _ + -, no leading dot"
            )
    return f"{MARK}_{stem}" if modality is None else f"{MARK}_{stem}_{modality}"
