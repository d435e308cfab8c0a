"""One JSON file a finished cell. A file that exists under its final name is whole and is done.

A cell is (victim, condition, case); its key is the digest of everything that could change its numbers: voxels, label,
weights, preprocessing, condition, precision and schema. Times, paths and families are not in it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from medadv.atomic import UNFINISHED, write_text
from medadv.errors import RunError
from medadv.study.metrics import MetricName
from medadv.study.object_list import ObjectList

SCHEMA = 2

MANIFEST = "cells.json"
"""The file that names the cells of the study as it is now."""

RETURNED = "returned"
"""The folder that names the cells of victims outside, a file a victim."""

POLICY = "strict"
"""How empty regions are scored. Both empty: a share 1, distance 0. One empty: a share 0, distance the image's diagonal.

An image without objects has recall 1: nothing was missed.
"""

ALL = "all"
"""The region of what is scored over all classes: their mean, or of objects all of them pooled."""


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Score(_Row):
    """One number about one case: of the file, and beside it of the voxels in memory.

    Attributes:
        region: a region or tissue of the label scheme, or ``ALL`` of them.
        metric: ``dice``, ``iou``, ``recall`` (shares), ``hd95`` (mm, pixels) or ``false positives`` (a count).
        policy: how empty regions are scored; see ``POLICY``.
        value: the score of the delivered file, read again and predicted anew.
        computed: the score of the same voxels in memory.
        truth, predicted, hit: voxel counts of the delivered file's prediction, from which any policy can be computed;
            of objects: those to be found, those reported (beside difficult ones), and those found.
        attack: of a worst case, the condition that it was found under; None of anything else.
        eight_bit: the score of the delivered picture's 8-bit copy, rounded and clipped; None where there is none.
    """

    region: str
    metric: MetricName
    policy: str
    value: float
    computed: float
    truth: int
    predicted: int
    hit: int
    attack: str | None = None
    eight_bit: float | None = None


class Fidelity(_Row):
    """How like its clean self one modality still looks. PSNR is None when nothing changed."""

    modality: str
    ssim: float
    psnr_db: float | None


class Distortion(_Row):
    """How large the perturbation of a picture is, over all channels.

    Attributes:
        perceptibility: sqrt(mean over pixels of ‖r‖²), padding not among them, r the pixel's change over its channels
            as a share of the range (Xie et al. 2017, section 3.4); 1 to 3 thousandths of their attacks.
        linf, l2: the largest change and the Euclidean norm, in stored units.
    """

    perceptibility: float
    linf: float
    l2: float


Role = Literal["clean", "control", "attack"]


class Presented(_Row):
    """How the case was presented: what a table needs to know of a condition.

    Attributes:
        role: ``clean``, ``control`` or ``attack``.
        family: what is swept over budgets as one curve: ``fgsm``, ``noise``, ``permuted ifgsm`` …
        title: for people, e.g. ``i-FGSM, 10 steps``.
        budget: in words, with its unit; None for clean and identity.
        amount, unit: the budget where it is one amount for all modalities, for an axis.
        of: the condition whose stored result this one is made of, if any.
        source: the victim that the attack was made for, where that is another one.
    """

    role: Role
    family: str
    title: str
    budget: str | None = None
    amount: float | None = None
    unit: str | None = None
    of: str | None = None
    source: str | None = None


class Effort(_Row):
    """What an attack cost and how it went. ``trace`` maps ``value`` and ``merit`` to one number a step.

    ``zero_gradient_share`` is of the input's voxels over all steps; ``silent_share``, which studies with a defence ask
    for, of the clean case's targets, at whose logits the loss has no gradient: a normalisation by an image's own
    statistics hides them from the input's.
    """

    steps: int
    forward: int
    backward: int
    zero_gradient_share: float
    silent_share: float | None = None
    trace: dict[str, list[float]]


class Record(_Row):
    """One finished cell.

    Attributes:
        key: the cell's digest.
        inputs: the digests and settings that went into the key.
        tissues: the scored regions that are every tissue of the label scheme, each once; empty where one of them is not
            scored. Told, and no part of the key.
        stratum: the group that the data set says of the case (a grade, a site); told, and no part of the key.
        fold: the fold of a cross-validation that tests the case, by the victim that has not seen it; None without one.
        radii: unit → modality → the budget in that unit (``sigma``, ``stored``, ``p1-p99``, ``minmax``, ``0-255``).
        size: the largest change as a share of the budget, measured on the re-read file; None without a budget.
        delivered: file name → SHA-256 of what was written; empty for clean.
        versions: package → version that computed the cell; told, and no part of the key.
        device: where it was computed; no part of the key.
        savings: what was done to need less memory: no change but of rounding.
        agreement: the share of voxels on which the differentiated way and the predictor that is scored decide alike
            on the delivered voxels; None where they are one.
        distortion: of a picture; None of a volume, whose modalities share no unit.
        certainty: how sure the deployed answer to the delivered file is, over the targets that count: ``confidence``,
            ``doubt``, ``entropy``, ``lead``, as ``medadv.Certainty`` has them; None where nobody asked, or knows.
        found, objects: of a detector, what it reports on the delivered file, and what the expert drew; else None.
    """

    schema_version: int = SCHEMA
    key: str
    victim: str
    condition: str
    case: str
    patient: str | None
    tissues: tuple[str, ...] = ()
    stratum: str | None = None
    fold: int | None = None
    presented: Presented
    inputs: dict[str, Any]
    radii: dict[str, dict[str, float]] | None
    size: float | None
    delivered: dict[str, str]
    versions: dict[str, str] = {}
    device: str = "cpu"
    savings: tuple[str, ...] = ()
    agreement: float | None = None
    effort: Effort | None
    fidelity: list[Fidelity]
    scores: list[Score]
    distortion: Distortion | None = None
    certainty: dict[str, float] | None = None
    found: ObjectList | None = None
    objects: ObjectList | None = None


class ReturnedCell(NamedTuple):
    """A segmentation that came back: its record's key, and the cell whose delivered file it answers."""

    key: str
    source: str
    source_key: str


