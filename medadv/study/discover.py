"""What a path holds, told by names: which importer, which release. What is concluded is said, the rest is asked for.

Channel order and label numbers are never read off voxels: the release, a ``dataset.json`` or the user declares them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medadv.data.brats import MODALITIES, RELEASES, SUFFIXES
from medadv.data.case import Cohort
from medadv.data.census import hidden
from medadv.errors import ConfigError
from medadv.study.load import as_data, load_study
from medadv.study.sources import Data

_STUDY = (".yaml", ".yml")
_EARLY_ID = re.compile(r"brats(?:20)?(1[89]|2[0-2])_", re.IGNORECASE)
_YEAR = re.compile(r"(?<!\d)20(2[34])(?!\d)")
_CHALLENGE = re.compile(r"BraTS-(?!GLI-|GoAT-)[A-Za-z]+-")
"""Ids of the challenges beside the glioma one, which have its file names and not always its label numbers."""
_LATE = ("t1n", "t1c", "t2w", "t2f")
_PICTURES = {
    "JPEGImages": ("voc", "it holds JPEGImages"),
    "VOCdevkit": ("voc", "it holds VOCdevkit"),
    "leftImg8bit": ("cityscapes", "it holds leftImg8bit"),
}
"""Folder → importer, and why."""
_DEEPEST = 4
_KINDS = (
    "a BraTS folder; a folder with the dataset.json of a Decathlon's task or of nnU-Net; a MONAI datalist (.json); "
    "a folder of Pascal VOC or Cityscapes; COCO's JSON, with --importer coco; a study (.yaml)"
)


@dataclass(frozen=True)
class Found:
    """What a path holds.

    Attributes:
        data: as a study says it.
        assumed: what was concluded from names, or declared; a line each.
        title: what the data set is called.
        seed: of a study's phantoms.
    """

    data: Data
    assumed: tuple[str, ...]
    title: str
    seed: int = 0

    def declared(self, cohort: Cohort) -> tuple[str, ...]:
        """What was concluded, and what the data set or its user declares of channels and labels."""
        numbers = ", ".join(f"{number} {tissue}" for tissue, number in cohort.scheme.numbers.items())
        channels = f"channels, in this order: {', '.join(cohort.modalities)}"
        labels = f"label numbers ({cohort.scheme.name}): {numbers}"
        strange = sorted({match[0] for case in cohort.cases if (match := _CHALLENGE.match(case.case))})
        if strange and self.data.importer == "brats":
            labels += (
                f". These are the glioma challenge's, while ids begin with {', '.join(strange)}: hold them against "
                "that challenge's own; where they differ, use importer: pattern and declare them"
            )
        return (*self.assumed, channels, labels)


@dataclass
class _Told:
    """A study's ``data`` in the making."""

    content: dict[str, Any]
    assumed: list[str] = field(default_factory=list)

    def conclude(self, key: str, value: str, because: str) -> None:
        if key not in self.content:
            self.content[key] = value
            self.assumed.append(f"{key} {value}: {because}")


def discover(path: Path, given: Mapping[str, Any]) -> Found:
    """Which of a study's ``data`` a path is.

    Args:
        path: a folder, a datalist, a dataset.json, or a study, whose data are taken.
        given: what the user declares, under the keys of ``data``.

    Raises:
        ConfigError: nothing there, no layout that is known by its names, or something that must be declared.
    """
    path = path.expanduser()
    if not path.exists():
        raise ConfigError(f"there is nothing at {path}", expected=_KINDS, advice="check the path")
    if path.suffix.lower() in _STUDY:
        study = load_study(path)
        content = study.data.model_dump(mode="json", exclude_unset=True) | {"importer": study.data.importer}
        said = (f"importer {study.data.importer}: {path.name} says so",)
        return Found(as_data(content | dict(given)), said, study.study, study.seed)
    if path.name == "dataset.json":
        path = path.parent
    told = _Told(dict(given), [f"{key} {value}: declared" for key, value in given.items()])
    if path.is_file() and given.get("importer") == "coco":
        told.content["annotations"] = str(path)
    elif path.is_file():
        told.conclude("importer", "datalist", f"{path.name} is a list of files")
        told.content["datalist"] = str(path)
    else:
        told.content.setdefault("root", str(path))
        _of_folder(path, told)
    return Found(as_data(told.content), tuple(told.assumed), path.resolve().name or str(path))


