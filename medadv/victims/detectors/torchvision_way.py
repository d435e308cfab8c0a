"""What torchvision's detectors have in common: they resize and normalise themselves, and tell boxes as x, y, x, y."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from medadv.objects import Objects
from medadv.victims.sight import turned

Features = OrderedDict[str, Tensor]


def features_of(network: Any, x: Float[Tensor, "b c h w"]) -> tuple[ImageList, Features]:
    """Images as the network's layers are fed, and its features of them; differentiable through its own resizing."""
    images, _ = network.transform(list(x))
    features = network.backbone(images.tensors)
    return images, OrderedDict([("0", features)]) if isinstance(features, Tensor) else features


@dataclass(frozen=True)
class Frame:
    """Where the network's own frame lies: how many stored pixels one of its pixels is, along rows and columns.

    Pictures of a batch have one size, and so one frame.
    """

    rows: float
    columns: float

    @classmethod
    def of(cls, images: ImageList, x: Float[Tensor, "b c h w"]) -> Frame:
        """The frame of these images, which came from ``x``."""
        rows, columns = images.image_sizes[0]
        return cls(x.shape[2] / rows, x.shape[3] / columns)

    def stored(self, boxes: Sequence[Float[Tensor, "_ 4"]]) -> list[Float[Tensor, "_ 4"]]:
        """The network's boxes in stored pixels, corners in the order of the image's axes."""
        return [turned(each) * each.new_tensor([self.rows, self.columns] * 2) for each in boxes]


def reported(network: nn.Module, x: Float[Tensor, "b c h w"]) -> list[Objects]:
    """The network's own detections; labels are its own numbers."""
    return [Objects(turned(each["boxes"]), each["labels"], each["scores"]) for each in network(list(x))]


def learnt(network: nn.Module, x: Float[Tensor, "b c h w"], objects: Sequence[Objects]) -> Float[Tensor, ""]:
    """The sum of the losses that the network computes in training mode."""
    targets = [{"boxes": turned(each.boxes).to(x), "labels": each.labels.to(x.device)} for each in objects]
    losses: dict[str, Tensor] = network(list(x), targets)
    return torch.stack(list(losses.values())).sum()


def described(network: Any, heads: Any) -> dict[str, Any]:
    """Sizes and thresholds, as JSON.

    Args:
        network: the whole network, which has a ``transform``.
        heads: the part that has the thresholds of detections.
    """
    way = network.transform
    return {
        "smaller side": list(way.min_size),
        "larger side": way.max_size,
        "fixed size": None if way.fixed_size is None else list(way.fixed_size),
        "divisible by": way.size_divisible,
        "mean": list(way.image_mean),
        "std": list(way.image_std),
        "score": heads.score_thresh,
        "nms": heads.nms_thresh,
        "detections": heads.detections_per_img,
        **({"before nms": heads.topk_candidates} if hasattr(heads, "topk_candidates") else {}),
    }
