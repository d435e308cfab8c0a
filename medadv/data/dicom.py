"""A folder with one DICOM series of MR slices: its headers, held against each other.

GDCM reads them, through SimpleITK. Geometry after DICOM PS3.3, C.7.6.2 (image plane). Of a slice, no more than its
size, its data type and its place is kept; the names of its files and its identifiers appear in no message.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from jaxtyping import Float64

from medadv.data.header import DEFLATE_LIMIT, Header, dimensions, placed, ras, readable
from medadv.errors import CaseError, Reason

UNEVEN = 0.02
"""How far a slice may lie from its place in an even stack, as a share of the step between slices."""
_LEAST_STEP = 0.01
_ADVICE = "put one MR series a folder, as it came from the scanner; or convert it to NIfTI, for instance with dcm2niix"

_DIRECTORY = "1.2.840.10008.1.3.10"
_MR = "1.2.840.10008.5.1.4.1.1.4"
_KINDS = {
    _MR: "MR image",
    f"{_MR}.1": "enhanced MR image",
    f"{_MR}.2": "MR spectroscopy",
    f"{_MR}.3": "enhanced MR colour image",
    f"{_MR}.4": "legacy converted enhanced MR image",
    "1.2.840.10008.5.1.4.1.1.2": "CT image",
    "1.2.840.10008.5.1.4.1.1.66.4": "segmentation",
    "1.2.840.10008.5.1.4.1.1.128": "PET image",
}
"""Classes of storage, DICOM PS3.4, B.5."""
_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_MANY_FRAMES = {_KINDS[f"{_MR}.{n}"] for n in (1, 3, 4)}
_PLAIN = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
"""Transfer syntaxes that do not compress; the first is that of a file which names none (PS3.5, 10.1)."""
_BESIDE = (".txt", ".md", ".json", ".xml", ".html", ".htm", ".csv", ".pdf", ".jpg", ".jpeg", ".png", ".ini", ".db")
"""How the names of files end that archives, viewers and converters leave beside a series."""


@dataclass(frozen=True, eq=False)
class _Slice:
    file: Path
    series: int
    size: tuple[int, int]
    dtype: np.dtype[Any]
    spacing: Float64[np.ndarray, "2"]
    axes: Float64[np.ndarray, "2 3"]
    position: Float64[np.ndarray, "3"]


def check_series(folder: Path) -> Header:
    """Read the headers of the slices in a folder, and sort them by where they lie.

    A DICOMDIR is passed over, and what is known to lie beside a series: a README, tables, pictures. Any other file that
    is no DICOM could be a damaged slice, and is refused. Slices that lack at either end cannot be told.

    Returns:
        The header of the volume; its third axis climbs along the cross product of the other two, and so do ``slices``.

    Raises:
        CaseError: UNREADABLE, SERIES_MIXED, SERIES_SLICES, SERIES_DUPLICATES, SERIES_GAPS, MULTI_FRAME, NOT_MR,
            DATA_TYPE, DIMENSIONS, HEADER_SIZE or AFFINE_INVALID.
    """
    with readable(folder):
        files = _files(folder)
        series: dict[str, int] = {}
        slices = [_slice(folder, file, syntax, series) for file, syntax in files.items()]
    counts = sorted(Counter(each.series for each in slices).values(), reverse=True)
    if len(counts) > 1:
        raise CaseError(
            Reason.SERIES_MIXED,
            f"{folder.name} holds {len(counts)} series",
            got=f"series of {', '.join(map(str, counts))} slices",
            expected="one series",
            advice=_ADVICE,
        )
    _check_alike(folder, slices)
    slices, step = _stacked(folder, slices)
    first = slices[0]
    shape, _ = dimensions(folder, (*first.size, len(slices)))
    affine = np.eye(4)
    affine[:3, :2] = (first.axes * first.spacing[:, None]).T
    affine[:3, 2] = step
    affine[:3, 3] = first.position
    return Header(folder, shape, None, first.dtype, placed(folder, ras(affine)), tuple(each.file for each in slices))


def _files(folder: Path) -> dict[Path, str]:
    """The MR images in a folder, and the transfer syntax of each."""
    found: dict[Path, str] = {}
    kinds: Counter[str] = Counter()
    for file in sorted(folder.iterdir()):
        if file.name.startswith(".") or not file.is_file():
            continue
        meta = _meta(file)
        if meta is None:
            if file.suffix.lower() in _BESIDE or file.name.upper().startswith(("README", "DICOMDIR")):
                continue
            meta = _bare(folder, file)
        if (kind := meta.get(0x0002)) != _DIRECTORY:
            kinds[_kind(kind or "")] += 1
            found[file] = meta.get(0x0010, "")
    if not found:
        raise CaseError(
            Reason.UNREADABLE,
            f"{folder.name} is a folder without DICOM images",
            expected="a folder with the slices of one series, or a file",
            advice=_ADVICE,
        )
    if strange := {kind: n for kind, n in kinds.items() if kind != _KINDS[_MR]}:
        raise CaseError(
            Reason.MULTI_FRAME if strange.keys() <= _MANY_FRAMES else Reason.NOT_MR,
            f"{folder.name} holds other things than MR slices",
            got=", ".join(f"{n} × {kind}" for kind, n in sorted(kinds.items())),
            expected="MR images, one slice a file",
            advice=_ADVICE,
        )
    return found


def _kind(storage: str) -> str:
    if storage == _CAPTURE or storage.startswith(f"{_CAPTURE}."):
        return "secondary capture"
    return _KINDS.get(storage, "something else")


def _meta(file: Path) -> dict[int, str] | None:
    """The unique identifiers in a file's meta information (PS3.10, 7.1), by element; None if it is no DICOM."""
    with file.open("rb") as stream:
        marked = stream.read(132)[128:] == b"DICM"
    return _identifiers(file, 132) if marked else None


