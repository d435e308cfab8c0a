"""The defences that a study can name: how a victim differs from the undefended one that it is held against."""

from __future__ import annotations

from collections.abc import Sequence
from math import isclose
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from medadv.attack.budget import Budget
from medadv.defense.inner import check_measured
from medadv.errors import ConfigError
from medadv.study.attacks import AttackSpec, Fgsm, Ifgsm
from medadv.study.specified import Specified, readable_budgets
from medadv.victims.defended import Protection

Temperature = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Teacher(Specified):
    """A network trained on the labels at a temperature, whose soft labels a student learns."""

    name: Literal["teacher"]
    at: Temperature

    @property
    def temperature(self) -> float:
        """As asked."""
        return self.at


class Distillation(Specified):
    """A student that learns a teacher's soft voxel labels, both at one temperature; deployed at temperature 1.

    (Papernot et al. 2016, arXiv:1511.04508.)
    """

    name: Literal["distillation"]
    at: Temperature | Annotated[tuple[Temperature, ...], Field(min_length=1)] = Field(
        description="the temperature; several make a victim each, called <name>-T<temperature>"
    )
    teacher: str | None = Field(None, description="the victim that teaches; one is trained for it if left out")
    labels: Literal["on line", "cached"] = Field(
        "on line", description="the teacher is asked crop by crop, or once a case through its windows"
    )

    @field_validator("at", mode="before")
    @classmethod
    def _warm(cls, at: object) -> object:
        """One sentence in the place of what each form of the setting has to say."""
        each = at if isinstance(at, list | tuple) else [at]
        if any(isinstance(one, int | float) and not one > 0 for one in each):
            raise ValueError("a temperature is greater than 0: 1 is plain training, and 10 is usual")
        return at

    @field_validator("at")
    @classmethod
    def _once(cls, at: float | tuple[float, ...]) -> float | tuple[float, ...]:
        if isinstance(at, tuple) and len(set(at)) < len(at):
            raise ValueError(f"a temperature is given twice: {list(at)}")
        return at

    @model_validator(mode="after")
    def _one_teacher(self) -> Distillation:
        if self.teacher is not None and isinstance(self.at, tuple):
            raise ValueError("a teacher has one temperature: give one, or let a teacher be trained for each")
        return self

    @property
    def temperature(self) -> float:
        """As asked; of a list, which is none yet, the highest."""
        return max(self.at) if isinstance(self.at, tuple) else self.at


class Hardening(Specified):
    """What all trainings on attacked inputs say."""

    budgets: tuple[str, ...] = Field(min_length=1, description="one, or the lowest and the highest of a range")
    validation_steps: int = Field(
        5, ge=1, description="of the i-FGSM at the highest budget, under which the checkpoint is chosen"
    )

    @field_validator("budgets")
    @classmethod
    def _readable(cls, budgets: tuple[str, ...]) -> tuple[str, ...]:
        budgets = readable_budgets(budgets)
        parsed = [Budget.parse(budget) for budget in budgets]
        if len({budget.unit for budget in parsed}) > 1:
            raise ValueError(f"the budgets of a training have one unit: {list(budgets)}")
        if not all(any(budget.amounts) for budget in parsed):
            raise ValueError(f"a training attacks with more than nothing; leave out the budget of 0: {list(budgets)}")
        if not all(_proportional(parsed[0].amounts, budget.amounts) for budget in parsed):
            raise ValueError(
                f"one budget of a training is the other, so many times, in every modality: {list(budgets)}; give both "
                "one amount, or all amounts in one ratio, as in 0.05/0.1 sigma and 0.1/0.2 sigma"
            )
        return budgets

    @property
    def highest(self) -> Budget:
        """The largest of its budgets: of proportional ones it is so in every modality."""
        return max((Budget.parse(budget) for budget in self.budgets), key=lambda budget: max(budget.amounts))


