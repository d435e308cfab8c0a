"""``Census``: how every importer gathers its cohort. One bad case costs itself, and no id is both used and refused."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from medadv.data.case import Case, Cohort, Refusal, twin_name
from medadv.errors import CaseError, Reason
from medadv.labels import LabelScheme

ENDING = re.compile(r"(\.seg)?\.(nii\.gz|nii|nrrd|mha|(?i:png|jpe?g|tiff?|npy))$")
"""How the names of images end."""


class Census:
    """The cases and refusals of one data set, in the order in which they are met.

    Args:
        names: the ids that the data set holds, each as often as it holds it.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._count = Counter(iter(names))  # of a mapping it would take the values
        self._cases: dict[str, Case] = {}
        self._refused: list[Refusal] = []

    @contextmanager
    def at(self, name: str, place: str) -> Iterator[None]:
        """One id at one place of the data set: what goes wrong inside becomes a refusal.

        A refusal bears the id, or its place where the id is there more than once.
        """
        try:
            yield
        except CaseError as error:
            self._refuse(name, place, error.reason, str(error), error.names)
        except OSError as error:  # without the path, which is private
            self._refuse(name, place, Reason.UNREADABLE, f"{name}: {error.strerror or type(error).__name__}")

    def take(self, case: Case) -> None:
        """Use a case.

        Raises:
            CaseError: EXTRA_MODALITY, a case of this id is used already.
        """
        if case.case in self._cases:
            raise CaseError(
                Reason.EXTRA_MODALITY,
                f"{case.case} is there twice",
                cause="two folders, or two entries of a list, have one id; the first that is whole is used",
                advice="give each scan an id of its own, or take one of the two away",
            )
        self._cases[case.case] = case

    def cohort(self, modalities: tuple[str, ...], scheme: LabelScheme) -> Cohort:
        """All that was met."""
        return Cohort(list(self._cases.values()), self._refused, modalities, scheme)

    def _refuse(self, name: str, place: str, reason: Reason, message: str, names: tuple[str, ...] = ()) -> None:
        taken = {*self._count, *(refusal.case for refusal in self._refused)}
        alone = self._count[name] == 1 and name not in {refusal.case for refusal in self._refused}
        called = name if alone else twin_name(place, taken)
        self._refused.append(Refusal(called, reason, message, (name, *names)))


def present(path: Path, case: str, name: str, reason: Reason = Reason.MISSING_MODALITY) -> Path:
    """A path at which there is a file (or a folder with a DICOM series).

    Raises:
        CaseError: of that reason, there is none.
    """
    if not path.exists():
        problem = f"{case}: {name} has no file {path.name}"
        raise CaseError(reason, problem, names=[path.name], advice="check the data set's list of files")
    return path


def posix(file: str) -> PurePosixPath:
    """A path as a data set's list writes it, whatever system wrote it."""
    return PurePosixPath(file.replace("\\", "/"))


def inside(root: Path, file: str, reason: Reason) -> Path:
    """The file that a data set's list names.

    Raises:
        CaseError: of that reason, it leaves the folder or does not exist.
    """
    # By its parts and not resolved: people link large data sets into place.
    parts = posix(file)
    if parts.is_absolute() or ".." in parts.parts or ":" in file:
        problem = f"{parts.name} leaves the data set's folder"
        raise CaseError(reason, problem, names=[parts.name], expected="a path inside of it")
    if not (root / file).is_file():
        advice = "check that the data set was unpacked whole"
        raise CaseError(reason, f"there is no file {file}", names=[file], advice=advice)
    return root / file


def hidden(name: str) -> bool:
    """Whether a file or folder is passed over: what systems leave behind begins with a dot or an underscore."""
    return name.startswith((".", "_"))
