"""Transforms of pictures: black pixels count, levels are fixed, and a JPEG is Pillow's own file."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import TypeAdapter
from runtime_types import unchecked
from scipy import ndimage
from torch import Tensor, nn

from medadv.attack.presets import ifgsm
from medadv.errors import ConfigError, GradientError, VictimError
from medadv.labels import LabelScheme
from medadv.victims.checkpoint import load_victim, save_victim
from medadv.victims.defended import defended
from medadv.victims.head import Softmax
from medadv.victims.jpeg import Jpeg
from medadv.victims.networks import Architecture, build_network
from medadv.victims.normalize import Standard
from medadv.victims.preprocess import described
from medadv.victims.segmentation import Segmenter
from medadv.victims.transforms import (
    BitDepth,
    GaussianSmoothing,
    InputTransform,
    MedianSmoothing,
    Resampled,
    StraightThrough,
)

COLOURS = ("red", "green", "blue")
THINGS = LabelScheme("things", {"background": 0, "disc": 1, "square": 2}, {})
EVERY: list[Any] = [
    GaussianSmoothing(0.9, nonzero=False),
    MedianSmoothing(3, nonzero=False),
    BitDepth(3, (0.0, 255.0), nonzero=False),
    BitDepth(3, nonzero=False),
    Resampled(2.0, nonzero=False),
]


def picture(*shape: int, black: float = 0.3) -> Tensor:
    """Grey levels with black ones among them."""
    x = torch.randint(1, 256, (1, 3, *shape)).double()
    return torch.where(torch.rand(1, 3, *shape) < black, 0.0, x)


def segmenter(modalities: tuple[str, ...] = COLOURS) -> Segmenter:
    torch.manual_seed(6)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.GELU(), nn.Conv2d(4, 3, 3, padding=1)).double().eval()
    return Segmenter(network, Softmax(THINGS), modalities, Standard((120.0,), (60.0,)))


# Black pixels


@pytest.mark.parametrize("step", EVERY, ids=str)
def test_a_shift_of_all_grey_levels_shifts_what_comes_out(step: InputTransform) -> None:
    """So zero is no level of its own; only levels that are fixed stay where they are."""
    x = picture(9, 8)
    shift = 255 / 7 if isinstance(step, BitDepth) and step.span else 31.0
    fixed = isinstance(step, BitDepth) and step.span
    below = x.clamp(max=255 - shift) if fixed else x
    torch.testing.assert_close(step(below + shift), step(below) + shift, rtol=0, atol=1e-9)
    assert not torch.equal(step(x), x)


def test_a_gaussian_of_a_picture_is_scipys_where_the_border_is_far() -> None:
    x = picture(24, 20)
    smooth = GaussianSmoothing(1.0, nonzero=False)(x)
    expected = torch.as_tensor(np.stack([[ndimage.gaussian_filter(c, 1.0) for c in one] for one in x.numpy()]))
    inner = (..., slice(4, -4), slice(4, -4))
    torch.testing.assert_close(smooth[inner], expected[inner], rtol=1e-12, atol=0)


def test_a_median_of_a_picture_is_scipys_where_the_border_is_far() -> None:
    x = picture(9, 8, black=0.6)
    expected = torch.as_tensor(np.stack([[ndimage.median_filter(c, 3) for c in one] for one in x.numpy()]))
    inner = (..., slice(1, -1), slice(1, -1))
    found = MedianSmoothing(3, nonzero=False)(x)
    assert torch.equal(found[inner], expected[inner])
    assert (found[inner] == 0).any()
    assert not torch.equal(MedianSmoothing(3)(x)[inner], expected[inner])


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_fixed_levels_are_the_same_for_every_picture(bits: int) -> None:
    x = torch.cat([picture(6, 5), picture(6, 5) / 4, picture(6, 5) + 10 - 20 * torch.rand(1, 3, 6, 5)])
    steps = 2**bits - 1
    found = BitDepth(bits, (0.0, 255.0), nonzero=False)(x)
    torch.testing.assert_close(found, (x.clamp(0, 255) / 255 * steps).round() / steps * 255, rtol=0, atol=1e-9)
    if bits == 8:
        whole = x[:1]
        torch.testing.assert_close(found[:1], whole, rtol=0, atol=1e-9)


@pytest.mark.parametrize("step", [s for s in EVERY if not isinstance(s, BitDepth)], ids=str)
def test_the_gradient_counts_black_pixels(step: InputTransform) -> None:
    x = torch.rand(1, 3, 6, 5, dtype=torch.float64) * 255
    x[..., 2, 3] = 0
    leaf, weight = x.clone().requires_grad_(), torch.randn_like(x)
    (found,) = torch.autograd.grad(((step(leaf) / 100).sin() * weight).sum(), leaf)
    for place in [(0, 0, 2, 3), (0, 2, 2, 3), (0, 1, 2, 2), (0, 0, 0, 0), (0, 2, 5, 4), (0, 1, 4, 1)]:
        h = torch.zeros_like(x)
        h[place] = 1e-5
        change = (((step(x + h) / 100).sin() - (step(x - h) / 100).sin()) * weight).sum() / 2e-5
        torch.testing.assert_close(found[place], change, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("step", EVERY, ids=str)
def test_what_is_not_said_stays_out_of_records(step: InputTransform) -> None:
    """Settings that came later change no key of a record that was made without them."""
    told = described(step)
    assert told["nonzero"] is False
    assert TypeAdapter(InputTransform).validate_python(told) == step
    assert described(GaussianSmoothing(0.9)) == {"sigma": 0.9, "name": "gaussian smoothing"}
    assert described(StraightThrough(BitDepth(3)))["step"] == {"bits": 3, "name": "bit depth"}


# JPEG


def by_pillow(pixels: np.ndarray, quality: int) -> np.ndarray:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


@pytest.mark.parametrize("quality", [10, 75, 95])
def test_a_jpeg_is_pillows_own(quality: int) -> None:
    x = torch.cat([picture(18, 21), picture(18, 21)])
    x += torch.rand_like(x) * 40 - 20  # between the levels, and beyond them
    found = Jpeg(quality)(x)
    for one, y in zip(x, found, strict=True):
        pixels = one.numpy().round().clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
        assert np.array_equal(y.numpy().transpose(1, 2, 0), by_pillow(pixels, quality))
    assert found.dtype == x.dtype
    grey = Jpeg(quality)(x[:, :1])
    pixels = x[0, 0].numpy().round().clip(0, 255).astype(np.uint8)
    assert np.array_equal(grey[0, 0].numpy(), by_pillow(pixels, quality))


def test_colours_are_found_by_their_names() -> None:
    x = picture(16, 16)
    bgr = x.flip(1)
    reversed_ = segmenter(("blue", "green", "red"))
    behind = defended(reversed_, Jpeg(30))
    assert torch.equal(behind.predict(bgr), reversed_.predict(Jpeg(30)(x).flip(1)))
    assert not torch.equal(Jpeg(30)(bgr), Jpeg(30)(x).flip(1))
    assert defended(reversed_, StraightThrough(Jpeg(30))).steps == behind.steps
    assert defended(segmenter(), Jpeg(30)).steps == (StraightThrough(Jpeg(30)), Standard((120.0,), (60.0,)))
    with pytest.raises(VictimError, match="already begins"):
        defended(behind, Jpeg(30))


def test_a_jpeg_is_attacked_straight_through_and_not_at_all_without() -> None:
    x, behind = picture(16, 16), defended(segmenter(), Jpeg(60))
    leaf, weight = x.clone().requires_grad_(), torch.randn(1, 3, 16, 16, dtype=torch.float64)
    (found,) = torch.autograd.grad((behind(leaf) * weight).sum(), leaf)
    shown = Jpeg(60)(x).requires_grad_()
    (expected,) = torch.autograd.grad((segmenter()(shown) * weight).sum(), shown)
    assert torch.equal(found, expected)
    truth = behind.predict(x)
    attack, support = ifgsm("8 stored", steps=4), torch.ones_like(x, dtype=torch.bool)
    harmed = (behind.predict(attack(behind, x, truth, support=support).x) != truth).double().mean()
    assert harmed > 0.05
    bare = Segmenter(behind.network, behind.head, COLOURS, (Jpeg(60), *segmenter().steps))
    with pytest.raises(GradientError, match="does not depend on its input"):
        attack(bare, x, truth, support=support)


@pytest.mark.parametrize("step", [*EVERY, Jpeg(40)], ids=str)
def test_a_defended_victim_of_pictures_is_the_same_again(step: InputTransform, tmp_path: Path) -> None:
    architecture = Architecture(arguments={"spatial_dims": 2, "channels": [4, 4], "strides": [2]})
    network = build_network(architecture, 3, 3).eval()
    victim = defended(Segmenter(network, Softmax(THINGS), COLOURS, Standard((120.0,), (60.0,))), step)
    save_victim(victim, architecture, tmp_path)
    again, x = load_victim(tmp_path), picture(8, 12).float()
    assert again.preprocessing() == victim.preprocessing()
    assert torch.equal(again(x), victim(x))


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.zeros(1, 3, 4, 4, 4), "compresses pictures"),
        (torch.zeros(1, 4, 4, 4), "compresses pictures"),
        (torch.rand(1, 3, 4, 4), "from 0 to 255"),
        (torch.rand(1, 3, 4, 4) * 4000, "from 0 to 255"),
        (torch.rand(1, 3, 4, 4) * -600, "from 0 to 255"),
    ],
)
def test_what_is_no_picture_is_not_compressed(x: Tensor, words: str) -> None:
    with pytest.raises(VictimError, match=words) as refusal:
        Jpeg()(x)
    assert refusal.value.details["got"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        *((lambda q=q: Jpeg(q), "quality of a JPEG") for q in (0, 96, 75.0, "75", True)),
        *((lambda c=c: Jpeg(75, c), "three channels") for c in ((0, 1), (0, 1, 1), (1, 2, 3), 3)),
        *((lambda s=s: BitDepth(4, s), "between two numbers") for s in ((255, 0), (0, 0), (0,), 255, ("0", "1"))),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(make: Callable[[], object], words: str) -> None:
    with unchecked(), pytest.raises(ConfigError, match=words):
        make()
