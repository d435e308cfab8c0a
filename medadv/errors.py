"""Every error and warning of medadv, drawn as one tree::

    MedadvError
    ├── ConfigError        a study, a budget or an argument that cannot be meant
    │   └── BudgetError        an amount, a unit or a container that cannot carry it
    ├── CaseError          one case that cannot be used; carries a Reason; quarantined, never fatal to the others
    ├── VictimError        weights, head or behaviour of a network
    │   └── GradientError      a gradient that is missing, not finite, or zero where it must not be
    └── RunError           the run's folder: another study, not writable, full, damaged; or the machine's memory is full
        └── StoppedError       somebody asked the process to end; what was done is saved

    MedadvWarning (a UserWarning)
    └── GradientWarning    a gradient that exists and deserves doubt

An error is advice. It says what was wrong, and where they are known: what was got, what was expected, the likely
cause, and what to try.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any


class MedadvError(Exception):
    """The base of all errors of medadv.

    Args:
        problem: what is wrong, in one sentence.
        got: what was found.
        expected: what would have been right.
        cause: the likely cause.
        advice: what to try.
    """

    exit_code = 2

    def __init__(
        self,
        problem: str,
        *,
        got: object = None,
        expected: object = None,
        cause: str | None = None,
        advice: str | None = None,
    ) -> None:
        self.problem = problem
        self.details = {"got": got, "expected": expected, "likely cause": cause, "try": advice}
        lines = [problem, *(f"  {name}: {value}" for name, value in self.details.items() if value is not None)]
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors cross process borders whole; Exception would keep the message alone."""
        return _rebuild, (type(self), str(self), self.__dict__)


def _rebuild(kind: type[MedadvError], message: str, state: dict[str, Any]) -> MedadvError:
    error = kind.__new__(kind)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class ConfigError(MedadvError):
    """A study, a budget or an argument that cannot be meant."""


class BudgetError(ConfigError):
    """An amount, a unit, or a container that cannot carry the amount."""


class VictimError(MedadvError):
    """Weights, head or behaviour of a network that cannot be attacked as it is."""


class GradientError(VictimError):
    """A gradient that is missing, not finite, or zero where it must not be."""


class RunError(MedadvError):
    """The folder of a run: another study's, not writable, full or damaged; or the memory of its machine, full."""


class StoppedError(RunError):
    """A signal asked the process to end. What was done is saved, and the same command goes on from there.

    Args:
        problem: what was stopped, and where.
        signal: the signal's number, which the process's exit code tells as a shell does: 143 for SIGTERM.
    """

    def __init__(self, problem: str, signal: int) -> None:
        super().__init__(problem, advice="the same command goes on from there")
        self.exit_code = 128 + signal


class Reason(StrEnum):
    """Why a case is quarantined: the one table of reason codes. The value is what a record holds."""

    MISSING_MODALITY = "missing_modality"
    EXTRA_MODALITY = "extra_modality"
    MISSING_LABEL = "missing_label"
    UNREADABLE = "unreadable"
    HEADER_SIZE = "header_size"
    DIMENSIONS = "dimensions"
    DATA_TYPE = "data_type"
    AFFINE_INVALID = "affine_invalid"
    SHAPE_MISMATCH = "shape_mismatch"
    AFFINE_MISMATCH = "affine_mismatch"
    GRID_OVERLAP = "grid_overlap"
    SERIES_MIXED = "series_mixed"
    SERIES_SLICES = "series_slices"
    SERIES_DUPLICATES = "series_duplicates"
    SERIES_GAPS = "series_gaps"
    MULTI_FRAME = "multi_frame"
    NOT_MR = "not_mr"
    NOT_RGB = "not_rgb"
    TURNED = "turned"
    NOT_FINITE = "not_finite"
    CONSTANT_MODALITY = "constant_modality"
    LABEL_GRID = "label_grid"
    LABEL_COLOURS = "label_colours"
    LABEL_NOT_INTEGER = "label_not_integer"
    LABEL_OUTSIDE_SCHEME = "label_outside_scheme"
    BOXES = "boxes"
    MISSING_MASK = "missing_mask"
    MASK_GRID = "mask_grid"
    MASK_EMPTY = "mask_empty"
    NO_SUPPORT = "no_support"
    GIVEN_MAP = "given_map"
    GOAL = "goal"
    BUDGET_NOT_STORABLE = "budget_not_storable"
    GRADIENT_NOT_FINITE = "gradient_not_finite"
    VICTIM_FAILED = "victim_failed"
    OUT_OF_MEMORY = "out_of_memory"
    DUPLICATE = "duplicate"
    NAME = "name"
    DECLARATION = "declaration"


