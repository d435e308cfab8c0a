"""What victims are asked: the label of every voxel, or boxes around objects. The one place that knows both.

A study holds cases, victims, conditions and scores together without knowing what a truth is: it asks the victim's task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from medadv.data.case import Case, Volume
from medadv.errors import CaseError, Reason
from medadv.labels import BACKGROUND, LabelScheme
from medadv.objects import Objects, Truth
from medadv.study.metrics import MetricName
from medadv.study.object_list import ObjectList
from medadv.study.records import ALL
from medadv.study.scores import DETECTION as OF_OBJECTS
from medadv.study.scores import PICTURES, VOLUMES, Measure, score, score_objects
from medadv.victims.certainty import Certainty
from medadv.victims.detection import Detector
from medadv.victims.segmentation import Segmenter
from medadv.victims.thrift import SAVINGS, Saving

Subject = Segmenter | Detector
"""Whoever a study can attack."""

Answer = Int[Tensor, "*s"] | Objects
"""What is said of one image, or true of it, in the data's numbers."""


@runtime_checkable
class Task(Protocol):
    """What a victim is asked, and how well it answers."""

    def check(self, case: Case) -> None:
        """Refuse a case whose truth is not known.

        Raises:
            CaseError: MISSING_LABEL.
        """
        ...

    def truth(self, volume: Volume) -> Answer:
        """What the expert says of a case."""
        ...

    def posed(self, answer: Answer, scheme: LabelScheme, own: LabelScheme) -> Truth:
        """A truth in the data's scheme as a victim is attacked on it: in its own numbers, a batch of one."""
        ...

    def told(self, decision: Any, own: LabelScheme, scheme: LabelScheme) -> Answer:
        """A victim's decision about a batch of one, in the data's numbers, in the computer's own memory."""
        ...

    def answers(self, victim: Subject, region: str) -> bool:
        """Whether a victim can be scored on a region, tissue or class.

        Raises:
            ConfigError: there is none of this name.
        """
        ...

    def metrics(self, asked: Sequence[MetricName] | None, axes: int) -> tuple[MetricName, ...]:
        """What is scored of images of so many axes, where a study asks for some metrics or for none in particular."""
        ...

    def regions(self, scheme: LabelScheme, axes: int) -> tuple[str, ...]:
        """What is scored of images of so many axes, where a study names nothing."""
        ...

    def measures(
        self, answer: Answer, volume: Volume, regions: Sequence[str], metrics: Sequence[MetricName]
    ) -> list[Measure]:
        """The scores of an answer."""
        ...

    def agreement(self, one: Answer, other: Answer) -> float:
        """The share of targets on which two answers agree."""
        ...

    def certainty(self, victim: Subject, x: Float[Tensor, "1 c *s"], truth: Truth) -> dict[str, float] | None:
        """How sure the deployed answer is, over the targets that count; None where nobody knows."""
        ...

    def kept(self, answer: Answer, volume: Volume) -> dict[str, ObjectList]:
        """What a record keeps of an answer beside its scores."""
        ...

    @property
    def savings(self) -> Sequence[Saving]:
        """What is tried, in order, when a device is full."""
        ...


@dataclass(frozen=True)
class Segmentation:
    """Which tissue every voxel belongs to."""

    def check(self, case: Case) -> None:
        """A label map is needed."""
        if not case.labelled:
            raise CaseError(Reason.MISSING_LABEL, f"{case.case} has no label map")

    def truth(self, volume: Volume) -> Answer:
        """The expert's label map."""
        self.check(volume.case)
        assert volume.truth is not None
        return volume.truth

    def posed(self, answer: Answer, scheme: LabelScheme, own: LabelScheme) -> Truth:
        """The label map in the victim's numbers."""
        assert isinstance(answer, Tensor)
        return scheme.translate(answer, own)[None]

    def told(self, decision: Int[Tensor, "1 *s"], own: LabelScheme, scheme: LabelScheme) -> Answer:
        """The label map in the data's numbers."""
        return own.translate(decision[0].cpu(), scheme)

    def answers(self, victim: Subject, region: str) -> bool:
        """What the channels of its head can tell; all of it together."""
        assert isinstance(victim, Segmenter)
        return region == ALL or victim.head.answers(region)

    def metrics(self, asked: Sequence[MetricName] | None, axes: int) -> tuple[MetricName, ...]:
        """Dice and HD95 of volumes, IoU of pictures."""
        own = tuple(metric for metric in asked or () if metric not in OF_OBJECTS)
        return own or (VOLUMES if axes == 3 else PICTURES)

    def regions(self, scheme: LabelScheme, axes: int) -> tuple[str, ...]:
        """Regions and tissues; of a picture all classes together, and each, background among them if there is one."""
        return scheme.names if axes == 3 else (ALL, *scheme.scorable)

    def measures(
        self, answer: Answer, volume: Volume, regions: Sequence[str], metrics: Sequence[MetricName]
    ) -> list[Measure]:
        """Overlap and distance, region by region."""
        truth = self.truth(volume)
        assert isinstance(answer, Tensor)
        assert isinstance(truth, Tensor)
        return score(answer, truth, volume.case.scheme, volume.spacing, regions, metrics)

    def agreement(self, one: Answer, other: Answer) -> float:
        """The share of voxels."""
        assert isinstance(one, Tensor)
        assert isinstance(other, Tensor)
        return float((one == other).double().mean())

    def certainty(self, victim: Subject, x: Float[Tensor, "1 c *s"], truth: Truth) -> dict[str, float] | None:
        """By the deployed logits; a format's own predictor tells none."""
        assert isinstance(victim, Segmenter)
        logits = victim.deployed_logits(x)
        if logits is None:
            return None
        (sure,) = Certainty.of(logits).mean(victim.targets(truth).where)
        told = {"confidence": sure.confidence, "doubt": sure.doubt, "entropy": sure.entropy, "lead": sure.lead}
        return told if sure.targets else None

    def kept(self, answer: Answer, volume: Volume) -> dict[str, ObjectList]:  # noqa: ARG002
        """Nothing: the counts of its scores are enough."""
        return {}

    @property
    def savings(self) -> Sequence[Saving]:
        """Smaller groups of windows, layers that forget, volumes elsewhere."""
        return SAVINGS


