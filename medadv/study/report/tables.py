"""A table, and the ways it leaves the report: cells for the page, CSV with all digits, LaTeX with booktabs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medadv.atomic import write_text
from medadv.study.spreadsheet import write_rows

Cell = str | float | int | None


def text(value: Cell) -> str:
    """A cell of words."""
    return "" if value is None else str(value)


def first(value: Cell) -> str:
    """Of several parts in words, with semicolons between, the first, on one line; a CSV has them all."""
    return text(value).partition(";")[0].replace(" ", "\N{NO-BREAK SPACE}")


@dataclass(frozen=True)
class Column:
    """A column: its heading and how its values are spelled. What is no words is set flush right.

    Attributes:
        strong: whether it is what the table is about, and set in bold.
    """

    title: str
    spell: Callable[..., str] = text
    strong: bool = False

    @property
    def style(self) -> str:
        """The classes of its cells on the page."""
        return " ".join(name for name, worn in (("n", self.numeric), ("strong", self.strong)) if worn)

    @property
    def numeric(self) -> bool:
        """Whether it holds numbers."""
        return self.spell not in (text, first)


@dataclass(frozen=True)
class Table:
    """Rows of raw values under columns that know how to spell them.

    Attributes:
        name: its file's name, without suffix.
        caption: one sentence or two, for people.
        breaks: the rows before which a thin rule is drawn.
    """

    name: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    breaks: frozenset[int] = frozenset()

    def spelled(self) -> list[list[str]]:
        """The cells as people read them."""
        return [[column.spell(value) for column, value in zip(self.columns, row, strict=True)] for row in self.rows]

    def csv(self) -> str:
        """Comma-separated values with all digits; no text in it is a formula."""
        return write_rows([column.title for column in self.columns], self.rows)

    def latex(self) -> str:
        """A booktabs table; every character that LaTeX would act on is escaped."""
        rule = "".join("r" if column.numeric else "l" for column in self.columns)
        lines = [r"\begin{table}", r"\centering", rf"\caption{{{escape(self.caption)}}}"]
        lines.append(rf"\begin{{tabular}}{{{rule}}}")
        lines += [r"\toprule", " & ".join(escape(c.title) for c in self.columns) + r" \\", r"\midrule"]
        for place, row in enumerate(self.spelled()):
            lines += [r"\addlinespace"] if place in self.breaks else []
            lines.append(" & ".join(map(_set, self.columns, row)) + r" \\")
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _set(column: Column, cell: str) -> str:
    return rf"\textbf{{{escape(cell)}}}" if column.strong else escape(cell)


def write(table: Table, folder: Path) -> None:
    """Write a table as ``<name>.csv`` and ``<name>.tex``.

    Raises:
        RunError: the folder cannot be written.
    """
    write_text(folder / f"{table.name}.csv", table.csv())
    write_text(folder / f"{table.name}.tex", table.latex())


_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "`": r"\textasciigrave{}", "'": r"\textquotesingle{}",
    "−": "$-$", "σ": r"$\sigma$", "ε": r"$\varepsilon$", "×": r"$\times$", "–": "--", "…": r"\dots{}",
    "\u202f": r"\,", "\N{NO-BREAK SPACE}": "~",
}  # fmt: skip


def escape(words: str) -> str:
    """Text as LaTeX that shows it and does nothing else; control characters become spaces."""
    return "".join(_LATEX.get(character, character) for character in re.sub(r"[\x00-\x1f\x7f]+", " ", words))
