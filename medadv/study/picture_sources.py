"""Where a study's pictures come from: what a user writes under ``data`` for Pascal VOC, Cityscapes, COCO and none."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from medadv.data.case import Accepted, Cohort, Picture
from medadv.data.cityscapes import cityscapes_cohort
from medadv.data.coco import coco_cohort
from medadv.data.pictures import DEFAULT, SMALLEST, pictures, shapes_scheme
from medadv.data.pixels import LONGEST_SIDE
from medadv.data.voc import Task, voc_cohort
from medadv.errors import ConfigError
from medadv.labels import BACKGROUND, CITYSCAPES, VOC, LabelScheme
from medadv.study.specified import Specified

Side = Annotated[int, Field(ge=1, le=LONGEST_SIDE)]
Grey = Annotated[float, Field(ge=0, le=255)]
Listing = Annotated[str | None, Field(description="a text file of your own that says which pictures, one id a line")]


class Pictured(Specified):
    """What all data sets of pictures may say."""

    axes: ClassVar[int] = 2
    """Axes of space: 2 of a picture, 3 of a scan."""
    grid: ClassVar[None] = None

    accept: tuple[Accepted, ...] = Field(
        (), description="beside upright 8-bit RGB: grey (repeated), alpha (dropped if opaque), turned (as stored)"
    )
    pad: tuple[Side, Side] | None = Field(
        None, description="height and width to pad to, at the bottom and right; void in label maps"
    )
    pad_value: tuple[Grey, Grey, Grey] = Field((0.0, 0.0, 0.0), description="what the padding holds: red, green, blue")

    @property
    def picture(self) -> Picture:
        """How pictures are taken from their files."""
        return Picture(self.accept, self.pad, self.pad_value)


class PicturesData(Pictured):
    """Generated pictures of shapes, with masks and boxes."""

    importer: Literal["pictures"]
    root: str | None = Field(None, description="where to write them; beside the run if left out")
    cases: int = Field(48, ge=1)
    size: tuple[Side, Side] = Field((96, 128), description="height and width")
    shapes: tuple[str, ...] = DEFAULT

    @model_validator(mode="after")
    def _possible(self) -> Self:
        try:
            shapes_scheme(self.shapes)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        if min(self.size) < SMALLEST:
            raise ValueError(f"height and width of {SMALLEST} or more, not {self.size}")
        return self

    @property
    def tissues(self) -> tuple[str, ...]:
        """The classes in the order of their numbers, background first."""
        return shapes_scheme(self.shapes).tissues

    def written(self, root: Path, seed: int) -> Cohort:
        """The pictures, written if they are not there."""
        return pictures(root, self.cases, self.size, seed, self.shapes, picture=self.picture)

    def found(self, root: Path) -> Cohort:
        """The pictures that another process has written.

        Raises:
            ConfigError: none, or not all of them.
        """
        scheme = shapes_scheme(self.shapes)
        cohort = voc_cohort(root, split="trainval", scheme=scheme, picture=self.picture)
        if len(cohort.cases) != self.cases:
            raise ConfigError("not all pictures are there", got=len(cohort.cases), expected=self.cases)
        return cohort


class VocData(Pictured):
    """A Pascal VOC folder, or one laid out like it."""

    importer: Literal["voc"]
    root: str = Field(description="the folder with JPEGImages, or the VOCdevkit above it")
    year: str | None = Field(None, description="which VOC… of a devkit", examples=["2007", "2012"])
    split: str = Field("val", description="one of the lists in ImageSets")
    task: Task = Field("segmentation", description="whose lists: ImageSets/Segmentation or ImageSets/Main")
    listing: Listing = None
    classes: tuple[str, ...] | None = Field(
        None, min_length=1, description="your own classes in the order of their numbers, from 1; VOC's 20 if left out"
    )

    @field_validator("year", mode="before")
    @classmethod
    def _text(cls, year: object) -> object:
        return str(year) if isinstance(year, int) else year

    @field_validator("classes")
    @classmethod
    def _distinct(cls, classes: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if classes is not None and len({*classes, BACKGROUND}) <= len(classes):
            raise ValueError("each class once, and without the background, which is 0")
        return classes

    @property
    def scheme(self) -> LabelScheme:
        """What numbers and names mean."""
        if self.classes is None:
            return VOC
        return LabelScheme("voc", {name: n for n, name in enumerate((BACKGROUND, *self.classes))}, void=VOC.void)

    @property
    def tissues(self) -> tuple[str, ...]:
        """The classes in the order of their numbers, background first."""
        return self.scheme.tissues

    def cohort(self) -> Cohort:
        """What the list names."""
        return voc_cohort(
            _path(self.root),
            self.year,
            self.split,
            task=self.task,
            listing=_maybe(self.listing),
            scheme=self.scheme,
            picture=self.picture,
        )


class CityscapesData(Pictured):
    """A Cityscapes folder."""

    importer: Literal["cityscapes"]
    root: str = Field(description="the folder with leftImg8bit and gtFine")
    split: str = "val"
    listing: Listing = None

    @property
    def tissues(self) -> tuple[str, ...]:
        """The 19 classes in the order of their train ids."""
        return CITYSCAPES.tissues

    def cohort(self) -> Cohort:
        """What the split holds."""
        listing = _maybe(self.listing)
        return cityscapes_cohort(_path(self.root), self.split, listing=listing, picture=self.picture)


class CocoData(Pictured):
    """A folder of pictures, and COCO's JSON."""

    importer: Literal["coco"]
    root: str = Field(description="the folder of the pictures")
    annotations: str = Field(description="the JSON file with images, annotations and categories")
    outlines: bool = Field(False, description="draw label maps from the outlines, for segmentation")
    masks: str | None = Field(None, description="or a folder of label maps in the categories' ids: NAME.png")
    gaps: bool = Field(False, description="a class for each number between the categories' ids: torchvision's 91")
    listing: Listing = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.outlines and self.masks is not None:
            raise ValueError("label maps are drawn from outlines, or lie in masks: one of the two")
        return self

    @property
    def tissues(self) -> None:
        """The file tells them."""
        return

    def cohort(self) -> Cohort:
        """What the file lists."""
        return coco_cohort(
            _path(self.root),
            _path(self.annotations),
            outlines=self.outlines,
            masks=_maybe(self.masks),
            gaps=self.gaps,
            listing=_maybe(self.listing),
            picture=self.picture,
        )


def _path(text: str) -> Path:
    return Path(text).expanduser()


def _maybe(text: str | None) -> Path | None:
    return None if text is None else _path(text)
