"""The parts of the page for pictures, and for whatever else has what they show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medadv.study.report.pictures.certainty import certainty_table
from medadv.study.report.pictures.convergence import convergence, distortion_table, iterations_table
from medadv.study.report.pictures.heat import heat_map
from medadv.study.report.pictures.matrix import Cells, matrices, matrix_table
from medadv.study.report.pictures.over_data import OverData, classes_table, scores_table
from medadv.study.report.pictures.part import Part
from medadv.study.report.pictures.permuted import permuted_table, verdict
from medadv.study.report.pictures.ratio import ratio_curves
from medadv.study.report.style import publish, slug
from medadv.study.report.tables import Table
from medadv.study.results import Results


def parts(results: Results, figures: Path) -> tuple[Part, ...]:
    """What there is to show beside the sections of every study, in order; nothing of a plain study of volumes.

    Raises:
        RunError: a figure cannot be written.
    """
    over = OverData.of(results)
    cells = Cells(results, over)
    found = (
        _data_set(results, over, figures),
        _transfer(results, cells, figures),
        _structure(results, cells),
        _convergence(results, figures),
        _size(results),
        _certainty(results),
    )
    return tuple(part for part in found if part is not None)


def _data_set(results: Results, over: OverData, figures: Path) -> Part | None:
    victims = [victim for victim in results.victims if over.lead(victim) is not None]
    if not victims:
        return None
    tables: list[tuple[str, Table]] = [(victim, scores_table(results, over, victim)) for victim in victims]
    for victim in victims:
        if (table := classes_table(results, over, victim)) is not None:
            tables.append((f"{victim}, class by class", table))
    drawn = ratio_curves(results, over)
    alt = "The share of the clean data-set score that each victim keeps, over the budget of each attack"
    return Part(
        key="data-set",
        title="Scores over the data set",
        said=(
            "One number of all images together, as papers print it. It is no mean over images, has no pairs, and no "
            "claim rests on it; what is tested are scores of single images.",
        ),
        figures=[publish(drawn, figures, "data-set-ratio", alt)] if drawn else (),
        caption="The dashed line is the clean score. Bands: 95 % percentile bootstrap intervals, where there are any."
        if drawn
        else "",
        tables=tables,
    )


def _transfer(results: Results, cells: Cells, figures: Path) -> Part | None:
    found = matrices(results)
    if not found:
        return None
    drawn = [
        publish(
            heat_map(matrix, cells),
            figures,
            slug("transfer", matrix.title),
            f"{matrix.title}: what was found for each victim, shown to each",
        )
        for matrix in found
    ]
    return Part(
        key="transfer",
        title="Made for one, shown to another",
        figures=drawn,
        caption="Rows: made for; columns: shown to; the number is the score that is left, the colour its share of the "
        "clean one. Framed: the attacker knew the victim (white box).",
        tables=[(matrix.title, matrix_table(matrix, cells)) for matrix in found],
    )


def _structure(results: Results, cells: Cells) -> Part | None:
    told = ((victim, permuted_table(results, cells, victim)) for victim in results.victims)
    tables = [(victim, table) for victim, table in told if table is not None]
    return Part("structure", "Structure or size?", said=(verdict(tables),), tables=tables) if tables else None


def _convergence(results: Results, figures: Path) -> Part | None:
    drawn = convergence(results)
    if drawn is None:
        return None
    alt = "Targets that are still active over the iterations of each attack, a line a victim"
    return Part(
        key="convergence",
        title="Convergence",
        figures=[publish(drawn, figures, "convergence", alt)],
        caption="Line: the median over images; band: the middle half of them. An image that is done stays at its last "
        "count.",
        tables=[("Iterations", iterations_table(results))],
    )


def _size(results: Results) -> Part | None:
    table = distortion_table(results)
    return Part("distortion", "How large the change is", tables=[("Distortion", table)]) if table else None


def _certainty(results: Results) -> Part | None:
    table = certainty_table(results)
    return Part("certainty", "How sure the victims are", tables=[("Certainty", table)]) if table else None


def tables_of(found: Sequence[Part]) -> list[Table]:
    """The tables that also lie beside the page as files."""
    return [table for part in found for _, table in part.tables]
