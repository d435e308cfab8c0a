"""What the goals of targeted attacks have in common."""

from __future__ import annotations

from typing import Any

from jaxtyping import Int
from pydantic import Field
from torch import Tensor

from medadv.attack.relabel import CHANGED, EVERYWHERE
from medadv.study.specified import Specified

LabelMap = Int[Tensor, "1 *s"]
"""A map given for the case, in the victim's numbers."""

WHERE = "which voxels count: changed, everywhere, or a region or tissue"


class GoalSettings(Specified):
    """What a targeted attack wants the victim to see."""

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
    def maps(self) -> str | None:
        """The folder of the maps that it wants drawn, if it is given maps."""
        return None

    def settings(self) -> dict[str, Any]:
        """Everything that could change its numbers, as JSON."""
        return self.model_dump(mode="json")


class Placed(GoalSettings):
    """A goal that says which voxels count."""

    where: str = Field(CHANGED, description=WHERE)

    @property
    def placed(self) -> tuple[str, ...]:
        """The region or tissue that says where, if it is one."""
        return () if self.where in (CHANGED, EVERYWHERE) else (self.where,)

    @property
    def there(self) -> str:
        """For people: where, if it is a region."""
        return "" if self.where == CHANGED else f" {'in ' if self.placed else ''}{self.where}"
