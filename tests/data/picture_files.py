"""Pictures as the real libraries write them: Pillow's files, VOC's folders, COCO's JSON with pycocotools' masks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medadv.data.case import Case, Picture
from medadv.data.pixels import CHANNELS
from medadv.labels import VOC, LabelScheme
from medadv.objects import Objects

HEIGHT, WIDTH = 20, 30


def grain(seed: int = 0, height: int = HEIGHT, width: int = WIDTH, channels: int = 3) -> np.ndarray:
    """Pixels that are all different in every channel."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def saved(path: Path, pixels: np.ndarray, mode: str | None = None, **how: Any) -> Path:
    """A file of these pixels, as Pillow writes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels.squeeze())
    (image if mode is None else image.convert(mode)).save(path, **how)
    return path


def palette(path: Path, numbers: np.ndarray, **how: Any) -> Path:
    """A label map as VOC stores it: indices of a palette."""
    image = Image.fromarray(numbers.astype(np.uint8))
    image.putpalette(np.random.default_rng(1).integers(0, 256, 768, dtype=np.uint8).tobytes())
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **how)
    return path


def case_of(
    path: Path,
    label: Path | None = None,
    scheme: LabelScheme = VOC,
    objects: Objects | None = None,
    picture: Picture | None = None,
) -> Case:
    return Case("one", None, dict.fromkeys(CHANNELS, path), label, scheme, objects=objects, picture=picture)


def annotation(path: Path, things: Sequence[tuple[str, Sequence[float | int], int]], size: bool = True) -> Path:
    """VOC's XML: name, (xmin, ymin, xmax, ymax), difficult of each."""
    told = "".join(
        f"<object><name>{name}</name><part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
        f"<difficult>{difficult}</difficult><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax>"
        f"<ymax>{y1}</ymax></bndbox></object>"
        for name, (x0, y0, x1, y1), difficult in things
    )
    said = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>" if size else ""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<annotation><filename>{path.stem}.jpg</filename>{said}{told}</annotation>")
    return path


def voc_folder(root: Path, year: str = "2012") -> Path:
    """Three pictures: one with mask and boxes, one with boxes, one with mask and no object."""
    folder = root / "VOCdevkit" / f"VOC{year}"
    numbers = np.zeros((HEIGHT, WIDTH), np.uint8)
    numbers[3:9, 4:15], numbers[3, 4:15] = 12, 255
    for seed, name in enumerate(("2007_000001", "2007_000002", "2007_000003")):
        saved(folder / "JPEGImages" / f"{name}.jpg", grain(seed), quality=95)
    palette(folder / "SegmentationClass" / "2007_000001.png", numbers)
    palette(folder / "SegmentationClass" / "2007_000003.png", np.zeros((HEIGHT, WIDTH)))
    things = [("dog", (5, 4, 15, 9), 0), ("person", (1, 1, WIDTH, HEIGHT), 1)]
    annotation(folder / "Annotations" / "2007_000001.xml", things)
    annotation(folder / "Annotations" / "2007_000002.xml", [("cat", (10.5, 2.25, 20, 19.75), 0)])
    annotation(folder / "Annotations" / "2007_000003.xml", [])
    names = [f"2007_{n:06d}" for n in (1, 2, 3)]
    for task, members in (("Segmentation", (names[0], names[2])), ("Main", names)):
        (folder / "ImageSets" / task).mkdir(parents=True)
        (folder / "ImageSets" / task / "val.txt").write_text("".join(f"{name}\n" for name in members))
    return folder


def coco_folder(root: Path, annotations: Sequence[dict[str, Any]], names: Sequence[str] = ("a.jpg", "b.jpg")) -> Path:
    """Pictures numbered from 1, and a file with these annotations."""
    images = []
    for number, name in enumerate(names, start=1):
        saved(root / "images" / name, grain(number), quality=95)
        images.append({"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH})
    categories = [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}]
    rows = [{"id": n, "iscrowd": 0, "area": 1.0, **row} for n, row in enumerate(annotations, start=1)]
    path = root / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": rows, "categories": categories}))
    return path
