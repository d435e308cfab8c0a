"""Networks by name: MONAI's, built from literal arguments and nothing else.

A table, not an import string: a configuration file can choose among these and can run no code.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import monai.networks.nets as nets
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from medadv.errors import ConfigError

NETWORKS: dict[str, type[nn.Module]] = {
    "BasicUNet": nets.BasicUNet,
    "DynUNet": nets.DynUNet,
    "SegResNet": nets.SegResNet,
    "UNet": nets.UNet,
}
"""What a study can name. Anything else comes in through Python: ``medadv.run(study, victims={"mine": network})``."""


class Architecture(BaseModel):
    """A network's name and its arguments, without numbers of channels: those follow from modalities and head."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "UNet"
    arguments: dict[str, Any] = Field(
        default_factory=lambda: {
            "spatial_dims": 3,
            "channels": [16, 32, 64, 128],
            "strides": [2, 2, 2],
            "num_res_units": 1,
        }
    )


def build_network(architecture: Architecture, modalities: int, channels: int) -> nn.Module:
    """A network with fresh weights.

    Args:
        architecture: its name in ``NETWORKS`` and its own arguments.
        modalities: input channels.
        channels: output channels.

    Raises:
        ConfigError: an unknown name, or arguments that the network refuses.
    """
    if architecture.name not in NETWORKS:
        raise ConfigError(
            "there is no network of this name",
            got=architecture.name,
            expected=f"one of {sorted(NETWORKS)}",
            advice="bring your own network in by Python: medadv.run('study.yaml', victims={'mine': victim})",
        )
    kind = NETWORKS[architecture.name]
    arguments: Mapping[str, Any] = {"in_channels": modalities, "out_channels": channels, **architecture.arguments}
    known = set(inspect.signature(kind).parameters)
    if unknown := set(arguments) - known:
        raise ConfigError(
            f"{architecture.name} does not know these arguments",
            got=sorted(unknown),
            expected=f"some of {sorted(known)}",
        )
    try:
        return kind(**arguments)
    except (TypeError, ValueError, LookupError, RuntimeError, AssertionError) as error:
        raise ConfigError(f"{architecture.name} refuses its arguments", got=f"{dict(arguments)}: {error}") from error
