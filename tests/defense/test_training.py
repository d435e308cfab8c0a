"""``fit``: it learns, it is the same again, and it goes on where it was stopped."""

from __future__ import annotations

import csv
import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from medadv.defense.crops import Batch
from medadv.defense.lessons import Plain
from medadv.defense.training import CHECKPOINT, CURVE, Point, Schedule, fit
from medadv.errors import ConfigError, RunError, VictimError
from medadv.labels import LabelScheme
from medadv.victims.head import Sigmoid, Softmax

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


def accuracy(network: nn.Module) -> Callable[[], float]:
    def validate() -> float:
        batch = batches(10_000)
        return ((network(batch.z).argmax(1) == 1) == (batch.truth == 3)).float().mean().item()

    return validate


def train(
    folder: Path,
    schedule: Schedule = SCHEDULE,
    network: nn.Module | None = None,
    validate: Callable[[], float] | None = None,
    source: Callable[[int], Batch] = batches,
) -> tuple[nn.Module, list[Point]]:
    network = network or fresh()
    lesson = Plain(network, Softmax(ORGAN))
    curve = fit(lesson, network, source, schedule, folder=folder, validate=validate or accuracy(network))
    return network, curve


def test_a_network_learns(tmp_path: Path) -> None:
    network, curve = train(tmp_path, replace(SCHEDULE, steps=60, validate_every=20))
    losses = [point.loss for point in curve]
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])
    assert accuracy(network)() > 0.9 > accuracy(fresh())()
    assert not network.training


def test_a_region_head_learns_by_the_same_lesson(tmp_path: Path) -> None:
    network = fresh(channels=1)
    lesson = Plain(network, Sigmoid(ORGAN, ("all",)))
    schedule = replace(SCHEDULE, steps=40, validate_every=40)
    curve = fit(lesson, network, batches, schedule, folder=tmp_path, validate=lambda: 0.0)
    losses = [point.loss for point in curve]
    assert sum(losses[-10:]) < 0.75 * sum(losses[:10])


def test_the_same_training_twice_gives_the_same_bits(tmp_path: Path) -> None:
    first, curve = train(tmp_path / "first")
    torch.manual_seed(77)
    second, again = train(tmp_path / "second")
    assert same(weights(first), weights(second))
    assert curve == again
    assert (tmp_path / "first" / CURVE).read_bytes() == (tmp_path / "second" / CURVE).read_bytes()


def test_another_seed_is_another_training(tmp_path: Path) -> None:
    one, _ = train(tmp_path / "one")
    other, _ = train(tmp_path / "other", replace(SCHEDULE, seed=6))
    assert not same(weights(one), weights(other))


def test_global_random_numbers_stay_where_they_are(tmp_path: Path) -> None:
    network = fresh()
    before = torch.get_rng_state()
    train(tmp_path, network=network)
    assert torch.equal(torch.get_rng_state(), before)


class Stopped(BaseException):
    """As abrupt as a kill, but survivable."""


def stopped_at(step: int) -> Callable[[int], Batch]:
    def source(k: int) -> Batch:
        if k == step:
            raise Stopped
        return batches(k)

    return source


@pytest.mark.parametrize("step", range(12))
def test_a_training_that_was_stopped_reaches_the_same_bits(tmp_path: Path, step: int) -> None:
    undisturbed, curve = train(tmp_path / "undisturbed")
    with pytest.raises(Stopped):
        train(tmp_path / "stopped", source=stopped_at(step))
    assert (tmp_path / "stopped" / CHECKPOINT).exists() == (step >= 4)
    seen: list[int] = []
    torch.manual_seed(step)
    resumed, again = train(tmp_path / "stopped", source=lambda k: seen.append(k) or batches(k))
    assert same(weights(resumed), weights(undisturbed))
    assert again == curve
    assert seen == list(range(step // 4 * 4, 12))
    assert sorted(path.name for path in (tmp_path / "stopped").iterdir()) == [CHECKPOINT, CURVE]


def test_a_training_that_is_done_is_not_done_again(tmp_path: Path) -> None:
    """Its checkpoint stays until the weights are put away."""
    network, curve = train(tmp_path)
    again, told = train(tmp_path, source=stopped_at(0))
    assert same(weights(again), weights(network))
    assert told == curve


def test_stopped_after_every_checkpoint(tmp_path: Path) -> None:
    undisturbed, curve = train(tmp_path / "undisturbed")
    for step in (5, 9, 11):
        with pytest.raises(Stopped):
            train(tmp_path / "stopped", source=stopped_at(step))
    resumed, again = train(tmp_path / "stopped")
    assert same(weights(resumed), weights(undisturbed))
    assert again == curve


def test_the_best_validation_is_kept(tmp_path: Path) -> None:
    network = fresh()
    kept: list[dict[str, Tensor]] = []
    marks = iter([0.3, 0.8, 0.5])

    def validate() -> float:
        assert not network.training
        assert not torch.is_grad_enabled()
        kept.append(weights(network))
        return next(marks)

    _, curve = train(tmp_path, network=network, validate=validate)
    assert [(point.step, point.dice) for point in curve if point.dice is not None] == [(3, 0.3), (7, 0.8), (11, 0.5)]
    assert same(weights(network), kept[1])
    assert not same(kept[1], kept[2])


def test_the_best_of_before_the_stop_is_kept(tmp_path: Path) -> None:
    network = fresh()
    with pytest.raises(Stopped):
        train(tmp_path, network=network, validate=lambda: 0.9, source=stopped_at(5))
    best = torch.load(tmp_path / CHECKPOINT, weights_only=True)["best"]
    resumed, _ = train(tmp_path, validate=lambda: 0.1)
    assert same(weights(resumed), best)


def test_of_equals_the_first_is_kept(tmp_path: Path) -> None:
    network = fresh()
    kept: list[dict[str, Tensor]] = []
    train(tmp_path, network=network, validate=lambda: kept.append(weights(network)) or 0.5)
    assert same(weights(network), kept[0])


def test_the_last_step_is_validated_whatever_the_interval(tmp_path: Path) -> None:
    _, curve = train(tmp_path, replace(SCHEDULE, steps=5, validate_every=3))
    assert [point.step for point in curve if point.dice is not None] == [2, 4]


def test_the_curve_is_a_table(tmp_path: Path) -> None:
    _, curve = train(tmp_path)
    with (tmp_path / CURVE).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["step"]) for row in rows] == list(range(12))
    assert [float(row["loss"]) for row in rows] == [point.loss for point in curve]
    assert [float(row["dice"]) if row["dice"] else None for row in rows] == [point.dice for point in curve]


