"""The same victim in less memory: what is tried, in order, when a device is full. No answer changes but by rounding.

Patch, budget and data type are never changed: that would be another victim, or another attack.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Set
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from medadv.victims.combine import passes
from medadv.victims.segmentation import Segmenter
from medadv.victims.window import SlidingWindow

_PROGRAM = (torch.jit.ScriptModule, torch.fx.GraphModule)
"""What is run as a whole, from a graph: nothing inside can be made to forget."""

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
    apply: Callable[[Any], Any]


def one_window_at_a_time(victim: Segmenter) -> Segmenter | None:
    """Windows by themselves instead of in groups."""
    way = victim.inference
    if not isinstance(way, SlidingWindow) or way.batch == 1:
        return None
    return replace(victim, inference=replace(way, batch=1))


def checkpointed(victim: Segmenter) -> Segmenter | None:
    """A network that forgets what is inside its blocks, and computes it again for the gradient (Chen et al. 2016)."""
    network = victim.network
    programs = [part for part in network.modules() if isinstance(part, _PROGRAM)]
    closed = {id(part) for program in programs for part in program.modules()}
    blocks = [name for name, module in network.named_modules() if _is_block(network, name, module, closed)]
    if not blocks or getattr(network, "forgetful", False):
        return None
    kept = (*network.parameters(), *network.buffers(), *programs)
    shared: dict[int, Any] = {id(part): part for part in kept}
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


def visiting(network: nn.Module, device: torch.device) -> nn.Module:
    """The network for inputs that lie on a device: itself where it lies there too."""
    weight = next(network.parameters(), None)
    if weight is None or weight.device == device or isinstance(network, Visiting):
        return network
    return Visiting(network, weight.device)


def volumes_elsewhere(victim: Segmenter) -> Segmenter | None:
    """Volumes, stitching and loss in the computer's own memory; windows visit the device."""
    network = visiting(victim.network, torch.device("cpu"))
    return None if network is victim.network else replace(victim, network=network)


SAVINGS = (
    Saving("one window at a time", one_window_at_a_time),
    Saving("activation checkpointing", checkpointed),
    Saving("stitching on the CPU", volumes_elsewhere),
)
"""In the order in which they are tried."""


def _layers(module: nn.Module, closed: Set[int]) -> int:
    """How many layers there are, but for those inside programs, whose parts are never called one by one."""
    open_parts = (part for part in module.modules() if id(part) not in closed)
    return sum(1 for part in open_parts if any(p.ndim > 2 for p in part.parameters(recurse=False)))


def _is_block(network: nn.Module, name: str, module: nn.Module, closed: Set[int]) -> bool:
    """The largest parts with a few convolutions each: a residual unit, a stage of a decoder."""
    lists = (nn.ModuleList, nn.ModuleDict)  # never called themselves
    if not name or isinstance(module, lists) or not any(module.children()):
        return False
    if any(id(part) in closed for part in module.modules()) or not 1 <= _layers(module, closed) <= _BLOCK:
        return False
    parent = network.get_submodule(name.rpartition(".")[0])
    return parent is network or isinstance(parent, lists) or _layers(parent, closed) > _BLOCK


def _forgetting(forward: Callable[..., Tensor], *inputs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs)
    return checkpoint(forward, *inputs, use_reentrant=False)
