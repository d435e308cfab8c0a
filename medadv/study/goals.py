"""The goals of targeted attacks that a study can name: one key says which, the others are its settings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from jaxtyping import Int
from pydantic import Discriminator, Field, Tag, field_validator, model_validator
from torch import Tensor

from medadv.attack.relabel import (
    CHANGED,
    EVERYWHERE,
    Draw,
    Fill,
    Grow,
    LeastLikely,
    Permute,
    Relabel,
    Shift,
    Turn,
    erase,
)
from medadv.labels import BACKGROUND
from medadv.study.specified import Specified

LabelMap = Int[Tensor, "1 *s"]
"""A map given for the case, in the victim's numbers."""

_WHERE = "which voxels count: changed, everywhere, or a region or tissue"


class _Goal(Specified):
    @property
    def names(self) -> tuple[str, ...]:
        """The regions and tissues that it names."""
        return ()

    @property
    def tissues(self) -> tuple[str, ...]:
        """What it names that must be tissues."""
        return ()

    @property
    def follow(self) -> bool:
        """Whether the wanted labels follow the current answer."""
        return False

    @property
    def axes(self) -> int | None:
        """The number of axes that it names an amount for, each; None where it names none."""
        return None

    @property
    def draws(self) -> str | None:
        """The folder of the maps that it wants drawn, if it is given maps."""
        return None

    def settings(self) -> dict[str, Any]:
        """Everything that could change its numbers, as JSON."""
        return self.model_dump(mode="json")


class _Placed(_Goal):
    where: str = Field(CHANGED, description=_WHERE)

    @property
    def placed(self) -> tuple[str, ...]:
        """The region or tissue that says where, if it is one."""
        return () if self.where in (CHANGED, EVERYWHERE) else (self.where,)

    @property
    def there(self) -> str:
        """For people: where, if it is a region."""
        return "" if self.where == CHANGED else f" {'in ' if self.placed else ''}{self.where}"


class Erase(_Goal):
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


class TurnInto(_Goal):
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


class FillWith(_Placed):
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


class ToLeastLikely(_Placed):
    """Each voxel its least likely class: of the clean answer (``fixed``), or of the current one at each step."""

    least_likely: Literal["fixed", "each step"]
    where: str = Field(EVERYWHERE, description=_WHERE)

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


class PermuteTissues(_Placed):
    """Each tissue another: drawn for each case (``random``), or given, tissue by tissue."""

    permute: Literal["random"] | dict[str, str] = Field(description="random, or tissue: tissue")
    background: bool = Field(False, description="whether background takes part in a random permutation")

    @model_validator(mode="after")
    def _both_sides(self) -> PermuteTissues:
        if isinstance(self.permute, dict) and set(self.permute) != set(self.permute.values()):
            raise ValueError("a permutation has the same tissues on both sides, each once")
        if isinstance(self.permute, dict) and self.background:
            raise ValueError("background is for random permutations; a given one names it or not")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The tissues of a given permutation, and the region that says where."""
        return (*self.tissues, *self.placed)

    @property
    def tissues(self) -> tuple[str, ...]:
        """The tissues of a given permutation."""
        return tuple(self.permute) if isinstance(self.permute, dict) else ()

    def relabel(self, spacing: Sequence[float], given: LabelMap | None = None) -> Relabel:  # noqa: ARG002
        """As the objective understands it."""
        into = self.permute if isinstance(self.permute, dict) else None
        return Permute(into, background=self.background, where=self.where)

    def __str__(self) -> str:
        if isinstance(self.permute, dict):
            return "permute " + " and ".join(f"{a} to {b}" for a, b in self.permute.items()) + self.there
        return f"permute tissues{' and background' if self.background else ''} at random{self.there}"


class GrowBy(_Placed):
    """Make a region seem larger, by voxels or by millimetres along each axis, in whole voxels."""

    grow: str
    voxels: Annotated[int, Field(ge=1)] | None = None
    mm: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    into: str | None = Field(None, description="the tissue it grows by; the region's first if left out")

    @model_validator(mode="after")
    def _one_reach(self) -> GrowBy:
        if (self.voxels is None) == (self.mm is None):
            raise ValueError("a region grows by voxels or by mm: give one of them")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The region, the tissue, and the region that says where."""
        return (self.grow, *([self.into] if self.into else []), *self.placed)

    def relabel(self, spacing: Sequence[float], given: LabelMap | None = None) -> Relabel:  # noqa: ARG002
        """As the objective understands it; millimetres become the whole voxels that they hold."""
        if self.mm is None:
            assert self.voxels is not None  # _one_reach
            return Grow(self.grow, self.voxels, self.into, self.where)
        # 3 mm are three voxels of 1 mm, also where the header's float32 says 1.0000001.
        reach = tuple(math.floor(self.mm / size * (1 + 1e-5)) for size in spacing)
        return Grow(self.grow, reach, self.into, self.where)

    def __str__(self) -> str:
        reach = f"{self.mm:g} mm" if self.mm is not None else f"{self.voxels} voxel{'s' * (self.voxels != 1)}"
        return f"grow {self.grow} by {reach}{f' of {self.into}' if self.into else ''}{self.there}"


