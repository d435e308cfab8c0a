"""A training of a second: a bright square in noise, and a network with all whose state could be forgotten."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from medadv.defense.checkpoints import Checkpoints
from medadv.defense.crops import Batch
from medadv.defense.lessons import Plain
from medadv.defense.ranks import ALONE, Group
from medadv.defense.schedule import Schedule
from medadv.defense.training import Point, Validation, fit
from medadv.labels import LabelScheme
from medadv.victims.head import Softmax

ORGAN = LabelScheme("organ", {"background": 0, "organ": 3}, {"all": ("organ",)})
SCHEDULE = Schedule(steps=12, rate=0.02, validate_every=4, seed=5)


class Network(nn.Module):
    """With everything whose state could be forgotten: normalisation with running statistics, dropout."""

    def __init__(self, channels: int = 2) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.2), nn.Conv2d(6, channels, 1)
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)


def fresh(channels: int = 2) -> Network:
    torch.manual_seed(1)
    return Network(channels)


def unshared() -> Network:
    """Without what the samples of a batch share: its statistics, and the order of its random numbers."""
    network = fresh()
    network.layers[1] = nn.GroupNorm(2, 6)
    network.layers[3] = nn.Identity()
    return network


def batches(step: int) -> Batch:
    """A bright square in noise, elsewhere each step."""
    generator = torch.Generator().manual_seed(step)
    z = torch.randn((2, 1, 10, 10), generator=generator)
    truth = torch.zeros(2, 10, 10, dtype=torch.int64)
    at = int(torch.randint(0, 6, (), generator=generator))
    truth[:, at : at + 4, 2:7] = 3
    return Batch(z + (truth == 3)[:, None] * 2.5, truth)


def weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def accuracy(network: nn.Module) -> Callable[[], Validation]:
    def validate() -> Validation:
        batch = batches(10_000)
        return Validation(((network(batch.z).argmax(1) == 1) == (batch.truth == 3)).float().mean().item())

    return validate


def train(
    folder: Path | Checkpoints,
    schedule: Schedule = SCHEDULE,
    network: nn.Module | None = None,
    validate: Callable[[], Validation] | None = None,
    source: Callable[[int], Batch] = batches,
    group: Group = ALONE,
) -> tuple[nn.Module, list[Point]]:
    network = network or fresh()
    lesson = Plain(network, Softmax(ORGAN))
    judge = validate or accuracy(network)
    return network, fit(lesson, network, source, schedule, folder=folder, validate=judge, group=group)


class Killed(BaseException):
    """As abrupt as a kill, but survivable."""


def killed_at(step: int) -> Callable[[int], Batch]:
    """The batches, and an end before that of this step."""

    def source(k: int) -> Batch:
        if k == step:
            raise Killed
        return batches(k)

    return source


def checkpoints(folder: Path) -> list[str]:
    """The names of those that lie there, the oldest first."""
    return sorted(path.name for path in folder.glob("checkpoint-*"))
