"""How well one prediction meets the expert's label map, and how like its clean self an image still looks.

Scores are strict: an empty region is never a missing value. MONAI's defaults return NaN exactly where an attack has
deleted a tumour or invented one, and its reductions drop NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from monai.metrics import PSNRMetric, SSIMMetric
from monai.metrics.utils import get_mask_edges, get_surface_distance
from torch import Tensor

from medadv.errors import CaseError, ConfigError, Reason
from medadv.labels import LabelScheme
from medadv.study.records import POLICY, Fidelity, Score

_PERCENTILE = 95
_SSIM_WINDOW = 11  # of Wang et al. 2004, with a standard deviation of 1.5 voxels


@dataclass(frozen=True)
class Measure:
    """One score of one prediction.

    Attributes:
        region: a region or tissue of the label scheme.
        metric: ``dice`` (share) or ``hd95`` (mm).
        value: the score under the strict policy; always finite.
        truth, predicted, hit: voxels of the region in the truth, in the prediction, and in both.
    """

    region: str
    metric: Literal["dice", "hd95"]
    value: float
    truth: int
    predicted: int
    hit: int


def score(
    prediction: Int[Tensor, "*s"],
    truth: Int[Tensor, "*s"],
    scheme: LabelScheme,
    spacing: Sequence[float],
    regions: Sequence[str],
) -> list[Measure]:
    """Dice and HD95 of each region, in the order of ``regions``.

    Dice is twice the common voxels over the sum of both (Dice 1945). HD95 is the larger of the two directed 95th
    percentiles of the distances between the surfaces, in mm, as in MONAI and the BraTS challenges.

    Args:
        prediction, truth: label maps in stored numbers of ``scheme``, 2-D or 3-D.
        spacing: the size of a voxel along each axis, in mm.
        regions: regions or tissues of ``scheme``.

    Raises:
        CaseError: the two maps have different shapes.
        ConfigError: an unknown region, or a spacing that does not fit.
    """
    if prediction.shape != truth.shape:
        raise CaseError(
            Reason.LABEL_GRID,
            "the prediction and the label map have different shapes",
            got=tuple(prediction.shape),
            expected=tuple(truth.shape),
        )
    if len(spacing) != truth.ndim or not all(math.isfinite(size) and size > 0 for size in spacing):
        raise ConfigError(
            "the spacing does not fit the label map",
            got=tuple(spacing),
            expected=f"{truth.ndim} positive numbers, in mm",
        )
    measures: list[Measure] = []
    for region in regions:
        found = scheme.mask(prediction, region).cpu().numpy()
        wanted = scheme.mask(truth, region).cpu().numpy()
        counts = int(wanted.sum()), int(found.sum()), int((found & wanted).sum())
        measures += [
            Measure(region, "dice", _dice(*counts), *counts),
            Measure(region, "hd95", _hd95(found, wanted, spacing), *counts),
        ]
    return measures


def _dice(truth: int, predicted: int, hit: int) -> float:
    return 2 * hit / (truth + predicted) if truth + predicted else 1.0


def _hd95(found: npt.NDArray[np.bool_], wanted: npt.NDArray[np.bool_], spacing: Sequence[float]) -> float:
    if not found.any() and not wanted.any():
        return 0.0
    if not found.any() or not wanted.any():
        return math.hypot(*(count * size for count, size in zip(wanted.shape, spacing, strict=True)))
    # MONAI crops to both masks and looks neighbours up in a k-d tree of the surface: speed follows the surface.
    surfaces = get_mask_edges(found, wanted)
    directed = (get_surface_distance(a, b, spacing=tuple(spacing)) for a, b in (surfaces, surfaces[::-1]))
    return max(float(np.percentile(distances, _PERCENTILE)) for distances in directed)


def rows(file_measures: Sequence[Measure], memory_measures: Sequence[Measure]) -> list[Score]:
    """The scores of a record: the delivered file's, with those of the voxels in memory beside them.

    Raises:
        ConfigError: the two were not measured on the same regions of the same truth.
    """
    delivered, computed = (
        [(m.region, m.metric, m.truth) for m in measures] for measures in (file_measures, memory_measures)
    )
    if delivered != computed:
        raise ConfigError(
            "the scores of the file and of the voxels in memory are not of the same regions and truth",
            got=computed,
            expected=delivered,
        )
    return [
        Score(
            region=m.region,
            metric=m.metric,
            policy=POLICY,
            value=m.value,
            computed=memory.value,
            truth=m.truth,
            predicted=m.predicted,
            hit=m.hit,
        )
        for m, memory in zip(file_measures, memory_measures, strict=True)
    ]


def relative_reduction(clean: float, adversarial: float) -> float | None:
    """The share of the clean Dice that is lost, (clean - adversarial) / clean; None where there was none to lose."""
    return (clean - adversarial) / clean if clean else None


def fidelity(
    clean: Float[Tensor, "c *s"], adversarial: Float[Tensor, "c *s"], modalities: Sequence[str]
) -> list[Fidelity]:
    """SSIM and PSNR (dB) of each modality over the whole image, by MONAI, on the device of the tensors.

    The data range of both is the maximum minus the minimum of the clean modality's non-zero voxels. SSIM (Wang et al.
    2004) uses a Gaussian window of 11 voxels, or the largest odd number that an axis holds. An unchanged modality has
    SSIM 1 and no PSNR.

    Args:
        clean, adversarial: the same image in stored units, 2-D or 3-D.
        modalities: one name a channel.

    Raises:
        ConfigError: shapes or names do not fit each other.
        CaseError: a modality is constant where it is not zero, so that its data range is zero.
    """
    if clean.shape != adversarial.shape or len(modalities) != len(clean):
        raise ConfigError(
            "fidelity compares two images of one shape, with one name a channel",
            got=f"{tuple(clean.shape)}, {tuple(adversarial.shape)}, {list(modalities)}",
        )
    return [_alike(name, clean[c], adversarial[c]) for c, name in enumerate(modalities)]


def _alike(modality: str, clean: Float[Tensor, "*s"], adversarial: Float[Tensor, "*s"]) -> Fidelity:
    if torch.equal(clean, adversarial):
        return Fidelity(modality=modality, ssim=1.0, psnr_db=None)
    inside = clean[clean != 0]
    width = float(inside.max() - inside.min()) if inside.numel() else 0.0
    if not width:
        raise CaseError(Reason.CONSTANT_MODALITY, f"the data range of {modality} is zero")
    # In units of the data range, whatever the stored scale: MONAI squares the voxels in float32.
    before, after = (image[None, None] / width for image in (clean, adversarial))
    window = [min(_SSIM_WINDOW, length - 1 + length % 2) for length in clean.shape]
    similarity = SSIMMetric(spatial_dims=clean.ndim, data_range=1.0, win_size=window)(after, before)
    noise = PSNRMetric(max_val=1.0)(after, before)
    return Fidelity(modality=modality, ssim=torch.as_tensor(similarity).item(), psnr_db=torch.as_tensor(noise).item())
