"""``Shape``: a drawn figure that the victim shall see in an image (Xie et al. 2017, arXiv:1703.08603)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from medadv.attack.axes import other_axes
from medadv.attack.losses import Logits
from medadv.attack.relabel import counted
from medadv.attack.rng import Rng
from medadv.attack.targets import Targets, label_map
from medadv.errors import ConfigError
from medadv.labels import BACKGROUND, LabelScheme

Figure = Literal["square", "circle", "diamond", "strips"]

INSIDE = "inside"
"""The targets count that lie in the figure."""

STRIPS = 4
"""As many bars are in a figure of strips, and gaps between them that are as wide."""

Offsets = Float[Tensor, "axes *s"]
"""From the centre of the figure to the centre of each voxel, over half the figure's width."""

FIGURES: dict[str, Callable[[Offsets], Bool[Tensor, "*s"]]] = {
    "square": lambda d: d.abs().amax(0) <= 1,
    "circle": lambda d: d.square().sum(0) <= 1,
    "diamond": lambda d: d.abs().sum(0) <= 1,
    "strips": lambda d: (d.abs().amax(0) <= 1) & (((d[0] + 1) / 2 * (2 * STRIPS - 1)).floor() % 2 == 0),
}
"""Which voxels belong to a figure: those whose centre does. Of other axes than two: the cube, the ball, ... of them."""


@dataclass(frozen=True)
class Shape:
    """Make the victim see a figure of one tissue; outside all stays as it is.

    Attributes:
        kind: ``"square"``, ``"circle"``, ``"diamond"``, or ``"strips"``: bars along all axes but the first.
        tissue: what it is of; of a region, its first tissue. None for one drawn, for each sample, among those but the
            background that it does not show, as Xie et al.'s code does.
        size: the figure's width as a share of the shortest side of the image; in voxels, whatever they measure.
        centre: where its middle is, as shares of the sides; None for the middle of the image.
        where: which targets count: those ``"inside"`` the figure, ``"everywhere"``, those that are ``"changed"``, or a
            region or tissue.

    Raises:
        ConfigError: no such figure, a size or a centre outside the image; when it is called: a centre for another
            number of axes, a sample that shows all tissues, or targets without a label map.
    """

    kind: Figure
    tissue: str | None = None
    size: float = 0.5
    centre: tuple[float, ...] | None = None
    where: str = INSIDE

    def __post_init__(self) -> None:
        if isinstance(self.centre, list):
            object.__setattr__(self, "centre", tuple(self.centre))
        if self.kind not in FIGURES:
            raise ConfigError("there is no such figure", got=self.kind, expected=f"one of {list(get_args(Figure))}")
        if not 0 < self.size <= 1:
            raise ConfigError("a figure's size is a share of the shortest side", got=self.size, expected="0.5, up to 1")
        if self.centre is not None and not all(0 <= each <= 1 for each in self.centre):
            raise ConfigError("a figure's centre is told in shares of the sides", got=self.centre, expected="0 to 1")

    def __call__(self, targets: Targets, raw: Logits, rng: Rng) -> Targets:  # noqa: ARG002
        """Relabel the figure."""
        truth = label_map(targets)
        figure = self._figure(truth[0])
        numbers = targets.scheme.numbers
        if self.tissue is None:
            shown, streams = targets.present(), rng.fork("figure").generators()
            tissues = [_absent(targets.scheme, s, g) for s, g in zip(shown, streams, strict=True)]
        else:
            tissues = [targets.scheme.members(self.tissue)[0]] * len(truth)
        wanted = torch.stack([torch.where(figure, numbers[t], own) for t, own in zip(tissues, truth, strict=True)])
        new = targets.mapped(wanted)
        if self.where != INSIDE:
            return counted(self.where, targets, new)
        lead = targets.labels.ndim - figure.ndim  # the batch, and regions where the head has such
        return new.within(figure[(None,) * lead].expand_as(targets.where) & targets.where)

    def _figure(self, image: Tensor) -> Bool[Tensor, "*s"]:
        sides, device = image.shape, image.device
        centre = self.centre or (0.5,) * image.ndim
        if len(centre) != image.ndim:
            raise other_axes(centre, image[None])
        half = self.size * min(sides) / 2
        lines = [
            (torch.arange(n, dtype=torch.float64, device=device) + 0.5 - share * n) / half
            for n, share in zip(sides, centre, strict=True)
        ]
        return FIGURES[self.kind](torch.stack(torch.meshgrid(*lines, indexing="ij")))


def _absent(scheme: LabelScheme, shown: frozenset[str], generator: torch.Generator) -> str:
    """One of the tissues but the background that a sample does not show."""
    choice = [t for t in scheme.tissues if t != BACKGROUND and t not in shown]
    if not choice:
        raise ConfigError(
            "the sample shows all tissues, and none is left to draw a figure of",
            got=sorted(shown),
            advice="name the figure's tissue",
        )
    return choice[int(torch.randint(len(choice), (1,), generator=generator))]
