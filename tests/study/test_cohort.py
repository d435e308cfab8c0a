"""Which cases a study has, what they are called in it, and who trains, chooses and is attacked."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from data.dicom_series import noise, write_series
from hypothesis import given
from hypothesis import strategies as st
from study.small_study import Glow, contents, go, quarantine, small

from medadv.data.brats import brats_cohort
from medadv.data.case import Case
from medadv.errors import ConfigError, Reason, RunError
from medadv.labels import BRATS_2018
from medadv.study.cohort import Parts, gather
from medadv.study.inputs import examine, stamp_of
from medadv.study.names import Names
from medadv.study.progress import Silent
from medadv.study.run import run
from medadv.study.sections import Split
from medadv.study.spec import Study
from medadv.study.split import ROLES, _parts

IDS = st.lists(st.integers(0, 30), min_size=1, max_size=12, unique=True)
SPLITS = st.tuples(st.integers(0, 4), st.integers(0, 4), st.one_of(st.integers(0, 4), st.just("rest")))


def cases(patients: list[int], scans: int = 2) -> list[Case]:
    return [Case(f"p{p}-{s}", f"p{p}", {}, None, BRATS_2018) for p in patients for s in range(scans)]


def split(of: list[Case], train: object, validate: object, test: object, seed: int = 0) -> list[list[str]]:
    wanted = Split.model_validate({"train": train, "validate": validate, "test": test})
    return ids_by_role(wanted, of, seed)


def ids_by_role(wanted: Split, of: list[Case], seed: int = 0, refused: frozenset[str] = frozenset()) -> list[list[str]]:
    placed = _parts(wanted, seed, of, refused)
    return [[case.case for role, case in placed if role == part] for part in ROLES]


@given(IDS, SPLITS, st.integers(0, 3))
def test_parts_are_whole_patients_and_share_none(patients: list[int], sizes: tuple[object, ...], seed: int) -> None:
    train, validate, test = sizes
    assert isinstance(train, int)
    assert isinstance(validate, int)
    asked = train + validate + (test if isinstance(test, int) else 0)
    if asked > len(patients):
        with pytest.raises(ConfigError, match="more patients than are left"):
            split(cases(patients), *sizes, seed)
        return
    parts = split(cases(patients), *sizes, seed)
    owners = [{case.split("-")[0] for case in part} for part in parts]
    assert [len(owner) for owner in owners[:2]] == [train, validate]
    assert sum(len(owner) for owner in owners) == len(set.union(*owners))
    assert all(len(part) == 2 * len(owner) for part, owner in zip(parts, owners, strict=True))
    assert len(owners[2]) == (test if isinstance(test, int) else len(patients) - train - validate)


@given(IDS, st.integers(0, 3), st.randoms(use_true_random=False))
def test_the_order_of_the_files_does_not_matter(patients: list[int], seed: int, random: object) -> None:
    shuffled = list(patients)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert split(cases(patients, 1), 1, 0, "rest", seed) == split(cases(shuffled, 1), 1, 0, "rest", seed)


def test_one_patient_more_keeps_the_order_of_the_others() -> None:
    some, more = cases(list(range(12)), 1), cases(list(range(13)), 1)
    order, longer = (split(of, 0, 0, "rest")[2] for of in (some, more))
    assert [name for name in longer if name != "p12-0"] == order


def test_the_order_is_not_that_of_the_ids() -> None:
    assert split(cases(list(range(12)), 1), 0, 0, "rest")[2] != [f"p{i}-0" for i in range(12)]
    orders = {tuple(split(cases(list(range(12)), 1), 0, 0, "rest", seed)[2]) for seed in range(4)}
    assert len(orders) == 4


def test_named_cases_stand_where_they_are_named_and_the_rest_is_split() -> None:
    train, validate, test = split(cases([1, 2, 3, 4], 1), ("p3-0",), 1, "rest")
    assert train == ["p3-0"]
    assert len(validate) == 1
    assert {*train, *validate, *test} == {"p1-0", "p2-0", "p3-0", "p4-0"}


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ((("p1-0",), ("p1-1",), "rest"), "a patient stands in two parts of the split\n.*p1"),
        ((("p1-0",), 0, ("p1-0",)), "a patient stands in two parts"),
        ((("p9-0",), 0, "rest"), r"split.train names cases that the data does not have\n.*p9-0"),
        ((("p1-0", "p1-0"), 0, "rest"), "split.train names a case twice"),
    ],
)
def test_a_split_that_cannot_be_meant_is_told(named: tuple[object, object, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        split(cases([1, 2, 3]), *named)


def test_a_named_case_that_was_refused_leaves_the_others() -> None:
    wanted = Split.model_validate({"train": ["p1-0", "bad"], "validate": ["p2-0"]})
    train, validate, test = ids_by_role(wanted, cases([1, 2, 3], 1), 0, frozenset({"bad"}))
    assert [train, validate, test] == [["p1-0"], ["p2-0"], ["p3-0"]]


# Gathering


@pytest.fixture
def own_three(three: Path, tmp_path: Path) -> Path:
    """The three cases, to be damaged."""
    return Path(shutil.copytree(three, tmp_path / "own three"))


def gathered(study: Study, folder: Path, names: Names | None = None) -> Parts:
    return gather(study, folder, names or Names(None), Silent())


def test_no_usable_case_is_told_with_the_first_reasons(own_three: Path, tmp_path: Path) -> None:
    for path in own_three.glob("*/*_t1.nii.gz"):
        path.write_bytes(b"no NIfTI")
    with pytest.raises(ConfigError, match=r"(?s)no case in .* can be used.*\[unreadable\]"):
        gathered(small(own_three), tmp_path)


def test_nothing_left_to_attack_is_told(three: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no case is left.*\n.*3 usable cases, 2 to train, 1 to validate"):
        gathered(small(three, split={"train": 2, "validate": 1}), tmp_path)


def test_what_passed_the_gate_is_not_read_again(
    three: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medadv.study import inputs

    read: list[str] = []
    real = inputs.read_labelled
    monkeypatch.setattr(inputs, "read_labelled", lambda case: read.append(case.case) or real(case))
    found = brats_cohort(three).cases
    first = examine(found, tmp_path / "memory.json", Silent())
    assert len(read) == 3
    assert examine(found, tmp_path / "memory.json", Silent()) == first
    assert len(read) == 3
    assert not any(case.case in (tmp_path / "memory.json").read_text() for case in found)


@pytest.mark.parametrize("memory", ["", "[]", "{", '{"a": 3}', '{"a": {"voxels": "b"}}'])
def test_a_memory_that_is_damaged_costs_time_and_nothing_else(three: Path, tmp_path: Path, memory: str) -> None:
    found = brats_cohort(three).cases
    fresh = examine(found, tmp_path / "fresh.json", Silent())
    (tmp_path / "memory.json").write_text(memory)
    assert examine(found, tmp_path / "memory.json", Silent()) == fresh
    assert (tmp_path / "memory.json").read_text() == (tmp_path / "fresh.json").read_text()


def test_a_file_that_changed_is_read_again(own_three: Path, tmp_path: Path) -> None:
    found = brats_cohort(own_three).cases
    before, _ = examine(found, tmp_path / "memory.json", Silent())
    path = found[1].images["t2"]
    image = nib.load(path)
    voxels = np.asarray(image.dataobj).copy()
    voxels[voxels > 0] += 1
    nib.save(nib.Nifti1Image(voxels, image.affine, image.header), path)
    after, _ = examine(found, tmp_path / "memory.json", Silent())
    assert [case for case in before if before[case] != after[case]] == [found[1].case]
    path.write_bytes(path.read_bytes()[:-300])
    after, refused = examine(found, tmp_path / "memory.json", Silent())
    assert [(refusal.case, refusal.reason) for refusal in refused] == [(found[1].case, Reason.UNREADABLE)]
    assert len(after) == 2


def test_a_slice_that_is_overwritten_is_read_again(tmp_path: Path) -> None:
    """The time of a folder tells of files that come and go, not of what is in them."""
    files = write_series(tmp_path / "series", noise())
    series = files[0].parent
    case = Case("a", None, {"t1": series}, None, BRATS_2018)
    before = stamp_of(case)
    folder = series.stat()
    files[3].write_bytes(files[3].read_bytes()[:-2] + b"\1\2")
    os.utime(files[3], ns=(folder.st_atime_ns, folder.st_mtime_ns + 1))
    os.utime(series, ns=(folder.st_atime_ns, folder.st_mtime_ns))
    assert stamp_of(case) != before


# Names


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def fresh_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))
    return tmp_path / "configuration" / "medadv" / "pseudonyms.key"


def test_the_key_is_made_once_for_its_owner_alone(fresh_configuration: Path) -> None:
    first, second = Names.pseudonyms(), Names.pseudonyms()
    assert first["a"] == second["a"] != first["b"]
    assert mode(fresh_configuration) == 0o600
    assert len(fresh_configuration.read_bytes()) == 32
    fresh_configuration.unlink()
    assert Names.pseudonyms()["a"] != first["a"]


def test_the_key_is_private_before_it_has_its_name(fresh_configuration: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[int] = []
    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        modes.append(mode(self))
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    Names.pseudonyms().keep(["a"], fresh_configuration.parent / "ids.local.json")
    assert modes == [0o600, 0o600]


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33])
def test_a_damaged_key_is_never_used(fresh_configuration: Path, content: bytes) -> None:
    Names.pseudonyms()
    fresh_configuration.write_bytes(content)
    with pytest.raises(RunError, match="the key of the pseudonyms is damaged"):
        Names.pseudonyms()


def test_the_home_folder_holds_the_key_where_nothing_else_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    Names.pseudonyms()
    assert (tmp_path / ".config" / "medadv" / "pseudonyms.key").is_file()


def test_a_message_is_disguised_where_one_id_begins_another() -> None:
    names = Names(b"k" * 32)
    words = {name: names[name] for name in ("MARY", "MARY_1")}
    told = names.disguised("MARY_1_t1.nii.gz of MARY_1, not of MARY", words)
    assert told == f"{names['MARY_1']}_t1.nii.gz of {names['MARY_1']}, not of {names['MARY']}"
    assert Names(None).disguised("MARY", words) == "MARY"


def test_a_short_id_is_replaced_where_it_stands_alone_and_not_inside_of_words() -> None:
    told = Names(b"k" * 32).disguised("1_t1.nii.gz of 1: 10 of 21 voxels, t1", {"1": "one", "t": "tee"})
    assert told == "one_t1.nii.gz of one: 10 of 21 voxels, t1"


ORIGINAL = "Phantom"


@pytest.fixture
def damaged_three(own_three: Path) -> Path:
    """Three cases of which two are refused: one by the importer, one at the gate."""
    (own_three / "Phantom_00000" / "Phantom_00000_t2.nii.gz").unlink()
    path = own_three / "Phantom_00001" / "Phantom_00001_flair.nii.gz"
    path.write_bytes(path.read_bytes()[:1000])
    return own_three


def test_no_id_is_in_any_file_of_a_run(damaged_three: Path, tmp_path: Path) -> None:
    """Neither in names nor inside, refused or not, but for the table that is its owner's."""
    study = small(damaged_three, ids="pseudonyms", split={"test": [f"Phantom_0000{i}" for i in range(3)]})
    folder = go(study, tmp_path / "runs").folder
    found = contents(folder)
    table = json.loads(found.pop("ids.local.json"))
    assert {f"Phantom_0000{i}" for i in range(3)} <= set(table)
    assert mode(folder / "ids.local.json") == 0o600
    assert len(found) > 30
    for path, content in found.items():
        assert ORIGINAL not in path
        assert ORIGINAL.encode() not in content, path
        assert ORIGINAL.lower().encode() not in content.lower(), path
        if path.endswith(".nii.gz"):
            assert ORIGINAL.encode() not in nib.load(folder / path).to_bytes()
    assert quarantine(folder) == {table["Phantom_00000"]: "missing_modality", table["Phantom_00001"]: "unreadable"}


