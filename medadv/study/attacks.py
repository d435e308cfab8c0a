"""The attacks that a study can name, and their settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from medadv.attack.budget import Budget
from medadv.attack.exchange import Active, Strong
from medadv.attack.loop import Attack
from medadv.attack.presets import dag, fgsm, fgsm_ll, ifgsm, ifgsm_ll, mifgsm, pgd, tifgsm
from medadv.attack.threat import Legal
from medadv.attack.unbounded import Unbounded
from medadv.study.attack_base import Alike, AttackSettings, Limits, OnLoss, Stepwise, Untargeted
from medadv.study.goal_base import LabelMap
from medadv.study.goals import Goal


class Fgsm(Untargeted):
    """One step of the whole budget."""

    preset: Literal["fgsm"]

    @property
    def title(self) -> str:
        """For people."""
        return f"FGSM{self.told}"

    def steps_at(self, budget: Budget) -> int:  # noqa: ARG002
        """One."""
        return 1

    def attack(self, threat: Limits, spacing: Sequence[float], given: LabelMap | None = None) -> Attack:  # noqa: ARG002
        """The attack in a threat."""
        return fgsm(threat, self.ascended, labels=self.labels, region=self.region)


class Ifgsm(Stepwise, Untargeted):
    """Many projected steps."""

    preset: Literal["ifgsm"]

    @property
    def title(self) -> str:
        """For people."""
        return f"i-FGSM, {self.counted}{self.told}"

    def attack(self, threat: Limits, spacing: Sequence[float], given: LabelMap | None = None) -> Attack:  # noqa: ARG002
        """The attack in a threat."""
        steps, size = self.sized(threat)
        return ifgsm(threat, steps, self.ascended, size, labels=self.labels, region=self.region)


class FgsmLl(Alike, OnLoss):
    """One step of the whole budget towards the least likely classes."""

    targeted: ClassVar[bool] = True

    preset: Literal["fgsm_ll"]

    @property
    def title(self) -> str:
        """For people."""
        return f"FGSM-ll{self.told}"

    def steps_at(self, budget: Budget) -> int:  # noqa: ARG002
        """One."""
        return 1

    def attack(self, threat: Limits, spacing: Sequence[float], given: LabelMap | None = None) -> Attack:  # noqa: ARG002
        """The attack in a threat."""
        return fgsm_ll(threat, self.ascended, labels=self.labels)


class IfgsmLl(Stepwise, Alike, OnLoss):
    """Many projected steps towards the least likely classes: of the clean answer, or of the current one."""

    targeted: ClassVar[bool] = True

    preset: Literal["ifgsm_ll"]
    target: Literal["fixed", "each step"] = "fixed"

    @property
    def title(self) -> str:
        """For people."""
        found = ", found at each step" if self.target == "each step" else ""
        return f"i-FGSM-ll{found}, {self.counted}{self.told}"

    def attack(self, threat: Limits, spacing: Sequence[float], given: LabelMap | None = None) -> Attack:  # noqa: ARG002
        """The attack in a threat."""
        steps, size = self.sized(threat)
        return ifgsm_ll(threat, steps, self.ascended, size, follow=self.target == "each step", labels=self.labels)


class Targeted(AttackSettings):
    """An attack towards other labels: the same goal for all its victims, or for each of several its own."""

    targeted: ClassVar[bool] = True

    goal: Goal | None = Field(None, description="left out only where joint gives each victim its own")
    joint: tuple[str, ...] | dict[str, Goal] | None = Field(
        None, min_length=2, description="victims that it attacks together, by one perturbation; or victim: goal"
    )

    @model_validator(mode="after")
    def _one_goal(self) -> Self:
        if (self.goal is None) != isinstance(self.joint, dict):
            raise ValueError("an attack has a goal, or joint gives each victim its own: one of them")
        if isinstance(self.joint, dict) and any(goal.maps is not None for goal in self.joint.values()):
            raise ValueError("given maps are drawn for all victims alike: say goal, and name the victims in joint")
        return self

    @property
    def together(self) -> tuple[str, ...]:
        """The victims that it attacks together, if several."""
        return tuple(self.joint or ())

    @property
    def _goals(self) -> tuple[Goal, ...]:
        return tuple(self.joint.values()) if isinstance(self.joint, dict) else (self._aim,)

    @property
    def _aim(self) -> Goal:
        assert self.goal is not None  # _one_goal; of several goals, for_victim has chosen one
        return self.goal

    @property
    def aimed(self) -> str:
        """For people: what it wants."""
        return " and ".join(str(goal) for goal in self._goals)

    @property
    def names(self) -> tuple[str, ...]:
        """The regions and tissues that its goals name."""
        return tuple(name for goal in self._goals for name in goal.names)

    @property
    def tissues(self) -> tuple[str, ...]:
        """What its goals name that must be tissues."""
        return tuple(name for goal in self._goals for name in goal.tissues)

    @property
    def axes(self) -> int | None:
        """Those of its goals."""
        return next((goal.axes for goal in self._goals if goal.axes is not None), None)

    @property
    def maps(self) -> str | None:
        """The folder of its goal's maps."""
        return None if self.goal is None else self.goal.maps

    def for_victim(self, victim: str) -> Self:
        """The same with the goal for one of its victims."""
        if not isinstance(self.joint, dict):
            return self
        return self.model_copy(update={"goal": self.joint[victim], "joint": tuple(self.joint)})

    def settings(self) -> dict[str, Any]:
        """Its goals among them."""
        if isinstance(self.joint, dict):
            every = {key: value for key, value in super().settings().items() if key != "goal"}
            return {**every, "joint": [goal.settings() for goal in self.joint.values()]}
        return {**super().settings(), "goal": self._aim.settings()}


