"""Which detections found an object: the greedy matching of Pascal VOC and that of COCO, in any number of dimensions.

Both go through the detections of a class from the surest to the least sure; each object is found once, and a second
detection of it is a false one. They differ in what a detection may find:

- ``voc`` (the devkit's ``VOCevaldet``): the object that it overlaps most, and no other. If that is difficult, the
  detection is ignored; if it was found before, the detection is false.
- ``coco`` (``evaluateImg`` of pycocotools): of the objects that nobody has found yet, the one that it overlaps most.
  If there is none, it is ignored where half of it (not of the union) lies in a difficult object: a crowd.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from medadv.errors import ConfigError
from medadv.objects import Boxes, Objects, overlap

Rule = Literal["voc", "coco"]

OVERLAP = 0.5
"""The least intersection over union of what is found."""

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Matching:
    """What became of each detection of an image; neither hit nor ignored is false.

    Attributes:
        hit: it found an object, as the first.
        ignored: it found a difficult one, which counts neither way.
    """

    hit: Flags
    ignored: Flags


def match(found: Objects, objects: Objects, rule: Rule = "voc", least: float = OVERLAP) -> Matching:
    """Match the detections of one image with its objects, class by class.

    Equal scores, and equal overlaps, are taken in the order of the boxes' corners: the order in which detections or
    objects are given does not matter.

    Args:
        found: the detections, with scores; all of them take part.
        objects: what is to be found; difficult ones count neither as found nor as missed.
        rule: whose matching.
        least: the overlap that is enough.

    Raises:
        ConfigError: detections without scores, or with scores that are no numbers.
    """
    scores, difficult = scores_of(found), (~objects.counted).numpy(force=True)
    labels, theirs = found.labels.numpy(force=True), objects.labels.numpy(force=True)
    hit, ignored = np.zeros(len(labels), dtype=bool), np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        mine, wanted = np.flatnonzero(labels == label), np.flatnonzero(theirs == label)
        if len(wanted):
            mine = mine[in_order(found.boxes[mine], -scores[mine])]
            wanted = wanted[in_order(objects.boxes[wanted], difficult[wanted])]
            pair = found.take(torch.from_numpy(mine)), objects.take(torch.from_numpy(wanted))
            overlaps = _overlaps(*pair, difficult[wanted], rule)
            hit[mine], ignored[mine] = _RULES[rule](overlaps, difficult[wanted], least)
    return Matching(hit, ignored)


def scores_of(found: Objects) -> npt.NDArray[np.float64]:
    """How sure the detector is of each.

    Raises:
        ConfigError: detections without scores, or with scores that are no numbers.
    """
    if found.scores is None or not bool(found.scores.isfinite().all()):
        raise ConfigError("detections are matched in the order of their scores", got=f"scores {found.scores}")
    return found.scores.double().numpy(force=True)


def in_order(boxes: Boxes, first: npt.NDArray[np.generic]) -> npt.NDArray[np.intp]:
    """The order by a key, then by the corners of the boxes."""
    return np.lexsort((*boxes.numpy(force=True).T[::-1], first))


def _overlaps(found: Objects, wanted: Objects, difficult: Flags, rule: Rule) -> npt.NDArray[np.float64]:
    """In float64, as the reference tools; float32 would decide by rounding where an overlap is one half."""
    a, b = found.boxes.double().cpu(), wanted.boxes.double().cpu()
    overlaps = overlap(a, b)
    if rule == "coco" and difficult.any():
        axes = a.shape[1] // 2
        low, high = torch.maximum(a[:, None, :axes], b[:, :axes]), torch.minimum(a[:, None, axes:], b[:, axes:])
        common, size = (high - low).clamp(min=0).prod(-1), (a[:, axes:] - a[:, :axes]).clamp(min=0).prod(-1)
        covered = torch.where(common > 0, common / size[:, None].clamp(min=torch.finfo(size.dtype).tiny), 0.0)
        overlaps = torch.where(torch.from_numpy(difficult), covered, overlaps)
    return overlaps.numpy()


def _voc(overlaps: npt.NDArray[np.float64], difficult: Flags, least: float) -> tuple[Flags, Flags]:
    nearest = overlaps.argmax(1)
    near = overlaps.max(1) >= least
    ignored = near & difficult[nearest]
    hit = near & ~ignored
    places = np.flatnonzero(hit)
    _, firsts = np.unique(nearest[places], return_index=True)
    hit[:] = False
    hit[places[firsts]] = True
    return hit, ignored


def _coco(overlaps: npt.NDArray[np.float64], difficult: Flags, least: float) -> tuple[Flags, Flags]:
    hit, ignored = np.zeros(len(overlaps), dtype=bool), np.zeros(len(overlaps), dtype=bool)
    free = ~difficult
    for place, row in enumerate(overlaps):
        open_ = np.where(free, row, -1.0)
        if open_.max() >= least:
            hit[place] = True
            free[open_.argmax()] = False
        else:
            ignored[place] = bool((row[difficult] >= least).any())
    return hit, ignored


_RULES = {"voc": _voc, "coco": _coco}
