"""What a study may use of the machine: a device, an amount of memory, and whether a model may run code of its own."""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from medadv.defense.ranks import launched
from medadv.errors import ConfigError, RunError
from medadv.victims.memory import is_full

_UNITS = {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclass(frozen=True)
class Machine:
    """What a study may use. Nothing of it changes what a study is; its results are the same up to rounding.

    Attributes:
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``, or ``auto``: CUDA where there is any, else the CPU.
        memory: the most that may be allocated on the device, e.g. ``8 GiB``; None for all there is.
        trust: whether models that are programs (exported programs, TorchScript, pickles, bundles run by MONAI) may be
            loaded: loading them can run any code. Never set by a study's file.
    """

    device: str = "auto"
    memory: str | None = None
    trust: bool = False

    def torch_device(self) -> torch.device:
        """The device, a GPU with its number: torch caps the memory of no other.

        Raises:
            ConfigError: there is no such device on this machine.
        """
        cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
        present = ["cpu", *(["cuda"] if cuda else []), *(f"cuda:{i}" for i in range(cuda))]
        present += ["mps"] if torch.backends.mps.is_available() else []
        if self.device not in ("auto", *present):
            raise ConfigError(
                "this machine has no such device",
                got=self.device,
                expected=f"auto, or one of {present}",
                advice="`medadv doctor` tells what torch finds, and why a GPU may be missing",
            )
        if cuda and self.device in ("auto", "cuda"):
            return torch.device("cuda", _own_gpu(cuda))
        return torch.device("cpu" if self.device == "auto" else self.device)

    def bytes(self) -> int | None:
        """The memory cap in bytes, None without one.

        Raises:
            ConfigError: no amount of memory.
        """
        if self.memory is None:
            return None
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([KMG]i?B)", self.memory.strip(), re.IGNORECASE)
        if match is None or float(match[1]) <= 0:
            raise ConfigError("this is no amount of memory", got=self.memory, expected="for example 8 GiB")
        return int(float(match[1]) * _UNITS[match[2].upper()])

    @contextmanager
    def used(self) -> Iterator[torch.device]:
        """The device, with float32 kept at float32 and the memory capped inside.

        On a GPU the cap is torch's own; on the CPU it is the process's data segment, of which torch and the files that
        are read take their part: what goes beyond is an error that the study answers by using less.

        Raises:
            ConfigError: no such device, or a cap that cannot be kept.
            RunError: the memory is full, and what runs inside has nothing left to answer it with.
        """
        device, most = self.torch_device(), self.bytes()
        exact = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
        with nullcontext() if most is None else _capped(device, most):
            try:
                torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
                yield device
            except (RuntimeError, MemoryError, OSError) as error:
                if not is_full(error):
                    raise
                raise RunError(
                    f"the memory of {device} is full",
                    got=(str(error).splitlines() or [type(error).__name__])[0],
                    expected=None if self.memory is None else f"no more than --memory {self.memory}",
                    advice="give more memory (--memory), or take another device (--device)",
                ) from error
            finally:
                torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = exact


def _own_gpu(there: int) -> int:
    """The number of this process's GPU: that of its rank on this machine. SLURM may show each rank its own alone.

    Raises:
        ConfigError: more ranks than GPUs on this machine.
    """
    launch = launched()
    if launch.size == 1 or there == 1:
        return torch.cuda.current_device()
    if launch.local >= there:
        raise ConfigError(
            "there are more ranks than GPUs on this machine",
            got=f"rank {launch.local} of this machine, counted from 0",
            expected=f"at most {there} ranks",
            advice="start fewer ranks (--nproc-per-node, --ntasks-per-node), or take --device cpu",
        )
    return launch.local


@contextmanager
def _capped(device: torch.device, most: int) -> Iterator[None]:
    """So many bytes and no more: of torch on a GPU, of the whole process elsewhere."""
    if device.type == "cuda":
        _check_cap(most, torch.cuda.memory_allocated(device), None)
        before = torch.cuda.get_per_process_memory_fraction(device)
        total = torch.cuda.get_device_properties(device).total_memory
        try:
            torch.cuda.set_per_process_memory_fraction(min(most / total, 1.0), device)
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(before, device)
        return
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    _check_cap(most, _data_segment(), None if limits[1] == resource.RLIM_INFINITY else limits[1])
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (most, limits[1]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, limits)


def _check_cap(most: int, used: int, hard: int | None) -> None:
    """Refuse a cap under which nothing could run, or that the process may not set.

    Raises:
        ConfigError: either.
    """
    if most <= used:
        raise ConfigError(
            "the memory is spent before anything runs",
            got=f"--memory of {_told(most)}",
            expected=f"more than the {_told(used)} that this process uses already",
            cause="what Python, torch and MONAI take by themselves on the CPU, or what was left on the GPU before",
            advice="give more memory, or leave --memory out",
        )
    if hard is not None and most > hard:
        raise ConfigError(
            "this process may not have so much memory",
            got=f"--memory of {_told(most)}",
            expected=f"at most {_told(hard)}, the process's hard limit",
            cause="a limit that the shell or the cluster has set: `ulimit -H -d` tells it",
            advice="ask for less, or have the limit raised",
        )


def _data_segment() -> int:
    """The bytes that ``RLIMIT_DATA`` counts now; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    found = re.search(r"^VmData:\s*(\d+) kB$", status.read_text(), re.MULTILINE) if status.exists() else None
    return int(found[1]) * 1024 if found else 0


def _told(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
