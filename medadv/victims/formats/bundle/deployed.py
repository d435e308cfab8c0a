"""A bundle's own prediction: MONAI's transforms, inferer and postprocessing on a volume in memory. It is scored."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from monai.data import MetaTensor
from torch import Tensor, nn

from medadv.errors import VictimError
from medadv.victims.formats.bundle.postprocessing import Data, Postprocessing, Transform
from medadv.victims.head import Head, Sigmoid
from medadv.victims.preprocess import Affine
from medadv.victims.thrift import visiting


@dataclass(frozen=True, eq=False)
class BundlePrediction:
    """The bundle as MONAI runs it, less the reading and writing of files.

    Mixed precision (``amp``) is a setting of MONAI's evaluator, not of the bundle's prediction: scores are float32.

    Attributes:
        network: the one that is attacked.
        head: what its channels mean.
        image: the key of the image.
        before, inferer, after: MONAI's own.
        placed: whether ``before`` has to know where voxels lie.
        description: what could change its answers, as JSON.
    """

    network: nn.Module
    head: Head
    image: str
    before: Sequence[Transform]
    inferer: Callable[[Tensor, nn.Module], Any]
    after: Postprocessing
    placed: bool
    description: Mapping[str, Any]

    def __call__(self, x: Float[Tensor, "1 c *s"], affine: Affine | None) -> Int[Tensor, "1 *s"]:
        """Stored voxels of the victim's modalities → label map in the numbers of the victim's scheme.

        Raises:
            VictimError: nobody has said where voxels lie, or the postprocessing gives no label map on their grid.
        """
        if affine is None and self.placed:
            raise VictimError(
                "the bundle's preprocessing has to know where the voxels lie",
                advice="victim.at(volume.affine)",
            )
        place = torch.as_tensor(np.eye(4) if affine is None else affine)
        data: Data = {self.image: MetaTensor(x[0].clone(), affine=place)}
        for transform in self.before:
            data = transform(data)
        answer = self.inferer(_plain(data[self.image]).to(x)[None], visiting(self.network, x.device))
        data[self.after.key] = MetaTensor(_plain(answer)[0])  # Invertd passes over what has no place
        with warnings.catch_warnings():
            # Many bundles invert a preprocessing that has nothing to invert.
            warnings.filterwarnings("ignore", "inverse has been called but no invertible", UserWarning)
            for transform in self.after.transforms:
                data = transform(data)
        return self._labels(_plain(data[self.after.key]).to(x.device), x.shape[2:])[None]

    def _labels(self, told: Shaped[Tensor, "k *any"], shape: Sequence[int]) -> Int[Tensor, "*s"]:
        if told.shape[1:] != torch.Size(shape):
            raise VictimError(
                "the bundle's own prediction does not lie on the image's grid",
                got=tuple(told.shape[1:]),
                expected=tuple(shape),
                cause="a postprocessing without Invertd",
            )
        if not torch.equal(told, told.round()):
            raise VictimError(
                "the bundle's own prediction holds fractions of labels",
                cause="Invertd after AsDiscreted interpolates between label numbers",
                advice="put Invertd before AsDiscreted, or set its nearest_interp to true",
            )
        scheme = self.head.scheme
        if len(told) == 1 and (table := self.after.numbers(self.head)):
            return _renumbered(told[0].long(), table)
        if isinstance(self.head, Sigmoid):
            if len(told) != len(self.head.regions):
                raise VictimError("the bundle's own prediction is no mask a region", got=len(told))
            return scheme.paint(told[None] > 0.5, self.head.regions)[0]
        classes = told[0].long() if len(told) == 1 else told.argmax(0)
        if int(classes.max()) >= len(scheme.tissues):
            raise VictimError("the bundle's own prediction holds a class that has no channel", got=int(classes.max()))
        return scheme.stored(classes)

    def describe(self) -> dict[str, Any]:
        """What could change its answers, as JSON."""
        return {"format": "MONAI bundle", **self.description}


def _plain(values: Any) -> Tensor:
    tensor = torch.as_tensor(values)
    return tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor


def _renumbered(numbers: Int[Tensor, "*s"], table: Mapping[int, int]) -> Int[Tensor, "*s"]:
    told, known = torch.zeros_like(numbers), torch.zeros_like(numbers, dtype=torch.bool)
    for number, own in table.items():
        told[numbers == number] = own
        known |= numbers == number
    if strange := sorted(set(numbers[~known].tolist())):
        raise VictimError("the bundle paints label numbers that no tissue has", got=strange, expected=dict(table))
    return told
