"""Networks made of networks: mirrored copies of one image, folds of one training, whose answers are averaged; one whose
answer is multiplied; and one whose answer is picked out and brought to its input's grid.

Of those that are averaged one member at a time is held in memory: for the gradient each is answered once more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain, combinations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from medadv.errors import ConfigError, VictimError

Member = Callable[[Float[Tensor, "b c *s"]], Float[Tensor, "b k *s"]]


class Mirrored(nn.Module):
    """The mean answer over all mirror images along some axes, turned back: mirroring at test time.

    Inside sliding windows each window is mirrored, as nnU-Net does (Isensee et al. 2021).

    Args:
        network: whose answers are averaged.
        axes: axes of space, from 0.

    Raises:
        ConfigError: an axis is given twice, or none is.
    """

    def __init__(self, network: nn.Module, axes: Sequence[int]) -> None:
        super().__init__()
        whole = isinstance(axes, Sequence) and all(type(axis) is int and axis >= 0 for axis in axes)
        if not axes or not whole or len(set(axes)) < len(axes):
            raise ConfigError("mirroring takes axes of space, each once", got=repr(axes), expected="for example [0, 1]")
        self.network = network
        self.axes = tuple(axes)

    @property
    def passes(self) -> int:
        """Networks answered for one answer."""
        return int(2 ** len(self.axes) * passes(self.network))

    def forward(self, x: Float[Tensor, "b c *s"]) -> Float[Tensor, "b k *s"]:
        """The mean of 2**n answers.

        Raises:
            ConfigError: the image does not have such an axis.
        """
        if max(self.axes) >= x.ndim - 2:
            raise no_such_axis(self.axes, x.ndim - 2)
        axes = [axis + 2 for axis in self.axes]
        every = chain.from_iterable(combinations(axes, n) for n in range(len(axes) + 1))
        return _mean([partial(self._turned, flips) for flips in every], x)

    def _turned(self, flips: tuple[int, ...], x: Tensor) -> Tensor:
        answer: Tensor = self.network(x.flip(flips)).flip(flips)
        return answer

    def extra_repr(self) -> str:
        """The axes, since they change the answer."""
        return f"axes={self.axes}"


class Mean(nn.Module):
    """The mean answer of several networks: the folds of one training.

    Args:
        members: networks with the same channels.

    Raises:
        ConfigError: no member.
    """

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        if not self.members:
            raise ConfigError("a mean of no networks", expected="one or more")

    @property
    def passes(self) -> int:
        """Networks answered for one answer."""
        return sum(passes(member) for member in self.members)

    def forward(self, x: Float[Tensor, "b c *s"]) -> Float[Tensor, "b k *s"]:
        """The mean of the members' answers."""
        return _mean(list(self.members), x)


class Scaled(nn.Module):
    """A network whose logits are so many times what its layers say: how a distilled network is deployed.

    Distillation at temperature T trains softmax(logits / T), and deploys softmax(logits) (Papernot et al. 2016,
    arXiv:1511.04508). With a factor of T the loss sees what the layers say, whatever T is.

    Args:
        network: whose logits are multiplied.
        factor: by what.

    Raises:
        ConfigError: a factor that is not positive.
    """

    def __init__(self, network: nn.Module, factor: float) -> None:
        super().__init__()
        if not (math.isfinite(factor) and factor > 0):
            raise ConfigError("logits are multiplied by a positive number", got=factor, expected="for example 10")
        self.network = network
        self.factor = float(factor)

    @property
    def passes(self) -> int:
        """Networks answered for one answer."""
        return passes(self.network)

    def forward(self, x: Float[Tensor, "b c *s"]) -> Float[Tensor, "b k *s"]:
        """The answer, multiplied."""
        answer: Tensor = self.network(x) * self.factor
        return answer

    def extra_repr(self) -> str:
        """The factor, since it changes the answer and is no weight."""
        return f"factor={self.factor:g}"


class Upsampled(nn.Module):
    """A network's logits on its input's own grid: picked out of a dictionary, and interpolated where they are coarser.

    torchvision's segmentation networks answer ``{"out": logits}``, others logits of a quarter of the picture's size.
    Interpolation is linear along each axis, with voxels as boxes (``align_corners=False``). Two and three axes.

    Args:
        network: any module that answers one tensor of logits, or several in a dictionary, list or tuple.
        key: which of several is deployed: a name, or its place in a list.
    """

    def __init__(self, network: nn.Module, key: str | int = "out") -> None:
        super().__init__()
        self.network = network
        self.key = key

    @property
    def passes(self) -> int:
        """Networks answered for one answer."""
        return passes(self.network)

    def forward(self, x: Float[Tensor, "b c *s"]) -> Float[Tensor, "b k *s"]:
        """The logits.

        Raises:
            VictimError: nothing under this name, or something else than logits over as many axes.
        """
        answer = self.network(x)
        if not isinstance(answer, Tensor):
            try:
                answer = answer[self.key]
            except (LookupError, TypeError) as error:
                raise VictimError(
                    "the network's answer holds nothing under this name",
                    got=repr(self.key),
                    expected=f"one of {list(answer)}" if isinstance(answer, Mapping) else "its place in the answer",
                    advice="name the one that is deployed: Upsampled(network, key=…)",
                ) from error
        if not isinstance(answer, Tensor) or answer.ndim != x.ndim:
            raise VictimError(
                "the network answers something else than logits over a grid",
                got=f"a tensor of shape {tuple(answer.shape)}" if isinstance(answer, Tensor) else type(answer).__name__,
                expected=f"(b, channels, {'…, ' * (x.ndim - 3)}…): as many axes as its input",
            )
        return resized(answer, x.shape[2:])

    def extra_repr(self) -> str:
        """Which answer is deployed, since that is no layer."""
        return f"key={self.key!r}"


def resized(x: Float[Tensor, "b k *before"], shape: Sequence[int]) -> Float[Tensor, "b k *after"]:
    """Interpolated linearly along each axis to another grid, with voxels as boxes; as it is where it fits."""
    if tuple(x.shape[2:]) == tuple(shape):
        return x
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(shape)]
    return functional.interpolate(x, tuple(shape), mode=mode, align_corners=False)


def no_such_axis(axes: Sequence[int], there: int) -> ConfigError:
    """The error of mirroring along an axis that images do not have."""
    return ConfigError("mirroring takes axes of space", got=list(axes), expected=f"some of {list(range(there))}")


def passes(network: nn.Module) -> int:
    """How many networks are answered for one answer of this one."""
    return int(getattr(network, "passes", 1))


def answered(member: Member, x: Float[Tensor, "b c *s"]) -> Float[Tensor, "b k *s"]:
    """A member's answer, of which nothing but its input is kept for the gradient: it is computed again."""
    if not torch.is_grad_enabled():
        return member(x)
    # Without early_stop, whose exception TorchScript's interpreter would take for a fault of the program.
    again: Tensor = checkpoint(member, x, use_reentrant=False, early_stop=False)
    return again


def _mean(members: Sequence[Member], x: Float[Tensor, "b c *s"]) -> Float[Tensor, "b k *s"]:
    total: Tensor | None = None
    for member in members:
        answer = answered(member, x)
        total = answer if total is None else total + answer
    assert total is not None
    return total / len(members)
