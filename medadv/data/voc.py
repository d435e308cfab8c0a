"""Pascal VOC folders: pictures, label maps, boxes and lists, as the devkits of 2007 and 2012 lay them out.

Source: Everingham et al., The Pascal Visual Object Classes (VOC) Challenge, IJCV 2010; the devkit's documentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import torch

from medadv.data.case import Case, Cohort, Picture
from medadv.data.census import Census, hidden
from medadv.data.listing import listed
from medadv.data.pixels import CHANNELS, is_picture
from medadv.errors import CaseError, ConfigError, Reason
from medadv.labels import BACKGROUND, VOC, LabelScheme
from medadv.objects import Objects

Task = Literal["segmentation", "detection"]

_LISTS: Mapping[Task, str] = {"segmentation": "Segmentation", "detection": "Main"}
_LONGEST = 1 << 22
"""Bytes of an annotation."""


def voc_cohort(
    root: str | Path,
    year: str | None = None,
    split: str = "val",
    *,
    task: Task = "segmentation",
    listing: str | Path | None = None,
    scheme: LabelScheme = VOC,
    picture: Picture | None = None,
) -> Cohort:
    """The pictures of a VOC folder that a list names, in its order.

    A case has the label map and the boxes that there are for it; one without boxes serves a segmentation study all the
    same, and one without a label map a detection study. Patients are unknown.

    Args:
        root: the folder that holds ``JPEGImages``; or ``VOCdevkit``, or the folder that holds that.
        year: which of the devkit's ``VOC…`` folders; may be left out where there is one.
        split: the list, such as ``train``, ``val``, ``trainval``, ``test``.
        task: whose lists: ``ImageSets/Segmentation`` or ``ImageSets/Main``.
        listing: a list of your own, in the place of ``split``: a text file, one id a line.
        scheme: what numbers and names of objects mean.
        picture: how pictures are taken from their files.

    Raises:
        ConfigError: no such folder or list, or a list that cannot be read.
    """
    folder = _folder(Path(root), year)
    ids = listed(Path(listing) if listing is not None else _list(folder, task, split))
    files = _Files(_found(folder / "JPEGImages"), _found(folder / "SegmentationClass"), folder / "Annotations")
    census = Census(ids)
    for place, name in enumerate(ids, start=1):
        with census.at(name, f"{name}-line-{place}"):
            image = _one(name, files.pictures, Reason.MISSING_MODALITY)
            label = _one(name, files.masks, Reason.MISSING_LABEL) if name in files.masks else None
            objects, declared = annotated(files.annotations / f"{name}.xml", name, scheme)
            settings = replace(picture or Picture(), declared=declared)
            images = dict.fromkeys(CHANNELS, image)
            census.take(Case(name, None, images, label, scheme, objects=objects, picture=settings))
    return census.cohort(CHANNELS, scheme)


def annotated(path: Path, name: str, scheme: LabelScheme) -> tuple[Objects | None, tuple[int, int] | None]:
    """The objects of an annotation, and the picture's height and width if it says them; None without a file.

    VOC counts pixels from 1 and includes the last: a box from xmin to xmax covers [xmin − 1, xmax].

    Raises:
        CaseError: DECLARATION, an annotation that cannot be read, or objects that the scheme does not know.
    """
    if not path.is_file():
        return None, None
    try:
        if path.stat().st_size > _LONGEST:
            raise ValueError("larger than any annotation")
        content = path.read_bytes()
        if b"<!" in content.replace(b"<!--", b""):  # entities could name other files, or grow without end
            raise ValueError("a document type, or entities")
        root = ElementTree.fromstring(content)
        boxes, labels, difficult = [], [], []
        for each in root.findall("object"):
            kind = _text(each, "name")
            if kind == BACKGROUND or kind not in scheme.numbers:
                raise ValueError(f"an object of the unknown class {kind!r}")
            box = each.find("bndbox")
            if box is None:
                raise ValueError("an object without bndbox")
            xmin, ymin, xmax, ymax = (float(_text(box, key)) for key in ("xmin", "ymin", "xmax", "ymax"))
            boxes.append([ymin - 1, xmin - 1, ymax, xmax])
            labels.append(scheme.numbers[kind])
            difficult.append(each.findtext("difficult", "0").strip() == "1")
        height, width = (int(float(root.findtext(f"size/{key}", "0"))) for key in ("height", "width"))
    except (ElementTree.ParseError, ValueError, OverflowError) as error:
        raise CaseError(
            Reason.DECLARATION,
            f"{name}: its annotation cannot be used",
            names=[path.name],
            got=str(error),
            expected=f"VOC's XML: objects with name and bndbox, of {', '.join(_known(scheme))}",
            advice="correct it; classes of your own are declared: classes",
        ) from error
    objects = Objects(torch.tensor(boxes).reshape(-1, 4), torch.tensor(labels, dtype=torch.int64), None, None)
    objects = replace(objects, difficult=torch.tensor(difficult, dtype=torch.bool))
    return objects, (height, width) if height and width else None


@dataclass(frozen=True)
class _Files:
    pictures: Mapping[str, list[Path]]
    masks: Mapping[str, list[Path]]
    annotations: Path


def _known(scheme: LabelScheme) -> list[str]:
    names = [name for name in scheme.tissues if name != BACKGROUND]
    return names if len(names) <= 24 else [*names[:24], "…"]


def _text(element: ElementTree.Element, key: str) -> str:
    text = element.findtext(key)
    if text is None or not text.strip():
        raise ValueError(f"an object without {key}")
    return text.strip()


def _folder(root: Path, year: str | None) -> Path:
    """The folder that holds ``JPEGImages``."""
    if year is None and (root / "JPEGImages").is_dir():
        return root
    places = [root, root / "VOCdevkit"]
    found = {p.name: p for place in places for p in sorted(place.glob("VOC*")) if (p / "JPEGImages").is_dir()}
    if year is not None and (root.name == f"VOC{year}" and (root / "JPEGImages").is_dir()):
        return root
    wanted = [found[f"VOC{year}"]] if year is not None and f"VOC{year}" in found else []
    wanted = wanted or (list(found.values()) if year is None else [])
    if len(wanted) != 1:
        raise ConfigError(
            f"{root} is not a VOC folder" if not found else "the devkit's folder does not tell which year is meant",
            got=sorted(found) or None,
            expected="JPEGImages, SegmentationClass, Annotations and ImageSets in it; or VOCdevkit, and data.year",
            advice="name the folder, such as VOCdevkit/VOC2012" if not found else f"year: one of {sorted(found)}",
        )
    return wanted[0]


def _list(folder: Path, task: Task, split: str) -> Path:
    lists = folder / "ImageSets" / _LISTS[task]
    path = lists / f"{split}.txt"
    if Path(split).name != split or not path.is_file():
        raise ConfigError(
            f"there is no list {split!r} for {task}",
            got=sorted(p.stem for p in lists.glob("*.txt"))[:12] or f"nothing in ImageSets/{_LISTS[task]}",
            expected="one of VOC's lists, such as train or val",
            advice="name one; or a file of your own, one id a line: data.listing",
        )
    return path


def _found(folder: Path) -> Mapping[str, list[Path]]:
    """Id → files, of the pictures in a folder."""
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if is_picture(path) and not hidden(path.name):
            files.setdefault(path.stem, []).append(path)
    return files


def _one(name: str, files: Mapping[str, list[Path]], missing: Reason) -> Path:
    found = files.get(name, [])
    if len(found) != 1:
        raise CaseError(
            Reason.EXTRA_MODALITY if found else missing,
            f"{name}: {len(found) or 'no'} files of this name",
            got=[path.name for path in found] or None,
            expected="one",
            advice="keep the file that is right" if found else "check that the data set was unpacked whole",
        )
    return found[0]
