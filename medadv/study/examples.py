"""The training cases of a victim, preprocessed whole as its network is fed them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, overload

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from medadv.attack.budget import Budget
from medadv.data.case import Case, Volume
from medadv.data.support import support
from medadv.defense.crops import Example
from medadv.defense.inner import check_measured, radius_on
from medadv.defense.soft_labels import SoftLabels
from medadv.errors import BudgetError
from medadv.study.entry import Entry
from medadv.study.folder import versions
from medadv.study.inputs import read_labelled
from medadv.study.reach import Reach
from medadv.victims.preprocess import Way
from medadv.victims.segmentation import Segmenter

MEMORY = 4 * 2**30
"""How many bytes of training cases are kept in memory, unless said otherwise."""

Voxels = Callable[[Case], Float[Tensor, "c *s"]]


@dataclass(frozen=True)
class Inner:
    """What an attack inside a lesson has to know of each case.

    Attributes:
        budget: the highest that it is given, in a unit that a normalised image has, too; several amounts are in the
            order of the data's modalities, as everywhere in a study.
        reach: where voxels may change.

    Raises:
        ConfigError: a budget in stored units or 0–255.
    """

    budget: Budget
    reach: Reach = Reach()  # noqa: RUF009  (a frozen value)

    def __post_init__(self) -> None:
        check_measured(self.budget)


class Examples(Sequence[Example]):
    """The training cases, preprocessed whole. As many as fit into memory stay there, the others in the cache.

    Args:
        victim: whose preprocessing it is.
        entry: which cases, and where the cache is.
        inner: for lessons that attack: each example gets its support and its radius on the network's grid.
        soft: for students of a teacher that was asked once a case: each example gets its soft labels.
        voxels: other voxels for a case than its file's, ``(c, *s)`` in stored units on its grid: those of an attack.
            They are normalised by their own statistics, as a file with them would be.
        memory: bytes that may be kept; a share of ``MEMORY`` for each of several sets; None for ``MEMORY``.
    """

    def __init__(
        self,
        victim: Segmenter,
        entry: Entry,
        *,
        inner: Inner | None = None,
        soft: SoftLabels | None = None,
        voxels: Voxels | None = None,
        memory: int | None = None,
    ) -> None:
        self._cases = cases = entry.fold.train
        pipeline = victim.preprocessing()
        made_by = {name: pipeline.get(name) for name in ("modalities", "given", "preprocess", "scheme")}
        if inner is not None:
            made_by["inner"] = {"budget": str(inner.budget), **inner.reach.settings()}
        everything_fits = True

        def tensors(case: Case) -> Mapping[str, Tensor]:
            other = None if voxels is None else voxels(case)
            if everything_fits:
                return _preprocessed(victim, case, inner, other)
            digests = entry.parts.digests[case.case]
            key = {"voxels": digests.voxels, "label": digests.label, **made_by, "versions": versions()}
            return entry.cache.get(key | _content(other), lambda: _preprocessed(victim, case, inner, other))

        def prepared(index: int) -> Example:
            example = Example(**tensors(cases[index]), case=cases[index].case)
            return example if soft is None else replace(example, soft=soft(example.z))

        first = prepared(0)
        held = (first.z, first.truth, first.support, first.soft)
        room = max(1, (memory or MEMORY) // sum(tensor.nbytes for tensor in held if tensor is not None))
        everything_fits = room >= len(cases)
        self._prepared = lru_cache(maxsize=room)(prepared)

    def __len__(self) -> int:
        return len(self._cases)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self._prepared(i) for i in range(*index.indices(len(self)))]
        return self._prepared(index)


def _preprocessed(
    victim: Segmenter, case: Case, inner: Inner | None, other: Float[Tensor, "c *s"] | None
) -> dict[str, Tensor]:
    """A case as the network is fed it, ``z (c, *s)``, and its label map on that grid, in the victim's numbers."""
    volume = read_labelled(case)
    assert volume.truth is not None
    x = victim.own((volume.x if other is None else other)[None])
    way = Way.prepared(victim.steps, x, volume.affine)
    truth = volume.case.scheme.translate(volume.truth, victim.scheme)
    found = {"z": way(x)[0], "truth": way.labels(truth[None])[0]}
    if inner is not None:
        found["support"] = _placed_support(victim, way, volume, inner.reach)
        found["radius"] = radius_on(_own_budget(victim, inner.budget), found["z"], found["support"])
    return found


def _own_budget(victim: Segmenter, budget: Budget) -> Budget:
    """The amounts of the victim's own modalities, in its order.

    Raises:
        BudgetError: there is not one amount for each modality of the data.
    """
    given = victim.given or victim.modalities
    if len(budget.amounts) == 1:
        return budget
    if len(budget.amounts) != len(given):
        raise BudgetError(
            "the budget has another number of modalities than the data",
            got=len(budget.amounts),
            expected=f"one amount, or {len(given)}: {', '.join(given)}",
        )
    return replace(budget, amount=tuple(budget.amounts[given.index(name)] for name in victim.modalities))


def _placed_support(victim: Segmenter, way: Way, volume: Volume, reach: Reach) -> Bool[Tensor, "c *s"]:
    """Where each of the victim's modalities may change, on the network's grid."""
    stored = reach(support(volume, reach.kind)[None], volume.case.modalities)
    own = victim.own(stored.float())[0].long()
    return torch.stack([way.labels(channel[None])[0] for channel in own]).bool()


def _content(voxels: Float[Tensor, "c *s"] | None) -> dict[str, Any]:
    """What names voxels that are not the file's."""
    if voxels is None:
        return {}
    whole = voxels.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return {"instead": hashlib.sha256(whole.data).hexdigest()}
