"""The generated pictures: VOC's layout, seeded, with every kind of truth that VOC has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import VOCDetection, VOCSegmentation

from medadv.data.case import Picture
from medadv.data.files import read
from medadv.data.picture_scene import SHAPES, Scene, scene
from medadv.data.pictures import pictures
from medadv.data.voc import voc_cohort
from medadv.errors import ConfigError

SIZE = (48, 64)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [scene(SIZE, tuple(SHAPES), np.random.default_rng([0, number])) for number in range(120)]


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_a_picture_depends_on_seed_and_number_alone(tmp_path: Path) -> None:
    pictures(tmp_path / "VOC", 3, SIZE, seed=5)
    pictures(tmp_path / "one" / "VOC", 1, SIZE, seed=5)
    pictures(tmp_path / "other" / "VOC", 1, SIZE, seed=6)
    three, one, other = (contents(tmp_path / name / "VOC") for name in (".", "one", "other"))
    own = [name for name in one if "000000" in name]
    assert len(own) == 3
    assert all(three[name] == one[name] for name in own)
    assert all(other[name] != one[name] for name in own if "jpg" in name)
    assert len({content for name, content in three.items() if "jpg" in name}) == 3


def test_what_is_there_is_left_to_its_readers_and_what_is_damaged_is_written_anew(tmp_path: Path) -> None:
    def stamps() -> dict[str, tuple[int, int]]:
        return {str(p): (p.stat().st_ino, p.stat().st_mtime_ns) for p in tmp_path.rglob("*") if p.is_file()}

    pictures(tmp_path, 2, SIZE)
    before, whole = stamps(), contents(tmp_path)
    damaged = tmp_path / "JPEGImages" / "pictures_000001.jpg"
    pictures(tmp_path, 2, SIZE)
    assert stamps() == before
    damaged.write_bytes(b"cut")
    pictures(tmp_path, 2, SIZE)
    assert contents(tmp_path) == whole
    assert {name for name, stamp in stamps().items() if stamp != before[name]} == {str(damaged)}


def test_it_is_what_torchvision_reads(tmp_path: Path) -> None:
    cohort = pictures(tmp_path / "VOCdevkit" / "VOC2012", 6, SIZE)
    masks = VOCSegmentation(str(tmp_path), year="2012", image_set="trainval")
    boxes = VOCDetection(str(tmp_path), year="2012", image_set="trainval")
    assert len(cohort.cases) == len(masks) == len(boxes) == 6
    for case, (image, mask), (_, told) in zip(cohort.cases, masks, boxes, strict=True):
        volume = read(case)
        assert volume.truth is not None
        assert case.objects is not None
        assert np.array_equal(volume.x.numpy(), np.moveaxis(np.asarray(image), -1, 0))
        assert np.array_equal(volume.truth.numpy(), np.asarray(mask))
        names = [thing["name"] for thing in told["annotation"].get("object", [])]
        assert [cohort.scheme.tissues[n] for n in case.objects.labels.tolist()] == names
    parts = [voc_cohort(tmp_path, split=split, scheme=cohort.scheme).cases for split in ("train", "val")]
    assert [len(part) for part in parts] == [5, 1]


def test_masks_have_vocs_palette(tmp_path: Path) -> None:
    pictures(tmp_path, 1, SIZE)
    with Image.open(tmp_path / "SegmentationClass" / "pictures_000000.png") as mask:
        assert mask.mode == "P"
        colours = np.reshape(mask.getpalette() or [], (-1, 3))
    # The devkit's VOClabelcolormap: aeroplane, person and void.
    assert [colours[n].tolist() for n in (0, 1, 15, 255)] == [[0, 0, 0], [128, 0, 0], [192, 128, 128], [224, 224, 192]]


def test_boxes_hold_what_is_seen_of_their_objects(scenes: list[Scene]) -> None:
    for drawn in scenes:
        for thing in drawn.things:
            xmin, ymin, xmax, ymax = thing.box
            inside = drawn.labels[ymin - 1 : ymax, xmin - 1 : xmax]
            assert (inside == list(SHAPES).index(thing.name) + 1).any()
        own = {list(SHAPES).index(thing.name) + 1 for thing in drawn.things}
        assert set(np.unique(drawn.labels)) - {0, 255} == own


def test_outlines_are_void_and_nothing_else_is(scenes: list[Scene]) -> None:
    for drawn in scenes:
        shares = (drawn.labels == 255).mean()
        assert (shares == 0) == (not drawn.things)
        assert shares < 0.35
        classes = np.where(drawn.labels == 255, -1, drawn.labels.astype(int))
        beside = [(classes[1:], classes[:-1]), (classes[:, 1:], classes[:, :-1])]
        assert not any(((a != b) & (a >= 0) & (b >= 0)).any() for a, b in beside)


def test_there_is_something_of_everything(scenes: list[Scene]) -> None:
    numbers = [len(drawn.things) for drawn in scenes]
    things = [thing for drawn in scenes for thing in drawn.things]
    assert set(numbers) == {0, 1, 2, 3, 4}
    assert 0.02 < np.mean([n == 0 for n in numbers]) < 0.2
    assert {thing.name for thing in things} == set(SHAPES)
    for share in (np.mean([thing.difficult for thing in things]), np.mean([thing.truncated for thing in things])):
        assert 0.01 < share < 0.4


def test_colour_alone_does_not_tell_the_class(scenes: list[Scene]) -> None:
    """The nearest mean colour of a class finds some objects' pixels, more than chance, and not all."""
    pixels = np.concatenate([drawn.pixels.reshape(-1, 3) for drawn in scenes]).astype(float)
    labels = np.concatenate([drawn.labels.ravel() for drawn in scenes])
    shown = np.isin(labels, range(1, len(SHAPES) + 1))
    pixels, labels = pixels[shown], labels[shown]
    means = np.stack([pixels[labels == number].mean(0) for number in range(1, len(SHAPES) + 1)])
    found = ((pixels[:, None] - means) ** 2).sum(-1).argmin(1) + 1
    shares = [(found[labels == number] == number).mean() for number in range(1, len(SHAPES) + 1)]
    assert 1.5 / len(SHAPES) < np.mean(shares) < 0.9


def test_pictures_can_be_padded(tmp_path: Path) -> None:
    volume = read(pictures(tmp_path, 1, SIZE, picture=Picture(canvas=(64, 64))).cases[0])
    assert volume.x.shape == (3, 64, 64)
    assert volume.mask is not None
    assert int(volume.mask.sum()) == 48 * 64
    assert torch.equal(volume.truth == 255, (volume.truth == 255) | ~volume.mask)


@pytest.mark.parametrize(
    "wanted",
    [{"cases": 0}, {"size": (48, 16)}, {"size": (48,)}, {"seed": -1}, {"shapes": ()}, {"shapes": ("egg",)},
     {"shapes": ("disc", "disc")}],
)  # fmt: skip
def test_what_cannot_be_made_is_refused(tmp_path: Path, wanted: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="such pictures cannot be made"):
        pictures(tmp_path, **wanted)  # type: ignore[arg-type]
