"""``Study``: the strict specification of an experiment, as a user writes it in YAML.

A key that is not known is an error that lists the right ones. Nothing here is an import string: configurations are
data.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from medadv.attack.budget import Budget
from medadv.data.support import Support
from medadv.defense.schedule import Schedule
from medadv.errors import BudgetError, ConfigError
from medadv.labels import LabelScheme
from medadv.study.attacks import AttackSpec
from medadv.study.reach import Reach
from medadv.study.sources import Data
from medadv.study.specified import Specified, distinct, readable_budgets
from medadv.victims.declared import INFERENCE, NETWORK, NORMALISE
from medadv.victims.networks import Architecture
from medadv.victims.normalize import Normalisation
from medadv.victims.spatial import Spatial
from medadv.victims.window import SlidingWindow, WholeVolume

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Names become folders and table cells: letters, digits, dot, dash, underscore."""

RESERVED = ("clean", "identity", "noise", "permuted")
"""What conditions are called that are no attacks."""

AXES = 3
"""Of the images that pass the gate."""


Number = Annotated[int, Field(ge=0)]


class Split(Specified):
    """Which patients train, choose the checkpoint, and are attacked.

    Patients are put in the order of a seeded hash of their ids, so that one case more or less changes no order.
    ``train`` and ``validate`` are numbers of patients (of cases where patients are unknown) from the front of that
    order; ``test`` is a number of those that follow, or ``rest``. Lists of case ids instead name them.

    With ``folds`` every case is tested, by the victim of a cross-validation that has not seen it: folds of whole
    patients are made (a number), or are those that the ``data`` set declares; ``validate`` patients of each fold's
    training cases choose the checkpoint.
    """

    train: Number | tuple[str, ...] = 0
    validate_: Number | tuple[str, ...] = Field(0, alias="validate")
    test: Number | Literal["rest"] | tuple[str, ...] = "rest"
    folds: Annotated[int, Field(ge=2)] | Literal["data"] | None = None

    @model_validator(mode="after")
    def _folds_alone(self) -> Split:
        if self.folds is not None and (self.train != 0 or self.test != "rest" or isinstance(self.validate_, tuple)):
            raise ValueError("folds divide all cases: give folds and a number of patients to validate, and no more")
        return self


class Training(Specified):
    """How a victim's network is trained before it is attacked."""

    steps: int = Field(250, ge=1)
    batch: int = Field(2, ge=1)
    rate: float = Field(2e-3, gt=0)
    roi: tuple[int, ...] = (32, 32, 32)
    flips: tuple[int, ...] = (0,)
    validate_every: int = Field(50, ge=1)
    precision: Literal["float32", "bf16"] = Field(
        "float32", description="of the network in training; validation and attacks are float32"
    )
    accumulate: int = Field(1, ge=1, description="batches whose gradients are averaged for one step")

    @model_validator(mode="after")
    def _axes(self) -> Training:
        if min(self.roi, default=0) < 1 or not set(self.flips) <= set(range(len(self.roi))):
            raise ValueError("roi has a size of at least 1 for each axis, and flips name axes of it, from 0")
        return self

    def schedule(self, seed: int) -> Schedule:
        """As the training loop understands it."""
        same = ("steps", "rate", "validate_every", "precision", "accumulate")
        return Schedule(**{name: getattr(self, name) for name in same}, seed=seed)


