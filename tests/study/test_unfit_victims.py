"""Victims that do not fit the study, the data or themselves, and those that do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from study.small_study import TRAINED, Glow, go, records, small, trained
from torch import Tensor, nn

from medadv.data.brats import MODALITIES
from medadv.errors import ConfigError, GradientError, VictimError
from medadv.labels import BRATS_2018, LabelScheme
from medadv.study.run import run
from medadv.victims.checkpoint import save_victim
from medadv.victims.head import Softmax
from medadv.victims.networks import Architecture, build_network
from medadv.victims.segmentation import Segmenter


def segmenter(**changes: object) -> Segmenter:
    settings: dict[str, object] = {"network": Glow(), "head": Softmax(BRATS_2018), "modalities": MODALITIES}
    return Segmenter(**settings | changes)  # type: ignore[arg-type]


OTHER_TISSUES = LabelScheme("other", {"background": 0, "a": 1, "b": 2, "c": 4})

UNFIT: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "other modalities": (lambda: segmenter(modalities=("t1", "pd")), ConfigError, "that the data do not have"),
    "other tissues": (lambda: segmenter(head=Softmax(OTHER_TISSUES)), ConfigError, "knows other tissues"),
    "other channels": (lambda: nn.Conv3d(4, 2, 1), VictimError, "another number of channels"),
    "other inputs": (lambda: nn.Conv3d(3, 4, 1), VictimError, "cannot answer crops, windows or volumes"),
    "two axes": (lambda: nn.Conv2d(4, 4, 1), VictimError, "cannot answer crops, windows or volumes"),
    "probabilities": (lambda: nn.Sequential(Glow(), nn.Softmax(1)), VictimError, "probabilities instead of logits"),
    "moods": (lambda: Moody(), VictimError, "answers the same input differently"),
    "a cut graph": (lambda: Cut(), GradientError, "cannot be differentiated.*\n.*\n.*detach"),
}


class Moody(Glow):
    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z) + torch.rand(())


class Cut(Glow):
    def forward(self, z: Tensor) -> Tensor:
        with torch.no_grad():
            return super().forward(z)


@pytest.mark.parametrize(("victim", "kind", "told"), UNFIT.values(), ids=UNFIT)
@pytest.mark.parametrize("inference", [{"name": "whole"}, {"name": "window", "roi": [16, 16, 16]}], ids=str)
def test_a_victim_that_does_not_fit_is_told(
    three: Path,
    tmp_path: Path,
    victim: Callable[[], object],
    kind: type[Exception],
    told: str,
    inference: dict[str, object],
) -> None:
    study = small(three, victims={"glow": {"inference": inference}})
    with pytest.raises(kind, match=told):
        run(study, victims={"glow": victim()}, runs=tmp_path, tracked=False)  # type: ignore[dict-item]
    assert not records(tmp_path / "small")


def test_a_victim_that_nobody_asked_for_is_told(three: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)does not name.*mine.*glow"):
        run(small(three), victims={"mine": Glow()}, runs=tmp_path, tracked=False)


def test_nothing_to_train_on_is_told(three: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)'glow' has no weights.*victims\.glow\.weights"):
        run(small(three), runs=tmp_path, tracked=False)


def test_a_whole_module_in_a_pickle_is_told(three: Path, tmp_path: Path) -> None:
    torch.save(Glow(), tmp_path / "model.pt")
    study = small(three, victims={"glow": {"weights": str(tmp_path / "model.pt"), "network": {"name": "UNet"}}})
    with pytest.raises(VictimError, match=r"(?s)program.*state_dict"):
        go(study, tmp_path / "runs")


def test_weights_without_their_meaning_are_told(three: Path, tmp_path: Path) -> None:
    torch.save(Glow().state_dict(), tmp_path / "model.pt")
    study = small(three, victims={"glow": {"weights": str(tmp_path / "model.pt")}})
    asked = r"(?s)weights are numbers.*  network: {.*modalities: \[t1, t1ce, t2, flair\].*inference: {name: window"
    with pytest.raises(ConfigError, match=asked):
        go(study, tmp_path / "runs")


def test_weights_that_medadv_wrote_are_attacked_where_they_lie(three: Path, tmp_path: Path, no_report: None) -> None:
    architecture = Architecture(arguments={"spatial_dims": 3, "channels": [4, 8], "strides": [2]})
    torch.manual_seed(0)
    victim = segmenter(network=build_network(architecture, 4, 4))
    save_victim(victim, architecture, tmp_path / "mine")
    study = small(three, victims={"mine": {"weights": str(tmp_path / "mine")}}, controls=["identity"])
    assert go(study, tmp_path / "runs").scored == 3


SIZES: dict[str, tuple[dict[str, object], str]] = {
    "crops that cannot be halved": ({"training": {"roi": [15, 15, 15]}}, "halve and double again"),
    "windows that cannot be halved": ({"inference": {"name": "window", "roi": [15, 15, 15]}}, "halve and double again"),
    "crops of two axes": ({"training": {"roi": [16, 16]}}, "another number of axes|cannot answer crops"),
    "windows of two axes": ({"inference": {"name": "window", "roi": [16, 16]}}, "another number of axes"),
}


@pytest.mark.parametrize(("changes", "told"), SIZES.values(), ids=SIZES)
def test_sizes_that_the_network_cannot_take_are_told_before_training(
    tmp_path: Path, changes: dict[str, object], told: str
) -> None:
    arguments = {"spatial_dims": 3, "channels": [4, 8, 8], "strides": [2, 2]}
    spec = {**TRAINED, "network": {"arguments": arguments}, **changes}
    with pytest.raises(VictimError, match=told):
        go(trained(victims={"unet": spec}), tmp_path)
    assert not (tmp_path / "trained" / "victims").exists()
