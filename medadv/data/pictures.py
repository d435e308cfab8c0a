"""A data set of pictures without a download: seeded shapes with masks and boxes, written as Pascal VOC lays them out.

Made for demonstrations and tests, never as evidence about photographs.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from medadv.atomic import write_atomically
from medadv.data.case import Cohort, Picture
from medadv.data.picture_scene import SHAPES, VOID, Scene, scene
from medadv.data.voc import voc_cohort
from medadv.errors import ConfigError
from medadv.labels import BACKGROUND, LabelScheme

SMALLEST = 32
QUALITY = 95
DEFAULT = ("disc", "square", "triangle", "ring")


def pictures(
    root: str | Path,
    cases: int = 24,
    size: Sequence[int] = (96, 128),
    seed: int = 0,
    shapes: Sequence[str] = DEFAULT,
    *,
    picture: Picture | None = None,
) -> Cohort:
    """Write generated pictures as a VOC folder, and import them.

    ``JPEGImages``, ``SegmentationClass`` (palette, outlines void), ``Annotations``, and the lists ``train`` (three of
    four), ``val`` and ``trainval`` for both tasks. A picture depends on ``seed``, its own number, ``size`` and
    ``shapes`` alone, never on how many others there are. Files that hold these very bytes already are left alone; lists
    are written last.

    Args:
        root: the data set's folder; made if it is missing.
        cases: how many.
        size: height and width in pixels, 32 or more each.
        seed: of everything.
        shapes: the classes, in the order of their numbers, from 1.
        picture: how they are taken from their files; see ``Picture``.

    Raises:
        ConfigError: fewer than one picture, or a size, seed or shapes that cannot be meant.
        RunError: the folder cannot be written.
    """
    root = Path(root)
    scheme = shapes_scheme(shapes)
    height, width = _checked(cases, size, seed)
    names = [f"pictures_{number:06d}" for number in range(cases)]
    for number, name in enumerate(names):
        drawn = scene((height, width), tuple(shapes), np.random.default_rng([seed, number]))
        _write(root / "JPEGImages" / f"{name}.jpg", _jpeg(drawn.pixels))
        _write(root / "SegmentationClass" / f"{name}.png", _palette_png(drawn.labels))
        _write(root / "Annotations" / f"{name}.xml", _annotation(root.name, name, drawn))
    parts = {
        "train": [name for number, name in enumerate(names) if number % 4 != 3],
        "val": names[3::4],
        "trainval": names,
    }
    for task in ("Segmentation", "Main"):
        for part, members in parts.items():
            text = "".join(f"{member}\n" for member in members)
            _write(root / "ImageSets" / task / f"{part}.txt", text.encode())
    return voc_cohort(root, split="trainval", scheme=scheme, picture=picture or Picture())


def shapes_scheme(shapes: Sequence[str]) -> LabelScheme:
    """What the numbers of generated label maps mean.

    Raises:
        ConfigError: no shapes, unknown ones, or one twice.
    """
    if not shapes or not set(shapes) <= set(SHAPES) or len(set(shapes)) < len(shapes):
        raise ConfigError("such pictures cannot be made", got=list(shapes), expected=f"some of {list(SHAPES)}")
    return LabelScheme("shapes", {name: number for number, name in enumerate((BACKGROUND, *shapes))}, void=VOID)


def _checked(cases: int, size: Sequence[int], seed: int) -> tuple[int, int]:
    if cases < 1 or seed < 0 or len(size) != 2 or min(size) < SMALLEST:
        raise ConfigError(
            "such pictures cannot be made",
            got={"cases": cases, "size": list(size), "seed": seed},
            expected=f"one case or more, height and width of {SMALLEST} or more, a seed of 0 or more",
        )
    return size[0], size[1]


def _write(path: Path, content: bytes) -> None:
    """A file that holds these bytes already may be somebody's who reads it: it is left alone."""
    if not path.is_file() or path.read_bytes() != content:
        write_atomically(path, lambda temporary: temporary.write_bytes(content))


def _jpeg(pixels: UInt8[np.ndarray, "h w 3"]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="JPEG", quality=QUALITY, subsampling=0)
    return stream.getvalue()


def _palette_png(labels: UInt8[np.ndarray, "h w"]) -> bytes:
    """Indices with VOC's palette: bits of the number, taken in turn, are the high bits of red, green and blue."""
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(24):
        colours[:, bit % 3] |= ((np.arange(256) >> bit & 1) << (7 - bit // 3)).astype(np.uint8)
    image = Image.fromarray(labels)
    image.putpalette(colours.tobytes())
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


def _annotation(folder: str, name: str, drawn: Scene) -> bytes:
    height, width = drawn.labels.shape
    root = ElementTree.Element("annotation")
    _say(root, folder=folder, filename=f"{name}.jpg")
    _say(ElementTree.SubElement(root, "size"), width=width, height=height, depth=3)
    _say(root, segmented=1)
    for thing in drawn.things:
        one = ElementTree.SubElement(root, "object")
        _say(one, name=thing.name, pose="Unspecified")
        _say(one, truncated=int(thing.truncated), difficult=int(thing.difficult))
        corners = dict(zip(("xmin", "ymin", "xmax", "ymax"), thing.box, strict=True))
        _say(ElementTree.SubElement(one, "bndbox"), **corners)
    ElementTree.indent(root)
    return ElementTree.tostring(root)


def _say(element: ElementTree.Element, **words: object) -> None:
    for key, value in words.items():
        ElementTree.SubElement(element, key).text = str(value)
