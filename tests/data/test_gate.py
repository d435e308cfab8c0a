"""Bad input, as real files: each is refused for its reason, and no sound file is."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medadv.data.case import Case
from medadv.data.files import read
from medadv.data.gate import check_header
from medadv.errors import CaseError, Reason
from medadv.labels import BRATS_2018

Damage = Callable[[Path], None]


def edited(change: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]) -> Damage:
    """Damage that rewrites voxels and affine."""

    def damage(path: Path) -> None:
        image = nib.load(path)
        voxels, affine = change(np.asarray(image.dataobj).copy(), image.affine.copy())
        nib.save(nib.Nifti1Image(voxels, affine), path)

    return damage


def voxels_set(value: float, dtype: type = np.float32) -> Damage:
    def change(voxels: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        voxels = voxels.astype(dtype)
        voxels[3, 4, 5] = value
        return voxels, affine

    return edited(change)


def header_set(offset: int, form: str, *values: float) -> Damage:
    """Damage to the raw bytes of a NIfTI-1 header; offsets are those of nifti1.h."""

    def damage(path: Path) -> None:
        raw = bytearray(gzip.decompress(path.read_bytes()))
        struct.pack_into("<" + form, raw, offset, *values)
        path.write_bytes(gzip.compress(raw, 1))

    return damage


def bytes_set(change: Callable[[bytes], bytes]) -> Damage:
    def damage(path: Path) -> None:
        path.write_bytes(change(path.read_bytes()))

    return damage


def flip_a_bit(content: bytes) -> bytes:
    """Inside one stored byte of the image, with the stream still well-formed."""
    raw = bytearray(gzip.decompress(content))
    stored = bytearray(gzip.compress(bytes(raw), 0))
    stored[len(stored) // 2] ^= 0x10
    return bytes(stored)


def shifted(millimetres: float) -> Damage:
    def change(voxels: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        affine[0, 3] += millimetres
        return voxels, affine

    return edited(change)


def flipped(voxels: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same brain in the same place, stored from the other end."""
    affine[:, 3] += affine[:, 0] * (voxels.shape[0] - 1)
    affine[:, 0] *= -1
    return voxels[::-1], affine


RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])

