"""What the numbers of a label map mean: number → tissue, and regions as unions of tissues.

Label numbers are not portable (enhancing tumour is 4 in BraTS 2018-2021, 3 in BraTS 2023 and in MSD Task01), so a
scheme is declared by whoever knows the data, and never guessed. Victims and data both speak through it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from medadv.errors import CaseError, ConfigError, Reason

BACKGROUND = "background"


@dataclass(frozen=True)
class LabelScheme:
    """The meaning of a label map.

    Attributes:
        name: how the scheme is called in studies and messages.
        numbers: tissue → stored label number; ``background`` is among them, unless there is a void number and every
            pixel that is judged shows a thing (Cityscapes).
        regions: region → its tissues, in the order of painting: a later region is painted over an earlier one.
        void: the number of what is not judged, neither trained on, attacked nor scored: 255 in Pascal VOC; or None.
    """

    name: str
    numbers: Mapping[str, int]
    regions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    void: int | None = None

    def __post_init__(self) -> None:
        if BACKGROUND not in self.numbers and self.void is None:
            raise ConfigError(f"label scheme {self.name!r} has no {BACKGROUND!r}", got=dict(self.numbers))
        if len(set(self.numbers.values())) != len(self.numbers):
            raise ConfigError(f"label scheme {self.name!r} gives one number twice", got=dict(self.numbers))
        if self.void in self.numbers.values():
            raise ConfigError(f"the void number of label scheme {self.name!r} is a tissue's", got=self.void)
        for region, tissues in self.regions.items():
            if unknown := set(tissues) - set(self.numbers):
                raise ConfigError(
                    f"region {region!r} of scheme {self.name!r} names unknown tissues",
                    got=sorted(unknown),
                    expected=f"some of {list(self.numbers)}",
                )

    @property
    def tissues(self) -> tuple[str, ...]:
        """The tissues in the order of their numbers: the order of a softmax head's classes."""
        return tuple(sorted(self.numbers, key=self.numbers.__getitem__))

    @property
    def names(self) -> tuple[str, ...]:
        """What can be scored, each once: regions first, then the tissues that are neither background nor a region."""
        alone = {tissues for tissues in self.regions.values() if len(tissues) == 1}
        return (*self.regions, *(t for t in self.tissues if t != BACKGROUND and (t,) not in alone))

    @property
    def scorable(self) -> tuple[str, ...]:
        """What can be scored where background is a class like others: background, if there is one, and ``names``."""
        return (*(tissue for tissue in self.tissues if tissue == BACKGROUND), *self.names)

    def members(self, name: str) -> tuple[str, ...]:
        """The tissues of a region, or the tissue itself.

        Raises:
            ConfigError: the name is neither a region nor a tissue.
        """
        if name in self.regions:
            return self.regions[name]
        if name in self.numbers:
            return (name,)
        raise ConfigError(
            f"{name!r} is no region and no tissue of the label scheme {self.name!r}",
            expected=f"one of {[*self.names, BACKGROUND]}",
        )

    def partition(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those of some known regions and tissues that are every tissue, each once; empty where a tissue is missing."""
        alone = {self.members(name)[0]: name for name in reversed(names) if len(self.members(name)) == 1}
        return tuple(alone[tissue] for tissue in self.tissues) if set(alone) == set(self.numbers) else ()

    def mask(self, labels: Int[Tensor, "*s"], name: str) -> Bool[Tensor, "*s"]:
        """Where a label map (stored numbers) shows a region or a tissue."""
        wanted = torch.tensor([self.numbers[t] for t in self.members(name)], device=labels.device)
        return torch.isin(labels, wanted)

    def judged(self, labels: Int[Tensor, "*s"]) -> Bool[Tensor, "*s"]:
        """Where a label map is not void."""
        return torch.ones_like(labels, dtype=torch.bool) if self.void is None else labels != self.void

    def unknown(self, labels: Int[Tensor, "*s"]) -> list[int]:
        """The numbers in a label map that the scheme does not know, in order."""
        strange = self.judged(labels)
        for number in self.numbers.values():
            strange &= labels != number
        return sorted(torch.unique(labels[strange]).tolist()) if strange.any() else []

    def classes(self, labels: Int[Tensor, "*s"]) -> Int[Tensor, "*s"]:
        """Stored numbers → indices into ``tissues``; void → 0. Numbers must be known (``unknown`` is empty)."""
        order = torch.tensor(sorted(self.numbers.values()), device=labels.device)
        return torch.searchsorted(order, labels.contiguous()) * self.judged(labels)

    def stored(self, classes: Int[Tensor, "*s"]) -> Int[Tensor, "*s"]:
        """Indices into ``tissues`` → stored numbers."""
        return torch.tensor(sorted(self.numbers.values()), device=classes.device)[classes]

    def translate(self, labels: Int[Tensor, "*s"], to: LabelScheme) -> Int[Tensor, "*s"]:
        """The same tissues in another scheme's numbers.

        Raises:
            ConfigError: the two schemes do not name the same tissues, or the other one has no void and the map has.
            CaseError: the label map holds numbers that this scheme does not know.
        """
        if set(self.numbers) != set(to.numbers):
            raise ConfigError(
                f"labels of scheme {self.name!r} cannot be told in scheme {to.name!r}",
                got=list(self.tissues),
                expected=list(to.tissues),
                advice="declare the same tissue names in both schemes",
            )
        if unknown := self.unknown(labels):
            raise CaseError(
                Reason.LABEL_OUTSIDE_SCHEME,
                f"the label map holds numbers that the scheme {self.name!r} does not know",
                got=unknown,
                expected=dict(self.numbers),
                advice=f"declare the map's own scheme; these would fit: {fitting(torch.unique(labels).tolist())}",
            )
        if self.numbers == to.numbers and self.void == to.void:
            return labels
        out = torch.zeros_like(labels)
        if self.void is not None and not bool(self.judged(labels).all()):
            if to.void is None:
                raise ConfigError(
                    f"labels of scheme {self.name!r} have void voxels, and scheme {to.name!r} has no number for them",
                    advice=f"declare it: dataclasses.replace(scheme, void={self.void})",
                )
            out[labels == self.void] = to.void
        for tissue, number in self.numbers.items():
            out[labels == number] = to.numbers[tissue]
        return out

    def paint(self, masks: Bool[Tensor, "b r *s"], regions: Sequence[str]) -> Int[Tensor, "b *s"]:
        """Region masks → label map (stored numbers): regions are painted in the scheme's order, as nnU-Net does.

        A region paints the first of its tissues that no later region holds.
        """
        order = [r for r in self.regions if r in regions]
        labels = torch.full(masks[:, 0].shape, self.numbers[BACKGROUND], device=masks.device, dtype=torch.int64)
        for place, region in enumerate(order):
            later = {t for r in order[place + 1 :] for t in self.regions[r]}
            own = [t for t in self.regions[region] if t not in later] or list(self.regions[region])
            labels[masks[:, regions.index(region)]] = self.numbers[own[0]]
        return labels


_GLIOMA = {"WT": ("oedema", "necrosis", "enhancing"), "TC": ("necrosis", "enhancing"), "ET": ("enhancing",)}

BRATS_2018 = LabelScheme("brats2018", {BACKGROUND: 0, "necrosis": 1, "oedema": 2, "enhancing": 4}, _GLIOMA)
"""BraTS 2017 to 2022: 1 necrotic and non-enhancing core, 2 oedema, 4 enhancing tumour."""

BRATS_2023 = LabelScheme("brats2023", {BACKGROUND: 0, "necrosis": 1, "oedema": 2, "enhancing": 3}, _GLIOMA)
"""BraTS 2023: enhancing tumour is 3."""

BRATS_2024 = LabelScheme("brats2024", {BACKGROUND: 0, "necrosis": 1, "oedema": 2, "enhancing": 3, "cavity": 4}, _GLIOMA)
"""BraTS 2024 glioma, after treatment: 4 is the resection cavity, which belongs to none of the three regions."""

MSD_TASK01 = LabelScheme("msd-task01", {BACKGROUND: 0, "oedema": 1, "necrosis": 2, "enhancing": 3}, _GLIOMA)
"""Medical Segmentation Decathlon, Task01: 1 oedema, 2 non-enhancing tumour, 3 enhancing tumour."""

_VOC = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
_CITYSCAPES = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)

VOC = LabelScheme("voc", {name: number for number, name in enumerate((BACKGROUND, *_VOC))}, void=255)
"""Pascal VOC: 20 classes, 255 along their outlines and on what is difficult (Everingham et al., IJCV 2010)."""

CITYSCAPES = LabelScheme("cityscapes", {name: number for number, name in enumerate(_CITYSCAPES)}, void=255)
"""Cityscapes: the 19 classes that are judged, by their train ids; no background (Cordts et al., CVPR 2016)."""

_GLIOMAS = (BRATS_2018, BRATS_2023, BRATS_2024, MSD_TASK01)

SCHEMES: dict[str, LabelScheme] = {s.name: s for s in (*_GLIOMAS, VOC, CITYSCAPES)}
"""The schemes that a study can name."""


def fitting(numbers: Sequence[int]) -> list[str]:
    """The named schemes of gliomas that would know all these label numbers: advice for a message, never a guess."""
    return [s.name for s in _GLIOMAS if set(numbers) <= set(s.numbers.values())]
