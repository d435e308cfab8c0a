"""The phantom: reproducible, in BraTS's layout, with the contrast, the anatomy and the noise of MR."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from runtime_types import unchecked
from scipy import ndimage

from medadv.data.brats import MODALITIES, brats_cohort
from medadv.data.files import read
from medadv.data.phantom import CONTRAST, phantom, render
from medadv.data.phantom_anatomy import Anatomy, grow
from medadv.errors import ConfigError, RunError

SIZE = (48, 48, 48)


@pytest.fixture(scope="module")
def heads() -> list[Anatomy]:
    return [grow(SIZE, np.random.default_rng([0, number])) for number in range(8)]


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_case_depends_on_seed_and_number_alone(tmp_path: Path) -> None:
    phantom(tmp_path / "three", 3, (24, 28, 26), seed=5)
    phantom(tmp_path / "one", 1, (24, 28, 26), seed=5)
    phantom(tmp_path / "other", 1, (24, 28, 26), seed=6)
    first = bytes_of(tmp_path / "three" / "Phantom_00000")
    assert first == bytes_of(tmp_path / "one" / "Phantom_00000")
    assert first.keys() == bytes_of(tmp_path / "other" / "Phantom_00000").keys()
    assert all(content != bytes_of(tmp_path / "other" / "Phantom_00000")[name] for name, content in first.items())
    voxels = [np.asarray(nib.load(tmp_path / "three" / f"Phantom_{n:05d}" / f"Phantom_{n:05d}_t1.nii.gz").dataobj)
              for n in range(3)]
    assert len({content.tobytes() for content in voxels}) == 3


def test_a_damaged_case_is_written_anew(tmp_path: Path) -> None:
    phantom(tmp_path, 1, (24, 24, 24))
    whole = bytes_of(tmp_path / "Phantom_00000")
    (tmp_path / "Phantom_00000" / "Phantom_00000_t1.nii.gz").write_bytes(b"cut")
    (tmp_path / "Phantom_00000" / "stray.nii").write_bytes(b"")
    phantom(tmp_path, 1, (24, 24, 24))
    assert bytes_of(tmp_path / "Phantom_00000") == whole
    assert [path.name for path in tmp_path.iterdir()] == ["Phantom_00000"]


def test_a_case_that_is_there_is_left_to_its_readers(tmp_path: Path) -> None:
    def places() -> dict[str, tuple[int, int]]:
        return {str(p): (p.stat().st_ino, p.stat().st_mtime_ns) for p in tmp_path.glob("Phantom_*/**/*")}

    phantom(tmp_path, 1, 24)
    folder = (tmp_path / "Phantom_00000").stat()
    before = places()
    phantom(tmp_path, 2, (24, 24, 24))
    assert {path: place for path, place in places().items() if "Phantom_00000" in path} == before
    assert (tmp_path / "Phantom_00000").stat().st_mtime_ns == folder.st_mtime_ns
    assert (tmp_path / "Phantom_00001").is_dir()


def test_another_seed_or_shape_is_written_anew(tmp_path: Path) -> None:
    phantom(tmp_path / "here", 1, 24, seed=1)
    for shape, seed in ((24, 2), (26, 2)):
        phantom(tmp_path / "here", 1, shape, seed)
        phantom(tmp_path / f"{shape}", 1, shape, seed)
        assert bytes_of(tmp_path / "here" / "Phantom_00000") == bytes_of(tmp_path / f"{shape}" / "Phantom_00000")


def test_another_process_may_be_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its folder is left where it is, and nothing of ours stays behind."""
    phantom(tmp_path / "other", 1, 24)
    write_bytes, here = Path.write_bytes, tmp_path / "here"

    def meanwhile(path: Path, content: bytes) -> int:
        if not (here / "Phantom_00000").exists():
            shutil.copytree(tmp_path / "other" / "Phantom_00000", here / "Phantom_00000")
        return write_bytes(path, content)

    monkeypatch.setattr(Path, "write_bytes", meanwhile)
    phantom(here, 1, 24)
    assert bytes_of(here / "Phantom_00000") == bytes_of(tmp_path / "other" / "Phantom_00000")
    assert [path.name for path in here.iterdir()] == ["Phantom_00000"]


def test_a_file_in_the_place_of_a_case_is_not_thrown_away(tmp_path: Path) -> None:
    (tmp_path / "Phantom_00000").write_text("somebody's")
    with pytest.raises(RunError):
        phantom(tmp_path, 1, 24)
    assert (tmp_path / "Phantom_00000").read_text() == "somebody's"


def test_one_number_is_a_cube(tmp_path: Path) -> None:
    (case,) = phantom(tmp_path, 1, 25).cases
    assert read(case).x.shape == (4, 25, 25, 25)


