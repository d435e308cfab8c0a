"""How the documentation is built: `make docs`."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

root = Path(__file__).parent.parent
sys.path.insert(0, str(root))

project = "medadv"
author = "The medadv developers"
project_copyright = author
release = version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
language = "en-GB"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]

myst_enable_extensions = ["colon_fence", "dollarmath", "deflist"]
myst_heading_anchors = 3

# The reference is made from the rooms' own docstrings: a new module appears by itself.
autosummary_generate = True
# Attributes of two classes may have one name: napoleon looks for it all the same, and finds both.
suppress_warnings = ["ref.python"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # an attribute is described once, in its class
napoleon_attr_annotations = False  # shapes such as "c *s" are no reStructuredText
napoleon_use_rtype = False

html_theme = "furo"
html_title = "medadv"
