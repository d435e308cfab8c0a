"""The wheel, in an empty environment, is the whole product."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.long


def run(*command: str | Path, cwd: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV", "MEDADV_DATA")}
    outcome = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert outcome.returncode == 0, f"{command}\n{outcome.stdout}\n{outcome.stderr}"
    return outcome.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "uv", "build", "--wheel", "--no-build-isolation", "--out-dir", folder, ".", cwd=ROOT)
    (built,) = folder.glob("medadv-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment's folder of commands: the wheel, and what its own metadata asks for."""
    folder = tmp_path_factory.mktemp("empty")
    uv = (sys.executable, "-m", "uv")
    run(*uv, "venv", "--quiet", "--python", sys.executable, folder / "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    lock = ("--constraint", ROOT / "requirements.lock")
    run(*uv, "pip", "install", "--quiet", "--python", python, *lock, wheel, cwd=folder)
    return python.parent


def test_the_wheel_holds_package_pipelines_types_and_licence(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    pipelines = {f"medadv/pipelines/{path.name}" for path in (ROOT / "pipelines").glob("*.yaml")}
    assert pipelines
    assert pipelines <= names
    files = [path for path in (ROOT / "medadv").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert {str(path.relative_to(ROOT)) for path in files} <= names
    assert "medadv/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any(name.startswith(("tests/", "docs/", "benchmarks/")) for name in names)


def test_help_needs_nothing_but_the_wheel(installed: Path, tmp_path: Path) -> None:
    assert "demo" in run(installed / "medadv", "--help", cwd=tmp_path)


def test_demo_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    run(installed / "medadv", "demo", cwd=tmp_path)
    assert list(tmp_path.glob("runs/*/report/index.html"))
