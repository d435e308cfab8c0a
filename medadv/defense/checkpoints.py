"""Checkpoints of a training: whole or not there, the last two kept, and only gone on from by the same training."""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from medadv.atomic import UNFINISHED, remove, write_atomically
from medadv.errors import MedadvWarning, RunError
from medadv.victims.memory import is_full

KEPT = 2
"""How many lie in a folder: the newest, and the one before in case the newest is damaged."""

_DAMAGED = (
    *(RuntimeError, ValueError, LookupError, TypeError, AttributeError, EOFError, OSError),
    *(UnpicklingError, zipfile.BadZipFile),
)
"""What a file raises that is no checkpoint, or not a whole one."""

_PARTS: dict[str, type] = {
    "identity": dict,
    "network": dict,
    "optimiser": dict,
    "curve": list,
    "best": dict,
    "best_merit": float,
    "skipped": int,
}
"""All that a checkpoint holds. There is no state of a random stream: every draw is a function of its step and rank."""


def _warn(message: str) -> None:
    warnings.warn(message, MedadvWarning, stacklevel=3)


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one training in its folder.

    Attributes:
        folder: where they lie; every rank must see it.
        identity: what is learnt (the architecture, the lesson, the head …), as JSON would hold it: a checkpoint of
            anything else is refused. It may name no patient.
        say: told of a damaged checkpoint that was passed over, and of steps that were skipped; a warning if left out.
    """

    folder: Path
    identity: Mapping[str, Any] = field(default_factory=dict)
    say: Callable[[str], None] = _warn

    def files(self) -> list[Path]:
        """Those that are there, the newest first. The number in a name is that of the steps done."""
        return sorted(self.folder.glob("checkpoint-*.pt"), reverse=True)

    def write(self, done: int, state: Mapping[str, Any]) -> None:
        """Put a checkpoint after so many steps, and delete all but it and the one before.

        Raises:
            RunError: the disk is full, or may not be written; what was there before stays.
        """
        path = self.folder / f"checkpoint-{done:08d}.pt"

        def fill(temporary: Path) -> None:
            # Through Python's own file: torch's writer hides why a disk refuses.
            with temporary.open("wb") as stream:
                torch.save(dict(state), stream)

        write_atomically(path, fill)
        files = self.files()
        newer = files[: files.index(path)]  # damaged, or they would have been gone on from
        for old in (*newer, *files[len(newer) + KEPT :]):
            remove(old)

    def newest(self, identity: Mapping[str, Any], curve: Callable[[list[Any]], list[Any]]) -> dict[str, Any] | None:
        """The newest whole checkpoint, None where there is none at all.

        Args:
            identity: what is learnt now; that of the checkpoint must be the same.
            curve: makes points of the stored rows of the training curve, or raises.

        Raises:
            RunError: all are damaged, or the checkpoint is another training's.
        """
        damaged: list[tuple[Path, str]] = []
        for path in self.files():
            try:
                state = _read(path)
                state["curve"] = curve(state["curve"])
            except _DAMAGED as error:
                if is_full(error):
                    raise
                damaged.append((path, (str(error).splitlines() or [type(error).__name__])[0]))
                continue
            for name, reason in damaged:
                self.say(f"{name.name} is damaged ({reason}); the training goes on from {path.name}, the one before")
            self._check_identity(path, state["identity"], identity)
            return state
        if damaged:
            raise RunError(
                "the training's checkpoint is damaged" if len(damaged) == 1 else "all checkpoints are damaged",
                got="; ".join(f"{path.name}: {reason}" for path, reason in damaged),
                cause="a disk or a copy that went wrong: a process that is killed leaves whole checkpoints",
                advice=self._anew(),
            )
        return None

    def clear(self) -> None:
        """Delete all checkpoints, and what a killed process left of one: the weights have been put away."""
        for path in (*self.files(), *self.folder.glob(f"{UNFINISHED}*.pt")):
            remove(path)

    def refuse_network(self, error: Exception) -> RunError:
        """What to raise where a checkpoint's weights do not fit."""
        return RunError(
            "the checkpoint belongs to another network", got=str(error).splitlines()[0], advice=self._anew()
        )

    def _check_identity(self, path: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
        before, now = dict(_flat(there)), dict(_flat(here))
        names = [name for name in sorted(before | now) if before.get(name) != now.get(name)]
        if names:
            raise RunError(
                "the checkpoint belongs to another training",
                got="; ".join(f"{name}: {before.get(name)} in {path.name}, {now.get(name)} here" for name in names),
                advice=f"give the study another name, or {self._anew()}",
            )

    def _anew(self) -> str:
        return f"delete {self.folder / 'checkpoint-*.pt'} to begin this training anew"


def plain(identity: Mapping[str, Any]) -> dict[str, Any]:
    """What JSON keeps of it: tuples are lists, and keys are texts."""
    content: dict[str, Any] = json.loads(json.dumps(identity, default=str))
    return content


def _read(path: Path) -> dict[str, Any]:
    """A checkpoint that has all parts, each of its kind; what else is raised says that it has not."""
    with zipfile.ZipFile(path) as archive:
        if (part := archive.testzip()) is not None:  # torch itself does not look at the checksums that it writes
            raise ValueError(f"the checksum of {part} is wrong")
    state = torch.load(path, weights_only=True, map_location="cpu")
    if not isinstance(state, dict):
        raise TypeError("no checkpoint")
    for name, kind in _PARTS.items():
        if not isinstance(state[name], kind):
            raise TypeError(f"{name} is no {kind.__name__}")
    return state


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
