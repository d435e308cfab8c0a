"""The attacks that a study can name, and their settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, field_validator

from medadv.attack.loop import Attack
from medadv.attack.losses import LOSSES, Loss, Tempered
from medadv.attack.objective import Labels
from medadv.attack.presets import fgsm, ifgsm, mifgsm, pgd, tifgsm
from medadv.attack.threat import Threat
from medadv.study.goals import Goal, LabelMap
from medadv.study.specified import Specified, distinct, readable_budgets

_ELSEWHERE = ("budgets", "modalities")
"""Settings of an attack that are told with its threat."""


def _known(loss: str) -> str:
    if loss not in LOSSES:
        raise ValueError(f"there is no loss {loss!r}; there are {sorted(LOSSES)}")
    return loss


LossName = Annotated[str, AfterValidator(_known)]


class TemperedLoss(Specified):
    """A loss at logits / T: what it sees of a network whose logits are too large for float32."""

    of: LossName = "cross entropy"
    temperature: float = Field(gt=0, allow_inf_nan=False)


class _AttackSpec(Specified):
    targeted: ClassVar[bool] = False

    loss: LossName | TemperedLoss = Field("cross entropy", description="by its name, or {of: NAME, temperature: T}")
    budgets: tuple[str, ...] | None = Field(None, min_length=1, description="instead of the study's")
    modalities: tuple[str, ...] | None = Field(
        None, min_length=1, description="the only ones that change; the study's if left out"
    )
    labels: Labels = Field("truth", description="the expert's, or the victim's own clean prediction")

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
    def draws(self) -> str | None:
        """The folder of the maps that it wants drawn, if it is given maps."""
        return None

    @property
    def told(self) -> str:
        """What a title says beside the attack's own name, each part after a comma."""
        tempered = f", logits / {self.loss.temperature:g}" if isinstance(self.loss, TemperedLoss) else ""
        return tempered + (", from its own prediction" if self.labels == "prediction" else "")

    @property
    def ascended(self) -> Loss:
        """The loss as the attack understands it."""
        if isinstance(self.loss, TemperedLoss):
            return Tempered(self.loss.of, self.loss.temperature)
        return LOSSES[self.loss]

    def settings(self) -> dict[str, Any]:
        """Everything that could change its numbers but the threat, as JSON.

        Settings that came later are left out where they have their default: older records keep their keys.
        """
        later = {"labels": "truth", "region": None}
        every = self.model_dump(mode="json", exclude=set(_ELSEWHERE))
        return {key: value for key, value in every.items() if key not in later or value != later[key]}

    @field_validator("budgets")
    @classmethod
    def _readable(cls, budgets: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if budgets is None else readable_budgets(budgets)

    @field_validator("modalities")
    @classmethod
    def _distinct(cls, modalities: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if modalities is None else distinct(modalities)


class _Untargeted(_AttackSpec):
    region: str | None = Field(None, description="attack it alone: its inside against its outside")

    @property
    def names(self) -> tuple[str, ...]:
        """The region that it attacks."""
        return () if self.region is None else (self.region,)

    @property
    def told(self) -> str:
        """The region, and whose labels."""
        return (f", {self.region} alone" if self.region else "") + super().told


class Fgsm(_Untargeted):
    """One step of the whole budget."""

    preset: Literal["fgsm"]
    steps: ClassVar[int] = 1

    @property
    def title(self) -> str:
        """For people."""
        return f"FGSM{self.told}"

    def attack(self, threat: Threat, spacing: Sequence[float], given: LabelMap | None = None) -> Attack:  # noqa: ARG002
        """The attack in a threat, on a grid of this spacing (mm)."""
        return fgsm(threat, self.ascended, labels=self.labels, region=self.region)


class Ifgsm(_Untargeted):
    """Many projected steps."""

    preset: Literal["ifgsm"]
    steps: int = Field(10, ge=1)
    size: float | None = Field(None, gt=0, description="a step as a share of the budget; 2.5 / steps if left out")

    @property
    def title(self) -> str:
        """For people."""
        return f"i-FGSM, {self.steps} steps{self.told}"

    def attack(self, threat: Threat, spacing: Sequence[float], given: LabelMap | None = None) -> Attack:  # noqa: ARG002
        """The attack in a threat, on a grid of this spacing (mm)."""
        return ifgsm(threat, self.steps, self.ascended, self.size, labels=self.labels, region=self.region)


class Tifgsm(_AttackSpec):
    """Many projected steps towards other labels."""

    targeted: ClassVar[bool] = True

    preset: Literal["tifgsm"]
    steps: int = Field(10, ge=1)
    goal: Goal
    size: float | None = Field(None, gt=0, description="a step as a share of the budget; 2.5 / steps if left out")

    @property
    def title(self) -> str:
        """For people."""
        return f"ti-FGSM, {self.goal}, {self.steps} steps{self.told}"

    @property
    def names(self) -> tuple[str, ...]:
        """The regions and tissues that its goal names."""
        return self.goal.names

    @property
    def tissues(self) -> tuple[str, ...]:
        """What its goal names that must be tissues."""
        return self.goal.tissues

    @property
    def axes(self) -> int | None:
        """Those of its goal."""
        return self.goal.axes

    @property
    def draws(self) -> str | None:
        """The folder of its goal's maps."""
        return self.goal.draws

    def settings(self) -> dict[str, Any]:
        """Its goal's among them."""
        return {**super().settings(), "goal": self.goal.settings()}

    def attack(self, threat: Threat, spacing: Sequence[float], given: LabelMap | None = None) -> Attack:
        """The attack in a threat, on a grid of this spacing (mm), for a case with this given map."""
        relabel, loss = self.goal.relabel(spacing, given), self.ascended
        return tifgsm(threat, relabel, self.steps, loss, self.size, labels=self.labels, follow=self.goal.follow)


class Mifgsm(_Untargeted):
    """Many steps along a momentum."""

    preset: Literal["mifgsm"]
    steps: int = Field(10, ge=1)
    decay: float = Field(1.0, ge=0)

    @property
    def title(self) -> str:
        """For people."""
        return f"MI-FGSM, {self.steps} steps{self.told}"

    def attack(self, threat: Threat, spacing: Sequence[float], given: LabelMap | None = None) -> Attack:  # noqa: ARG002
        """The attack in a threat, on a grid of this spacing (mm)."""
        return mifgsm(threat, self.steps, self.decay, self.ascended, labels=self.labels, region=self.region)


class Pgd(_Untargeted):
    """Many steps from a random start, the best iterate kept."""

    preset: Literal["pgd"]
    steps: int = Field(20, ge=1)
    size: float | None = Field(None, gt=0, description="a step as a share of the budget; 2.5 / steps if left out")

    @property
    def title(self) -> str:
        """For people."""
        return f"PGD, {self.steps} steps{self.told}"

    def attack(self, threat: Threat, spacing: Sequence[float], given: LabelMap | None = None) -> Attack:  # noqa: ARG002
        """The attack in a threat, on a grid of this spacing (mm)."""
        return pgd(threat, self.steps, self.ascended, self.size, labels=self.labels, region=self.region)


AttackSpec = Annotated[Fgsm | Ifgsm | Tifgsm | Mifgsm | Pgd, Field(discriminator="preset")]
