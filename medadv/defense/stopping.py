"""How a training is asked to end: the step in hand is finished, the checkpoint is written, and the process ends.

SIGTERM is what SLURM, torchrun and ``kill`` send, SIGINT what Ctrl-C sends. A second SIGINT ends the process at once.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(BaseException):
    """A signal came where the work in hand may be dropped."""


class Stopping:
    """Listens for signals inside ``listening``; in another thread than the main one it hears nothing."""

    def __init__(self) -> None:
        self.signal = 0
        """The number of the signal that came, 0 without one."""
        self._droppable = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Signals are noted inside; afterwards they do what they did before."""
        before: dict[signal.Signals, Callable[..., Any] | int | None] = {}
        if threading.current_thread() is threading.main_thread():
            # What is ignored stays ignored: a shell lets its background jobs ignore Ctrl-C.
            before = {number: held for number in SIGNALS if (held := signal.getsignal(number)) != signal.SIG_IGN}
        try:
            for number in before:
                signal.signal(number, self._heard)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def droppable(self) -> Iterator[None]:
        """What is done inside may be dropped: a signal ends it at once.

        Raises:
            Interrupted: a signal came.
        """
        self._droppable = True
        try:
            if self.signal:
                raise Interrupted
            yield
        finally:
            self._droppable = False

    def _heard(self, number: int, _frame: FrameType | None) -> None:
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
        if self._droppable:
            self._droppable = False
            raise Interrupted
