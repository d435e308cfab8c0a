"""Detectors by name: torchvision's and MONAI's, built from literal arguments, and with fresh weights always.

A table, not an import string. The names that torchvision has are built exactly as there, so that its weights fit;
``FasterRCNN``, ``RetinaNet``, ``FCOS``, ``SSD`` and ``RetinaNet3d`` are the same kinds with a small backbone, for small
pictures and a processor. None of them ever downloads weights.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torchvision.models.detection as standard
from monai.apps.detection.networks.retinanet_detector import RetinaNetDetector
from monai.apps.detection.networks.retinanet_network import RetinaNet as Heads
from monai.apps.detection.utils.anchor_utils import AnchorGeneratorWithAnchorShape
from torch import nn
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.ssd import SSDHead
from torchvision.ops import MultiScaleRoIAlign

from medadv.errors import ConfigError
from medadv.victims.detectors.pyramid import GROUPS, Pyramid
from medadv.victims.memory import is_full
from medadv.victims.networks import Architecture

Builder = Callable[..., nn.Module]
"""``(channels, classes, **arguments)`` → a network; classes with the background."""

SIDES = ((12, 18), (28, 44))
"""The anchors of the small detectors: their sides in pixels, finest feature map first."""

GREY = {"image_mean": (0.5,), "image_std": (0.25,)}
"""How the small detectors normalise what lies between 0 and 1."""


def faster_rcnn(
    channels: int, classes: int, width: int = 64, sides: Sequence[Sequence[int]] = SIDES, **settings: Any
) -> nn.Module:
    """A small Faster R-CNN of pictures as they are, or resized by ``min_size`` and ``max_size``."""
    names = [str(i) for i in range(len(sides))]
    own = {"rpn_pre_nms_top_n_train": 400, "rpn_post_nms_top_n_train": 200, "rpn_pre_nms_top_n_test": 400}
    own |= {"rpn_post_nms_top_n_test": 100, "rpn_batch_size_per_image": 64, "box_batch_size_per_image": 64}
    side = 5
    network: nn.Module = standard.FasterRCNN(
        Pyramid(2, channels, width, 4, len(sides)),
        rpn_anchor_generator=_anchors(sides),
        box_roi_pool=MultiScaleRoIAlign(names, side, 2, canonical_scale=32, canonical_level=2),
        box_head=TwoMLPHead(width * side**2, 2 * width),
        box_predictor=FastRCNNPredictor(2 * width, classes),
        **_sized(channels) | own | settings,
    )
    return network


def retinanet(
    channels: int, classes: int, width: int = 64, sides: Sequence[Sequence[int]] = SIDES, **settings: Any
) -> nn.Module:
    """A small RetinaNet of pictures as they are, or resized by ``min_size`` and ``max_size``."""
    anchors = _anchors(sides)
    norm = partial(nn.GroupNorm, GROUPS)
    head = RetinaNetHead(width, anchors.num_anchors_per_location()[0], classes, norm_layer=norm)
    _shallow(head.classification_head, head.regression_head)
    backbone = Pyramid(2, channels, width, 8, len(sides))
    own = _sized(channels) | {"detections_per_img": 100}
    network: nn.Module = standard.RetinaNet(backbone, classes, anchor_generator=anchors, head=head, **own | settings)
    return network


def fcos(channels: int, classes: int, width: int = 64, levels: int = 3, **settings: Any) -> nn.Module:
    """A small FCOS of pictures as they are, or resized by ``min_size`` and ``max_size``."""
    strides = tuple((4 << level,) for level in range(levels))
    backbone = Pyramid(2, channels, width, strides[0][0], levels)
    anchors = AnchorGenerator(strides, ((1.0,),) * levels)
    head = FCOSHead(width, 1, classes, num_convs=1)
    own = _sized(channels) | {"detections_per_img": 100}
    network: nn.Module = standard.FCOS(backbone, classes, anchor_generator=anchors, head=head, **own | settings)
    return network


def ssd(
    channels: int, classes: int, width: int = 64, levels: int = 3, size: Sequence[int] = (96, 96), **settings: Any
) -> nn.Module:
    """A small SSD of pictures resized to ``size``."""
    boxes = DefaultBoxGenerator([[2]] * levels, 0.15, 0.6)
    head = SSDHead([width] * levels, boxes.num_anchors_per_location(), classes)
    normal = {name: value * channels for name, value in GREY.items()}
    backbone = Pyramid(2, channels, width, 8, levels)
    network: nn.Module = standard.ssd.SSD(backbone, boxes, tuple(size), classes, head=head, **normal | settings)
    return network


def retinanet_3d(
    channels: int,
    classes: int,
    width: int = 32,
    sides: Sequence[Sequence[int]] = ((6,), (12,)),
    score_thresh: float = 0.05,
    nms_thresh: float = 0.3,
    detections_per_img: int = 100,
) -> nn.Module:
    """MONAI's RetinaNet of volumes with a small backbone: cubic anchors, hard negatives, smooth L1."""
    shapes = [[side] * 3 for side in sides[0]]
    scales = tuple(round(each[0] / sides[0][0]) for each in sides)
    anchors = AnchorGeneratorWithAnchorShape(scales, shapes)
    first = 4
    heads = Heads(
        spatial_dims=3,
        num_classes=classes - 1,
        num_anchors=len(shapes),
        feature_extractor=Pyramid(3, channels, width, first, len(sides)),
        size_divisible=first << (len(sides) - 1),
    )
    _shallow(heads.classification_head, heads.regression_head)
    detector = RetinaNetDetector(heads, anchors)
    detector.set_atss_matcher(num_candidates=4, center_in_gt=False)
    detector.set_hard_negative_sampler(64, 0.3, min_neg=16, pool_size=10)
    detector.set_box_selector_parameters(score_thresh, 1000, nms_thresh, detections_per_img)
    return detector