def digest(value: object) -> str:
    """SHA-256 of a JSON value in one canonical spelling."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_record(folder: Path, record: Record) -> None:
    """Put a finished cell under its final name."""
    path = record_path(folder, record.victim, record.condition, record.case, record.key)
    write_text(path, record.model_dump_json(indent=1))


def record_path(folder: Path, victim: str, condition: str, case: str, key: str) -> Path:
    """Where the record of a cell lies."""
    return folder / "records" / victim / condition / f"{case}.{key[:16]}.json"


def read_record(path: Path) -> Record:
    """Read a record.

    Raises:
        RunError: the file is damaged or of another version; it is never used in part.
    """
    try:
        return Record.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise RunError(
            f"the record {path.name} is damaged",
            got=str(error).splitlines()[0],
            cause="the file was edited, or the disk failed",
            advice="delete it and run the same command again: the cell is computed anew",
        ) from error


def write_manifest(folder: Path, cells: Mapping[tuple[str, str, str], str]) -> None:
    """Say which cells the study asks for now: (victim, condition, case) → key. Older records stay, and do not count."""
    write_text(folder / MANIFEST, json.dumps(["\t".join((*cell, key)) for cell, key in cells.items()], indent=0))


def write_returned(folder: Path, victim: str, cells: Mapping[tuple[str, str], ReturnedCell]) -> None:
    """Say which segmentations of a victim outside came back: (condition, case) → the cell. The last file written."""
    lines = ["\t".join((*place, *cell)) for place, cell in cells.items()]
    write_text(folder / RETURNED / f"{victim}.json", json.dumps(lines, indent=0))


def returned_cells(folder: Path, victim: str) -> dict[tuple[str, str], ReturnedCell]:
    """What ``write_returned`` wrote of a victim; empty where nothing came back.

    Raises:
        RunError: the list is damaged.
    """
    path = folder / RETURNED / f"{victim}.json"
    if not path.exists():
        return {}
    lines = _lines(path, 5, "score the same segmentations again, after deleting the list")
    return {(condition, case): ReturnedCell(*rest) for condition, case, *rest in lines}


def planned_cells(folder: Path) -> dict[tuple[str, str, str], str]:
    """The cells that the study asks for now: (victim, condition, case) → key.

    Raises:
        RunError: the list is damaged, or there is none.
    """
    lines = _lines(folder / MANIFEST, 4, "run the study (again): `medadv run STUDY.yaml`")
    return {(victim, condition, case): key for victim, condition, case, key in lines}


def present_records(folder: Path) -> list[Record]:
    """The finished records that count: of the cells that the study asks for now, without cases in quarantine.

    Segmentations that came back from outside count as long as the cell whose file they answer does.

    Raises:
        RunError: a damaged record or manifest, or no manifest at all.
    """
    planned = planned_cells(folder)
    cells = dict(planned)
    for path in sorted((folder / RETURNED).glob("*.json")):
        if not path.name.startswith(UNFINISHED):
            for (condition, case), cell in returned_cells(folder, path.stem).items():
                if planned.get((cell.source, condition, case)) == cell.source_key:
                    cells[path.stem, condition, case] = cell.key
    refused = {path.stem for path in (folder / "quarantine").glob("*.json")}
    placed = [record_path(folder, *cell, key) for cell, key in cells.items() if cell[2] not in refused]
    return [read_record(path) for path in placed if path.exists()]


def _lines(path: Path, width: int, advice: str) -> list[list[str]]:
    try:
        lines = [line.split("\t") for line in json.loads(path.read_text(encoding="utf-8"))]
        if all(len(line) == width for line in lines):
            return lines
        problem: object = "lines of another length"
    except (OSError, ValueError, TypeError, AttributeError) as error:
        problem = error
    raise RunError(
        f"the list of cells in {path.name} cannot be read",
        got=problem,
        cause="the run has not come as far as its first attack, or the file was edited",
        advice=advice,
    )
