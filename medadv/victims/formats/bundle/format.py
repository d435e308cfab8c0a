"""A MONAI bundle: a folder with ``configs/inference.json`` (or YAML), ``configs/metadata.json`` and ``models/``.

Such a configuration is a program: MONAI evaluates its expressions and imports what it names. Here it is read as data:
network, inferer, pre- and postprocessing are understood by name, with literal arguments, and everything else is
refused by its key. Only a bundle that is trusted goes through MONAI's own parser.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import monai
from monai.transforms import Compose
from torch import nn

from medadv.errors import VictimError
from medadv.victims.declared import Declared, check_said
from medadv.victims.formats import exported
from medadv.victims.formats.bundle.answer import channel_names, head_of, modalities_of, only_name
from medadv.victims.formats.bundle.config import TRUST, Config, read_mapping
from medadv.victims.formats.bundle.deployed import BundlePrediction
from medadv.victims.formats.bundle.inverse import turning_back
from medadv.victims.formats.bundle.postprocessing import (
    Postprocessing,
    Transform,
    postprocessing,
    without_writing,
)
from medadv.victims.formats.bundle.steps import LOADING, RULES, preprocessing, spelled
from medadv.victims.formats.bundle.trusted import Trusted
from medadv.victims.formats.bundle.windows import axes_of_space, windows
from medadv.victims.formats.weights import fit_state, read_state
from medadv.victims.head import Sigmoid
from medadv.victims.networks import NETWORKS, Architecture, build_network
from medadv.victims.preprocess import Intensity
from medadv.victims.segmentation import Segmenter
from medadv.victims.spacing import Spacing
from medadv.victims.spatial import Orientation

CONFIGURATIONS = ("inference.json", "inference.yaml", "inference.yml")
METADATA = "metadata.json"
WEIGHTS, PROGRAM = ("model.pt", "model.safetensors"), "model.ts"


@dataclass(frozen=True, eq=False)
class _Pipeline:
    """MONAI's own objects, from data or from its parser."""

    before: Sequence[Transform]
    inferer: Any
    after: Postprocessing
    description: Mapping[str, Any]


def recognises(path: Path) -> bool:
    """Whether a path is a bundle's folder; nothing is read."""
    configs = path / "configs"
    return any((configs / name).is_file() for name in (METADATA, *CONFIGURATIONS))


def load(path: Path, declared: Declared | None, trust: bool) -> Segmenter:
    """The bundle's network as the bundle deploys it, on the CPU, in evaluation mode.

    Args:
        path: the bundle's folder.
        declared: the data's scheme and words, and what the user says of it; None: as the bundle says.
        trust: run the bundle as code, through MONAI's own parser.

    Raises:
        VictimError: a file is missing or damaged, or holds what is not understood, named by its key.
        ConfigError: the bundle says otherwise than the user, or nobody says what its labels are.
    """
    configuration = _configuration(path)
    trusted = Trusted(path.resolve(), configuration, path / "configs" / METADATA) if trust else None
    config = Config(read_mapping(configuration), trusted)
    metadata = Config(read_mapping(path / "configs" / METADATA))
    image = only_name(metadata, "inputs")
    steps = preprocessing(config, image)
    inference, inferer, settings = windows(config, axes_of_space(config, metadata, image))
    modalities = modalities_of(metadata, declared.names if declared else {})
    prediction = only_name(metadata, "outputs")
    if trusted:
        pipeline = _trusted(trusted, prediction)
    else:
        before = Compose(steps.transforms)
        after, painted = postprocessing(config, image, prediction, before)
        described = {"preprocessing": steps.described, "inferer": settings, "postprocessing": painted}
        pipeline = _Pipeline(steps.transforms, inferer, after, described)
    if pipeline.after.inversion is None and not all(isinstance(step, Intensity) for step in steps.steps):
        raise VictimError(
            "the bundle's preprocessing changes the grid, and its postprocessing does not go back",
            got="no Invertd in postprocessing",
            advice="add Invertd, so that the answer lies on the image's own voxels",
        )
    activation = pipeline.after.activation
    head = head_of(metadata, activation, declared, pipeline.after.glioma)
    pipeline.after.numbers(head)
    regions = head.regions if isinstance(head, Sigmoid) else None
    own = Declared(head.scheme, modalities, activation, regions, normalise=steps.steps, inference=inference)
    network = _network(path, config, trusted, own).eval()
    victim = own.deployed(network)
    words = {*channel_names(metadata, "inputs"), *channel_names(metadata, "outputs")}
    check_said(victim, declared, words)
    placed = any(isinstance(step, Orientation | Spacing) for step in steps.steps)
    deployed = BundlePrediction(
        network, head, image, pipeline.before, pipeline.inferer, pipeline.after, placed, pipeline.description
    )
    back = turning_back(steps.steps, pipeline.after.inverted, pipeline.after.by_nearest)
    return replace(victim, preprocess=back, deployed=deployed)


