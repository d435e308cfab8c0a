"""Checkpoints: a training that was stopped goes on to the same bits; a bad checkpoint is told, and never used."""

from __future__ import annotations

import errno
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from defense.small_training import SCHEDULE, Killed, batches, checkpoints, fresh, killed_at, same, train, weights
from torch import nn

from medadv.defense.checkpoints import Checkpoints
from medadv.defense.training import CURVE, Validation
from medadv.errors import MedadvWarning, RunError

NAME = "checkpoint-{:08d}.pt"


@pytest.mark.parametrize("step", range(12))
def test_a_training_that_was_stopped_reaches_the_same_bits(tmp_path: Path, step: int) -> None:
    undisturbed, curve = train(tmp_path / "undisturbed")
    with pytest.raises(Killed):
        train(tmp_path / "stopped", source=killed_at(step))
    before = [NAME.format(done) for done in (4, 8) if done <= step]
    assert checkpoints(tmp_path / "stopped") == before
    seen: list[int] = []
    torch.manual_seed(step)
    resumed, again = train(tmp_path / "stopped", source=lambda k: seen.append(k) or batches(k))
    assert same(weights(resumed), weights(undisturbed))
    assert again == curve
    assert seen == list(range(step // 4 * 4, 12))
    names = [NAME.format(8), NAME.format(12), CURVE]
    assert sorted(path.name for path in (tmp_path / "stopped").iterdir()) == names


def test_a_training_that_is_done_is_not_done_again(tmp_path: Path) -> None:
    """Its checkpoint stays until the weights are put away."""
    network, curve = train(tmp_path)
    again, told = train(tmp_path, source=killed_at(0))
    assert same(weights(again), weights(network))
    assert told == curve


def test_stopped_after_every_checkpoint(tmp_path: Path) -> None:
    undisturbed, curve = train(tmp_path / "undisturbed")
    for step in (5, 9, 11):
        with pytest.raises(Killed):
            train(tmp_path / "stopped", source=killed_at(step))
    resumed, again = train(tmp_path / "stopped")
    assert same(weights(resumed), weights(undisturbed))
    assert again == curve


def test_the_best_of_before_the_stop_is_kept(tmp_path: Path) -> None:
    network = fresh()
    with pytest.raises(Killed):
        train(tmp_path, network=network, validate=lambda: Validation(0.9), source=killed_at(5))
    best = torch.load(tmp_path / NAME.format(4), weights_only=True)["best"]
    resumed, _ = train(tmp_path, validate=lambda: Validation(0.1))
    assert same(weights(resumed), best)


@pytest.mark.parametrize("every", [1, 3, 5])
def test_checkpoints_may_lie_elsewhere_than_validations(tmp_path: Path, every: int) -> None:
    """The last one is neither; what was validated since the last is validated again."""
    schedule = replace(SCHEDULE, save_every=every)
    undisturbed, curve = train(tmp_path / "undisturbed")
    with pytest.raises(Killed):
        train(tmp_path / "stopped", schedule, source=killed_at(10))
    assert checkpoints(tmp_path / "stopped")[-1] == NAME.format(10 // every * every)
    resumed, again = train(tmp_path / "stopped", schedule)
    assert same(weights(resumed), weights(undisturbed))
    assert again == curve


def test_two_checkpoints_are_kept(tmp_path: Path) -> None:
    train(tmp_path, replace(SCHEDULE, save_every=1))
    assert checkpoints(tmp_path) == [NAME.format(11), NAME.format(12)]
    (tmp_path / ".writing-x.pt").touch()  # as a killed process leaves it
    Checkpoints(tmp_path).clear()
    assert [path.name for path in tmp_path.iterdir()] == [CURVE]


# Whose it is


@pytest.fixture
def half_way(tmp_path: Path) -> Path:
    with pytest.raises(Killed):
        train(tmp_path, source=killed_at(6))
    return tmp_path


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"steps": 13}, "schedule.steps: 12 in checkpoint-00000004.pt, 13 here"),
        ({"rate": 0.01}, "schedule.rate: 0.02 in checkpoint-00000004.pt, 0.01 here"),
        ({"seed": 6}, "schedule.seed"),
        ({"validate_every": 2}, "schedule.validate_every"),
        ({"clip": 1.0}, "schedule.clip"),
        ({"precision": "bf16"}, "schedule.precision: float32"),
        ({"accumulate": 2}, "schedule.accumulate"),
    ],
)
def test_a_checkpoint_of_another_schedule_is_refused(half_way: Path, change: dict[str, Any], told: str) -> None:
    with pytest.raises(RunError, match=f"belongs to another training\n  got: {told}"):
        train(half_way, replace(SCHEDULE, **change))


def test_what_changes_no_weight_may_change(half_way: Path) -> None:
    _, curve = train(half_way, replace(SCHEDULE, save_every=2, skips=7))
    assert len(curve) == 12


def test_a_checkpoint_of_something_else_is_refused_and_says_what_differs(tmp_path: Path) -> None:
    learnt = {"network": {"name": "UNet", "channels": (4, 8)}, "lesson": "plain"}
    with pytest.raises(Killed):
        train(Checkpoints(tmp_path, learnt), source=killed_at(6))
    for changed, told in (
        ({**learnt, "network": {"name": "UNet", "channels": (4, 16)}}, r"network.channels: \[4, 8\] in .*, \[4, 16\]"),
        ({**learnt, "temperature": 10.0}, "temperature: None in .*, 10.0 here"),
    ):
        with pytest.raises(RunError, match=f"another training\n  got: {told}"):
            train(Checkpoints(tmp_path, changed))
    _, curve = train(Checkpoints(tmp_path, learnt))
    assert len(curve) == 12


