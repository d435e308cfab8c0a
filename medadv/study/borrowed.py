"""What victims are shown that was found for others: the sections ``transfers`` and ``sums`` of a study."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, field_validator

from medadv.study.specified import Specified, readable_budgets

Names = tuple[str, ...]


class Transfers(Specified):
    """A matrix: what an attack found for each victim of ``from``, shown to each other victim of ``to``.

    What is left out is all: all attacks of the study, all their budgets, all victims. The diagonal of the matrix is the
    attack itself, which every victim meets anyway.
    """

    attacks: Names | None = Field(None, min_length=1)
    budgets: Names | None = Field(None, min_length=1)
    from_: Names | None = Field(None, alias="from", min_length=1, description="the victims that are attacked")
    to: Names | None = Field(None, min_length=1, description="the victims that are shown what was found")

    @field_validator("budgets")
    @classmethod
    def _readable(cls, budgets: Names | None) -> Names | None:
        return None if budgets is None else readable_budgets(budgets)


class Sum(Specified):
    """The sum of what attacks found for several victims on the same case (Xie et al. 2017), and its control.

    ``of`` names the victims, all attacked by ``attack``, or says victim by victim which attack. A sum is larger than
    each of its summands; ``rescaled`` adds a control of the same direction that has the L2 norm of one: the summands'
    mean norm, or the first one's. The study's permuted controls are made of the sum, too.
    """

    of: Names | dict[str, str] = Field(min_length=2, description="victims, or victim: attack")
    attack: str | None = Field(None, description="of all summands; left out where `of` says it")
    budgets: Names | None = Field(None, min_length=1, description="all that its attacks share if left out")
    to: Names | None = Field(None, min_length=1, description="the victims that are shown it; all if left out")
    rescaled: Literal["mean", "first"] | None = "mean"

    @field_validator("budgets")
    @classmethod
    def _readable(cls, budgets: Names | None) -> Names | None:
        return None if budgets is None else readable_budgets(budgets)

    @field_validator("of")
    @classmethod
    def _each_once(cls, of: Names | dict[str, str]) -> Names | dict[str, str]:
        if len(set(of)) < len(of):
            raise ValueError(f"a sum has each victim once: {list(of)}")
        return of

    def summands(self) -> dict[str, str]:
        """Victim → attack.

        Raises:
            ValueError: neither, or both, of ``of`` and ``attack`` say which.
        """
        if isinstance(self.of, dict) == (self.attack is not None):
            raise ValueError("a sum says `attack: NAME`, or in `of` for each victim which: one of them")
        return self.of if isinstance(self.of, dict) else {victim: str(self.attack) for victim in self.of}


@dataclass(frozen=True)
class Offer:
    """What a study has to lend.

    Attributes:
        met: attack → the victims that meet it.
        budgets: attack → the budgets at which it is run.
        judged: the victims that attacks are shown to.
    """

    met: Mapping[str, Sequence[str]]
    budgets: Mapping[str, Sequence[str]]
    judged: Sequence[str]

    def check_transfers(self, transfers: Transfers) -> None:
        """Hold a matrix against the study.

        Raises:
            ValueError: names that the study does not have, or a matrix without a cell.
        """
        attacks = transfers.attacks or tuple(self.met)
        _known("transfers.attacks", attacks, self.met)
        _known("transfers.from", transfers.from_ or (), self.judged)
        _known("transfers.to", transfers.to or (), self.judged)
        _known("transfers.budgets", transfers.budgets or (), [b for name in attacks for b in self.budgets[name]])
        sources = {victim for name in attacks for victim in self.met[name]} & set(transfers.from_ or self.judged)
        if idle := sorted(set(transfers.from_ or ()) - sources):
            raise ValueError(f"transfers.from names {idle}, which meet none of the attacks {list(attacks)}")
        if not any(source != target for source in sources for target in transfers.to or self.judged):
            raise ValueError("transfers needs two victims: one that is attacked, and another that is shown it")

    def check_sum(self, name: str, of: Sum) -> None:
        """Hold a sum against the study.

        Raises:
            ValueError: names that the study does not have, or no budget that all its attacks share.
        """
        for victim, attack in of.summands().items():
            _known(f"sums.{name}", [attack], self.met)
            _known(f"sums.{name}.of", [victim], self.met[attack])
        _known(f"sums.{name}.to", of.to or (), self.judged)
        shared = self.shared(of)
        _known(f"sums.{name}.budgets", of.budgets or (), shared)
        if not shared:
            raise ValueError(f"the attacks of sums.{name} share no budget")

    def shared(self, of: Sum) -> Names:
        """The budgets at which all attacks of a sum are run."""
        first, *others = of.summands().values()
        return tuple(b for b in self.budgets[first] if all(b in self.budgets[other] for other in others))


def _known(place: str, names: Iterable[str], known: Iterable[str]) -> None:
    if strange := [name for name in names if name not in known]:
        raise ValueError(f"{place} names {strange}; there are {list(dict.fromkeys(known))}")
