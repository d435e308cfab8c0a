"""What all pages share: templates that escape every value, and one style sheet, the only one that is ever applied."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from jinja2 import ChoiceLoader, Environment, PackageLoader
from markupsafe import Markup


def pages(*folders: str) -> Environment:
    """Templates of the report, and of further folders of the study's room; what they are given is escaped."""
    return Environment(
        loader=ChoiceLoader([PackageLoader("medadv.study", folder) for folder in ("report", *folders)]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def sheet() -> tuple[Markup, str]:
    """The style sheet, and the content security policy of a page that holds it and needs nothing else.

    The policy names this one style sheet by its digest, so that nothing a file's name smuggles in is ever applied.
    """
    css = files("medadv.study.report").joinpath("page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return Markup(css), policy  # our own file
