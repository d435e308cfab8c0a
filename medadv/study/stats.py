"""Which condition is held against which, in which family, and what came out: the comparisons of a study."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from medadv.errors import ConfigError, RunError
from medadv.study.metrics import MetricName, in_order
from medadv.study.pairs import Pairs, Unit
from medadv.study.records import POLICY, Presented, Record
from medadv.study.signed_rank import Sided, SignedRank, signed_rank

CLEAN = "clean"
"""The condition that every other one is held against."""

FEWEST = 6
"""Below this many pairs no two-sided signed-rank test can reach .05: no claim is made."""

NO_CLAIM = "no claim: fewer than six pairs"

Family = Literal["primary", "rivals", "non-inferiority", "exploratory"]

Cells = Mapping[str, Mapping[str, Record]]


class PrimaryFamily(BaseModel):
    """The comparisons that were declared before any score existed: all that may be claimed.

    Attributes:
        metric, region: what is compared.
        victims: the victims, by name; empty for all.
        conditions: the conditions, by name, for every victim of the study.
        against: the condition that they are held against.
        rivals: victim → the victim that it is held against instead, both under the same condition; empty where
            conditions are held against ``against``.
        metrics: victim → its metric, where it is asked something else than the others: a detector among segmentations.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    metric: MetricName = "dice"
    region: str
    victims: tuple[str, ...] = ()
    conditions: tuple[str, ...]
    against: str = CLEAN
    rivals: dict[str, str] = {}
    metrics: dict[str, MetricName] = {}

    def metric_of(self, victim: str) -> MetricName:
        """What a victim is compared in."""
        return self.metrics.get(victim, self.metric)

    @property
    def declared(self) -> frozenset[MetricName]:
        """Every metric that a victim is compared in."""
        return frozenset((self.metric, *self.metrics.values()))


class Comparison(BaseModel):
    """One paired comparison: one row of ``comparisons.csv``. The fields of the test are those of ``SignedRank``.

    Attributes:
        condition, against: the two conditions; differences are condition - against.
        rival: the victim whose scores under ``against``, the same condition, are subtracted; None where they are the
            victim's own.
        margin: of a test of non-inferiority, how much lower than the rival's the scores may be; None of any other.
        family: ``primary``, or ``rivals`` and ``non-inferiority`` in a study with a defence, if it was declared there;
            else ``exploratory``.
        unit: what the n pairs are.
        p: kept below six pairs too, since a declared family keeps its size; the verdict then forbids the claim.
        p_adjusted: Holm's, within the declared family; None for exploratory comparisons.
        mean_condition, mean_against: means over the pairs; None without pairs.
        missing: the cases that only one of the two conditions has a score of.
        verdict: empty, or why nothing may be claimed; of a test of non-inferiority, what it came to.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    victim: str
    region: str
    metric: MetricName
    condition: str
    against: str
    rival: str | None = None
    margin: float | None = None
    family: Family
    unit: Unit
    n: int
    zeros: int
    ties: int
    method: Literal["exact", "asymptotic"]
    zero_method: Literal["pratt"]
    sided: Sided
    w_plus: float
    w_minus: float
    p: float
    p_adjusted: float | None
    estimate: float | None
    low: float | None
    high: float | None
    confidence: float
    rank_biserial: float
    mean_condition: float | None
    mean_against: float | None
    missing: tuple[str, ...]
    verdict: str


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted for their number by Holm's step-down procedure (1979), in the order given.

    Raises:
        ConfigError: a value is NaN or lies outside [0, 1].
    """
    if bad := [p for p in p_values if not 0 <= p <= 1]:
        raise ConfigError("p-values lie between 0 and 1", got=bad)
    adjusted = [1.0] * len(p_values)
    least = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = least
    return adjusted


def compare(
    records: Iterable[Record],
    primary: PrimaryFamily,
    regions: Sequence[str],
    metric: MetricName = "dice",
) -> list[Comparison]:
    """All comparisons of a study in one metric: by victim, then region, then attacks before controls.

    Of each victim, every attack and control is held against clean, and every attack against the controls that permute
    its own perturbation. The declared family is tested over all victims, with its declared size: a declared condition
    or victim without scores has n = 0 and p = 1. Everything else is exploratory.

    Args:
        records: at most one a cell, in any order; the scores are those of the delivered files, by the strict policy.
        primary: the declared family; without conditions, everything is exploratory.
        regions: regions or tissues, in the order wanted.

    Raises:
        ConfigError: the declared region is not among ``regions``.
        RunError: two records of one cell, or a case that belongs to two patients.
    """
    if primary.conditions and metric in primary.declared and primary.region not in regions:
        raise ConfigError(
            "the region of the declared family is not compared",
            got=primary.region,
            expected=f"one of {list(regions)}",
            advice="compare it too, or declare another region before the study starts",
        )
    victims, patients = arranged(records)
    declared = primary.conditions and not primary.rivals
    questions = [
        Question(victim, region, metric, c, against, _family(primary, victim, (metric, region, against), c))
        for victim in sorted({*victims, *(primary.victims if declared else ())})
        for region in regions
        for c, against in _held(victims.get(victim, {}), primary, (victim, metric, region))
    ]
    return adjusted([answer(question, victims, patients) for question in questions])


def occurring(records: Iterable[Record]) -> tuple[MetricName, ...]:
    """The metrics that any record holds, in the order of ``METRICS``."""
    return in_order(score.metric for record in records for score in record.scores)


