"""``Case``: ids and paths. ``Volume``: the same in memory, in stored units, on the stored grid."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from medadv.errors import Reason
from medadv.labels import LabelScheme
from medadv.objects import Objects

Accepted = Literal["grey", "alpha", "turned"]
"""What pictures may be beside upright RGB, if that is declared.

``grey``: one channel, which all three become. ``alpha``: a transparency, if it is opaque everywhere: it is dropped.
``turned``: an EXIF orientation that a viewer would follow; it is not followed, since masks and boxes lie on the pixels
as they are stored.
"""


@dataclass(frozen=True)
class Painted:
    """A label map that no file holds: objects, each with its number and outline, as COCO writes them.

    Attributes:
        shape: height and width.
        parts: number → ``segmentation``: polygons ``[[x, y, x, y, …], …]``, or run lengths ``{"size", "counts"}``.
        crowds: outlines of groups, of which no pixel is judged: their outlines are rough.
        background, void: the numbers of what no part covers, and of what is not judged.
    """

    shape: tuple[int, int]
    parts: Sequence[tuple[int, Any]]
    crowds: Sequence[Any] = ()
    background: int = 0
    void: int = 255


@dataclass(frozen=True)
class Picture:
    """How a picture is taken from its files, where it is not as they are.

    Attributes:
        accept: what it may be beside upright RGB.
        canvas: height and width to which it is padded at the bottom and the right; None for none. The padding is void
            in the label map, and outside ``Volume.mask``.
        fill: what the padding holds: red, green, blue.
        content: the picture's own height and width in a file that holds its canvas, too: an adversarial one.
        numbers: what the file of the label map calls a class → its number in the scheme; None where they are the same.
        painted: the label map, where no file holds one.
        declared: height and width that its annotation is for; None where it does not say.
    """

    accept: tuple[Accepted, ...] = ()
    canvas: tuple[int, int] | None = None
    fill: tuple[float, float, float] = (0.0, 0.0, 0.0)
    content: tuple[int, int] | None = None
    numbers: Mapping[int, int] | None = None
    painted: Painted | None = None
    declared: tuple[int, int] | None = None


@dataclass(frozen=True)
class Case:
    """One scan of one patient, or one picture: where its files are and what they mean. Holds no voxels.

    Attributes:
        case: the id of the scan, unique in its cohort.
        patient: the id of the patient; None where the data set does not say.
        images: modality → file, in the order of the victim's channels. All modalities may name one 4-D file, whose
            last axis is then the channels, in this order.
        label: the expert's label map, or None.
        scheme: what its numbers mean.
        mask: a file that says where the head is (not 0), for images that are not skull-stripped; or None.
        grid: the modality whose grid the others are resampled onto when they are read; None where all must lie on one.
        stratum: a group that tables are also told by (``HGG``, a site), or None.
        fold: which fold of a cross-validation tests this case, or None.
        objects: the expert's boxes, or None where there are none to be had; an image that shows nothing has an empty
            list.
        picture: how a picture is taken from its files; None for as they are, and for scans.
    """

    case: str
    patient: str | None
    images: Mapping[str, Path]
    label: Path | None
    scheme: LabelScheme
    mask: Path | None = None
    grid: str | None = None
    stratum: str | None = None
    fold: int | None = None
    objects: Objects | None = None
    picture: Picture | None = None

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities in channel order."""
        return tuple(self.images)

    @property
    def labelled(self) -> bool:
        """Whether there is a label map: a file, or outlines to draw it from."""
        return self.label is not None or (self.picture is not None and self.picture.painted is not None)


@dataclass(frozen=True)
class Refusal:
    """What is not used, and why.

    Attributes:
        case: never the id of a case that is used: a twin's has a name of its own.
        reason, message: why it is refused.
        names: what of the message names the scan, or its files: private where ids are.
    """

    case: str
    reason: Reason
    message: str
    names: tuple[str, ...] = ()


def twin_name(place: str, taken: Container[str]) -> str:
    """A name for what bears the id of another: its place in the data set, made plain, and like none that is taken."""
    name = re.sub(r"[^\w.+-]+", "-", place).strip("-.") or "twin"
    while name in taken:
        name += "+"
    return name


@dataclass(frozen=True)
class Cohort:
    """What an importer finds in a folder: the cases that can be read, and those that cannot."""

    cases: Sequence[Case]
    refused: Sequence[Refusal]
    modalities: tuple[str, ...]
    scheme: LabelScheme


@dataclass(frozen=True, eq=False)
class Volume:
    """A case in memory.

    Attributes:
        case: where it came from.
        x: the voxels ``(c, *s)``, float32, in stored units (slope and intercept applied), on the stored grid;
            never normalised, turned, cropped or resampled.
        truth: the expert's label map ``(*s)`` in stored label numbers, or None.
        affine: voxel → millimetres, ``(4, 4)`` float64, NIfTI convention (RAS+).
        stored: modality → the data type of the file the voxels came from.
        mask: where the head is, ``(*s)``, of a case that says so in a file; where a padded picture is; else None.
    """

    case: Case
    x: Float[Tensor, "c *s"]
    truth: Int[Tensor, "*s"] | None
    affine: np.ndarray
    stored: Mapping[str, np.dtype] = field(default_factory=dict)
    mask: Bool[Tensor, "*s"] | None = None

    @property
    def content(self) -> Bool[Tensor, "*s"] | None:
        """Where a padded picture is on its canvas; None where nothing is padded."""
        return self.mask if self.case.picture is not None and self.case.picture.canvas is not None else None

    @property
    def spacing(self) -> tuple[float, ...]:
        """The size of a voxel along each axis, in mm; of a picture, 1."""
        return tuple(float(n) for n in np.linalg.norm(self.affine[:3, :3], axis=0)[: self.x.ndim - 1])
