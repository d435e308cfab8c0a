"""The ways a case is presented: clean, controls, attacks. Some are made from what others have stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from medadv.attack.budget import Budget
from medadv.attack.loop import Adversarial
from medadv.attack.rng import Rng
from medadv.attack.threat import Box, Linf
from medadv.study.attacks import AttackSpec
from medadv.study.goals import LabelMap
from medadv.study.reach import Reach
from medadv.study.records import Presented, Role
from medadv.study.spec import Study
from medadv.victims.segmentation import Segmenter

Image = Float[Tensor, "1 c *s"]


@dataclass(frozen=True, eq=False)
class Scene:
    """What a condition is given: one victim, one case, and what other conditions have stored for them.

    Attributes:
        x: the clean voxels, ``(1, c, *s)``.
        truth: the label map in the victim's numbers, ``(1, *s)``.
        rng: the stream of this case.
        stored: condition → the voxels it delivered for this case.
        support: where the study lets voxels change, ``(1, c, *s)``.
        modalities: what the channels of ``x`` are.
        spacing: the size of a voxel along each axis, in mm.
        given: the map that the condition draws, in the victim's numbers; None where it draws none.
    """

    victim: Segmenter
    x: Image
    truth: Int[Tensor, "1 *s"]
    rng: Rng
    stored: dict[str, Image]
    support: Bool[Tensor, "1 c *s"]
    modalities: tuple[str, ...]
    spacing: tuple[float, ...]
    given: LabelMap | None = None

    def within(self, reach: Reach) -> Bool[Tensor, "1 c *s"]:
        """Where voxels may change."""
        return reach(self.support, self.modalities)

    def allowed(self, threat: Linf, reach: Reach) -> Box:
        """A threat, made concrete for this case."""
        return threat(self.x, self.within(reach))


@dataclass(frozen=True, eq=False)
class Shown:
    """What a condition makes of a case: the voxels to deliver, and for an attack how it went."""

    x: Image
    adversarial: Adversarial | None = None


@runtime_checkable
class Condition(Protocol):
    """One way a case is presented."""

    @property
    def name(self) -> str:
        """A folder's name."""
        ...

    @property
    def presented(self) -> Presented:
        """What tables say of it."""
        ...

    @property
    def threat(self) -> Linf | None:
        """What may change; None where nothing does."""
        ...

    @property
    def reach(self) -> Reach:
        """Where it may."""
        ...

    @property
    def needs(self) -> tuple[str, ...]:
        """The conditions whose stored voxels it is made from."""
        ...

    @property
    def draws(self) -> str | None:
        """The folder of the given maps that its numbers follow from, if any."""
        ...

    def settings(self) -> dict[str, Any]:
        """Everything that could change its numbers, as JSON."""
        ...

    def show(self, scene: Scene) -> Shown:
        """The case as it is presented."""
        ...


@dataclass(frozen=True)
class Unchanged:
    """The case itself. As ``clean`` it is scored where it lies; as the control ``identity`` it takes an attack's way
    through the file, and must come out exactly as clean."""

    name: str
    presented: Presented
    threat: None = None
    reach: Reach = Reach()  # noqa: RUF009  (a frozen value)
    needs: tuple[str, ...] = ()
    draws: None = None

    def settings(self) -> dict[str, Any]:
        """Nothing but its kind."""
        return {"kind": self.name}

    def show(self, scene: Scene) -> Shown:
        """The clean voxels."""
        return Shown(scene.x)


