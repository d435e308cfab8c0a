"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from medadv.atomic import UNFINISHED, remove, write_atomically, write_text, writing
from medadv.errors import RunError


def test_a_file_and_its_folders_appear(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "c.txt", "grüße\n")
    assert (tmp_path / "a" / "b" / "c.txt").read_bytes() == "grüße\n".encode()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["c.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_whatever_stops_the_writing_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fill(temporary: Path) -> None:
        temporary.write_text("ne")
        raise error

    with pytest.raises(error):
        write_atomically(path, fill)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_temporary_file_lies_beside_its_place_with_its_suffix(tmp_path: Path) -> None:
    seen: list[Path] = []
    write_atomically(tmp_path / "a.nii.gz", seen.append)
    (temporary,) = seen
    assert temporary.parent == tmp_path
    assert temporary.name.startswith(UNFINISHED)
    assert temporary.name.endswith(".nii.gz")


def test_it_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    flush, name = os.fsync, Path.replace
    monkeypatch.setattr("os.fsync", lambda descriptor: order.append("flush") or flush(descriptor))
    monkeypatch.setattr(Path, "replace", lambda self, target: order.append("name") or name(self, target))
    write_text(tmp_path / "a", "b")
    assert order == ["flush", "name"]


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOSPC, "the disk is full.*free space and run the same command again"),
        (errno.EDQUOT, "the disk is full"),
        (errno.EACCES, "may be written"),
        (errno.EROFS, "may be written"),
    ],
)
def test_what_the_disk_refuses_is_told(number: int, told: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=f"(?s){told}"), writing(tmp_path / "a"):
        raise OSError(number, os.strerror(number))


def test_a_place_below_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="could not be written"):
        write_text(tmp_path / "file" / "a", "b")


@pytest.mark.parametrize(("mode", "expected"), [(0o666, 0o644), (0o600, 0o600)])
def test_modes_are_less_what_the_user_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, expected: int
) -> None:
    monkeypatch.setattr("medadv.atomic._UMASK", 0o022)
    write_atomically(tmp_path / "a", lambda temporary: temporary.write_text("b"), mode)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == expected


def test_removing_is_done_when_nothing_is_there(tmp_path: Path) -> None:
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "folder" / "deep" / "a").write_text("")
    (tmp_path / "file").write_text("")
    for path in ("folder", "file", "nothing", "file/below"):
        remove(tmp_path / path)
    assert list(tmp_path.iterdir()) == []
