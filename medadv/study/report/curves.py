"""The study's metric against the budget: attacks and controls of one victim, on one region."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medadv.study.report.numbers import budget, spelled
from medadv.study.report.style import INK, Look, looks, style
from medadv.study.results import Arm, Results

RESAMPLES = 2000


def budget_units(results: Results, victim: str) -> tuple[str, ...]:
    """The units in which budgets of this victim's attacks were given: a curve each."""
    attacks = (arm for arm in results.met(victim) if arm.presented.role == "attack" and on_axis(arm))
    return tuple(dict.fromkeys(arm.presented.unit for arm in attacks if arm.presented.unit is not None))


def on_axis(arm: Arm) -> bool:
    """Whether a budget has a place on an axis: one amount, that bounds the whole change and not a step of it alone."""
    return arm.presented.amount is not None and not arm.step_bounded


def off_axis(results: Results, victim: str) -> str:
    """Which attacks have no point in any curve, in a sentence; empty where all have one."""
    attacks = [arm for arm in results.met(victim) if arm.presented.role == "attack" and not on_axis(arm)]
    steps = [_named(arm) for arm in attacks if arm.step_bounded]
    several = [_named(arm) for arm in attacks if not arm.step_bounded]
    said = []
    if several:
        said.append(f"Not drawn, since a budget of several amounts has no place on an axis: {'; '.join(several)}.")
    if steps:
        said.append(
            "Not drawn, since the amount is that of a step, and what the steps add up to has no bound: "
            f"{'; '.join(steps)}."
        )
    return " ".join(said)


def _named(arm: Arm) -> str:
    return f"{arm.presented.title} at {budget(arm)}"


def budget_curves(results: Results, victim: str, region: str, unit: str) -> Figure:
    """The mean score of a region over the budget, one line a family, with a bootstrap band over patients (or cases)."""
    metric = results.metric_of(victim)
    arms = [a for a in results.met(victim) if a.presented.unit == unit and on_axis(a)]
    families: dict[str, list[Arm]] = {}
    for arm in arms:
        families.setdefault(arm.presented.family, []).append(arm)
    worn = looks(results.met(victim))
    clean = results.clean(victim)
    with style():
        figure = Figure(figsize=(4.0, 4.1), layout="constrained")
        axes = figure.add_subplot()
        for family, members in families.items():
            if family in worn:
                _line(axes, [*([clean] if clean else []), *members], (region, metric.name), worn[family])
        axes.set(title=region, xlabel=f"budget ({spelled(unit)})", ylabel=f"mean {metric.headed}")
        highest = metric.highest or axes.get_ylim()[1]
        axes.set_ylim(-0.02 * highest, 1.02 * highest)
        amounts = sorted({a.presented.amount for a in arms if a.presented.amount is not None})
        if results.pictures and doubling(amounts):
            axes.set_xscale("symlog", base=2, linthresh=amounts[0], linscale=0.5)
        axes.set_xticks([0.0, *amounts])
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        axes.minorticks_off()
        if any(arm.presented.of for arm in arms):
            axes.plot([], [], label="hollow: own perturbation, permuted", **Look(INK, "o", control=True).line())
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", handlelength=3)
    return figure


def doubling(amounts: Iterable[float]) -> bool:
    """Whether all are powers of two, of either sign."""
    return all(amount > 0 and math.log2(amount).is_integer() for amount in amounts)


def _line(axes: Axes, arms: list[Arm], score: tuple[str, str], look: Look) -> None:
    values = [np.array(list(arm.values(*score).values())) for arm in arms]
    kept = [(arm.presented.amount or 0.0, v) for arm, v in zip(arms, values, strict=True) if v.size]
    if not kept:
        return
    amounts = [amount for amount, _ in kept]
    shown = arms[-1].presented
    # A permuted perturbation is known by its attack's colour; a line of its own in the legend would say it twice.
    axes.plot(amounts, [v.mean() for _, v in kept], label=None if shown.of else shown.title, **look.line())
    if not look.control and min(v.size for _, v in kept) > 1:
        low, high = zip(*(band(v) for _, v in kept), strict=True)
        axes.fill_between(amounts, low, high, color=look.colour, alpha=0.14, linewidth=0)


def band(values: np.ndarray) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of a mean (Efron 1979), from a fixed seed."""
    drawn = np.random.default_rng(0).integers(0, values.size, (RESAMPLES, values.size))
    low, high = np.percentile(values[drawn].mean(axis=1), (2.5, 97.5))
    return float(low), float(high)
