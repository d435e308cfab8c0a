"""Programs: refused without trust and before anything runs; with it, held to the shape that they were exported with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from monai.data import save_net_with_metadata
from monai.inferers import sliding_window_inference
from torch import nn

from medadv.attack.checks import check_steady
from medadv.attack.presets import ifgsm
from medadv.attack.victim import held_still
from medadv.errors import ConfigError, MedadvError, VictimError
from medadv.labels import LabelScheme
from medadv.victims.declared import Declared
from medadv.victims.formats.exported import load, recognises
from medadv.victims.networks import Architecture, build_network
from medadv.victims.normalize import ZScore
from medadv.victims.segmentation import Segmenter, weights_digest
from medadv.victims.window import SlidingWindow, WholeVolume

SCHEME = LabelScheme("two", {"background": 0, "lesion": 1})
UNET = Architecture(arguments={"spatial_dims": 3, "channels": [4, 8], "strides": [2], "num_res_units": 1})
WINDOWS = SlidingWindow((8, 8, 8), overlap=0.5)
DECLARED = Declared(SCHEME, ("t1", "flair"), normalise=ZScore(), inference=WINDOWS)


def network(channels: int = 2, training: bool = False) -> nn.Module:
    torch.manual_seed(3)
    return build_network(UNET, 2, channels).train(training)


def export(path: Path, module: nn.Module, batch: int = 1, dynamic: tuple[int, ...] = ()) -> Path:
    shapes = (dict.fromkeys(dynamic, torch.export.Dim.AUTO),)
    example = (torch.randn(batch, 2, 8, 8, 8),)
    torch.export.save(torch.export.export(module, example, dynamic_shapes=shapes), path)
    return path


def scripted(path: Path, module: nn.Module, way: str = "script") -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch calls all of TorchScript deprecated
        make = {"script": torch.jit.script, "trace": lambda m: torch.jit.trace(m, torch.randn(1, 2, 8, 8, 8))}
        if way == "frozen":
            program = torch.jit.freeze(torch.jit.script(module))
        else:
            program = make["script" if way == "metadata" else way](module)
        if way != "metadata":
            program.save(str(path))
        else:
            form = {"inputs": {"image": {"num_channels": 2}}, "outputs": {"pred": {"num_channels": 2}}}
            save_net_with_metadata(program, str(path), meta_values={"network_data_format": form})
    return path


WAYS: dict[str, Callable[[Path], Path]] = {
    "fixed.pt2": lambda p: export(p, network()),
    "batch.pt2": lambda p: export(p, network(), batch=2, dynamic=(0,)),
    "dynamic.pt2": lambda p: export(p, network(), batch=2, dynamic=(0, 2, 3, 4)),
    "script.ts": lambda p: scripted(p, network()),
    "trace.pt": lambda p: scripted(p, network(), "trace"),
    "frozen.ts": lambda p: scripted(p, network(), "frozen"),
    "model.ts": lambda p: scripted(p, network(), "metadata"),
}


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("programs")
    return {name: make(folder / name) for name, make in WAYS.items()}


def image() -> torch.Tensor:
    torch.manual_seed(4)
    return torch.rand(1, 2, 13, 8, 9) + 0.5


@pytest.mark.parametrize("name", WAYS)
def test_label_maps_and_gradients_are_those_of_the_deployed_program(programs: dict[str, Path], name: str) -> None:
    """The same file under MONAI's own inferer; and its gradient, the one of the network that it was made from."""
    victim = load(programs[name], DECLARED, trust=True)
    eager = replace(victim, network=network())
    x = image()
    z = victim.steps[0].prepare(x, None)(x)  # type: ignore[attr-defined]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.export.load(programs[name]).module() if name.endswith("pt2") else torch.jit.load(programs[name])
    with torch.no_grad():
        answer = sliding_window_inference(z, (8, 8, 8), 1, program, overlap=0.5, mode="gaussian")
    reference = answer.argmax(1)
    assert 0.1 < reference.double().mean() < 0.9
    assert (victim.predict(x) == reference).double().mean() >= 0.999
    check_steady(victim, x)
    assert torch.allclose(gradient(victim, x), gradient(eager, x), rtol=1e-4, atol=1e-6)


