"""The attack inside a lesson meets crops that overflow and networks that have just begun: no reason to end at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from defense.small_training import ORGAN, SCHEDULE, Network, accuracy, batches, fresh
from torch import Tensor, nn

from medadv.attack.presets import fgsm
from medadv.defense.checkpoints import Checkpoints
from medadv.defense.crops import Batch
from medadv.defense.inner import InnerAttack
from medadv.defense.lessons import Hardened, Plain, Trades
from medadv.defense.training import Point, fit
from medadv.errors import GradientError, VictimError
from medadv.victims.head import Head, Sigmoid, Softmax
from medadv.victims.segmentation import Segmenter

HEAD = Softmax(ORGAN)
PGD = InnerAttack(2)

LESSONS: dict[str, Callable[[nn.Module, Head], nn.Module]] = {
    "plain": Plain,
    "hardened": lambda network, head: Hardened(network, head, PGD),
    "trades": lambda network, head: Trades(network, head, PGD),
}
ATTACKED = ["hardened", "trades"]


def armed(step: int = 0) -> Batch:
    """A batch that can be attacked."""
    return replace(batches(step), radius=torch.full((2, 1), 0.2), cases=("Kim", "Lee"))


def overflowing(*steps: int) -> Callable[[int], Batch]:
    """In these steps one crop is finite, and nothing that is computed of it."""

    def source(k: int) -> Batch:
        batch = armed(k)
        if k in steps:
            batch.z[1] = batch.z[1].sign() * 3e38
        return batch

    return source


def learnt(
    lesson: str, folder: Path, source: Callable[[int], Batch], network: nn.Module | None = None
) -> tuple[list[str], list[Point]]:
    """What is told of a training, and its curve."""
    said: list[str] = []
    network = network or fresh()
    kept = Checkpoints(folder, say=said.append)
    curve = fit(LESSONS[lesson](network, HEAD), network, source, SCHEDULE, folder=kept, validate=accuracy(network))
    assert all(torch.isfinite(tensor).all() for tensor in network.state_dict().values())
    return said, curve


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_crop_that_overflows_is_skipped_and_told_whatever_is_learnt(tmp_path: Path, lesson: str) -> None:
    said, curve = learnt(lesson, tmp_path, overflowing(5))
    assert said == ["the training's loss is nan at step 5; the step is skipped (cases: Kim, Lee)"]
    assert [point.step for point in curve if not math.isfinite(point.loss)] == [5]


@pytest.mark.parametrize("lesson", LESSONS)
def test_too_many_that_overflow_end_the_training_and_are_named(tmp_path: Path, lesson: str) -> None:
    with pytest.raises(VictimError, match="the training's loss is nan at step 5") as caught:
        learnt(lesson, tmp_path, overflowing(2, 3, 4, 5))
    assert "the cases Kim, Lee, after 3 steps in a row" in str(caught.value)


class Steep(Network):
    """Its answer is finite; its slope along the input is not, where a crop asks for it by its first voxel."""

    def forward(self, z: Tensor) -> Tensor:
        first = z[:, :, :1, :1]
        return super().forward(z) + torch.where(first > 100, first - first.detach(), 1.0).abs().sqrt()


@pytest.mark.parametrize("lesson", ATTACKED)
def test_a_crop_whose_slope_is_not_finite_does_not_pass_for_an_attacked_one(tmp_path: Path, lesson: str) -> None:
    """The loss on the crop as it is would be finite: nobody would hear that nothing was attacked."""

    def source(k: int) -> Batch:
        batch = armed(k)
        if k == 5:
            batch.z[0, :, 0, 0] = 200
        return batch

    torch.manual_seed(1)
    assert Plain(Steep(), HEAD)(source(5)).isfinite()
    said, _ = learnt(lesson, tmp_path, source, Steep())
    assert said == ["the training's loss is nan at step 5; the step is skipped (cases: Kim, Lee)"]


def test_a_radius_that_is_not_finite_makes_a_loss_that_is_not_and_spares_the_others() -> None:
    network, given = fresh(), armed()
    assert given.radius is not None
    found = PGD(network, HEAD, replace(given, radius=given.radius * torch.tensor([[1.0], [torch.nan]])))
    assert torch.equal(found[:1], PGD(network, HEAD, given.take(torch.tensor([0]))))
    assert found[1].isnan().all()


def test_a_network_without_gradient_is_refused_all_the_same() -> None:
    """It would never be attacked, and no loss would tell."""

    class Cut(Network):
        def forward(self, z: Tensor) -> Tensor:
            return super().forward(z.detach())

    with pytest.raises(GradientError, match="does not depend on its input"):
        PGD(Cut(), HEAD, armed())


@pytest.mark.parametrize("lesson", ATTACKED)
def test_first_logits_between_0_and_1_are_learnt_from(lesson: str) -> None:
    """A sigmoid head begins so by chance. Whoever attacks the network that is deployed is told still."""
    head = Sigmoid(ORGAN, ("all",))
    network = nn.Conv2d(1, 1, 1)
    nn.init.constant_(network.weight, 1e-3)
    nn.init.constant_(network.bias, 0.5)
    given = armed()
    LESSONS[lesson](network, head)(given).backward()
    assert network.weight.grad is not None
    assert network.weight.grad.abs().sum() > 0
    with pytest.raises(VictimError, match="probabilities instead of logits"):
        fgsm("0.1 sigma")(Segmenter(network, head, ("t1",), preprocess=()), given.z, given.truth)
