"""A victim on disk: ``weights.safetensors`` and beside it ``victim.json``, which says how the weights are deployed.

Both are data. A pickle is a program, and is not loaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from medadv.atomic import write_atomically, write_text
from medadv.errors import ConfigError, VictimError
from medadv.victims.card import Card, Part
from medadv.victims.combine import Scaled
from medadv.victims.detection import Detector
from medadv.victims.detector_card import DetectorCard
from medadv.victims.head import Head, make_head
from medadv.victims.mean_field import MeanField
from medadv.victims.multi_scale import MultiScale, MultiScaled
from medadv.victims.networks import Architecture, build_network
from medadv.victims.normalize import Normalisation
from medadv.victims.random_transforms import RandomTransform
from medadv.victims.segmentation import Segmenter, weights_digest
from medadv.victims.spatial import Spatial
from medadv.victims.transforms import InputTransform, StraightThrough
from medadv.victims.window import SlidingWindow, WholeVolume

Preprocessing = Annotated[
    Normalisation | Spatial | InputTransform | StraightThrough | RandomTransform, Field(discriminator="name")
]
"""Every step that a card can name."""

WEIGHTS, CARD = "weights.safetensors", "victim.json"


class HeadCard(Part):
    """A head in JSON."""

    name: Literal["softmax", "sigmoid"]
    channels: tuple[str, ...]


class VictimCard(Card):
    """All that the card of a segmentation holds: how the weights beside it are deployed.

    The logits are ``scale`` times what the layers with these weights say: the temperature of a distillation. With
    ``multi_scale`` they are those of several sizes of the input, fused.
    """

    format: Literal["medadv victim 2"] = "medadv victim 2"
    preprocess: tuple[Preprocessing, ...]
    inference: Annotated[WholeVolume | SlidingWindow, Field(discriminator="name")]
    head: HeadCard
    scale: float = Field(1.0, gt=0, allow_inf_nan=False)
    multi_scale: MultiScale | None = None
    refine: MeanField | None = None

    @staticmethod
    def told(victim: Segmenter, architecture: Architecture) -> tuple[nn.Module, dict[str, Any]]:  # noqa: ARG004
        """Whose weights are kept, and what the card says beside ``preprocessing()``."""
        network: nn.Module = victim.network
        more: dict[str, Any] = {}
        if isinstance(network, MultiScaled):
            network, more = network.network, {"multi_scale": network.setting}
        return (network.network, more | {"scale": network.factor}) if isinstance(network, Scaled) else (network, more)

    def build(self) -> nn.Module:
        """The network with fresh weights."""
        return build_network(self.architecture, len(self.modalities), len(self._head().channels))

    def deployed(self, network: nn.Module) -> Segmenter:
        """The victim around the network with its weights."""
        network = network if self.scale == 1 else Scaled(network, self.scale)
        network = network if self.multi_scale is None else MultiScaled(network, self.multi_scale)
        head, refine = self._head(), self.refine
        return Segmenter(network, head, self.modalities, self.preprocess, self.inference, refine=refine)

    def _head(self) -> Head:
        regions = self.head.channels if self.head.name == "sigmoid" else None
        return make_head(self.head.name, self.scheme.scheme(), regions)


CARDS: dict[type, type[VictimCard] | type[DetectorCard]] = {Segmenter: VictimCard, Detector: DetectorCard}
"""The card of each kind of victim."""


def save_victim(
    victim: Segmenter | Detector,
    architecture: Architecture,
    folder: Path,
    trained_on: Iterable[str] = (),
    trained_patients: Iterable[str] = (),
) -> None:
    """Write a victim into a folder, weights first; each file appears whole or not at all.

    Args:
        victim: network and pipeline.
        architecture: how the network is built again.
        folder: where to; made if it is missing.
        trained_on: the digests of the voxels that it has seen, so that nobody tests it on them.
        trained_patients: the patients that it has seen, by the names that results give them: never ids that are
            private. Nobody tests it on other scans of theirs.

    Raises:
        RunError: the folder cannot be written.
        ConfigError: a detector that was changed after it was built.
    """
    kind: Any = CARDS[type(victim)]
    layers, more = kind.told(victim, architecture)
    card: Card = kind.model_validate(
        victim.preprocessing()
        | more
        | {
            "architecture": architecture,
            "weights_sha256": weights_digest(layers),
            "trained_on": tuple(sorted(trained_on)),
            "trained_patients": tuple(sorted(set(trained_patients))),
        }
    )
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in layers.state_dict().items()}
    # As bytes: save_file tells a full disk in an error of its own, and writes a temporary file of its own.
    write_atomically(folder / WEIGHTS, lambda temporary: temporary.write_bytes(save(weights)))
    write_text(folder / CARD, card.model_dump_json(indent=1))


def training_cases(path: str | Path) -> frozenset[str]:
    """The digests of the voxels that a victim on the disk has seen; empty where no card of medadv's says."""
    card = _card_of(path)
    return frozenset(card.trained_on) if card else frozenset()


