"""Where an image may be attacked, on heads whose place is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from runtime_types import unchecked

from medadv.data.case import Case, Volume
from medadv.data.support import support
from medadv.errors import CaseError, ConfigError, Reason
from medadv.labels import BRATS_2018

SHAPE = (24, 26, 22)
PLACE = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1)
HEAD = np.linalg.norm(PLACE - np.array([12, 13, 11]), axis=-1) < 9
VENTRICLE = np.linalg.norm(PLACE - np.array([12, 13, 11]), axis=-1) < 3
LEFT = HEAD & (PLACE[..., 0] < 8)


def scan(*, dark: np.ndarray = VENTRICLE) -> np.ndarray:
    """A head in noisy air, dark inside, with a bright speck of dirt beside it; no voxel is zero."""
    rng = np.random.default_rng(4)
    voxels = rng.uniform(1, 20, SHAPE) + HEAD * ~dark * rng.uniform(300, 400, SHAPE)
    voxels[1:3, 1:3, 1] = 500
    return voxels.astype(np.float32)


def volume(*modalities: np.ndarray, mask: np.ndarray | None = None) -> Volume:
    case = Case("one", None, {f"m{i}": Path(f"m{i}.nii") for i in range(len(modalities))}, None, BRATS_2018)
    x = torch.from_numpy(np.stack(modalities))
    return Volume(case, x, None, np.eye(4), mask=None if mask is None else torch.from_numpy(mask))


def test_otsu_finds_the_head_without_dirt_and_with_what_is_dark_inside() -> None:
    found = support(volume(scan()), "otsu")
    assert found.dtype == torch.bool
    assert np.array_equal(found[0].numpy(), HEAD)


@pytest.mark.parametrize("brightness", [1e3, 1e4, 1e5, 1e6])
def test_a_very_bright_spot_hides_no_head(brightness: float) -> None:
    spotted = scan()
    spotted[12, 13, 19] = brightness
    found = support(volume(spotted), "otsu")[0].numpy()
    assert (found & HEAD).sum() >= 0.99 * HEAD.sum()


@pytest.mark.parametrize("inside", ["nothing", "one voxel", "one value"])
def test_a_support_without_spread_is_refused(inside: str) -> None:
    """σ would be 0, the budget nothing, and the victim would look robust."""
    voxels, mask = scan(), np.zeros(SHAPE, bool)
    if inside != "nothing":
        mask[12, 13, 11] = True
    if inside == "one value":
        mask[10:14, 10:14, 10:14], voxels[10:14, 10:14, 10:14] = True, 40.0
    with pytest.raises(CaseError, match="nothing in m0 to attack") as refusal:
        support(volume(voxels, mask=mask), "mask")
    assert refusal.value.reason is Reason.NO_SUPPORT


def test_otsu_finds_one_head_for_all_modalities() -> None:
    """What one contrast leaves dark at the edge, another shows."""
    one, other = scan(dark=LEFT), scan()
    assert not np.array_equal(support(volume(one), "otsu")[0].numpy(), HEAD)
    found = support(volume(one, other), "otsu")
    assert np.array_equal(found.numpy(), np.stack([HEAD, HEAD]))


def test_the_zeros_of_each_modality_are_its_own() -> None:
    one, other = scan() * HEAD, scan() * LEFT
    found = support(volume(one, other), "nonzero")
    assert np.array_equal(found.numpy(), np.stack([HEAD, LEFT]))


def test_a_mask_holds_for_all_modalities() -> None:
    whole = volume(scan(), scan(), mask=LEFT)
    found = support(whole, "mask")
    assert np.array_equal(found.numpy(), np.stack([LEFT, LEFT]))
    found[0, 0, 0, 0] = True
    assert whole.mask is not None
    assert not bool(whole.mask[0, 0, 0]), "what is changed is a copy"


def test_a_mask_that_is_not_there_is_a_fault_of_the_case() -> None:
    with pytest.raises(CaseError, match="no mask") as refused:
        support(volume(scan()), "mask")
    assert refused.value.reason is Reason.MISSING_MASK


def test_the_volume_is_everything() -> None:
    found = support(volume(scan(), scan() * HEAD), "volume")
    assert found.shape == (2, *SHAPE)
    assert bool(found.all())


def test_another_support_is_a_mistake() -> None:
    with unchecked(), pytest.raises(ConfigError, match="no such support"):
        support(volume(scan()), "brain")
