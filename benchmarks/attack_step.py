"""What does the attack loop cost? One attack step of medadv ÷ the same victim and loss written plainly.

Both are a whole I-FGSM call divided by its steps: bounds, gradient, move, projection; medadv's checks and records too.
A call of one step carries all of the preparation, one of several shares it. Runs alternate in one process, and the
figure is the median of paired ratios. Goal 1.05, at most 1.10.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from measure import plain
from measure.figures import interleaved, machine, write
from rich.console import Console
from rich.table import Table
from torch import Tensor

from medadv.attack.presets import ifgsm
from medadv.labels import LabelScheme
from medadv.victims.head import Softmax
from medadv.victims.segmentation import Segmenter
from medadv.victims.window import Inference, SlidingWindow, WholeVolume

GOAL, LIMIT = 1.05, 1.10
SHARE = 0.05
SCHEME = LabelScheme("classes", {"background": 0, "necrosis": 1, "oedema": 2, "enhancing": 3})
MODALITIES = ("t1", "t1ce", "t2", "flair")


def measure(edge: int, window: int | None, steps: int, rounds: int) -> dict[str, Any]:
    """One row: an image size, whole or in windows."""
    network, (x, classes) = plain.unet(), plain.scan(edge)
    inference: Inference = WholeVolume() if window is None else SlidingWindow((window,) * 3)
    victim = Segmenter(network, Softmax(SCHEME), MODALITIES, inference=inference)
    attack = ifgsm(f"{SHARE} sigma", steps, size=1.0)
    gradient = plain.whole_gradient if window is None else plain.windowed_gradient(window)
    agreement = agrees(
        ifgsm(f"{SHARE} sigma", 1)(victim, x, classes).x, plain.fgsm(gradient, network, x, classes, SHARE)
    )

    def alone() -> None:
        for _ in range(steps):
            plain.network_alone(network, x, window)

    jobs: dict[str, Callable[[], object]] = {
        "medadv": lambda: attack(victim, x, classes),
        "plain": lambda: plain.fgsm(gradient, network, x, classes, SHARE, steps),
        "network": alone,
    }
    timings = interleaved(jobs, rounds)
    return {
        "edge": edge,
        "window": window,
        "steps": steps,
        "seconds a step": {name: timings.seconds(name) / steps for name in jobs},
        "medadv / plain": timings.ratio("medadv", "plain"),
        "medadv / network": timings.ratio("medadv", "network"),
        "agreement": agreement,
    }


def agrees(ours: Tensor, theirs: Tensor) -> float:
    """The share of voxels on which the two attacks agree; there is nothing to compare where they differ."""
    share = ((ours - theirs).abs() < 1e-3).float().mean().item()
    if share < 0.99:
        raise SystemExit(f"the two attacks differ on {1 - share:.1%} of the voxels: nothing to compare")
    return share


def show(rows: list[dict[str, Any]]) -> Table:
    """The rows as a table."""
    table = Table(title="one attack step, float32, MONAI UNet 16 … 128")
    for heading in (
        "image",
        "inference",
        "steps",
        "network",
        "plain",
        "medadv",
        "÷ plain",
        "quartiles",
        "of processor time",
        "÷ network",
    ):
        table.add_column(heading, justify="right")
    for row in rows:
        share = row["medadv / plain"]
        verdict = "goal" if share["median"] <= GOAL else "within" if share["median"] <= LIMIT else "MISSED"
        table.add_row(
            f"4×{row['edge']}³",
            "whole" if row["window"] is None else f"windows of {row['window']}³",
            str(row["steps"]),
            *(f"{row['seconds a step'][name]:.3f} s" for name in ("network", "plain", "medadv")),
            f"{share['median']:.3f} {verdict}",
            f"{share['low']:.3f} – {share['high']:.3f}",
            f"{share['processor']:.3f}",
            f"{row['medadv / network']['median']:.3f}",
        )
    return table


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="paired runs of each row")
    parser.add_argument("--threads", type=int, default=None, help="torch's threads")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    console = Console()
    console.print(machine())
    rows = []
    for edge, window, steps in ((64, None, 1), (64, None, 4), (96, None, 1), (96, None, 4), (64, 32, 1), (96, 64, 1)):
        rows.append(measure(edge, window, steps, arguments.rounds))
        console.print(show(rows[-1:]))
    console.print(show(rows))
    path = write("attack_step", {"goal": GOAL, "limit": LIMIT, "rows": rows})
    console.print(f"written to benchmarks/results/{path.name}")


if __name__ == "__main__":
    main()