class Augmentation(Hardening):
    """A training set enlarged, once, by attacked copies of its cases, found for the undefended victim (Liu et al.)."""

    name: Literal["augmentation"]
    attacks: dict[str, AttackSpec] = Field({"fgsm": Fgsm(preset="fgsm"), "ifgsm": Ifgsm(preset="ifgsm")}, min_length=1)
    share: float = Field(0.5, gt=0, le=1, description="of the crops that show an attacked copy")

    @field_validator("attacks")
    @classmethod
    def _without_maps(cls, attacks: dict[str, AttackSpec]) -> dict[str, AttackSpec]:
        if drawing := [name for name, spec in attacks.items() if spec.maps is not None]:
            raise ValueError(f"training cases have no maps to be drawn; {drawing} would need them")
        if own := [name for name, spec in attacks.items() if spec.budgets is not None]:
            raise ValueError(f"the budgets of an augmentation are those of the defence, not of its attacks {own}")
        if chosen := [name for name, spec in attacks.items() if spec.victims or spec.together]:
            raise ValueError(f"an augmentation attacks the undefended victim alone, and {chosen} name others")
        return attacks


class OnLine(Hardening):
    """What all trainings say that attack the network as it is now, each batch anew."""

    steps: int = Field(5, ge=1, description="of the inner attack; 1 is FGSM")
    size: float | None = Field(None, gt=0, description="a step as a share of the budget; 2.5 / steps if left out")

    @field_validator("budgets")
    @classmethod
    def _a_range(cls, budgets: tuple[str, ...]) -> tuple[str, ...]:
        if len(budgets) > 2:
            raise ValueError("one budget, or the lowest and the highest of a range")
        try:
            for budget in budgets:
                check_measured(Budget.parse(budget))
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return budgets

    @property
    def lowest(self) -> float:
        """The smallest of its budgets as a share of the largest."""
        return min(max(Budget.parse(budget).amounts) for budget in self.budgets) / max(self.highest.amounts)


class AdversarialTraining(OnLine):
    """Training on inputs attacked while it learns: FGSM, or PGD of k steps (Madry et al. 2018, arXiv:1706.06083)."""

    name: Literal["adversarial training"]
    start: Literal["clean", "random"] | None = Field(
        None, description="where the inner attack begins; left out, FGSM at the clean crop, more steps at random"
    )
    share: float = Field(1.0, gt=0, le=1, description="of the crops that are attacked; the others stay clean")

    @property
    def begins(self) -> Literal["clean", "random"]:
        """As asked, or as FGSM (Goodfellow et al. 2015, arXiv:1412.6572) and PGD (Madry et al.) have it."""
        return self.start or ("clean" if self.steps == 1 else "random")


class Trades(OnLine):
    """Clean loss, and the divergence of attacked answers from clean ones (Zhang et al. 2019, arXiv:1901.08573)."""

    name: Literal["trades"]
    beta: float = Field(6.0, ge=0, description="the weight of the divergence")


class Elsewhere(Specified):
    """A defence that medadv did not make: the victim's own weights hold it."""

    name: Literal["elsewhere"]
    at: Temperature = Field(1.0, description="the temperature of a distillation")

    @property
    def temperature(self) -> float:
        """As told."""
        return self.at


Trained = Teacher | Distillation | Augmentation | AdversarialTraining | Trades
"""Those that the study trains; behind a protection the victim that it is like stays as it is."""

Defence = Annotated[Trained | Elsewhere | Protection, Field(discriminator="name")]


HARDENED = ("augmentation", "adversarial training", "trades")
"""The names of those that learn from attacked inputs: what they are rests on the study's threat."""


def temperature(defence: Defence | None) -> float:
    """The temperature at which a victim with this defence is trained; at test time it is 1."""
    return defence.temperature if isinstance(defence, Teacher | Distillation | Elsewhere) else 1.0


def _proportional(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether amounts are others, so many times; one alone stands for all modalities."""
    length = max(len(one), len(other))
    a, b = (tuple(amounts) * (length if len(amounts) == 1 else 1) for amounts in (one, other))
    return len(a) == len(b) and all(isclose(x * max(b), y * max(a), rel_tol=1e-9) for x, y in zip(a, b, strict=True))
