"""How much faster do two processes learn? Samples per second of two gloo ranks ÷ those of one, a thread each.

Both are ``fit`` itself with the plain lesson on 2 × 4 × 64³ a rank, so that two ranks learn from batches of four. The
two take turns in the same processes, and the figure is the median of paired ratios by the clock: at least 1.6 on two
free cores. On a busy machine only the same by processor time means anything: ranks that wait for each other cost none.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import socket
import statistics
import tempfile
import time
from itertools import pairwise
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import torch
from measure import plain
from measure.figures import machine, write
from rich.console import Console

from medadv.defense.crops import Batch
from medadv.defense.lessons import Plain
from medadv.defense.ranks import ALONE, Group, Launch, joined
from medadv.defense.schedule import Schedule
from medadv.defense.training import Point, Validation, fit
from medadv.labels import LabelScheme
from medadv.victims.head import Softmax

LEAST = 1.6
SIZE, EDGE = 2, 64
SCHEME = LabelScheme("classes", {"background": 0, "necrosis": 1, "oedema": 2, "enhancing": 3})


def seconds_a_step(group: Group, steps: int) -> tuple[float, float]:
    """The median time from one step of ``fit`` to the next, by the clock and of this rank's processor."""
    network = plain.unet().requires_grad_(True)
    generator = torch.Generator().manual_seed(group.rank)
    z = torch.randn((SIZE, 4, EDGE, EDGE, EDGE), generator=generator)
    batch = Batch(z, (z[:, 0] > 1).long())
    ticks: list[tuple[float, float]] = []

    def watch(_point: Point, _steps: int) -> None:
        ticks.append((time.perf_counter(), time.process_time()))

    with tempfile.TemporaryDirectory() as folder:
        fit(
            Plain(network, Softmax(SCHEME)),
            network,
            lambda _k: batch,
            Schedule(steps=steps + 1, validate_every=steps + 1),
            folder=Path(folder),
            validate=lambda: Validation(0.0),
            watch=watch,
            group=group,
        )
    clock, processor = zip(*([b - a for a, b in zip(*pair, strict=True)] for pair in pairwise(ticks)), strict=True)
    return statistics.median(clock), statistics.median(processor)


def rank(number: int, port: int, steps: int, rounds: int, figures: Queue[list[Any]]) -> None:
    """One of the two processes; the first also learns alone, while the other sleeps."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    seconds = []
    with joined(torch.device("cpu"), Launch(number, 2, number)) as group:
        for _ in range(rounds + 1):
            alone = seconds_a_step(ALONE, steps) if group.main else None
            group.barrier()
            seconds.append((alone, seconds_a_step(group, steps)))
            group.barrier()
    if number == 0:
        figures.put(seconds[1:])


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="paired measurements")
    parser.add_argument("--steps", type=int, default=4, help="steps of each")
    arguments = parser.parse_args()
    console = Console()
    console.print(machine())
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        port = asked.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    answer: Any = context.Queue()
    ranks = [context.Process(target=rank, args=(i, port, arguments.steps, arguments.rounds, answer)) for i in range(2)]
    for process in ranks:
        process.start()
    seconds = answer.get()
    for process in ranks:
        process.join()
    low, ratio, high = statistics.quantiles([2 * one[0] / two[0] for one, two in seconds], n=4)
    processor = statistics.median(2 * one[1] / two[1] for one, two in seconds)
    one, two = (statistics.median(clock for clock, _ in column) for column in zip(*seconds, strict=True))
    console.print(f"one rank: {SIZE / one:.2f} samples a second; two: {2 * SIZE / two:.2f}")
    verdict = "within" if ratio >= LEAST else "MISSED"
    console.print(f"ratio {ratio:.2f} ({low:.2f} – {high:.2f}), at least {LEAST}: {verdict}")
    console.print(f"by processor time {processor:.2f}")
    figures = {"ratio": ratio, "low": low, "high": high, "processor": processor, "seconds": [one, two]}
    path = write("ranks", {"least": LEAST, **figures})
    console.print(f"written to benchmarks/results/{path.name}")


if __name__ == "__main__":
    main()
