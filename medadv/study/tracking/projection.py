"""A run's folder projected into MLflow.

One experiment a study; one parent run, a child run for each victim under each condition and for each training. What is
already there is not made again, and what has changed replaces what was there: a projection can always be thrown away.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medadv.study.records import MANIFEST
from medadv.study.report.defences.lineage import entered
from medadv.study.report.provenance import environment, specification, without_folders
from medadv.study.report.words import answer
from medadv.study.results import Arm, Results, read_results
from medadv.study.stats import occurring
from medadv.study.tracking.store import (
    RUNS,
    STUDY,
    advised,
    artifacts_of,
    client_of,
    experiment_of,
    log,
    metric,
    parameters_of,
    plain,
    store_of,
    study_tag,
)
from medadv.study.tracking.trainings import DEFENCE, PARENT, TRAINING, VICTIM, Trainings

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

FOLDER = "medadv.folder"
VERSIONS = ("medadv", "python", "torch", "monai", "numpy", "scipy", "mlflow")
PROJECTED = (
    *(MANIFEST, "study.yaml", "environment.json", "declarations.jsonl", "quarantine.json"),
    *("comparisons.csv", "scores.csv", "victims/**/training.csv", "records/*/*/*.json", "report/**/*"),
)


def track(folder: Path, uri: str | None = None) -> str:
    """Project a finished run into MLflow. Doing it twice changes nothing.

    Args:
        folder: the run's folder.
        uri: where; MLFLOW_TRACKING_URI if None, and ``mlflow.db`` beside ``runs/`` if that is not set either.

    Returns:
        the id of the parent run.

    Raises:
        ConfigError: a store that MLflow gave up, or that is none.
        RunError: the run is incomplete, or MLflow refuses or cannot be reached; the run's folder is as it was.
    """
    folder = folder.resolve()
    results = read_results(folder)
    store = store_of(folder, uri)
    with advised():
        artifacts = artifacts_of(folder, store)
        client = client_of(store, artifacts)
        experiment = experiment_of(client, results.name, artifacts)
        return _Projection(client, experiment, results).write(_digest(folder))


def _digest(folder: Path) -> str:
    """SHA-256 over all files that are projected: the same folder is recognised wherever it lies."""
    total = hashlib.sha256()
    for path in sorted({path for pattern in PROJECTED for path in folder.glob(pattern) if path.is_file()}):
        total.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


@dataclass(frozen=True)
class _Projection:
    client: MlflowClient
    experiment: str
    results: Results

    @property
    def _study(self) -> dict[str, str]:
        return study_tag(self.results.name, self.results.declarations)

    @property
    def _tags(self) -> dict[str, str]:
        """What all runs of this study share."""
        return {**self._study, "medadv.unit": self.results.unit}

    @cached_property
    def _victims(self) -> dict[str, dict[str, Any]]:
        """What each victim is said to be: those of several temperatures and their teachers are not in the study."""
        every = entered(self.results)
        return {name: e.spec.model_dump(mode="json", by_alias=True, exclude_unset=True) for name, e in every.items()}

    def write(self, digest: str) -> str:
        own = f"tags.`{STUDY}` = '{self._study[STUDY]}'"
        runs = self.client.search_runs([self.experiment], own, max_results=RUNS)
        before = [run for run in runs if TRAINING not in run.data.tags]
        for run in before:
            if run.info.status == "FINISHED" and run.data.tags.get(FOLDER) == digest:
                self._trainings(str(run.info.run_id))
                return str(run.info.run_id)
        parent = self._parent(digest)
        for arm in self.results.arms:
            self._child(parent, arm)
        self._trainings(parent)
        # Finished last: until then it is not recognised as whole, and the next call begins anew.
        self.client.set_terminated(parent)
        for run in before:
            self.client.delete_run(run.info.run_id)
        return parent

    def _trainings(self, parent: str) -> None:
        """The runs that were filled while the victims were trained go under the parent; others are made."""
        trainings = Trainings(self.client, self.experiment, self._study)
        victims = self._victims
        for name, curve in self.results.training.items():
            victim = name.split("/")[0]
            tags = {**self._tags, PARENT: parent, VICTIM: victim}
            if (settings := victims.get(victim)) is not None:
                tags[DEFENCE] = (settings.get("defence") or {"name": "none"})["name"]
            trainings.settle(name, curve, tags)
        trainings.clear(self.results.training)

    def _parent(self, digest: str) -> str:
        results = self.results
        told = "\n\n".join(words for victim in results.victims for words in answer(results, victim).sentences)
        tags = {**self._tags, FOLDER: digest, "mlflow.note.content": told}
        run = self.client.create_run(self.experiment, tags=tags, run_name=plain(results.name)).info.run_id
        versions = {name: told for name, told in environment(results) if name in VERSIONS}
        parameters = {"cases": len(results.cases), "refused": len(results.quarantine), **versions}
        # Of a network that came with its weights, the settings of a training would be of one that never was.
        victims = {name: v for name, v in self._victims.items() if results.curves(name)}
        settings = dict(_flat(without_folders(victims), "victims"))
        log(self.client, run, parameters_of(parameters | settings))
        self.client.log_text(run, specification(results), "study.yaml")
        if results.comparisons:
            rows = [row.model_dump(mode="json") | {"missing": " ".join(row.missing)} for row in results.comparisons]
            self.client.log_table(run, {name: [row[name] for row in rows] for name in rows[0]}, "comparisons.json")
        report = results.folder / "report"
        if report.is_dir():
            self.client.log_artifacts(run, str(report), "report")
        return str(run)

    def _child(self, parent: str, arm: Arm) -> None:
        tags = {**self._tags, PARENT: parent}
        run = self.client.create_run(self.experiment, tags=tags, run_name=plain(arm.victim, arm.condition)).info.run_id
        shown = arm.presented.model_dump()
        parameters = {"victim": arm.victim, "condition": arm.condition, **shown, **_settings(arm)}
        log(self.client, run, parameters_of(parameters), [*_scores(self.results, arm), *_traces(arm)])
        self.client.log_table(run, _cases(self.results, arm), "cases.json")
        self.client.set_terminated(run)


def _settings(arm: Arm) -> dict[str, str]:
    """What went into the keys of all cells of a condition; digests of single cases are no parameters of it."""
    first, *others = (dict(_flat(record.inputs)) for record in arm.records.values())
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}


def _flat(value: Any, *place: str) -> Iterator[tuple[str, str]]:
    """Settings inside settings as one level: names joined by dots, the values of a list by spaces."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(inner, *place, str(name))
    elif isinstance(value, list):
        yield ".".join(place), " ".join(map(str, value)) or "none"
    else:
        yield ".".join(place), "none" if value is None else str(value)


