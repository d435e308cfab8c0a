"""How figures look, and how they leave the report: PNG and PDF as files, and inline for the page."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import matplotlib as mpl
from matplotlib.figure import Figure

from medadv.atomic import write_atomically
from medadv.study.results import Arm

INK = "#1f2933"
QUIET = "#7b8794"
FAINT = "#e4e7eb"

# Okabe & Ito, Color universal design (2008): told apart with every common kind of colour vision.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", "P")
WIDE = 6.5
"""A drawing of more inches than this needs the page's whole width."""

CONTROL_MARKERS = ("x", "+", "1", "*")

_SETTINGS: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "text.color": INK,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "pdf.fonttype": 42,
    "svg.hashsalt": "medadv",
}


@contextmanager
def style() -> Iterator[None]:
    """Draw in the report's style; nothing of it is left behind."""
    with mpl.rc_context(cast(Any, _SETTINGS)):  # its keys are a type of a thousand literals
        yield


@dataclass(frozen=True)
class Look:
    """How one family of conditions is drawn: the same in every figure."""

    colour: str
    marker: str
    control: bool

    def line(self) -> dict[str, Any]:
        """What ``Axes.plot`` wants: attacks solid and filled, controls dashed and hollow."""
        if not self.control:
            return {"color": self.colour, "marker": self.marker, "linestyle": "-", "zorder": 3}
        hollow = {"markerfacecolor": "white", "markeredgecolor": self.colour, "linewidth": 1.2}
        return {"color": self.colour, "marker": self.marker, "linestyle": (0, (4, 2)), "zorder": 2, **hollow}


def looks(arms: Sequence[Arm]) -> Mapping[str, Look]:
    """Family → look. A control that is made of an attack wears the attack's colour, any other is grey."""
    attacks = list(dict.fromkeys(a.presented.family for a in arms if a.presented.role == "attack"))
    # From the seventh on, colours come again with other markers.
    worn = {name: Look(COLOURS[i % 6], MARKERS[(i + i // 6) % 6], control=False) for i, name in enumerate(attacks)}
    made_of = {a.condition: a.presented.family for a in arms}
    for arm in arms:
        shown = arm.presented
        if shown.role == "control" and shown.family not in worn:
            source = worn.get(made_of.get(shown.of or "", ""))
            free = sum(look.control and look.colour == QUIET for look in worn.values())
            grey = Look(QUIET, CONTROL_MARKERS[free % 4], control=True)
            worn[shown.family] = Look(source.colour, source.marker, control=True) if source else grey
    return worn


@dataclass(frozen=True)
class Picture:
    """A figure that was written, and its copy for the page.

    Attributes:
        name: the file's name without suffix.
        source: a ``data:`` address.
        alt: what it shows, for who cannot see it.
        wide: whether it needs the page's whole width.
    """

    name: str
    source: str
    alt: str
    wide: bool


def publish(figure: Figure, folder: Path, name: str, alt: str) -> Picture:
    """Write ``<name>.png`` and ``<name>.pdf``; drawings go into the page as SVG, images as PNG.

    Raises:
        RunError: the folder cannot be written.
    """
    raster = any(axes.images for axes in figure.axes)
    png, svg = io.BytesIO(), io.BytesIO()
    with style():
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out once for all three formats
        figure.savefig(png, format="png", dpi=200, metadata={"Software": None})
        write_atomically(folder / f"{name}.png", lambda path: path.write_bytes(png.getvalue()))
        # Without dates, the same results make the same bytes.
        undated = {"CreationDate": None}
        write_atomically(folder / f"{name}.pdf", lambda path: figure.savefig(path, format="pdf", metadata=undated))
        if not raster:
            figure.savefig(svg, format="svg", metadata={"Date": None})
    kind, content = ("png", png) if raster else ("svg+xml", svg)
    source = f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"
    return Picture(name, source, alt, wide=raster or bool(figure.get_figwidth() > WIDE))


def slug(*parts: str) -> str:
    """A file's name from names of the study: plain letters, and a digest where something was lost."""
    wanted = "-".join(parts)
    plain = re.sub(r"[^A-Za-z0-9._]+", "-", wanted).strip("-.")[:60]
    return plain if plain == wanted else f"{plain}-{hashlib.sha256(wanted.encode()).hexdigest()[:6]}"
