"""The device, the memory cap, and what float32 means while a study runs."""

from __future__ import annotations

import resource

import pytest
import torch

from medadv.errors import ConfigError
from medadv.study.machine import Machine


def test_the_cpu_is_always_there() -> None:
    assert Machine("cpu").torch_device() == torch.device("cpu")
    assert Machine().torch_device().type in ("cpu", "cuda")


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "", "gpu"])
def test_a_device_that_is_not_there_is_told(device: str) -> None:
    with pytest.raises(ConfigError, match="no such device") as told:
        Machine(device).torch_device()
    assert "doctor" in str(told.value)
    assert "cpu" in str(told.value)


@pytest.mark.parametrize(
    ("text", "size"), [("8 GiB", 2**33), ("512MiB", 2**29), ("1.5 GB", 1_500_000_000), (None, None)]
)
def test_amounts_of_memory_are_read(text: str | None, size: int | None) -> None:
    assert Machine(memory=text).bytes() == size


@pytest.mark.parametrize("text", ["8", "8 GiBs", "-1 GiB", "0 GiB", "much"])
def test_no_amounts_are_told(text: str) -> None:
    with pytest.raises(ConfigError, match="no amount of memory"):
        Machine(memory=text).bytes()


def test_limits_hold_inside_and_are_lifted_outside() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    exact = torch.backends.cudnn.allow_tf32
    with Machine("cpu", "64 GiB").used() as device:
        assert device == torch.device("cpu")
        assert resource.getrlimit(resource.RLIMIT_DATA)[0] == 64 * 2**30
        assert not torch.backends.cudnn.allow_tf32
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    assert torch.backends.cudnn.allow_tf32 == exact


def test_no_model_runs_code_unless_that_is_said() -> None:
    assert not Machine().trust
