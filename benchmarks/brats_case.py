"""A study of one case at BraTS's size, from the files to the scores: how much memory, how long?

A phantom of 4×240×240×155, MONAI's UNet (16 … 256) with fresh weights, deployed through windows of 128³ with an overlap
of .5, FGSM's and i-FGSM's steps on the stored voxels, files written and read again, both scored. The peak of the
resident memory of the whole process, imports included, is read from the kernel (VmHWM). At most 8 GiB.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import torch
from measure.figures import write
from rich.console import Console

import medadv
from medadv.study.load import as_study
from medadv.study.machine import Machine

ALLOWED = 8.0
GIB = 2**20  # ru_maxrss is in KiB


def study(root: Path, edge: tuple[int, int, int], window: int, steps: int) -> dict[str, object]:
    """One case, one attack, no controls."""
    return {
        "study": "brats-case",
        "ids": "as-is",
        "data": {"importer": "phantom", "root": str(root), "cases": 1, "shape": list(edge)},
        "victims": {"unet": {"inference": {"name": "window", "roi": [window] * 3, "overlap": 0.5}}},
        "budgets": ["0.1 sigma"],
        "attacks": {"ifgsm": {"preset": "ifgsm", "steps": steps}},
        "controls": [],
        "primary": {"region": "WT"},
        "volumes": {"keep": "none"},
    }


def unet() -> torch.nn.Module:
    """The network of the issue's figure: five stages, fresh weights."""
    from monai.networks.nets import UNet

    torch.manual_seed(0)
    return UNet(3, 4, 4, (16, 32, 64, 128, 256), (2, 2, 2, 2), num_res_units=2)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=(240, 240, 155), help="of the volume, in voxels")
    parser.add_argument("--window", type=int, default=128, help="of a window, in voxels")
    parser.add_argument("--steps", type=int, default=10, help="of i-FGSM")
    parser.add_argument("--device", default="auto", help="cpu, cuda …")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        asked = study(Path(scratch) / "data", tuple(arguments.shape), arguments.window, arguments.steps)
        began = time.perf_counter()
        medadv.run(
            as_study(asked),
            victims={"unet": unet()},
            runs=Path(scratch) / "runs",
            tracked=False,
            machine=Machine(arguments.device),
        )
        seconds = time.perf_counter() - began
    figures = {
        "resident GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / GIB,
        "allowed GiB": ALLOWED,
        "seconds": seconds,
        "steps": arguments.steps,
    }
    if torch.cuda.is_available():
        figures["device GiB"] = torch.cuda.max_memory_allocated() / 2**30
    for name, value in figures.items():
        Console().print(f"{name}: {value:.2f}")
    write("brats_case", figures)


if __name__ == "__main__":
    main()
