"""Bad NRRD and MHA, as real files: each is refused for its reason, before anything is allocated."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data.dicom_series import CANARY
from data.itk_files import MHA, NRRD, RAW, VOXELS, case_of, save
from hypothesis import given, settings
from hypothesis import strategies as st

from medadv.data.files import read
from medadv.data.gate import check_header
from medadv.errors import CaseError, Reason

Damage = Callable[[bytes], bytes]


def put(old: bytes, new: bytes) -> Damage:
    def damage(content: bytes) -> bytes:
        assert old in content
        return content.replace(old, new, 1)

    return damage


def line(new: bytes) -> Damage:
    """One more field, in front of the size."""
    return lambda content: content.replace(b"sizes:", new + b"\nsizes:").replace(b"DimSize", new + b"\nDimSize")


def pack(change: Callable[[bytes], bytes], length: int = len(RAW)) -> Damage:
    """The voxels compressed, then changed."""

    def damage(content: bytes) -> bytes:
        head, raw = content[: -len(RAW)], content[-len(RAW) :].ljust(length, b"\0")
        if head.startswith(b"NRRD"):
            return head.replace(b"encoding: raw", b"encoding: gzip") + change(gzip.compress(raw))
        return head.replace(b"CompressedData = False", b"CompressedData = True") + change(zlib.compress(raw))

    return damage


def nothing(content: bytes) -> bytes:
    return content


U, H, D, T, A = (
    Reason.UNREADABLE,
    Reason.HEADER_SIZE,
    Reason.DIMENSIONS,
    Reason.DATA_TYPE,
    Reason.AFFINE_INVALID,
)
BAD_BOTH: dict[str, tuple[Reason, Damage]] = {
    "empty": (U, lambda b: b""),
    "garbage": (U, lambda b: b"not an image " * 100),
    "a line that does not end": (U, lambda b: b[:10] + b"x" * (3 << 20)),
    "a header that does not end": (U, lambda b: b[:60]),
    "cut in the voxels": (H, lambda b: b[:-20]),
    "much more than promised": (H, lambda b: b + bytes(3 << 20)),
    "a bomb": (H, pack(nothing, 60 << 20)),
    "packed, cut short": (U, pack(lambda b: b[: len(b) // 2])),
    "packed, cut in the checksum": (U, pack(lambda b: b[:-2])),
    "packed, a flipped bit": (U, pack(lambda b: b[: (at := len(b) // 2)] + bytes([b[at] ^ 16]) + b[at + 1 :])),
    "a field twice": (U, line(b"sizes: 5 4 3\nDimSize = 5 4 3")),
}
BAD_NRRD: dict[str, tuple[Reason, Damage]] = {
    "another file": (U, line(b"data file: CANARY_NAME.raw")),
    "another file, in other words": (U, line(b"DataFile: LIST")),
    "bytes to skip": (U, line(b"byte skip: -1")),
    "voxels as text": (U, put(b"raw", b"ascii")),
    "no sizes": (U, put(b"sizes: 5 4 3\n", b"")),
    "a field without a colon": (U, line(b"rubbish")),
    "an axis of nothing": (H, put(b"5 4 3", b"5 0 3")),
    "a negative axis": (H, put(b"5 4 3", b"5 -4 3")),
    "2 gigabytes promised": (H, put(b"5 4 3", b"2000 2000 250")),
    "281 terabytes": (H, put(b"5 4 3", b"32767 32767 32767")),
    "sizes in words": (D, put(b"5 4 3", b"5 four 3")),
    "one slice": (D, put(b"5 4 3", b"20 3 1")),
    "2-D": (D, lambda b: put(b"5 4 3", b"20 3")(put(b"n: 3", b"n: 2")(b)).replace(b"domain domain", b"domain")),
    "sizes that contradict": (U, put(b"dimension: 3", b"dimension: 4")),
    "a block": (T, put(b"short", b"block")),
    "RGB": (T, put(b"kinds: domain", b"kinds: RGB-color")),
    "complex": (T, put(b"kinds: domain", b"kinds: complex")),
    "no space": (A, put(b"space: left-posterior-superior\n", b"")),
    "a scanner's space": (A, put(b"left-posterior-superior", b"scanner-xyz")),
    "no directions": (A, put(b"space directions: (1,0,0) (0,1,0) (0,0,2)\n", b"spacings: 1 1 2\n")),
    "singular": (A, put(b"(0,1,0)", b"(1,0,0)")),
    "an axis without length": (A, put(b"(0,1,0)", b"(0,0,0)")),
    "a direction of NaN": (A, put(b"(0,1,0)", b"(0,nan,0)")),
    "an infinite origin": (A, put(b"(1,2,3)", b"(1,inf,3)")),
    "voxels of 300 mm": (A, put(b"(0,0,2)", b"(0,0,300)")),
    "metres": (A, line(b'space units: "m" "m" "m"')),
}
BAD_MHA: dict[str, tuple[Reason, Damage]] = {
    "another file": (U, put(b"LOCAL", b"CANARY_NAME.raw")),
    "a list of files": (U, put(b"LOCAL", b"LIST")),
    "bytes to skip": (U, line(b"HeaderSize = -1")),
    "voxels as text": (U, put(b"BinaryData = True", b"BinaryData = False")),
    "no sizes": (U, put(b"DimSize = 5 4 3\n", b"")),
    "an axis of nothing": (H, put(b"5 4 3", b"5 0 3")),
    "a negative axis": (H, put(b"5 4 3", b"5 -4 3")),
    "2 gigabytes promised": (H, put(b"5 4 3", b"2000 2000 250")),
    "2 gigabytes of channels": (H, line(b"ElementNumberOfChannels = 2000")),
    "one slice": (D, put(b"5 4 3", b"20 3 1")),
    "2-D": (D, lambda b: put(b"5 4 3", b"20 3")(put(b"NDims = 3", b"NDims = 2")(b))),
    "4-D": (D, lambda b: put(b"5 4 3", b"5 2 3 2")(put(b"NDims = 3", b"NDims = 4")(b))),
    "sizes that contradict": (D, put(b"NDims = 3", b"NDims = 4")),
    "an array": (T, put(b"MET_SHORT", b"MET_SHORT_ARRAY")),
    "a slope": (T, line(b"ElementToIntensityFunctionSlope = 2")),
    "no spacing": (A, put(b"ElementSpacing = 1 1 2\n", b"")),
    "a spacing of 0": (A, put(b"1 1 2", b"1 0 2")),
    "a negative spacing": (A, put(b"1 1 2", b"1 -1 2")),
    "a spacing of NaN": (A, put(b"1 1 2", b"1 nan 2")),
    "singular": (A, put(b"1 0 0 0 1 0 0 0 1", b"1 0 0 1 0 0 0 0 1")),
    "an origin in words": (A, put(b"Offset = 1 2 3", b"Offset = here")),
    "two origins": (A, line(b"Position = 4 5 6")),
}
BAD = [
    *((".nrrd", NRRD, name, *bad) for name, bad in (BAD_BOTH | BAD_NRRD).items()),
    *((".mha", MHA, name, *bad) for name, bad in (BAD_BOTH | BAD_MHA).items()),
]


@pytest.mark.parametrize(("suffix", "head", "name", "reason", "damage"), BAD, ids=[f"{b[0]} {b[2]}" for b in BAD])
def test_a_bad_file_is_refused_for_its_reason_and_names_nobody(
    tmp_path: Path, suffix: str, head: bytes, name: str, reason: Reason, damage: Damage
) -> None:
    path = tmp_path / f"one{suffix}"
    path.write_bytes(head + RAW)
    assert np.array_equal(read(case_of(path)).x[0].numpy(), VOXELS), "it was sound"
    path.write_bytes(damage(head + RAW))
    with pytest.raises(CaseError) as refused:
        read(case_of(path))
    assert refused.value.reason is reason, str(refused.value)
    assert refused.value.details["likely cause"]
    assert CANARY not in str(refused.value)
    assert str(tmp_path) not in str(refused.value)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
@pytest.mark.parametrize(
    ("value", "reason"), [(np.nan, Reason.NOT_FINITE), (np.inf, Reason.NOT_FINITE), (7, Reason.CONSTANT_MODALITY)]
)
def test_voxels_pass_the_same_gate(tmp_path: Path, suffix: str, value: float, reason: Reason) -> None:
    voxels = VOXELS.astype(np.float32)
    voxels[... if value == 7 else (2, 2, 2)] = value
    with pytest.raises(CaseError) as refused:
        read(case_of(save(tmp_path / f"one{suffix}", voxels)))
    assert refused.value.reason is reason


@pytest.mark.parametrize("name", ["one.nhdr", "one.mhd", "one.hdr", "one.img"])
def test_a_header_apart_from_its_voxels_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(NRRD)
    with pytest.raises(CaseError) as refused:
        read(case_of(tmp_path / name))
    assert refused.value.reason is Reason.UNREADABLE
    assert "a header could name any file" in refused.value.details["try"]


@pytest.mark.parametrize("name", ["one.nrrd", "one.mha", "bomb.nrrd", "bomb.mha"])
def test_a_promise_is_refused_before_anything_is_allocated(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    content = (NRRD if path.suffix == ".nrrd" else MHA) + RAW
    bomb = path.stem == "bomb"
    path.write_bytes((pack(nothing, 100 << 20) if bomb else put(b"5 4 3", b"2000 2000 250"))(content))
    tracemalloc.start()
    with pytest.raises(CaseError) as refused:
        check_header(path)  # ITK is not asked, so that Python sees all that is allocated
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused.value.reason is Reason.HEADER_SIZE
    assert peak < 8 << 20


@settings(max_examples=150)
@given(
    kind=st.sampled_from([(".nrrd", NRRD), (".mha", MHA)]),
    damage=st.lists(st.tuples(st.integers(0, 340), st.integers(0, 255)), min_size=1, max_size=5),
)
def test_a_damaged_header_is_read_or_refused_but_never_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, kind: tuple[str, bytes], damage: list[tuple[int, int]]
) -> None:
    raw = bytearray(kind[1] + RAW)
    for place, value in damage:
        raw[place % len(raw)] = value
    path = tmp_path_factory.getbasetemp() / f"damaged{kind[0]}"
    path.write_bytes(raw)
    try:
        volume = read(case_of(path))
    except CaseError:
        return
    assert volume.x.numel() <= len(raw)