def test_a_checkpoint_of_another_network_is_told(half_way: Path) -> None:
    with pytest.raises(RunError, match="belongs to another network"):
        train(half_way, network=nn.Conv2d(1, 2, 3, padding=1))


# What is damaged


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "nothing left": lambda content: b"",
    "half of it": lambda content: content[: len(content) // 2],
    "no archive": lambda content: b"checkpoint",
    "a flipped byte in its head": lambda content: flipped(content, 0),
    "a flipped byte in its middle": lambda content: flipped(content, len(content) // 2),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_is_told_and_not_used(half_way: Path, damage: Callable[[bytes], bytes]) -> None:
    path = half_way / NAME.format(4)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RunError, match="checkpoint is damaged") as caught:
        train(half_way)
    assert str(half_way / "checkpoint-*.pt") in str(caught.value)


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_the_one_before_a_damaged_checkpoint_is_taken_and_that_is_said(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    undisturbed, curve = train(tmp_path / "undisturbed")
    with pytest.raises(Killed):
        train(tmp_path / "stopped", source=killed_at(9))
    path = tmp_path / "stopped" / NAME.format(8)
    path.write_bytes(damage(path.read_bytes()))
    said: list[str] = []
    resumed, again = train(Checkpoints(tmp_path / "stopped", say=said.append))
    (words,) = said
    assert words.startswith(f"{NAME.format(8)} is damaged")
    assert words.endswith(f"goes on from {NAME.format(4)}, the one before")
    assert same(weights(resumed), weights(undisturbed))
    assert again == curve


def test_whoever_does_not_listen_is_warned(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(tmp_path, source=killed_at(9))
    (tmp_path / NAME.format(8)).write_bytes(b"")
    with pytest.warns(MedadvWarning, match="is damaged"):
        train(tmp_path)


def test_two_damaged_checkpoints_are_told(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(tmp_path, source=killed_at(9))
    for done in (4, 8):
        (tmp_path / NAME.format(done)).write_bytes(b"")
    with pytest.raises(RunError, match="all checkpoints are damaged") as caught:
        train(tmp_path)
    assert "begin this training anew" in str(caught.value)
    assert checkpoints(tmp_path) == [NAME.format(4), NAME.format(8)]


def test_a_damaged_checkpoint_never_pushes_a_good_one_out(tmp_path: Path) -> None:
    """Damaged at 8, gone on from 4, killed at 7: what was saved at 6 and 4 is there, not what is damaged."""
    schedule = replace(SCHEDULE, save_every=2)
    with pytest.raises(Killed):
        train(tmp_path, schedule, source=killed_at(9))
    assert checkpoints(tmp_path) == [NAME.format(6), NAME.format(8)]
    shutil.copy(tmp_path / NAME.format(6), tmp_path / NAME.format(99))
    for done in (8, 99):
        (tmp_path / NAME.format(done)).write_bytes(b"")
    with pytest.raises(Killed):
        train(Checkpoints(tmp_path, say=lambda _: None), schedule, source=killed_at(8))
    assert checkpoints(tmp_path) == [NAME.format(6), NAME.format(8)]
    train(tmp_path, schedule)  # no warning: neither is damaged


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
    path = half_way / NAME.format(4)
    state = torch.load(path, weights_only=True)
    torch.save(state | content if isinstance(content, dict) and "curve" in content else content, path)
    with pytest.raises(RunError, match="checkpoint is damaged"):
        train(half_way)


def test_a_pickle_is_never_run(half_way: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return Path.touch, (half_way / "owned",)  # type: ignore[return-value]

    path = half_way / NAME.format(4)
    path.write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(RunError, match="checkpoint is damaged"):
        train(half_way)
    torch.save(Evil(), path)  # in a whole archive, too
    with pytest.raises(RunError, match="checkpoint is damaged"):
        train(half_way)
    assert not (half_way / "owned").exists()


# A disk that is full


def test_a_full_disk_stops_the_training_and_costs_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed, curve = train(tmp_path / "undisturbed")
    real, writes = torch.save, 0

    def save(state: object, stream: Any) -> None:
        nonlocal writes
        writes += 1
        if writes == 3:
            stream.write(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device")
        real(state, stream)

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(RunError, match="the disk is full") as caught:
        train(tmp_path / "full")
    assert "free space and run the same command again" in str(caught.value)
    assert sorted(path.name for path in (tmp_path / "full").iterdir()) == [NAME.format(4), NAME.format(8)]
    seen: list[int] = []
    resumed, again = train(tmp_path / "full", source=lambda k: seen.append(k) or batches(k))
    assert seen == [8, 9, 10, 11]
    assert same(weights(resumed), weights(undisturbed))
    assert again == curve


def test_a_real_disk_that_is_full_is_told_as_such() -> None:
    """torch's own writer would speak of an unexpected position."""
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(OSError, match="No space left"), full.open("wb") as stream:
        torch.save({"a": torch.ones(10_000)}, stream)
