"""Comparisons in sentences. Every number in them is read from a comparison's row; nothing is claimed beside it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from medadv.study.metrics import METRICS, Metric
from medadv.study.report.idle import idle
from medadv.study.report.numbers import budget, equals, measured, significant, spelled
from medadv.study.report.wording import worded
from medadv.study.results import Results
from medadv.study.spec import WORST
from medadv.study.stats import FEWEST, Comparison

ALPHA = 0.05


@dataclass(frozen=True)
class Answer:
    """What the study found about one victim.

    Attributes:
        victim: whose answer it is.
        sentences: the first is the answer; then a sentence for each attack that changed nothing, and up to two more.
        rows: the comparisons that the sentences were made of.
    """

    victim: str
    sentences: tuple[str, ...]
    rows: tuple[Comparison, ...]


def answer(results: Results, victim: str) -> Answer:
    """The largest loss in the primary family, what controls of the same size did, and the smallest budget with a loss.

    Without a primary family the sentences are about exploratory comparisons, and say so. Where the worst of all attacks
    is known, it is what is told.
    """
    clean = results.clean(victim)
    against = clean.condition if clean else ""
    own = [r for r in results.comparisons if r.victim == victim and r.rival is None]
    rows = [r for r in own if r.against == against and _attack(results, r)]
    primary = [row for row in rows if row.family == "primary"]
    metric = results.metric_of(victim)
    subject = metric.name, results.regions_of(victim)[0]
    told = [row for row in primary or rows if row.estimate is not None and (row.metric, row.region) == subject]
    told = [row for row in told if _derived(results, row)] or told
    if not told:
        return Answer(victim, ("No attack was compared with the clean files, so there is nothing to answer.",), ())
    worst = min(told, key=lambda row: (-loss(row), _amount(results, row)))
    sentences, used = [sentence(results, worst)], [worst]
    sentences += _unmoved(results, victim, worst.condition)
    controls = _controls(results, worst)
    if controls:
        sentences.append(_control_sentence(results, controls))
        used += controls
    if (smallest := _smallest(results, told, worst)) is not None:
        scope, row = smallest
        change = "lower" if metric.worse < 0 else "raise"
        sentences.append(f"The smallest budget{scope} that was shown to {change} it: {sentence(results, row)}")
        used.append(row)
    return Answer(victim, tuple(sentences), tuple(used))


def loss(row: Comparison) -> float:
    """How much worse the condition is, by the shift of the comparison; negative where it is better."""
    return METRICS[row.metric].loss(0.0, row.estimate or 0.0)


def claims(row: Comparison) -> bool:
    """Whether a comparison supports a claim: declared, six pairs at least, adjusted p below .05."""
    enough = row.n >= FEWEST and not row.verdict
    return row.family in ("primary", "rivals") and enough and row.p_adjusted is not None and row.p_adjusted < ALPHA


def sentence(results: Results, row: Comparison) -> str:
    """One comparison in plain language and numbers."""
    if row.rival is not None:
        return _between(results, row, row.rival)
    metric = results.named(row.metric)
    what = f"the mean {metric.words} of {row.region}"
    then, now = measured(row.mean_against, metric), measured(row.mean_condition, metric)
    subject, base = _subject(results, row.victim, row.condition), _base(results, row)
    begun = re.sub("^the ", "The ", subject)
    arm = results.arm(row.victim, row.condition)
    still, every = idle(arm, _cases(results)) if arm else ("", False)
    if every:
        return f"Under {subject} {still}: {what} is {then} {base}, {now} under it."
    note = f" {still[0].upper()}{still[1:]}." if still else ""
    if row.n < FEWEST or row.verdict:
        few = f"No claim is made about {subject}: {row.n} pairs are too few."
        return f"{few} {what[0].upper()}{what[1:]} was {then} {base}, {now} under it.{note}"
    if claims(row):
        verb = "lowers" if (row.estimate or 0.0) < 0 else "raises"
        return f"{begun} {verb} {what} from {then}{_from(results, row)} to {now} ({numbers(row, metric)}).{note}"
    if row.family == "primary":
        return f"{begun} was not shown to change {what}: {then} {base}, {now} under it ({numbers(row, metric)}).{note}"
    told = numbers(row, metric)
    return f"{begun} went with {what} of {now}, against {then} {base} ({told}); exploratory, so no claim.{note}"


def _cases(results: Results) -> str:
    return "pictures" if results.pictures else "cases"


def _unmoved(results: Results, victim: str, told: str) -> list[str]:
    """A sentence for each other attack that changed nothing in any case."""
    arms = (arm for arm in results.met(victim) if arm.condition != told)
    found = ((arm, *idle(arm, _cases(results))) for arm in arms)
    return [f"Under {_subject(results, victim, arm.condition)} {still}." for arm, still, every in found if every]


def _between(results: Results, row: Comparison, rival: str) -> str:
    """Two victims under one condition."""
    metric = results.named(row.metric)
    arm = results.arm(row.victim, row.condition)
    under = "On clean files" if arm and arm.presented.role == "clean" else None
    under = under or f"Under {_subject(results, row.victim, row.condition)}"
    own, other = measured(row.mean_condition, metric), measured(row.mean_against, metric)
    told = f"{under} the mean {metric.words} of {row.region} is {own} for {row.victim}, {other} for {rival}"
    if row.n < FEWEST or row.verdict:
        return f"{told}; no claim is made, {row.n} pairs are too few."
    if claims(row):
        return f"{told}: {row.victim} is {'lower' if (row.estimate or 0.0) < 0 else 'higher'} ({numbers(row, metric)})."
    if row.family in ("primary", "rivals"):
        return f"{told}: the two were not shown to differ ({numbers(row, metric)})."
    return f"{told} ({numbers(row, metric)}); exploratory, so no claim."


def numbers(row: Comparison, metric: Metric | None = None) -> str:
    """Effect, interval, p and n of a comparison; ``metric`` where its unit is not that of volumes."""
    metric = metric or METRICS[row.metric]
    parts = [f"Hodges–Lehmann shift {measured(row.estimate, metric)}"]
    if row.low is not None and row.high is not None:
        interval = f"{significant(100 * row.confidence)} % interval"
        parts.append(f"{interval} {measured(row.low, metric)} to {measured(row.high, metric)}")
    if row.p_adjusted is not None:
        parts.append(f"Holm-adjusted p\N{NO-BREAK SPACE}{equals(row.p_adjusted)}")
    else:
        parts.append(f"unadjusted p\N{NO-BREAK SPACE}{equals(row.p)}")
    return "; ".join([*parts, f"n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{row.n} {row.unit}"])


def unit_note(results: Results) -> str:
    """What n counts, and what follows from it."""
    if results.unit == "patients":
        told = "n counts patients: the scans of one patient were averaged before anything was compared."
        return worded(results, told)
    if results.pictures:
        return (
            "n counts cases, a picture each. Where several show one scene, they are not independent, and the intervals "
            "and p-values below are too optimistic."
        )
    return (
        "n counts cases, not patients: the data set does not say which scans belong to one person. "
        "If some do, they are not independent, and the intervals and p-values below are too optimistic."
    )


def family_note(results: Results) -> str:
    """How many comparisons were declared, and what the others are worth."""
    families = [row.family for row in results.comparisons]
    primary, rest = families.count("primary"), families.count("exploratory")
    rivals, margins = families.count("rivals"), families.count("non-inferiority")
    beside = [f"{rivals} of defences with the undefended victim in the worst case"] if rivals else []
    beside += [f"{margins} of non-inferiority on clean files"] if margins else []
    if not primary and not beside:
        return f"No primary comparison was declared: all {rest} are exploratory and support no claim."
    when = "after scores existed" if late(results) else "before any score existed"
    told = f"{primary} comparisons were declared {when}; their p-values are Holm-adjusted together. " if primary else ""
    if beside:
        told += f"{'Declared as well' if primary else f'Declared {when}'}: {' and '.join(beside)}, each Holm-adjusted "
        told += "among themselves. " if len(beside) > 1 else "together. "
    return f"{told}The other {rest} are exploratory: unadjusted, and no claim rests on them."


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


def _derived(results: Results, row: Comparison) -> bool:
    """Whether the condition is the worst of several attacks."""
    arm = results.arm(row.victim, row.condition)
    return arm is not None and arm.presented.family == WORST


def _amount(results: Results, row: Comparison) -> float:
    """The budget, for an order; one that differs between modalities, or bounds a step alone, comes after all others."""
    arm = results.arm(row.victim, row.condition)
    return math.inf if arm is None or arm.presented.amount is None or arm.step_bounded else arm.presented.amount


def _unit(results: Results, row: Comparison) -> str | None:
    """The unit of a budget of one amount; None for any other."""
    arm = results.arm(row.victim, row.condition)
    return None if arm is None or arm.presented.amount is None or arm.step_bounded else arm.presented.unit


def _smallest(results: Results, told: Sequence[Comparison], worst: Comparison) -> tuple[str, Comparison] | None:
    """The loss that was shown at the smallest budget, unless that is the worst one's; and what it is the smallest of,
    since only budgets of one amount in one unit have an order."""
    units = (_unit(results, row) for row in (worst, *told))
    unit = next(filter(None, units), None)
    alike = [row for row in told if _unit(results, row) == unit]
    limit = _amount(results, worst)
    shown = [row for row in alike if _amount(results, row) < limit and claims(row) and loss(row) > 0]
    if unit is None or not shown:
        return None
    scope = "" if len(alike) == len(told) else f" of one amount in {spelled(unit)}"
    return scope, min(shown, key=lambda row: (_amount(results, row), -loss(row)))


def _subject(results: Results, victim: str, condition: str) -> str:
    arm = results.arm(victim, condition)
    if arm is None:
        return condition
    title = re.sub(r"^([^,(]+), (.+)$", r"\1 (\2)", arm.presented.title)  # "i-FGSM, 10 steps" inside a sentence
    title = f"the {title}" if arm.presented.family == WORST else title
    return f"{title} at {budget(arm)}" if arm.presented.budget else title


def _base(results: Results, row: Comparison) -> str:
    arm = results.arm(row.victim, row.against)
    if arm is None or arm.presented.role == "clean":
        return "clean"
    return f"under {_subject(results, row.victim, row.against)}"


def _from(results: Results, row: Comparison) -> str:
    base = _base(results, row)
    return "" if base == "clean" else f" ({base})"


def _controls(results: Results, row: Comparison) -> list[Comparison]:
    """The comparisons with clean of the controls that match an attack: its own perturbation, and noise of its size,
    which there is none of where steps alone are bounded."""
    attack = results.arm(row.victim, row.condition)
    if attack is None or attack.presented.budget is None:
        return []
    controls = (arm for arm in results.of(row.victim) if arm.presented.role == "control")
    alike = (attack.condition,) if attack.step_bounded else (None, attack.condition)
    like = [arm for arm in controls if arm.presented.budget == attack.presented.budget]
    matching = [arm.condition for arm in like if arm.presented.of in alike]
    rows = [results.compared(row.victim, row.region, name, row.against, row.metric) for name in matching]
    return [r for r in rows if r is not None and r.estimate is not None]


def _control_sentence(results: Results, rows: Sequence[Comparison]) -> str:
    arms = {row.condition: results.arm(row.victim, row.condition) for row in rows}
    own = [row for row in rows if (arm := arms[row.condition]) is not None and arm.presented.of is not None]
    parts = []
    for row in rows:
        arm, told = arms[row.condition], measured(row.estimate, results.named(row.metric))
        if row not in own:
            parts.append(f"{told} ({arm.presented.title if arm else row.condition})")
        elif len(own) == 1:
            parts.append(f"{told} (its own perturbation, permuted)")
    if len(own) > 1:
        ends = sorted(own, key=lambda row: row.estimate or 0.0)
        low, high = (measured(ends[end].estimate, results.named(ends[end].metric)) for end in (0, -1))
        told = low if low == high else f"{low} to {high}"
        parts.append(f"{told} (its own perturbation, permuted in {len(own)} ways)")
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"Under controls of the same size the Hodges–Lehmann shift is {listed}."
