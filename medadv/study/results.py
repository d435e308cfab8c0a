"""A run's folder, read back: the one thing that the report and the tracking are made from."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from medadv.errors import RunError
from medadv.study.arm import Arm as Arm
from medadv.study.arm import arms_of
from medadv.study.judgement import Judgement
from medadv.study.metrics import METRICS, Metric, judged_by
from medadv.study.pairs import Unit
from medadv.study.records import MANIFEST, Record, present_records
from medadv.study.spreadsheet import listed, read_rows, told
from medadv.study.stats import Comparison
from medadv.study.worst import worst_cases

Row = TypeVar("Row", bound=BaseModel)


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Quarantined(_Row):
    """A case that was refused, with its reason code."""

    case: str
    reason: str
    message: str


class TrainingStep(_Row):
    """One row of ``training.csv``.

    Attributes:
        dice: the mean of the validation cases, None where nothing was validated.
        attacked: the same under attack, None where the checkpoint is not chosen by it.
    """

    step: int
    loss: float
    dice: float | None = None
    rate: float | None = None
    attacked: float | None = None


@dataclass(frozen=True)
class Results:
    """A run's folder in memory. Arms are in the order clean, attacks, controls; inside a family by unit and amount.
    In a study with a defence the worst cases are arms as well.

    Attributes:
        specification: ``study.yaml`` as a plain mapping.
        environment: versions and machine.
        declarations: the families of comparisons as they were declared, in order.
        judgement: how defences are judged, as it was declared last; None in a study without one.
        training: victim, or victim/fold_0 and so on → its training curve, for victims that the study trained.
        seconds: (victim, condition, case) → time taken, where it is known.
    """

    folder: Path
    specification: Mapping[str, Any]
    environment: Mapping[str, Any]
    declarations: tuple[Mapping[str, Any], ...]
    judgement: Judgement | None
    quarantine: tuple[Quarantined, ...]
    training: Mapping[str, tuple[TrainingStep, ...]]
    comparisons: tuple[Comparison, ...]
    arms: tuple[Arm, ...]
    seconds: Mapping[tuple[str, str, str], float]

    @property
    def name(self) -> str:
        """The study's name."""
        return str(self.specification.get("study", self.folder.name))

    @property
    def unit(self) -> Unit:
        """What n counts."""
        return self.arms[0].unit

    @property
    def victims(self) -> tuple[str, ...]:
        """The victims, in the order of their records."""
        return tuple(dict.fromkeys(arm.victim for arm in self.arms))

    @property
    def cases(self) -> tuple[str, ...]:
        """Every case that has a score."""
        return tuple(sorted({case for arm in self.arms for case in arm.records}))

    @property
    def units(self) -> int:
        """How many patients (or cases, where patients are unknown) have a score."""
        if self.unit == "cases":
            return len(self.cases)
        return len({record.patient for record in self.records})

    @property
    def regions(self) -> tuple[str, ...]:
        """The scored regions; those of the primary comparisons come first."""
        primary = [row.region for row in self.comparisons if row.family == "primary"]
        return tuple(dict.fromkeys([*primary, *(score.region for record in self.records for score in record.scores)]))

    @property
    def metric(self) -> Metric:
        """The metric of the primary comparisons; the first that was compared where none was declared."""
        primary = [row.metric for row in self.comparisons if row.family == "primary"]
        return METRICS[next(iter([*primary, *(row.metric for row in self.comparisons)]), "dice")]

    def subjects(self, victim: str) -> frozenset[tuple[str, str]]:
        """What a victim is scored in: metric and region. Every record of a victim has the same."""
        first = (next(iter(arm.records.values()), None) for arm in self.of(victim))
        return frozenset((score.metric, score.region) for record in first if record for score in record.scores)

    def named(self, metric: str) -> Metric:
        """A metric by its name; lengths of pictures are in pixels."""
        return METRICS[metric].of_pictures if self.pictures else METRICS[metric]

    def metric_of(self, victim: str) -> Metric:
        """The metric of a victim's primary comparisons, or else the study's; of a victim that is not scored in it the
        first of IoU, Dice and recall that it has."""
        primary = (row.metric for row in self.comparisons if (row.family, row.victim) == ("primary", victim))
        has = {metric for metric, _ in self.subjects(victim)}
        return self.named(judged_by(next(primary, self.metric.name), has).name)

    def share_of(self, victim: str) -> Metric:
        """The same, where the study's metric is a distance or a count too: what tables lead with, a share."""
        metric = self.metric_of(victim)
        return metric if metric.share else judged_by("", {name for name, _ in self.subjects(victim)})

    def regions_of(self, victim: str) -> tuple[str, ...]:
        """The regions that a victim is scored in; those of the primary comparisons come first."""
        has = {region for _, region in self.subjects(victim)}
        return tuple(region for region in self.regions if region in has)

    @property
    def pictures(self) -> bool:
        """Whether the study is of pictures: of red, green and blue."""
        first = (next(iter(arm.records.values()), None) for arm in self.arms)
        return any({"red", "green", "blue"} <= {row.modality for row in record.fidelity} for record in first if record)

    @property
    def matrix(self) -> bool:
        """Whether what was found for other victims is told in a matrix of its own: in a study that asks for transfers
        or sums, and not where a defence's worst case has them as a part."""
        asked = any(self.specification.get(section) for section in ("transfers", "sums"))
        return asked or self.judgement is None

    def met(self, victim: str) -> tuple[Arm, ...]:
        """The arms of a victim without those that the matrix tells: what was found for others, and controls of that."""
        arms = self.of(victim)
        borrowed = {arm.condition for arm in arms if self.matrix and arm.presented.source is not None}
        return tuple(arm for arm in arms if not {arm.condition, arm.presented.of} & borrowed)

    @property
    def versions(self) -> dict[str, tuple[str, ...]]:
        """Package → every version of it that computed a cell, as the records tell."""
        found = sorted({pair for record in self.records for pair in record.versions.items()})
        return {name: tuple(version for package, version in found if package == name) for name, _ in found}

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities, in channel order as far as a budget names them."""
        records = self.records
        named = (modality for r in records for by_modality in (r.radii or {}).values() for modality in by_modality)
        return tuple(dict.fromkeys([*(f.modality for r in records for f in r.fidelity), *named]))

    @property
    def records(self) -> tuple[Record, ...]:
        """Every record, arm by arm."""
        return tuple(record for arm in self.arms for record in arm.records.values())

    def curves(self, victim: str) -> dict[str, tuple[TrainingStep, ...]]:
        """What is trained → its training curve: the victim, or each of its folds; empty where none was trained."""
        names = {name: name.replace("/fold_", ", fold ") for name in self.training if name.split("/")[0] == victim}
        return {title: self.training[name] for name, title in names.items()}

    def of(self, victim: str) -> tuple[Arm, ...]:
        """The arms of one victim."""
        return tuple(arm for arm in self.arms if arm.victim == victim)

    def arm(self, victim: str, condition: str) -> Arm | None:
        """One victim under one condition; None where nothing is recorded."""
        return next((a for a in self.arms if (a.victim, a.condition) == (victim, condition)), None)

    def clean(self, victim: str) -> Arm | None:
        """The victim on unchanged files."""
        return next((a for a in self.of(victim) if a.presented.role == "clean"), None)

    def compared(
        self, victim: str, region: str, condition: str, against: str, metric: str = "dice", rival: str | None = None
    ) -> Comparison | None:
        """The two-sided comparison of two conditions, or of two victims under one; None where it was not made."""
        wanted = (victim, region, condition, against, metric, rival, None)
        return next((row for row in self.comparisons if _subject(row) == wanted), None)

    def inferiority(self, victim: str) -> Comparison | None:
        """The test of non-inferiority of a defended victim's clean Dice; None where no margin was declared."""
        return next((row for row in self.comparisons if row.victim == victim and row.margin is not None), None)


