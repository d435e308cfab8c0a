"""Ranks: the processes that learn one network together, as torchrun or srun has started them.

Each rank learns from crops of its own and holds the same parameters; gradients are averaged (DistributedDataParallel).
gloo connects CPUs, NCCL GPUs. Nobody's data cross between ranks but gradients, running statistics and a few numbers.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed as dist
from torch import nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from medadv.errors import ConfigError, RunError
from medadv.victims.memory import is_full

ANSWER = timedelta(minutes=10)
"""How long ranks wait for each other inside a step, and to find each other."""

PATIENCE = timedelta(hours=24)
"""How long ranks wait at a barrier: for what one of them prepares, saves, or is slower to validate."""

GRACE = 1.0
"""Seconds by which a rank that misses another ends later: launchers stop all at the first that ends, and name it."""

_LEFT, _GONE = "left", "gone"

_LOST = re.compile(r"gloo|nccl|connection|timed out", re.IGNORECASE)
"""How DistributedDataParallel tells that a rank is gone: in the words of what connects them."""


@dataclass(frozen=True)
class Launch:
    """Which of how many processes this one is, and which of those on this machine."""

    rank: int = 0
    size: int = 1
    local: int = 0


def launched(environment: Mapping[str, str] | None = None) -> Launch:
    """How this process was started: by torchrun, by srun, or alone.

    torchrun sets RANK, WORLD_SIZE, LOCAL_RANK and where the ranks meet; srun sets SLURM_PROCID, SLURM_STEP_NUM_TASKS
    and SLURM_LOCALID, and the script has to export MASTER_ADDR and MASTER_PORT. A batch script itself is no rank.

    Raises:
        ConfigError: the environment contradicts itself.
    """
    environment = os.environ if environment is None else environment
    torchrun, srun = ("RANK", "WORLD_SIZE", "LOCAL_RANK"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
    for names in (torchrun, srun):
        if all(name in environment for name in names[:2]):
            found = {name: environment.get(name, "0") for name in names}
            try:
                launch = Launch(*map(int, found.values()))
            except ValueError:
                launch = Launch(-1)
            if not 0 <= launch.rank < launch.size or launch.local < 0:
                raise ConfigError("the environment names no rank", got=found, advice=f"unset {', '.join(names)}")
            return launch
    return Launch()


class Group:
    """The ranks of a training. One process alone is a group, too (``ALONE``), and all that is shared is its own.

    Every method but ``check_enough`` is called by all ranks, in the same order.

    Attributes:
        rank: which one this is, from 0.
        size: how many there are.
        device: where this one computes.
    """

    def __init__(
        self,
        launch: Launch = Launch(),
        device: torch.device | None = None,
        store: dist.Store | None = None,
    ) -> None:
        self.rank, self.size = launch.rank, launch.size
        self.device = device or torch.device("cpu")
        self._store = store
        self._met = 0

    @property
    def main(self) -> bool:
        """Whether this is the rank that writes and tells."""
        return self.rank == 0

    def check_enough(self, cases: int) -> None:
        """Refuse ranks that would have nothing of their own to learn from.

        Raises:
            ConfigError: fewer training cases than ranks.
        """
        if cases < self.size:
            raise ConfigError(
                "there are fewer training cases than ranks",
                got=f"{cases} cases for {self.size} ranks",
                advice=f"start at most {cases} ranks (--nproc-per-node, --ntasks), or raise split.train",
            )

    def wrap(self, lesson: nn.Module) -> nn.Module:
        """The lesson with gradients averaged over the ranks; all begin with the main rank's parameters and buffers.

        What is inside the lesson sees the bare network. Running statistics are levelled once a step (``level``).
        """
        if self._store is None:
            return lesson
        with answered():
            return DistributedDataParallel(lesson, find_unused_parameters=False)

    @contextmanager
    def averaging(self, wrapped: nn.Module, last: bool) -> Iterator[None]:
        """Around the forward and backward pass of one micro-batch.

        Args:
            wrapped: what ``wrap`` returned.
            last: whether the gradients are averaged now; those of the micro-batches before add up on each rank.

        Raises:
            RunError: a rank is gone.
        """
        if not isinstance(wrapped, DistributedDataParallel):
            yield
            return
        try:
            with nullcontext() if last else wrapped.no_sync():
                yield
        except RuntimeError as error:
            if not _LOST.search(str(error)):
                raise
            raise _gone(error) from error

    def level(self, network: nn.Module) -> None:
        """Give all ranks the mean of their running statistics: they have seen different crops."""
        kept = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
        if self._store is None or not kept:
            return
        flat = torch.cat([buffer.detach().flatten() for buffer in kept])
        with answered():
            dist.all_reduce(flat)
        start = 0
        for buffer in kept:
            buffer.copy_(flat[start : start + buffer.numel()].view_as(buffer) / self.size)
            start += buffer.numel()

    def sum(self, *values: float) -> tuple[float, ...]:
        """The sums of numbers over the ranks."""
        return self._reduced(values) if self._store is not None else values

    def agree(self, flag: bool) -> bool:
        """Whether any rank says so."""
        return self.sum(float(flag))[0] > 0

    def as_main(self, *values: float) -> tuple[float, ...]:
        """The main rank's numbers."""
        return self.sum(*(value if self.main else 0.0 for value in values))

    def gathered(self, text: str) -> list[str]:
        """A text of every rank, by rank."""
        if self._store is None:
            return [text]
        place = f"text/{self._met}"
        with answered():
            self._store.set(f"{place}/{self.rank}", text)
        self.barrier()
        with answered():
            return [self._store.get(f"{place}/{rank}").decode() for rank in range(self.size)]

    def barrier(self) -> None:
        """Wait for all ranks, for as long as they live (``PATIENCE``); signals are heard meanwhile.

        Raises:
            RunError: a rank has left.
        """
        if self._store is None:
            return
        self._met += 1
        place, until, pause = f"barrier/{self._met}", time.monotonic() + PATIENCE.total_seconds(), 0.001
        with answered():
            here = self._store.add(place, 1)
            while here < self.size:
                if time.monotonic() > until or self._store.check([_LEFT]):
                    raise _gone(None)
                time.sleep(pause)
                pause = min(2 * pause, 0.25)
                here = self._store.add(place, 0)

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The main rank does what is inside; when it is done, the others do it."""
        if not self.main:
            self.barrier()
        yield
        if self.main:
            self.barrier()

    def leave(self, failed: bool) -> None:
        """End the connection; one that leaves early is missed by the others at their next barrier."""
        if self._store is None:
            return
        until = time.monotonic() + (GRACE if failed else ANSWER.total_seconds())
        with suppress(RuntimeError):  # whoever keeps the store may have left before
            if failed:
                self._store.set(_LEFT, str(self.rank))
            gone = self._store.add(_GONE, 1)
            # The main rank may keep the store, which the others may be asking still.
            while self.main and gone < self.size and time.monotonic() < until:
                time.sleep(0.01)
                gone = self._store.add(_GONE, 0)
        dist.destroy_process_group()

    def _reduced(self, values: tuple[float, ...]) -> tuple[float, ...]:
        shared = torch.tensor(values, dtype=torch.float64)
        with answered():
            dist.all_reduce(shared)
        return tuple(shared.tolist())


ALONE = Group()
"""One process."""


@contextmanager
def joined(device: torch.device, launch: Launch | None = None) -> Iterator[Group]:
    """The group that this process was started into, left in the end, whatever happens.

    Args:
        device: where this rank computes.
        launch: how it was started; None asks the environment.

    Raises:
        ConfigError: no place to meet is named, or two ranks would compute on one GPU.
        RunError: the ranks do not find each other.
    """
    launch = launch or launched()
    if launch.size == 1:
        yield ALONE
        return
    if absent := [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise ConfigError(
            "the ranks do not know where to meet",
            got=f"{launch.size} processes, and no {' or '.join(absent)} in the environment",
            advice="export MASTER_ADDR (the first node's name) and MASTER_PORT (a free port) in the batch script, "
            "or start with torchrun",
        )
    cuda = device.type == "cuda"
    with answered("the ranks do not find each other"):
        if cuda:
            torch.cuda.set_device(device)
        store, _, _ = next(iter(rendezvous("env://", launch.rank, launch.size, timeout=ANSWER)))
        own = dist.PrefixStore("medadv", store)
        own.set_timeout(ANSWER)
        backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
        dist.init_process_group(backend, store=store, rank=launch.rank, world_size=launch.size, timeout=ANSWER)
    group = Group(launch, device, own)
    failed = True
    try:
        _check_apart(group)
        yield group
        group.barrier()  # who leaves first would take the store away from the others
        failed = False
    finally:
        group.leave(failed)


@contextmanager
def answered(problem: str = "another rank of this training has ended, or does not answer") -> Iterator[None]:
    """Tell in words that a rank is gone.

    Raises:
        RunError: it is.
    """
    try:
        yield
    except RuntimeError as error:  # torch's own for connections are RuntimeErrors, too
        if is_full(error):
            raise
        raise _gone(error, problem) from error


def _gone(error: RuntimeError | None, problem: str = "another rank of this training has ended") -> RunError:
    time.sleep(2 * GRACE)
    return RunError(
        problem,
        got=None if error is None else str(error).splitlines()[0],
        cause="an error of that rank, which it tells itself; or it was killed, e.g. for want of memory",
        advice="the same command goes on from the last checkpoint",
    )


def _check_apart(group: Group) -> None:
    """Every rank on a GPU has one of its own: NCCL would hang or fail."""
    if group.device.type != "cuda":
        group.gathered("")
        return
    places = group.gathered(f"{socket.gethostname()} {torch.cuda.get_device_properties(group.device).uuid}")
    if len(set(places)) < len(places):
        raise ConfigError(
            "two ranks would compute on one GPU",
            got=f"{group.size} ranks on {len(set(places))} GPUs",
            advice="start as many ranks as there are GPUs, with --device cuda and no number; or take --device cpu",
        )
