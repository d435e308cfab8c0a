"""``Drill``: an attack on a case that a training may see, as the study's own attacks are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from medadv.attack.budget import Budget
from medadv.attack.rng import Rng
from medadv.attack.threat import Linf
from medadv.data.case import Volume
from medadv.data.files import content_digest
from medadv.data.support import support
from medadv.study.attacks import AttackSpec
from medadv.study.reach import Reach
from medadv.study.records import digest
from medadv.study.spec import Study
from medadv.victims.segmentation import Segmenter


@dataclass(frozen=True)
class Drill:
    """An attack in the study's threat, on training or validation cases.

    Attributes:
        study: whose legal range, support and modalities hold.
        spec: the attack.
        budget: how much may change.
    """

    study: Study
    spec: AttackSpec
    budget: Budget

    @property
    def threat(self) -> Linf:
        """As the study's attacks have it."""
        return Linf(self.budget, self.study.legal)

    @property
    def reach(self) -> Reach:
        """Where voxels may change."""
        return Reach(self.study.support, self.spec.modalities or self.study.modalities)

    def settings(self) -> dict[str, Any]:
        """Everything that could change what is found but victim and case, as JSON."""
        legal = list(self.study.legal) if isinstance(self.study.legal, tuple) else self.study.legal
        told = {"attack": self.spec.settings(), "budget": str(self.budget), "legal": legal, "seed": self.study.seed}
        return {**told, **self.reach.settings()}

    def __call__(self, victim: Segmenter, volume: Volume) -> Float[Tensor, "1 c *s"]:
        """The voxels that the attack finds for a victim, which reads the volume's modalities.

        Raises:
            CaseError: the case has no support.
        """
        assert volume.truth is not None  # of labelled cases alone
        case, device = volume.case, victim.device
        where = self.reach(support(volume, self.study.support)[None].to(device), case.modalities)
        truth = case.scheme.translate(volume.truth, victim.scheme)[None].to(device)
        attack = self.spec.attack(self.threat, volume.spacing)
        rng = Rng.seeded(self.study.seed, [content_digest(volume)]).fork(digest(self.settings()))
        return attack(victim.at(volume.affine), volume.x[None].to(device), truth, support=where, rng=rng).x
