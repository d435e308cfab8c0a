"""``slices.npz``: three planes of a worst case, kept so that a picture needs no volume."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medadv.errors import RunError
from medadv.labels import BACKGROUND, SCHEMES
from medadv.study.results import Arm, Results


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
        sigma: one σ a modality, in stored units.
        directions: where each axis points, e.g. ``("L", "P", "S")``; None where it is not known.
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
    sigma: tuple[float, ...]
    directions: tuple[str, ...] | None

    def members(self, region: str) -> tuple[str, list[int]]:
        """The region's name and label numbers; all tissues where the labels do not say what the region is made of."""
        if region in self.numbers:
            return region, [self.numbers[region]]
        foreground = {tissue: number for tissue, number in self.numbers.items() if tissue != BACKGROUND}
        for scheme in SCHEMES.values():
            same = {t: n for t, n in scheme.numbers.items() if t != BACKGROUND} == foreground
            if same and region in scheme.regions:
                return region, [scheme.numbers[tissue] for tissue in scheme.members(region)]
        return "all labelled tissue", list(foreground.values())


def read_slices(path: Path) -> Slices:
    """Read ``slices.npz``.

    Raises:
        RunError: the file is damaged, or holds other arrays.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            planes = {
                name: tuple(file[f"{key}_{axis}"] for axis in range(3))
                for name, key in (
                    ("clean", "clean"),
                    ("adversarial", "adversarial"),
                    ("truth", "truth"),
                    ("predicted_clean", "prediction_clean"),
                    ("predicted_adversarial", "prediction_adversarial"),
                )
            }
            return Slices(
                **planes,
                spacing=tuple(float(mm) for mm in file["spacing"]),
                position=tuple(int(index) for index in file["position"]),
                modalities=tuple(str(name) for name in file["modalities"]),
                numbers={str(t): int(n) for t, n in zip(file["labels"], file["numbers"], strict=True)},
                sigma=tuple(float(s) for s in file["sigma"]),
                directions=tuple(str(d) for d in file["directions"]) if "directions" in file else None,
            )
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise RunError(
            f"the slices of {path.parent.name} are damaged",
            got=f"{type(error).__name__}: {error}",
            cause="the file was edited, or the disk failed",
            advice="delete the folder of this case under volumes/ and run the same study again",
        ) from error


def worst_kept(results: Results, victim: str, region: str) -> list[tuple[Arm, str, Path]]:
    """For each attack the kept case that lost most Dice on the region; of equals the one with the smallest budget."""
    clean = results.clean(victim)
    before = clean.scores(region) if clean else {}
    worst: dict[str, tuple[float, Arm, str, Path]] = {}
    for arm in results.of(victim):
        if arm.presented.role != "attack":
            continue
        after = arm.scores(region)
        for case in sorted(set(before) & set(after)):
            path = results.folder / "volumes" / victim / arm.condition / case / "slices.npz"
            loss = before[case].value - after[case].value
            family = arm.presented.family
            if path.is_file() and (family not in worst or loss > worst[family][0] + 1e-6):
                worst[family] = (loss, arm, case, path)
    return [(arm, case, path) for _, arm, case, path in worst.values()]
