"""Label maps and boxes of pictures: numbers and never colours, void, sizes, canvases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from data.picture_files import HEIGHT, WIDTH, case_of, grain, palette, saved
from data.test_picture import png_of, refusal
from PIL import Image

from medadv.data.case import Picture
from medadv.data.files import read, read_label
from medadv.data.support import support
from medadv.errors import CaseError, ConfigError, Reason
from medadv.labels import VOC, LabelScheme
from medadv.objects import Objects

NUMBERS = np.random.default_rng(3).integers(0, 21, (HEIGHT, WIDTH)).astype(np.uint8)
NUMBERS[0] = 255


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return saved(tmp_path / "a.png", grain())


@pytest.mark.parametrize("kind", ["palette", "grey", "sixteen", "tif", "npy"])
def test_a_label_map_is_its_numbers(tmp_path: Path, picture: Path, kind: str) -> None:
    label = tmp_path / ("m.tif" if kind == "tif" else "m.npy" if kind == "npy" else "m.png")
    if kind == "palette":
        palette(label, NUMBERS)
    elif kind == "npy":
        np.save(label, NUMBERS.astype(np.int32))
    else:
        saved(label, NUMBERS.astype(np.uint16 if kind == "sixteen" else np.uint8))
    truth = read(case_of(picture, label)).truth
    assert truth is not None
    assert truth.dtype == torch.int64
    assert np.array_equal(truth.numpy(), NUMBERS)


def test_indices_of_a_small_palette_are_not_stretched(tmp_path: Path, picture: Path) -> None:
    label = palette(tmp_path / "m.png", NUMBERS % 4, bits=2)
    truth = read(case_of(picture, label)).truth
    assert truth is not None
    assert np.array_equal(truth.numpy(), NUMBERS % 4)


def test_grey_of_few_bits_is_refused_since_readers_stretch_it(tmp_path: Path, picture: Path) -> None:
    rows = b"".join(b"\0" + bytes(WIDTH // 2) for _ in range(HEIGHT - 1)) + b"\0" + b"\x11" * (WIDTH // 2)
    label = png_of(tmp_path / "m.png", 4, 0, rows)
    assert np.asarray(Image.open(label)).max() == 17  # the trap: a class 1 becomes 17
    assert refusal(case_of(picture, label)).reason == Reason.LABEL_COLOURS


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_mask_in_colours_is_refused(tmp_path: Path, picture: Path, mode: str) -> None:
    palette(tmp_path / "m.png", NUMBERS)
    Image.open(tmp_path / "m.png").convert(mode).save(tmp_path / "colours.png")
    error = refusal(case_of(picture, tmp_path / "colours.png"))
    assert error.reason == Reason.LABEL_COLOURS
    assert mode in str(error.details["got"])


def test_a_mask_as_jpeg_is_refused(tmp_path: Path, picture: Path) -> None:
    assert refusal(case_of(picture, saved(tmp_path / "m.jpg", NUMBERS))).reason == Reason.LABEL_COLOURS


def test_a_palette_of_other_numbers_is_refused(tmp_path: Path, picture: Path) -> None:
    error = refusal(case_of(picture, palette(tmp_path / "m.png", NUMBERS % 7 * 30)))
    assert error.reason == Reason.LABEL_OUTSIDE_SCHEME
    assert error.details["got"] == [0, 30, 60, 90, 120, 150, 180]


def test_a_mask_of_another_size_is_refused(tmp_path: Path, picture: Path) -> None:
    error = refusal(case_of(picture, palette(tmp_path / "m.png", NUMBERS.T)))
    assert error.reason == Reason.LABEL_GRID
    assert error.details["got"] == "20 × 30 (width × height)"


def test_a_missing_mask_is_refused(tmp_path: Path, picture: Path) -> None:
    assert refusal(case_of(picture, tmp_path / "m.png")).reason == Reason.MISSING_LABEL


def test_255_and_minus_1_are_void_where_that_is_declared_alone(tmp_path: Path, picture: Path) -> None:
    numbers = {"background": 0, "thing": 1}
    for void in (255, -1):
        np.save(tmp_path / "m.npy", np.where(NUMBERS == 255, np.int16(void), NUMBERS % 2))
        case = case_of(picture, tmp_path / "m.npy", LabelScheme("own", numbers))
        error = refusal(case)
        assert error.reason == Reason.LABEL_OUTSIDE_SCHEME
        assert f"{void} often marks what is not judged" in str(error.details["try"])
        truth = read(replace(case, scheme=LabelScheme("own", numbers, void=void))).truth
        assert truth is not None
        assert int((truth == void).sum()) == WIDTH


def test_a_files_numbers_are_translated_by_its_table(tmp_path: Path, picture: Path) -> None:
    label = saved(tmp_path / "m.png", np.where(NUMBERS == 255, 7, NUMBERS % 2).astype(np.uint8))
    scheme = LabelScheme("own", {"background": 0, "thing": 5}, void=9)
    truth = read(case_of(picture, label, scheme, picture=Picture(numbers={0: 0, 1: 5, 7: 9}))).truth
    assert truth is not None
    assert np.array_equal(truth.numpy(), np.where(NUMBERS == 255, 9, NUMBERS % 2 * 5))
    error = refusal(case_of(picture, label, scheme, picture=Picture(numbers={0: 0, 1: 5})))
    assert (error.reason, error.details["got"]) == (Reason.LABEL_OUTSIDE_SCHEME, [7])


def test_a_map_that_answers_a_picture_is_read(tmp_path: Path, picture: Path) -> None:
    volume = read(case_of(picture))
    assert np.array_equal(read_label(palette(tmp_path / "m.png", NUMBERS), volume, VOC).numpy(), NUMBERS)
    with pytest.raises(CaseError, match="does not have the picture's size"):
        read_label(palette(tmp_path / "m.png", NUMBERS.T), volume, VOC)


# Boxes


def boxes(*rows: tuple[float, ...], labels: int = 1) -> Objects:
    return Objects(torch.tensor(rows, dtype=torch.float32).reshape(-1, 4), torch.full((len(rows),), labels))


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ((0.0, 0, 0, 5), "no area"),
        ((4.0, 3, 2, 5), "no area"),
        ((-1.0, 0, 4, 5), "out of the image"),
        ((0.0, 0, HEIGHT + 1, 5), "out of the image"),
        ((0.0, 0, 5, WIDTH + 0.5), "out of the image"),
        ((0.0, float("nan"), 5, 9), "not finite"),
    ],
)
def test_a_box_that_cannot_be_is_refused(picture: Path, box: tuple[float, ...], said: str) -> None:
    error = refusal(case_of(picture, objects=boxes((1, 1, 2, 2), box)))
    assert error.reason == Reason.BOXES
    assert said in error.problem
    assert "1 of 2 boxes" in str(error.details["got"])


def test_a_box_of_no_class_is_refused(picture: Path) -> None:
    for number in (0, 21, 255):
        assert refusal(case_of(picture, objects=boxes((1, 1, 2, 2), labels=number))).reason == Reason.BOXES
    flat = Objects(torch.zeros(1, 6), torch.ones(1, dtype=torch.int64))
    assert "6 numbers, and the image 2 axes" in refusal(case_of(picture, objects=flat)).problem


def test_no_objects_and_the_whole_picture_are_data(picture: Path) -> None:
    assert len(read(case_of(picture, objects=Objects.none(2))).case.objects or ()) == 0
    read(case_of(picture, objects=boxes((0.0, 0, HEIGHT, WIDTH))))


def test_an_annotation_of_another_size_is_refused(picture: Path) -> None:
    error = refusal(case_of(picture, objects=boxes((0.0, 0, 1, 1)), picture=Picture(declared=(WIDTH, HEIGHT))))
    assert error.reason == Reason.BOXES
    read(case_of(picture, objects=boxes((0.0, 0, 1, 1)), picture=Picture(declared=(HEIGHT, WIDTH))))


# Canvas and support


def test_a_canvas_is_void_and_outside_the_mask(tmp_path: Path, picture: Path) -> None:
    label = palette(tmp_path / "m.png", NUMBERS)
    settings = Picture(canvas=(25, 40), fill=(103.5, 116.0, 7.0))
    volume = read(case_of(picture, label, objects=boxes((1.0, 1, 2, 2)), picture=settings))
    assert volume.mask is not None
    assert volume.truth is not None
    assert volume.x.shape == (3, 25, 40)
    assert np.array_equal(volume.x[:, :HEIGHT, :WIDTH].numpy(), np.moveaxis(grain(), -1, 0))
    assert np.array_equal(volume.truth[:HEIGHT, :WIDTH].numpy(), NUMBERS)
    outside = torch.ones(25, 40, dtype=torch.bool)
    outside[:HEIGHT, :WIDTH] = False
    assert torch.equal(volume.mask, ~outside)
    assert bool((volume.truth[outside] == 255).all())
    assert [values.unique().tolist() for values in volume.x[:, outside]] == [[103.5], [116.0], [7.0]]
    inside = support(volume, "mask")
    assert torch.equal(inside, volume.mask.expand(3, -1, -1))
    assert volume.content is volume.mask
    assert read(case_of(picture)).content is None
    assert bool(support(volume, "everywhere").all())


def test_a_canvas_that_is_too_small_cuts_nothing(picture: Path) -> None:
    assert refusal(case_of(picture, picture=Picture(canvas=(HEIGHT, WIDTH - 1)))).reason == Reason.DIMENSIONS


def test_a_canvas_needs_a_void_number_and_no_mask_file(tmp_path: Path, picture: Path) -> None:
    settings = Picture(canvas=(25, 40))
    label = palette(tmp_path / "m.png", NUMBERS % 2)
    own = LabelScheme("own", {"background": 0, "thing": 1})
    masked = replace(case_of(picture, picture=settings), mask=label)
    for case in (case_of(picture, label, own, picture=settings), masked):
        with pytest.raises(ConfigError, match="a canvas is the mask of its picture"):
            read(case)


def test_a_mask_file_says_where_pixels_may_change(tmp_path: Path, picture: Path) -> None:
    case = replace(case_of(picture), mask=saved(tmp_path / "where.png", (NUMBERS > 10).astype(np.uint8) * 200))
    mask = read(case).mask
    assert mask is not None
    assert np.array_equal(mask.numpy(), NUMBERS > 10)
    saved(tmp_path / "where.png", NUMBERS.T)
    assert refusal(case).reason == Reason.MASK_GRID
    saved(tmp_path / "where.png", NUMBERS * 0)
    assert refusal(case).reason == Reason.MASK_EMPTY
    assert refusal(replace(case, mask=tmp_path / "none.png")).reason == Reason.MISSING_MASK


def test_a_channel_of_one_value_can_be_attacked_everywhere(tmp_path: Path) -> None:
    pixels = grain()
    pixels[..., 2] = 40
    volume = read(case_of(saved(tmp_path / "a.png", pixels)))
    assert bool(support(volume, "everywhere").all())
    with pytest.raises(CaseError, match="blue"):
        support(volume, "volume")
