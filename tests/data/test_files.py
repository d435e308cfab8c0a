"""Voxels to files and back: exact bits for nibabel, for SimpleITK and for medadv; and nothing else in the file."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from runtime_types import unchecked
from scipy.spatial.transform import Rotation

from medadv.data.brats import brats
from medadv.data.case import Case, Volume
from medadv.data.files import content_digest, label_digest, read, write, written
from medadv.errors import CaseError, ConfigError, Reason, RunError
from medadv.labels import MSD_TASK01

FINITE = {"allow_nan": False, "allow_infinity": False, "width": 32}
LPS = np.diag([-1.0, -1, 1])
"""SimpleITK counts x and y the other way (LPS against NIfTI's RAS)."""


def bits(voxels: Any) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(voxels, np.float32)).view(np.uint32)


@st.composite
def affines(draw: st.DrawFn) -> np.ndarray:
    """Turned, flipped and stretched grids, in the single precision that NIfTI stores."""
    turn = Rotation.from_rotvec([draw(st.floats(-3, 3)) for _ in range(3)]).as_matrix()
    zooms = [draw(st.floats(0.3, 8)) * draw(st.sampled_from([-1, 1])) for _ in range(3)]
    affine = np.eye(4)
    affine[:3, :3] = turn * zooms
    affine[:3, 3] = [draw(st.floats(-300, 300)) for _ in range(3)]
    return affine.astype(np.float32).astype(np.float64)


def volume_of(voxels: np.ndarray, affine: np.ndarray) -> Volume:
    case = Case("any", None, {f"m{i}": Path(f"m{i}.nii.gz") for i in range(len(voxels))}, None, MSD_TASK01)
    return Volume(case, torch.from_numpy(voxels), None, affine)


@settings(max_examples=60)
@given(
    voxels=arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 3), st.integers(2, 5), st.integers(2, 5), st.integers(2, 4)),
        elements=st.floats(**FINITE),
    ),
    affine=affines(),
)
def test_every_bit_comes_back_with_nibabel_and_simpleitk(
    tmp_path_factory: pytest.TempPathFactory, voxels: np.ndarray, affine: np.ndarray
) -> None:
    volume = volume_of(voxels, affine)
    delivered = write(volume, volume.x, tmp_path_factory.getbasetemp() / "bits", stem="x")
    for channel, path in zip(voxels, delivered.images.values(), strict=True):
        image = nib.load(path)
        assert image.get_data_dtype() == np.float32
        assert np.array_equal(bits(image.dataobj), bits(channel))
        assert np.array_equal(image.affine, affine)
        assert (image.dataobj.slope, image.dataobj.inter) == (1, 0)

        other = SimpleITK.ReadImage(path)
        assert np.array_equal(bits(SimpleITK.GetArrayFromImage(other).transpose(2, 1, 0)), bits(channel))
        zooms = np.linalg.norm(affine[:3, :3], axis=0)
        assert np.allclose(other.GetSpacing(), zooms, rtol=1e-5)
        assert np.allclose(other.GetOrigin(), LPS @ affine[:3, 3], rtol=1e-5, atol=1e-5)
        assert np.allclose(np.reshape(other.GetDirection(), (3, 3)), LPS @ affine[:3, :3] / zooms, atol=1e-5)


@settings(max_examples=25)
@given(noise=st.integers(0, 2**32 - 1), affine=affines())
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, noise: int, affine: np.ndarray) -> None:
    voxels = np.random.default_rng(noise).normal(300, 100, (2, 5, 4, 3)).astype(np.float32)
    volume = volume_of(voxels, affine)
    again = read(write(volume, volume.x, tmp_path_factory.getbasetemp() / "read", stem="x"))
    assert np.array_equal(bits(again.x), bits(voxels))
    assert np.array_equal(again.affine, affine)
    assert content_digest(again) == content_digest(volume)


