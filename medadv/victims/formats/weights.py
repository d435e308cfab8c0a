"""Weights alone: a state dict in safetensors, or in PyTorch's own container, and a network that MONAI knows by name.

A container of PyTorch is a pickle. It is read with ``weights_only=True``, which builds tensors and runs nothing; what
needs more than that is a program, and is refused.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from medadv.errors import VictimError
from medadv.victims.declared import Declared, check_said, undeclared
from medadv.victims.declared_detector import DeclaredDetector
from medadv.victims.detection import Detector
from medadv.victims.formats.numpy_numbers import NUMBERS
from medadv.victims.segmentation import Segmenter

State = dict[str, Tensor]

SAFE, PICKLED = (".safetensors",), (".pt", ".pth", ".ckpt", ".bin", ".tar")
"""The names of either container."""

NESTED = ("state_dict", "model_state_dict", "network_weights", "model", "network", "net", "ema", "model_ema")
"""Under which names training programs put a network's weights; where several hold the same, the first is read."""

PREFIXES = ("module.", "_orig_mod.", "network.", "model.", "net.")
"""What wrappers (DDP, ``torch.compile``, Lightning) put before every key."""

SILENT = "weights are numbers: which network they belong to, and how it is deployed, has to be said"

_DAMAGED = (RuntimeError, ValueError, LookupError, TypeError, AttributeError, EOFError, OSError, UnpicklingError)
"""What ``torch.load`` raises on a file that is no checkpoint, or not a whole one."""


def recognises(path: Path) -> bool:
    """A file that is weights by its content, or at least by its name."""
    return path.is_file() and (path.suffix in SAFE + PICKLED or _container(path) is not None)


def load(
    path: Path,
    declared: Declared | DeclaredDetector | None,
    trust: bool,  # noqa: ARG001  (nothing here is run)
) -> Segmenter | Detector:
    """The declared network with these weights.

    Raises:
        VictimError: a file that is no state dict, or weights of another network.
        ConfigError: nobody has said which network they belong to and how it is deployed, or it cannot be built.
    """
    state = read_state(path)
    if declared is None:
        raise undeclared(SILENT)
    network = declared.build()
    fit_state(network, state)
    victim = declared.deployed(network.eval())
    if isinstance(declared, Declared) and isinstance(victim, Segmenter):
        check_said(victim, replace(declared, network=None))  # the network is the declared one
    return victim


