"""Weights alone: every container that training programs write, and every file that is not what it seems."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

from medadv.errors import ConfigError, VictimError
from medadv.labels import LabelScheme
from medadv.victims.declared import Declared
from medadv.victims.formats.weights import fit_state, load, read_state, recognises
from medadv.victims.networks import Architecture, build_network
from medadv.victims.normalize import Standard, ZScore
from medadv.victims.window import WholeVolume

SCHEME = LabelScheme("two", {"background": 0, "lesion": 1})
UNET = Architecture(arguments={"spatial_dims": 2, "channels": [4, 8], "strides": [2], "num_res_units": 1})
DECLARED = Declared(SCHEME, ("t1", "flair"), network=UNET, normalise=ZScore(), inference=WholeVolume())


def network(seed: int = 0, modalities: int = 2, channels: int = 2, name: Architecture = UNET) -> nn.Module:
    torch.manual_seed(seed)
    return build_network(name, modalities, channels).eval()


def named(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + key: tensor for key, tensor in network().state_dict().items()}


def shuffled() -> dict[str, torch.Tensor]:
    return dict(reversed(network().state_dict().items()))


class Lit(nn.Module):
    """What a Lightning module is to its checkpoint: the network in an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.model = network()


LIGHTNING = {"epoch": 3, "pytorch-lightning_version": "2.5.0", "hyper_parameters": {"lr": 0.1}, "callbacks": {}}
GOOD: dict[str, Callable[[], Any]] = {
    "plain": lambda: network().state_dict(),
    "in another order": shuffled,
    "nested": lambda: {"epoch": 1, "model_state_dict": network().state_dict(), "optimizer": {"state": {}}},
    "nested twice": lambda: {"model": {"state_dict": network().state_dict()}, "epoch": 1},
    "nnU-Net's name": lambda: {"network_weights": network().state_dict(), "init_args": {}},
    "under a name of its own": lambda: {"my_unet": network().state_dict(), "step": 7},
    "saved twice": lambda: {"model": network().state_dict(), "ema": network().state_dict()},
    "DDP": lambda: nn.DataParallel(network()).state_dict(),
    "compiled": lambda: torch.compile(network()).state_dict(),
    "compiled, then DDP": lambda: named("module._orig_mod."),
    "DDP, then compiled": lambda: named("_orig_mod.module."),
    "Lightning": lambda: LIGHTNING | {"state_dict": Lit().state_dict()},
    "NumPy's numbers beside them": lambda: {
        "state_dict": network().state_dict(),
        "best": np.float64(0.8),
        "epoch": np.int64(3),
        "losses": [np.float32(0.1)],
        "early": np.bool_(True),
    },
    "Lightning around DDP": lambda: LIGHTNING | {"state_dict": named("net.module.")},
}


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before 1.6"])
def test_every_way_of_saving_a_state_is_read(tmp_path: Path, name: str, legacy: bool) -> None:
    path = tmp_path / "model.pth"
    torch.save(GOOD[name](), path, _use_new_zipfile_serialization=not legacy)
    victim = load(path, DECLARED, trust=False)
    x = torch.randn(1, 2, 16, 16)
    assert recognises(path)
    assert not victim.network.training
    assert torch.equal(victim.network(x), network()(x))


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file(named("module."), tmp_path / "model.safetensors")
    x = torch.randn(1, 2, 16, 16)
    victim = load(tmp_path / "model.safetensors", DECLARED, trust=False)
    assert torch.equal(victim.network(x), network()(x))
    assert (victim.modalities, victim.head.channels) == (("t1", "flair"), ("background", "lesion"))


@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_of_torchvisions_networks_fit_under_their_own_keys(tmp_path: Path, prefix: str) -> None:
    bare = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=2).eval()
    torch.save({prefix + key: tensor for key, tensor in bare.state_dict().items()}, tmp_path / "lraspp.pth")
    said = Declared(
        SCHEME,
        ("red", "green", "blue"),
        network=Architecture(name="LRASPP_MobileNetV3"),
        normalise=Standard((124.0, 116.0, 104.0), (58.0, 57.0, 57.0)),
        inference=WholeVolume(),
    )
    victim, x = load(tmp_path / "lraspp.pth", said, False), torch.rand(1, 3, 40, 56) * 255
    with torch.no_grad():
        assert torch.equal(victim(x), bare(said.normalise(x))["out"])


def test_a_prefix_that_is_the_networks_own_stays() -> None:
    """All keys of MONAI's UNet begin with ``model.``, which is also what wrappers put before keys."""
    fresh = network(1)
    assert all(key.startswith("model.") for key in fresh.state_dict())
    fit_state(fresh, named("model."))
    assert torch.equal(fresh(torch.ones(1, 2, 8, 8)), network()(torch.ones(1, 2, 8, 8)))


def broken(value: float) -> dict[str, torch.Tensor]:
    state = network().state_dict()
    next(iter(state.values())).view(-1)[3] = value
    return state


def saved(content: Callable[[], Any], name: str = "model.pt") -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        torch.save(content(), folder / name)
        return folder / name

    return write