def test_stored_units_are_nibabels_and_simpleitks(case: Case) -> None:
    path = case.images["t2"]
    image = nib.load(path)
    scaled = nib.Nifti1Image(np.asarray(image.dataobj), image.affine)
    scaled.header.set_slope_inter(0.061, -3.5)
    nib.save(scaled, path)
    raw = bytearray(gzip.decompress(path.read_bytes()))
    assert np.frombuffer(raw, "<f4", 2, 112) == pytest.approx([0.061, -3.5]), "the file is scaled"
    volume = read(case)
    channel = case.modalities.index("t2")
    assert np.array_equal(volume.x[channel].numpy(), nib.load(path).get_fdata(dtype=np.float64).astype(np.float32))
    other = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(path, SimpleITK.sitkFloat64)).transpose(2, 1, 0)
    assert np.allclose(volume.x[channel].numpy(), other, rtol=1e-6)
    assert volume.stored["t2"] == np.dtype("int16")


def test_channels_come_in_the_cases_order_and_labels_in_stored_numbers(case: Case) -> None:
    turned = replace(case, images=dict(reversed(case.images.items())))
    there, back = read(case), read(turned)
    assert torch.equal(there.x.flip(0), back.x)
    assert there.truth is not None
    assert there.truth.dtype == torch.int64
    assert case.label is not None
    assert np.array_equal(there.truth.numpy(), np.asarray(nib.load(case.label).dataobj))
    assert there.spacing == (2.0, 2.0, 2.0)


def test_a_case_without_a_label_has_no_truth(case: Case) -> None:
    volume = read(replace(case, label=None))
    assert volume.truth is None
    assert label_digest(volume) is None


def four_channels(case: Case, folder: Path, order: tuple[str, ...]) -> Case:
    clean = read(case)
    path = folder / "together.nii.gz"
    parts = [clean.x[case.modalities.index(name)].numpy() for name in order]
    nib.save(nib.Nifti1Image(np.stack(parts, -1).astype(np.int16), clean.affine), path)
    return replace(case, images=dict.fromkeys(order, path))


def test_channels_of_one_file_stay_in_one_file(case: Case, tmp_path: Path) -> None:
    order = ("flair", "t1", "t1ce", "t2")
    together = four_channels(case, tmp_path, order)
    volume, apart = read(together), read(case)
    for channel, name in enumerate(order):
        assert torch.equal(volume.x[channel], apart.x[case.modalities.index(name)])
    x = volume.x + 0.125
    out = write(volume, x, tmp_path / "out", stem="case")
    assert set(out.images.values()) == {tmp_path / "out" / "ADVERSARIAL_case.nii.gz"}
    assert out.modalities == order
    assert written(together, tmp_path / "out") == out
    assert torch.equal(read(out).x, x)
    itk = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(out.images["t1"]))
    assert np.array_equal(itk.transpose(0, 3, 2, 1), x.numpy())


@pytest.mark.parametrize(
    ("declared", "reason"),
    [(("flair", "t1", "t1ce"), Reason.EXTRA_MODALITY), (("a", "b", "c", "d", "e"), Reason.MISSING_MODALITY)],
)
def test_a_file_with_other_channels_than_declared_is_refused(
    case: Case, tmp_path: Path, declared: tuple[str, ...], reason: Reason
) -> None:
    path = four_channels(case, tmp_path, case.modalities).images["t1"]
    with pytest.raises(CaseError) as refused:
        read(replace(case, images=dict.fromkeys(declared, path)))
    assert refused.value.reason is reason


def test_an_adversarial_file_says_so_and_says_nothing_of_the_patient(case: Case, tmp_path: Path) -> None:
    for path in case.images.values():
        image = nib.load(path)
        image.header["descrip"] = b"DOE^JANE 19700101"
        image.header["aux_file"] = b"DOE^JANE"
        image.header["intent_name"] = b"DOE^JANE"
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"DOE^JANE"))
        nib.save(image, path)
    volume = read(case)
    delivered = write(volume, volume.x, tmp_path / "out", stem="0007", note={"budget": "0.1 sigma"})
    for path in delivered.images.values():
        raw = gzip.decompress(path.read_bytes())
        assert b"DOE" not in raw
        assert bytes(nib.load(path).header["descrip"]).startswith(b"ADVERSARIAL")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"ADVERSARIAL.json", *(f"ADVERSARIAL_0007_{name}.nii.gz" for name in case.modalities)}
    said = json.loads((tmp_path / "out" / "ADVERSARIAL.json").read_text())
    assert said["budget"] == "0.1 sigma"
    assert said["files"] == {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in delivered.images.values()}
    assert (delivered.case, delivered.label, delivered.scheme) == (case.case, case.label, case.scheme)


