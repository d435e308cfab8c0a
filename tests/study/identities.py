"""Data of each kind of source in which everything that can name a person does: paths, names, headers, tags.

Every source has two cases that can be used and one or more that cannot. What names people begins with ``CANARY``,
is a number of a patient or of a study, or a date of birth.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK
from data.dicom_series import write_series

CANARY = "CANARY"
MRN, BORN, UID = "90210777", "19420131", "1.2.840.99999.424242"
SECRETS = (CANARY, MRN, BORN, UID)
LABELS = {"background": 0, "tumour": 1}
SHAPE = (12, 12, 10)
SPACING, ORIGIN = (1.0, 1.0, 2.0), (-5.0, -4.0, 3.0)
AFFINE = np.diag([-1.0, -1.0, 2.0, 1.0])
AFFINE[:3, 3] = -ORIGIN[0], -ORIGIN[1], ORIGIN[2]
KINDS = ("t1", "t1ce", "t2", "flair")


def scan(seed: int) -> np.ndarray:
    """A bright ball in a head, ``(x, y, z)`` int16."""
    far = np.sqrt(((np.mgrid[:12, :12, :10] - np.array([6, 6, 5])[:, None, None, None]) ** 2).sum(0))
    noise = np.random.default_rng(seed).integers(0, 40, SHAPE)
    return np.where(far < 5, 200 + noise + 300 * (far < 3), 0).astype(np.int16)


def lesion() -> np.ndarray:
    """Where the ball is."""
    return (scan(0) > 400).astype(np.uint8)


def nifti(path: Path, voxels: np.ndarray) -> Path:
    """Every text that a NIfTI header can hold, and two extensions, name somebody."""
    image = nib.Nifti1Image(voxels, AFFINE)
    image.header["descrip"] = f"{CANARY}^DESCRIPTION {BORN}".encode()
    image.header["aux_file"] = f"{CANARY}_AUX".encode()
    image.header["intent_name"] = f"{CANARY}^INTENT".encode()
    image.header["db_name"] = f"{CANARY}_DB".encode()
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", f"{CANARY}^COMMENT {MRN}".encode()))
    image.header.extensions.append(nib.nifti1.Nifti1Extension(4, f"{CANARY}^AFNI {UID}".encode()))
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    assert CANARY.encode() in nib.load(path).to_bytes()
    return path


def itk(path: Path, voxels: np.ndarray) -> Path:
    """NRRD or MHA, with key/value pairs."""
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(voxels.T))
    image.SetSpacing(SPACING)
    image.SetOrigin(ORIGIN)
    for key, value in (("PatientName", f"{CANARY}^NAME"), ("PatientID", MRN), ("BirthDate", BORN), ("Study", UID)):
        image.SetMetaData(key, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(image, str(path))
    assert CANARY.encode() in path.read_bytes()
    return path


def torn(path: Path) -> None:
    """The first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def brats_folder(root: Path) -> dict[str, Any]:
    """Names of files that belong to nobody, one case twice, and a text that is called an image."""
    labels = lesion() * 4
    for n in range(5):
        case = root / f"{CANARY}_BRATS_{n}"
        for m, kind in enumerate(KINDS):
            nifti(case / f"{case.name}_{kind}.nii.gz", scan(4 * n + m))
        nifti(case / f"{case.name}_seg.nii.gz", labels)
    nifti(root / f"{CANARY}_BRATS_2" / f"photo of {CANARY}^JANE {MRN}.nii.gz", scan(9))
    (root / f"{CANARY}_BRATS_3" / f"{CANARY}_BRATS_3_t2.nii.gz").unlink()
    nifti(root / "twin" / f"{CANARY}_BRATS_3" / f"{CANARY}_BRATS_3_t1.nii.gz", scan(1))
    text = root / f"{CANARY}_BRATS_4" / f"{CANARY}_BRATS_4_t1"
    text.with_suffix(".nii.gz").unlink()
    text.with_suffix(".nii").write_bytes(f"{CANARY}^MARY {MRN}".encode() * 20)
    return {"importer": "brats", "root": str(root), "release": "2021"}


