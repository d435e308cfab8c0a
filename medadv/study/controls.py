"""Controls: changes as large as an attack's, and blind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from medadv.attack.threat import Linf
from medadv.study.conditions import Attacked, Need, Scene, Shown, slug, threat_settings, told_of
from medadv.study.reach import Reach
from medadv.study.records import Presented


@dataclass(frozen=True)
class SignNoise:
    """The whole budget up or down in each voxel, at random: as large as any attack, and blind."""

    threat: Linf
    reach: Reach = Reach()  # noqa: RUF009  (a frozen value)
    needs: tuple[Need, ...] = ()
    draws: None = None

    @property
    def family(self) -> str:
        """What tables call it."""
        return "-".join(["noise", *self.reach.unusual])

    @property
    def name(self) -> str:
        """A folder's name."""
        return f"{self.family}-{slug(self.threat.budget)}"

    @property
    def presented(self) -> Presented:
        """What tables say of it."""
        return told_of("control", self.family, f"sign noise{self.reach.told}", self.threat)

    def settings(self) -> dict[str, Any]:
        """Its threat."""
        return {"kind": "noise", "threat": threat_settings(self.threat, self.reach)}

    def show(self, scene: Scene) -> Shown:
        """Clean plus noise, inside the threat."""
        threat = scene.allowed(self.threat, self.reach)
        up_or_down = scene.rng.fork("noise").uniform(scene.x) - 0.5
        return Shown(threat.project(scene.x + threat.ascent(up_or_down)))


@dataclass(frozen=True)
class Permuted:
    """An attack's own perturbation, its voxels shuffled inside the support of each modality: the same values, no aim
    (the PERM control of Xie et al. 2017)."""

    of: Attacked

    @property
    def name(self) -> str:
        """A folder's name."""
        return f"permuted-{self.of.name}"

    @property
    def threat(self) -> Linf:
        """The attack's."""
        return self.of.threat

    @property
    def reach(self) -> Reach:
        """The attack's."""
        return self.of.reach

    @property
    def needs(self) -> tuple[Need, ...]:
        """The attack."""
        return (Need(self.of.name),)

    @property
    def draws(self) -> str | None:
        """The attack's."""
        return self.of.draws

    @property
    def presented(self) -> Presented:
        """What tables say of it."""
        shown = told_of("control", f"permuted {self.of.family}", f"{self.of.title}, permuted", self.threat)
        return shown.model_copy(update={"of": self.of.name})

    def settings(self) -> dict[str, Any]:
        """The attack's settings."""
        return {"kind": "permuted", "of": self.of.settings()}

    def show(self, scene: Scene) -> Shown:
        """Clean plus the shuffled perturbation, inside the threat."""
        change = scene.stored[Need(self.of.name)] - scene.x
        shuffled = torch.zeros_like(change)
        (generator,) = scene.rng.fork("permuted").generators()
        for c, where in enumerate(scene.within(self.reach)[0]):
            values = change[0, c][where]
            shuffled[0, c][where] = values[torch.randperm(len(values), generator=generator).to(values.device)]
        return Shown(scene.allowed(self.threat, self.reach).project(scene.x + shuffled))
