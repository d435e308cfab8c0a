"""nnU-Net's preprocessing as the steps of a victim: transpose, crop, normalise, resample, in the order of its plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medadv.errors import VictimError
from medadv.victims.normalize import Unchanged, ZScore
from medadv.victims.preprocess import Step
from medadv.victims.resample import Resample
from medadv.victims.spatial import CropNonzero, Orientation, Transpose

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
    onwards, backwards = (configuration[f"resampling_fn_{what}_kwargs"] for what in ("data", "probabilities"))
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
    schemes, masked = configuration["normalization_schemes"], configuration["use_mask_for_norm"]
    return ZScore(nonzero=False)


def _known(key: str, value: Any, known: Sequence[str]) -> None:
    if value not in known:
        raise VictimError(
            f"plans.json asks for a {key} that has no differentiable counterpart here",
            got=value,
            expected=" or ".join(known),
            advice="nnU-Net's defaults are supported; bring the network in by Python with steps of its own",
        )
