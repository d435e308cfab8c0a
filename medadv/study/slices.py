"""Three planes of a delivered case, for pictures: all that a report needs of a volume, in a few kilobytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from medadv.atomic import write_atomically
from medadv.labels import LabelScheme

SLICES = "slices.npz"


@dataclass(frozen=True, eq=False)
class Views:
    """What is cut: voxels and label maps of one case on one grid.

    Attributes:
        clean, adversarial: voxels ``(c, *s)`` in stored units.
        truth, answer, fooled: label maps ``(*s)``: the expert's, and the victim's to the clean and the adversarial
        case.
    """

    clean: Float[Tensor, "c x y z"]
    adversarial: Float[Tensor, "c x y z"]
    truth: Int[Tensor, "x y z"]
    answer: Int[Tensor, "x y z"]
    fooled: Int[Tensor, "x y z"]


def save_slices(
    folder: Path, views: Views, modalities: Sequence[str], scheme: LabelScheme, spacing: Sequence[float]
) -> None:
    """Cut sagittal, coronal and axial planes where the answers differ most, and write them as ``slices.npz``."""
    position = _position(views)
    content: dict[str, np.ndarray] = {
        "modalities": np.array(modalities),
        "labels": np.array(scheme.tissues),
        "numbers": np.array([scheme.numbers[tissue] for tissue in scheme.tissues]),
        "spacing": np.array(spacing),
        "position": np.array(position),
        "sigma": np.array([float(m[m != 0].double().std(correction=0)) for m in views.clean]),
    }
    volumes = {
        "clean": views.clean,
        "adversarial": views.adversarial,
        "truth": views.truth,
        "prediction_clean": views.answer,
        "prediction_adversarial": views.fooled,
    }
    for name, volume in volumes.items():
        for axis, place in enumerate(position):
            content[f"{name}_{axis}"] = volume.cpu().select(axis - 3, place).numpy()

    def fill(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            np.savez_compressed(stream, **content)  # type: ignore[arg-type]

    write_atomically(folder / SLICES, fill)


def _position(views: Views) -> tuple[int, ...]:
    """The planes with most of what is wrong in the adversarial answer; of the truth, where nothing is wrong."""
    wrong = views.fooled != views.truth
    shown = wrong if bool(wrong.any()) else views.truth != 0
    return tuple(int(shown.sum(tuple(a for a in range(3) if a != axis)).argmax()) for axis in range(3))
