"""The ways a case is presented: what they have in common, the case itself, and attacks. ``controls`` and ``transfer``
make others from what these have stored; ``suite`` says which of them a study has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor

from medadv.attack.budget import Budget
from medadv.attack.joint import Draws, Joint, Together
from medadv.attack.loop import Adversarial, Attack
from medadv.attack.rng import Rng
from medadv.attack.targets import Truths
from medadv.attack.threat import Box, Linf
from medadv.attack.victim import Passes, Victim
from medadv.objects import Truth
from medadv.study.attack_base import Limits
from medadv.study.attacks import AttackSpec
from medadv.study.goal_base import LabelMap
from medadv.study.reach import Reach
from medadv.study.records import Presented, Role
from medadv.study.silence import silent_share
from medadv.study.spec import Study

Image = Float[Tensor, "1 c *s"]


class Need(NamedTuple):
    """The voxels that a condition delivered for the same case.

    Attributes:
        condition: its name.
        victim: who was shown it; None for the victim that is asked.
    """

    condition: str
    victim: str | None = None


class Partner(NamedTuple):
    """Another victim that is attacked together with the one that is asked.

    Attributes:
        truth: of this case, in its own numbers.
        given: the map that the attack draws, in its own numbers.
    """

    victim: Victim
    truth: Truth
    given: LabelMap | None


@dataclass(frozen=True, eq=False)
class Scene:
    """What a condition is given: one victim, one case, and what other conditions have stored for it.

    Attributes:
        x: the clean voxels, ``(1, c, *s)``.
        truth: the label map in the victim's numbers, ``(1, *s)``, or the objects of the image, one list of them.
        rng: the stream of this case.
        stored: what the condition is made from → the voxels.
        support: where the study lets voxels change, ``(1, c, *s)``.
        modalities: what the channels of ``x`` are.
        spacing: the size of a voxel along each axis, in mm.
        given: the map that the condition draws, in the victim's numbers; None where it draws none.
        partners: the other victims that an attack on several attacks, by name.
    """

    victim: Victim
    x: Image
    truth: Truth
    rng: Rng
    stored: Mapping[Need, Image]
    support: Bool[Tensor, "1 c *s"]
    modalities: tuple[str, ...]
    spacing: tuple[float, ...]
    given: LabelMap | None = None
    partners: Mapping[str, Partner] = field(default_factory=dict)

    def within(self, reach: Reach) -> Bool[Tensor, "1 c *s"]:
        """Where voxels may change."""
        return reach(self.support, self.modalities)

    def allowed(self, threat: Limits, reach: Reach) -> Box:
        """A threat, made concrete for this case."""
        return threat(self.x, self.within(reach))


@dataclass(frozen=True, eq=False)
class Shown:
    """What a condition makes of a case: the voxels to deliver, and for an attack how it went.

    Attributes:
        silent: the share of the attack's targets in the clean case at whose logits it has no gradient; None: not asked.
        step_cost: what one step of the attack cost, of all victims and draws together.
    """

    x: Image
    adversarial: Adversarial | None = None
    silent: float | None = None
    step_cost: Passes = Passes()  # noqa: RUF009  (a frozen value)


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
    def threat(self) -> Limits | None:
        """What may change; None where nothing does."""
        ...

    @property
    def reach(self) -> Reach:
        """Where it may."""
        ...

    @property
    def needs(self) -> tuple[Need, ...]:
        """What it is made from."""
        ...

    @property
    def maps(self) -> str | None:
        """The folder of the given maps that its numbers follow from, if any."""
        ...

    def settings(self) -> dict[str, Any]:
        """Everything that could change its numbers, as JSON."""
        ...

    def show(self, scene: Scene) -> Shown:
        """The case as it is presented."""
        ...


@runtime_checkable
class Perturbation(Condition, Protocol):
    """A condition with a perturbation that a control can be made of."""

    @property
    def threat(self) -> Limits:
        """What may change."""
        ...

    @property
    def family(self) -> str:
        """What tables call it."""
        ...

    @property
    def title(self) -> str:
        """For people."""
        ...


class MadeOf:
    """What conditions have in common that are made of another one's perturbation: all that bounds it.

    A threat is made concrete by the clean voxels alone, so it is the same for every victim.
    """

    of: Perturbation

    @property
    def threat(self) -> Limits:
        """The other one's."""
        return self.of.threat

    @property
    def reach(self) -> Reach:
        """The other one's."""
        return self.of.reach

    @property
    def maps(self) -> str | None:
        """The other one's."""
        return self.of.maps


