"""Where a study's data come from: what a user writes under ``data``, and the cohort that it means."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StrictInt, field_validator

from medadv.data.brats import RELEASES, brats_cohort
from medadv.data.case import Cohort
from medadv.data.datalist import datalist_cohort
from medadv.data.msd import msd_cohort
from medadv.data.nnunet import nnunet_cohort
from medadv.data.pattern import pattern_cohort, told
from medadv.data.phantom import phantom
from medadv.errors import ConfigError, RunError
from medadv.labels import BRATS_2018, SCHEMES, LabelScheme
from medadv.study.names import Names
from medadv.study.picture_sources import CityscapesData, CocoData, PicturesData, VocData
from medadv.study.specified import Specified
from medadv.vocabulary import declared_scheme, modality

PATHS = ("root", "datalist", "splits", "listing", "annotations", "masks")
"""The keys of ``data`` that say where files lie. They may change without changing the study."""

_PRIVATE = ("images", "label", "mask", "case", "patient", "stratum")
"""The keys of ``data`` that say which files are what, and how cases are called: patterns and keys of lists."""

Numbers = StrictInt | Annotated[tuple[StrictInt, ...], Field(min_length=1)]
Patient = Annotated[
    str | None, Field(description="how a case's id tells its patient, e.g. BraTS-GLI-{patient}-*; unknown if left out")
]
Stratum = Annotated[str | None, Field(description="how a case's id tells its group, e.g. {stratum}_*")]


class _Scans(Specified):
    """What all data sets of scans have in common."""

    axes: ClassVar[int] = 3
    """Axes of space: 3 of a scan, 2 of a picture."""

    @property
    def tissues(self) -> tuple[str, ...] | None:
        """The tissues in the order of their numbers, background first; None where only the data themselves tell."""
        return None


class PhantomData(_Scans):
    """Generated four-modality MR with gliomas."""

    importer: Literal["phantom"] = "phantom"
    root: str | None = Field(None, description="where to write it; beside the run if left out")
    cases: int = Field(24, ge=1)
    shape: tuple[int, int, int] = (48, 48, 48)

    @property
    def tissues(self) -> tuple[str, ...]:
        """A glioma's."""
        return BRATS_2018.tissues


class _Files(_Scans):
    """What all data sets of files may say."""

    grid: str | None = Field(
        None,
        description="registered modalities on different grids are resampled onto this one's; refused if left out",
    )


class BratsData(_Files):
    """A BraTS folder, its release declared."""

    importer: Literal["brats"]
    root: str
    release: Literal["2018", "2019", "2020", "2021", "2022", "2023", "2024"]

    @property
    def tissues(self) -> tuple[str, ...]:
        """The release's."""
        return RELEASES[self.release].scheme.tissues

    def cohort(self) -> Cohort:
        """What the folder holds."""
        return brats_cohort(_path(self.root), self.release)


class MsdData(_Files):
    """A task of the Medical Segmentation Decathlon: a folder with a dataset.json."""

    importer: Literal["msd"]
    root: str
    patient: Patient = None
    stratum: Stratum = None

    def cohort(self) -> Cohort:
        """What the task holds."""
        return told(msd_cohort(_path(self.root)), self.patient, self.stratum)


class NnunetData(_Files):
    """A raw data set of nnU-Net 2: a folder with a dataset.json, imagesTr and labelsTr."""

    importer: Literal["nnunet"]
    root: str
    splits: str | None = Field(None, description="splits_final.json, for folds; beside dataset.json if left out")
    patient: Patient = None
    stratum: Stratum = None

    def cohort(self) -> Cohort:
        """What the data set holds."""
        splits = None if self.splits is None else _path(self.splits)
        return told(nnunet_cohort(_path(self.root), splits), self.patient, self.stratum)


class _Declared(_Files):
    """Data that do not say what their label numbers mean."""

    labels: str | dict[str, Numbers] = Field(
        description="a scheme's name, or name → number (or numbers, for regions) with background: 0"
    )

    @field_validator("labels")
    @classmethod
    def _meant(cls, labels: str | dict[str, Numbers]) -> str | dict[str, Numbers]:
        try:
            _scheme(labels)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return labels

    @property
    def scheme(self) -> LabelScheme:
        """What the label numbers mean."""
        return _scheme(self.labels)

    @property
    def tissues(self) -> tuple[str, ...]:
        """Those of the scheme."""
        return self.scheme.tissues


class DatalistData(_Declared):
    """A list of files in JSON, as MONAI reads it; channels and labels declared."""

    importer: Literal["datalist"]
    datalist: str = Field(description="the JSON file")
    root: str | None = Field(None, description="what its paths start from; the list's folder if left out")
    modalities: tuple[str, ...] = Field(min_length=1, description="what the channels show, in their order")
    section: Literal["training", "validation", "testing", "test"] = "training"
    case: str | None = Field(None, description="the entries' key that holds the id; from file names if left out")
    patient: str | None = Field(None, description="the entries' key that holds the patient; unknown if left out")
    stratum: str | None = Field(None, description="the entries' key that holds a group, e.g. site")

    def cohort(self) -> Cohort:
        """What the list's section holds."""
        return datalist_cohort(
            _path(self.datalist),
            self.modalities,
            self.scheme,
            None if self.root is None else _path(self.root),
            self.section,
            case=self.case,
            patient=self.patient,
            stratum=self.stratum,
        )


