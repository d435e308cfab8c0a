"""What was prepared once and is asked for again: tensors on the disk, under a digest of all that they were made from.

The key is content, settings and versions, never a path or a time. A file is held against its checksum when it is read;
one that is damaged, or half written by a process that was killed, is made anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from medadv.atomic import remove, write_atomically
from medadv.errors import RunError

_DIGEST = 32  # bytes of SHA-256, in front of what they are of

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Cache:
    """A folder of prepared tensors, for this user alone.

    Attributes:
        folder: made when it is first written to.
    """

    folder: Path

    def get(self, key: Mapping[str, Any], make: Callable[[], Tensors]) -> Tensors:
        """What ``make`` makes, from the disk if it was made before.

        A disk that is full or read-only costs time and nothing else.

        Args:
            key: everything that could change the result, as JSON.
            make: called where nothing whole is found.
        """
        spelled = json.dumps(key, sort_keys=True, allow_nan=False)
        path = self.folder / f"{hashlib.sha256(spelled.encode()).hexdigest()}.tensors"
        found = _read(path)
        if found is not None:
            return found
        made = {name: tensor.contiguous() for name, tensor in make().items()}
        content = save(made)
        try:
            whole = hashlib.sha256(content).digest() + content
            write_atomically(path, lambda temporary: temporary.write_bytes(whole), mode=0o600)
        except RunError:
            remove(path)
        return made

    def clear(self) -> None:
        """Forget everything."""
        remove(self.folder)


def _read(path: Path) -> Tensors | None:
    try:
        whole = path.read_bytes()
        content = whole[_DIGEST:]
        return load(content) if hashlib.sha256(content).digest() == whole[:_DIGEST] else None
    except (OSError, SafetensorError):
        return None
