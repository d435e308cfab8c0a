"""NRRD and MHA: their headers, read as the text they are, and MONAI's way to SimpleITK.

A header is believed only after it was held against the file. It may name another file for its voxels, which is refused:
it could be any file. Formats: teem.sourceforge.net/nrrd/format.html; ITK's documentation of MetaIO.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import prod
from os import PathLike
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np
import SimpleITK
from jaxtyping import Float64, Shaped
from monai.data import ImageReader
from monai.utils import ensure_tuple

from medadv.data.header import MOST_VOXELS, Header, check_size, dimensions, placed, ras, readable
from medadv.errors import CaseError, Reason

_LONGEST_HEADER = 1 << 20
_ONE_FILE = "write header and voxels into one .nrrd, .mha or .nii.gz file"

_NRRD_TYPES: dict[str, str] = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "int64", "int64_t"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), "u8"),
    "float": "f4",
    "double": "f8",
}
_NRRD_SPACES = {
    **dict.fromkeys(("left-posterior-superior", "lps"), (1.0, 1.0, 1.0)),
    **dict.fromkeys(("right-anterior-superior", "ras"), (-1.0, -1.0, 1.0)),
    **dict.fromkeys(("left-anterior-superior", "las"), (1.0, -1.0, 1.0)),
}
"""What turns a space of NRRD into LPS."""
_NRRD_CHANNELS = ("vector", "list", "covariant-vector", "point", "normal")
_MHA_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}


def check_nrrd(path: Path) -> Header:
    """Read the header of a NRRD file and hold it against the file, without allocating a voxel.

    Raises:
        CaseError: UNREADABLE, DIMENSIONS, HEADER_SIZE, DATA_TYPE or AFFINE_INVALID.
    """
    with readable(path):
        fields, begin = _nrrd_fields(path)
        if {"datafile", "lineskip", "byteskip"} & fields.keys():
            _refuse(path, "does not hold its own voxels", got="a header that points elsewhere", advice=_ONE_FILE)
        encoding = fields["encoding"].lower()
        if encoding not in ("raw", "gzip", "gz"):
            _refuse(path, "is packed in a way that is not read", got=_clip(encoding), expected="raw or gzip")
        sizes = _whole(path, fields["sizes"])
        kinds = fields.get("kinds", " ".join(["domain"] * len(sizes))).lower().split()
        if len(kinds) != len(sizes) or str(len(sizes)) != fields["dimension"]:
            _refuse(path, "contradicts itself", got=f"sizes {sizes}, kinds {kinds}, dimension {fields['dimension']}")
        dtype = _real(path, _NRRD_TYPES.get(" ".join(fields["type"].lower().split())), fields["type"])
        domain = [axis for axis, kind in enumerate(kinds) if kind in ("domain", "space")]
        others = [axis for axis in range(len(sizes)) if axis not in domain]
        if bad := [kinds[axis] for axis in others if kinds[axis] not in _NRRD_CHANNELS]:
            raise CaseError(Reason.DATA_TYPE, f"{path.name} does not hold real numbers", got=[_clip(k) for k in bad])
        if len(domain) != 3 or len(others) > 1:
            raise CaseError(
                Reason.DIMENSIONS,
                f"{path.name} is not a volume",
                got=f"sizes {sizes}, of kinds {kinds}",
                expected="three axes of space (kind: domain), and at most one of channels (kind: vector or list)",
            )
        shape, channels = dimensions(path, [sizes[axis] for axis in (*domain, *others)])
        if path.name.endswith(".seg.nrrd") and channels is not None:
            raise CaseError(
                Reason.DIMENSIONS,
                f"{path.name} holds overlapping segments",
                got=f"{channels} layers",
                expected="one label map",
                advice="export the segmentation as one label map, with the scan as reference geometry",
            )
        affine = _nrrd_affine(path, fields, others)
        check_size(path, prod(sizes) * dtype.itemsize, begin=begin, packing=None if encoding == "raw" else "gzip")
        return Header(path, shape, channels, dtype, affine)


def check_mha(path: Path) -> Header:
    """Read the header of an MHA file and hold it against the file, without allocating a voxel.

    Raises:
        CaseError: UNREADABLE, DIMENSIONS, HEADER_SIZE, DATA_TYPE or AFFINE_INVALID.
    """
    with readable(path):
        fields, begin = _mha_fields(path)
        if fields["ElementDataFile"] not in ("LOCAL", "Local", "local") or fields.get("HeaderSize", "0") != "0":
            _refuse(path, "does not hold its own voxels", got="a header that points elsewhere", advice=_ONE_FILE)
        if fields.get("BinaryData", "True").lower() not in ("true", "1"):
            _refuse(path, "is packed in a way that is not read", got="voxels as text", expected="BinaryData = True")
        slope = fields.get("ElementToIntensityFunctionSlope", "1")
        intercept = fields.get("ElementToIntensityFunctionOffset", "0")
        if float(slope) != 1 or float(intercept) != 0:
            raise CaseError(  # ITK reads past them
                Reason.DATA_TYPE, f"{path.name} has a slope that readers ignore", got=[_clip(slope), _clip(intercept)]
            )
        dtype = _real(path, _MHA_TYPES.get(fields["ElementType"]), fields["ElementType"])
        sizes = _whole(path, fields["DimSize"])
        components = _whole(path, fields.get("ElementNumberOfChannels", "1"))
        if str(len(sizes)) != fields["NDims"] or len(sizes) != 3 or len(components) != 1:
            raise CaseError(
                Reason.DIMENSIONS,
                f"{path.name} is not a volume",
                got=f"sizes {sizes}, {components} channels, NDims {_clip(fields['NDims'])}",
                expected="three axes of space; channels as ElementNumberOfChannels",
            )
        shape, channels = dimensions(path, sizes if components == [1] else [*sizes, *components])
        affine = _mha_affine(path, fields)
        compressed = fields.get("CompressedData", "False").lower() in ("true", "1")
        promised = prod([*sizes, *components]) * dtype.itemsize
        check_size(path, promised, begin=begin, packing="zlib" if compressed else None)
        return Header(path, shape, channels, dtype, affine)


class SimpleITKReader(ImageReader):
    """NRRD, MHA, and the sorted slices of one DICOM series, for MONAI's ``LoadImage``.

    Voxels in stored units, axes ``(x, y, z)`` and channels last; the affine is RAS+. Nothing else of a header is kept.
    What is read must have passed ``check_header``.
    """

    def verify_suffix(self, filename: Sequence[PathLike[str] | str] | PathLike[str] | str) -> bool:
        """Whether these are files for this reader: one container, or several slices."""
        names = [str(name) for name in ensure_tuple(filename)]
        return len(names) > 1 or names[0].endswith((".nrrd", ".mha"))

    def read(self, data: Sequence[PathLike[str] | str] | PathLike[str] | str, **_: Any) -> SimpleITK.Image:
        """Read one file, or several as the slices of a series, in the order given.

        Raises:
            RuntimeError: SimpleITK cannot read them, or they promise more voxels than may be allocated.
        """
        names = [str(name) for name in ensure_tuple(data)]
        if len(names) > 1:
            series = SimpleITK.ImageSeriesReader()
            series.SetImageIO("GDCMImageIO")
            series.SetFileNames(names)
            series.SetOutputPixelType(SimpleITK.sitkFloat32)  # each slice may have a slope of its own
            stacked: SimpleITK.Image = series.Execute()
            return stacked
        reader = SimpleITK.ImageFileReader()
        reader.SetImageIO("NrrdImageIO" if names[0].endswith(".nrrd") else "MetaImageIO")
        reader.SetFileName(names[0])
        reader.ReadImageInformation()
        if prod(reader.GetSize()) * reader.GetNumberOfComponents() > MOST_VOXELS:
            raise RuntimeError("more voxels than may be allocated")
        image: SimpleITK.Image = reader.Execute()
        return image

    def get_data(self, img: SimpleITK.Image) -> tuple[Shaped[np.ndarray, "..."], dict[str, Any]]:
        """Voxels ``(x, y, z)`` or ``(x, y, z, c)``, and what MONAI wants to know of them."""
        voxels = SimpleITK.GetArrayFromImage(img)
        vector = img.GetNumberOfComponentsPerPixel() > 1
        voxels = voxels.transpose((2, 1, 0, 3) if vector else (2, 1, 0))
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(img.GetDirection(), (3, 3)) * img.GetSpacing()
        affine[:3, 3] = img.GetOrigin()
        meta = {
            "affine": ras(affine),
            "original_affine": ras(affine),
            "space": "RAS",
            "spatial_shape": np.asarray(voxels.shape[:3]),
            "original_channel_dim": -1 if vector else float("nan"),  # MONAI's word for none
        }
        return voxels, meta


def _nrrd_fields(path: Path) -> tuple[dict[str, str], int]:
    """Field → value, names in lower case without spaces; and where the voxels begin. Key/value pairs are left out."""
    with path.open("rb") as stream:
        if not re.fullmatch(rb"NRRD000[1-5]\r?\n", stream.readline(16)):
            _refuse(path, "is not NRRD")
        fields: dict[str, str] = {}
        while line := _line(path, stream):
            name, colon, value = line.partition(":")
            if line.startswith("#") or value.startswith("="):
                continue
            _add(path, fields, name.replace(" ", "").lower() if colon else "", value.strip())
        begin = stream.tell()
    _need(path, fields, "type", "dimension", "sizes", "encoding")
    return fields, begin


def _mha_fields(path: Path) -> tuple[dict[str, str], int]:
    fields: dict[str, str] = {}
    with path.open("rb") as stream:
        if not re.match(rb"(ObjectType|NDims|Comment)\s*=", stream.read(32)):
            _refuse(path, "is not MHA")
        stream.seek(0)
        while "ElementDataFile" not in fields:
            name, sign, value = _line(path, stream).partition("=")
            _add(path, fields, name.strip() if sign else "", value.strip())
        begin = stream.tell()
    _need(path, fields, "NDims", "DimSize", "ElementType")
    return fields, begin


def _line(path: Path, stream: IO[bytes]) -> str:
    line = stream.readline(_LONGEST_HEADER)
    if not line.endswith(b"\n") or stream.tell() > _LONGEST_HEADER:
        _refuse(path, "has a header that does not end")
    return line.decode("latin-1").rstrip("\r\n")


def _add(path: Path, fields: dict[str, str], name: str, value: str) -> None:
    if not name or name in fields:
        got = "a field twice" if name else "a line without a field"
        _refuse(path, "has a header that cannot be understood", got=got)
    fields[name] = value


def _need(path: Path, fields: dict[str, str], *names: str) -> None:
    if missing := [name for name in names if name not in fields]:
        _refuse(path, "has a header that does not say enough", got=f"no {', '.join(missing)}")


def _whole(path: Path, text: str) -> list[int]:
    if not re.fullmatch(r"\s*(-?[0-9]{1,18}\s*)+", text):
        raise CaseError(Reason.DIMENSIONS, f"{path.name} has sizes that are no whole numbers", got=_clip(text))
    return [int(part) for part in text.split()]


def _real(path: Path, code: str | None, said: str) -> np.dtype[Any]:
    if code is None:
        raise CaseError(
            Reason.DATA_TYPE,
            f"{path.name} does not hold one real number a voxel",
            got=_clip(said),
            expected="integers or floating-point numbers",
        )
    return np.dtype(code)


def _nrrd_affine(path: Path, fields: dict[str, str], others: list[int]) -> Float64[np.ndarray, "4 4"]:
    affine = np.full((4, 4), np.nan)
    affine[3] = 0, 0, 0, 1
    turn = _NRRD_SPACES.get(fields.get("space", "").lower())
    units = set(re.findall(r'"([^"]*)"', fields.get("spaceunits", '"mm"')))
    vectors = re.findall(r"none|\([^)]*\)", fields.get("spacedirections", "").lower())
    if turn and units <= {"mm"} and len(vectors) == 3 + len(others) and all(vectors[axis] == "none" for axis in others):
        directions = [_numbers(vector) for axis, vector in enumerate(vectors) if axis not in others]
        origin = _numbers(fields.get("spaceorigin", "(0,0,0)"))
        if [len(numbers) for numbers in (*directions, origin)] == [3] * 4:
            affine[:3, :3] = np.transpose(directions) * np.reshape(turn, (3, 1))
            affine[:3, 3] = np.multiply(origin, turn)
    return placed(path, ras(affine))


def _mha_affine(path: Path, fields: dict[str, str]) -> Float64[np.ndarray, "4 4"]:
    # MetaIO knows three names for each, and writes the matrix axis by axis.
    matrix = _one_of(fields, ("TransformMatrix", "Rotation", "Orientation"), "1 0 0 0 1 0 0 0 1")
    origin = _one_of(fields, ("Offset", "Position", "Origin"), "0 0 0")
    spacing = _one_of(fields, ("ElementSpacing",), "nan nan nan")
    affine = np.full((4, 4), np.nan)
    affine[3] = 0, 0, 0, 1
    if [len(matrix), len(origin), len(spacing)] == [9, 3, 3] and min(spacing) > 0:
        affine[:3, :3] = np.reshape(matrix, (3, 3)).T * spacing
        affine[:3, 3] = origin
    return placed(path, ras(affine))


def _one_of(fields: dict[str, str], names: tuple[str, ...], otherwise: str) -> list[float]:
    found = [fields[name] for name in names if name in fields]
    return _numbers(found[0] if len(found) == 1 else "" if found else otherwise)


def _numbers(text: str) -> list[float]:
    """The numbers of a text; none where one of them is none."""
    try:
        return [float(part) for part in text.strip("()").replace(",", " ").split()]
    except ValueError:
        return []


def _refuse(path: Path, problem: str, **details: Any) -> NoReturn:
    details.setdefault("advice", "write it again with SimpleITK or 3D Slicer, or convert it to NIfTI")
    raise CaseError(Reason.UNREADABLE, f"{path.name} {problem}", **details)


def _clip(text: str) -> str:
    return text if len(text) <= 40 else text[:40] + "…"