class Tifgsm(Stepwise, Targeted, OnLoss):
    """Many projected steps towards other labels."""

    preset: Literal["tifgsm"]

    @property
    def title(self) -> str:
        """For people."""
        return f"ti-FGSM, {self.aimed}, {self.counted}{self.told}"

    def attack(self, threat: Limits, spacing: Sequence[float], given: LabelMap | None = None) -> Attack:
        """The attack in a threat, on a grid of this spacing (mm), for a case with this given map."""
        relabel, (steps, size) = self._aim.relabel(spacing, given), self.sized(threat)
        return tifgsm(threat, relabel, steps, self.ascended, size, labels=self.labels, follow=self._aim.follow)


class Dag(Targeted):
    """Dense adversary generation (Xie et al. 2017): steps of length γ, the budget, until no target is active.

    The sum of its steps has no bound but the legal range. ``active: written`` is the paper's Algorithm 1, ``released``
    the authors' code.
    """

    bounded: ClassVar[bool] = False

    preset: Literal["dag"]
    budgets: tuple[str, ...] = Field(("0.5 0-255",), min_length=1, description="γ, the length of one step")
    steps: int = Field(200, ge=1)
    active: Active = Field("written", description="written: still its own label; released: not yet the wanted one")
    tolerance: float = Field(0.0, ge=0, lt=1, description="active targets that may be left, of the foreground's")
    let_vanish: bool = Field(False, description="with released: let be what is decided as background")
    strong: Strong | None = Field(None, description="of detectors: the score that a fooled box needs, {} for theirs")

    @field_validator("budgets")
    @classmethod
    def _some(cls, budgets: tuple[str, ...]) -> tuple[str, ...]:
        return budgets

    @model_validator(mode="after")
    def _once(self) -> Self:
        if self.let_vanish and self.active == "written":
            raise ValueError("let_vanish is for `active: released`: as written, what has left its label is let be")
        if any(goal.follow for goal in self._goals):
            raise ValueError("DAG exchanges labels for others that stay: goals found at each step are for tifgsm")
        return self

    @property
    def title(self) -> str:
        """For people."""
        parts = [
            f"as {self.active}",
            f"{100 * self.tolerance:g} % may be left" if self.tolerance else "",
            "what vanishes is let be" if self.let_vanish else "",
            f"fooled from a score of {self.strong.score:g} after NMS at {self.strong.nms:g}" if self.strong else "",
        ]
        settings = ", ".join(part for part in parts if part)
        return f"DAG, {self.aimed}, at most {self.steps} steps, {settings}{self.told}"

    def threat(self, budget: Budget, legal: Legal, span: tuple[float, float] | None) -> Limits:
        """The length of a step."""
        return Unbounded(budget, legal, span)

    def steps_at(self, budget: Budget) -> int:  # noqa: ARG002
        """At most."""
        return self.steps

    def attack(self, threat: Limits, spacing: Sequence[float], given: LabelMap | None = None) -> Attack:
        """The attack in a threat, on a grid of this spacing (mm), for a case with this given map."""
        return dag(
            threat,
            self._aim.relabel(spacing, given),
            self.steps,
            active=self.active,
            tolerance=self.tolerance,
            let_vanish=self.let_vanish,
            labels=self.labels,
            strong=self.strong,
        )


class Mifgsm(Untargeted):
    """Many steps along a momentum."""

    preset: Literal["mifgsm"]
    steps: int = Field(10, ge=1)
    decay: float = Field(1.0, ge=0)

    @property
    def title(self) -> str:
        """For people."""
        return f"MI-FGSM, {self.steps} steps{self.told}"

    def steps_at(self, budget: Budget) -> int:  # noqa: ARG002
        """Those that it names."""
        return self.steps

    def attack(self, threat: Limits, spacing: Sequence[float], given: LabelMap | None = None) -> Attack:  # noqa: ARG002
        """The attack in a threat."""
        return mifgsm(threat, self.steps, self.decay, self.ascended, labels=self.labels, region=self.region)


class Pgd(Stepwise, Untargeted):
    """Many steps from a random start, the best iterate kept."""

    preset: Literal["pgd"]
    steps: int | Literal["kurakin"] = 20

    @property
    def title(self) -> str:
        """For people."""
        return f"PGD, {self.counted}{self.told}"

    def attack(self, threat: Limits, spacing: Sequence[float], given: LabelMap | None = None) -> Attack:  # noqa: ARG002
        """The attack in a threat."""
        steps, size = self.sized(threat)
        return pgd(threat, steps, self.ascended, size, labels=self.labels, region=self.region)


AttackSpec = Annotated[
    Fgsm | Ifgsm | FgsmLl | IfgsmLl | Tifgsm | Dag | Mifgsm | Pgd, Field(discriminator="preset")
]
