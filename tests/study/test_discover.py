"""What a path is taken for, by names alone; and what is asked where names do not tell."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from study.checking.sets import IDS, LISTED, PATTERN, datalist, decathlon, late, nnunet

from medadv.errors import ConfigError
from medadv.study.discover import discover
from medadv.study.sources import imported


@pytest.fixture
def own(three: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(three, tmp_path / "own"))


def taken(path: Path, **given: Any) -> tuple[str, str | None, list[str]]:
    """Importer, release, and the cases' ids."""
    found = discover(path, given)
    cohort = imported(found.data, Path("unused"), 0, alone=True)
    assert cohort.refused == []
    return found.data.importer, getattr(found.data, "release", None), [case.case for case in cohort.cases]


def test_each_layout_is_known_by_its_names(own: Path, tmp_path: Path) -> None:
    assert taken(own) == ("brats", "2021", IDS)
    assert taken(own / IDS[1]) == ("brats", "2021", IDS[1:2])
    assert taken(datalist(own), **LISTED) == ("datalist", None, IDS)
    assert taken(own, **PATTERN) == ("pattern", None, IDS)
    shutil.copytree(own, tmp_path / "copy")
    raw = nnunet(tmp_path / "copy", tmp_path / "raw")
    assert taken(raw) == taken(raw / "dataset.json") == ("nnunet", None, IDS)
    assert taken(decathlon(own, tmp_path / "Task99_Lesion")) == ("msd", None, IDS)


def test_a_study_says_itself_what_its_data_are(own: Path, tmp_path: Path) -> None:
    content = {
        "study": "s",
        "data": {"importer": "brats", "root": str(own), "release": "2020"},
        "victims": {"net": {}},
        "attacks": {"fgsm": {"preset": "fgsm"}},
        "primary": {"region": "WT"},
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content))
    assert taken(tmp_path / "study.yaml") == ("brats", "2020", IDS)
    assert taken(tmp_path / "study.yaml", release="2021") == ("brats", "2021", IDS)


@pytest.mark.parametrize(
    ("prefix", "release"),
    [("Brats18_CBICA_AAB_1", "2018"), ("BraTS19_a", "2019"), ("BraTS20_Training_001", "2020"), ("BraTS2021_1", "2021")],
)
def test_early_ids_tell_the_year(tmp_path: Path, prefix: str, release: str) -> None:
    folder = tmp_path / "MICCAI" / "HGG" / prefix
    folder.mkdir(parents=True)
    (folder / f"{prefix}_t1.nii").touch()
    found = discover(tmp_path, {})
    assert getattr(found.data, "release", None) == release
    assert f"release {release}: ids such as {prefix}" in found.assumed


def test_years_that_number_labels_differently_are_asked_for(own: Path) -> None:
    names = ["BraTS-GLI-00001-000", "BraTS-GLI-00001-001", "BraTS-GLI-00002-000"]
    late(own, names)
    with pytest.raises(ConfigError, match=r"(?s)what label 4 means.*--release 2023.*--release 2024.*cavity"):
        discover(own, {})
    assert taken(own, release="2023") == ("brats", "2023", names)
    told = own.rename(own.parent / "ASNR-MICCAI-BraTS2023-GLI-Challenge-TrainingData")
    assert taken(told) == ("brats", "2023", names)
    shutil.copytree(told, told / "BraTS2024-GLI", ignore=shutil.ignore_patterns("*.nii.gz"))
    (told / "BraTS2024-GLI" / names[0] / f"{names[0]}-t1n.nii.gz").touch()
    for name in names:
        shutil.rmtree(told / name)
    with pytest.raises(ConfigError, match=r"folders speak of \['2023', '2024'\]"):
        discover(told, {})


def test_another_challenge_with_the_numbers_of_gliomas_is_told(own: Path) -> None:
    late(own, ["BraTS-PED-00001-000", "BraTS-PED-00002-000"])
    found = discover(own, {"release": "2023"})
    (*_, line) = found.declared(imported(found.data, Path("unused"), 0, alone=True))
    assert "3 enhancing. These are the glioma challenge's, while ids begin with BraTS-PED-" in line
    (own / "BraTS-PED-00001-000").rename(own / "BraTS-GLI-00001-000")
    with pytest.raises(ConfigError, match=r"(?s)several BraTS challenges.*BraTS-GLI-….*BraTS-PED-…"):
        imported(found.data, Path("unused"), 0, alone=True)


def test_what_is_declared_goes_before_names(own: Path) -> None:
    found = discover(own, {"release": "2019"})
    assert getattr(found.data, "release", None) == "2019"
    assert "release 2019: declared" in found.assumed


def test_what_is_no_data_set_is_advised(own: Path, tmp_path: Path) -> None:
    datalist(own)
    cases: dict[str, tuple[Path, dict[str, Any], str]] = {
        "nothing": (tmp_path / "none", {}, "there is nothing at"),
        "an unknown release": (own, {"release": "2017"}, r"data\.brats\.release"),
        "an unknown key": (own, {"channels": "t1"}, r"data\.brats\.channels: unknown key.*root"),
        "an unknown importer": (own, {"importer": "folder"}, "'nnunet', 'datalist', 'pattern'"),
        "a list without meaning": (own / "list.json", {}, r"(?s)data\.datalist\.labels.*data\.datalist\.modalities"),
    }
    for name, words in (("empty", ""), ("odd", '{"labels": {}}'), ("torn", '{"modality"')):
        (tmp_path / name).mkdir()
        if words:
            (tmp_path / name / "dataset.json").write_text(words)
    cases["an empty folder"] = (tmp_path / "empty", {}, r"(?s)not known by its names.*--importer pattern")
    cases["another dataset.json"] = (tmp_path / "odd", {}, "neither a Decathlon's nor nnU-Net's")
    cases["a torn dataset.json"] = (tmp_path / "torn", {}, "cannot be read")
    for path, given, words in cases.values():
        with pytest.raises(ConfigError, match=words):
            discover(path, given)
    (tmp_path / "above").mkdir()
    shutil.move(tmp_path / "odd", tmp_path / "above" / "Task01")
    with pytest.raises(ConfigError, match=r"for instance .*Task01"):
        discover(tmp_path / "above", {})
    shutil.move(own / "list.json", tmp_path / "empty" / "list.json")
    with pytest.raises(ConfigError, match=r"if list\.json is a list of its files"):
        discover(tmp_path / "empty", {})
