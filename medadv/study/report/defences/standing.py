"""How one victim stands at one budget: the naive score, what each adaptive attack leaves of it, and the worst case."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from medadv.study.entrants import Entrant
from medadv.study.judgement import Varied
from medadv.study.metrics import Metric
from medadv.study.report.defences.lineage import Lineage
from medadv.study.report.numbers import budget
from medadv.study.report.words import ALPHA
from medadv.study.results import Results
from medadv.study.rivals import on_common
from medadv.study.spec import WORST
from medadv.study.stats import Comparison

OVERSTATED = 0.05
"""A naive score that lies further above the worst case than this overstates the defence."""


@dataclass(frozen=True)
class Level:
    """One budget at which defences were judged.

    Attributes:
        worst: the condition that is the worst of all.
        varied: what was run at it because of the defences, as it was declared.
        title: the budget for people, ``0.1 σ``.
    """

    worst: str
    varied: Varied
    title: str

    @property
    def slug(self) -> str:
        """The budget as names of conditions spell it."""
        return self.worst.removeprefix(f"{WORST}-")


def levels(results: Results) -> tuple[Level, ...]:
    """The budgets that have a worst case, in the order of the arms."""
    found = {arm.condition: arm for arm in results.arms if arm.presented.family == WORST}
    varied = results.judgement.varied if results.judgement else {}
    return tuple(Level(name, varied[name], budget(arm)) for name, arm in found.items() if name in varied)


@dataclass(frozen=True)
class Standing:
    """One judged victim at one budget, on one region. All scores are Dice, or of pictures what shares the victim is
    scored in; means are over patients (or cases).

    Attributes:
        results: of the judged victims.
        known: who is who.
        entrant: whose standing it is.
    """

    results: Results
    known: Lineage
    entrant: Entrant
    level: Level
    region: str

    @property
    def metric(self) -> Metric:
        """What the scores are."""
        return self.results.share_of(self.entrant.name)

    def score(self, condition: str) -> float | None:
        """The mean score under a condition; None where it was not run."""
        arm = self.results.arm(self.entrant.name, condition)
        return arm.mean(self.region, self.metric.name) if arm else None

    @property
    def clean(self) -> float | None:
        """The mean score of unchanged files."""
        arm = self.results.clean(self.entrant.name)
        return arm.mean(self.region, self.metric.name) if arm else None

    @property
    def naive(self) -> float | None:
        """The mean score under the base attack with its plain loss."""
        return self.score(self.level.varied.base)

    @property
    def worst(self) -> float | None:
        """The mean of each one's worst case."""
        return self.score(self.level.worst)

    @property
    def noise(self) -> float | None:
        """The mean score under sign noise of the same budget."""
        return self.score(self.level.varied.noise)

    @property
    def zeros(self) -> float | None:
        """The share of the targets at whose logits the naive loss has a gradient of exactly zero, mean over cases.

        Where the records do not tell it, that of the input's voxels.
        """
        arm = self.results.arm(self.entrant.name, self.level.varied.base)
        efforts = [record.effort for record in arm.records.values() if record.effort] if arm else []
        found = [e.zero_gradient_share if e.silent_share is None else e.silent_share for e in efforts]
        return fmean(found) if found else None

    def transferred(self, source: str | None) -> float | None:
        """The mean score under what was found for another victim; None where that is not shown to this one."""
        condition = self.level.varied.sources.get(source) if source is not None else None
        return None if condition is None else self.score(condition)

    @cached_property
    def overstated(self) -> float | None:
        """How far the naive score lies above the worst case, on those that have both."""
        names = (self.level.varied.base, self.level.worst)
        naive, worst = (self.results.arm(self.entrant.name, name) for name in names)
        if naive is None or worst is None:
            return None
        before, after = (arm.values(self.region, self.metric.name) for arm in (naive, worst))
        both = before.keys() & after.keys()
        return fmean(before[unit] - after[unit] for unit in both) if both else None

    @cached_property
    def blamed(self) -> Mapping[str, int]:
        """Attack or control → in how many cases it was the worst."""
        worst = self.results.arm(self.entrant.name, self.level.worst)
        found = (score.attack for score in worst.scores(self.region, self.metric.name).values()) if worst else ()
        return Counter(self._short(attack) for attack in found if attack is not None)

    @property
    def against(self) -> Comparison | None:
        """The worst case held against the undefended victim's."""
        return self._held(self.level.worst)

    @cached_property
    def harms(self) -> bool:
        """Whether the worst case is shown to be lower than the undefended victim's, over what both met as well.

        The defended victim meets more, so its own worst case may be the lower one by that alone. The second p is
        multiplied by the size of the family, if one was declared (Bonferroni).
        """
        row = self.against
        if row is None or not evidence(row) or (row.estimate or 0.0) >= 0 or self.results.judgement is None:
            return False
        even = on_common(self.results.records, self.results.judgement, row)
        size = 1 if row.p_adjusted is None else sum(r.family == row.family for r in self.results.comparisons)
        return (even.estimate or 0.0) < 0 and size * even.p < ALPHA

    @property
    def clean_against(self) -> Comparison | None:
        """The clean score held against the undefended victim's, two-sided."""
        clean = self.results.clean(self.entrant.name)
        return self._held(clean.condition) if clean else None

    @property
    def inferiority(self) -> Comparison | None:
        """The test that clean files lose less than the declared margin, which was declared for one region."""
        row = self.results.inferiority(self.entrant.name)
        return row if row is not None and row.region == self.region else None

    def _held(self, condition: str) -> Comparison | None:
        rival = self.entrant.undefended
        if rival is None:
            return None
        metric = self.metric.name
        return self.results.compared(self.entrant.name, self.region, condition, condition, metric, rival)

    def _short(self, condition: str) -> str:
        named = {name: f"logits / {t:g}" for t, name in self.level.varied.tempered}
        named[self.level.varied.margin] = "logit margin"
        arm = self.results.arm(self.entrant.name, condition)
        if condition in named or arm is None:
            return named.get(condition, condition)
        return f"from {arm.presented.source}" if arm.presented.source else arm.presented.title


def evidence(row: Comparison) -> bool:
    """Whether the p-value that counts for a comparison, the adjusted one where there is one, is below .05."""
    return (row.p if row.p_adjusted is None else row.p_adjusted) < ALPHA


def standings(results: Results, known: Lineage, level: Level, region: str) -> tuple[Standing, ...]:
    """Every judged victim of a study with defences, undefended ones before their defences, as the study orders them."""
    present = set(results.victims)
    return tuple(
        Standing(results, known, entrant, level, region)
        for name, entrant in known.entrants.items()
        if name in present and entrant.judged
    )
