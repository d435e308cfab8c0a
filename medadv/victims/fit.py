"""Whether image, network and victim go together: modalities, label schemes, precision, device.

What a segmenter and a detector have in common: each knows its own modalities, in order, and the scheme of its answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medadv.errors import ConfigError, VictimError
from medadv.labels import LabelScheme
from medadv.victims.memory import is_full


def named(modalities: object) -> tuple[str, ...]:
    """A victim's modalities as a tuple.

    Raises:
        ConfigError: no list of names, or one name twice.
    """
    if isinstance(modalities, str) or not isinstance(modalities, Sequence):
        raise ConfigError(
            "the modalities of a victim are a list of names, one an input channel",
            got=repr(modalities),
            expected="for example ('t1', 't2')",
            advice=f"write ({modalities!r},)" if isinstance(modalities, str) else None,
        )
    names = tuple(modalities)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(
            "a modality is given to two channels of a victim",
            got=list(names),
            expected=f"{', '.join(twice)} once",
            advice="name the channels in the order in which the network was trained",
        )
    return names


def own(
    x: Float[Tensor, "b given *s"], modalities: tuple[str, ...], given: tuple[str, ...] | None
) -> Float[Tensor, "b c *s"]:
    """A victim's own modalities out of those of an image, in its order.

    Raises:
        VictimError: the image has another number of modalities.
    """
    given = given or modalities
    if x.shape[1] != len(given):
        raise VictimError(
            "the image has another number of modalities than the victim",
            got=x.shape[1],
            expected=f"{len(given)}: {', '.join(given)}",
            advice="the batch axis comes first: use volume.x[None]",
        )
    return x if given == modalities else x[:, [given.index(name) for name in modalities]]


def check_readable(own: Sequence[str], modalities: Sequence[str]) -> None:
    """Refuse images that lack one of a victim's own modalities.

    Raises:
        ConfigError: one is missing.
    """
    if missing := [name for name in own if name not in modalities]:
        raise ConfigError(
            "the victim was made for modalities that the data do not have",
            got=list(modalities),
            expected=list(own),
            advice=f"tell what its channels {missing} are called in the data: victims.<name>.modalities",
        )


def check_data(own: Sequence[str], scheme: LabelScheme, modalities: Sequence[str], other: LabelScheme) -> None:
    """Refuse data that a victim was not made for: a network cannot tell T1 from T2.

    Args:
        own: the modalities that the victim is given, in its order.
        scheme: the victim's.
        modalities: the data's.
        other: the data's scheme.

    Raises:
        ConfigError: other modalities or another order of them, other tissues, or a region of other tissues.
    """
    if tuple(modalities) != tuple(own):
        raise ConfigError(
            "the victim was made for other modalities, or for another order of them",
            got=list(modalities),
            expected=list(own),
            advice="give the images in the order that the network was trained with, or victim.reading(modalities)",
        )
    if set(scheme.numbers) != set(other.numbers):
        raise ConfigError(
            "the victim knows other tissues than the data has",
            got=list(other.tissues),
            expected=list(scheme.tissues),
            advice="declare the same names of tissues for both",
        )
    shared = set(scheme.regions) & set(other.regions)
    if strange := sorted(r for r in shared if set(scheme.members(r)) != set(other.members(r))):
        raise ConfigError(
            "a region means other tissues to the victim than to the data",
            got={region: other.members(region) for region in strange},
            expected={region: scheme.members(region) for region in strange},
        )


def described(scheme: LabelScheme) -> dict[str, Any]:
    """A label scheme as JSON."""
    return {
        "name": scheme.name,
        "numbers": dict(scheme.numbers),
        "regions": {region: list(tissues) for region, tissues in scheme.regions.items()},
        **({} if scheme.void is None else {"void": scheme.void}),
    }


@contextmanager
def explained(network: nn.Module, x: Tensor) -> Iterator[None]:
    """Where torch refuses network and image because they do not go together, say so; what works is let be.

    Raises:
        VictimError: image and network are in different precisions or on different devices.
    """
    try:
        yield
    except RuntimeError as error:
        weight = next(chain(network.parameters(), network.buffers()), x)
        if is_full(error) or (weight.dtype, weight.device) == (x.dtype, x.device):
            raise
        raise VictimError(
            "image and network are in different precisions or on different devices",
            got=f"an image in {x.dtype} on {x.device}, a network in {weight.dtype} on {weight.device}",
            cause="NumPy and nibabel read float64" if x.dtype == torch.float64 else None,
            advice="pass x.float().to(device), and network.float().to(device) to the victim",
        ) from error
