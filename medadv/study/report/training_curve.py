"""How a victim was trained: loss and validation Dice over the steps."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from medadv.study.report.style import COLOURS, MARKERS, style
from medadv.study.results import TrainingStep


def training_curve(steps: Sequence[TrainingStep]) -> Figure:
    """Two panels over the optimiser's steps: training loss, and the mean Dice of the validation cases."""
    validated = [(s.step, s.dice) for s in steps if s.dice is not None]
    with style():
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True)
        above.plot([s.step for s in steps], [s.loss for s in steps], color=COLOURS[0], linewidth=1.2)
        above.set(ylabel="training loss")
        if validated:
            below.plot(*zip(*validated, strict=True), color=COLOURS[1], marker=MARKERS[1], markersize=4)
        below.set(ylabel="validation Dice", xlabel="step", ylim=(-0.02, 1.02))
    return figure
