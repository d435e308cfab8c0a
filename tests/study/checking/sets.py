"""Data sets in the layouts that are known, made of three phantoms; and faults, planted into files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from medadv.data.brats import MODALITIES
from medadv.data.nifti import packed

IDS = [f"Phantom_0000{n}" for n in range(3)]
LATE = dict(zip(MODALITIES, ("t1n", "t1c", "t2w", "t2f"), strict=True))


def change(root: Path, case: str, kind: str, how: Callable[[np.ndarray], np.ndarray]) -> None:
    """Put other voxels into a file."""
    path = root / case / f"{case}_{kind}.nii.gz"
    image: Any = nib.load(path)
    path.write_bytes(packed(how(np.asarray(image.dataobj)), image.affine))


def late(root: Path, names: list[str], enhancing: int = 3) -> Path:
    """The same cases as BraTS 2023 names them."""
    for old, new in zip(IDS, names, strict=False):
        change(root, old, "seg", lambda v: np.where(v == 4, enhancing, v).astype(np.uint8))
        (root / old).rename(root / new)
        for kind in (*MODALITIES, "seg"):
            (root / new / f"{old}_{kind}.nii.gz").rename(root / new / f"{new}-{LATE.get(kind, kind)}.nii.gz")
    for old in IDS[len(names) :]:
        shutil.rmtree(root / old)
    return root


def nnunet(root: Path, out: Path) -> Path:
    """The same cases as an nnU-Net raw data set; label numbers and order of channels are its own."""
    for folder in ("imagesTr", "labelsTr"):
        (out / folder).mkdir(parents=True)
    for case in IDS:
        change(root, case, "seg", lambda v: np.where(v == 4, 3, v).astype(np.uint8))
        for number, kind in enumerate(reversed(MODALITIES)):
            shutil.copy(root / case / f"{case}_{kind}.nii.gz", out / "imagesTr" / f"{case}_{number:04}.nii.gz")
        shutil.copy(root / case / f"{case}_seg.nii.gz", out / "labelsTr" / f"{case}.nii.gz")
    declared = {
        "channel_names": {"0": "FLAIR", "1": "T2", "2": "T1Gd", "3": "T1"},
        "labels": {"background": 0, "necrosis": 1, "edema": 2, "enhancing tumor": 3},
        "file_ending": ".nii.gz",
    }
    (out / "dataset.json").write_text(json.dumps(declared))
    return out


def decathlon(root: Path, out: Path) -> Path:
    """The same cases as a task of the Decathlon with one channel, and the tumour as one label."""
    for folder in ("imagesTr", "labelsTr"):
        (out / folder).mkdir(parents=True)
    for case in IDS:
        change(root, case, "seg", lambda v: (v > 0).astype(np.uint8))
        shutil.copy(root / case / f"{case}_t2.nii.gz", out / "imagesTr" / f"{case}.nii.gz")
        shutil.copy(root / case / f"{case}_seg.nii.gz", out / "labelsTr" / f"{case}.nii.gz")
    pairs = [{"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"} for case in IDS]
    declared = {
        "name": "Lesion",
        "modality": {"0": "T2"},
        "labels": {"0": "background", "1": "lesion"},
        "training": pairs,
    }
    (out / "dataset.json").write_text(json.dumps(declared))
    return out


def datalist(root: Path) -> Path:
    """A list of the same files."""
    entries = [
        {"image": [f"{i}/{i}_{kind}.nii.gz" for kind in MODALITIES], "label": f"{i}/{i}_seg.nii.gz", "fold": n % 2}
        for n, i in enumerate(IDS)
    ]
    (root / "list.json").write_text(json.dumps({"training": entries}))
    return root / "list.json"


LISTED: dict[str, Any] = {"modalities": list(MODALITIES), "labels": "brats2018"}
"""What has to be declared of ``datalist``."""
PATTERN: dict[str, Any] = {
    "importer": "pattern",
    "images": {kind: f"{{case}}/*_{kind}.nii.gz" for kind in MODALITIES},
    "label": "{case}/*_seg.nii.gz",
    "labels": "brats2018",
}
"""The same folder, declared by hand."""