def _identifiers(file: Path, at: int) -> dict[int, str]:
    with file.open("rb") as stream:
        raw = stream.read(4096)
    found: dict[int, str] = {}
    while at + 8 <= len(raw):
        group, element, kind, length = struct.unpack_from("<HH2sH", raw, at)
        if group != 0x0002:
            break
        at += 8
        if kind in (b"OB", b"UN"):
            (length,) = struct.unpack_from("<I", raw.ljust(at + 4, b"\0"), at)
            at += 4
        if kind == b"UI":
            found[element] = raw[at : at + length].decode("latin-1").rstrip("\0 ")
        at += length
    return found


def _bare(folder: Path, file: Path) -> dict[int, str]:
    """The same of a file that begins without the preamble, as some scanners and archives write it."""
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(file))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise CaseError(
            Reason.UNREADABLE,
            f"a file in {folder.name} is no DICOM image",
            got="a damaged slice, or a file that does not belong to the series",
            expected="slices; beside them, no more than a DICOMDIR, a README, tables and pictures",
            advice="copy the series again from its source, or move out of the folder what is no slice of it",
        ) from error
    kind = reader.GetMetaData("0008|0016") if reader.HasMetaDataKey("0008|0016") else ""
    return {0x0010: _PLAIN[0], **_identifiers(file, 0), 0x0002: kind.strip(" \0")}


def _slice(folder: Path, file: Path, syntax: str, series: dict[str, int]) -> _Slice:
    """What one file says of its slice. ``series`` gives each series a number as it comes."""
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(file))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise CaseError(
            Reason.UNREADABLE,
            f"a slice in {folder.name} cannot be read",
            got="a file that is cut short, or no image",
            advice="copy the series again from its source",
        ) from error

    def tag(name: str) -> str:
        return reader.GetMetaData(name).strip(" \0") if reader.HasMetaDataKey(name) else ""

    if (tag("0028|0008") or "1") != "1":
        raise CaseError(Reason.MULTI_FRAME, f"{folder.name} holds files of many frames", advice=_ADVICE)
    if tag("0008|0060") != "MR" or tag("0028|0002") != "1" or not tag("0028|0004").startswith("MONOCHROME"):
        raise CaseError(
            Reason.NOT_MR,
            f"{folder.name} holds what is no MR image",
            got=f"modality {tag('0008|0060')[:16]}, {tag('0028|0002')[:4]} samples a pixel, {tag('0028|0004')[:16]}",
            expected="modality MR, one grey value a pixel",
            advice=_ADVICE,
        )
    dtype = _data_type(folder, tag("0028|0100"), tag("0028|0103"), tag("0028|1053") or "1", tag("0028|1052") or "0")
    columns, rows = (int(n) for n in reader.GetSize()[:2])
    dimensions(folder, (columns, rows, 2))
    promised, held = columns * rows * dtype.itemsize, file.stat().st_size
    if promised > (held if syntax in _PLAIN else held * DEFLATE_LIMIT):
        raise CaseError(
            Reason.HEADER_SIZE,
            f"a slice in {folder.name} does not hold what its header promises",
            got=f"{held} bytes",
            expected=f"{promised} bytes for {rows} rows of {columns}",
            advice="copy the series again from its source",
        )
    between_rows, between_columns = _numbers(tag("0028|0030"), 2)
    return _Slice(
        file,
        series.setdefault(tag("0020|000e"), len(series)),
        (columns, rows),
        dtype,
        np.array([between_columns, between_rows]),
        np.reshape(_numbers(tag("0020|0037"), 6), (2, 3)),
        np.array(_numbers(tag("0020|0032"), 3)),
    )


