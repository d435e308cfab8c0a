"""The one door for models: a path, or several, and how they are deployed → ``Segmenter`` or ``Detector``.

A format is asked only for what it could be, and imported only when it is asked: nobody needs nnU-Net to open a UNet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import torch

from medadv.errors import ConfigError, VictimError
from medadv.victims import checkpoint
from medadv.victims.combine import Mean, Mirrored, no_such_axis
from medadv.victims.declared import Declared
from medadv.victims.declared_detector import DeclaredDetector
from medadv.victims.detection import Detector
from medadv.victims.segmentation import Segmenter
from medadv.victims.window import SlidingWindow

Source = str | Path

Said = Declared | DeclaredDetector | None
"""What was said of a model."""


@runtime_checkable
class Format(Protocol):
    """What each format's module holds."""

    def recognises(self, path: Path) -> bool:
        """Whether a path is of this format, without running anything in it."""
        ...

    def load(self, path: Path, declared: Any, trust: bool) -> Segmenter | Detector:
        """The victim on the CPU, in evaluation mode; ``declared`` is what was said of its kind."""
        ...


class _Own:
    """medadv's own folder."""

    def recognises(self, path: Path) -> bool:
        return ((path if path.is_dir() else path.parent) / checkpoint.CARD).is_file()

    def load(self, path: Path, declared: Said, trust: bool) -> Segmenter | Detector:  # noqa: ARG002
        victim = checkpoint.load_victim(path)
        if declared is not None:
            declared.check(victim)
        return victim


@dataclass(frozen=True)
class _Row:
    """A format.

    Attributes:
        name: for people.
        needs: what makes it one.
        folder: whether it is a folder.
        files: which files can be one.
        module: where it is read; None: here.
        silent: whether it does not say how it is deployed.
    """

    name: str
    needs: str
    folder: bool
    files: str | None
    module: str | None = None
    silent: bool = False

    def format(self) -> Format:
        return _Own() if self.module is None else cast(Format, import_module(f"medadv.victims.formats.{self.module}"))

    def recognises(self, path: Path) -> bool:
        could_be = self.folder if path.is_dir() else self.files is not None and path.match(self.files)
        return could_be and self.format().recognises(path)


FORMATS = (
    _Row("medadv", f"a folder with {checkpoint.WEIGHTS} and {checkpoint.CARD}", True, checkpoint.WEIGHTS),
    _Row("MONAI bundle", "a folder with configs/metadata.json and models/", True, None, "bundle.format"),
    _Row("nnU-Net", "a folder with plans.json, dataset.json and fold_*/", True, "checkpoint*.pth", "nnunet.format"),
    _Row("program", "a .pt2 of torch.export, or TorchScript; trusted", False, "*", "exported", True),
    _Row("weights", "one .safetensors, .pt, .pth or .ckpt", False, "*", "weights", True),
)
"""Every format, in the order in which they are asked."""


def open_victim(
    path: Source | Sequence[Source],
    declared: Said = None,
    *,
    trust: bool = False,
    device: str | torch.device = "cpu",
) -> Segmenter | Detector:
    """Open a model as it lies on the disk; several are one victim, whose answer is the mean of theirs.

    Args:
        path: a file or folder of one of ``FORMATS``, or several of one training: its folds.
        declared: how it is deployed, where the file does not say.
        trust: whether programs may be loaded, which can run anything.
        device: where its network goes.

    Raises:
        VictimError: nothing there, no format that is known, or a file that cannot be used.
        ConfigError: something has to be declared, or contradicts the file; members that are deployed differently; or
            a device that is not here.
    """
    if declared is not None and not isinstance(declared, Declared | DeclaredDetector):
        raise ConfigError(
            "what is said of a model is a Declared",
            got=repr(declared),
            advice="write load_victim(path, device=...) for a device, and Declared(scheme, modalities) for a model, "
            "DeclaredDetector(scheme, network) for a detector",
        )
    place = _device(device)
    paths = [path] if isinstance(path, str | Path) else list(path)
    members = [_opened(Path(one).expanduser(), declared, trust) for one in paths]
    victim = members[0] if len(members) == 1 else _ensemble(members)
    return replace(victim, network=victim.network.to(place))


