"""The attacks that a study can name, and their settings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from medadv.attack.loop import Attack
from medadv.attack.losses import LOSSES
from medadv.attack.objective import Relabel, Turn, erase
from medadv.attack.presets import fgsm, ifgsm, mifgsm, pgd, tifgsm
from medadv.attack.threat import Threat
from medadv.study.specified import Specified, readable_budgets


class Erase(Specified):
    """Make a region vanish where it truly is."""

    erase: str

    @property
    def labels(self) -> tuple[str, ...]:
        """The regions and tissues that it names."""
        return (self.erase,)

    def relabel(self) -> Relabel:
        """As the objective understands it."""
        return erase(self.erase)

    def __str__(self) -> str:
        return f"erase {self.erase}"


class TurnInto(Specified):
    """Turn a region into another tissue where it truly is."""

    turn: str
    into: str

    @property
    def labels(self) -> tuple[str, ...]:
        """The regions and tissues that it names."""
        return (self.turn, self.into)

    def relabel(self) -> Relabel:
        """As the objective understands it."""
        return Turn(self.turn, self.into)

    def __str__(self) -> str:
        return f"turn {self.turn} into {self.into}"


class _AttackSpec(Specified):
    loss: str = "cross entropy"
    budgets: tuple[str, ...] | None = Field(None, min_length=1, description="instead of the study's")

    @property
    def labels(self) -> tuple[str, ...]:
        """The regions and tissues that it names."""
        return ()

    @field_validator("loss")
    @classmethod
    def _known_loss(cls, loss: str) -> str:
        if loss not in LOSSES:
            raise ValueError(f"there is no loss {loss!r}; there are {sorted(LOSSES)}")
        return loss

    @field_validator("budgets")
    @classmethod
    def _readable(cls, budgets: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if budgets is None else readable_budgets(budgets)


class Fgsm(_AttackSpec):
    """One step of the whole budget."""

    preset: Literal["fgsm"]

    @property
    def title(self) -> str:
        """For people."""
        return "FGSM"

    def attack(self, threat: Threat) -> Attack:
        """The attack in a threat."""
        return fgsm(threat, LOSSES[self.loss])


class _Iterated(_AttackSpec):
    steps: int = Field(10, ge=1)


class Ifgsm(_Iterated):
    """Many projected steps."""

    preset: Literal["ifgsm"]
    size: float | None = Field(None, gt=0, description="a step as a share of the budget; 2.5 / steps if left out")

    @property
    def title(self) -> str:
        """For people."""
        return f"i-FGSM, {self.steps} steps"

    def attack(self, threat: Threat) -> Attack:
        """The attack in a threat."""
        return ifgsm(threat, self.steps, LOSSES[self.loss], self.size)


class Tifgsm(_Iterated):
    """Many projected steps towards other labels."""

    preset: Literal["tifgsm"]
    goal: Erase | TurnInto
    size: float | None = Field(None, gt=0, description="a step as a share of the budget; 2.5 / steps if left out")

    @property
    def title(self) -> str:
        """For people."""
        return f"ti-FGSM, {self.goal}, {self.steps} steps"

    @property
    def labels(self) -> tuple[str, ...]:
        """The regions and tissues that it names."""
        return self.goal.labels

    def attack(self, threat: Threat) -> Attack:
        """The attack in a threat."""
        return tifgsm(threat, self.goal.relabel(), self.steps, LOSSES[self.loss], self.size)


class Mifgsm(_Iterated):
    """Many steps along a momentum."""

    preset: Literal["mifgsm"]
    decay: float = Field(1.0, ge=0)

    @property
    def title(self) -> str:
        """For people."""
        return f"MI-FGSM, {self.steps} steps"

    def attack(self, threat: Threat) -> Attack:
        """The attack in a threat."""
        return mifgsm(threat, self.steps, self.decay, LOSSES[self.loss])


class Pgd(_Iterated):
    """Many steps from a random start, the best iterate kept."""

    preset: Literal["pgd"]
    steps: int = Field(20, ge=1)
    size: float | None = Field(None, gt=0, description="a step as a share of the budget; 2.5 / steps if left out")

    @property
    def title(self) -> str:
        """For people."""
        return f"PGD, {self.steps} steps"

    def attack(self, threat: Threat) -> Attack:
        """The attack in a threat."""
        return pgd(threat, self.steps, LOSSES[self.loss], self.size)


AttackSpec = Annotated[Fgsm | Ifgsm | Tifgsm | Mifgsm | Pgd, Field(discriminator="preset")]
