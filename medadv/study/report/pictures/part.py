"""A part of the page that is there only where the records have something to show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medadv.study.report.style import Picture
from medadv.study.report.tables import Table


@dataclass(frozen=True)
class Part:
    """A section of the page.

    Attributes:
        key: its id.
        title: its heading.
        said: paragraphs before everything else.
        figures: drawings, side by side where there is room.
        caption: a line below them.
        tables: the tables, each with what it is folded under.
    """

    key: str
    title: str
    said: Sequence[str] = ()
    figures: Sequence[Picture] = ()
    caption: str = ""
    tables: Sequence[tuple[str, Table]] = ()
