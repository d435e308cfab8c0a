"""Plain folders by patterns: what a path says is read in one way or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from medadv.data.case import Case, Cohort
from medadv.data.files import read
from medadv.data.pattern import pattern_cohort, told
from medadv.errors import ConfigError, Reason
from medadv.labels import LabelScheme

LESION = LabelScheme("lesion", {"background": 0, "lesion": 1})
TWO = {"t1": "{case}/{case}_t1.nii.gz", "T1Gd": "{case}/{case}_t1ce.nii.gz"}
SEG = "{case}/{case}_seg.nii.gz"


def touch(root: Path, names: Iterable[str]) -> None:
    """Importers read no voxels: an empty file is a file."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def whole(*cases: str) -> list[str]:
    return [f"{case}/{case.split('/')[-1]}_{kind}.nii.gz" for case in cases for kind in ("t1", "t1ce", "seg")]


def ids(cohort: Cohort) -> list[str]:
    return [case.case for case in cohort.cases]


def reasons(cohort: Cohort) -> dict[str, Reason]:
    return {refusal.case: refusal.reason for refusal in cohort.refused}


def test_cases_come_in_the_order_of_their_ids_and_read(tmp_path: Path) -> None:
    for number, name in enumerate(whole("b", "a")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        voxels = np.zeros((5, 6, 7), np.uint8)
        voxels[1:3, 1:3, 1:3] = 1 if "seg" in name else 10 + number
        voxels[2, 2, 2] = 1
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / name)
    cohort = pattern_cohort(tmp_path, TWO, SEG, LESION)
    assert (ids(cohort), cohort.modalities, cohort.refused) == (["a", "b"], ("t1", "t1ce"), [])
    volume = read(cohort.cases[1])
    assert volume.x[:, 1, 1, 1].tolist() == [10, 11]
    assert volume.truth is not None
    assert int(volume.truth.sum()) == 8


def test_patient_and_group_are_parts_of_the_path(tmp_path: Path) -> None:
    touch(tmp_path, [f"{s}/{p}/{p}-{n}_t1.nii" for s, p, n in (("Ulm", "P1", 1), ("Ulm", "P1", 2), ("Bonn", "P2", 1))])
    touch(tmp_path, ["seg/P1-1.nii", "seg/P1-2.nii", "seg/P2-1.nii"])
    cohort = pattern_cohort(tmp_path, {"t1": "{stratum}/{patient}/{case}_t1.nii"}, "seg/{case}.nii", LESION)
    found = [(case.case, case.patient, case.stratum) for case in cohort.cases]
    assert found == [("P1-1", "P1", "Ulm"), ("P1-2", "P1", "Ulm"), ("P2-1", "P2", "Bonn")]
    assert cohort.refused == []


def test_a_modality_may_be_a_folder_and_links_are_followed(tmp_path: Path) -> None:
    touch(tmp_path / "store", ["scan1/T1 axial/0001.dcm", "scan1/seg.nrrd"])
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "scan1").symlink_to(tmp_path / "store" / "scan1")
    cohort = pattern_cohort(tmp_path / "data", {"t1": "{case}/T1*/"}, "{case}/seg.nrrd", LESION)
    assert ids(cohort) == ["scan1"]
    assert cohort.cases[0].images["t1"].is_dir()


def test_one_pattern_for_all_modalities_is_one_file(tmp_path: Path) -> None:
    touch(tmp_path, ["img/a.nii.gz", "seg/a.nii.gz"])
    cohort = pattern_cohort(tmp_path, dict.fromkeys(("t1", "t2"), "img/{case}.nii.gz"), "seg/{case}.nii.gz", LESION)
    assert cohort.cases[0].images == dict.fromkeys(("t1", "t2"), tmp_path / "img" / "a.nii.gz")


def test_a_mask_is_found_or_its_case_refused(tmp_path: Path) -> None:
    touch(tmp_path, [*whole("a", "b"), "masks/a.nii.gz"])
    cohort = pattern_cohort(tmp_path, TWO, SEG, LESION, mask="masks/{case}.nii.gz")
    assert [case.mask for case in cohort.cases] == [tmp_path / "masks" / "a.nii.gz"]
    assert reasons(cohort) == {"b": Reason.MISSING_MODALITY}