def _configuration(path: Path) -> Path:
    for name in CONFIGURATIONS:
        if (path / "configs" / name).is_file():
            return path / "configs" / name
    raise VictimError(
        "the bundle does not say how it is deployed",
        expected=f"configs/{CONFIGURATIONS[0]}, with network_def, preprocessing, inferer and postprocessing",
        advice="take the bundle as it was published, with its configs/",
    )


def _network(path: Path, config: Config, trusted: Trusted | None, own: Declared) -> nn.Module:
    """The network with its weights: from a state dict, or, where the bundle is trusted, the program that it brings."""
    weights = next((path / "models" / name for name in WEIGHTS if (path / "models" / name).is_file()), None)
    program = path / "models" / PROGRAM
    if weights is None and trusted and program.is_file():
        return exported.load(program, own, True).network
    if weights is None:
        raise VictimError(
            "the bundle has no weights that can be read as data",
            got=f"models/{PROGRAM}, a TorchScript program" if program.is_file() else "none in models/",
            expected=f"models/{WEIGHTS[0]} or models/{WEIGHTS[1]}, a state dict",
            advice=TRUST if program.is_file() else "take the bundle as it was published, with its models/",
        )
    network = trusted.network() if trusted else _built(config, *own.channels)
    fit_state(network, read_state(weights))
    return network


def _built(config: Config, modalities: int, channels: int) -> nn.Module:
    """The network of ``network_def``, by the name of its class and with literal arguments."""
    own = config.component("network_def")
    if own.name not in NETWORKS:
        raise own.refused(expected=f"one of {sorted(NETWORKS)}")
    arguments = {name: own(name) for name in own.arguments}
    for argument, number in (("in_channels", modalities), ("out_channels", channels)):
        if arguments.pop(argument, number) != number:
            raise VictimError(
                "the bundle's network has another number of channels than its metadata.json names",
                got=f"network_def.{argument}: {own(argument)}",
                expected=number,
                advice="correct channel_def in metadata.json",
            )
    return build_network(Architecture(name=own.name, arguments=arguments), modalities, channels)


def _trusted(trusted: Trusted, prediction: str) -> _Pipeline:
    before, after = trusted("preprocessing"), trusted("postprocessing")
    loading = {name for name, rule in RULES.items() if rule is LOADING}
    kept = [t for t in _listed(before, "preprocessing") if spelled(type(t).__name__) not in loading]
    inferer = trusted("inferer")
    for argument in ("device", "sw_device"):  # where the network is, and not where a configuration thinks it is
        if hasattr(inferer, argument):
            setattr(inferer, argument, None)
    described = {"trusted": True, "sha256": trusted.digest(), "monai": monai.__version__}
    transforms = without_writing(_listed(after, "postprocessing"))
    return _Pipeline(kept, inferer, Postprocessing(transforms, prediction), described)


def _listed(value: Any, key: str) -> Sequence[Transform]:
    if not isinstance(value, Compose):
        raise VictimError(f"the bundle's {key} is no Compose of transforms", got=type(value).__name__)
    transforms: Sequence[Transform] = value.flatten().transforms  # type: ignore[no-untyped-call]
    return transforms