def _of_folder(folder: Path, told: _Told) -> None:
    if "importer" not in told.content:
        if (folder / "dataset.json").is_file():
            _of_dataset_json(folder / "dataset.json", told)
        elif picture := next((importer for name, importer in _PICTURES.items() if (folder / name).is_dir()), None):
            told.conclude("importer", picture[0], picture[1])
        elif case := next(_brats_cases(folder, 0), None):
            told.conclude("importer", "brats", f"folders such as {case[0].name} hold {case[1]}")
        else:
            raise _unknown(folder)
    if told.content["importer"] == "brats":
        _release(folder, told)


def _of_dataset_json(path: Path, told: _Told) -> None:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read", got=error, expected="a description of the data set") from error
    keys = set(content) if isinstance(content, dict) else set()
    if "channel_names" in keys:
        told.conclude("importer", "nnunet", "its dataset.json has channel_names")
    elif "modality" in keys:
        told.conclude("importer", "msd", "its dataset.json has modality")
    else:
        raise ConfigError(
            f"{path.name} is neither a Decathlon's nor nnU-Net's",
            got=sorted(keys)[:8],
            expected='"modality" (Decathlon) or "channel_names" (nnU-Net 2)',
        )


def _release(folder: Path, told: _Told) -> None:
    """The year, where ids or folders say it. Before 2023 names and numbers are the same every year."""
    if "release" in told.content:
        return
    case, file = next(_brats_cases(folder, 0), (None, None))
    if case is None or file is None:
        return  # the importer says what is wrong
    late = any(file.endswith(f"-{name}{suffix}") for name in _LATE for suffix in SUFFIXES)
    if not late:
        match = _EARLY_ID.match(case.name)
        because = f"ids such as {case.name}" if match else "file names and label numbers are those of 2018 to 2022"
        told.conclude("release", f"20{match[1]}" if match else "2021", because)
        return
    years = {f"20{year}" for part in (*folder.resolve().parts, *case.parts) for year in _YEAR.findall(part)}
    if len(years) != 1:
        raise ConfigError(
            "file names do not tell which BraTS release this is, and with it what label 4 means",
            got=file,
            expected="--release 2023 (1 necrosis, 2 oedema, 3 enhancing) or --release 2024 (and 4 resection cavity)",
            cause="both years name files alike" if not years else f"folders speak of {sorted(years)}",
            advice="name the release; where the data set is of another task, --importer pattern and its own labels",
        )
    told.conclude("release", years.pop(), "a folder's name says so")


def _brats_cases(folder: Path, depth: int) -> Iterator[tuple[Path, str]]:
    """Folders that hold an image called after them and a modality of BraTS, and that image's name."""
    names = {name for rules in RELEASES.values() for name in rules.names.values()}
    try:
        inside = sorted(path for path in folder.iterdir() if not hidden(path.name))
    except OSError:
        return
    for path in inside:
        stem = re.fullmatch(r"(.+)[_-]([a-z0-9]+)\.nii(\.gz)?", path.name)
        if stem and stem[1] == folder.resolve().name and stem[2] in names:
            yield folder, path.name
            return
    for path in inside if depth < _DEEPEST else ():
        if path.is_dir():
            yield from _brats_cases(path, depth + 1)


def _unknown(folder: Path) -> ConfigError:
    below = [path.parent.name for path in sorted(folder.glob("*/dataset.json"))]
    lists = [path.name for path in sorted(folder.glob("*.json"))]
    if below:
        advice = f"name the data set itself, for instance {folder / below[0]}"
    elif lists:
        advice = f"if {lists[0]} is a list of its files, name it: {folder / lists[0]}"
    else:
        advice = (
            "declare the layout: --importer pattern --set 'images={t1: \"{case}/t1.nii.gz\"}' "
            "--set 'label={case}/seg.nii.gz' --set 'labels={background: 0, lesion: 1}'"
        )
    return ConfigError(
        f"the layout of {folder} is not known by its names",
        got=sorted(path.name for path in folder.iterdir())[:6] or "an empty folder",
        expected=_KINDS,
        cause=f"no folder is called as its images are, such as CASE/CASE_{MODALITIES[0]}.nii.gz",
        advice=advice,
    )