def training_patients(path: str | Path) -> frozenset[str]:
    """The patients whom a victim on the disk has seen, by the names that results give them; empty as above."""
    card = _card_of(path)
    return frozenset(card.trained_patients) if card else frozenset()


def _card_of(path: str | Path) -> VictimCard | DetectorCard | None:
    path = Path(path)
    card = (path if path.is_dir() else path.parent) / CARD
    return _read_card(card) if card.exists() else None


def load_victim(path: str | Path, device: str | torch.device = "cpu") -> Segmenter | Detector:
    """Load a victim from its folder, or from the weights inside it.

    Raises:
        VictimError: no safetensors, other weights than the card says, keys that do not fit the network, or values that
            are not finite.
    """
    path = Path(path)
    weights = path / WEIGHTS if path.is_dir() else path
    state = _read_weights(weights)
    card = _read_card(weights.parent / CARD)
    network = card.build()
    own = network.state_dict()
    if wrong := list(own.keys() ^ state.keys()) or [n for n in own if own[n].shape != state[n].shape]:
        raise VictimError(
            f"the weights in {weights} are not those of the network in {CARD}",
            got=f"{len(wrong)} keys missing, unknown or of another shape, first {sorted(wrong)[:3]}",
            expected=f"{len(own)} tensors of {card.architecture.name}",
            advice="put the victim.json beside the weights that it was written with",
        )
    network.load_state_dict(state)
    if weights_digest(network) != card.weights_sha256:
        raise VictimError(
            f"the weights in {weights} are not the ones that {CARD} was written for",
            cause="a file was replaced or damaged",
            advice="copy the folder anew, or train again",
        )
    return card.deployed(network.to(device).eval())


def _read_card(path: Path) -> VictimCard | DetectorCard:
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
        told = content.get("format") if isinstance(content, dict) else None
        kinds = {kind.model_fields["format"].default: kind for kind in CARDS.values()}
        return kinds.get(told, VictimCard).model_validate_json(text)
    except OSError as error:
        raise VictimError(
            f"there is no {CARD} beside the weights",
            got=error,
            advice="give the folder that medadv train wrote, or bring the network in by Python",
        ) from error
    except (ValueError, ConfigError) as error:  # not UTF-8, not JSON, or other fields
        raise VictimError(f"{path} is no victim of this version", got=error) from error


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        pickled = path.is_file() and path.read_bytes()[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04")
        raise VictimError(
            f"{path} cannot be read as safetensors",
            got="a pickle, which is a program and could do anything when loaded" if pickled else error,
            expected=f"a folder with {WEIGHTS} and {CARD}",
            advice="load it yourself where you trust it, and save its state dict with safetensors.torch.save_file"
            if pickled
            else "check the path, and that the file was copied whole",
        ) from error
    broken = [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise VictimError(
            f"the weights in {path} are not finite", got=sorted(broken)[:5], cause="a training that diverged"
        )
    return state
