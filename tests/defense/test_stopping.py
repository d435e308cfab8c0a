"""A training that is asked to end saves first; one that is killed at any moment goes on to the same bits."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from defense.small_training import (
    ORGAN,
    SCHEDULE,
    accuracy,
    batches,
    checkpoints,
    fresh,
    killed_at,
    same,
    train,
    weights,
)
from study.processes import LIMIT, warm

from medadv.defense.crops import Batch
from medadv.defense.lessons import Plain
from medadv.defense.stopping import SIGNALS, Interrupted, Stopping
from medadv.defense.training import CURVE, Point, Validation, fit
from medadv.errors import StoppedError
from medadv.victims.head import Softmax


@pytest.fixture(autouse=True)
def ctrl_c_is_heard() -> Iterator[None]:
    """A shell lets its background jobs, and so their tests, ignore Ctrl-C."""
    held = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, held)


def hand_over(number: int) -> None:
    """A signal to this process, as another would send it."""
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("step", [2, 7, 11])
def test_a_signal_finishes_the_step_saves_and_ends(tmp_path: Path, number: signal.Signals, step: int) -> None:
    """Step 7 is to be validated, 11 is the last one."""
    undisturbed, curve = train(tmp_path / "undisturbed")
    before = [signal.getsignal(each) for each in SIGNALS]

    def signalled(k: int) -> Batch:
        if k == step:
            hand_over(number)
        return batches(k)

    told = f"stopped by {number.name} after step {step + 1} of 12"
    with pytest.raises(StoppedError, match=told) as caught:
        train(tmp_path / "stopped", source=signalled)
    assert caught.value.exit_code == 128 + number
    assert "the same command goes on from there" in str(caught.value)
    assert [signal.getsignal(each) for each in SIGNALS] == before
    assert checkpoints(tmp_path / "stopped")[-1] == f"checkpoint-{step + 1:08d}.pt"
    assert not (tmp_path / "stopped" / CURVE).exists()
    seen: list[int] = []
    resumed, again = train(tmp_path / "stopped", source=lambda k: seen.append(k) or batches(k))
    assert seen == list(range(step + 1, 12))
    assert same(weights(resumed), weights(undisturbed))
    assert again == curve


def test_a_validation_in_hand_is_dropped_and_comes_first_afterwards(tmp_path: Path) -> None:
    undisturbed, curve = train(tmp_path / "undisturbed")
    network = fresh()
    calls = 0

    def signalled() -> Validation:
        nonlocal calls
        calls += 1
        if calls == 2:
            hand_over(signal.SIGTERM)
            pytest.fail("the validation went on")
        return accuracy(network)()

    with pytest.raises(StoppedError, match="after step 8 of 12"):
        train(tmp_path / "stopped", network=network, validate=signalled)
    assert checkpoints(tmp_path / "stopped")[-1] == "checkpoint-00000008.pt"
    resumed, again = train(tmp_path / "stopped")
    assert same(weights(resumed), weights(undisturbed))
    assert again == curve


def test_a_signal_after_the_last_validation_is_not_lost(tmp_path: Path) -> None:
    """The process is to end, though the training is over."""
    network = fresh()
    judge = accuracy(network)

    def watched(point: Point, steps: int) -> None:
        if point.step == steps - 1:
            hand_over(signal.SIGTERM)

    lesson = Plain(network, Softmax(ORGAN))
    with pytest.raises(StoppedError, match="after step 12 of 12"):
        fit(lesson, network, batches, SCHEDULE, folder=tmp_path, validate=judge, watch=watched)
    _, curve = train(tmp_path, source=killed_at(0))
    assert len(curve) == 12


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    def impatient(k: int) -> Batch:
        if k == 5:
            hand_over(signal.SIGINT)
            hand_over(signal.SIGINT)
        return batches(k)

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, source=impatient)
    assert checkpoints(tmp_path) == ["checkpoint-00000004.pt"]


def test_what_is_ignored_stays_ignored() -> None:
    """A job in the background of a shell does not hear Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        stopping = Stopping()
        with stopping.listening():
            hand_over(signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
        assert not stopping.signal
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_trains_without_listening(tmp_path: Path) -> None:
    """Python hands signals to the main thread alone."""
    done: list[int] = []
    thread = threading.Thread(target=lambda: done.append(len(train(tmp_path)[1])))
    thread.start()
    thread.join()
    assert done == [12]


def test_what_may_be_dropped_is_dropped_even_when_the_signal_came_before() -> None:
    stopping = Stopping()
    with stopping.listening():
        hand_over(signal.SIGTERM)
        assert stopping.signal == signal.SIGTERM
        with pytest.raises(Interrupted), stopping.droppable():
            pytest.fail("it was begun")  # pragma: no cover


# Kills


def killed(folder: Path, moment: str, count: int) -> None:
    """A training that is killed at the n-th of such moments."""
    import torch

    torch.set_num_threads(1)
    calls = 0

    def counted(kind: str) -> None:
        nonlocal calls
        calls += kind == moment
        if calls == count and kind == moment:
            hand_over(signal.SIGKILL)

    flush, rename = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        counted("flush")
        flush(descriptor)

    def replace_(self: Path, target: Path) -> Path:
        counted("name")
        return rename(self, target)

    os.fsync, Path.replace = fsync, replace_  # type: ignore[assignment, method-assign]
    network = fresh()

    def source(k: int) -> Batch:
        counted("batch")
        return batches(k)

    def validate() -> Validation:
        counted("validation")
        return accuracy(network)()

    train(folder, replace(SCHEDULE, save_every=3), network, validate, source)


def end(folder: Path, moment: str, count: int) -> int | None:
    process = warm().Process(target=killed, args=(folder, moment, count))
    process.start()
    process.join(LIMIT)
    return process.exitcode


def test_a_killed_training_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """By SIGKILL, in processes of their own: in a step, while a checkpoint is written, and before it has its name."""
    undisturbed, curve = train(tmp_path / "undisturbed")
    folder = tmp_path / "killed"
    for moment, count in (("batch", 2), ("flush", 1), ("batch", 5), ("name", 2), ("validation", 2)):
        assert end(folder, moment, count) == -signal.SIGKILL
    assert checkpoints(folder)
    resumed, again = train(folder, replace(SCHEDULE, save_every=3))
    assert same(weights(resumed), weights(undisturbed))
    assert again == curve


@pytest.mark.long
def test_a_training_killed_forty_times_reaches_the_same_bits(tmp_path: Path) -> None:
    undisturbed, curve = train(tmp_path / "undisturbed")
    draws = random.Random(0)
    for round_ in range(4):
        folder = tmp_path / f"killed-{round_}"
        for _ in range(10):
            moment = draws.choice(["batch", "flush", "name", "validation"])
            assert end(folder, moment, draws.randint(1, 3)) in (-signal.SIGKILL, 0)
        resumed, again = train(folder, replace(SCHEDULE, save_every=3))
        assert same(weights(resumed), weights(undisturbed))
        assert again == curve
