"""What is kept of a delivered case for pictures: three planes of a volume, a picture whole; a few kilobytes."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from medadv.atomic import write_atomically
from medadv.data.case import Volume
from medadv.errors import ConfigError, RunError
from medadv.labels import BACKGROUND, LabelScheme
from medadv.objects import Objects

SLICES = "slices.npz"

Shown = Int[Tensor, "*s"] | Objects
"""What an image shows, as an expert or a victim says: a label map in stored numbers, or objects."""


@dataclass(frozen=True, eq=False)
class Views:
    """What is cut: voxels of one case on one grid, and what they show.

    Attributes:
        clean, adversarial: voxels ``(c, *s)`` in stored units, of a volume or a picture.
        truth, answer, fooled: what the expert says, and the victim of the clean and of the adversarial case: label
            maps ``(*s)``, or objects.
    """

    clean: Float[Tensor, "c *s"]
    adversarial: Float[Tensor, "c *s"]
    truth: Shown
    answer: Shown
    fooled: Shown


@dataclass(frozen=True, eq=False)
class Slices:
    """Three planes through a volume, or a picture, which has one.

    Plane i of a volume is cut across axis i, its rows and columns are the other two axes.

    Attributes:
        clean, adversarial: an image ``(c, h, w)`` a plane, in stored units.
        truth, predicted_clean, predicted_adversarial: a label map ``(h, w)`` in stored numbers a plane; or the objects
            of the whole case, whose boxes are in its voxels.
        spacing: mm a voxel along each axis.
        position: the voxel index at which each plane lies; empty of a picture.
        modalities: the names of the channels.
        numbers: tissue → stored label number.
        regions: region → its tissues.
        sigma: one σ a modality, in stored units; 0 where nothing of it may change.
        directions: where each axis points, e.g. ``("L", "P", "S")``; empty of a picture.
    """

    clean: tuple[np.ndarray, ...]
    adversarial: tuple[np.ndarray, ...]
    truth: tuple[np.ndarray, ...] | Objects
    predicted_clean: tuple[np.ndarray, ...] | Objects
    predicted_adversarial: tuple[np.ndarray, ...] | Objects
    spacing: tuple[float, ...]
    position: tuple[int, ...]
    modalities: tuple[str, ...]
    numbers: Mapping[str, int]
    regions: Mapping[str, tuple[str, ...]]
    sigma: tuple[float, ...]
    directions: tuple[str, ...]

    @property
    def picture(self) -> bool:
        """Whether it is a picture and no volume."""
        return not self.position

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
    support: Bool[Tensor, "c *s"] | None = None,
) -> None:
    """Cut a plane across each axis, through what is worth seeing, and write them as ``slices.npz``; a picture whole.

    Args:
        folder: where to.
        views: what is cut.
        volume: the clean case, for its grid.
        scheme: what the numbers of labels mean.
        support: the voxels whose σ is the unit of what changed; those that are not zero if left out.

    Raises:
        ConfigError: voxels of other than two or three axes.
    """
    axes = views.clean.ndim - 1
    if axes not in (2, 3):
        raise ConfigError("slices are kept of volumes and pictures", got=tuple(views.clean.shape))
    inside = views.clean != 0 if support is None else support
    position = _position(views) if axes == 3 else ()
    meaning = {"numbers": dict(scheme.numbers), "regions": dict(scheme.regions)}
    lying = nib.aff2axcodes(volume.affine) if axes == 3 else ()  # type: ignore[no-untyped-call]
    content: dict[str, np.ndarray] = {
        "modalities": np.array(volume.case.modalities),
        "meaning": np.array(json.dumps(meaning)),
        "spacing": np.array(volume.spacing),
        "position": np.array(position, dtype=np.int64),
        "directions": np.array(lying, dtype=str),
        "sigma": np.array([_deviation(m[where]) for m, where in zip(views.clean, inside, strict=True)]),
    }
    for name, voxels in (("clean", views.clean), ("adversarial", views.adversarial)):
        content |= _planes(name, voxels, position)
    for name, shown in (("truth", views.truth), *_answers(views)):
        content |= _listed(name, shown) if isinstance(shown, Objects) else _planes(name, shown, position)

    def fill(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            np.savez_compressed(stream, **content)  # type: ignore[arg-type]

    write_atomically(folder / SLICES, fill)


def _answers(views: Views) -> tuple[tuple[str, Shown], ...]:
    return ("predicted_clean", views.answer), ("predicted_adversarial", views.fooled)


def _planes(name: str, voxels: Tensor, position: tuple[int, ...]) -> dict[str, np.ndarray]:
    """The planes of a volume, or the picture, as they are called in the file."""
    if not position:
        return {f"{name}_0": voxels.cpu().numpy()}
    return {f"{name}_{axis}": voxels.cpu().select(axis - 3, place).numpy() for axis, place in enumerate(position)}


_PARTS = ("boxes", "labels", "scores", "difficult")


def _listed(name: str, objects: Objects) -> dict[str, np.ndarray]:
    """Objects as arrays; a part that is not known is left out."""
    parts = ((part, getattr(objects, part)) for part in _PARTS)
    return {f"{name}_{part}": value.cpu().numpy() for part, value in parts if value is not None}


def read_slices(path: Path) -> Slices:
    """Read ``slices.npz``.

    Raises:
        RunError: the file is damaged, or holds other arrays.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            names = ("clean", "adversarial", "truth", "predicted_clean", "predicted_adversarial")
            count = len(file["position"]) or 1
            meaning = json.loads(str(file["meaning"]))
            return Slices(
                **{name: _read(file, name, count) for name in names},
                spacing=tuple(float(mm) for mm in file["spacing"]),
                position=tuple(int(index) for index in file["position"]),
                modalities=tuple(str(name) for name in file["modalities"]),
                numbers=meaning["numbers"],
                regions={region: tuple(tissues) for region, tissues in meaning["regions"].items()},
                sigma=tuple(float(s) for s in file["sigma"]),
                directions=tuple(str(d) for d in file["directions"]),
            )
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, ConfigError) as error:
        raise RunError(
            f"the slices of {path.parent.name} are damaged",
            got=f"{type(error).__name__}: {error}",
            cause="the file was edited, or the disk failed",
            advice="delete the folder of this case under volumes/ and run the same study again",
        ) from error


