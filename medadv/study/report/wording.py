"""Words of scans said of pictures: pixels, classes and channels instead of voxels, tissues and modalities."""

from __future__ import annotations

import re
from dataclasses import replace

from medadv.study.results import Arm, Results

_OF_PICTURES = {
    "voxel": "pixel",
    "voxels": "pixels",
    "tissue": "class",
    "tissues": "classes",
    "modality": "channel",
    "modalities": "channels",
    "scan": "picture",
    "scans": "pictures",
    "segmented": "answered",
}
_WORD = re.compile(rf"\b({'|'.join(_OF_PICTURES)})\b", re.IGNORECASE)


def worded(results: Results, words: str) -> str:
    """A sentence in the words of what the study is of; of volumes it is as it was."""
    return of_pictures(words) if results.pictures else words


def of_pictures(words: str) -> str:
    """A sentence about voxels of scans as one about pixels of pictures."""
    return _WORD.sub(_other, words)


def _other(found: re.Match[str]) -> str:
    word = found[0]
    other = _OF_PICTURES[word.lower()]
    return other.capitalize() if word[0].isupper() else other


def titled_for_people(results: Results) -> Results:
    """The same results; of pictures, the titles of conditions are in the words of pictures. Records keep theirs."""
    return replace(results, arms=tuple(map(_titled, results.arms))) if results.pictures else results


def _titled(arm: Arm) -> Arm:
    return replace(arm, presented=arm.presented.model_copy(update={"title": of_pictures(arm.presented.title)}))
