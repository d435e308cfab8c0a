"""DICOM: real series are sorted, placed and scaled as other readers do it; what makes no volume is refused."""

from __future__ import annotations

import gzip
import locale
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from data.dicom_series import CANARY, MR, OBLIQUE, UPRIGHT, joined, noise, save_dicom, tag_set, write_series

from medadv.data.case import Case
from medadv.data.files import content_digest, read, write, written
from medadv.errors import CaseError, Reason
from medadv.labels import BRATS_2018


def case_of(*paths: Path) -> Case:
    return Case("one", None, {f"m{i}": path for i, path in enumerate(paths)}, None, BRATS_2018)


def nifti_of(folder: Path) -> nib.Nifti1Image:
    """The series as SimpleITK sorts and places it, turned to RAS by its NIfTI writer and read by nibabel."""
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    image = SimpleITK.ReadImage(names, SimpleITK.sitkFloat64)
    path = folder.parent / f"{folder.name}.nii"
    SimpleITK.WriteImage(image, str(path))
    return nib.load(path)


@pytest.mark.parametrize("direction", [UPRIGHT, OBLIQUE, OBLIQUE[:, [2, 0, 1]]], ids=["upright", "oblique", "sagittal"])
def test_a_series_is_where_simpleitk_and_nibabel_put_it(tmp_path: Path, direction: np.ndarray) -> None:
    voxels = noise()
    write_series(tmp_path / "s", voxels, direction=direction)
    volume, other = read(case_of(tmp_path / "s")), nifti_of(tmp_path / "s")
    assert np.array_equal(volume.x[0].numpy(), voxels), "in the order of space, not of names or instance numbers"
    assert np.array_equal(volume.x[0].numpy(), other.get_fdata(dtype=np.float32))
    assert np.allclose(volume.affine, other.affine, atol=1e-5)
    assert volume.stored == {"m0": np.dtype("int16")}


def test_every_slice_is_scaled_by_its_own_slope(tmp_path: Path) -> None:
    voxels = noise()
    slopes = [1.0, 0.5, 0.25, 2.0, 3.5, 0.125]
    for file, slope in zip(write_series(tmp_path / "s", voxels), slopes, strict=True):
        tag_set(file, 0x00281052, "-10.5")
        tag_set(file, 0x00281053, str(slope))
    assert np.array_equal(read(case_of(tmp_path / "s")).x[0].numpy(), voxels * np.float32(slopes) - np.float32(10.5))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_whole_numbers_come_as_they_are(tmp_path: Path, dtype: type) -> None:
    voxels = noise().astype(dtype)
    write_series(tmp_path / "s", voxels)
    volume = read(case_of(tmp_path / "s"))
    assert np.array_equal(volume.x[0].numpy(), voxels)
    assert volume.stored["m0"] == dtype


def test_compressed_slices_are_read(tmp_path: Path) -> None:
    voxels = noise()
    for file in write_series(tmp_path / "s", voxels):
        save_dicom(SimpleITK.ReadImage(str(file)), file, compressed=True)
        assert b"1.2.840.10008.1.2.4." in file.read_bytes()[:600], "a JPEG of some kind"
    assert np.array_equal(read(case_of(tmp_path / "s")).x[0].numpy(), voxels)


def test_what_is_no_dicom_is_passed_over(tmp_path: Path) -> None:
    files = write_series(tmp_path / "s", noise())
    clean = read(case_of(tmp_path / "s"))
    for name in ("README", "notes.TXT", "sidecar.json", "preview.jpg", "index.html", ".DS_Store"):
        (tmp_path / "s" / name).write_bytes(b"from the archive")
    (tmp_path / "s" / "deeper").mkdir()
    catalogue = bytearray(files[0].read_bytes())
    at = catalogue.index(MR.encode())
    catalogue[at : at + 26] = b"1.2.840.10008.1.3.10".ljust(26, b"\0")
    (tmp_path / "s" / "DICOMDIR").write_bytes(catalogue)
    files[2].rename(files[2].with_suffix(""))
    assert content_digest(read(case_of(tmp_path / "s"))) == content_digest(clean)


@pytest.mark.parametrize("meta", [True, False], ids=["with meta information", "the data set alone"])
@pytest.mark.parametrize("which", [0, 3, -1], ids=["first", "inside", "last"])
def test_a_slice_without_the_preamble_is_a_slice(tmp_path: Path, which: int, meta: bool) -> None:
    files = write_series(tmp_path / "s", noise())
    clean = read(case_of(tmp_path / "s"))
    raw = files[which].read_bytes()
    after = 144 + int.from_bytes(raw[140:144], "little")  # (0002,0000) says how long the meta information is
    assert raw[128:136] == b"DICM\x02\0\0\0"
    files[which].unlink()
    files[which].with_suffix("").write_bytes(raw[132 if meta else after :])
    volume = read(case_of(tmp_path / "s"))
    assert volume.x.shape[-1] == 6
    assert content_digest(volume) == content_digest(clean)


