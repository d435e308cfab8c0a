"""A run's folder: declarations, cells, quarantine, files; whatever else lies in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from study.small_study import contents, every_record, small

from medadv.atomic import UNFINISHED
from medadv.data.case import Refusal
from medadv.errors import Reason, RunError
from medadv.study.folder import FINGERPRINT, RunFolder
from medadv.study.judgement import Judgement
from medadv.study.names import Names
from medadv.study.records import Record, record_path
from medadv.study.spec import Study
from medadv.study.stats import PrimaryFamily

FAMILY = PrimaryFamily(region="WT", conditions=("a",))


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.open(small(tmp_path / "data"), tmp_path / "runs", Names(None))


@pytest.fixture(scope="module")
def record(finished: Path) -> Record:
    return next(each for each in every_record(finished) if each.condition == "fgsm-0.1-sigma")


def named(record: Record, case: str, key: str = "") -> Record:
    return record.model_copy(update={"case": case, "key": key or record.key})


def leave_unfinished(folder: Path) -> None:
    """As a process does that is killed while it writes JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{UNFINISHED}abc.json").write_text('{"case": "Pha')


def test_the_specification_is_resolved(folder: RunFolder, tmp_path: Path) -> None:
    stored = yaml.safe_load((folder.path / "study.yaml").read_text())
    assert stored["split"] == {"train": 0, "validate": 0, "test": "rest", "folds": None}
    assert stored["volumes"] == {"keep": "worst", "count": 1}
    assert json.loads((folder.path / "environment.json").read_text())["torch"]


def test_nothing_of_a_private_study_is_told(tmp_path: Path) -> None:
    split = {"train": ["Mary"], "validate": ["John"]}
    victims = {"glow": {"weights": "/clinic/mary/weights"}}
    study = small(tmp_path / "clinic", ids="pseudonyms", split=split, victims=victims)
    text = (RunFolder.open(study, tmp_path, Names(b"k" * 32)).path / "study.yaml").read_text()
    assert not [word for word in ("Mary", "John", "clinic") if word in text]
    RunFolder.open(study, tmp_path, Names(b"k" * 32))


def private_study(runs: Path, key: bytes) -> RunFolder:
    study = small(Path("clinic"), ids="pseudonyms", split={"train": ["Mary"]}, victims={"glow": {}})
    return RunFolder.open(study, runs, Names(key))


def test_another_key_is_refused_before_anything_is_written(tmp_path: Path, own_configuration: Path) -> None:
    folder = private_study(tmp_path, b"k" * 32).path
    (folder / "ids.local.json").write_text('{"Mary": "c0"}')
    before = contents(folder)
    with pytest.raises(RunError, match=r"(?s)another key of pseudonyms.*try: copy the key of whoever began") as refused:
        private_study(tmp_path, b"j" * 32)
    assert str(own_configuration / "medadv" / "pseudonyms.key") in str(refused.value)
    assert contents(folder) == before
    assert private_study(tmp_path, b"k" * 32).path == folder


def test_a_run_is_not_reopened_under_another_key(tmp_path: Path) -> None:
    folder = private_study(tmp_path, b"k" * 32)
    folder.plan({})
    study = small(Path("clinic"), ids="pseudonyms", split={"train": ["Mary"]}, victims={"glow": {}})
    assert RunFolder.reopen(study, tmp_path, Names(b"k" * 32)) == folder
    with pytest.raises(RunError, match="another key of pseudonyms"):
        RunFolder.reopen(study, tmp_path, Names(b"j" * 32))


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff"])
def test_a_damaged_fingerprint_lets_nobody_in(tmp_path: Path, content: bytes) -> None:
    place = private_study(tmp_path, b"k" * 32).path / FINGERPRINT
    place.write_bytes(content)
    with pytest.raises(RunError, match="another key of pseudonyms"):
        private_study(tmp_path, b"k" * 32)
    assert place.read_bytes() == content


def test_a_fingerprint_tells_nothing_of_the_key(tmp_path: Path, folder: RunFolder) -> None:
    key = bytes(range(32))
    told = (private_study(tmp_path / "private", key).path / FINGERPRINT).read_text()
    assert len(json.loads(told)["fingerprint"]) == 64
    assert key.hex()[:8] not in told
    assert Names(None).fingerprint is None
    assert not (folder.path / FINGERPRINT).exists()


def test_a_cell_is_found_under_its_own_key(folder: RunFolder, record: Record) -> None:
    place = (record.victim, record.condition, record.case)
    assert folder.find(*place, record.key) is None
    folder.finish(record, 1.25)
    assert folder.find(*place, record.key) == record
    assert folder.find(*place, "f" * 64) is None
    timing = folder.path / "timings" / "glow" / record.condition / f"{record.case}.{record.key[:16]}.json"
    assert json.loads(timing.read_text()) == {"seconds": 1.25}


def test_cases_whose_names_begin_alike_are_different(folder: RunFolder, record: Record) -> None:
    """sub-1 and sub-1.2, of which one file name is the beginning of the other's."""
    cells = [named(record, "sub-1"), named(record, "sub-1.2"), named(record, "sub-1.2.3")]
    for each in cells:
        folder.finish(each, 0.0)
    for each in cells:
        assert folder.find(each.victim, each.condition, each.case, each.key) == each


