"""Victims behind protections in a study: each by its own words, judged beside the victim that it is like."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import yaml
from study.defended_study import defended as defended_study
from study.defended_study import go_defended
from study.small_study import Glow, records, small

from medadv.errors import ConfigError
from medadv.study.spec import Study

WRITTEN: dict[str, dict[str, Any]] = {
    "scales": {"name": "multi-scale", "scales": [0.5, 0.75, 1.0], "fusion": "max"},
    "half": {"name": "multi-scale", "scales": [0.5]},
    "moved": {"name": "random resize-pad", "scales": [0.9, 1.1]},
    "noisy": {"name": "random noise", "size": 0.1, "unit": "sigma"},
    "flipped": {"name": "random flip", "axes": [0, 1]},
    "jpeg": {"name": "jpeg", "quality": 60},
    "crf": {"name": "mean-field CRF", "beta": 0.5, "unit": "sigma", "radius": 1},
    "detached": {"name": "mean-field CRF", "beta": 0.5, "unit": "sigma", "radius": 1, "gradient": "detached"},
    "by-passed": {"name": "mean-field CRF", "beta": 0.5, "unit": "sigma", "radius": 1, "gradient": "by-passed"},
    "picture": {"name": "bit depth", "bits": 4, "span": [0, 255], "nonzero": False},
}


def study(root: Path, **victims: Any) -> Study:
    return small(root, victims={"unet": {}, **victims})


@pytest.mark.parametrize("name", WRITTEN)
def test_each_protection_is_named_by_its_own_words(one: Path, name: str) -> None:
    made = study(one, behind={"like": "unet", "defence": WRITTEN[name]})
    entrant = made.entrants["behind"]
    assert (entrant.behind, entrant.undefended) == ("unet", "unet")
    assert entrant.spec.defence is not None
    assert made.defended
    again = Study.model_validate(yaml.safe_load(made.model_dump_json(by_alias=True, exclude_unset=True)))
    assert again.entrants["behind"].spec.defence == entrant.spec.defence


def test_a_victim_stands_behind_several_by_being_like_one_that_does(one: Path) -> None:
    made = study(
        one,
        scales={"like": "unet", "defence": WRITTEN["scales"]},
        both={"like": "scales", "defence": WRITTEN["moved"]},
    )
    assert (made.entrants["both"].behind, made.entrants["both"].undefended) == ("scales", "unet")


@pytest.mark.parametrize(
    ("defence", "words"),
    [
        ({"name": "multi-scale", "scales": []}, "positive numbers"),
        ({"name": "multi-scale", "fusion": "sum"}, "max"),
        ({"name": "random resize-pad", "scales": [1.1, 1.0]}, "two factors"),
        ({"name": "random noise"}, "size"),
        ({"name": "jpeg", "quality": 0}, "whole number"),
        ({"name": "jpg"}, "jpeg"),
        ({"name": "mean-field CRF", "gradient": "none"}, "by-passed"),
        ({"name": "mean-field CRF", "gamma": 0}, "width"),
    ],
)
def test_what_cannot_be_meant_is_refused(one: Path, defence: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        study(one, behind={"like": "unet", "defence": defence})


def test_settings_of_its_own_would_change_nothing(one: Path) -> None:
    with pytest.raises(ConfigError, match="multi-scale of 'behind' protects 'unet' as that one is: mirror"):
        study(one, behind={"like": "unet", "defence": WRITTEN["scales"], "mirror": [0]})


@pytest.mark.usefixtures("no_report")
def test_they_are_attacked_and_judged(one: Path, tmp_path: Path) -> None:
    """On volumes; the by-passed attack is what is transferred from the victim without the protection."""
    behind = {name: {"like": "glow", "defence": WRITTEN[name]} for name in ("scales", "moved")}
    made = defended_study(one, victims={"glow": {"inference": {"name": "whole"}}, **behind})
    folder = go_defended(made, tmp_path, victims={"glow": Glow()}).folder
    assert {path.split("/")[0] for path in records(folder)} == {"glow", *behind}
    for name in behind:
        assert (folder / "records" / name / "transfer-from-glow-0.3-sigma").is_dir()
    del behind["scales"]
    fewer = defended_study(one, victims={"glow": {"inference": {"name": "whole"}}, **behind})
    again = go_defended(fewer, tmp_path / "again", victims={"glow": Glow()}).folder
    assert rows(again, "moved") == rows(folder, "moved")  # its draws come again


def rows(folder: Path, victim: str) -> list[dict[str, str]]:
    with (folder / "scores.csv").open(newline="") as stream:
        return [row for row in csv.DictReader(stream) if row["victim"] == victim]
