"""What a targeted attack wants the victim to see, and where.

A relabelling changes the label map and lets the victim encode it, so that it means the same to a softmax and to a
sigmoid head. Each says which targets count: over a whole volume nearly every voxel has its wanted label already, and a
loss would be ruled by voxels nobody asked about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from medadv.attack.axes import as_tuple, dilated, each_axis, other_axes, whole
from medadv.attack.losses import Logits
from medadv.attack.rng import Rng
from medadv.attack.targets import Targets, label_map
from medadv.errors import ConfigError
from medadv.labels import BACKGROUND, LabelScheme

EVERYWHERE = "everywhere"
"""All targets count."""

CHANGED = "changed"
"""The targets count in whose voxel the wanted label is another than the label."""


@runtime_checkable
class Relabel(Protocol):
    """What the targets shall be taken for, and which of them count."""

    def __call__(self, targets: Targets, raw: Logits, rng: Rng) -> Targets:
        """The targets with the labels that the attacker wants, where he wants them.

        ``raw`` is the victim's answer without its graph: to the clean input, or to the current one where the labels
        follow it. ``rng`` gives the same draws whenever it is asked.
        """
        ...


@dataclass(frozen=True)
class Turn:
    """Turn one region into another tissue, where the region is."""

    source: str
    into: str

    def __call__(self, targets: Targets, raw: Logits, rng: Rng) -> Targets:  # noqa: ARG002
        """Relabel the region's targets; only they count."""
        numbers, into = targets.scheme.numbers, _number(targets, self.into)
        table = {numbers[tissue]: into for tissue in targets.scheme.members(self.source)}
        return _all_by(targets, table).within(targets.region(self.source) & targets.where)


def erase(region: str) -> Turn:
    """Make a region vanish: turn it into background, where it is."""
    return Turn(region, BACKGROUND)


@dataclass(frozen=True)
class Fill:
    """Turn all into one tissue: all background, a scan without a finding.

    Attributes:
        tissue: what all shall be; of a region, its first tissue.
        where: which targets count: ``"changed"``, ``"everywhere"``, or a region or tissue.
    """

    tissue: str = BACKGROUND
    where: str = CHANGED

    def __call__(self, targets: Targets, raw: Logits, rng: Rng) -> Targets:  # noqa: ARG002
        """Relabel all targets."""
        into = _number(targets, self.tissue)
        return counted(self.where, targets, _all_by(targets, dict.fromkeys(targets.scheme.numbers.values(), into)))


@dataclass(frozen=True)
class LeastLikely:
    """Each target the class that the victim finds least likely (Kurakin et al. 2017, arXiv:1611.01236).

    A region's target has two classes: its least likely one is the other side.

    Attributes:
        where: which targets count: ``"everywhere"``, ``"changed"``, or a region or tissue.
    """

    where: str = EVERYWHERE

    def __call__(self, targets: Targets, raw: Logits, rng: Rng) -> Targets:  # noqa: ARG002
        """Relabel all targets."""
        return counted(self.where, targets, targets.labelled(targets.logits(raw).argmin(1)))


@dataclass(frozen=True)
class Rank:
    """Each target the class of this rank in the victim's answer: 2 is the second likeliest (Arnab et al. 2018,
    arXiv:1711.09856). The last is the least likely. Their code counts from 0, which is the decided class: here 1.

    Attributes:
        rank: 2 or more, at most the number of classes.
        where: which targets count: ``"everywhere"``, ``"changed"``, or a region or tissue.

    Raises:
        ConfigError: no rank; when it is called: one beyond the classes of the victim.
    """

    rank: int
    where: str = EVERYWHERE

    def __post_init__(self) -> None:
        if not isinstance(self.rank, int) or isinstance(self.rank, bool) or self.rank < 2:
            raise ConfigError(
                "a wanted class is the second likeliest or a later one",
                got=repr(self.rank),
                expected="2 or more",
                cause="the likeliest class, of rank 1, is what is decided already",
            )

    def __call__(self, targets: Targets, raw: Logits, rng: Rng) -> Targets:  # noqa: ARG002
        """Relabel all targets."""
        logits = targets.logits(raw)
        if self.rank > logits.shape[1]:
            raise ConfigError("the victim has fewer classes", got=self.rank, expected=f"2 to {logits.shape[1]}")
        ranked = logits.argsort(dim=1, descending=True, stable=True)
        return counted(self.where, targets, targets.labelled(ranked[:, self.rank - 1]))


