"""What verbs have in common: a mistake ends in advice, progress goes to standard error. It imports nothing heavy."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from medadv.study.progress import Watch

QUARANTINED = 3
"""The exit code of what finished, but left cases out."""


@contextmanager
def advice() -> Iterator[None]:
    """A user's mistake ends in advice, not in a traceback."""
    from medadv.errors import MedadvError

    try:
        yield
    except MedadvError as error:
        typer.echo(str(error), err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on from here", err=True)
        sys.exit(130)


@contextmanager
def watched() -> Iterator[Watch]:
    """Progress on standard error: what a verb is asked for stands alone on standard output."""
    from rich.console import Console

    from medadv.study.progress import watching

    with watching(Console(stderr=True)) as watch:
        yield watch
