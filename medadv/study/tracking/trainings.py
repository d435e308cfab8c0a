"""One MLflow run for each trained victim of a study, or for each of its folds: the same whoever fills it.

While it is trained, ``listener`` writes into it step by step. Afterwards it is held against ``training.csv``, which is
the truth: what disagrees, was logged twice or is missing is made anew.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medadv.defense.training import Point
from medadv.study.results import TrainingStep
from medadv.study.tracking.store import RUNS, STUDY, log, metric, plain

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

TRAINING = "medadv.training"
"""Whose training a run shows: a victim's name, or name/fold_0 and so on, as the folders under ``victims/``."""
VICTIM, DEFENCE = "medadv.victim", "medadv.defence"
PARENT = "mlflow.parentRunId"
CURVES = {
    "training_loss": "loss",
    "learning_rate": "rate",
    "validation_dice": "dice",
    "validation_dice_attacked": "attacked",
}
"""Metric → column of ``training.csv``."""

Known = Mapping[str, Mapping[int, float]]
"""Metric → step → the value that MLflow has; of several, the last."""


def metrics_of(point: Point | TrainingStep, when_ms: int | None = None) -> Iterator[Metric]:
    """What ``training.csv`` holds of a step; what is not finite has no place on a curve."""
    for name, column in CURVES.items():
        value: float | None = getattr(point, column)
        if value is not None and math.isfinite(value):
            yield metric((name,), value, point.step, when_ms)


@dataclass(frozen=True)
class Trainings:
    """The training runs of one study.

    Attributes:
        client, experiment: where they are.
        tags: what all runs of the study share.
    """

    client: MlflowClient
    experiment: str
    tags: Mapping[str, str]

    def found(self) -> dict[str, list[Run]]:
        """Training → its runs, the newest first; there is one unless somebody was interrupted."""
        own = f"tags.`{STUDY}` = '{self.tags[STUDY]}'"
        runs: dict[str, list[Run]] = {}
        for run in self.client.search_runs([self.experiment], own, max_results=RUNS):
            if TRAINING in run.data.tags:
                runs.setdefault(run.data.tags[TRAINING], []).append(run)
        return runs

    def begin(self, training: str, tags: Mapping[str, str]) -> str:
        """A new run, in the place of those that showed an earlier training of this name."""
        before = self.found().get(training, [])
        run = self._made(training, tags)
        self._forget(before)
        return run

    def go_on(self, training: str, tags: Mapping[str, str]) -> tuple[str, Known]:
        """The run of a training that was interrupted, or a new one where it is gone; and what is in it."""
        before = self.found().get(training, [])
        if not before:
            return self._made(training, tags), {}
        run = before[0].info.run_id
        self.client.update_run(run, status="RUNNING")
        for name, value in tags.items():
            self.client.set_tag(run, name, value)
        return run, {name: dict(self._history(run, name)) for name in CURVES}

    def end(self, run: str, *, whole: bool) -> None:
        """The training has come to its last step, or was stopped."""
        self.client.set_terminated(run, "FINISHED" if whole else "KILLED")

    def settle(self, training: str, curve: Sequence[TrainingStep], tags: Mapping[str, str]) -> None:
        """Let the one run of a finished training hold its curve, each step once.

        A run that does not is replaced by one made from the curve. It keeps its tags; seconds are lost with it.
        """
        before = self.found().get(training, [])
        for run in before:
            if self._holds(run.info.run_id, curve):
                if run.info.status != "FINISHED":
                    self.end(run.info.run_id, whole=True)
                for name, value in tags.items():
                    if run.data.tags.get(name) != value:
                        self.client.set_tag(run.info.run_id, name, value)
                self._forget(other for other in before if other is not run)
                return
        kept = {k: v for run in before[:1] for k, v in run.data.tags.items() if k in (VICTIM, DEFENCE)}
        made = self._made(training, {**kept, **tags})
        log(self.client, made, metrics=[found for row in curve for found in metrics_of(row)])
        self.end(made, whole=True)
        self._forget(before)

    def clear(self, trainings: Mapping[str, object]) -> None:
        """Forget finished trainings that the study's folder has no more; one that goes on is left alone."""
        for training, runs in self.found().items():
            if training not in trainings:
                self._forget(run for run in runs if run.info.status == "FINISHED")

    def _made(self, training: str, tags: Mapping[str, str]) -> str:
        own = {**self.tags, **tags, TRAINING: training}
        name = "/".join(("training", *(plain(part) for part in training.split("/"))))
        return str(self.client.create_run(self.experiment, int(time.time() * 1000), own, name).info.run_id)

    def _forget(self, runs: Iterator[Run] | Sequence[Run]) -> None:
        for run in runs:
            self.client.delete_run(run.info.run_id)

    def _history(self, run: str, name: str) -> list[tuple[int, float]]:
        told = self.client.get_metric_history(run, name)
        return [(m.step, m.value) for m in sorted(told, key=lambda m: (m.step, m.timestamp))]

    def _holds(self, run: str, curve: Sequence[TrainingStep]) -> bool:
        wanted = [found for row in curve for found in metrics_of(row)]
        return all(self._history(run, name) == [(m.step, m.value) for m in wanted if m.key == name] for name in CURVES)