def _read(file: Mapping[str, np.ndarray], name: str, count: int) -> Any:
    """The planes under a name, or the objects."""
    if f"{name}_boxes" not in file:
        return tuple(file[f"{name}_{plane}"] for plane in range(count))
    found = {part: torch.from_numpy(file[f"{name}_{part}"]) for part in _PARTS if f"{name}_{part}" in file}
    return Objects(**found)


def _deviation(voxels: Float[Tensor, "n"]) -> float:
    return float(voxels.double().std(correction=0)) if voxels.numel() else 0.0


def _position(views: Views) -> tuple[int, ...]:
    """Planes through the truth, of those the ones with most that is wrong; without a truth, with most that is wrong.

    Where most of what is wrong lies far from the lesion, a plane through it alone would show no lesion.
    """
    told, fooled = (_filled(shown, tuple(views.clean.shape[1:])) for shown in (views.truth, views.fooled))
    wrong, truth = fooled != told, told != 0
    planes = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        held = truth.sum(others)
        through = 2 * held >= held.max()
        planes.append(int(torch.where(through, wrong.sum(others) + held, -1).argmax()))
    return tuple(planes)


def _filled(shown: Shown, size: tuple[int, ...]) -> Int[Tensor, "x y z"]:
    """A label map; of objects, one in which each box is full of its label."""
    if not isinstance(shown, Objects):
        return shown
    painted = torch.zeros(size, dtype=torch.int64)
    for box, label in zip(shown.boxes.round().int().tolist(), shown.labels.tolist(), strict=True):
        inside = tuple(slice(max(low, 0), max(high, 0)) for low, high in zip(box[:3], box[3:], strict=True))
        painted[inside] = label
    return painted
