"""Ranks in processes of their own, forked from one warm parent, in the environment that torchrun or srun gives."""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.processes import LIMIT, warm


@dataclass(frozen=True)
class Ended:
    """How a rank ended: its exit code (negative: killed), and what its work returned or raised."""

    code: int
    result: Any


TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
SRUN = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")


def on_ranks(
    size: int, folder: Path, work: Callable[..., Any], *given: Any, names: tuple[str, str, str] = TORCHRUN
) -> list[Ended]:
    """Let ``work(group, *given)`` run on so many ranks, by rank; ``folder`` keeps what they return."""
    folder.mkdir(parents=True, exist_ok=True)
    meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    answers = [folder / f"answer-{rank}" for rank in range(size)]
    environments = [meet | dict(zip(names, map(str, (rank, size, rank)), strict=True)) for rank in range(size)]
    processes = [
        warm().Process(target=_work, args=(environment, answer, work, given))
        for environment, answer in zip(environments, answers, strict=True)
    ]
    for answer in answers:
        answer.unlink(missing_ok=True)
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(LIMIT)
            if process.is_alive():
                raise TimeoutError(f"a rank took more than {LIMIT} s")
    finally:
        for process in processes:
            process.kill()
            process.join()
    return [
        Ended(process.exitcode or 0, pickle.loads(answer.read_bytes()) if answer.exists() else None)
        for process, answer in zip(processes, answers, strict=True)
    ]


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        port: int = asked.getsockname()[1]
        return port


def _work(environment: dict[str, str], answer: Path, work: Callable[..., Any], given: tuple[Any, ...]) -> None:
    import torch

    from medadv.defense.ranks import joined
    from medadv.errors import MedadvError

    os.environ.update(environment)
    torch.set_num_threads(1)
    try:
        with joined(torch.device("cpu")) as group:
            result = work(group, *given)
    except MedadvError as error:
        result = error
    answer.write_bytes(pickle.dumps(result))
