"""Soft labels, written once: what a teacher says of whole cases at a temperature.

Kept by the content of the case, on the disk, for this user alone; a file that is damaged is made anew.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from medadv.atomic import write_text
from medadv.attack.victim import held_still
from medadv.data.cache import Cache
from medadv.defense.lessons import check_temperature
from medadv.errors import RunError
from medadv.victims.segmentation import Segmenter, weights_digest

CARD = "soft_labels.json"


@dataclass(frozen=True, eq=False)
class SoftLabels:
    """The soft labels of one teacher at one temperature, in a folder of their own.

    They come from the teacher as it is deployed: a whole normalised case through its windows, logits blended, then
    softmax(logits / T). Half precision holds a probability to 2.5e-4.

    Attributes:
        folder: where they are kept; made when it is missing.
        teacher: who says.
        temperature: T.

    Raises:
        ConfigError: a temperature that is not positive.
        RunError: the folder holds the soft labels of another teacher, or of another temperature; or it cannot be read.
    """

    folder: Path
    teacher: Segmenter
    temperature: float

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        self._check_card()

    def __call__(self, z: Float[Tensor, "c *s"]) -> Float[Tensor, "k *s"]:
        """The soft labels of a whole normalised case, float16: by channel, as ``Example.soft`` is."""
        voxels = z.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        key = {**self.card, "shape": list(z.shape), "z": hashlib.sha256(voxels.data).hexdigest()}
        return Cache(self.folder).get(key, lambda: {"soft": self._asked(z)})["soft"]

    def _asked(self, z: Float[Tensor, "c *s"]) -> Float[Tensor, "k *s"]:
        teacher = self.teacher
        weight = next(teacher.network.parameters(), z)
        with held_still(teacher.modules()), torch.no_grad():
            answer = teacher.inference(teacher.network, z[None].to(weight.device))
            shares = (teacher.head.logits(answer) / self.temperature).softmax(1)
        # Of a region the second class is its inside.
        return (shares[:, 1] if teacher.head.grouped else shares)[0].half().cpu()

    @cached_property
    def card(self) -> dict[str, Any]:
        """What makes soft labels this teacher's at this temperature."""
        pipeline = self.teacher.preprocessing()
        return {
            "format": "medadv soft labels 1",
            "weights": weights_digest(self.teacher.network),
            "network": hashlib.sha256(repr(self.teacher.network).encode()).hexdigest(),
            "inference": pipeline["inference"],
            "head": pipeline["head"],
            "temperature": float(self.temperature),
        }

    def _check_card(self) -> None:
        card, path = self.card, self.folder / CARD
        if not path.exists():
            write_text(path, json.dumps(card, indent=1))
            return
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            other = sorted(name for name in card if found.get(name) != card[name])
        except (OSError, ValueError, AttributeError) as error:
            raise RunError(
                "the soft labels do not say whose they are",
                got=error,
                advice=f"delete {self.folder} to make them anew",
            ) from error
        if other:
            raise RunError(
                "these are the soft labels of another teacher, or of another temperature",
                got={name: found.get(name) for name in other},
                expected={name: card[name] for name in other},
                advice=f"give each teacher and temperature a folder of its own, or delete {self.folder}",
            )
