"""Folders made to the letter of each BraTS release; what is wrong in one is refused and named."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medadv.data.brats import MODALITIES, RELEASES, brats, brats_cohort
from medadv.data.files import read
from medadv.errors import CaseError, ConfigError, Reason

MISNAMED = "W39_1998.09.19_Segm.nii"
EARLY = ("t1", "t1ce", "t2", "flair", "seg")
LATE = ("t1n", "t1c", "t2w", "t2f", "seg")
GLI_2023 = "ASNR-MICCAI-BraTS2023-GLI-Challenge-TrainingData"

LAYOUTS: dict[str, tuple[list[str], str, tuple[str, ...], str]] = {
    "2018": (["HGG/Brats18_2013_2_1", "LGG/Brats18_TCIA09_141_1"], "_", EARLY, ".nii.gz"),
    "2019": (["HGG/BraTS19_CBICA_AAB_1", "LGG/BraTS19_2013_0_1"], "_", EARLY, ".nii"),
    "2020": ([f"MICCAI_BraTS2020_TrainingData/BraTS20_Training_{n}" for n in ("001", "355")], "_", EARLY, ".nii"),
    "2021": (["BraTS2021_00000", "BraTS2021_00002"], "_", EARLY, ".nii.gz"),
    "2022": (["BraTS2021_00000"], "_", EARLY, ".nii.gz"),
    "2023": ([f"{GLI_2023}/BraTS-GLI-00000-{n}" for n in ("000", "001")], "-", LATE, ".nii.gz"),
    "2024": (["BraTS-GLI-02060-100", "BraTS-GLI-02061-100"], "-", LATE, ".nii.gz"),
}


def lay_out(root: Path, release: str, names: list[str] | None = None) -> list[Path]:
    """Write a release's files; each modality is an image of its own place in the list, so that none can be mistaken."""
    usual, separator, kinds, suffix = LAYOUTS[release]
    names = names or usual
    folders = [root / name for name in names]
    for folder in folders:
        folder.mkdir(parents=True)
        for number, kind in enumerate(kinds):
            voxels = np.zeros((4, 5, 6), np.int16)
            voxels[1:3, 1:3, 1:3] = max(RELEASES[release].scheme.numbers.values()) if kind == "seg" else number + 1
            voxels[2, 2, 2] = 1 if kind == "seg" else 50
            nib.save(
                nib.Nifti1Image(voxels, np.diag([-1.0, -1, 1, 1])), folder / f"{folder.name}{separator}{kind}{suffix}"
            )
    return folders


@pytest.mark.parametrize("release", LAYOUTS)
def test_a_release_is_found_in_canonical_order_and_with_its_own_labels(tmp_path: Path, release: str) -> None:
    folders = lay_out(tmp_path, release)
    (folders[0].parent / "survival_info.csv").write_text("a table beside the cases")
    cohort = brats_cohort(tmp_path, release)
    assert cohort.refused == []
    assert cohort.modalities == MODALITIES
    assert [case.case for case in cohort.cases] == sorted(folder.name for folder in folders)
    numbers = {"2023": 3, "2024": 3}
    assert cohort.scheme.numbers["enhancing"] == numbers.get(release, 4)
    for case in cohort.cases:
        assert case.modalities == MODALITIES
        assert [int(channel[1, 1, 1]) for channel in read(case).x] == [1, 2, 3, 4]


def test_the_cavity_after_treatment_belongs_to_no_region_of_2024(tmp_path: Path) -> None:
    lay_out(tmp_path, "2024")
    volume = read(brats_cohort(tmp_path, "2024").cases[0])
    assert volume.truth is not None
    assert int(volume.case.scheme.mask(volume.truth, "cavity").sum()) == 7
    assert int(volume.case.scheme.mask(volume.truth, "WT").sum()) == 1


def test_time_points_of_one_patient_share_the_patient(tmp_path: Path) -> None:
    lay_out(tmp_path, "2023")
    cases = brats_cohort(tmp_path, "2023").cases
    assert [case.case for case in cases] == ["BraTS-GLI-00000-000", "BraTS-GLI-00000-001"]
    assert {case.patient for case in cases} == {"BraTS-GLI-00000"}


