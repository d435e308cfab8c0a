"""How one victim stands at one budget: the naive score, what each adaptive attack leaves of it, and the worst case."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from medadv.study.entrants import Entrant
from medadv.study.report.defences.lineage import Lineage
from medadv.study.report.numbers import budget
from medadv.study.results import Arm, Results
from medadv.study.spec import WORST
from medadv.study.stats import Comparison

OVERSTATED = 0.05
"""A naive Dice that lies further above the worst case than this overstates the defence."""


@dataclass(frozen=True)
class Level:
    """One budget at which defences were judged.

    Attributes:
        slug: the budget as names of conditions spell it.
        base: the family of the attack that was varied; None where no variation is on record.
        temperatures: T of the attacks whose loss saw logits / T, in order.
        title: the budget for people, ``0.1 σ``.
    """

    slug: str
    base: str | None
    temperatures: tuple[float, ...]
    title: str

    @property
    def worst(self) -> str:
        """The condition that is the worst of all untargeted attacks."""
        return f"{WORST}-{self.slug}"

    @property
    def naive(self) -> str:
        """The condition that a careless judge would have stopped at."""
        return f"{self.base}-{self.slug}"

    def tempered(self, temperature: float) -> str:
        """The condition whose loss saw logits / T."""
        return f"{self.base}-T{temperature:g}-{self.slug}"

    @property
    def margin(self) -> str:
        """The condition that ascends the logit margin."""
        return f"{self.base}-margin-{self.slug}"

    def transferred(self, source: str) -> str:
        """The condition that shows what was found for another victim."""
        return f"transfer-from-{source}-{self.slug}"


def levels(results: Results) -> tuple[Level, ...]:
    """The budgets that have a worst case, in the order of the arms."""
    found = {arm.condition: arm for arm in results.arms if arm.presented.family == WORST}
    return tuple(_level(results, condition.removeprefix(f"{WORST}-"), arm) for condition, arm in found.items())


def _level(results: Results, slug: str, worst: Arm) -> Level:
    names = dict.fromkeys(arm.condition for arm in results.arms)
    varied = re.compile(rf"(.+)-(?:margin|T([0-9.e+]+))-{re.escape(slug)}")
    told = [found for name in names if (found := varied.fullmatch(name)) and f"{found[1]}-{slug}" in names]
    base = told[0][1] if told else None
    tempered = sorted({float(found[2]) for found in told if found[1] == base and found[2]})
    return Level(slug, base, tuple(tempered), budget(worst))


@dataclass(frozen=True)
class Standing:
    """One judged victim at one budget, on one region. All scores are Dice; means are over patients (or cases).

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

    def dice(self, condition: str) -> float | None:
        """The mean Dice under a condition; None where it was not run."""
        arm = self.results.arm(self.entrant.name, condition)
        return arm.mean(self.region) if arm else None

    @property
    def clean(self) -> float | None:
        """The mean Dice of unchanged files."""
        arm = self.results.clean(self.entrant.name)
        return arm.mean(self.region) if arm else None

    @property
    def naive(self) -> float | None:
        """The mean Dice under the base attack with its plain loss."""
        return self.dice(self.level.naive)

    @property
    def worst(self) -> float | None:
        """The mean of each one's worst case."""
        return self.dice(self.level.worst)

    @property
    def noise(self) -> float | None:
        """The mean Dice under sign noise of the same budget."""
        arms = (a for a in self.results.of(self.entrant.name) if a.presented.family.startswith("noise"))
        means = [arm.mean(self.region) for arm in arms if arm.condition.endswith(f"-{self.level.slug}")]
        return next((mean for mean in means if mean is not None), None)

    @property
    def zeros(self) -> float | None:
        """The share of the targets at whose logits the naive loss has a gradient of exactly zero, mean over cases.

        Where the records do not tell it, that of the input's voxels.
        """
        arm = self.results.arm(self.entrant.name, self.level.naive)
        efforts = [record.effort for record in arm.records.values() if record.effort] if arm else []
        found = [e.zero_gradient_share if e.silent_share is None else e.silent_share for e in efforts]
        return fmean(found) if found else None

    @property
    def from_defended(self) -> float | None:
        """Of an undefended victim: the lowest mean Dice under what was found for one of its defences."""
        sources = (e.name for e in self.known.defended if e.undefended == self.entrant.name)
        means = (self.dice(self.level.transferred(source)) for source in sources)
        return min((mean for mean in means if mean is not None), default=None)

    @cached_property
    def overstated(self) -> float | None:
        """How far the naive score lies above the worst case, on those that have both."""
        naive, worst = (self.results.arm(self.entrant.name, name) for name in (self.level.naive, self.level.worst))
        if naive is None or worst is None:
            return None
        before, after = naive.values(self.region), worst.values(self.region)
        both = before.keys() & after.keys()
        return fmean(before[unit] - after[unit] for unit in both) if both else None

    @cached_property
    def blamed(self) -> Mapping[str, int]:
        """Attack → in how many cases it was the worst."""
        worst = self.results.arm(self.entrant.name, self.level.worst)
        found = (score.attack for score in worst.scores(self.region).values()) if worst else ()
        return Counter(self._short(attack) for attack in found if attack is not None)

    @property
    def against(self) -> Comparison | None:
        """The worst case held against the undefended victim's."""
        return self._held(self.level.worst)

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
        return self.results.compared(self.entrant.name, self.region, condition, condition, rival=rival)

    def _short(self, condition: str) -> str:
        named = {self.level.tempered(t): f"logits / {t:g}" for t in self.level.temperatures}
        named[self.level.margin] = "logit margin"
        arm = self.results.arm(self.entrant.name, condition)
        if condition in named or arm is None:
            return named.get(condition, condition)
        return f"from {arm.presented.source}" if arm.presented.source else arm.presented.title


def standings(results: Results, known: Lineage, level: Level, region: str) -> tuple[Standing, ...]:
    """Every judged victim of a study with defences, undefended ones before their defences, as the study orders them."""
    present = set(results.victims)
    return tuple(
        Standing(results, known, entrant, level, region)
        for name, entrant in known.entrants.items()
        if name in present and entrant.judged
    )
