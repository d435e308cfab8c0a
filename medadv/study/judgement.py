"""What a study with a defence declares beside its primary family, before any score exists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict


class Varied(BaseModel):
    """What was run at one budget because of the defences, each by the name of its condition.

    Attributes:
        base: the varied attack as it is: the naive score.
        tempered: T and the attack on the loss at logits / T, T ascending.
        margin: the attack on the logit margin.
        noise: the sign noise of the same size.
        sources: victim → what was found for it and is shown to others, as those meet it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: str
    tempered: tuple[tuple[float, str], ...]
    margin: str
    noise: str
    sources: dict[str, str]


class Judgement(BaseModel):
    """How the defences of a study are judged.

    Attributes:
        judged: the victims, in their order.
        undefended: defended victim → the one without its defence, which it is held against.
        worst: victim → worst case → the conditions that it is the worst of, by name; each of them on every case.
        varied: worst case → what was run at its budget because of the defences.
        added: the attacks that the study did not name itself, by name.
        margin: how much clean Dice a defence may cost and still be called not inferior; None where none is declared.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    judged: tuple[str, ...]
    undefended: dict[str, str]
    worst: dict[str, dict[str, tuple[str, ...]]]
    varied: dict[str, Varied] = {}
    added: tuple[str, ...] = ()
    margin: float | None = None

    @classmethod
    def of(cls, declaration: Mapping[str, Any]) -> Judgement | None:
        """That of a line of ``declarations.jsonl``; None in a study without a defence."""
        told = declaration.get("judgement")
        return None if told is None else cls.model_validate(told)
