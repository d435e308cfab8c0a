"""``Study``: the strict specification of an experiment, as a user writes it in YAML.

A key that is not known is an error that lists the right ones. Nothing here is an import string: configurations are
data.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from medadv.attack.budget import Budget
from medadv.attack.loop import Attack
from medadv.attack.losses import LOSSES
from medadv.attack.objective import Relabel, Turn, erase
from medadv.attack.presets import fgsm, ifgsm, mifgsm, pgd, tifgsm
from medadv.attack.threat import Threat
from medadv.defense.training import Schedule
from medadv.errors import BudgetError
from medadv.victims.networks import Architecture
from medadv.victims.normalize import Unchanged, ZScore
from medadv.victims.window import SlidingWindow, WholeVolume

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Names become folders and table cells: letters, digits, dot, dash, underscore."""


class Specified(BaseModel):
    """What a user writes: every key known, nothing changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PhantomData(Specified):
    """Generated four-modality MR with gliomas."""

    importer: Literal["phantom"] = "phantom"
    root: str | None = Field(None, description="where to write it; beside the run if left out")
    cases: int = Field(24, ge=1)
    shape: tuple[int, int, int] = (48, 48, 48)


class BratsData(Specified):
    """A BraTS folder, its release declared."""

    importer: Literal["brats"]
    root: str
    release: Literal["2018", "2019", "2020", "2021", "2023", "2024"]


class MsdData(Specified):
    """A task of the Medical Segmentation Decathlon: a folder with a dataset.json."""

    importer: Literal["msd"]
    root: str


Data = Annotated[PhantomData | BratsData | MsdData, Field(discriminator="importer")]


class Split(Specified):
    """Which patients train, choose the checkpoint, and are attacked.

    Patients are put in the order of a seeded hash of their ids, so that one case more or less moves no other. ``train``
    and ``validate`` are numbers of patients (of cases where patients are unknown) from the front of that order;
    ``test`` is a number of those that follow, or ``rest``. Lists of case ids instead name them.
    """

    train: int | tuple[str, ...] = 0
    validate_: int | tuple[str, ...] = Field(0, alias="validate")
    test: int | Literal["rest"] | tuple[str, ...] = "rest"


class Training(Specified):
    """How a victim's network is trained before it is attacked."""

    steps: int = Field(250, ge=1)
    batch: int = Field(2, ge=1)
    rate: float = Field(2e-3, gt=0)
    roi: tuple[int, ...] = (32, 32, 32)
    flips: tuple[int, ...] = (0,)
    validate_every: int = Field(50, ge=1)

    def schedule(self, seed: int) -> Schedule:
        """As the training loop understands it."""
        return Schedule(steps=self.steps, rate=self.rate, validate_every=self.validate_every, seed=seed)


class VictimSpec(Specified):
    """A network, how it is deployed, and where its weights come from."""

    weights: str | None = Field(None, description="a folder written by medadv; else the victim is trained")
    network: Architecture = Architecture()
    head: Literal["softmax", "sigmoid"] = "softmax"
    regions: tuple[str, ...] | None = Field(None, description="channels of a sigmoid head; all regions if left out")
    normalise: Annotated[ZScore | Unchanged, Field(discriminator="name")] = ZScore()
    inference: Annotated[WholeVolume | SlidingWindow, Field(discriminator="name")] = SlidingWindow((32, 32, 32))
    training: Training = Training()


class Erase(Specified):
    """Make a region vanish where it truly is."""

    erase: str

    def relabel(self) -> Relabel:
        """As the objective understands it."""
        return erase(self.erase)

    def __str__(self) -> str:
        return f"erase {self.erase}"


class TurnInto(Specified):
    """Turn a region into another tissue where it truly is."""

    turn: str
    into: str

    def relabel(self) -> Relabel:
        """As the objective understands it."""
        return Turn(self.turn, self.into)

    def __str__(self) -> str:
        return f"turn {self.turn} into {self.into}"


class _AttackSpec(Specified):
    loss: str = "cross entropy"
    budgets: tuple[str, ...] | None = Field(None, description="instead of the study's")

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


class Primary(Specified):
    """The family of comparisons that the study is about, declared before any score exists.

    Each named attack (all if left out) at each of its budgets (all if left out) is compared with clean, on one region.
    """

    region: str
    metric: Literal["dice", "hd95"] = "dice"
    attacks: tuple[str, ...] | None = None
    budgets: tuple[str, ...] | None = None

    @field_validator("budgets")
    @classmethod
    def _readable(cls, budgets: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if budgets is None else readable_budgets(budgets)


class Volumes(Specified):
    """Which adversarial files stay when a case is done: the ``worst`` few a condition, ``all`` or ``none``."""

    keep: Literal["worst", "all", "none"] = "worst"
    count: int = Field(1, ge=1)


class Study(Specified):
    """Everything that an experiment is."""

    study: str = Field(description="the name; results lie in runs/<name>")
    question: str | None = Field(None, description="what is asked, for the report")
    seed: int = 0
    ids: Literal["pseudonyms", "as-is"] = Field("pseudonyms", description="as-is for public data only")
    data: Data
    split: Split = Split()
    victims: dict[str, VictimSpec] = Field(min_length=1)
    budgets: tuple[str, ...] = ("0.05 sigma", "0.1 sigma", "0.2 sigma")
    attacks: dict[str, AttackSpec] = Field(min_length=1)
    controls: tuple[Literal["identity", "noise", "permuted"], ...] = ("identity", "noise", "permuted")
    primary: Primary
    regions: tuple[str, ...] | None = Field(None, description="what is scored; all regions and tissues if left out")
    legal: Literal["clean"] | tuple[float, float] | None = Field(
        "clean", description="each modality's clean minimum to maximum, a pair in stored units, or null for no range"
    )
    volumes: Volumes = Volumes()

    @field_validator("budgets")
    @classmethod
    def _readable(cls, budgets: tuple[str, ...]) -> tuple[str, ...]:
        return readable_budgets(budgets)

    @model_validator(mode="after")
    def _names(self) -> Study:
        for kind, names in (("study", [self.study]), ("victim", list(self.victims)), ("attack", list(self.attacks))):
            for name in names:
                if not NAME.fullmatch(name) or name in {"clean", "identity", "noise", "permuted"}:
                    raise ValueError(
                        f"{name!r} cannot be the name of a {kind}: at most 64 letters, digits, dots, dashes and "
                        "underscores, and none of clean, identity, noise, permuted"
                    )
        for name in self.primary.attacks or ():
            if name not in self.attacks:
                raise ValueError(f"primary.attacks names {name!r}; the study's attacks are {list(self.attacks)}")
        for budget in self.primary.budgets or ():
            if all(budget not in self.budgets_of(name) for name in self.primary.attacks or self.attacks):
                raise ValueError(f"primary.budgets names {budget!r}, at which no attack of the family is run")
        return self

    def budgets_of(self, attack: str) -> tuple[str, ...]:
        """The budgets at which an attack is run."""
        return self.attacks[attack].budgets or self.budgets


def readable_budgets(budgets: Sequence[str]) -> tuple[str, ...]:
    """Budgets in one spelling, so that "0.1sigma" and "0.1 sigma" are the same condition."""
    try:
        spelled = tuple(str(Budget.parse(budget)) for budget in budgets)
    except BudgetError as error:
        raise ValueError(str(error)) from error
    if len(set(spelled)) < len(spelled):
        raise ValueError(f"a budget is given twice: {list(spelled)}")
    return spelled


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a study, for editors."""
    return Study.model_json_schema()
