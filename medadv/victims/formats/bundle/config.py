"""The configuration of a MONAI bundle, read as data: literals and references to literals, and nothing that is run.

In MONAI's configuration language ``$`` begins an expression that is evaluated, ``_target_`` names anything that can be
imported, ``%`` pulls in another file, and ``@`` refers to another key (https://docs.monai.io, "Configuration system").
Here the first three are text. They are refused where they would decide about an answer, and not looked at elsewhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from medadv.errors import VictimError
from medadv.plain_yaml import LARGEST, NO_YAML, parse

TRUST = "pass --trust if the bundle is your own or its author is trusted: it is then run as code, by MONAI itself"

Built = TypeVar("Built")

_REFERENCE = re.compile(r"@\w+(?:(?:#|::)\w+)*")
_REAL = re.compile(r"\$?(torch\.|np\.|numpy\.)?float(32|64)?")
_MISSING = object()
_MOST_JUMPS = 50


def _once(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key is given twice")
    return content


def read_mapping(path: Path) -> dict[str, Any]:
    """A JSON or YAML file of keys and values, at most 1 MB, in which no key is given twice.

    Raises:
        VictimError: no such file, too large, or nothing of the kind.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise VictimError(f"{path.name} is too large for a configuration", got=f"{path.stat().st_size} bytes")
        text = path.read_text(encoding="utf-8")
        as_json = path.suffix == ".json"
        content = json.loads(text, object_pairs_hook=_once) if as_json else parse(text)
    except OSError as error:
        raise VictimError(f"the bundle's {path.name} cannot be read", got=error.strerror) from error
    except (TypeError, *NO_YAML) as error:
        raise VictimError(f"the bundle's {path.name} is no plain {path.suffix[1:].upper()}", got=error) from error
    if not isinstance(content, dict):
        raise VictimError(f"the bundle's {path.name} holds no keys", got=type(content).__name__)
    return content


@dataclass(frozen=True, eq=False)
class Config:
    """A bundle's configuration.

    Attributes:
        content: what the file holds.
        resolve: MONAI's parser, asked for the value of a key, where the bundle is trusted; None: data alone.
    """

    content: Mapping[str, Any]
    resolve: Callable[[str], Any] | None = None

    def refused(self, key: str, expected: str | None = None) -> VictimError:
        """The error that names a key and what is written there."""
        written = json.dumps(self.raw(key), default=str)
        trusted = self.resolve is not None
        return VictimError(
            f"the bundle's configuration cannot be {'differentiated' if trusted else 'read as data'} at {key}",
            got=f"{key}: {written if len(written) <= 200 else written[:200] + ' …'}",
            expected=expected or "literals, references to literals, and the classes and arguments that medadv knows",
            cause="MONAI can run it, and medadv does not know its gradient"
            if trusted
            else "medadv runs no code that a file brings: no expression, no class outside its table",
            advice="bring the network in by Python, with the steps that medadv has: medadv.Segmenter"
            if trusted
            else f"write the value itself in its place; or {TRUST}",
        )

    def raw(self, key: str, default: Any = None) -> Any:
        """What is written at ``a.b.0``."""
        place: Any = self.content
        for part in key.split("."):
            if isinstance(place, Mapping) and part in place:
                place = place[part]
            elif isinstance(place, list) and part.isdecimal() and int(part) < len(place):
                place = place[int(part)]
            else:
                return default
        return place

    def followed(self, key: str) -> tuple[str, Any]:
        """The key that a chain of plain references ends at, and what is written there."""
        value = self.raw(key, _MISSING)
        for _ in range(_MOST_JUMPS):
            if not (isinstance(value, str) and _REFERENCE.fullmatch(value)):
                break
            key = re.sub("#|::", ".", value[1:])
            value = self.raw(key, _MISSING)
        if value is _MISSING:
            raise VictimError("the bundle's configuration refers to a key that it does not have", got=key)
        return key, value

    def literal(self, key: str) -> Any:
        """The value of a key: numbers, strings, lists of them; references are followed.

        Raises:
            VictimError: an expression, a component or a macro, which only MONAI's own parser could evaluate.
        """
        place, value = self.followed(key)
        if isinstance(value, str) and value[:1] in ("$", "@", "%"):
            if self.resolve is None:
                raise self.refused(place)
            return self._plain(self.resolve(place), place)
        if isinstance(value, list):
            return [self.literal(f"{place}.{i}") for i in range(len(value))]
        if isinstance(value, dict):
            if "_target_" in value:
                raise self.refused(f"{place}._target_")
            return {name: self.literal(f"{place}.{name}") for name in value}
        return value

    def _plain(self, value: Any, key: str) -> Any:
        """What MONAI's parser made of an expression, if it is a literal."""
        if isinstance(value, list | tuple):
            return [self._plain(each, key) for each in value]
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise self.refused(key, "an expression that gives a number, a text, or a list of them")

    def component(self, key: str) -> Component:
        """What is to be built at a key, by the name of its class; nothing is built.

        Raises:
            VictimError: nothing is there, or an expression that only MONAI's own parser could evaluate.
        """
        place, value = self.followed(key)
        if not isinstance(value, dict) or not isinstance(value.get("_target_"), str):
            raise self.refused(place)
        if strange := sorted(name for name in value if name.startswith("_") and name not in _KNOWN):
            raise self.refused(f"{place}.{strange[0]}")
        return Component(self, place, value["_target_"])

    def components(self, key: str) -> Iterator[Component]:
        """The steps of a ``Compose`` or of a list, in order, without the ones that are switched off."""
        place, value = self.followed(key)
        if isinstance(value, dict):
            compose = self.component(key)
            if compose.name != "Compose":
                raise compose.refused("_target_")
            compose.only(("transforms", "map_items", "unpack_items", "log_stats"), lazy=(False, None))
            place = f"{compose.key}.transforms"
            place, value = self.followed(place)
        if not isinstance(value, list):
            raise self.refused(place)
        for i in range(len(value)):
            step = self.component(f"{place}.{i}")
            if self.raw(f"{step.key}._disabled_") is not True:
                yield step


