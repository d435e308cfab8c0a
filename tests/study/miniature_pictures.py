"""Studies of Pascal VOC, of masks and of boxes, on generated shapes that are called as VOC's first classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medadv.data.pictures import pictures
from medadv.labels import BACKGROUND, VOC
from medadv.study.spec import Study

SHAPES = ("disc", "square", "triangle", "ring", "cross")
"""One more than a picture can show, so that each lacks a class."""

CASES, SIZE = 5, (48, 64)
UNET = {
    "name": "UNet",
    "arguments": {"spatial_dims": 2, "channels": [4, 8], "strides": [2], "num_res_units": 0, "norm": "batch"},
}
SMALL = {"min_size": SIZE[0], "max_size": SIZE[1], "width": 32}
TRAINING = {"steps": 4, "batch": 2, "roi": list(SIZE), "validate_every": 2, "flips": []}


def voc(root: Path) -> Path:
    """A folder of generated pictures as Pascal VOC's, in its classes, and with a list of them."""
    pictures(root, CASES, SIZE, shapes=SHAPES)
    names = [name for name in VOC.tissues if name != BACKGROUND][: len(SHAPES)]
    for path in (root / "Annotations").iterdir():
        text = path.read_text()
        for shape, name in zip(SHAPES, names, strict=True):
            text = text.replace(f"<name>{shape}</name>", f"<name>{name}</name>")
        path.write_text(text)
    return root / "ImageSets" / "Segmentation" / "trainval.txt"


def on_pictures(written: Study, folder: Path) -> dict[str, Any]:
    """What changes for a study of pictures to be run in seconds: data, networks without weights, fewer iterations."""
    root = folder / "VOC2012"
    changes: dict[str, Any] = {
        "split": {"train": 2, "validate": 1, "test": 2},
        "data.root": str(root),
        "data.year": None,
        "data.listing": str(voc(root)),
    }
    for name, spec in written.victims.items():
        if spec.weights:
            changes[f"victims.{name}.weights"] = None
        if spec.like is None:
            one_stage = "RetinaNet" if spec.network.name.startswith("RetinaNet") else "FCOS"
            kind = "FasterRCNN" if "RCNN" in spec.network.name else one_stage
            changes[f"victims.{name}.network"] = {"name": kind, "arguments": SMALL} if spec.detects else UNET
            changes[f"victims.{name}.training"] = TRAINING
    for name, attack in written.attacks.items():
        if isinstance(getattr(attack, "steps", None), int):
            changes[f"attacks.{name}.steps"] = 2
    return changes
