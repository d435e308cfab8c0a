"""``Study``: the strict specification of an experiment, as a user writes it in YAML.

A key that is not known is an error that lists the right ones. Nothing here is an import string: configurations are
data.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from medadv.attack.budget import Budget
from medadv.data.support import Support
from medadv.errors import BudgetError, ConfigError
from medadv.labels import LabelScheme
from medadv.study.attacks import AttackSpec
from medadv.study.borrowed import Offer, Sum, Transfers
from medadv.study.defences import Augmentation, Hardening
from medadv.study.entrants import Entrant, VictimSpec, entrants
from medadv.study.metrics import MetricName
from medadv.study.picture_defaults import of_pictures
from medadv.study.reach import Reach
from medadv.study.records import ALL
from medadv.study.scores import DETECTION as OF_OBJECTS
from medadv.study.scores import PICTURES as OF_PICTURES
from medadv.study.scores import VOLUMES as OF_VOLUMES
from medadv.study.sections import Adaptive, Split, Volumes
from medadv.study.sources import Data
from medadv.study.specified import Specified, distinct, readable_budgets

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Names become folders and table cells: letters, digits, dot, dash, underscore."""

WORST = "worst"
"""The worst of all that is delivered within a budget, case by case."""

RESERVED = ("clean", "identity", "noise", "permuted", WORST)
"""What conditions are called that are no attacks."""

BEGINNINGS = ("permuted-", "noise-", "transfer-", "sum-", "rescaled-", "worst-")
"""How the names of conditions begin that the study makes itself."""