def test_before_2023_a_case_is_a_patient(tmp_path: Path) -> None:
    lay_out(tmp_path, "2018")
    assert all(case.patient == case.case for case in brats_cohort(tmp_path, "2018").cases)


def test_a_wrong_release_refuses_cases_and_never_guesses(tmp_path: Path) -> None:
    lay_out(tmp_path, "2023")
    cohort = brats_cohort(tmp_path, "2021")
    assert cohort.cases == []
    assert {refusal.reason for refusal in cohort.refused} == {Reason.MISSING_MODALITY}
    assert "declared release" in cohort.refused[0].message


def test_label_numbers_of_another_release_are_refused(tmp_path: Path) -> None:
    for folder in lay_out(tmp_path, "2021"):
        path = folder / f"{folder.name}_seg.nii.gz"
        nib.save(nib.Nifti1Image(np.full((4, 5, 6), 3, np.uint8), np.diag([-1.0, -1, 1, 1])), path)
    with pytest.raises(CaseError) as refused:
        read(brats_cohort(tmp_path).cases[0])
    assert refused.value.reason is Reason.LABEL_OUTSIDE_SCHEME


def test_one_bad_folder_costs_one_case(tmp_path: Path) -> None:
    good, bad = lay_out(tmp_path, "2021")
    (bad / f"{bad.name}_t2.nii.gz").unlink()
    cohort = brats_cohort(tmp_path)
    assert [case.case for case in cohort.cases] == [good.name]
    (refusal,) = cohort.refused
    assert (refusal.case, refusal.reason) == (bad.name, Reason.MISSING_MODALITY)
    assert f"{bad.name}_t2.nii.gz" in refusal.message


def test_the_misnamed_label_of_case_355_of_2020_is_found(tmp_path: Path) -> None:
    """In the common copy it bears another name; only there, and only that one."""
    other, folder = lay_out(tmp_path, "2020")
    (folder / f"{folder.name}_seg.nii").rename(folder / MISNAMED)
    cohort = brats_cohort(tmp_path, "2020")
    assert cohort.refused == []
    assert cohort.cases[1].label == folder / MISNAMED
    truth = read(cohort.cases[1]).truth
    assert truth is not None
    assert sorted(truth.unique().tolist()) == [0, 1, 4]
    (folder / MISNAMED).rename(folder / "W40_1998.09.19_Segm.nii")
    (other / f"{other.name}_seg.nii").rename(other / MISNAMED)
    refused = {refusal.case: refusal for refusal in brats_cohort(tmp_path, "2020").refused}
    assert {refusal.reason for refusal in refused.values()} == {Reason.MISSING_LABEL}
    assert MISNAMED in refused[other.name].message
    assert len(refused) == 2


def test_the_misnamed_label_may_be_packed(tmp_path: Path) -> None:
    _, folder = lay_out(tmp_path, "2020")
    packed = folder / f"{MISNAMED}.gz"
    nib.save(nib.load(folder / f"{folder.name}_seg.nii"), packed)
    (folder / f"{folder.name}_seg.nii").unlink()
    cohort = brats_cohort(tmp_path, "2020")
    assert (cohort.refused, cohort.cases[1].label) == ([], packed)
    (folder / MISNAMED).write_bytes(b"another")
    (refusal,) = brats_cohort(tmp_path, "2020").refused
    assert (refusal.case, refusal.reason) == (folder.name, Reason.EXTRA_MODALITY)


def test_case_355_with_both_labels_is_refused(tmp_path: Path) -> None:
    _, folder = lay_out(tmp_path, "2020")
    (folder / MISNAMED).write_bytes((folder / f"{folder.name}_seg.nii").read_bytes())
    (refusal,) = brats_cohort(tmp_path, "2020").refused
    assert (refusal.case, refusal.reason) == (folder.name, Reason.EXTRA_MODALITY)


def test_355_of_another_release_is_no_exception(tmp_path: Path) -> None:
    (folder,) = lay_out(tmp_path, "2021", ["BraTS20_Training_355"])
    (folder / f"{folder.name}_seg.nii.gz").rename(folder / MISNAMED)
    assert [refusal.reason for refusal in brats_cohort(tmp_path, "2021").refused] == [Reason.MISSING_LABEL]