def test_a_watch_sees_every_step(tmp_path: Path) -> None:
    network = fresh()
    seen: list[tuple[int, int]] = []
    fit(
        Plain(network, Softmax(ORGAN)),
        network,
        batches,
        SCHEDULE,
        folder=tmp_path,
        validate=lambda: 0.0,
        watch=lambda point, steps: seen.append((point.step, steps)),
    )
    assert seen == [(step, 12) for step in range(12)]


# The schedule


def test_the_rate_rises_and_falls_along_a_cosine() -> None:
    schedule = Schedule(steps=200, rate=1.0)
    rates = [schedule.rate_at(step) for step in range(200)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    expected = [0.01 + 0.99 * (1 + math.cos(math.pi * k / 190)) / 2 for k in range(190)]
    assert rates[10:] == pytest.approx(expected)


def test_the_rate_of_the_schedule_is_the_optimisers(tmp_path: Path) -> None:
    _, curve = train(tmp_path)
    assert [point.rate for point in curve] == [SCHEDULE.rate_at(step) for step in range(12)]


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"validate_every": 0}, {"steps": -3}])
def test_a_schedule_of_nothing_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="at least one step"):
        Schedule(**wrong)  # type: ignore[arg-type]


# What goes wrong


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_training(tmp_path: Path, poison: float) -> None:
    def source(step: int) -> Batch:
        batch = batches(step)
        return Batch(batch.z * poison, batch.truth) if step == 6 else batch

    with pytest.raises(VictimError, match="the training's loss is nan at step 6") as caught:
        train(tmp_path, source=source)
    assert "training.rate" in str(caught.value)
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert all(torch.isfinite(tensor).all() for tensor in state["network"].values())


@pytest.fixture
def half_way(tmp_path: Path) -> Path:
    with pytest.raises(Stopped):
        train(tmp_path, source=stopped_at(6))
    return tmp_path


@pytest.mark.parametrize("change", [{"steps": 13}, {"rate": 0.01}, {"seed": 6}, {"validate_every": 2}, {"clip": 1.0}])
def test_a_checkpoint_of_another_schedule_is_refused(half_way: Path, change: dict[str, float]) -> None:
    with pytest.raises(RunError, match="belongs to another training schedule"):
        train(half_way, replace(SCHEDULE, **change))


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "nothing left": lambda content: b"",
    "half of it": lambda content: content[: len(content) // 2],
    "no archive": lambda content: b"checkpoint",
    "a flipped byte in its head": lambda content: b"X" + content[1:],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_is_told_and_not_used(half_way: Path, damage: Callable[[bytes], bytes]) -> None:
    path = half_way / CHECKPOINT
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RunError, match="checkpoint is damaged") as caught:
        train(half_way)
    assert str(path) in str(caught.value)


FOREIGN: dict[str, object] = {
    "a list": [1, 2],
    "a tensor": torch.ones(3),
    "no keys": {},
    "other keys": {"schedule": None},
    "a curve of something else": {"curve": [{"epoch": 1}]},
    "a curve that is none": {"curve": 3},
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_something_else_in_its_place_is_told(half_way: Path, content: object) -> None:
    state = torch.load(half_way / CHECKPOINT, weights_only=True)
    torch.save(state | content if isinstance(content, dict) and "curve" in content else content, half_way / CHECKPOINT)
    with pytest.raises(RunError, match="checkpoint"):
        train(half_way)


def test_a_checkpoint_of_another_network_is_told(half_way: Path) -> None:
    with pytest.raises(RunError, match="checkpoint is damaged"):
        train(half_way, network=nn.Conv2d(1, 2, 3, padding=1))


def test_a_pickle_is_never_run(half_way: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return Path.touch, (half_way / "owned",)  # type: ignore[return-value]

    (half_way / CHECKPOINT).write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(RunError, match="checkpoint is damaged"):
        train(half_way)
    assert not (half_way / "owned").exists()
