"""What a study of pictures means where it is silent, and that its resolved specification says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from study.small_study import small

from medadv.errors import ConfigError
from medadv.study.entrants import VictimSpec
from medadv.study.spec import Study
from medadv.study.suite import primary_family
from medadv.victims.declared import NORMALISE
from medadv.victims.detection import GREY_LEVELS
from medadv.victims.normalize import Standard, ZScore

FIXED = Standard(mean=(127.5,), std=(64.0,))


def study(victims: dict[str, Any] | None = None, pad: list[int] | None = None, **changes: Any) -> Study:
    data = {"importer": "pictures", "cases": 2, "size": [32, 40], "pad": pad}
    primary = {"region": "all", "metric": "iou"}
    return small(Path("unused"), data=data, primary=primary, **{"victims": victims or {"net": {}}, **changes})


def test_padding_is_no_part_of_what_is_attacked_unless_the_study_says_so() -> None:
    assert study().support == "everywhere"
    assert study(pad=[64, 64]).support == "mask"
    assert study(pad=[64, 64], support="everywhere").support == "everywhere"


@pytest.mark.parametrize(
    "defence",
    [
        {"name": "gaussian smoothing", "sigma": 1.0},
        {"name": "median smoothing", "size": 3},
        {"name": "bit depth", "bits": 4},
        {"name": "resampling", "factor": 2.0},
        {"name": "random resize-pad", "scales": [0.9, 1.1]},
        {"name": "random noise", "size": 8},
    ],
    ids=lambda defence: defence["name"],
)
def test_black_pixels_count_in_transforms_of_pictures(defence: dict[str, Any]) -> None:
    def nonzero(asked: Study) -> bool:
        return bool(asked.entrants["behind"].spec.defence.nonzero)  # type: ignore[union-attr]

    def behind(defence: dict[str, Any]) -> dict[str, Any]:
        return {"net": {}, "behind": {"like": "net", "defence": defence}}

    asked = study(behind(defence))
    assert not nonzero(asked)
    said = asked.model_dump(mode="json", by_alias=True, exclude_unset=True)["victims"]["behind"]
    assert said["defence"]["nonzero"] is False
    assert nonzero(study(behind({**defence, "nonzero": True})))
    assert nonzero(small(Path("unused"), victims=behind(defence)))  # of volumes: as ever


def test_a_network_of_pictures_is_normalised_by_fixed_numbers_and_its_zeros_count() -> None:
    asked = study(
        {
            "net": {},
            "other": VictimSpec(like="net"),
            "own": {"normalise": {"name": "z-score"}},
            "its-own": {"like": "own"},
            "headed": {"normalise": {"name": "z-score", "nonzero": True}},
            "found": {"network": {"name": "FCOS"}},
            "beside": {"like": "found"},
        }
    )
    normalised = {name: entrant.spec.normalise for name, entrant in asked.entrants.items()}
    plain = ZScore(nonzero=False)
    assert normalised == {
        "net": FIXED, "other": FIXED, "own": plain, "its-own": plain, "headed": ZScore(),
        "found": GREY_LEVELS, "beside": GREY_LEVELS,
    }  # fmt: skip
    assert asked.victims["net"].model_dump(exclude_unset=True)["normalise"]
    assert small(Path("unused"), victims={"net": {}}).victims["net"].normalise == NORMALISE


def test_weights_say_themselves_how_they_are_normalised() -> None:
    assert "normalise" not in study({"net": {"weights": "net.pt"}}).victims["net"].model_fields_set


def test_victims_that_are_like_each_other_are_refused_all_the_same() -> None:
    with pytest.raises(ConfigError, match="has to stand above"):
        study({"a": {"like": "b"}, "b": {"like": "a"}, "c": {"like": "a"}})


def test_a_primary_metric_that_nobody_is_scored_in_is_refused() -> None:
    """It would be declared, and another one tested."""
    primary = {"region": "WT", "metric": "iou"}
    with pytest.raises(ConfigError, match=r"no victim of the study is scored in the primary metric[\s\S]*dice"):
        primary_family(small(Path("data"), primary=primary))
    assert primary_family(small(Path("data"), primary=primary, metrics=["dice", "iou"])).metric == "iou"
