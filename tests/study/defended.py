"""A run's folder of a study of defences without a run: what each attack leaves is given, the rest follows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from study.conftest import DIAGONAL, Planned, record

from medadv.atomic import write_text
from medadv.study.judgement import Judgement, Varied
from medadv.study.records import Presented, Record, write_manifest, write_record
from medadv.study.report.defences.lineage import lineage
from medadv.study.report.defences.standing import Standing, levels, standings
from medadv.study.report.tables import Table
from medadv.study.results import Arm, Results
from medadv.study.rivals import between
from medadv.study.stats import Comparison, PrimaryFamily, compare
from medadv.study.tables import comparisons_table, scores_table
from medadv.study.worst import worst_cases

BUDGET = "0.1 sigma"
SLUG = "0.1-sigma"
TEACHER = "distilled-teacher"
VICTIMS: Mapping[str, dict[str, Any]] = {
    "unet": {},
    "hardened": {"like": "unet", "defence": {"name": "adversarial training", "budgets": [BUDGET], "steps": 5}},
    "distilled": {"like": "unet", "defence": {"name": "distillation", "at": 10}},
}
UNDEFENDED = {"hardened": "unet", "distilled": "unet"}
SOURCES: Mapping[str, tuple[str, ...]] = {"unet": (), "hardened": ("unet",), "distilled": ("unet", TEACHER)}


@dataclass(frozen=True)
class Left:
    """The Dice of WT that each attack leaves of a victim, before cases differ."""

    clean: float = 0.90
    fgsm: float = 0.60
    ifgsm: float = 0.22
    tempered: float = 0.21
    margin: float = 0.24
    transfer: float = 0.45
    noise: float = 0.89
    zeros: float = 0.0

    def of(self, family: str) -> float:
        """That of a condition's family."""
        if family.startswith("transfer"):
            return self.transfer
        names = {"ifgsm-T10": "tempered", "ifgsm-margin": "margin"}
        return float(getattr(self, names.get(family, family)))


PLAIN = Left()
"""A network that nothing defends."""

MASKED = Left(clean=0.89, fgsm=0.84, ifgsm=0.71, tempered=0.23, margin=0.24, transfer=0.50, zeros=0.54)
"""A distillation that only hides the gradient."""

HARDENED = Left(clean=0.86, fgsm=0.66, ifgsm=0.52, tempered=0.50, margin=0.51, transfer=0.72)
"""A defence that holds."""


