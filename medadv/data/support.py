"""Where an image may be attacked: what stands for the head."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import SimpleITK
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from medadv.data.case import Volume
from medadv.errors import CaseError, ConfigError, Reason

Support = Literal["nonzero", "mask", "otsu", "volume"]


def support(volume: Volume, kind: Support) -> Bool[Tensor, "c *s"]:
    """The voxels that may change, of each modality.

    Args:
        volume: the clean case.
        kind: ``nonzero``: each modality's own non-zero voxels, for skull-stripped images. ``mask``: the case's mask
            file, for all modalities. ``otsu``: the head as Otsu's threshold finds it, the same for all modalities.
            ``volume``: everywhere, air included; a threat model of its own, since a network may normalise by the
            non-zero voxels.

    Raises:
        ConfigError: an unknown kind.
        CaseError: MISSING_MASK, for ``mask``.
    """
    if kind == "nonzero":
        return volume.x != 0
    if kind == "volume":
        return torch.ones_like(volume.x, dtype=torch.bool)
    if kind == "mask":
        if volume.mask is None:
            raise CaseError(
                Reason.MISSING_MASK,
                f"{volume.case.case} has no mask",
                advice="name the mask's file in the case, or take the support otsu",
            )
        return volume.mask.expand_as(volume.x).clone()
    if kind == "otsu":
        return _head(volume).expand_as(volume.x).clone()
    raise ConfigError("there is no such support", got=kind, expected=f"one of {get_args(Support)}")


def _head(volume: Volume) -> Bool[Tensor, "*s"]:
    """The union over the modalities: the head is one, and each contrast leaves parts of it dark (fluid, fat, bone)."""
    return torch.stack([_bright(voxels) for voxels in volume.x]).any(0)


def _bright(voxels: Float[Tensor, "*s"]) -> Bool[Tensor, "*s"]:
    """The largest connected part above Otsu's threshold (Otsu 1979, IEEE Trans. SMC 9:62–66), its holes filled."""
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(voxels.numpy()))
    above = SimpleITK.OtsuThreshold(image, 0, 1)
    parts = SimpleITK.RelabelComponent(SimpleITK.ConnectedComponent(above), sortByObjectSize=True)
    filled = SimpleITK.BinaryFillhole(parts == 1)
    return torch.from_numpy(SimpleITK.GetArrayFromImage(filled).astype(bool))
