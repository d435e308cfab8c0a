"""A training can be watched in MLflow while it goes on, in one run, whatever befalls it or MLflow."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from study.identities import CANARY, KINDS, lesion, nifti, scan
from study.processes import LIMIT, warm
from study.small_study import TRAINED, contents, small, trained
from study.test_identities import TABLE, told_in

from medadv.atomic import write_text
from medadv.defense.training import Point
from medadv.study.progress import Learner, Silent
from medadv.study.run import run, train
from medadv.study.spec import Study
from medadv.study.tracking import live, track
from medadv.study.tracking.listener import Listener
from medadv.study.tracking.store import artifacts_of, client_of

# MLflow's tables are older than pandas 3.
pytestmark = pytest.mark.filterwarnings("ignore:For backward compatibility, 'str' dtypes are included")

UNET = Learner("unet", defence="trades")
CURVES = ("training_loss", "learning_rate", "validation_dice", "validation_dice_attacked")


class Listening(Silent):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables with nothing in them: they take seconds to make."""
    place = tmp_path_factory.mktemp("empty") / "mlflow.db"
    client_of(f"sqlite:///{place}", artifacts_of(place, f"sqlite:///{place}"))
    return place


@pytest.fixture
def runs(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for runs, with an empty store beside it, in which a training is written often."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("medadv.study.tracking.listener.EVERY_SECONDS", 0.02)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return tmp_path / "runs"


@pytest.fixture
def folder(runs: Path) -> Path:
    """The folder of a study that has been declared, and nothing else."""
    write_text(runs / "alone" / "declarations.jsonl", json.dumps({"declared": "today"}) + "\n")
    return runs / "alone"


def store(runs: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{runs.parent / 'mlflow.db'}")


def trainings(runs: Path, study: str) -> list[Run]:
    experiment = store(runs).get_experiment_by_name(study)
    every = store(runs).search_runs([experiment.experiment_id]) if experiment else []
    return [each for each in every if "medadv.training" in each.data.tags]


def history(runs: Path, training: Run, name: str) -> list[tuple[int, float]]:
    told = store(runs).get_metric_history(training.info.run_id, name)
    return [(m.step, m.value) for m in sorted(told, key=lambda m: (m.step, m.timestamp))]


def written(folder: Path, column: str) -> list[tuple[int, float]]:
    """A column of a ``training.csv``."""
    with (folder / "training.csv").open(newline="") as stream:
        return [(int(row["step"]), float(row[column])) for row in csv.DictReader(stream) if row[column]]


def until(true: Callable[[], Any]) -> None:
    """Wait for the other thread."""
    for _ in range(3000):
        if true():
            return
        time.sleep(0.01)
    pytest.fail("it did not come true")


def point(step: int, loss: float = 1.0) -> Point:
    validated = (step + 1) % 2 == 0
    return Point(step, loss, 0.01, 0.8 if validated else None, 0.5 if validated else None)


# A training that is watched


def test_points_are_there_while_it_goes_on(runs: Path, folder: Path) -> None:
    with live(Silent(), folder) as watch:
        for step in range(3):
            watch.learnt(UNET, point(step, 3.0 - step), 5)
        until(lambda: [len(history(runs, r, "training_loss")) for r in trainings(runs, "alone")] == [3])
        (training,) = trainings(runs, "alone")
        assert training.info.status == "RUNNING"
        assert training.info.run_name == "training/unet"
        told = {"medadv.victim": "unet", "medadv.training": "unet", "medadv.defence": "trades"}
        assert told.items() <= training.data.tags.items()
        assert history(runs, training, "training_loss") == [(0, 3.0), (1, 2.0), (2, 1.0)]
        assert history(runs, training, "validation_dice") == [(1, 0.8)]
        assert history(runs, training, "validation_dice_attacked") == [(1, 0.5)]
        assert [step for step, _ in history(runs, training, "minutes_left")] == [0, 1, 2]
        for step in (3, 4):
            watch.learnt(UNET, point(step), 5)
        until(lambda: trainings(runs, "alone")[0].info.status == "FINISHED")
    (training,) = trainings(runs, "alone")
    assert len(history(runs, training, "training_loss")) == 5


def test_the_pace_is_measured(runs: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of two seconds, of which the sixth to the ninth are learnt here: after the eighth, two seconds are left."""
    clock = iter(range(1000, 2000, 2))
    listener = Listener(Silent(), folder)
    monkeypatch.setattr("medadv.study.tracking.listener.time.monotonic", lambda: float(next(clock)))
    listener.task("train unet", 9)  # asked twice: 1000 for the pace, 1002 for the step
    for step in range(5, 9):
        listener.learnt(UNET, point(step), 9)
    monkeypatch.undo()
    assert [heard.seconds for heard in listener._heard] == [2.0] * 4
    assert [heard.left_minutes * 60 for heard in listener._heard] == [pytest.approx(v) for v in (12, 6, 8 / 3, 0)]


def test_what_is_said_is_handed_on(folder: Path) -> None:
    listening = Listening()
    with live(listening, folder) as watch:
        watch.say("a")
        watch.task("b", 1)
        watch.step("c")
    assert listening.said == ["a"]
    with live(listening, folder, tracked=False) as watch:
        assert watch is listening


def test_a_studys_curves_are_those_of_its_files_and_are_projected_once(runs: Path, no_report: None) -> None:
    victims = {"unet": TRAINED, "twin": TRAINED}
    study = trained(victims=victims)
    path = train(study, runs=runs)
    before = {r.data.tags["medadv.training"]: r for r in trainings(runs, study.study)}
    assert set(before) == set(victims)
    for name, training in before.items():
        for metric, column in zip(CURVES, ("loss", "rate", "dice", "attacked"), strict=True):
            assert history(runs, training, metric) == written(path / "victims" / name, column)
        assert len(history(runs, training, "training_loss")) == 6
    run(study, runs=runs)
    after = {r.data.tags["medadv.training"]: r for r in trainings(runs, study.study)}
    assert {n: r.info.run_id for n, r in after.items()} == {n: r.info.run_id for n, r in before.items()}
    parent = {r.data.tags["mlflow.parentRunId"] for r in after.values()}
    assert parent == {track(path)}  # which changes nothing
    assert {r.info.run_id for r in trainings(runs, study.study)} == {r.info.run_id for r in before.values()}
    # What was deleted, or holds something else, is made from the file.
    store(runs).delete_run(after["unet"].info.run_id)
    store(runs).log_metric(after["twin"].info.run_id, "training_loss", 7.0, step=3)
    assert {track(path)} == parent
    again = {r.data.tags["medadv.training"]: r for r in trainings(runs, study.study)}
    assert {r.info.run_id for r in again.values()}.isdisjoint(r.info.run_id for r in before.values())
    for name, training in again.items():
        assert history(runs, training, "training_loss") == written(path / "victims" / name, "loss")
        assert training.data.tags["medadv.defence"] == "none"
        assert training.info.status == "FINISHED"
    # A victim that is gone takes its finished training with it.
    shutil.rmtree(path / "victims" / "twin")
    track(path)
    assert [r.data.tags["medadv.training"] for r in trainings(runs, study.study)] == ["unet"]


def test_folds_have_a_run_each_and_no_tracking_leaves_nothing(runs: Path, tmp_path: Path) -> None:
    study = trained(study="folds", split={"folds": 2, "validate": 1}, data=phantoms(4))
    before = (tmp_path / "mlflow.db").read_bytes()
    train(study, runs=runs, tracked=False)
    assert (tmp_path / "mlflow.db").read_bytes() == before
    shutil.rmtree(runs)
    train(study, runs=runs)
    assert {r.info.run_name for r in trainings(runs, "folds")} == {"training/unet/fold_0", "training/unet/fold_1"}


def phantoms(cases: int) -> dict[str, Any]:
    return {"importer": "phantom", "cases": cases, "shape": [24, 24, 24]}


# A training that is interrupted


def _train_until(study: Study, runs: Path, count: int) -> None:
    """Killed when step ``count`` begins and all before it are in MLflow."""
    import medadv.study.tracking.listener as module
    from medadv.defense.training import _Course

    torch.set_num_threads(1)
    module.EVERY_SECONDS = 0.02
    real = _Course.learn

    def learn(course: _Course, batch: Any, step: int) -> Point:
        if step == count:
            until(lambda: [len(history(runs, r, "training_loss")) for r in trainings(runs, study.study)] == [count])
            os.kill(os.getpid(), signal.SIGKILL)
        return real(course, batch, step)

    _Course.learn = learn  # type: ignore[method-assign]
    train(study, runs=runs)


def test_a_killed_training_goes_on_in_its_run(runs: Path) -> None:
    """Killed after five of six steps, of which four are in the checkpoint: the fifth is learnt twice and shown once."""
    study = trained()
    process = warm().Process(target=_train_until, args=(study, runs, 5))
    process.start()
    process.join(LIMIT)
    assert process.exitcode == -signal.SIGKILL
    (before,) = trainings(runs, study.study)
    assert before.info.status == "RUNNING"
    path = train(study, runs=runs)
    (after,) = trainings(runs, study.study)
    assert after.info.run_id == before.info.run_id
    assert after.info.status == "FINISHED"
    assert history(runs, after, "training_loss") == written(path / "victims" / "unet", "loss")
    assert [step for step, _ in history(runs, after, "training_loss")] == list(range(6))


def test_a_stopped_training_is_called_so_and_later_points_win(runs: Path, folder: Path) -> None:
    with live(Silent(), folder) as watch:
        for step in range(4):
            watch.learnt(UNET, point(step), 5)
    (stopped,) = trainings(runs, "alone")
    assert stopped.info.status == "KILLED"
    # It goes on from a checkpoint after two steps, on a device whose last bits differ.
    with live(Silent(), folder) as watch:
        for step in (2, 3):
            watch.learnt(UNET, point(step, 0.5), 5)
        until(lambda: trainings(runs, "alone")[0].data.metrics["training_loss"] == 0.5)
        (resumed,) = trainings(runs, "alone")
        assert resumed.info.run_id == stopped.info.run_id
        assert dict(history(runs, resumed, "training_loss")) == {0: 1.0, 1: 1.0, 2: 0.5, 3: 0.5}
        watch.learnt(UNET, point(4, 0.5), 5)
        rows = ["step,loss,rate,dice", *(f"{k},{1.0 if k < 2 else 0.5},0.01,{0.8 if k % 2 else ''}" for k in range(5))]
        write_text(folder / "victims" / "unet" / "training.csv", "\n".join(rows) + "\n")
    (settled,) = trainings(runs, "alone")
    assert history(runs, settled, "training_loss") == [(0, 1.0), (1, 1.0), (2, 0.5), (3, 0.5), (4, 0.5)]
    assert settled.data.tags["medadv.defence"] == "trades"
    # One that begins anew has a run of its own, in the place of the old one.
    with live(Silent(), folder) as watch:
        watch.learnt(UNET, point(0, 9.0), 1)
    (anew,) = trainings(runs, "alone")
    assert anew.info.run_id != settled.info.run_id
    assert history(runs, anew, "training_loss") == [(0, 9.0)]
    assert history(runs, anew, "validation_dice") == []


# Trouble


def test_a_store_that_fails_stops_no_training_and_is_told_once(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = train(trained(), runs=tmp_path / "quiet", tracked=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for store_uri in (f"sqlite:///{__file__}", "file:./mlruns", "http://127.0.0.1:9"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri)
        listening = Listening()
        path = train(trained(), runs=runs, watch=listening)
        (said,) = (line for line in listening.said if "MLflow" in line)
        assert "The training goes on" in said
        assert contents(path / "victims") == contents(quiet / "victims")
        shutil.rmtree(path)


@pytest.fixture
def deaf() -> Iterator[str]:
    """The address of a server that takes calls and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
    for thread in threading.enumerate():
        if thread.name == "medadv-mlflow":
            thread.join(LIMIT)  # its call has ended with the server


def test_a_store_that_never_answers_holds_nobody_up(folder: Path, deaf: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medadv.study.tracking.listener.PATIENCE_SECONDS", 0.2)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")  # longer than anybody here waits
    listening, began = Listening(), time.monotonic()
    with live(listening, folder, uri=deaf) as watch:
        for step in range(5):
            watch.learnt(UNET, point(step), 5)
        assert time.monotonic() - began < 2
    assert time.monotonic() - began < 2.5
    (said,) = listening.said
    assert "no answer for 0.2 s" in said


def test_points_wait_until_the_store_is_back(runs: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, refused = MlflowClient.log_batch, []

    def log_batch(self: MlflowClient, *given: Any, **named: Any) -> None:
        real(self, *given, **named)
        if len(refused) < 3:  # it was written, and nobody was told
            refused.append(1)
            raise OSError("database is locked")

    monkeypatch.setattr(MlflowClient, "log_batch", log_batch)
    listening = Listening()
    with live(listening, folder) as watch:
        for step in range(5):
            watch.learnt(UNET, point(step), 5)
            until(lambda step=step: len(refused) > min(step, 2))
    (said,) = listening.said
    assert "database is locked" in said
    (training,) = trainings(runs, "alone")
    assert [step for step, _ in history(runs, training, "training_loss")] == list(range(5))
    assert training.info.status == "FINISHED"


# Nobody is named


def test_live_curves_name_nobody(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    source = tmp_path_factory.mktemp(f"{CANARY}_source")
    for number in range(3):
        case = source / f"{CANARY}_BRATS_{number}"
        for place, kind in enumerate(KINDS):
            nifti(case / f"{case.name}_{kind}.nii.gz", scan(4 * number + place))
        nifti(case / f"{case.name}_seg.nii.gz", lesion() * 4)
    study = small(source, victims={"unet": TRAINED}, ids="pseudonyms", split={"train": 1, "validate": 1})
    train(study, runs=runs)
    assert len(trainings(runs, "small")) == 1
    assert told_in(runs.parent, beside=(TABLE,)) == {}
