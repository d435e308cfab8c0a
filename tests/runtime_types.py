"""How shapes and types are checked while the tests run (pyproject.toml names ``check`` to jaxtyping)."""

from __future__ import annotations

from typing import Self

from beartype import BeartypeConf, FrozenDict, beartype

# jaxtyping decorates methods one by one, and beartype knows what Self is only where it decorates a whole class.
check = beartype(conf=BeartypeConf(hint_overrides=FrozenDict({Self: object})))
