"""Medical Segmentation Decathlon folders: ``dataset.json`` declares channels, label numbers and pairs of files.

Source: Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 2022.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints, ValidationError

from medadv.data.case import Case, Cohort
from medadv.data.census import Census, hidden, inside, posix
from medadv.errors import ConfigError, Reason
from medadv.labels import MSD_TASK01, LabelScheme
from medadv.vocabulary import declared_scheme, modalities

_Name = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^\w[\w .+-]*$")]


class _Pair(BaseModel):
    image: str
    label: str


class _Dataset(BaseModel):
    """The part of ``dataset.json`` that is used; the rest (licence, release, tests without labels) is passed over."""

    name: str
    modality: dict[int, _Name] = Field(min_length=1)
    labels: dict[int, _Name] = Field(min_length=2)
    training: list[_Pair] = Field(min_length=1)


def msd_cohort(root: str | Path) -> Cohort:
    """The labelled cases of a Medical Segmentation Decathlon task.

    Task01's three tumour labels become the scheme ``msd-task01``, its channels ``flair, t1, t1ce, t2``. The tissues of
    other tasks keep their names; where there is more than one, the region ``foreground`` holds them all. Patients are
    unknown. Pairs that leave the folder or do not exist become refusals; those whose files begin with ``.`` or ``_``
    are passed over. Of pairs that are listed under one name, the first that is whole is the case; the others are
    refused under their place in the list.

    Raises:
        ConfigError: ``dataset.json`` is missing, malformed, or declares labels or channels that cannot be meant.
    """
    root = Path(root)
    declared = _declared(root)
    scheme = _scheme(declared)
    channels = _channels(declared)
    pairs = [pair for pair in declared.training if not hidden(posix(pair.image).name)]
    names = [posix(pair.image).name.removesuffix(".gz").removesuffix(".nii") for pair in pairs]
    census = Census(names)
    for place, (name, pair) in enumerate(zip(names, pairs, strict=True), start=1):
        with census.at(name, f"{name}-entry-{place}"):
            image = inside(root, pair.image, Reason.MISSING_MODALITY)
            label = inside(root, pair.label, Reason.MISSING_LABEL)
            census.take(Case(name, None, dict.fromkeys(channels, image), label, scheme))
    return census.cohort(channels, scheme)


def _declared(root: Path) -> _Dataset:
    path = root / "dataset.json"
    try:
        content = path.read_bytes()
        _refuse_nnunet(content)
        return _Dataset.model_validate_json(content)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read",
            got=error,
            expected="the folder of one task, such as Task04_Hippocampus",
            advice="name the folder that holds dataset.json",
        ) from error
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()]
        raise ConfigError(
            f"{path} is not a Decathlon's dataset.json",
            got="; ".join(problems[:5]),
            expected='"name", "modality" {"0": …}, "labels" {"0": "background", …}, "training" [{"image", "label"}, …]',
            advice="compare it with one of the Decathlon's own; names are letters, digits, spaces and . _ + -",
        ) from error


def _refuse_nnunet(content: bytes) -> None:
    """nnU-Net's dataset.json is called the same, and means another layout."""
    try:
        declared = json.loads(content)
    except (ValueError, RecursionError):
        return  # the model tells what is wrong with it
    if isinstance(declared, dict) and "channel_names" in declared:
        raise ConfigError(
            "this dataset.json is nnU-Net's, not a Decathlon's",
            got="channel_names, and labels from name to number or to a list of numbers",
            expected='"modality", and labels from number to name',
            advice="import it with importer: nnunet",
        )


def _scheme(declared: _Dataset) -> LabelScheme:
    numbers = {name: number for number, name in declared.labels.items()}
    if len(numbers) < len(declared.labels):
        raise ConfigError("dataset.json gives two label numbers one name", got=declared.labels)
    scheme = declared_scheme(declared.name, numbers)
    return MSD_TASK01 if scheme.numbers == MSD_TASK01.numbers else scheme


def _channels(declared: _Dataset) -> tuple[str, ...]:
    """The channels in the order of the files' last axis."""
    if sorted(declared.modality) != list(range(len(declared.modality))):
        raise ConfigError("dataset.json does not number its channels 0, 1, 2 …", got=declared.modality)
    return modalities([declared.modality[number] for number in range(len(declared.modality))])
