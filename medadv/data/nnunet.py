"""nnU-Net's raw data sets (version 2): ``dataset.json``, ``imagesTr/CASE_0000.nii.gz`` …, ``labelsTr/CASE.nii.gz``.

Source: nnU-Net's documentation, dataset_format.md, region_based_training.md, ignore_label.md, manual_data_splits.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StrictInt, TypeAdapter, ValidationError

from medadv.data.case import Case, Cohort
from medadv.data.census import Census, hidden, present
from medadv.errors import CaseError, ConfigError, Reason
from medadv.labels import LabelScheme
from medadv.vocabulary import declared_scheme, modalities

SPLITS = "splits_final.json"
_NUMBERED = re.compile(r"(.+)_(\d{4})")


class _Files(BaseModel):
    """One case of the key ``dataset``."""

    images: list[str] = Field(min_length=1)
    label: str


class _Dataset(BaseModel):
    """The part of ``dataset.json`` that is used; the rest (licence, description, readers) is passed over."""

    channel_names: dict[int, str] = Field(min_length=1)
    labels: dict[str, StrictInt | Annotated[list[StrictInt], Field(min_length=1)]] = Field(min_length=2)
    regions_class_order: list[StrictInt] = Field(default=[])
    file_ending: Literal[".nii.gz", ".nii", ".nrrd", ".mha"]
    dataset: dict[str, Any] | None = None


class _Fold(BaseModel):
    train: list[str]
    val: list[str]


def nnunet_cohort(root: str | Path, splits: str | Path | None = None) -> Cohort:
    """The labelled cases of an nnU-Net raw data set, in the order of their ids.

    Channels come out under their names here (``T1Gd`` → ``t1ce``), labels and regions likewise. Where ``dataset.json``
    has the key ``dataset``, the files are those it names: relative to the folder, or absolute, as nnU-Net takes them;
    variables of the environment are not expanded. Patients are unknown.

    Args:
        root: the folder that holds ``dataset.json``.
        splits: nnU-Net's ``splits_final.json``; where left out, one beside ``dataset.json`` is taken if there is one.
            A case's fold is the one that validates on it. Where folds overlap, as in repeated random splits, no case
            has one; splits that are named must not overlap.

    Raises:
        ConfigError: ``dataset.json`` or the splits are missing, malformed, of another version, declare labels or
            channels that cannot be meant, or an ``ignore`` label; or there is no case.
    """
    root = Path(root)
    declared = _declared(root)
    scheme, channels = _scheme(declared), _channels(declared)
    folds = _folds(Path(splits) if splits is not None else root / SPLITS, splits is not None)
    listed = declared.dataset
    entries = _identifiers(root, declared.file_ending) if listed is None else dict(sorted(listed.items()))
    if folds and not set(folds) & set(entries):
        raise ConfigError(f"{SPLITS} names none of the data set's cases", advice="name the splits of this data set")
    census = Census(entries)
    for name, entry in entries.items():
        with census.at(name, name):
            images, label = (
                _of_folder(root, name, entry, declared) if listed is None else _of_list(root, name, entry)
            )
            if len(images) != len(channels):
                few = len(images) < len(channels)
                raise CaseError(
                    Reason.MISSING_MODALITY if few else Reason.EXTRA_MODALITY,
                    f"{name}: not a file for each channel",
                    got=f"{len(images)} files",
                    expected=f"{len(channels)}: {', '.join(channels)}",
                )
            each = {m: present(path, name, m) for m, path in zip(channels, images, strict=True)}
            present(label, name, "the label", Reason.MISSING_LABEL)
            census.take(Case(name, None, each, label, scheme, fold=folds.get(name)))
    return census.cohort(channels, scheme)


def _declared(root: Path) -> _Dataset:
    path = root / "dataset.json"
    try:
        content = json.loads(path.read_bytes())
        if isinstance(content, dict) and "modality" in content and "channel_names" not in content:
            raise ConfigError(
                "this dataset.json is a Decathlon's, or of nnU-Net's version 1",
                got='"modality"',
                expected='"channel_names", as nnU-Net 2 writes it',
                advice="import a Decathlon's task with importer: msd; convert a data set of version 1 with "
                "nnUNetv2_convert_old_nnUNet_dataset",
            )
        return _Dataset.model_validate(content)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read",
            got=error,
            expected="a raw data set, such as nnUNet_raw/Dataset001_BrainTumour",
            advice="name the folder that holds dataset.json",
        ) from error
    except (ValueError, RecursionError) as error:
        problems = [str(error) or "nested too deeply"]
        if isinstance(error, ValidationError):
            problems = [f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()]
        raise ConfigError(
            f"{path} is not nnU-Net's dataset.json",
            got="; ".join(problems[:5]),
            expected='"channel_names" {"0": …}, "labels" {"background": 0, …}, "file_ending" (.nii.gz, .nrrd, .mha)',
            advice="compare it with nnU-Net's documentation of its data format; pictures and 2-D data are not imported",
        ) from error


def _scheme(declared: _Dataset) -> LabelScheme:
    """Voxels under ``ignore`` were not annotated: nnU-Net neither learns nor scores them; nothing here can say so."""
    if "ignore" in declared.labels:
        raise ConfigError(
            "the data set has an ignore label: parts of its images were not annotated",
            got=f"ignore: {declared.labels['ignore']}",
            expected="labels for every voxel",
            advice="attack densely annotated cases: take ignore out of a copy of dataset.json; cases that hold its "
            "number are then refused one by one, and the others are used",
        )
    return declared_scheme("nnunet", declared.labels, declared.regions_class_order)


def _channels(declared: _Dataset) -> tuple[str, ...]:
    if sorted(declared.channel_names) != list(range(len(declared.channel_names))):
        raise ConfigError("dataset.json does not number its channels 0, 1, 2 …", got=declared.channel_names)
    return modalities([declared.channel_names[number] for number in range(len(declared.channel_names))])


def _files(folder: Path, ending: str) -> list[str]:
    """The names of a folder's files with that ending, without it."""
    if not folder.is_dir():
        return []
    names = (file.name for file in folder.iterdir())
    return sorted(name.removesuffix(ending) for name in names if name.endswith(ending) and not hidden(name))


