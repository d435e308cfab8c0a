"""Pictures through the gate: stored pixels and numbers, and what is refused rather than repaired."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data.picture_files import HEIGHT, WIDTH, case_of, grain, saved
from PIL import Image

from medadv.data.case import Picture
from medadv.data.files import read
from medadv.data.pixels import CHANNELS
from medadv.errors import CaseError, Reason


def refusal(case: Any) -> CaseError:
    with pytest.raises(CaseError) as refused:
        read(case)
    return refused.value


def png_of(path: Path, depth: int, colour: int, rows: bytes, width: int = WIDTH, height: int = HEIGHT) -> Path:
    """A PNG that Pillow does not write, chunk by chunk."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


# Pixels


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.tiff", "A.PNG"])
def test_pixels_are_read_as_they_are_stored(tmp_path: Path, name: str) -> None:
    volume = read(case_of(saved(tmp_path / name, grain())))
    assert volume.x.dtype == torch.float32
    assert np.array_equal(volume.x.numpy(), np.moveaxis(grain(), -1, 0))
    assert volume.spacing == (1.0, 1.0)
    assert {str(dtype) for dtype in volume.stored.values()} == {"uint8"}
    assert volume.truth is None
    assert volume.mask is None


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_is_decoded_as_pillow_decodes_it(tmp_path: Path, progressive: bool) -> None:
    path = saved(tmp_path / "a.jpg", grain(), quality=90, progressive=progressive)
    assert np.array_equal(read(case_of(path)).x.numpy(), np.moveaxis(np.asarray(Image.open(path)), -1, 0))


def test_an_npy_keeps_every_bit(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).uniform(-3, 258, (HEIGHT, WIDTH, 3)).astype(np.float32)
    np.save(tmp_path / "a.npy", pixels)
    assert np.array_equal(read(case_of(tmp_path / "a.npy")).x.numpy(), np.moveaxis(pixels, -1, 0))


def test_channels_are_in_the_order_of_the_case(tmp_path: Path) -> None:
    case = case_of(saved(tmp_path / "a.png", grain()))
    turned = replace(case, images=dict.fromkeys(CHANNELS[::-1], tmp_path / "a.png"))
    assert torch.equal(read(turned).x, read(case).x.flip(0))


@pytest.mark.parametrize(
    ("channels", "reason"),
    [(("red", "green"), Reason.MISSING_MODALITY), (("red", "green", "infrared"), Reason.EXTRA_MODALITY)],
)
def test_other_channels_are_refused(tmp_path: Path, channels: tuple[str, ...], reason: Reason) -> None:
    path = saved(tmp_path / "a.png", grain())
    assert refusal(replace(case_of(path), images=dict.fromkeys(channels, path))).reason == reason
    apart = {name: saved(tmp_path / f"{name}.png", grain()) for name in CHANNELS}
    assert refusal(replace(case_of(path), images=apart)).reason == Reason.EXTRA_MODALITY


def test_a_missing_picture_is_refused(tmp_path: Path) -> None:
    assert refusal(case_of(tmp_path / "a.png")).reason == Reason.MISSING_MODALITY


# Colours that are not red, green and blue of 8 bits


@pytest.mark.parametrize(
    ("mode", "name", "said"),
    [
        ("L", "a.png", "is grey"),
        ("L", "a.jpg", "is grey"),
        ("P", "a.png", "has a palette"),
        ("RGBA", "a.png", "has a transparency"),
        ("LA", "a.png", "has a transparency"),
        ("1", "a.png", "is not 8-bit RGB"),
        ("CMYK", "a.jpg", "is not 8-bit RGB"),
        ("CMYK", "a.tif", "is not 8-bit RGB"),
        ("F", "a.tif", "is not 8-bit RGB"),
        ("LAB", "a.tif", "is not 8-bit RGB"),
    ],
)
def test_other_colours_are_refused_by_name(tmp_path: Path, mode: str, name: str, said: str) -> None:
    error = refusal(case_of(saved(tmp_path / name, grain(), mode)))
    assert error.reason == Reason.NOT_RGB
    assert said in error.problem
    assert error.details["try"]


def test_sixteen_bits_are_refused_though_pillow_shows_eight(tmp_path: Path) -> None:
    rows = b"".join(b"\0" + grain(channels=6)[row].tobytes() for row in range(HEIGHT))
    colour = png_of(tmp_path / "colour.png", 16, 2, rows)
    with Image.open(colour) as image:
        assert image.mode == "RGB"  # the trap
    grey = saved(tmp_path / "grey.png", grain(channels=1).astype(np.uint16) * 200)
    for path in (colour, grey):
        for accept in ((), ("grey", "alpha")):
            error = refusal(case_of(path, picture=Picture(accept=accept)))
            assert error.reason == Reason.NOT_RGB
            assert "16 bits" in str(error.details["got"])


