"""``Segmenter``: a segmentation network as it is deployed, differentiable from stored voxels to logits.

Two and three axes are settings of one class: nothing here counts them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from medadv.attack.rng import Rng
from medadv.attack.victim import Passes, held_still
from medadv.errors import ConfigError, VictimError
from medadv.labels import LabelScheme
from medadv.objects import Truth
from medadv.victims import fit
from medadv.victims.combine import passes
from medadv.victims.head import Head, Voxels
from medadv.victims.normalize import ZScore
from medadv.victims.preprocess import Affine, Random, Step, Way, described, matrix
from medadv.victims.window import Inference, WholeVolume

Logits = Float[Tensor, "b classes *targets"]


@runtime_checkable
class Deployed(Protocol):
    """A format's own predictor, untouched: what is scored, where it is not the differentiable way itself."""

    def __call__(self, x: Float[Tensor, "1 c *s"], affine: Affine | None) -> Int[Tensor, "1 *s"]:
        """Stored voxels of the victim's modalities → label map in the numbers of the victim's scheme."""
        ...

    def describe(self) -> dict[str, Any]:
        """What could change its answers, as JSON."""
        ...


@runtime_checkable
class Refinement(Protocol):
    """What is done to logits on the stored grid, by the image: a CRF. A frozen setting that can be written as JSON."""

    @property
    def by_passed(self) -> bool:
        """Whether an attack differentiates the network's own logits, as if there were no refinement."""
        ...

    def __call__(self, logits: Logits, x: Float[Tensor, "b c *s"]) -> Logits:
        """The logits as they are deployed, from the network's and the stored voxels of the victim's modalities."""
        ...