_KNOWN = ("_target_", "_desc_", "_disabled_")
_IDLE = ("keys", "allow_missing_keys", "_desc_", "_target_", "_disabled_")


@dataclass(frozen=True, eq=False)
class Component:
    """One thing that a configuration wants built.

    Attributes:
        config: where it is written.
        key: its place there.
        target: what it calls its class.
    """

    config: Config
    key: str
    target: str
    name: str = field(init=False)

    def __post_init__(self) -> None:
        # MONAI finds its own classes by their bare names too; any other module's stay as they are, and in no table.
        known = re.fullmatch(r"(?:monai(?:\.[a-z_]\w*)+\.)?(\w+)", self.target)
        object.__setattr__(self, "name", known[1] if known else self.target)

    def __call__(self, argument: str, default: Any = None) -> Any:
        """The literal value of an argument."""
        return self.config.literal(f"{self.key}.{argument}") if self.has(argument) else default

    def has(self, argument: str) -> bool:
        """Whether the argument is written."""
        return argument in self.arguments

    @property
    def arguments(self) -> tuple[str, ...]:
        """The names of all that is written."""
        written: dict[str, Any] = self.config.raw(self.key)
        return tuple(name for name in written if not (name.startswith("_") and name in _IDLE))

    def flag(self, argument: str, default: bool = False) -> bool:
        """A truth value; ``"True"`` counts as MONAI counts it, and ``"False"``, which it counts as true, is refused."""
        value = self(argument, default)
        if value in (True, False, "True"):
            return bool(value)
        raise self.refused(argument)

    def number(self, argument: str, default: float | None = None) -> float | None:
        """A number, or nothing where it may be left out."""
        value = self(argument, default)
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            return None if value is None else float(value)
        raise self.refused(argument, "a number")

    def built(self, kind: Callable[..., Built], **arguments: Any) -> Built:
        """One of MONAI's own classes, from arguments that were understood.

        Raises:
            VictimError: the class refuses them.
        """
        try:
            return kind(**arguments)
        except (TypeError, ValueError, LookupError, RuntimeError) as error:
            raise VictimError(f"MONAI refuses the bundle's arguments at {self.key}", got=str(error)) from error

    def only(self, known: Collection[str] = (), **fixed: Collection[Any]) -> None:
        """Refuse arguments that are not known, and values other than these of the ones that are fixed.

        ``dtype`` may be a floating-point type, as text.

        Raises:
            VictimError: names the key.
        """
        for argument in self.arguments:
            if argument == "dtype" and "dtype" not in known:
                written = self.config.followed(f"{self.key}.dtype")[1]
                if written is not None and not _REAL.fullmatch(str(written)):
                    raise self.refused("dtype")
            elif argument in fixed:
                if self(argument) not in fixed[argument]:
                    raise self.refused(argument, f"one of {list(fixed[argument])}")
            elif argument not in known and argument not in _IDLE:
                raise self.refused(argument)

    def refused(self, argument: str = "_target_", expected: str | None = None) -> VictimError:
        """The error that names one of its arguments."""
        return self.config.refused(f"{self.key}.{argument}", expected)