@dataclass(frozen=True)
class Permute:
    """Each tissue another one: π(c) ≠ c, drawn anew for each sample (Xie et al. 2017, arXiv:1703.08603), or given.

    Attributes:
        into: tissue → tissue, the same tissues on both sides; None for a random permutation of all of the scheme.
        background: whether the background takes part in a random one; else it stays.
        absent: draw for each tissue, independently, one that the sample does not have, as Xie et al.'s code does. Of a
            sample that has them all there is nothing to exchange: none of its targets counts.
        where: which targets count: ``"changed"``, ``"everywhere"``, or a region or tissue.

    Raises:
        ConfigError: no permutation; when it is called: tissues that the scheme does not have, or too few of them.
    """

    into: Mapping[str, str] | None = None
    background: bool = False
    absent: bool = False
    where: str = CHANGED

    def __post_init__(self) -> None:
        if self.into is not None and (set(self.into) != set(self.into.values()) or self.absent):
            raise ConfigError(
                "this is no permutation of tissues",
                got=dict(self.into),
                expected="the same tissues on both sides, each once",
                advice="to turn one region into another tissue, use Turn(region, tissue)",
            )

    def __call__(self, targets: Targets, raw: Logits, rng: Rng) -> Targets:  # noqa: ARG002
        """Relabel all targets of the tissues that take part."""
        numbers, samples = targets.scheme.numbers, len(targets.labels)
        if strange := set(self.into or ()) - set(numbers):
            raise ConfigError("these are no tissues of the labels", got=sorted(strange), expected=list(numbers))
        shown = targets.present() if self.absent else [frozenset[str]()] * samples
        tables = []
        for tissues, generator in zip(shown, rng.fork("permutation").generators(), strict=True):
            mapping = self.into or self._drawn(targets.scheme, tissues, generator)
            tables.append({numbers[source]: numbers[into] for source, into in mapping.items()})
        wanted = counted(self.where, targets, targets.renumbered(tables))
        exchanged = torch.tensor([bool(table) for table in tables], device=wanted.where.device)
        return wanted.within(wanted.where & exchanged.view(-1, *[1] * (wanted.where.ndim - 1)))

    def _drawn(self, scheme: LabelScheme, shown: frozenset[str], generator: torch.Generator) -> Mapping[str, str]:
        tissues = [t for t in scheme.tissues if self.background or t != BACKGROUND]
        choice = [t for t in tissues if t not in shown]
        if len(tissues) < 2:
            raise ConfigError(
                "there are too few tissues to permute",
                got=tissues,
                expected="two or more",
                advice=None if self.background else "let the background take part: background=True",
            )
        if self.absent and not choice:
            return {}
        if self.absent:
            drawn = torch.randint(len(choice), (len(tissues),), generator=generator).tolist()
            return {t: choice[i] for t, i in zip(tissues, drawn, strict=True) if t not in choice}
        while True:
            order = torch.randperm(len(tissues), generator=generator).tolist()
            if all(i != j for i, j in enumerate(order)):
                return {t: tissues[i] for t, i in zip(tissues, order, strict=True)}


@dataclass(frozen=True)
class Grow:
    """Make a region seem larger: the voxels within reach of it become part of it.

    Attributes:
        region: what grows.
        voxels: how far along each axis; one number, or one an axis. The reach is a box: diagonals count as one.
        into: the tissue that it grows by; None for the region's first.
        where: which targets count: ``"changed"``, the new rim alone; ``"everywhere"``, or a region or tissue.

    Raises:
        ConfigError: a reach that is negative; when it is called, one for another number of axes.
    """

    region: str
    voxels: int | tuple[int, ...]
    into: str | None = None
    where: str = CHANGED

    def __post_init__(self) -> None:
        object.__setattr__(self, "voxels", whole(self.voxels))
        if min(as_tuple(self.voxels), default=-1) < 0:
            raise ConfigError("a region grows by whole voxels", got=self.voxels, expected="0 or more")

    def __call__(self, targets: Targets, raw: Logits, rng: Rng) -> Targets:  # noqa: ARG002
        """Relabel the rim."""
        truth = label_map(targets)
        mask = targets.scheme.mask(truth, self.region)
        reach = each_axis(self.voxels, mask)
        rim = dilated(mask, reach) & ~mask
        wanted = torch.where(rim, _number(targets, self.into or self.region), truth)
        return counted(self.where, targets, targets.mapped(wanted))