@pytest.mark.parametrize("name", ["IM0006", "slice.bak", "VERSION", "slice.ima"])
def test_a_file_that_could_be_a_slice_is_not_dropped(tmp_path: Path, name: str) -> None:
    *_, last = write_series(tmp_path / "s", noise())
    last.unlink()
    last.with_name(f"{CANARY}-{name}").write_bytes(b"half a slice" * 40)
    with pytest.raises(CaseError, match="is no DICOM image") as refused:
        read(case_of(tmp_path / "s"))
    assert refused.value.reason is Reason.UNREADABLE
    assert "move out of the folder" in refused.value.details["try"]
    assert CANARY not in str(refused.value)


def test_reading_leaves_the_locale_alone(tmp_path: Path) -> None:
    """GDCM's writer does not; Python would then take every text file for ASCII."""
    write_series(tmp_path / "s", noise())
    before = locale.setlocale(locale.LC_ALL)
    read(case_of(tmp_path / "s"))
    assert locale.setlocale(locale.LC_ALL) == before


Damage = Callable[[list[Path]], object]


def every(tag: int, value: str | int) -> Damage:
    return lambda files: [tag_set(file, tag, value) for file in files]


def one(tag: int, value: str | int) -> Damage:
    return lambda files: tag_set(files[3], tag, value)


def content(change: Callable[[bytes], bytes]) -> Damage:
    return lambda files: files[3].write_bytes(change(files[3].read_bytes()))


def second_series(files: list[Path]) -> None:
    write_series(files[0].parent, noise((10, 8, 4)), tags={"0020|000e": "1.2.3"}, name="other", origin=(9.0, 9.0, 9.0))


def stored_as(kind: str) -> Damage:
    """Every file says of itself that it is of another class."""

    def damage(files: list[Path]) -> None:
        for file in files:
            padded = kind.encode().ljust(len(MR) + 1, b"\0")
            file.write_bytes(file.read_bytes().replace(MR.encode() + b"\0", padded))

    return damage


def enhanced(files: list[Path]) -> None:
    """One file more, of MR with many frames."""
    raw = files[0].read_bytes()
    longer = b"UI" + (len(MR) + 3).to_bytes(2, "little") + MR.encode() + b".1\0"
    at = raw.index(b"UI" + (26).to_bytes(2, "little") + MR.encode())
    raw = raw[:at] + longer + raw[at + 30 :]
    for file in files[1:]:
        file.unlink()
    files[0].write_bytes(raw)


def colour(files: list[Path]) -> None:
    image = SimpleITK.GetImageFromArray(np.zeros((8, 10, 3), np.uint8), isVector=True)
    for tag, value in {"0008|0060": "MR", "0008|0016": MR, "0020|000e": "1.2.3"}.items():
        image.SetMetaData(tag, value)
    for file in files:
        save_dicom(image, file)


def copied(files: list[Path]) -> None:
    shutil.copy(files[3], files[3].with_name("again.dcm"))


def moved(files: list[Path]) -> None:
    """A slice that lies three millimetres beside the stack."""
    tag_set(files[3], 0x00200032, joined((-28.0, 12.5, 7.25 + 3 * 2.5)))


def zeroed(files: list[Path]) -> None:
    write_series(files[0].parent, noise() * 0, name=f"{CANARY}-slice")


