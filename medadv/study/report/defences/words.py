"""What a defence is worth, in a sentence or two. Which sentence it is follows from the numbers by rule.

The naive score alone says nothing: it is told beside the worst case, and what both say of the undefended victim.
"""

from __future__ import annotations

from enum import StrEnum

from medadv.study.report.defences.lineage import called
from medadv.study.report.defences.standing import OVERSTATED, Standing, evidence
from medadv.study.report.numbers import equals, hundredths, percent, share, significant
from medadv.study.report.words import ALPHA, claims, numbers
from medadv.study.stats import FEWEST, Comparison

VANISHED = 0.1
"""From this share of exactly zero gradients on, an attack that fails is said to fail for them."""


class Finding(StrEnum):
    """What came out for one defence at one budget, by the worst case against the undefended victim's."""

    HOLDS = "holds"
    PARTLY = "partly"
    HARMS = "harms"
    UNEVEN = "uneven"
    ARTEFACT = "artefact"
    NOT_SHOWN = "not shown"
    TOO_FEW = "too few"
    UNKNOWN = "unknown"


_UNEXPLAINED = (Finding.HOLDS, Finding.HARMS, Finding.UNEVEN, Finding.NOT_SHOWN)
"""Whose sentence does not say yet what the naive score is worth."""


def finding(standing: Standing, undefended: Standing) -> Finding:
    """What is said of a defence, by rule.

    It holds (or harms) where the paired test of the worst cases says so; it harms only where that also holds over the
    conditions that both met, since a longer list makes a lower minimum. Where the naive score is more than .05 above
    the undefended victim's, and less than half of that is left between the worst cases, the rest is an artefact of the
    naive attack: all of it, if the test shows nothing.
    """
    row = standing.against
    if row is None or row.estimate is None or standing.worst is None or undefended.worst is None:
        return Finding.UNKNOWN
    if row.n < FEWEST or row.verdict:
        return Finding.TOO_FEW
    hollow = False
    if standing.naive is not None and undefended.naive is not None:
        lead = standing.naive - undefended.naive
        hollow = lead > OVERSTATED and standing.worst - undefended.worst < lead / 2
    if not evidence(row) or row.estimate == 0:
        return Finding.ARTEFACT if hollow else Finding.NOT_SHOWN
    if row.estimate < 0:
        return Finding.HARMS if standing.harms else Finding.UNEVEN
    return Finding.PARTLY if hollow else Finding.HOLDS


def sentences(standing: Standing, undefended: Standing) -> tuple[str, ...]:
    """What a defence is worth at one budget, and what it costs on unchanged files."""
    found = finding(standing, undefended)
    told = [f"{_facts(standing, undefended)}: {_verdict(found, standing, undefended)}"]
    overstated = standing.overstated
    if found in _UNEXPLAINED and overstated and overstated > OVERSTATED:
        cause = _vanishing(standing, undefended)
        told.append(f"The naive score overstates the defence by {hundredths(overstated)}{cause}.")
    return *told, _clean(standing, undefended)


def _facts(standing: Standing, undefended: Standing) -> str:
    level = standing.level
    arm = standing.results.arm(standing.entrant.name, level.worst)
    worst = f"the {arm.presented.title}" if arm else "the worst case"
    naive = standing.results.arm(standing.entrant.name, level.varied.base)
    attack = f"the naive attack ({naive.presented.title}, {level.title})" if naive else "the naive attack"
    return (
        f"{standing.entrant.name} ({called(standing.entrant.spec.defence)}): {standing.metric.words} of "
        f"{standing.region} under {attack} "
        f"{share(standing.naive)}, under {worst} {share(standing.worst)}; undefended ({undefended.entrant.name}) "
        f"{share(undefended.naive)} and {share(undefended.worst)}"
    )


