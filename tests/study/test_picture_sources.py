"""Pictures as a study says them: each importer's words, what stays private, and where files may move."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from data.picture_files import HEIGHT, WIDTH, coco_folder, grain, palette, saved, voc_folder
from study.small_study import contents, small

from medadv.data.case import Cohort
from medadv.data.files import read
from medadv.data.pixels import CHANNELS
from medadv.errors import ConfigError, Reason, RunError
from medadv.study.cohort import gather
from medadv.study.folder import RunFolder
from medadv.study.inputs import stamp_of
from medadv.study.load import as_data
from medadv.study.maps import examine_maps
from medadv.study.names import Names
from medadv.study.progress import Silent
from medadv.study.sources import imported
from medadv.study.spec import Study


def study(data: dict[str, Any], **changes: Any) -> Study:
    return small(Path("unused"), data=data, **changes)


def cohort(data: dict[str, Any]) -> Cohort:
    return imported(study(data).data, Path("unused"), 0, alone=True)


def as_voc(root: Path) -> dict[str, Any]:
    voc_folder(root)
    return {"importer": "voc", "root": str(root), "year": 2012}


def as_cityscapes(root: Path) -> dict[str, Any]:
    for seed in range(2):
        stem = f"bonn_{seed:06}_000019"
        saved(root / "leftImg8bit" / "val" / "bonn" / f"{stem}_leftImg8bit.png", grain(seed))
        saved(root / "gtFine" / "val" / "bonn" / f"{stem}_gtFine_labelIds.png", np.full((HEIGHT, WIDTH), 7, np.uint8))
    return {"importer": "cityscapes", "root": str(root)}


def as_coco(root: Path) -> dict[str, Any]:
    box = {"image_id": 1, "category_id": 3, "bbox": [3, 2, 9, 7], "segmentation": [[3, 2, 12, 2, 12, 9, 3, 9]]}
    path = coco_folder(root, [box])
    return {"importer": "coco", "root": str(root / "images"), "annotations": str(path), "outlines": True}


def as_pictures(root: Path) -> dict[str, Any]:
    return {"importer": "pictures", "root": str(root), "cases": 2, "size": [32, 40]}


SOURCES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "voc": as_voc,
    "cityscapes": as_cityscapes,
    "coco": as_coco,
    "pictures": as_pictures,
}


@pytest.mark.parametrize("kind", SOURCES)
def test_each_importer_is_said_in_its_own_words(tmp_path: Path, kind: str) -> None:
    data = SOURCES[kind](tmp_path)
    found = cohort(data)
    spec = study(data).data
    assert len(found.cases) == 2
    assert found.refused == []
    assert found.modalities == CHANNELS
    assert spec.axes == 2
    assert spec.tissues in (None, found.scheme.tissues)
    for case in found.cases:
        volume = read(case)
        assert volume.truth is not None
        assert volume.x.shape[1:] == volume.truth.shape
    padded = read(cohort({**data, "pad": [50, 60], "pad_value": [1, 2, 3]}).cases[0])
    assert padded.x.shape == (3, 50, 60)
    assert padded.x[:, -1, -1].tolist() == [1, 2, 3]


def test_scans_have_three_axes_and_say_their_tissues(tmp_path: Path) -> None:
    brats = study({"importer": "brats", "root": "x", "release": "2023"}).data
    assert (brats.axes, brats.tissues) == (3, ("background", "necrosis", "oedema", "enhancing"))
    listed = {"importer": "datalist", "datalist": "x", "modalities": ["t1"], "labels": {"background": 0, "lesion": 1}}
    assert study(listed).data.tissues == ("background", "lesion")
    assert study({"importer": "msd", "root": "x"}).data.tissues is None


@pytest.mark.parametrize("kind", SOURCES)
def test_a_resolved_source_is_the_same_source(tmp_path: Path, kind: str) -> None:
    spelt = study({**SOURCES[kind](tmp_path), "accept": ["grey"], "pad": [64, 64]}).data
    assert as_data(yaml.safe_load(yaml.safe_dump(spelt.model_dump(mode="json", by_alias=True)))) == spelt


UNMEANT: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown shape": ({"importer": "pictures", "shapes": ["egg"]}, "such pictures cannot be made"),
    "small pictures": ({"importer": "pictures", "size": [8, 64]}, "32 or more"),
    "background as a class": ({"importer": "voc", "root": "x", "classes": ["background", "a"]}, "each class once"),
    "a class twice": ({"importer": "voc", "root": "x", "classes": ["a", "a"]}, "each class once"),
    "another task": ({"importer": "voc", "root": "x", "task": "parts"}, "task"),
    "two kinds of masks": (
        {"importer": "coco", "root": "x", "annotations": "y", "outlines": True, "masks": "z"},
        "one of the two",
    ),
    "an unknown colour": ({"importer": "voc", "root": "x", "accept": ["cmyk"]}, "accept"),
    "a grid": ({"importer": "voc", "root": "x", "grid": "red"}, "unknown key"),
    "a pad without area": ({"importer": "voc", "root": "x", "pad": [0, 5]}, "pad"),
}


@pytest.mark.parametrize(("data", "words"), UNMEANT.values(), ids=UNMEANT)
def test_data_that_cannot_be_meant_is_told(data: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        as_data(data)


def test_parts_of_a_study_make_no_pictures(tmp_path: Path) -> None:
    data = study({"importer": "pictures", "cases": 2, "size": [32, 32]}).data
    with pytest.raises(RunError, match="not made yet"):
        imported(data, tmp_path, 0, alone=False)
    made = imported(data, tmp_path, 3, alone=True)
    assert [case.case for case in imported(data, tmp_path, 3, alone=False).cases] == [case.case for case in made.cases]
    more = study({"importer": "pictures", "cases": 3, "size": [32, 32]}).data
    with pytest.raises(RunError, match="not made yet"):
        imported(more, tmp_path, 3, alone=False)


def test_nothing_of_a_folder_of_people_is_told(tmp_path: Path) -> None:
    own = tmp_path / "own"
    for number, person in enumerate(("CANARY-MARY", "CANARY-JOHN", "CANARY-ANNE")):
        saved(own / "JPEGImages" / f"{person}.jpg", grain(number))
        palette(own / "SegmentationClass" / f"{person}.png", np.ones((HEIGHT, WIDTH)))
    (own / "JPEGImages" / "CANARY-ANNE.jpg").write_bytes(b"torn")
    (own / "CANARY.txt").write_text("CANARY-MARY\nCANARY-JOHN\nCANARY-ANNE\nCANARY-PAUL\n")
    data = {"importer": "voc", "root": str(own), "listing": str(own / "CANARY.txt")}
    names = Names(b"k" * 32)
    spelt = study(data, ids="pseudonyms")
    folder = RunFolder.open(spelt, tmp_path / "runs", names)
    parts = gather(spelt, folder.path, names, Silent())
    for refusal in parts.refused:
        folder.quarantine(refusal)
    found = contents(folder.path)
    found.pop("ids.local.json")
    told = "\n".join(f"{path}\n{content.decode()}" for path, content in found.items())
    assert {refusal.reason for refusal in parts.refused} == {Reason.UNREADABLE, Reason.MISSING_MODALITY}
    assert len(parts.test) == 2
    assert "unreadable" in told
    assert "CANARY" not in told
    assert str(own) not in told


def test_where_files_lie_may_change_and_what_they_mean_may_not(tmp_path: Path) -> None:
    data = as_coco(tmp_path)
    folder = RunFolder.open(study(data), tmp_path / "runs", Names(None))
    (folder.path / "records").mkdir()
    RunFolder.open(study({**data, "root": "y", "annotations": "z"}), tmp_path / "runs", Names(None))
    with pytest.raises(RunError, match=r"data\.pad"):
        RunFolder.open(study({**data, "pad": [64, 64]}), tmp_path / "runs", Names(None))


def test_what_is_remembered_of_a_case_is_forgotten_when_its_truth_or_its_settings_change(tmp_path: Path) -> None:
    data = as_coco(tmp_path)
    first = cohort(data).cases[0]
    content = json.loads((tmp_path / "instances.json").read_text())
    content["annotations"][0]["bbox"][0] = 4
    (tmp_path / "instances.json").write_text(json.dumps(content))
    stamps = [stamp_of(case) for case in (first, cohort(data).cases[0])]
    stamps += [stamp_of(cohort({**data, **more}).cases[0]) for more in ({"outlines": False}, {"pad": [64, 64]})]
    assert len(set(stamps)) == 4
    assert stamps[1] == stamp_of(cohort(data).cases[0])


def test_a_given_map_of_a_picture_is_a_png(tmp_path: Path) -> None:
    case = cohort(as_voc(tmp_path)).cases[0]
    palette(tmp_path / "maps" / f"{case.case}.png", np.full((HEIGHT, WIDTH), 3))
    maps, refused = examine_maps({case.case: case}, [str(tmp_path / "maps")], tmp_path / "memory.json", Silent())
    assert refused == []
    assert maps[case.case][str(tmp_path / "maps")].path.name == f"{case.case}.png"
