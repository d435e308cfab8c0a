"""Ranks learn one network: the same parameters on all, the same as one process up to rounding; they end together."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from defense import rank_processes
from defense.rank_processes import on_ranks
from defense.small_training import (
    ORGAN,
    SCHEDULE,
    accuracy,
    batches,
    checkpoints,
    fresh,
    train,
    unshared,
    weights,
)
from torch import Tensor, nn

from medadv.attack.rng import Rng
from medadv.attack.victim import held_still
from medadv.defense.checkpoints import Checkpoints
from medadv.defense.crops import Batch
from medadv.defense.inner import InnerAttack
from medadv.defense.lessons import Distilled, Hardened, Plain, Trades
from medadv.defense.ranks import ALONE, Group, Launch, joined, launched
from medadv.defense.training import Point, Validation, fit
from medadv.errors import ConfigError, RunError, StoppedError, VictimError
from medadv.victims.combine import Scaled
from medadv.victims.head import Softmax
from medadv.victims.segmentation import Segmenter


def digest(network: nn.Module) -> str:
    """Of parameters and buffers."""
    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in network.state_dict().values())).hexdigest()


class Attacked(Plain):
    """Learns from inputs that an attack inside the lesson has moved, as adversarial training does."""

    def forward(self, batch: Batch) -> Tensor:
        with held_still([self.network]):
            z = batch.z.clone().requires_grad_()
            loss = super().forward(Batch(z, batch.truth))
            (gradient,) = torch.autograd.grad(loss, z)
        # Smooth where a sign would turn rounding into a step.
        move = gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        return super().forward(Batch(batch.z + move, batch.truth))


def share(group: Group) -> Callable[[int], Batch]:
    """One sample of each batch for each of two ranks; the whole batch for one process."""

    def source(k: int) -> Batch:
        whole = batches(k)
        if group.size == 1:
            return whole
        mine = slice(group.rank, group.rank + 1)
        return Batch(whole.z[mine], whole.truth[mine], cases=("Kim", "Lee")[mine])

    return source


def attacked(group: Group, folder: Path, accumulate: int = 1) -> tuple[str, dict[str, Tensor], list[Point]]:
    network = unshared()
    schedule = replace(SCHEDULE, accumulate=accumulate)
    lesson = Attacked(network, Softmax(ORGAN))
    curve = fit(lesson, network, share(group), schedule, folder=folder, validate=accuracy(network), group=group)
    return digest(network), weights(network), curve


@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_ranks_learn_what_one_process_learns_from_both_their_crops(tmp_path: Path, accumulate: int) -> None:
    """Through an attack inside the lesson that switches the parameters' gradients off and on."""
    first, second = on_ranks(2, tmp_path, attacked, tmp_path / "two", accumulate)
    assert (first.code, second.code) == (0, 0)
    assert first.result[0] == second.result[0]
    _, alone, curve = attacked(ALONE, tmp_path / "one", accumulate)
    for name, tensor in alone.items():
        torch.testing.assert_close(first.result[1][name], tensor, rtol=1e-3, atol=1e-5)
    losses = [point.loss for point in curve]
    for ended in (first, second):
        assert [point.loss for point in ended.result[2]] == pytest.approx(losses, rel=1e-3)
    assert [point.dice for point in first.result[2]] == [point.dice for point in second.result[2]]


