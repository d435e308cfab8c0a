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

Support = Literal["nonzero", "mask", "otsu", "volume", "everywhere"]

FEWEST = 8
"""Voxels that a support has at least."""

CLIPPED = 0.995
"""What is brighter than this quantile counts as this bright for Otsu: else a spot of flow or metal would be all"""


def support(volume: Volume, kind: Support) -> Bool[Tensor, "c *s"]:
    """The voxels that may change, of each modality.

    Args:
        volume: the clean case.
        kind: ``nonzero``: each modality's own non-zero voxels, for skull-stripped images. ``mask``: the case's mask
            file, for all modalities. ``otsu``: the head as Otsu's threshold finds it, the same for all modalities.
            ``volume``: everywhere, air included; a threat model of its own, since a network may normalise by the
            non-zero voxels. ``everywhere``: the whole picture, the normal case of pictures; its padding, too, if it has
            one (``mask`` leaves that alone). A channel of a picture may have one value everywhere: budgets of pictures
            are grey levels.

    Raises:
        ConfigError: an unknown kind.
        CaseError: MISSING_MASK, for ``mask``; NO_SUPPORT, where a modality has no spread inside: a budget in σ would
            be nothing there, and the victim would look robust.
    """
    found = _found(volume, kind)
    for voxels, inside, modality in zip(volume.x, found, volume.case.modalities, strict=True):
        values = voxels[inside]
        if values.numel() < FEWEST or (kind != "everywhere" and bool(values.min() == values.max())):
            raise CaseError(
                Reason.NO_SUPPORT,
                f"{volume.case.case}: there is nothing in {modality} to attack inside the support {kind!r}",
                got=f"{values.numel()} voxels" + (" of one value" if values.numel() else ""),
                expected=f"{FEWEST} voxels or more, of different values",
                advice="look at the mask, or at what Otsu's threshold finds: one very bright spot can hide a head",
            )
    return found


def _found(volume: Volume, kind: Support) -> Bool[Tensor, "c *s"]:
    if kind == "nonzero":
        return volume.x != 0
    if kind in ("volume", "everywhere"):
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
    values = voxels.numpy()
    image = SimpleITK.GetImageFromArray(np.minimum(values, np.quantile(values, CLIPPED).astype(values.dtype)))
    above = SimpleITK.OtsuThreshold(image, 0, 1)
    parts = SimpleITK.RelabelComponent(SimpleITK.ConnectedComponent(above), sortByObjectSize=True)
    filled = SimpleITK.BinaryFillhole(parts == 1)
    return torch.from_numpy(SimpleITK.GetArrayFromImage(filled).astype(bool))
