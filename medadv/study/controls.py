"""Controls: changes as large as an attack's, and blind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from medadv.study.attack_base import Limits
from medadv.study.conditions import MadeOf, Need, Perturbation, Scene, Shown, slug, threat_settings, told_of
from medadv.study.reach import Reach
from medadv.study.records import Presented

Planes = Literal["rows", "columns", "slices"]
"""What is moved as a whole: the planes across the first, the second, the third axis; of a picture, its lines."""

AXIS: dict[Planes, int] = {"rows": 0, "columns": 1, "slices": 2}


@dataclass(frozen=True)
class SignNoise:
    """The whole budget up or down in each voxel, at random: as large as any attack, and blind."""

    threat: Limits
    reach: Reach = Reach()  # noqa: RUF009  (a frozen value)
    needs: tuple[Need, ...] = ()
    maps: None = None

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
class Permuted(MadeOf):
    """An attack's own perturbation, shuffled: the same values, no aim (the PERM control of Xie et al. 2017).

    Voxels are shuffled inside the support of each modality, or whole planes are, of all modalities alike.

    Attributes:
        of: what is shuffled: an attack's perturbation, or a sum of several.
        planes: what is moved as a whole; None for voxels.
        draw: which one of several random permutations, from 1.
    """

    of: Perturbation
    planes: Planes | None = None
    draw: int = 1

    @property
    def _how(self) -> list[str]:
        return [*([self.planes] if self.planes else []), *([str(self.draw)] if self.draw > 1 else [])]

    @property
    def name(self) -> str:
        """A folder's name."""
        return "-".join(["permuted", *self._how, self.of.name])

    @property
    def needs(self) -> tuple[Need, ...]:
        """The attack."""
        return (Need(self.of.name),)

    @property
    def presented(self) -> Presented:
        """What tables say of it."""
        how = f"{self.planes or ''} permuted{f' (draw {self.draw})' if self.draw > 1 else ''}".strip()
        family = " ".join(["permuted", *self._how, self.of.family])
        shown = told_of("control", family, f"{self.of.title}, {how}", self.threat)
        return shown.model_copy(update={"of": self.of.name})

    def settings(self) -> dict[str, Any]:
        """The attack's settings. Voxels and the first draw are not named: older records keep their keys."""
        how: dict[str, Any] = {"planes": self.planes} if self.planes else {}
        if self.draw > 1:
            how["draw"] = self.draw
        return {"kind": "permuted", "of": self.of.settings(), **how}

    def show(self, scene: Scene) -> Shown:
        """Clean plus the shuffled perturbation, inside the threat."""
        change = scene.stored[Need(self.of.name)] - scene.x
        (generator,) = scene.rng.fork("permuted").generators()
        where = scene.within(self.reach)[0]
        if self.planes is None:
            shuffled = shuffled_voxels(change[0], where, generator)
        else:
            shuffled = shuffled_planes(change[0], where, AXIS[self.planes], generator)
        return Shown(scene.allowed(self.threat, self.reach).project(scene.x + shuffled[None]))


def shuffled_voxels(
    change: Float[Tensor, "c *s"], where: Bool[Tensor, "c *s"], generator: torch.Generator
) -> Float[Tensor, "c *s"]:
    """The values of each channel in another order, inside its support; zero outside."""
    shuffled = torch.zeros_like(change)
    for c, support in enumerate(where):
        values = change[c][support]
        shuffled[c][support] = values[torch.randperm(len(values), generator=generator).to(values.device)]
    return shuffled


def shuffled_planes(
    change: Float[Tensor, "c *s"], where: Bool[Tensor, "c *s"], axis: int, generator: torch.Generator
) -> Float[Tensor, "c *s"]:
    """The planes across one axis in another order, the same for all channels; zero outside the support.

    Every value of the support is kept, so that histogram and norms are exactly those of ``change``. Where the support
    is everything, whole planes move. Elsewhere planes hold different numbers of values: what is drawn is the order in
    which the support is read, plane by plane, and it is filled again from its beginning; a plane that is larger than
    the one that came is filled on by the next.

    Args:
        change: the perturbation, zero outside the support.
        where: the support.
        axis: of the image, from 0.
        generator: draws the order.
    """
    planes, support = change.movedim(1 + axis, 1), where.movedim(1 + axis, 1)
    order = torch.randperm(planes.shape[1], generator=generator).to(change.device)
    shuffled = torch.zeros_like(planes)
    for c, inside in enumerate(support):
        shuffled[c][inside] = planes[c][order][inside[order]]
    return shuffled.movedim(1, 1 + axis)
