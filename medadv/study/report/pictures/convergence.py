"""How attacks that exchange classes go on: active targets over the iterations (Xie et al. 2017, section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, median
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medadv.study.arm import Arm
from medadv.study.records import Effort
from medadv.study.report.numbers import budget, significant, tenth, titled, whole
from medadv.study.report.pictures.matrix import found_for, settings_of, together
from medadv.study.report.pictures.panels import panels, worn_by
from medadv.study.report.style import Look, slug
from medadv.study.report.tables import Cell, Column, Table
from medadv.study.results import Results

ACTIVE = "active"
"""What traces call the number of targets that the attack still works on."""


def traced(results: Results) -> Mapping[tuple[str, str], list[Arm]]:
    """Family and budget → the arms whose records tell their active targets."""
    found: dict[tuple[str, str], list[Arm]] = {}
    for arm in results.arms:
        if any(_efforts(arm)):
            found.setdefault((arm.presented.family, arm.presented.budget or ""), []).append(arm)
    return found


def _efforts(arm: Arm) -> list[Effort]:
    """The efforts that tell active targets; an image without any has nothing to converge."""
    efforts = (record.effort for record in arm.records.values())
    return [e for e in efforts if e is not None and e.trace.get(ACTIVE) and e.trace[ACTIVE][0] > 0]


def convergence(results: Results) -> Figure | None:
    """A panel an attack, a line a victim: the median share of the first active targets that is left, and the middle
    half of the images; None where no record tells it."""
    looks = worn_by(results.victims)

    def draw(axes: Axes, arms: Sequence[Arm]) -> None:
        for arm in arms:
            _line(axes, arm, together(found_for(results, arm)), looks[arm.victim])
        title = f"{arms[0].presented.title}, {budget(arms[0])}"
        axes.set(title=fill(title, 34), xlabel="iteration", ylim=(-0.02, 1.05))
        axes.set_xlim(left=0)

    every = list(traced(results).values())
    return panels(every, draw, "active targets, share of the first") if every else None


def shares(arm: Arm) -> np.ndarray:
    """Active targets as shares of the first, ``(images, iterations)``; who is done stays at the last."""
    traces = [np.array(effort.trace[ACTIVE]) for effort in _efforts(arm)]
    longest = max(map(len, traces))
    return np.stack([np.pad(t, (0, longest - len(t)), mode="edge") / t[0] for t in traces])


def _line(axes: Axes, arm: Arm, label: str, look: Look) -> None:
    left = shares(arm)
    low, middle, high = np.percentile(left, (25, 50, 75), axis=0)
    steps = np.arange(left.shape[1])
    axes.plot(steps, middle, label=label, markevery=max(1, len(steps) // 8), **look.line())
    axes.fill_between(steps, low, high, color=look.colour, alpha=0.16, linewidth=0)


def iterations(effort: Effort) -> int:
    """After how many steps an image stood still: an attack asks now and then who is done, and traces on till then."""
    rows = list(zip(*(effort.trace[name] for name in (ACTIVE, "value") if name in effort.trace), strict=True))
    still = next((k for k, row in enumerate(reversed(rows)) if row != rows[-1]), len(rows))
    return len(rows) - still


def iterations_table(results: Results) -> Table:
    """One row a victim and attack: how many targets there were, how many iterations it took, how often it ended."""
    rows: list[list[Cell]] = []
    arms = [arm for each in traced(results).values() for arm in each]
    for arm in arms:
        efforts = _efforts(arm)
        steps = [iterations(effort) for effort in efforts]
        first = [effort.trace[ACTIVE][0] for effort in efforts]
        left = [effort.trace[ACTIVE][-1] for effort in efforts]
        none = sum(value == 0 for value in left)
        victims = together(found_for(results, arm))
        rows.append([titled(arm), victims, len(efforts), median(first), fmean(steps), median(steps), max(steps),
                     none, max(left)])  # fmt: skip
    return Table(
        name=slug("iterations"),
        caption="Iterations until no target was active, or no more than the attack tolerates, or its steps were used "
        "up; of images with a target to begin with. None left: in how many no target was active in the end.",
        columns=(
            Column("attack"),
            Column("victim"),
            Column("images", whole),
            Column("median targets", significant),
            Column("mean iterations", tenth),
            Column("median", whole),
            Column("most", whole),
            Column("none left", whole),
            Column("most left", significant),
        ),
        rows=rows,
        breaks=_breaks([arm.presented.family for arm in arms]),
    )


def _breaks(names: Sequence[str]) -> frozenset[int]:
    return frozenset(i for i in range(1, len(names)) if names[i] != names[i - 1])


def distortion_table(results: Results) -> Table | None:
    """One row a victim and condition: how large what was delivered is; None where no record tells it.

    What is moved about or shown to another is as large as it was.
    """
    rows: list[list[Cell]] = []
    names: list[str] = []
    for arm in results.arms:
        found = [record.distortion for record in arm.records.values() if record.distortion is not None]
        if found and arm.presented.role != "clean" and settings_of(arm).get("kind") not in ("permuted", "transfer"):
            names.append(arm.victim)
            p, linf, l2 = (np.array([getattr(d, name) for d in found]) for name in ("perceptibility", "linf", "l2"))
            row: list[Cell] = [arm.victim, titled(arm)]
            for values in (1000 * p, linf, l2):
                row += [float(v) for v in np.percentile(values, (50, 5, 95))]
            rows.append(row)
    if not rows:
        return None
    columns = [Column("victim"), Column("condition")]
    for name in ("median p (×10⁻³)", "median L∞ (grey levels)", "median L2 (grey levels)"):
        columns += [Column(name, significant), Column("5 %", significant), Column("95 %", significant)]
    return Table(
        name=slug("distortion"),
        caption="How large the delivered change is, over images: median, and percentiles. p: the root of the mean over "
        "pixels of the squared length of a pixel’s change over its colours, on a scale from 0 to 1 (Xie et al. 2017); "
        "L∞: the largest change; L2: the length of the whole.",
        columns=columns,
        rows=rows,
        breaks=_breaks(names),
    )
