"""A model outside: it reads an exported folder with nibabel, answers with a victim, and sends label maps back."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from study.small_study import Glow, small

from medadv.data.brats import MODALITIES
from medadv.labels import BRATS_2018
from medadv.study.export import export
from medadv.study.records import Record
from medadv.study.returned import Returned, score_returned
from medadv.study.spec import Study
from medadv.victims.head import Softmax
from medadv.victims.segmentation import Segmenter


def voxels(path: Path) -> tuple[np.ndarray, Any]:
    """A file's voxels and its image."""
    image: Any = nib.load(path)
    return np.asarray(image.dataobj), image


def predict(exported: Path, back: Path, shift: float = 0.0) -> Path:
    """Segment an nnU-Net folder of four channels; ``shift`` makes another model of the victim ``glow``."""
    network = Glow()
    with torch.no_grad():
        network.answer.bias += torch.tensor([0, shift, 0, 0])
    victim = Segmenter(network, Softmax(BRATS_2018), MODALITIES)
    back.mkdir()
    for name in sorted({path.name[:-12] for path in (exported / "imagesTs").iterdir()}):
        read = [voxels(exported / "imagesTs" / f"{name}_{c:04}.nii.gz") for c in range(4)]
        x = torch.from_numpy(np.stack([array.astype(np.float32) for array, _ in read]))
        labels = victim.predict(x[None])[0].numpy().astype(np.uint8)
        nib.save(nib.Nifti1Image(labels, read[0][1].affine), back / f"{name}.nii.gz")
    return back


@pytest.fixture(scope="session")
def answered(tmp_path_factory: pytest.TempPathFactory, three: Path, finished: Path) -> Path:
    """Runs, an export of one, and the answers of the very same network; not to be changed by a test."""
    there = tmp_path_factory.mktemp("answered")
    shutil.copytree(finished, there / "small")
    export(small(three), there / "out", runs=there)
    predict(there / "out", there / "back")
    return there


@pytest.fixture
def there(answered: Path, tmp_path: Path) -> Path:
    """A copy to be changed."""
    for name in ("small", "back"):
        shutil.copytree(answered / name, tmp_path / name)
    return tmp_path


def scored(there: Path, three: Path, victim: str = "hospital", study: Study | None = None, **more: object) -> Returned:
    key = there / "small" / "exports" / "out.json"
    return score_returned(study or small(three), there / "back", key, victim, runs=there, **more)  # type: ignore[arg-type]


def by_cell(records: list[Record], victim: str) -> dict[tuple[str, str], Record]:
    return {(record.condition, record.case): record for record in records if record.victim == victim}


def comparisons(folder: Path, victim: str) -> list[dict[str, str]]:
    with (folder / "comparisons.csv").open(newline="") as stream:
        return [row for row in csv.DictReader(stream) if row["victim"] == victim]