class VictimSpec(Specified):
    """A network, how it is deployed, and where its weights come from."""

    weights: str | tuple[str, ...] | None = Field(
        None,
        description="a medadv victim, MONAI bundle, nnU-Net folder, exported program or state dict; several for their "
        "mean; {fold} stands for the fold of a cross-validation; left out: the victim is trained",
    )
    modalities: tuple[str, ...] | None = Field(
        None, min_length=1, description="its input channels in the data's words, in order; the data's own if left out"
    )
    names: dict[str, str] = Field({}, description="the model's words for modalities, tissues, regions: the data's")
    folds: tuple[int, ...] | None = Field(None, min_length=1, description="members of an nnU-Net ensemble; else all")
    mirror: tuple[int, ...] = Field((), description="axes along which images are mirrored at test time, from 0")
    network: Architecture = NETWORK
    head: Literal["softmax", "sigmoid"] = "softmax"
    regions: tuple[str, ...] | None = Field(
        None, min_length=1, description="channels of a sigmoid head; all regions if left out"
    )
    spatial: tuple[Annotated[Spatial, Field(discriminator="name")], ...] = Field(
        (), description="steps between grids before the normalisation, in order"
    )
    normalise: Annotated[Normalisation, Field(discriminator="name")] = NORMALISE
    inference: Annotated[WholeVolume | SlidingWindow, Field(discriminator="name")] = INFERENCE
    training: Training = Training()

    @field_validator("modalities")
    @classmethod
    def _distinct(cls, modalities: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if modalities is not None:
            distinct(modalities)
        return modalities  # in their order: it is the channels'


class Primary(Specified):
    """The family of comparisons that the study is about, declared before any score exists.

    Each named attack (all if left out) at each of its budgets (all if left out) is compared with clean, on one region:
    for each victim of the study, and for those outside whose segmentations are to come back (``medadv score``).
    """

    region: str
    metric: Literal["dice", "hd95"] = "dice"
    attacks: tuple[str, ...] | None = Field(None, min_length=1)
    budgets: tuple[str, ...] | None = Field(None, min_length=1)
    returned: tuple[str, ...] = Field((), description="victims outside, by the names they will be scored under")

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
    seed: int = Field(0, ge=0, lt=2**32)
    ids: Literal["pseudonyms", "as-is"] = Field("pseudonyms", description="as-is for public data only")
    data: Data
    split: Split = Split()
    victims: dict[str, VictimSpec] = Field(min_length=1)
    budgets: tuple[str, ...] = Field(("0.05 sigma", "0.1 sigma", "0.2 sigma"), min_length=1)
    attacks: dict[str, AttackSpec] = Field(min_length=1)
    controls: tuple[Literal["identity", "noise", "permuted"], ...] = ("identity", "noise", "permuted")
    primary: Primary
    regions: tuple[str, ...] | None = Field(
        None, min_length=1, description="what is scored; all regions and tissues if left out"
    )
    legal: Literal["clean"] | tuple[float, float] | None = Field(
        "clean", description="each modality's clean minimum to maximum, a pair in stored units, or null for no range"
    )
    support: Support = Field(
        "nonzero",
        description="where voxels may change: where the clean scan is not zero, above Otsu's threshold, inside the "
        "case's mask file, or the whole volume, which is a threat model of its own",
    )
    modalities: tuple[str, ...] | None = Field(
        None, min_length=1, description="the only ones that attacks change; all if left out"
    )
    volumes: Volumes = Volumes()

    @field_validator("budgets")
    @classmethod
    def _readable(cls, budgets: tuple[str, ...]) -> tuple[str, ...]:
        return readable_budgets(budgets)

    @field_validator("regions", "controls")
    @classmethod
    def _once(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if names is not None and len(set(names)) < len(names):
            raise ValueError(f"a name is given twice: {list(names)}")
        return names

    @field_validator("modalities")
    @classmethod
    def _distinct(cls, modalities: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if modalities is None else distinct(modalities)

    @field_validator("legal")
    @classmethod
    def _ordered(cls, legal: object) -> object:
        if isinstance(legal, tuple) and not -math.inf < legal[0] < legal[1] < math.inf:
            raise ValueError("a legal range is a lower and a higher intensity")
        return legal

    @model_validator(mode="after")
    def _names(self) -> Study:
        victims = [*self.victims, *self.primary.returned]
        if len(set(victims)) < len(victims):
            raise ValueError("primary.returned names victims outside, each once, and none of the study's own")
        for kind, names in (("study", [self.study]), ("victim", victims), ("attack", list(self.attacks))):
            for name in names:
                if not NAME.fullmatch(name) or name in RESERVED or name.startswith(("permuted-", "noise-")):
                    raise ValueError(
                        f"{name!r} cannot be the name of a {kind}: at most 64 letters, digits, dots, dashes and "
                        f"underscores, none of {', '.join(RESERVED)}, and no permuted- or noise- at its beginning"
                    )
        families = [self.family(name) for name in self.attacks]
        if twice := sorted({family for family in families if families.count(family) > 1}):
            raise ValueError(f"two attacks would be called the same in tables: {twice}")
        for name in self.primary.attacks or ():
            if name not in self.attacks:
                raise ValueError(f"primary.attacks names {name!r}; the study's attacks are {list(self.attacks)}")
        for budget in self.primary.budgets or ():
            if all(budget not in self.budgets_of(name) for name in self.primary.attacks or self.attacks):
                raise ValueError(f"primary.budgets names {budget!r}, at which no attack of the family is run")
        return self

    def check(self, modalities: Sequence[str], scheme: LabelScheme) -> None:
        """Hold against the data what only the data can tell, before anything is trained.

        Raises:
            ConfigError: a region or tissue that the labels do not have, a modality that the data does not have, a goal
                for images of another number of axes, or a primary region that is not scored.
            BudgetError: a budget for another number of modalities.
        """
        scored = self.regions or scheme.names
        for name in (*scored, self.primary.region, *(n for attack in self.attacks.values() for n in attack.names)):
            scheme.members(name)
        if strange := {t for attack in self.attacks.values() for t in attack.tissues} - set(scheme.numbers):
            raise ConfigError("only tissues are permuted", got=sorted(strange), expected=list(scheme.tissues))
        for attack, spec in self.attacks.items():
            if spec.axes not in (None, AXES):
                raise ConfigError(
                    f"the goal of the attack {attack!r} is for images of another number of axes",
                    got=f"{spec.axes} numbers",
                    expected=f"{AXES}, one for each axis of the file",
                )
            if unknown := set(self.modalities_of(attack) or ()) - set(modalities):
                raise ConfigError(
                    f"the attack {attack!r} is to change modalities that the data does not have",
                    got=sorted(unknown),
                    expected=list(modalities),
                )
        if self.primary.region not in scored:
            raise ConfigError("the primary region is not scored", got=self.primary.region, expected=list(scored))
        for text in (budget for attack in self.attacks for budget in self.budgets_of(attack)):
            if len(Budget.parse(text).amounts) not in (1, len(modalities)):
                raise BudgetError(
                    "a budget has another number of amounts than the data has modalities",
                    got=text,
                    expected=f"one amount, or {len(modalities)}: {', '.join(modalities)}",
                )

    def budgets_of(self, attack: str) -> tuple[str, ...]:
        """The budgets at which an attack is run."""
        return self.attacks[attack].budgets or self.budgets

    def modalities_of(self, attack: str) -> tuple[str, ...] | None:
        """The modalities that an attack changes; None for all."""
        return self.attacks[attack].modalities or self.modalities

    def family(self, attack: str) -> str:
        """What tables call an attack: its name, and what of its support is unusual where the name does not say so."""
        unusual = Reach(self.support, self.modalities_of(attack)).unusual
        return "-".join([attack, *(word for word in unusual if word not in attack.split("-"))])


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a study, for editors."""
    return Study.model_json_schema()
