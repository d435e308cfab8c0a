"""What a network's channels mean: one class a tissue (softmax), or one channel a region (sigmoid).

Both answer as classified targets: a softmax head classifies each voxel into tissues, a sigmoid head each voxel of each
region into "outside" and "inside". A two-class softmax of (0, z) is the sigmoid of z, so every loss serves both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from medadv.errors import ConfigError, VictimError
from medadv.labels import BACKGROUND, LabelScheme
from medadv.objects import Truth

SURE = 30.0
"""A logit beyond doubt: the odds are e**30."""


@runtime_checkable
class Head(Protocol):
    """The meaning of the channels that a network answers with."""

    @property
    def name(self) -> str:
        """``softmax`` or ``sigmoid``."""
        ...

    @property
    def scheme(self) -> LabelScheme:
        """What the victim's label numbers mean."""
        ...

    @property
    def channels(self) -> tuple[str, ...]:
        """The name of each channel, in order."""
        ...

    @property
    def grouped(self) -> bool:
        """Whether the first axis of the targets separates independent heads."""
        ...

    @property
    def nothing(self) -> tuple[float, ...]:
        """The answer, channel by channel, that says background and nothing else."""
        ...

    def logits(self, answer: Float[Tensor, "b k *s"]) -> Float[Tensor, "b classes *targets"]:
        """The network's answer as logits over classes, target by target."""
        ...

    def decide(self, logits: Float[Tensor, "b classes *targets"]) -> Int[Tensor, "b *s"]:
        """Logits → label map in stored numbers."""
        ...

    def alone(self, logits: Float[Tensor, "b classes *targets"], name: str) -> Float[Tensor, "b 2 *s"]:
        """Logits → two of them for each voxel: outside a region or tissue, and inside."""
        ...

    def encode(self, truth: Int[Tensor, "b *s"]) -> Int[Tensor, "b *targets"]:
        """Label map in stored numbers → the class of each target."""
        ...

    def spread(self, mask: Bool[Tensor, "b *s"]) -> Bool[Tensor, "b *targets"]:
        """A mask over voxels as a mask over targets."""
        ...

    def answers(self, name: str) -> bool:
        """Whether the decided label map can tell a region or tissue of the scheme.

        Raises:
            ConfigError: the name is neither.
        """
        ...


@dataclass(frozen=True)
class Softmax:
    """One channel a tissue, in the order of the scheme's numbers; exactly one holds in each voxel."""

    scheme: LabelScheme
    grouped: bool = field(default=False, init=False)
    name: Literal["softmax"] = field(default="softmax", init=False)

    @property
    def channels(self) -> tuple[str, ...]:
        """The tissues, background first if its number is lowest."""
        return self.scheme.tissues

    @property
    def nothing(self) -> tuple[float, ...]:
        """0 for background, far below for every tissue."""
        return tuple(0.0 if tissue == BACKGROUND else -SURE for tissue in self.channels)

    def logits(self, answer: Float[Tensor, "b k *s"]) -> Float[Tensor, "b k *s"]:
        """The answer itself."""
        return answer

    def decide(self, logits: Float[Tensor, "b k *s"]) -> Int[Tensor, "b *s"]:
        """The likeliest tissue."""
        return self.scheme.stored(logits.argmax(1))

    def alone(self, logits: Float[Tensor, "b k *s"], name: str) -> Float[Tensor, "b 2 *s"]:
        """The probabilities of the tissues added up, on both sides: a softmax of these two is P(inside)."""
        members = self.scheme.members(name)
        sides = [[i for i, t in enumerate(self.channels) if (t in members) == inside] for inside in (False, True)]
        return torch.stack([logits[:, side].logsumexp(1) for side in sides], 1)

    def encode(self, truth: Int[Tensor, "b *s"]) -> Int[Tensor, "b *s"]:
        """The index of the tissue."""
        return self.scheme.classes(truth)

    def spread(self, mask: Bool[Tensor, "b *s"]) -> Bool[Tensor, "b *s"]:
        """The mask itself."""
        return mask

    def answers(self, name: str) -> bool:
        """Always: every tissue has its channel."""
        return bool(self.scheme.members(name))


