"""Every study in pipelines/: it can be planned, and on miniature data it runs to its report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from study.small_study import NETWORK, every_record

from medadv.data.phantom import phantom
from medadv.study.load import load_study
from medadv.study.machine import Machine
from medadv.study.plan import plan
from medadv.study.run import run
from medadv.study.spec import Study
from medadv.study.suite import conditions

PIPELINES = {path.stem: path for path in sorted((Path(__file__).parents[2] / "pipelines").glob("*.yaml"))}
ROI = [32, 32, 32]
BASIC = {"name": "BasicUNet", "arguments": {"spatial_dims": 3, "features": [4, 4, 4, 4, 4, 4]}}


def miniature(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> Study:
    """The same study on a few small cases, with small networks that learn for a few steps."""
    written = load_study(PIPELINES[name])
    changes: dict[str, Any] = {"split": {"train": 2, "validate": 1, "test": 2}, "controls": ["noise"]}
    if written.data.importer == "msd":
        changes["data.root"] = str(request.getfixturevalue("data_root") / "Task04_Hippocampus_subset")
    elif written.data.importer == "phantom":
        changes |= {"data.cases": 5, "data.shape": [32, 32, 32]}
    else:
        phantom(tmp_path / "data", 5, (32, 32, 32))
        changes |= {"data.root": str(tmp_path / "data"), "data.release": "2021"}
    if "0.1 sigma" in written.budgets:
        changes["budgets"] = ["0.1 sigma"]
    for victim, spec in written.victims.items():
        if spec.like is None:
            basic = spec.network.name == "BasicUNet"
            changes[f"victims.{victim}.network"] = BASIC if basic else NETWORK
            changes[f"victims.{victim}.inference"] = {"name": "window", "roi": ROI, "overlap": 0.25}
            changes[f"victims.{victim}.training"] = {"steps": 4, "batch": 1, "roi": ROI, "validate_every": 2}
    return load_study(PIPELINES[name], [f"{key}={json.dumps(value)}" for key, value in changes.items()])


@pytest.mark.parametrize("name", PIPELINES)
def test_every_pipeline_is_planned(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    study = miniature(name, tmp_path, request)
    planned = plan(study, Machine(), tmp_path / "runs", timed=False)
    assert planned.cases == 2
    assert planned.cells == sum(2 * len(conditions(study, entrant)) for entrant in study.entrants.values())
    assert set(planned.trained) == {
        name for name, entrant in study.entrants.items() if not name.startswith("smoothed") and not entrant.spec.weights
    }


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in PIPELINES if name.startswith(("liu2021", "phantom", "hippocampus"))])
def test_every_pipeline_of_a_paper_runs_to_its_report_on_miniature_data(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    study = miniature(name, tmp_path, request)
    outcome = run(study, runs=tmp_path / "runs", tracked=False)
    assert outcome.scored == 2
    assert len(every_record(outcome.folder)) == sum(
        2 * len(conditions(study, entrant)) for entrant in study.entrants.values()
    )
    page = (outcome.folder / "report" / "index.html").read_text()
    table = (outcome.folder / "comparisons.csv").read_text()
    if study.defended:
        assert "What the defences are worth" in page
        assert "worst-0.1-sigma" in table
        assert ",non-inferiority," in table
    if name == "phantom_defenses":  # the specification that a run leaves behind means the same study
        again = run(load_study(outcome.folder / "study.yaml"), runs=tmp_path / "runs", tracked=False)
        assert (again.folder / "comparisons.csv").read_text() == table
