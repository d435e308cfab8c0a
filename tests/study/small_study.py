"""A study that runs in a second: phantoms of 24³, a network of three kernels that sees gliomas by their brightness."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from medadv.atomic import UNFINISHED, write_text
from medadv.data.phantom import phantom
from medadv.study.load import as_study
from medadv.study.records import Record, read_record
from medadv.study.run import Outcome, Part, run
from medadv.study.spec import Study

NETWORK = {"arguments": {"spatial_dims": 3, "channels": [4, 8], "strides": [2], "num_res_units": 0}}
TRAINED = {
    "network": NETWORK,
    "inference": {"name": "window", "roi": [16, 16, 16], "overlap": 0.25},
    "training": {"steps": 6, "batch": 1, "roi": [16, 16, 16], "validate_every": 2},
}


class Glow(nn.Module):
    """Necrosis, oedema and enhancement from z-scores of t1, t1ce, t2, flair, after a blur of three voxels."""

    def __init__(self) -> None:
        super().__init__()
        self.blur = nn.Conv3d(4, 4, 3, padding=1, groups=4, bias=False)
        self.answer = nn.Conv3d(4, 4, 1)
        with torch.no_grad():
            self.blur.weight.fill_(1 / 27)
            self.answer.weight.copy_(
                torch.tensor([[0, 0, 0, 0], [-1, -3, 2, 0], [0, -1, 1, 3], [0, 4, 0, 1.0]]).view(4, 4, 1, 1, 1)
            )
            self.answer.bias.copy_(torch.tensor([0, -3.0, -2.5, -4.5]))

    def forward(self, z: Tensor) -> Tensor:
        return self.answer(torch.tanh(self.blur(z)))


def small(root: Path, **changes: Any) -> Study:
    """A study of one given victim on a BraTS folder, two attacks, two budgets; ``changes`` replace its keys."""
    content: dict[str, Any] = {
        "study": "small",
        "ids": "as-is",
        "data": {"importer": "brats", "root": str(root), "release": "2021"},
        "victims": {"glow": {"inference": {"name": "whole"}}},
        "budgets": ["0.1 sigma", "0.3 sigma"],
        "attacks": {"fgsm": {"preset": "fgsm"}, "ifgsm": {"preset": "ifgsm", "steps": 2}},
        "primary": {"region": "WT"},
        "regions": ["WT", "ET"],
    }
    return as_study(content | changes)


def trained(**changes: Any) -> Study:
    """A study that trains its victim: one phantom to learn from, one to choose by, one to attack."""
    content: dict[str, Any] = {
        "study": "trained",
        "ids": "as-is",
        "data": {"importer": "phantom", "cases": 3, "shape": [24, 24, 24]},
        "split": {"train": 1, "validate": 1},
        "victims": {"unet": TRAINED},
        "budgets": ["0.2 sigma"],
        "attacks": {"fgsm": {"preset": "fgsm"}},
        "primary": {"region": "WT"},
        "regions": ["WT"],
    }
    return as_study(content | changes)


def go(study: Study, runs: Path, part: str | None = None, network: nn.Module | None = None) -> Outcome:
    """Run with the given network, without MLflow."""
    victims = {name: network or Glow() for name, spec in study.victims.items() if name == "glow" and not spec.weights}
    return run(study, victims=victims, runs=runs, part=Part.parse(part) if part else None, tracked=False)


def tables(folder: Path) -> dict[str, bytes]:
    """What a run is for."""
    return {name: (folder / name).read_bytes() for name in ("scores.csv", "comparisons.csv")}


def records(folder: Path) -> dict[str, bytes]:
    """All records by their path."""
    return contents(folder / "records")


def every_record(folder: Path) -> list[Record]:
    """All records that lie in a folder, whole."""
    return [read_record(folder / "records" / path) for path in records(folder)]


def contents(folder: Path) -> dict[str, bytes]:
    """All files by their path; what a killed process left unfinished is nobody's."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files if not p.name.startswith(UNFINISHED)}


def quarantine(folder: Path) -> dict[str, str]:
    """Case → reason code."""
    return {entry["case"]: entry["reason"] for entry in json.loads((folder / "quarantine.json").read_text())}


def first_page(folder: Path) -> Path:
    """In place of the report, which has its own tests and takes seconds."""
    page = folder / "report" / "index.html"
    write_text(page, "<!doctype html><title>a report</title>")
    return page


@pytest.fixture(autouse=True, scope="session")
def own_configuration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The key of pseudonyms is made here, and not in the configuration of whoever runs the tests."""
    home = tmp_path_factory.mktemp("configuration")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(home))
        yield home


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs end with a page at once."""
    monkeypatch.setattr("medadv.study.run.build", first_page)


@pytest.fixture(scope="session")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three cases; not to be changed by a test."""
    root = tmp_path_factory.mktemp("three")
    phantom(root, 3, (24, 24, 24), seed=3)
    return root


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, three: Path) -> Path:
    """The folder of a finished run of ``small`` that kept all its files; not to be changed by a test."""
    return go(small(three, volumes={"keep": "all"}), tmp_path_factory.mktemp("runs")).folder


@pytest.fixture
def runs(tmp_path: Path, finished: Path) -> Path:
    """A copy of the finished run, to be changed."""
    shutil.copytree(finished, tmp_path / "runs" / finished.name)
    return tmp_path / "runs"
