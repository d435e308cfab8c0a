"""The attack core at BraTS's size on one device: memory and time of i-FGSM through windows, and of what saves memory.

4×240×240×155, MONAI's UNet (16 … 256) with fresh weights, windows of 128³ with an overlap of .5, float32 without TF32.
Peaks are torch's own (``max_memory_allocated``): a GPU is needed. Full autograd is one gradient through all windows at
once, by MONAI's ``sliding_window_inference``: what the window-wise gradient replaces, and must equal.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from measure.figures import write
from monai.inferers import sliding_window_inference
from monai.networks.nets import UNet
from torch import Tensor

from medadv.attack.presets import ifgsm
from medadv.labels import BRATS_2018
from medadv.victims.head import Softmax
from medadv.victims.normalize import ZScore
from medadv.victims.segmentation import Segmenter
from medadv.victims.thrift import checkpointed, volumes_elsewhere
from medadv.victims.window import SlidingWindow

SHAPE, ROI = (240, 240, 155), 128
NUMBERS = torch.tensor([0, 1, 2, 4])


def scan(device: torch.device) -> tuple[Tensor, Tensor]:
    """A bright ball in nothing, and labels inside it."""
    generator = torch.Generator().manual_seed(0)
    axes = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    head = sum(axis.square() for axis in axes) < 0.8
    x = (100 + 30 * torch.rand(1, 4, *SHAPE, generator=generator)) * head
    truth = NUMBERS[torch.randint(0, 4, (1, *SHAPE), generator=generator)] * head
    return x.to(device), truth.to(device)


def measured(work: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Peak of what torch allocated, in GiB, and seconds; of a second run."""
    for _ in range(2):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        began = time.perf_counter()
        work()
        torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) / 2**30, time.perf_counter() - began


def gradient(answer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Of a sum of squares of all logits."""
    leaf = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(answer(leaf).square().sum(), leaf)
    return found


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10, help="of i-FGSM")
    arguments = parser.parse_args()
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    device = torch.device("cuda:0")
    torch.manual_seed(0)
    network = UNet(3, 4, 4, (16, 32, 64, 128, 256), (2, 2, 2, 2), num_res_units=2).to(device).eval()
    windows = SlidingWindow((ROI,) * 3, overlap=0.5)
    victim = Segmenter(network, Softmax(BRATS_2018), ("t1", "t1ce", "t2", "flair"), inference=windows)
    x, truth = scan(device)
    attack = ifgsm("0.1 sigma", arguments.steps)
    thrifty, elsewhere = checkpointed(victim), volumes_elsewhere(victim)
    assert thrifty is not None
    assert elsewhere is not None
    jobs: dict[str, Callable[[], object]] = {
        "one window at a time": lambda: attack(victim, x, truth),
        "four windows at a time": lambda: attack(replace(victim, inference=replace(windows, batch=4)), x, truth),
        "activation checkpointing": lambda: attack(thrifty, x, truth),
        "volumes in the computer's memory": lambda: attack(elsewhere, x.cpu(), truth.cpu()),
        "one gradient, window by window": lambda: gradient(victim, x),
    }
    figures: dict[str, object] = {}
    for name, work in jobs.items():
        peak, seconds = measured(work, device)
        figures[name] = {"GiB": round(peak, 2), "seconds": round(seconds, 2)}
        print(name, figures[name], flush=True)
    for parameter in network.parameters():
        parameter.requires_grad_(False)

    def full(leaf: Tensor) -> Tensor:
        answer: Tensor = sliding_window_inference(ZScore()(leaf), (ROI,) * 3, 1, network, 0.5, mode="gaussian")
        return answer

    try:
        peak, seconds = measured(lambda: gradient(full, x), device)
        exact, own = gradient(full, x), gradient(victim, x)
        largest = ((exact - own).abs().max() / exact.abs().max()).item()
        signs = (exact.sign() == own.sign())[x != 0].double().mean().item()
        figures["one gradient, full autograd"] = {"GiB": round(peak, 2), "seconds": round(seconds, 2)}
        figures["largest difference of the two, relative"] = largest
        figures["signs that agree inside the head"] = signs
    except torch.OutOfMemoryError as error:
        figures["one gradient, full autograd"] = str(error).splitlines()[0]
    print(figures, flush=True)
    write("brats_core", {"device": torch.cuda.get_device_name(device), **figures})


if __name__ == "__main__":
    main()
