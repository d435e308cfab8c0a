"""COCO: a folder of pictures, and one JSON file with their boxes and outlines.

Source: Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014; the format at cocodataset.org/#format-data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from medadv.data.case import Case, Cohort, Painted, Picture
from medadv.data.census import Census, inside, posix
from medadv.data.listing import chosen
from medadv.data.pixels import CHANNELS
from medadv.errors import CaseError, ConfigError, Reason
from medadv.labels import BACKGROUND, LabelScheme
from medadv.objects import Objects

_VOID = 255


def coco_cohort(
    root: str | Path,
    annotations: str | Path,
    *,
    outlines: bool = False,
    masks: str | Path | None = None,
    gaps: bool = False,
    listing: str | Path | None = None,
    picture: Picture | None = None,
) -> Cohort:
    """The pictures that a COCO file lists, in its order, with the objects in them.

    The scheme is its table of categories, under their own ids. ``iscrowd`` counts as difficult: neither found nor
    missed. A picture without annotations shows nothing. Patients are unknown.

    Args:
        root: the folder of the pictures.
        annotations: the JSON file, such as ``instances_val2017.json``.
        outlines: draw label maps from the outlines; see ``outlines.painted``.
        masks: or a folder of label maps that are called as the pictures are, as PNG, in the categories' ids.
        gaps: give numbers between the ids names of their own, for networks with an output for each (torchvision's 91).
        listing: which pictures: a text file, one id a line: the file's name without its ending.
        picture: how pictures are taken from their files.

    Raises:
        ConfigError: a file that is no such list, categories that cannot be meant, or two sources of label maps.
    """
    if outlines and masks is not None:
        raise ConfigError("label maps are drawn from outlines, or lie in a folder", expected="one of the two")
    root, path = Path(root), Path(annotations)
    content = _loaded(path)
    scheme = _scheme(content["categories"], gaps)
    found: dict[Any, list[Any]] = {}
    for each in content["annotations"]:
        number = each.get("image_id") if isinstance(each, dict) else None
        found.setdefault(number if isinstance(number, int | str) else None, []).append(each)
    files = [str(entry.get("file_name")) if isinstance(entry, dict) else "" for entry in content["images"]]
    names = _names(files)
    census = Census(names)
    seen: set[int | str] = set()
    for place, (name, entry, file) in enumerate(zip(names, content["images"], files, strict=True), start=1):
        with census.at(name, f"{name}-entry-{place}"):
            size, number = _entry(name, entry, seen)
            image = inside(root, file, Reason.MISSING_MODALITY)
            rows = [_row(name, row, scheme) for row in found.get(number, ())]
            label = Path(masks) / f"{posix(file).stem}.png" if masks is not None else None
            taken = replace(picture or Picture(), declared=size, painted=_painted(rows, size, scheme, outlines))
            channels = dict.fromkeys(CHANNELS, image)
            there = label if label is not None and label.is_file() else None
            census.take(Case(name, None, channels, there, scheme, objects=_objects(rows), picture=taken))
    return chosen(census.cohort(CHANNELS, scheme), None if listing is None else Path(listing))


def _loaded(path: Path) -> Mapping[str, list[Any]]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        said = error.strerror if isinstance(error, OSError) else type(error).__name__
        raise ConfigError(f"{path.name} cannot be read", got=said, expected="COCO's JSON") from error
    keys = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in keys):
        raise ConfigError(
            f"{path.name} is no COCO file of instances",
            got=sorted(content)[:8] if isinstance(content, dict) else type(content).__name__,
            expected="lists under images, annotations and categories",
            advice="take instances_….json; image_info_… has no annotations, and captions_… no boxes",
        )
    return content


def _scheme(categories: Sequence[Any], gaps: bool) -> LabelScheme:
    numbers: dict[str, int] = {}
    for each in categories:
        number, name = (each.get("id"), each.get("name")) if isinstance(each, dict) else (None, None)
        taken = name in numbers or number in numbers.values()
        if taken or not isinstance(number, int) or not isinstance(name, str) or not name.strip():
            expected = 'categories with an "id" and a "name", each its own'
            raise ConfigError("a category cannot be meant", got=each, expected=expected)
        numbers[name] = number
    own = [number for name, number in numbers.items() if name != BACKGROUND]
    if numbers.get(BACKGROUND, 0) != 0 or min(own, default=0) < 1:
        raise ConfigError(
            "categories are numbered from 1, since 0 is what is none of them",
            got=numbers or "no category",
            expected="ids from 1; background, if it is there, has 0",
            advice="number the categories from 1 in a copy of the file, and its annotations with them",
        )
    numbers[BACKGROUND] = 0
    if gaps:
        numbers |= {f"none {number}": number for number in range(1, max(own)) if number not in own}
    return LabelScheme("coco", numbers, void=max(_VOID, max(own) + 1))


def _names(files: Sequence[str]) -> list[str]:
    """A case is called as its file is; with its folders where two files are called alike."""
    paths = [posix(file).with_suffix("") if posix(file).name else posix(f"entry {n}") for n, file in enumerate(files)]
    stems = [path.name for path in paths]
    return stems if len(set(stems)) == len(stems) else ["-".join(path.parts) for path in paths]


def _entry(name: str, entry: Any, before: set[int | str]) -> tuple[tuple[int, int], int | str]:
    """A picture's height and width, and its id, which is not among those ``before``."""
    try:
        size, number = (int(entry["height"]), int(entry["width"])), entry["id"]
        if not isinstance(number, int | str) or number in before:
            raise ValueError("an id of its own")
        before.add(number)
        return size, number
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise _strange(name, "its entry is not whole", '"id", of its own, "file_name", "height" and "width"') from error


def _row(name: str, row: Any, scheme: LabelScheme) -> Mapping[str, Any]:
    """One annotation, if it can be used."""
    try:
        box = [float(number) for number in row["bbox"]]
        known = row["category_id"] in scheme.numbers.values() and row["category_id"] != 0
    except (TypeError, KeyError, ValueError) as error:
        raise _strange(name, "an annotation without box or category", '"bbox" and "category_id"') from error
    if len(box) != 4 or not known:
        raise _strange(name, "an annotation of another kind", "bbox [x, y, width, height], a category of the table")
    return {**row, "bbox": box}


def _objects(rows: Sequence[Mapping[str, Any]]) -> Objects:
    """``[x, y, width, height]``, in pixels from the left and the top, as corners: row, column, row, column."""
    boxes = [[y, x, y + h, x + w] for x, y, w, h in (row["bbox"] for row in rows)]
    return Objects(
        torch.tensor(boxes, dtype=torch.float64).float().reshape(-1, 4),
        torch.tensor([row["category_id"] for row in rows], dtype=torch.int64),
        difficult=torch.tensor([bool(row.get("iscrowd", 0)) for row in rows], dtype=torch.bool),
    )


def _painted(
    rows: Sequence[Mapping[str, Any]], size: tuple[int, int], scheme: LabelScheme, wanted: bool
) -> Painted | None:
    if not wanted:
        return None
    parts = tuple((row["category_id"], row.get("segmentation")) for row in rows if not row.get("iscrowd", 0))
    crowds = tuple(row.get("segmentation") for row in rows if row.get("iscrowd", 0))
    assert scheme.void is not None
    return Painted(size, parts, crowds, scheme.numbers[BACKGROUND], scheme.void)


def _strange(name: str, problem: str, expected: str) -> CaseError:
    return CaseError(
        Reason.DECLARATION, f"{name}: {problem}", expected=expected, advice="correct the file, or take the picture out"
    )
