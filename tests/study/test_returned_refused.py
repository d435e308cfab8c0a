"""What came back and cannot be scored, names and keys that are none: refused whole, with advice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from study.outside import scored, voxels
from study.small_study import contents, go, small

from medadv.errors import ConfigError, RunError
from medadv.study.records import present_records


def ruined(path: Path, how: str) -> None:
    array, image = voxels(path)
    if how == "grid":
        image = nib.Nifti1Image(array, image.affine @ np.diag([-1, 1, 1, 1]))
    elif how == "shape":
        image = nib.Nifti1Image(array[:-1], image.affine)
    elif how == "outside":
        image = nib.Nifti1Image(np.where(array == 4, 7, array), image.affine)
    elif how == "fractions":
        image = nib.Nifti1Image(array.astype(np.float32) / 2, image.affine)
    elif how == "channels":
        image = nib.Nifti1Image(np.stack([array, array], -1), image.affine)
    nib.save(image, path)
    if how == "damaged":
        path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("how", "reason", "advice"),
    [
        ("grid", "label_grid", "on the grid of the images as they were sent"),
        ("shape", "label_grid", "on the grid of the images as they were sent"),
        ("channels", "label_grid", "on the grid of the images as they were sent"),
        ("outside", "label_outside_scheme", "say what the model's numbers mean"),
        ("fractions", "label_not_integer", "not for probabilities"),
        ("damaged", "unreadable", "ask for these files again"),
    ],
)
def test_a_segmentation_that_is_none_ends_the_scoring(
    there: Path, three: Path, how: str, reason: str, advice: str
) -> None:
    before = contents(there / "small")
    files = sorted((there / "back").iterdir(), key=lambda path: voxels(path)[0].max() == 4)[-2:]
    for path in files:
        ruined(path, how)
    with pytest.raises(ConfigError, match="2 of 36 segmentations") as caught:
        scored(there, three)
    for words in (*(f"{path.name}: [{reason}]" for path in files), advice):
        assert words in str(caught.value)
    assert contents(there / "small") == before


def test_files_of_no_id_and_two_of_one_are_refused(there: Path, three: Path) -> None:
    one = there / "back" / "m0001.nii.gz"
    shutil.copy(one, there / "back" / "m9999.nii.gz")
    with pytest.raises(ConfigError, match=r"1 files are of no id[^$]*m9999"):
        scored(there, three)
    (there / "back" / "m9999.nii.gz").unlink()
    nib.save(nib.load(one), there / "back" / "m0001.nii")
    with pytest.raises(ConfigError, match=r"2 files are of one id[^$]*m0001.nii"):
        scored(there, three)


def test_the_images_themselves_are_no_answers(answered: Path, there: Path, three: Path) -> None:
    shutil.rmtree(there / "back")
    shutil.copytree(answered / "out" / "imagesTs", there / "back")
    with pytest.raises(ConfigError, match="a channel's number left in the name"):
        scored(there, three)


def test_what_a_predictor_leaves_beside_its_answers_is_passed_over(there: Path, three: Path, no_report: None) -> None:
    for name in ("dataset.json", "plans.json", "._m0001.nii.gz"):
        (there / "back" / name).write_text("{}")
    assert scored(there, three).scored == 36


def test_nothing_that_came_back_is_no_answer(there: Path, three: Path) -> None:
    for path in (there / "back").iterdir():
        path.unlink()
    with pytest.raises(ConfigError, match="there is no segmentation"):
        scored(there, three)
    (there / "back").rmdir()
    with pytest.raises(ConfigError, match="there is no folder"):
        scored(there, three)


# Names, keys, and the run that changed


@pytest.mark.parametrize("name", ["glow", "clean", "a/b", "../up", ""])
def test_a_name_that_is_taken_or_none_is_refused(there: Path, three: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="victim"):
        scored(there, three, name)


def test_the_study_cannot_take_the_name_of_a_victim_outside(there: Path, three: Path, no_report: None) -> None:
    scored(there, three, "unet")
    before = contents(there / "small" / "records")
    with pytest.raises(RunError, match="segmentations from outside"):
        go(small(three, victims={"glow": {"inference": {"name": "whole"}}, "unet": {}}), there)
    assert contents(there / "small" / "records") == before


def test_a_key_that_is_none_is_refused(there: Path, three: Path) -> None:
    key = there / "small" / "exports" / "out.json"
    content = json.loads(key.read_text())
    for changed in (content | {"study": "other"}, content | {"schema_version": 9}, {"ids": {}}):
        key.write_text(json.dumps(changed))
        with pytest.raises(ConfigError, match=r"key|another study|another version"):
            scored(there, three)
    key.unlink()
    with pytest.raises(ConfigError, match="no key of an export"):
        scored(there, three)


def test_a_damaged_list_of_answers_is_told(there: Path, three: Path, no_report: None) -> None:
    folder = scored(there, three).folder
    (folder / "returned" / "hospital.json").write_text('["a\\tb"]')
    with pytest.raises(RunError, match=r"hospital\.json cannot be read"):
        present_records(folder)
    (folder / "returned" / "hospital.json").unlink()
    with pytest.raises(ConfigError, match="a victim of the study itself"):
        scored(there, three)
