"""What does the exact gradient through sliding windows need? Memory and time of a step on a large volume.

Memory: the peak of resident memory over what the process held before, each figure in a process of its own, read from
the kernel (VmHWM, so Linux only). At most 1.3 × the peak of one window alone + 12 float32 tensors of the input's size.
Time: medadv's steps ÷ the same steps by full autograd through all windows, alternating in one process. At most 1.6.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from measure import plain
from measure.figures import interleaved, machine, write
from rich.console import Console
from rich.table import Table

from medadv.attack.presets import ifgsm
from medadv.labels import LabelScheme
from medadv.victims.head import Softmax
from medadv.victims.segmentation import Segmenter
from medadv.victims.window import SlidingWindow

WINDOWS, TENSORS, TIME = 1.3, 12, 1.6
MIB = 2**20
SHARE, STEPS = 0.05, 2  # a second step shows what the first still holds
SCHEME = LabelScheme("classes", {"background": 0, "necrosis": 1, "oedema": 2, "enhancing": 3})


def jobs(edge: int, window: int) -> dict[str, Callable[[], object]]:
    """What is measured; each on inputs that exist beforehand."""
    network, (x, classes) = plain.unet(), plain.scan(edge)
    victim = Segmenter(network, Softmax(SCHEME), ("t1", "t1ce", "t2", "flair"), inference=SlidingWindow((window,) * 3))
    attack = ifgsm(f"{SHARE} sigma", STEPS, size=1.0)
    small, small_classes = plain.scan(window)
    return {
        "one window": lambda: plain.whole_gradient(network, small, small_classes),
        "medadv": lambda: attack(victim, x, classes),
        "written plainly": lambda: plain.fgsm(plain.windowed_gradient(window), network, x, classes, SHARE, STEPS),
        "full autograd": lambda: plain.fgsm(plain.full_gradient(window), network, x, classes, SHARE, STEPS),
    }


def memory(field: str) -> float:
    """A field of this process's memory, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (value,) = (line.split()[1] for line in lines if line.startswith(f"{field}:"))
    return int(value) * 1024 / MIB


def peak(job: str, edge: int, window: int) -> float:
    """The peak of one job over what was held before, in MiB. Libraries are warmed up on a volume of one tiny window."""
    jobs(32, 16)[job]()
    run = jobs(edge, window)[job]
    Path("/proc/self/clear_refs").write_text("5")  # the kernel forgets its high-water mark
    before = memory("VmRSS")
    run()
    return memory("VmHWM") - before


def peak_elsewhere(job: str, edge: int, window: int, threads: int) -> float:
    """The same in a fresh process."""
    command = [sys.executable, __file__, "--edge", str(edge), "--window", str(window)]
    command += ["--threads", str(threads), "--peak-of", job]
    return float(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edge", type=int, default=128, help="of the volume, in voxels")
    parser.add_argument("--window", type=int, default=64, help="of a window, in voxels")
    parser.add_argument("--rounds", type=int, default=3, help="paired runs for the time")
    parser.add_argument("--repeats", type=int, default=3, help="processes for each peak")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch's threads")
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.peak_of:
        print(json.dumps(peak(given.peak_of, given.edge, given.window)))
        return

    console = Console()
    console.print(machine())
    all_jobs = jobs(given.edge, given.window)
    peaks = {
        job: sorted(peak_elsewhere(job, given.edge, given.window, given.threads) for _ in range(given.repeats))
        for job in all_jobs
    }
    tensor = 4 * given.edge**3 * 4 / MIB
    allowed = WINDOWS * peaks["one window"][given.repeats // 2] + TENSORS * tensor
    timings = interleaved({job: all_jobs[job] for job in ("medadv", "written plainly", "full autograd")}, given.rounds)
    time = timings.ratio("medadv", "full autograd")

    table = Table(title=f"{STEPS} steps on 4×{given.edge}³ through windows of {given.window}³, overlap .5, float32")
    for heading in ("", "peak", "in tensors of the input's size", "seconds"):
        table.add_column(heading, justify="right")
    for job, values in peaks.items():
        middle = values[len(values) // 2]
        seconds = f"{timings.seconds(job):.2f}" if job in timings.clock else ""
        table.add_row(job, f"{middle:.0f} MiB", f"{middle / tensor:.1f}", seconds)
    console.print(table)
    ours = peaks["medadv"][given.repeats // 2]
    console.print(f"memory: {ours:.0f} MiB of {allowed:.0f} allowed: {'reached' if ours <= allowed else 'MISSED'}")
    console.print(
        f"time ÷ full autograd: {time['median']:.2f} ({time['low']:.2f} to {time['high']:.2f}; "
        f"of processor time {time['processor']:.2f}), "
        f"{TIME} allowed: {'reached' if time['median'] <= TIME else 'MISSED'}"
    )
    figures = {"edge": given.edge, "window": given.window, "peaks in MiB": peaks, "allowed in MiB": allowed}
    path = write("window_memory", figures | {"time / full autograd": time, "seconds": timings.clock})
    console.print(f"written to benchmarks/results/{path.name}")


if __name__ == "__main__":
    main()
