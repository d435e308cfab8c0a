"""``scores.csv`` and ``comparisons.csv``: the records and comparisons as text, always the same bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from medadv.atomic import write_text
from medadv.study.judgement import Judgement
from medadv.study.metrics import in_order
from medadv.study.records import Record, Score
from medadv.study.rivals import between
from medadv.study.spreadsheet import write_rows
from medadv.study.stats import Comparison, PrimaryFamily, adjusted, compare, occurring

_CONDITION = ("role", "family", "budget", "amount", "unit", "of", "source")
_CASE = ("case", "patient", "stratum", "fold")


def write_tables(
    folder: Path, records: Sequence[Record], primary: PrimaryFamily, judgement: Judgement | None = None
) -> None:
    """Make both tables of a run.

    Args:
        folder: where they are put.
        records: all that count, worst cases among them.
        primary: the declared family.
        judgement: how defences are judged; None in a study without one.
    """
    regions = list(dict.fromkeys(region for record in records for region in record.inputs["regions"]))
    # Of all metrics together: a declared family is one, though detectors in it are told in another metric. And of those
    # that nobody has a score in: a declared family keeps its size.
    metrics = in_order({*occurring(records), *(primary.declared if primary.conditions else ())})
    rows = adjusted([row for metric in metrics for row in compare(records, primary, regions, metric)])
    if judgement is not None:
        rows += between(records, primary, judgement, regions)
    write_text(folder / "scores.csv", scores_table(records))
    write_text(folder / "comparisons.csv", comparisons_table(rows))


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