def test_what_was_written_is_found_whole_or_not_at_all(case: Case, tmp_path: Path) -> None:
    volume = read(case)
    assert written(case, tmp_path / "out") is None
    delivered = write(volume, volume.x, tmp_path / "out", stem="x")
    assert written(case, tmp_path / "out") == delivered
    said = tmp_path / "out" / "ADVERSARIAL.json"
    whole = said.read_text()
    for damaged in ("", "[]", "{}", '{"files": 3}', '{"files": {"../../elsewhere": "0"}}', whole[:-9], '{"files": {}}'):
        said.write_text(damaged)
        assert written(case, tmp_path / "out") is None
    said.write_text(whole)
    delivered.images["t2"].write_bytes(delivered.images["t1"].read_bytes())
    assert written(case, tmp_path / "out") is None


def test_equal_voxels_make_equal_files_at_any_time(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = read(case)
    one = write(volume, volume.x, tmp_path / "one", stem="x")
    monkeypatch.setattr("time.time", lambda: 1e9)
    two = write(volume, volume.x, tmp_path / "two", stem="x")
    assert [p.read_bytes() for p in one.images.values()] == [p.read_bytes() for p in two.images.values()]


def test_a_sheared_grid_keeps_its_affine(tmp_path: Path) -> None:
    affine = np.array([[1, 0.3, 0, 5], [0, 1, 0, 6], [0, 0, 2, 7], [0, 0, 0, 1]], np.float32).astype(np.float64)
    volume = volume_of(np.random.default_rng(0).normal(size=(1, 4, 4, 4)).astype(np.float32), affine)
    delivered = write(volume, volume.x, tmp_path, stem="x")
    assert np.array_equal(read(delivered).affine, affine)
    assert int(nib.load(delivered.images["m0"]).header["qform_code"]) == 0, "a qform cannot tell it, and says nothing"


def test_an_integer_container_holds_what_it_can_and_refuses_the_rest(case: Case, tmp_path: Path) -> None:
    volume = read(case)
    whole = volume.x + (volume.x != 0)
    delivered = write(volume, whole, tmp_path / "whole", stem="x", container="as-stored")
    assert torch.equal(read(delivered).x, whole)
    assert nib.load(delivered.images["t1"]).get_data_dtype() == np.int16
    for changed in (volume.x + 0.25 * (volume.x != 0), volume.x + 40_000.0 * (volume.x != 0)):
        with pytest.raises(CaseError) as refused:
            write(volume, changed, tmp_path / "refused", stem="x", container="as-stored")
        assert refused.value.reason is Reason.BUDGET_NOT_STORABLE
    assert not (tmp_path / "refused").exists()


def test_digests_know_voxels_grid_and_labels_and_nothing_else(case: Case, phantom_root: Path, tmp_path: Path) -> None:
    volume = read(case)
    copied = read(write(volume, volume.x, tmp_path / "copy", stem="x"))
    assert content_digest(copied) == content_digest(volume), "int16 or float32: the same content"
    assert label_digest(copied) == label_digest(volume)
    x = volume.x.clone()
    x[0, 5, 5, 5] += 1
    assert content_digest(replace(volume, x=x)) != content_digest(volume)
    assert content_digest(replace(volume, affine=volume.affine * 1.001)) != content_digest(volume)
    other = read(brats(phantom_root / "Phantom_00001"))
    assert label_digest(other) != label_digest(volume)


@pytest.mark.parametrize("stem", ["../up", "a/b", ".hidden", "", "a\\b", "x\n"])
def test_a_stem_cannot_leave_the_folder(case: Case, tmp_path: Path, stem: str) -> None:
    volume = read(case)
    with pytest.raises(ConfigError, match="no file name"):
        write(volume, volume.x, tmp_path / "out", stem=stem)


def test_double_precision_is_written_where_single_holds_it_and_never_rounded(case: Case, tmp_path: Path) -> None:
    """A rounding may carry a voxel out of its budget."""
    volume = read(case)
    delivered = write(volume, volume.x.double() + 0.5, tmp_path / "exact", stem="x")
    assert nib.load(delivered.images["t1"]).get_data_dtype() == np.float32
    assert torch.equal(read(delivered).x, volume.x + 0.5)
    whole = write(volume, volume.x.double(), tmp_path / "whole", stem="x", container="as-stored")
    assert torch.equal(read(whole).x, volume.x)
    with pytest.raises(CaseError, match="float32 cannot hold") as refused:
        write(volume, volume.x.double() + 0.1, tmp_path / "refused", stem="x")
    assert refused.value.reason is Reason.BUDGET_NOT_STORABLE
    assert "x.float()" in refused.value.details["try"]
    assert not (tmp_path / "refused").exists()


def test_a_misspelt_container_is_refused(case: Case, tmp_path: Path) -> None:
    volume = read(case)
    with unchecked(), pytest.raises(ConfigError, match="no such container"):
        write(volume, volume.x, tmp_path / "out", stem="x", container="as_stored")


@pytest.mark.parametrize("path", ["BraTS2021_00000", Path("scan.nii.gz"), None])
def test_a_path_is_no_case(path: object) -> None:
    with unchecked(), pytest.raises(ConfigError, match="what is read is a case") as refused:
        read(path)
    assert "brats(folder, release)" in refused.value.details["try"]
    assert "msd_cohort(root)" in refused.value.details["try"]


def test_voxels_that_are_not_the_volumes_are_refused(case: Case, tmp_path: Path) -> None:
    volume = read(case)
    with pytest.raises(ConfigError, match="grid"):
        write(volume, volume.x[:, :-1], tmp_path, stem="x")
    with pytest.raises(CaseError) as refused:
        write(volume, volume.x / 0.0, tmp_path, stem="x")
    assert refused.value.reason is Reason.NOT_FINITE


def test_a_folder_that_is_none_is_advice(case: Case, tmp_path: Path) -> None:
    volume = read(case)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="may be written"):
        write(volume, volume.x, tmp_path / "file" / "out", stem="x")