class ShiftBy(_Placed):
    """Move a region by whole voxels along each axis."""

    shift: str
    by: tuple[int, ...] = Field(min_length=1)
    behind: str = Field(BACKGROUND, description="the tissue that is seen where the region was")

    @property
    def names(self) -> tuple[str, ...]:
        """The region, what is left behind, and the region that says where."""
        return (self.shift, self.behind, *self.placed)

    @property
    def axes(self) -> int | None:
        """Those of its vector."""
        return len(self.by)

    def relabel(self, spacing: Sequence[float], given: LabelMap | None = None) -> Relabel:  # noqa: ARG002
        """As the objective understands it."""
        return Shift(self.shift, self.by, self.behind, self.where)

    def __str__(self) -> str:
        left = "" if self.behind == BACKGROUND else f" leaving {self.behind}"
        return f"shift {self.shift} by {' '.join(f'{n:+d}' for n in self.by)} voxels{left}{self.there}"


class DrawGiven(_Placed):
    """Make the victim see a given label map: of each case, the one that bears its id in a folder."""

    draw: str = Field(
        min_length=1, description="a folder: for each case <id>.nii.gz (.nii, .nrrd, .mha), in the data's numbers"
    )

    @property
    def names(self) -> tuple[str, ...]:
        """The region that says where."""
        return self.placed

    @property
    def draws(self) -> str | None:
        """The folder."""
        return self.draw

    def settings(self) -> dict[str, Any]:
        """Without the folder, which is private: the digest of a case's map is told beside these."""
        return {**super().settings(), "draw": "given maps"}

    def relabel(self, spacing: Sequence[float], given: LabelMap | None = None) -> Relabel:  # noqa: ARG002
        """As the objective understands it."""
        assert given is not None  # whoever asks a goal that draws brings the map
        return Draw(given, self.where)

    def __str__(self) -> str:
        return f"draw given maps{self.there}"


_KINDS: dict[str, type[_Goal]] = {
    "erase": Erase,
    "turn": TurnInto,
    "fill": FillWith,
    "least_likely": ToLeastLikely,
    "permute": PermuteTissues,
    "grow": GrowBy,
    "shift": ShiftBy,
    "draw": DrawGiven,
}


def _kind(goal: Any) -> str | None:
    """The name of the class that a goal's own key asks for."""
    if isinstance(goal, _Goal):
        return type(goal).__name__
    keys = goal if isinstance(goal, Mapping) else ()
    return next((kind.__name__ for key, kind in _KINDS.items() if key in keys), None)


Goal = Annotated[
    Annotated[Erase, Tag("Erase")]
    | Annotated[TurnInto, Tag("TurnInto")]
    | Annotated[FillWith, Tag("FillWith")]
    | Annotated[ToLeastLikely, Tag("ToLeastLikely")]
    | Annotated[PermuteTissues, Tag("PermuteTissues")]
    | Annotated[GrowBy, Tag("GrowBy")]
    | Annotated[ShiftBy, Tag("ShiftBy")]
    | Annotated[DrawGiven, Tag("DrawGiven")],
    Discriminator(
        _kind,
        custom_error_type="goal",
        custom_error_message=f"a goal has one of these keys: {', '.join(_KINDS)}",
    ),
]
