"""The one door: every format by its content, several as their mean, and nothing imported that is not needed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from runtime_types import unchecked
from safetensors.torch import save_file
from torch import nn

import medadv
from medadv.attack.victim import Passes
from medadv.errors import ConfigError, VictimError
from medadv.labels import BRATS_2018, LabelScheme
from medadv.study.entrants import VictimSpec
from medadv.victims.checkpoint import CARD, WEIGHTS, load_victim, save_victim
from medadv.victims.declared import Declared
from medadv.victims.formats.exported import Program
from medadv.victims.formats.opening import FORMATS, mirrored, open_victim
from medadv.victims.head import Sigmoid, Softmax
from medadv.victims.networks import Architecture, build_network
from medadv.victims.normalize import Unchanged, ZScore
from medadv.victims.segmentation import Segmenter
from medadv.victims.spatial import Orientation
from medadv.victims.window import SlidingWindow, WholeVolume

SCHEME = LabelScheme("two", {"background": 0, "lesion": 1})
UNET = Architecture(arguments={"spatial_dims": 3, "channels": [4, 8], "strides": [2]})
WINDOWS = SlidingWindow((8, 8, 8))
DECLARED = Declared(SCHEME, ("t1", "flair"), network=UNET, normalise=ZScore(), inference=WINDOWS)
OF_PROGRAMS = replace(DECLARED, network=None)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_network(UNET, 2, 2).eval()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(1, 2, 12, 8, 8) + 0.5


@pytest.fixture
def own(tmp_path: Path) -> Path:
    save_victim(DECLARED.deployed(network()), UNET, tmp_path / "own")
    return tmp_path / "own"


def state(folder: Path, seed: int = 0) -> Path:
    path = folder / f"fold{seed}.safetensors"
    save_file(network(seed).state_dict(), path)
    return path


def exported(folder: Path) -> Path:
    torch.export.save(torch.export.export(network(), (torch.randn(1, 2, 8, 8, 8),)), folder / "model.pt2")
    return folder / "model.pt2"


DOORS: dict[str, Callable[[Path], Segmenter]] = {
    "medadv": lambda f: open_victim(f / "own"),
    "medadv's weights": lambda f: open_victim(str(f / "own" / WEIGHTS)),
    "safetensors": lambda f: open_victim(state(f), DECLARED),
    "program": lambda f: open_victim(exported(f), OF_PROGRAMS, trust=True),
    "the name beside save_victim": lambda f: medadv.load_victim(f / "own", device="cpu"),
}


@pytest.mark.parametrize("name", DOORS)
def test_each_format_goes_through_the_one_door(own: Path, name: str, x: torch.Tensor) -> None:
    victim = DOORS[name](own.parent)
    reference = DECLARED.deployed(network())
    assert torch.equal(victim.predict(x), reference.predict(x))
    assert victim.preprocessing() == reference.preprocessing()
    assert not any(part.training for part in victim.network.modules())
    assert isinstance(victim.network, Program) == (name == "program")


def test_the_public_names_are_these() -> None:
    assert (medadv.open_victim, medadv.load_victim, medadv.Declared) == (open_victim, open_victim, Declared)
    assert medadv.mirrored is mirrored


def test_a_home_folder_is_understood(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(own.parent))
    assert open_victim("~/own").modalities == ("t1", "flair")


def test_the_network_goes_where_it_is_asked_to(own: Path) -> None:
    assert {p.device.type for p in open_victim(own, device="meta").network.parameters()} == {"meta"}


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "", "npu"])
def test_a_device_that_is_not_here_is_refused(own: Path, device: str) -> None:
    with pytest.raises(ConfigError, match="no such device"):
        open_victim(own, device=device)


def test_a_device_in_the_place_of_a_declaration_is_advice(own: Path) -> None:
    with unchecked(), pytest.raises(ConfigError, match="device="):
        open_victim(own, "cpu")  # type: ignore[arg-type]


# What nobody recognises


def lost(folder: Path) -> Path:
    (folder / "own" / CARD).unlink()
    return folder / "own"


def text(folder: Path) -> Path:
    (folder / "model.txt").write_text("hello world")
    return folder / "model.txt"


UNKNOWN: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda f: f / "nowhere", "there is no model at this path"),
    "weights without a card": (lost, f"own with {WEIGHTS}"),
    "text": (text, "11 bytes that begin with b'hello wo'"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_nobody_recognises_is_told_with_what_each_format_needs(own: Path, name: str) -> None:
    make, words = UNKNOWN[name]
    with pytest.raises(VictimError) as refusal:
        open_victim(make(own.parent))
    assert words in str(refusal.value)
    assert all(row.needs in refusal.value.details["expected"] for row in FORMATS)


def test_a_file_needs_neither_nnunet_nor_bundles(tmp_path: Path) -> None:
    """In a process of its own, since other tests import them."""
    state(tmp_path)
    program = (
        "import sys, medadv\n"
        "from medadv.errors import ConfigError\n"
        "try:\n    medadv.open_victim('fold0.safetensors')\n"
        "except ConfigError:\n    pass\n"
        "formats = 'medadv.victims.formats.'\n"
        "print([n for n in ('nnunetv2', formats + 'nnunet', formats + 'bundle') if n in sys.modules])\n"
        "print(formats + 'weights' in sys.modules)\n"
    )
    command = [sys.executable, "-c", program]
    root = str(Path(__file__).parents[3])
    outcome = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": root}, capture_output=True, text=True, check=False
    )
    assert outcome.stdout.splitlines() == ["[]", "True"], outcome.stderr


# What a card and a user both say

SAID: dict[str, object] = {
    "modalities": ("flair", "t1"),
    "head": "sigmoid",
    "regions": ("lesion",),
    "inference": WholeVolume(2),
    "normalise": Unchanged(),
    "spatial": (Orientation("RAS"),),
    "network": Architecture(name="BasicUNet", arguments={"features": [4] * 6}),
}


@pytest.mark.parametrize("name", SAID)
def test_a_setting_against_the_card_is_refused_and_a_silence_is_not(own: Path, name: str) -> None:
    open_victim(own, DECLARED)  # as the card has it
    open_victim(own, Declared(SCHEME))
    with pytest.raises(ConfigError, match="says otherwise") as refusal:
        open_victim(own, replace(DECLARED, **{name: SAID[name]}))
    assert list(refusal.value.details["got"]) == [name]


@pytest.mark.parametrize("make", [lambda f: f / "own", state, exported], ids=["medadv", "weights", "program"])
def test_words_and_folds_that_nothing_uses_are_refused(own: Path, make: Callable[[Path], Path]) -> None:
    path = make(own.parent)
    said = OF_PROGRAMS if path.suffix == ".pt2" else DECLARED
    with pytest.raises(ConfigError, match="names translate words"):
        open_victim(path, replace(said, names={"T1": "t1"}), trust=True)
    with pytest.raises(ConfigError, match="folds are chosen"):
        open_victim(path, replace(said, folds=(0,)), trust=True)


# What a file does not say, and nobody has said


@pytest.mark.parametrize("setting", ["modalities", "normalise", "inference", "regions", "network"])
def test_nothing_of_a_silent_file_is_guessed(tmp_path: Path, setting: str) -> None:
    """The advice is the lines that a study needs, with the values that would have been guessed."""
    paths = [state(tmp_path)] if setting == "network" else [state(tmp_path), exported(tmp_path)]
    for path in paths:
        said = DECLARED if path.suffix == ".safetensors" else OF_PROGRAMS
        lacking = replace(said, scheme=BRATS_2018, head="sigmoid", regions=("TC", "WT"), data=("flair", "t1"))
        with pytest.raises(ConfigError, match="has to be said") as refusal:
            open_victim(path, replace(lacking, **{setting: None}), trust=True)
        advice = refusal.value.details["try"].splitlines()
        (line,) = [one for one in advice if one.startswith("    ")]
        proposed = {
            "modalities": ("flair", "t1"),
            "normalise": ZScore(),
            "inference": SlidingWindow((32, 32, 32)),
            "regions": ("WT", "TC", "ET"),
            "network": Architecture(),
        }
        written = VictimSpec.model_validate(yaml.safe_load(line))
        assert written.model_fields_set == {setting}
        assert getattr(written, setting) == proposed[setting]
        assert f"{setting}=" in advice[-1]


def test_other_regions_than_the_cards_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    victim = Segmenter(build_network(UNET, 2, 2), Sigmoid(BRATS_2018, ("WT", "ET")), ("t1", "flair"))
    save_victim(victim, UNET, tmp_path)
    said = Declared(BRATS_2018, head="sigmoid", regions=("WT", "TC"))
    with pytest.raises(ConfigError, match="says otherwise"):
        open_victim(tmp_path, said)
    open_victim(tmp_path, replace(said, regions=None))


# Victims made of victims


def test_several_paths_are_their_mean(tmp_path: Path, x: torch.Tensor) -> None:
    paths = [state(tmp_path, seed) for seed in range(3)]
    victim = open_victim(paths, DECLARED)
    apart = [DECLARED.deployed(network(seed)) for seed in range(3)]
    with torch.no_grad():
        assert torch.allclose(victim(x), torch.stack([one(x) for one in apart]).mean(0), atol=1e-6)
    assert victim.answer_cost == Passes(forward=3)
    assert not torch.equal(victim.decided(x), apart[0].decided(x))


def test_models_that_are_deployed_differently_have_no_mean(own: Path) -> None:
    other = own.parent / "other"
    save_victim(replace(load_victim(own), inference=WholeVolume(2)), UNET, other)
    with pytest.raises(ConfigError, match="deployed alike") as refusal:
        open_victim([own, other])
    assert "inference" in str(refusal.value.details["got"])
    with pytest.raises(ConfigError, match="no models"):
        open_victim([])


def test_a_mirrored_victim_answers_alike_for_mirror_images(own: Path, x: torch.Tensor) -> None:
    victim = open_victim(own)
    both = mirrored(victim, (0, 2))
    assert torch.equal(both.decided(x.flip(2, 4)), both.decided(x).flip(1, 3))
    assert not torch.equal(victim.decided(x.flip(2, 4)), victim.decided(x).flip(1, 3))
    assert both.answer_cost == Passes(forward=4)
    with pytest.raises(ConfigError, match="axes of space"):
        mirrored(victim, (3,))


@pytest.mark.parametrize("axes", [(3,), ("x",), (True,), (0.0,), 0, (), (1, 1), (-1,)], ids=repr)
def test_mirroring_along_what_is_no_axis_is_refused(own: Path, x: torch.Tensor, axes: object) -> None:
    """Whole volumes tell their axes only when there is one."""
    victim = replace(open_victim(own), inference=WholeVolume(2))
    with unchecked(), pytest.raises(ConfigError, match="axes of space"):
        mirrored(victim, axes)(x)  # type: ignore[arg-type]


def test_the_gradient_goes_through_programs_that_are_mirrored_and_averaged(tmp_path: Path, x: torch.Tensor) -> None:
    program = open_victim([exported(tmp_path)] * 2, OF_PROGRAMS, trust=True)
    gradients = []
    for victim in (program, DECLARED.deployed(network())):
        z = x.clone().requires_grad_()
        gradients.append(torch.autograd.grad(mirrored(victim, (1,))(z).square().sum(), z)[0])
    assert gradients[0].abs().max() > 0
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-6)


class _Other:
    """A predictor of some format."""

    def __call__(self, x: torch.Tensor, affine: object) -> torch.Tensor:
        return torch.zeros(x[:, 0].shape, dtype=torch.long)

    def describe(self) -> dict[str, object]:
        return {"name": "other"}


def test_a_victim_with_its_own_predictor_is_not_made_into_another(own: Path) -> None:
    victim = replace(open_victim(own), deployed=_Other(), head=Softmax(SCHEME))
    with pytest.raises(ConfigError, match="own predictor"):
        mirrored(victim, (0,))
