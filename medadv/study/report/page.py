"""The page: what is shown, in which order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from medadv.atomic import write_text
from medadv.study.metrics import METRICS, Metric
from medadv.study.report import delivery, groups, provenance, tables, threat
from medadv.study.report.curves import budget_curves, budget_units, off_axis
from medadv.study.report.defences.lineage import computed, declared, lineage
from medadv.study.report.defences.section import Section, section, teachers
from medadv.study.report.montage import montage
from medadv.study.report.numbers import measured, titled
from medadv.study.report.paired import attack_families, paired_lines
from medadv.study.report.pictures.part import Part
from medadv.study.report.pictures.section import parts as further
from medadv.study.report.pictures.section import tables_of
from medadv.study.report.sheet import pages, sheet
from medadv.study.report.style import Picture, publish, slug
from medadv.study.report.summary import by_class, shown_alone, summary
from medadv.study.report.tables import Table
from medadv.study.report.training_curve import training_picture
from medadv.study.report.verdicts import FAMILIES, verdicts
from medadv.study.report.wording import titled_for_people
from medadv.study.report.words import Answer, answer, claims, family_note, gaps, late, sentence, unit_note
from medadv.study.report.worst import none_worse, worst_kept
from medadv.study.results import Results, read_results
from medadv.study.slices import read_slices

_PANELS = (
    "The planes go through the scan at the voxel given; all panels of one picture have one scale.",
    "Boxes of which the network is less sure than .5 are not drawn; dotted ones count neither as found nor as missed.",
)
"""What has to be known of the panels of a montage: of volumes, of pictures."""


@dataclass(frozen=True)
class Chapter:
    """All that is shown of one victim."""

    answer: Answer
    region: str
    metric: Metric
    summaries: Sequence[tuple[str, Table]]
    by_class: Table | None
    curves: Sequence[Picture]
    off_axis: str
    paired: Sequence[Picture]
    montages: Sequence[Picture]
    none_worse: str
    by_stratum: Table | None
    by_fold: Table | None
    threat: Sequence[str]
    radii: Table
    gap: Table
    largest_gap: str
    least_alike: str
    vanishing: str
    agreement: str
    disagreeing: bool
    fidelity: Table
    told: Sequence[tuple[str, bool]]

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables that also lie beside the page as files."""
        grouped = (table for table in (self.by_class, self.by_stratum, self.by_fold) if table)
        return (*(table for _, table in self.summaries), *grouped, self.radii, self.gap, self.fidelity)


def build(folder: Path) -> Path:
    """Make ``report/`` of a run's folder from what lies in it: ``index.html``, ``figures/`` and ``tables/``.

    Returns:
        the page; it needs no other file and no network.

    Raises:
        RunError: the run is incomplete or damaged, or the folder cannot be written.
    """
    every = titled_for_people(read_results(folder))
    known = lineage(every)
    results = known.judged(every)
    report = folder / "report"
    defences = section(results, known, report / "figures")
    chapters = [_chapter(results, victim, report / "figures") for victim in results.victims]
    compared = _compared(results)
    shown = [t for chapter in chapters for t in chapter.tables] + [t for _, t in compared]
    shown += defences.tables if defences else ()
    beside = further(results, report / "figures")
    shown += tables_of(beside)
    for table in (*shown, provenance.quarantine(every), provenance.cost(computed(every))):
        tables.write(table, report / "tables")
    path = report / "index.html"
    training = training_picture(every, report / "figures")
    parts = _Parts(every, chapters, compared, defences, teachers(every, known), training, beside)
    write_text(path, _render(results, parts))
    return path


def _compared(results: Results) -> list[tuple[str, Table]]:
    """All comparisons: of the conditions of a victim, then of victims under a condition."""
    return [
        (f"{'Between victims: ' if between else ''}{family.capitalize()}, {METRICS[metric].title}", table)
        for between in (False, True)
        for family in FAMILIES
        for metric in dict.fromkeys(row.metric for row in results.comparisons)
        if (table := verdicts(results, family, results.named(metric), between)).rows
    ]


