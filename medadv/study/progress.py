"""How a run tells where it stands: a bar on a terminal, plain lines elsewhere, nothing where nobody listens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

EVERY_SECONDS = 10.0
"""How often a plain line is written."""


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


class Silent:
    """Tells nobody."""

    def say(self, message: str) -> None:
        """Nothing."""

    def task(self, title: str, total: int) -> None:
        """Nothing."""

    def step(self, note: str = "") -> None:
        """Nothing."""


class Bars:
    """A bar for each stretch of work, on a terminal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", visible=False)

    def say(self, message: str) -> None:
        """A line above the bars."""
        self._progress.console.print(message, markup=False, highlight=False)

    def task(self, title: str, total: int) -> None:
        """A new bar."""
        self._task = self._progress.add_task(title, total=total, note="")

    def step(self, note: str = "") -> None:
        """The bar grows."""
        self._progress.update(self._task, advance=1, note=note)


class Lines:
    """A plain line every few seconds, for logs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._title, self._total, self._done = "", 0, 0
        self._began = self._told = time.monotonic()

    def say(self, message: str) -> None:
        """One line."""
        self._console.print(message, markup=False, highlight=False, soft_wrap=True)

    def task(self, title: str, total: int) -> None:
        """One line, and the clock starts."""
        self._title, self._total, self._done = title, total, 0
        self._began = self._told = time.monotonic()
        self.say(f"{title}: {total} to do")

    def step(self, note: str = "") -> None:
        """One line if the last one is long ago, or all is done."""
        self._done += 1
        now = time.monotonic()
        if self._done < self._total and now - self._told < EVERY_SECONDS:
            return
        self._told = now
        left = (now - self._began) / self._done * (self._total - self._done)
        self.say(f"{self._title}: {self._done}/{self._total}, {now - self._began:.0f} s, {left:.0f} s left {note}")


@contextmanager
def watching(console: Console) -> Iterator[Watch]:
    """Bars where the console is a terminal, lines elsewhere."""
    if not console.is_terminal:
        yield Lines(console)
        return
    columns = (
        TextColumn("{task.description:<28}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", style="dim", markup=False),
    )
    with Progress(*columns, console=console) as progress:
        yield Bars(progress)
