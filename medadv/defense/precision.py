"""bf16 inside a lesson: the network computes in it; its answer, the loss and the parameters stay float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def bf16(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Inside, ``network`` computes in bf16 under autocast, also where an attack in the lesson asks it.

    bf16 has the range of float32, so that no loss needs scaling.
    """
    widened = network.register_forward_hook(lambda module, given, answer: _wide(answer))  # noqa: ARG005
    try:
        # No cache of narrowed weights: one that a call without gradient left would have no gradient in the next.
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):
            yield
    finally:
        widened.remove()


def _wide(answer: Any) -> Any:
    return answer.float() if isinstance(answer, Tensor) else answer
