"""Three planes of a delivered case, kept for pictures: all that a report needs of a volume, in a few kilobytes."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from medadv.atomic import write_atomically
from medadv.data.case import Volume
from medadv.errors import RunError
from medadv.labels import BACKGROUND, LabelScheme

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


@dataclass(frozen=True, eq=False)
class Slices:
    """Three planes through a case; plane i is cut across axis i, its rows and columns are the other two axes.

    Attributes:
        clean, adversarial: three images ``(c, h, w)`` in stored units.
        truth, predicted_clean, predicted_adversarial: three label maps ``(h, w)`` in stored numbers.
        spacing: mm a voxel along each axis.
        position: the voxel index at which each plane lies.
        modalities: the names of the channels.
        numbers: tissue → stored label number.
        regions: region → its tissues.
        sigma: one σ a modality, in stored units; 0 where nothing of it may change.
        directions: where each axis points, e.g. ``("L", "P", "S")``.
    """

    clean: tuple[np.ndarray, ...]
    adversarial: tuple[np.ndarray, ...]
    truth: tuple[np.ndarray, ...]
    predicted_clean: tuple[np.ndarray, ...]
    predicted_adversarial: tuple[np.ndarray, ...]
    spacing: tuple[float, ...]
    position: tuple[int, ...]
    modalities: tuple[str, ...]
    numbers: Mapping[str, int]
    regions: Mapping[str, tuple[str, ...]]
    sigma: tuple[float, ...]
    directions: tuple[str, ...]

    def members(self, region: str) -> tuple[str, list[int]]:
        """A region's name and label numbers; all labelled tissue for a name that the labels do not know."""
        tissues = self.regions.get(region, (region,))
        if set(tissues) <= set(self.numbers):
            return region, [self.numbers[tissue] for tissue in tissues]
        return "all labelled tissue", [n for tissue, n in self.numbers.items() if tissue != BACKGROUND]


def save_slices(
    folder: Path,
    views: Views,
    volume: Volume,
    scheme: LabelScheme,
    support: Bool[Tensor, "c x y z"] | None = None,
) -> None:
    """Cut a plane across each axis, through what is worth seeing, and write them as ``slices.npz``.

    Args:
        folder: where to.
        views: what is cut.
        volume: the clean case, for its grid.
        scheme: what the numbers of the label maps mean.
        support: the voxels whose σ is the unit of what changed; those that are not zero if left out.
    """
    inside = views.clean != 0 if support is None else support
    position = _position(views)
    meaning = {"numbers": dict(scheme.numbers), "regions": dict(scheme.regions)}
    content: dict[str, np.ndarray] = {
        "modalities": np.array(volume.case.modalities),
        "meaning": np.array(json.dumps(meaning)),
        "spacing": np.array(volume.spacing),
        "position": np.array(position),
        "directions": np.array(nib.aff2axcodes(volume.affine)),  # type: ignore[no-untyped-call]
        "sigma": np.array([_deviation(m[where]) for m, where in zip(views.clean, inside, strict=True)]),
    }
    volumes = {
        "clean": views.clean,
        "adversarial": views.adversarial,
        "truth": views.truth,
        "predicted_clean": views.answer,
        "predicted_adversarial": views.fooled,
    }
    for name, voxels in volumes.items():
        for axis, place in enumerate(position):
            content[f"{name}_{axis}"] = voxels.cpu().select(axis - 3, place).numpy()

    def fill(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            np.savez_compressed(stream, **content)  # type: ignore[arg-type]

    write_atomically(folder / SLICES, fill)


def read_slices(path: Path) -> Slices:
    """Read ``slices.npz``.

    Raises:
        RunError: the file is damaged, or holds other arrays.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            names = ("clean", "adversarial", "truth", "predicted_clean", "predicted_adversarial")
            planes = {name: tuple(file[f"{name}_{axis}"] for axis in range(3)) for name in names}
            meaning = json.loads(str(file["meaning"]))
            return Slices(
                **planes,
                spacing=tuple(float(mm) for mm in file["spacing"]),
                position=tuple(int(index) for index in file["position"]),
                modalities=tuple(str(name) for name in file["modalities"]),
                numbers=meaning["numbers"],
                regions={region: tuple(tissues) for region, tissues in meaning["regions"].items()},
                sigma=tuple(float(s) for s in file["sigma"]),
                directions=tuple(str(d) for d in file["directions"]),
            )
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise RunError(
            f"the slices of {path.parent.name} are damaged",
            got=f"{type(error).__name__}: {error}",
            cause="the file was edited, or the disk failed",
            advice="delete the folder of this case under volumes/ and run the same study again",
        ) from error


def _deviation(voxels: Float[Tensor, "n"]) -> float:
    return float(voxels.double().std(correction=0)) if voxels.numel() else 0.0


def _position(views: Views) -> tuple[int, ...]:
    """Planes through the truth, of those the ones with most that is wrong; without a truth, with most that is wrong.

    Where most of what is wrong lies far from the lesion, a plane through it alone would show no lesion.
    """
    wrong, truth = views.fooled != views.truth, views.truth != 0
    planes = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        held = truth.sum(others)
        through = 2 * held >= held.max()
        planes.append(int(torch.where(through, wrong.sum(others) + held, -1).argmax()))
    return tuple(planes)
