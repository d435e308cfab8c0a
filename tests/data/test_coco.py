"""COCO's boxes, crowds and outlines, as torchvision and pycocotools read them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data.picture_files import HEIGHT, WIDTH, coco_folder, palette, saved
from pycocotools import mask as masks
from torchvision.datasets import CocoDetection

from medadv.data.coco import coco_cohort
from medadv.data.files import read
from medadv.errors import CaseError, ConfigError, Reason

PERSON, CAR = 1, 3


def square(top: int, left: int, bottom: int, right: int) -> list[list[float]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


def runs(top: int, left: int, bottom: int, right: int, packed: bool = False) -> dict[str, Any]:
    inside = np.zeros((HEIGHT, WIDTH), np.uint8)
    inside[top:bottom, left:right] = 1
    if packed:
        told = masks.encode(np.asfortranarray(inside))
        return {"size": told["size"], "counts": told["counts"].decode()}
    flat = inside.ravel(order="F")
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [0]])))
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return {"size": [HEIGHT, WIDTH], "counts": counts}


def one(category: int, *corners: int, **more: Any) -> dict[str, Any]:
    top, left, bottom, right = corners
    box = [left, top, right - left, bottom - top]
    return {"image_id": 1, "category_id": category, "bbox": box, "segmentation": square(*corners), **more}


def labels(tmp_path: Path, *annotations: dict[str, Any]) -> np.ndarray:
    path = coco_folder(tmp_path, annotations)
    truth = read(coco_cohort(tmp_path / "images", path, outlines=True).cases[0]).truth
    assert truth is not None
    return truth.numpy()


def test_pictures_and_boxes_are_read_as_torchvision_reads_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [one(CAR, 2, 3, 9, 14), {**one(PERSON, 0, 0, 1, 1), "bbox": [1.25, 2.5, 10.75, 7.03], "iscrowd": 1}]
    path = coco_folder(tmp_path, rows)
    cohort = coco_cohort(tmp_path / "images", path)
    assert [case.case for case in cohort.cases] == ["a", "b"]
    assert cohort.scheme.numbers == {"background": 0, "person": 1, "car": 3}
    for case, (image, told) in zip(cohort.cases, CocoDetection(tmp_path / "images", path), strict=True):
        assert np.array_equal(read(case).x.numpy(), np.moveaxis(np.asarray(image), -1, 0))
        assert case.objects is not None
        assert case.objects.labels.tolist() == [row["category_id"] for row in told]
        assert case.objects.counted.tolist() == [not row["iscrowd"] for row in told]
        for (top, left, bottom, right), row in zip(case.objects.boxes.tolist(), told, strict=True):
            assert [left, top, right - left, bottom - top] == pytest.approx(row["bbox"], abs=1e-5)
    assert len(cohort.cases[1].objects or ()) == 0  # without annotations: nothing is shown
    assert not cohort.cases[0].labelled
    assert read(cohort.cases[0]).truth is None
    assert coco_cohort(tmp_path / "images", path, outlines=True).cases[0].labelled


@pytest.mark.parametrize("kind", ["polygons", "runs", "packed"])
def test_outlines_are_drawn_as_pycocotools_draws_them(tmp_path: Path, kind: str) -> None:
    outline = square(3, 4, 9, 15) if kind == "polygons" else runs(3, 4, 9, 15, packed=kind == "packed")
    found = labels(tmp_path, one(CAR, 3, 4, 9, 15, segmentation=outline))
    expected = np.zeros((HEIGHT, WIDTH), int)
    expected[3:9, 4:15] = CAR
    assert np.array_equal(found, expected)


def test_a_slanted_polygon_of_two_parts_is_drawn_as_pycocotools_draws_it(tmp_path: Path) -> None:
    outline = [[1.5, 2.2, 12.7, 3.1, 6.4, 15.8], [20.0, 5.0, 28.5, 5.0, 28.5, 17.25]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        expected = masks.decode(masks.merge(masks.frPyObjects(outline, HEIGHT, WIDTH))) * PERSON
    assert 0 < (expected > 0).sum() < expected.size
    assert np.array_equal(labels(tmp_path, one(PERSON, 0, 0, 5, 5, segmentation=outline)), expected)


def test_where_classes_overlap_nobody_knows_and_crowds_are_not_judged(tmp_path: Path) -> None:
    found = labels(
        tmp_path,
        one(PERSON, 0, 0, 20, 20, iscrowd=1, segmentation=runs(0, 0, 20, 20)),
        one(PERSON, 2, 2, 8, 8),
        one(CAR, 6, 6, 12, 12),
        one(PERSON, 4, 2, 5, 10),  # the same class again
    )
    expected = np.zeros((HEIGHT, WIDTH), int)
    expected[:20, :20] = 255
    expected[2:8, 2:8] = PERSON
    expected[4:5, 2:10] = PERSON
    expected[6:12, 6:12] = CAR
    expected[6:8, 6:8] = 255
    assert np.array_equal(found, expected)


def test_the_order_of_outlines_changes_nothing(tmp_path: Path) -> None:
    rows = [one(PERSON, 2, 2, 9, 9), one(CAR, 4, 4, 12, 12), one(PERSON, 7, 3, 15, 8), one(CAR, 3, 7, 8, 15)]
    found = [labels(tmp_path / str(n), *order) for n, order in enumerate((rows, rows[::-1], rows[2:] + rows[:2]))]
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


def test_label_maps_may_lie_in_a_folder(tmp_path: Path) -> None:
    path = coco_folder(tmp_path, [])
    numbers = np.random.default_rng(0).choice([0, 1, 3, 255], (HEIGHT, WIDTH))
    palette(tmp_path / "masks" / "a.png", numbers)
    first, second = coco_cohort(tmp_path / "images", path, masks=tmp_path / "masks").cases
    truth = read(first).truth
    assert truth is not None
    assert np.array_equal(truth.numpy(), numbers)
    assert second.label is None
    with pytest.raises(ConfigError, match="one of the two"):
        coco_cohort(tmp_path / "images", path, masks=tmp_path, outlines=True)


def test_gaps_between_ids_get_classes_for_networks_that_have_them(tmp_path: Path) -> None:
    scheme = coco_cohort(tmp_path / "images", coco_folder(tmp_path, []), gaps=True).scheme
    assert scheme.tissues == ("background", "person", "none 2", "car")


def test_a_list_says_which_pictures(tmp_path: Path) -> None:
    path = coco_folder(tmp_path, [])
    (tmp_path / "mine.txt").write_text("b\nc\n")
    cohort = coco_cohort(tmp_path / "images", path, listing=tmp_path / "mine.txt")
    assert [case.case for case in cohort.cases] == ["b"]
    assert [(refusal.case, refusal.reason) for refusal in cohort.refused] == [("c", Reason.MISSING_MODALITY)]


# Bad input


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bbox": [0, 0, 0, 5]}, Reason.BOXES),
        ({"bbox": [-2, 0, 5, 5]}, Reason.BOXES),
        ({"bbox": [0, 0, WIDTH, HEIGHT + 2]}, Reason.BOXES),
        ({"bbox": [0, 0, float("nan"), 5]}, Reason.BOXES),
        ({"bbox": [0, 0, 5]}, Reason.DECLARATION),
        ({"bbox": None}, Reason.DECLARATION),
        ({"category_id": 2}, Reason.DECLARATION),
        ({"category_id": 0}, Reason.DECLARATION),
        ({"segmentation": []}, Reason.DECLARATION),
        ({"segmentation": None}, Reason.DECLARATION),
        ({"segmentation": [[1, 2, 3, 4]]}, Reason.DECLARATION),
        ({"segmentation": [[1, 2, 3, 4, float("inf"), 6]]}, Reason.DECLARATION),
        ({"segmentation": [["a"] * 6]}, Reason.DECLARATION),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [5, 5]}}, Reason.DECLARATION),
        ({"segmentation": {"size": [5, 5], "counts": [25]}}, Reason.DECLARATION),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "oooo"}}, Reason.DECLARATION),
    ],
)
def test_a_bad_annotation_costs_its_picture_alone(tmp_path: Path, change: dict[str, Any], reason: Reason) -> None:
    path = coco_folder(tmp_path, [one(CAR, 2, 3, 9, 14), {**one(CAR, 1, 1, 4, 4), **change}])
    cohort = coco_cohort(tmp_path / "images", path, outlines=True)
    found = [(refusal.case, refusal.reason) for refusal in cohort.refused]
    for case in cohort.cases:
        try:
            read(case)
        except CaseError as error:
            found.append((case.case, error.reason))
    assert found == [("a", reason)]


def test_a_bad_entry_costs_itself(tmp_path: Path) -> None:
    path = coco_folder(tmp_path, [one(CAR, 2, 3, 9, 14), {"image_id": [1]}])
    content = json.loads(path.read_text())
    first, second = content["images"]
    bad = [{**second, "file_name": "../instances.json"}, {**second, "id": 1}, {**second, "id": 7, "height": None}]
    bad += [{**second, "id": 8, "file_name": "gone.jpg"}, 5, {**second, "id": [2]}]
    path.write_text(json.dumps({**content, "images": [first, *bad]}))
    cohort = coco_cohort(tmp_path / "images", path)
    assert [case.case for case in cohort.cases] == ["a"]
    assert len(cohort.refused) == len(bad)
    saved(tmp_path / "images" / "a.jpg", np.zeros((HEIGHT, 2 * WIDTH, 3), np.uint8) + np.arange(3, dtype=np.uint8))
    with pytest.raises(CaseError):
        read(cohort.cases[0])


def test_files_called_alike_in_two_folders_are_two_cases(tmp_path: Path) -> None:
    path = coco_folder(tmp_path, [], ("x/a.jpg", "y/a.jpg"))
    assert [case.case for case in coco_cohort(tmp_path / "images", path).cases] == ["x-a", "y-a"]


@pytest.mark.parametrize(
    ("categories", "said"),
    [
        ([], "numbered from 1"),
        ([{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}], "numbered from 1"),
        ([{"id": 2, "name": "background"}], "numbered from 1"),
        ([{"id": 1, "name": "cat"}, {"id": 1, "name": "dog"}], "a category cannot be meant"),
        ([{"id": "1", "name": "cat"}], "a category cannot be meant"),
        ([{"name": "cat"}], "a category cannot be meant"),
    ],
)
def test_categories_that_cannot_be_meant_are_refused(tmp_path: Path, categories: list[Any], said: str) -> None:
    path = coco_folder(tmp_path, [])
    path.write_text(json.dumps({**json.loads(path.read_text()), "categories": categories}))
    with pytest.raises(ConfigError, match=said):
        coco_cohort(tmp_path / "images", path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"images": []}', '{"images": 1, "annotations": 2, "categories": 3}'])
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ConfigError):
        coco_cohort(tmp_path, tmp_path / "a.json")


def test_a_void_number_is_none_of_the_categories(tmp_path: Path) -> None:
    path = coco_folder(tmp_path, [])
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "categories": [{"id": n, "name": str(n)} for n in range(1, 300)]}))
    scheme = coco_cohort(tmp_path / "images", path, outlines=True).scheme
    assert scheme.void == 300
    assert torch.equal(scheme.judged(torch.tensor([255, 300])), torch.tensor([True, False]))
