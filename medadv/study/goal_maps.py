"""The goals that are about places on a label map: what grows, what moves, what is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, model_validator

from medadv.attack.relabel import Draw, Grow, Relabel, Shift
from medadv.attack.shape import INSIDE, Figure, Shape
from medadv.labels import BACKGROUND
from medadv.study.goal_base import LabelMap, Placed


class GrowBy(Placed):
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


class ShiftBy(Placed):
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


class DrawShape(Placed):
    """Make the victim see a figure of one tissue (Xie et al. 2017)."""

    shape: Figure
    tissue: str | None = Field(None, description="drawn for each case among those that it does not show, if left out")
    size: float = Field(0.5, gt=0, le=1, description="its width as a share of the image's shortest side")
    centre: tuple[Annotated[float, Field(ge=0, le=1)], ...] | None = Field(
        None, description="as shares of the sides; the image's middle if left out"
    )
    where: str = Field(INSIDE, description="which voxels count: inside, everywhere, changed, or a region or tissue")

    @property
    def placed(self) -> tuple[str, ...]:
        """The region or tissue that says where, if it is one."""
        return () if self.where == INSIDE else super().placed

    @property
    def names(self) -> tuple[str, ...]:
        """The tissue, and the region that says where."""
        return (*([self.tissue] if self.tissue else []), *self.placed)

    @property
    def axes(self) -> int | None:
        """Those of its centre."""
        return None if self.centre is None else len(self.centre)

    def relabel(self, spacing: Sequence[float], given: LabelMap | None = None) -> Relabel:  # noqa: ARG002
        """As the objective understands it."""
        return Shape(self.shape, self.tissue, self.size, self.centre, self.where)

    def __str__(self) -> str:
        place = "" if self.centre is None else f" at {' '.join(f'{share:g}' for share in self.centre)}"
        there = "" if self.where == INSIDE else f",{self.there or ' where it changes'}"
        return f"{self.shape} of {self.tissue or 'an absent tissue'}, width {self.size:g}{place}{there}"


class DrawGiven(Placed):
    """Make the victim see a given label map: of each case, the one that bears its id in a folder."""

    draw: str = Field(
        min_length=1, description="a folder: for each case <id>.nii.gz (.nii, .nrrd, .mha), in the data's numbers"
    )

    @property
    def names(self) -> tuple[str, ...]:
        """The region that says where."""
        return self.placed

    @property
    def maps(self) -> str | None:
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