def test_a_case_that_fails_under_attack_is_disguised_too(
    own_three: Path, tmp_path: Path, no_report: None
) -> None:
    """A file that vanishes after the gate: the message names it."""
    study = small(own_three, ids="pseudonyms")
    go(study, tmp_path)
    shutil.rmtree(tmp_path / "small" / "records")
    shutil.rmtree(tmp_path / "small" / "volumes")
    victim = own_three / "Phantom_00001" / "Phantom_00001_t1.nii.gz"

    class Vanishing(Silent):
        def task(self, title: str, total: int) -> None:
            if title == "attack":
                victim.unlink()

    said: list[str] = []
    watch = Vanishing()
    watch.say = said.append  # type: ignore[method-assign]
    outcome = run(study, victims={"glow": Glow()}, runs=tmp_path, tracked=False, watch=watch)
    assert (outcome.scored, outcome.quarantined) == (2, 1)
    assert list(quarantine(outcome.folder).values()) == ["missing_modality"]
    assert ORIGINAL not in (outcome.folder / "quarantine.json").read_text() + "".join(said)


def test_a_second_person_leaves_a_shared_run_as_it_was(
    own_three: Path, tmp_path: Path, no_report: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their key is another, so all cases would have other names."""
    study = small(own_three, ids="pseudonyms")
    before = contents(go(study, tmp_path / "runs").folder)
    with monkeypatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path / "second"))
        with pytest.raises(RunError, match="begun under another key") as refused:
            go(study, tmp_path / "runs")
        assert str(tmp_path / "second" / "medadv" / "pseudonyms.key") in str(refused.value)
    assert contents(tmp_path / "runs" / "small") == before
    assert go(study, tmp_path / "runs").scored == 3


def test_results_are_those_of_the_case_whatever_it_is_called(
    three: Path, tmp_path: Path, finished: Path, no_report: None
) -> None:
    folder = go(small(three, ids="pseudonyms"), tmp_path).folder
    names = {new: old for old, new in json.loads((folder / "ids.local.json").read_text()).items()}
    renamed = (folder / "scores.csv").read_text()
    for new, old in names.items():
        renamed = renamed.replace(new, old)
    assert sorted(renamed.splitlines()) == sorted((finished / "scores.csv").read_text().splitlines())


def test_ids_stay_where_they_are_public(finished: Path) -> None:
    assert not (finished / "ids.local.json").exists()
    assert "Phantom_00002" in (finished / "scores.csv").read_text()


def test_pseudonyms_say_nothing_without_the_key() -> None:
    plain = {hashlib.sha256(f"Phantom_{i:05d}".encode()).hexdigest()[:12] for i in range(100)}
    names = Names(b"k" * 32)
    assert not {names[f"Phantom_{i:05d}"][1:] for i in range(100)} & plain
