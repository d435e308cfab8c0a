"""Data of each kind of source in which everything that can name a person does: paths, names, headers, tags.

Every source has two cases that can be used and one or more that cannot. What names people begins with ``CANARY``,
is a number of a patient or of a study, or a date of birth.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK
import torch
from data.dicom_series import write_series
from study.small_study import NETWORK

from medadv.labels import BRATS_2018, LabelScheme
from medadv.study.load import as_study
from medadv.study.spec import Study
from medadv.victims.checkpoint import save_victim
from medadv.victims.head import Softmax
from medadv.victims.networks import Architecture, build_network
from medadv.victims.segmentation import Segmenter
from medadv.vocabulary import declared_scheme

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


def brats_folder(root: Path, bad: bool = True) -> dict[str, Any]:
    """Names of files that belong to nobody, one case twice, and a text that is called an image."""
    for n in range(5) if bad else (0, 4):
        case = root / f"{CANARY}_BRATS_{n}"
        for m, kind in enumerate(KINDS):
            nifti(case / f"{case.name}_{kind}.nii.gz", scan(4 * n + m))
        nifti(case / f"{case.name}_seg.nii.gz", lesion() * 4)
    if bad:
        nifti(root / f"{CANARY}_BRATS_1" / f"photo of {CANARY}^JANE {MRN}.nii.gz", scan(9))
        (root / f"{CANARY}_BRATS_2" / f"{CANARY}_BRATS_2_t2.nii.gz").unlink()
        nifti(root / "twin" / f"{CANARY}_BRATS_2" / f"{CANARY}_BRATS_2_t1.nii.gz", scan(1))
        text = root / f"{CANARY}_BRATS_3" / f"{CANARY}_BRATS_3_t1"
        text.with_suffix(".nii.gz").unlink()
        text.with_suffix(".nii").write_bytes(f"{CANARY}^MARY {MRN}".encode() * 20)
    return {"importer": "brats", "root": str(root), "release": "2021"}


def dicom_series(root: Path, bad: bool = True) -> dict[str, Any]:
    """Folders called after people; series with every tag of the tests, one of them gapped."""
    tags = {
        "0010|0010": f"{CANARY}^SURNAME",
        "0010|0020": MRN,
        "0010|0030": BORN,
        "0020|000d": f"{UID}.1",
        "0020|000e": f"{UID}.2",
    }
    for n in range(3) if bad else (0, 2):
        case = root / f"{MRN}{n}" / f"{CANARY}^PATIENT {n}"
        place = {"spacing": SPACING, "origin": ORIGIN, "tags": tags, "name": f"{CANARY}-slice"}
        slices = write_series(case / f"{CANARY} SERIES", scan(n), **place)
        itk(case / f"truth of {CANARY}.nrrd", lesion())
        if n == 1:
            slices[5].unlink()
    return pattern(root, f"{{patient}}/{{case}}/{CANARY} SERIES", f"{{patient}}/{{case}}/truth of {CANARY}.nrrd")


def container(root: Path, ending: str, bad: bool = True) -> dict[str, Any]:
    """A flat folder in which names of files hold more than the id: one file torn, one without a label."""
    for n in range(4) if bad else (0, 3):
        image = itk(root / f"Dr {CANARY} {MRN}{n} mr{ending}", scan(n))
        if n != 2:
            itk(root / f"Dr {CANARY} {MRN}{n} truth{ending}", lesion())
        if n == 1:
            torn(image)
    return pattern(root, f"Dr * {{case}} mr{ending}", f"Dr * {{case}} truth{ending}")


def pattern(root: Path, image: str, label: str) -> dict[str, Any]:
    images = {"t1": image}
    return {"importer": "pattern", "root": str(root), "images": images, "label": label, "labels": LABELS}


def data_list(root: Path, bad: bool = True) -> dict[str, Any]:
    """Ids that are none, files called after people: torn, missing under a name with the id in it, and whole."""
    entries = []
    for n in range(4) if bad else (0, 3):
        image = nifti(root / f"{CANARY}^MARY scan{n} {BORN}.nii.gz", scan(n))
        label = nifti(root / f"truth {CANARY}^MARY {n}.nii.gz", lesion())
        entries.append({"scan": f"scan{n}", "mrn": f"{MRN}{n}", "image": image.name, "label": label.name})
        if n == 1:
            torn(image)
        if n == 2:
            image.unlink()
    (root / f"{CANARY}.json").write_text(json.dumps({"training": entries}))
    source = {"importer": "datalist", "datalist": str(root / f"{CANARY}.json"), "case": "scan", "patient": "mrn"}
    return {**source, "modalities": ["t1"], "labels": LABELS}


def nnunet_raw(root: Path, bad: bool = True) -> dict[str, Any]:
    """A torn label, and an image without the number of its channel."""
    for n in range(3) if bad else (0, 2):
        nifti(root / "imagesTr" / f"{CANARY}-{MRN}{n}_0000.nii.gz", scan(n))
        label = nifti(root / "labelsTr" / f"{CANARY}-{MRN}{n}.nii.gz", lesion())
        if n == 1:
            torn(label)
            nifti(root / "imagesTr" / f"{CANARY}^EXTRA.nii.gz", scan(5))
    declared = {"channel_names": {"0": "T1"}, "labels": LABELS, "file_ending": ".nii.gz", "description": CANARY}
    (root / "dataset.json").write_text(json.dumps(declared))
    return {"importer": "nnunet", "root": str(root), "patient": f"{CANARY}-{{patient}}"}


SOURCES: dict[str, Callable[..., dict[str, Any]]] = {
    "brats": brats_folder,
    "dicom": dicom_series,
    "nrrd": partial(container, ending=".nrrd"),
    "mha": partial(container, ending=".mha"),
    "datalist": data_list,
    "nnunet": nnunet_raw,
}
"""Kind → builds it in a folder (without the bad cases if ``bad`` is False), and says what a study's ``data`` is."""

REFUSED = {
    "brats": ["extra_modality", "missing_modality", "missing_modality", "unreadable"],
    "dicom": ["series_gaps"],
    "nrrd": ["header_size", "missing_label"],
    "mha": ["header_size", "missing_label"],
    "datalist": ["missing_modality", "unreadable"],
    "nnunet": ["extra_modality", "unreadable"],
}
"""Kind → why cases of it cannot be used. Two can, of each."""


def study_of(kind: str, source: Path, bad: bool = True) -> Study:
    """A study of one untrained network, from the disk, under one attack."""
    channels = KINDS if kind == "brats" else KINDS[:1]
    scheme = BRATS_2018 if kind == "brats" else declared_scheme("declared", LABELS)
    region = "WT" if kind == "brats" else "tumour"
    content = {
        "study": kind,
        "ids": "pseudonyms",
        "data": SOURCES[kind](source / f"{CANARY} data", bad=bad),
        "victims": {"net": {"weights": str(untrained(source / f"{CANARY} weights", channels, scheme))}},
        "budgets": ["0.2 sigma"],
        "attacks": {"fgsm": {"preset": "fgsm"}},
        "controls": [],
        "primary": {"region": region},
        "regions": [region],
        "volumes": {"keep": "all"},
    }
    return as_study(content)


def untrained(folder: Path, channels: Sequence[str], scheme: LabelScheme, patients: Sequence[str] = ()) -> Path:
    """A victim on the disk, whose card says that it has seen these patients."""
    architecture = Architecture.model_validate(NETWORK)
    torch.manual_seed(2)
    network = build_network(architecture, len(channels), len(scheme.tissues))
    save_victim(Segmenter(network, Softmax(scheme), tuple(channels)), architecture, folder, (), patients)
    return folder
