"""Adversarial pictures: every bit in npy, an 8-bit copy beside it, and nothing half written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from data.picture_files import HEIGHT, WIDTH, case_of, grain, palette, saved
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from medadv.data.case import Case, Picture, Volume
from medadv.data.files import content_digest, eight_bit, label_digest, read, write, written
from medadv.data.pixels import CHANNELS
from medadv.errors import CaseError, ConfigError, Reason, RunError
from medadv.labels import VOC
from medadv.objects import Objects


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return read(case_of(saved(tmp_path / "a.png", grain())))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_says_what_it_is_and_is_read_back(volume: Volume, tmp_path: Path) -> None:
    x = volume.x + torch.randn_like(volume.x)
    case = write(volume, x, tmp_path / "out", stem="one", note={"budget": "8 0-255"})
    assert names(tmp_path / "out") == ["ADVERSARIAL.json", "ADVERSARIAL_one.npy", "ADVERSARIAL_one.png"]
    assert torch.equal(read(case).x, x)
    assert np.array_equal(np.load(tmp_path / "out" / "ADVERSARIAL_one.npy"), np.moveaxis(x.numpy(), 0, -1))
    said = json.loads((tmp_path / "out" / "ADVERSARIAL.json").read_text())
    assert (said["adversarial"], said["budget"], said["container"]) == (True, "8 0-255", "float32")
    with Image.open(tmp_path / "out" / "ADVERSARIAL_one.png") as copy:
        assert copy.info["Description"].startswith("ADVERSARIAL")
    again = written(volume.case, tmp_path / "out")
    assert again == case


@settings(max_examples=40)
@given(
    pixels=arrays.arrays(
        np.float32,
        st.tuples(st.just(3), st.integers(1, 5), st.integers(2, 5)),
        elements=st.floats(-400, 700, width=32),
        fill=st.nothing(),
    )
)
def test_every_bit_survives_and_the_copy_is_rounded_and_clipped(
    tmp_path_factory: pytest.TempPathFactory, pixels: np.ndarray
) -> None:
    folder = tmp_path_factory.mktemp("out")
    pixels[0, 0, 0] = pixels[1, 0, 0] + 1  # not one colour
    pixels[0, 0, 1] = 255 - 2 * (pixels[0, 0, 0] > 100) * 99
    volume = Volume(case_of(Path("any.png")), torch.from_numpy(pixels), None, np.eye(4))
    case = write(volume, volume.x, folder, stem="any")
    assert read(case).x.numpy().tobytes() == pixels.tobytes()
    with Image.open(folder / "ADVERSARIAL_any.png") as copy:
        assert np.array_equal(np.asarray(copy), np.clip(np.rint(np.moveaxis(pixels, 0, -1)), 0, 255))


def test_the_eight_bit_copy_is_a_case(volume: Volume, tmp_path: Path) -> None:
    x = volume.x + 0.4
    x[0, 0, :3] = torch.tensor([-7.0, 300.0, 12.6])
    write(volume, x, tmp_path / "out", stem="one")
    copy = read(eight_bit(volume.case, tmp_path / "out")).x
    assert copy[0, 0, :3].tolist() == [0, 255, 13]
    assert torch.equal(copy[1:], volume.x[1:])


def test_channels_in_another_order_are_written_as_red_green_blue(volume: Volume, tmp_path: Path) -> None:
    turned = read(replace(volume.case, images=dict.fromkeys(CHANNELS[::-1], tmp_path / "a.png")))
    case = write(turned, turned.x, tmp_path / "out", stem="one")
    assert torch.equal(read(case).x, turned.x)
    with Image.open(tmp_path / "out" / "ADVERSARIAL_one.png") as copy:
        assert np.array_equal(np.asarray(copy), grain())


def test_a_damaged_or_unfinished_folder_is_not_read_back(volume: Volume, tmp_path: Path) -> None:
    for name in ("ADVERSARIAL_one.npy", "ADVERSARIAL_one.png", "ADVERSARIAL.json"):
        folder = tmp_path / f"without {name}"
        write(volume, volume.x, folder, stem="one")
        (folder / name).write_bytes(b"{}")
        assert written(volume.case, folder) is None
        with pytest.raises(RunError, match="no 8-bit copy"):
            eight_bit(volume.case, folder)


def test_bad_pixels_are_refused_before_anything_is_written(volume: Volume, tmp_path: Path) -> None:
    with pytest.raises(CaseError) as refused:
        write(volume, torch.full_like(volume.x, torch.nan), tmp_path / "out", stem="one")
    assert refused.value.reason == Reason.NOT_FINITE
    with pytest.raises(CaseError) as refused:
        write(volume, volume.x.double() + 1e-9, tmp_path / "out", stem="one")
    assert refused.value.reason == Reason.BUDGET_NOT_STORABLE
    with pytest.raises(CaseError) as refused:
        write(volume, volume.x + 0.5, tmp_path / "out", stem="one", container="as-stored")
    assert refused.value.reason == Reason.BUDGET_NOT_STORABLE
    with pytest.raises(ConfigError, match="makes no file name"):
        write(volume, volume.x, tmp_path / "out", stem="../one")
    assert not (tmp_path / "out").exists()


def test_whole_numbers_can_be_stored_as_the_source_is(volume: Volume, tmp_path: Path) -> None:
    case = write(volume, volume.x.flip(1), tmp_path / "out", stem="one", container="as-stored")
    assert np.load(tmp_path / "out" / "ADVERSARIAL_one.npy").dtype == np.uint8
    assert torch.equal(read(case).x, volume.x.flip(1))


def test_a_canvas_is_written_whole_and_known_when_it_is_read_back(tmp_path: Path) -> None:
    label = palette(tmp_path / "m.png", np.ones((HEIGHT, WIDTH)))
    settings = Picture(canvas=(24, 40), fill=(1.0, 2.0, 3.0))
    volume = read(case_of(saved(tmp_path / "a.png", grain()), label, picture=settings))
    x = volume.x + 1  # the padding, too
    case = write(volume, x, tmp_path / "out", stem="one")
    for found in (case, written(volume.case, tmp_path / "out"), eight_bit(volume.case, tmp_path / "out")):
        assert found is not None
        again = read(found)
        assert torch.equal(again.x, x.clamp(0, 255) if found.images["red"].suffix == ".png" else x)
        assert again.truth is not None
        assert volume.truth is not None
        assert again.mask is not None
        assert volume.mask is not None
        assert torch.equal(again.truth, volume.truth)
        assert torch.equal(again.mask, volume.mask)


# Digests


def test_digests_tell_content_apart_and_not_files(tmp_path: Path) -> None:
    label = palette(tmp_path / "m.png", np.ones((HEIGHT, WIDTH)))
    png, tif = (case_of(saved(tmp_path / f"a.{kind}", grain()), label) for kind in ("png", "tif"))
    assert content_digest(read(png)) == content_digest(read(tif))
    assert content_digest(read(png)) != content_digest(read(case_of(saved(tmp_path / "b.png", grain(1)), label)))
    padded = replace(png, picture=Picture(canvas=(HEIGHT, WIDTH)))
    assert content_digest(read(padded)) != content_digest(read(png))  # its mask is part of what may be attacked


def objects(box: float = 1, label: int = 1, difficult: bool = False) -> Objects:
    return Objects(torch.tensor([[0.0, 0, 5, box]]), torch.tensor([label]), difficult=torch.tensor([difficult]))


def test_objects_are_part_of_what_is_true(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", grain())
    label = palette(tmp_path / "m.png", np.ones((HEIGHT, WIDTH)))
    every: list[Case] = [case_of(path), case_of(path, label)]
    for each in (objects(), objects(2), objects(1, 2), objects(1, 1, True), Objects.none(2)):
        every += [case_of(path, objects=each), case_of(path, label, VOC, each)]
    digests = [label_digest(read(case)) for case in every]
    assert digests[0] is None
    assert len(set(digests)) == len(digests)
    easy = Objects(torch.tensor([[0.0, 0, 5, 1]]), torch.tensor([1]))
    assert label_digest(read(case_of(path, objects=easy))) == label_digest(read(case_of(path, objects=objects())))
