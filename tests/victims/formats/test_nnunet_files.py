"""What is scored is the file that nnU-Net itself would have written, whatever way its volume lies in space."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from victims.formats.nnunet_model import FLAT, ISOTROPIC, REGIONAL, Recipe, volume

from medadv.victims.formats.nnunet.format import load
from medadv.victims.formats.nnunet.predictor import quiet

own = pytest.importorskip("nnunetv2.inference.predict_from_raw_data")

TURN = np.array([[0.0, 0.0, -1.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
"""Index axes that run to the back, upwards and to the left."""


def answered(folder: Path, images: list[Path], out: Path, folds: tuple[int | str, ...]) -> np.ndarray:
    """nnU-Net opens its own folder, reads the files, writes the segmentation."""
    predictor = own.nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder), folds)
    predictor.predict_from_files_sequential([[str(path) for path in images]], [str(out)])
    return np.asarray(nib.load(f"{out}.nii.gz").dataobj)


@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIO", "NibabelIOWithReorient"])
@pytest.mark.parametrize("recipe", [ISOTROPIC, REGIONAL, FLAT], ids=lambda recipe: recipe.name)
def test_the_file_is_the_one_that_nnunet_writes(
    recipe: Recipe, reader: str, copied: Callable[..., Path], tmp_path: Path
) -> None:
    folder = copied(recipe, plans=lambda plans: plans.update(image_reader_writer=reader))
    x, _ = volume(5, (20, 17, 18), channels=len(recipe.channels))
    affine = np.eye(4)
    affine[:3, :3] = TURN @ np.diag(recipe.spacing)
    affine[:3, 3] = (-31.0, 7.5, 12.0)
    images = [tmp_path / f"case_{channel:04}.nii.gz" for channel in range(len(x))]
    for path, channel in zip(images, x, strict=True):
        nib.save(nib.Nifti1Image(channel.numpy(), affine), path)
    victim = load(folder, None, False).at(nib.load(images[0]).affine)
    with quiet():
        theirs = answered(folder, images, tmp_path / "answer", recipe.folds)
    np.testing.assert_array_equal(victim.predict(x[None])[0].numpy(), theirs)
    assert victim.agreement(x[None]) >= 0.999