@dataclass(frozen=True)
class SignNoise:
    """The whole budget up or down in each voxel, at random: as large as any attack, and blind."""

    threat: Linf
    reach: Reach = Reach()  # noqa: RUF009  (a frozen value)
    needs: tuple[str, ...] = ()
    draws: None = None

    @property
    def family(self) -> str:
        """What tables call it."""
        return "-".join(["noise", *self.reach.unusual])

    @property
    def name(self) -> str:
        """A folder's name."""
        return f"{self.family}-{_slug(self.threat.budget)}"

    @property
    def presented(self) -> Presented:
        """What tables say of it."""
        return _presented("control", self.family, f"sign noise{self.reach.told}", self.threat)

    def settings(self) -> dict[str, Any]:
        """Its threat."""
        return {"kind": "noise", "threat": _threat_settings(self.threat, self.reach)}

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
    def needs(self) -> tuple[str, ...]:
        """The attack."""
        return (self.of.name,)

    @property
    def draws(self) -> str | None:
        """The attack's."""
        return self.of.draws

    @property
    def presented(self) -> Presented:
        """What tables say of it."""
        shown = _presented("control", f"permuted {self.of.family}", f"{self.of.title}, permuted", self.threat)
        return shown.model_copy(update={"of": self.of.name})

    def settings(self) -> dict[str, Any]:
        """The attack's settings."""
        return {"kind": "permuted", "of": self.of.settings()}

    def show(self, scene: Scene) -> Shown:
        """Clean plus the shuffled perturbation, inside the threat."""
        change = scene.stored[self.of.name] - scene.x
        shuffled = torch.zeros_like(change)
        (generator,) = scene.rng.fork("permuted").generators()
        for c, where in enumerate(scene.within(self.reach)[0]):
            values = change[0, c][where]
            shuffled[0, c][where] = values[torch.randperm(len(values), generator=generator).to(values.device)]
        return Shown(scene.allowed(self.threat, self.reach).project(scene.x + shuffled))


@dataclass(frozen=True)
class Attacked:
    """A named attack at one budget."""

    family: str
    spec: AttackSpec
    threat: Linf
    reach: Reach = Reach()  # noqa: RUF009  (a frozen value)
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """A folder's name."""
        return f"{self.family}-{_slug(self.threat.budget)}"

    @property
    def presented(self) -> Presented:
        """What tables say of it."""
        return _presented("attack", self.family, self.title, self.threat)

    @property
    def draws(self) -> str | None:
        """The folder of its goal's maps."""
        return self.spec.draws

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.spec.title}{self.reach.told}"

    def settings(self) -> dict[str, Any]:
        """The attack and its threat."""
        return {
            "kind": "attack",
            "attack": self.spec.settings(),
            "threat": _threat_settings(self.threat, self.reach),
        }

    def show(self, scene: Scene) -> Shown:
        """What the attack found."""
        attack = self.spec.attack(self.threat, scene.spacing, scene.given)
        support = scene.within(self.reach)
        adversarial = attack(scene.victim, scene.x, scene.truth, support=support, rng=scene.rng)
        return Shown(adversarial.x, adversarial)


CLEAN = Unchanged("clean", Presented(role="clean", family="clean", title="clean"))
IDENTITY = Unchanged("identity", Presented(role="control", family="identity", title="identity"))


def conditions(study: Study) -> tuple[Condition, ...]:
    """All conditions of a study: clean, each attack with the control that needs its perturbation, other controls."""
    attacks = [_attacked(study, name, budget) for name in study.attacks for budget in study.budgets_of(name)]
    every: list[Condition] = [CLEAN]
    for attack in attacks:
        every += [attack, Permuted(attack)] if "permuted" in study.controls else [attack]
    if "identity" in study.controls:
        every.append(IDENTITY)
    if "noise" in study.controls:
        every += [SignNoise(*threat) for threat in dict.fromkeys((attack.threat, attack.reach) for attack in attacks)]
    return tuple(every)


def primary_conditions(study: Study) -> tuple[str, ...]:
    """The names of the conditions in the declared family."""
    return tuple(
        _attacked(study, name, budget).name
        for name in study.primary.attacks or study.attacks
        for budget in study.budgets_of(name)
        if study.primary.budgets is None or budget in study.primary.budgets
    )


def _attacked(study: Study, name: str, budget: str) -> Attacked:
    """An attack of a study at one of its budgets."""
    reach = Reach(study.support, study.modalities_of(name))
    return Attacked(study.family(name), study.attacks[name], Linf(Budget.parse(budget), study.legal), reach)


def _slug(budget: Budget) -> str:
    return str(budget).replace(" ", "-").replace("/", "_")


def _presented(role: Role, family: str, title: str, threat: Linf) -> Presented:
    budget = threat.budget
    amount = budget.amounts[0] if len(set(budget.amounts)) == 1 else None
    return Presented(role=role, family=family, title=title, budget=str(budget), amount=amount, unit=str(budget.unit))


def _threat_settings(threat: Linf, reach: Reach) -> dict[str, Any]:
    legal = list(threat.legal) if isinstance(threat.legal, tuple) else threat.legal
    budget = {"amounts": list(threat.budget.amounts), "unit": str(threat.budget.unit)}
    return {"ball": "linf", "budget": budget, "legal": legal, **reach.settings()}


