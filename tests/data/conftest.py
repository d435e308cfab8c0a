"""One small phantom for the tests of the data room, and a copy of it for those that break things."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from medadv.data.brats import brats
from medadv.data.case import Case
from medadv.data.phantom import phantom


@pytest.fixture(scope="session")
def phantom_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cases of 26 × 30 × 24 voxels: no axis can be taken for another."""
    root = tmp_path_factory.mktemp("phantom")
    phantom(root, 2, (26, 30, 24), seed=3, spacing=2.0)
    return root


@pytest.fixture
def case(phantom_root: Path, tmp_path: Path) -> Case:
    """A whole case that a test may damage."""
    folder = tmp_path / "Phantom_00000"
    shutil.copytree(phantom_root / folder.name, folder)
    return brats(folder)