@dataclass(frozen=True, eq=False)
class Segmenter:
    """Network, preprocessing, windows, head: the whole way from a stored voxel to a label map.

    Attributes:
        network: any module that maps ``(b, modalities, *s)`` to ``(b, channels of the head, *s)``, without activation
            at its end.
        head: what its channels mean.
        modalities: what its input channels are, in order; a list becomes a tuple.
        preprocess: stored voxels → what the network was trained on: one step, or several in order.
        inference: whole volumes or sliding windows.
        deployed: the predictor whose answers are scored; None: the same way that is differentiated.
        refine: what is done to the logits on the stored grid; None: nothing.
        given: the modalities of the images that come in, from which the victim picks its own; None: just its own.
        affine: where the voxels of these images lie, ``(4, 4)``; None where no step has to know.
        way: the preprocessing frozen on a clean image; None: anew for every image.

    Raises:
        ConfigError: modalities that are no list of names or name one twice, a head or refinement that is none, or a
            refinement behind a deployed predictor.
    """

    network: nn.Module
    head: Head
    modalities: tuple[str, ...]
    preprocess: Step | tuple[Step, ...] = ZScore()  # noqa: RUF009  (a frozen value)
    inference: Inference = WholeVolume()  # noqa: RUF009
    deployed: Deployed | None = None
    given: tuple[str, ...] | None = None
    affine: Affine | None = None
    way: Way | None = None
    refine: Refinement | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "modalities", fit.named(self.modalities))
        if not isinstance(self.preprocess, tuple):
            steps = tuple(self.preprocess) if isinstance(self.preprocess, list) else (self.preprocess,)
            object.__setattr__(self, "preprocess", steps)
        if not isinstance(self.head, Head):
            raise ConfigError(
                "the head of a victim says what its channels mean",
                got=repr(self.head),
                expected="Softmax(scheme), or Sigmoid(scheme, regions)",
                advice="take the scheme of the data that it was trained on: volume.case.scheme",
            )
        if self.refine is not None and (self.deployed is not None or not isinstance(self.refine, Refinement)):
            raise ConfigError(
                "what refines a victim's answer works on its logits",
                got=repr(self.refine) if self.deployed is None else "a deployed predictor, which answers with labels",
                expected="a refinement such as MeanField(), and deployed=None",
            )

    @property
    def scheme(self) -> LabelScheme:
        """What its label numbers mean."""
        return self.head.scheme

    @property
    def device(self) -> torch.device:
        """Where its network lies; the CPU for one without weights."""
        return next(chain(self.network.parameters(), self.network.buffers()), torch.empty(0)).device

    @property
    def answer_cost(self) -> Passes:
        """What one call without gradient costs."""
        return self.inference.answer_cost * passes(self.network)

    @property
    def gradient_cost(self) -> Passes:
        """What one call and its gradient cost together."""
        # A network made of several holds one of them at a time, and so answers once more for the gradient.
        again = Passes(forward=int(passes(self.network) > 1))
        return (self.inference.gradient_cost + again) * passes(self.network)

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps of the preprocessing, in order."""
        assert isinstance(self.preprocess, tuple)  # by __post_init__
        return self.preprocess

    @property
    def one_way(self) -> bool:
        """Whether what is scored is what is differentiated: neither a format's own predictor nor a by-passed step."""
        return self.deployed is None and not (self.refine and self.refine.by_passed)

    def at(self, affine: Affine | Sequence[Sequence[float]] | Tensor | None) -> Segmenter:
        """The victim of images whose voxels lie there: the 4 × 4 matrix from voxels to mm, of any kind of array.

        Raises:
            ConfigError: anything else.
        """
        return replace(self, affine=None if affine is None else matrix(affine), way=None)

    def reading(self, modalities: Sequence[str]) -> Segmenter:
        """The victim of images that hold these modalities, of which it takes its own.

        Raises:
            ConfigError: one of its own is missing.
        """
        fit.check_readable(self.modalities, modalities)
        return replace(self, given=tuple(modalities))

    def check_fit(self, modalities: Sequence[str], scheme: LabelScheme) -> None:
        """Refuse data that the victim was not made for: a network cannot tell T1 from T2.

        Raises:
            ConfigError: other modalities or another order of them, other tissues, or a region of other tissues.
        """
        fit.check_data(self.given or self.modalities, self.head.scheme, modalities, scheme)

    def prepare(self, x0: Float[Tensor, "b c *s"], rng: Rng) -> Segmenter:
        """Freeze what the preprocessing chooses by the clean image: where a crop lies; and what it draws."""
        drawn = (s.drawn(rng.fork(f"step {i}")) if isinstance(s, Random) else s for i, s in enumerate(self.steps))
        return replace(self, way=Way.prepared(tuple(drawn), self.own(x0), self.affine))

    def take(self, index: Int[Tensor, "kept"]) -> Segmenter:
        """The victim of a part of a batch: another one only where each sample has draws of its own."""
        way = self.way and self.way.take(index)
        return self if way is self.way else replace(self, way=way)

    def targets(self, truth: Truth) -> Voxels:
        """Every voxel with its label.

        Raises:
            VictimError: no label map, or one that holds numbers that the victim's scheme does not know.
        """
        return Voxels.of(self.head, truth)

    def __call__(self, x: Float[Tensor, "b c *s"]) -> Logits:
        """Stored voxels → logits on the stored grid, as an attack differentiates them.

        Raises:
            VictimError: other channels than the network's modalities, or than its head's; a network of another
                precision, on another device, or that does not answer on its input's grid.
        """
        logits = self._unrefined(x)
        return logits if self.refine is None or self.refine.by_passed else self.refine(logits, self.own(x))

    def _unrefined(self, x: Float[Tensor, "b c *s"]) -> Logits:
        x = self.own(x)
        way = self.way or Way.prepared(self.steps, x, self.affine)
        with fit.explained(self.network, x):
            answer = self.inference(self.network, way(x))
        if answer.shape[1] != len(self.head.channels):
            raise VictimError(
                "the network answers with another number of channels than its head has",
                got=answer.shape[1],
                expected=f"{len(self.head.channels)}: {', '.join(self.head.channels)}",
                advice="choose the head (softmax over tissues, sigmoid over regions) that the network was trained with",
            )
        return self.head.logits(way.back(answer, answer.new_tensor(self.head.nothing)))

    def decided(self, x: Float[Tensor, "b c *s"]) -> Int[Tensor, "b *s"]:
        """Stored voxels → the label map of the differentiable way, everything fresh, in stored label numbers."""
        with held_still(self.modules()), torch.no_grad():
            return self.head.decide(replace(self, way=None)(x))

    def predict(self, x: Float[Tensor, "b c *s"]) -> Int[Tensor, "b *s"]:
        """Stored voxels → the deployed label map, in stored label numbers."""
        if self.one_way:
            return self.decided(x)
        if (logits := self.deployed_logits(x)) is not None:
            return self.head.decide(logits)
        assert self.deployed is not None  # or there would be logits
        with held_still(self.modules()), torch.no_grad():
            return torch.cat([self.deployed(one[None], self.affine) for one in self.own(x)])

    def deployed_logits(self, x: Float[Tensor, "b c *s"]) -> Logits | None:
        """Stored voxels → the logits that the deployed answer is decided by, everything fresh; None where it is a
        format's own predictor's, which answers with labels."""
        if self.deployed is not None:
            return None
        with held_still(self.modules()), torch.no_grad():
            logits = replace(self, way=None)._unrefined(x)
            return logits if self.refine is None else self.refine(logits, self.own(x))

    def agreement(self, x: Float[Tensor, "b c *s"]) -> float:
        """The share of voxels on which the differentiable way and the deployed predictor decide alike."""
        if self.one_way:
            return 1.0
        return (self.decided(x) == self.predict(x)).double().mean().item()

    def own(self, x: Float[Tensor, "b given *s"]) -> Float[Tensor, "b c *s"]:
        """The victim's own modalities, in its order."""
        return fit.own(x, self.modalities, self.given)

    def modules(self) -> Iterable[nn.Module]:
        """The network."""
        return (self.network,)

    def preprocessing(self) -> dict[str, Any]:
        """Everything but the weights, as JSON: what a record needs to name the deployed pipeline."""
        return {
            "modalities": list(self.modalities),
            **({"given": list(self.given)} if self.given not in (None, self.modalities) else {}),
            "preprocess": [described(step) for step in self.steps],
            **({"deployed": self.deployed.describe()} if self.deployed else {}),
            "inference": json.loads(json.dumps(asdict(self.inference))),
            **({"refine": json.loads(json.dumps(asdict(self.refine)))} if self.refine else {}),  # type: ignore[call-overload]
            "head": {"name": self.head.name, "channels": list(self.head.channels)},
            "scheme": fit.described(self.head.scheme),
        }


def weights_digest(network: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of all parameters and buffers."""
    state = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        state.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        state.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()
