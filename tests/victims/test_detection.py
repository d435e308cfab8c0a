"""``Detector``: its logits are the network's, its gradient is the slope, and the network stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from runtime_types import unchecked
from torch import Tensor
from victims.small_detectors import SIZES, detector, double, lesions, own
from victims.small_pictures import SHAPES, picture

from medadv.attack.checks import check_steady
from medadv.attack.objective import Away
from medadv.attack.presets import fgsm
from medadv.attack.rng import Rng
from medadv.attack.victim import Victim, held_still
from medadv.errors import ConfigError, VictimError
from medadv.labels import LabelScheme
from medadv.objects import Objects
from medadv.victims.detection import Detector
from medadv.victims.detectors.build import build_detector
from medadv.victims.detectors.two_stage import TwoStage
from medadv.victims.networks import Architecture
from medadv.victims.segmentation import weights_digest
from medadv.victims.spatial import Orientation

KINDS: dict[str, Callable[[], Detector]] = {kind: (lambda kind=kind: detector(kind)) for kind in SIZES}
KINDS |= {"own": own, "own sigmoids": lambda: own(exclusive=False), "lesions": lesions}
PICTURES = torch.stack([picture(i, (32, 48))[0] for i in (1, 2)])


def images(kind: str) -> Tensor:
    if not kind.startswith("lesions"):
        return PICTURES
    return torch.randn((1, 1, 32, 32, 32), generator=torch.Generator().manual_seed(0)) * 40 + 300


def truth(x: Tensor, number: int) -> list[Objects]:
    low, high = [8.0] * (x.ndim - 2), [22.0] * (x.ndim - 2)
    return [Objects(torch.tensor([low + high]), torch.tensor([number])) for _ in x]


@pytest.fixture(params=[*KINDS, "lesions in windows"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def made(kind: str) -> Detector:
    return lesions(window=True) if kind == "lesions in windows" else KINDS[kind]()


def test_it_is_a_victim_whose_answer_is_steady(kind: str) -> None:
    victim, x = made(kind), images(kind)
    assert isinstance(victim, Victim)
    check_steady(victim, x)
    prepared = victim.prepare(x, Rng.seeded(0, len(x)))
    logits = prepared(x)
    assert logits.shape == (len(x), len(victim.scheme.tissues), prepared.seen.places.valid.shape[1])
    assert logits.shape[2] > 7
    targets = prepared.targets(truth(x, list(victim.scheme.numbers.values())[1]))
    assert targets.where.any()
    assert set(targets.labels[targets.where].tolist()) == {1}
    assert set(targets.labels[~targets.where].tolist()) <= {0}


def test_the_gradient_is_the_slope(kind: str) -> None:
    victim, x = double(made(kind)), images(kind).double()
    draw = torch.Generator().manual_seed(1)
    with held_still(victim.modules()):
        still = victim.prepare(x, Rng.seeded(0, len(x)))
        weights = torch.randn(still(x).shape, generator=draw, dtype=x.dtype)
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad((still(leaf) * weights).sum(), leaf)
        for _ in range(2):
            way = torch.randn(x.shape, generator=draw, dtype=x.dtype)
            h = 1e-6  # grey levels: 4e-9 of what the network is fed
            up, down = ((still(x + sign * h * way) * weights).sum() for sign in (1, -1))
            slope = (up - down) / (2 * h)
            assert slope.abs() > 1e-3
            assert (gradient * way).sum().item() == pytest.approx(slope.item(), rel=2e-5)


@pytest.mark.parametrize("kind", SIZES)
def test_logits_are_those_of_the_untouched_network(kind: str) -> None:
    victim = detector(kind)
    network = deepcopy(victim.network)
    if kind == "FasterRCNN":
        own = {"nms": network.rpn.nms_thresh, "count": network.rpn._post_nms_top_n["testing"]}
        victim = replace(victim, sight=TwoStage(**own))
        heard = network.roi_heads.box_predictor
    else:
        heard = network.head
    said = []
    heard.register_forward_hook(lambda module, inputs, answer: said.append(answer))
    with torch.no_grad():
        network(list(PICTURES / 255))
        logits = victim.prepare(PICTURES, Rng.seeded(0, 2))(PICTURES)
    if kind == "FasterRCNN":
        expected = said[0][0].view(2, -1, 4).transpose(1, 2)
    else:
        expected = said[0]["cls_logits"].transpose(1, 2)
    if kind == "SSD" or kind == "FasterRCNN":
        torch.testing.assert_close(logits, expected)
        return
    score = expected.sigmoid()
    if kind == "FCOS":
        score = (score * said[0]["bbox_ctrness"].transpose(1, 2).sigmoid()).sqrt()
    torch.testing.assert_close(logits[:, 1:].sigmoid(), score[:, 1:])
    torch.testing.assert_close(logits[:, 0].sigmoid(), torch.full_like(logits[:, 0], network.score_thresh))


@pytest.mark.parametrize("kind", SIZES)
def test_a_prediction_is_what_the_untouched_network_reports(kind: str) -> None:
    victim = detector(kind)
    with torch.no_grad():
        reports = deepcopy(victim.network)(list(PICTURES / 255))
    found = victim.predict(PICTURES)
    for report, objects in zip(reports, found, strict=True):
        kept = report["labels"] > 0
        x0, y0, x1, y1 = report["boxes"][kept].unbind(1)
        assert len(objects) > 0
        assert torch.equal(objects.boxes, torch.stack([y0, x0, y1, x1], 1))
        assert torch.equal(objects.scores, report["scores"][kept])
        assert objects.labels.tolist() == [(0, 3, 5, 8)[k] for k in report["labels"][kept]]
        assert objects.boxes[:, 2].max() <= 32  # rows come first: the picture is 32 high
        assert objects.boxes[:, 3].max() <= 48
    again = victim.decided(PICTURES)
    assert torch.equal(again[1].boxes, found[1].boxes)
    assert victim.agreement(PICTURES) == 1


def test_a_lesion_is_reported_as_monai_reports_it() -> None:
    victim, x = lesions(), images("lesions")
    with torch.no_grad():
        (report,) = deepcopy(victim.network)((x - x.mean()) / x.std(correction=0))
    (found,) = victim.predict(x)
    assert len(found) > 0
    torch.testing.assert_close(found.boxes, report["boxes"], atol=1e-3, rtol=1e-4)
    assert found.labels.tolist() == [(4, 9)[k] for k in report["labels"]]
    torch.testing.assert_close(found.scores, report["labels_scores"])


@pytest.mark.parametrize("kind", ["FasterRCNN", "RetinaNet", "SSD"])
def test_places_lie_in_stored_pixels_whatever_the_network_resizes_to(kind: str) -> None:
    victim = detector(kind)
    still = victim.prepare(PICTURES, Rng.seeded(0, 2))
    network = victim.network
    frame, _ = network.transform(list(PICTURES / 255))
    rows, columns = frame.image_sizes[0]
    assert (rows, columns) != (32, 48)
    places = still.seen.places
    if kind == "FasterRCNN":
        x0, y0, x1, y1 = places.own[0][places.valid[0]].unbind(1)
    else:
        features = list(network.backbone(frame.tensors).values())
        x0, y0, x1, y1 = network.anchor_generator(frame, features)[0].unbind(1)
    height, width = 32 / rows, 48 / columns
    expected = torch.stack([y0 * height, x0 * width, y1 * height, x1 * width], 1)
    torch.testing.assert_close(places.boxes[0][places.valid[0]], expected)


def test_fewer_proposals_are_suppressed_at_a_higher_threshold_and_a_number_can_be_wanted() -> None:
    victim = detector("FasterRCNN")
    counts = []
    for nms in (0.2, 0.45, 0.7):
        seen = replace(victim, sight=TwoStage(nms)).prepare(PICTURES, Rng.seeded(0, 2)).seen
        counts.append(seen.places.valid.sum(1))
    assert (counts[0] < counts[1]).all()
    assert (counts[1] < counts[2]).all()
    wanted = int(counts[1].min()) - 1
    seen = replace(victim, sight=TwoStage(None, wanted)).prepare(PICTURES, Rng.seeded(0, 2)).seen
    assert seen.places.valid.sum(1).tolist() == [wanted, wanted]
    alone = replace(victim, sight=TwoStage(None, wanted)).prepare(PICTURES[1:], Rng.seeded(0, 1)).seen
    torch.testing.assert_close(alone.places.boxes[0], seen.places.boxes[1])


@pytest.mark.parametrize("bad", [{"nms": 0.0}, {"nms": 1.5}, {"count": 0}])
def test_proposals_that_cannot_be_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="no such proposals"):
        TwoStage(**bad)


def snapshot(victim: Detector) -> dict[str, object]:
    network = victim.network
    rpn = getattr(network, "rpn", None)
    pool = getattr(getattr(network, "roi_heads", None), "box_roi_pool", None)
    return {
        "weights": weights_digest(network),
        "modes": [part.training for part in network.modules()],
        "flags": [parameter.requires_grad for parameter in network.parameters()],
        "rpn": rpn and (rpn.nms_thresh, dict(rpn._pre_nms_top_n), dict(rpn._post_nms_top_n)),
        "pool": pool and (pool.scales, pool.map_levels),
        "anchors": getattr(network, "anchors", None),
        "gradients": [parameter.grad for parameter in network.parameters()],
    }


def test_an_attack_leaves_the_network_as_it_was(kind: str) -> None:
    victim, x = made(kind), images(kind)
    victim.network.train()
    next(victim.network.parameters()).requires_grad_(False)
    before = snapshot(victim)
    labels = truth(x, list(victim.scheme.numbers.values())[2])
    found = fgsm("2 stored")(victim, x, labels, support=torch.ones_like(x, dtype=torch.bool))
    victim.predict(x)
    assert snapshot(victim) == before
    assert (found.x - x).abs().max() == pytest.approx(2, rel=1e-5)
    assert (found.zero_gradient_share < 0.9).all()


def test_batch_norm_of_a_network_in_training_mode_learns_nothing_from_an_attack() -> None:
    torch.manual_seed(0)
    standard = Architecture(name="FasterRCNN_MobileNet_V3_Large_320_FPN", arguments={"min_size": 64, "max_size": 96})
    victim = Detector(build_detector(standard, 3, 4).train(), SHAPES)
    assert any(isinstance(part, torch.nn.BatchNorm2d) for part in victim.network.modules())
    before = snapshot(victim)
    x = PICTURES[:1]
    fgsm("2 stored")(victim, x, [picture(1, (32, 48))[1]])
    victim.predict(x)
    assert snapshot(victim) == before


def test_what_is_reported_does_not_depend_on_the_first_picture_that_was_seen() -> None:
    """torchvision's pooling keeps the scales of its first image: they are those of another one here."""
    victim, small, large = detector("FasterRCNN"), PICTURES[:1], picture(5, (96, 33))[0][None]
    fresh = deepcopy(victim.network)
    with torch.no_grad():
        (expected,) = fresh(list(large / 255))
        victim.network(list(small / 255))
    (found,) = victim.predict(large)
    assert torch.equal(found.scores, expected["scores"])


