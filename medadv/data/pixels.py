"""Pictures and their label maps as files: PNG, JPEG, TIFF and npy, held against what they say of themselves.

Pixels are taken as they are stored. What would have to be guessed or repaired (a palette, a transparency, 16 bits, an
orientation, the missing end of a file) is refused, or taken where it is declared.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, Shaped, UInt8
from PIL import Image, PngImagePlugin

from medadv.data.case import Accepted
from medadv.data.header import unreadable
from medadv.errors import CaseError, Reason

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy")
CHANNELS = ("red", "green", "blue")
LONGEST_SIDE = 16384
MOST_PIXELS = 1 << 26
"""Fewer than those at which Pillow suspects a decompression bomb."""

_FORMATS = ("PNG", "JPEG", "TIFF")
_DAMAGED = (
    *(OSError, EOFError, ValueError, SyntaxError, LookupError, TypeError, AttributeError, OverflowError),
    *(struct.error, zlib.error),
)
_ORIENTATION = 0x0112
_BITS_PER_SAMPLE = 258
_ADVICE = "convert a copy to 8-bit RGB, and look at it"


def is_picture(path: Path) -> bool:
    """Whether a file is read as a picture, by its name."""
    return path.name.lower().endswith(SUFFIXES)


def photograph(path: Path, accept: tuple[Accepted, ...] = ()) -> Shaped[np.ndarray, "h w 3"]:
    """The stored pixels of a picture: red, green, blue; uint8, or float32 of an npy file.

    Args:
        path: the file.
        accept: what it may be beside upright 8-bit RGB.

    Raises:
        CaseError: UNREADABLE, HEADER_SIZE, DIMENSIONS, NOT_RGB, DATA_TYPE or TURNED.
    """
    if path.suffix.lower() == ".npy":
        return _array(path, (np.dtype("<f4"), np.dtype("u1")), 3)
    with _opened(path) as image:
        _check_colours(path, image, accept)
        orientation = image.getexif().get(_ORIENTATION, 1)
        # Pillow itself turns TIFF when it decodes it, so that its stored pixels cannot be had.
        if orientation not in (0, 1) and ("turned" not in accept or image.format == "TIFF"):
            raise CaseError(
                Reason.TURNED,
                f"{path.name} is not stored upright",
                got=f"EXIF orientation {orientation}",
                expected="orientation 1, or none",
                advice="write an upright copy; or, where masks and boxes lie on the stored pixels, accept: [turned]",
            )
        return _rgb(image)


def numbered(path: Path) -> Int64[np.ndarray, "h w"]:
    """A label map as the numbers that its file holds: indices of a palette, never its colours.

    Raises:
        CaseError: UNREADABLE, HEADER_SIZE, DIMENSIONS, DATA_TYPE or LABEL_COLOURS.
    """
    if path.suffix.lower() == ".npy":
        kinds = tuple(np.dtype(f"<{kind}{size}") for kind in "iu" for size in (1, 2, 4, 8))
        return _array(path, kinds, 2).astype(np.int64)
    with _opened(path) as image:
        bits = _bits(path, image)
        plain = image.mode == "P" or (image.mode == "L" and bits == 8) or image.mode.startswith("I")
        if not plain or image.format == "JPEG":
            grey = image.mode in ("1", "L") and image.format != "JPEG"
            raise CaseError(
                Reason.LABEL_COLOURS,
                f"{path.name} does not hold the numbers of classes",
                got=f"{image.format}, mode {image.mode}, {bits} bits",
                expected="a PNG with a palette, whose indices are the numbers; or 8-bit or 16-bit grey",
                advice="write the numbers as 8-bit grey: shades of fewer bits are stretched by what reads them"
                if grey
                else "take the masks as they were published: JPEG, RGB and RGBA copies have lost the numbers",
            )
        return np.asarray(image).astype(np.int64)


def encoded(pixels: Shaped[np.ndarray, "h w 3"], description: str) -> tuple[bytes, bytes]:
    """Pixels as npy, and their 8-bit copy as PNG: rounded to the nearest whole number, clipped to 0 … 255.

    Args:
        pixels: red, green, blue.
        description: what the PNG says of itself; nothing else is in either file.
    """
    exact, copy = io.BytesIO(), io.BytesIO()
    np.save(exact, np.ascontiguousarray(pixels), allow_pickle=False)
    said = PngImagePlugin.PngInfo()
    said.add_text("Description", description)
    Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8)).save(
        copy, format="PNG", pnginfo=said, compress_level=3
    )
    return exact.getvalue(), copy.getvalue()


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """A file of one picture, of a size that may be decoded; what decoding it raises inside, too, is damage."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow warns of is refused below, or is damage
            _check_end(path)
            with Image.open(path, formats=_FORMATS) as image:
                sized(path, (image.height, image.width))
                frames = getattr(image, "n_frames", 1)
                if frames != 1:
                    problem = f"{path.name} holds more than one picture"
                    raise CaseError(Reason.DIMENSIONS, problem, got=f"{frames} frames", expected="one")
                yield image
    except Image.DecompressionBombError as error:
        raise _oversized(path, "more than Pillow would decode") from error
    except _DAMAGED as error:
        raise unreadable(path, error) from error