def _data_type(folder: Path, bits: str, signed: str, slope: str, intercept: str) -> np.dtype[Any]:
    rescale = _numbers(slope, 1) + _numbers(intercept, 1)
    if bits not in ("8", "16", "32") or not all(isfinite(n) for n in rescale) or rescale[0] == 0:
        raise CaseError(
            Reason.DATA_TYPE,
            f"{folder.name} does not hold one real number a voxel",
            got=f"{bits[:8]} bits, rescale slope {rescale[0]}, intercept {rescale[1]}",
            expected="8, 16 or 32 bits, a finite slope other than 0 and a finite intercept",
        )
    return np.dtype(f"{'i' if signed == '1' else 'u'}{int(bits) // 8}")


def _numbers(text: str, count: int) -> list[float]:
    """The numbers of a tag; NaN where there are others than so many."""
    try:
        found = [float(part) for part in text.split("\\")]
    except ValueError:
        found = []
    return found if len(found) == count else [float("nan")] * count


def _check_alike(folder: Path, slices: Sequence[_Slice]) -> None:
    first = slices[0]
    axes = np.stack([each.axes for each in slices])
    places = np.stack([each.position for each in slices])
    spacing = np.stack([each.spacing for each in slices])
    square = np.allclose(first.axes @ first.axes.T, np.eye(2), atol=1e-3)
    finite = all(np.isfinite(numbers).all() for numbers in (axes, places, spacing))
    if not (finite and square and spacing.min() > 0):
        raise CaseError(
            Reason.AFFINE_INVALID,
            f"slices in {folder.name} do not say where they lie",
            expected="position, orientation (two axes at right angles) and pixel spacing (above 0) of each slice",
            advice=_ADVICE,
        )
    unlike = {
        "size": any(each.size != first.size for each in slices),
        "data type": any(each.dtype != first.dtype for each in slices),
        "orientation": not np.allclose(axes, first.axes, atol=1e-4),
        "pixel spacing": not np.allclose(spacing, first.spacing, rtol=1e-4),
    }
    if any(unlike.values()):
        raise CaseError(
            Reason.SERIES_SLICES,
            f"the slices in {folder.name} do not make one volume",
            got=f"slices of different {' and '.join(name for name, differs in unlike.items() if differs)}",
            cause="a localiser of three planes, or several acquisitions in one series",
            advice=_ADVICE,
        )


def _stacked(folder: Path, slices: Sequence[_Slice]) -> tuple[list[_Slice], Float64[np.ndarray, "3"]]:
    """The slices along their normal, and the step from each to the next in mm."""
    normal = np.cross(*slices[0].axes)
    ordered = sorted(slices, key=lambda each: float(each.position @ normal))
    if len(ordered) == 1:
        return ordered, normal
    positions = np.stack([each.position for each in ordered])
    steps = np.diff(positions @ normal)
    if steps.min() < _LEAST_STEP:
        raise CaseError(
            Reason.SERIES_DUPLICATES,
            f"slices in {folder.name} lie in the same place",
            got=f"{int((steps < _LEAST_STEP).sum()) + 1} slices or more of {len(ordered)}",
            cause="several echoes, time points or diffusion weightings in one series, or copies of files",
            advice="export one of them as a series of its own",
        )
    step = (positions[-1] - positions[0]) / (len(ordered) - 1)
    away = np.linalg.norm(positions - positions[0] - np.arange(len(ordered))[:, None] * step, axis=1)
    if away.max() > max(UNEVEN * float(np.median(steps)), _LEAST_STEP):
        raise CaseError(
            Reason.SERIES_GAPS,
            f"the slices in {folder.name} are not evenly spaced",
            got=f"{len(ordered)} slices, {steps.min():.4g} to {steps.max():.4g} mm from one to the next",
            expected=f"{float(np.median(steps)):.4g} mm",
            advice="fetch the missing slices from the archive; none are made up",
        )
    return ordered, step