def test_one_bad_case_costs_itself(tmp_path: Path) -> None:
    touch(tmp_path, whole("good", "no_t1ce", "no_seg", "only_seg", "hidden"))
    for name in ("no_t1ce/no_t1ce_t1ce", "no_seg/no_seg_seg", "only_seg/only_seg_t1", "only_seg/only_seg_t1ce"):
        (tmp_path / f"{name}.nii.gz").unlink()
    (tmp_path / "hidden").rename(tmp_path / "_hidden")
    touch(tmp_path, ["good/._good_t1.nii.gz", "good/notes.txt", "docs/readme.md"])
    cohort = pattern_cohort(tmp_path, TWO, SEG, LESION)
    assert ids(cohort) == ["good"]
    assert reasons(cohort) == {
        "no_seg": Reason.MISSING_LABEL,
        "no_t1ce": Reason.MISSING_MODALITY,
        "only_seg": Reason.MISSING_MODALITY,
    }


def test_one_id_in_two_groups_is_one_case_and_a_refusal(tmp_path: Path) -> None:
    touch(tmp_path, whole("HGG/a", "LGG/a", "LGG/b"))
    (tmp_path / "HGG/a/a_t1.nii.gz").unlink()
    patterns = {name: f"{{stratum}}/{text}" for name, text in TWO.items()}
    cohort = pattern_cohort(tmp_path, patterns, f"{{stratum}}/{SEG}", LESION)
    assert [(case.case, case.stratum) for case in cohort.cases] == [("a", "LGG"), ("b", "LGG")]
    assert reasons(cohort) == {"HGG-a": Reason.MISSING_MODALITY}
    touch(tmp_path, ["HGG/a/a_t1.nii.gz"])
    cohort = pattern_cohort(tmp_path, patterns, f"{{stratum}}/{SEG}", LESION)
    assert [(case.case, case.stratum) for case in cohort.cases] == [("a", "HGG"), ("b", "LGG")]
    assert reasons(cohort) == {"LGG-a": Reason.EXTRA_MODALITY}


def test_two_files_for_one_modality_are_a_refusal(tmp_path: Path) -> None:
    touch(tmp_path, ["a/2020_t1.nii", "a/2021_t1.nii", "b/2020_t1.nii", "a/seg.nii", "b/seg.nii"])
    cohort = pattern_cohort(tmp_path, {"t1": "{case}/*_t1.nii"}, "{case}/seg.nii", LESION)
    assert (ids(cohort), reasons(cohort)) == (["b"], {"a": Reason.EXTRA_MODALITY})


def test_labels_among_the_images_are_no_cases(tmp_path: Path) -> None:
    """{case}.nii finds a_t1.nii too, as the label of a_t1: there is no such case, and nothing to refuse."""
    touch(tmp_path, ["a_t1.nii", "a.nii", "b_t1.nii", "c.nii"])
    cohort = pattern_cohort(tmp_path, {"t1": "{case}_t1.nii"}, "{case}.nii", LESION)
    assert ids(cohort) == ["a"]
    assert reasons(cohort) == {"b": Reason.MISSING_LABEL, "c": Reason.MISSING_MODALITY}


T1 = {"t1": "{case}_t1.nii"}
UNMEANT: dict[str, tuple[dict[str, Any], str]] = {
    "a pattern upwards": ({"images": {"t1": "../{case}.nii"}}, "leaves the folder"),
    "a pattern out and in again": ({"label": "x/../../{case}.nii"}, "leaves the folder"),
    "an absolute pattern": ({"images": {"t1": "/data/{case}.nii"}}, "leaves the folder"),
    "a drive": ({"images": {"t1": "C:{case}.nii"}}, "leaves the folder"),
    "backslashes": ({"label": "..\\{case}.nii"}, "leaves the folder"),
    "nothing": ({"label": ""}, "leaves the folder"),
    "a mask upwards": ({"mask": "../{case}.nii"}, "data.mask leaves"),
    "no case": ({"images": {"t1": "t1.nii"}}, "does not say whose"),
    "a label of nobody": ({"label": "seg.nii"}, "data.label does not say whose"),
    "an unknown placeholder": ({"images": {"t1": "{case}_{date}.nii"}}, "unknown placeholders"),
    "a brace too many": ({"images": {"t1": "{case}}_t1.nii"}}, "brace too many"),
    "two readings": ({"images": {"t1": "{patient}_{case}_t1.nii"}}, "(?s)in two ways.*'a_b'.*'b_c'"),
    "two readings by a star": ({"images": {"t1": "{case}_*.nii"}}, "in two ways"),
    "no wall between placeholders": ({"images": {"t1": "{patient}{case}_t1.nii"}}, "in two ways"),
    "one pattern for two of three": (
        {"images": {"t1": "{case}_t1.nii", "t2": "{case}_t1.nii", "flair": "{case}_x.nii"}},
        "two modalities have one pattern",
    ),
    "a pattern that finds another's files": ({"images": {"t1": "{case}.nii", "t2": "{case}_t1.nii"}}, "the same file"),
    "a label that is the image": ({"label": "{case}_t1.nii"}, "the same file"),
    "a label that says more": ({"label": "{patient}/{case}.nii"}, "other placeholders"),
    "modalities that say different things": (
        {"images": {"t1": "{stratum}/{case}_t1.nii", "t2": "{case}_t2.nii"}},
        "other placeholders",
    ),
    "nothing found": ({"images": {"t1": "{case}_dwi.nii"}}, "no image in"),
    "one modality twice": ({"images": {"t1": "{case}_t1.nii", "T1w": "{case}_x.nii"}}, "one name"),
    "a patient that is no pattern": ({"patient": "subject"}, "no pattern of a case's id"),
    "a patient among folders": ({"patient": "{patient}/*"}, "no pattern of a case's id"),
    "a patient with two readings": ({"patient": "{patient}_*"}, "data.patient can be read in two ways"),
}


