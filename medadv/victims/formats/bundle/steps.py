"""MONAI's transforms, as a bundle's ``preprocessing`` names them, and medadv's differentiable steps that do the same.

A table, not an import string: what is not in it, or has an argument that is not understood, is refused by its key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from monai.transforms import (
    CenterSpatialCropd,
    CropForegroundd,
    DivisiblePadd,
    MapTransform,
    NormalizeIntensityd,
    Orientationd,
    ScaleIntensityd,
    ScaleIntensityRanged,
    ScaleIntensityRangePercentilesd,
    Spacingd,
    SpatialPadd,
)

from medadv.victims.crop import CenterSpatialCrop, CropForeground, DivisiblePad, Pad
from medadv.victims.formats.bundle.config import Component, Config
from medadv.victims.normalize import Standard, ZScore
from medadv.victims.preprocess import Step
from medadv.victims.ranges import MinMax, Percentiles, ScaleRange
from medadv.victims.spacing import Spacing
from medadv.victims.spatial import Orientation


@dataclass(frozen=True)
class Rule:
    """What is understood of one of MONAI's transforms.

    Attributes:
        transform: the class itself; None where a volume in memory has no use for it.
        step: the same, differentiable.
        known: the arguments that the step is made of.
        fixed: arguments that are understood with these values alone.
        always: arguments that the class is always given, since it warns of its own defaults.
    """

    transform: type[MapTransform] | None
    step: Callable[[Component], Step] | None = None
    known: Collection[str] = ()
    fixed: Mapping[str, Collection[Any]] = field(default_factory=dict)
    always: Mapping[str, Any] = field(default_factory=dict)


def _z_score(own: Component) -> Step:
    nonzero = own.flag("nonzero")
    mean, std = own("subtrahend"), own("divisor")
    if mean is None and std is None:
        return ZScore(nonzero=nonzero, channel_wise=own.flag("channel_wise"))
    for argument, values in (("subtrahend", mean), ("divisor", std)):
        if isinstance(values, list) != own.flag("channel_wise") or values is None:
            raise own.refused(argument, "both: a number, or with channel_wise a list of one a channel")
    return Standard(mean=_all(mean), std=_all(std), nonzero=nonzero)


def _scale_range(own: Component) -> Step:
    a_min, a_max, b_min, b_max = (own.number(name) for name in ("a_min", "a_max", "b_min", "b_max"))
    if a_min is None or a_max is None:
        raise own.refused("a_min" if a_min is None else "a_max", "a number")
    return ScaleRange(a_min, a_max, b_min, b_max, own.flag("clip"))


def _min_max(own: Component) -> Step:
    minv, maxv = own.number("minv", 0.0), own.number("maxv", 1.0)
    if minv is None or maxv is None:
        raise own.refused("minv" if minv is None else "maxv", "a number")
    return MinMax(minv, maxv, own.flag("channel_wise"))


def _percentiles(own: Component) -> Step:
    lower, upper, b_min, b_max = (own.number(name) for name in ("lower", "upper", "b_min", "b_max"))
    if lower is None or upper is None:
        raise own.refused("lower" if lower is None else "upper", "a number")
    clip, channel_wise, relative = (own.flag(name) for name in ("clip", "channel_wise", "relative"))
    return Percentiles(lower, upper, b_min, b_max, clip, channel_wise, relative)


def _all(value: Any) -> tuple[float, ...]:
    return tuple(value) if isinstance(value, list) else (value,)


def _orientation(own: Component) -> Step:
    return Orientation(axes=str(own("axcodes")))


def _spacing(own: Component) -> Step:
    sizes, mode = own("pixdim"), own("mode", "bilinear")
    return Spacing(
        mm=tuple(sizes) if isinstance(sizes, list) else (sizes,),
        mode=mode[0] if isinstance(mode, list) else mode,
        align_corners=own.flag("align_corners"),
        scale_extent=own.flag("scale_extent"),
    )


def _crop_foreground(own: Component) -> Step:
    channels = own("channel_indices")
    return CropForeground(
        margin=_each(own("margin", 0)),
        channels=(channels,) if isinstance(channels, int) else channels and tuple(channels),
        allow_smaller=own.flag("allow_smaller"),
        k_divisible=_each(own("k_divisible", 1)),
    )


def _pad(own: Component) -> Step:
    return Pad(_each(own("spatial_size")), method=own("method", "symmetric"))


def _divisible_pad(own: Component) -> Step:
    return DivisiblePad(_each(own("k")), method=own("method", "symmetric"))


def _center_crop(own: Component) -> Step:
    return CenterSpatialCrop(_each(own("roi_size")))


def _each(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


_ZEROS = {"mode": ("constant",), "value": (0,), "constant_values": (0,)}
_METHODS = {"method": ("symmetric", "end")}

LOADING = Rule(None, known=("reader", "image_only", "ensure_channel_first", "channel_dim", "strict_check", "device",
                            "data_type", "track_meta", "meta_keys", "simple_keys"))  # fmt: skip
"""Reading files, channels first, types: a volume comes read, with a channel a modality, in float32."""

RULES: dict[str, Rule] = {
    "LoadImaged": LOADING,
    "EnsureChannelFirstd": LOADING,
    "EnsureTyped": LOADING,
    "ToTensord": LOADING,
    "CastToTyped": LOADING,
    "Orientationd": Rule(
        Orientationd,
        _orientation,
        ("axcodes",),
        {"as_closest_canonical": (False,), "labels": (None,)},
        {"labels": None},
    ),
    "Spacingd": Rule(
        Spacingd,
        _spacing,
        ("pixdim", "align_corners", "scale_extent"),
        {
            "mode": ("bilinear", "nearest", ["bilinear"], ["nearest"]),
            "padding_mode": ("border", ["border"]),
            "diagonal": (False,),
            "recompute_affine": (False,),
            "ensure_same_shape": (True, False),
            "min_pixdim": (None,),
            "max_pixdim": (None,),
        },
    ),
    "CropForegroundd": Rule(
        CropForegroundd,
        _crop_foreground,
        ("margin", "channel_indices", "allow_smaller", "k_divisible", "start_coord_key", "end_coord_key"),
        {"source_key": (), **_ZEROS},
    ),
    "SpatialPadd": Rule(SpatialPadd, _pad, ("spatial_size",), {**_METHODS, **_ZEROS}),
    "DivisiblePadd": Rule(DivisiblePadd, _divisible_pad, ("k",), {**_METHODS, **_ZEROS}),
    "CenterSpatialCropd": Rule(CenterSpatialCropd, _center_crop, ("roi_size",)),
    "NormalizeIntensityd": Rule(NormalizeIntensityd, _z_score, ("nonzero", "channel_wise", "subtrahend", "divisor")),
    "ScaleIntensityd": Rule(ScaleIntensityd, _min_max, ("minv", "maxv", "channel_wise"), {"factor": (None,)}),
    "ScaleIntensityRanged": Rule(ScaleIntensityRanged, _scale_range, ("a_min", "a_max", "b_min", "b_max", "clip")),
    "ScaleIntensityRangePercentilesd": Rule(
        ScaleIntensityRangePercentilesd,
        _percentiles,
        ("lower", "upper", "b_min", "b_max", "clip", "channel_wise", "relative"),
    ),
}
"""The transforms that can stand in a bundle's ``preprocessing``."""


