"""What every test gets: fixed seeds, no network, no window, and real MR data where it lies."""

from __future__ import annotations

import ipaddress
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

os.environ["MPLBACKEND"] = "Agg"

# Derandomised: a red test is red again. No deadline: nothing depends on the clock.
settings.register_profile("medadv", derandomize=True, deadline=None)
settings.load_profile("medadv")

_connect = socket.socket.connect


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _connect_here(self: socket.socket, address: Any) -> None:
    if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_here(str(address[0])):
        raise PermissionError(f"a test must not reach {address[0]}: medadv uses no network")
    _connect(self, address)


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Iterator[None]:
    """Only this machine can be reached from a test."""
    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", _connect_here)
    yield
    patch.undo()


@pytest.fixture(autouse=True)
def seeds() -> None:
    """The same random numbers in every test, whatever ran before it."""
    import numpy as np
    import torch

    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  libraries draw from the global state


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real MR data sets, from MEDADV_DATA; the test is skipped, saying so, where there is none."""
    named = os.environ.get("MEDADV_DATA")
    if not named:
        pytest.skip("MEDADV_DATA is not set: no real MR data here")
    if not Path(named).is_dir():
        pytest.fail(f"MEDADV_DATA names {named}, which is no folder")
    return Path(named)