@dataclass(frozen=True)
class Shift:
    """Move a region with all its tissues; what leaves the image is gone.

    Attributes:
        region: what moves.
        by: voxels along each axis.
        behind: the tissue that is seen where it was.
        where: which targets count: ``"changed"``, ``"everywhere"``, or a region or tissue.

    Raises:
        ConfigError: no whole voxels; when it is called, a vector of another number of axes.
    """

    region: str
    by: tuple[int, ...]
    behind: str = BACKGROUND
    where: str = CHANGED

    def __post_init__(self) -> None:
        object.__setattr__(self, "by", as_tuple(whole(self.by)))

    def __call__(self, targets: Targets, raw: Logits, rng: Rng) -> Targets:  # noqa: ARG002
        """Relabel the old place and the new one."""
        truth = label_map(targets)
        mask = targets.scheme.mask(truth, self.region)
        if len(self.by) != mask.ndim - 1:
            raise other_axes(self.by, mask)
        left = torch.where(mask, _number(targets, self.behind), truth)
        axes = tuple(range(1, mask.ndim))
        arrived = torch.roll(mask, self.by, axes)
        for axis, n in zip(axes, self.by, strict=True):
            size = mask.shape[axis]
            beyond = min(abs(n), size)  # rolled in from the other side
            arrived.narrow(axis, 0 if n > 0 else size - beyond, beyond).fill_(False)
        wanted = torch.where(arrived, torch.roll(truth, self.by, axes), left)
        return counted(self.where, targets, targets.mapped(wanted))


@dataclass(frozen=True, eq=False)
class Draw:
    """Make the victim see a given label map.

    Attributes:
        truth: the wanted map ``(b, *s)`` in the victim's stored label numbers.
        where: the voxels of it that matter, the others being free: a mask, ``"changed"``, ``"everywhere"``, or a region
            or tissue.
    """

    truth: Int[Tensor, "b *s"]
    where: Bool[Tensor, "b *s"] | str = CHANGED

    def __call__(self, targets: Targets, raw: Logits, rng: Rng) -> Targets:  # noqa: ARG002
        """Relabel all targets; those under ``where`` count.

        Raises:
            ConfigError: a map or a mask of another shape than the label map of the batch.
        """
        truth = label_map(targets)
        masks = {} if isinstance(self.where, str) else {"where": self.where}
        for name, drawn in ({"truth": self.truth} | masks).items():
            if drawn.shape != truth.shape:
                without = drawn.shape == truth.shape[1:] and len(truth) == 1
                raise ConfigError(
                    f"what is drawn has another shape than the label map: Draw.{name}",
                    got=tuple(drawn.shape),
                    expected=tuple(truth.shape),
                    advice=f"the batch axis comes first: {name}[None]" if without else None,
                )
        wanted = targets.mapped(self.truth)
        if isinstance(self.where, str):
            return counted(self.where, targets, wanted)
        where = self.where.unsqueeze(1).expand_as(wanted.labels) if targets.grouped else self.where
        return wanted.within(where & targets.where)


def as_relabel(relabel: object) -> Relabel:
    """What relabels, or advice.

    Raises:
        ConfigError: it does not relabel.
    """
    if not isinstance(relabel, Relabel):
        raise ConfigError(
            "a targeted attack has to know what to make of which voxels",
            got=repr(relabel),
            expected="erase(region), Turn(region, tissue) or another of medadv.attack.relabel",
            advice=f'to make it vanish, give erase("{relabel}")' if isinstance(relabel, str) else None,
        )
    return relabel


def counted(where: str, targets: Targets, wanted: Targets) -> Targets:
    """The wanted labels, and where they count: ``"changed"``, ``"everywhere"``, or in a region or tissue."""
    if where == EVERYWHERE:
        return wanted.within(targets.where)
    if where != CHANGED:
        return wanted.within(targets.region(where) & targets.where)
    differs = wanted.labels != targets.labels
    if targets.grouped:  # a voxel counts with all its regions
        differs = differs.any(1, keepdim=True).expand_as(differs)
    return wanted.within(differs & targets.where)


def _all_by(targets: Targets, table: Mapping[int, int]) -> Targets:
    """Every sample renumbered by the same table."""
    return targets.renumbered([table] * len(targets.labels))


def _number(targets: Targets, name: str) -> int:
    """The stored number of a tissue, or of a region's first."""
    return targets.scheme.numbers[targets.scheme.members(name)[0]]
