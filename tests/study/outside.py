"""A model outside: it reads an exported folder with nibabel, answers with a victim, and sends label maps back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from study.small_study import Glow

from medadv.data.brats import MODALITIES
from medadv.labels import BRATS_2018
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
