"""Less memory for models of every format: no saving that is none, and predictors that run where their networks are."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from victims.formats.nnunet_model import ISOTROPIC, Recipe
from victims.formats.nnunet_model import volume as nnunet_volume
from victims.formats.written_bundle import TISSUES, described, oblique, of_tissues, scan, write

from medadv.attack.victim import held_still
from medadv.labels import LabelScheme
from medadv.victims.combine import Mean, Mirrored
from medadv.victims.declared import Declared
from medadv.victims.formats import exported
from medadv.victims.formats.bundle import format as bundle
from medadv.victims.networks import Architecture, build_network
from medadv.victims.normalize import ZScore
from medadv.victims.segmentation import Segmenter
from medadv.victims.thrift import checkpointed
from medadv.victims.window import SlidingWindow

SCHEME = LabelScheme("two", {"background": 0, "lesion": 1})
UNET = Architecture(arguments={"spatial_dims": 3, "channels": [4, 8], "strides": [2], "num_res_units": 1})
DECLARED = Declared(SCHEME, ("t1", "flair"), normalise=ZScore(), inference=SlidingWindow((8, 8, 8), overlap=0.5))
Trained = Callable[[Recipe], Path]


def network() -> nn.Module:
    torch.manual_seed(0)
    return build_network(UNET, 2, 2).eval()


def image() -> Tensor:
    torch.manual_seed(4)
    return torch.rand(1, 2, 13, 8, 9) + 0.5


def saved(program: str, path: Path) -> None:
    example = torch.randn(1, 2, 8, 8, 8)
    if program == "exported":
        torch.export.save(torch.export.export(network(), (example,)), path)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch calls all of TorchScript deprecated
        made = torch.jit.script(network()) if program == "scripted" else torch.jit.trace(network(), example)
        made.save(str(path))


@pytest.fixture(scope="module", params=["exported", "scripted", "traced"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    path = tmp_path_factory.mktemp("programs") / "program"
    saved(request.param, path)
    return exported.load(path, DECLARED, trust=True)


AROUND: dict[str, Callable[[nn.Module], nn.Module]] = {
    "alone": lambda program: program,
    "mirrored": lambda program: Mirrored(program, (0,)),
    "mean": lambda program: Mean([program, program]),
    "mirrored mean": lambda program: Mirrored(Mean([program, program]), (0,)),
}


@pytest.mark.parametrize("made_of", AROUND)
def test_no_memory_is_saved_inside_a_program(program: Segmenter, made_of: str) -> None:
    """Its parts are never called one by one: a record would tell of a saving that is none."""
    assert checkpointed(replace(program, network=AROUND[made_of](program.network))) is None


def test_beside_a_program_other_networks_forget(program: Segmenter) -> None:
    full = replace(program, network=Mean([program.network, network()]))
    thrifty = checkpointed(full)
    assert thrifty is not None
    assert thrifty.network.members[0].program is full.network.members[0].program
    assert thrifty.network.members[1] is not full.network.members[1]
    slopes = []
    for victim in (thrifty, full):
        x = image().requires_grad_()
        with held_still(victim.modules()):
            slopes.append(torch.autograd.grad(victim(x).square().sum(), x)[0])
    assert torch.equal(thrifty(image()), full(image()))
    torch.testing.assert_close(*slopes)


class Away(nn.Module):
    """A network on a device that is not the CPU: it sees shapes alone, and finds nothing."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, device="meta"))
        self.channels = channels
        self.visited: list[tuple[str, tuple[int, ...]]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.visited.append((x.device.type, tuple(x.shape[2:])))
        return torch.zeros(len(x), self.channels, *x.shape[2:])


@pytest.mark.parametrize("trust", [False, True], ids=["data", "trusted"])
def test_windows_of_an_image_elsewhere_visit_the_bundles_network(tmp_path: Path, trust: bool) -> None:
    """Where volumes are stitched on the CPU to save memory, MONAI's inferer stitches there, too."""
    config = of_tissues(grid=True)
    config["inferer"] = {"_target_": "SlidingWindowInferer", "roi_size": [8, 8, 8], "sw_batch_size": 1}
    victim = bundle.load(write(tmp_path, config, described(outputs=TISSUES)), None, trust).at(oblique())
    away = Away(len(victim.head.channels))
    answer = replace(victim, deployed=replace(victim.deployed, network=away)).predict(scan(16, 15, 18)[None])
    assert answer.device == torch.device("cpu")
    assert set(away.visited) == {("meta", (8, 8, 8))}


def test_nnunets_predictor_runs_where_its_networks_are(nnunet: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for an image on the CPU, where it then puts the windows together."""
    own = pytest.importorskip("nnunetv2.inference.predict_from_raw_data")
    told: dict[str, object] = {}

    class Standing(own.nnUNetPredictor):
        def __init__(self, **settings: object) -> None:
            told.update(settings)

        def manual_initialization(self, *_: object) -> None: ...

        def predict_single_npy_array(self, zyx: np.ndarray, _: dict[str, object]) -> np.ndarray:
            return np.zeros(zyx.shape[1:], np.uint8)

    victim = opened(nnunet)
    victim.network.to("meta")
    monkeypatch.setattr(own, "nnUNetPredictor", Standing)
    assert victim.predict(nnunet_image()).device == torch.device("cpu")
    assert told["device"] == torch.device("meta")
    assert told["perform_everything_on_device"] is False


def test_a_full_memory_is_no_fault_of_the_image(nnunet: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """The study answers it by using less; an image without an answer goes into quarantine."""
    own = pytest.importorskip("nnunetv2.inference.predict_from_raw_data")
    victim = opened(nnunet)
    monkeypatch.setattr(own.nnUNetPredictor, "predict_sliding_window_return_logits", too_much)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        victim.predict(nnunet_image())


def too_much(*_: object) -> Tensor:
    return torch.empty(2**60, dtype=torch.uint8)


def opened(nnunet: Trained) -> Segmenter:
    from medadv.victims.formats.nnunet.format import load

    return load(nnunet(ISOTROPIC), None, False).at(np.diag([*ISOTROPIC.spacing, 1.0]))


def nnunet_image() -> Tensor:
    return nnunet_volume(5, (14, 14, 12), channels=len(ISOTROPIC.channels))[0][None]
