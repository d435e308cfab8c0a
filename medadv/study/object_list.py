"""``ObjectList``: the objects of one image as a record keeps them, by the names of their classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from medadv.labels import LabelScheme
from medadv.objects import Objects


class ObjectList(BaseModel):
    """What an expert drew in an image, or a detector reports of it; enough to compute average precision from.

    Attributes:
        axes: of the image: 2 or 3.
        boxes: lowest corner, then highest corner, along the image's axes in their order, in voxels; as in ``Objects``.
        labels: the names of the classes.
        scores: how sure the detector is of each; None of an expert's.
        difficult: those that count neither as found nor as missed; None for none of them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    axes: Annotated[int, Field(ge=1)]
    boxes: tuple[tuple[FiniteFloat, ...], ...]
    labels: tuple[str, ...]
    scores: tuple[FiniteFloat, ...] | None = None
    difficult: tuple[bool, ...] | None = None

    @model_validator(mode="after")
    def _agreeing(self) -> ObjectList:
        lists = (self.boxes, self.labels, self.scores, self.difficult)
        if len({len(each) for each in lists if each is not None}) > 1:
            raise ValueError("each object has one box, one label, and one score if any")
        if any(len(box) != 2 * self.axes for box in self.boxes):
            raise ValueError(f"a box has two corners along {self.axes} axes")
        return self

    @classmethod
    def of(cls, objects: Objects, scheme: LabelScheme) -> ObjectList:
        """Objects in the numbers of a scheme, told by its names; float32 numbers are kept exactly."""
        names = {number: name for name, number in scheme.numbers.items()}
        return cls(
            axes=objects.boxes.shape[1] // 2,
            boxes=tuple(map(tuple, objects.boxes.tolist())),
            labels=tuple(names[number] for number in objects.labels.tolist()),
            scores=None if objects.scores is None else tuple(objects.scores.tolist()),
            difficult=None if objects.difficult is None else tuple(objects.difficult.tolist()),
        )

    def objects(self, numbers: Mapping[str, int]) -> Objects:
        """The same in numbers of one's own: name → number; every name that occurs is among them."""
        return Objects(
            torch.tensor(self.boxes, dtype=torch.float32).reshape(-1, 2 * self.axes),
            torch.tensor([numbers[name] for name in self.labels], dtype=torch.int64),
            None if self.scores is None else torch.tensor(self.scores, dtype=torch.float32),
            None if self.difficult is None else torch.tensor(self.difficult, dtype=torch.bool),
        )
