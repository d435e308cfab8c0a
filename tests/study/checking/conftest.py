"""Three phantoms that a test may change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def own(three: Path, tmp_path: Path) -> Path:
    """A copy of the three phantoms."""
    return Path(shutil.copytree(three, tmp_path / "own"))
