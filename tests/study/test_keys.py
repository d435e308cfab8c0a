"""What was finished stays finished: the keys of studies that exist follow from settings that have not changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from medadv.study.load import load_study
from medadv.study.records import digest
from medadv.study.suite import conditions

PIPELINES = Path(__file__).parents[2] / "pipelines"

SETTINGS = {
    "demo": "51e1988930ebfb74230696ddc7ba1491c3c004887dccffbd3757332b02f2c844",
    "hippocampus_defenses": "3d236e04c3cb28c6612257adbb3ac91adb2815310e1166482eb1eeabb462f73e",
    "liu2021_attacks": "038287bf7d1b804e7943451216f8dad9470c4fb7643192598f7cb5ffd1480096",
    "liu2021_defenses": "e0ac81cc8afeb2d7c7bbf261fa76d70f489e0b7652f82b11bbf12964a8b49e43",
    "msd_hippocampus": "79aef5d26d8500a3a1a9f9678b68c69818ce366889c84c1e338a9e68f26068b7",
    "phantom_defenses": "1c4bf5eb9a70a193f1664826f28450b63eadc67db4f9cc947a81d56bed7396fb",
}
"""Pipeline → digest of victims, conditions, their settings and needs, as they were when goals and attacks were few.

A digest that changes costs every user of that study all finished cells. Change it here only if that is meant.
"""


@pytest.mark.parametrize("pipeline", SETTINGS)
def test_conditions_of_older_studies_keep_names_settings_and_needs(pipeline: str) -> None:
    study = load_study(PIPELINES / f"{pipeline}.yaml")
    rows = [
        [name, condition.name, condition.settings(), [list(need) for need in condition.needs]]
        for name, entrant in study.entrants.items()
        for condition in conditions(study, entrant)
    ]
    assert digest(rows) == SETTINGS[pipeline]