def read_results(folder: Path) -> Results:
    """Read a run's folder, all of it that is text.

    Raises:
        RunError: there is no run in the folder, or a part of it is missing or damaged; nothing is read in part.
    """
    records = present_records(folder) if (folder / MANIFEST).is_file() else []
    if not records:
        raise RunError(
            "there is no finished cell in this folder",
            got=folder.name,
            expected="the folder of a run: runs/<study>, with its records/",
            advice="run the study first: medadv run STUDY.yaml",
        )
    curves = {p.parent.relative_to(folder / "victims").as_posix(): p for p in folder.glob("victims/**/training.csv")}
    declarations = tuple(_lines(folder / "declarations.jsonl"))
    judgement = _judgement(folder / "declarations.jsonl", declarations)
    return Results(
        folder=folder,
        specification=_specification(folder / "study.yaml"),
        environment=_mapping(folder / "environment.json"),
        declarations=declarations,
        judgement=judgement,
        quarantine=_rows(folder / "quarantine.json", Quarantined, json.loads),
        training={name: read_curve(curves[name]) for name in sorted(curves, key=_in_order)},
        comparisons=_rows(folder / "comparisons.csv", Comparison, _compared),
        arms=arms_of([*records, *worst_cases(records, judgement)]),
        seconds=_seconds(folder, records),
    )


