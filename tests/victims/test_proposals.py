"""The targets of a detector: which places are labelled by which objects, and what goals make of them."""

from __future__ import annotations

import pytest
import torch
from runtime_types import unchecked

from medadv.attack.relabel import Fill, Grow, LeastLikely, Permute, Turn, erase
from medadv.attack.rng import Rng
from medadv.attack.targets import Targets
from medadv.errors import ConfigError, VictimError
from medadv.labels import LabelScheme
from medadv.objects import Objects
from medadv.victims.proposals import Matching, Proposals, Seen
from medadv.victims.sight import Places

SCHEME = LabelScheme(
    "street", {"background": 0, "car": 7, "bus": 2, "dog": 4}, {"vehicle": ("car", "bus")}, void=255
)  # in the order of their numbers: background, bus, dog, car
BUS, DOG, CAR = 1, 2, 3
BOXES = [[0.0, 0, 10, 10], [0, 5, 10, 15], [20, 20, 30, 30], [20, 20, 30, 22], [40, 40, 50, 50]]


def seen(scores: dict[tuple[int, int], float] | None = None, samples: int = 1) -> Seen:
    """Five places, each class with score .5 but where something else is said of (class, place)."""
    table = torch.full((samples, 4, 5), 0.5)
    for (c, n), score in (scores or {}).items():
        table[:, c, n] = score
    boxes = torch.tensor(BOXES)
    return Seen(Places.of([boxes] * samples, [boxes] * samples), table)


def objects(*rows: tuple[list[float], int], difficult: tuple[bool, ...] | None = None) -> Objects:
    boxes = torch.tensor([box for box, _ in rows]).float().view(-1, 4)
    labels = torch.tensor([label for _, label in rows], dtype=torch.int64)
    return Objects(boxes, labels, difficult=None if difficult is None else torch.tensor(difficult))


def labelled(truth: Objects, matching: Matching | None = None, **said: object) -> Proposals:
    return Proposals.of(SCHEME, seen(**said), [truth], matching or Matching())


TRUTH = objects(([0, 2, 10, 12], 7), ([20, 20, 30, 30], 4))
RAW = torch.tensor([[0.0, 0, 5, 0, 9], [1, 0, 0, 1, 0], [0, 3, 0, 0, 0], [2, 0, 0, 0, 0]])[None]


def test_a_place_belongs_to_the_object_that_it_overlaps_most() -> None:
    # Overlaps with the car: 80/120 and 70/130. With the dog: 1 and 1/5.
    targets = labelled(TRUTH)
    assert isinstance(targets, Targets)
    assert targets.labels.tolist() == [[CAR, CAR, DOG, DOG, 0]]
    assert targets.where.tolist() == [[True, True, True, True, False]]
    nearer = objects(([0, 2, 10, 12], 7), ([0, 5, 10, 15], 2))
    assert labelled(nearer).labels.tolist() == [[CAR, BUS, 0, 0, 0]]


@pytest.mark.parametrize(
    ("matching", "expected"),
    [
        (Matching(0.2, 0.1), [True, True, True, False, False]),  # above, not at
        (Matching(0.6, 0.1), [True, False, True, False, False]),
        (Matching(0.1, 0.5), [False] * 5),
        (Matching(0.1, 0.49), [True, True, True, True, False]),
    ],
)
def test_overlap_and_score_are_both_asked(matching: Matching, expected: list[bool]) -> None:
    assert labelled(TRUTH, matching).where.tolist() == [expected]


def test_the_score_is_that_of_the_objects_own_class() -> None:
    assert labelled(TRUTH, scores={(CAR, 0): 0.05, (BUS, 1): 0.05}).where.tolist() == [[False, True, True, True, False]]


def test_what_is_difficult_or_void_claims_its_places_and_they_do_not_count() -> None:
    difficult = objects(([0, 2, 10, 12], 7), ([20, 20, 30, 30], 4), difficult=(True, False))
    assert labelled(difficult).where.tolist() == [[False, False, True, True, False]]
    void = objects(([0, 2, 10, 12], 255), ([20, 20, 30, 30], 4))
    assert labelled(void).where.tolist() == [[False, False, True, True, False]]


def test_no_objects_are_no_targets() -> None:
    targets = labelled(Objects.none(2))
    assert not targets.where.any()
    assert targets.labels.shape == (1, 5)
    assert targets.present() == [frozenset({"background"})]


def test_no_places_are_no_targets() -> None:
    none = Seen(Places.of([torch.zeros(0, 4)], [torch.zeros(0, 4)]), torch.zeros(1, 4, 0))
    assert Proposals.of(SCHEME, none, [TRUTH], Matching()).where.shape == (1, 0)


def test_samples_of_different_numbers_of_places_are_padded() -> None:
    boxes = [torch.tensor(BOXES), torch.tensor(BOXES[:2])]
    places = Places.of(boxes, boxes)
    both = Proposals.of(SCHEME, Seen(places, torch.full((2, 4, 5), 0.5)), [TRUTH, TRUTH], Matching())
    assert both.where.tolist() == [[True] * 4 + [False], [True, True, False, False, False]]
    assert both.take(torch.tensor([1])).labels.tolist() == [[CAR, CAR, 0, 0, 0]]
    kept = places.only(torch.tensor([[False, False, True, False, False], [False] * 5]))
    assert kept.boxes.tolist() == [[BOXES[2]], [[0.0] * 4]]
    assert kept.valid.tolist() == [[True], [False]]


