"""``Detector``: an object detector as it is deployed, differentiable from stored pixels or voxels to logits.

Two and three axes, one stage and two, softmax and sigmoid are settings of one class: nothing here counts or asks them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from medadv.attack.rng import Rng
from medadv.attack.victim import Passes, held_still
from medadv.errors import ConfigError, VictimError
from medadv.labels import BACKGROUND, LabelScheme
from medadv.objects import Objects, Truth
from medadv.victims import fit
from medadv.victims.detectors.kinds import sight_of
from medadv.victims.normalize import Standard
from medadv.victims.preprocess import Intensity
from medadv.victims.proposals import Matching, Proposals, Seen
from medadv.victims.sight import Sight

GREY_LEVELS = Standard(std=(255.0,))
"""Stored grey levels, 0 to 255, as the [0, 1] that torchvision's detectors take."""


@dataclass(frozen=True, eq=False)
class Detector:
    """Network, normalisation, sight, matching: the whole way from a stored pixel to boxes, classes and scores.

    Attributes:
        network: a detector of torchvision or MONAI, or any module that answers for places; see ``Sight``.
        scheme: its classes: class k of the network is the k-th of ``scheme.tissues``, the background the first.
        modalities: what its input channels are, in order; a list becomes a tuple.
        preprocess: stored units → what the network was trained on: one change of intensities, or several in order.
            Resizing and mean and deviation that are part of the network stay there.
        sight: how this kind of detector is looked through; None: by the network's class.
        matching: which places are targets of which objects.
        given: the modalities of the images that come in, from which the victim picks its own; None: just its own.
        seen: the places frozen on a clean image; None: anew for every image.

    Raises:
        ConfigError: modalities that are no list of names, a step that moves pixels, a scheme whose first class is not
            the background, a network of no known kind, or one with another number of classes.
    """

    network: nn.Module
    scheme: LabelScheme
    modalities: tuple[str, ...] = ("red", "green", "blue")
    preprocess: Intensity | tuple[Intensity, ...] = GREY_LEVELS
    sight: Sight | None = None
    matching: Matching = Matching()  # noqa: RUF009  (a frozen value)
    given: tuple[str, ...] | None = None
    seen: Seen | None = None
    deployed: None = field(default=None, init=False)
    one_way: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "modalities", fit.named(self.modalities))
        steps = tuple(self.preprocess) if isinstance(self.preprocess, tuple | list) else (self.preprocess,)
        object.__setattr__(self, "preprocess", steps)
        if odd := [step for step in steps if not isinstance(step, Intensity)]:
            raise ConfigError(
                "a detector's preprocessing changes intensities, and moves no pixels",
                got=odd,
                expected="normalisations: Standard, ZScore, MinMax …",
                advice="let the network resize, as torchvision's do, or resample the data beforehand",
            )
        if self.scheme.tissues[0] != BACKGROUND:
            raise ConfigError(
                "the first class of a detector is the background",
                got=dict(self.scheme.numbers),
                expected=f"{BACKGROUND!r} with the lowest number of the scheme",
            )
        if self.sight is None:
            object.__setattr__(self, "sight", sight_of(self.network))
        self._check_classes(self.looking.classes(self.network), ConfigError)

    @property
    def looking(self) -> Sight:
        """The sight, which is known by now."""
        assert self.sight is not None  # by __post_init__
        return self.sight

    @property
    def steps(self) -> tuple[Intensity, ...]:
        """The steps of the preprocessing, in order."""
        assert isinstance(self.preprocess, tuple)  # by __post_init__
        return self.preprocess

    @property
    def device(self) -> torch.device:
        """Where its network lies; the CPU for one without weights."""
        return next(chain(self.network.parameters(), self.network.buffers()), torch.empty(0)).device

    @property
    def answer_cost(self) -> Passes:
        """What one call without gradient costs."""
        return Passes(forward=1)

    @property
    def gradient_cost(self) -> Passes:
        """What one call and its gradient cost together."""
        return Passes(forward=1, backward=1)

    def at(self, affine: object) -> Detector:  # noqa: ARG002
        """The same, wherever pixels lie."""
        return self

    def reading(self, modalities: Sequence[str]) -> Detector:
        """The victim of images that hold these modalities, of which it takes its own.

        Raises:
            ConfigError: one of its own is missing.
        """
        fit.check_readable(self.modalities, modalities)
        return replace(self, given=tuple(modalities))

    def check_fit(self, modalities: Sequence[str], scheme: LabelScheme) -> None:
        """Refuse data that the victim was not made for.

        Raises:
            ConfigError: other modalities or another order of them, other classes, or a region of other classes.
        """
        fit.check_data(self.given or self.modalities, self.scheme, modalities, scheme)

    def prepare(self, x0: Float[Tensor, "b c *s"], rng: Rng) -> Detector:  # noqa: ARG002
        """Freeze the places that the network classifies in the clean image; those that can be no target are left out.

        They are what ``matching.score`` decides; with a score of 0 all places stay.
        """
        with held_still(self.modules()), torch.no_grad():
            return replace(self, seen=self._look(self._fed(x0.detach())))

    def take(self, index: Int[Tensor, "kept"]) -> Detector:
        """The victim of a part of the batch."""
        return self if self.seen is None else replace(self, seen=self.seen.take(index))

    def targets(self, truth: Truth) -> Proposals:
        """The frozen places, labelled by the objects that they cover.

        Raises:
            ConfigError: nothing is frozen yet.
            VictimError: a truth that is not one ``Objects`` a sample, or numbers that the scheme does not know.
        """
        if self.seen is None:
            raise ConfigError(
                "the targets of a detector are places in a clean image, and there are none yet",
                advice="freeze them: victim.prepare(x, Rng.seeded(0, len(x)))",
            )
        targets = Proposals.of(self.scheme, self.seen, truth, self.matching)
        return replace(targets, scoring=self.looking.scores)

    def __call__(self, x: Float[Tensor, "b c *s"]) -> Float[Tensor, "b classes n"]:
        """Stored pixels → logits of the frozen places; of fresh ones where none are frozen.

        Raises:
            VictimError: other channels than the network's modalities, another number of classes than the scheme's; or a
                network of another precision, or on another device.
        """
        z = self._fed(x)
        seen = self.seen or self._look(z.detach())
        if len(seen.scores) != len(z):
            raise VictimError(
                "the places were frozen on another number of images",
                got=f"{len(z)} images",
                expected=f"{len(seen.scores)}, or victim.take(index) of them",
            )
        with fit.explained(self.network, z):
            logits = self.looking.logits(self.network, z, seen.places)
        self._check_classes(logits.shape[1], VictimError)
        return logits

    def predict(self, x: Float[Tensor, "b c *s"]) -> list[Objects]:
        """Stored pixels → what is reported, everything fresh, in stored numbers and with scores; one a sample."""
        z = self._fed(x)
        with held_still(self.modules()), torch.no_grad(), fit.explained(self.network, z):
            found = self.looking.detect(self.network, z)
        numbers = dict(enumerate(self.scheme.stored(torch.arange(len(self.scheme.tissues))).tolist()))
        objects = [each.take(each.labels > 0) for each in found]  # some networks have a class for nothing
        return [replace(each.renumbered(numbers), boxes=each.boxes.float()) for each in objects]

    def decided(self, x: Float[Tensor, "b c *s"]) -> list[Objects]:
        """The same: the network that is attacked is the one that is deployed."""
        return self.predict(x)

    def agreement(self, x: Float[Tensor, "b c *s"]) -> float:  # noqa: ARG002
        """1: the network that is attacked is the one that is deployed."""
        return 1.0

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
            "preprocess": [json.loads(json.dumps(asdict(step))) for step in self.steps],  # type: ignore[call-overload]
            "sight": json.loads(json.dumps(asdict(self.looking))),  # type: ignore[call-overload]
            "matching": asdict(self.matching),
            "deployment": json.loads(json.dumps(self.looking.describe(self.network))),
            "scheme": fit.described(self.scheme),
        }

    def _fed(self, x: Float[Tensor, "b c *s"]) -> Float[Tensor, "b c *s"]:
        """What the network is fed."""
        z = self.own(x)
        for step in self.steps:
            z = step(z)
        return z

    def _look(self, z: Float[Tensor, "b c *s"]) -> Seen:
        """Places in an image, and how the network scores them."""
        with torch.no_grad(), fit.explained(self.network, z):
            places, logits = self.looking.look(self.network, z)
        self._check_classes(logits.shape[1], VictimError)
        return Seen.likely(places, self.looking.scores(logits), self.matching.score)

    def _check_classes(self, found: int | None, kind: type[ConfigError | VictimError]) -> None:
        if found not in (None, len(self.scheme.tissues)):
            raise kind(
                "the detector tells another number of classes than its scheme has",
                got=f"{found} with the background",
                expected=f"{len(self.scheme.tissues)}: {', '.join(self.scheme.tissues)}",
                advice="list the classes as the network was trained with them, the background first; torchvision's of "
                "COCO have 91, numbers that were never used among them",
            )
