"""``scores.csv`` and ``comparisons.csv``: the records and comparisons as text, always the same bytes."""

from __future__ import annotations

from collections.abc import Iterable

from medadv.study.records import Record, Score
from medadv.study.spreadsheet import write_rows
from medadv.study.stats import Comparison

_CONDITION = ("role", "family", "budget", "amount", "unit", "of", "source")
_CASE = ("case", "patient", "stratum", "fold")


def scores_table(records: Iterable[Record]) -> str:
    """One row a score, in the order of victim, condition and case; regions stay in the record's order.

    Columns: victim, condition, the condition's role, family, budget, amount, unit, ``of`` and ``source``, case,
    patient, stratum, fold, then those of ``Score``.
    """
    ordered = sorted(records, key=lambda record: (record.victim, record.condition, record.case, record.key))
    return write_rows(
        ("victim", "condition", *_CONDITION, *_CASE, *Score.model_fields),
        (
            (
                record.victim,
                record.condition,
                *(getattr(record.presented, name) for name in _CONDITION),
                *(getattr(record, name) for name in _CASE),
                *(getattr(score, name) for name in Score.model_fields),
            )
            for record in ordered
            for score in record.scores
        ),
    )


def comparisons_table(comparisons: Iterable[Comparison]) -> str:
    """One row a comparison, in the order given; the columns are the fields of ``Comparison``, in their order."""
    names = tuple(Comparison.model_fields)
    return write_rows(names, ([getattr(row, name) for name in names] for row in comparisons))
