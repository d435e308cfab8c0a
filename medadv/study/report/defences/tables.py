"""What the defences are worth, in one table a budget and region."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medadv.study.report.defences.lineage import called
from medadv.study.report.defences.standing import OVERSTATED, Standing, evidence
from medadv.study.report.defences.words import non_inferior
from medadv.study.report.numbers import NOTHING, hundredths, percent, probability, thousandths
from medadv.study.report.style import slug
from medadv.study.report.tables import Cell, Column, Table, first
from medadv.study.stats import FEWEST, Comparison


@dataclass(frozen=True)
class _Told:
    """One column, and what it says of each victim. ``always``: it is shown even where nobody has anything to say."""

    column: Column
    cells: Sequence[Cell]
    always: bool = False


def worth(standings: Sequence[Standing]) -> Table:
    """One row a victim: clean, naive, each adaptive attack, the worst case, and how far that is from undefended.

    Columns of which no victim has anything are left out.
    """
    level, region = standings[0].level, standings[0].region
    told = [
        _Told(Column("victim"), [s.entrant.name for s in standings], always=True),
        _Told(Column("defence"), [called(s.entrant.spec.defence) for s in standings], always=True),
        *_clean(standings),
        *_naive(standings),
        *_worst(standings),
        *_adaptive(standings),
    ]
    shown = [each for each in told if each.always or any(cell not in (None, "") for cell in each.cells)]
    return Table(
        name=slug("defences", region, level.slug),
        caption=_caption(standings),
        columns=[each.column for each in shown],
        rows=list(map(list, zip(*(each.cells for each in shown), strict=True))),
    )


def _caption(standings: Sequence[Standing]) -> str:
    results, level, region = standings[0].results, standings[0].level, standings[0].region
    score = standings[0].metric.words
    return (
        f"Mean {score} of {region} at {level.title}, over {results.units} {results.unit}. Worst case: the lowest "
        f"{score} of each case under all that was delivered within this budget: attacks of any kind, transferred ones "
        "too, and controls; that, and not the naive score, is what a defence is worth. Naive: "
        f"{_base(standings)} on its plain loss, as it is most often reported; “overstates by” says how far "
        f"it lies above the worst case where that is more than {hundredths(OVERSTATED)}. Zero gradients: the "
        "share of targets at whose logits the naive loss has "
        "a gradient of exactly zero, so that the attack does not see them. Transfer: what was found for another "
        "network, shown to this one. Shift: the Hodges–Lehmann estimate of worst case minus the undefended victim’s, "
        "paired, with its interval from low to high; above 0 the defence helps. “Worst was”: what was most often the "
        "worst, and in how many cases, the first of equals; the table’s CSV names all."
    )


def _base(standings: Sequence[Standing]) -> str:
    level = standings[0].level
    arms = (s.results.arm(s.entrant.name, level.varied.base) for s in standings)
    return next((arm.presented.title for arm in arms if arm), "the study’s attack")


def _clean(standings: Sequence[Standing]) -> list[_Told]:
    tests = [s.inferiority for s in standings]
    margin = next((row.margin for row in tests if row), None)
    title = f"non-inferior within {hundredths(margin)}"

    def verdict(row: Comparison | None) -> str:
        if row is None:
            return ""
        return NOTHING if row.n < FEWEST else "yes" if non_inferior(row) else "not shown"

    return [
        _Told(Column("clean", thousandths), [s.clean for s in standings], always=True),
        _Told(Column(title), list(map(verdict, tests))),
    ]


def _naive(standings: Sequence[Standing]) -> list[_Told]:
    return [
        _Told(Column("naive score", thousandths), [s.naive for s in standings], always=True),
        _Told(Column("zero gradients", percent), [s.zeros for s in standings], always=True),
        _Told(Column("overstates by", _overstatement), [s.overstated for s in standings], always=True),
    ]


def _overstatement(value: float | None) -> str:
    if value is not None and value <= OVERSTATED:
        return f"≤\N{NO-BREAK SPACE}{hundredths(OVERSTATED)}"
    return thousandths(value)


def _adaptive(standings: Sequence[Standing]) -> list[_Told]:
    level = standings[0].level
    told = [
        _Told(Column(f"logits / {t:g}", thousandths), [s.score(name) for s in standings])
        for t, name in level.varied.tempered
    ]
    from_undefended = [s.transferred(s.entrant.undefended) for s in standings]
    from_teacher = [s.transferred(s.entrant.teacher) for s in standings]
    return [
        *told,
        _Told(Column("logit margin", thousandths), [s.score(level.varied.margin) for s in standings]),
        _Told(Column("transfer from undefended", thousandths), from_undefended),
        _Told(Column("transfer from teacher", thousandths), from_teacher),
        _Told(Column("sign noise", thousandths), [s.noise for s in standings]),
    ]


def _worst(standings: Sequence[Standing]) -> list[_Told]:
    held = [s.against for s in standings]
    corrected = any(row is not None and row.p_adjusted is not None for row in held)
    p_values = [(row.p_adjusted if corrected else row.p) if row else None for row in held]
    return [
        _Told(Column("worst case", thousandths, strong=True), [s.worst for s in standings], always=True),
        _Told(Column("worst was", first), [_blame(s) for s in standings]),
        _Told(Column("shift from undefended", thousandths), [row.estimate if row else None for row in held]),
        _Told(Column("low", thousandths), [row.low if row else None for row in held]),
        _Told(Column("high", thousandths), [row.high if row else None for row in held]),
        _Told(Column("p, Holm" if corrected else "p, unadjusted", probability), p_values),
        _Told(Column("note"), [_note(s) for s in standings]),
    ]


def _note(standing: Standing) -> str:
    """What has to be known of the comparison with the undefended victim."""
    row = standing.against
    if row is None or row.verdict:
        return row.verdict if row else ""
    lower = evidence(row) and (row.estimate or 0.0) < 0
    return "harm not shown over what both met" if lower and not standing.harms else ""


def _blame(standing: Standing) -> str:
    """What was the worst in some case, with the number of cases, the most often named first."""
    counts = sorted(standing.blamed.items(), key=lambda item: -item[1])
    return "; ".join(f"{name}: {count}" for name, count in counts)
