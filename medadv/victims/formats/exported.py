"""Programs: ``torch.export``'s ``.pt2`` and TorchScript, which hold a network together with its code.

To load one can run anything, so a file is recognised by the names in its archive, and is loaded only where it is
trusted. What was exported with one shape answers to that shape alone, and its windows must have it.
"""

from __future__ import annotations

import hashlib
import json
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.export.passes import move_to_device_pass

from medadv.errors import ConfigError, VictimError
from medadv.victims.declared import Declared, check_said, undeclared
from medadv.victims.memory import is_full
from medadv.victims.segmentation import Segmenter
from medadv.victims.window import Inference, SlidingWindow

Kind = Literal["pt2", "torchscript", "compiled"]
Sizes = tuple[int | None, ...]
"""A shape, batch axis and channels included; None where any size is answered."""

SILENT = "a program holds its own network, and nothing of how it is deployed: that has to be said"

METADATA = 2**20
"""Bytes of metadata that are read at most."""


class Program(nn.Module):
    """A loaded program as a module: held still, moved and named like any other.

    Its ``repr`` is the digest of its file and not its code, in which addresses and paths may stand.

    Args:
        module: what is called.
        kind: which kind of file it comes from.
        sha256: the digest of that file.
        one: whether images are answered one at a time, since the program knows no other batch.
        exported: the program itself, from which it is made again for another device; None for TorchScript.
    """

    def __init__(
        self, module: nn.Module, kind: Kind, sha256: str, one: bool = False, exported: ExportedProgram | None = None
    ) -> None:
        super().__init__()
        self.program = module
        self.kind, self.sha256, self.one = kind, sha256, one
        self._exported = exported

    def forward(self, x: Float[Tensor, "b c *s"]) -> Float[Tensor, "b k *s"]:
        """The program's answer.

        Raises:
            VictimError: the program was exported for other inputs.
        """
        try:
            if self.one and len(x) > 1:
                return torch.cat([self.program(image[None]) for image in x.unbind()])
            answer: Tensor = self.program(x)
        except (AssertionError, ValueError, TypeError) as error:  # guards; another number of inputs
            raise VictimError(
                "the program refuses this input",
                got=f"{tuple(x.shape)}: {str(error).splitlines()[0]}",
                expected="a shape that it was exported for",
                advice="choose the window that it was exported with, or export it anew with dynamic_shapes",
            ) from error
        return answer

    def train(self, mode: bool = True) -> Program:
        """Set the mode, part by part: an exported graph refuses ``train()`` and ``eval()``, and has no mode inside."""
        for part in self.modules():
            part.training = mode
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> Program:
        """Move the program: an exported graph has its device written into it, so it is made again there."""
        if self._exported is None:
            super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
            return self
        goal = fn(torch.empty(0))
        if goal.dtype != torch.float32:
            raise VictimError("an exported program keeps its precision", got=goal.dtype, advice="export it anew")
        inputs = (node for node in self._exported.graph.nodes if node.op == "placeholder")
        if any(value.device != goal.device for node in inputs if isinstance(value := node.meta.get("val"), Tensor)):
            self._exported = move_to_device_pass(self._exported, goal.device)
            self.program = self._exported.module()
            self.train(self.training)
        return self

    def __repr__(self) -> str:
        return f"Program({self.kind}, sha256={self.sha256})"


def recognises(path: Path) -> bool:
    """An archive whose members are those of an exported program; nothing in it is read."""
    return _kind(path) is not None


def load(path: Path, declared: Declared | None, trust: bool) -> Segmenter:
    """The program, deployed as declared.

    Raises:
        VictimError: not trusted, damaged, compiled, of another PyTorch, of several inputs or answers, or exported while
            it trained.
        ConfigError: nobody has said how it is deployed, or the windows are not those that it was exported with.
    """
    kind = _kind(path)
    assert kind is not None
    if kind == "compiled":
        raise VictimError(
            f"{path.name} is compiled, and has no gradient",
            got="an AOTInductor package",
            advice="give the program that it was compiled from: torch.export.save(program, 'model.pt2')",
        )
    if not trust:
        raise VictimError(
            f"{path.name} is a program, and to load it can run anything",
            got="a torch.export archive" if kind == "pt2" else "a TorchScript archive",
            expected="leave to run it",
            advice="where you know who made it: --trust, or trust=True in Python; or give the weights alone, as "
            "safetensors, and name the network in victims.<name>.network",
        )
    if declared is None:
        raise undeclared(SILENT)
    declared.check_complete(SILENT)
    if declared.network is not None:
        raise ConfigError(SILENT, got="a network declared beside it", advice="leave network out")
    network = _exported(path, declared) if kind == "pt2" else _torchscript(path, declared)
    victim = declared.deployed(network.eval())
    check_said(victim, declared)
    return victim


