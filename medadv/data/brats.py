"""BraTS folders, 2018 to 2024: one folder a case, one file a modality, named by the release's own rules.

The challenges beside the glioma one (``BraTS-MEN-…``, ``BraTS-MET-…``) are named by the same rules from 2023 on. Their
label numbers are not always the glioma's: where they differ, declare them with another importer.

Modalities come out under their canonical names (``t1``, ``t1ce``, ``t2``, ``flair``) whatever the release calls them,
and label numbers are those that the declared release documents; neither is read off the voxels.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medadv.data.case import Case, Cohort
from medadv.data.census import Census, hidden
from medadv.errors import CaseError, ConfigError, Reason
from medadv.labels import BRATS_2018, BRATS_2023, BRATS_2024, LabelScheme

MODALITIES = ("t1", "t1ce", "t2", "flair")
SUFFIXES = (".nii.gz", ".nii")


@dataclass(frozen=True)
class Release:
    """How one year's files are named and numbered.

    Attributes:
        separator: what stands between the case id and the modality.
        names: canonical modality → the release's name.
        scheme: what its label numbers mean.
        patient: pattern whose first group is the patient id within a case id.
        graded: whether cases lie in a folder called after the tumour's grade, ``HGG`` or ``LGG``.
        misnamed: case → what its label is called in the common copy (without its ending), instead of by the rule.
    """

    separator: str
    names: Mapping[str, str]
    scheme: LabelScheme
    patient: re.Pattern[str]
    graded: bool = False
    misnamed: Mapping[str, str] = field(default_factory=dict)


_EARLY = dict(zip(MODALITIES, MODALITIES, strict=True))
_LATE = {"t1": "t1n", "t1ce": "t1c", "t2": "t2w", "flair": "t2f"}
_CASE = re.compile(r"(.+)")
_TIME_POINT = re.compile(r"(.+)-\d{3}")  # BraTS-GLI-NNNNN-TTT: TTT is one patient's time point

_CHALLENGE = re.compile(r"BraTS-([A-Za-z]+)-")
GRADES = ("HGG", "LGG")
_MISNAMED = {"BraTS20_Training_355": "W39_1998.09.19_Segm"}

RELEASES: dict[str, Release] = {
    **{year: Release("_", _EARLY, BRATS_2018, _CASE, graded=True) for year in ("2018", "2019")},
    "2020": Release("_", _EARLY, BRATS_2018, _CASE, misnamed=_MISNAMED),
    **{year: Release("_", _EARLY, BRATS_2018, _CASE) for year in ("2021", "2022")},
    "2023": Release("-", _LATE, BRATS_2023, _TIME_POINT),
    "2024": Release("-", _LATE, BRATS_2024, _TIME_POINT),
}
"""Year → naming. 2022 is 2021's data; 2024 is the glioma task after treatment."""


def brats(folder: str | Path, release: str = "2021", *, labelled: bool = True) -> Case:
    """One BraTS case folder.

    Its stratum is the tumour's grade where the release tells it: by the folder above (2018, 2019), or by a
    ``name_mapping.csv`` beside the case (2020).

    Args:
        folder: the case's folder; its name is the case id.
        release: the year, which decides file names and label numbers.
        labelled: refuse a case without a label; False takes it as it is.

    Raises:
        ConfigError: the release is unknown or the folder does not exist.
        CaseError: a modality or the label is missing, or a file belongs to none of them.
    """
    rules = _rules(release)
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder", expected="the folder of one BraTS case")
    found = _images(folder)
    images: dict[str, Path] = {}
    for modality, name in rules.names.items():
        file = _one(folder, f"{folder.name}{rules.separator}{name}", found)
        if file is None:
            raise _missing(Reason.MISSING_MODALITY, folder, rules, name, found)
        images[modality] = file
    label = _one(folder, f"{folder.name}{rules.separator}seg", found) or _misnamed(folder, rules, found)
    if label is None and labelled:
        raise _missing(Reason.MISSING_LABEL, folder, rules, "seg", found)
    if found:
        raise CaseError(
            Reason.EXTRA_MODALITY,
            f"{folder.name}: files that belong to no modality of BraTS {release}",
            names=[file.name for file in found],
            got=sorted(file.name for file in found),
            expected=[*rules.names.values(), "seg"],
            advice="move them out of the case's folder",
        )
    patient = rules.patient.fullmatch(folder.name)
    return Case(
        folder.name,
        patient.group(1) if patient else folder.name,
        images,
        label,
        rules.scheme,
        stratum=_grade(folder, rules, release),
    )