def dicom_series(root: Path) -> dict[str, Any]:
    """Folders called after people; series with every tag of the tests, one of them gapped."""
    tags = {
        "0010|0010": f"{CANARY}^SURNAME",
        "0010|0020": MRN,
        "0010|0030": BORN,
        "0020|000d": f"{UID}.1",
        "0020|000e": f"{UID}.2",
    }
    for n in range(3):
        case = root / f"{MRN}{n}" / f"{CANARY}^PATIENT {n}"
        place = {"spacing": SPACING, "origin": ORIGIN, "tags": tags, "name": f"{CANARY}-slice"}
        slices = write_series(case / f"{CANARY} SERIES", scan(n), **place)
        itk(case / f"truth of {CANARY}.nrrd", lesion())
        if n == 2:
            slices[5].unlink()
    return pattern(root, f"{{patient}}/{{case}}/{CANARY} SERIES", f"{{patient}}/{{case}}/truth of {CANARY}.nrrd")


def container(root: Path, ending: str) -> dict[str, Any]:
    """A flat folder in which names of files hold more than the id."""
    for n in range(4):
        itk(root / f"Dr {CANARY} {MRN}{n} mr{ending}", scan(n))
        itk(root / f"Dr {CANARY} {MRN}{n} truth{ending}", lesion())
    torn(root / f"Dr {CANARY} {MRN}2 mr{ending}")
    (root / f"Dr {CANARY} {MRN}3 truth{ending}").unlink()
    return pattern(root, f"Dr * {{case}} mr{ending}", f"Dr * {{case}} truth{ending}")


def pattern(root: Path, image: str, label: str) -> dict[str, Any]:
    images = {"t1": image}
    return {"importer": "pattern", "root": str(root), "images": images, "label": label, "labels": LABELS}


def data_list(root: Path) -> dict[str, Any]:
    """Ids that are none, files called after people: torn, missing under a name with the id in it, and whole."""
    entries = []
    for n in range(4):
        image = nifti(root / f"{CANARY}^MARY scan{n} {BORN}.nii.gz", scan(n))
        label = nifti(root / f"truth {CANARY}^MARY {n}.nii.gz", lesion())
        entries.append({"scan": f"scan{n}", "mrn": f"{MRN}{n}", "image": image.name, "label": label.name})
        if n == 2:
            torn(image)
        if n == 3:
            image.unlink()
    (root / f"{CANARY}.json").write_text(json.dumps({"training": entries}))
    source = {"importer": "datalist", "datalist": str(root / f"{CANARY}.json"), "case": "scan", "patient": "mrn"}
    return {**source, "modalities": ["t1"], "labels": LABELS}


def nnunet_raw(root: Path) -> dict[str, Any]:
    """A torn label, and an image without the number of its channel."""
    for n in range(3):
        nifti(root / "imagesTr" / f"{CANARY}-{MRN}{n}_0000.nii.gz", scan(n))
        nifti(root / "labelsTr" / f"{CANARY}-{MRN}{n}.nii.gz", lesion())
    torn(root / "labelsTr" / f"{CANARY}-{MRN}2.nii.gz")
    nifti(root / "imagesTr" / f"{CANARY}^EXTRA.nii.gz", scan(5))
    declared = {"channel_names": {"0": "T1"}, "labels": LABELS, "file_ending": ".nii.gz", "description": CANARY}
    (root / "dataset.json").write_text(json.dumps(declared))
    return {"importer": "nnunet", "root": str(root), "patient": f"{CANARY}-{{patient}}"}


SOURCES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "brats": brats_folder,
    "dicom": dicom_series,
    "nrrd": lambda root: container(root, ".nrrd"),
    "mha": lambda root: container(root, ".mha"),
    "datalist": data_list,
    "nnunet": nnunet_raw,
}
"""Kind → builds it in a folder, and says what a study's ``data`` is."""

REFUSED = {"brats": 4, "dicom": 1, "nrrd": 2, "mha": 2, "datalist": 2, "nnunet": 2}
"""Kind → how many cases of it cannot be used."""
