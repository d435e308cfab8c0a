"""Where the threat of a study holds: which voxels, and of which modalities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from medadv.data.support import Support


@dataclass(frozen=True)
class Reach:
    """Where voxels may change.

    A subset of modalities is a matter of the support and not of the budget: outside it an input is bound to its clean
    self exactly, and the budget stays one amount, which curves can be drawn over.

    Attributes:
        kind: how the support is found.
        modalities: the only ones that change; None for all.
    """

    kind: Support = "nonzero"
    modalities: tuple[str, ...] | None = None

    def __call__(self, support: Bool[Tensor, "1 c *s"], modalities: Sequence[str]) -> Bool[Tensor, "1 c *s"]:
        """The support of a case, as far as the attacker reaches.

        Args:
            support: of this kind, all modalities.
            modalities: what the channels are.
        """
        if self.modalities is None:
            return support
        chosen = torch.tensor([name in self.modalities for name in modalities], device=support.device)
        return support & chosen.view(1, -1, *[1] * (support.ndim - 2))

    def settings(self) -> dict[str, Any]:
        """As JSON. All modalities are not named: older records keep their keys."""
        named = {} if self.modalities is None else {"modalities": list(self.modalities)}
        return {"support": self.kind, **named}

    @property
    def unusual(self) -> tuple[str, ...]:
        """What a name has to say of it."""
        return (*(self.modalities or ()), *(["volume"] if self.kind == "volume" else []))

    @property
    def told(self) -> str:
        """What a title has to say of it, each part after a comma."""
        alone = "" if self.modalities is None else f", only {' and '.join(self.modalities)}"
        return alone + (", background too" if self.kind == "volume" else "")