BAD: dict[str, tuple[Reason, Damage]] = {
    "a second series": (Reason.SERIES_MIXED, second_series),
    "a missing slice": (Reason.SERIES_GAPS, lambda files: files[2].unlink()),
    "the last but one missing": (Reason.SERIES_GAPS, lambda files: files[4].unlink()),
    "a slice beside the stack": (Reason.SERIES_GAPS, moved),
    "a slice twice": (Reason.SERIES_DUPLICATES, copied),
    "all in one place": (Reason.SERIES_DUPLICATES, every(0x00200032, "1\\2\\3")),
    "another orientation": (Reason.SERIES_SLICES, one(0x00200037, "0\\1\\0\\0\\0\\1")),
    "another pixel spacing": (Reason.SERIES_SLICES, one(0x00280030, "1.2\\1.2")),
    "another size": (Reason.SERIES_SLICES, lambda f: (tag_set(f[3], 0x00280010, 5), tag_set(f[3], 0x00280011, 16))),
    "another data type": (Reason.SERIES_SLICES, one(0x00280103, 0)),
    "a single slice": (Reason.DIMENSIONS, lambda files: [file.unlink() for file in files[1:]]),
    "CT": (Reason.NOT_MR, every(0x00080060, "CT")),
    "stored as CT": (Reason.NOT_MR, stored_as("1.2.840.10008.5.1.4.1.1.2")),
    "a secondary capture": (Reason.NOT_MR, stored_as("1.2.840.10008.5.1.4.1.1.7")),
    "colour": (Reason.NOT_MR, colour),
    "enhanced MR": (Reason.MULTI_FRAME, enhanced),
    "many frames": (Reason.MULTI_FRAME, every(0x00280008, "2")),
    "no position": (Reason.AFFINE_INVALID, one(0x00200032, "")),
    "a position of NaN": (Reason.AFFINE_INVALID, one(0x00200032, "nan\\0\\0")),
    "a short position": (Reason.AFFINE_INVALID, one(0x00200032, "1\\2")),
    "an orientation of zeros": (Reason.AFFINE_INVALID, every(0x00200037, "0\\0\\0\\0\\0\\0")),
    "two equal axes": (Reason.AFFINE_INVALID, every(0x00200037, "1\\0\\0\\1\\0\\0")),
    "pixels of no size": (Reason.AFFINE_INVALID, every(0x00280030, "0\\0")),
    "pixels of negative size": (Reason.AFFINE_INVALID, every(0x00280030, "-1\\1")),
    "pixels of NaN": (Reason.AFFINE_INVALID, every(0x00280030, "nan\\1")),
    "pixels of a metre": (Reason.AFFINE_INVALID, every(0x00280030, "1000\\1000")),
    "a slope of NaN": (Reason.DATA_TYPE, one(0x00281053, "nan")),
    "a slope of nothing": (Reason.DATA_TYPE, one(0x00281053, "0")),
    "an infinite intercept": (Reason.DATA_TYPE, one(0x00281052, "inf")),
    "65535 rows": (Reason.HEADER_SIZE, lambda f: [tag_set(f[3], tag, 65535) for tag in (0x00280010, 0x00280011)]),
    "2048 rows": (Reason.HEADER_SIZE, lambda f: [tag_set(f[3], tag, 2048) for tag in (0x00280010, 0x00280011)]),
    "no rows": (Reason.UNREADABLE, one(0x00280010, 0)),
    "cut in the voxels": (Reason.UNREADABLE, content(lambda b: b[:-40])),
    "cut in the header": (Reason.UNREADABLE, content(lambda b: b[:600])),
    "empty": (Reason.UNREADABLE, content(lambda b: b"")),
    "garbage": (Reason.UNREADABLE, content(lambda b: b"not an image" * 100)),
    "garbage behind the mark": (Reason.NOT_MR, content(lambda b: b[:132] + b"not an image" * 100)),
    "two gigabytes of pixels": (
        Reason.UNREADABLE,
        content(lambda b: b[: (at := b.rindex(b"\xe0\x7f\x10\x00") + 4)] + b"\xf0\xff\xff\x7f" + b[at + 4 :]),
    ),
    "no slices": (Reason.UNREADABLE, lambda files: [file.unlink() for file in files]),
    "all voxels zero": (Reason.CONSTANT_MODALITY, zeroed),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_series_is_refused_for_its_reason_and_names_nobody(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "series"
    reason, damage = BAD[name]
    damage(write_series(folder, noise(), name=f"{CANARY}-slice"))
    with pytest.raises(CaseError) as refused:
        read(case_of(folder))
    assert refused.value.reason is reason, str(refused.value)
    assert CANARY not in str(refused.value)
    assert str(tmp_path) not in str(refused.value)
    assert refused.value.details["likely cause"]


def test_series_are_told_by_their_number_of_slices(tmp_path: Path) -> None:
    second_series(write_series(tmp_path, noise()))
    with pytest.raises(CaseError, match="series of 6, 4 slices") as refused:
        read(case_of(tmp_path))
    assert "1.2.3" not in str(refused.value)


@pytest.mark.parametrize("name", ["one.dcm", "DICOMDIR", "one.ima"])
def test_a_slice_is_named_by_its_folder(tmp_path: Path, name: str) -> None:
    write_series(tmp_path, noise())[0].rename(tmp_path / name)
    with pytest.raises(CaseError) as refused:
        read(case_of(tmp_path / name))
    assert refused.value.reason is Reason.UNREADABLE
    assert "the folder that holds the slices" in refused.value.details["try"]


@pytest.mark.parametrize("role", ["label", "mask"])
def test_a_label_or_mask_is_no_folder(tmp_path: Path, role: str) -> None:
    write_series(tmp_path / "s", noise())
    whole = case_of(tmp_path / "s")
    with pytest.raises(CaseError, match="is a folder") as refused:
        read(Case("one", None, whole.images, **{"label": None, role: tmp_path / "s"}, scheme=BRATS_2018))
    assert refused.value.reason is Reason.UNREADABLE


def test_what_is_written_is_nifti_on_the_same_grid_and_names_nobody(tmp_path: Path) -> None:
    folder = tmp_path / "series"
    write_series(folder, noise(), direction=OBLIQUE, name=f"{CANARY}-slice")
    case = case_of(folder)
    volume = read(case)
    assert any(CANARY.encode() in file.read_bytes() for file in folder.iterdir()), "there is something to be found"
    assert CANARY not in repr(volume)
    delivered = write(volume, volume.x + 0.25, tmp_path / "out", stem="one")
    again = read(delivered)
    assert torch.equal(again.x, volume.x + 0.25)
    assert np.array_equal(again.affine, volume.affine)
    assert written(case, tmp_path / "out") == delivered
    for file in (tmp_path / "out").iterdir():
        raw = file.read_bytes()
        assert CANARY.encode() not in (gzip.decompress(raw) if file.suffix == ".gz" else raw)
        assert CANARY not in file.name
    assert {file.suffix for file in (tmp_path / "out").iterdir()} == {".gz", ".json"}
