"""Transfer: what an attack found for one victim, shown to another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from medadv.study.conditions import Attacked, MadeOf, Need, Scene, Shown, attacked, slug, threat_settings, told_of
from medadv.study.records import Presented
from medadv.study.spec import Study


@dataclass(frozen=True)
class Transferred(MadeOf):
    """What an attack delivered for another victim on the same case, voxel for voxel (Papernot et al. 2016,
    arXiv:1605.07277): the one attack that the gradients of the victim that is asked cannot mislead.

    Attributes:
        of: the attack.
        source: the victim that it attacked. Its identity goes into the key of the cell, its name does not.
        named: whether its name tells the attack, where a study transfers several.
    """

    of: Attacked
    source: str
    named: bool = False

    @property
    def family(self) -> str:
        """What tables call it."""
        return f"transfer-{f'{self.of.family}-' if self.named else ''}from-{self.source}"

    @property
    def name(self) -> str:
        """A folder's name."""
        return f"{self.family}-{slug(self.of.threat.budget)}"

    @property
    def needs(self) -> tuple[Need, ...]:
        """What the attack delivered for its victim."""
        return (Need(self.of.name, self.source),)

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


@dataclass(frozen=True)
class Shared(MadeOf):
    """What one attack found for several victims together, shown to those of them for whom it is not stored.

    Attributes:
        of: the attack.
        holder: the first of the victims, for whom it is stored.
    """

    of: Attacked
    holder: str

    @property
    def family(self) -> str:
        """The attack's."""
        return self.of.family

    @property
    def title(self) -> str:
        """The attack's."""
        return self.of.title

    @property
    def name(self) -> str:
        """The attack's."""
        return self.of.name

    @property
    def needs(self) -> tuple[Need, ...]:
        """What the attack delivered."""
        return (Need(self.of.name, self.holder),)

    @property
    def presented(self) -> Presented:
        """What tables say of it: the attack, for it attacked this victim, too."""
        return self.of.presented

    def settings(self) -> dict[str, Any]:
        """The attack's settings, and its threat."""
        return {"kind": "shared", "of": self.of.settings(), "threat": threat_settings(self.threat, self.reach)}

    def show(self, scene: Scene) -> Shown:
        """The stored voxels."""
        return Shown(scene.stored[self.needs[0]])


def matrix(study: Study, target: str) -> Iterator[Transferred]:
    """One column of the study's matrix of transfers: what a victim is shown of what was found for each other one.

    An attack on several victims together is no transfer to one of them.
    """
    wanted = study.transfers
    if wanted is None or target not in (wanted.to or study.judged):
        return
    for name in wanted.attacks or study.attacks:
        met = study.victims_of(name)
        together = study.attacks[name].together
        sources = [met[0]] if together else [victim for victim in met if victim in (wanted.from_ or met)]
        for budget in study.budgets_of(name):
            if wanted.budgets is None or budget in wanted.budgets:
                attack = attacked(study, name, budget)
                yield from (
                    Transferred(attack, source, named=True)
                    for source in sources
                    if source != target and not (together and target in met)
                )
