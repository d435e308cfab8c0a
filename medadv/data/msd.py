"""Medical Segmentation Decathlon folders: ``dataset.json`` declares channels, label numbers and pairs of files.

Source: Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 2022.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints, ValidationError

from medadv.data.case import Case, Cohort, Refusal, twin_name
from medadv.errors import ConfigError, Reason
from medadv.labels import BACKGROUND, MSD_TASK01, LabelScheme

_Name = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^\w[\w .+-]*$")]

_GLIOMA_CHANNELS = {"flair": "flair", "t1w": "t1", "t1gd": "t1ce", "t2w": "t2"}
_GLIOMA_TISSUES = {"edema": "oedema", "non-enhancing tumor": "necrosis", "enhancing tumor": "enhancing"}


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

    Task01's three tumour labels become the scheme ``msd-task01``, its channels ``flair, t1, t1ce, t2``. Other tasks
    keep their names; where there is more than one tissue, the region ``foreground`` holds them all. Patients are
    unknown. Pairs that leave the folder or do not exist become refusals. Of pairs that are listed under one name, the
    first that is whole is the case; the others are refused under their place in the list.

    Raises:
        ConfigError: ``dataset.json`` is missing, malformed, or declares labels or channels that cannot be meant.
    """
    root = Path(root)
    declared = _declared(root)
    scheme = _scheme(declared)
    modalities = _modalities(declared, scheme)
    cases: dict[str, Case] = {}
    refused: list[Refusal] = []
    names = [PurePosixPath(pair.image).name.removesuffix(".gz").removesuffix(".nii") for pair in declared.training]
    count = Counter(names)
    for place, (name, pair) in enumerate(zip(names, declared.training, strict=True), start=1):
        problem = _problem(root, pair)
        if name in cases:
            problem = Reason.EXTRA_MODALITY, f"{name} is listed twice"
        if problem is not None:
            taken = {*count, *(refusal.case for refusal in refused)}
            refused.append(Refusal(name if count[name] == 1 else twin_name(f"{name}-entry-{place}", taken), *problem))
            continue
        cases[name] = Case(name, None, dict.fromkeys(modalities, root / pair.image), root / pair.label, scheme)
    return Cohort(list(cases.values()), refused, modalities, scheme)


def _declared(root: Path) -> _Dataset:
    path = root / "dataset.json"
    try:
        return _Dataset.model_validate_json(path.read_bytes())
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


def _plain(name: str) -> str:
    return name.lower().replace("tumour", "tumor").replace("oedema", "edema")


def _scheme(declared: _Dataset) -> LabelScheme:
    glioma = {_GLIOMA_TISSUES.get(_plain(tissue), tissue.lower()): number for number, tissue in declared.labels.items()}
    if glioma == MSD_TASK01.numbers:
        return MSD_TASK01
    numbers: dict[str, int] = {}
    for number, tissue in declared.labels.items():
        name = BACKGROUND if tissue.lower() == BACKGROUND else tissue
        if name in numbers:
            raise ConfigError("dataset.json gives two label numbers one name", got=declared.labels)
        numbers[name] = number
    tissues = tuple(name for name in numbers if name != BACKGROUND)
    return LabelScheme(declared.name, numbers, {"foreground": tissues} if len(tissues) > 1 else {})


def _modalities(declared: _Dataset, scheme: LabelScheme) -> tuple[str, ...]:
    """The channels in the order of the files' last axis."""
    if sorted(declared.modality) != list(range(len(declared.modality))):
        raise ConfigError("dataset.json does not number its channels 0, 1, 2 …", got=declared.modality)
    names = [declared.modality[number] for number in range(len(declared.modality))]
    if scheme is MSD_TASK01:
        names = [_GLIOMA_CHANNELS.get(name.lower(), name) for name in names]
    if len(set(names)) != len(names):
        raise ConfigError("dataset.json gives two channels one name", got=declared.modality)
    return tuple(names)


def _problem(root: Path, pair: _Pair) -> tuple[Reason, str] | None:
    """What is wrong with a pair of files, if anything."""
    for file, reason in ((pair.image, Reason.MISSING_MODALITY), (pair.label, Reason.MISSING_LABEL)):
        # By its parts and not resolved: people link large data sets into place.
        parts = PurePosixPath(file.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or ":" in file:
            return reason, f"{file} leaves the data set's folder"
        if not (root / file).is_file():
            return reason, f"there is no file {file}"
    return None
