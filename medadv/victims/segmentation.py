"""``Segmenter``: a segmentation network as it is deployed, differentiable from stored voxels to logits.

Two and three axes are settings of one class: nothing here counts them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from medadv.attack.rng import Rng
from medadv.attack.victim import Passes, held_still
from medadv.errors import ConfigError, VictimError
from medadv.labels import LabelScheme
from medadv.victims.head import Head, Voxels
from medadv.victims.normalize import Normalisation, ZScore
from medadv.victims.window import Inference, WholeVolume


@dataclass(frozen=True, eq=False)
class Segmenter:
    """Network, normalisation, windows, head: the whole way from a stored voxel to a label map.

    Attributes:
        network: any module that maps ``(b, modalities, *s)`` to ``(b, channels of the head, *s)``, without activation
            at its end.
        head: what its channels mean.
        modalities: what its input channels are, in order; a list becomes a tuple.
        normalise: stored units → what the network was trained on.
        inference: whole volumes or sliding windows.

    Raises:
        ConfigError: modalities that are no list of names, or a head that is none.
    """

    network: nn.Module
    head: Head
    modalities: tuple[str, ...]
    normalise: Normalisation = ZScore()  # noqa: RUF009  (a frozen value)
    inference: Inference = WholeVolume()  # noqa: RUF009

    def __post_init__(self) -> None:
        if isinstance(self.modalities, str) or not isinstance(self.modalities, Sequence):
            raise ConfigError(
                "the modalities of a victim are a list of names, one an input channel",
                got=repr(self.modalities),
                expected="for example ('t1', 't2')",
                advice=f"write ({self.modalities!r},)" if isinstance(self.modalities, str) else None,
            )
        object.__setattr__(self, "modalities", tuple(self.modalities))
        if not isinstance(self.head, Head):
            raise ConfigError(
                "the head of a victim says what its channels mean",
                got=repr(self.head),
                expected="Softmax(scheme), or Sigmoid(scheme, regions)",
                advice="take the scheme of the data that it was trained on: volume.case.scheme",
            )

    @property
    def answer_cost(self) -> Passes:
        """What one call without gradient costs."""
        return self.inference.answer_cost

    @property
    def gradient_cost(self) -> Passes:
        """What one call and its gradient cost together."""
        return self.inference.gradient_cost

    def check_fit(self, modalities: Sequence[str], scheme: LabelScheme) -> None:
        """Refuse data that the victim was not made for: a network cannot tell T1 from T2.

        Raises:
            ConfigError: other modalities or another order of them, other tissues, or a region of other tissues.
        """
        if tuple(modalities) != self.modalities:
            raise ConfigError(
                "the victim was made for other modalities, or for another order of them",
                got=list(modalities),
                expected=list(self.modalities),
                advice="give the images in the order that the network was trained with",
            )
        own = self.head.scheme
        if set(own.numbers) != set(scheme.numbers):
            raise ConfigError(
                "the victim knows other tissues than the data has",
                got=list(scheme.tissues),
                expected=list(own.tissues),
                advice="declare the same names of tissues for both",
            )
        shared = set(own.regions) & set(scheme.regions)
        if other := sorted(r for r in shared if set(own.members(r)) != set(scheme.members(r))):
            raise ConfigError(
                "a region means other tissues to the victim than to the data",
                got={region: scheme.members(region) for region in other},
                expected={region: own.members(region) for region in other},
            )

    def prepare(self, x0: Float[Tensor, "b c *s"], rng: Rng) -> Segmenter:  # noqa: ARG002
        """Nothing to freeze: the threat keeps zeros zero, and so the mask of the normalisation."""
        return self

    def take(self, index: Int[Tensor, "kept"]) -> Segmenter:  # noqa: ARG002
        """The same for every part of a batch."""
        return self

    def targets(self, truth: Int[Tensor, "b *s"]) -> Voxels:
        """Every voxel with its label.

        Raises:
            VictimError: the label map holds numbers that the victim's scheme does not know.
        """
        return Voxels.of(self.head, truth)

    def __call__(self, x: Float[Tensor, "b c *s"]) -> Float[Tensor, "b classes *targets"]:
        """Stored voxels → logits.

        Raises:
            VictimError: other channels than the network's modalities, or than its head's; a network of another
                precision, on another device, or that does not answer on its input's grid.
        """
        if x.shape[1] != len(self.modalities):
            raise VictimError(
                "the image has another number of modalities than the victim",
                got=x.shape[1],
                expected=f"{len(self.modalities)}: {', '.join(self.modalities)}",
                advice="the batch axis comes first: use volume.x[None]",
            )
        with _explained(self.network, x):
            answer = self.inference(self.network, self.normalise(x))
        if answer.shape[1] != len(self.head.channels):
            raise VictimError(
                "the network answers with another number of channels than its head has",
                got=answer.shape[1],
                expected=f"{len(self.head.channels)}: {', '.join(self.head.channels)}",
                advice="choose the head (softmax over tissues, sigmoid over regions) that the network was trained with",
            )
        return self.head.logits(answer)

    def predict(self, x: Float[Tensor, "b c *s"]) -> Int[Tensor, "b *s"]:
        """Stored voxels → the deployed label map, in stored label numbers."""
        with held_still(self.modules()), torch.no_grad():
            return self.head.decide(self(x))

    def modules(self) -> Iterable[nn.Module]:
        """The network."""
        return (self.network,)

    def preprocessing(self) -> dict[str, Any]:
        """Everything but the weights, as JSON: what a record needs to name the deployed pipeline."""
        scheme = self.head.scheme
        return {
            "modalities": list(self.modalities),
            "normalise": asdict(self.normalise),
            "inference": json.loads(json.dumps(asdict(self.inference))),
            "head": {"name": self.head.name, "channels": list(self.head.channels)},
            "scheme": {
                "name": scheme.name,
                "numbers": dict(scheme.numbers),
                "regions": {region: list(tissues) for region, tissues in scheme.regions.items()},
            },
        }


@contextmanager
def _explained(network: nn.Module, x: Tensor) -> Iterator[None]:
    """Where torch refuses network and image because they do not go together, say so; what works is let be."""
    try:
        yield
    except RuntimeError as error:
        weight = next(chain(network.parameters(), network.buffers()), x)
        if (weight.dtype, weight.device) == (x.dtype, x.device):
            raise
        raise VictimError(
            "image and network are in different precisions or on different devices",
            got=f"an image in {x.dtype} on {x.device}, a network in {weight.dtype} on {weight.device}",
            cause="NumPy and nibabel read float64" if x.dtype == torch.float64 else None,
            advice="pass x.float().to(device), and network.float().to(device) to the victim",
        ) from error


def weights_digest(network: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of all parameters and buffers."""
    state = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        state.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        state.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()