def test_grey_is_repeated_where_it_is_declared(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", grain(channels=1))
    x = read(case_of(path, picture=Picture(accept=("grey",)))).x
    assert np.array_equal(x.numpy(), np.stack([grain(channels=1)[..., 0]] * 3))


@pytest.mark.parametrize("grey", [False, True])
def test_transparency_is_dropped_where_it_is_declared_and_opaque(tmp_path: Path, grey: bool) -> None:
    pixels = np.concatenate([grain(channels=1 if grey else 3), np.full((HEIGHT, WIDTH, 1), 255, np.uint8)], -1)
    path = saved(tmp_path / "a.png", pixels)
    x = read(case_of(path, picture=Picture(accept=("alpha", "grey")))).x
    assert np.array_equal(x.numpy(), np.broadcast_to(np.moveaxis(pixels[..., :-1], -1, 0), (3, HEIGHT, WIDTH)))
    pixels[0, 0, -1] = 254
    error = refusal(case_of(saved(path, pixels), picture=Picture(accept=("alpha", "grey"))))
    assert "transparent in places" in error.problem


def test_a_transparent_colour_counts_as_transparency(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", grain(), transparency=tuple(int(n) for n in grain()[0, 0]))
    assert "has a transparency" in refusal(case_of(path)).problem
    assert "transparent in places" in refusal(case_of(path, picture=Picture(accept=("alpha",)))).problem


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
def test_a_turned_picture_is_refused_or_taken_as_stored(tmp_path: Path, name: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / name, grain(), exif=exif)
    error = refusal(case_of(path))
    assert error.reason == Reason.TURNED
    declared = case_of(path, picture=Picture(accept=("turned",)))
    if name == "a.tif":  # Pillow turns it itself
        assert refusal(declared).reason == Reason.TURNED
    else:
        assert read(declared).x.shape == (3, HEIGHT, WIDTH)


def test_one_colour_everywhere_shows_nothing(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", np.full((HEIGHT, WIDTH, 3), (9, 0, 200), np.uint8))
    assert refusal(case_of(path)).reason == Reason.CONSTANT_MODALITY
    black = grain()
    black[..., 0] = 0
    assert read(case_of(saved(path, black))).x[0].max() == 0  # one channel may be


# Damage


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.97])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str, share: float) -> None:
    path = saved(tmp_path / name, grain())
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert refusal(case_of(path)).reason == Reason.UNREADABLE


def test_a_jpeg_without_its_last_bytes_is_refused_though_pillow_fills_them_up(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", grain())
    content = path.read_bytes()
    path.write_bytes(content + b"rubbish behind it")
    whole = read(case_of(path)).x
    path.write_bytes(content[:-2])
    assert refusal(case_of(path)).reason == Reason.UNREADABLE
    path.write_bytes(content)
    assert torch.equal(read(case_of(path)).x, whole)


def test_a_flipped_bit_of_a_png_is_seen(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", grain())
    content = bytearray(path.read_bytes())
    content[content.find(b"IDAT") + 40] ^= 1
    path.write_bytes(content)
    assert refusal(case_of(path)).reason == Reason.UNREADABLE


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    for name, content in (("a.png", b""), ("a.jpg", b"GIF89a...."), ("a.tif", b"no"), ("a.npy", b"\x93NUMPY\x01")):
        (tmp_path / name).write_bytes(content)
        error = refusal(case_of(tmp_path / name))
        assert error.reason == Reason.UNREADABLE
        assert str(tmp_path) not in str(error)


def test_several_frames_are_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(grain(seed)) for seed in range(2)]
    for name in ("a.tif", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert refusal(case_of(tmp_path / name)).reason == Reason.DIMENSIONS


@pytest.mark.parametrize("size", [(16385, 1), (16384, 16384), (2**31 - 1, 2**31 - 1)])
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path, size: tuple[int, int]) -> None:
    path = png_of(tmp_path / "a.png", 8, 2, b"\0" * 100, *size)
    assert refusal(case_of(path)).reason == Reason.HEADER_SIZE


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((HEIGHT, WIDTH)), Reason.DATA_TYPE),
        (np.zeros((HEIGHT, WIDTH, 3)), Reason.DATA_TYPE),
        (np.zeros((HEIGHT, WIDTH), np.float32), Reason.DIMENSIONS),
        (np.zeros((3, HEIGHT, WIDTH), np.float32), Reason.DIMENSIONS),
        (np.full((HEIGHT, WIDTH, 3), np.nan, np.float32), Reason.NOT_FINITE),
        (np.array([{"a": 1}], object), Reason.DATA_TYPE),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, array: np.ndarray, reason: Reason) -> None:
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    assert refusal(case_of(tmp_path / "a.npy")).reason == reason


def test_an_array_that_promises_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((HEIGHT, WIDTH, 3), np.float32))
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content[:-4])
    assert refusal(case_of(tmp_path / "a.npy")).reason == Reason.HEADER_SIZE
    (tmp_path / "a.npy").write_bytes(content.replace(b"(20, 30, 3)", b"(99999,1,3)"))
    assert refusal(case_of(tmp_path / "a.npy")).reason == Reason.HEADER_SIZE
