"""MONAI's RetinaNet, in two axes or three: a detector of lesions in volumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from monai.apps.detection.networks.retinanet_detector import RetinaNetDetector
from monai.apps.detection.utils.detector_utils import preprocess_images
from monai.apps.detection.utils.predict_utils import ensure_dict_value_to_list_, predict_with_inferer
from torch import Tensor, nn

from medadv.objects import Objects
from medadv.victims.sight import Places, changed, gathered, numbered, with_background


@dataclass(frozen=True)
class Lesions:
    """MONAI's ``RetinaNetDetector``: anchors are the places, each class has a sigmoid, and none is the background.

    Where the detector has a sliding window of its own, logits and detections go through it.
    """

    name: Literal["lesions"] = "lesions"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    def classes(self, network: nn.Module) -> int | None:
        """The network's, and the background."""
        found: int = _own(network).num_classes
        return found + 1

    def look(self, network: nn.Module, x: Float[Tensor, "b c *s"]) -> tuple[Places, Float[Tensor, "b classes n"]]:
        """All anchors and their logits."""
        whole = _own(network)
        images, answers = _answered(whole, x)
        return numbered(whole.anchor_generator(images, answers)), _classified(whole, answers).transpose(1, 2)

    def logits(self, network: nn.Module, x: Float[Tensor, "b c *s"], places: Places) -> Float[Tensor, "b classes n"]:
        """What the head says at these anchors."""
        whole = _own(network)
        return gathered(_classified(whole, _answered(whole, x)[1]), places.own)

    def scores(self, logits: Float[Tensor, "b classes n"]) -> Float[Tensor, "b classes n"]:
        """A sigmoid each."""
        return logits.sigmoid()

    def detect(self, network: nn.Module, x: Float[Tensor, "b c *s"]) -> list[Objects]:
        """The network's own detections, whatever image it has seen before."""
        whole = _own(network)
        reports = changed(whole, anchors=None, previous_image_shape=None)(x, use_inferer=whole.inferer is not None)
        keys = (whole.target_box_key, whole.target_label_key, whole.pred_score_key)
        boxes, labels, scores = ([each[key] for each in reports] for key in keys)
        return [Objects(*one) for one in zip(boxes, (each + 1 for each in labels), scores, strict=True)]

    def losses(self, network: nn.Module, x: Float[Tensor, "b c *s"], objects: Sequence[Objects]) -> Float[Tensor, ""]:
        """The sum of the network's own losses, of classes and boxes."""
        whole = _own(network)
        targets = [
            {whole.target_box_key: each.boxes.to(x), whole.target_label_key: each.labels.to(x.device) - 1}
            for each in objects
        ]
        losses: dict[str, Tensor] = changed(whole, anchors=None, previous_image_shape=None)(x, targets)
        return torch.stack(list(losses.values())).sum()

    def describe(self, network: nn.Module) -> dict[str, Any]:
        """Thresholds, and the sliding window."""
        whole = _own(network)
        selector, window = whole.box_selector, whole.inferer
        names = ("roi_size", "overlap", "mode", "sigma_scale", "padding_mode", "cval")
        return {
            "divisible by": list(whole.size_divisible),
            "score": selector.score_thresh,
            "nms": selector.nms_thresh,
            "detections": selector.detections_per_img,
            "before nms": selector.topk_candidates_per_level,
            **({"window": {name: str(getattr(window, name)) for name in names}} if window else {}),
        }


def _own(network: nn.Module) -> RetinaNetDetector:
    assert isinstance(network, RetinaNetDetector)  # by sight_of, or by who chose this sight
    return network


def _answered(whole: RetinaNetDetector, x: Float[Tensor, "b c *s"]) -> tuple[Tensor, list[Tensor]]:
    """The padded images, and the maps of logits, one a level."""
    images, _ = preprocess_images(x, whole.spatial_dims, whole.size_divisible)
    if whole.inferer is not None:
        keys = [whole.cls_key, whole.box_reg_key]
        return images, predict_with_inferer(images, whole.network, keys, whole.inferer)[whole.cls_key]
    answers = whole.network(images)
    if isinstance(answers, tuple | list):
        return images, list(answers[: len(answers) // 2])
    ensure_dict_value_to_list_(answers)
    maps: list[Tensor] = answers[whole.cls_key]
    return images, maps


def _classified(whole: RetinaNetDetector, maps: list[Tensor]) -> Float[Tensor, "b n classes"]:
    """The logits of all anchors, and the background's."""
    return with_background(whole._reshape_maps(maps), whole.box_selector.score_thresh)