def test_places_that_nothing_is_seen_in_are_left_out_with_their_scores() -> None:
    everything = seen({(BUS, 1): 0.05, (DOG, 1): 0.05, (CAR, 1): 0.05})
    left = Seen.likely(everything.places, everything.scores, 0.1)
    assert left.places.boxes.tolist() == [[BOXES[i] for i in (0, 2, 3, 4)]]
    assert torch.equal(left.scores, everything.scores[:, :, [0, 2, 3, 4]])


def test_goals_that_rename_classes_serve_detectors() -> None:
    targets, rng = labelled(TRUTH), Rng.seeded(0, 1)
    gone = erase("vehicle")(targets, RAW, rng)
    assert gone.labels[gone.where].tolist() == [0, 0]
    assert gone.where.tolist() == [[True, True, False, False, False]]
    turned = Turn("dog", "bus")(targets, RAW, rng)
    assert turned.labels.tolist() == [[CAR, CAR, BUS, BUS, 0]]
    assert turned.truth[0].labels.tolist() == [7, 2]
    nothing = Fill()(targets, RAW, rng)
    assert nothing.labels[nothing.where].tolist() == [0] * 4
    given = Permute({"car": "dog", "dog": "bus", "bus": "car"})(targets, RAW, rng)
    assert given.labels[given.where].tolist() == [DOG, DOG, BUS, BUS]
    drawn = Permute(absent=True)(targets, RAW, rng)  # the bus is all that the picture lacks
    assert drawn.labels[drawn.where].tolist() == [BUS] * 4
    assert targets.present() == [frozenset({"background", "car", "dog"})]
    least = LeastLikely()(targets, RAW + torch.eye(4)[None, :, [1, 1, 1, 1, 1]] * 0, rng)
    assert torch.equal(least.labels, RAW.argmin(1))


def test_two_samples_are_renumbered_by_their_own_tables() -> None:
    both = Proposals.of(SCHEME, seen(samples=2), [TRUTH, TRUTH], Matching())
    new = both.renumbered([{7: 4, 4: 7}, {7: 2}])
    assert new.labels.tolist() == [[DOG, DOG, CAR, CAR, 0], [BUS, BUS, DOG, DOG, 0]]
    assert [each.labels.tolist() for each in new.truth] == [[4, 7], [2, 4]]
    assert both.labels[0].tolist() == [CAR, CAR, DOG, DOG, 0]


def test_a_region_alone_is_two_classes() -> None:
    targets = labelled(TRUTH).alone("vehicle")
    assert targets.labels.tolist() == [[1, 1, 0, 0, 0]]
    logits = targets.logits(RAW)
    expected = RAW.softmax(1)[:, [BUS, CAR]].sum(1)
    torch.testing.assert_close(logits.softmax(1)[:, 1], expected)
    assert targets.region("dog").tolist() == [[False, False, True, True, False]]
    gone = erase("vehicle")(targets, RAW, Rng.seeded(0, 1))
    assert gone.labels.tolist() == [[0] * 5]
    assert targets.decided(RAW).labels.tolist() == [[1, 0, 0, 1, 0]]


def test_the_victims_own_answer_makes_targets_where_it_sees_something() -> None:
    seen_ = labelled(Objects.none(2)).decided(RAW)
    assert seen_.where.tolist() == [[True, True, False, True, False]]
    assert seen_.labels.tolist() == [[CAR, DOG, 0, BUS, 0]]
    assert seen_.truth[0].labels.tolist() == [7, 4, 2]
    assert seen_.truth[0].boxes.tolist() == [BOXES[0], BOXES[1], BOXES[3]]


def test_goals_that_draw_maps_are_refused() -> None:
    with pytest.raises(ConfigError, match="renames"):
        Grow("car", 2)(labelled(TRUTH), RAW, Rng.seeded(0, 1))
    with pytest.raises(ConfigError, match="has no label map"):
        labelled(TRUTH).mapped(torch.zeros(1, 3, 3, dtype=torch.int64))


@pytest.mark.parametrize(
    ("truth", "problem"),
    [
        ([TRUTH, TRUTH], "the objects of each image"),
        (torch.zeros(1, 8, 8, dtype=torch.int64), "the objects of each image"),
        (TRUTH, r"\[case.objects\]"),
        ([Objects.none(3)], "another number of axes"),
        ([objects(([0, 0, 5, 5], 3))], "does not know"),
    ],
)
def test_what_is_no_truth_of_a_detector_is_refused(truth: object, problem: str) -> None:
    with unchecked(), pytest.raises(VictimError, match=problem):
        Proposals.of(SCHEME, seen(), truth, Matching())


@pytest.mark.parametrize("bad", [(-0.1, 0.1), (1.0, 0.1), (0.1, 1.0)])
def test_shares_that_are_none_are_refused(bad: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="shares"):
        Matching(*bad)
