"""How sure victims are of what they say, clean and attacked: where a CRF is over-confident (Arnab et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from medadv.study.arm import Arm
from medadv.study.records import Record
from medadv.study.report.numbers import significant, titled
from medadv.study.report.style import slug
from medadv.study.report.tables import Cell, Column, Table
from medadv.study.results import Results

_MEANT = {
    "confidence": "Confidence: the largest probability",
    "doubt": "doubt: 1 − confidence",
    "entropy": "entropy: −Σ p log p, in nats",
    "lead": "lead: the logarithm of the largest probability over the second",
}


def certainty_table(results: Results) -> Table | None:
    """One row a victim and condition, clean and attacks; None where no record tells it."""
    arms = [arm for arm in results.arms if arm.presented.role != "control" and any(map(_told, arm.records.values()))]
    names = list(dict.fromkeys(name for arm in arms for record in arm.records.values() for name in _told(record)))
    if not names:
        return None
    return Table(
        name=slug("certainty"),
        caption=f"Means over targets, then over images. {'; '.join(_MEANT[name] for name in names if name in _MEANT)}. "
        "Where a defence is surer than its undefended victim, gradients vanish, and an attack that follows them may "
        "fail for that alone.",
        columns=[Column("victim"), Column("condition"), *(Column(name, significant) for name in names)],
        rows=[[arm.victim, titled(arm), *(_mean(arm, name) for name in names)] for arm in arms],
        breaks=frozenset(i for i in range(1, len(arms)) if arms[i].victim != arms[i - 1].victim),
    )


def _told(record: Record) -> Mapping[str, float]:
    return record.certainty or {}


def _mean(arm: Arm, name: str) -> Cell:
    values = [told[name] for record in arm.records.values() if name in (told := _told(record))]
    return fmean(values) if values else None
