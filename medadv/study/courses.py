"""What each kind of victim is trained by: its lesson, what it is shown, what it is asked on validation cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import overload

import torch
from torch import nn

from medadv.data.case import Volume
from medadv.defense.crops import Crops
from medadv.defense.detecting import Detecting
from medadv.defense.pictures import Picture, Pictures
from medadv.defense.ranks import ALONE, Group
from medadv.defense.training import Batch
from medadv.objects import Objects
from medadv.study.defending import Company, Examination, lesson, training_set
from medadv.study.entry import Entry
from medadv.study.examples import MEMORY
from medadv.study.inputs import read_labelled
from medadv.study.progress import Watch
from medadv.study.records import ALL
from medadv.study.tasks import DETECTION, Subject
from medadv.victims.detection import Detector
from medadv.victims.formats.opening import mirrored, segmenter

Asked = Callable[[Subject, Volume], tuple[float, float | None]]
"""Victim and validation case → its Dice, and the same under attack where a checkpoint is chosen by that."""


@dataclass(frozen=True)
class Course:
    """A training, but for the loop.

    Attributes:
        deployed: the victim as it is validated.
        lesson: what its network is to learn.
        batches: the batch of a step.
        asked: what it is asked on a validation case.
        attacked: whether it is asked under attack, too.
    """

    deployed: Subject
    lesson: nn.Module
    batches: Callable[[int], Batch]
    asked: Asked
    attacked: bool = False


def course(entry: Entry, bare: Subject, company: Company, group: Group = ALONE, watch: Watch | None = None) -> Course:
    """How a victim is trained.

    Args:
        entry: what it is to be, and which cases it may see.
        bare: the victim with fresh weights, which learn.
        company: the other victims that it is made with.
        group: the ranks that learn together.
        watch: told of what takes long.

    Raises:
        ConfigError: a teacher with another head, or pictures of several sizes for a detector.
    """
    training = entry.spec.training
    ranked = {"rank": group.rank, "ranks": group.size}
    if isinstance(bare, Detector):
        victim = bare.reading(entry.parts.modalities)
        shown = Pictures(_Shown(victim, entry), training.batch, training.flips, entry.seed, **ranked)
        return Course(victim, Detecting(bare.network, bare.looking, bare.scheme), shown, found)
    reading = bare.reading(entry.parts.modalities)
    deployed = mirrored(bare, entry.spec.mirror).reading(entry.parts.modalities) if entry.spec.mirror else reading
    examples = training_set(entry, reading, company, group, watch)
    crops = Crops(examples, training.roi, training.batch, training.flips, entry.seed, **ranked)
    examination = Examination(entry)

    def asked(victim: Subject, volume: Volume) -> tuple[float, float | None]:
        return examination(segmenter(victim), volume)

    return Course(deployed, lesson(entry, bare, company), crops, asked, examination.drill is not None)


def found(victim: Subject, volume: Volume) -> tuple[float, None]:
    """How well a detector does on one case: the Dice of objects, 2 found / (there + reported), at an overlap of .5."""
    assert isinstance(victim, Detector)
    answer = DETECTION.told(victim.predict(volume.x[None].to(victim.device)), victim.scheme, volume.case.scheme)
    measure = DETECTION.measures(answer, volume, [ALL], ())[0]
    every = measure.truth + measure.predicted
    return (2 * measure.hit / every if every else 1.0), None


class _Shown(Sequence[Picture]):
    """The training cases whole, normalised as the network is fed them; as many as fit into memory stay there."""

    def __init__(self, victim: Detector, entry: Entry) -> None:
        self._cases = entry.fold.train

        def prepared(index: int) -> Picture:
            volume = read_labelled(self._cases[index])
            objects = DETECTION.posed(DETECTION.truth(volume), volume.case.scheme, victim.scheme)[0]
            with torch.no_grad():
                z = victim.own(volume.x[None])
                for step in victim.steps:
                    z = step(z)
            assert isinstance(objects, Objects)
            return Picture(z[0], objects, volume.case.case)

        room = max(1, MEMORY // prepared(0).z.nbytes)
        self._prepared = lru_cache(maxsize=room)(prepared)

    def __len__(self) -> int:
        return len(self._cases)

    @overload
    def __getitem__(self, index: int) -> Picture: ...
    @overload
    def __getitem__(self, index: slice) -> list[Picture]: ...
    def __getitem__(self, index: int | slice) -> Picture | list[Picture]:
        if isinstance(index, slice):
            return [self._prepared(i) for i in range(*index.indices(len(self)))]
        return self._prepared(index)