class PatternData(_Declared):
    """A plain folder whose files follow a pattern; channels and labels declared."""

    importer: Literal["pattern"]
    root: str
    images: dict[str, str] = Field(min_length=1, description="modality → pattern with {case}, in the channels' order")
    label: str = Field(description="the label maps' pattern")
    mask: str | None = Field(None, description="the pattern of masks that say where the head is")
    patient: Patient = None
    stratum: Stratum = None

    def cohort(self) -> Cohort:
        """What the folder holds."""
        rest = {"mask": self.mask, "patient": self.patient, "stratum": self.stratum}
        return pattern_cohort(_path(self.root), self.images, self.label, self.scheme, **rest)


Scans = PhantomData | BratsData | MsdData | NnunetData | DatalistData | PatternData
Photographs = PicturesData | VocData | CityscapesData | CocoData
Data = Annotated[Scans | Photographs, Field(discriminator="importer")]


def imported(data: Data, folder: Path, seed: int, alone: bool) -> Cohort:
    """The cohort that a study's ``data`` means.

    Args:
        data: as the user wrote it.
        folder: the run's folder; phantoms are written into it.
        seed: of the phantoms.
        alone: whether this is the only process; parts of a study write no data.

    Raises:
        ConfigError: no such data, or a declaration that they cannot serve.
        RunError: phantoms that must be made first.
    """
    if isinstance(data, PhantomData):
        return _phantoms(data, folder, seed, alone)
    if isinstance(data, PicturesData):
        return _pictures(data, folder, seed, alone)
    try:
        cohort = data.cohort()
    except OSError as error:
        raise ConfigError("the data cannot be read", got=error, advice="check the folder's permissions") from error
    _whole_patients(cohort)
    if data.grid is None:
        return cohort
    grid = modality(data.grid)
    if grid not in cohort.modalities:
        raise ConfigError("data.grid names no modality of the data", got=data.grid, expected=list(cohort.modalities))
    return replace(cohort, cases=[replace(case, grid=grid) for case in cohort.cases])


def without_names(data: Mapping[str, Any], names: Names) -> dict[str, Any]:
    """What is written under ``data``, without paths, patterns and keys: they may name patients or people.

    Paths may change and leave no trace. In the place of what says which files are meant, and whose they are, stands a
    keyed digest: it tells nothing without the key, and is another where the value is another.
    """

    def private(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: private(inner) for key, inner in value.items()}
        return None if value is None else f"private {names[json.dumps(value)]}"

    def told(key: str, value: Any) -> Any:
        if key in PATHS:
            return None if value is None else "private"
        return private(value) if key in _PRIVATE else value

    return {key: told(key, value) for key, value in data.items()}


def _phantoms(data: PhantomData, folder: Path, seed: int, alone: bool) -> Cohort:
    root = _path(data.root) if data.root else folder / "phantom"
    if alone:
        return phantom(root, data.cases, data.shape, seed)
    if len(list(root.glob("Phantom_*"))) < data.cases:
        raise RunError("the phantoms are not made yet", advice="run `medadv train` on this study first, then its parts")
    return brats_cohort(root, "2021")


def _pictures(data: PicturesData, folder: Path, seed: int, alone: bool) -> Cohort:
    root = _path(data.root) if data.root else folder / "pictures"
    if alone:
        return data.written(root, seed)
    try:
        return data.found(root)
    except ConfigError as error:
        advice = "run `medadv train` on this study first, then its parts"
        raise RunError("the pictures are not made yet", advice=advice) from error


def _path(text: str) -> Path:
    return Path(text).expanduser()


def _scheme(labels: str | Mapping[str, int | Sequence[int]]) -> LabelScheme:
    if not isinstance(labels, str):
        return declared_scheme("declared", labels)
    if labels not in SCHEMES:
        raise ConfigError(
            "there is no such label scheme",
            got=labels,
            expected=f"one of {list(SCHEMES)}, or a table such as {{background: 0, lesion: 1}}",
        )
    return SCHEMES[labels]


def _whole_patients(cohort: Cohort) -> None:
    """Folds that part a patient would test a network on somebody whom it has learnt from."""
    folds: dict[str, set[int | None]] = {}
    for case in cohort.cases:
        if case.patient is not None:
            folds.setdefault(case.patient, set()).add(case.fold)
    if parted := sorted(patient for patient, found in folds.items() if len(found) > 1):
        raise ConfigError(
            "the data's folds part patients",
            got=f"{len(parted)} patients with scans in several folds, such as {parted[0]}",
            expected="all scans of a patient in one fold",
            advice="make the folds by patient, or correct data.patient",
        )
