"""A small feature pyramid that a detector of small pictures or volumes learns on, on one core, in minutes."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

GROUPS = 8
"""Channels are normalised in so many groups: what a picture is does not depend on its batch."""


class Pyramid(nn.Module):
    """Feature maps of one width at falling resolutions, each told what the coarser one sees (Lin et al. 2017,
    arXiv:1612.03144).

    Args:
        axes: of the image.
        channels: that come in.
        width: channels of each feature map; a multiple of ``GROUPS``.
        first: pixels to one place of the finest map, a power of two from 2 on.
        levels: how many maps; each is half as fine as the one before.
    """

    def __init__(self, axes: Literal[2, 3], channels: int, width: int, first: int, levels: int) -> None:
        super().__init__()
        self.out_channels = width
        halvings = first.bit_length() - 1
        widths = [max(width >> (halvings - i - 1), GROUPS) for i in range(halvings)] + [width] * (levels - 1)
        stages = [
            nn.Sequential(_layer(axes, before, after, 2), _layer(axes, after, after, 1))
            for before, after in zip([channels, *widths], widths, strict=False)
        ]
        self.stem = nn.Sequential(*stages[:halvings])
        self.stages = nn.ModuleList(stages[halvings:])
        self.smooth = nn.ModuleList(_layer(axes, width, width, 1) for _ in range(levels))

    def forward(self, x: Float[Tensor, "b c *s"]) -> OrderedDict[str, Tensor]:
        """The maps, the finest first."""
        maps = [self.stem(x)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        told = maps[-1]
        answer = [self.smooth[-1](told)]
        for finer, smooth in zip(reversed(maps[:-1]), reversed(list(self.smooth)[:-1]), strict=True):
            told = finer + F.interpolate(told, size=finer.shape[2:], mode="nearest")
            answer.append(smooth(told))
        return OrderedDict((str(i), each) for i, each in enumerate(reversed(answer)))


def _layer(axes: int, before: int, after: int, stride: int) -> nn.Module:
    convolution = Conv[Conv.CONV, axes](before, after, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.GroupNorm(GROUPS, after), nn.ReLU())
