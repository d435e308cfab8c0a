"""Attacks that changed nothing: a score that holds under them is no sign of strength."""

from __future__ import annotations

from medadv.study.records import Record
from medadv.study.results import Arm


def idle(arm: Arm, cases: str) -> tuple[str, bool]:
    """In how many cases an attack changed nothing, in words, and whether those are all; empty where it changed each.

    Without a target there is nothing to attack; of an attack whose trace counts no targets only what was delivered is
    told.

    Args:
        arm: a victim under a condition.
        cases: what its cases are: ``pictures``.
    """
    still = [record for record in arm.records.values() if _change(record) == 0]
    if arm.presented.role != "attack" or not still:
        return "", False
    count = f"{len(still)} of {len(arm.records)} {cases}"
    every = len(still) == len(arm.records)
    if all(map(_aimless, still)):
        return f"in {count} there was no target; the attack changed nothing{'' if every else ' in them'}", every
    return f"the attack changed nothing in {count}", every


def _change(record: Record) -> float | None:
    """The largest change of what was delivered; None where it is not known."""
    return record.size if record.distortion is None else record.distortion.linf


def _aimless(record: Record) -> bool:
    """Whether the trace counts targets, and never any."""
    counts = record.effort.trace.get("active") if record.effort else None
    return counts is not None and not any(counts)
