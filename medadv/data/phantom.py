"""A data set without a download: seeded four-modality MR of brains with gliomas, written as BraTS 2021 writes it.

Made for demonstrations and tests, never as evidence about patients. Contrast follows MR physics in order, not in value:
CSF is dark on T1 and FLAIR and bright on T2, an enhancing rim is bright on T1ce, oedema is bright on FLAIR and T2.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int16
from numpy.random import Generator

from medadv.data.brats import MODALITIES, brats
from medadv.data.case import Cohort
from medadv.data.nifti import packed
from medadv.data.phantom_anatomy import Anatomy, grow, waves
from medadv.errors import ConfigError, RunError
from medadv.labels import BRATS_2018

SMALLEST = 24
BRIGHTNESS = (250.0, 700.0)
"""What white matter on T1 may be stored as: MR has no unit."""

CONTRAST: dict[str, dict[str, float]] = {
    "t1": {"white": 1.0, "grey": 0.74, "deep": 0.84, "csf": 0.3, "oedema": 0.7, "necrosis": 0.42, "enhancing": 0.7},
    "t1ce": {"white": 1.0, "grey": 0.78, "deep": 0.86, "csf": 0.3, "oedema": 0.72, "necrosis": 0.4, "enhancing": 1.5},
    "t2": {"white": 0.5, "grey": 0.72, "deep": 0.6, "csf": 1.5, "oedema": 1.1, "necrosis": 1.3, "enhancing": 0.88},
    "flair": {"white": 0.62, "grey": 0.8, "deep": 0.74, "csf": 0.24, "oedema": 1.3, "necrosis": 0.7, "enhancing": 1.0},
}
"""Modality → tissue → signal, white matter on T1 being 1."""


def phantom(
    root: str | Path, cases: int = 12, shape: int | Sequence[int] = (48, 48, 48), seed: int = 0, *, spacing: float = 1.0
) -> Cohort:
    """Write phantom cases as a BraTS 2021 folder and import them.

    A case depends on ``seed``, its own number, ``shape`` and ``spacing`` alone, never on how many others there are.
    Each case's folder appears whole or not at all. A folder that holds these very bytes already is left alone, since
    somebody may be reading it; one that is damaged, or of another seed or shape, is written anew.

    Args:
        root: the data set's folder; made if it is missing.
        cases: how many.
        shape: voxels along x, y, z, 24 or more each; one number for a cube.
        seed: of everything.
        spacing: the size of a voxel in mm; the brain fills the grid whatever it is.

    Raises:
        ConfigError: fewer than one case, or a shape, seed or spacing that cannot be meant.
        RunError: the folder cannot be written.
    """
    size = _checked(cases, shape, seed, spacing)
    root = Path(root)
    names = [f"Phantom_{number:05d}" for number in range(cases)]
    try:
        root.mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(names):
            _write_case(root, name, size, np.random.default_rng([seed, number]), spacing)
    except OSError as error:
        raise RunError(
            "the phantom could not be written", got=error, advice=f"check that {root} may be written and has space left"
        ) from error
    return Cohort([brats(root / name) for name in names], [], MODALITIES, BRATS_2018)


def _checked(cases: int, shape: int | Sequence[int], seed: int, spacing: float) -> tuple[int, int, int]:
    if cases < 1 or seed < 0 or not 0.05 <= spacing <= 20:
        raise ConfigError(
            "such a phantom cannot be made",
            got={"cases": cases, "seed": seed, "spacing": spacing},
            expected="cases of 1 or more, a seed of 0 or more, a spacing of .05 to 20 mm",
        )
    axes = (shape,) * 3 if isinstance(shape, int) else tuple(shape) if isinstance(shape, Sequence) else ()
    if len(axes) != 3 or not all(isinstance(axis, int) and axis >= SMALLEST for axis in axes):
        raise ConfigError(
            "such a phantom cannot be made",
            got=shape,
            expected=f"three axes of {SMALLEST} voxels or more",
            cause="a brain on a smaller grid has no cortex left to see",
        )
    return axes[0], axes[1], axes[2]


def render(anatomy: Anatomy, modality: str, rng: Generator) -> Int16[np.ndarray, "x y z"]:
    """What a scanner shows of a head: contrast, texture, bias field, Rician noise. 0 outside the brain, never inside.

    Rician noise is the magnitude of a signal with Gaussian noise in both channels (Gudbjartsson and Patz 1995).
    """
    shape = anatomy.brain.shape
    span = max(shape)
    signal = np.zeros(shape, np.float32)
    for tissue, level in CONTRAST[modality].items():
        texture = 1 + (0.05 if tissue in ("oedema", "enhancing", "necrosis") else 0.02) * waves(rng, shape, 5.0)
        signal += np.float32(level * rng.normal(1, 0.04)) * texture * anatomy.tissues[tissue]
    bias = np.exp(rng.uniform(0.04, 0.1) * waves(rng, shape, 1.2 * span))
    noise = rng.uniform(0.02, 0.035) * rng.standard_normal((2, *shape), dtype=np.float32)
    seen = np.hypot(signal * bias + noise[0], noise[1])
    stored = np.clip(np.rint(seen * rng.uniform(*BRIGHTNESS)), 1, np.iinfo(np.int16).max)
    return np.where(anatomy.brain, stored, 0).astype(np.int16)


def _write_case(root: Path, name: str, shape: tuple[int, int, int], rng: Generator, spacing: float) -> None:
    anatomy = grow(shape, rng)
    # BraTS stores axes right to left and front to back.
    affine = np.diag([-spacing, -spacing, spacing, 1.0])
    affine[1, 3] = (shape[1] - 1) * spacing
    files = {modality: render(anatomy, modality, rng)[::-1, ::-1] for modality in MODALITIES}
    files["seg"] = anatomy.labels[::-1, ::-1]
    contents = {f"{name}_{kind}.nii.gz": packed(voxels, affine) for kind, voxels in files.items()}
    target = root / name
    if _holds(target, contents):
        return
    with tempfile.TemporaryDirectory(dir=root, prefix=".writing-") as unfinished:
        whole = Path(unfinished) / name
        whole.mkdir()
        for file, content in contents.items():
            (whole / file).write_bytes(content)
        if target.is_dir() and not _holds(target, contents):
            target.rename(Path(unfinished) / "replaced")
        try:
            whole.rename(target)
        except OSError:
            if not _holds(target, contents):  # else another process has just written the same
                raise


def _holds(folder: Path, contents: Mapping[str, bytes]) -> bool:
    """Whether a folder holds these files, byte for byte, and no others."""
    if not folder.is_dir() or {path.name for path in folder.iterdir()} != set(contents):
        return False
    return all((folder / name).is_file() and (folder / name).read_bytes() == c for name, c in contents.items())