def _chapter(results: Results, victim: str, figures: Path) -> Chapter:
    region = results.regions_of(victim)[0]
    files = computed(results)
    agreed, disagreeing = delivery.agreement(results, victim)
    return Chapter(
        answer=answer(results, victim),
        region=region,
        metric=results.metric_of(victim),
        summaries=[(name, summary(results, victim, name)) for name in shown_alone(results, victim)],
        by_class=by_class(results, victim),
        curves=list(_curves(results, victim, figures)),
        off_axis=off_axis(results, victim),
        paired=list(_paired(declared(results), victim, region, figures)),
        montages=list(_montages(files, victim, region, figures)),
        none_worse=none_worse(files, victim, region),
        by_stratum=groups.by_stratum(results, victim),
        by_fold=groups.by_fold(results, victim),
        threat=threat.words(files, victim),
        radii=threat.radii(files, victim),
        gap=delivery.gap(files, victim, region),
        largest_gap=delivery.largest_gap(files, victim),
        least_alike=delivery.least_alike(files, victim),
        vanishing=delivery.vanishing(files, victim),
        agreement=agreed,
        disagreeing=disagreeing,
        fidelity=delivery.fidelity(files, victim),
        told=[(sentence(results, r), claims(r)) for r in results.comparisons if _primary(r.family, r.victim, victim)],
    )


def _primary(family: str, victim: str, wanted: str) -> bool:
    return family == "primary" and victim == wanted


def _curves(results: Results, victim: str, folder: Path) -> Iterator[Picture]:
    for unit in budget_units(results, victim):
        for region in shown_alone(results, victim):
            alt = f"Mean {results.metric_of(victim).title} of {region} over the budget, for every attack and control"
            figure = budget_curves(results, victim, region, unit)
            yield publish(figure, folder, slug("curve", victim, region, unit), alt)


def _paired(results: Results, victim: str, region: str, folder: Path) -> Iterator[Picture]:
    for family, arms in attack_families(results, victim, region).items():
        what = f"{results.metric_of(victim).title} of {region} of each of the {results.unit}"
        alt = f"{what}, from clean to each budget of {arms[0].presented.title}"
        figure = paired_lines(results, victim, region, arms)
        yield publish(figure, folder, slug("paired", victim, family, region), alt)


def _montages(results: Results, victim: str, region: str, folder: Path) -> Iterator[Picture]:
    metric, clean = results.metric_of(victim), results.clean(victim)
    for arm, case, path in worst_kept(results, victim, region):
        found = [shown.scores(region, metric.name)[case].value if shown else None for shown in (clean, arm)]
        before, after = (f"{metric.title} of {region} {measured(value, metric)}" for value in found)
        figure = montage(read_slices(path), region, f"{titled(arm)}: case {case}", (before, after))
        alt = f"{titled(arm)}: case {case}, whose {metric.title} of {region} got worst among those kept"
        yield publish(figure, folder, slug("montage", victim, arm.condition, case), alt)


@dataclass(frozen=True)
class _Parts:
    """What the page is put together from, beside the results of the judged victims.

    Attributes:
        every: the results of all victims.
        taught: a sentence for each teacher that is not judged.
        beside: what there is only where the records have it.
    """

    every: Results
    chapters: Sequence[Chapter]
    compared: Sequence[tuple[str, Table]]
    defences: Section | None
    taught: Sequence[str]
    training: Picture | None
    beside: Sequence[Part]


def _render(results: Results, parts: _Parts) -> str:
    css, policy = sheet()
    every = parts.every
    return pages().get_template("page.html.j2").render(
        results=results,
        metrics=list(dict.fromkeys(chapter.metric.title for chapter in parts.chapters)),
        panels=_PANELS[results.pictures],
        question=results.specification.get("question"),
        chapters=parts.chapters,
        compared=parts.compared,
        defences=parts.defences,
        taught=parts.taught,
        training=parts.training,
        beside=parts.beside,
        quarantine=provenance.quarantine(every),
        cost=provenance.cost(computed(every)),
        environment=provenance.environment(every),
        savings=provenance.savings(every),
        cross_validation=groups.cross_validation(results),
        mixed=provenance.mixed(every),
        repetition=provenance.repetition(every),
        settings=threat.settings(results),
        specification=provenance.specification(every),
        unit_note=unit_note(results),
        family_note=family_note(results),
        late=late(results),
        gaps=gaps(computed(every)),
        css=css,
        policy=policy,
    )
