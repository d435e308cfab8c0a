"""The strong criterion of Xie et al.'s released code for detection, against that code written down once more."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from runtime_types import unchecked
from torch import Tensor
from victims.small_pictures import SHAPES

from medadv.attack.exchange import Exchange, Strong
from medadv.attack.relabel import Turn
from medadv.attack.rng import Rng
from medadv.errors import ConfigError
from medadv.labels import LabelScheme
from medadv.objects import Objects, overlap
from medadv.study.attacks import Dag
from medadv.victims.head import Softmax, Voxels
from medadv.victims.proposals import Matching, Proposals, Seen
from medadv.victims.sight import Places

DISC, SQUARE = SHAPES.tissues.index("disc"), SHAPES.tissues.index("square")


def places(number: int, seed: int) -> Places:
    """Boxes that overlap each other more or less, near one object."""
    draw = torch.Generator().manual_seed(seed)
    corner = 10 + 8 * torch.rand(number, 2, generator=draw)
    return Places.of([torch.cat([corner, corner + 12 + 4 * torch.rand(number, 2, generator=draw)], 1)], [corner])


def targets(number: int = 40, seed: int = 0) -> Proposals:
    """Each of them is one disc's."""
    where = places(number, seed)
    scores = torch.full((1, len(SHAPES.tissues), number), 0.9)
    disc = Objects(torch.tensor([[10.0, 10, 30, 30]]), torch.tensor([SHAPES.numbers["disc"]]))
    found = Proposals.of(SHAPES, Seen(where, scores), [disc], Matching())
    assert found.where.all()
    return found


def answer(number: int = 40, seed: int = 0) -> Tensor:
    return 0.5 * torch.randn((1, len(SHAPES.tissues), number), generator=torch.Generator().manual_seed(seed + 100))


def as_released(raw: Tensor, boxes: Tensor) -> tuple[Tensor, int]:
    """forward_propogation_det.m, with its loops: the boxes that are pushed on, and how many keep it from being done.

    The code's own label is row 1, the wanted one row 2, the predicted one row 3.
    """
    score, predicted = raw.softmax(0).max(0)
    fooled = [i for i in range(len(predicted)) if predicted[i] == SQUARE]
    kept: list[int] = []
    for i in sorted(fooled, key=lambda i: -score[i].item()):
        if all(overlap(boxes[i : i + 1], boxes[j : j + 1]).item() <= 0.35 for j in kept):
            kept.append(i)
    for i in kept:
        if score[i] < 0.8:
            predicted[i] = DISC
    pushed = (predicted != SQUARE) & (predicted != 0)
    return pushed, int((predicted == DISC).sum())


def test_what_is_pushed_on_is_what_the_released_code_pushes_on() -> None:
    """Of boxes that are fooled more and less surely."""
    more = []
    for seed in range(8):
        made, raw = targets(seed=seed), (1 + seed) * answer(seed=seed)
        plain, strong = (
            Exchange(Turn("disc", "square"), "released", let_vanish=True, strong=s).prepare(raw, made, Rng.seeded(0, 1))
            for s in (None, Strong())
        )
        pushed, left = as_released(raw[0], made.places.boxes[0])
        assert torch.equal(strong.active(raw)[0], pushed)
        assert strong(raw, 0.0).done.item() == (not pushed.any())
        assert left == 0 or pushed.any()  # the code ends sooner, when none is its own class
        more.append(bool(pushed.sum() > plain.active(raw).sum()))
    assert any(more)
    assert not all(more)


def test_it_is_not_done_while_some_are_a_third_class() -> None:
    made = targets()
    cross = torch.zeros(1, len(SHAPES.tissues), 40)
    cross[:, SHAPES.tissues.index("cross")] = 1
    for vanish in (True, False):
        goal = Exchange(Turn("disc", "square"), "released", let_vanish=vanish).prepare(cross, made, Rng.seeded(0, 1))
        judged = goal(cross, 0.0)
        assert not judged.done
        assert judged.notes["active"].item() == 40


def test_a_suppressed_box_needs_no_score() -> None:
    """One sure box hides a weak one of its place; alone, the weak one would be reported, and is not fooled for sure."""
    made = targets(2)
    made = replace(made, places=replace(made.places, boxes=torch.tensor([[[10.0, 10, 30, 30], [11, 10, 30, 30]]])))
    raw = torch.zeros(1, len(SHAPES.tissues), 2)
    raw[0, SQUARE] = torch.tensor([9.0, 0.1])
    goal = Exchange(Turn("disc", "square"), strong=Strong()).prepare(raw, made, Rng.seeded(0, 1))
    assert goal.active(raw).tolist() == [[False, False]]
    raw[0, SQUARE, 0] = 0.2
    assert goal.active(raw).tolist() == [[True, False]]
    lenient = Exchange(Turn("disc", "square"), strong=Strong(0.2)).prepare(raw, made, Rng.seeded(0, 1))
    assert not lenient.active(raw).any()


def test_scores_are_the_detectors_own_and_stay_when_a_part_is_taken() -> None:
    """Of sigmoids the score is no softmax: 0.6 beside a background of 0.5 is not 0.525."""
    made = replace(targets(3), scoring=torch.sigmoid)
    raw = torch.zeros(1, len(SHAPES.tissues), 3)
    raw[0, SQUARE] = torch.logit(torch.tensor(0.6))
    part = made.take(torch.tensor([0]))
    for each in (made, part):
        scores = each.reported(raw, torch.ones(1, 3, dtype=torch.bool), 0.35)[1]
        torch.testing.assert_close(scores, torch.full((1, 3), 0.6))


def test_voxels_suppress_nothing() -> None:
    scheme = LabelScheme("zoo", {"background": 0, "cat": 1})
    voxels = Voxels.of(Softmax(scheme), torch.tensor([[1, 0]]))
    goal = Exchange(Turn("cat", "background"), strong=Strong())
    with pytest.raises(ConfigError, match="only boxes suppress each other"):
        goal.prepare(torch.zeros(1, 2, 2), voxels, Rng.seeded(0, 1))


def test_a_study_says_it() -> None:
    said = {"preset": "dag", "goal": {"permute": "random"}, "active": "released"}
    plain, strong = Dag.model_validate(said), Dag.model_validate({**said, "strong": {}})
    assert strong.strong == Strong(0.8, 0.35)
    assert "strong" not in plain.settings()  # older records keep their keys
    assert strong.settings()["strong"] == {"score": 0.8, "nms": 0.35}
    with pytest.raises(ValueError, match=r"extra|unexpected"):
        Dag.model_validate({**said, "strong": {"iou": 0.3}})
    for wrong in ({"score": 1.0}, {"nms": 0.0}):
        with unchecked(), pytest.raises(ConfigError, match="are shares"):
            Strong(**wrong)
