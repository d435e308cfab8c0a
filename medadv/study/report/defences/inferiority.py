"""What a defence costs on unchanged files: its clean Dice against the undefended victim's, within a declared margin."""

from __future__ import annotations

from dataclasses import dataclass

from medadv.study.report.defences.standing import Standing

SHOWN, NOT_SHOWN = "shown", "not shown"


@dataclass(frozen=True)
class Cost:
    """The test that a defence loses less clean Dice than the declared margin.

    Attributes:
        margin: how much Dice it may lose, as it was declared.
        n: pairs.
        estimate, low: the Hodges–Lehmann shift, defended minus undefended, and its one-sided lower limit.
        p: of the one-sided test.
        verdict: ``shown``, ``not shown``, or why nothing may be claimed.
    """

    margin: float
    n: int
    estimate: float | None
    low: float | None
    p: float
    verdict: str

    @classmethod
    def of(cls, standing: Standing) -> Cost | None:
        """That of a defended victim; None without a declared margin."""
        return None
