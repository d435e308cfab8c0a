"""What is said of a detector whose file is silent: weights of torchvision's, or of a training of one's own."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from medadv.errors import ConfigError
from medadv.labels import LabelScheme
from medadv.victims.detection import GREY_LEVELS, Detector
from medadv.victims.detectors.build import build_detector
from medadv.victims.networks import Architecture
from medadv.victims.preprocess import Intensity
from medadv.victims.proposals import Matching
from medadv.victims.sight import Sight


@dataclass(frozen=True)
class DeclaredDetector:
    """How a detector is built and deployed, as its user says.

    Attributes:
        scheme: its classes, in the order of its outputs, the background first.
        network: its name in ``DETECTORS``, and its arguments.
        modalities: its input channels, in order.
        normalise: the change of intensities before the network; torchvision's take [0, 1].
        matching: which places are targets of which objects.
        sight: how it is looked through; None: by its class.
    """

    scheme: LabelScheme
    network: Architecture
    modalities: tuple[str, ...] = ("red", "green", "blue")
    normalise: Intensity | tuple[Intensity, ...] = GREY_LEVELS
    matching: Matching = Matching()  # noqa: RUF009  (a frozen value)
    sight: Sight | None = None

    def build(self) -> nn.Module:
        """The network with fresh weights.

        Raises:
            ConfigError: there is no such detector, or it refuses its arguments.
        """
        return build_detector(self.network, len(self.modalities), len(self.scheme.tissues))

    def deployed(self, network: nn.Module) -> Detector:
        """A network as it is declared to be deployed."""
        return Detector(network, self.scheme, self.modalities, self.normalise, self.sight, self.matching)

    def check(self, victim: object) -> None:
        """Refuse a model whose own file says otherwise.

        Raises:
            ConfigError: no detector, or one that is deployed in another way.
        """
        own = victim.preprocessing() if isinstance(victim, Detector) else {}
        said = self.deployed(self.build()).preprocessing()
        if wrong := sorted(name for name in said if said[name] != own.get(name)):
            raise ConfigError(
                "the model's own file says otherwise than the settings beside it",
                got={name: said[name] for name in wrong},
                expected={name: own[name] for name in wrong} if own else "a segmentation",
                advice="leave the settings out: the file says how the network was trained",
            )
