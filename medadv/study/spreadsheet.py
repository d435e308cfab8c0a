"""Rows as CSV that a spreadsheet can open without running any of it, and such rows read back.

Text that would be taken for a formula gets a quotation mark before it, which is how spreadsheets mark text (OWASP, CSV
injection); so does text that begins with such a mark, which makes the way back unambiguous.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence

_MARK = "'"
_MARKED = ("=", "+", "-", "@", _MARK)


def write_rows(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Comma-separated, ``\\n`` at the end of a line; None is an empty cell, a tuple its parts joined by semicolons.

    Numbers keep all digits. Line breaks inside a text become spaces.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_cell(name) for name in names])
    writer.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def read_rows(text: str) -> Iterator[dict[str, str]]:
    """The rows of a CSV file, their cells as they are written; ``told`` and ``listed`` read one.

    Raises:
        ValueError: a row breaks off.
    """
    for row in csv.DictReader(io.StringIO(text), strict=True):
        if None in row or None in row.values() or not text.endswith("\n"):
            raise ValueError("a row breaks off")
        yield row


def told(cell: str) -> str | None:
    """What a cell says; None for an empty one."""
    return cell.removeprefix(_MARK) or None


def listed(cell: str) -> tuple[str, ...]:
    """The parts of a cell that held a tuple."""
    return tuple(part.removeprefix(_MARK) for part in cell.split(";") if part)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        # Each part by itself, since a spreadsheet may take the semicolon for the end of a cell.
        return ";".join(_cell(part) for part in value)
    if isinstance(value, str):
        # Python's csv leaves a lone carriage return unquoted, which would break the row in two.
        line = " ".join(value.splitlines())
        return f"{_MARK}{line}" if line.lstrip().startswith(_MARKED) else line
    return repr(value)
