"""Which delivered files stay when their case is done: of each attack those of the worst cases, all, or none."""

from __future__ import annotations

from collections import defaultdict

from medadv.study.metrics import METRICS
from medadv.study.records import Presented, Record
from medadv.study.sections import Volumes
from medadv.study.stats import PrimaryFamily


class Gallery:
    """What stays, decided as the records of a run come by.

    The worst cases are those that lost most of the primary score against clean. The worst of all are among the worst so
    far, so none of them is missed.
    """

    def __init__(self, volumes: Volumes, primary: PrimaryFamily) -> None:
        self._volumes = volumes
        self._primary = primary
        self._clean: dict[tuple[str, str], float] = {}
        self._loss: defaultdict[tuple[str, str], dict[str, float]] = defaultdict(dict)

    def pictures(self, presented: Presented) -> bool:
        """Whether slices of a condition may be wanted."""
        return self._volumes.keep != "none" and presented.role == "attack"

    def wants(self, record: Record) -> bool:
        """Whether a finished cell must have its files, whatever else is kept."""
        return self._volumes.keep == "all" and bool(record.delivered)

    def hang(self, record: Record) -> None:
        """Take a record in; clean comes before what is held against it."""
        metric = self._primary.metric_of(record.victim)
        subject = self._primary.region, metric
        (value,) = (score.value for score in record.scores if (score.region, score.metric) == subject)
        if record.presented.role == "clean":
            self._clean[record.victim, record.case] = value
        if record.presented.role == "attack":
            loss = METRICS[metric].loss(self._clean[record.victim, record.case], value)
            self._loss[record.victim, record.condition][record.case] = loss

    def unwanted(self, record: Record) -> list[str]:
        """The cases whose files of this victim and condition need not stay."""
        if self._volumes.keep == "all" or not record.delivered:
            return []
        loss = self._loss[record.victim, record.condition]
        count = self._volumes.count if self._volumes.keep == "worst" else 0
        worst = sorted(loss, key=lambda case: (-loss[case], case))[:count]
        return sorted({*loss, record.case} - set(worst))