@dataclass(frozen=True)
class Sigmoid:
    """One channel a region; regions may overlap (WT ⊃ TC ⊃ ET)."""

    scheme: LabelScheme
    regions: tuple[str, ...]
    grouped: bool = field(default=True, init=False)
    name: Literal["sigmoid"] = field(default="sigmoid", init=False)

    def __post_init__(self) -> None:
        if not self.regions or not set(self.regions) <= set(self.scheme.regions):
            raise ConfigError(
                f"a sigmoid head has one channel a region of its label scheme, here {self.scheme.name!r}",
                got=list(self.regions),
                expected=f"some of {list(self.scheme.regions)}",
                advice="declare the region in the scheme; a scheme without regions wants a softmax head",
            )

    @property
    def channels(self) -> tuple[str, ...]:
        """The regions."""
        return self.regions

    @property
    def nothing(self) -> tuple[float, ...]:
        """Far below even odds in every region."""
        return (-SURE,) * len(self.regions)

    def logits(self, answer: Float[Tensor, "b r *s"]) -> Float[Tensor, "b 2 r *s"]:
        """(0, z) for each region: outside, inside."""
        return torch.stack([torch.zeros_like(answer), answer], 1)

    def decide(self, logits: Float[Tensor, "b 2 r *s"]) -> Int[Tensor, "b *s"]:
        """Regions above even odds, painted into one label map."""
        return self.scheme.paint(logits[:, 1] > logits[:, 0], self.regions)

    def alone(self, logits: Float[Tensor, "b 2 r *s"], name: str) -> Float[Tensor, "b 2 *s"]:
        """A region's own channel. A tissue's probability is that of all answers that are painted as this tissue, the
        channels taken as independent: of oedema, inside WT and outside TC and ET.

        Raises:
            ConfigError: the painted answers cannot tell it.
        """
        if name in self.regions:
            return logits[:, :, self.regions.index(name)]
        if not self.answers(name):
            raise ConfigError(f"a head of {list(self.regions)} cannot tell {name!r}", advice="ask for another region")
        n = len(self.regions)
        answers = torch.cartesian_prod(*[torch.tensor([False, True])] * n).view(-1, n)
        painted = self.scheme.mask(self.scheme.paint(answers.T[None], self.regions)[0], name)
        # A channel that tells nothing is left out: it would leave rounding errors, of which a sign makes whole steps.
        grid = painted.view([2] * n)
        telling = [r for r in range(n) if not torch.equal(grid.select(r, 0), grid.select(r, 1))]
        once = ~answers[:, [r for r in range(n) if r not in telling]].any(1)
        shares = logits.log_softmax(1)

        def log_probability(some: Bool[Tensor, "n"]) -> Float[Tensor, "b *s"]:
            each = [torch.stack([shares[:, int(a[r]), r] for r in telling]).sum(0) for a in answers[some & once]]
            return torch.stack(each).logsumexp(0)

        return torch.stack([log_probability(~painted), log_probability(painted)], 1)

    def encode(self, truth: Int[Tensor, "b *s"]) -> Int[Tensor, "b r *s"]:
        """1 where the region holds."""
        return torch.stack([self.scheme.mask(truth, region) for region in self.regions], 1).long()

    def spread(self, mask: Bool[Tensor, "b *s"]) -> Bool[Tensor, "b r *s"]:
        """The mask for every region."""
        return mask.unsqueeze(1).expand(-1, len(self.regions), *mask.shape[1:])

    def answers(self, name: str) -> bool:
        """Whether a flawless answer, painted, shows the name where the truth has it: asked of one voxel a tissue.

        (WT, TC, ET) tell the three tissues apart; WT alone tells WT, painted in one of its tissues, and nothing else.
        """
        truth = self.scheme.stored(torch.arange(len(self.scheme.tissues))).unsqueeze(0)
        told = self.scheme.paint(self.encode(truth).bool(), self.regions)
        return torch.equal(self.scheme.mask(told, name), self.scheme.mask(truth, name))


