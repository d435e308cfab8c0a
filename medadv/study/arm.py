"""One victim under one condition: the cells that a table's row, a curve's point and a bar are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Any

from medadv.attack.budget import Budget
from medadv.study.pairs import Unit
from medadv.study.records import Presented, Record, Score

ROLES = ("clean", "attack", "control")


@dataclass(frozen=True)
class Arm:
    """One victim under one condition, over all cases.

    Attributes:
        records: case → its finished cell.
        unit: what ``values`` are counted in: patients where every one of the run is known, else cases.
    """

    victim: str
    condition: str
    presented: Presented
    records: Mapping[str, Record]
    unit: Unit

    @property
    def step_bounded(self) -> bool:
        """Whether the budget is that of one step alone, and the sum of all steps has no bound (DAG, Xie et al. 2017);
        so it is of what is made of such an attack's change."""
        conditions = (record.inputs.get("condition", {}) for record in self.records.values())
        return any(_step_bounded(condition) for condition in conditions)

    def scores(self, region: str, metric: str = "dice") -> dict[str, Score]:
        """Case → score."""
        pairs = ((case, score) for case, record in self.records.items() for score in record.scores)
        return {case: score for case, score in pairs if (score.region, score.metric) == (region, metric)}

    def values(self, region: str, metric: str = "dice") -> dict[str, float]:
        """Patient → mean score of the patient's scans; case → score where patients are unknown."""
        scores = self.scores(region, metric)
        if self.unit == "cases":
            return {case: score.value for case, score in scores.items()}
        scans: dict[str, list[float]] = {}
        for case, score in scores.items():
            scans.setdefault(str(self.records[case].patient), []).append(score.value)
        return {patient: fmean(values) for patient, values in scans.items()}

    def mean(self, region: str, metric: str = "dice") -> float | None:
        """The mean over units, None without any."""
        values = self.values(region, metric)
        return fmean(values.values()) if values else None

    def median(self, region: str, metric: str = "dice") -> float | None:
        """The median over units, None without any."""
        values = self.values(region, metric)
        return median(values.values()) if values else None

    def within(self, group: Callable[[Record], object], value: object) -> Arm:
        """The same arm on the cases of one group alone: a stratum, a fold."""
        return replace(self, records={case: r for case, r in self.records.items() if group(r) == value})

    def deletions(self, region: str) -> int:
        """In how many cases nothing is predicted although the expert drew the region."""
        return sum(s.truth > 0 and s.predicted == 0 for s in self._counts(region))

    def hallucinations(self, region: str) -> int:
        """In how many cases the region is predicted although the expert drew none."""
        return sum(s.truth == 0 and s.predicted > 0 for s in self._counts(region))

    def _counts(self, region: str) -> list[Score]:
        """One score of each case: whatever the metric, its counts are the same."""
        found = ([s for s in record.scores if s.region == region] for record in self.records.values())
        return [scores[0] for scores in found if scores]


def _step_bounded(settings: Mapping[str, Any]) -> bool:
    if settings.get("kind") == "worst":  # of a threat; what made its perturbations does not matter
        return False
    if threat := settings.get("threat"):
        return bool(threat.get("ball") == "unbounded")
    made_of = settings.get("of")
    return isinstance(made_of, Mapping) and _step_bounded(made_of)


def arms_of(records: Sequence[Record]) -> tuple[Arm, ...]:
    """All arms, in the order clean, attacks, controls; inside a family by unit and amount."""
    unit: Unit = "cases" if any(record.patient is None for record in records) else "patients"
    cells: dict[tuple[str, str], dict[str, Record]] = {}
    for record in records:
        cells.setdefault((record.victim, record.condition), {})[record.case] = record
    arms = [Arm(v, c, next(iter(rows.values())).presented, rows, unit) for (v, c), rows in cells.items()]
    return tuple(sorted(arms, key=_order))


def _order(arm: Arm) -> tuple[str, int, str, str, tuple[float, ...], str]:
    shown = arm.presented
    amounts = Budget.parse(shown.budget).amounts if shown.budget else ()
    return arm.victim, ROLES.index(shown.role), shown.family, shown.unit or "", amounts, arm.condition