def _kind(path: Path) -> Kind | None:
    """What an archive is, by its members' names below their common folder."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return None
    inside = {name.partition("/")[2] for name in names}
    if any(name.startswith("data/aotinductor/") for name in inside):
        return "compiled"
    if "archive_format" in inside or "serialized_exported_program.json" in names:  # the latter until PyTorch 2.7
        return "pt2"
    return "torchscript" if {"data.pkl", "constants.pkl"} <= inside else None


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _exported(path: Path, declared: Declared) -> Program:
    try:
        with path.open("rb") as stream:  # a path would have to end in .pt2
            program = torch.export.load(stream)
        module = program.module()
    except Exception as error:  # whatever code from a file raises
        if is_full(error):
            raise
        raise _unloadable(path, error) from error
    shapes = _Shapes.of(program)
    shapes.check(declared)
    return Program(module, "pt2", _digest(path), one=shapes.input[0] == 1, exported=program).to("cpu")


def _torchscript(path: Path, declared: Declared) -> Program:
    _check_metadata(path, declared)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch would rather see torch.export; whoever exports can choose
            module = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever code from a file raises
        if is_full(error):
            raise
        raise _unloadable(path, error) from error
    return Program(module, "torchscript", _digest(path))


def _unloadable(path: Path, error: Exception) -> VictimError:
    return VictimError(
        f"{path.name} cannot be loaded",
        got=str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__,
        cause="a file that was cut short, another release of PyTorch, operators of another package, or a device that "
        "is not here",
        advice="export it anew, on the CPU, with the PyTorch that is installed here",
    )


@dataclass(frozen=True)
class _Shapes:
    """What an exported program takes and gives."""

    input: Sizes
    output: Sizes

    @classmethod
    def of(cls, program: ExportedProgram) -> _Shapes:
        """The shapes of the one input and the one answer.

        Raises:
            VictimError: another number of either, or a program in training mode.
        """
        signature = program.graph_signature
        values = {node.name: node.meta.get("val") for node in program.graph.nodes}
        tensors = [[values.get(name) for name in names] for names in (signature.user_inputs, signature.user_outputs)]
        if [len(names) for names in tensors] != [1, 1] or not all(isinstance(one, Tensor) for [one] in tensors):
            raise VictimError(
                "the program does not map one image to one answer",
                got=f"{len(tensors[0])} inputs and {len(tensors[1])} answers",
                cause="deep supervision, a dictionary, or settings as inputs",
                advice="export a module whose forward takes the image and returns the deployed logits",
            )
        if _trains(program):
            raise VictimError(
                "the program goes on learning, or drops units, when it is called",
                cause="it was exported in training mode",
                advice="call network.eval() before torch.export.export",
            )
        [[given], [answer]] = tensors
        return cls(_sizes(cast(Tensor, given)), _sizes(cast(Tensor, answer)))

    def check(self, declared: Declared) -> None:
        """Whether the declared deployment is one that the program can answer.

        Raises:
            VictimError: another number of channels.
            ConfigError: windows or batches of another size.
        """
        head = declared.make_head()
        assert declared.modalities is not None  # both: by load
        assert declared.inference is not None
        sides = (("input", self.input[1], declared.modalities), ("output", self.output[1], head.channels))
        for what, size, names in sides:
            if size not in (None, len(names)):
                raise VictimError(
                    f"the program was exported with another number of {what} channels",
                    got=size,
                    expected=f"{len(names)}: {', '.join(names)}",
                    advice="declare the modalities and the head that it was trained with",
                )
        space = self.input[2:]
        if self.input[0] not in (None, 1):
            raise ConfigError(
                "the program answers batches of one size alone",
                got=self.input[0],
                expected="1, or any",
                advice="export it with an example of one image, or with dynamic_shapes on the batch axis",
            )
        if not _answers(space, declared.inference):
            roi = [0 if size is None else size for size in space]
            raise ConfigError(
                "the program was exported for another shape than it would be given",
                got=declared.inference,
                expected=f"windows of {' × '.join('any' if size is None else str(size) for size in space)} voxels",
                advice=f"write inference: {{name: window, roi: {roi}}}, or export it anew with dynamic_shapes",
            )


def _trains(program: ExportedProgram) -> bool:
    """Whether its graph changes its own buffers, or calls an operator with ``training`` (``train`` of dropout) set."""
    changes = {OutputKind.BUFFER_MUTATION, OutputKind.PARAMETER_MUTATION}
    if any(output.kind in changes for output in program.graph_signature.output_specs):
        return True
    for node in program.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload):
            names = [argument.name for argument in node.target._schema.arguments]
            given = dict(zip(names, node.args, strict=False)) | node.kwargs
            if given.get("training") is True or given.get("train") is True:
                return True
    return False


def _sizes(value: Tensor) -> Sizes:
    return tuple(size if isinstance(size, int) else None for size in value.shape)


def _answers(space: Sizes, inference: Inference) -> bool:
    """Whether every window has the exported shape; an axis that is free answers to any."""
    if not isinstance(inference, SlidingWindow):
        return not any(space)
    if len(inference.roi) != len(space):
        return False
    return all(size in (None, roi) for size, roi in zip(space, inference.roi, strict=True))


def _check_metadata(path: Path, declared: Declared) -> None:
    """MONAI's ``model.ts`` may say how many channels it has (``network_data_format``).

    Raises:
        VictimError: other numbers than are declared.
    """
    with zipfile.ZipFile(path) as archive:
        member = next((i for i in archive.infolist() if i.filename.endswith("/extra/metadata.json")), None)
        if member is None or member.file_size > METADATA:
            return
        try:
            form = json.loads(archive.read(member))["network_data_format"]
            said = {way: form[way][name]["num_channels"] for way, name in (("inputs", "image"), ("outputs", "pred"))}
        except (ValueError, LookupError, TypeError, zipfile.BadZipFile):  # it says nothing of that
            return
    expected = dict(zip(("inputs", "outputs"), declared.channels, strict=True))
    if said != expected:
        raise VictimError(
            f"{path.name} says that it has other channels than are declared",
            got=", ".join(f"{number} {way}" for way, number in said.items()),
            expected=", ".join(f"{number} {way}" for way, number in expected.items()),
            advice="declare the modalities and the head that it was trained with",
        )
