"""NRRD and MHA for the tests: written by SimpleITK, with the name of a patient, and by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK
from data.dicom_series import CANARY, OBLIQUE, noise

from medadv.data.case import Case
from medadv.labels import BRATS_2018

SPACING = (0.7, 1.3, 2.1)
KINDS = ("plain.nrrd", "packed.nrrd", "plain.mha", "packed.mha")


def image_of(voxels: np.ndarray, direction: np.ndarray = OBLIQUE) -> SimpleITK.Image:
    """Voxels ``(x, y, z)`` or ``(x, y, z, c)`` on an oblique grid, with a patient's name."""
    order = (2, 1, 0, 3)[: voxels.ndim]
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(voxels.transpose(order)), isVector=voxels.ndim == 4)
    image.SetSpacing(SPACING)
    image.SetDirection(direction.ravel().tolist())
    image.SetOrigin((-11.5, 22.25, 3.125))
    image.SetMetaData("PatientName", f"{CANARY}^NAME")
    return image


def save(path: Path, voxels: np.ndarray, direction: np.ndarray = OBLIQUE) -> Path:
    SimpleITK.WriteImage(image_of(voxels, direction), str(path), path.name.startswith("packed"))
    return path


def case_of(*paths: Path, modalities: int = 1) -> Case:
    images = {f"m{i}": path for i, path in enumerate(paths * modalities if modalities > 1 else paths)}
    return Case("one", None, images, None, BRATS_2018)


NRRD = (
    b"NRRD0004\n# by hand\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 5 4 3\n"
    b"space directions: (1,0,0) (0,1,0) (0,0,2)\nkinds: domain domain domain\nendian: little\nencoding: raw\n"
    b"space origin: (1,2,3)\n\n"
)
MHA = (
    b"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
    b"TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 1 2 3\nElementSpacing = 1 1 2\nDimSize = 5 4 3\n"
    b"ElementType = MET_SHORT\nElementDataFile = LOCAL\n"
)
VOXELS = noise((5, 4, 3))
RAW = VOXELS.tobytes(order="F")