BAD_IMAGES: dict[str, tuple[Reason, Damage]] = {
    "deleted": (Reason.MISSING_MODALITY, Path.unlink),
    "another shape": (Reason.SHAPE_MISMATCH, edited(lambda v, a: (v[:-1], a))),
    "moved by a millimetre": (Reason.AFFINE_MISMATCH, shifted(1.0)),
    "moved by .01 mm": (Reason.AFFINE_MISMATCH, shifted(0.01)),
    "a flipped axis": (Reason.AFFINE_MISMATCH, edited(flipped)),
    "a flipped affine": (Reason.AFFINE_MISMATCH, edited(lambda v, a: (v, a @ np.diag([-1.0, 1, 1, 1])))),
    "NaN": (Reason.NOT_FINITE, voxels_set(np.nan)),
    "infinite": (Reason.NOT_FINITE, voxels_set(-np.inf)),
    "all zero": (Reason.CONSTANT_MODALITY, edited(lambda v, a: (v * 0, a))),
    "a mask": (Reason.CONSTANT_MODALITY, edited(lambda v, a: ((v > 0).astype(np.uint8), a))),
    "constant": (Reason.CONSTANT_MODALITY, edited(lambda v, a: (np.full_like(v, 7), a))),
    "cut short": (Reason.UNREADABLE, bytes_set(lambda b: b[: len(b) // 2])),
    "cut in the checksum": (Reason.UNREADABLE, bytes_set(lambda b: b[:-6])),
    "a flipped bit": (Reason.UNREADABLE, bytes_set(flip_a_bit)),
    "empty": (Reason.UNREADABLE, bytes_set(lambda b: b"")),
    "text": (Reason.UNREADABLE, bytes_set(lambda b: b"not an image " * 100)),
    "packed text": (Reason.UNREADABLE, bytes_set(lambda b: gzip.compress(b"not an image " * 100))),
    "281 terabytes": (Reason.HEADER_SIZE, header_set(40, "4h", 3, 32767, 32767, 32767)),
    "a negative axis": (Reason.HEADER_SIZE, header_set(42, "h", -26)),
    "an axis of nothing": (Reason.HEADER_SIZE, header_set(44, "h", 0)),
    "512 MiB promised": (Reason.HEADER_SIZE, header_set(42, "3h", 1024, 512, 512)),
    "data beyond the end": (Reason.HEADER_SIZE, header_set(108, "f", 1e30)),
    "data nowhere": (Reason.HEADER_SIZE, header_set(108, "f", np.nan)),
    "much more than promised": (
        Reason.HEADER_SIZE,
        bytes_set(lambda b: gzip.compress(gzip.decompress(b) + bytes(50 << 20))),
    ),
    "one slice": (Reason.DIMENSIONS, edited(lambda v, a: (v[..., :1], a))),
    "2-D": (Reason.DIMENSIONS, header_set(40, "h", 2)),
    "5-D": (Reason.DIMENSIONS, edited(lambda v, a: (np.stack([v, v], -1)[..., None, :], a))),
    "no rank": (Reason.DIMENSIONS, header_set(40, "h", 0)),
    "complex": (Reason.DATA_TYPE, edited(lambda v, a: (v.astype(np.complex64), a))),
    "RGB": (Reason.DATA_TYPE, edited(lambda v, a: (np.zeros(v.shape, RGB), a))),
    "an unknown type": (Reason.DATA_TYPE, header_set(70, "h", 999)),
    "a slope of NaN": (Reason.DATA_TYPE, header_set(112, "f", np.nan)),
    "an infinite intercept": (Reason.DATA_TYPE, header_set(116, "f", np.inf)),
    "a NaN affine": (Reason.AFFINE_INVALID, header_set(280, "f", np.nan)),
    "a singular affine": (Reason.AFFINE_INVALID, header_set(280, "8f", 2, 2, 0, 0, 0, 0, 0, 0)),
    "an affine without a column": (Reason.AFFINE_INVALID, header_set(280, "8f", 0, 0, 2, 0, 0, 0, 2, 0)),
    "a pixdim of 0": (Reason.AFFINE_INVALID, header_set(80, "f", 0)),
    "a pixdim of NaN": (Reason.AFFINE_INVALID, header_set(84, "f", np.nan)),
    "a negative pixdim": (Reason.AFFINE_INVALID, header_set(88, "f", -2)),
    "a slope of infinity": (Reason.DATA_TYPE, header_set(112, "f", np.inf)),
    "voxels of 300 mm": (Reason.AFFINE_INVALID, header_set(280, "f", 300)),
    "a folder": (Reason.UNREADABLE, lambda path: (path.unlink(), path.mkdir())[0]),
    "two channels": (Reason.EXTRA_MODALITY, edited(lambda v, a: (np.stack([v, v], -1), a))),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_a_bad_image_is_refused_for_its_reason(case: Case, name: str) -> None:
    reason, damage = BAD_IMAGES[name]
    damage(case.images["t2"])
    with pytest.raises(CaseError) as refused:
        read(case)
    assert refused.value.reason is reason, str(refused.value)
    assert refused.value.details["likely cause"], "an error is advice"


BAD_LABELS: dict[str, tuple[Reason, Damage]] = {
    "deleted": (Reason.MISSING_LABEL, Path.unlink),
    "another shape": (Reason.LABEL_GRID, edited(lambda v, a: (v[:, :-2], a))),
    "channels": (Reason.LABEL_GRID, edited(lambda v, a: (np.stack([v, v], -1), a))),
    "moved": (Reason.LABEL_GRID, shifted(2.0)),
    "flipped": (Reason.LABEL_GRID, edited(flipped)),
    "a fraction": (Reason.LABEL_NOT_INTEGER, voxels_set(1.5)),
    "a tiny fraction": (Reason.LABEL_NOT_INTEGER, voxels_set(1 + 1e-9, np.float64)),
    "NaN": (Reason.LABEL_NOT_INTEGER, voxels_set(np.nan)),
    "infinite": (Reason.LABEL_NOT_INTEGER, voxels_set(np.inf)),
    "unknown": (Reason.LABEL_OUTSIDE_SCHEME, voxels_set(7, np.uint8)),
    "negative": (Reason.LABEL_OUTSIDE_SCHEME, voxels_set(-1, np.int16)),
    "cut short": (Reason.UNREADABLE, bytes_set(lambda b: b[: len(b) // 2])),
}


@pytest.mark.parametrize("name", BAD_LABELS)
def test_a_bad_label_map_is_refused_for_its_reason(case: Case, name: str) -> None:
    reason, damage = BAD_LABELS[name]
    assert case.label is not None
    damage(case.label)
    with pytest.raises(CaseError) as refused:
        read(case)
    assert refused.value.reason is reason, str(refused.value)


def test_unknown_labels_are_listed_with_the_schemes_they_would_fit(case: Case) -> None:
    assert case.label is not None
    edited(lambda v, a: (np.where(v == 4, 3, v), a))(case.label)
    with pytest.raises(CaseError) as refused:
        read(case)
    message = str(refused.value)
    assert "[0, 1, 2, 3]" in message, "the numbers found"
    assert "brats2023" in message
    assert "msd-task01" in message


def test_a_promise_is_refused_before_anything_is_allocated(case: Case) -> None:
    path = case.images["t1"]
    header_set(40, "5h", 4, 2048, 2048, 255, 1)(path)
    tracemalloc.start()
    with pytest.raises(CaseError) as refused:
        check_header(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused.value.reason is Reason.HEADER_SIZE
    assert peak < 4 << 20, "two gigabytes were promised"


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    small = nib.Nifti1Image(np.ones((8, 8, 8), np.uint8), np.eye(4)).to_bytes()
    bomb = tmp_path / "bomb.nii.gz"
    bomb.write_bytes(gzip.compress(small + bytes(200 << 20)))
    tracemalloc.start()
    with pytest.raises(CaseError, match="does not hold what its header promises"):
        check_header(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


GOOD_IMAGES: dict[str, Damage] = {
    "untouched": lambda path: None,
    "moved by less than a micrometre": shifted(4e-4),
    "unsigned": edited(lambda v, a: (v.astype(np.uint16), a)),
    "big-endian": edited(lambda v, a: (v.astype(">i4"), a)),
    "double": edited(lambda v, a: (v.astype(np.float64), a)),
    "trailing axes of 1": edited(lambda v, a: (v[..., None, None], a)),
}


@pytest.mark.parametrize("name", GOOD_IMAGES)
def test_a_sound_image_passes_with_the_same_voxels(case: Case, name: str) -> None:
    clean = read(case).x
    GOOD_IMAGES[name](case.images["t2"])
    assert bool((read(case).x == clean).all())


def test_nifti_2_and_unpacked_files_pass(case: Case, tmp_path: Path) -> None:
    clean = read(case)
    image = nib.load(case.images["t1"])
    nib.save(nib.Nifti2Image(np.asarray(image.dataobj), image.affine), tmp_path / "two.nii")
    other = replace(case, images={**case.images, "t1": tmp_path / "two.nii"})
    assert bool((read(other).x == clean.x).all())


def test_an_all_background_label_is_data(case: Case) -> None:
    assert case.label is not None
    edited(lambda v, a: (np.zeros_like(v), a))(case.label)
    truth = read(case).truth
    assert truth is not None
    assert int(truth.abs().sum()) == 0


def test_a_label_map_of_whole_floats_is_data(case: Case) -> None:
    clean = read(case).truth
    assert case.label is not None
    assert clean is not None
    edited(lambda v, a: (v.astype(np.float32), a))(case.label)
    truth = read(case).truth
    assert truth is not None
    assert bool((truth == clean).all())


@settings(max_examples=300)
@given(damage=st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_damaged_header_is_read_or_refused_but_never_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, damage: list[tuple[int, int]]
) -> None:
    image = nib.Nifti1Image(np.arange(6 * 5 * 4, dtype=np.int16).reshape(6, 5, 4), np.eye(4))
    raw = bytearray(image.to_bytes())
    for place, value in damage:
        raw[place] = value
    path = tmp_path_factory.getbasetemp() / "damaged.nii"
    path.write_bytes(raw)
    try:
        volume = read(Case("damaged", None, {"t1": path}, None, BRATS_2018))
    except CaseError:
        return
    assert volume.x.numel() <= len(raw), "no more voxels than the file has bytes"
