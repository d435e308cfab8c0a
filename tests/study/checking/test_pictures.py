"""What is said of a data set of pictures before it is attacked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from data.picture_files import annotation, coco_folder, voc_folder
from data.test_cityscapes import root as root  # a fixture
from typer.testing import CliRunner

from medadv.cli import app
from medadv.errors import ConfigError
from medadv.study.checking import check
from medadv.study.checking.page import write_json, write_page
from medadv.study.checking.remarks import remarks, whole_head
from medadv.study.drafting import init


def test_a_voc_folder_is_known_by_its_name_and_told(tmp_path: Path) -> None:
    voc_folder(tmp_path)
    outcome = CliRunner().invoke(app, ["check", str(tmp_path)])
    assert outcome.exit_code == 0, outcome.output
    for words in ("importer voc: it holds VOCdevkit", "2007_000001", "20×30", "dog (1)", "2 can be used"):
        assert words in outcome.output
    assert "ml" not in outcome.output.split("Cases")[1]


def test_classes_that_are_nowhere_are_remarked_once(tmp_path: Path) -> None:
    voc_folder(tmp_path)
    survey = check(tmp_path)
    (said,) = remarks(survey)
    assert said.message.startswith("no pixel and no object of aeroplane, bicycle")
    assert "dog" not in said.message
    assert not whole_head(survey.facts[0])
    assert survey.facts[0].objects == {"dog": 1}  # the person is difficult


def test_boxes_without_masks_are_data_and_bad_ones_are_left_out(tmp_path: Path) -> None:
    folder = voc_folder(tmp_path)
    annotation(folder / "Annotations" / "2007_000003.xml", [("dog", (0, 1, 5, 5), 0)])
    survey = check(tmp_path, {"task": "detection"})
    assert [facts.case for facts in survey.facts] == ["2007_000001", "2007_000002"]
    assert survey.facts[1].objects == {"cat": 1}
    assert set(survey.facts[1].labels.tissues.values()) == {0}
    assert [refusal.reason for refusal in survey.refused] == ["boxes"]


def test_pages_are_written_of_pictures(tmp_path: Path) -> None:
    voc_folder(tmp_path)
    survey = check(tmp_path, pseudonyms=True)
    write_page(survey, tmp_path / "a.html")
    write_json(survey, tmp_path / "a.json")
    assert "2007_000001" not in (tmp_path / "a.html").read_text() + (tmp_path / "a.json").read_text()
    assert json.loads((tmp_path / "a.json").read_text())["cases"][0]["objects"] == {"dog": 1}


def test_cityscapes_and_coco_are_checked(root: Path, tmp_path: Path) -> None:
    survey = check(root)
    assert [facts.stratum for facts in survey.facts] == ["aachen", "aachen", "bonn"]
    assert len(survey.facts[0].labels.tissues) == 19
    box = {"image_id": 1, "category_id": 3, "bbox": [3, 2, 9, 7], "segmentation": [[3, 2, 12, 2, 12, 9, 3, 9]]}
    path = coco_folder(tmp_path / "coco", [box])
    survey = check(path, {"importer": "coco", "root": str(path.parent / "images"), "outlines": True})
    assert survey.facts[0].labels.tissues == {"person": 0, "car": 63}


def test_a_studys_pictures_are_checked_where_nobody_sees_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = {"study": "s", "data": {"importer": "pictures", "cases": 2, "size": [32, 32]}, "victims": {"net": {}}}
    content |= {"attacks": {"fgsm": {"preset": "fgsm"}}, "primary": {"region": "disc"}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.chdir(tmp_path)
    assert len(check("study.yaml").facts) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]


def test_studies_of_pictures_are_not_drafted(tmp_path: Path) -> None:
    voc_folder(tmp_path)
    with pytest.raises(ConfigError, match="not drafted"):
        init(tmp_path, None, tmp_path / "a.yaml")
