"""A survey for a terminal: the summary first."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.table import Table as Grid
from rich.text import Text

from medadv.study.checking import tables
from medadv.study.checking.remarks import Remark, remarks
from medadv.study.checking.survey import Survey
from medadv.study.report.tables import Table

LONGEST = 10_000
SHOWN = 8
"""So many cases are named after a remark."""


def told(survey: Survey, console: Console) -> None:
    """Print a survey. Where nobody reads it on a terminal, lines are as long as the tables."""
    parts = list(_parts(survey))
    if not console.is_terminal:
        wide = console.options.update(max_width=LONGEST)
        console.width = max(80, *(Measurement.get(console, wide, part).maximum for part in parts))
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, Text))


def _parts(survey: Survey) -> Iterator[RenderableType]:
    yield Text(survey.title, style="bold")
    grid = Grid.grid(padding=(0, 2))
    for heading, words in tables.summary(survey):
        grid.add_row(Text(heading, style="dim"), Text(words))
    for words in survey.assumed:
        grid.add_row(Text("taken as", style="dim"), Text(words))
    yield grid
    yield Text("\nTo look at" if (found := remarks(survey)) else "\nNothing to look at", style="bold")
    yield from map(_remark, found)
    if survey.refused:
        yield Text("\nWould be left out", style="bold")
        for refusal in survey.refused:
            lines = refusal.message.splitlines()
            yield Text(f"- {refusal.case}: {lines[0]}" + "".join(f"\n    {line.strip()}" for line in lines[1:]))
    if survey.facts:
        yield Text("\nCases", style="bold")
        yield from _grid(tables.grids_and_labels(survey))
        yield Text("\nIntensities", style="bold")
        yield from _grid(tables.intensities(survey))


def _remark(remark: Remark) -> Text:
    shown = ", ".join(remark.cases[:SHOWN]) + (" …" if len(remark.cases) > SHOWN else "")
    named = f"\n    {shown}" if remark.cases and shown not in remark.message else ""
    return Text(f"- {remark.message}{named}" + (f"\n    → {remark.advice}" if remark.advice else ""))


def _grid(table: Table) -> Iterator[RenderableType]:
    grid = Grid(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for column in table.columns:
        grid.add_column(Text(column.title), justify="right" if column.numeric else "left", overflow="fold")
    for row in table.spelled():
        grid.add_row(*map(Text, row))
    yield grid
    yield Text(table.caption, style="dim")
