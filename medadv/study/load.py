"""From a YAML file to a ``Study``: what is wrong in it is told in its own words, with what would have been right."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from medadv.errors import ConfigError
from medadv.plain_yaml import LARGEST, NO_YAML, parse
from medadv.study.sources import Data
from medadv.study.spec import Study

_DATA: TypeAdapter[Data] = TypeAdapter(Data)


def load_study(path: str | Path, overrides: Sequence[str] = ()) -> Study:
    """Read a study.

    Args:
        path: the YAML file.
        overrides: ``"a.b=value"`` each, the value in YAML, put over what the file says.

    Raises:
        ConfigError: no such file, no YAML, or no study; with what was expected.
    """
    path = Path(path)
    try:
        if path.stat().st_size > LARGEST:
            raise ConfigError("the study's file is too large to be one", got=f"{path.stat().st_size} bytes")
        content = parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"there is no study at {path}", got=error, advice="check the path") from error
    except NO_YAML as error:
        raise ConfigError(f"{path.name} is no plain YAML", got=error) from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path.name} is no study", got=type(content).__name__, expected="keys and values")
    for override in overrides:
        put(content, override)
    return as_study(content, path.name)


def as_study(content: dict[Any, Any], name: str = "the study") -> Study:
    """Validate what a YAML file held.

    Raises:
        ConfigError: every fault, with its place and, for an unknown key, the keys that are known there.
    """
    try:
        return Study.model_validate(content)
    except ValidationError as error:
        faults = "\n  ".join(_fault(dict(e)) for e in error.errors(include_url=False))
        raise ConfigError(f"{name} is not a study that can be run:\n  {faults}") from error


def as_data(content: dict[str, Any]) -> Data:
    """Validate what stands under a study's ``data``.

    Raises:
        ConfigError: every fault, as ``as_study`` tells them.
    """
    try:
        return _DATA.validate_python(content)
    except ValidationError as error:
        faults = "\n  ".join(_fault({**e, "loc": ("data", *e["loc"])}) for e in error.errors(include_url=False))
        raise ConfigError(f"these are no data that can be imported:\n  {faults}") from error


def put(content: dict[Any, Any], override: str) -> None:
    """Put ``"a.b=value"``, the value in YAML, over what is there.

    Raises:
        ConfigError: no such override.
    """
    key, given, text = override.partition("=")
    if not given or not key:
        raise ConfigError("an override is key=value", got=override, expected="for example data.root=/data/brats")
    *parents, last = key.split(".")
    place = content
    for parent in parents:
        place = place.setdefault(parent, {})
        if not isinstance(place, dict):
            raise ConfigError(f"{override!r} goes into {parent!r}, which holds a value and no keys")
    try:
        place[last] = parse(text)
    except NO_YAML as error:
        raise ConfigError(f"the value of {key} is no YAML", got=error) from error


def _fault(error: dict[str, Any]) -> str:
    place = error["loc"]
    where = ".".join(str(part) for part in place) or "the study"
    if error["type"] not in ("extra_forbidden", "unexpected_keyword_argument"):
        got = f" (got {error['input']!r})" if isinstance(error.get("input"), str | int | float) else ""
        return f"{where}: {error['msg'].removeprefix('Value error, ')}{got}"
    known = sorted(_known_keys(place[:-1]))
    close = difflib.get_close_matches(str(place[-1]), known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"{where}: unknown key.{hint} The keys here are: {', '.join(known)}."


def _known_keys(place: Sequence[str | int]) -> set[str]:
    """The keys that are known at a place of the specification."""
    kinds: list[Any] = [Study]
    for part in place:
        kinds = [inner for kind in kinds for inner in _inside(kind, part)]
    return {key for kind in kinds for key in _keys(kind)}


def _inside(kind: Any, part: str | int) -> list[Any]:
    """What may stand under a key: models looked into, dictionaries opened, tagged unions chosen from."""
    if typing.get_origin(kind) is dict:
        return _alternatives(typing.get_args(kind)[1])
    keys = _keys(kind)
    if part in keys:
        return _alternatives(keys[str(part)])
    # pydantic puts the tag of a discriminated union into the place, or the name of one of the other unions' members
    tagged = any(part in typing.get_args(annotation) for annotation in keys.values())
    return [kind] if tagged or (keys and part == kind.__name__) else []


def _alternatives(annotation: Any) -> list[Any]:
    if typing.get_origin(annotation) is typing.Annotated:
        return _alternatives(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [a for argument in typing.get_args(annotation) for a in _alternatives(argument)]
    return [annotation]


def _keys(kind: Any) -> dict[str, Any]:
    """Key → annotation, of a model or a dataclass; nothing of anything else."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {field.alias or name: field.annotation for name, field in kind.model_fields.items()}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return {field.name: hints[field.name] for field in dataclasses.fields(kind)}
    return {}