def test_a_missing_label_is_refused_unless_it_is_declared(tmp_path: Path) -> None:
    (folder,) = lay_out(tmp_path, "2021", ["BraTS2021_00000"])
    (folder / f"{folder.name}_seg.nii.gz").unlink()
    assert [refusal.reason for refusal in brats_cohort(tmp_path).refused] == [Reason.MISSING_LABEL]
    (case,) = brats_cohort(tmp_path, labelled=False).cases
    assert case.label is None


@pytest.mark.parametrize("release", ["2018", "2019"])
def test_the_folder_above_tells_the_grade(tmp_path: Path, release: str) -> None:
    folders = lay_out(tmp_path, release)
    strata = {case.case: case.stratum for case in brats_cohort(tmp_path, release).cases}
    assert strata == {folders[0].name: "HGG", folders[1].name: "LGG"}


def test_a_folder_of_another_name_tells_no_grade(tmp_path: Path) -> None:
    lay_out(tmp_path, "2018", ["validation/Brats18_CBICA_AAM_1"])
    lay_out(tmp_path / "HGG", "2021", ["BraTS2021_00000"])
    assert [case.stratum for case in brats_cohort(tmp_path / "validation", "2018").cases] == [None]
    assert [case.stratum for case in brats_cohort(tmp_path / "HGG", "2021").cases] == [None]


GRADES_2020 = "Grade,BraTS_2017_subject_ID,BraTS_2019_subject_ID,BraTS_2020_subject_ID\n"


@pytest.mark.parametrize(
    ("table", "strata"),
    [
        (None, [None, None]),
        (f"{GRADES_2020}HGG,Brats17_1,BraTS19_1,BraTS20_Training_001\n", ["HGG", None]),
        (f"\ufeff{GRADES_2020}HGG,NA,NA,BraTS20_Training_001\nLGG,NA,NA,BraTS20_Training_355\n", ["HGG", "LGG"]),
        (f"{GRADES_2020}HGG\nunknown,NA,NA,BraTS20_Training_355\n", [None, None]),
        ("Age,Survival\n60,289\n", [None, None]),
        ("", [None, None]),
    ],
)
def test_the_table_of_2020_tells_the_grade_where_it_is_there(
    tmp_path: Path, table: str | None, strata: list[str | None]
) -> None:
    folders = lay_out(tmp_path, "2020")
    if table is not None:
        (folders[0].parent / "name_mapping.csv").write_text(table, encoding="utf-8")
    cohort = brats_cohort(tmp_path, "2020")
    assert [case.stratum for case in cohort.cases] == strata
    assert cohort.refused == []


@pytest.mark.parametrize("challenge", ["MEN", "MET", "PED", "SSA"])
def test_the_other_challenges_are_named_by_the_same_rules(tmp_path: Path, challenge: str) -> None:
    lay_out(tmp_path, "2023", [f"BraTS-{challenge}-00004-000", f"BraTS-{challenge}-00004-001"])
    cases = brats_cohort(tmp_path, "2023").cases
    assert {case.patient for case in cases} == {f"BraTS-{challenge}-00004"}
    assert len(cases) == 2


@pytest.mark.parametrize("extra", ["BraTS2021_00000_dwi.nii.gz", "BraTS2021_00000_t1.nii", "stray.nii"])
def test_a_file_too_many_is_refused(tmp_path: Path, extra: str) -> None:
    folder = lay_out(tmp_path, "2021")[0]
    (folder / extra).write_bytes(b"")
    (refusal,) = brats_cohort(tmp_path).refused
    assert refusal.reason is Reason.EXTRA_MODALITY
    assert extra in refusal.message


def test_hidden_files_and_folders_are_passed_over(tmp_path: Path) -> None:
    folders = lay_out(tmp_path, "2021")
    for name in ("._BraTS2021_00000_t1.nii.gz", "_BraTS2021_00000_t1.nii.gz"):
        (folders[0] / name).write_bytes(b"what a file system leaves behind")
    folders[1].rename(tmp_path / "_BraTS2021_00002")
    cohort = brats_cohort(tmp_path)
    assert [case.case for case in cohort.cases] == ["BraTS2021_00000"]
    assert cohort.refused == []


