"""Transfer: what was found for one victim, shown to each other (Xie et al. 2017, tables 2 to 4).

Which conditions belong together is read from what went into their keys: a transfer, a sum and a permuted sum hold the
settings of the attacks that they are made of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from medadv.study.arm import Arm
from medadv.study.records import digest
from medadv.study.report.numbers import budget as budget_of
from medadv.study.report.numbers import points, thousandths
from medadv.study.report.pictures.over_data import SHORT, OverData
from medadv.study.report.style import slug
from medadv.study.report.tables import Column, Table
from medadv.study.results import Results

CLEAN = "clean"


@dataclass
class Line:
    """One row: what is shown to all.

    Attributes:
        title: the victim, or victims together, that it was found for; ``clean``; a sum, or a control made of one.
        kind: ``clean``, ``attack``, ``sum`` or ``control``.
        own: the victims that it was found for; shown to them it is a white box.
        arms: victim → the arm in which it is shown it.
    """

    title: str
    kind: str
    own: tuple[str, ...] = ()
    arms: dict[str, Arm] = field(default_factory=dict)


@dataclass
class Matrix:
    """What one attack found at one budget for each victim, shown to each.

    Attributes:
        titles: the attacks with their budgets; several where a sum is made of several.
        lines: the rows: clean, what was found for each victim, sums, controls of sums.
    """

    titles: list[str]
    lines: list[Line]

    @property
    def title(self) -> str:
        """For people."""
        return " and ".join(self.titles)

    @property
    def targets(self) -> tuple[str, ...]:
        """The victims that are shown what was found for others, and those that it was found for."""
        shown = (line for line in self.lines if line.kind != CLEAN)
        return tuple(dict.fromkeys(victim for line in shown for victim in line.arms))


def matrices(results: Results) -> list[Matrix]:
    """A matrix for each attack at each budget of which something was transferred or added; attacks whose findings were
    added to each other share one.

    In a study with a defence, what is transferred as a part of its worst case is told with the defences alone, unless
    the study asks for transfers of its own.
    """
    if not results.matrix:
        return []
    groups = _groups(results)
    found: list[Matrix] = []
    for keys in groups:
        lines = [*_attacks(results, keys), *_sums(results, keys)]
        if not any(line.kind != "attack" or set(line.arms) - set(line.own) for line in lines):
            continue
        matrix = Matrix(_titles(results, keys), lines)
        shown = matrix.targets
        clean = Line(CLEAN, CLEAN, arms={v: arm for v in shown if (arm := results.clean(v)) is not None})
        found.append(Matrix(matrix.titles, [clean, *_ordered(lines, results.victims)]))
    return found


def settings_of(arm: Arm) -> Mapping[str, Any]:
    """What went into the keys of an arm's cells about its condition."""
    settings: Mapping[str, Any] = next(iter(arm.records.values())).inputs["condition"]
    return settings


def _kind(arm: Arm) -> str:
    return str(settings_of(arm).get("kind", ""))


def found_for(results: Results, arm: Arm) -> tuple[str, ...]:
    """The victims that an arm's attack was on: several where it attacked them together, who was handed it first."""
    several = [other for other in results.arms if other.condition == arm.condition]
    if not any(_kind(other) == "shared" for other in several):
        return (arm.victim,)
    return tuple(other.victim for other in sorted(several, key=lambda other: _kind(other) == "shared"))


def together(victims: Sequence[str]) -> str:
    """Victims that one attack was on, in a row's title."""
    return victims[0] if len(victims) == 1 else f"{' and '.join(victims)} together"


def _made_of(settings: Mapping[str, Any]) -> list[str]:
    """The attacks that a condition is made of, as digests of their settings."""
    match settings.get("kind"):
        case "attack":
            return [digest(settings)]
        case "transfer" | "shared":
            return [digest(settings["of"])]
        case "sum":
            return [digest(each) for each in settings["of"]]
        case "permuted":
            return _made_of(settings["of"])
    return []


def _groups(results: Results) -> list[list[str]]:
    """Attacks that belong into one matrix: those that were transferred, with those that were added to them."""
    groups: list[list[str]] = []
    for arm in results.arms:
        if _kind(arm) in ("transfer", "sum"):
            made = list(dict.fromkeys(_made_of(settings_of(arm))))
            touched = [group for group in groups if set(group) & set(made)]
            groups = [group for group in groups if group not in touched]
            groups.append(list(dict.fromkeys([*(key for group in touched for key in group), *made])))
    order = [key for arm in results.arms for key in _made_of(settings_of(arm))]
    return sorted(groups, key=lambda group: min(order.index(key) for key in group))


def _titles(results: Results, keys: Sequence[str]) -> list[str]:
    """The attacks with their budgets."""
    told: dict[str, str] = {}
    for arm in results.arms:
        key = digest(settings_of(arm))
        if key in keys:
            told[key] = f"{arm.presented.title}, {budget_of(arm)}"
    for arm in results.arms:  # an attack on victims that are not in this run's records
        for key in _made_of(settings_of(arm)) if _kind(arm) == "transfer" else ():
            title = arm.presented.title.replace(f", transferred from {arm.presented.source}", "")
            told.setdefault(key, f"{title}, {budget_of(arm)}")
    return [told[key] for key in keys if key in told]