def gradient(victim: Segmenter, x: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_()
    with held_still(victim.modules()):
        return torch.autograd.grad(victim(x).square().sum(), x)[0]


@pytest.mark.parametrize("name", ["fixed.pt2", "trace.pt", "frozen.ts"])
def test_an_attack_runs_and_leaves_the_program_as_it_was(programs: dict[str, Path], name: str) -> None:
    victim = load(programs[name], DECLARED, trust=True)
    before = weights_digest(victim.network)
    flags = [p.requires_grad for p in victim.network.parameters()]
    truth = victim.predict(image())
    result = ifgsm("0.1 sigma", steps=2)(victim, image(), truth)
    assert (victim.predict(result.x) != truth).any()
    assert weights_digest(victim.network) == before
    assert [p.requires_grad for p in victim.network.parameters()] == flags
    assert not any(part.training for part in victim.network.modules())


def test_windows_go_one_at_a_time_where_the_batch_is_fixed(programs: dict[str, Path]) -> None:
    many = replace(DECLARED, inference=replace(WINDOWS, batch=3))
    one, several = (load(programs["fixed.pt2"], declared, trust=True) for declared in (DECLARED, many))
    assert torch.equal(one(image()), several(image()))


@pytest.mark.parametrize("name", ["fixed.pt2", "script.ts"])
def test_identity_is_the_file_and_the_weights(programs: dict[str, Path], name: str, tmp_path: Path) -> None:
    """Neither addresses nor paths are in it, and a copy elsewhere is the same program."""
    (tmp_path / "copy").write_bytes(programs[name].read_bytes())
    first, copy = (load(path, DECLARED, trust=True).network for path in (programs[name], tmp_path / "copy"))
    assert repr(first) == repr(copy)
    assert "0x" not in repr(first).replace("sha256", "")
    assert str(tmp_path) not in repr(first)
    assert weights_digest(first) == weights_digest(copy)
    other = export(tmp_path / "other.pt2", nn.Conv3d(2, 2, 1))
    assert repr(load(other, DECLARED, trust=True).network) != repr(first)


def test_an_exported_program_moves_as_a_whole(tmp_path: Path) -> None:
    """A device is written into its graph: moving the weights alone would leave constants behind."""

    class Shifted(nn.Conv3d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + torch.arange(8, device=x.device)

    victim = load(export(tmp_path / "m.pt2", Shifted(2, 2, 1).eval()), DECLARED, trust=True)
    moved = victim.network.to("meta")
    assert not any(part.training for part in moved.modules())
    assert moved(torch.empty(1, 2, 8, 8, 8, device="meta")).device.type == "meta"
    with pytest.raises(VictimError, match="keeps its precision"):
        victim.network.half()


def declared(**settings: object) -> Declared:
    return replace(DECLARED, **settings)


FIXED: dict[str, tuple[Declared, type[MedadvError], str]] = {
    "another window": (declared(inference=SlidingWindow((16, 8, 8))), ConfigError, "roi: [8, 8, 8]"),
    "two axes": (declared(inference=SlidingWindow((8, 8))), ConfigError, "windows of 8 × 8 × 8 voxels"),
    "the whole of an axis": (declared(inference=SlidingWindow((0, 8, 8))), ConfigError, "roi: [8, 8, 8]"),
    "whole volumes": (declared(inference=WholeVolume()), ConfigError, "roi: [8, 8, 8]"),
    "three modalities": (declared(modalities=("t1", "t2", "flair")), VictimError, "number of input channels"),
    "three tissues": (
        declared(scheme=LabelScheme("three", {"background": 0, "a": 1, "b": 2})),
        VictimError,
        "number of output channels",
    ),
    "a network beside it": (declared(network=UNET), ConfigError, "its own network"),
}


@pytest.mark.parametrize("name", FIXED)
def test_a_fixed_shape_is_held_against_what_is_declared(programs: dict[str, Path], name: str) -> None:
    settings, kind, words = FIXED[name]
    with pytest.raises(kind) as refusal:
        load(programs["fixed.pt2"], settings, trust=True)
    assert words in str(refusal.value)


def test_free_axes_take_any_volume(programs: dict[str, Path]) -> None:
    victim = load(programs["dynamic.pt2"], declared(inference=WholeVolume(2)), trust=True)
    assert torch.equal(victim(image()), replace(victim, network=network())(image()))


def test_a_guard_that_fails_is_advice(programs: dict[str, Path]) -> None:
    victim = load(programs["fixed.pt2"], DECLARED, trust=True)
    with pytest.raises(VictimError, match="refuses this input"):
        replace(victim, inference=WholeVolume())(image())


class Two(nn.Conv3d):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        answer = super().forward(x)
        return answer, answer


class Counting(nn.Conv3d):
    def __init__(self) -> None:
        super().__init__(2, 2, 1)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.add_(1)
        return super().forward(x)


def ending(last: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv3d(2, 2, 1), last).train()


def decomposed(path: Path, module: nn.Module) -> Path:
    program = torch.export.export(module, (torch.randn(1, 2, 8, 8, 8),))
    torch.export.save(program.run_decompositions({}), path)
    return path


def changed(path: Path, change: Callable[[str, bytes], bytes]) -> Path:
    """The same archive with other contents."""
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w") as new:
        for name, content in members.items():
            new.writestr(name, change(name, content))
    return path


def compiled(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/archive_format", "pt2")
        archive.writestr("m/data/aotinductor/model/x.so", b"")
    return path


def other_metadata(name: str, content: bytes) -> bytes:
    return content.replace(b'"num_channels": 2', b'"num_channels": 4') if name.endswith("metadata.json") else content


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "two answers": (lambda p: export(p, Two(2, 2, 1)), "1 inputs and 2 answers"),
    "batch normalisation": (lambda p: export(p, ending(nn.BatchNorm3d(2))), "network.eval() before torch.export"),
    "dropout": (lambda p: export(p, ending(nn.Dropout3d())), "network.eval() before torch.export"),
    "changes itself": (lambda p: decomposed(p, Counting()), "network.eval() before torch.export"),
    "a batch of two": (lambda p: export(p, network(), batch=2), "answers batches of one size"),
    "compiled": (compiled, "has no gradient"),
    "no graph": (
        lambda p: changed(export(p, network()), lambda n, c: b"{" if n.endswith("model.json") else c),
        "cannot be loaded",
    ),
    "TorchScript without code": (
        lambda p: changed(scripted(p, network()), lambda n, c: b"}" if n.endswith(".py") else c),
        "cannot be loaded",
    ),
    "metadata of four channels": (
        lambda p: changed(scripted(p.with_suffix(".ts"), network(), "metadata"), other_metadata),
        "4 inputs, 4 outputs",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_every_fault_has_its_error(tmp_path: Path, name: str) -> None:
    make, words = BAD[name]
    path = make(tmp_path / "model.pt2")
    assert recognises(path)
    with pytest.raises(MedadvError) as refusal:
        load(path, DECLARED, trust=True)
    assert words in str(refusal.value)


@pytest.mark.parametrize("name", WAYS)
def test_nothing_is_loaded_without_trust_or_declaration(
    programs: dict[str, Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(torch.export, "load")
    monkeypatch.delattr(torch.jit, "load")
    assert recognises(programs[name])
    with pytest.raises(VictimError, match="--trust, or trust=True"):
        load(programs[name], DECLARED, trust=False)
    with pytest.raises(ConfigError, match="nothing of how it is deployed"):
        load(programs[name], None, trust=True)


def test_other_files_are_no_programs(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "state.pt2")
    torch.save(network(), tmp_path / "whole.ts")
    (tmp_path / "text.pt2").write_text("PK")
    with zipfile.ZipFile(tmp_path / "any.zip", "w") as archive:
        archive.writestr("folder/models/data.json", json.dumps({}))
        archive.writestr("folder/code/train.py", "")
    assert not any(recognises(path) for path in (*tmp_path.iterdir(), tmp_path, tmp_path / "missing.pt2"))


PLANTED = """
import pickle, sys, zipfile, torch
from pathlib import Path
from medadv import Declared, LabelScheme, SlidingWindow, ZScore, open_victim
from medadv.errors import MedadvError

class Payload:
    def __reduce__(self):
        return Path.touch, (Path("executed"),)

declared = Declared(LabelScheme("two", {"background": 0, "lesion": 1}), ("t1", "flair"),
                    normalise=ZScore(), inference=SlidingWindow((8, 8, 8)))
program = torch.export.export(torch.nn.Conv3d(2, 2, 1), (torch.randn(1, 2, 8, 8, 8),))
torch.export.save(program, "clean.pt2")
with zipfile.ZipFile("clean.pt2") as old, zipfile.ZipFile("planted.pt2", "w") as new:
    for name in old.namelist():
        new.writestr(name, pickle.dumps(Payload()) if name.endswith("sample_inputs/model.pt") else old.read(name))
torch.save({"state_dict": Payload()}, "planted.pt")
for name in ("planted.pt2", "planted.pt"):
    try:
        open_victim(name, declared)
    except MedadvError as error:
        print(name, "refused", Path("executed").exists())
try:
    open_victim("planted.pt2", declared, trust=True)
except MedadvError:
    pass
print("with trust", Path("executed").exists())
"""


def test_a_planted_payload_does_not_run_without_trust(tmp_path: Path) -> None:
    """In a process of its own; where it is trusted it does run, which is why trust is asked for."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", PLANTED]
    outcome = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    told = ["planted.pt2 refused False", "planted.pt refused False", "with trust True"]
    assert outcome.stdout.splitlines() == told, outcome.stderr