def _scores(results: Results, arm: Arm) -> Iterator[Metric]:
    for region in results.regions:
        for measure in occurring(arm.records.values()):
            for kind, value in (("mean", arm.mean(region, measure)), ("median", arm.median(region, measure))):
                if value is not None:
                    yield metric((f"{measure.replace(' ', '_')}_{kind}", region), value)
        yield metric(("deletions", region), float(arm.deletions(region)))
        yield metric(("hallucinations", region), float(arm.hallucinations(region)))
    if found := [record.agreement for record in arm.records.values() if record.agreement is not None]:
        yield metric(("agreement_lowest",), min(found))


def _traces(arm: Arm) -> Iterator[Metric]:
    """The attack step by step: the mean over the cases that were still under way."""
    traces = [record.effort.trace for record in arm.records.values() if record.effort]
    for name in dict.fromkeys(name for trace in traces for name in trace):
        curves = [trace[name] for trace in traces if name in trace]
        for step in range(max(map(len, curves))):
            values = [curve[step] for curve in curves if step < len(curve) and math.isfinite(curve[step])]
            if values:
                yield metric((f"attack_{name}",), sum(values) / len(values), step)


def _cases(results: Results, arm: Arm) -> dict[str, list[Any]]:
    """The per-case table: one row a case, one column a region and metric."""
    table: dict[str, list[Any]] = {"case": list(arm.records)}
    for name in ("patient", "stratum", "fold"):
        table[name] = [getattr(record, name) for record in arm.records.values()]
    for region in results.regions:
        for measure in occurring(results.records):
            scores = arm.scores(region, measure)
            name = f"{measure.replace(' ', '_')}_{region}"
            table[name] = [scores[case].value if case in scores else None for case in arm.records]
    return table