def _identifiers(root: Path, ending: str) -> dict[str, list[str]]:
    """Id → the numbers of its channels' files; none for an id that only a label has, or an image without a number."""
    found: dict[str, list[str]] = {}
    for file in _files(root / "imagesTr", ending):
        name, number = numbered.groups() if (numbered := _NUMBERED.fullmatch(file)) else (file, "")
        found.setdefault(name, []).append(number)
    if not found:
        raise ConfigError(
            f"no case in {root / 'imagesTr'}",
            expected=f"files such as CASE_0000{ending}",
            advice="check the folder, and that dataset.json's file_ending is that of the files",
        )
    for file in _files(root / "labelsTr", ending):
        found.setdefault(file, [])
    return dict(sorted(found.items()))


def _of_folder(root: Path, name: str, numbers: Sequence[str], declared: _Dataset) -> tuple[Sequence[Path], Path]:
    ending = declared.file_ending
    wanted = [f"{number:04d}" for number in range(len(declared.channel_names))]
    if strange := sorted(set(numbers) - set(wanted)):
        raise CaseError(
            Reason.EXTRA_MODALITY,
            f"{name}: a file of a channel that is not declared, or without the number of its channel",
            got=[f"{name}_{number}{ending}" if number else f"{name}{ending}" for number in strange],
            expected=[f"{name}_{number}{ending}" for number in wanted],
        )
    return [root / "imagesTr" / f"{name}_{number}{ending}" for number in wanted], root / "labelsTr" / f"{name}{ending}"


def _of_list(root: Path, name: str, entry: Any) -> tuple[Sequence[Path], Path]:
    try:
        files = _Files.model_validate(entry)
    except ValidationError as error:
        raise CaseError(
            Reason.DECLARATION,
            f"{name}: its entry in dataset.json cannot be meant",
            expected='{"images": [a path a channel], "label": a path}',
        ) from error
    if any("$" in path for path in (*files.images, files.label)):
        raise CaseError(
            Reason.DECLARATION, f"{name}: variables in paths are not expanded", advice="write the paths out"
        )
    return [root / path for path in files.images], root / files.label


def _folds(path: Path, asked: bool) -> Mapping[str, int]:
    """Case → the fold that validates on it."""
    if not asked and not path.exists():
        return {}
    try:
        content = TypeAdapter(list[_Fold]).validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ConfigError(
            "the splits cannot be read",
            got=error if isinstance(error, OSError) else "no list of folds",
            expected='nnU-Net\'s splits_final.json: [{"train": [ids], "val": [ids]}, …]',
            advice="name the file with splits, or move a damaged one away",
        ) from error
    folds: dict[str, int] = {}
    for number, fold in enumerate(content):
        if twice := sorted(set(fold.val) & (set(folds) | set(fold.train))):
            if not asked:
                return {}
            raise ConfigError(
                f"fold {number} validates on cases that it trains on, or that another fold validates on",
                got=f"{len(twice)} cases",
                expected="each case in the val of one fold",
                advice="name splits that make a cross-validation, or leave data.splits out and let medadv make folds",
            )
        folds |= dict.fromkeys(fold.val, number)
    return folds
