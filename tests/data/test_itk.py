"""NRRD and MHA: the same voxels in the same place as in NIfTI."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from data.dicom_series import CANARY, OBLIQUE, noise, write_series
from data.itk_files import KINDS, NRRD, RAW, SPACING, VOXELS, case_of, save
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from medadv.data.case import Case
from medadv.data.files import read, write
from medadv.data.gate import check_header
from medadv.data.header import ras
from medadv.data.itk import SimpleITKReader
from medadv.errors import CaseError, Reason
from medadv.labels import BRATS_2018


@settings(max_examples=15)
@given(turn=st.tuples(*[st.floats(-3, 3)] * 3), name=st.sampled_from(KINDS), flip=st.booleans())
def test_nifti_nrrd_and_mha_say_the_same_of_one_image(
    tmp_path_factory: pytest.TempPathFactory, turn: tuple[float, float, float], name: str, flip: bool
) -> None:
    direction = Rotation.from_rotvec(turn).as_matrix() @ np.diag([-1.0 if flip else 1.0, 1, 1])
    folder = tmp_path_factory.getbasetemp()
    voxels = np.random.default_rng(1).normal(300, 90, (5, 4, 3)).astype(np.float32)
    nifti = nib.load(save(folder / "plain.nii", voxels, direction))
    volume = read(case_of(save(folder / name, voxels, direction)))
    assert np.array_equal(volume.x[0].numpy(), nifti.get_fdata(dtype=np.float32))
    assert np.allclose(volume.affine, nifti.affine, atol=1e-5)


def test_the_turn_from_lps_to_ras_is_its_own_inverse() -> None:
    affine = np.array([[1.0, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [0, 0, 0, 1]])
    assert np.array_equal(ras(affine), [[-1, -2, -3, -4], [-5, -6, -7, -8], [9, 10, 11, 12], [0, 0, 0, 1]])
    assert np.array_equal(ras(ras(affine)), affine)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8"])
def test_every_real_type_keeps_its_numbers(tmp_path: Path, name: str, dtype: str) -> None:
    voxels = (noise((5, 4, 3)) % 120).astype(dtype)
    volume = read(case_of(save(tmp_path / name, voxels)))
    assert np.array_equal(volume.x[0].numpy(), voxels)
    assert volume.stored == {"m0": np.dtype(dtype)}


@pytest.mark.parametrize("name", KINDS)
def test_the_numbers_of_a_vector_are_channels(tmp_path: Path, name: str) -> None:
    voxels = noise((5, 4, 3, 2)).astype(np.float32)
    volume = read(case_of(save(tmp_path / name, voxels), modalities=2))
    assert np.array_equal(volume.x.numpy(), voxels.transpose(3, 0, 1, 2))
    again = read(write(volume, volume.x, tmp_path / "out", stem="one"))
    assert torch.equal(again.x, volume.x)
    assert np.array_equal(again.affine, volume.affine)


PLACE = np.array([[-1.0, 0, 0, -1], [0, -1, 0, -2], [0, 0, 2, 3], [0, 0, 0, 1]])


@pytest.mark.parametrize("space", [b"right-anterior-superior", b"RAS", b"left-anterior-superior", b"LPS"])
def test_a_space_of_nrrd_is_turned_as_itk_turns_it(tmp_path: Path, space: bytes) -> None:
    path = tmp_path / "one.nrrd"
    path.write_bytes(NRRD.replace(b"left-posterior-superior", space) + RAW)
    image = SimpleITK.ReadImage(str(path))
    SimpleITK.WriteImage(image, str(tmp_path / "one.nii"))
    volume = read(case_of(path))
    assert np.allclose(volume.affine, nib.load(tmp_path / "one.nii").affine, atol=1e-6)
    assert np.array_equal(volume.x[0].numpy(), VOXELS)


def test_channels_may_be_the_last_axis_of_nrrd(tmp_path: Path) -> None:
    path, head = tmp_path / "one.nrrd", NRRD
    for old, new in (
        (b"sizes: 5 4 3", b"sizes: 5 4 3 2"),
        (b"dimension: 3", b"dimension: 4"),
        (b"(0,0,2)", b"(0,0,2) none"),
        (b"domain\nendian", b"domain list\nendian"),
    ):
        head = head.replace(old, new)
    path.write_bytes(head + RAW + (VOXELS + 1).tobytes(order="F"))
    volume = read(case_of(path, modalities=2))
    assert np.array_equal(volume.x.numpy(), np.stack([VOXELS, VOXELS + 1]))
    assert np.array_equal(volume.affine, PLACE)


def test_the_monai_reader_says_where_voxels_lie(tmp_path: Path) -> None:
    path = save(tmp_path / "plain.nrrd", VOXELS)
    reader = SimpleITKReader()
    assert reader.verify_suffix(path)
    assert not reader.verify_suffix("scan.nii.gz")
    voxels, meta = reader.get_data(reader.read(path))
    assert np.array_equal(voxels, VOXELS)
    assert np.allclose(meta["affine"], check_header(path).affine, atol=1e-6)
    assert CANARY not in repr(meta)


def test_overlapping_segments_are_refused_and_a_plain_label_map_is_read(tmp_path: Path) -> None:
    labels = np.zeros((5, 4, 3), np.uint8)
    labels[1:3, 1:3, 1] = 4
    scan = save(tmp_path / "scan.nrrd", VOXELS)
    plain = save(tmp_path / "plain.seg.nrrd", labels)
    truth = read(Case("one", None, {"m0": scan}, plain, BRATS_2018)).truth
    assert truth is not None
    assert np.array_equal(truth.numpy(), labels)
    layers = save(tmp_path / "layers.seg.nrrd", np.stack([labels, labels], -1))
    with pytest.raises(CaseError, match="overlapping segments") as refused:
        read(Case("one", None, {"m0": scan}, layers, BRATS_2018))
    assert refused.value.reason is Reason.DIMENSIONS


def test_containers_mix_in_one_case_and_names_stay_behind(tmp_path: Path) -> None:
    write_series(tmp_path / "series", VOXELS, direction=OBLIQUE, spacing=SPACING, origin=(-11.5, 22.25, 3.125))
    paths = [save(tmp_path / name, VOXELS + i) for i, name in enumerate(("one.nii.gz", "two.nrrd", "packed.mha"))]
    case = case_of(*paths, tmp_path / "series")
    volume = read(case)
    assert [int(channel[0, 0, 0] - VOXELS[0, 0, 0]) for channel in volume.x] == [0, 1, 2, 0]
    assert any(CANARY.encode() in path.read_bytes() for path in paths)
    delivered = write(volume, volume.x, tmp_path / "out", stem="one")
    for file in (tmp_path / "out").iterdir():
        raw = file.read_bytes()
        assert CANARY.encode() not in (gzip.decompress(raw) if file.suffix == ".gz" else raw)
    assert torch.equal(read(delivered).x, volume.x)
