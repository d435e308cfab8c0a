"""A full memory where nothing is left to save: every verb ends in advice. The cap and the refusal are the kernel's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from study.small_study import TRAINED, three, trained  # noqa: F401
from torch import nn

from medadv.data.brats import MODALITIES, brats
from medadv.defense.schedule import Schedule
from medadv.defense.training import Validation, fit
from medadv.errors import RunError, VictimError
from medadv.labels import BRATS_2018
from medadv.study import single
from medadv.study.machine import Machine, _data_segment
from medadv.study.plan import plan
from medadv.study.run import train
from medadv.study.single import attack_one
from medadv.study.spec import Study
from medadv.victims.head import Softmax
from medadv.victims.segmentation import Segmenter

TOO_WIDE = {"arguments": {"spatial_dims": 3, "channels": [4, 16384], "strides": [2], "num_res_units": 2}}
"""Kernels of 27 GiB."""


def capped() -> Machine:
    """A CPU with half a GiB left."""
    return Machine("cpu", f"{_data_segment() // 2**20 + 512} MiB")


def too_large() -> Study:
    return trained(victims={"unet": TRAINED | {"network": TOO_WIDE}})


def test_a_training_that_does_not_fit_says_what_to_lower(tmp_path: Path) -> None:
    with pytest.raises(VictimError, match="training of the victim 'unet' does not fit") as told:
        train(too_large(), runs=tmp_path, machine=capped())
    for word in ("training.batch", "training.roi", "--memory", "--device", "1 crops of 16 × 16 × 16 voxels"):
        assert word in str(told.value)


def test_a_plan_that_does_not_fit_asks_for_more(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="the memory of cpu is full") as told:
        plan(too_large(), capped(), tmp_path)
    assert "--device" in str(told.value)


class Wide(nn.Conv3d):
    """More channels inside than there is room for: 27 GiB of a phantom."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return super().forward(z.expand(2**17, *z.shape[1:]).contiguous())[: len(z)]


def test_an_attack_that_does_not_fit_asks_for_more(
    three: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    victim = Segmenter(Wide(4, 4, 1), Softmax(BRATS_2018), MODALITIES)
    monkeypatch.setattr(single, "open_victim", lambda *_, **__: victim)
    with pytest.raises(RunError, match="the memory of cpu is full"):
        list(attack_one(Path("net"), brats(three / "Phantom_00000", "2021"), "0.1 sigma", 1, None, tmp_path, capped()))
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_that_does_not_fit_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who deletes it, as would then be advised, loses a training."""
    torch.save({}, tmp_path / "checkpoint-00000001.pt")
    network = nn.Linear(1, 1)
    full: Callable[..., None] = lambda *_, **__: torch.empty(2**60, dtype=torch.uint8)  # noqa: E731
    monkeypatch.setattr(torch, "load", full)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        fit(network, network, lambda _step: None, Schedule(1), folder=tmp_path, validate=lambda: Validation(1.0))  # type: ignore[arg-type, return-value]
