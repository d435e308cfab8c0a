"""The section of the defences: sentences, tables and figures of each budget; and the teachers, who are not judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medadv.study.defences import temperature
from medadv.study.report.defences.figures import dumbbells, paired_worst
from medadv.study.report.defences.lineage import Lineage
from medadv.study.report.defences.standing import Standing, levels, standings
from medadv.study.report.defences.tables import worth
from medadv.study.report.defences.words import sentences
from medadv.study.report.numbers import share
from medadv.study.report.style import Picture, publish, slug
from medadv.study.report.summary import shown_alone
from medadv.study.report.tables import Table
from medadv.study.results import Results


@dataclass(frozen=True)
class Judged:
    """What was found at one budget.

    Attributes:
        title: the budget, ``0.1 σ``.
        told: a defence's sentences, a tuple each.
        regions: those that have a table, the study's first region first.
        tables: one a region.
        paired: each one's worst case, undefended and defended.
    """

    title: str
    told: Sequence[tuple[str, ...]]
    regions: Sequence[str]
    tables: Sequence[Table]
    paired: Sequence[Picture]


@dataclass(frozen=True)
class Section:
    """All that is shown of defences; ``budgets`` is empty where no worst case is known yet."""

    overview: Sequence[Picture]
    budgets: Sequence[Judged]

    @property
    def answer(self) -> tuple[tuple[str, ...], ...]:
        """The sentences of the largest budget, which comes last."""
        return tuple(self.budgets[-1].told) if self.budgets else ()

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables that also lie beside the page as files."""
        return tuple(table for judged in self.budgets for table in judged.tables)


def section(results: Results, known: Lineage, figures: Path) -> Section | None:
    """The section, of the results of the judged victims; None in a study without a defence.

    Raises:
        RunError: a figure cannot be written.
    """
    if not known.defended:
        return None
    region = results.regions[0]
    by_level = [standings(results, known, level, region) for level in levels(results)]
    budgets = [_judged(results, known, found, figures) for found in by_level]
    score = results.share_of(by_level[0][0].entrant.name).words if by_level else ""
    alt = f"Mean {score} of {region} of each victim: clean, under the naive attack, and in the worst case"
    overview = [publish(dumbbells(by_level), figures, slug("defences", region), alt)] if by_level else []
    return Section(overview, budgets)


def _judged(results: Results, known: Lineage, found: Sequence[Standing], figures: Path) -> Judged:
    level, region = found[0].level, found[0].region
    regions = shown_alone(results, found[0].entrant.name)
    by_name = {standing.entrant.name: standing for standing in found}
    told = [
        sentences(standing, by_name[undefended])
        for standing in found
        if (undefended := standing.entrant.undefended) is not None and undefended in by_name
    ]
    what = f"Worst-case {found[0].metric.words} of {region} of each of the {results.unit}"
    alt = f"{what} at {level.title}, undefended and defended"
    drawn = paired_worst(found)
    return Judged(
        title=level.title,
        told=told,
        regions=regions,
        tables=[worth(standings(results, known, level, name)) for name in regions],
        paired=[publish(drawn, figures, slug("defences-paired", region, level.slug), alt)] if drawn else [],
    )


def teachers(results: Results, known: Lineage) -> tuple[str, ...]:
    """Those that are not judged, a sentence each: whom they taught, how they were trained, their clean Dice."""
    region = results.regions[0]
    return tuple(_taught(results, known, teacher.name, region) for teacher in known.teachers)


def _taught(results: Results, known: Lineage, teacher: str, region: str) -> str:
    defence = known.entrants[teacher].spec.defence
    said = f"{teacher} taught {' and '.join(known.students(teacher))} and is not judged itself"
    if temperature(defence) != 1:
        said += f"; it learnt the labels at T\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{temperature(defence):g}"
    for name, curve in results.curves(teacher).items():
        where = name.removeprefix(teacher)
        validated = [step.dice for step in curve if step.dice is not None]
        said += f"{where or ''}, {curve[-1].step} steps" if curve else ""
        said += f", best validation Dice {share(max(validated))}" if validated else ""
    clean = results.clean(teacher)
    metric = results.share_of(teacher)
    return f"{said}; clean {metric.words} of {region} {share(clean.mean(region, metric.name) if clean else None)}."
