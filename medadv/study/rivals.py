"""Victims held against each other under one condition: is a defence worth anything, and what does it cost?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

from medadv.study.judgement import Judgement
from medadv.study.metrics import METRICS, MetricName
from medadv.study.pairs import Pairs
from medadv.study.records import Presented, Record
from medadv.study.signed_rank import signed_rank
from medadv.study.stats import (
    CLEAN,
    FEWEST,
    NO_CLAIM,
    Cells,
    Comparison,
    Family,
    PrimaryFamily,
    Question,
    adjusted,
    answer,
    arranged,
    occurring,
    order,
    told,
)
from medadv.study.worst import worst_cases

LEVEL = 0.05
"""What an adjusted p must stay below for non-inferiority."""


def between(
    records: Iterable[Record], primary: PrimaryFamily, judgement: Judgement, regions: Sequence[str]
) -> list[Comparison]:
    """Every pair of judged victims under every attack that both met, the worst cases, and clean; and non-inferiority.

    Differences are the victim's score minus its rival's, which stands above it in the study: the undefended victim is
    the rival of its defences. Pairs are matched by case and averaged within patients, as everywhere.

    Declared are, in the victim's primary metric and in the primary region, those of each defended victim with its
    undefended one: in the primary family if the study declares it so, else in the family ``rivals`` under the worst
    cases. With a margin the clean Dice (or IoU, or recall: the share that the victim is judged by) of each defended
    victim is tested for non-inferiority. Holm's adjustment is made within each family.

    Args:
        records: those of the study, worst cases among them.
        primary: the declared family.
        judgement: who is judged, and against whom.
        regions: regions or tissues, in the order wanted.

    Raises:
        RunError: two records of one cell, or a case that belongs to two patients.
    """
    records = list(records)
    metrics = occurring(records)
    victims, patients = arranged(records)
    questions = _questions(victims, primary, judgement, [(m, region) for m in metrics for region in regions])
    rows = [answer(question, victims, patients) for question in questions]
    if judgement.margin is not None:
        for victim, rival in judgement.undefended.items():
            own = occurring(record for record in records if record.victim == victim)
            share = _share(primary.metric_of(victim), own or metrics)
            question = Question(victim, primary.region, share, CLEAN, CLEAN, "non-inferiority", rival)
            rows.append(non_inferiority(question, question.pairs(victims, patients), judgement.margin))
    return [_with_verdict(row) for row in adjusted(rows)]


def on_common(records: Iterable[Record], judgement: Judgement, row: Comparison) -> Comparison:
    """The same comparison of two worst cases, each over those conditions alone that both victims met.

    A defended victim meets more than its undefended one, and a minimum falls with their number: one that changes
    nothing may have the lower worst case. What is said against a defence has to hold here too. Not adjusted.

    Args:
        records: those of the study; worst cases among them are made anew.
        judgement: what each worst case is of.
        row: two victims under one worst case.
    """
    assert row.rival is not None
    theirs = judgement.worst[row.rival][row.condition]
    both = tuple(name for name in judgement.worst[row.victim][row.condition] if name in theirs)
    worst = {victim: {row.condition: both} for victim in (row.victim, row.rival)}
    made = worst_cases(records, judgement.model_copy(update={"worst": worst}))
    question = Question(row.victim, row.region, row.metric, row.condition, row.against, "exploratory", row.rival)
    return answer(question, *arranged(made))


def non_inferiority(question: Question, pairs: Pairs, margin: float) -> Comparison:
    """The one-sided signed-rank test of condition - against + margin > 0.

    Its estimate is the Hodges-Lehmann shift without the margin, and ``low`` its one-sided 95 % limit (``confidence`` is
    what that limit reaches, unless n is too small); there is no upper one. Unadjusted, p below .05 and a lower limit
    above -margin say the same, but for ties and zeros.

    Args:
        question: what is compared; its family.
        pairs: clean scores of the defended victim, and of the undefended one.
        margin: the loss of Dice that is declared to be of no concern, above 0.
    """
    shifted = Pairs({case: value + margin for case, value in pairs.condition.items()}, pairs.against, pairs.patients)
    result = signed_rank(shifted, "greater", confidence=0.9)  # the lower end of a two-sided 90 % interval
    estimate, low = (None if value is None else round(value - margin, 9) for value in (result.estimate, result.low))
    result = replace(result, estimate=estimate, low=low, high=None, confidence=(1 + result.confidence) / 2)
    return told(question, pairs, result, "", margin)


def _with_verdict(row: Comparison) -> Comparison:
    if row.margin is None or row.p_adjusted is None:
        return row
    shown = "" if row.p_adjusted < LEVEL else "not shown to be "
    verdict = NO_CLAIM if row.n < FEWEST else f"{shown}non-inferior within {row.margin:g}"
    return row.model_copy(update={"verdict": verdict})


def _questions(
    victims: Mapping[str, Cells],
    primary: PrimaryFamily,
    judgement: Judgement,
    subjects: Sequence[tuple[MetricName, str]],
) -> Iterator[Question]:
    for rival, victim in combinations(judgement.judged, 2):
        conditions = _common(victims.get(victim, {}), victims.get(rival, {}))
        subject = primary.metric_of(victim), primary.region
        for metric, region in dict.fromkeys([*subjects, subject]):
            families = _declared(primary, judgement, victim, rival) if (metric, region) == subject else {}
            met = conditions if (metric, region) in subjects else ()  # of what nobody is scored in, what was declared
            for condition in dict.fromkeys([*met, *families]):
                family = families.get(condition, "exploratory")
                yield Question(victim, region, metric, condition, condition, family, rival)


def _share(metric: MetricName, scored: Sequence[MetricName]) -> MetricName:
    """What a margin is of: a victim's primary metric, or where that is no share, the first one that it is scored in."""
    return next((name for name in (metric, *scored) if METRICS[name].share), "dice")


def _declared(primary: PrimaryFamily, judgement: Judgement, victim: str, rival: str) -> dict[str, Family]:
    """Condition → the family in which two victims were declared to be held against each other under it."""
    if primary.rivals.get(victim) == rival:
        return dict.fromkeys(primary.conditions, "primary")
    if not primary.rivals and judgement.undefended.get(victim) == rival:
        return dict.fromkeys(judgement.worst[victim], "rivals")
    return {}


def _common(cells: Cells, others: Cells) -> list[str]:
    """Clean, and every attack that both victims met."""
    shown: dict[str, Presented] = {name: next(iter(of.values())).presented for name, of in cells.items()}
    attacks = [name for name in shown if name in others and shown[name].role == "attack"]
    clean = [name for name in shown if name in others and shown[name].role == "clean"]
    return [*clean, *sorted(attacks, key=lambda name: order(shown[name], name))]
