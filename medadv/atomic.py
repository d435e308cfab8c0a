"""Files that appear whole or not at all: written beside their place, flushed to the disk, then renamed."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from medadv.errors import RunError

UNFINISHED = ".writing-"
"""How the names of temporary files begin. A process that is killed leaves them; nobody reads them."""


_UMASK = os.umask(0)  # it can only be asked by setting it
os.umask(_UMASK)


def write_atomically(path: Path, fill: Callable[[Path], object], mode: int = 0o666) -> None:
    """Let ``fill`` write a temporary file in the folder of ``path``, flush it to the disk, then rename it.

    Whatever happens in between, ``path`` is either what it was or wholly new.

    Args:
        path: the final name; its folder is made if it is missing.
        fill: writes the file that it is given.
        mode: the file's permissions, less what the user's umask takes; it has them before it has its name.

    Raises:
        RunError: the folder cannot be written, or the disk is full.
    """
    temporary: Path | None = None
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # The suffix is kept: nibabel and matplotlib choose the format by it.
            descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=UNFINISHED, suffix="".join(path.suffixes[-2:]))
            os.close(descriptor)
            temporary = Path(name)
            fill(temporary)
            with temporary.open("rb+") as stream:
                os.fsync(stream.fileno())
            temporary.chmod(mode & ~_UMASK)
            temporary.replace(path)
        finally:
            if temporary is not None:
                temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def remove(path: Path) -> None:
    """Delete a file or a folder, which another process may be deleting too.

    Raises:
        RunError: the folder cannot be written.
    """
    with writing(path), suppress(FileNotFoundError, NotADirectoryError):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Tell in words what the disk refuses, in writing or in reading.

    Raises:
        RunError: the folder cannot be written, or the disk is full.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise RunError(
            f"{path.name} could not be written or read" + (": the disk is full" if full else ""),
            got=error,
            advice="free space and run the same command again; finished cells are kept"
            if full
            else f"check that {path.parent} may be written and read",
        ) from error
