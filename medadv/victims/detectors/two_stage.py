"""torchvision's two-stage detectors: proposals, pooled features, one class each (Ren et al. 2015, arXiv:1506.01497)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork

from medadv.errors import ConfigError
from medadv.objects import Objects
from medadv.victims.detectors.torchvision_way import (
    Features,
    Frame,
    described,
    features_of,
    learnt,
    reported,
)
from medadv.victims.sight import Places, changed, padded

LADDER = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.965, 0.98, 0.99)
"""The NMS thresholds that are tried for a wanted number of proposals, the sparsest first."""


@dataclass(frozen=True)
class TwoStage:
    """Faster R-CNN and its kin: proposals are the places, dense ones, found once on the clean image.

    Xie et al. 2017 (arXiv:1703.08603, section 3.3) raise the threshold of the proposals' NMS from 0.7 to 0.9 and their
    number from 300 to 3000, so that what an attack fools covers what a moved proposal would see. Detections are the
    network's own, with its own proposals.

    Attributes:
        nms: the overlap above which a proposal is suppressed by a better one; None: the lowest one of ``LADDER`` that
            leaves ``count`` proposals, or its last.
        count: how many proposals at most.

    Raises:
        ConfigError: a threshold outside (0, 1], or no proposals.
    """

    nms: float | None = 0.9
    count: int = 3000
    name: Literal["two-stage"] = "two-stage"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (a study may not misspell a key)

    def __post_init__(self) -> None:
        if self.count < 1 or not (self.nms is None or 0 < self.nms <= 1):
            raise ConfigError("there are no such proposals", got=self, expected="nms in (0, 1], count 1 or more")

    def classes(self, network: nn.Module) -> int | None:
        """As many as the predictor has outputs, where it is torchvision's own."""
        layer = getattr(_parts(network).roi_heads.box_predictor, "cls_score", None)
        return getattr(layer, "out_features", None)

    def look(self, network: nn.Module, x: Float[Tensor, "b c h w"]) -> tuple[Places, Float[Tensor, "b classes n"]]:
        """Dense proposals, by a copy of the network's own proposal network, and their logits."""
        whole = _parts(network)
        images, features = features_of(whole, x)
        thresholds = LADDER if self.nms is None else (self.nms,)
        best: list[Tensor] = [x.new_zeros(0, 4)] * len(x)
        for threshold in thresholds:
            proposals, _ = self._dense(whole.rpn, threshold)(images, features)
            enough = [len(each) >= self.count for each in best]
            best = [old if full else new for old, new, full in zip(best, proposals, enough, strict=True)]
            if all(len(each) >= self.count for each in best):
                break
        places = Places.of(Frame.of(images, x).stored(best), best)
        return places, _classified(whole, images, features, places)

    def logits(self, network: nn.Module, x: Float[Tensor, "b c h w"], places: Places) -> Float[Tensor, "b classes n"]:
        """Features of this image, pooled under the frozen proposals, classified."""
        whole = _parts(network)
        return _classified(whole, *features_of(whole, x), places)

    def scores(self, logits: Float[Tensor, "b classes n"]) -> Float[Tensor, "b classes n"]:
        """Softmax over the classes."""
        return logits.softmax(1)

    def detect(self, network: nn.Module, x: Float[Tensor, "b c h w"]) -> list[Objects]:
        """The network's own detections, whatever image it has seen before."""
        heads = _parts(network).roi_heads
        return reported(changed(network, roi_heads=changed(heads, box_roi_pool=_fresh(heads.box_roi_pool))), x)

    def losses(self, network: nn.Module, x: Float[Tensor, "b c h w"], objects: Sequence[Objects]) -> Float[Tensor, ""]:
        """The sum of the network's own losses: objectness, proposals, classes, boxes."""
        return learnt(network, x, objects)

    def describe(self, network: nn.Module) -> dict[str, Any]:
        """Sizes, and the thresholds of both stages."""
        whole = _parts(network)
        rpn = {
            "nms": whole.rpn.nms_thresh,
            "score": whole.rpn.score_thresh,
            "before nms": whole.rpn._pre_nms_top_n["testing"],
            "after nms": whole.rpn._post_nms_top_n["testing"],
        }
        return described(network, whole.roi_heads) | {"proposals": rpn}

    def _dense(self, rpn: RegionProposalNetwork, threshold: float) -> RegionProposalNetwork:
        """The proposal network with other settings: a copy, as it would have to be put right again otherwise."""
        before = max(2 * self.count, rpn._pre_nms_top_n["testing"])
        counts = {"_pre_nms_top_n": {"testing": before}, "_post_nms_top_n": {"testing": self.count}}
        dense: RegionProposalNetwork = changed(rpn, nms_thresh=threshold, **counts)
        return dense


def _parts(network: nn.Module) -> GeneralizedRCNN:
    assert isinstance(network, GeneralizedRCNN)  # by sight_of, or by who chose this sight
    return network


def _classified(
    whole: GeneralizedRCNN, images: ImageList, features: Features, places: Places
) -> Float[Tensor, "b classes n"]:
    """What the second stage says of places, by the features under them."""
    heads = whole.roi_heads
    boxes = [own[valid] for own, valid in zip(places.own, places.valid, strict=True)]
    pooled = _fresh(heads.box_roi_pool)(features, boxes, images.image_sizes)
    logits: Tensor = heads.box_predictor(heads.box_head(pooled))[0]
    placed = padded(torch.split(logits, [len(each) for each in boxes])).transpose(1, 2)
    # The fullest sample may have left the batch: places keep their number.
    return F.pad(placed, (0, places.valid.shape[1] - placed.shape[2]))


def _fresh(pool: nn.Module) -> nn.Module:
    """Pooling that knows no image yet: torchvision's keeps the scales of the first one that it sees."""
    fresh: nn.Module = changed(pool, scales=None, map_levels=None) if hasattr(pool, "map_levels") else pool
    return fresh
