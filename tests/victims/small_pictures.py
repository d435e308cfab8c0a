"""Small pictures of bright shapes in noise, made by a number alone, for detectors to be tested on."""

from __future__ import annotations

import torch
from torch import Tensor

from medadv.labels import LabelScheme
from medadv.objects import Objects

SHAPES = LabelScheme("shapes", {"background": 0, "disc": 3, "square": 5, "cross": 8})
"""Numbers with gaps, so that a class is never mistaken for its number."""

GLOW = torch.tensor([[60.0, -10.0, 0.0], [0.0, 60.0, -10.0], [-10.0, 0.0, 60.0]])


def picture(number: int, size: tuple[int, int] = (64, 80), most: int = 3) -> tuple[Tensor, Objects]:
    """Grey levels ``(3, h, w)`` and the shapes in them, which never touch; sometimes none."""
    draw = torch.Generator().manual_seed(number)

    def whole(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=draw))

    x = 110 + 12 * torch.randn((3, *size), generator=draw)
    rows, columns = torch.meshgrid(torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5, indexing="ij")
    free, boxes, labels = torch.ones(size, dtype=torch.bool), [], []
    for _ in range(whole(0 if number % 7 == 0 else 1, most + 1)):
        kind, side = whole(0, 3), whole(14, 27)
        top, left = whole(0, size[0] - side), whole(0, size[1] - side)
        if not free[top : top + side, left : left + side].all():
            continue
        free[max(top - 2, 0) : top + side + 2, max(left - 2, 0) : left + side + 2] = False
        down, right = (rows - top - side / 2).abs(), (columns - left - side / 2).abs()
        square = torch.maximum(down, right) < side / 2
        masks = (down.square() + right.square() < side**2 / 4, square, square & (torch.minimum(down, right) < side / 6))
        colour = GLOW[kind] * (0.7 + 0.6 * torch.rand((), generator=draw))
        x += masks[kind] * colour[:, None, None]
        boxes.append([top, left, top + side, left + side])
        labels.append(SHAPES.numbers[SHAPES.tissues[kind + 1]])
    found = Objects(torch.tensor(boxes).float().view(-1, 4), torch.tensor(labels, dtype=torch.int64))
    return x.clamp(0, 255), found