def test_what_a_killed_process_left_is_nobodys(folder: RunFolder, record: Record) -> None:
    leave_unfinished(folder.path / "quarantine")
    leave_unfinished(record_path(folder.path, record.victim, record.condition, record.case, record.key).parent)
    assert folder.quarantined() == []
    folder.declare(FAMILY)
    assert json.loads((folder.path / "declarations.jsonl").read_text())["after_scores"] is False


def test_only_a_changed_family_is_declared_again(folder: RunFolder, record: Record) -> None:
    folder.declare(FAMILY)
    folder.declare(FAMILY)
    folder.finish(record, 0.0)
    folder.declare(FAMILY)
    changed = FAMILY.model_copy(update={"region": "ET"})
    folder.declare(changed)
    lines = [json.loads(line) for line in (folder.path / "declarations.jsonl").read_text().splitlines()]
    assert [(line["primary"]["region"], line["after_scores"]) for line in lines] == [("WT", False), ("ET", True)]
    assert folder.declared() == changed


def test_a_margin_that_is_changed_after_scores_exist_is_stamped(folder: RunFolder, record: Record) -> None:
    judgement = Judgement(judged=("a", "b"), undefended={"b": "a"}, worst={}, margin=0.05)
    folder.declare(FAMILY, judgement)
    folder.declare(FAMILY, judgement)
    folder.finish(record, 0.0)
    folder.declare(FAMILY, judgement)
    wider = judgement.model_copy(update={"margin": 0.2})
    folder.declare(FAMILY, wider)
    lines = [json.loads(line) for line in (folder.path / "declarations.jsonl").read_text().splitlines()]
    assert [(line["judgement"]["margin"], line["after_scores"]) for line in lines] == [(0.05, False), (0.2, True)]
    assert folder.judgement() == wider
    assert folder.declared() == FAMILY


def test_a_study_without_a_defence_declares_what_it_always_did(folder: RunFolder) -> None:
    folder.declare(FAMILY)
    (line,) = (folder.path / "declarations.jsonl").read_text().splitlines()
    assert set(json.loads(line)) == {"primary", "declared", "after_scores"}
    assert "rivals" not in json.loads(line)["primary"]
    assert folder.judgement() is None


@pytest.mark.parametrize("content", [None, "", "\n", "{", "{}", '{"primary": 3}'])
def test_declarations_that_cannot_be_read_are_told(folder: RunFolder, content: str | None) -> None:
    if content is not None:
        (folder.path / "declarations.jsonl").write_text(content)
    with pytest.raises(RunError, match="declaration of comparisons cannot be read"):
        folder.declared()


def test_quarantine_takes_in_and_lets_go(folder: RunFolder) -> None:
    for case in ("a", "b", "c"):
        folder.quarantine(Refusal(case, Reason.UNREADABLE, "torn"))
    folder.release(["a", "unknown"])
    expected = [{"case": case, "reason": "unreadable", "message": "torn"} for case in ("b", "c")]
    assert folder.quarantined() == expected
    assert json.loads((folder.path / "quarantine.json").read_text()) == expected
    folder.release()
    assert folder.quarantined() == []


def test_files_are_held_only_by_the_record_that_delivered_them(folder: RunFolder, record: Record) -> None:
    place = folder.volume(record.victim, record.condition, record.case)
    assert not folder.holds(record)
    place.mkdir(parents=True)
    for content in ("", "[]", '{"files": {}}', "3"):
        (place / "ADVERSARIAL.json").write_text(content)
        assert not folder.holds(record)
    (place / "ADVERSARIAL.json").write_text(json.dumps({"files": record.delivered}))
    assert folder.holds(record)
    assert not folder.holds(record.model_copy(update={"delivered": {"other": "0" * 64}}))
    folder.drop(record.victim, record.condition, [record.case, "never there"])
    assert not place.exists()


def threatened(root: Path, **changes: Any) -> Study:
    """With a victim that learns from attacked inputs, and one that does not."""
    defence = {"name": "trades", "budgets": ["0.1"]}
    return small(root, victims={"glow": {}, "hardened": {"like": "glow", "defence": defence}}, **changes)


OTHER_THREATS = {"support": "volume", "legal": [0.0, 1000.0], "modalities": ["t1"]}


@pytest.mark.parametrize("key", OTHER_THREATS)
def test_a_hardened_victim_is_of_the_threat_that_it_was_trained_in(tmp_path: Path, key: str) -> None:
    study, other = threatened(tmp_path), threatened(tmp_path, **{key: OTHER_THREATS[key]})
    folder = RunFolder.open(study, tmp_path, Names(None)).path
    (folder / "victims" / "glow").mkdir(parents=True)
    RunFolder.open(other, tmp_path, Names(None))  # what is not hardened has seen no attack
    RunFolder.open(study, tmp_path, Names(None))
    (folder / "victims" / "hardened").mkdir()
    with pytest.raises(RunError, match=f"(?s)belongs to another study.*{key}: "):
        RunFolder.open(other, tmp_path, Names(None))
    RunFolder.open(study.model_copy(update={"budgets": ("0.5 sigma",)}), tmp_path, Names(None))