EXPLANATIONS: dict[Reason, str] = {
    Reason.MISSING_MODALITY: "a modality that the data set declares has no file in this case",
    Reason.EXTRA_MODALITY: "two files claim to be the same modality, or a channel is not declared",
    Reason.MISSING_LABEL: "there is no expert label; an all-background label is data, a missing file is not",
    Reason.UNREADABLE: "the file is truncated, or is no image of a kind that is read",
    Reason.HEADER_SIZE: "the header promises more voxels than the file holds or than may be allocated",
    Reason.DIMENSIONS: "the image is not a 3-D volume (or 4-D with one channel a modality), nor one picture",
    Reason.DATA_TYPE: "complex, RGB or otherwise not a real number a voxel",
    Reason.AFFINE_INVALID: "the affine is not finite or not invertible, or the voxel size is not plausible",
    Reason.SHAPE_MISMATCH: "the modalities have different shapes",
    Reason.AFFINE_MISMATCH: "the modalities lie on different grids: moved, turned or flipped",
    Reason.GRID_OVERLAP: "an image covers too little of the grid that it is resampled onto",
    Reason.SERIES_MIXED: "the folder holds more than one DICOM series",
    Reason.SERIES_SLICES: "the slices of a DICOM series differ in size, orientation or pixel spacing",
    Reason.SERIES_DUPLICATES: "two slices of a DICOM series lie in the same place: echoes, time points, or copies",
    Reason.SERIES_GAPS: "slices of a DICOM series are missing, or not evenly spaced",
    Reason.MULTI_FRAME: "DICOM with many frames in one file (enhanced MR)",
    Reason.NOT_MR: "DICOM that is no MR image: a secondary capture, a report, another modality, colour",
    Reason.NOT_RGB: "a picture whose pixels are not red, green and blue of 8 bits each",
    Reason.TURNED: "a picture that is not stored upright: viewers turn it, and nobody knows what its annotators saw",
    Reason.NOT_FINITE: "NaN or infinite voxels",
    Reason.CONSTANT_MODALITY: "a modality is all zero, or constant where it is not zero",
    Reason.LABEL_GRID: "the label map does not lie on the image's grid",
    Reason.LABEL_COLOURS: "the label map holds colours or shades, and not the numbers of classes",
    Reason.LABEL_NOT_INTEGER: "the label map holds fractions",
    Reason.LABEL_OUTSIDE_SCHEME: "the label map holds numbers that the declared scheme does not know",
    Reason.BOXES: "an object's box that cannot be meant: outside of the picture, without area, of an unknown class",
    Reason.MISSING_MASK: "the mask that the case names has no file, or the case names none",
    Reason.MASK_GRID: "the mask does not lie on the image's grid",
    Reason.MASK_EMPTY: "the mask marks nothing",
    Reason.NO_SUPPORT: "inside the support a modality has no spread: a budget in sigma would be nothing",
    Reason.GIVEN_MAP: "an attack draws given maps, and the folder holds none for this case, or several",
    Reason.GOAL: "an attack's goal cannot be meant in this case: no class is left that it could be taken for",
    Reason.BUDGET_NOT_STORABLE: "the budget is smaller than the step of the integer container that was asked for",
    Reason.GRADIENT_NOT_FINITE: "the victim's gradient is NaN or infinite on this case",
    Reason.VICTIM_FAILED: "the victim cannot answer this case: its size, or what it holds",
    Reason.OUT_OF_MEMORY: "the case needs more memory than there is, after everything that saves some",
    Reason.DUPLICATE: "another case has the same voxels: one scan under two ids",
    Reason.NAME: "the case's id makes no file name, and the study wants ids as they are",
    Reason.DECLARATION: "what is declared of this case cannot be meant: its entry in a list, or its patient or group",
}


class CaseError(MedadvError):
    """One case that cannot be used. The study goes on without it and says so.

    Args:
        reason: the code of the one table above.
        problem: what is wrong with this case, in one sentence.
        names: the names of files in what is said here, but for those that the case holds: they may name people.
    """

    def __init__(self, reason: Reason, problem: str, *, names: Iterable[str] = (), **details: Any) -> None:
        details.setdefault("cause", EXPLANATIONS[reason])
        super().__init__(f"[{reason}] {problem}", **details)
        self.reason = reason
        self.names = tuple(names)


class MedadvWarning(UserWarning):
    """The base of all warnings of medadv."""


class GradientWarning(MedadvWarning):
    """A gradient that exists and deserves doubt: mostly zero, or not what was expected."""
