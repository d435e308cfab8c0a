"""How shapes and types are checked while the tests run (pyproject.toml names ``check`` to jaxtyping)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from beartype import BeartypeConf, FrozenDict, beartype
from jaxtyping import config

# jaxtyping decorates methods one by one, and beartype knows what Self is only where it decorates a whole class.
check = beartype(conf=BeartypeConf(hint_overrides=FrozenDict({Self: object})))


@contextmanager
def unchecked() -> Iterator[None]:
    """As users call it: what is given reaches the code's own checks, and not the tests' check of annotations."""
    before = config.jaxtyping_disable
    config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        config.update("jaxtyping_disable", before)
