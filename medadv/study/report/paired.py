"""Each patient or case as a line: from clean through the budgets of one attack."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medadv.study.report.numbers import budget, measured, spelled
from medadv.study.report.style import INK, QUIET, looks, style
from medadv.study.results import Arm, Results


def attack_families(results: Results, victim: str, region: str) -> dict[str, list[Arm]]:
    """Family → its arms by budget: those compared in the primary family, or all where nothing is primary."""
    primary = {(r.condition, r.region) for r in results.comparisons if r.victim == victim and r.family == "primary"}
    families: dict[str, list[Arm]] = {}
    for arm in results.met(victim):
        if arm.presented.role == "attack" and (not primary or (arm.condition, region) in primary):
            families.setdefault(arm.presented.family, []).append(arm)
    return families


def _ticks(axes: Axes, results: Results, columns: list[Arm]) -> None:
    """A tick a column; pictures have many budgets, of one unit that the axis tells."""
    places, units = range(len(columns)), {arm.presented.unit for arm in columns[1:]}
    amounts = [arm.presented.amount for arm in columns if arm.presented.role != "clean"]
    steps = any(arm.step_bounded for arm in columns)
    if results.pictures and len(units) == 1 and None not in amounts and not steps:
        names = ["clean" if arm.presented.role == "clean" else f"{arm.presented.amount:g}" for arm in columns]
        axes.set_xlabel(f"budget ({spelled(units.pop() or '')})")
    else:
        shown = ((arm, budget(arm).replace("/", "/\n")) for arm in columns)
        names = ["clean" if arm.presented.role == "clean" else told for arm, told in shown]
    axes.set_xticks(places, names)


def paired_lines(results: Results, victim: str, region: str, arms: list[Arm]) -> Figure:
    """Each patient (or case) from clean to each budget of one attack, in the study's metric, and the mean of all."""
    metric = results.metric_of(victim)
    clean = results.clean(victim)
    columns = [*([clean] if clean else []), *arms]
    values = [arm.values(region, metric.name) for arm in columns]
    highest = metric.highest or max((score for v in values for score in v.values()), default=0.0) or 1.0
    look = looks(results.of(victim))[arms[0].presented.family]
    places = list(range(len(columns)))
    with style():
        figure = Figure(figsize=(4.0, 3.6), layout="constrained")
        axes = figure.add_subplot()
        for unit in sorted(set.intersection(*(set(v) for v in values))):
            line = [v[unit] for v in values]
            axes.plot(places, line, color=look.colour, alpha=0.35, linewidth=1, marker=".", markersize=5)
        means = [arm.mean(region, metric.name) or 0.0 for arm in columns]
        axes.plot(places, means, color=INK, linewidth=2.2, marker=look.marker, markersize=6, label="mean")
        for place, arm in enumerate(columns):
            row = results.compared(victim, region, arm.condition, clean.condition, metric.name) if clean else None
            note = f"shift\n{measured(row.estimate, metric)}" if row and row.estimate is not None else ""
            axes.text(place, 1.035 * highest, note, ha="center", va="bottom", fontsize=8, color=QUIET, linespacing=1.2)
        axes.set(ylabel=f"{metric.title} of {region}{f' ({metric.unit})' if metric.unit else ''}")
        axes.set(ylim=(-0.02 * highest, 1.16 * highest), xlim=(-0.3, len(columns) - 0.7))
        _ticks(axes, results, columns)
        axes.set_yticks([tick for tick in axes.get_yticks() if -1e-9 <= tick <= highest + 1e-9])
        axes.set_title(arms[0].presented.title)
        axes.legend(loc="lower left" if metric.worse < 0 else "upper left")
    return figure