@dataclass(frozen=True)
class Detection:
    """Where objects are, and of which class."""

    def check(self, case: Case) -> None:
        """Boxes are needed, if only an empty list of them."""
        if case.objects is None:
            raise CaseError(Reason.MISSING_LABEL, f"{case.case} has no boxes")

    def truth(self, volume: Volume) -> Answer:
        """The expert's boxes."""
        self.check(volume.case)
        assert volume.case.objects is not None
        return volume.case.objects

    def posed(self, answer: Answer, scheme: LabelScheme, own: LabelScheme) -> Truth:
        """The boxes in the victim's numbers."""
        assert isinstance(answer, Objects)
        return [_renumbered(answer, scheme, own)]

    def told(self, decision: Sequence[Objects], own: LabelScheme, scheme: LabelScheme) -> Answer:
        """The boxes in the data's numbers."""
        return _renumbered(decision[0].to("cpu"), own, scheme)

    def answers(self, victim: Subject, region: str) -> bool:
        """Every class of its own; all of them together."""
        return region == ALL or (region != BACKGROUND and bool(victim.scheme.members(region)))

    def metrics(self, asked: Sequence[MetricName] | None, axes: int) -> tuple[MetricName, ...]:  # noqa: ARG002
        """Recall and false positives; average precision is that of a data set, and made from what records keep."""
        return OF_OBJECTS

    def regions(self, scheme: LabelScheme, axes: int) -> tuple[str, ...]:  # noqa: ARG002
        """All classes together, and each."""
        return (ALL, *scheme.names)

    def measures(
        self, answer: Answer, volume: Volume, regions: Sequence[str], metrics: Sequence[MetricName]  # noqa: ARG002
    ) -> list[Measure]:
        """Recall and false positives, class by class."""
        truth = self.truth(volume)
        assert isinstance(answer, Objects)
        assert isinstance(truth, Objects)
        return score_objects(answer, truth, volume.case.scheme, regions)

    def agreement(self, one: Answer, other: Answer) -> float:
        """Whether they are the same: a detector has one way to answer."""
        return float(isinstance(one, Objects) and isinstance(other, Objects) and torch.equal(one.boxes, other.boxes))

    def certainty(
        self, victim: Subject, x: Float[Tensor, "1 c *s"], truth: Truth  # noqa: ARG002
    ) -> dict[str, float] | None:
        """Scores are told with the objects."""
        return None

    def kept(self, answer: Answer, volume: Volume) -> dict[str, ObjectList]:
        """Both lists: average precision is that of a data set."""
        truth = self.truth(volume)
        assert isinstance(answer, Objects)
        assert isinstance(truth, Objects)
        scheme = volume.case.scheme
        return {"found": ObjectList.of(answer, scheme), "objects": ObjectList.of(truth, scheme)}

    @property
    def savings(self) -> Sequence[Saving]:
        """There are none."""
        return ()


SEGMENTATION, DETECTION = Segmentation(), Detection()


def task_of(victim: Subject) -> Task:
    """What a victim is asked."""
    return DETECTION if isinstance(victim, Detector) else SEGMENTATION


def _renumbered(objects: Objects, scheme: LabelScheme, to: LabelScheme) -> Objects:
    if scheme.numbers == to.numbers:
        return objects
    return replace(objects.renumbered({number: to.numbers[name] for name, number in scheme.numbers.items()}))
