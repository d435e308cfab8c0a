"""Datalists as MONAI reads them: paths, folds and ids come out, and one bad entry costs itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from monai.data import load_decathlon_datalist

from medadv.data.case import Cohort
from medadv.data.datalist import datalist_cohort
from medadv.data.files import read
from medadv.errors import ConfigError, Reason
from medadv.labels import BRATS_2018, LabelScheme

LESION = LabelScheme("lesion", {"background": 0, "lesion": 1})
BRATS = ("t1ce", "t1", "t2", "flair")


def save(path: Path, value: int, channels: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.zeros((6, 7, 8, channels) if channels else (6, 7, 8), np.uint8)
    voxels[2:5, 2:5, 2:5] = value + np.arange(channels) if channels else value
    voxels[2, 2, 2] = 1
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)


def entry(case: str, **more: Any) -> dict[str, Any]:
    """MONAI's BraTS list: four paths in the bundle's order."""
    return {"image": [f"{case}/{case}_{m}.nii.gz" for m in BRATS], "label": f"{case}/{case}_seg.nii.gz", **more}


def lay_out(root: Path, *cases: str) -> None:
    for case in cases:
        for number, name in enumerate(BRATS):
            save(root / case / f"{case}_{name}.nii.gz", 10 + number)
        save(root / case / f"{case}_seg.nii.gz", 4)


def listed(path: Path, entries: list[Any], section: str = "training") -> Path:
    path.write_text(json.dumps({"numTraining": len(entries), section: entries}))
    return path


def lesions(path: Path, **more: Any) -> Cohort:
    return datalist_cohort(path, ["t1"], LESION, **more)


def test_four_paths_are_the_modalities_in_their_order(tmp_path: Path) -> None:
    lay_out(tmp_path, "BraTS2021_00000", "BraTS2021_00002")
    path = listed(tmp_path / "list.json", [entry("BraTS2021_00002", fold=1), entry("BraTS2021_00000", fold=0)])
    cohort = datalist_cohort(path, BRATS, BRATS_2018)
    assert cohort.refused == []
    assert (cohort.modalities, cohort.scheme) == (BRATS, BRATS_2018)
    found = [(case.case, case.patient, case.stratum, case.fold) for case in cohort.cases]
    assert found == [("BraTS2021_00002", None, None, 1), ("BraTS2021_00000", None, None, 0)]
    assert read(cohort.cases[0]).x[:, 3, 3, 3].tolist() == [10, 11, 12, 13]


def test_paths_are_those_that_monai_takes(tmp_path: Path) -> None:
    """Relative to the folder that is named, or absolute."""
    lay_out(tmp_path / "data", "a", "b")
    absolute = json.loads(json.dumps(entry("b")).replace("b/b_", f"{tmp_path}/data/b/b_"))
    path = listed(tmp_path / "list.json", [entry("a"), absolute])
    theirs = load_decathlon_datalist(path, base_dir=tmp_path / "data")
    ours = datalist_cohort(path, BRATS, BRATS_2018, tmp_path / "data").cases
    assert [[str(p) for p in case.images.values()] for case in ours] == [each["image"] for each in theirs]
    assert [str(case.label) for case in ours] == [each["label"] for each in theirs]


def test_one_path_is_a_file_with_all_modalities(tmp_path: Path) -> None:
    save(tmp_path / "imagesTr" / "a.nii.gz", 10, channels=4)
    save(tmp_path / "labelsTr" / "a.nii.gz", 4)
    for image in ("imagesTr/a.nii.gz", ["imagesTr/a.nii.gz"]):
        path = listed(tmp_path / "list.json", [{"image": image, "label": "labelsTr/a.nii.gz"}])
        (case,) = datalist_cohort(path, BRATS, BRATS_2018).cases
        assert case.case == "a"
        assert read(case).x[:, 3, 3, 3].tolist() == [10, 11, 12, 13]


def test_a_key_for_each_modality_in_any_spelling(tmp_path: Path) -> None:
    lay_out(tmp_path, "a")
    keys = {"T1Gd": "t1ce", "t2f": "flair", "T1w": "t1", "t2": "t2"}
    each = {key: f"a/a_{name}.nii.gz" for key, name in keys.items()}
    path = listed(tmp_path / "list.json", [{**each, "label": "a/a_seg.nii.gz", "scanner": "3 T"}])
    (case,) = datalist_cohort(path, ("T1c", "t1", "t2", "FLAIR"), BRATS_2018).cases
    assert (case.case, case.modalities) == ("a", BRATS)
    assert read(case).x[:, 3, 3, 3].tolist() == [10, 11, 12, 13]


def test_patient_group_id_and_mask_are_taken_where_they_are_declared(tmp_path: Path) -> None:
    lay_out(tmp_path, "a")
    given = entry("a", scan="scan 7", subject=12, site="Ulm", mask="a/a_seg.nii.gz")
    path = listed(tmp_path / "list.json", [given])
    (case,) = datalist_cohort(path, BRATS, BRATS_2018, case="scan", patient="subject", stratum="site").cases
    assert (case.case, case.patient, case.stratum) == ("scan 7", "12", "Ulm")
    assert case.mask == tmp_path / "a" / "a_seg.nii.gz"
    (case,) = datalist_cohort(path, BRATS, BRATS_2018).cases
    assert (case.case, case.patient, case.stratum) == ("a", None, None)


@pytest.mark.parametrize(
    ("images", "name"),
    [
        (["a/BraTS-GLI-00000-000-t1c.nii.gz", "a/BraTS-GLI-00000-000-t1n.nii.gz"], "BraTS-GLI-00000-000"),
        (["x_t1.nii.gz", "x_t1ce.nii.gz"], "x"),
        (["case_1_0000.nrrd", "case_1_0001.nrrd"], "case_1"),
        (["case 1/t1ce.nii", "case 1/t1.nii"], "case 1"),
        (["a.b_t1.mha", "a.b_t2.mha"], "a.b"),
        (["here/t1.nii", "there/t1.nii"], "t1"),
    ],
)
def test_the_id_is_what_the_names_have_in_common(tmp_path: Path, images: list[str], name: str) -> None:
    path = listed(tmp_path / "list.json", [{"image": images, "label": "missing.nii.gz"}])
    (refusal,) = datalist_cohort(path, ("t1ce", "t1"), LESION).refused
    assert refusal.case == name


def single(*images: str) -> list[Any]:
    return [{"image": image, "label": "missing.nii.gz"} for image in images]


@pytest.mark.parametrize(
    ("images", "names"),
    [
        (["sub0/T1_pre.nii.gz", "sub1/T1_pre.nii.gz"], ["sub0", "sub1"]),
        (["HGG/a.nii.gz", "LGG/b.nii.gz"], ["a", "b"]),
        ([["sub0/t1/x.nii", "sub0/t2/x.nii"], ["sub1/t1/x.nii", "sub1/t2/x.nii"]], ["sub0", "sub1"]),
        (["/data/sub0/image.nii.gz", "sub1/image.nii.gz"], ["sub0", "sub1"]),
        ([["t1.nii", "t2.nii"], ["pd.nii", "adc.nii"]], ["entry-1", "entry-2"]),
    ],
)
def test_where_file_names_are_alike_the_folder_is_the_id(tmp_path: Path, images: list[Any], names: list[str]) -> None:
    path = listed(tmp_path / "list.json", single(*images))
    cohort = datalist_cohort(path, ("t1", "t2"), LESION)
    assert [refusal.case for refusal in cohort.refused] == names


@pytest.mark.parametrize(
    "images",
    [
        ["sub0/anat/T1.nii.gz", "sub1/anat/T1.nii.gz"],
        ["a/T1.nii.gz", "b/T1.nii.gz", "b/T2.nii.gz"],
        ["T1_pre.nii.gz", "x/T1_pre.nii.gz"],
    ],
)
def test_scans_that_no_name_tells_apart_need_the_key_of_their_id(tmp_path: Path, images: list[str]) -> None:
    path = listed(tmp_path / "list.json", [{**each, "id": n} for n, each in enumerate(single(*images))])
    with pytest.raises(ConfigError, match=r"(?s)tell the scans of the list apart.*key with case:"):
        lesions(path)
    assert [refusal.case for refusal in lesions(path, case="id").refused] == [str(n) for n in range(len(images))]


def test_one_bad_entry_costs_itself(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(tmp_path / f"{name}.nii.gz", 5)
        save(tmp_path / f"{name}_seg.nii.gz", 1)
    good = {"image": "a.nii.gz", "label": "a_seg.nii.gz"}
    bad: list[tuple[Any, str, Reason]] = [
        ({**good, "label": "none.nii.gz"}, "a-entry-1", Reason.MISSING_LABEL),
        ({"image": "a.nii.gz"}, "a-entry-2", Reason.MISSING_LABEL),
        ("a.nii.gz", "a-entry-3", Reason.MISSING_LABEL),
        ({"image": "c.nii.gz", "label": "a_seg.nii.gz"}, "c", Reason.MISSING_MODALITY),
        ({"label": "a_seg.nii.gz"}, "entry-5", Reason.MISSING_MODALITY),
        ({**good, "image": ["a.nii.gz", "b.nii.gz"]}, "entry-6", Reason.EXTRA_MODALITY),
        ({**good, "image": []}, "entry-7", Reason.MISSING_MODALITY),
        ({**good, "image": 3}, "entry-8", Reason.DECLARATION),
        ({**good, "image": ""}, "entry-9", Reason.DECLARATION),
        ({**good, "label": ["a_seg.nii.gz"]}, "a-entry-10", Reason.DECLARATION),
        ({**good, "fold": "0"}, "a-entry-11", Reason.DECLARATION),
        ({**good, "fold": True}, "a-entry-12", Reason.DECLARATION),
        ({**good, "fold": -1}, "a-entry-13", Reason.DECLARATION),
        ({**good, "mask": "none.nii.gz"}, "a-entry-14", Reason.MISSING_MODALITY),
        (None, "entry-15", Reason.DECLARATION),
        ([good], "entry-16", Reason.DECLARATION),
        ({"t1": "a.nii.gz", "T1w": "b.nii.gz", "label": "a_seg.nii.gz"}, "entry-17", Reason.EXTRA_MODALITY),
        ({**good, "image": "a" * 300 + ".nii.gz"}, "a" * 300, Reason.UNREADABLE),
    ]
    after = [good, {"image": "b.nii.gz", "label": "b_seg.nii.gz"}, good]
    cohort = lesions(listed(tmp_path / "list.json", [*(each for each, _, _ in bad), *after]))
    assert [case.case for case in cohort.cases] == ["a", "b"]
    expected = [(name, reason) for _, name, reason in bad] + [("a-entry-21", Reason.EXTRA_MODALITY)]
    assert [(refusal.case, refusal.reason) for refusal in cohort.refused] == expected


def test_an_entry_without_its_declared_patient_is_refused(tmp_path: Path) -> None:
    """A patient that is not known could be parted by the split."""
    save(tmp_path / "a.nii.gz", 5)
    given = ({}, {"who": ""}, {"who": [1]}, {"who": 7})
    entries = [{"image": "a.nii.gz", "label": "a.nii.gz", **more} for more in given]
    cohort = lesions(listed(tmp_path / "list.json", entries), patient="who")
    assert [case.patient for case in cohort.cases] == ["7"]
    assert [refusal.reason for refusal in cohort.refused] == [Reason.DECLARATION] * 3


def test_hidden_files_are_passed_over(tmp_path: Path) -> None:
    save(tmp_path / "a.nii.gz", 5)
    names = ("._a.nii.gz", "_a.nii.gz", "a.nii.gz")
    entries: list[Any] = [{"image": name, "label": "a.nii.gz"} for name in names]
    entries.append({"image": ["x/._a.nii.gz"], "label": "a.nii.gz"})
    cohort = lesions(listed(tmp_path / "list.json", entries))
    assert [case.case for case in cohort.cases] == ["a"]
    assert cohort.refused == []


@pytest.mark.parametrize(("written", "asked"), [("validation", "validation"), ("testing", "test"), ("test", "testing")])
def test_a_section_is_found_under_either_of_its_names(tmp_path: Path, written: str, asked: str) -> None:
    save(tmp_path / "a.nii.gz", 5)
    path = listed(tmp_path / "list.json", [{"image": "a.nii.gz", "label": "a.nii.gz"}], written)
    assert [case.case for case in lesions(path, section=asked).cases] == ["a"]
    with pytest.raises(ConfigError, match=f"no entry in a section 'training'.*\n.*{written}"):
        lesions(path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot be read"),
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "no entry in a section"),
        ('{"training": []}', "no entry in a section"),
        ('{"training": {"image": "a"}}', "no entry in a section"),
    ],
)
def test_a_list_that_is_none_is_advice(tmp_path: Path, content: str | None, told: str) -> None:
    if content is not None:
        (tmp_path / "list.json").write_text(content)
    with pytest.raises(ConfigError, match=told):
        lesions(tmp_path / "list.json")


def test_two_modalities_of_one_name_are_advice(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one name"):
        datalist_cohort(listed(tmp_path / "list.json", [entry("a")]), ["t1c", "T1Gd"], LESION)
