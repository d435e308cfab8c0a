"""How a run tells where it stands: a bar on a terminal, plain lines elsewhere, nothing where nobody listens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from medadv.defense.training import Point

EVERY_SECONDS = 10.0
"""How often a plain line is written."""


@dataclass(frozen=True)
class Learner:
    """Who is being trained: a victim of a study, or its network of one fold.

    Attributes:
        defence: what it learns to withstand attacks by.
    """

    victim: str
    fold: int | None = None
    defence: str = "none"

    @property
    def title(self) -> str:
        """For people."""
        return self.victim if self.fold is None else f"{self.victim}, fold {self.fold}"

    @property
    def place(self) -> str:
        """Where it lies under ``victims/``."""
        return self.victim if self.fold is None else f"{self.victim}/fold_{self.fold}"


@runtime_checkable
class Watch(Protocol):
    """Who is told of a run's progress."""

    def say(self, message: str) -> None:
        """Something happened, once."""
        ...

    def task(self, title: str, total: int) -> None:
        """A stretch of work begins."""
        ...

    def step(self, note: str = "") -> None:
        """One part of it is done."""
        ...

    def learnt(self, learner: Learner, point: Point, steps: int, /) -> None:
        """One part of it is done, and was a step of a training of so many."""
        ...


class Silent:
    """Tells nobody."""

    def say(self, message: str) -> None:
        """Nothing."""

    def task(self, title: str, total: int) -> None:
        """Nothing."""

    def step(self, note: str = "") -> None:
        """Nothing."""

    def learnt(self, learner: Learner, point: Point, steps: int, /) -> None:
        """Nothing."""


class Pace:
    """How fast a stretch of work goes, from now on."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self._before: int | None = None

    def left(self, now: float, done: int, total: int) -> float:
        """Seconds until all is done, at the mean pace since it began; to be asked after each part.

        Args:
            now: by the clock of ``time.monotonic``.
            done, total: parts; those before the first one that is asked for took no time here.
        """
        if self._before is None:
            self._before = done - 1
        return (now - self.began) / (done - self._before) * (total - done)


class Learning:
    """What is said of a training: its loss now, and its last validation."""

    def __init__(self) -> None:
        self._validated: Point | None = None

    def told(self, point: Point) -> str:
        """One step in words."""
        if point.dice is not None:
            self._validated = point
        words = f"loss {point.loss:.3f}"
        if (last := self._validated) is not None and last.dice is not None:
            attacked = "" if last.attacked is None else f", attacked {last.attacked:.3f}"
            words += f", Dice {last.dice:.3f}{attacked} (step {last.step + 1})"
        return words


class Bars:
    """A bar for each stretch of work, on a terminal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", visible=False)
        self._learning = Learning()
        self._fresh = False

    def say(self, message: str) -> None:
        """A line above the bars."""
        self._progress.console.print(message, markup=False, highlight=False)

    def task(self, title: str, total: int) -> None:
        """A new bar."""
        self._learning, self._fresh = Learning(), True
        self._task = self._progress.add_task(title, total=total, note="")

    def step(self, note: str = "") -> None:
        """The bar grows."""
        self._progress.update(self._task, advance=1, note=note)

    def learnt(self, _learner: Learner, point: Point, steps: int, /) -> None:
        """The bar grows, from where an interrupted training was."""
        if self._fresh:
            self._fresh = False
            self._progress.reset(self._task, completed=point.step)  # what was learnt before took no time here
        self._progress.update(self._task, total=steps, completed=point.step + 1, note=self._learning.told(point))


class Lines:
    """A plain line every few seconds, for logs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._title, self._total, self._done = "", 0, 0
        self._pace, self._learning = Pace(), Learning()
        self._told = self._pace.began

    def say(self, message: str) -> None:
        """One line."""
        self._console.print(message, markup=False, highlight=False, soft_wrap=True)

    def task(self, title: str, total: int) -> None:
        """One line, and the clock starts."""
        self._title, self._total, self._done = title, total, 0
        self._pace, self._learning = Pace(), Learning()
        self._told = self._pace.began
        self.say(f"{title}: {total} to do")

    def step(self, note: str = "") -> None:
        """One line if the last one is long ago, or all is done."""
        self._advance(self._done + 1, note)

    def learnt(self, _learner: Learner, point: Point, steps: int, /) -> None:
        """One line if the last one is long ago, or all is done; an interrupted training goes on where it was."""
        self._total = steps
        self._advance(point.step + 1, self._learning.told(point))

    def _advance(self, done: int, note: str) -> None:
        now = time.monotonic()
        left = self._pace.left(now, done, self._total)
        self._done = done
        if done < self._total and now - self._told < EVERY_SECONDS:
            return
        self._told = now
        self.say(f"{self._title}: {done}/{self._total}, {now - self._pace.began:.0f} s, {left:.0f} s left {note}")


@contextmanager
def watching(console: Console) -> Iterator[Watch]:
    """Bars where the console is a terminal, lines elsewhere."""
    if not console.is_terminal:
        yield Lines(console)
        return
    # Where the terminal is narrow, the bar gives way first, then the end of the note; never a number in between.
    note = Column(no_wrap=True, overflow="ellipsis", max_width=max(console.width - 60, 12))
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
        TextColumn("left"),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[note]}", style="dim", markup=False, table_column=note),
    )
    with Progress(*columns, console=console) as progress:
        yield Bars(progress)