def lessons(group: Group, folder: Path) -> dict[str, tuple[str, dict[str, Tensor], list[float]]]:
    """The real ones. In float64, so that rounding turns no sign of a gradient into another step."""
    head, pgd = Softmax(ORGAN), InnerAttack(2, lowest=0.5)
    teacher = Segmenter(Scaled(fresh(), 4.0).double(), head, ("t1",), preprocess=())
    made: dict[str, Callable[[nn.Module], nn.Module]] = {
        "hardened": lambda network: Hardened(network, head, pgd, share=0.7),
        "trades": lambda network: Trades(network, head, pgd),
        "distilled": lambda network: Distilled(network, head, teacher, 4.0),
    }

    def source(k: int) -> Batch:
        whole, names = batches(k), ("Kim", "Lee")
        radius, rng = torch.full((2, 1), 0.4, dtype=torch.float64), Rng.seeded(k, names)
        whole = Batch(whole.z.double(), whole.truth, whole.z > -1, radius, cases=names, rng=rng)
        return whole if group.size == 1 else whole.take(torch.tensor([group.rank]))

    learnt, schedule = {}, replace(SCHEDULE, steps=8, validate_every=8)
    for name, make in made.items():
        network = unshared().double()
        lesson, judge = make(network), partial(Validation, 0.0)
        curve = fit(lesson, network, source, schedule, folder=folder / name, validate=judge, group=group)
        losses = [point.loss for point in curve]
        learnt[name] = digest(network), weights(network), losses
    return learnt


def test_every_lesson_teaches_two_ranks_what_it_teaches_one_process(tmp_path: Path) -> None:
    first, second = on_ranks(2, tmp_path, lessons, tmp_path / "two")
    assert (first.code, second.code) == (0, 0)
    for name, (_, alone, losses) in lessons(ALONE, tmp_path / "one").items():
        assert first.result[name][0] == second.result[name][0], name
        for key, tensor in alone.items():
            torch.testing.assert_close(first.result[name][1][key], tensor, rtol=1e-9, atol=1e-11)
        for ended in (first, second):
            assert ended.result[name][2] == pytest.approx(losses, rel=1e-9)


def poisoned(group: Group, folder: Path, steps: tuple[int, ...]) -> tuple[str, list[str]]:
    """With batch normalisation and dropout; one rank's crop is bad in these steps."""
    network, said, source = fresh(), [], share(group)

    def bad(k: int) -> Batch:
        batch = source(k)
        return Batch(batch.z * torch.nan, batch.truth, cases=batch.cases) if k in steps and group.rank == 1 else batch

    train(Checkpoints(folder, say=said.append), network=network, source=bad, group=group)
    return digest(network), said


def test_a_step_that_one_rank_must_skip_is_skipped_by_all(tmp_path: Path) -> None:
    first, second = on_ranks(2, tmp_path, poisoned, tmp_path / "runs", (5,))
    assert first.result[0] == second.result[0]  # running statistics are level, too
    assert first.result[1] == ["the training's loss is nan at step 5; the step is skipped (cases: Lee)"]
    assert second.result[1] == []


def test_all_ranks_end_for_what_one_rank_cannot_learn_and_name_its_cases(tmp_path: Path) -> None:
    for ended in on_ranks(2, tmp_path, poisoned, tmp_path / "runs", (5, 6, 7, 8)):
        assert isinstance(ended.result, VictimError)
        assert "the cases Lee, after 3" in str(ended.result)


def disturbed(group: Group, folder: Path, number: int, step: int) -> str:
    """Rank 1 sends itself a signal while it takes a batch; 0 is none."""
    network, source = fresh(), share(group)

    def signalled(k: int) -> Batch:
        if number and k == step and group.rank == 1:
            os.kill(os.getpid(), number)
        return source(k)

    train(folder, network=network, source=signalled, group=group)
    return digest(network)


def test_a_signal_to_one_rank_stops_all_after_the_same_step_and_they_go_on(tmp_path: Path) -> None:
    undisturbed = on_ranks(2, tmp_path, disturbed, tmp_path / "undisturbed", 0, 0)
    for ended in on_ranks(2, tmp_path, disturbed, tmp_path / "stopped", signal.SIGTERM, 5):
        assert isinstance(ended.result, StoppedError)
        assert "stopped by SIGTERM after step 6 of 12" in str(ended.result)
        assert ended.result.exit_code == 143
    assert checkpoints(tmp_path / "stopped")[-1] == "checkpoint-00000006.pt"
    resumed = on_ranks(2, tmp_path, disturbed, tmp_path / "stopped", 0, 0)
    assert {ended.result for ended in resumed} == {ended.result for ended in undisturbed}
    assert len({ended.result for ended in resumed}) == 1


