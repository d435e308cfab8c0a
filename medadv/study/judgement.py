"""What a study with a defence declares beside its primary family, before any score exists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict


class Judgement(BaseModel):
    """How the defences of a study are judged.

    Attributes:
        judged: the victims, in their order.
        undefended: defended victim → the one without its defence, which it is held against.
        worst: victim → worst case → the attacks that it is the worst of, by name; each of them on every case.
        margin: how much clean Dice a defence may cost and still be called not inferior; None where none is declared.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    judged: tuple[str, ...]
    undefended: dict[str, str]
    worst: dict[str, dict[str, tuple[str, ...]]]
    margin: float | None = None

    @classmethod
    def of(cls, declaration: Mapping[str, Any]) -> Judgement | None:
        """That of a line of ``declarations.jsonl``; None in a study without a defence."""
        told = declaration.get("judgement")
        return None if told is None else cls.model_validate(told)