def _attacks(results: Results, keys: Sequence[str]) -> list[Line]:
    """What was found for each victim."""
    made = {id(arm): tuple(_made_of(settings_of(arm))) for arm in results.arms}
    found = {(arm.victim, made[id(arm)]): found_for(results, arm) for arm in results.arms if _kind(arm) == "attack"}
    lines: dict[tuple[str, ...], Line] = {}
    for arm in results.arms:
        if _kind(arm) in ("attack", "transfer", "shared") and set(made[id(arm)]) <= set(keys):
            source = arm.presented.source or arm.victim
            alone = found_for(results, arm) if _kind(arm) == "shared" else (source,)
            own = found.get((source, made[id(arm)]), alone)
            line = lines.setdefault(own, Line(together(own), "attack", own))
            line.arms[arm.victim] = arm
    return list(lines.values())


def _sums(results: Results, keys: Sequence[str]) -> list[Line]:
    """Sums of what was found for several, and controls made of these."""
    lines: dict[str, Line] = {}
    sources: dict[str, str] = {}
    for arm in results.arms:
        settings = settings_of(arm)
        of_sum = _kind(arm) == "permuted" and settings["of"].get("kind") == "sum"
        if (_kind(arm) != "sum" and not of_sum) or not set(_made_of(settings)) <= set(keys):
            continue
        if _kind(arm) == "sum":
            sources[arm.condition] = str(arm.presented.source or "")
        own = tuple((arm.presented.source or sources.get(str(arm.presented.of), "")).split(" + "))
        if arm.condition not in lines:
            plain = _kind(arm) == "sum" and not settings.get("rescaled")
            lines[arm.condition] = Line(_named(arm, own), "sum" if plain else "control", own)
        lines[arm.condition].arms[arm.victim] = arm
    return list(lines.values())


def _named(arm: Arm, own: Sequence[str]) -> str:
    """A sum by the victims that it was found for, and what was done to it."""
    settings = settings_of(arm)
    name = " + ".join(own)
    if _kind(arm) == "permuted":
        planes, draw = settings.get("planes"), settings.get("draw", 1)
        rescaled = ", rescaled" if settings["of"].get("rescaled") else ""
        return f"{name}{rescaled}, {f'{planes} ' if planes else ''}permuted{f' ({draw})' if draw > 1 else ''}"
    return f"{name}, rescaled" if settings.get("rescaled") else name


def _ordered(lines: Iterable[Line], victims: Sequence[str]) -> list[Line]:
    """Attacks in the order of the victims, then sums, each with its controls."""
    kinds = ("attack", "sum", "control")
    places = {line.own: place for place, line in reversed(list(enumerate(lines))) if line.kind != "attack"}

    def place(line: Line) -> tuple[bool, int, int]:
        if line.kind == "attack":
            return False, victims.index(line.own[0]) if line.own[0] in victims else len(victims), 0
        return True, places[line.own], kinds.index(line.kind)

    return sorted(lines, key=place)


@dataclass(frozen=True)
class Cells:
    """How the cells of a matrix are filled: with the victim's data-set score, else with the mean of its metric."""

    results: Results
    over: OverData

    def value(self, arm: Arm | None) -> float | None:
        """One cell."""
        if arm is None:
            return None
        if (metric := self.over.lead(arm.victim)) is not None:
            return self.over.value(arm, metric)
        own = self.results.metric_of(arm.victim)
        return arm.mean(self.results.regions_of(arm.victim)[0], own.name)

    def spelled(self, victim: str, value: float | None) -> str:
        """As people read it: a data-set score in percent, a mean in its metric's own spelling."""
        if self.over.lead(victim) is not None:
            return points(value)
        return thousandths(value)

    def heading(self, victim: str) -> str:
        """What the cells of a column are."""
        if (metric := self.over.lead(victim)) is not None:
            return f"{SHORT[metric]} (%)"
        region = self.results.regions_of(victim)[0]
        return f"mean {self.results.metric_of(victim).headed} of {region}"

    def retained(self, arm: Arm | None) -> float | None:
        """The share of the clean score that is left; None where there was none."""
        if arm is None:
            return None
        before, after = self.value(self.results.clean(arm.victim)), self.value(arm)
        return after / before if before and after is not None else None


def matrix_table(matrix: Matrix, cells: Cells) -> Table:
    """The matrix with its numbers: rows are made for, columns are shown to."""
    targets = matrix.targets
    columns = [Column("made for"), *(Column(f"{v}, {cells.heading(v)}", _spell(cells, v)) for v in targets)]
    rows = [[line.title, *(cells.value(line.arms.get(victim)) for victim in targets)] for line in matrix.lines]
    kinds = [line.kind for line in matrix.lines]
    sums = any(kind == "sum" for kind in kinds)
    return Table(
        name=slug("transfer", matrix.title),
        caption=f"{matrix.title}. Rows: the victim that the change was made for; columns: the victim that it was shown "
        "to. Where both are one, the attacker knew the victim (white box)."
        + (" A sum adds what was found for several victims, and is larger than each." if sums else "")
        + (" Rescaled: of the norm of one." if any("rescaled" in line.title for line in matrix.lines) else "")
        + (" Permuted: the same values, no aim." if any("permuted" in line.title for line in matrix.lines) else ""),
        columns=columns,
        rows=rows,
        breaks=frozenset(i for i in range(1, len(rows)) if (kinds[i] == "attack") != (kinds[i - 1] == "attack")),
    )


def _spell(cells: Cells, victim: str) -> Any:
    return lambda value: cells.spelled(victim, value)