@dataclass(frozen=True, eq=False)
class Voxels:
    """The targets of a segmentation: every voxel (of every region), labelled by a label map.

    Attributes:
        head: how label maps become classes.
        truth: the label map ``(b, *s)`` in the victim's stored numbers.
        labels: the class of each target.
        where: the targets that count.
        only: the region or tissue whose inside and outside are the two classes; None for all classes of the head.
    """

    head: Head
    truth: Int[Tensor, "b *s"]
    labels: Int[Tensor, "b *targets"]
    where: Bool[Tensor, "b *targets"]
    only: str | None = None

    @classmethod
    def of(cls, head: Head, truth: Truth, only: str | None = None) -> Voxels:
        """All voxels, as a label map has them.

        Raises:
            VictimError: no label map, or one that holds numbers that the head's scheme does not know.
        """
        if not isinstance(truth, Tensor):
            raise VictimError(
                "a segmentation is attacked by a label map",
                got=type(truth).__name__,
                expected="(b, *s): the stored label number of each voxel",
                advice="give volume.truth[None]; lists of objects are for detectors",
            )
        if unknown := head.scheme.unknown(truth):
            raise VictimError(
                "the label map holds numbers that the victim does not know",
                got=unknown,
                expected=dict(head.scheme.numbers),
                advice="translate the labels first: data_scheme.translate(truth, victim.head.scheme)",
            )
        labels = head.encode(truth) if only is None else head.scheme.mask(truth, only).long()
        judged = head.scheme.judged(truth)
        grouped = head.grouped and only is None
        return cls(head, truth, labels, head.spread(judged) if grouped else judged, only)

    @property
    def scheme(self) -> LabelScheme:
        """What the numbers of the label map mean."""
        return self.head.scheme

    @property
    def grouped(self) -> bool:
        """Whether the first axis of the targets is regions."""
        return self.head.grouped and self.only is None

    def logits(self, raw: Float[Tensor, "b k *all"]) -> Float[Tensor, "b classes *targets"]:
        """The raw answer itself, or its two classes inside and outside of a region."""
        return raw if self.only is None else self.head.alone(raw, self.only)

    def decided(self, raw: Float[Tensor, "b k *all"]) -> Voxels:
        """As the victim's deployed label map has them. All count: it has no void, and the expert's is not known to who
        has this map alone."""
        new = self.mapped(self.head.decide(raw))
        return new.within(torch.ones_like(new.where))

    def alone(self, region: str) -> Voxels:
        """Every voxel once, outside the region or inside."""
        where = self.where.any(1) if self.grouped else self.where
        return replace(Voxels.of(self.head, self.truth, region), where=where)

    def region(self, name: str) -> Bool[Tensor, "b *targets"]:
        """The targets in the voxels of a region or tissue."""
        mask = self.scheme.mask(self.truth, name)
        return mask if self.only is not None else self.head.spread(mask)

    def present(self) -> list[frozenset[str]]:
        """The tissues that each sample's label map shows."""
        numbers = [set(torch.unique(sample).tolist()) for sample in self.truth]
        return [frozenset(t for t, number in self.scheme.numbers.items() if number in shown) for shown in numbers]

    def renumbered(self, tables: Sequence[Mapping[int, int]]) -> Voxels:
        """As a label map of other numbers would have them: number → number, one table a sample."""
        truth = self.truth.clone()
        for before, after, table in zip(self.truth, truth, tables, strict=True):
            for number, into in table.items():
                after[before == number] = into
        return self.mapped(truth)

    def mapped(self, truth: Int[Tensor, "b *s"]) -> Voxels:
        """As another label map would have them.

        Raises:
            VictimError: the label map holds numbers that the head's scheme does not know.
        """
        return replace(Voxels.of(self.head, truth, self.only), where=self.where)

    def labelled(self, labels: Int[Tensor, "b *targets"]) -> Voxels:
        """The same voxels with other classes; the label map stays."""
        return replace(self, labels=labels)

    def within(self, where: Bool[Tensor, "b *targets"]) -> Voxels:
        """The same labels; only these targets count."""
        return replace(self, where=where)

    def take(self, index: Int[Tensor, "kept"]) -> Voxels:
        """The targets of a part of the batch."""
        return replace(self, truth=self.truth[index], labels=self.labels[index], where=self.where[index])


def make_head(name: Literal["softmax", "sigmoid"], scheme: LabelScheme, regions: Sequence[str] | None = None) -> Head:
    """A head by its name: ``softmax`` over the scheme's tissues, or ``sigmoid`` over regions (None: all it has)."""
    return Softmax(scheme) if name == "softmax" else Sigmoid(scheme, tuple(regions or scheme.regions))
