"""The targets of a detector: proposals or anchors, labelled by the objects that they cover."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import torch
from jaxtyping import Bool, Float, Int
from monai.data.box_utils import non_max_suppression
from torch import Tensor

from medadv.errors import ConfigError, VictimError
from medadv.labels import BACKGROUND, LabelScheme
from medadv.objects import Objects, Truth, overlap
from medadv.victims.head import Softmax
from medadv.victims.sight import Places

Scoring = Callable[[Float[Tensor, "b classes n"]], Float[Tensor, "b classes n"]]
"""Logits → scores, as a detector is deployed."""


def softmax(logits: Float[Tensor, "b classes n"]) -> Float[Tensor, "b classes n"]:
    """Scores of classes that exclude each other."""
    return logits.softmax(1)


@dataclass(frozen=True)
class Matching:
    """Which places are targets: Xie et al. 2017 (arXiv:1703.08603, section 3.3), by their released code.

    A place is a target of the object that it overlaps most, if it overlaps it by more than ``overlap`` and the clean
    image scores it by more than ``score`` as that object's class.

    Attributes:
        overlap: intersection over union, in pixels of the stored image.
        score: the probability of the object's class.

    Raises:
        ConfigError: a share outside [0, 1).
    """

    overlap: float = 0.1
    score: float = 0.1
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (a study may not misspell a key)

    def __post_init__(self) -> None:
        if not (0 <= self.overlap < 1 and 0 <= self.score < 1):
            raise ConfigError("overlap and score of a target are shares", got=self, expected="0 or more, below 1")


@dataclass(frozen=True, eq=False)
class Seen:
    """What a detector saw in the clean image: places, and how it scored them."""

    places: Places
    scores: Float[Tensor, "b classes n"]

    @classmethod
    def likely(cls, places: Places, scores: Float[Tensor, "b classes n"], least: float) -> Seen:
        """Without the places that cannot be targets, since no class but background is scored by more than ``least``."""
        where = (scores[:, 1:] > least).any(1)
        kept = places.only(where)
        left = torch.zeros(len(scores), scores.shape[1], kept.valid.shape[1], dtype=scores.dtype, device=scores.device)
        for new, old, chosen in zip(left, scores, where & places.valid, strict=True):
            new[:, : int(chosen.sum())] = old[:, chosen]
        return cls(kept, left)

    def take(self, index: Int[Tensor, "kept"]) -> Seen:
        """The same of a part of the batch."""
        return Seen(self.places.take(index), self.scores[index])


@dataclass(frozen=True, eq=False)
class Proposals:
    """Frozen places, labelled by objects.

    Attributes:
        scheme: what the numbers of the objects mean; its first class is the background.
        objects: what labels them, one a sample: the expert's objects, or those that the victim sees in these places.
        places: where they are.
        kinds: the class of each by the objects, background where none is.
        labels: the class of each that an attack is told: the same, or inside and outside of a region.
        where: the places that count.
        only: the region or tissue whose outside and inside are the two classes; None for all classes.
        scoring: how the detector scores what it classifies; a softmax if nothing is said.
    """

    scheme: LabelScheme
    objects: tuple[Objects, ...]
    places: Places
    kinds: Int[Tensor, "b n"]
    labels: Int[Tensor, "b n"]
    where: Bool[Tensor, "b n"]
    only: str | None = None
    scoring: Scoring = softmax

    @classmethod
    def of(cls, scheme: LabelScheme, seen: Seen, truth: Truth, matching: Matching) -> Proposals:
        """The places that objects claim; none at all where there are no objects.

        Raises:
            VictimError: not one ``Objects`` a sample, boxes with other axes, or numbers that the scheme does not know.
        """
        places = seen.places
        objects = checked(truth, scheme, len(places.valid), places.boxes.shape[-1])
        kinds = torch.zeros_like(places.valid, dtype=torch.int64)
        where = torch.zeros_like(places.valid)
        for i, all_ in enumerate(objects):
            found = all_.to(places.boxes.device)
            if len(found) == 0:
                continue
            shares = overlap(places.boxes[i].to(found.boxes), found.boxes)
            best, which = shares.max(1)
            classes = scheme.classes(found.labels)
            score = seen.scores[i].gather(0, classes[which][None])[0]
            sure = (best > matching.overlap) & (score > matching.score)
            counted = found.counted.to(which.device) & scheme.judged(found.labels) & (classes > 0)
            where[i] = sure & counted[which] & places.valid[i]
            kinds[i] = torch.where(where[i], classes[which], 0)
        return cls(scheme, objects, places, kinds, kinds, where)

    @property
    def grouped(self) -> bool:
        """Never: there is one head."""
        return False

    @property
    def truth(self) -> Truth:
        """The objects."""
        return self.objects

    def logits(self, raw: Float[Tensor, "b k n"]) -> Float[Tensor, "b classes n"]:
        """The raw answer itself, or its two classes inside and outside of a region."""
        return raw if self.only is None else Softmax(self.scheme).alone(raw, self.only)

    def decided(self, raw: Float[Tensor, "b k n"]) -> Proposals:
        """As the victim sees its places: targets are those in which it sees something."""
        kinds = raw.detach().argmax(1)
        where = self.places.valid & (kinds > 0)
        stored, boxes = self.scheme.stored(kinds), self.places.boxes.float()
        objects = tuple(Objects(boxes[i][where[i]], stored[i][where[i]]) for i in range(len(where)))
        return replace(self, objects=objects, where=where)._of_kinds(torch.where(where, kinds, 0))

    def alone(self, region: str) -> Proposals:
        """Every place once, outside the region or inside."""
        return replace(self, only=region)._of_kinds(self.kinds)

    def region(self, name: str) -> Bool[Tensor, "b n"]:
        """The places whose object is of a region or tissue."""
        return self.scheme.mask(self.scheme.stored(self.kinds), name)

    def renumbered(self, tables: Sequence[Mapping[int, int]]) -> Proposals:
        """As objects of other numbers would label them: stored number → stored number, one table a sample."""
        stored = self.scheme.stored(self.kinds)
        new = stored.clone()
        for before, after, table in zip(stored, new, tables, strict=True):
            for number, into in table.items():
                after[before == number] = into
        objects = tuple(each.renumbered(table) for each, table in zip(self.objects, tables, strict=True))
        return replace(self, objects=objects)._of_kinds(self.scheme.classes(new))

    def _of_kinds(self, kinds: Int[Tensor, "b n"]) -> Proposals:
        new = replace(self, kinds=kinds, labels=kinds)
        return new if self.only is None else replace(new, labels=new.region(self.only).long())

    def present(self) -> list[frozenset[str]]:
        """The classes that each sample's objects show, and the background, which every image shows."""
        names = {number: tissue for tissue, number in self.scheme.numbers.items()}
        shown = [{names[n] for n in each.labels.tolist() if n in names} for each in self.objects]
        return [frozenset(each | {BACKGROUND}) for each in shown]

    def mapped(self, truth: object) -> NoReturn:  # noqa: ARG002
        """A detector draws no maps.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "a detector classifies places, and has no label map",
            expected="a relabelling of classes: Turn, Fill, Permute, erase, LeastLikely",
            advice="to draw a shape or to move a region, attack a segmentation",
        )

    def labelled(self, labels: Int[Tensor, "b n"]) -> Proposals:
        """The same places with other classes; the objects stay."""
        return replace(self, labels=labels)

    def within(self, where: Bool[Tensor, "b n"]) -> Proposals:
        """The same labels; only these places count."""
        return replace(self, where=where)

    def reported(
        self, raw: Float[Tensor, "b classes n"], where: Bool[Tensor, "b n"], nms: float
    ) -> tuple[Bool[Tensor, "b n"], Float[Tensor, "b n"]]:
        """Those of some places that suppression leaves, whatever their classes, and the score of every place."""
        scores = self.scoring(raw.detach()).amax(1)
        left = torch.zeros_like(where)
        for kept, chosen, boxes, score in zip(left, where, self.places.boxes, scores, strict=True):
            if chosen.any():
                best = torch.as_tensor(non_max_suppression(boxes[chosen].float(), score[chosen].float(), nms))
                kept[chosen.nonzero().flatten()[best]] = True
        return left, scores

    def take(self, index: Int[Tensor, "kept"]) -> Proposals:
        """The targets of a part of the batch."""
        objects = tuple(self.objects[i] for i in index.tolist())
        parts = (self.places.take(index), self.kinds[index], self.labels[index], self.where[index])
        return Proposals(self.scheme, objects, *parts, self.only, self.scoring)


def checked(truth: object, scheme: LabelScheme, batch: int, corners: int) -> tuple[Objects, ...]:
    """A detector's truth, if it is one.

    Raises:
        VictimError: not one ``Objects`` a sample, boxes with other axes, or numbers that the scheme does not know.
    """
    listed = tuple(truth) if isinstance(truth, Sequence) else ()
    if len(listed) != batch or not all(isinstance(each, Objects) for each in listed):
        raise VictimError(
            "a detector's truth is the objects of each image",
            got=f"{len(listed)} of them" if listed else type(truth).__name__,
            expected=f"a list of {batch} Objects: boxes and labels",
            advice="of one case: [case.objects]" if isinstance(truth, Objects) or not listed else None,
        )
    for each in listed:
        if each.boxes.shape[1] != corners:
            raise VictimError(
                "the objects lie in an image of another number of axes",
                got=f"boxes of {each.boxes.shape[1]} numbers",
                expected=f"{corners}: lowest corner, highest corner",
            )
        if unknown := scheme.unknown(each.labels):
            raise VictimError(
                "objects are labelled by numbers that the victim does not know",
                got=unknown,
                expected=dict(scheme.numbers),
                advice="renumber them first: objects.renumbered({number: number})",
            )
    return listed
