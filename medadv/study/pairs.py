"""Scores matched by id: the only thing that the paired test accepts."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from types import MappingProxyType
from typing import Literal

import numpy as np
import numpy.typing as npt

from medadv.errors import ConfigError

Unit = Literal["patients", "cases"]


@dataclass(frozen=True)
class Pairs:
    """The scores of two conditions, matched by case id and averaged within patients.

    Cases are matched first and averaged then, so that a scan that one condition lacks does not count in the other
    one's mean either. Where one patient is unknown, the unit is the case throughout: patients and cases never mix.

    Attributes:
        condition, against: case → score.
        patients: case → patient, for every case of the study; None (or no entry) where unknown.

    Raises:
        ConfigError: a score is NaN or infinite.
    """

    condition: Mapping[str, float]
    against: Mapping[str, float]
    patients: Mapping[str, str | None]

    def __post_init__(self) -> None:
        for name in ("condition", "against", "patients"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        for scores in (self.condition, self.against):
            if bad := sorted(case for case, value in scores.items() if not math.isfinite(value)):
                raise ConfigError(
                    "scores that are not finite cannot be compared",
                    got=bad,
                    cause="a metric that leaves empty regions undefined",
                    advice="score with the strict policy; dropping such cases drops the attack's successes",
                )

    @cached_property
    def missing(self) -> tuple[str, ...]:
        """The cases that only one of the two conditions has a score of."""
        return tuple(sorted(self.condition.keys() ^ self.against.keys()))

    @cached_property
    def unit(self) -> Unit:
        """What one pair stands for."""
        known = all(self.patients.get(case) is not None for case in {*self._matched, *self.patients})
        return "patients" if known else "cases"

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The ids of the units, in order."""
        return tuple(self._members)

    @cached_property
    def values(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """The scores of the condition and of what it is held against, one a unit, in the order of ``ids``."""
        condition, against = (
            np.array([fmean(scores[case] for case in cases) for cases in self._members.values()], dtype=np.float64)
            for scores in (self.condition, self.against)
        )
        return condition, against

    @property
    def _matched(self) -> list[str]:
        return sorted(self.condition.keys() & self.against.keys())

    @cached_property
    def _members(self) -> dict[str, list[str]]:
        """Unit → its cases."""
        members: defaultdict[str, list[str]] = defaultdict(list)
        for case in self._matched:
            members[str(self.patients[case]) if self.unit == "patients" else case].append(case)
        return dict(sorted(members.items()))
