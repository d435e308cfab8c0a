"""Transfer: what an attack found for one victim, shown to another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medadv.attack.threat import Linf
from medadv.study.conditions import Attacked, Need, Scene, Shown, slug, threat_settings, told_of
from medadv.study.reach import Reach
from medadv.study.records import Presented


@dataclass(frozen=True)
class Transferred:
    """What an attack delivered for another victim on the same case, voxel for voxel (Papernot et al. 2016,
    arXiv:1605.07277): the one attack that the gradients of the victim that is asked cannot mislead.

    Attributes:
        of: the attack.
        source: the victim that it attacked. Its identity goes into the key of the cell, its name does not.
    """

    of: Attacked
    source: str

    @property
    def family(self) -> str:
        """What tables call it."""
        return f"transfer-from-{self.source}"

    @property
    def name(self) -> str:
        """A folder's name."""
        return f"{self.family}-{slug(self.of.threat.budget)}"

    @property
    def threat(self) -> Linf:
        """The attack's: it is made concrete by the clean voxels alone, so it is the same for every victim."""
        return self.of.threat

    @property
    def reach(self) -> Reach:
        """The attack's."""
        return self.of.reach

    @property
    def needs(self) -> tuple[Need, ...]:
        """What the attack delivered for its victim."""
        return (Need(self.of.name, self.source),)

    @property
    def draws(self) -> str | None:
        """The attack's."""
        return self.of.draws

    @property
    def presented(self) -> Presented:
        """What tables say of it."""
        shown = told_of("attack", self.family, f"{self.of.title}, transferred from {self.source}", self.threat)
        return shown.model_copy(update={"source": self.source})

    def settings(self) -> dict[str, Any]:
        """The attack's settings, and its threat."""
        return {"kind": "transfer", "of": self.of.settings(), "threat": threat_settings(self.threat, self.reach)}

    def show(self, scene: Scene) -> Shown:
        """The stored voxels."""
        return Shown(scene.stored[self.needs[0]])
