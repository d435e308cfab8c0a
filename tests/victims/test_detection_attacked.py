"""The very ``Attack`` that serves volumes, on a detector that was trained on the spot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from victims.small_detectors import detector, lesions
from victims.small_pictures import SHAPES, picture

from medadv.attack.budget import Budget
from medadv.attack.objective import Towards
from medadv.attack.presets import dag, ifgsm, tifgsm
from medadv.attack.relabel import LeastLikely, Permute, erase
from medadv.attack.unbounded import Unbounded
from medadv.defense.detecting import Detecting
from medadv.defense.pictures import Picture, Pictures
from medadv.defense.schedule import Schedule
from medadv.defense.training import Validation, fit
from medadv.objects import Objects, overlap
from medadv.victims.detection import Detector
from medadv.victims.detectors.build import build_detector
from medadv.victims.networks import Architecture

SIZE = (48, 64)
SETTINGS = {"min_size": SIZE[0], "max_size": SIZE[1]}


def share_found(victim: Detector, x: Tensor, truth: list[Objects]) -> float:
    """Of the objects, those that are reported with their class, at an overlap and a score of one half."""
    hits = 0
    for found, objects in zip(victim.predict(x), truth, strict=True):
        sure = found.take(found.scores > 0.5)
        near = (overlap(objects.boxes, sure.boxes) > 0.5) & (objects.labels[:, None] == sure.labels[None])
        hits += int(near.any(1).sum())
    return hits / sum(len(objects) for objects in truth)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    """A RetinaNet of a few seconds."""
    torch.manual_seed(0)
    network = build_detector(Architecture(name="RetinaNet", arguments=SETTINGS), 3, 4)
    victim = Detector(network, SHAPES)
    made = [picture(i, SIZE, most=2) for i in range(160)]
    examples = [Picture(x / 255, objects, str(i)) for i, (x, objects) in enumerate(made)]
    fit(
        Detecting(network, victim.looking, SHAPES),
        network,
        Pictures(examples, 4, (0, 1)),
        Schedule(steps=200, rate=5e-4, validate_every=200),
        folder=tmp_path_factory.mktemp("retinanet"),
        validate=lambda: Validation(0.5),
    )
    return victim


@pytest.fixture(scope="module")
def scene() -> tuple[Tensor, list[Objects]]:
    made = [picture(i, SIZE, most=2) for i in range(1001, 1007)]
    return torch.stack([x for x, _ in made]), [objects for _, objects in made]


def test_a_small_detector_learns_in_seconds(trained: Detector, scene: tuple[Tensor, list[Objects]]) -> None:
    assert share_found(trained, *scene) >= 0.8


def test_dag_makes_it_see_other_classes(trained: Detector, scene: tuple[Tensor, list[Objects]]) -> None:
    x, truth = scene[0][1:4], scene[1][1:4]
    attack = dag(Unbounded(Budget.parse("1 0-255"), span=(0.0, 255.0)), Permute(), steps=80)
    found = attack(trained, x, truth)
    assert share_found(trained, x, truth) == 1
    assert share_found(trained, found.x, truth) <= 0.25
    assert (found.x - x).abs().amax() < 60
    active = found.trace["active"]
    assert (active[0] > 0).all()
    assert (active.nan_to_num(0)[-1] <= 0.2 * active[0]).all()


def test_a_budget_of_a_few_grey_levels_hides_objects(trained: Detector, scene: tuple[Tensor, list[Objects]]) -> None:
    x, truth = scene
    every = torch.ones_like(x, dtype=torch.bool)
    away = ifgsm("16 stored", 10)(trained, x, truth, support=every)
    assert share_found(trained, away.x, truth) <= 0.4
    assert (away.x - x).abs().amax() <= 16.001
    gone = tifgsm("8 stored", erase("disc"), 10)(trained, x, truth, support=every)
    reported = [{0}.union(each.take(each.scores > 0.5).labels.tolist()) for each in trained.predict(gone.x)]
    clean = [{0}.union(each.take(each.scores > 0.5).labels.tolist()) for each in trained.predict(x)]
    assert sum(3 in each for each in reported) <= sum(3 in each for each in clean) / 2


def test_without_an_expert_the_victims_own_answer_is_attacked(
    trained: Detector, scene: tuple[Tensor, list[Objects]]
) -> None:
    x, truth = scene
    attack = replace(ifgsm("8 stored", 10), objective=Towards(LeastLikely(), labels="prediction"))
    found = attack(trained, x, [Objects.none(2)] * len(x), support=torch.ones_like(x, dtype=torch.bool))
    assert share_found(trained, found.x, truth) <= 0.5
    told = ifgsm("8 stored", 2)(trained, x, trained.predict(x))  # a report is a truth like another
    assert (told.x != x).any()


def test_a_picture_without_objects_is_a_valid_outcome(trained: Detector, scene: tuple[Tensor, list[Objects]]) -> None:
    x = scene[0][:2]
    for attack in (ifgsm("8 stored", 3), dag("0.5 stored", Permute(), steps=3)):
        found = attack(trained, x, [Objects.none(2)] * 2)
        assert (found.trace["merit"] == 1).all()
        assert torch.equal(found.x, x)


def test_a_detector_without_proposals_is_a_valid_outcome() -> None:
    victim = detector("FasterRCNN")
    victim.network.rpn.score_thresh = 1.1
    x, objects = picture(1, (32, 48))
    for attack in (ifgsm("8 stored", 3), dag("0.5 stored", Permute(), steps=3)):
        found = attack(victim, x[None], [objects])
        assert (found.trace["merit"] == 1).all()
        assert torch.equal(found.x, x[None])
    (nothing,) = victim.predict(x[None])
    assert (len(nothing), nothing.boxes.shape) == (0, (0, 4))


def test_one_picture_without_targets_does_not_touch_its_neighbour(
    trained: Detector, scene: tuple[Tensor, list[Objects]]
) -> None:
    x, truth = scene[0][:2], scene[1][:2]
    attack = ifgsm("4 stored", 3)
    both = attack(trained, x, [truth[0], Objects.none(2)])
    alone = attack(trained, x[:1], truth[:1])
    assert (both.x[0] != alone.x[0]).float().mean() < 0.1  # rounding turns a few signs
    assert torch.equal(both.x[1], x[1])


def test_a_detector_of_lesions_is_attacked_alike() -> None:
    victim = lesions()
    x = torch.randn((1, 1, 32, 32, 32), generator=torch.Generator().manual_seed(0)) * 40 + 300
    truth = [Objects(torch.tensor([[6.0, 6, 6, 20, 20, 20]]), torch.tensor([9]))]
    found = dag("0.02 sigma", Permute(), steps=12)(victim, x, truth)
    active = found.trace["active"][:, 0]
    assert active[0] > 0
    assert active[-1] < active[0]


def test_what_was_learnt_is_the_same_again(tmp_path: Path) -> None:
    networks = []
    for name in ("one", "two"):
        torch.manual_seed(0)
        network = build_detector(Architecture(name="FasterRCNN", arguments=SETTINGS | {"width": 16}), 3, 4)
        examples = [Picture(picture(i, SIZE)[0] / 255, picture(i, SIZE)[1], str(i)) for i in range(4)]
        lesson = Detecting(network, Detector(network, SHAPES).looking, SHAPES)
        schedule = Schedule(steps=2, rate=1e-3, validate_every=2)
        fit(lesson, network, Pictures(examples, 2), schedule, folder=tmp_path / name, validate=lambda: Validation(1.0))
        networks.append(network.state_dict())
    assert all(torch.equal(networks[0][name], networks[1][name]) for name in networks[0])