@dataclass(frozen=True)
class Unchanged:
    """The case itself. As ``clean`` it is scored where it lies; as the control ``identity`` it takes an attack's way
    through the file, and must come out exactly as clean."""

    name: str
    presented: Presented
    threat: None = None
    reach: Reach = Reach()  # noqa: RUF009  (a frozen value)
    needs: tuple[Need, ...] = ()
    maps: None = None

    def settings(self) -> dict[str, Any]:
        """Nothing but its kind."""
        return {"kind": self.name}

    def show(self, scene: Scene) -> Shown:
        """The clean voxels."""
        return Shown(scene.x)


@dataclass(frozen=True)
class Attacked:
    """A named attack at one budget.

    Attributes:
        note: what its title says beside the attack's own; no part of the key.
        listens: whether its records tell at how many targets its loss is silent; no part of the key.
    """

    family: str
    spec: AttackSpec
    threat: Limits
    reach: Reach = Reach()  # noqa: RUF009  (a frozen value)
    needs: tuple[Need, ...] = ()
    note: str = ""
    listens: bool = False

    @property
    def name(self) -> str:
        """A folder's name."""
        return f"{self.family}-{slug(self.threat.budget)}"

    @property
    def presented(self) -> Presented:
        """What tables say of it."""
        return told_of("attack", self.family, self.title, self.threat)

    @property
    def maps(self) -> str | None:
        """The folder of its goal's maps."""
        return self.spec.maps

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.spec.title}{self.note}{self.reach.told}"

    def settings(self) -> dict[str, Any]:
        """The attack and its threat."""
        return {
            "kind": "attack",
            "attack": self.spec.settings(),
            "threat": threat_settings(self.threat, self.reach),
        }

    def show(self, scene: Scene) -> Shown:
        """What the attack found."""
        attack, victim, truth = self._against(scene)
        support = scene.within(self.reach)
        adversarial = attack(victim, scene.x, truth, support=support, rng=scene.rng)
        silent = None
        if self.listens and not self.spec.together:
            silent = silent_share(scene.victim, scene.x, scene.truth, attack.objective, scene.rng)[0].item()
        return Shown(adversarial.x, adversarial, silent, victim.gradient_cost)

    def _against(self, scene: Scene) -> tuple[Attack, Victim, Truths]:
        """The attack, and whom it attacks: the victim that is asked, or several together; each in several draws."""
        if not self.spec.together:
            attack = self.spec.attack(self.threat, scene.spacing, scene.given)
            return attack, self._drawn(scene.victim), scene.truth
        first = Partner(scene.victim, scene.truth, scene.given)
        several = [first, *(scene.partners[name] for name in self.spec.together[1:])]
        attacks = [
            self.spec.for_victim(name).attack(self.threat, scene.spacing, each.given)
            for name, each in zip(self.spec.together, several, strict=True)
        ]
        attack = replace(attacks[0], objective=Together(tuple(each.objective for each in attacks)))
        victims = Joint(tuple(self._drawn(each.victim) for each in several))
        return attack, victims, tuple(each.truth for each in several)

    def _drawn(self, victim: Victim) -> Victim:
        return victim if self.spec.draws == 1 else Draws(victim, self.spec.draws)


CLEAN = Unchanged("clean", Presented(role="clean", family="clean", title="clean"))
IDENTITY = Unchanged("identity", Presented(role="control", family="identity", title="identity"))


def attacked(study: Study, name: str, budget: str) -> Attacked:
    """An attack of a study at one of its budgets."""
    reach = Reach(study.support, study.modalities_of(name))
    spec = study.attacks[name]
    return Attacked(study.family(name), spec, spec.threat(Budget.parse(budget), study.legal, study.span), reach)


def slug(budget: Budget) -> str:
    """A budget as the name of a condition has it."""
    return str(budget).replace(" ", "-").replace("/", "_")


def told_of(role: Role, family: str, title: str, threat: Limits) -> Presented:
    """What tables say of a condition with a budget."""
    budget = threat.budget
    amount = budget.amounts[0] if len(set(budget.amounts)) == 1 else None
    return Presented(role=role, family=family, title=title, budget=str(budget), amount=amount, unit=str(budget.unit))


def threat_settings(threat: Limits, reach: Reach) -> dict[str, Any]:
    """A threat as JSON, for a key. What grey levels share is named where the study says it: older keys stay."""
    legal = list(threat.legal) if isinstance(threat.legal, tuple) else threat.legal
    budget = {"amounts": list(threat.budget.amounts), "unit": str(threat.budget.unit)}
    ball = "linf" if isinstance(threat, Linf) else "unbounded"
    span = {} if threat.span is None else {"span": list(threat.span)}
    return {"ball": ball, "budget": budget, "legal": legal, **span, **reach.settings()}