def segmenter(victim: Segmenter | Detector, what: str = "taken") -> Segmenter:
    """The victim, where only a segmentation can be ``what`` it is to be.

    Raises:
        ConfigError: a detector.
    """
    if not isinstance(victim, Segmenter):
        raise ConfigError(f"a detector cannot be {what} here", expected="a segmentation: its answers are voxels")
    return victim


def _device(device: str | torch.device) -> torch.device:
    """The device, if a tensor can lie there."""
    try:
        torch.empty(0, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ConfigError(
            "this machine has no such device",
            got=device,
            expected="cpu, or cuda, cuda:1, mps where they are",
            cause=str(error).strip().splitlines()[0][:150] if str(error).strip() else None,
            advice="`medadv doctor` tells what torch finds, and why a GPU may be missing",
        ) from error


load_victim = open_victim
"""The name that it has beside ``save_victim``."""


def silent_format(path: Path) -> str | None:
    """The name of a model's format, where it does not say how it is deployed; None where it does, or is no model."""
    row = next((row for row in FORMATS if row.recognises(path)), None)
    return row.name if row is not None and row.silent else None


def mirrored(victim: Segmenter, axes: Sequence[int]) -> Segmenter:
    """The victim that answers with the mean over mirror images along some axes of space (test-time augmentation).

    Raises:
        ConfigError: no axes of its windows, or a victim that is scored by a predictor of its own.
    """
    _check_no_own_predictor([victim], "mirrored")
    network = Mirrored(victim.network, axes)
    if isinstance(victim.inference, SlidingWindow) and max(network.axes) >= len(victim.inference.roi):
        raise no_such_axis(network.axes, len(victim.inference.roi))
    return replace(victim, network=network)  # whole volumes are held against their axes when there is one


def format_of(path: Path) -> str:
    """What a model is called by its format, without running anything in it: a name of ``FORMATS``.

    Raises:
        VictimError: nothing there, or no format that is known.
    """
    return _row_of(path).name


def _opened(path: Path, declared: Said, trust: bool) -> Segmenter | Detector:
    return _row_of(path).format().load(path, declared, trust)


def _row_of(path: Path) -> _Row:
    for row in FORMATS:
        if row.recognises(path):
            return row
    raise VictimError(
        "this is no model of a format that is known" if path.exists() else "there is no model at this path",
        got=_found(path),
        expected="; ".join(f"{row.name}: {row.needs}" for row in FORMATS),
        advice="check the path; another network comes in by Python: medadv.run(study, victims={'mine': network})",
    )


def _found(path: Path) -> str:
    if path.is_file():
        with path.open("rb") as stream:
            return f"{path}, {path.stat().st_size} bytes that begin with {stream.read(8)!r}"
    if not path.is_dir():
        return f"{path}, which does not exist"
    names = sorted(one.name + "/" * one.is_dir() for one in path.iterdir())
    return f"{path} with {', '.join(names[:8]) or 'nothing in it'}{' …' if len(names) > 8 else ''}"


def _ensemble(members: Sequence[Segmenter | Detector]) -> Segmenter:
    """One victim whose answer is the mean of the members' answers."""
    if not members:
        raise ConfigError("a victim of no models", expected="one path or more")
    averaged = [segmenter(member, "averaged") for member in members]
    _check_no_own_predictor(averaged, "averaged")
    first, *others = (member.preprocessing() for member in averaged)
    for number, other in enumerate(others, start=2):
        if wrong := sorted(name for name in first.keys() | other.keys() if first.get(name) != other.get(name)):
            raise ConfigError(
                "only models that are deployed alike have a mean",
                got=f"member {number}: { {name: other.get(name) for name in wrong} }",
                expected=f"member 1: { {name: first.get(name) for name in wrong} }",
                advice="average the folds of one training; attack different models as different victims",
            )
    return replace(averaged[0], network=Mean(member.network for member in averaged))


def _check_no_own_predictor(victims: Sequence[Segmenter], what: str) -> None:
    if any(victim.deployed is not None for victim in victims):
        raise ConfigError(
            f"a victim that is scored by its format's own predictor cannot be {what}",
            cause="the predictor would go on scoring the single model",
            advice="let the format do it: nnU-Net averages folds and mirror images itself",
        )
