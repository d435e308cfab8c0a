"""Defences that are none: a victim with the very weights of the one that it is held against."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import nn

from medadv.errors import ConfigError
from medadv.study.bench import Contestant
from medadv.study.defences import Elsewhere, Trained
from medadv.study.entrants import Entrant
from medadv.study.spec import Study


def check_defended(study: Study, contestants: Sequence[Contestant]) -> None:
    """Refuse defended victims that are the undefended one, or their own teacher, before anything is attacked.

    What a training has defended has other weights. An input transform has the same weights and another pipeline.

    Raises:
        ConfigError: weights and pipeline are the same; or of a trained defence the weights alone.
    """
    ready = {contestant.name: contestant for contestant in contestants}
    for entrant in study.entrants.values():
        for other in (entrant.undefended, entrant.teacher):
            if other is not None and other in ready and entrant.name in ready:
                _check(entrant, ready[entrant.name], ready[other])


def _check(entrant: Entrant, contestant: Contestant, other: Contestant) -> None:
    trained = isinstance(entrant.spec.defence, Trained | Elsewhere)
    for case in contestant.victims:
        same = contestant.identity(case) == other.identity(case)
        if same or (trained and _alike(contestant.victims[case].network, other.victims[case].network)):
            raise ConfigError(
                f"the defended victim {entrant.name!r} is the victim {other.name!r} under another name",
                got="the same weights" + (" and the same pipeline" if same else ""),
                expected="weights of its own" if trained else "weights or a pipeline of its own",
                cause="one file or folder of weights for both, or a training that never moved them",
                advice=f"name the weights of the defence in victims.{entrant.name}, or train it anew",
            )


def _alike(network: nn.Module, other: nn.Module) -> bool:
    values = _values(network)
    return bool(values) and values == _values(other)


@lru_cache(maxsize=64)
def _values(network: nn.Module) -> tuple[str, ...]:
    """Digests of all parameters, whatever they are called: one network may be wrapped in another."""
    return tuple(sorted(_digest(parameter) for parameter in network.parameters()))


def _digest(tensor: torch.Tensor) -> str:
    values = tensor.detach().cpu().contiguous()
    content = values.reshape(-1).view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(f"{values.dtype} {tuple(values.shape)}".encode() + content).hexdigest()