def test_a_part_of_a_batch_is_what_it_was_in_it() -> None:
    victim = detector("FasterRCNN")
    still = victim.prepare(PICTURES, Rng.seeded(0, 2))
    objects = [picture(i, (32, 48))[1] for i in (1, 2)]
    part, whole = still.take(torch.tensor([1])), still.targets(objects)
    torch.testing.assert_close(part(PICTURES[1:]), still(PICTURES)[1:])
    assert torch.equal(part.targets(objects[1:]).labels, whole.take(torch.tensor([1])).labels)
    with pytest.raises(VictimError, match="another number of images"):
        part(PICTURES)


def test_places_keep_their_number_when_the_fullest_sample_leaves() -> None:
    victim = detector("FasterRCNN")
    still = victim.prepare(PICTURES, Rng.seeded(0, 2))
    places = still.seen.places
    fewer = places.only(torch.arange(places.valid.shape[1]) < torch.tensor([[9], [5]]))
    still = replace(still, seen=replace(still.seen, places=fewer, scores=still.seen.scores[..., :9]))
    second = still.take(torch.tensor([1]))
    assert second(PICTURES[1:]).shape == (1, 4, 9)
    torch.testing.assert_close(second(PICTURES[1:])[..., :5], still(PICTURES)[1:, :, :5])
    labels = second.targets([picture(2, (32, 48))[1]]).labels
    assert labels.shape == (1, 9)