def test_a_full_disk_leaves_whole_files_and_no_claim_that_they_are_all(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = read(case)
    flush, flushed = os.fsync, []

    def full(descriptor: int) -> None:
        if len(flushed) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        flushed.append(descriptor)
        flush(descriptor)

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunError, match="the disk is full"):
        write(volume, volume.x, tmp_path / "out", stem="x")
    monkeypatch.undo()
    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert left == ["ADVERSARIAL_x_t1.nii.gz", "ADVERSARIAL_x_t1ce.nii.gz"]
    assert torch.equal(read(write(volume, volume.x, tmp_path / "out", stem="x")).x, volume.x), "the same call goes on"


def test_real_mr_reads_as_nibabel_reads_it(data_root: Path) -> None:
    from medadv.data.msd import msd_cohort

    root = data_root / "Task04_Hippocampus_subset"
    if not root.is_dir():
        pytest.skip(f"no Task04_Hippocampus_subset in {data_root}")
    cohort = msd_cohort(root)
    assert cohort.refused == []
    assert cohort.scheme.names == ("foreground", "Anterior", "Posterior")
    assert {case.patient for case in cohort.cases} == {None}
    for case in cohort.cases[::8]:
        volume = read(case)
        assert np.array_equal(volume.x[0].numpy(), nib.load(case.images["MRI"]).get_fdata(dtype=np.float32))
        assert volume.truth is not None
        assert case.label is not None
        assert np.array_equal(volume.truth.numpy(), nib.load(case.label).get_fdata())
