"""The device, the memory cap, and what float32 means while a study runs."""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.cuda._utils import _get_device_index

from medadv.errors import ConfigError, RunError
from medadv.study.machine import Machine

GIB = 2**30


def used_now() -> int:
    """What the kernel says that a limit of the data segment counts."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData")]
    return int(line.split()[1]) * 1024


@pytest.fixture
def fractions(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """Two GPUs of 16 GiB, the second of them current, as far as torch's own functions and their checks would tell."""
    held = {0: 1.0, 1: 0.75}

    def keep(fraction: float, device: torch.device) -> None:
        assert 0 <= fraction <= 1
        held[_get_device_index(device)] = fraction

    for name, stands_in in {
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "current_device": lambda: 1,
        "get_device_properties": lambda _device: SimpleNamespace(total_memory=16 * GIB),
        "memory_allocated": lambda _device: GIB,
        "get_per_process_memory_fraction": lambda device: held[_get_device_index(device)],
        "set_per_process_memory_fraction": keep,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stands_in)
    return held


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


@pytest.mark.parametrize(("device", "index"), [("auto", 1), ("cuda", 1), ("cuda:0", 0), ("cuda:1", 1)])
def test_a_gpus_memory_is_capped_and_given_back(fractions: dict[int, float], device: str, index: int) -> None:
    before = dict(fractions)
    with suppress(KeyError), Machine(device, "4 GiB").used() as found:
        assert found == torch.device("cuda", index)
        assert fractions == {**before, index: 0.25}
        raise KeyError  # and also when it ends badly
    assert fractions == before


@pytest.mark.parametrize(("local", "index"), [(0, 0), (1, 1)])
@pytest.mark.usefixtures("fractions")
def test_each_rank_takes_the_gpu_of_its_number(monkeypatch: pytest.MonkeyPatch, local: int, index: int) -> None:
    for name, value in {"RANK": 2, "WORLD_SIZE": 4, "LOCAL_RANK": local}.items():
        monkeypatch.setenv(name, str(value))
    assert Machine("auto").torch_device() == Machine("cuda").torch_device() == torch.device("cuda", index)
    assert Machine("cpu").torch_device() == torch.device("cpu")


@pytest.mark.usefixtures("fractions")
def test_more_ranks_than_gpus_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": 2, "WORLD_SIZE": 4, "LOCAL_RANK": 2}.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(ConfigError, match="more ranks than GPUs"):
        Machine().torch_device()


@pytest.mark.usefixtures("fractions")
def test_a_rank_that_sees_one_gpu_alone_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As SLURM shows them with --gpus-per-task=1."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    for name, value in {"SLURM_PROCID": 3, "SLURM_STEP_NUM_TASKS": 4, "SLURM_LOCALID": 3}.items():
        monkeypatch.setenv(name, str(value))
    assert Machine().torch_device() == torch.device("cuda", 0)


def test_more_than_a_gpu_has_is_all_of_it(fractions: dict[int, float]) -> None:
    with Machine("cuda", "64 GiB").used():
        assert fractions[1] == 1.0


@pytest.mark.usefixtures("fractions")
def test_a_cap_below_what_lies_on_the_gpu_is_told() -> None:
    with pytest.raises(ConfigError, match="spent before anything runs"), Machine("cuda", "1 GiB").used():
        pass


def test_a_cap_below_what_the_process_uses_is_told() -> None:
    with pytest.raises(ConfigError, match="spent before anything runs") as told, Machine("cpu", "1 MiB").used():
        pytest.fail("nothing can run in so little")  # pragma: no cover
    assert "got: --memory of 1 MiB" in str(told.value)
    assert "that this process uses already" in str(told.value)


def test_a_cap_above_the_hard_limit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel would answer with "current limit exceeds maximum limit"."""
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (64 * GIB, 64 * GIB))
    with pytest.raises(ConfigError, match="may not have so much memory") as told, Machine("cpu", "65 GiB").used():
        pytest.fail("nothing may run beyond it")  # pragma: no cover
    assert "at most 64.0 GiB" in str(told.value)


def test_a_memory_that_is_full_ends_in_advice() -> None:
    """By the kernel's own refusal: a GiB is there, but not within the cap."""
    cap = f"{used_now() // 2**20 + 256} MiB"
    torch.empty(GIB, dtype=torch.uint8)
    with pytest.raises(RunError, match="the memory of cpu is full") as told, Machine("cpu", cap).used():
        torch.empty(GIB, dtype=torch.uint8)
    assert f"no more than --memory {cap}" in str(told.value)
    assert "--device" in str(told.value)


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(RuntimeError, match="sizes differ"), Machine("cpu").used():
        raise RuntimeError("sizes differ")


def test_no_model_runs_code_unless_that_is_said() -> None:
    assert not Machine().trust