def read_curve(path: Path) -> tuple[TrainingStep, ...]:
    """Read a ``training.csv``.

    Raises:
        RunError: it is missing or damaged.
    """
    return _rows(path, TrainingStep, _trained)


def _judgement(path: Path, declarations: Sequence[Mapping[str, Any]]) -> Judgement | None:
    try:
        return Judgement.of(declarations[-1]) if declarations else None
    except ValueError as error:
        raise _damaged(path, error) from error


def _subject(row: Comparison) -> tuple[object, ...]:
    return row.victim, row.region, row.condition, row.against, row.metric, row.rival, row.margin


def _in_order(name: str) -> tuple[str, int]:
    """A victim's name, or with a fold's, by its number."""
    victim, _, fold = name.partition("/fold_")
    return victim, int(fold) if fold.isdecimal() else -1


def _seconds(folder: Path, records: list[Record]) -> dict[tuple[str, str, str], float]:
    known: dict[tuple[str, str, str], float] = {}
    for record in records:
        path = folder / "timings" / record.victim / record.condition / f"{record.case}.{record.key[:16]}.json"
        if path.is_file() and isinstance(seconds := _mapping(path).get("seconds"), int | float):
            known[record.victim, record.condition, record.case] = float(seconds)
    return known


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(
            f"{path.name} of the run is missing or cannot be read",
            got=type(error).__name__,
            cause="the run has not finished, or the file was moved or damaged",
            advice="run the same study again: finished cells are kept, the tables are made anew",
        ) from error


def _damaged(path: Path, what: object) -> RunError:
    return RunError(
        f"{path.name} of the run is damaged",
        got=str(what).splitlines()[0] if str(what) else type(what).__name__,
        cause="the file was edited, or the disk failed",
        advice="delete it and run the same study again: finished cells are kept, the tables are made anew",
    )


def _mapping(path: Path) -> dict[str, Any]:
    text = _text(path)
    try:
        value = yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
    except (yaml.YAMLError, ValueError) as error:
        raise _damaged(path, error) from error
    if not isinstance(value, dict):
        raise _damaged(path, f"a {type(value).__name__} where a mapping belongs")
    return value


def _specification(path: Path) -> dict[str, Any]:
    content = _mapping(path)
    for key in ("data", "victims", "attacks"):
        if not isinstance(content.get(key), dict):
            raise _damaged(path, f"no {key}")
    return content


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        for line in _text(path).splitlines() if path.exists() else ():
            yield dict(json.loads(line))
    except (ValueError, TypeError) as error:
        raise _damaged(path, error) from error


def _rows(path: Path, kind: type[Row], parse: Callable[[str], Iterable[Any]]) -> tuple[Row, ...]:
    text = _text(path)
    try:
        return tuple(kind.model_validate(row) for row in parse(text))
    except (ValueError, TypeError, KeyError, csv.Error, ValidationError) as error:
        raise _damaged(path, error) from error


def _trained(text: str) -> Iterator[dict[str, Any]]:
    """The rows of ``training.csv``."""
    for row in read_rows(text):
        yield {column: told(cell) for column, cell in row.items()}


def _compared(text: str) -> Iterator[dict[str, Any]]:
    """The rows of ``comparisons.csv``: what ``tables.comparisons_table`` wrote, read back."""
    for row in read_rows(text):
        cells = {column: told(cell) for column, cell in row.items()}
        yield {**cells, "missing": listed(row["missing"]), "verdict": cells["verdict"] or ""}
