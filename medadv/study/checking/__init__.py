"""What is in a data set, before anything is attacked.

``facts`` measures one case, ``survey`` reads all of them, ``remarks`` says what a person should look at; ``tables``,
``text`` and ``page`` tell it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medadv.study.checking.survey import Survey, survey
from medadv.study.cohort import check_strata
from medadv.study.discover import discover
from medadv.study.names import Names
from medadv.study.progress import Silent, Watch
from medadv.study.sources import imported


def check(
    path: str | Path, declared: Mapping[str, Any] | None = None, watch: Watch | None = None, *, pseudonyms: bool = False
) -> Survey:
    """Read a data set as a study would, case by case.

    Args:
        path: a folder, a datalist, or a study, whose data are taken.
        declared: what names do not tell, under the keys of a study's ``data``.
        watch: told of the reading.
        pseudonyms: put the user's own pseudonyms in the place of ids.

    Raises:
        ConfigError: no data set there, something that must be declared, or strata that undo pseudonyms.
        RunError: pseudonyms are asked for, and their key can neither be made nor read.
    """
    found = discover(Path(path), declared or {})
    with tempfile.TemporaryDirectory() as folder:  # for a study's phantoms
        cohort = imported(found.data, Path(folder), found.seed, alone=True)
        if pseudonyms:
            check_strata(cohort)
        seen = survey(found.title, found.declared(cohort), cohort, watch or Silent())
    return seen.under(Names.pseudonyms(), cohort) if pseudonyms else seen
