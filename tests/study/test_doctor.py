"""``doctor``: what is known to be bad is told by its version, and what can be written is tried, without a trace."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from medadv import cli
from medadv.study import doctor
from medadv.study.doctor import TROUBLES, Finding, examine, told, troubles

SOUND = {"torch": "2.15.0", "monai": "1.6.2", "mlflow": "3.17.2", "nnunetv2": "2.8.1"}


def seen(**there: str) -> list[tuple[str, str]]:
    return [(finding.topic, finding.state) for finding in troubles(SOUND | there)]


def test_sound_versions_are_not_complained_of() -> None:
    assert seen() == []
    assert seen(torch="2.15.0+cu130", monai="1.7.0rc1") == []


@pytest.mark.parametrize(
    ("there", "topics"),
    [
        ({"torch": "2.10.1+cpu"}, [("torch 2.10.1+cpu", "bad")]),
        ({"torch": "2.11.0"}, []),
        ({"monai": "1.6.0"}, [("monai 1.6.0", "bad"), ("nnunetv2 2.8.1 with monai 1.6.0", "note")]),
        ({"monai": "1.6.1"}, [("nnunetv2 2.8.1 with monai 1.6.1", "note")]),
        ({"mlflow": "3.16.0"}, [("mlflow 3.16.0", "bad")]),
        ({"torch": "2.9.1"}, [("torch 2.9.1", "bad"), ("nnunetv2 2.8.1 with torch 2.9.1", "bad")]),
        ({"nnunetv2": "2.7"}, [("nnunetv2 2.7", "note")]),
        ({"pydicom": "3.0.1", "itk": "5.4.7"}, [("pydicom 3.0.1", "note"), ("itk 5.4.7", "note")]),
    ],
)
def test_a_bad_version_is_told(there: dict[str, str], topics: list[tuple[str, str]]) -> None:
    assert seen(**there) == topics


def test_what_is_not_installed_makes_no_trouble() -> None:
    assert troubles({}) == []


def test_every_trouble_says_why_and_what_to_do() -> None:
    assert all(trouble.why and trouble.advice for trouble in TROUBLES)


def store(runs: Path) -> Finding:
    (finding,) = (finding for finding in examine(runs) if finding.topic == "mlflow store")
    return finding


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_a_store_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    assert store(tmp_path / "runs").state == "good"
    assert list(tmp_path.iterdir()) == []
    path = tmp_path / "mlflow.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE experiments (name)")
    database.close()
    before = path.read_bytes()
    assert store(tmp_path / "runs").state == "good"
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["mlflow.db"]


def test_a_store_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    busy = sqlite3.connect(path)
    busy.execute("CREATE TABLE experiments (name)")
    busy.execute("BEGIN EXCLUSIVE")
    assert "locked" in store(tmp_path / "runs").found
    busy.rollback()
    busy.close()
    path.write_bytes(b"no database at all" * 100)
    assert store(tmp_path / "runs").state == "bad"


@pytest.mark.parametrize(("uri", "state"), [("file:./mlruns", "bad"), ("./mlruns", "bad"), ("http://h:5000", "note")])
def test_a_store_elsewhere_is_named_and_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, state: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert store(tmp_path).state == state


def test_a_missing_library_and_a_driver_without_its_torch_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "NEEDED", ("nosuchlibrary",))
    assert Finding("nosuchlibrary", "bad", "not installed", "pip install medadv") in examine(tmp_path)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    (cuda,) = doctor._no_cuda(None)
    assert (cuda.state, "built for CPUs" in cuda.found) == ("bad", True)
    (cuda,) = doctor._no_cuda("13.0")
    assert "CUDA 13.0" in str(cuda.advice)


def typed(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["doctor", *map(str, arguments)])


def test_the_command_tells_and_returns_whether_all_is_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = [Finding("torch", "good", "2.15.0"), Finding("itk", "note", "large", "leave it out")]
    monkeypatch.setattr(doctor, "examine", lambda runs: sound)
    result = typed()
    assert (result.exit_code, result.stdout.splitlines()) == (0, told(sound))
    assert "nothing to be mended" in result.stdout
    monkeypatch.setattr(doctor, "examine", lambda runs: [*sound, Finding("disk", "bad", "full", "free space")])
    result = typed("--json", tmp_path / "a.json")
    assert result.exit_code == 1
    assert "! disk: full\n    → free space\n1 to be mended" in result.stdout
    assert [finding["state"] for finding in json.loads((tmp_path / "a.json").read_text())] == ["good", "note", "bad"]


def test_this_machine_is_told(tmp_path: Path) -> None:
    topics = {finding.topic: finding for finding in examine(tmp_path / "deep" / "runs")}
    assert {"python", "medadv", "torch", "monai", "mlflow", "cpu", "disk", "mlflow store"} <= set(topics)
    assert "GiB free" in topics["disk"].found
    assert not (tmp_path / "deep").exists()
