"""The goals of targeted attacks, from YAML to what the objective is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from study.small_study import small

from medadv.attack.relabel import Fill, Grow, LeastLikely, Permute, Rank, Shift, Turn, erase
from medadv.attack.shape import Shape
from medadv.data.brats import MODALITIES
from medadv.errors import ConfigError
from medadv.labels import BRATS_2018
from medadv.study.attacks import Tifgsm
from medadv.study.load import as_study
from medadv.study.records import digest

ISOTROPIC = (1.0, 1.0, 1.0)
CYCLE = {"oedema": "enhancing", "enhancing": "oedema"}

GOALS: dict[str, tuple[dict[str, Any], object, set[str]]] = {
    "erase ET": ({"erase": "ET"}, erase("ET"), {"ET"}),
    "turn ET into oedema": ({"turn": "ET", "into": "oedema"}, Turn("ET", "oedema"), {"ET", "oedema"}),
    "all background": ({"fill": "background"}, Fill("background", "changed"), {"background"}),
    "all oedema in TC": ({"fill": "oedema", "where": "TC"}, Fill("oedema", "TC"), {"oedema", "TC"}),
    "all background everywhere": (
        {"fill": "background", "where": "everywhere"},
        Fill(where="everywhere"),
        {"background"},
    ),
    "least likely class": ({"least_likely": "fixed"}, LeastLikely(), set()),
    "least likely class of each step in WT": (
        {"least_likely": "each step", "where": "WT"},
        LeastLikely("WT"),
        {"WT"},
    ),
    "least likely class where it changes": (
        {"least_likely": "fixed", "where": "changed"},
        LeastLikely("changed"),
        set(),
    ),
    "permute tissues at random": ({"permute": "random"}, Permute(), set()),
    "permute tissues and background at random": (
        {"permute": "random", "background": True},
        Permute(background=True),
        set(),
    ),
    "class of rank 2": ({"rank": 2}, Rank(2), set()),
    "class of rank 3 of each step in WT": (
        {"rank": 3, "target": "each step", "where": "WT"},
        Rank(3, "WT"),
        {"WT"},
    ),
    "permute tissues at random into absent ones": ({"permute": "random", "absent": True}, Permute(absent=True), set()),
    "circle of oedema, width 0.5": ({"shape": "circle", "tissue": "oedema"}, Shape("circle", "oedema"), {"oedema"}),
    "strips of an absent tissue, width 0.3 at 0.5 0.25 1, everywhere": (
        {"shape": "strips", "size": 0.3, "centre": [0.5, 0.25, 1], "where": "everywhere"},
        Shape("strips", None, 0.3, (0.5, 0.25, 1.0), "everywhere"),
        set(),
    ),
    "square of oedema, width 0.5, in WT": (
        {"shape": "square", "tissue": "oedema", "where": "WT"},
        Shape("square", "oedema", where="WT"),
        {"oedema", "WT"},
    ),
    "permute oedema to enhancing and enhancing to oedema": ({"permute": CYCLE}, Permute(CYCLE), set(CYCLE)),
    "grow ET by 1 voxel": ({"grow": "ET", "voxels": 1}, Grow("ET", 1), {"ET"}),
    "grow ET by 2 voxels of enhancing in WT": (
        {"grow": "ET", "voxels": 2, "into": "enhancing", "where": "WT"},
        Grow("ET", 2, "enhancing", "WT"),
        {"ET", "enhancing", "WT"},
    ),
    "grow WT by 3 mm": ({"grow": "WT", "mm": 3}, Grow("WT", (3, 3, 3)), {"WT"}),
    "shift WT by +4 +0 -2 voxels": ({"shift": "WT", "by": [4, 0, -2]}, Shift("WT", (4, 0, -2)), {"WT", "background"}),
    "shift ET by +1 +0 +0 voxels leaving necrosis": (
        {"shift": "ET", "by": [1, 0, 0], "behind": "necrosis"},
        Shift("ET", (1, 0, 0), "necrosis"),
        {"ET", "necrosis"},
    ),
}


def study(goal: object, **changes: Any) -> Any:
    return small(Path("data"), attacks={"a": {"preset": "tifgsm", "goal": goal, **changes}})


@pytest.mark.parametrize("told", GOALS)
def test_a_goal_is_what_it_says(told: str) -> None:
    goal, relabel, names = GOALS[told]
    read = study(goal)
    read.check(MODALITIES, BRATS_2018)
    spec = read.attacks["a"]
    assert spec.goal.relabel(ISOTROPIC) == relabel
    assert spec.title == f"ti-FGSM, {told}, 10 steps"
    assert set(spec.names) == names
    assert as_study(read.model_dump(mode="json", by_alias=True)) == read  # as it lies in a run's folder


def test_each_goal_has_a_key_of_its_own() -> None:
    specs = [Tifgsm(preset="tifgsm", goal=goal) for goal, _, _ in GOALS.values()]
    assert len({digest(spec.settings()) for spec in specs}) == len(GOALS)
    assert [spec.goal.follow for spec in specs].count(True) == 2


def test_millimetres_are_the_whole_voxels_that_they_hold() -> None:
    goal = Tifgsm(preset="tifgsm", goal={"grow": "ET", "mm": 3}).goal
    assert goal.relabel((1.0, 1.0000001, 2.0)) == Grow("ET", (3, 3, 1))
    assert goal.relabel((0.5, 3.1, 0.9)) == Grow("ET", (6, 0, 3))


WRONG: dict[str, tuple[object, str]] = {
    "no goal": ({}, "a goal has one of these keys: erase, turn, fill, least_likely, rank, permute"),
    "a word": ("erase", "a goal has one of these keys"),
    "an unknown goal": ({"remove": "ET"}, "a goal has one of these keys"),
    "a key of another goal": ({"erase": "ET", "into": "oedema"}, "into: unknown key. The keys here are: erase"),
    "a misspelt key": ({"grow": "ET", "voxel": 1}, "Did you mean 'voxels'"),
    "no reach": ({"grow": "ET"}, "by voxels or by mm"),
    "two reaches": ({"grow": "ET", "voxels": 1, "mm": 1}, "by voxels or by mm"),
    "a reach of nothing": ({"grow": "ET", "voxels": 0}, "greater than or equal to 1"),
    "a reach without end": ({"grow": "ET", "mm": float("inf")}, "finite"),
    "half a permutation": ({"permute": {"oedema": "enhancing"}}, "the same tissues on both sides"),
    "a permutation by another word": ({"permute": "all"}, "random"),
    "background in a given permutation": ({"permute": CYCLE, "background": True}, "for random permutations"),
    "another update": ({"least_likely": "often"}, "'fixed' or 'each step'"),
    "absent ones in a given permutation": ({"permute": CYCLE, "absent": True}, "for random permutations"),
    "the rank of what is decided": ({"rank": 1}, "greater than or equal to 2"),
    "no figure": ({"shape": "star"}, "'square', 'circle', 'diamond' or 'strips'"),
    "a figure of nothing": ({"shape": "circle", "size": 0}, "greater than 0"),
    "a figure outside": ({"shape": "circle", "centre": [0.5, 2]}, "less than or equal to 1"),
    "half a voxel": ({"shift": "ET", "by": [0.5, 0, 0]}, "integer"),
    "no vector": ({"shift": "ET", "by": []}, "at least 1 item"),
}


@pytest.mark.parametrize(("goal", "told"), WRONG.values(), ids=WRONG)
def test_a_goal_that_cannot_be_meant_is_told(goal: object, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        study(goal)


@pytest.mark.parametrize(
    ("goal", "told"),
    [
        ({"fill": "brain"}, "'brain' is no region"),
        ({"fill": "background", "where": "brain"}, "'brain' is no region"),
        ({"grow": "ET", "voxels": 1, "into": "brain"}, "'brain' is no region"),
        ({"shift": "brain", "by": [1, 0, 0]}, "'brain' is no region"),
        ({"permute": {"WT": "oedema", "oedema": "WT"}}, "only tissues are permuted"),
        ({"permute": {"fat": "oedema", "oedema": "fat"}}, "'fat' is no region"),
        ({"draw": "maps", "where": "brain"}, "'brain' is no region"),
        ({"shift": "ET", "by": [4]}, "another number of axes\n.*1 numbers\n.*expected: 3"),
        ({"shift": "ET", "by": [4, 0, 0, 0]}, "another number of axes"),
    ],
)
def test_a_goal_that_the_labels_do_not_have_is_told(goal: object, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        study(goal).check(MODALITIES, BRATS_2018)
