"""What does the attack loop cost? One attack step of medadv ÷ the same victim and loss written plainly.

Both are a whole I-FGSM call divided by its steps: bounds, gradient, move, projection; medadv's checks and records too.
A call of one step carries all of the preparation, one of several shares it. Runs alternate in one process, and the
figure is the median of paired ratios. Goal 1.05, at most 1.10.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from measure import plain
from measure import plain_pictures as pictures
from measure.figures import interleaved, machine, write
from rich.console import Console
from rich.table import Table
from torch import Tensor

from medadv.attack.budget import Budget
from medadv.attack.loop import Attack
from medadv.attack.objective import Away
from medadv.attack.presets import ifgsm
from medadv.attack.rng import Rng
from medadv.attack.steps import Plain
from medadv.attack.threat import Linf
from medadv.attack.victim import Victim
from medadv.labels import LabelScheme
from medadv.objects import Objects, Truth
from medadv.victims.combine import Upsampled
from medadv.victims.detection import Detector
from medadv.victims.detectors.two_stage import TwoStage
from medadv.victims.head import Softmax
from medadv.victims.normalize import Standard
from medadv.victims.proposals import Matching
from medadv.victims.segmentation import Segmenter
from medadv.victims.window import Inference, SlidingWindow, WholeVolume

GOAL, LIMIT = 1.05, 1.10
SHARE = 0.05
SCHEME = LabelScheme("classes", {"background": 0, "necrosis": 1, "oedema": 2, "enhancing": 3})
MODALITIES = ("t1", "t1ce", "t2", "flair")
VOLUMES = ((64, None, 1), (64, None, 4), (96, None, 1), (96, None, 4), (64, 32, 1), (96, 64, 1))
PICTURED = LabelScheme("pictured", {"background": 0} | {f"class {k}": k for k in range(1, pictures.CLASSES)})
COLOURS = ("red", "green", "blue")


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


def picture_rows(edge: int, steps: int, rounds: int) -> list[dict[str, Any]]:
    """The same of a picture: a segmentation, and a detector with frozen proposals."""
    x, classes, boxes = pictures.picture(edge)
    threat = Linf(Budget.parse("2 stored"), legal=(0.0, 255.0))
    every, count = torch.ones_like(x, dtype=torch.bool), 300
    segmenting, detecting = pictures.segmentation(), pictures.detection(edge)
    normalise = Standard(pictures.MEAN, pictures.STD)
    pixels = Segmenter(Upsampled(segmenting), Softmax(PICTURED), COLOURS, normalise)
    boxed = Detector(detecting, PICTURED, COLOURS, sight=TwoStage(0.9, count), matching=Matching(0.1, 0.01))
    seen = boxed.prepare(x, Rng.seeded(0, 1)).seen
    assert seen is not None  # by prepare
    label = int(seen.scores[0, 1:].mean(1).argmax()) + 1  # fresh weights have a class that they see everywhere
    objects = [Objects(boxes, torch.full((len(boxes),), label))]

    def attacked(victim: Victim, truth: Truth, n: int) -> Tensor:
        attack = Attack(threat, Away(), Plain(1.0), n, keep="last")
        return attack(victim, x, truth, support=every).x

    def plainly(kind: str, n: int) -> Tensor:
        if kind == "segmentation":
            return pictures.ifgsm(pictures.segmentation_gradient(segmenting, classes), x, 2.0, n)
        return pictures.ifgsm(pictures.detection_gradient(detecting, x, boxes, label, count), x, 2.0, n)

    rows = []
    for kind, victim, truth in (("segmentation", pixels, classes), ("detection", boxed, objects)):
        agreement = agrees(attacked(victim, truth, 1), plainly(kind, 1))
        jobs: dict[str, Callable[[], object]] = {
            "medadv": partial(attacked, victim, truth, steps),
            "plain": partial(plainly, kind, steps),
        }
        timings = interleaved(jobs, rounds)
        rows.append(
            {
                "edge": edge,
                "kind": kind,
                "steps": steps,
                "seconds a step": {name: timings.seconds(name) / steps for name in jobs},
                "medadv / plain": timings.ratio("medadv", "plain"),
                "agreement": agreement,
            }
        )
    return rows


def agrees(ours: Tensor, theirs: Tensor) -> float:
    """The share of voxels on which the two attacks agree; there is nothing to compare where they differ."""
    share = ((ours - theirs).abs() < 1e-3).float().mean().item()
    if share < 0.99:
        raise SystemExit(f"the two attacks differ on {1 - share:.1%} of the voxels: nothing to compare")
    return share


def show(rows: list[dict[str, Any]]) -> Table:
    """The rows as a table."""
    table = Table(title="one attack step, float32: UNet 16 … 128, FCN of ResNet-50, Faster R-CNN of MobileNetV3")
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
        share, seconds = row["medadv / plain"], row["seconds a step"]
        verdict = "goal" if share["median"] <= GOAL else "within" if share["median"] <= LIMIT else "MISSED"
        table.add_row(
            f"3×{row['edge']}²" if "kind" in row else f"4×{row['edge']}³",
            row.get("kind") or ("whole" if row["window"] is None else f"windows of {row['window']}³"),
            str(row["steps"]),
            *(f"{seconds[name]:.3f} s" if name in seconds else "" for name in ("network", "plain", "medadv")),
            f"{share['median']:.3f} {verdict}",
            f"{share['low']:.3f} – {share['high']:.3f}",
            f"{share['processor']:.3f}",
            f"{row['medadv / network']['median']:.3f}" if "medadv / network" in row else "",
        )
    return table


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="paired runs of each row")
    parser.add_argument("--threads", type=int, default=None, help="torch's threads")
    parser.add_argument("--pictures", action="store_true", help="the rows of pictures alone")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    console = Console()
    console.print(machine())
    rows = []
    volumes = () if arguments.pictures else VOLUMES
    for edge, window, steps in volumes:
        rows.append(measure(edge, window, steps, arguments.rounds))
        console.print(show(rows[-1:]))
    for edge, steps in ((256, 1), (256, 4)):
        rows += picture_rows(edge, steps, arguments.rounds)
        console.print(show(rows[-2:]))
    console.print(show(rows))
    path = write("attack_step", {"goal": GOAL, "limit": LIMIT, "rows": rows})
    console.print(f"written to benchmarks/results/{path.name}")


if __name__ == "__main__":
    main()