def test_an_empty_folder_among_cases_is_a_case_without_files(tmp_path: Path) -> None:
    lay_out(tmp_path, "2021")
    (tmp_path / "BraTS2021_00003").mkdir()
    (refusal,) = brats_cohort(tmp_path).refused
    assert (refusal.case, refusal.reason) == ("BraTS2021_00003", Reason.MISSING_MODALITY)


def test_an_empty_root_is_no_case_whatever_lies_beside_it(tmp_path: Path) -> None:
    lay_out(tmp_path, "2021")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no BraTS case"):
        brats_cohort(tmp_path / "empty")


def test_one_id_in_two_folders_is_one_case_and_a_refusal(tmp_path: Path) -> None:
    lay_out(tmp_path / "HGG", "2021")
    lay_out(tmp_path / "LGG", "2021")
    cohort = brats_cohort(tmp_path)
    assert [case.case for case in cohort.cases] == ["BraTS2021_00000", "BraTS2021_00002"]
    assert [refusal.reason for refusal in cohort.refused] == [Reason.EXTRA_MODALITY] * 2
    assert [refusal.case for refusal in cohort.refused] == ["LGG-BraTS2021_00000", "LGG-BraTS2021_00002"]
    assert all(refusal.case.split("-")[1] in refusal.message for refusal in cohort.refused)


def test_links_are_followed_and_no_folder_is_met_twice(tmp_path: Path) -> None:
    """A link upwards, one to a folder that is met anyway, and one out of the folder."""
    lay_out(tmp_path / "data" / "HGG", "2018", ["Brats18_1"])
    (elsewhere,) = lay_out(tmp_path / "store", "2018", ["Brats18_2"])
    (tmp_path / "data" / "HGG" / "up").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "HGG" / "Brats18_1" / "again").symlink_to(tmp_path / "data" / "HGG")
    (tmp_path / "data" / "A").mkdir()
    (tmp_path / "data" / "A" / "first").symlink_to(tmp_path / "data" / "HGG" / "Brats18_1")
    (tmp_path / "data" / "A" / "Brats18_2").symlink_to(elsewhere)
    cohort = brats_cohort(tmp_path / "data", "2018")
    assert [(case.case, case.stratum) for case in cohort.cases] == [("Brats18_1", "HGG"), ("Brats18_2", None)]
    assert cohort.refused == []


def test_no_id_is_both_used_and_refused(tmp_path: Path) -> None:
    """A broken folder before a whole one of the same name; a third; and a case that is called like a twin's path."""
    for place in ("a b", "c", "d"):
        lay_out(tmp_path / place, "2021")
    (tmp_path / "a b" / "BraTS2021_00000" / "BraTS2021_00000_t2.nii.gz").unlink()
    like = tmp_path / "d-BraTS2021_00000"
    (tmp_path / "d" / "BraTS2021_00002").rename(like)
    for file in like.iterdir():
        file.rename(like / file.name.replace("BraTS2021_00002", like.name))
    cohort = brats_cohort(tmp_path)
    used = [case.case for case in cohort.cases]
    assert used == ["BraTS2021_00000", "BraTS2021_00002", "d-BraTS2021_00000"]
    assert cohort.cases[0].images["t1"].parent.parent.name == "c"
    refused = {refusal.case: refusal.reason for refusal in cohort.refused}
    assert refused == {
        "a-b-BraTS2021_00000": Reason.MISSING_MODALITY,
        "d-BraTS2021_00000+": Reason.EXTRA_MODALITY,
        "c-BraTS2021_00002": Reason.EXTRA_MODALITY,
    }


def test_nothing_to_import_is_advice(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no BraTS case"):
        brats_cohort(tmp_path)
    with pytest.raises(ConfigError, match="no BraTS case"):
        brats_cohort(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="not a folder"):
        brats(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="2021"):
        brats_cohort(tmp_path, "2017b")
