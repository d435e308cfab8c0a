"""How figures are told: the machine they were measured on, a table, and JSON beside the benchmarks."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parents[1] / "results"


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


@dataclass(frozen=True)
class Timings:
    """Seconds of each job, round by round: on the clock, and of processor time, which a busy machine disturbs less."""

    clock: dict[str, list[float]]
    processor: dict[str, list[float]]

    def ratio(self, above: str, below: str) -> dict[str, float]:
        """The median of the paired ratios by the clock with its quartiles, and the median by processor time."""
        low, median, high = statistics.quantiles(_paired(self.clock, above, below), n=4)
        processor = statistics.median(_paired(self.processor, above, below))
        return {"median": median, "low": low, "high": high, "processor": processor}

    def seconds(self, job: str) -> float:
        """The median by the clock."""
        return statistics.median(self.clock[job])


def _paired(seconds: Mapping[str, Sequence[float]], above: str, below: str) -> list[float]:
    return [a / b for a, b in zip(seconds[above], seconds[below], strict=True)]


def interleaved(jobs: Mapping[str, Callable[[], object]], rounds: int) -> Timings:
    """Run the jobs in turn, each round beginning with another one; a round before the first is not measured."""
    names = list(jobs)
    timings = Timings({name: [] for name in names}, {name: [] for name in names})
    for round_ in range(-1, rounds):
        for i in range(len(names)):
            name = names[(round_ + i) % len(names)]
            clock, processor = time.perf_counter(), time.process_time()
            jobs[name]()
            if round_ >= 0:
                timings.clock[name].append(time.perf_counter() - clock)
                timings.processor[name].append(time.process_time() - processor)
    return timings


def write(name: str, figures: Mapping[str, Any]) -> Path:
    """Put the figures beside the benchmarks."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **figures}, indent=1))
    return path
