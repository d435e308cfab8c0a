"""The primary comparisons again, told by stratum and by fold. They describe; nothing is tested."""

from __future__ import annotations

from statistics import median

from medadv.study.report.numbers import in_column, titled, whole
from medadv.study.report.style import slug
from medadv.study.report.tables import Cell, Column, Table
from medadv.study.report.wording import worded
from medadv.study.results import Arm, Results

UNTOLD = "not told"


def by_stratum(results: Results, victim: str) -> Table | None:
    """The primary region of each stratum, clean and under each primary condition; None where there are no strata."""
    clean, region, metric = results.clean(victim), results.regions_of(victim)[0], results.metric_of(victim)
    strata: set[str | None] = {record.stratum for record in results.records}
    arms = _primary(results, victim)
    if clean is None or not arms or strata <= {None}:
        return None
    ordered = sorted(strata, key=lambda stratum: (stratum is None, stratum or ""))
    rows: list[list[Cell]] = []
    for arm in arms:
        for stratum in ordered:
            before, after = (a.within(lambda record: record.stratum, stratum) for a in (clean, arm))
            told = _paired(before, after, region, metric.name)
            rows.append([titled(arm), UNTOLD if stratum is None else stratum, *told])
    unit = f" in {metric.unit}" if metric.unit else ""
    return Table(
        name=slug("strata", victim, region),
        caption=f"{metric.title} of {region}{unit} by stratum, as the data set tells them; n counts {results.unit} "
        "with both scores. Change: the median of each one’s difference from clean. This describes: no stratum was "
        "tested, and a difference between strata supports no claim.",
        columns=(
            Column("condition"),
            Column("stratum"),
            Column("n", whole),
            *(Column(title, in_column(metric)) for title in ("median clean", "median under it", "median change")),
        ),
        rows=rows,
        breaks=frozenset(range(len(ordered), len(rows), len(ordered))),
    )


def by_fold(results: Results, victim: str) -> Table | None:
    """The median of each fold, clean and under each primary condition; None where nothing was cross-validated."""
    clean, region, metric = results.clean(victim), results.regions_of(victim)[0], results.metric_of(victim)
    if clean is None or not (folds := _folds(results, victim)):
        return None

    def of_fold(arm: Arm, fold: int) -> Arm:
        return arm.within(lambda record: record.fold, fold)

    arms = [clean, *_primary(results, victim)]
    counts = [len(of_fold(clean, fold).values(region, metric.name)) for fold in folds]
    return Table(
        name=slug("folds", victim, region),
        caption=f"Median {metric.title} of {region}{f' in {metric.unit}' if metric.unit else ''} of each fold’s "
        f"{results.unit}, each by the network of their fold; n is that of clean. This describes: folds are not tested "
        "against each other.",
        columns=(
            Column("condition"),
            *(
                Column(f"fold {fold} (n = {count})", in_column(metric))
                for fold, count in zip(folds, counts, strict=True)
            ),
        ),
        rows=[[titled(arm), *(of_fold(arm, fold).median(region, metric.name) for fold in folds)] for arm in arms],
    )


def cross_validation(results: Results) -> str:
    """How the cases were divided, in a sentence or two; empty where one division serves all."""
    folds = {victim: found for victim in results.victims if (found := _folds(results, victim))}
    if not folds:
        return ""
    made = [victim for victim in folds if results.curves(victim)]
    others = [victim for victim in folds if victim not in made]
    told = (
        f"Cross-validation of {max(map(len, folds.values()))} folds: a victim is one network a fold. Each case is "
        f"attacked with, and scored by, that of its own fold, and all {results.unit} enter one test."
    )
    if made:
        told += f" The networks of {', '.join(made)} were trained here, and none has seen a case that it is tested on."
    if others:
        told += (
            f" The networks of {', '.join(others)} were trained before. Where their weights say on which scans, those "
            "were held against the tested ones; otherwise it is the word of whoever trained them."
        )
    return worded(results, told)


def _folds(results: Results, victim: str) -> list[int]:
    """The folds whose cases a victim was tested on."""
    return sorted({r.fold for arm in results.of(victim) for r in arm.records.values() if r.fold is not None})


def _primary(results: Results, victim: str) -> list[Arm]:
    """The conditions of the primary comparisons, in the order of the arms."""
    wanted = {row.condition for row in results.comparisons if (row.family, row.victim) == ("primary", victim)}
    return [arm for arm in results.of(victim) if arm.condition in wanted]


def _paired(before: Arm, after: Arm, region: str, metric: str) -> tuple[int, float | None, float | None, float | None]:
    """How many have both scores, the medians of both, and the median difference."""
    clean, shown = before.values(region, metric), after.values(region, metric)
    both = sorted(clean.keys() & shown.keys())
    if not both:
        return 0, None, None, None
    then, now = [clean[unit] for unit in both], [shown[unit] for unit in both]
    return len(both), median(then), median(now), median(b - a for a, b in zip(then, now, strict=True))