@dataclass(frozen=True)
class Defended:
    """What is to be written.

    Attributes:
        primary: whether the worst cases are the primary family, and not a family of their own.
        margin: of non-inferiority.
        regions: those that are scored.
        spread: the standard deviation of what differs between victims in one case.
    """

    left: Mapping[str, Left] = field(
        default_factory=lambda: {"unet": PLAIN, "hardened": HARDENED, "distilled": MASKED, TEACHER: MASKED}
    )
    cases: int = 12
    primary: bool = True
    margin: float | None = 0.05
    regions: tuple[str, ...] = ("WT", "TC", "ET")
    spread: float = 0.01
    budgets: tuple[str, ...] = (BUDGET,)
    victims: Mapping[str, dict[str, Any]] = field(default_factory=lambda: VICTIMS)

    def records(self) -> list[Record]:
        """All cells, and the worst cases."""
        cells = list(self._records())
        return [*cells, *worst_cases(cells, self.judgement)]

    def results(self) -> Results:
        """What would be read from the folder."""
        records = self.records()
        arms: dict[tuple[str, str], dict[str, Record]] = {}
        for each in records:
            arms.setdefault((each.victim, each.condition), {})[each.case] = each
        return Results(
            folder=Path("nowhere"),
            specification=self._specification("defences"),
            environment={},
            declarations=(self._declared(),),
            judgement=self.judgement,
            quarantine=(),
            training={},
            comparisons=tuple(_compared(records, self)),
            arms=tuple(Arm(*key, next(iter(of.values())).presented, of, "patients") for key, of in arms.items()),
            seconds={},
        )

    def write(self, folder: Path) -> Path:
        """Write a whole run's folder."""
        records = self.records()
        cells = [r for r in records if r.presented.family != "worst"]
        write_manifest(folder, {(r.victim, r.condition, r.case): r.key for r in cells})
        for each in cells:
            write_record(folder, each)
        write_text(folder / "comparisons.csv", comparisons_table(_compared(records, self)))
        write_text(folder / "scores.csv", scores_table(records))
        write_text(folder / "study.yaml", yaml.safe_dump(self._specification(folder.name), sort_keys=False))
        write_text(folder / "environment.json", json.dumps({"medadv": "0.1.0", "torch": "2.15.0"}))
        write_text(folder / "declarations.jsonl", json.dumps(self._declared()) + "\n")
        write_text(folder / "quarantine.json", "[]")
        for victim in self.left:
            curve = "step,loss,dice,rate\n1,1.2,,0.001\n2,0.4,0.8,0.001\n"
            write_text(folder / "victims" / victim / "training.csv", curve)
        return folder

    @property
    def judgement(self) -> Judgement:
        """What was declared of the defences."""
        worst = {v: {f"worst-{_slug(b)}": self._attacks(v, b) for b in self.budgets} for v in self.victims}
        undefended = {v: u for v, u in UNDEFENDED.items() if v in self.victims}
        varied = {f"worst-{_slug(b)}": self._varied(b) for b in self.budgets}
        own = {f"{name}-{_slug(b)}" for name in ("fgsm", "ifgsm", "noise") for b in self.budgets}
        added = {name: None for of in worst.values() for names in of.values() for name in names if name not in own}
        known = {"judged": tuple(self.victims), "undefended": undefended, "added": tuple(added)}
        return Judgement(worst=worst, varied=varied, margin=self.margin, **known)

    def _varied(self, budget: str) -> Varied:
        slug = _slug(budget)
        sources = {s: f"transfer-from-{s}-{slug}" for v in self.victims for s in SOURCES[v] if s in self.left}
        names = {name: f"{name}-{slug}" for name in ("ifgsm", "ifgsm-T10", "ifgsm-margin", "noise")}
        tempered = ((10.0, names["ifgsm-T10"]),)
        base, margin, noise = names["ifgsm"], names["ifgsm-margin"], names["noise"]
        return Varied(base=base, tempered=tempered, margin=margin, noise=noise, sources=sources)

    def _declared(self) -> dict[str, Any]:
        judgement = self.judgement.model_dump(mode="json")
        return {"primary": {}, "judgement": judgement, "declared": "2026-11-20T09:00:00", "after_scores": False}

    def _attacks(self, victim: str, budget: str) -> tuple[str, ...]:
        transfers = [f"transfer-from-{source}" for source in SOURCES[victim] if source in self.left]
        families = ("fgsm", "ifgsm", "ifgsm-T10", "ifgsm-margin", "noise", *transfers)
        return tuple(f"{family}-{_slug(budget)}" for family in families)

    def _records(self) -> Iterable[Record]:
        for order, (victim, left) in enumerate(self.left.items()):
            for budget in self.budgets:
                for planned in self._planned(victim, left, budget):
                    if planned.name == "clean" and budget != self.budgets[0]:
                        continue
                    for place in range(self.cases):
                        yield self._cell(victim, planned, place, order, left)

    def _planned(self, victim: str, left: Left, budget: str) -> Iterable[Planned]:
        yield Planned("clean", Presented(role="clean", family="clean", title="clean"), 0.9 - left.clean)
        size = {"budget": budget, "amount": float(budget.split()[0]), "unit": "sigma"}
        titles = {"fgsm": "FGSM", "ifgsm": "i-FGSM, 10 steps"}
        if victim in self.victims:
            titles |= {"ifgsm-T10": "i-FGSM, 10 steps, loss at logits / 10"}
            titles |= {"ifgsm-margin": "i-FGSM, 10 steps, logit margin"}
            sources = [source for source in SOURCES[victim] if source in self.left]
            titles |= {f"transfer-from-{s}": f"i-FGSM, 10 steps, transferred from {s}" for s in sources}
            noise = Presented(role="control", family="noise", title="sign noise", **size)
            yield Planned(f"noise-{_slug(budget)}", noise, 0.9 - left.noise)
        else:
            titles = {"ifgsm": titles["ifgsm"]}
        for family, title in titles.items():
            source = family.removeprefix("transfer-from-") if family.startswith("transfer") else None
            shown = Presented(role="attack", family=family, title=title, source=source, **size)
            steps = 0 if family.startswith("transfer") else 10
            yield Planned(f"{family}-{_slug(budget)}", shown, 0.9 - left.of(family), steps)

    def _cell(self, victim: str, planned: Planned, place: int, order: int, left: Left) -> Record:
        """One finished cell; a case is as hard for every victim, but for a little."""
        made = record(victim, planned, f"P{place:03d}", f"patient-{place}", place, 1.0)
        own = np.random.default_rng([place, order, sum(planned.name.encode())]).normal(0, self.spread)
        hard = np.random.default_rng(place).normal(0, 0.03)
        scores = []
        for score in (score for score in made.scores if score.region in self.regions):
            ease = {"WT": 0.0, "TC": 0.05, "ET": 0.08}[score.region]
            dice = float(np.clip(0.9 - planned.loss - ease + hard + own, 0, 1))
            value = dice if score.metric == "dice" else DIAGONAL * (1 - dice)
            scores.append(score.model_copy(update={"value": value, "computed": value}))
        effort = made.effort.model_copy(update={"zero_gradient_share": left.zeros}) if made.effort else None
        inputs = {**made.inputs, "regions": list(self.regions)}
        return made.model_copy(update={"scores": scores, "effort": effort, "inputs": inputs})

    def _specification(self, name: str) -> dict[str, Any]:
        return {
            "study": name,
            "question": "Does distillation protect, or does it only hide the gradient?",
            "data": {"importer": "phantom"},
            "ids": "as-is",
            "victims": dict(self.victims),
            "budgets": list(self.budgets),
            "attacks": {"fgsm": {"preset": "fgsm"}, "ifgsm": {"preset": "ifgsm", "steps": 10}},
        }


