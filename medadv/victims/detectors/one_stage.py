"""torchvision's one-stage detectors: each anchor, or each point, tells its class at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from medadv.objects import Objects
from medadv.victims.detectors.torchvision_way import Frame, described, features_of, learnt, reported
from medadv.victims.sight import Places, gathered, numbered, with_background

Answers = dict[str, Tensor]


class _OneStage:
    """What the three have in common: a head that answers for all places at once, and the network's own ``forward``."""

    def boxes(
        self,
        whole: Any,
        images: ImageList,
        maps: list[Tensor],
        answers: Answers,  # noqa: ARG002
    ) -> list[Tensor]:
        """The boxes of all places in the network's frame, image by image."""
        anchors: list[Tensor] = whole.anchor_generator(images, maps)
        return anchors

    def classified(self, whole: Any, answers: Answers) -> Float[Tensor, "b n classes"]:
        """The logits of all places."""
        raise NotImplementedError

    def look(self, network: nn.Module, x: Float[Tensor, "b c h w"]) -> tuple[Places, Float[Tensor, "b classes n"]]:
        """All places and their logits."""
        images, maps, answers = _answered(network, x)
        boxes = self.boxes(network, images, maps, answers)
        return numbered(Frame.of(images, x).stored(boxes)), self.classified(network, answers).transpose(1, 2)

    def logits(self, network: nn.Module, x: Float[Tensor, "b c h w"], places: Places) -> Float[Tensor, "b classes n"]:
        """What the head says of these places."""
        return gathered(self.classified(network, _answered(network, x)[2]), places.own)

    def scores(self, logits: Float[Tensor, "b classes n"]) -> Float[Tensor, "b classes n"]:
        """A sigmoid each."""
        return logits.sigmoid()

    def detect(self, network: nn.Module, x: Float[Tensor, "b c h w"]) -> list[Objects]:
        """The network's own detections."""
        return reported(network, x)

    def losses(self, network: nn.Module, x: Float[Tensor, "b c h w"], objects: Sequence[Objects]) -> Float[Tensor, ""]:
        """The sum of the network's own losses."""
        return learnt(network, x, objects)

    def describe(self, network: nn.Module) -> dict[str, Any]:
        """Sizes and thresholds."""
        return described(network, network)


@dataclass(frozen=True)
class Anchors(_OneStage):
    """RetinaNet (Lin et al. 2017, arXiv:1708.02002): anchors are the places, and each class has a sigmoid of its own.

    The background's logit is the odds of the deployed score threshold. The network's class 0 is never used.
    """

    name: Literal["anchors"] = "anchors"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    def classes(self, network: nn.Module) -> int | None:
        """As many as the head has."""
        found: int | None = getattr(_as_any(network).head.classification_head, "num_classes", None)
        return found

    def classified(self, whole: Any, answers: Answers) -> Float[Tensor, "b n classes"]:
        """The head's own logits, and the threshold's."""
        return with_background(answers["cls_logits"][..., 1:], whole.score_thresh)


@dataclass(frozen=True)
class Points(_OneStage):
    """FCOS (Tian et al. 2019, arXiv:1904.01355): points are the places, where their clean answer puts a box.

    A point has no extent that could overlap an object. The score of a class is the root of its sigmoid times that of
    the centre-ness, as it is deployed; the logit is the log-odds of that score.
    """

    name: Literal["points"] = "points"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    def classes(self, network: nn.Module) -> int | None:
        """As many as the head has."""
        return Anchors().classes(network)

    def boxes(self, whole: Any, images: ImageList, maps: list[Tensor], answers: Answers) -> list[Tensor]:
        """The box that each point tells, clipped to the image."""
        anchors = torch.stack(whole.anchor_generator(images, maps))
        boxes = whole.box_coder.decode(answers["bbox_regression"], anchors)
        rows, columns = images.image_sizes[0]
        return list(boxes.clamp(min=0).minimum(boxes.new_tensor([columns, rows, columns, rows])))

    def classified(self, whole: Any, answers: Answers) -> Float[Tensor, "b n classes"]:
        """The log-odds of the scores, and the threshold's."""
        parts = F.logsigmoid(answers["cls_logits"][..., 1:]) + F.logsigmoid(answers["bbox_ctrness"])
        log_score = (parts / 2).clamp(max=-torch.finfo(parts.dtype).tiny)
        odds = log_score - torch.log(-torch.expm1(log_score))
        return with_background(odds, whole.score_thresh)


@dataclass(frozen=True)
class DefaultBoxes(_OneStage):
    """SSD (Liu et al. 2016, arXiv:1512.02325): default boxes are the places; a softmax tells background or class."""

    name: Literal["default boxes"] = "default boxes"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    def classes(self, network: nn.Module) -> int | None:
        """As many as the head has columns."""
        found: int | None = getattr(_as_any(network).head.classification_head, "num_columns", None)
        return found

    def classified(self, whole: Any, answers: Answers) -> Float[Tensor, "b n classes"]:  # noqa: ARG002
        """The head's own logits."""
        return answers["cls_logits"]

    def scores(self, logits: Float[Tensor, "b classes n"]) -> Float[Tensor, "b classes n"]:
        """Softmax over the classes."""
        return logits.softmax(1)


def _as_any(network: nn.Module) -> Any:
    """torchvision declares none of its parts."""
    return network


def _answered(network: nn.Module, x: Float[Tensor, "b c h w"]) -> tuple[ImageList, list[Tensor], Answers]:
    """The network's input, its feature maps, and what its head answers."""
    whole = _as_any(network)
    images, features = features_of(whole, x)
    maps = list(features.values())
    return images, maps, whole.head(maps)
