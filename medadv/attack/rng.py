"""One random stream a sample, forked by name, so that a draw depends on nothing but its seed and its names.

Streams are never consumed in order: asking twice gives the same numbers. What wants other numbers forks another name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from medadv.errors import ConfigError


@dataclass(frozen=True)
class Rng:
    """The random streams of a batch.

    Attributes:
        keys: one key a sample. Two samples with the same key draw the same numbers.
    """

    keys: tuple[str, ...]

    @classmethod
    def seeded(cls, seed: int, names: int | Sequence[str]) -> Rng:
        """Streams of a seed: one a name, or ``0 … n-1``. Give case ids, and batch mates do not matter."""
        each = [str(i) for i in range(names)] if isinstance(names, int) else names
        return cls(tuple(f"{seed}/{name}" for name in each))

    def fork(self, name: str) -> Rng:
        """The same samples, another stream."""
        return Rng(tuple(f"{key}/{name}" for key in self.keys))

    def take(self, index: Int[Tensor, "kept"]) -> Rng:
        """The streams of a part of the batch."""
        return Rng(tuple(self.keys[i] for i in index.tolist()))

    def generators(self) -> list[torch.Generator]:
        """One CPU generator a sample, at its beginning."""
        return [torch.Generator().manual_seed(_number(key)) for key in self.keys]

    def uniform(self, like: Float[Tensor, "b *shape"]) -> Float[Tensor, "b *shape"]:
        """Numbers in [0, 1), drawn on the CPU so that the device does not matter.

        Raises:
            ConfigError: there is not one stream for each sample.
        """
        return self._drawn(torch.rand, like)

    def normal(self, like: Float[Tensor, "b *shape"]) -> Float[Tensor, "b *shape"]:
        """Numbers of mean 0 and standard deviation 1, drawn on the CPU as well.

        Raises:
            ConfigError: there is not one stream for each sample.
        """
        return self._drawn(torch.randn, like)

    def _drawn(self, draw: Callable[..., Tensor], like: Float[Tensor, "b *shape"]) -> Float[Tensor, "b *shape"]:
        if len(self.keys) != len(like):
            raise ConfigError("there is not one random stream for each sample", got=len(self.keys), expected=len(like))
        draws = [draw(like.shape[1:], generator=g, dtype=like.dtype) for g in self.generators()]
        return torch.stack(draws).to(like.device)


def _number(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") >> 1
