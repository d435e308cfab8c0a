"""The training cases of a victim, preprocessed whole as its network is fed them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import overload

import torch

from medadv.data.case import Case
from medadv.defense.crops import Example
from medadv.study.entry import Entry
from medadv.study.folder import versions
from medadv.study.inputs import read_labelled
from medadv.victims.preprocess import Way
from medadv.victims.segmentation import Segmenter

MEMORY = 4 * 2**30
"""How many bytes of training cases are kept in memory."""


class Examples(Sequence[Example]):
    """The training cases, preprocessed whole. As many as fit into ``MEMORY`` stay there, the others in the cache."""

    def __init__(self, victim: Segmenter, entry: Entry) -> None:
        self._cases = cases = entry.fold.train
        pipeline = victim.preprocessing()
        made_by = {name: pipeline.get(name) for name in ("modalities", "given", "preprocess", "scheme")}
        everything_fits = True

        def prepared(index: int) -> Example:
            if everything_fits:
                return Example(**_preprocessed(victim, cases[index]))
            digests = entry.parts.digests[cases[index].case]
            key = {"voxels": digests.voxels, "label": digests.label, **made_by, "versions": versions()}
            return Example(**entry.cache.get(key, lambda: _preprocessed(victim, cases[index])))

        first = prepared(0)
        room = max(1, MEMORY // (first.z.nbytes + first.truth.nbytes))
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


def _preprocessed(victim: Segmenter, case: Case) -> dict[str, torch.Tensor]:
    """A case as the network is fed it, ``z (c, *s)``, and its label map on that grid, in the victim's numbers."""
    volume = read_labelled(case)
    assert volume.truth is not None
    x = victim.own(volume.x[None])
    way = Way.prepared(victim.steps, x, volume.affine)
    truth = volume.case.scheme.translate(volume.truth, victim.head.scheme)
    return {"z": way(x)[0], "truth": way.labels(truth[None])[0]}
