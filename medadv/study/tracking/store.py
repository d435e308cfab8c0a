"""Where MLflow keeps what it is given, and in which words it takes it."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from medadv.errors import ConfigError, RunError
from medadv.study.records import digest as record_digest

if TYPE_CHECKING:
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

STUDY = "medadv.study"
SERVERS = ("http", "https")
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_ARTIFACT_ROOT = "_MLFLOW_SERVER_ARTIFACT_ROOT"
"""Where MLflow looks for the place of its default experiment, which a new database always has. Without it, that is the
current folder, whose path may name people."""
BATCH = 1000
PARAMETERS = 100
RUNS = 50_000
"""The most that MLflow tells of in one answer."""


def store_of(folder: Path, uri: str | None) -> str:
    """The store for a run's folder (resolved): as given, as the environment says, or ``mlflow.db`` beside ``runs/``.

    Raises:
        ConfigError: a store that MLflow gave up, or that is none.
    """
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


def artifacts_of(folder: Path, store: str) -> str | None:
    """Where artifacts go: a server decides for itself, otherwise a folder beside the database."""
    if urlsplit(store).scheme in SERVERS:
        return None
    local = store.startswith("sqlite:///")
    beside = Path(store.removeprefix("sqlite:///")).resolve().parent if local else folder.parent.parent
    return (beside / "mlartifacts").as_uri()


def client_of(store: str, artifacts: str | None) -> MlflowClient:
    """A client of the store, which is made if it is a database that is missing."""
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
def advised() -> Iterator[None]:
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


def experiment_of(client: MlflowClient, study: str, artifacts: str | None) -> str:
    """The id of the experiment of studies of this name, made if it is missing."""
    name = plain(study)
    known = client.get_experiment_by_name(name)
    if known is None:
        return str(client.create_experiment(name, artifact_location=artifacts))
    if known.lifecycle_stage == "deleted":
        client.restore_experiment(known.experiment_id)
    return str(known.experiment_id)


def study_tag(study: str, declarations: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What all runs of one study share: its name and its first, dated declaration, which no other study has."""
    return {STUDY: record_digest([study, dict(declarations[0]) if declarations else {}])}


def log(client: MlflowClient, run: str, parameters: Sequence[Param] = (), metrics: Sequence[Metric] = ()) -> None:
    """Parameters and metrics, in pieces of the size that MLflow takes."""
    for start in range(0, len(parameters), PARAMETERS):
        client.log_batch(run, params=parameters[start : start + PARAMETERS])
    for start in range(0, len(metrics), BATCH):
        client.log_batch(run, metrics=metrics[start : start + BATCH])


def plain(*parts: str) -> str:
    """A name that MLflow accepts: parts of ASCII letters, digits and ``_-. :``, joined by slashes."""
    spelled = (ascii_words(part).replace("@", " at ") for part in parts)
    return "/".join(re.sub(r"[^A-Za-z0-9_\-. :]+", "_", part).strip(". ") or "_" for part in spelled)


def ascii_words(words: str) -> str:
    """Words without letters that stores of other encodings could not hold."""
    return words.replace("σ", "sigma").replace("ε", "epsilon").replace("–", "-").encode("ascii", "replace").decode()


def parameters_of(values: Mapping[str, Any]) -> list[Param]:
    """MLflow's parameters; what is None is left out."""
    from mlflow.entities import Param

    return [Param(plain(name), ascii_words(str(value))) for name, value in values.items() if value is not None]


def metric(name: tuple[str, ...], value: float, step: int = 0, when_ms: int | None = None) -> Metric:
    """One number of a step, dated now if nothing else is said."""
    from mlflow.entities import Metric

    return Metric(plain(*name), value, int(time.time() * 1000) if when_ms is None else when_ms, step)