class Primary(Specified):
    """The family of comparisons that the study is about, declared before any score exists.

    Each named attack (all if left out) at each of its budgets (all if left out) is compared with clean, on one region:
    for each victim of the study, and for those outside whose segmentations are to come back (``medadv score``).
    In a study of defences ``worst`` is the worst of all attacks and controls at a budget, case by case; and with
    ``against: undefended`` each defended victim is compared with the undefended one under the same attack.
    """

    region: str = Field(description="a region, tissue or class; `all`: over all classes, of pictures and of objects")
    metric: MetricName | None = Field(
        None, description="dice of volumes, iou of pictures, recall of objects if left out, and of victims without it"
    )
    attacks: tuple[str, ...] | None = Field(None, min_length=1)
    budgets: tuple[str, ...] | None = Field(None, min_length=1)
    victims: tuple[str, ...] | None = Field(
        None, min_length=1, description="of the study's own; all that meet its attacks if left out"
    )
    returned: tuple[str, ...] = Field((), description="victims outside, by the names they will be scored under")
    against: Literal["clean", "undefended"] = "clean"
    margin: float | None = Field(
        None, gt=0, lt=1, description="how much clean Dice a defence may cost and still be called not inferior"
    )

    @field_validator("budgets")
    @classmethod
    def _readable(cls, budgets: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if budgets is None else readable_budgets(budgets)


class Study(Specified):
    """Everything that an experiment is."""

    study: str = Field(description="the name; results lie in runs/<name>")
    question: str | None = Field(None, description="what is asked, for the report")
    seed: int = Field(0, ge=0, lt=2**32)
    ids: Literal["pseudonyms", "as-is"] = Field("pseudonyms", description="as-is for public data only")
    data: Data
    split: Split = Split()
    victims: dict[str, VictimSpec] = Field(min_length=1)
    budgets: tuple[str, ...] = Field(
        ("0.05 sigma", "0.1 sigma", "0.2 sigma"), min_length=1, description="2, 4 and 8 0-255 of pictures if left out"
    )
    attacks: dict[str, AttackSpec] = Field(min_length=1)
    controls: tuple[Literal["identity", "noise", "permuted", "rows", "columns", "slices"], ...] = Field(
        ("identity", "noise", "permuted"),
        description="permuted moves voxels; rows, columns, slices whole planes across the first, second, third axis",
    )
    permutations: int = Field(1, ge=1, description="of each kind of permutation, so many draws")
    permuted: tuple[str, ...] | None = Field(
        None, min_length=1, description="the attacks whose perturbations are permuted; all if left out"
    )
    transfers: Transfers | None = Field(None, description="what is found for one victim, shown to others")
    sums: dict[str, Sum] = Field({}, description="what is found for several victims, added")
    adaptive: Adaptive = Adaptive()
    primary: Primary
    regions: tuple[str, ...] | None = Field(
        None, min_length=1, description="what is scored; all regions and tissues if left out"
    )
    metrics: tuple[Literal["dice", "hd95", "iou"], ...] | None = Field(
        None, min_length=1, description="of segmentations; dice and hd95 of volumes, iou of pictures if left out"
    )
    certainty: bool = Field(
        False, description="whether records tell how sure segmentations are of what is delivered, and of clean cases"
    )
    legal: Literal["clean"] | tuple[float, float] | None = Field(
        "clean",
        description="each modality's clean minimum to maximum, a pair in stored units, or null for no range; of "
        "pictures [0, 255] if left out",
    )
    support: Support = Field(
        "nonzero",
        description="where voxels may change: where the clean scan is not zero, above Otsu's threshold, inside the "
        "case's mask file, or the whole volume, which is a threat model of its own; of pictures everywhere if left "
        "out, and of padded ones mask, which is all but the padding",
    )
    modalities: tuple[str, ...] | None = Field(
        None, min_length=1, description="the only ones that attacks change; all if left out"
    )
    volumes: Volumes = Volumes()

    @field_validator("budgets")
    @classmethod
    def _readable(cls, budgets: tuple[str, ...]) -> tuple[str, ...]:
        return readable_budgets(budgets)

    @model_validator(mode="before")
    @classmethod
    def _of_pictures(cls, written: Any) -> Any:
        """What is usual of volumes is not of pictures: their zeros are black, and they are attacked in grey levels."""
        return of_pictures(written) if isinstance(written, dict) else written

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
        victims = [*self.entrants, *self.primary.returned]
        if len(set(victims)) < len(victims):
            raise ValueError("primary.returned names victims outside, each once, and none of the study's own")
        for kind, names in (
            ("study", [self.study]),
            ("victim", victims),
            ("attack", list(self.attacks)),
            ("sum", list(self.sums)),
        ):
            for name in names:
                if not NAME.fullmatch(name) or name in RESERVED or name.startswith(BEGINNINGS):
                    raise ValueError(
                        f"{name!r} cannot be the name of a {kind}: at most 64 letters, digits, dots, dashes and "
                        f"underscores, none of {', '.join(RESERVED)}, and not beginning with {', '.join(BEGINNINGS)}"
                    )
        for name, spec in self.attacks.items():
            if strange := [victim for victim in self.victims_of(name) if victim not in self.judged]:
                raise ValueError(f"the attack {name!r} is for {strange}; the study's victims are {list(self.judged)}")
            for budget in self.budgets_of(name):
                _check_schedule(name, spec, budget)
        families = [self.family(name) for name in self.attacks]
        if twice := sorted({family for family in families if families.count(family) > 1}):
            raise ValueError(f"two attacks would be called the same in tables: {twice}")
        self._check_defences()
        self._check_borrowed()
        for name in self.primary.attacks or ():
            if name not in self.attacks and not (name == WORST and self.defended):
                raise ValueError(f"primary.attacks names {name!r}; the study's attacks are {list(self.attacks)}")
        if nobody := sorted(set(self.primary.victims or ()) - set(self.judged)):
            raise ValueError(f"primary.victims names {nobody}; the study's victims are {list(self.judged)}")
        named = [name for name in self.primary.attacks or () if name in self.attacks] or list(self.attacks)
        for budget in self.primary.budgets or ():
            if all(budget not in self.budgets_of(name) for name in named):
                raise ValueError(f"primary.budgets names {budget!r}, at which no attack of the family is run")
        return self

    def check(self, modalities: Sequence[str], scheme: LabelScheme) -> None:
        """Hold against the data what only the data can tell, before anything is trained.

        Raises:
            ConfigError: a region or tissue that the labels do not have, a modality that the data does not have, a goal
                for images of another number of axes, or a primary region that is not scored.
            BudgetError: a budget for another number of modalities.
        """
        scored = self.regions or (ALL, *scheme.scorable)
        for name in (*scored, self.primary.region):
            if name != ALL:
                scheme.members(name)
        for called, spec in self._attacks():
            self._check_attack(called, spec, modalities, scheme)
        if "slices" in self.controls and self.data.axes < 3:
            raise ConfigError("a picture has rows and columns, and no slices", got=list(self.controls))
        if self.primary.region not in scored:
            raise ConfigError("the primary region is not scored", got=self.primary.region, expected=list(scored))
        for told, text in self._amounts():
            if len(Budget.parse(text).amounts) not in (1, len(modalities)):
                raise BudgetError(
                    f"{told} has another number of amounts than the data has modalities",
                    got=text,
                    expected=f"one amount, or {len(modalities)}: {', '.join(modalities)}",
                )

    def _check_attack(self, called: str, spec: AttackSpec, modalities: Sequence[str], scheme: LabelScheme) -> None:
        for name in spec.names:
            scheme.members(name)
        if strange := set(spec.tissues) - set(scheme.numbers):
            raise ConfigError("only tissues are permuted", got=sorted(strange), expected=list(scheme.tissues))
        if spec.axes not in (None, self.data.axes):
            raise ConfigError(
                f"the goal of {called} is for images of another number of axes",
                got=f"{spec.axes} numbers",
                expected=f"{self.data.axes}, one for each axis of the file",
            )
        if unknown := set(spec.modalities or self.modalities or ()) - set(modalities):
            raise ConfigError(
                f"{called} is to change modalities that the data does not have",
                got=sorted(unknown),
                expected=list(modalities),
            )

    def _attacks(self) -> Iterator[tuple[str, AttackSpec]]:
        """What each attack is called, and what it is: the study's, and those that a training set is enlarged by."""
        for name, spec in self.attacks.items():
            yield f"the attack {name!r}", spec
        for victim, written in self.victims.items():
            if isinstance(written.defence, Augmentation):
                for name, spec in written.defence.attacks.items():
                    yield f"the attack {name!r} of victims.{victim}.defence", spec

    def _amounts(self) -> Iterator[tuple[str, str]]:
        """Where each budget is written, and the budget."""
        for name in self.attacks:
            yield from (("a budget", text) for text in self.budgets_of(name))
        yield from (("a budget of adaptive", text) for text in self.adaptive.budgets or ())
        for victim, written in self.victims.items():
            if isinstance(written.defence, Hardening):
                yield from ((f"a budget of victims.{victim}.defence", text) for text in written.defence.budgets)

    def _check_defences(self) -> None:
        """What only a study with a defence may say."""
        if not self.defended and (self.primary.against == "undefended" or self.primary.margin is not None):
            raise ValueError("primary.against: undefended, and primary.margin, are for studies with a defence")
        base = self.adaptive.attack
        if base is not None and (base not in self.attacks or not self.may_be_varied(base)):
            raise ValueError(f"adaptive.attack names {base!r}, which is no untargeted attack of {list(self.attacks)}")

    def _check_borrowed(self) -> None:
        """What is shown to others is found by somebody."""
        if strange := set(self.permuted or ()) - set(self.attacks):
            raise ValueError(f"permuted names {sorted(strange)}; the study's attacks are {list(self.attacks)}")
        if self.transfers is not None:
            self.offer.check_transfers(self.transfers)
        for name, of in self.sums.items():
            self.offer.check_sum(name, of)
            if len({self.attacks[attack].bounded for attack in of.summands().values()}) > 1:
                raise ValueError(f"sums.{name} adds attacks in a ball and attacks without one")

    @cached_property
    def entrants(self) -> dict[str, Entrant]:
        """All victims as they enter: those that share settings, students at each temperature, and their teachers."""
        return entrants(self.victims)

    @property
    def defended(self) -> bool:
        """Whether any victim is a defence of another."""
        return any(entrant.undefended is not None for entrant in self.entrants.values())

    @property
    def span(self) -> tuple[float, float] | None:
        """What 255 grey levels are of, where there is no legal range: of pictures their own."""
        return (0.0, 255.0) if self.data.axes == 2 else None

    def metric_of(self, victim: str) -> MetricName:
        """What a victim is compared in: the primary metric, or the first of its task."""
        if self.entrants[victim].spec.detects:
            own: tuple[MetricName, ...] = OF_OBJECTS
        else:
            own = self.metrics or (OF_VOLUMES if self.data.axes == 3 else OF_PICTURES)
        return self.primary.metric if self.primary.metric in own else own[0]

    @property
    def offer(self) -> Offer:
        """What victims can be shown of others."""
        met = {name: self.victims_of(name) for name in self.attacks}
        return Offer(met, {name: self.budgets_of(name) for name in self.attacks}, self.judged)

    @property
    def judged(self) -> tuple[str, ...]:
        """The victims that attacks are shown to: all but teachers that are there for their students alone."""
        return tuple(entrant.name for entrant in self.entrants.values() if entrant.judged)

    def victims_of(self, attack: str) -> tuple[str, ...]:
        """The victims that meet an attack."""
        return self.attacks[attack].together or self.attacks[attack].victims or self.judged

    def may_be_varied(self, attack: str) -> bool:
        """Whether an attack can be adapted to a defence: it is untargeted, and every victim meets it by itself."""
        spec = self.attacks[attack]
        return not (spec.targeted or spec.together) and self.victims_of(attack) == self.judged

    def steps_of(self, attack: str) -> int:
        """The most steps that an attack takes at one of its budgets."""
        return max(self.attacks[attack].steps_at(Budget.parse(budget)) for budget in self.budgets_of(attack))

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


def _check_schedule(name: str, spec: AttackSpec, budget: str) -> None:
    try:
        spec.steps_at(Budget.parse(budget))
    except ConfigError as error:
        raise ValueError(f"the attack {name!r} at {budget}: {error.problem}") from error


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a study, for editors."""
    return Study.model_json_schema()