def _check_end(path: Path) -> None:
    """Refuse a PNG with a wrong checksum, and a JPEG without its end marker: decoders fill up what is missing."""
    with path.open("rb") as stream:
        kind = stream.read(3)
    if kind == b"\x89PN":
        with Image.open(path, formats=("PNG",)) as image:
            sized(path, (image.height, image.width))
            image.verify()
    elif kind == b"\xff\xd8\xff":
        content = path.read_bytes()
        # Inside a scan every 0xff is followed by 0, so that behind its marker the end cannot be part of the pixels.
        if b"\xff\xd9" not in content[content.rfind(b"\xff\xda") :]:
            raise EOFError("the end of the picture is missing")


def sized(path: Path, shape: tuple[int, ...]) -> None:
    """Refuse what no picture measures, before anything is allocated.

    Raises:
        CaseError: HEADER_SIZE.
    """
    if min(shape) < 1 or max(shape) > LONGEST_SIDE or shape[0] * shape[1] > MOST_PIXELS:
        raise _oversized(path, " × ".join(map(str, shape)))


def _oversized(path: Path, got: str) -> CaseError:
    return CaseError(
        Reason.HEADER_SIZE,
        f"{path.name} declares a size that is not read",
        got=got,
        expected=f"sides of 1 to {LONGEST_SIDE} pixels, {MOST_PIXELS} pixels in all",
    )


def _bits(path: Path, image: Image.Image) -> int:
    """Bits of a channel as stored. Pillow shows 16-bit RGB as 8-bit, and stretches grey of fewer bits."""
    if image.format == "PNG":
        with path.open("rb") as stream:
            return stream.read(25)[24]  # IHDR is the first chunk (PNG, 5.6), its depth the 25th byte
    if image.format == "TIFF":
        tags: Any = getattr(image, "tag_v2", {})
        return int(max(tags.get(_BITS_PER_SAMPLE, (1,))))
    return int(getattr(image, "bits", 8))


def _check_colours(path: Path, image: Image.Image, accept: tuple[Accepted, ...]) -> None:
    bits, mode = _bits(path, image), image.mode
    grey, transparent = mode in ("L", "LA"), mode in ("RGBA", "LA") or "transparency" in image.info
    problem, advice = None, _ADVICE
    if mode in ("P", "PA"):
        problem, advice = "has a palette, as masks have", "check that this is the picture and not its mask"
    elif bits != 8 or mode not in ("RGB", "RGBA", "L", "LA"):
        problem = "is not 8-bit RGB"
    elif transparent and "alpha" not in accept:
        problem = "has a transparency"
        advice = f"{_ADVICE}; or say accept: [alpha], which drops one that is opaque everywhere"
    elif grey and "grey" not in accept:
        problem, advice = "is grey", "say accept: [grey]: the three channels are then alike"
    elif transparent and image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
        problem, advice = "is transparent in places", "lay it on a background of your choice, and write a copy"
    if problem:
        got = f"{image.format}, mode {mode}, {bits} bits"
        raise CaseError(Reason.NOT_RGB, f"{path.name} {problem}", got=got, expected="8-bit RGB", advice=advice)


def _rgb(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    pixels = np.asarray(image)
    if image.mode in ("L", "LA"):
        one = pixels if pixels.ndim == 2 else pixels[..., 0]
        return np.stack([one] * 3, -1)
    return np.ascontiguousarray(pixels[..., :3])


def _array(path: Path, kinds: tuple[np.dtype[Any], ...], axes: int) -> Shaped[np.ndarray, "..."]:
    """An npy file (numpy.lib.format), its header held against the file before anything is allocated."""
    try:
        with path.open("rb") as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(stream)
            held = path.stat().st_size - stream.tell()
    except _DAMAGED as error:
        raise unreadable(path, error) from error
    wanted = "height × width × 3" if axes == 3 else "height × width"
    if dtype not in kinds:
        expected = " or ".join(dict.fromkeys(kind.name for kind in kinds))
        raise CaseError(Reason.DATA_TYPE, f"{path.name} has another data type", got=str(dtype), expected=expected)
    if len(shape) != axes or shape[2:] not in ((), (3,)):
        raise CaseError(Reason.DIMENSIONS, f"{path.name} is not {wanted}", got=shape, expected=wanted)
    sized(path, shape[:2])
    if held != dtype.itemsize * int(np.prod(shape)):
        raise CaseError(
            Reason.HEADER_SIZE,
            f"{path.name} does not hold what its header promises",
            got=f"{held} bytes",
            expected=f"{dtype.itemsize * int(np.prod(shape))} bytes",
            advice="copy the file again from its source",
        )
    whole: Shaped[np.ndarray, "..."] = np.load(path, allow_pickle=False)
    return whole
