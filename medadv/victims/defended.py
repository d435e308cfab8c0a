"""A victim behind a protection: the same weights, and another deployed pipeline, attacked as a whole."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from medadv.errors import ConfigError, VictimError
from medadv.victims.jpeg import COLOURS, Jpeg
from medadv.victims.mean_field import MeanField
from medadv.victims.multi_scale import MultiScale, MultiScaled
from medadv.victims.preprocess import Affine, Random, described
from medadv.victims.random_transforms import RandomTransform
from medadv.victims.segmentation import Deployed, Segmenter
from medadv.victims.transforms import BitDepth, InputTransform, StraightThrough

Protection = InputTransform | RandomTransform | MultiScale | MeanField
"""What a victim can be put behind without any training, and what a study can name as a defence: told by ``name``."""


def defended(victim: Segmenter, what: Protection | StraightThrough) -> Segmenter:
    """The victim behind a protection, which stays part of it when it is attacked and when it is scored.

    A transform stands in front of the victim's own preprocessing, on stored voxels, and both answers see the
    transformed image. A random one draws once for each attack that is prepared, and anew for what is scored.
    ``BitDepth`` and ``Jpeg``, which have no useful gradient, are put in front straight through; that it is so stands in
    ``preprocessing()``, and thereby in the keys of records. A ``StraightThrough`` is taken as it is. ``MultiScale`` is
    around the network alone: inside windows each window is seen at all scales. A ``MeanField`` refines the logits on
    the stored grid, by the stored voxels, whatever transform stands in front.

    Args:
        victim: the undefended one; it stays as it is.
        what: what protects it. The channels of a ``Jpeg`` are found by their names, where these are the colours.

    Raises:
        ConfigError: something that protects nothing, or that a victim with a predictor of its own cannot be put behind.
        VictimError: something that is no ``Segmenter``, or a victim that has this very protection first of all.
    """
    if not isinstance(victim, Segmenter):
        raise VictimError(
            "only a victim can be put behind a protection",
            got=type(victim).__name__,
            expected="a Segmenter",
            advice="wrap the network first: Segmenter(network, Softmax(scheme), modalities)",
        )
    if not isinstance(what, Protection | StraightThrough):
        raise ConfigError(
            "this protects no victim",
            got=repr(what),
            expected=f"one of {', '.join(kind.__name__ for kind in (*get_args(Protection), StraightThrough))}",
            advice="other steps of preprocessing stand in the victim's own: Segmenter(preprocess=…)",
        )
    if isinstance(what, Random | MultiScale | MeanField) and victim.deployed is not None:
        raise ConfigError(
            f"a victim that is scored by its format's own predictor cannot be put behind {what.name!r}",
            cause="the predictor would go on scoring the single answer to the plain image",
            advice="load its weights as a state dict, which is scored as it is attacked",
        )
    what = _by_colour(what, victim.modalities)
    if _bare(what) in _present(victim):
        raise VictimError(
            "the victim already begins with this transform",
            got=_bare(what),
            cause="a victim that was saved with its transform has it when it is loaded",
            advice="take the victim as it is",
        )
    if isinstance(what, MeanField):
        return _refined(victim, what)
    if isinstance(what, MultiScale):
        return replace(victim, network=MultiScaled(victim.network, what), way=None)
    step = StraightThrough(what) if isinstance(what, BitDepth | Jpeg) else what
    deployed = None
    if victim.deployed is not None:
        assert isinstance(step, InputTransform | StraightThrough)  # refused above
        deployed = Behind(step, victim.deployed)
    return replace(victim, preprocess=(step, *victim.steps), deployed=deployed, way=None)


@dataclass(frozen=True, eq=False)
class Behind:
    """A format's own predictor, which is shown the transformed image.

    Attributes:
        transform: what the image goes through first.
        deployed: the predictor, untouched.
    """

    transform: InputTransform | StraightThrough
    deployed: Deployed

    def __call__(self, x: Float[Tensor, "1 c *s"], affine: Affine | None) -> Int[Tensor, "1 *s"]:
        """Stored voxels of the victim's modalities → label map in the numbers of the victim's scheme."""
        with torch.no_grad():
            return self.deployed(self.transform(x), affine)

    def describe(self) -> dict[str, Any]:
        """The transform, and what the predictor says of itself."""
        return {"transform": described(self.transform), "deployed": self.deployed.describe()}


def _by_colour(what: Protection | StraightThrough, modalities: tuple[str, ...]) -> Protection | StraightThrough:
    """A JPEG with the channels in the order that their names say."""
    if isinstance(what, StraightThrough):
        step = _by_colour(what.step, modalities)
        assert isinstance(step, InputTransform)
        return replace(what, step=step)
    if not isinstance(what, Jpeg) or set(modalities) != set(COLOURS):
        return what
    red, green, blue = (modalities.index(colour) for colour in COLOURS)
    return replace(what, rgb=(red, green, blue))


def _refined(victim: Segmenter, crf: MeanField) -> Segmenter:
    if victim.refine is not None:
        raise VictimError(
            "there is a CRF behind the victim already",
            got=victim.refine,
            cause="a victim that was saved with its CRF has it when it is loaded",
            advice="take the victim as it is; for another CRF, dataclasses.replace(victim, refine=…)",
        )
    return replace(victim, refine=crf)


def _present(victim: Segmenter) -> tuple[object, ...]:
    """What an image meets first, and the network."""
    around = (victim.network.setting,) if isinstance(victim.network, MultiScaled) else ()
    return (*map(_bare, victim.steps[:1]), *around)


def _bare(what: object) -> object:
    return what.step if isinstance(what, StraightThrough) else what