def bytes_of(content: bytes, name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def cut(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (save_file if name.endswith("safetensors") else torch.save)(network().state_dict(), folder / name)
        os.truncate(folder / name, (folder / name).stat().st_size // 2)
        return folder / name

    return write


def safe(name: str, content: Callable[[], dict[str, torch.Tensor]]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        save_file(content(), folder / name)
        return folder / name

    return write


OTHER = {"spatial_dims": 2, "channels": [4, 12], "strides": [2], "num_res_units": 1}
BASIC = Architecture(name="BasicUNet", arguments={"spatial_dims": 2, "features": [4] * 6})
BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "whole module": (saved(network), "is a program, and not weights alone"),
    "module inside": (saved(lambda: {"net": network(), "epoch": 3}), "a pickle that asks for monai.networks.nets"),
    "safetensors named .pth": (safe("model.pth", lambda: network().state_dict()), "rename it to .safetensors"),
    "pickle named .safetensors": (saved(lambda: network().state_dict(), "m.safetensors"), "rename it to .pt"),
    "cut .pt": (cut("model.pt"), "cannot be read as weights of PyTorch"),
    "cut .safetensors": (cut("model.safetensors"), "copied whole"),
    "empty file": (bytes_of(b"", "model.pt"), "cannot be read as weights of PyTorch"),
    "text": (bytes_of(b"version https://git-lfs.github.com/spec/v1\n", "model.pt"), "cannot be read as weights"),
    "empty dictionary": (saved(dict), "an empty dictionary"),
    "empty safetensors": (safe("model.safetensors", dict), "an empty dictionary"),
    "a list": (saved(lambda: [1, 2]), "a list"),
    "settings only": (saved(lambda: {"epoch": 3, "args": {"lr": 1}}), "no weights under a name that is known"),
    "two sets": (
        saved(lambda: {"model": network().state_dict(), "ema": network(1).state_dict()}),
        "several sets of weights\n  got: ['model', 'ema']",
    ),
    "GAN": (saved(lambda: {"g": network().state_dict(), "d": network(1).state_dict()}), "several sets of weights"),
    "NaN": (saved(lambda: broken(torch.nan)), "not finite"),
    "complex": (saved(lambda: {"weight": torch.ones(2, dtype=torch.complex64)}), "are complex numbers"),
    "infinity": (safe("model.safetensors", lambda: broken(torch.inf)), "not finite"),
    "sparse": (saved(lambda: {"weight": torch.eye(3).to_sparse()}), "sparse or quantised"),
    "loss beside the network": (
        saved(lambda: {"state_dict": named("model.") | {"loss.weight": torch.ones(2)}}),
        "save network.state_dict() alone",
    ),
    "more modalities": (
        saved(lambda: network(0, 4).state_dict()),
        "a network with 4 input channels; declared are 2 modalities",
    ),
    "more channels": (
        saved(lambda: network(0, 2, 3).state_dict()),
        "a network with 3 output channels; declared are 2 channels of the head",
    ),
    "both": (
        saved(lambda: network(0, 4, 3).state_dict()),
        "4 input channels and 3 output channels; declared are 2 modalities and 2 channels of the head",
    ),
    "wider network": (
        saved(lambda: network(name=Architecture(arguments=OTHER)).state_dict()),
        "other settings of the same network",
    ),
    "another network": (saved(lambda: network(name=BASIC).state_dict()), "another network"),
}


@pytest.mark.parametrize("name", BAD)
def test_every_fault_has_its_error(tmp_path: Path, name: str) -> None:
    write, words = BAD[name]
    path = write(tmp_path)
    assert recognises(path)
    with pytest.raises(VictimError) as refusal:
        load(path, DECLARED, trust=True)
    assert words in str(refusal.value)
    assert str(tmp_path) not in str(refusal.value)


@pytest.mark.parametrize("kind", ["DynUNet", "SegResNet", "SwinUNETR"])
def test_other_channels_are_told_in_words_for_other_networks(kind: str) -> None:
    arguments = {
        "DynUNet": {
            "kernel_size": [3, 3, 3],
            "strides": [1, 2, 2],
            "upsample_kernel_size": [2, 2],
            "filters": [4, 8, 8],
        },
        "SegResNet": {"init_filters": 8},
        "SwinUNETR": {"feature_size": 12, "depths": [1] * 4, "num_heads": [1] * 4, "window_size": 2},
    }[kind]
    architecture = Architecture(name=kind, arguments={"spatial_dims": 2, **arguments})
    words = "4 input channels and 3 output channels; declared are 2 modalities and 5 channels"
    with pytest.raises(VictimError, match=words):
        fit_state(network(0, 2, 5, architecture), network(0, 4, 3, architecture).state_dict())


def test_an_empty_state_does_not_fit() -> None:
    with pytest.raises(VictimError, match="missing"):
        fit_state(network(), {})


def test_folders_and_missing_files_are_no_weights(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.pt"):
        assert not recognises(path)
        with pytest.raises(VictimError, match="weights are one file"):
            read_state(path)


@pytest.mark.parametrize("declared", [None, Declared(SCHEME, ("t1", "flair"))])
def test_without_a_network_the_advice_names_the_keys(tmp_path: Path, declared: Declared | None) -> None:
    torch.save(network().state_dict(), tmp_path / "model.pt")
    with pytest.raises(ConfigError, match=r"(?s)victims\.<name>.*network"):
        load(tmp_path / "model.pt", declared, trust=False)
    torch.save(network(), tmp_path / "model.pt")  # what no declaration can mend is told first
    with pytest.raises(VictimError, match="is a program"):
        load(tmp_path / "model.pt", declared, trust=False)


def test_a_planted_payload_does_not_run(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "executed",)

    torch.save({"state_dict": Payload()}, tmp_path / "zip.pt")
    for name in ("bare.ckpt", "named.safetensors"):
        (tmp_path / name).write_bytes(pickle.dumps(Payload(), protocol=2))
    for name in ("zip.pt", "bare.ckpt", "named.safetensors"):
        with pytest.raises(VictimError, match="a pickle"):
            load(tmp_path / name, DECLARED, trust=True)
    assert not (tmp_path / "executed").exists()
    pickle.loads((tmp_path / "bare.ckpt").read_bytes())
    assert (tmp_path / "executed").exists()  # the plant works