def test_a_rank_that_is_killed_is_missed_by_the_others_and_they_go_on(tmp_path: Path) -> None:
    first, second = on_ranks(2, tmp_path, disturbed, tmp_path / "killed", signal.SIGKILL, 6)
    assert second.code == -signal.SIGKILL
    assert isinstance(first.result, RunError)
    assert "another rank" in first.result.problem
    assert "goes on from the last checkpoint" in str(first.result)
    resumed = on_ranks(2, tmp_path, disturbed, tmp_path / "killed", 0, 0)
    assert {ended.code for ended in resumed} == {0}
    with pytest.raises(RunError, match=r"ranks: 2 in .*, 1 here"):
        train(tmp_path / "killed")


def overheard(group: Group, folder: Path) -> list[Any]:
    """Rank 1 leaves with an error while the main one waits for it."""
    heard: list[Any] = []
    with group.main_first():
        heard.append((folder / "prepared").exists())
        (folder / "prepared").touch()
    heard += [group.agree(group.rank == 1), group.agree(False)]
    heard += [group.as_main(float(group.rank)), group.gathered(f"I am {group.rank}"), group.sum(1.0, 2.0)]
    if not group.main:
        raise ConfigError("nothing to learn from", got=heard)
    group.barrier()
    return heard


@pytest.mark.parametrize("names", [rank_processes.TORCHRUN, rank_processes.SRUN], ids=["torchrun", "srun"])
def test_ranks_hear_each_other_and_miss_who_leaves(tmp_path: Path, names: tuple[str, str, str]) -> None:
    first, second = on_ranks(2, tmp_path, overheard, tmp_path, names=names)
    told = [True, False, (0.0,), ["I am 0", "I am 1"], (2.0, 4.0)]
    assert isinstance(second.result, ConfigError)
    assert second.result.details["got"] == [True, *told]
    assert isinstance(first.result, RunError)
    assert first.result.problem == "another rank of this training has ended"


# How a process was started

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}
SRUN = {"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "3", "SLURM_LOCALID": "2"}


@pytest.mark.parametrize(
    ("environment", "launch"),
    [
        ({}, Launch(0, 1, 0)),
        (TORCHRUN, Launch(3, 4, 1)),
        (SRUN, Launch(2, 3, 2)),
        ({**SRUN, **TORCHRUN}, Launch(3, 4, 1)),  # torchrun, started by srun
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"}, Launch(0, 1, 0)),  # the batch script
    ],
)
def test_the_environment_tells_how_a_process_was_started(environment: dict[str, str], launch: Launch) -> None:
    assert launched(environment) == launch


@pytest.mark.parametrize("wrong", [{"RANK": "4"}, {"RANK": "-1"}, {"WORLD_SIZE": "two"}, {"LOCAL_RANK": ""}])
def test_an_environment_that_names_no_rank_is_told(wrong: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="names no rank"):
        launched({**TORCHRUN, **wrong})


def test_ranks_that_do_not_know_where_to_meet_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with (
        pytest.raises(ConfigError, match="do not know where to meet") as caught,
        joined(torch.device("cpu"), Launch(0, 2, 0)),
    ):
        pytest.fail("there is nobody")  # pragma: no cover
    assert "MASTER_PORT" in str(caught.value)


def test_one_process_is_a_group_too() -> None:
    with joined(torch.device("cpu"), Launch()) as group:
        assert group is ALONE
    network = nn.Linear(1, 1)
    assert ALONE.main
    assert ALONE.wrap(network) is network
    assert ALONE.sum(1.0, 2.0) == (1.0, 2.0) == ALONE.as_main(1.0, 2.0)
    assert ALONE.gathered("alone") == ["alone"]
    assert not ALONE.agree(False)
    ALONE.barrier()


def test_fewer_cases_than_ranks_are_refused() -> None:
    group = Group(Launch(0, 3, 0))
    group.check_enough(3)
    with pytest.raises(ConfigError, match="fewer training cases than ranks") as caught:
        group.check_enough(2)
    assert "at most 2 ranks" in str(caught.value)
