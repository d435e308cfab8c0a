"""Pascal VOC folders: the same pixels, numbers and boxes that torchvision reads, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data.picture_files import HEIGHT, WIDTH, annotation, grain, palette, saved, voc_folder
from torchvision.datasets import VOCDetection, VOCSegmentation

from medadv.data.case import Case
from medadv.data.files import read
from medadv.data.voc import voc_cohort
from medadv.errors import CaseError, ConfigError, Reason
from medadv.labels import VOC, LabelScheme


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return voc_folder(tmp_path)


def test_segmentation_is_read_as_torchvision_reads_it(tmp_path: Path, folder: Path) -> None:
    cohort = voc_cohort(tmp_path, "2012", "val")
    reference = VOCSegmentation(str(tmp_path), year="2012", image_set="val")
    assert [case.case for case in cohort.cases] == ["2007_000001", "2007_000003"]
    assert cohort.refused == []
    for case, (image, mask) in zip(cohort.cases, reference, strict=True):
        volume = read(case)
        assert volume.truth is not None
        assert np.array_equal(volume.x.numpy(), np.moveaxis(np.asarray(image), -1, 0))
        assert np.array_equal(volume.truth.numpy(), np.asarray(mask))
    assert int((read(cohort.cases[0]).truth == 255).sum()) == 11


def test_boxes_are_read_as_torchvision_reads_them(tmp_path: Path, folder: Path) -> None:
    cohort = voc_cohort(tmp_path, "2012", "val", task="detection")
    reference = VOCDetection(str(tmp_path), year="2012", image_set="val")
    assert len(cohort.cases) == 3
    for case, (image, told) in zip(cohort.cases, reference, strict=True):
        assert np.array_equal(read(case).x.numpy(), np.moveaxis(np.asarray(image), -1, 0))
        things = told["annotation"].get("object", [])
        assert case.objects is not None
        assert [VOC.tissues[n] for n in case.objects.labels.tolist()] == [thing["name"] for thing in things]
        for box, hard, thing in zip(case.objects.boxes, case.objects.counted, things, strict=True):
            corners = {key: float(value) for key, value in thing["bndbox"].items()}
            expected = [corners["ymin"] - 1, corners["xmin"] - 1, corners["ymax"], corners["xmax"]]
            assert box.tolist() == expected
            assert bool(hard) == (thing["difficult"] == "0")


def test_a_box_covers_the_pixels_that_voc_counts(folder: Path) -> None:
    """(5, 4) to (15, 9), counted from 1, both ends included: rows 3 to 8, columns 4 to 14 from 0."""
    case = voc_cohort(folder).cases[0]
    assert case.objects is not None
    assert case.objects.boxes[0].tolist() == [3, 4, 9, 15]
    truth = read(case).truth
    assert truth is not None
    assert torch.nonzero(truth).min(0).values.tolist() == [3, 4]
    assert (torch.nonzero(truth).max(0).values + 1).tolist() == [9, 15]


def test_what_there_is_not_is_none_and_no_object_is_data(folder: Path) -> None:
    first, second, third = voc_cohort(folder, task="detection").cases
    assert second.label is None
    assert third.objects is not None
    assert len(third.objects) == 0
    (folder / "Annotations" / "2007_000001.xml").unlink()
    again = voc_cohort(folder).cases[0]
    assert again.objects is None
    assert again.label == first.label


@pytest.mark.parametrize("place", [".", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_the_folder_may_be_named_at_three_depths(tmp_path: Path, folder: Path, place: str) -> None:
    for year in ("2012", None):
        assert len(voc_cohort(tmp_path / place, year).cases) == 2


def test_a_year_that_is_not_there_or_not_said_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ConfigError, match="VOC2012"):
        voc_cohort(tmp_path, "2007")
    voc_folder(tmp_path, "2007")
    with pytest.raises(ConfigError, match="does not tell which year"):
        voc_cohort(tmp_path)
    assert len(voc_cohort(tmp_path, "2007").cases) == 2
    with pytest.raises(ConfigError, match="not a VOC folder"):
        voc_cohort(tmp_path / "nowhere")


def test_a_list_of_ones_own_says_which_pictures_in_its_order(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "mine.txt").write_text("2007_000003\n\n2007_000002 \n2007_000009\n2007_000003\n")
    cohort = voc_cohort(folder, listing=tmp_path / "mine.txt")
    assert [case.case for case in cohort.cases] == ["2007_000003", "2007_000002"]
    assert [refusal.reason for refusal in cohort.refused] == [Reason.MISSING_MODALITY, Reason.EXTRA_MODALITY]


@pytest.mark.parametrize(
    ("text", "said"), [("", "is empty"), ("2007_000001 -1\n", "more than an id"), (None, "cannot be read")]
)
def test_a_list_that_is_none_is_refused(tmp_path: Path, folder: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / "mine.txt").write_text(text)
    with pytest.raises(ConfigError, match=said):
        voc_cohort(folder, listing=tmp_path / "mine.txt")


@pytest.mark.parametrize("split", ["train", "../Main/val", "val.txt"])
def test_a_split_that_is_none_is_refused(folder: Path, split: str) -> None:
    with pytest.raises(ConfigError, match=r"(?s)there is no list.*\['val'\]"):
        voc_cohort(folder, split=split)


def test_an_id_cannot_leave_the_folder(tmp_path: Path, folder: Path) -> None:
    saved(tmp_path / "secret.jpg", grain())
    (tmp_path / "mine.txt").write_text("../../../secret\n")
    cohort = voc_cohort(folder, listing=tmp_path / "mine.txt")
    assert cohort.cases == []
    assert cohort.refused[0].reason == Reason.MISSING_MODALITY


def test_two_pictures_of_one_name_are_refused(folder: Path) -> None:
    saved(folder / "JPEGImages" / "2007_000001.png", grain())
    cohort = voc_cohort(folder)
    assert [refusal.reason for refusal in cohort.refused] == [Reason.EXTRA_MODALITY]


def things(*each: tuple[str, tuple[Any, ...]]) -> Callable[[Path], Path]:
    return lambda path: annotation(path, [(name, box, 0) for name, box in each])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (things(("zebra", (1, 1, 5, 5))), Reason.DECLARATION),
        (things(("background", (1, 1, 5, 5))), Reason.DECLARATION),
        (things(("dog", ("one", 1, 5, 5))), Reason.DECLARATION),
        (lambda path: path.write_text("<annotation><object>"), Reason.DECLARATION),
        (lambda path: path.write_text("<a><object><name>dog</name></object></a>"), Reason.DECLARATION),
        (
            lambda path: path.write_text('<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotation/>'),
            Reason.DECLARATION,
        ),
        (things(("dog", (0, 1, 5, 5))), Reason.BOXES),
        (things(("dog", (1, 1, WIDTH + 1, 5))), Reason.BOXES),
        (things(("dog", (6, 1, 5, 5))), Reason.BOXES),
        (things(("dog", ("nan", 1, 5, 5))), Reason.BOXES),
    ],
)
def test_a_bad_annotation_costs_its_picture_alone(
    folder: Path, damage: Callable[[Path], Path], reason: Reason
) -> None:
    damage(folder / "Annotations" / "2007_000001.xml")
    cohort = voc_cohort(folder, task="detection")
    found = [refusal.reason for refusal in cohort.refused]
    for case in cohort.cases:
        try:
            read(case)
        except CaseError as error:
            found.append(error.reason)
    assert found == [reason]


def test_a_box_of_one_pixel_is_an_object(folder: Path) -> None:
    annotation(folder / "Annotations" / "2007_000001.xml", [("dog", (1, 1, 1, 1), 0)])
    case = read(voc_cohort(folder).cases[0]).case
    assert case.objects is not None
    assert case.objects.boxes.tolist() == [[0, 0, 1, 1]]


def test_an_annotation_of_another_size_is_refused(folder: Path) -> None:
    saved(folder / "JPEGImages" / "2007_000001.jpg", grain(0, HEIGHT * 2, WIDTH * 2))
    palette(folder / "SegmentationClass" / "2007_000001.png", np.zeros((HEIGHT * 2, WIDTH * 2)))
    with pytest.raises(CaseError, match="its annotation is for a picture of another size"):
        read(voc_cohort(folder).cases[0])


def test_classes_of_ones_own_are_declared(folder: Path) -> None:
    annotation(folder / "Annotations" / "2007_000003.xml", [("zebra", (1, 1, 5, 5), 0)], size=False)
    scheme = LabelScheme("own", {"background": 0, "zebra": 1}, void=255)
    cohort = voc_cohort(folder, scheme=scheme)
    case: Case = cohort.cases[0]
    assert case.objects is not None
    assert case.objects.labels.tolist() == [1]
    assert [refusal.case for refusal in cohort.refused] == ["2007_000001"]