def _as_torchvision_has_it(build: Callable[..., nn.Module]) -> Builder:
    def builder(channels: int, classes: int, **arguments: Any) -> nn.Module:
        if channels != 3:
            raise ConfigError(
                "torchvision's detectors are made for three channels",
                got=channels,
                advice="take the small ones of the same kind: FasterRCNN, RetinaNet, FCOS, SSD",
            )
        return build(weights=None, weights_backbone=None, num_classes=classes, **arguments)

    return builder


@dataclass(frozen=True)
class Plan:
    """How a detector is built.

    Attributes:
        build: from channels, classes and arguments.
        kind: the class of the whole, whose named arguments may be given, too.
    """

    build: Builder
    kind: type[nn.Module]

    @property
    def arguments(self) -> set[str]:
        """What may be given: torchvision would let any other word pass in silence."""
        named: set[str] = {"size_divisible"}
        for one in (self.build, self.kind.__init__):
            named |= {p.name for p in inspect.signature(one).parameters.values() if p.kind != p.VAR_KEYWORD}
        return named - {"self", "channels", "classes", "backbone", "num_classes"}


DETECTORS: dict[str, Plan] = {
    "FasterRCNN": Plan(faster_rcnn, standard.FasterRCNN),
    "RetinaNet": Plan(retinanet, standard.RetinaNet),
    "FCOS": Plan(fcos, standard.FCOS),
    "SSD": Plan(ssd, standard.ssd.SSD),
    "RetinaNet3d": Plan(retinanet_3d, nn.Module),
    **{
        name: Plan(_as_torchvision_has_it(build), kind)
        for name, build, kind in (
            ("FasterRCNN_ResNet50_FPN", standard.fasterrcnn_resnet50_fpn, standard.FasterRCNN),
            ("FasterRCNN_ResNet50_FPN_V2", standard.fasterrcnn_resnet50_fpn_v2, standard.FasterRCNN),
            ("FasterRCNN_MobileNet_V3_Large_FPN", standard.fasterrcnn_mobilenet_v3_large_fpn, standard.FasterRCNN),
            (
                "FasterRCNN_MobileNet_V3_Large_320_FPN",
                standard.fasterrcnn_mobilenet_v3_large_320_fpn,
                standard.FasterRCNN,
            ),
            ("RetinaNet_ResNet50_FPN", standard.retinanet_resnet50_fpn, standard.RetinaNet),
            ("RetinaNet_ResNet50_FPN_V2", standard.retinanet_resnet50_fpn_v2, standard.RetinaNet),
            ("FCOS_ResNet50_FPN", standard.fcos_resnet50_fpn, standard.FCOS),
            ("SSD300_VGG16", standard.ssd300_vgg16, standard.ssd.SSD),
            ("SSDLite320_MobileNet_V3_Large", standard.ssdlite320_mobilenet_v3_large, standard.ssd.SSD),
        )
    },
}
"""What a study can name. Any other detector comes in through Python."""

_FIXED = ("weights", "weights_backbone", "num_classes", "progress", "pretrained", "pretrained_backbone")


def build_detector(architecture: Architecture, modalities: int, classes: int) -> nn.Module:
    """A detector with fresh weights.

    Args:
        architecture: its name in ``DETECTORS`` and its own arguments.
        modalities: input channels.
        classes: the classes of its scheme, the background among them.

    Raises:
        ConfigError: an unknown name, arguments that the network refuses, or weights that would be downloaded.
    """
    if architecture.name not in DETECTORS:
        raise ConfigError(
            "there is no detector of this name",
            got=architecture.name,
            expected=f"one of {sorted(DETECTORS)}",
            advice="bring your own in by Python: medadv.run('study.yaml', victims={'mine': Detector(network, scheme)})",
        )
    if fixed := sorted(set(architecture.arguments) & set(_FIXED)):
        raise ConfigError(
            f"{architecture.name} is built with fresh weights, and as many classes as its scheme has",
            got=fixed,
            advice="leave them out, and give trained weights as a file",
        )
    plan = DETECTORS[architecture.name]
    if unknown := sorted(set(architecture.arguments) - plan.arguments):
        raise ConfigError(
            f"{architecture.name} does not know these arguments",
            got=unknown,
            expected=f"some of {sorted(plan.arguments)}",
        )
    try:
        return plan.build(modalities, classes, **architecture.arguments)
    except (TypeError, ValueError, LookupError, RuntimeError, AssertionError, AttributeError) as error:
        if is_full(error):
            raise
        raise ConfigError(
            f"{architecture.name} refuses its arguments", got=f"{architecture.arguments}: {error}"
        ) from error


def _anchors(sides: Sequence[Sequence[int]]) -> AnchorGenerator:
    return AnchorGenerator(tuple(tuple(each) for each in sides), ((1.0,),) * len(sides))


def _shallow(*heads: nn.Module) -> None:
    """Leave the first convolution of each head: four learn slowly, where there is little to be told apart."""
    for head in heads:
        assert isinstance(head.conv, nn.Sequential)
        length = next((i for i, part in enumerate(head.conv) if i and _has_convolution(part)), len(head.conv))
        head.conv = head.conv[:length]


def _has_convolution(part: nn.Module) -> bool:
    return any(isinstance(one, nn.modules.conv._ConvNd) for one in part.modules())


def _sized(channels: int) -> dict[str, Any]:
    """As large as the pictures of a demonstration are, and normalised."""
    return {"min_size": 96, "max_size": 160} | {name: value * channels for name, value in GREY.items()}
