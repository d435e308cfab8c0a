"""What a study may use of the machine: a device, an amount of memory, and whether a model may run code of its own."""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from medadv.errors import ConfigError

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
        """The device.

        Raises:
            ConfigError: there is no such device on this machine.
        """
        cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if self.device == "auto":
            return torch.device("cuda" if cuda else "cpu")
        present = ["cpu", *(["cuda"] if cuda else []), *(f"cuda:{i}" for i in range(cuda))]
        present += ["mps"] if torch.backends.mps.is_available() else []
        if self.device not in present:
            raise ConfigError(
                "this machine has no such device",
                got=self.device,
                expected=f"auto, or one of {present}",
                advice="`medadv doctor` tells what torch finds, and why a GPU may be missing",
            )
        return torch.device(self.device)

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
        """
        device, most = self.torch_device(), self.bytes()
        exact = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
        limits = resource.getrlimit(resource.RLIMIT_DATA)
        try:
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
            if most is not None and device.type == "cuda":
                total = torch.cuda.get_device_properties(device).total_memory
                torch.cuda.set_per_process_memory_fraction(min(most / total, 1.0), device)
            elif most is not None:
                resource.setrlimit(resource.RLIMIT_DATA, (most, limits[1]))
            yield device
        finally:
            torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = exact
            resource.setrlimit(resource.RLIMIT_DATA, limits)
