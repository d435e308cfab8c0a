"""What every ``victim.json`` says, whatever kind of victim it tells of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from medadv.labels import LabelScheme
from medadv.victims.networks import Architecture


class Part(BaseModel):
    """A part of a card, in which no key may be misspelt."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SchemeCard(Part):
    """A label scheme in JSON."""

    name: str
    numbers: dict[str, int]
    regions: dict[str, tuple[str, ...]]
    void: int | None = None

    def scheme(self) -> LabelScheme:
        """The scheme itself."""
        return LabelScheme(self.name, self.numbers, self.regions, self.void)


class Card(Part):
    """How a network is built again, whose weights lie beside the card, and what it has seen.

    Attributes:
        trained_on: digests of the voxels that it has learnt from or was chosen by.
        trained_patients: the patients that they show.
    """

    architecture: Architecture
    modalities: tuple[str, ...]
    scheme: SchemeCard
    weights_sha256: str
    trained_on: tuple[str, ...] = ()
    trained_patients: tuple[str, ...] = ()
