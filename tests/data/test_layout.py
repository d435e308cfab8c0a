"""How a test set is laid out: names and numbers as the formats have them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from medadv.data.brats import MODALITIES, RELEASES, brats
from medadv.data.layout import layout_of
from medadv.errors import ConfigError
from medadv.labels import BRATS_2018, BRATS_2024, MSD_TASK01


def test_nnunet_numbers_its_channels_in_the_order_that_is_asked_for() -> None:
    layout = layout_of("nnunet:flair, t1,t1ce,t2", MODALITIES, BRATS_2018)
    assert [layout.image("m0007", name) for name in ("flair", "t1", "t1ce", "t2")] == [
        f"imagesTs/m0007_000{place}.nii.gz" for place in range(4)
    ]
    assert layout.label("m0007") == "labelsTs/m0007.nii.gz"
    (text,) = layout.declarations("said").values()
    declared = json.loads(text)
    assert declared["channel_names"] == {"0": "flair", "1": "t1", "2": "t1ce", "3": "t2"}
    assert declared["labels"] == {"background": 0, "necrosis": 1, "oedema": 2, "enhancing": 4}
    assert (declared["file_ending"], declared["description"]) == (".nii.gz", "said")


def test_nnunet_may_be_given_fewer_channels() -> None:
    layout = layout_of("nnunet:flair", MODALITIES, BRATS_2018)
    assert layout.channels == ("flair",)
    assert layout.image("m1", "flair") == "imagesTs/m1_0000.nii.gz"


def test_channels_may_be_spelt_as_anywhere() -> None:
    assert layout_of("nnunet:T1Gd, FLAIR", MODALITIES, BRATS_2018).channels == ("t1ce", "flair")
    with pytest.raises(ConfigError, match="not channels"):
        layout_of("nnunet:T1Gd,t1ce", MODALITIES, BRATS_2018)


@pytest.mark.parametrize("release", sorted(RELEASES))
def test_what_is_laid_out_as_brats_is_found_by_its_importer(tmp_path: Path, release: str) -> None:
    scheme = RELEASES[release].scheme
    layout = layout_of(f"brats:{release}", MODALITIES, scheme)
    for file in (*(layout.image("m0001", name) for name in layout.channels), layout.label("m0001")):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    case = brats(tmp_path / "m0001", release)
    assert {name: path.relative_to(tmp_path).as_posix() for name, path in case.images.items()} == {
        name: layout.image("m0001", name) for name in MODALITIES
    }
    assert case.label == tmp_path / layout.label("m0001")
    assert case.scheme == layout.scheme


def test_brats_without_a_release_is_the_datas_own() -> None:
    assert layout_of("brats", MODALITIES, BRATS_2018, "2019").image("m1", "t1ce") == "m1/m1_t1ce.nii.gz"
    assert layout_of("brats", MODALITIES, RELEASES["2023"].scheme, "2023").image("m1", "t1ce") == "m1/m1-t1c.nii.gz"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("dicom", "no such layout"),
        ("brats:2017", "no such layout"),
        ("nnunet:t1,t1", "not channels"),
        ("nnunet:t1,adc", "not channels"),
        ("brats:2024", "no names for these data"),
    ],
)
def test_a_layout_that_cannot_be_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        layout_of(text, MODALITIES, BRATS_2018)


def test_data_of_other_modalities_or_tissues_are_no_brats() -> None:
    with pytest.raises(ConfigError, match=re.escape("no names for these data")):
        layout_of("brats", ("t1",), BRATS_2018)
    with pytest.raises(ConfigError, match="no names for these data"):
        layout_of("brats:2021", MODALITIES, BRATS_2024)
    assert layout_of("brats:2021", MODALITIES, MSD_TASK01).scheme == BRATS_2018
