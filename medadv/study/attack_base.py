"""What the attacks that a study can name have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from medadv.attack.budget import Budget
from medadv.attack.loop import Attack
from medadv.attack.losses import LOSSES, Loss, Tempered
from medadv.attack.objective import Labels
from medadv.attack.presets import kurakin
from medadv.attack.threat import Legal, Linf
from medadv.attack.unbounded import Unbounded
from medadv.study.goal_base import LabelMap
from medadv.study.specified import Specified, distinct, readable_budgets

Limits = Linf | Unbounded
"""What a study lets attacks change."""

_ELSEWHERE = ("budgets", "modalities", "victims", "joint")
"""Settings of an attack that are told with its threat, or with its victims."""

_LATER: dict[str, Any] = {"labels": "truth", "region": None, "draws": 1, "strong": None}
"""Settings that came later, and what they are if left out."""


def _known(loss: str) -> str:
    if loss not in LOSSES:
        raise ValueError(f"there is no loss {loss!r}; there are {sorted(LOSSES)}")
    return loss


LossName = Annotated[str, AfterValidator(_known)]


class TemperedLoss(Specified):
    """A loss at logits / T: what it sees of a network whose logits are too large for float32."""

    of: LossName = "cross entropy"
    temperature: float = Field(gt=0, allow_inf_nan=False)


class AttackSettings(Specified):
    """An attack by its preset, and for whom it is."""

    targeted: ClassVar[bool] = False
    bounded: ClassVar[bool] = True

    budgets: tuple[str, ...] | None = Field(None, min_length=1, description="instead of the study's")
    modalities: tuple[str, ...] | None = Field(
        None, min_length=1, description="the only ones that change; the study's if left out"
    )
    labels: Labels = Field("truth", description="the expert's, or the victim's own clean prediction")
    victims: tuple[str, ...] | None = Field(None, min_length=1, description="the only ones that meet it; else all")
    draws: int = Field(1, ge=1, description="of a random victim, over which the loss is averaged at each step")

    @property
    def names(self) -> tuple[str, ...]:
        """The regions and tissues that it names."""
        return ()

    @property
    def tissues(self) -> tuple[str, ...]:
        """What it names that must be tissues."""
        return ()

    @property
    def axes(self) -> int | None:
        """The number of axes that it names an amount for, each; None where it names none."""
        return None

    @property
    def maps(self) -> str | None:
        """The folder of the maps that it wants drawn, if it is given maps."""
        return None

    @property
    def together(self) -> tuple[str, ...]:
        """The victims that it attacks together, if several."""
        return ()

    @property
    def gradients(self) -> int:
        """How many gradients of a network one step takes."""
        return self.draws * max(1, len(self.together))

    @property
    def told(self) -> str:
        """What a title says beside the attack's own name, each part after a comma."""
        parts = [
            "from its own prediction" if self.labels == "prediction" else "",
            f"mean of {self.draws} draws" if self.draws > 1 else "",
            f"on {' and '.join(self.together)} together" if self.together else "",
        ]
        return "".join(f", {part}" for part in parts if part)

    def threat(self, budget: Budget, legal: Legal, span: tuple[float, float] | None) -> Limits:
        """What it may change at a budget."""
        return Linf(budget, legal, span)

    def steps_at(self, budget: Budget) -> int:
        """How many steps it takes at most.

        Raises:
            BudgetError: a schedule that has none for such a budget.
        """
        raise NotImplementedError

    def attack(self, threat: Limits, spacing: Sequence[float], given: LabelMap | None = None) -> Attack:
        """The attack in a threat, on a grid of this spacing (mm), for a case with this given map."""
        raise NotImplementedError

    def for_victim(self, victim: str) -> Self:  # noqa: ARG002
        """What it wants of one of those that it attacks together."""
        return self

    def settings(self) -> dict[str, Any]:
        """Everything that could change its numbers but its threat and its victims, as JSON.

        Settings that came later are left out where they have their default: older records keep their keys.
        """
        every = self.model_dump(mode="json", exclude=set(_ELSEWHERE))
        told = {key: value for key, value in every.items() if key not in _LATER or value != _LATER[key]}
        return {**told, **({"joint": len(self.together)} if self.together else {})}

    @field_validator("budgets")
    @classmethod
    def _readable(cls, budgets: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if budgets is None else readable_budgets(budgets)

    @field_validator("modalities")
    @classmethod
    def _distinct(cls, modalities: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if modalities is None else distinct(modalities)

    @model_validator(mode="after")
    def _of_whom(self) -> Self:
        for names in (self.victims or (), self.together):
            if len(set(names)) < len(names):
                raise ValueError(f"a victim is given twice: {list(names)}")
        if self.victims and self.together:
            raise ValueError("an attack on several victims together is met by them: leave out victims")
        return self


class OnLoss(AttackSettings):
    """An attack that follows the gradient of a loss."""

    loss: LossName | TemperedLoss = Field("cross entropy", description="by its name, or {of: NAME, temperature: T}")

    @property
    def told(self) -> str:
        """The temperature, too."""
        return (f", logits / {self.loss.temperature:g}" if isinstance(self.loss, TemperedLoss) else "") + super().told

    @property
    def ascended(self) -> Loss:
        """The loss as the attack understands it."""
        if isinstance(self.loss, TemperedLoss):
            return Tempered(self.loss.of, self.loss.temperature)
        return LOSSES[self.loss]


class Alike(AttackSettings):
    """An attack that wants the same of all victims that it attacks together."""

    joint: tuple[str, ...] | None = Field(
        None, min_length=2, description="victims that it attacks together, by one perturbation"
    )

    @property
    def together(self) -> tuple[str, ...]:
        """Those victims."""
        return self.joint or ()


class Stepwise(AttackSettings):
    """An attack of many projected steps, by number and size, or by a published schedule."""

    steps: int | Literal["kurakin"] = Field(
        10, description="or kurakin: for a budget of ε grey levels min(ε + 4, 1.25 ε) of them, of one grey level each"
    )
    size: float | None = Field(None, gt=0, description="a step as a share of the budget; 2.5 / steps if left out")

    @field_validator("steps")
    @classmethod
    def _some(cls, steps: int | str) -> int | str:
        if isinstance(steps, int) and steps < 1:
            raise ValueError("an attack takes at least one step")
        return steps

    @model_validator(mode="after")
    def _one_schedule(self) -> Self:
        if self.steps == "kurakin" and self.size is not None:
            raise ValueError("a step of Kurakin's schedule is one grey level: leave out size")
        return self

    @property
    def counted(self) -> str:
        """For people: how many steps."""
        return "Kurakin's steps" if self.steps == "kurakin" else f"{self.steps} steps"

    def steps_at(self, budget: Budget) -> int:
        """The number that it names, or that of the schedule."""
        return kurakin(budget)[0] if self.steps == "kurakin" else self.steps

    def sized(self, threat: Limits) -> tuple[int, float | None]:
        """Number and size of its steps in a threat."""
        if self.steps == "kurakin":
            return kurakin(threat.budget)
        return self.steps, self.size


class Untargeted(Alike, OnLoss):
    """An attack away from the labels."""

    region: str | None = Field(None, description="attack it alone: its inside against its outside")

    @property
    def names(self) -> tuple[str, ...]:
        """The region that it attacks."""
        return () if self.region is None else (self.region,)

    @property
    def told(self) -> str:
        """The region, and whose labels."""
        return (f", {self.region} alone" if self.region else "") + super().told
