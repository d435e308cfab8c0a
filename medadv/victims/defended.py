"""A victim behind an input transform: the same network, and another deployed pipeline, attacked as a whole."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from medadv.errors import VictimError
from medadv.victims.preprocess import Affine, Step
from medadv.victims.segmentation import Deployed, Segmenter
from medadv.victims.transforms import BitDepth, InputTransform, StraightThrough, no_transform


def defended(victim: Segmenter, transform: InputTransform | StraightThrough) -> Segmenter:
    """The victim with a transform in front of its own preprocessing, on stored voxels.

    Both answers see the transformed image: the one that is attacked, and the one that is scored. A ``BitDepth``, which
    has no useful gradient, is put in front straight through; that it is so stands in ``preprocessing()``, and thereby
    in the keys of records. A ``StraightThrough`` is taken as it is.

    Args:
        victim: the undefended one; it stays as it is.
        transform: what each image goes through first.

    Raises:
        ConfigError: something that is no input transform.
        VictimError: something that is no ``Segmenter``, or a victim that already begins with this transform.
    """
    if not isinstance(victim, Segmenter):
        raise VictimError(
            "only a victim has something that a transform can be put in front of",
            got=type(victim).__name__,
            expected="a Segmenter",
            advice="wrap the network first: Segmenter(network, Softmax(scheme), modalities)",
        )
    if not isinstance(transform, InputTransform | StraightThrough):
        raise no_transform(transform)
    if victim.steps and _bare(victim.steps[0]) == _bare(transform):
        raise VictimError(
            "the victim already begins with this transform",
            got=_bare(transform),
            cause="a victim that was saved with its transform has it when it is loaded",
            advice="take the victim as it is",
        )
    step = StraightThrough(transform) if isinstance(transform, BitDepth) else transform
    deployed = None if victim.deployed is None else Behind(step, victim.deployed)
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
        return {"transform": asdict(self.transform), "deployed": self.deployed.describe()}


def _bare(step: Step) -> Step:
    return step.step if isinstance(step, StraightThrough) else step
