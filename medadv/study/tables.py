"""``scores.csv`` and ``comparisons.csv``: the records and comparisons as text, always the same bytes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from medadv.study.records import Record, Score
from medadv.study.stats import Comparison

_FORMULA = ("=", "+", "-", "@")

_CONDITION = ("role", "family", "amount", "unit", "of")


def scores_table(records: Iterable[Record]) -> str:
    """One row a score, in the order of victim, condition and case; regions stay in the record's order.

    Columns: victim, condition, the condition's role, family, amount, unit and ``of``, case, patient, then those of
    ``Score``.
    """
    ordered = sorted(records, key=lambda record: (record.victim, record.condition, record.case, record.key))
    return _csv(
        ("victim", "condition", *_CONDITION, "case", "patient", *Score.model_fields),
        (
            (
                record.victim,
                record.condition,
                *(getattr(record.presented, name) for name in _CONDITION),
                record.case,
                record.patient,
                *(getattr(score, name) for name in Score.model_fields),
            )
            for record in ordered
            for score in record.scores
        ),
    )


def comparisons_table(comparisons: Iterable[Comparison]) -> str:
    """One row a comparison, in the order given; the columns are the fields of ``Comparison``, in their order."""
    names = tuple(Comparison.model_fields)
    return _csv(names, ([getattr(row, name) for name in names] for row in comparisons))


def _csv(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Comma-separated, ``\\n`` at the end of a line; None is an empty cell, a tuple its parts joined by semicolons."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ";".join(_cell(part) for part in value)
    if isinstance(value, str):
        # Python's csv leaves a lone carriage return unquoted, which would break the row in two.
        line = " ".join(value.splitlines())
        # A spreadsheet would run such a text as a formula; a quotation mark before it says that it is text.
        return f"'{line}" if line.lstrip().startswith(_FORMULA) else line
    return repr(value)
