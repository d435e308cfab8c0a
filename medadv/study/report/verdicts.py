"""Every comparison with all that belongs to its p-value."""

from __future__ import annotations

from collections.abc import Callable

from medadv.study.report.numbers import measured, probability, share, titled, whole
from medadv.study.report.tables import Cell, Column, Table
from medadv.study.results import Results
from medadv.study.stats import Comparison

_COLUMNS = (
    Column("victim"),
    Column("region"),
    Column("condition"),
    Column("against"),
    Column("n", whole),
    Column("zeros", whole),
    Column("ties", whole),
    Column("shift", share),
    Column("low", share),
    Column("high", share),
    Column("rank-biserial", share),
    Column("p", probability),
    Column("Holm p", probability),
    Column("method"),
    Column("note"),
)


def verdicts(results: Results, family: str, metric: str = "dice") -> Table:
    """The comparisons of one family on one metric: ``primary`` or ``exploratory``."""
    rows = [row for row in results.comparisons if (row.family, row.metric) == (family, metric)]
    columns = [Column(c.title, _spell(metric)) if c.title in ("shift", "low", "high") else c for c in _COLUMNS]
    groups = [(row.victim, row.region, row.against) for row in rows]
    return Table(
        name=f"comparisons-{family}-{metric}",
        caption=(
            "Wilcoxon signed-rank tests on pairs matched by id. Shift: Hodges–Lehmann estimate of the difference, "
            f"condition minus what it is compared against, with its {_confidence(rows)}interval from low to high. "
            + (
                "p adjusted by Holm over this table's family."
                if family == "primary"
                else "Exploratory: p-values are unadjusted, and no claim rests on them."
            )
        ),
        columns=columns,
        rows=[_row(results, row) for row in rows],
        breaks=frozenset(i for i in range(1, len(rows)) if groups[i] != groups[i - 1]),
    )


def _spell(metric: str) -> Callable[[float | None], str]:
    return lambda value: measured(value, metric)


def _confidence(rows: list[Comparison]) -> str:
    known = {row.confidence for row in rows}
    return f"{100 * (known.pop() or 0):.3g} % " if len(known) == 1 and None not in known else ""


def _row(results: Results, row: Comparison) -> list[Cell]:
    effect = (row.estimate, row.low, row.high, row.rank_biserial, row.p, row.p_adjusted)
    test = f"{row.method}, {row.zero_method}, {row.sided}"
    missing = f"without a pair: {', '.join(row.missing)}" if row.missing else ""
    note = "; ".join(part for part in (row.verdict, missing) if part)
    names = (_named(results, row.victim, row.condition), _named(results, row.victim, row.against))
    return [row.victim, row.region, *names, row.n, row.zeros, row.ties, *effect, test, note]


def _named(results: Results, victim: str, condition: str) -> str:
    arm = results.arm(victim, condition)
    return titled(arm) if arm else condition
