"""Detectors of every kind, small enough to be asked often."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from victims.small_pictures import SHAPES

from medadv.labels import LabelScheme
from medadv.victims.detection import Detector
from medadv.victims.detectors.answering import Answering
from medadv.victims.detectors.build import build_detector
from medadv.victims.networks import Architecture
from medadv.victims.normalize import ZScore
from medadv.victims.proposals import Matching

SIZES: dict[str, dict[str, Any]] = {
    "FasterRCNN": {"min_size": 40, "max_size": 64, "width": 16, "sides": [[12], [24]]},
    "RetinaNet": {"min_size": 40, "max_size": 64, "width": 16},
    "FCOS": {"min_size": 40, "max_size": 64, "width": 32, "levels": 2},
    "SSD": {"size": [40, 40], "width": 16, "levels": 2},
}
"""The kinds of torchvision; pictures of 32 × 48 pixels are enlarged by all of them."""

LESIONS = LabelScheme("lesions", {"background": 0, "nodule": 4, "cyst": 9})


def architecture(kind: str) -> Architecture:
    return Architecture(name=kind, arguments=SIZES[kind])


def detector(kind: str, seed: int = 0) -> Detector:
    """With fresh weights that do not rule anything out, and every place a target that overlaps an object."""
    torch.manual_seed(seed)
    network = build_detector(architecture(kind), 3, len(SHAPES.tissues)).eval()
    return Detector(louder(network), SHAPES, matching=Matching(0.1, 0.0))


def louder(network: nn.Module) -> nn.Module:
    """Fresh heads say next to nothing; these are heard, and no class is ruled out beforehand."""
    for name, parameter in network.named_parameters():
        if ("cls" in name or "classification" in name) and "conv" not in name:
            parameter.data = parameter.data * 20 if parameter.ndim > 1 else torch.zeros_like(parameter)
        if name.endswith("bbox_reg.bias"):  # the points of FCOS have boxes of some size
            parameter.data.fill_(2.0)
    return network


class Grid(nn.Module):
    """A user's own: the mean colour of each eighth of the image, classified."""

    def __init__(self, classes: int = 4, axes: int = 2) -> None:
        super().__init__()
        self.layer = nn.Linear(3, classes).double()
        self.axes = axes

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        h, w = z.shape[2] // 2, z.shape[3] // 4
        cells = nn.functional.avg_pool2d(z, (h, w)).flatten(2).transpose(1, 2)
        corners = torch.tensor([[r * h, c * w, (r + 1) * h, (c + 1) * w] for r in range(2) for c in range(4)])
        return self.layer(cells).transpose(1, 2), corners.to(z).expand(len(z), -1, -1)


def own(exclusive: bool = True) -> Detector:
    torch.manual_seed(3)
    grid = Grid(4 if exclusive else 3).float()
    grid.layer.weight.data *= 8
    return Detector(grid, SHAPES, sight=Answering(exclusive, threshold=0.3), matching=Matching(0.1, 0.0))


def lesions(window: bool = False) -> Detector:
    torch.manual_seed(0)
    network = build_detector(Architecture(name="RetinaNet3d", arguments={"width": 8, "sides": [[6], [12]]}), 1, 3)
    if window:
        network.set_sliding_window_inferer((16, 16, 16), overlap=0.5, mode="gaussian")
    return Detector(louder(network.eval()), LESIONS, ("t1",), ZScore(), matching=Matching(0.05, 0.0))


def double(victim: Detector) -> Detector:
    return replace(victim, network=victim.network.double())