def brats_cohort(root: str | Path, release: str = "2021", *, labelled: bool = True) -> Cohort:
    """All BraTS cases under a folder, at any depth (``HGG/`` and ``LGG/`` too), in the order of their ids.

    Files and folders whose names start with ``.`` or ``_`` are passed over. A case that cannot be used becomes a
    ``Refusal``, never an exception. Where several folders have one name, the first that is whole is the case; the
    others are refused under their paths.

    Raises:
        ConfigError: the release is unknown, there is no case folder at all, or cases of several challenges are mixed.
    """
    rules = _rules(release)
    root = Path(root)
    folders = sorted(_case_folders(root), key=lambda folder: (folder.name, folder))
    _check_one_challenge([folder.name for folder in folders])
    census = Census(folder.name for folder in folders)
    for folder in folders:
        with census.at(folder.name, folder.relative_to(root).as_posix()):
            census.take(brats(folder, release, labelled=labelled))
    if not folders:
        raise ConfigError(
            f"no BraTS case under {root}",
            expected=f"folders such as CASE/CASE{rules.separator}{rules.names['t1']}.nii.gz",
            advice="check the folder; for another layout use another importer",
        )
    return census.cohort(MODALITIES, rules.scheme)


def _rules(release: str) -> Release:
    try:
        return RELEASES[release]
    except KeyError:
        raise ConfigError("unknown BraTS release", got=release, expected=f"one of {list(RELEASES)}") from None


def _check_one_challenge(names: Sequence[str]) -> None:
    """Refuse a folder with, say, gliomas and meningiomas: one label scheme would be laid over both."""
    found = sorted({match[1] for name in names if (match := _CHALLENGE.match(name))})
    if len(found) > 1:
        raise ConfigError(
            "cases of several BraTS challenges lie in one folder",
            got=[f"BraTS-{name}-…" for name in found],
            expected="one challenge: their label numbers are not always the same",
            advice="name the folder of one of them",
        )


def _misnamed(folder: Path, rules: Release, found: set[Path]) -> Path | None:
    """The label of a case that the common copy of a release calls by another name: that case's, and that name alone."""
    stem = rules.misnamed.get(folder.name)
    return _one(folder, stem, found) if stem else None


def _grade(folder: Path, rules: Release, release: str) -> str | None:
    if rules.graded:
        return folder.parent.name if folder.parent.name in GRADES else None
    return _grades(folder.parent, f"BraTS_{release}_subject_ID").get(folder.name)


def _grades(folder: Path, column: str) -> Mapping[str, str]:
    """Case → grade, from the table that 2020 comes with; nothing where there is none, or none of these columns."""
    try:
        with (folder / "name_mapping.csv").open(newline="", encoding="utf-8-sig") as table:
            rows = [(row.get(column), row.get("Grade")) for row in csv.DictReader(table)]
    except (OSError, ValueError, csv.Error):
        return {}
    return {case: grade for case, grade in rows if case and grade in GRADES}


def _images(folder: Path) -> set[Path]:
    files = (file for file in folder.iterdir() if file.name.endswith(SUFFIXES) and not hidden(file.name))
    return {file for file in files if file.is_file()}


def _case_folders(root: Path) -> Iterator[Path]:
    """Folders that hold images, and folders that hold nothing where their neighbours are cases.

    Links are followed, after everything else, so that a folder is met under its own name, and once.
    """
    own, linked, seen = [root], list[Path](), set[Path]()
    while own or linked:
        folder = own.pop() if own else linked.pop(0)
        if not folder.is_dir() or folder.resolve() in seen:
            continue
        seen.add(folder.resolve())
        if _images(folder):
            yield folder
        below = _folders(folder)
        among_cases = any(_images(path) for path in below)
        for path in below:
            if among_cases and not _images(path) and not _folders(path):
                yield path
            (linked if path.is_symlink() else own).append(path)


def _folders(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_dir() and not hidden(path.name)]


def _one(folder: Path, stem: str, found: set[Path]) -> Path | None:
    """Take the one file of that name out of what was found."""
    files = sorted(found & {folder / f"{stem}{suffix}" for suffix in SUFFIXES})
    if len(files) > 1:
        raise CaseError(
            Reason.EXTRA_MODALITY,
            f"{folder.name}: two files for one modality",
            got=[file.name for file in files],
            expected="one of them",
            advice="keep the one that is right",
        )
    found.difference_update(files)
    return files[0] if files else None


def _missing(reason: Reason, folder: Path, rules: Release, name: str, rest: set[Path]) -> CaseError:
    return CaseError(
        reason,
        f"{folder.name}: no file for {name}",
        names=[file.name for file in rest],
        got=f"not accounted for: {sorted(file.name for file in rest)}",
        expected=f"{folder.name}{rules.separator}{name}.nii.gz",
        advice="rename the file if it is there under another name, or check that the declared release is right",
    )