def adjusted(rows: Sequence[Comparison]) -> list[Comparison]:
    """The same comparisons with Holm's p-values, each declared family by itself."""
    found: dict[int, float] = {}
    for family in {row.family for row in rows} - {"exploratory"}:
        places = [place for place, row in enumerate(rows) if row.family == family]
        found |= zip(places, holm([rows[place].p for place in places]), strict=True)
    return [row.model_copy(update={"p_adjusted": found.get(place)}) for place, row in enumerate(rows)]


@dataclass(frozen=True)
class Question:
    """What is compared: of one victim two conditions, or under one condition two victims."""

    victim: str
    region: str
    metric: MetricName
    condition: str
    against: str
    family: Family
    rival: str | None = None

    def pairs(self, victims: Mapping[str, Cells], patients: Mapping[str, str | None]) -> Pairs:
        """The scores of the delivered files, matched by case."""
        mine = victims.get(self.victim, {}).get(self.condition, {})
        other = victims.get(self.rival or self.victim, {}).get(self.against, {})
        return Pairs(self._scores(mine), self._scores(other), patients)

    def _scores(self, cells: Mapping[str, Record]) -> dict[str, float]:
        """Case → score, of the cells of one condition."""
        return {
            case: score.value
            for case, record in cells.items()
            for score in record.scores
            if (score.region, score.metric, score.policy) == (self.region, self.metric, POLICY)
        }


def _family(primary: PrimaryFamily, victim: str, subject: tuple[str, str, str], condition: str) -> Family:
    declared = primary.metric_of(victim), primary.region, primary.against
    meant = condition in primary.conditions and victim in (primary.victims or [victim]) and not primary.rivals
    return "primary" if subject == declared and meant else "exploratory"


def arranged(records: Iterable[Record]) -> tuple[dict[str, Cells], dict[str, str | None]]:
    """Victim → condition → case → record, and case → patient.

    Raises:
        RunError: two records of one cell, or a case that belongs to two patients.
    """
    victims: defaultdict[str, defaultdict[str, dict[str, Record]]] = defaultdict(lambda: defaultdict(dict))
    patients: dict[str, str | None] = {}
    for record in records:
        cells = victims[record.victim][record.condition]
        if record.case in cells:
            raise RunError(
                f"two records of one cell: {record.victim}, {record.condition}, {record.case}",
                got=[cells[record.case].key, record.key],
                cause="the study was changed; records of its earlier form are still in the folder",
                advice="compare the records of the present specification only",
            )
        cells[record.case] = record
        if patients.setdefault(record.case, record.patient) != record.patient:
            raise RunError(
                f"the case {record.case} belongs to two patients", got=[patients[record.case], record.patient]
            )
    return dict(victims), patients


def _held(cells: Cells, primary: PrimaryFamily, subject: tuple[str, MetricName, str]) -> list[tuple[str, str]]:
    """Which condition is held against which: attacks before controls, families and budgets in order.

    Of what a victim is not scored in, nothing is held but what was declared.
    """
    victim, metric, region = subject
    scored = {c: next(iter(of.values())) for c, of in cells.items() if _is_scored(of, metric, region)}
    presented = {condition: record.presented for condition, record in scored.items()}
    tried = sorted((c for c, shown in presented.items() if shown.role != "clean"), key=lambda c: order(presented[c], c))
    permuted = [(of, c) for c in tried if (of := _permutes(presented[c])) in presented]
    held = [(condition, CLEAN) for condition in tried]
    held += sorted(((of, c) for of, c in permuted if of), key=lambda pair: tried.index(pair[0]))
    declared = not primary.rivals and victim in (primary.victims or [victim])
    if declared and (metric, region) == (primary.metric_of(victim), primary.region):
        held += [(condition, primary.against) for condition in primary.conditions]
    return list(dict.fromkeys(held))


def _is_scored(cells: Mapping[str, Record], metric: MetricName, region: str) -> bool:
    return any((score.metric, score.region) == (metric, region) for r in cells.values() for score in r.scores)


def order(shown: Presented, condition: str) -> tuple[str, str, float, str]:
    """Where a condition comes among others: attacks before controls, families and budgets in order."""
    return shown.role, shown.family, shown.amount or 0.0, condition


def _permutes(control: Presented) -> str | None:
    """The attack whose own perturbation this control permutes."""
    return control.of if control.role == "control" and control.family.startswith("permuted") else None


def answer(question: Question, victims: Mapping[str, Cells], patients: Mapping[str, str | None]) -> Comparison:
    """The two-sided test of one question."""
    pairs = question.pairs(victims, patients)
    result = signed_rank(pairs)
    return told(question, pairs, result, NO_CLAIM if result.n < FEWEST else "")


def told(question: Question, pairs: Pairs, result: SignedRank, verdict: str, margin: float | None = None) -> Comparison:
    """One row of the table; its p-value is not adjusted yet."""
    condition, against = (float(values.mean()) if values.size else None for values in pairs.values)
    return Comparison(
        **asdict(question),
        margin=margin,
        unit=pairs.unit,
        **{name: value for name, value in asdict(result).items() if name in Comparison.model_fields},
        p_adjusted=None,
        mean_condition=condition,
        mean_against=against,
        missing=pairs.missing,
        verdict=verdict,
    )
