"""Comparisons in sentences. Every number in them is read from a comparison's row; nothing is claimed beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from medadv.study.report.numbers import budget, equals, measured, significant
from medadv.study.results import Results
from medadv.study.stats import FEWEST, Comparison

ALPHA = 0.05

METRICS = {"dice": "Dice", "hd95": "95 % Hausdorff distance"}


@dataclass(frozen=True)
class Answer:
    """What the study found about one victim.

    Attributes:
        victim: whose answer it is.
        sentences: one to three; the first is the answer.
        rows: the comparisons that the sentences were made of.
    """

    victim: str
    sentences: tuple[str, ...]
    rows: tuple[Comparison, ...]


def answer(results: Results, victim: str) -> Answer:
    """The largest loss in the primary family, what controls of the same size did, and the smallest budget with a loss.

    Without a primary family the sentences are about exploratory comparisons, and say so.
    """
    clean = results.clean(victim)
    against = clean.condition if clean else ""
    rows = [r for r in results.comparisons if r.victim == victim and r.against == against and _attack(results, r)]
    primary = [row for row in rows if row.family == "primary"]
    told = [row for row in primary or rows if row.estimate is not None and row.metric == "dice"]
    if not told:
        return Answer(victim, ("No attack was compared with the clean files, so there is nothing to answer.",), ())
    region = told[0].region
    told = [row for row in told if row.region == region]
    worst = min(told, key=lambda row: (row.estimate or 0.0, _amount(results, row)))
    sentences, used = [sentence(results, worst)], [worst]
    controls = _controls(results, worst)
    if controls:
        sentences.append(_control_sentence(results, controls))
        used += controls
    shown = [row for row in told if claims(row) and (row.estimate or 0.0) < 0]
    smallest = min(shown, key=lambda row: (_amount(results, row), row.estimate), default=None)
    if smallest and smallest is not worst and _amount(results, smallest) < _amount(results, worst):
        sentences.append(f"The smallest budget that was shown to lower it: {sentence(results, smallest)}")
        used.append(smallest)
    return Answer(victim, tuple(sentences), tuple(used))


def claims(row: Comparison) -> bool:
    """Whether a comparison supports a claim: primary, six pairs at least, adjusted p below .05."""
    enough = row.n >= FEWEST and not row.verdict
    return row.family == "primary" and enough and row.p_adjusted is not None and row.p_adjusted < ALPHA


def sentence(results: Results, row: Comparison) -> str:
    """One comparison in plain language and numbers."""
    what = f"the mean {METRICS.get(row.metric, row.metric)} of {row.region}"
    then, now = measured(row.mean_against, row.metric), measured(row.mean_condition, row.metric)
    subject, base = _subject(results, row.victim, row.condition), _base(results, row)
    if row.n < FEWEST or row.verdict:
        few = f"No claim is made about {subject}: {row.n} pairs are too few."
        return f"{few} {what[0].upper()}{what[1:]} was {then} {base}, {now} under it."
    if claims(row):
        verb = "lowers" if (row.estimate or 0.0) < 0 else "raises"
        return f"{subject} {verb} {what} from {then}{_from(results, row)} to {now} ({numbers(row)})."
    if row.family == "primary":
        return f"{subject} was not shown to change {what}: {then} {base}, {now} under it ({numbers(row)})."
    return f"{subject} went with {what} of {now}, against {then} {base} ({numbers(row)}); exploratory, so no claim."


def numbers(row: Comparison) -> str:
    """Effect, interval, p and n of a comparison."""
    parts = [f"Hodges–Lehmann shift {measured(row.estimate, row.metric)}"]
    if row.low is not None and row.high is not None:
        parts.append(f"{interval_name(row)} {measured(row.low, row.metric)} to {measured(row.high, row.metric)}")
    if row.p_adjusted is not None:
        parts.append(f"Holm-adjusted p\N{NO-BREAK SPACE}{equals(row.p_adjusted)}")
    elif row.p is not None:
        parts.append(f"unadjusted p\N{NO-BREAK SPACE}{equals(row.p)}")
    return "; ".join([*parts, f"n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{row.n} {row.unit}"])


def interval_name(row: Comparison) -> str:
    """``95 % interval``."""
    return "interval" if row.confidence is None else f"{significant(100 * row.confidence)} % interval"


def unit_note(results: Results) -> str:
    """What n counts, and what follows from it."""
    if results.unit == "patients":
        return "n counts patients: the scans of one patient were averaged before anything was compared."
    return (
        "n counts cases, not patients: the data set does not say which scans belong to one person. "
        "If some do, they are not independent, and the intervals and p-values below are too optimistic."
    )


def family_note(results: Results) -> str:
    """How many comparisons were declared, and what the others are worth."""
    primary = sum(row.family == "primary" for row in results.comparisons)
    rest = len(results.comparisons) - primary
    if not primary:
        return f"No primary comparison was declared: all {rest} are exploratory and support no claim."
    when = "after scores existed" if late(results) else "before any score existed"
    return (
        f"{primary} comparisons were declared {when}; their p-values are Holm-adjusted together. "
        f"The other {rest} are exploratory: unadjusted, and no claim rests on them."
    )


def gaps(results: Results) -> str:
    """How many cells have no record; empty for a complete run."""
    missing = sum(len(results.cases) - len(arm.records) for arm in results.arms)
    if not missing:
        return ""
    return (
        f"The run is not complete: {missing} of {len(results.cases) * len(results.arms)} cells have no record, so "
        "means of different conditions are over different cases. Comparisons use matched pairs only."
    )


def late(results: Results) -> bool:
    """Whether the present primary family was declared by somebody who could have seen scores."""
    return bool(results.declarations and results.declarations[-1].get("after_scores"))


def _attack(results: Results, row: Comparison) -> bool:
    arm = results.arm(row.victim, row.condition)
    return arm is not None and arm.presented.role == "attack"


def _amount(results: Results, row: Comparison) -> float:
    arm = results.arm(row.victim, row.condition)
    return (arm.presented.amount if arm else None) or 0.0


def _subject(results: Results, victim: str, condition: str) -> str:
    arm = results.arm(victim, condition)
    if arm is None:
        return condition
    title = re.sub(r"^([^,(]+), (.+)$", r"\1 (\2)", arm.presented.title)  # "i-FGSM, 10 steps" inside a sentence
    return f"{title} at {budget(arm)}" if arm.presented.amount is not None else title


def _base(results: Results, row: Comparison) -> str:
    arm = results.arm(row.victim, row.against)
    if arm is None or arm.presented.role == "clean":
        return "clean"
    return f"under {_subject(results, row.victim, row.against)}"


def _from(results: Results, row: Comparison) -> str:
    base = _base(results, row)
    return "" if base == "clean" else f" ({base})"


def _controls(results: Results, row: Comparison) -> list[Comparison]:
    """The comparisons with clean of the controls that match an attack: its own perturbation, and noise of its size."""
    attack = results.arm(row.victim, row.condition)
    if attack is None:
        return []
    size = (attack.presented.amount, attack.presented.unit)
    controls = (arm for arm in results.of(row.victim) if arm.presented.role == "control")
    like = [a for a in controls if (a.presented.amount, a.presented.unit) == size]
    matching = [arm.condition for arm in like if arm.presented.of in (None, attack.condition)]
    rows = [results.compared(row.victim, row.region, name, row.against, row.metric) for name in matching]
    return [r for r in rows if r is not None and r.estimate is not None]


def _control_sentence(results: Results, rows: Sequence[Comparison]) -> str:
    parts = []
    for row in rows:
        arm = results.arm(row.victim, row.condition)
        own = arm is not None and arm.presented.of is not None
        name = "its own perturbation, permuted" if own else arm.presented.title if arm else row.condition
        parts.append(f"{measured(row.estimate, row.metric)} ({name})")
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"Under controls of the same size the Hodges–Lehmann shift is {listed}."
