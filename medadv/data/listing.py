"""Lists of ids, a line each, as Pascal VOC writes its splits: which cases of a data set are meant."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from medadv.data.case import Cohort, Refusal
from medadv.errors import ConfigError, Reason

_LONGEST = 1 << 26


def listed(path: Path) -> list[str]:
    """The ids of a list, in its order.

    Raises:
        ConfigError: it cannot be read, is empty, or has lines with more than an id.
    """
    try:
        if path.stat().st_size > _LONGEST:
            raise ValueError("it is larger than any list")
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"the list {path.name} cannot be read", got=said, expected="a text, one id a line") from error
    ids = [line for line in lines if line]
    odd = [line for line in ids if len(line.split()) > 1]
    if odd or not ids:
        raise ConfigError(
            f"the list {path.name} has more than an id in a line" if odd else f"the list {path.name} is empty",
            got=odd[0] if odd else None,
            expected="one id a line",
            advice="VOC's lists of one class say beside each id whether it is there: take the first column of those "
            "that you mean"
            if odd
            else None,
        )
    return ids


def chosen(cohort: Cohort, path: Path | None) -> Cohort:
    """The cases of a cohort that a list names, in its order; those that it names in vain are refused.

    Args:
        cohort: all cases.
        path: the list; None for all of them.

    Raises:
        ConfigError: there is no such list.
    """
    if path is None:
        return cohort
    ids = list(dict.fromkeys(listed(path)))
    known = {case.case: case for case in cohort.cases}
    refused = {refusal.case: refusal for refusal in cohort.refused}
    missing = [
        refused.get(name) or Refusal(name, Reason.MISSING_MODALITY, f"{name}: the data set has no such picture")
        for name in ids
        if name not in known
    ]
    return replace(cohort, cases=[known[name] for name in ids if name in known], refused=missing)