def _slug(budget: str) -> str:
    return budget.replace(" ", "-")


def _compared(records: list[Record], study: Defended) -> list[Comparison]:
    """As a run would make them."""
    conditions = tuple(f"worst-{_slug(budget)}" for budget in study.budgets)
    undefended = study.judgement.undefended
    primary = PrimaryFamily(region="WT", conditions=conditions, rivals=undefended if study.primary else {})
    rows = [row for metric in ("dice", "hd95") for row in compare(records, primary, study.regions, metric)]
    return [*rows, *between(records, primary, study.judgement, study.regions)]


PAIR = {name: VICTIMS[name] for name in ("unet", "distilled")}
"""One defence and its undefended victim."""


def judged(results: Results) -> dict[str, Standing]:
    """The standings of all judged victims on WT."""
    known = lineage(results)
    shown = known.judged(results)
    (level,) = levels(shown)
    return {s.entrant.name: s for s in standings(shown, known, level, "WT")}


def pair(defended: Left, undefended: Left = PLAIN, **settings: Any) -> tuple[Standing, Standing]:
    """One distilled victim and the undefended one."""
    left = {"unet": undefended, "distilled": defended, TEACHER: defended}
    found = judged(Defended(left=left, victims=PAIR, **settings).results())
    return found["distilled"], found["unet"]


def undeclared(defended: Standing, undefended: Standing) -> tuple[Standing, Standing]:
    """The same, had nothing been declared of rivals."""
    update = {"family": "exploratory", "p_adjusted": None}
    rows = [r.model_copy(update=update) if r.rival else r for r in defended.results.comparisons]
    results = replace(defended.results, comparisons=tuple(rows))
    return replace(defended, results=results), replace(undefended, results=results)


def column(table: Table, title: str) -> list[Any]:
    """A column's raw values."""
    (place,) = (i for i, each in enumerate(table.columns) if each.title == title)
    return [row[place] for row in table.rows]
