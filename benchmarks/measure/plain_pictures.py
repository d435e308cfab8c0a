"""I-FGSM on pictures written plainly: what a careful engineer would write for one network, without medadv.

Nothing here imports medadv. Pictures are 0 to 255; the networks are torchvision's, with fresh weights.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_fpn
from torchvision.models.segmentation import fcn_resnet50
from torchvision.ops import box_iou

CLASSES = 21
MEAN, STD = (123.7, 116.3, 103.5), (58.4, 57.1, 57.4)

Gradient = Callable[[Tensor], Tensor]


def picture(edge: int) -> tuple[Tensor, Tensor, Tensor]:
    """Noise over a gradient ``(1, 3, e, e)``, classes ``(1, e, e)``, and four boxes (row, column, row, column)."""
    generator = torch.Generator().manual_seed(1)
    ramp = torch.linspace(40, 200, edge)
    x = (ramp[:, None] + ramp[None] / 4 + 20 * torch.randn(3, edge, edge, generator=generator)).clamp(0, 255)[None]
    classes = torch.randint(0, CLASSES, (1, edge, edge), generator=generator)
    quarter = edge / 4
    boxes = [[r * quarter, c * quarter, (r + 1.5) * quarter, (c + 1.5) * quarter] for r in (0, 2) for c in (0, 2)]
    return x, classes, torch.tensor(boxes)


def segmentation() -> nn.Module:
    """torchvision's FCN with a ResNet-50, frozen, in evaluation mode."""
    torch.manual_seed(0)
    network = fcn_resnet50(weights=None, weights_backbone=None, num_classes=CLASSES)
    return network.eval().requires_grad_(False)


def detection(edge: int) -> nn.Module:
    """torchvision's Faster R-CNN with a MobileNetV3, frozen, in evaluation mode, for pictures as they are.

    Fresh weights pass hardly any gradient on: the statistics of batch norm are taken from one picture, and the classes
    are told softly enough not to be certain.
    """
    torch.manual_seed(0)
    network = fasterrcnn_mobilenet_v3_large_fpn(
        weights=None, weights_backbone=None, num_classes=CLASSES, min_size=edge, max_size=edge
    )
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None
    with torch.no_grad():
        network.backbone.train()(picture(edge)[0] / 255)
        network.roi_heads.box_predictor.cls_score.weight *= 0.02
    return network.eval().requires_grad_(False)


def segmentation_gradient(network: nn.Module, classes: Tensor) -> Gradient:
    """Of the summed cross entropy of all pixels."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))

    def gradient(x: Tensor) -> Tensor:
        leaf = x.detach().requires_grad_()
        loss = F.cross_entropy(network((leaf - mean) / std)["out"], classes, reduction="sum")
        return torch.autograd.grad(loss, leaf)[0]

    return gradient


def detection_gradient(network: nn.Module, x: Tensor, boxes: Tensor, label: int, count: int) -> Gradient:
    """Of the summed cross entropy of the proposals that overlap a box and are scored, frozen on the clean picture."""
    rpn, heads = network.rpn, network.roi_heads
    settings = rpn._pre_nms_top_n, rpn._post_nms_top_n, rpn.nms_thresh
    rpn._pre_nms_top_n = {"training": 2 * count, "testing": 2 * count}
    rpn._post_nms_top_n, rpn.nms_thresh = {"training": count, "testing": count}, 0.9
    with torch.no_grad():
        images, _ = network.transform(list(x / 255))
        features = network.backbone(images.tensors)
        (proposals,), _ = rpn(images, features)
        rpn._pre_nms_top_n, rpn._post_nms_top_n, rpn.nms_thresh = settings
        pooled = heads.box_roi_pool(features, [proposals], images.image_sizes)
        score = heads.box_predictor(heads.box_head(pooled))[0].softmax(1)
    kept = (score[:, 1:] > 0.01).any(1)
    proposals, score = proposals[kept], score[kept]
    near = box_iou(proposals, boxes[:, [1, 0, 3, 2]]).amax(1) > 0.1
    counted = near & (score[:, label] > 0.01)
    labels = torch.full((len(proposals),), label)

    def gradient(x: Tensor) -> Tensor:
        leaf = x.detach().requires_grad_()
        images, _ = network.transform(list(leaf / 255))
        pooled = heads.box_roi_pool(network.backbone(images.tensors), [proposals], images.image_sizes)
        logits = heads.box_predictor(heads.box_head(pooled))[0]
        loss = F.cross_entropy(logits, labels, reduction="none")[counted].sum()
        return torch.autograd.grad(loss, leaf)[0]

    return gradient


def ifgsm(gradient: Gradient, x: Tensor, radius: float, steps: int) -> Tensor:
    """So many steps of the whole budget, inside 0 to 255."""
    lower, upper = (x - radius).clamp(min=0), (x + radius).clamp(max=255)
    moved = x
    for _ in range(steps):
        moved = torch.clamp(moved + radius * gradient(moved).sign(), lower, upper)
    return moved
