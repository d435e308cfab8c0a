"""Runs in processes of their own, forked from one warm parent, and killed where a test says.

The parent has imported everything and computed nothing: a fork after a first parallel region of OpenMP could hang.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from functools import wraps
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from medadv.study.spec import Study

LIMIT = 120.0
"""Seconds after which a process is stopped and the test fails, whatever the reason."""

Moment = tuple[str, int]
"""``module:attribute`` and the number of the call at whose beginning the process is killed."""


def warm() -> ForkServerContext:
    """The parent: one a test session, and it stays."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["medadv.study.run"])
    return context


def run_until(study: Study, runs: Path, moment: Moment | None, quick: bool = True) -> int:
    """Run a study in a process of its own; its exit code, -9 where it was killed."""
    process = warm().Process(target=_run, args=(study, runs, moment, quick))
    process.start()
    process.join(LIMIT)
    if process.is_alive():
        process.kill()
        process.join()
        raise TimeoutError(f"a run took more than {LIMIT} s")
    assert process.exitcode is not None
    return process.exitcode


def _run(study: Study, runs: Path, moment: Moment | None, quick: bool) -> None:
    import torch

    torch.set_num_threads(1)
    from study.small_study import first_page, go

    if quick:
        import medadv.study.run

        medadv.study.run.build = first_page
    if moment is not None:
        _kill_at(*moment)
    go(study, runs)


def _kill_at(place: str, count: int) -> None:
    module, _, attribute = place.partition(":")
    owner: Any = __import__(module, fromlist=["_"])
    *path, name = attribute.split(".")
    for part in path:
        owner = getattr(owner, part)
    real: Callable[..., Any] = getattr(owner, name)
    calls = 0

    @wraps(real)
    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    setattr(owner, name, counted)