@pytest.mark.parametrize(("changes", "words"), UNMEANT.values(), ids=UNMEANT)
def test_patterns_that_cannot_be_meant_are_advice(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    touch(tmp_path / "data", ["a_b_c_t1.nii", "a_b_c_seg.nii"])
    with pytest.raises(ConfigError, match=words):
        pattern_cohort(tmp_path / "data", **{"images": T1, "label": "{case}_seg.nii", "scheme": LESION, **changes})


def named(*names: str) -> Cohort:
    return Cohort([Case(name, None, {"t1": Path(name)}, None, LESION) for name in names], [], ("t1",), LESION)


def test_an_id_tells_patient_and_group(tmp_path: Path) -> None:
    cohort = told(named("BraTS-GLI-00000-000", "BraTS-GLI-00000-001", "other"), "BraTS-GLI-{patient}-*", None)
    assert [case.patient for case in cohort.cases] == ["00000", "00000"]
    assert reasons(cohort) == {"other": Reason.DECLARATION}
    cohort = told(named("HGG7_1", "LGG8_2"), "*_{patient}", "{stratum}GG*")
    assert [(case.patient, case.stratum) for case in cohort.cases] == [("1", "H"), ("2", "L")]


def readings(part: str, name: str) -> set[tuple[str, str]]:
    """Every way to read a name, by trying all of them: what {patient} and {case} then are."""
    if not part:
        return set() if name else {("", "")}
    wild = next((wild for wild in ("{patient}", "{case}", "*") if part.startswith(wild)), None)
    if wild is None:
        return readings(part[1:], name[1:]) if name[:1] == part[0] else set()
    found = set()
    for end in range(wild != "*", len(name) + 1):
        for patient, case in readings(part.removeprefix(wild), name[end:]):
            here = {"{patient}": (name[:end], case), "{case}": (patient, name[:end]), "*": (patient, case)}
            found.add(here[wild])
    return found


@given(
    st.permutations(["{patient}", "{case}", "*", "*", "_", "_", "a"]), st.integers(1, 7), st.text("ab_", max_size=7)
)
@example(["*", "_", "{case}", "_", "*"], 5, "T1_5_3_5_ax")
def test_a_name_is_read_where_there_is_one_way_and_refused_where_there_are_two(
    pieces: list[str], count: int, name: str
) -> None:
    """Stars too may stop in several places; that matters where a placeholder changes with them, and nowhere else."""
    from medadv.data.pattern import _match

    part = "".join(pieces[:count])
    expected = readings(part, name)
    if len(expected) > 1:
        with pytest.raises(ConfigError, match="in two ways"):
            _match(part, name, {}, "images")
    else:
        words = {"patient": "", "case": "", **(_match(part, name, {}, "images") or {})}
        assert expected in (set(), {(words["patient"], words["case"])})
        assert bool(expected) == (_match(part, name, {}, "images") is not None)


WORD = st.text("ab_.-{}*[]()+?^$\\ é", min_size=1, max_size=6).filter(lambda s: not s.startswith((".", "_")))


@given(WORD, WORD)
def test_whatever_a_case_is_called_its_files_are_its_own(case: str, patient: str) -> None:
    """Names are never read as expressions: what is special there stands for itself in every later part."""
    from medadv.data.pattern import _match

    first = _match("{patient}", patient, {}, "images")
    assert first == {"patient": patient}
    assert _match("{patient}~{case}~{case}.nii", f"{patient}~{case}~{case}.nii", first, "images") == {"case": case}
    assert _match("{patient}~{case}~{case}.nii", f"{patient}~{case}~{case}x.nii", first, "images") is None
