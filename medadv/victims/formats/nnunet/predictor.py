"""nnU-Net's own predictor, untouched: the answers that are scored.

nnU-Net blends its windows in half precision, and on a GPU its network runs in mixed precision. The differentiable way
is the same function in float32; what is reported is what nnU-Net itself would have written.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from copy import deepcopy
from dataclasses import dataclass, field
from importlib.metadata import version
from io import StringIO
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from medadv.errors import VictimError
from medadv.victims.grid import known, lengths
from medadv.victims.memory import is_full
from medadv.victims.preprocess import Affine
from medadv.victims.spatial import Orientation


@dataclass(frozen=True, eq=False)
class NnUNetDeployed:
    """``nnUNetPredictor`` on a volume in memory, with one network for all folds, as ``nnUNetv2_predict`` runs it.

    Attributes:
        plans, configuration: nnU-Net's managers of them.
        dataset: ``dataset.json``.
        members: the networks that are attacked, one a fold; their weights are read and never written.
        trainer: the name of the class that trained them.
        mirroring: axes of the network's input; empty for none.
        reorients: whether nnU-Net's reader turns images to RAS before anything else.
    """

    plans: Any
    configuration: Any
    dataset: dict[str, Any]
    members: tuple[nn.Module, ...]
    trainer: str
    mirroring: tuple[int, ...] = ()
    reorients: bool = False
    network: nn.Module = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "network", deepcopy(self.members[0]))

    def __call__(self, x: Float[Tensor, "1 c x y z"], affine: Affine | None) -> Int[Tensor, "1 x y z"]:
        """Stored voxels → label map in the numbers of ``dataset.json``.

        Raises:
            VictimError: nobody has said where voxels lie, without which nnU-Net has no voxel size; or it gives up.
        """
        turned = Orientation("RAS").prepare(x, affine) if self.reorients else None
        image = x if turned is None else turned(x)
        affine = known(affine if turned is None else turned.affine, "nnU-Net")
        with quiet():
            # nnU-Net's arrays are SimpleITK's: the last axis of a file comes first.
            zyx = np.ascontiguousarray(image[0].float().cpu().numpy().transpose(0, 3, 2, 1))
            spacing = lengths(affine)[::-1].tolist()
            predictor = self._predictor(stitched=x.device)
            try:
                numbers = predictor.predict_single_npy_array(zyx, {"spacing": spacing})
            except RuntimeError as error:
                if is_full(error):
                    raise
                raise VictimError(
                    "nnU-Net's own predictor gives no answer to this image",
                    got=error,
                    cause="logits beyond 65504, which its half precision cannot hold"
                    if "inf in predicted array" in str(error)
                    else None,
                ) from error
        answer = torch.from_numpy(numbers.transpose(2, 1, 0).astype(np.int64)).to(x.device)
        if turned is not None:
            answer = turned.back(answer[None, None].float(), torch.zeros(1))[0, 0].long()
        return answer[None]

    def describe(self) -> dict[str, Any]:
        """nnU-Net's version, and what of its settings changes answers."""
        return {
            "name": "nnunet",
            "version": version("nnunetv2"),
            "configuration": dict(self.configuration.configuration),
            "transpose": list(self.plans.transpose_forward),
            "trainer": self.trainer,
            "folds": len(self.members),
            "mirroring": list(self.mirroring),
            "reorients": self.reorients,
        }

    def _predictor(self, stitched: torch.device) -> Any:
        """nnU-Net's, on the device of the networks that are attacked; windows are put together where the image lies."""
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        benchmark = torch.backends.cudnn.benchmark
        device = next(self.members[0].parameters()).device
        whole = stitched.type == device.type == "cuda"
        predictor = nnUNetPredictor(device=device, perform_everything_on_device=whole, allow_tqdm=False)
        torch.backends.cudnn.benchmark = benchmark  # a predictor sets it for the whole process
        predictor.manual_initialization(
            self.network,
            self.plans,
            self.configuration,
            [member.state_dict() for member in self.members],
            self.dataset,
            self.trainer,
            self.mirroring or None,
        )
        return predictor


@contextmanager
def quiet() -> Iterator[None]:
    """nnU-Net prints where its folders are, and imports what warns of its own future: neither is the user's."""
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        yield