@pytest.mark.parametrize("shape", [(24, 24, 24), (24, 40, 31), (70, 26, 33), (48, 56, 40)])
def test_any_grid_reads_back_through_the_gate(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    cohort = phantom(tmp_path, 2, shape, seed=1, spacing=1.5)
    imported = brats_cohort(tmp_path, "2021")
    assert list(imported.cases) == list(cohort.cases)
    assert imported.refused == []
    for case in cohort.cases:
        volume = read(case)
        assert volume.x.shape == (4, *shape)
        assert volume.spacing == (1.5, 1.5, 1.5)
        assert set(volume.stored.values()) == {np.dtype("int16")}
        brain = volume.x[0] != 0
        assert all(bool(((channel != 0) == brain).all()) for channel in volume.x), "one skull strip for all modalities"
        assert volume.truth is not None
        assert bool(brain[volume.truth != 0].all())
        assert volume.truth.unique().tolist() == [0, 1, 2, 4]
        assert bool((volume.x >= 0).all())


def test_tumours_have_the_size_and_the_order_of_gliomas(heads: list[Anatomy]) -> None:
    for head in heads:
        share = (head.labels > 0).sum() / head.brain.sum()
        assert 0.015 < share < 0.06
        rim, core = head.labels == 4, head.labels == 1
        assert rim.sum() >= 100
        shell = ndimage.binary_dilation(core) & ~core
        assert (head.labels[shell] == 4).mean() > 0.7, "the necrotic core lies inside the enhancing rim"
        around = ndimage.binary_dilation(rim | core, iterations=2) & ~(rim | core) & head.brain
        assert (head.labels[around] == 2).mean() > 0.25, "oedema lies around the core"


def test_brains_are_whole_folded_and_hollow(heads: list[Anatomy]) -> None:
    for head in heads:
        assert ndimage.label(head.brain)[1] == 1
        assert 0.2 < head.brain.mean() < 0.5
        assert np.allclose(sum(head.tissues.values())[head.brain], 1, atol=0.02)
        depth = ndimage.distance_transform_edt(head.brain)
        healthy = ndimage.binary_dilation(head.labels > 0, iterations=2) == 0
        white = (head.tissues["white"] > 0.5) & healthy
        assert depth[white].mean() > depth[(head.tissues["grey"] > 0.5) & healthy].mean() + 1
        # Folds: far more surface between grey and white than a ball of as much white matter has.
        faces = sum(np.diff(white.astype(int), axis=axis).astype(bool).sum() for axis in range(3))
        ball = 1.5 * np.pi ** (1 / 3) * (6 * white.sum()) ** (2 / 3)
        assert faces > 3.5 * ball
        assert (head.tissues["csf"][depth > 8] > 0.9).sum() > 20, "ventricles"


def test_contrast_is_that_of_mr(heads: list[Anatomy]) -> None:
    for number, head in enumerate(heads):
        seen: dict[tuple[str, str], float] = {}
        for modality in MODALITIES:
            voxels = render(head, modality, np.random.default_rng([1, number]))
            for tissue, share in head.tissues.items():
                seen[modality, tissue] = float(np.median(voxels[head.brain & (share > 0.75)]))
        order = {
            "t1": ["csf", "grey", "white"],
            "t2": ["white", "grey", "oedema", "csf"],
            "flair": ["csf", "white", "grey", "oedema"],
            "t1ce": ["csf", "necrosis", "oedema", "white", "enhancing"],
        }
        for modality, tissues in order.items():
            levels = [seen[modality, tissue] for tissue in tissues]
            assert levels == sorted(levels), (modality, tissues, levels)
        assert seen["t1", "enhancing"] < seen["t1", "white"], "bright only after contrast agent"


def test_noise_is_rician(heads: list[Anatomy], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without signal a Rician magnitude is Rayleigh's: mean over deviation is sqrt(pi / (4 - pi)) = 1.913."""
    monkeypatch.setitem(CONTRAST, "t1", dict.fromkeys(CONTRAST["t1"], 0.0))
    monkeypatch.setattr("medadv.data.phantom.BRIGHTNESS", (20_000, 20_001))
    inside = render(heads[0], "t1", np.random.default_rng(0))[heads[0].brain].astype(float)
    assert inside.mean() / inside.std() == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), rel=0.01)


def test_no_brain_voxel_is_ever_zero(heads: list[Anatomy], monkeypatch: pytest.MonkeyPatch) -> None:
    """Zero means outside: a brain so dim that its noise rounds to nothing still shows where it is."""
    monkeypatch.setattr("medadv.data.phantom.BRIGHTNESS", (0.1, 0.2))
    voxels = render(heads[0], "t1", np.random.default_rng(0))
    assert np.array_equal(voxels != 0, heads[0].brain)


@pytest.mark.parametrize(
    "wrong",
    [
        {"cases": 0},
        {"shape": (48, 48)},
        {"shape": (23, 48, 48)},
        {"shape": 23},
        {"shape": 48.0},
        {"shape": (48.0, 48.0, 48.0)},
        {"seed": -1},
        {"spacing": 0.0},
        {"spacing": np.nan},
    ],
)
def test_a_phantom_that_cannot_be_meant_is_advice(tmp_path: Path, wrong: dict[str, object]) -> None:
    with unchecked(), pytest.raises(ConfigError, match="cannot be made"):
        phantom(tmp_path, **wrong)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_none_is_advice(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="may be written"):
        phantom(tmp_path / "file", 1, (24, 24, 24))


def test_a_case_that_cannot_be_finished_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RunError):
        phantom(tmp_path, 1, (24, 24, 24))
    assert list(tmp_path.iterdir()) == []