def test_unlikely_places_are_left_out_and_nothing_else_changes() -> None:
    victim = detector("RetinaNet")
    objects = [picture(i, (32, 48))[1] for i in (1, 2)]
    every = victim.prepare(PICTURES, Rng.seeded(0, 2))
    level = every.seen.scores[:, 1:].amax(1).median().item()
    fewer = replace(victim, matching=replace(victim.matching, score=level)).prepare(PICTURES, Rng.seeded(0, 2))
    assert fewer.seen.places.valid.sum() < 0.6 * every.seen.places.valid.sum()
    all_ = replace(every, matching=fewer.matching).targets(objects)
    assert fewer.targets(objects).where.sum() == all_.where.sum() > 0
    for i in range(2):
        mine, theirs = fewer.targets(objects).where[i], all_.where[i]
        torch.testing.assert_close(fewer(PICTURES)[i][:, mine], every(PICTURES)[i][:, theirs])


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ({"scheme": LabelScheme("two", {"background": 0, "disc": 1})}, "number of classes"),
        ({"scheme": LabelScheme("late", {"disc": 1, "square": 2, "cross": 3, "background": 9})}, "the background"),
        ({"modalities": "red"}, "a list of names"),
        ({"preprocess": Orientation("RAS")}, "moves no pixels"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_advice(change: dict[str, object], advice: str) -> None:
    with unchecked(), pytest.raises(ConfigError, match=advice):
        replace(detector("RetinaNet"), **change)


def test_a_network_of_no_known_kind_is_refused_with_advice() -> None:
    with pytest.raises(ConfigError, match="sight=Answering"):
        Detector(torch.nn.Conv2d(3, 4, 1), SHAPES)


def test_answers_that_are_no_logits_and_boxes_are_refused_with_their_shapes() -> None:
    victim = own()
    with pytest.raises(VictimError, match="answers logits and boxes"):
        replace(victim, network=torch.nn.Conv2d(3, 4, 1))(PICTURES)
    three = replace(victim, scheme=LabelScheme("more", {"background": 0, "a": 1, "b": 2, "c": 3, "d": 4}))
    with pytest.raises(VictimError, match="another number of classes"):
        three(PICTURES)


def test_targets_without_places_and_images_in_another_precision_are_refused() -> None:
    victim = detector("RetinaNet")
    with pytest.raises(ConfigError, match="there are none yet"):
        victim.targets([Objects.none(2)] * 2)
    with pytest.raises(VictimError, match="precisions"):
        victim(PICTURES.double())


def test_channels_are_picked_by_name() -> None:
    victim = detector("RetinaNet").prepare(PICTURES, Rng.seeded(0, 2))
    turned = replace(victim, modalities=("blue", "green", "red")).reading(("red", "green", "blue"))
    torch.testing.assert_close(turned(PICTURES), victim(PICTURES.flip(1)))
    victim.check_fit(("red", "green", "blue"), SHAPES)
    with pytest.raises(ConfigError, match="another order"):
        victim.check_fit(("blue", "green", "red"), SHAPES)
    with pytest.raises(ConfigError, match="do not have"):
        victim.reading(("red", "green"))


def test_an_attack_through_the_front_door_moves_the_answer() -> None:
    victim = detector("RetinaNet")
    objects = [picture(i, (32, 48))[1] for i in (1, 2)]
    attack = replace(fgsm("1 stored"), objective=Away("logit margin"))
    found = attack(victim, PICTURES, objects)
    assert found.passes.backward == 1
    assert (found.x != PICTURES).any()
