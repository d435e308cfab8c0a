"""A run's folder projected into MLflow: the only module that knows it, and it never writes into the run's folder.

One experiment a study; one parent run, a child run for each victim under each condition. What is already there is not
made again, and what has changed replaces what was there: a projection can always be thrown away.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from medadv.errors import ConfigError, RunError
from medadv.study.records import MANIFEST
from medadv.study.records import digest as record_digest
from medadv.study.report.provenance import environment, specification, without_folders
from medadv.study.report.words import answer
from medadv.study.results import Arm, Results, read_results

if TYPE_CHECKING:
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

FOLDER = "medadv.folder"
STUDY = "medadv.study"
SERVERS = ("http", "https")
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
VERSIONS = ("medadv", "python", "torch", "monai", "numpy", "scipy", "mlflow")
_ARTIFACT_ROOT = "_MLFLOW_SERVER_ARTIFACT_ROOT"
"""Where MLflow looks for the place of its default experiment, which a new database always has. Without it, that is the
current folder, whose path may name people."""
BATCH = 1000
PARAMETERS = 100
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
    store = _store(folder, uri)
    with _advised():
        artifacts = _artifacts(folder, store)
        return _Projection(_client(store, artifacts), results).write(_digest(folder), artifacts)


def _store(folder: Path, uri: str | None) -> str:
    chosen = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.parent.parent / 'mlflow.db'}"
    scheme = urlsplit(chosen).scheme.partition("+")[0]
    if scheme not in (*SERVERS, *DATABASES):
        raise ConfigError(
            "this is no store that MLflow still writes to",
            got=chosen,
            expected="sqlite:///mlflow.db, another database, or the http address of a server",
            cause="MLflow gave up folders of files (file:, ./mlruns) as a store",
            advice="leave the address out: medadv then uses mlflow.db beside runs/",
        )
    return chosen


def _artifacts(folder: Path, store: str) -> str | None:
    """Where artifacts go: a server decides for itself, otherwise a folder beside the database."""
    if urlsplit(store).scheme in SERVERS:
        return None
    local = store.startswith("sqlite:///")
    beside = Path(store.removeprefix("sqlite:///")).resolve().parent if local else folder.parent.parent
    return (beside / "mlartifacts").as_uri()


def _client(store: str, artifacts: str | None) -> MlflowClient:
    # Before the import, since MLflow reads them there; a hospital's network is not to be asked for anything.
    for name in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        os.environ.setdefault(name, "true")
    # An absent server is told at once rather than after minutes of new attempts.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # its first lines are about tables of its own
    if artifacts is None:
        return MlflowClient(tracking_uri=store)
    before = os.environ.get(_ARTIFACT_ROOT)
    os.environ[_ARTIFACT_ROOT] = artifacts
    try:
        return MlflowClient(tracking_uri=store)
    finally:
        os.environ.pop(_ARTIFACT_ROOT)
        if before is not None:
            os.environ[_ARTIFACT_ROOT] = before


@contextmanager
def _advised() -> Iterator[None]:
    """Turn trouble with MLflow into advice."""
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, RequestException, OSError) as error:
        raise RunError(
            "MLflow did not take the results",
            got=(str(error).splitlines() or [type(error).__name__])[0],
            cause="the store is locked, read-only, full or out of reach",
            advice="the run's folder is complete and was not touched; mend the store and run medadv track again",
        ) from error


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
    results: Results

    @property
    def _tags(self) -> dict[str, str]:
        """What all runs of this study share: its name and its first, dated declaration, which no other study has."""
        first = dict(self.results.declarations[0]) if self.results.declarations else {}
        return {STUDY: record_digest([self.results.name, first]), "medadv.unit": self.results.unit}

    def write(self, digest: str, artifacts: str | None) -> str:
        experiment = self._experiment(artifacts)
        own = f"tags.`{STUDY}` = '{self._tags[STUDY]}'"
        before = self.client.search_runs([experiment], own, max_results=50_000)
        for run in before:
            if run.info.status == "FINISHED" and run.data.tags.get(FOLDER) == digest:
                return str(run.info.run_id)
        parent = self._parent(experiment, digest)
        for arm in self.results.arms:
            self._child(experiment, parent, arm)
        # Finished last: until then it is not recognised as whole, and the next call begins anew.
        self.client.set_terminated(parent)
        for run in before:
            self.client.delete_run(run.info.run_id)
        return parent

    def _experiment(self, artifacts: str | None) -> str:
        name = plain(self.results.name)
        known = self.client.get_experiment_by_name(name)
        if known is None:
            return str(self.client.create_experiment(name, artifact_location=artifacts))
        if known.lifecycle_stage == "deleted":
            self.client.restore_experiment(known.experiment_id)
        return str(known.experiment_id)

    def _parent(self, experiment: str, digest: str) -> str:
        results = self.results
        told = "\n\n".join(words for victim in results.victims for words in answer(results, victim).sentences)
        tags = {**self._tags, FOLDER: digest, "mlflow.note.content": told}
        run = self.client.create_run(experiment, tags=tags, run_name=plain(results.name)).info.run_id
        versions = {name: told for name, told in environment(results) if name in VERSIONS}
        parameters = {"cases": len(results.cases), "refused": len(results.quarantine), **versions}
        # Of a network that came with its weights, the settings of a training would be of one that never was.
        victims = {name: v for name, v in results.specification["victims"].items() if results.curves(name)}
        settings = dict(_flat(without_folders(victims), "victims"))
        self._log(run, _parameters(parameters | settings), list(_training(results)))
        self.client.log_text(run, specification(results), "study.yaml")
        if results.comparisons:
            rows = [row.model_dump(mode="json") | {"missing": " ".join(row.missing)} for row in results.comparisons]
            self.client.log_table(run, {name: [row[name] for row in rows] for name in rows[0]}, "comparisons.json")
        report = results.folder / "report"
        if report.is_dir():
            self.client.log_artifacts(run, str(report), "report")
        return str(run)

    def _child(self, experiment: str, parent: str, arm: Arm) -> None:
        tags = {**self._tags, "mlflow.parentRunId": parent}
        run = self.client.create_run(experiment, tags=tags, run_name=plain(arm.victim, arm.condition)).info.run_id
        shown = arm.presented.model_dump()
        parameters = {"victim": arm.victim, "condition": arm.condition, **shown, **_settings(arm)}
        self._log(run, _parameters(parameters), [*_scores(self.results, arm), *_traces(arm)])
        self.client.log_table(run, _cases(self.results, arm), "cases.json")
        self.client.set_terminated(run)

    def _log(self, run: str, parameters: Sequence[Param], metrics: Sequence[Metric]) -> None:
        for start in range(0, len(parameters), PARAMETERS):
            self.client.log_batch(run, params=parameters[start : start + PARAMETERS])
        for start in range(0, len(metrics), BATCH):
            self.client.log_batch(run, metrics=metrics[start : start + BATCH])


def plain(*parts: str) -> str:
    """A name that MLflow accepts: parts of ASCII letters, digits and ``_-. :``, joined by slashes."""
    spelled = (_ascii(part).replace("@", " at ") for part in parts)
    return "/".join(re.sub(r"[^A-Za-z0-9_\-. :]+", "_", part).strip(". ") or "_" for part in spelled)


def _ascii(words: str) -> str:
    return words.replace("σ", "sigma").replace("ε", "epsilon").replace("–", "-").encode("ascii", "replace").decode()


def _parameters(values: dict[str, Any]) -> list[Param]:
    from mlflow.entities import Param

    return [Param(plain(name), _ascii(str(value))) for name, value in values.items() if value is not None]


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


def _metric(name: tuple[str, ...], value: float, step: int = 0) -> Metric:
    from mlflow.entities import Metric

    return Metric(plain(*name), value, int(time.time() * 1000), step)


def _scores(results: Results, arm: Arm) -> Iterator[Metric]:
    for region in results.regions:
        for metric in ("dice", "hd95"):
            for kind, value in (("mean", arm.mean(region, metric)), ("median", arm.median(region, metric))):
                if value is not None:
                    yield _metric((f"{metric}_{kind}", region), value)
        yield _metric(("deletions", region), float(arm.deletions(region)))
        yield _metric(("hallucinations", region), float(arm.hallucinations(region)))
    if found := [record.agreement for record in arm.records.values() if record.agreement is not None]:
        yield _metric(("agreement_lowest",), min(found))


def _traces(arm: Arm) -> Iterator[Metric]:
    """The attack step by step: the mean over the cases that were still under way."""
    traces = [record.effort.trace for record in arm.records.values() if record.effort]
    for name in dict.fromkeys(name for trace in traces for name in trace):
        curves = [trace[name] for trace in traces if name in trace]
        for step in range(max(map(len, curves))):
            values = [curve[step] for curve in curves if step < len(curve) and math.isfinite(curve[step])]
            if values:
                yield _metric((f"attack_{name}",), sum(values) / len(values), step)


def _training(results: Results) -> Iterator[Metric]:
    for victim, curve in results.training.items():
        for row in curve:
            for name, value in (("loss", row.loss), ("dice", row.dice), ("rate", row.rate)):
                if value is not None and math.isfinite(value):
                    yield _metric((f"training_{name}", victim), value, row.step)


def _cases(results: Results, arm: Arm) -> dict[str, list[Any]]:
    """The per-case table: one row a case, one column a region and metric."""
    table: dict[str, list[Any]] = {"case": list(arm.records)}
    for name in ("patient", "stratum", "fold"):
        table[name] = [getattr(record, name) for record in arm.records.values()]
    for region in results.regions:
        for metric in ("dice", "hd95"):
            scores = arm.scores(region, metric)
            table[f"{metric}_{region}"] = [scores[case].value if case in scores else None for case in arm.records]
    return table
