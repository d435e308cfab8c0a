"""Every study in pipelines/: it can be planned, and on miniature data it runs to its report."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from study.miniatures import PIPELINES, miniature
from study.small_study import every_record

from medadv.study.load import load_study
from medadv.study.machine import Machine
from medadv.study.plan import plan
from medadv.study.run import run
from medadv.study.spec import Study
from medadv.study.suite import conditions, primary_family
from medadv.victims.defended import Protection

RUN = [name for name in PIPELINES if name.startswith(("liu2021", "phantom", "hippocampus", "arnab2018", "xie2017"))]
SIZE = "How large the change is"
OVER = "Scores over the data set"
MATRIX = "Made for one, shown to another"
SHOWN = {
    "xie2017_segmentation": [OVER, "Structure or size?", SIZE],
    "xie2017_detection": [OVER, "Structure or size?", SIZE],
    "xie2017_segmentation_transfer": [OVER, MATRIX, SIZE],
    "xie2017_detection_transfer": [OVER, MATRIX, SIZE],
    "xie2017_cross_task": [OVER, MATRIX, SIZE],
    "xie2017_density": [OVER, MATRIX, SIZE],
    "xie2017_convergence": ["Convergence"],
    "xie2017_shapes": ["The worst case of each attack", SIZE],
    "xie2017_joint": ["The worst case of each attack", SIZE],
}
"""Headings of the page that a study of a paper is there for."""


def cells(study: Study) -> int:
    return sum(2 * len(conditions(study, entrant)) for entrant in study.entrants.values())


@pytest.mark.parametrize("name", PIPELINES)
def test_every_pipeline_is_planned(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    study = miniature(name, tmp_path, request)
    planned = plan(study, Machine(), tmp_path / "runs", timed=False)
    assert planned.cases == 2
    assert planned.cells == cells(study)
    assert set(planned.trained) == {
        name
        for name, entrant in study.entrants.items()
        if not isinstance(entrant.spec.defence, Protection) and not entrant.spec.weights
    }


@pytest.mark.parametrize("name", PIPELINES)
def test_every_victim_is_judged_by_what_it_is_asked_in_the_family_or_beside_it(name: str) -> None:
    """Files are kept by it, those of a detector beside a family of segmentation networks, too."""
    study = load_study(PIPELINES[name])
    usual = "dice" if study.data.axes == 3 else "iou"
    judged = {victim: primary_family(study).metric_of(victim) for victim in study.entrants}
    assert judged == {name: "recall" if one.spec.detects else usual for name, one in study.entrants.items()}


@pytest.mark.parametrize("name", PIPELINES)
def test_what_a_pipeline_says_can_be_set_can_be_set(name: str) -> None:
    for line in PIPELINES[name].read_text().splitlines():
        said = [quoted or plain for quoted, plain in re.findall(r"--set (?:'([^']+)'|(\S+))", line)]
        assert not (said and load_study(PIPELINES[name], said) == load_study(PIPELINES[name]))


@pytest.mark.long
@pytest.mark.parametrize("name", RUN)
def test_every_pipeline_of_a_paper_runs_to_its_report_on_miniature_data(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    study = miniature(name, tmp_path, request)
    outcome = run(study, runs=tmp_path / "runs", tracked=False)
    assert outcome.scored == 2
    records = every_record(outcome.folder)
    assert len(records) == cells(study)
    assert all((record.certainty is not None) == study.certainty for record in records)
    page = (outcome.folder / "report" / "index.html").read_text()
    table = (outcome.folder / "comparisons.csv").read_text()
    if name in SHOWN:
        assert all(f"<h2>{title}" in page for title in SHOWN[name])
    if study.defended:
        assert "What the defences are worth" in page
        worst = [name for name in ("worst-0.1-sigma", "worst-8-0-255") if name in table]
        assert bool(worst) == ("worst" in (study.primary.attacks or ()))
        assert (",non-inferiority," in table) == (study.primary.margin is not None)
    if study.data.axes == 2:
        assert "Scores over the data set" in page
        asked = {name: "recall" if one.spec.detects else "iou" for name, one in study.entrants.items()}
        assert all(record.distortion is not None for record in records)
        assert all(record.scores[0].metric == asked[record.victim] for record in records)
    assert "Made for one, shown to another" in page or study.transfers is None
    assert ("How sure the victims are" in page) == study.certainty
    if name == "phantom_defenses":  # the specification that a run leaves behind means the same study
        again = run(load_study(outcome.folder / "study.yaml"), runs=tmp_path / "runs", tracked=False)
        assert (again.folder / "comparisons.csv").read_text() == table
