"""A network that looks at its input in several sizes, and fuses what it says of each, as DeepLab v2 does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medadv.errors import ConfigError, VictimError
from medadv.victims.combine import answered, passes, resized
from medadv.victims.memory import is_full
from medadv.victims.window import on_grid


@dataclass(frozen=True)
class MultiScale:
    """At which sizes a network looks at its input, and how its answers become one (Chen et al. 2018, arXiv:1606.00915).

    The networks share their weights. An adversarial input made at one scale is weaker at others, which Arnab et al.
    (2018, arXiv:1711.09856) name as a reason why fused answers withstand more. One scale alone is a victim that
    looks at its input in that size: attack it to attack one branch.

    Attributes:
        scales: how many times as long an axis becomes; 1 is the input as it is.
        fusion: the highest of the logits of each class in each voxel, whose gradient goes to that scale alone, of equal
            ones to the first; or their mean.
        multiple: the sizes are rounded to multiples of this: 2**n for a network that halves its grid n times. The
            scale 1 stays as it is.

    Raises:
        ConfigError: scales that are no positive numbers, one of them twice, another fusion, or a multiple below 1.
    """

    scales: tuple[float, ...] = (0.5, 0.75, 1.0)
    fusion: Literal["max", "mean"] = "max"
    multiple: int = 1
    name: Literal["multi-scale"] = "multi-scale"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (a study may not misspell a key)

    def __post_init__(self) -> None:
        given = self.scales if isinstance(self.scales, Sequence) and not isinstance(self.scales, str) else ()
        scales = [float(s) for s in given if isinstance(s, int | float) and not isinstance(s, bool) and 0 < s < inf]
        if not scales or len(scales) < len(given) or len(set(scales)) < len(scales):
            raise ConfigError(
                "a network looks at its input at scales that are positive numbers, each once",
                got=repr(self.scales),
                expected="for example (0.5, 0.75, 1.0); for one branch alone (0.5,)",
            )
        object.__setattr__(self, "scales", tuple(scales))
        if self.fusion not in ("max", "mean"):
            raise ConfigError("logits of several scales are fused by their max or mean", got=repr(self.fusion))
        if type(self.multiple) is not int or self.multiple < 1:
            raise ConfigError(
                "sizes cannot be rounded to multiples of this",
                got=repr(self.multiple),
                expected="a whole number, 1 or more",
                advice="2**n for a network that halves its grid n times",
            )

    def size(self, n: int, scale: float) -> int:
        """An axis of n voxels at a scale."""
        return n if scale == 1 else max(round(n * scale / self.multiple), 1) * self.multiple


class MultiScaled(nn.Module):
    """The fused answer of one network to its input in several sizes; each is brought back to the input's grid first.

    Input and logits are interpolated linearly, with voxels as boxes. One size at a time is held in memory: for the
    gradient each is answered once more.

    Args:
        network: who is asked.
        setting: at which sizes.
    """

    def __init__(self, network: nn.Module, setting: MultiScale) -> None:
        super().__init__()
        self.network = network
        self.setting = setting

    @property
    def passes(self) -> int:
        """Networks answered for one answer, each counted whole, however small its input is."""
        return len(self.setting.scales) * passes(self.network)

    def forward(self, x: Float[Tensor, "b c *s"]) -> Float[Tensor, "b k *s"]:
        """The fused logits.

        Raises:
            VictimError: a size that the network cannot answer.
        """
        members = [partial(self._seen, scale) for scale in self.setting.scales]
        if len(members) == 1:
            return members[0](x)
        answers = torch.stack([answered(member, x) for member in members])
        return answers.max(0).values if self.setting.fusion == "max" else answers.mean(0)

    def _seen(self, scale: float, x: Tensor) -> Tensor:
        shape = tuple(self.setting.size(n, scale) for n in x.shape[2:])
        advice = "round the sizes to what the network can halve and double again: multiple=2**n for n halvings"
        try:
            answer = on_grid(self.network(resized(x, shape)), shape, advice)
        except RuntimeError as error:
            if is_full(error) or shape == x.shape[2:]:
                raise
            raise VictimError(
                f"the network cannot answer its input at the scale {scale:g}",
                got=f"an input of {shape}: {str(error).splitlines()[0]}",
                advice=advice,
            ) from error
        return resized(answer, x.shape[2:])

    def extra_repr(self) -> str:
        """The scales and their fusion, since they change the answer and are no layers."""
        return f"scales={self.setting.scales}, fusion={self.setting.fusion}, multiple={self.setting.multiple}"
