"""Registered modalities on grids of their own, and masks: brought onto one grid, or refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from runtime_types import unchecked
from scipy.ndimage import affine_transform

from medadv.data.case import Case
from medadv.data.files import content_digest, read, write, written
from medadv.data.header import Header
from medadv.data.resample import overlap, resample
from medadv.errors import CaseError, ConfigError, Reason

FINE = np.diag([1.0, 1, 1, 1])


def header(shape: tuple[int, int, int], affine: np.ndarray) -> Header:
    return Header(Path("any.nii"), shape, None, np.dtype("f4"), affine)


def grid_of(*, zoom: tuple[float, float, float] = (1, 1, 1), shift: tuple[float, float, float] = (0, 0, 0)) -> Any:
    affine = np.diag([*zoom, 1.0])
    affine[:3, 3] = shift
    return affine


def store(path: Path, voxels: np.ndarray, affine: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


def coarser(case: Case, **changes: Any) -> Case:
    """T2 and the label on a grid of their own: every second slice, shifted by a third of a voxel."""
    assert case.label is not None
    for path in (case.images["t2"], case.label):
        image = nib.load(path)
        affine = image.affine @ grid_of(zoom=(1, 1, 2), shift=(0, 0, 0.5))
        store(path, np.asarray(image.dataobj)[:, :, ::2], affine)
    return replace(case, **changes)


def test_linear_and_nearest_are_scipys() -> None:
    rng = np.random.default_rng(2)
    voxels = rng.normal(size=(8, 7, 6))
    here, onto = header((8, 7, 6), grid_of(zoom=(1, 1, 2))), header((7, 6, 9), grid_of(shift=(0.25, 0.375, 0.75)))
    for nearest in (False, True):
        got = resample(torch.from_numpy(voxels), here, onto, nearest=nearest)
        step = np.linalg.inv(here.affine) @ onto.affine
        other = affine_transform(voxels, step[:3, :3], step[:3, 3], onto.shape, order=0 if nearest else 1)
        assert np.allclose(got.numpy(), other, rtol=0, atol=0 if nearest else 1e-12)


def test_a_turned_grid_is_met_in_space() -> None:
    """A linear function of space is kept by linear interpolation, whatever the grids."""
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    here = header((30, 30, 10), turn @ grid_of(shift=(-14, -14, 0)))
    onto = header((9, 8, 7), grid_of(shift=(-4, -4, 1)))
    place = np.stack(np.meshgrid(*map(np.arange, here.shape), [1], indexing="ij")).reshape(4, -1)
    voxels = (np.array([2.0, -3.0, 5.0, 7.0]) @ here.affine @ place).reshape(here.shape)
    there = np.stack(np.meshgrid(*map(np.arange, onto.shape), [1], indexing="ij")).reshape(4, -1)
    expected = (np.array([2.0, -3.0, 5.0, 7.0]) @ onto.affine @ there).reshape(onto.shape)
    assert np.allclose(resample(torch.from_numpy(voxels), here, onto).numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("shift", [0.0, 2.0, 5.0, 20.0])
def test_the_overlap_of_shifted_boxes_is_that_of_boxes(shift: float) -> None:
    one, other = header((20, 10, 10), FINE), header((20, 10, 10), grid_of(shift=(shift, 0, 0)))
    assert overlap(one, other) == pytest.approx(max(0.0, 1 - shift / 20), abs=1 / 32)


def test_what_is_not_seen_is_zero() -> None:
    here, onto = header((10, 10, 10), FINE), header((10, 10, 10), grid_of(shift=(1, 0, 0)))
    got = resample(torch.full((10, 10, 10), 3.0), here, onto)
    assert bool((got[:9] == 3).all())
    assert bool((got[9] == 0).all())


def test_other_grids_are_refused_with_the_setting_that_helps(case: Case) -> None:
    with pytest.raises(CaseError) as refused:
        read(coarser(case))
    assert refused.value.reason is Reason.SHAPE_MISMATCH
    assert "data.grid" in refused.value.details["try"]


def test_modalities_and_label_come_onto_the_grid_that_is_named(case: Case, tmp_path: Path) -> None:
    clean = read(case)
    volume = read(coarser(case, grid="t1"))
    t2 = case.modalities.index("t2")
    others = [i for i in range(4) if i != t2]
    assert torch.equal(volume.x[others], clean.x[others]), "what lies on the grid is as it is stored"
    assert np.array_equal(volume.affine, clean.affine)
    assert float((volume.x[t2] - clean.x[t2]).abs().mean()) < 0.5 * float(clean.x[t2].abs().mean())
    assert volume.truth is not None
    assert clean.truth is not None
    assert set(volume.truth.unique().tolist()) <= set(clean.truth.unique().tolist())
    assert float((volume.truth == clean.truth).float().mean()) > 0.9
    assert volume.stored["t2"] == np.float32
    delivered = write(volume, volume.x + 0.5, tmp_path / "out", stem="x")
    assert written(volume.case, tmp_path / "out") == delivered
    again = read(delivered)
    assert torch.equal(again.x, volume.x + 0.5)
    assert again.truth is not None
    assert torch.equal(again.truth, volume.truth)


def test_the_coarse_grid_may_be_the_one(case: Case) -> None:
    volume = read(coarser(case, grid="t2"))
    assert volume.x.shape == (4, 26, 30, 12)
    assert volume.truth is not None
    assert volume.spacing == (2.0, 2.0, 4.0)
    assert case.label is not None
    assert np.array_equal(volume.truth.numpy(), np.asarray(nib.load(case.label).dataobj)), "it lies on that grid"


def test_an_image_that_covers_too_little_is_refused(case: Case) -> None:
    image = nib.load(case.images["t2"])
    store(case.images["t2"], np.asarray(image.dataobj)[:20], image.affine)
    with pytest.raises(CaseError, match="covers") as refused:
        read(replace(case, grid="t1"))
    assert refused.value.reason is Reason.GRID_OVERLAP
    assert read(replace(case, grid="t2")).x.shape == (4, 20, 30, 24), "the smaller grid is covered"


def test_a_bad_voxel_is_seen_before_it_is_spread(case: Case) -> None:
    coarser(case)
    image = nib.load(case.images["t2"])
    voxels = np.asarray(image.dataobj).astype(np.float32)
    voxels[0, 0, 0] = np.nan
    store(case.images["t2"], voxels, image.affine)
    with pytest.raises(CaseError, match="1 of") as refused:
        read(replace(case, grid="t1"))
    assert refused.value.reason is Reason.NOT_FINITE


def test_a_grid_that_is_no_modality_is_a_mistake_of_the_study(case: Case) -> None:
    with unchecked(), pytest.raises(ConfigError, match="no modality"):
        read(replace(case, grid="t3"))


def masked(case: Case, voxels: np.ndarray | None = None, affine: np.ndarray | None = None) -> Case:
    """The case with a mask file: the head, or what is given."""
    image = nib.load(case.images["t1"])
    head = np.asarray(image.dataobj) != 0
    path = case.images["t1"].with_name("mask.nii.gz")
    store(path, head.astype(np.uint8) if voxels is None else voxels, image.affine if affine is None else affine)
    return replace(case, mask=path)


def test_a_mask_is_read_as_what_is_not_zero(case: Case) -> None:
    head = np.asarray(nib.load(case.images["t1"]).dataobj) != 0
    volume = read(masked(case, np.where(head, -2.5, 0).astype(np.float32)))
    assert volume.mask is not None
    assert volume.mask.dtype == torch.bool
    assert np.array_equal(volume.mask.numpy(), head)
    assert read(case).mask is None


def test_a_mask_changes_the_digest_and_no_mask_leaves_it(case: Case) -> None:
    plain, with_mask = read(case), read(masked(case))
    assert content_digest(replace(with_mask, mask=None)) == content_digest(plain)
    assert content_digest(with_mask) != content_digest(plain)
    assert with_mask.mask is not None
    assert content_digest(replace(with_mask, mask=~with_mask.mask)) != content_digest(with_mask)


SHAPE = (26, 30, 24)


@pytest.mark.parametrize(
    ("voxels", "affine", "reason"),
    [
        (np.zeros(SHAPE, np.uint8), None, Reason.MASK_EMPTY),
        (np.ones((26, 30, 23), np.uint8), None, Reason.MASK_GRID),
        (np.ones((*SHAPE, 2), np.uint8), None, Reason.MASK_GRID),
        (np.ones(SHAPE, np.uint8), np.diag([2.0, 2, 2, 1]), Reason.MASK_GRID),
        (np.full(SHAPE, np.nan, np.float32), None, Reason.NOT_FINITE),
    ],
    ids=["empty", "shape", "channels", "place", "NaN"],
)
def test_a_bad_mask_is_refused_for_its_reason(case: Case, voxels: np.ndarray, affine: Any, reason: Reason) -> None:
    with pytest.raises(CaseError) as refused:
        read(masked(case, voxels, affine))
    assert refused.value.reason is reason, str(refused.value)


def test_a_mask_that_is_not_there_is_refused(case: Case, tmp_path: Path) -> None:
    with pytest.raises(CaseError) as refused:
        read(replace(case, mask=tmp_path / "nowhere.nii.gz"))
    assert refused.value.reason is Reason.MISSING_MASK


def test_a_mask_on_another_grid_is_brought_onto_the_one_that_is_named(case: Case) -> None:
    whole = masked(case)
    assert whole.mask is not None
    image = nib.load(whole.mask)
    every_second = np.asarray(image.dataobj)[:, :, ::2].copy()
    store(whole.mask, every_second, image.affine @ grid_of(zoom=(1, 1, 2)))
    with pytest.raises(CaseError) as refused:
        read(whole)
    assert refused.value.reason is Reason.MASK_GRID
    mask = read(replace(whole, grid="t1")).mask
    assert mask is not None
    assert np.array_equal(mask[:, :, ::2].numpy(), every_second != 0)
