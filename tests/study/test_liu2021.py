"""The attack study of Liu et al.: what the file says, and that it runs from end to end on a miniature."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from study.small_study import NETWORK, every_record

from medadv.data.brats import MODALITIES
from medadv.data.phantom import phantom
from medadv.labels import BRATS_2018
from medadv.study.load import load_study
from medadv.study.run import run
from medadv.study.suite import conditions, primary_conditions

FILE = Path(__file__).parents[2] / "pipelines" / "liu2021_attacks.yaml"


def test_the_study_covers_attacks_budgets_regions_and_tissues_on_two_unets() -> None:
    study = load_study(FILE)
    study.check(MODALITIES, BRATS_2018)
    assert {spec.network.name for spec in study.victims.values()} == {"UNet", "BasicUNet"}
    assert {spec.preset for spec in study.attacks.values()} == {"fgsm", "ifgsm", "tifgsm"}
    assert study.regions is None  # all are scored
    asked = {name for spec in study.attacks.values() for name in spec.names}
    assert set(BRATS_2018.names) <= asked
    every = conditions(study, study.entrants["unet"])
    swept = {c.presented.amount for c in every if c.presented.family == "tifgsm-permuted"}
    assert swept == {0.01, 0.02, 0.05, 0.1, 0.2}
    assert set(primary_conditions(study)) < {c.name for c in every}
    assert len(primary_conditions(study)) == 3


def test_what_the_paper_does_not_say_is_marked() -> None:
    """Each setting stands on a line, or under one, that says whose it is."""
    marked = [line.split(":")[0].strip() for line in FILE.read_text().splitlines() if "# medadv default" in line]
    said = {"seed", "importer", "release", "split", "name", "arguments", "head", "normalise", "inference", "training"}
    assert said | {"support", "legal", "budgets", "controls"} == set(marked)
    assert len(re.findall("medadv default", FILE.read_text())) > len(marked)  # attacks and statistics are told above


@pytest.mark.long
def test_a_miniature_of_it_runs_from_end_to_end(tmp_path: Path) -> None:
    phantom(tmp_path / "data", 5, (32, 32, 32))
    window = {"name": "window", "roi": [32, 32, 32], "overlap": 0.25}
    training = {"steps": 20, "batch": 1, "roi": [32, 32, 32], "validate_every": 10}
    basic = {"name": "BasicUNet", "arguments": {"spatial_dims": 3, "features": [4, 4, 4, 4, 4, 4]}}
    changes = {
        "data.root": str(tmp_path / "data"),
        "data.release": "2021",
        "split": {"train": 2, "validate": 1, "test": "rest"},
        "budgets": ["0.1 sigma"],
        "controls": ["identity", "noise"],
        "victims.unet.network": NETWORK,
        "victims.basicunet.network": basic,
        **{
            f"victims.{name}.{key}": value
            for name in ("unet", "basicunet")
            for key, value in (("inference", window), ("training", training))
        },
    }
    study = load_study(FILE, [f"{key}={json.dumps(value)}" for key, value in changes.items()])
    outcome = run(study, runs=tmp_path / "runs", tracked=False)
    expected = 2 * 2 * len(conditions(study, study.entrants["unet"]))
    assert len(every_record(outcome.folder)) == expected
    assert (outcome.folder / "report" / "index.html").exists()
    table = (outcome.folder / "comparisons.csv").read_text()
    for name in primary_conditions(study):
        assert name in table
