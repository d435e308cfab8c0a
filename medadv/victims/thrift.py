"""The same victim in less memory: what is tried, in order, when a device is full. No answer changes but by rounding.

Patch, budget and data type are never changed: that would be another victim, or another attack.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from medadv.victims.combine import passes
from medadv.victims.segmentation import Segmenter
from medadv.victims.window import SlidingWindow

_BLOCK = 4
"""Layers whose inner results are thrown away together: more save memory, fewer save time."""


@dataclass(frozen=True)
class Saving:
    """One way to need less memory.

    Attributes:
        name: what a record says of it.
        apply: the victim in less memory; None where that is not possible, or done already.
    """

    name: str
    apply: Callable[[Segmenter], Segmenter | None]


def one_window_at_a_time(victim: Segmenter) -> Segmenter | None:
    """Windows by themselves instead of in groups."""
    way = victim.inference
    if not isinstance(way, SlidingWindow) or way.batch == 1:
        return None
    return replace(victim, inference=replace(way, batch=1))


def checkpointed(victim: Segmenter) -> Segmenter | None:
    """A network that forgets what is inside its blocks, and computes it again for the gradient (Chen et al. 2016)."""
    network = victim.network
    if isinstance(network, torch.jit.ScriptModule) or hasattr(network, "graph"):
        return None  # a program, whose inside is closed
    blocks = [name for name, module in network.named_modules() if _is_block(network, name, module)]
    if not blocks or getattr(network, "forgetful", False):
        return None
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    thrifty = copy.deepcopy(network, shared)
    for name in blocks:
        block = thrifty.get_submodule(name)
        block.forward = partial(_forgetting, block.forward)
    thrifty.forgetful = True  # type: ignore[assignment]
    return replace(victim, network=thrifty)


class Visiting(nn.Module):
    """A network on a device, whose inputs and answers lie elsewhere: only what it is shown visits the device."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.network = network
        self.device = device

    @property
    def passes(self) -> int:
        """Networks answered for one answer."""
        return passes(self.network)

    def forward(self, x: Tensor) -> Tensor:
        """Over to the device, and back."""
        answer: Tensor = self.network(x.to(self.device))
        return answer.to(x.device)


def volumes_elsewhere(victim: Segmenter) -> Segmenter | None:
    """Volumes, stitching and loss in the computer's own memory; windows visit the device."""
    weight = next(victim.network.parameters(), None)
    if weight is None or weight.device.type == "cpu" or isinstance(victim.network, Visiting):
        return None
    return replace(victim, network=Visiting(victim.network, weight.device))


SAVINGS = (
    Saving("one window at a time", one_window_at_a_time),
    Saving("activation checkpointing", checkpointed),
    Saving("stitching on the CPU", volumes_elsewhere),
)
"""In the order in which they are tried."""


def _layers(module: nn.Module) -> int:
    return sum(1 for part in module.modules() if any(p.ndim > 2 for p in part.parameters(recurse=False)))


def _is_block(network: nn.Module, name: str, module: nn.Module) -> bool:
    """The largest parts with a few convolutions each: a residual unit, a stage of a decoder."""
    lists = (nn.ModuleList, nn.ModuleDict)  # never called themselves
    if not name or isinstance(module, lists) or not 1 <= _layers(module) <= _BLOCK or not any(module.children()):
        return False
    parent = network.get_submodule(name.rpartition(".")[0])
    return parent is network or isinstance(parent, lists) or _layers(parent) > _BLOCK


def _forgetting(forward: Callable[..., Tensor], *inputs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs)
    return checkpoint(forward, *inputs, use_reentrant=False)
