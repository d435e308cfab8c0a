"""What leaves the house: every voxel as it was delivered, and nothing that tells which file is which."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from study.outside import voxels
from study.small_study import contents, every_record, go, small

from medadv.data.brats import MODALITIES, brats, brats_cohort
from medadv.data.files import read, written
from medadv.errors import ConfigError, RunError
from medadv.study.export import DESCRIPTION, _blind, export, read_key
from medadv.study.names import Names
from medadv.study.records import file_digest, planned_cells


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory, three: Path, finished: Path) -> tuple[Path, Path, Path]:
    """A finished run, what was exported of it with labels, and the key; not to be changed by a test."""
    runs = tmp_path_factory.mktemp("sending")
    shutil.copytree(finished, runs / "small")
    key = export(small(three), runs / "out", labels=True, runs=runs)
    return runs / "small", runs / "out", key


def test_every_voxel_leaves_as_it_was_delivered(sent: tuple[Path, Path, Path], three: Path) -> None:
    folder, out, key = sent
    told = read_key(key)
    clean = {case.case: case for case in brats_cohort(three).cases}
    cells = {(item.victim, item.condition, item.case): item.key for item in told.ids.values()}
    assert cells == planned_cells(folder)
    for name, item in told.ids.items():
        case = clean[item.case]
        if item.condition != "clean":
            case = written(case, folder / "volumes" / item.victim / item.condition / item.case)  # type: ignore[assignment]
        volume = read(case)
        for place, expected in enumerate(volume.x.numpy()):
            array, image = voxels(out / "imagesTs" / f"{name}_{place:04}.nii.gz")
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, expected)
            np.testing.assert_array_equal(image.affine, volume.affine)
        labels, _ = voxels(out / "labelsTs" / f"{name}.nii.gz")
        np.testing.assert_array_equal(labels, volume.truth)


def test_the_key_knows_every_file_and_lies_with_its_owner(sent: tuple[Path, Path, Path]) -> None:
    folder, out, key = sent
    listed = {file: digest for item in read_key(key).ids.values() for file, digest in item.files.items()}
    found = {p.relative_to(out).as_posix(): file_digest(p) for p in out.rglob("*.nii.gz")}
    assert listed == found
    assert key == folder / "exports" / "out.json"
    assert key.stat().st_mode & 0o077 == 0
    assert {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()} - set(found) == {
        "README.txt",
        "dataset.json",
    }


def test_headers_and_names_tell_no_condition(sent: tuple[Path, Path, Path], three: Path) -> None:
    _, out, _ = sent
    images = sorted((out / "imagesTs").iterdir())
    headers = {voxels(path)[1].header.binaryblock for path in images}
    assert len(headers) == 1
    words = [record.condition for record in every_record(sent[0])] + [path.name for path in three.iterdir()]
    words += ["glow", "fgsm", "small", "noise", "identity", "permuted"]
    for path, content in contents(out).items():
        raw = content if not path.endswith(".gz") else nib.load(out / path).header.binaryblock  # type: ignore[attr-defined]
        assert not [word for word in words if word in path or word.encode() in raw], path


def test_every_file_and_the_folder_say_that_these_are_no_scans(sent: tuple[Path, Path, Path]) -> None:
    _, out, _ = sent
    assert len(DESCRIPTION) < 80
    for path in out.rglob("*.nii.gz"):
        assert bytes(voxels(path)[1].header["descrip"]).rstrip(b"\0").decode() == DESCRIPTION
    assert DESCRIPTION.startswith("ADVERSARIAL")
    assert json.loads((out / "dataset.json").read_text())["description"] == DESCRIPTION
    readme = (out / "README.txt").read_text()
    assert readme.startswith("ADVERSARIAL")
    assert "0 background, 1 necrosis, 2 oedema, 4 enhancing" in readme


def test_ids_follow_the_seed_and_nothing_else(sent: tuple[Path, Path, Path]) -> None:
    folder, _, key = sent
    told = read_key(key)
    records = every_record(folder)
    assert {name: record.key for name, record in _blind(records, told.seed).items()} == {
        name: item.key for name, item in told.ids.items()
    }
    assert list(_blind(records, 1)) == list(_blind(records, 2))
    assert _blind(records, 1) != _blind(records, 2)
    assert _blind(records[::-1], 1) == _blind(records, 1)


def test_a_brats_folder_is_read_by_its_importer(runs: Path, three: Path, tmp_path: Path) -> None:
    key = export(small(three), tmp_path / "out", layout="brats", conditions=["fgsm-0.1*"], runs=runs)
    told = read_key(key)
    assert {item.condition for item in told.ids.values()} == {"clean", "fgsm-0.1-sigma"}
    cohort = brats_cohort(tmp_path / "out", "2021", labelled=False)
    assert [case.case for case in cohort.cases] == list(told.ids)
    assert all(case.label is None for case in cohort.cases)
    assert brats(tmp_path / "out" / "m0001", labelled=False).modalities == MODALITIES


def test_channels_go_in_the_order_of_the_model(runs: Path, three: Path, tmp_path: Path) -> None:
    key = export(small(three), tmp_path / "out", layout="nnunet:flair,t1", conditions=["clean"], runs=runs)
    for name, item in read_key(key).ids.items():
        x = read(brats(three / item.case)).x.numpy()
        for place, channel in enumerate((3, 0)):
            array, _ = voxels(tmp_path / "out" / "imagesTs" / f"{name}_{place:04}.nii.gz")
            np.testing.assert_array_equal(array, x[channel])


def test_files_that_were_not_kept_are_told_and_made_anew(
    runs: Path, three: Path, tmp_path: Path, no_report: None
) -> None:
    folder = runs / "small"
    lost = sorted((folder / "volumes" / "glow" / "fgsm-0.1-sigma").iterdir())[0]
    shutil.rmtree(lost)
    with pytest.raises(RunError, match="1 cells of the run have no files") as caught:
        export(small(three), tmp_path / "out", runs=runs)
    assert f"fgsm-0.1-sigma {lost.name}" in str(caught.value)
    assert "keep: all" in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert not (folder / "exports").exists()
    export(small(three), tmp_path / "others", conditions=["noise-*"], runs=runs)
    go(small(three, volumes={"keep": "all"}), runs)
    export(small(three), tmp_path / "out", runs=runs)


def test_a_run_that_kept_its_worst_files_alone_is_no_sample(
    runs: Path, three: Path, tmp_path: Path, no_report: None
) -> None:
    go(small(three), runs)
    with pytest.raises(RunError, match="a choice by their scores"):
        export(small(three), tmp_path / "out", runs=runs)


def test_an_unfinished_run_is_told(runs: Path, three: Path, tmp_path: Path) -> None:
    next((runs / "small" / "records" / "glow" / "noise-0.1-sigma").glob("*.json")).unlink()
    with pytest.raises(RunError, match="1 cells of the run are not finished"):
        export(small(three), tmp_path / "out", runs=runs)


def test_a_damaged_file_ends_the_export_and_leaves_nothing(runs: Path, three: Path, tmp_path: Path) -> None:
    file = next((runs / "small" / "volumes" / "glow").rglob("ADVERSARIAL*flair.nii.gz"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(RunError, match="damaged"):
        export(small(three), tmp_path / "out", runs=runs)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert not (runs / "small" / "exports").exists()


def test_data_that_changed_since_the_run_are_not_exported(runs: Path, three: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(three, root)
    case = next(iter(brats_cohort(root).cases))
    array, image = voxels(case.images["t1"])
    nib.save(nib.Nifti1Image(array * 2, image.affine), case.images["t1"])
    with pytest.raises(RunError, match=f"{case.case} is no longer what was attacked"):
        export(small(root), tmp_path / "out", runs=runs)


def test_a_key_is_never_overwritten(runs: Path, three: Path, tmp_path: Path) -> None:
    key = export(small(three), tmp_path / "out", conditions=["clean"], runs=runs)
    before = key.read_bytes()
    with pytest.raises(ConfigError, match="already"):
        export(small(three), tmp_path / "out", runs=runs)
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(ConfigError, match="never overwritten"):
        export(small(three), tmp_path / "out", runs=runs)
    assert key.read_bytes() == before


def test_what_cannot_be_meant_is_refused(runs: Path, three: Path, tmp_path: Path) -> None:
    for arguments, words in (
        ({"victim": "unet"}, "one of \\['glow'\\]"),
        ({"conditions": ["bim-*"]}, "no condition of the run"),
        ({"layout": "dicom"}, "no such layout"),
        ({"runs": tmp_path}, "has not been run"),
    ):
        with pytest.raises((ConfigError, RunError), match=words):
            export(small(three), tmp_path / "out", **({"runs": runs} | arguments))  # type: ignore[arg-type]
    with pytest.raises(RunError, match="another study"):
        export(small(three, seed=7), tmp_path / "out", runs=runs)
    assert not (tmp_path / "out").exists()


def test_pseudonyms_stay_what_they_are_in_the_key(three: Path, tmp_path: Path, no_report: None) -> None:
    changes = {"ids": "pseudonyms", "budgets": ["0.1 sigma"], "attacks": {"fgsm": {"preset": "fgsm"}}, "controls": []}
    study = small(three, **changes, volumes={"keep": "all"})
    go(study, tmp_path)
    key = export(study, tmp_path / "out", runs=tmp_path)
    own = {case.case for case in brats_cohort(three).cases}
    names = Names.pseudonyms()
    assert {item.case for item in read_key(key).ids.values()} == {names[case] for case in own}
    for text in (key.read_text(), *(str(content) for content in contents(tmp_path / "out").values())):
        assert not [case for case in own if case in text]
