"""Files that appear whole or not at all: written beside their place, flushed to the disk, then renamed."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from medadv.errors import RunError


def write_atomically(path: Path, fill: Callable[[Path], object]) -> None:
    """Let ``fill`` write a temporary file in the folder of ``path``, flush it to the disk, then rename it.

    Whatever happens in between, ``path`` is either what it was or wholly new.

    Raises:
        RunError: the folder cannot be written, or the disk is full.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The suffix is kept: nibabel and matplotlib choose the format by it.
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".writing-", suffix="".join(path.suffixes[-2:]))
        os.close(descriptor)
        temporary = Path(name)
        fill(temporary)
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise RunError(
            f"{path.name} could not be written" + (": the disk is full" if full else ""),
            got=error,
            advice="free space and run the same command again; finished cells are kept"
            if full
            else f"check that {path.parent} may be written",
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
