"""A detector's ``victim.json``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from torch import nn

from medadv.errors import ConfigError
from medadv.victims.card import Card
from medadv.victims.detection import Detector
from medadv.victims.detectors.build import build_detector
from medadv.victims.detectors.kinds import AnySight
from medadv.victims.networks import Architecture
from medadv.victims.normalize import Normalisation
from medadv.victims.proposals import Matching


class DetectorCard(Card):
    """All that the card of a detector holds: how the weights beside it are deployed.

    Attributes:
        deployment: thresholds and sizes that the network was built with; held against the network that is built again.
    """

    format: Literal["medadv detector 1"] = "medadv detector 1"
    preprocess: tuple[Normalisation, ...]
    sight: Annotated[AnySight, Field(discriminator="name")]
    matching: Matching
    deployment: dict[str, Any]

    @staticmethod
    def told(victim: Detector, architecture: Architecture) -> tuple[nn.Module, dict[str, Any]]:
        """Whose weights are kept, and what the card says beside ``preprocessing()``.

        Raises:
            ConfigError: the network was changed after it was built.
        """
        again = build_detector(architecture, len(victim.modalities), len(victim.scheme.tissues))
        built, own = victim.looking.describe(again), victim.looking.describe(victim.network)
        if changed := sorted(name for name in built.keys() | own.keys() if built.get(name) != own.get(name)):
            raise ConfigError(
                "the detector was changed after it was built, and its card could not tell",
                got={name: own.get(name) for name in changed},
                expected={name: built.get(name) for name in changed},
                advice="name such settings among the arguments of its architecture",
            )
        return victim.network, {}

    def build(self) -> nn.Module:
        """The network with fresh weights."""
        return build_detector(self.architecture, len(self.modalities), len(self.scheme.numbers))

    def deployed(self, network: nn.Module) -> Detector:
        """The victim around the network with its weights."""
        return Detector(network, self.scheme.scheme(), self.modalities, self.preprocess, self.sight, self.matching)
