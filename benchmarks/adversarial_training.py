"""What does adversarial training cost? A step of training with k gradients inside ÷ k + 1 plain steps of training.

Both are whole optimiser steps of the same network on the same crops: loss, gradient, clipping, AdamW. Inside an attack
only inputs have gradients, which is cheaper than a plain step; bounds, random start and projection come on top. Runs
alternate in one process. The fastest run of each job is what is compared, since whatever else the machine does only
adds; beside it the same of processor time, for a machine that is never quiet, and the median of paired ratios. At most
1.10.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from measure import plain
from measure.figures import interleaved, machine, write
from rich.console import Console
from rich.table import Table
from torch import nn

from medadv.attack.rng import Rng
from medadv.defense.crops import Batch
from medadv.defense.inner import InnerAttack
from medadv.defense.lessons import Hardened, Plain
from medadv.labels import LabelScheme
from medadv.victims.head import Softmax

LIMIT = 1.10
CROPS = 2
RADIUS = 0.1
STEPS = (1, 3, 7)
HEAD = Softmax(LabelScheme("classes", {"background": 0, "necrosis": 1, "oedema": 2, "enhancing": 3}))


def batch(edge: int) -> Batch:
    """Crops ``(2, 4, e, e, e)`` as the network is fed them, with their support and radius."""
    x, classes = plain.scan(edge)
    z = torch.cat([plain.z_score(x), plain.z_score(x.flip(2))])
    radius = torch.full((CROPS, 4), RADIUS, dtype=torch.float64)
    truth = torch.cat([classes, classes.flip(1)])
    return Batch(z, truth, z != 0, radius, None, ("one", "other"), Rng.seeded(0, ("one", "other")))


def learner(lesson: Callable[[nn.Module], nn.Module], crops: Batch) -> Callable[[], None]:
    """A whole step of training by a lesson, on a network of its own."""
    network = plain.unet().train().requires_grad_(True)
    made = lesson(network)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        made(crops).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimiser.step()

    return step


def hardened(steps: int, network: nn.Module) -> nn.Module:
    """PGD of so many steps from a random start, on all crops."""
    return Hardened(network, HEAD, InnerAttack(steps))


def measure(edge: int, rounds: int) -> list[dict[str, Any]]:
    """The rows of a size of crops."""
    crops = batch(edge)
    jobs = {"plain": learner(lambda network: Plain(network, HEAD), crops)}
    jobs |= {f"PGD-{k}": learner(partial(hardened, k), crops) for k in STEPS}
    timings = interleaved(jobs, rounds)
    least, busy = ({job: min(s) for job, s in each.items()} for each in (timings.clock, timings.processor))
    return [
        {
            "edge": edge,
            "steps": k,
            "seconds a plain step": least["plain"],
            "seconds a step": least[f"PGD-{k}"],
            "share": least[f"PGD-{k}"] / ((k + 1) * least["plain"]),
            "share of processor time": busy[f"PGD-{k}"] / ((k + 1) * busy["plain"]),
            "paired": {name: ratio / (k + 1) for name, ratio in timings.ratio(f"PGD-{k}", "plain").items()},
        }
        for k in STEPS
    ]


def show(rows: list[dict[str, Any]]) -> Table:
    """The rows as a table."""
    table = Table(title="a step of adversarial training, float32, MONAI UNet 16 … 128")
    for heading in ("crops", "lesson", "plain", "step", "÷ (k + 1) plain", "of processor time", "paired", "quartiles"):
        table.add_column(heading, justify="right")
    for row in rows:
        paired = row["paired"]
        table.add_row(
            f"{CROPS}×4×{row['edge']}³",
            f"PGD-{row['steps']}",
            f"{row['seconds a plain step']:.3f} s",
            f"{row['seconds a step']:.3f} s",
            f"{row['share']:.3f} {'within' if row['share'] <= LIMIT else 'MISSED'}",
            f"{row['share of processor time']:.3f}",
            f"{paired['median']:.3f}",
            f"{paired['low']:.3f} – {paired['high']:.3f}",
        )
    return table


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="paired runs of each row")
    parser.add_argument("--threads", type=int, default=None, help="torch's threads")
    parser.add_argument("--edges", type=int, nargs="+", default=[48, 64], help="sizes of the crops")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    console = Console()
    console.print(machine())
    rows = []
    for edge in arguments.edges:
        rows += measure(edge, arguments.rounds)
    console.print(show(rows))
    path = write("adversarial_training", {"limit": LIMIT, "rows": rows})
    console.print(f"written to benchmarks/results/{path.name}")


if __name__ == "__main__":
    main()
