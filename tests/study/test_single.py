"""One case attacked by hand: on what terms its answers are made."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch
from study.small_study import three  # noqa: F401
from torch import Tensor, nn

from medadv.data.brats import MODALITIES, brats
from medadv.labels import BRATS_2018
from medadv.study import single
from medadv.study.machine import Machine
from medadv.study.single import attack_one
from medadv.victims.head import Softmax
from medadv.victims.segmentation import Segmenter

CAP = 64 * 2**30


class Watched(nn.Module):
    """A network that notes under which rules it is asked: the limit of the process, and TF32."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = nn.Conv3d(4, 4, 1)
        self.seen: set[tuple[int, bool]] = set()

    def forward(self, z: Tensor) -> Tensor:
        self.seen.add((resource.getrlimit(resource.RLIMIT_DATA)[0], torch.backends.cudnn.allow_tf32))
        return self.answer(z)


def test_what_is_scored_is_answered_under_the_machines_rules(
    three: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = Watched()
    victim = Segmenter(network, Softmax(BRATS_2018), MODALITIES)
    monkeypatch.setattr(single, "open_victim", lambda *_, **__: victim)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    case = brats(three / "Phantom_00000", "2021")
    list(attack_one(Path("net"), case, "0.1 sigma", 1, None, tmp_path, Machine("cpu", "64 GiB")))
    assert network.seen == {(CAP, False)}