def spelled(name: str) -> str:
    """MONAI's other names of a dictionary transform, ``SpacingD`` and ``SpacingDict``, as the first: ``Spacingd``."""
    return re.sub(r"(?:Dict|D)$", "d", name)


@dataclass(frozen=True, eq=False)
class Translated:
    """A bundle's preprocessing.

    Attributes:
        steps: medadv's.
        described: MONAI's names and arguments, as JSON.
        transforms: MONAI's own, from the same arguments.
    """

    steps: tuple[Step, ...]
    described: list[dict[str, Any]]
    transforms: list[MapTransform]


def preprocessing(config: Config, image: str) -> Translated:
    """The steps of ``preprocessing`` on the image of this key.

    Raises:
        VictimError: a transform or an argument that is not understood, named by its key.
    """
    steps: list[Step] = []
    described: list[dict[str, Any]] = []
    transforms: list[MapTransform] = []
    for own, rule in _known(config, image):
        # A crop chosen by another image than the one that is cropped could not be followed.
        source = {"source_key": (image,)} if "source_key" in rule.fixed else {}
        own.only(rule.known, lazy=(False, None), **{**rule.fixed, **source})
        if rule.transform is None or rule.step is None:
            continue
        steps.append(rule.step(own))
        arguments = {name: own(name) for name in own.arguments if name in rule.known or name in rule.fixed}
        described.append({"transform": spelled(own.name), **arguments})
        transforms.append(own.built(rule.transform, keys=image, **{**rule.always, **arguments}))
    return Translated(tuple(steps), described, transforms)


def _known(config: Config, image: str) -> Iterator[tuple[Component, Rule]]:
    for own in config.components("preprocessing"):
        rule = RULES.get(spelled(own.name))
        if rule is None:
            raise own.refused(expected=f"one of {sorted(RULES)}")
        if own("keys") not in (image, [image]):
            raise own.refused("keys", repr(image))
        yield own, rule
