"""NumPy's numbers in a checkpoint: training programs log losses and scores beside the weights, and they run nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

_scalar = np._core.multiarray.scalar  # type: ignore[attr-defined]

NUMBERS: list[Any] = [
    np.dtype,
    *((_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *{type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "u1", "?")},
]
"""What ``torch.load(weights_only=True)`` may build beyond tensors and Python's own values."""