def read_state(path: Path) -> State:
    """The state dict in a file, on the CPU, with the keys that it has there; ``fit_state`` sees to their prefixes.

    Raises:
        VictimError: no such file, not the container that its name promises, damaged, a program, no state dict or
            several, or values that are not finite.
    """
    if not path.is_file():
        raise VictimError("weights are one file", got=f"{path}, which is {'a folder' if path.is_dir() else 'missing'}")
    container = _container(path)
    for other, suffixes in (("safetensors", PICKLED), ("pickle", SAFE)):
        if container == other and path.suffix in suffixes:
            raise VictimError(
                f"{path.name} is not what its name says",
                got=f"a {other} by content" if other == "safetensors" else "a pickle by content, which is no data",
                expected=f"what {path.suffix} promises",
                cause="a file that was renamed, or saved with the wrong function",
                advice="rename it to .safetensors" if other == "safetensors" else "rename it to .pt",
            )
    state = _safetensors(path) if path.suffix in SAFE or container == "safetensors" else _pickled(path)
    if odd := [name for name, tensor in state.items() if tensor.layout != torch.strided or tensor.is_quantized]:
        raise VictimError("these weights are sparse or quantised", got=odd[:5], expected="plain tensors")
    if odd := [name for name, tensor in state.items() if tensor.is_complex()]:
        raise VictimError(
            f"the weights in {path.name} are complex numbers",
            got=odd[:5],
            expected="real ones",
            cause="a network of k-space",
            advice="bring such a network in by Python, with medadv.Segmenter",
        )
    broken = [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise VictimError(
            f"the weights in {path.name} are not finite", got=broken[:5], cause="a training that diverged"
        )
    return {name: tensor.detach() for name, tensor in state.items()}


def fit_state(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a state dict whose keys and shapes are exactly the network's, or else say how they differ.

    Prefixes that all keys share are taken off, as far as that brings them nearer to the network's keys.

    Raises:
        VictimError: a key is missing, unknown, or of another shape.
    """
    own = network.state_dict()
    state = min(_unwrapped(state), key=lambda keys: len(own.keys() ^ keys.keys()))
    missing, unknown = [k for k in own if k not in state], [k for k in state if k not in own]
    shapes = {k: (tuple(state[k].shape), tuple(own[k].shape)) for k in own if k in state}
    other = {k: pair for k, pair in shapes.items() if pair[0] != pair[1]}
    if not (missing or unknown or other):
        network.load_state_dict(dict(state))
        return
    name = type(network).__name__
    got = [
        f"{len(names)} {what}: {', '.join(names[:3])}{' …' if len(names) > 3 else ''}"
        for what, names in (
            ("missing", missing),
            ("unknown", unknown),
            ("of another shape", [f"{k} {a}, not {b}" for k, (a, b) in other.items()]),
        )
        if names
    ]
    cause = None if missing or unknown else _channels(network, other)
    raise VictimError(
        f"the weights are not those of the {name} that is declared",
        got="; ".join(got),
        expected=f"exactly the {len(own)} tensors of {name}",
        cause=cause or ("other settings of the same network" if len(shapes) > len(own) // 2 else "another network"),
        advice="declare the modalities and the head that it was trained with"
        if cause
        else "declare the network as it was built for training: victims.<name>.network.name and .arguments; where the "
        "file holds more than the network (a loss, a teacher), save network.state_dict() alone",
    )


def _container(path: Path) -> str | None:
    """``safetensors`` or ``pickle``, by the first bytes; None where it is neither."""
    with path.open("rb") as stream:
        head = stream.read(9)
    if len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size:
        return "safetensors"
    if head[:2] == b"PK":
        return "pickle"
    return "pickle" if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05") else None


def _safetensors(path: Path) -> State:
    try:
        state = load_file(path, device="cpu")
    except (SafetensorError, OSError) as error:
        raise VictimError(
            f"{path.name} cannot be read as safetensors", got=error, advice="check that the file was copied whole"
        ) from error
    if not state:
        raise VictimError(f"{path.name} holds no weights", got="an empty dictionary")
    return state


def _pickled(path: Path) -> State:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(NUMBERS):
            warnings.simplefilter("ignore")  # of what torch warns here (sparse tensors), it is refused below
            content = torch.load(path, weights_only=True, map_location="cpu")
    except _DAMAGED as error:
        if _container(path) == "pickle" and (name := re.search(r"GLOBAL ([\w.]+)", str(error))):
            raise VictimError(
                f"{path.name} is a program, and not weights alone",
                got=f"a pickle that asks for {name[1]}",
                cause="torch.save(network), or settings and objects saved beside the weights",
                advice="load it yourself where you trust it, and save network.state_dict() with "
                "safetensors.torch.save_file",
            ) from error
        raise VictimError(
            f"{path.name} cannot be read as weights of PyTorch",
            got=str(error).splitlines()[0] if str(error) else type(error).__name__,
            cause="a file that was cut short, or another kind of file",
            advice="check that it was copied whole; where it holds a network and not its state dict, save "
            "network.state_dict() with safetensors.torch.save_file",
        ) from error
    return _state_in(content, path.name)


def _state_in(content: Any, where: str) -> State:
    """The state dict in what was saved: itself, or under one of the usual names."""
    if not isinstance(content, Mapping) or not content:
        kind = "an empty dictionary" if isinstance(content, Mapping) else f"a {type(content).__name__}"
        raise VictimError(f"{where} holds no weights", got=kind, expected="a state dict: names and tensors")
    if all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()):
        return dict(content)
    named = [name for name in NESTED if isinstance(content.get(name), Mapping)]
    named = named or [name for name, value in content.items() if _all_tensors(value)]
    if not named:
        raise VictimError(
            f"{where} holds no weights under a name that is known",
            got=[str(name) for name in content][:10],
            expected=f"a state dict, or one under one of {list(NESTED)}",
            advice="save network.state_dict() alone",
        )
    states = {name: _state_in(content[name], f"{where}: {name}") for name in named}
    if not all(_equal(a, b) for a, b in combinations(states.values(), 2)):
        raise VictimError(
            f"{where} holds several sets of weights",
            got=list(states),
            expected="the one that is deployed",
            advice="save that one alone, with safetensors.torch.save_file",
        )
    return next(iter(states.values()))


def _all_tensors(value: object) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(one, Tensor) for one in value.values())


def _equal(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _unwrapped(state: Mapping[str, Tensor]) -> list[Mapping[str, Tensor]]:
    """The state dict as it is, and without each prefix in turn that all of its keys share."""
    states = [state]
    while state and (prefix := next((p for p in PREFIXES if all(key.startswith(p) for key in states[-1])), None)):
        states.append({key.removeprefix(prefix): tensor for key, tensor in states[-1].items()})
    return states


def _channels(network: nn.Module, other: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]) -> str | None:
    """In words: the numbers of input and output channels, where they alone explain every other shape."""
    into: set[tuple[int, int]] = set()
    out: set[tuple[int, int]] = set()
    for key, (got, own) in other.items():
        differing = [i for i, (a, b) in enumerate(zip(got, own, strict=False)) if a != b]
        if len(got) != len(own) or len({(got[i], own[i]) for i in differing}) != 1:
            return None
        layer = network.get_submodule(key.rpartition(".")[0])
        enters = isinstance(layer, nn.modules.conv._ConvNd) and not layer.transposed and differing == [1]
        (into if enters else out).add((got[differing[0]], own[differing[0]]))
    if len(into) > 1 or len(out) > 1:
        return None
    found = [f"{a} {way} channels" for way, pairs in (("input", into), ("output", out)) for a, _ in pairs]
    declared = [f"{b} {way}" for way, pairs in (("modalities", into), ("channels of the head", out)) for _, b in pairs]
    return f"weights of a network with {' and '.join(found)}; declared are {' and '.join(declared)}"
