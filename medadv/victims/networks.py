"""Networks by name: MONAI's, and torchvision's of pictures, built from literal arguments and nothing else.

A table, not an import string: a configuration file can choose among these and can run no code. Nothing is downloaded.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import monai.networks.nets as nets
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torchvision.models import segmentation as pictured
from torchvision.models.segmentation import FCN, LRASPP, DeepLabV3

from medadv.errors import ConfigError
from medadv.victims.memory import is_full


def _answering(kind: type[nn.Module], which: int) -> type[nn.Module]:
    """A network that answers a list (deep supervision), reduced to the one answer that is deployed.

    A class derived from it, under its name: the keys of its weights stay what they are.
    """

    def forward(self: nn.Module, x: Float[Tensor, "b c *s"]) -> Float[Tensor, "b k *s"]:
        answer = kind.forward(self, x)
        if isinstance(answer, Tensor):
            return answer if answer.ndim == x.ndim else answer[:, which]  # DynUNet stacks while it trains
        one: Tensor = answer[which]
        return one

    return type(kind.__name__, (kind,), {"forward": forward})


def _of_pictures(kind: type[nn.Module], builder: Callable[..., nn.Module]) -> type[nn.Module]:
    """A network of torchvision, reduced to its answer "out": logits on the picture's own grid.

    A class derived from it, under its name: the keys of its weights stay what they are.
    """

    def construct(self: nn.Module, in_channels: int, out_channels: int, aux_loss: bool = False) -> None:
        if in_channels != 3:
            raise ValueError(f"it was made for pictures of 3 channels, not of {in_channels}")
        nn.Module.__init__(self)
        made = builder(weights=None, weights_backbone=None, num_classes=out_channels, aux_loss=aux_loss)
        self.__dict__.update(made.__dict__)  # all that its constructor, which takes layers, would have set

    def forward(self: nn.Module, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k h w"]:
        answer: Tensor = kind.forward(self, x)["out"]
        return answer

    return type(kind.__name__, (kind,), {"__init__": construct, "forward": forward})


NETWORKS: dict[str, type[nn.Module]] = {
    "AttentionUnet": nets.AttentionUnet,
    "BasicUNet": nets.BasicUNet,
    "BasicUNetPlusPlus": _answering(nets.BasicUNetPlusPlus, -1),
    "DeepLabV3_MobileNetV3": _of_pictures(DeepLabV3, pictured.deeplabv3_mobilenet_v3_large),
    "DeepLabV3_ResNet101": _of_pictures(DeepLabV3, pictured.deeplabv3_resnet101),
    "DeepLabV3_ResNet50": _of_pictures(DeepLabV3, pictured.deeplabv3_resnet50),
    "DynUNet": _answering(nets.DynUNet, 0),
    "FCN_ResNet101": _of_pictures(FCN, pictured.fcn_resnet101),
    "FCN_ResNet50": _of_pictures(FCN, pictured.fcn_resnet50),
    "FlexibleUNet": nets.FlexibleUNet,
    "HighResNet": nets.HighResNet,
    "LRASPP_MobileNetV3": _of_pictures(LRASPP, pictured.lraspp_mobilenet_v3_large),
    "MedNeXt": _answering(nets.MedNeXt, 0),
    "SegResNet": nets.SegResNet,
    "SegResNetDS": _answering(nets.SegResNetDS, 0),
    "SegResNetVAE": _answering(nets.SegResNetVAE, 0),
    "SwinUNETR": nets.SwinUNETR,
    "UNETR": nets.UNETR,
    "UNet": nets.UNet,
    "VNet": nets.VNet,
}
"""What a study can name. Anything else comes in through Python: ``medadv.run(study, victims={"mine": network})``."""

FORMER: dict[str, dict[str, str | None]] = {
    "AttentionUnet": {"dimensions": "spatial_dims"},
    "BasicUNet": {"dimensions": "spatial_dims"},
    "SwinUNETR": {"img_size": None},
    "UNETR": {"pos_embed": "proj_type"},
    "UNet": {"dimensions": "spatial_dims"},
}
"""Arguments of older MONAI → today's name of the same; None where the network was the same without it."""


USUAL: dict[str, Any] = {"spatial_dims": 3, "channels": [16, 32, 64, 128], "strides": [2, 2, 2], "num_res_units": 1}
"""The arguments of a UNet of which nothing is said."""


class Architecture(BaseModel):
    """A network's name and its arguments, without numbers of channels: those follow from modalities and head."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "UNet"
    arguments: dict[str, Any] = Field(default_factory=lambda said: dict(USUAL) if said["name"] == "UNet" else {})


def build_network(architecture: Architecture, modalities: int, channels: int) -> nn.Module:
    """A network with fresh weights.

    Args:
        architecture: its name in ``NETWORKS`` and its own arguments.
        modalities: input channels.
        channels: output channels.

    Raises:
        ConfigError: an unknown name, arguments that the network refuses, or weights that would be downloaded.
    """
    if architecture.name not in NETWORKS:
        raise ConfigError(
            "there is no network of this name",
            got=architecture.name,
            expected=f"one of {sorted(NETWORKS)}",
            advice="bring your own network in by Python: medadv.run('study.yaml', victims={'mine': victim})",
        )
    kind = NETWORKS[architecture.name]
    own = _of_today(architecture)
    arguments: Mapping[str, Any] = {"in_channels": modalities, "out_channels": channels, **own}
    known = set(inspect.signature(kind).parameters)
    if unknown := set(arguments) - known:
        raise ConfigError(
            f"{architecture.name} does not know these arguments",
            got=sorted(unknown),
            expected=f"some of {sorted(known)}",
        )
    if arguments.get("pretrained"):
        raise ConfigError(
            f"{architecture.name} would download weights",
            got="pretrained: true",
            advice="leave it out, and give the trained weights as a file",
        )
    try:
        return kind(**arguments)
    except ImportError as error:
        raise ConfigError(
            f"{architecture.name} needs a package that is not installed",
            got=error,
            advice="install it: pip install einops, for the networks with attention",
        ) from error
    except (TypeError, ValueError, LookupError, RuntimeError, AssertionError, AttributeError) as error:
        if is_full(error):
            raise
        raise ConfigError(f"{architecture.name} refuses its arguments", got=f"{dict(arguments)}: {error}") from error


def _of_today(architecture: Architecture) -> dict[str, Any]:
    """The arguments in the words of the installed MONAI."""
    former = FORMER.get(architecture.name, {})
    renamed = {name: former.get(name, name) for name in architecture.arguments}
    new = [name for name in renamed.values() if name is not None]
    if twice := sorted({name for name in new if new.count(name) > 1}):
        raise ConfigError(
            f"an argument of {architecture.name} is given under its old name and its new one",
            got=sorted(old for old, name in renamed.items() if name in twice),
            expected=twice,
        )
    return {name: value for old, value in architecture.arguments.items() if (name := renamed[old]) is not None}
