"""Real MR through every importer and container: the same voxels in the same place, whoever brings them in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from data.dicom_series import tag_set, write_series

from medadv.data.case import Case, Cohort
from medadv.data.datalist import datalist_cohort
from medadv.data.files import content_digest, label_digest, read
from medadv.data.msd import msd_cohort
from medadv.data.nnunet import nnunet_cohort
from medadv.data.pattern import pattern_cohort
from medadv.labels import LabelScheme
from medadv.vocabulary import declared_scheme

LABELS = {"background": 0, "Anterior": 1, "Posterior": 2}
READ = slice(0, None, 12)
"""Every case is imported; of these the voxels are compared."""


@pytest.fixture(scope="module")
def real(data_root: Path) -> Path:
    return data_root / "Task04_Hippocampus_subset"


@pytest.fixture(scope="module")
def ids(real: Path) -> list[str]:
    return sorted(path.name.removesuffix(".nii.gz") for path in (real / "imagesTr").glob("[!.]*.nii.gz"))


def scheme() -> LabelScheme:
    return declared_scheme("declared", LABELS)


def as_nnunet(real: Path, ids: list[str], place: Path) -> Cohort:
    """The same files, linked to where nnU-Net wants them."""
    for folder in ("imagesTr", "labelsTr"):
        (place / folder).mkdir()
    for name in ids:
        (place / "imagesTr" / f"{name}_0000.nii.gz").symlink_to(real / "imagesTr" / f"{name}.nii.gz")
        (place / "labelsTr" / f"{name}.nii.gz").symlink_to(real / "labelsTr" / f"{name}.nii.gz")
    declared = {"channel_names": {"0": "MRI"}, "labels": LABELS, "numTraining": len(ids), "file_ending": ".nii.gz"}
    (place / "dataset.json").write_text(json.dumps(declared))
    return nnunet_cohort(place)


def as_datalist(real: Path, ids: list[str], place: Path) -> Cohort:
    """A list with five folds, outside of the data's folder."""
    entries = [
        {"image": f"imagesTr/{name}.nii.gz", "label": f"labelsTr/{name}.nii.gz", "fold": n % 5}
        for n, name in enumerate(ids)
    ]
    (place / "list.json").write_text(json.dumps({"training": entries}))
    cohort = datalist_cohort(place / "list.json", ["MRI"], scheme(), real)
    assert [case.fold for case in cohort.cases] == [n % 5 for n in range(len(ids))]
    return cohort


def as_pattern(real: Path, ids: list[str], place: Path) -> Cohort:
    return pattern_cohort(real, {"MRI": "imagesTr/{case}.nii.gz"}, "labelsTr/{case}.nii.gz", scheme())


IMPORTERS: dict[str, Callable[[Path, list[str], Path], Cohort]] = {
    "nnunet": as_nnunet,
    "datalist": as_datalist,
    "pattern": as_pattern,
}


@pytest.mark.parametrize("kind", IMPORTERS)
def test_the_same_files_are_the_same_cases(real: Path, ids: list[str], tmp_path: Path, kind: str) -> None:
    declared = {case.case: case for case in msd_cohort(real).cases}
    cohort = IMPORTERS[kind](real, ids, tmp_path)
    assert cohort.refused == []
    assert [case.case for case in cohort.cases] == ids == sorted(declared)
    assert len(ids) == 72
    assert cohort.modalities == msd_cohort(real).modalities
    for case in cohort.cases[READ]:
        ours, theirs = read(case), read(declared[case.case])
        assert content_digest(ours) == content_digest(theirs)
        assert label_digest(ours) == label_digest(theirs)
        assert {name.lower(): number for name, number in case.scheme.numbers.items()} == {
            name.lower(): number for name, number in theirs.case.scheme.numbers.items()
        }


def converted(image: Path, folder: Path, ending: str) -> Path:
    """One file, written by SimpleITK from what SimpleITK read."""
    folder.mkdir(exist_ok=True)
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(image)), str(folder / f"{image.name.split('.')[0]}{ending}"), True)
    return folder / f"{image.name.split('.')[0]}{ending}"


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_a_converted_case_has_the_same_voxels_in_the_same_place(
    real: Path, ids: list[str], tmp_path: Path, ending: str
) -> None:
    image = converted(real / "imagesTr" / f"{ids[3]}.nii.gz", tmp_path / "image", ending)
    label = converted(real / "labelsTr" / f"{ids[3]}.nii.gz", tmp_path / "label", ending)
    ours = read(Case(ids[3], None, {"mri": image}, label, scheme()))
    theirs = read(next(case for case in msd_cohort(real).cases if case.case == ids[3]))
    assert ours.x.equal(theirs.x)
    assert ours.truth is not None
    assert theirs.truth is not None
    assert ours.truth.equal(theirs.truth)
    np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-5)


@pytest.mark.parametrize(("which", "slope"), [(0, 1.0), (3, 0.03125)])
def test_a_case_as_a_dicom_series_has_the_same_voxels_in_the_same_place(
    real: Path, ids: list[str], tmp_path: Path, which: int, slope: float
) -> None:
    """The first case holds integers; the fourth fractions, stored as integers with a slope. The label stays NIfTI."""
    name = ids[which]
    theirs = read(next(case for case in msd_cohort(real).cases if case.case == name))
    stored = np.rint(theirs.x[0].numpy() / slope)
    assert stored.max() < 2**16
    assert bool((stored * slope == theirs.x[0].numpy()).all()) == (which == 0)
    source = SimpleITK.ReadImage(str(real / "imagesTr" / f"{name}.nii.gz"))
    slices = write_series(
        tmp_path / "series",
        stored.astype(np.uint16),
        direction=np.reshape(source.GetDirection(), (3, 3)),
        spacing=source.GetSpacing(),
        origin=source.GetOrigin(),
    )
    for path in slices:
        tag_set(path, 0x00281052, "0")
        tag_set(path, 0x00281053, str(slope))
    ours = read(Case(name, None, {"mri": tmp_path / "series"}, real / "labelsTr" / f"{name}.nii.gz", scheme()))
    np.testing.assert_array_equal(ours.x[0].numpy(), (stored * slope).astype(np.float32))
    np.testing.assert_allclose(ours.x.numpy(), theirs.x.numpy(), rtol=0, atol=slope / 2 if which else 0)
    np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-5)
    assert ours.truth is not None
    assert theirs.truth is not None
    assert ours.truth.equal(theirs.truth)
