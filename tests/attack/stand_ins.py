"""Victims so simple that what an attack should do to them can be written down."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from medadv.attack.rng import Rng
from medadv.attack.victim import Passes
from medadv.labels import LabelScheme
from medadv.victims.head import Head, Softmax, Voxels
from medadv.victims.normalize import Unchanged
from medadv.victims.segmentation import Segmenter

LESION = LabelScheme("lesion", {"background": 0, "lesion": 1}, {"L": ("lesion",)})
ORGANS = LabelScheme("organs", {"background": 0, "liver": 2, "spleen": 5}, {"both": ("liver", "spleen")})


@dataclass(frozen=True, eq=False)
class Stateless:
    """A victim made of a function from images to logits; it holds no modules."""

    answer: Callable[[Tensor], Tensor]
    head: Head = field(default_factory=lambda: Softmax(LESION))
    answer_cost: Passes = Passes(1, 0)  # noqa: RUF009
    gradient_cost: Passes = Passes(1, 1)  # noqa: RUF009

    def prepare(self, x0: Tensor, rng: Rng) -> Stateless:
        return self

    def take(self, index: Tensor) -> Stateless:
        return self

    def targets(self, truth: Tensor) -> Voxels:
        return Voxels.of(self.head, truth)

    def __call__(self, x: Tensor) -> Tensor:
        return self.answer(x)

    def predict(self, x: Tensor) -> Tensor:
        return self.head.decide(self(x))

    def modules(self) -> Iterable[nn.Module]:
        return ()


def linear(weight: Tensor, bias: float = 0.0) -> Stateless:
    """Two classes; the logit of the second is ``sum over channels of weight * x``, voxel by voxel."""

    def answer(x: Tensor) -> Tensor:
        z = (weight * x).sum(1) + bias
        return torch.stack([torch.zeros_like(z), z], 1)

    return Stateless(answer)


class Curved(nn.Module):
    """A smooth little network with everything that an attack must not disturb: batch norm, dropout, a frozen weight."""

    def __init__(self, channels: int, classes: int, dimensions: int = 2) -> None:
        super().__init__()
        conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dimensions]
        norm = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dimensions]
        self.layers = nn.Sequential(
            conv(channels, 6, 3, padding=1), norm(6), nn.Softplus(), nn.Dropout(0.5), conv(6, classes, 3, padding=1)
        )
        next(self.layers.parameters()).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def curved(channels: int = 2, scheme: LabelScheme = ORGANS, dimensions: int = 2) -> Segmenter:
    """A segmenter around ``Curved``, in float64, in evaluation mode."""
    torch.manual_seed(3)
    network = Curved(channels, len(scheme.tissues), dimensions).double().eval()
    modalities = tuple(f"m{i}" for i in range(channels))
    return Segmenter(network, Softmax(scheme), modalities, preprocess=Unchanged())


def organs(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """A random label map in the numbers of ``ORGANS``."""
    draw = torch.randint(0, 3, shape, generator=torch.Generator().manual_seed(seed))
    return torch.tensor([0, 2, 5])[draw]


def normal(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Standard normal float64 numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scene(batch: int = 3) -> tuple[Segmenter, Tensor, Tensor]:
    """A curved victim, images of two modalities, and their truth."""
    return curved(), normal((batch, 2, 6, 5)), organs((batch, 6, 5))
