"""Every comparison with all that belongs to its p-value."""

from __future__ import annotations

from medadv.study.metrics import Metric
from medadv.study.report.numbers import hundredths, in_column, probability, thousandths, titled, whole
from medadv.study.report.tables import Cell, Column, Table
from medadv.study.results import Results
from medadv.study.stats import Comparison

FAMILIES = ("primary", "rivals", "non-inferiority", "exploratory")
"""In the order in which they are shown."""

_WHOLE = {
    "primary": "the whole primary family",
    "rivals": "all defences in the worst case",
    "non-inferiority": "all defences; p tests that the shift lies above minus the margin, so there is no upper limit",
}


def verdicts(results: Results, family: str, metric: Metric, between: bool = False) -> Table:
    """The comparisons of one family on one metric.

    Args:
        between: those of two victims under one condition; else those of two conditions of one victim.
    """
    rows = [row for row in results.comparisons if (row.family, row.metric) == (family, metric.name)]
    rows = [row for row in rows if (row.rival is not None) == between]
    score = in_column(metric)
    columns = [
        Column("condition"),
        *([] if between else [Column("against")]),
        Column("region"),
        *([Column("victim")] if between or len({row.victim for row in rows}) > 1 else []),
        *([Column("rival")] if between else []),
        *([Column("margin", hundredths)] if family == "non-inferiority" else []),
        Column("n", whole),
        Column("zeros", whole),
        Column("ties", whole),
        Column("shift", score),
        Column("low", score),
        Column("high", score),
        Column("rank-biserial", thousandths),
        Column("p", probability),
        *([Column("Holm p", probability)] if family != "exploratory" else []),
        Column("method"),
        *([Column("note")] if any(map(_note, rows)) else []),
    ]
    titles = [column.title for column in columns]
    difference = "victim minus rival" if between else "condition minus what it is compared against"
    groups = [(row.victim, row.rival, row.region) for row in rows]
    return Table(
        name=f"comparisons-{family}-{metric.name}{'-between' if between else ''}",
        caption=_caption(family, metric, rows, difference),
        columns=columns,
        rows=[[cell for title, cell in _cells(results, row).items() if title in titles] for row in rows],
        breaks=frozenset(i for i in range(1, len(rows)) if groups[i] != groups[i - 1]),
    )


def _caption(family: str, metric: Metric, rows: list[Comparison], difference: str) -> str:
    worse = "A shift above 0 is a change for the worse. " if metric.worse > 0 else ""
    settings = " and ".join(sorted({f"{row.sided}, zeros by {row.zero_method.capitalize()}" for row in rows}))
    return (
        f"Wilcoxon signed-rank tests on pairs matched by id, {settings}. Shift: the Hodges–Lehmann estimate of the "
        f"difference{f' in {metric.unit}' if metric.unit else ''}, {difference}, with "
        f"its {_confidence(rows)}interval from low to high. {worse}"
        + (
            f"Holm p: adjusted over {_WHOLE[family]}."
            if family in _WHOLE
            else "Exploratory: p-values are unadjusted, and no claim rests on them."
        )
    )


def _confidence(rows: list[Comparison]) -> str:
    known = {row.confidence for row in rows}
    return f"{100 * known.pop():.3g} % " if len(known) == 1 else ""


def _cells(results: Results, row: Comparison) -> dict[str, Cell]:
    return {
        "condition": _named(results, row.victim, row.condition),
        "against": _named(results, row.victim, row.against),
        "region": row.region,
        "victim": row.victim,
        "rival": row.rival,
        "margin": row.margin,
        "n": row.n,
        "zeros": row.zeros,
        "ties": row.ties,
        "shift": row.estimate,
        "low": row.low,
        "high": row.high,
        "rank-biserial": row.rank_biserial,
        "p": row.p,
        "Holm p": row.p_adjusted,
        "method": row.method,
        "note": _note(row),
    }


def _note(row: Comparison) -> str:
    missing = f"without a pair: {', '.join(row.missing)}" if row.missing else ""
    return "; ".join(part for part in (row.verdict, missing) if part)


def _named(results: Results, victim: str, condition: str) -> str:
    arm = results.arm(victim, condition)
    return titled(arm) if arm else condition
