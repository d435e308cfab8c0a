"""The goals of targeted attacks that a study can name: one key says which, the others are its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from medadv.attack.relabel import EVERYWHERE, Fill, LeastLikely, Permute, Rank, Relabel, Turn, erase
from medadv.labels import BACKGROUND
from medadv.study.goal_base import WHERE, GoalSettings, LabelMap, Placed
from medadv.study.goal_maps import DrawGiven, DrawShape, GrowBy, ShiftBy


class Erase(GoalSettings):
    """Make a region vanish where it is."""

    erase: str

    @field_validator("erase")
    @classmethod
    def _something(cls, region: str) -> str:
        if region == BACKGROUND:
            raise ValueError("background is what a region is erased into; to fill it, turn or grow another region")
        return region

    @property
    def names(self) -> tuple[str, ...]:
        """The region."""
        return (self.erase,)

    def relabel(self, spacing: Sequence[float], given: LabelMap | None = None) -> Relabel:  # noqa: ARG002
        """As the objective understands it."""
        return erase(self.erase)

    def __str__(self) -> str:
        return f"erase {self.erase}"


class TurnInto(GoalSettings):
    """Turn a region into another tissue where it is."""

    turn: str
    into: str

    @property
    def names(self) -> tuple[str, ...]:
        """The region and the tissue."""
        return (self.turn, self.into)

    def relabel(self, spacing: Sequence[float], given: LabelMap | None = None) -> Relabel:  # noqa: ARG002
        """As the objective understands it."""
        return Turn(self.turn, self.into)

    def __str__(self) -> str:
        return f"turn {self.turn} into {self.into}"


class FillWith(Placed):
    """Turn all into one tissue: ``fill: background`` is a scan without a finding."""

    fill: str

    @property
    def names(self) -> tuple[str, ...]:
        """The tissue, and the region that says where."""
        return (self.fill, *self.placed)

    def relabel(self, spacing: Sequence[float], given: LabelMap | None = None) -> Relabel:  # noqa: ARG002
        """As the objective understands it."""
        return Fill(self.fill, self.where)

    def __str__(self) -> str:
        return f"all {self.fill}{self.there}"


class ToLeastLikely(Placed):
    """Each voxel its least likely class: of the clean answer (``fixed``), or of the current one at each step."""

    least_likely: Literal["fixed", "each step"]
    where: str = Field(EVERYWHERE, description=WHERE)

    @property
    def names(self) -> tuple[str, ...]:
        """The region that says where."""
        return self.placed

    @property
    def follow(self) -> bool:
        """Whether the least likely class is found anew at each step."""
        return self.least_likely == "each step"

    def relabel(self, spacing: Sequence[float], given: LabelMap | None = None) -> Relabel:  # noqa: ARG002
        """As the objective understands it."""
        return LeastLikely(self.where)

    def __str__(self) -> str:
        when = " of each step" if self.follow else ""
        return f"least likely class{when}{'' if self.where == EVERYWHERE else self.there or ' where it changes'}"


class ToRank(Placed):
    """Each voxel the class of this rank in the clean answer, or in the current one at each step: 2 is the second."""

    rank: int = Field(ge=2)
    target: Literal["fixed", "each step"] = "fixed"
    where: str = Field(EVERYWHERE, description=WHERE)

    @property
    def names(self) -> tuple[str, ...]:
        """The region that says where."""
        return self.placed

    @property
    def follow(self) -> bool:
        """Whether the class is found anew at each step."""
        return self.target == "each step"

    def relabel(self, spacing: Sequence[float], given: LabelMap | None = None) -> Relabel:  # noqa: ARG002
        """As the objective understands it."""
        return Rank(self.rank, self.where)

    def __str__(self) -> str:
        when = " of each step" if self.follow else ""
        return f"class of rank {self.rank}{when}{'' if self.where == EVERYWHERE else self.there or ' where it changes'}"


class PermuteTissues(Placed):
    """Each tissue another: drawn for each case (``random``), or given, tissue by tissue."""

    permute: Literal["random"] | dict[str, str] = Field(description="random, or tissue: tissue")
    background: bool = Field(False, description="whether background takes part in a random permutation")
    absent: bool = Field(False, description="draw for each tissue, at random, one that the image does not show")

    @model_validator(mode="after")
    def _both_sides(self) -> PermuteTissues:
        if isinstance(self.permute, dict) and set(self.permute) != set(self.permute.values()):
            raise ValueError("a permutation has the same tissues on both sides, each once")
        if isinstance(self.permute, dict) and (self.background or self.absent):
            raise ValueError("background and absent are for random permutations; a given one names its tissues")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The tissues of a given permutation, and the region that says where."""
        return (*self.tissues, *self.placed)

    @property
    def tissues(self) -> tuple[str, ...]:
        """The tissues of a given permutation."""
        return tuple(self.permute) if isinstance(self.permute, dict) else ()

    def settings(self) -> dict[str, Any]:
        """``absent`` came later: older records keep their keys."""
        every = super().settings()
        return every if self.absent else {key: value for key, value in every.items() if key != "absent"}

    def relabel(self, spacing: Sequence[float], given: LabelMap | None = None) -> Relabel:  # noqa: ARG002
        """As the objective understands it."""
        into = self.permute if isinstance(self.permute, dict) else None
        return Permute(into, background=self.background, absent=self.absent, where=self.where)

    def __str__(self) -> str:
        if isinstance(self.permute, dict):
            return "permute " + " and ".join(f"{a} to {b}" for a, b in self.permute.items()) + self.there
        into = " into absent ones" if self.absent else ""
        return f"permute tissues{' and background' if self.background else ''} at random{into}{self.there}"


_KINDS: dict[str, type[GoalSettings]] = {
    "erase": Erase,
    "turn": TurnInto,
    "fill": FillWith,
    "least_likely": ToLeastLikely,
    "rank": ToRank,
    "permute": PermuteTissues,
    "grow": GrowBy,
    "shift": ShiftBy,
    "shape": DrawShape,
    "draw": DrawGiven,
}


def _kind(goal: Any) -> str | None:
    """The name of the class that a goal's own key asks for."""
    if isinstance(goal, GoalSettings):
        return type(goal).__name__
    keys = goal if isinstance(goal, Mapping) else ()
    return next((kind.__name__ for key, kind in _KINDS.items() if key in keys), None)


Goal = Annotated[
    Annotated[Erase, Tag("Erase")]
    | Annotated[TurnInto, Tag("TurnInto")]
    | Annotated[FillWith, Tag("FillWith")]
    | Annotated[ToLeastLikely, Tag("ToLeastLikely")]
    | Annotated[ToRank, Tag("ToRank")]
    | Annotated[PermuteTissues, Tag("PermuteTissues")]
    | Annotated[GrowBy, Tag("GrowBy")]
    | Annotated[ShiftBy, Tag("ShiftBy")]
    | Annotated[DrawShape, Tag("DrawShape")]
    | Annotated[DrawGiven, Tag("DrawGiven")],
    Discriminator(
        _kind,
        custom_error_type="goal",
        custom_error_message=f"a goal has one of these keys: {', '.join(_KINDS)}",
    ),
]
