"""A training's curves in MLflow while it goes on. A thread of its own writes them, so that no step waits."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING

from medadv.defense.training import CURVE, Point
from medadv.study.progress import Learner, Pace, Watch
from medadv.study.results import read_curve
from medadv.study.tracking.store import artifacts_of, client_of, experiment_of, log, metric, store_of, study_tag
from medadv.study.tracking.trainings import DEFENCE, VICTIM, Known, Trainings, metrics_of

if TYPE_CHECKING:
    from mlflow.entities import Metric

EVERY_SECONDS = 3.0
"""How often what has been learnt since is written, all of it at once."""
AT_MOST_SECONDS = 60.0
"""How long it waits between attempts while MLflow refuses."""
PATIENCE_SECONDS = 20.0
"""How long the end of a training waits for the last points."""


@contextmanager
def live(watch: Watch, folder: Path, tracked: bool = True, uri: str | None = None) -> Iterator[Watch]:
    """Somebody to be told of trainings who hands every point on to MLflow, and all else to ``watch``.

    Nothing is opened, nor MLflow imported, before a first point is told. MLflow's trouble is said once and stops no
    training; points are kept for the next attempt, and ``medadv track`` makes up for what was lost.

    Args:
        watch: told of everything.
        folder: the run's folder, ``runs/<study>``, in which the study's first declaration lies.
        tracked: False for ``watch`` alone.
        uri: the store, as for ``track``.
    """
    if not tracked:
        yield watch
        return
    listener = Listener(watch, folder.resolve(), uri)
    try:
        yield listener
    finally:
        listener.close()


@dataclass(frozen=True)
class _Heard:
    """One step, and when it was heard of."""

    learner: Learner
    point: Point
    steps: int
    when_ms: int
    seconds: float
    left_minutes: float


class Listener:
    """A ``Watch`` that shows trainings in MLflow."""

    def __init__(self, watch: Watch, folder: Path, uri: str | None = None) -> None:
        self._watch = watch
        self._writer = _Writer(folder, uri)
        self._thread = Thread(target=self._write, name="medadv-mlflow", daemon=True)
        self._lock, self._ended = Lock(), Event()
        self._heard: list[_Heard] = []
        self._pace, self._last = Pace(), time.monotonic()
        self._trouble: str | None = None
        self._told = False

    def say(self, message: str) -> None:
        """Handed on."""
        self._watch.say(message)

    def task(self, title: str, total: int) -> None:
        """Handed on; the clock starts."""
        self._pace, self._last = Pace(), time.monotonic()
        self._watch.task(title, total)

    def step(self, note: str = "") -> None:
        """Handed on."""
        self._watch.step(note)

    def learnt(self, learner: Learner, point: Point, steps: int) -> None:
        """Handed on, and laid by for MLflow."""
        self._watch.learnt(learner, point, steps)
        now = time.monotonic()
        left = self._pace.left(now, point.step + 1, steps)
        heard = _Heard(learner, point, steps, int(time.time() * 1000), now - self._last, left / 60)
        self._last = now
        with self._lock:
            self._heard.append(heard)
        if self._thread.ident is None:
            self._thread.start()
        self._tell()

    def close(self) -> None:
        """Write what is left, and wait for it, but not for ever."""
        if self._thread.ident is None:
            return
        self._ended.set()
        self._thread.join(PATIENCE_SECONDS)
        if self._thread.is_alive() and self._trouble is None:
            self._trouble = f"no answer for {PATIENCE_SECONDS:g} s"
        self._tell()

    def _tell(self) -> None:
        if self._trouble is not None and not self._told:
            self._told = True
            self._watch.say(
                f"MLflow does not take the training's curves: {self._trouble}. The training goes on; curves that are "
                "missing then are made by `medadv track`, once the run is finished."
            )

    def _write(self) -> None:
        """The thread: every few seconds all that was heard, until the end."""
        wait, ended = EVERY_SECONDS, False
        while not ended:
            ended = self._ended.wait(wait)
            with self._lock:
                heard, self._heard = self._heard, []
            try:
                self._writer.write(heard)
                if ended:
                    self._writer.close()
                wait = EVERY_SECONDS
            except Exception as error:  # whatever it is, it may not end a training
                self._trouble = (str(error).splitlines() or [type(error).__name__])[0]
                wait = min(wait * 2, AT_MOST_SECONDS)
                with self._lock:
                    self._heard = [*heard, *self._heard]


@dataclass
class _Shown:
    """The MLflow run of one training.

    Attributes:
        known: what was in it before, where the training goes on.
        last: the step that was written last.
        whole: whether the training has come to its end.
    """

    run: str
    known: Known
    last: int = -1
    whole: bool = False


@dataclass
class _Writer:
    """What the thread does: points into runs. It may be asked for the same points again after trouble."""

    folder: Path
    uri: str | None
    trainings: Trainings | None = None
    shown: dict[Learner, _Shown] = field(default_factory=dict)

    def write(self, heard: list[_Heard]) -> None:
        """All points, by learner, as few calls as MLflow allows."""
        for learner in dict.fromkeys(each.learner for each in heard):
            own = [each for each in heard if each.learner == learner]
            trainings, shown = self._open(), self._shown(learner, own[0].point.step)
            metrics = [m for each in own for m in _metrics(each) if shown.known.get(m.key, {}).get(m.step) != m.value]
            log(trainings.client, shown.run, metrics=metrics)
            shown.last = own[-1].point.step
            if shown.last == own[-1].steps - 1 and not shown.whole:
                trainings.end(shown.run, whole=True)
                shown.whole = True

    def close(self) -> None:
        """Say which trainings were stopped, and hold the others that went on against their curves."""
        for learner, shown in self.shown.items():
            trainings, curve = self._open(), self.folder / "victims" / learner.place / CURVE
            if not shown.whole:
                trainings.end(shown.run, whole=False)
            elif shown.known and curve.exists():
                trainings.settle(learner.place, read_curve(curve), {})

    def _shown(self, learner: Learner, first: int) -> _Shown:
        if learner not in self.shown:
            tags = {VICTIM: learner.victim, DEFENCE: learner.defence}
            if first == 0:
                self.shown[learner] = _Shown(self._open().begin(learner.place, tags), {})
            else:
                self.shown[learner] = _Shown(*self._open().go_on(learner.place, tags))
        return self.shown[learner]

    def _open(self) -> Trainings:
        if self.trainings is None:
            store = store_of(self.folder, self.uri)
            artifacts = artifacts_of(self.folder, store)
            client = client_of(store, artifacts)
            study = self.folder.name  # while it runs, a study lies in the folder of its name
            declarations = (self.folder / "declarations.jsonl").read_text(encoding="utf-8").splitlines()
            tags = study_tag(study, [json.loads(declarations[0])])
            self.trainings = Trainings(client, experiment_of(client, study, artifacts), tags)
        return self.trainings


def _metrics(heard: _Heard) -> Iterator[Metric]:
    yield from metrics_of(heard.point, heard.when_ms)
    yield metric(("seconds_per_step",), heard.seconds, heard.point.step, heard.when_ms)
    yield metric(("minutes_left",), heard.left_minutes, heard.point.step, heard.when_ms)
