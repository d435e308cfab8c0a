"""Which sight a detector is looked through by, where nobody has said."""

from __future__ import annotations

from monai.apps.detection.networks.retinanet_detector import RetinaNetDetector
from torch import nn
from torchvision.models.detection.fcos import FCOS
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.models.detection.ssd import SSD

from medadv.errors import ConfigError
from medadv.victims.detectors.answering import Answering
from medadv.victims.detectors.lesions import Lesions
from medadv.victims.detectors.one_stage import Anchors, DefaultBoxes, Points
from medadv.victims.detectors.two_stage import TwoStage
from medadv.victims.sight import Sight

AnySight = TwoStage | Anchors | Points | DefaultBoxes | Lesions | Answering
"""The sights that a file can name."""

KINDS: tuple[tuple[type[nn.Module], Sight], ...] = (
    (GeneralizedRCNN, TwoStage()),
    (RetinaNet, Anchors()),
    (FCOS, Points()),
    (SSD, DefaultBoxes()),
    (RetinaNetDetector, Lesions()),
)
"""The kinds of detectors that are known by their class."""


def sight_of(network: nn.Module) -> Sight:
    """The sight of a network, by its class.

    Raises:
        ConfigError: a class that is not known.
    """
    for kind, sight in KINDS:
        if isinstance(network, kind):
            return sight
    raise ConfigError(
        "this is no detector of a kind that is known",
        got=type(network).__name__,
        expected=f"one of {', '.join(kind.__name__ for kind, _ in KINDS)}",
        advice="of a module that answers logits (b, classes, n) and boxes (b, n, 2 axes), say sight=Answering(); for "
        "another kind, write a Sight",
    )
