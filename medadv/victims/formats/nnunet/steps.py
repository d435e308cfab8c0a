"""nnU-Net's preprocessing as the steps of a victim: transpose, crop, normalise, resample, in the order of its plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medadv.errors import VictimError
from medadv.victims.crop import CropNonzero
from medadv.victims.normalize import PerChannel, Single, Standard, Unchanged, ZScore
from medadv.victims.preprocess import Step
from medadv.victims.ranges import MinMax, ScaleRange
from medadv.victims.resample import Resample
from medadv.victims.spatial import Orientation, Transpose

RESAMPLING = "resample_data_or_seg_to_shape"
READERS = ("SimpleITKIO", "NibabelIO", "NibabelIOWithReorient")


def preprocessing(plans: Mapping[str, Any], configuration: Mapping[str, Any], channels: int) -> tuple[Step, ...]:
    """The steps that nnU-Net's ``DefaultPreprocessor`` takes, on volumes in NIfTI's order of axes.

    Args:
        plans: ``plans.json``.
        configuration: one of its configurations, what it inherits included.
        channels: of the image.

    Raises:
        VictimError: a preprocessor, reader, resampling or normalisation that is not nnU-Net's default.
    """
    reader = plans.get("image_reader_writer", READERS[0])
    _known("image_reader_writer", reader, READERS)
    _known("preprocessor_name", configuration.get("preprocessor_name", "DefaultPreprocessor"), ["DefaultPreprocessor"])
    _known("label_manager", plans.get("label_manager", "LabelManager"), ["LabelManager"])
    for key in ("resampling_fn_data", "resampling_fn_probabilities"):
        _known(key, configuration.get(key), [RESAMPLING])
    onwards, backwards = (configuration.get(f"resampling_fn_{what}_kwargs", {}) for what in ("data", "probabilities"))
    if onwards.get("force_separate_z") != backwards.get("force_separate_z"):
        raise VictimError("plans resample along the coarse axis in one way, and back in another", got=dict(backwards))
    return (
        *([Orientation("RAS")] if reader == "NibabelIOWithReorient" else []),
        # SimpleITK's arrays begin with the last axis of the file, and the plans transpose those.
        Transpose(tuple(2 - axis for axis in plans["transpose_forward"])),
        CropNonzero(),
        _normalisation(plans, configuration, channels),
        Resample(
            tuple(configuration["spacing"]),
            onwards.get("order", 3),
            onwards.get("order_z", 0),
            backwards.get("order", 3),
            backwards.get("order_z", 0),
            onwards.get("force_separate_z", False),
        ),
    )


def _normalisation(plans: Mapping[str, Any], configuration: Mapping[str, Any], channels: int) -> Step:
    """One scheme a channel; a single step where all channels have the same."""
    schemes, masked = configuration["normalization_schemes"], configuration["use_mask_for_norm"]
    if not len(schemes) == len(masked) == channels:
        raise VictimError(
            "plans.json and dataset.json have different numbers of channels",
            got=f"normalization_schemes: {list(schemes)}",
            expected=f"{channels}",
        )
    known = plans["foreground_intensity_properties_per_channel"]
    steps = tuple(_channel(scheme, bool(masked[c]), known.get(str(c), {})) for c, scheme in enumerate(schemes))
    alike = len(set(steps)) == 1 and not isinstance(steps[0], Standard)
    return steps[0] if alike else PerChannel(steps)


def _channel(scheme: str, masked: bool, known: Mapping[str, float]) -> Single:
    """One of nnU-Net's ``ImageNormalization`` classes."""
    schemes = ("ZScoreNormalization", "CTNormalization", "NoNormalization", "RescaleTo01Normalization")
    _known("normalization_schemes", scheme, (*schemes, "RGBTo01Normalization"))
    if scheme == "ZScoreNormalization":
        return ZScore(nonzero=masked, joint=masked)
    if scheme == "CTNormalization":
        try:
            mean, std, low, high = (known[key] for key in ("mean", "std", "percentile_00_5", "percentile_99_5"))
        except KeyError as error:
            raise VictimError("plans.json does not know the intensities of a CT channel", expected=error) from error
        return Standard((mean,), (max(std, 1e-8),), (low,), (high,))
    if scheme == "RescaleTo01Normalization":
        return MinMax(channel_wise=True)
    return Unchanged() if scheme == "NoNormalization" else ScaleRange(0, 255)


def _known(key: str, value: Any, known: Sequence[str]) -> None:
    if value not in known:
        raise VictimError(
            f"plans.json asks for a {key} that has no differentiable counterpart here",
            got=value,
            expected=" or ".join(known),
            advice="nnU-Net's defaults are supported; bring the network in by Python with steps of its own",
        )