def _verdict(found: Finding, standing: Standing, undefended: Standing) -> str:
    row = standing.against
    if row is None or found is Finding.UNKNOWN:
        return "the worst cases were not compared, so nothing is said about the defence."
    told, score = f"({numbers(row)})", standing.metric.words
    match found:
        case Finding.TOO_FEW:
            return f"no claim is made about the defence, {row.n} pairs are too few."
        case Finding.HOLDS | Finding.HARMS:
            verb = "raises" if found is Finding.HOLDS else "lowers"
            if claims(row):
                return f"the defence {verb} {score} in the worst case {told}."
            change = "higher" if found is Finding.HOLDS else "lower"
            return f"{score} in the worst case is {change} with the defence {told}; exploratory, so no claim."
        case Finding.UNEVEN:
            return (
                f"the defence was not shown to lower {score}: its worst case is the lower one, but of more conditions, "
                f"and over those that both met no harm was shown {told}."
            )
        case Finding.ARTEFACT:
            cause = _cause(standing, undefended)
            lead, left = _leads(standing, undefended)
            gone = f"of its lead of {lead} over the undefended victim {left} is left in the worst case"
            return f"{gone}, which was not shown to differ from 0 {told}; the rest is an artefact of {cause}."
        case Finding.PARTLY:
            hedge = "" if claims(row) else "; exploratory, so no claim"
            cause, left = _cause(standing, undefended), share(row.estimate)
            return f"most of the difference is an artefact of {cause}; in the worst case {left} is left {told}{hedge}."
    return f"the defence was not shown to change {score} in the worst case {told}."


def _leads(standing: Standing, undefended: Standing) -> tuple[str, str]:
    """By how much it is above the undefended victim in the mean score: naively, and in the worst case."""
    naive, worst = (
        a - b
        for a, b in ((standing.naive, undefended.naive), (standing.worst, undefended.worst))
        if a is not None and b is not None
    )
    return hundredths(naive), share(worst)


def _cause(standing: Standing, undefended: Standing) -> str:
    """What made the naive attack fail."""
    if _vanished(standing, undefended):
        return f"vanishing gradients ({percent(standing.zeros)} exactly zero, {percent(undefended.zeros)} undefended)"
    return "the naive attack, which another one overcomes"


def _vanishing(standing: Standing, undefended: Standing) -> str:
    """The share of zero gradients, where it is much."""
    if not _vanished(standing, undefended):
        return ""
    return f"; {percent(standing.zeros)} of the gradients in it were exactly zero"


def _vanished(standing: Standing, undefended: Standing) -> bool:
    return standing.zeros is not None and standing.zeros >= max(VANISHED, 2 * (undefended.zeros or 0.0))


def _clean(standing: Standing, undefended: Standing) -> str:
    """What unchanged files cost."""
    row, test = standing.clean_against, standing.inferiority
    said = []
    if test is not None:
        said.append(_within(test))
    if row is not None and row.n >= FEWEST and not row.verdict and evidence(row) and (row.estimate or 0.0) != 0:
        verb = "costs" if (row.estimate or 0.0) < 0 else "gains"
        hedge = "" if claims(row) else "; exploratory, so no claim"
        said.append(f"the defence {verb} clean {standing.metric.words} ({numbers(row)}){hedge}")
    if not said:
        said.append("no margin of non-inferiority was declared")
    own, other = share(standing.clean), share(undefended.clean)
    return f"Clean {standing.metric.words} {own} against {other}: {'; '.join(said)}."


def _within(test: Comparison) -> str:
    """Whether clean files lose less than the margin, with what belongs to the test."""
    margin = hundredths(test.margin)
    if test.n < FEWEST:
        return f"whether it loses less than {margin} cannot be told from {test.n} pairs"
    shown = "non-inferior" if non_inferior(test) else "not shown to be non-inferior"
    limit = f"lower {significant(100 * test.confidence)} % limit of the shift {share(test.low)}"
    return f"{shown} within {margin} ({limit}, one-sided Holm-adjusted p\N{NO-BREAK SPACE}{equals(test.p_adjusted)})"


def non_inferior(test: Comparison) -> bool:
    """Whether a test of non-inferiority came out so, with enough pairs and the adjusted p below .05."""
    return test.n >= FEWEST and test.p_adjusted is not None and test.p_adjusted < ALPHA
