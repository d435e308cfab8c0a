"""Real DICOM for the tests, written by GDCM through SimpleITK, with the name of a patient in it."""

from __future__ import annotations

import locale
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK

CANARY = "CANARY"
MR = "1.2.840.10008.5.1.4.1.1.4"
SERIES = "1.2.826.0.1.3680043.2.1125.1"
IDENTITY = {
    "0010|0010": f"{CANARY}^NAME",
    "0010|0020": f"{CANARY}-ID",
    "0008|0080": f"{CANARY} HOSPITAL",
    "0008|0090": f"{CANARY}^REFERRER",
    "0008|103e": f"{CANARY} DESCRIPTION",
    "0010|4000": f"{CANARY} COMMENT",
}
UPRIGHT = np.eye(3)
OBLIQUE = np.linalg.qr(np.array([[1.0, 0.2, 0.1], [-0.3, 1.0, 0.25], [0.1, -0.2, 1.0]]))[0]
OBLIQUE *= np.sign(np.linalg.det(OBLIQUE))


def joined(numbers: Sequence[float]) -> str:
    """A decimal string has at most sixteen characters."""
    return "\\".join(f"{number:.9f}"[:16] for number in numbers)


def save_dicom(image: SimpleITK.Image, path: Path, *, compressed: bool = False) -> None:
    """Write one file. GDCM leaves the process in the C locale when it writes, not when it reads: it is put back."""
    before = locale.setlocale(locale.LC_ALL)
    try:
        writer = SimpleITK.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetUseCompression(compressed)
        writer.SetFileName(str(path))
        writer.Execute(image)
    finally:
        locale.setlocale(locale.LC_ALL, before)


def write_series(
    folder: Path,
    voxels: np.ndarray,
    *,
    direction: np.ndarray = UPRIGHT,
    spacing: tuple[float, float, float] = (0.9, 1.1, 2.5),
    origin: tuple[float, float, float] = (-31.0, 12.5, 7.25),
    tags: Mapping[str, str] | None = None,
    name: str = "slice",
) -> list[Path]:
    """Write ``voxels (x, y, z)`` as a series, direction and origin in LPS; files are named against their order."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    count = voxels.shape[2]
    for index in range(count):
        image = SimpleITK.GetImageFromArray(np.ascontiguousarray(voxels[:, :, index].swapaxes(0, 1)), isVector=False)
        image.SetSpacing(spacing[:2])
        position = np.array(origin) + direction[:, 2] * spacing[2] * index
        said = {
            "0008|0016": MR,
            "0008|0018": f"{SERIES}.{index + 1}",
            "0008|0060": "MR",
            "0020|000d": f"{SERIES}.0",
            "0020|000e": SERIES,
            "0020|0013": str((index * 7) % 5),
            "0020|0032": joined(position),
            "0020|0037": joined([*direction[:, 0], *direction[:, 1]]),
            **IDENTITY,
            **(tags or {}),
        }
        for tag, value in said.items():
            image.SetMetaData(tag, value)
        files.append(folder / f"{name}-{(count - index) * 3 % 1009:04}.dcm")
        save_dicom(image, files[-1])
    return files


def tag_set(path: Path, tag: int, value: str | int) -> None:
    """Set an element of an implicit little-endian file past SimpleITK, which mends; a new one before the pixels."""
    raw = path.read_bytes()
    key = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    coded = struct.pack("<H", value) if isinstance(value, int) else value.encode().ljust(len(value) + len(value) % 2)
    element = key + struct.pack("<I", len(coded)) + coded
    pixels = raw.rindex(b"\xe0\x7f\x10\x00")
    at = raw.find(key, 0x174, pixels)
    after = at + 8 + struct.unpack_from("<I", raw, at + 4)[0] if at >= 0 else pixels
    path.write_bytes(raw[: at if at >= 0 else pixels] + element + raw[after:])


def noise(shape: tuple[int, ...] = (10, 8, 6), dtype: Any = np.int16) -> np.ndarray:
    """Voxels of which no two slices are alike."""
    return np.random.default_rng(5).integers(1, 900, shape).astype(dtype)
