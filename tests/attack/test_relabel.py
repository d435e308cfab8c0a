"""Relabellings beyond what a linear victim shows: draws, edges, refusals; and the region that is attacked alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from attack.stand_ins import LESION, ORGANS, normal, organs
from hypothesis import given, settings
from hypothesis import strategies as st
from runtime_types import unchecked
from scipy import ndimage

from medadv.attack.losses import LOSSES
from medadv.attack.objective import Away, Towards, dice_lost, dice_won
from medadv.attack.relabel import Draw, Fill, Grow, LeastLikely, Permute, Relabel, Shift, erase
from medadv.attack.rng import Rng
from medadv.attack.targets import Targets
from medadv.errors import ConfigError
from medadv.labels import BRATS_2018, LabelScheme
from medadv.victims.head import Head, Sigmoid, Softmax, Voxels

SOFTMAX, SIGMOID = Softmax(BRATS_2018), Sigmoid(BRATS_2018, ("WT", "TC", "ET"))
HEADS = pytest.mark.parametrize("head", [SOFTMAX, SIGMOID], ids=lambda head: head.name)
TISSUES = {1: "necrosis", 2: "oedema", 4: "enhancing", 0: "background"}


def glioma(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    draw = torch.randint(0, 4, shape, generator=torch.Generator().manual_seed(seed))
    return torch.tensor([0, 1, 2, 4])[draw]


def asked(relabel: Relabel, targets: Voxels, seed: int = 0) -> Targets:
    return relabel(targets, torch.zeros(0, 0, 0), Rng.seeded(seed, len(targets.truth)))


# Growing and shifting, any number of axes


@given(
    st.lists(st.integers(1, 7), min_size=1, max_size=3).flatmap(
        lambda shape: st.tuples(st.just(tuple(shape)), st.tuples(*[st.integers(0, 3)] * len(shape)))
    ),
    st.integers(0, 99),
)
@settings(max_examples=30)
def test_growing_is_scipys_dilation_by_a_box(shape_and_reach: tuple[tuple[int, ...], tuple[int, ...]], n: int) -> None:
    shape, reach = shape_and_reach
    truth = torch.where(normal((1, *shape), n) > 1.2, 1, 0)
    wanted = asked(Grow("L", reach), Voxels.of(Softmax(LESION), truth))
    box = np.ones([2 * r + 1 for r in reach])
    expected = ndimage.binary_dilation(truth[0].numpy() == 1, box)
    np.testing.assert_array_equal(wanted.truth[0].numpy() == 1, expected)
    np.testing.assert_array_equal(wanted.where[0].numpy(), expected & (truth[0].numpy() == 0))


@given(st.lists(st.integers(1, 6), min_size=1, max_size=3), st.data())
@settings(max_examples=30)
def test_shifting_is_slicing(shape: list[int], data: st.DataObject) -> None:
    by = tuple(data.draw(st.integers(-7, 7)) for _ in shape)
    truth = glioma((1, *shape), 3)
    expected = np.where(truth[0].numpy() == 0, 0, 2)  # oedema is left behind
    for place in np.ndindex(*shape):
        source = tuple(p - n for p, n in zip(place, by, strict=True))
        if all(0 <= p < size for p, size in zip(source, shape, strict=True)) and truth[0][source] != 0:
            expected[place] = truth[0][source]
    wanted = asked(Shift("WT", by, "oedema"), Voxels.of(SOFTMAX, truth))
    np.testing.assert_array_equal(wanted.truth[0].numpy(), expected)
    np.testing.assert_array_equal(wanted.where[0].numpy(), expected != truth[0].numpy())


def test_a_region_grows_by_its_first_tissue_and_swallows_what_lies_there() -> None:
    truth = torch.tensor([[0, 2, 1, 4, 2, 0]])
    wanted = asked(Grow("TC", 1), Voxels.of(SOFTMAX, truth))
    assert wanted.truth.tolist() == [[0, 1, 1, 4, 1, 0]]
    assert wanted.where.tolist() == [[False, True, False, False, True, False]]


# Permutations


@given(st.integers(0, 500), st.booleans())
@settings(max_examples=30)
def test_a_drawn_permutation_leaves_no_tissue_what_it_was(seed: int, background: bool) -> None:
    truth = glioma((2, 40), seed)
    wanted = asked(Permute(background=background), Voxels.of(SOFTMAX, truth), seed)
    for before, after in zip(truth, wanted.truth, strict=True):
        pairs = set(zip(before.tolist(), after.tolist(), strict=True))
        assert len(pairs) == 4  # a function, and one to one
        assert {after for _, after in pairs} == {0, 1, 2, 4}
        assert all(a != b for a, b in pairs if a or background)
        assert (0, 0) in pairs or background


def test_permutations_are_of_the_sample_and_not_of_its_mates() -> None:
    truth = torch.tensor([[1, 2, 4, 0]]).expand(6, -1)
    rng = Rng.seeded(3, list("abcdef"))
    relabel, every = Permute(), Voxels.of(SOFTMAX, truth)
    wanted = relabel(every, torch.zeros(0, 0, 0), rng)
    assert len({tuple(row) for row in wanted.truth.tolist()}) == 2  # three tissues have two derangements
    index = torch.tensor([4])
    alone = relabel(every.take(index), torch.zeros(0, 0, 0), rng.take(index))
    assert torch.equal(alone.truth, wanted.truth[index])


def test_only_absent_tissues_may_be_drawn() -> None:
    truth = torch.tensor([[0, 2, 2], [0, 1, 2]])
    for seed in range(8):
        first, second = asked(Permute(absent=True), Voxels.of(SOFTMAX, truth), seed).truth.tolist()
        assert first[1] == first[2]
        assert first[1] in (1, 4)
        assert second == [0, 4, 4]
    drawn = {asked(Permute(absent=True), Voxels.of(SOFTMAX, truth), seed).truth[0, 1].item() for seed in range(8)}
    assert drawn == {1, 4}
    with pytest.raises(ConfigError, match="too few tissues"):
        asked(Permute(absent=True), Voxels.of(Softmax(LESION), torch.zeros(1, 3, dtype=torch.int64)))


@HEADS
@pytest.mark.parametrize("where", ["changed", "everywhere"])
def test_who_shows_all_tissues_has_nothing_to_exchange(head: Head, where: str) -> None:
    wanted = asked(Permute(absent=True, where=where), Voxels.of(head, torch.tensor([[1, 2, 4], [0, 1, 2]])))
    assert not wanted.where[0].any()
    assert wanted.where[1].any()


def test_what_is_no_permutation_is_refused() -> None:
    for into in ({"oedema": "enhancing"}, {"oedema": "enhancing", "enhancing": "enhancing"}):
        with pytest.raises(ConfigError, match="no permutation"):
            Permute(into)
    with pytest.raises(ConfigError, match="no tissues of the labels") as refusal:
        asked(Permute({"WT": "oedema", "oedema": "WT"}), Voxels.of(SOFTMAX, glioma((1, 4))))
    assert refusal.value.details["got"] == ["WT"]
    with pytest.raises(ConfigError, match="too few tissues") as refusal:
        asked(Permute(), Voxels.of(Softmax(LESION), torch.zeros(1, 3, dtype=torch.int64)))
    assert "background=True" in str(refusal.value)


# Where


@HEADS
@pytest.mark.parametrize("where", ["changed", "everywhere", "TC"])
def test_void_targets_never_count(head: Head, where: str) -> None:
    truth = glioma((1, 30))
    targets = Voxels.of(head, truth)
    valid = normal(tuple(targets.labels.shape), 5) > 0
    raw = head.logits(normal((1, len(head.channels), 30), 6))
    for relabel in (Fill(where=where), LeastLikely(where), Grow("ET", 2, where=where), Draw(glioma((1, 30), 9), where)):
        counted = relabel(targets.within(valid), raw, Rng.seeded(0, 1)).where
        assert not (counted & ~valid).any()
        assert torch.equal(counted, relabel(targets, raw, Rng.seeded(0, 1)).where & valid)


def test_a_voxel_of_a_region_head_counts_with_all_its_regions() -> None:
    wanted = asked(Grow("ET", 1), Voxels.of(SIGMOID, torch.tensor([[2, 4, 0]])))
    assert wanted.labels.tolist() == [[[1, 1, 1], [1, 1, 1], [1, 1, 1]]]
    assert wanted.where.tolist() == [[[True, False, True]] * 3]


def test_numbers_of_other_axes_are_refused() -> None:
    targets = Voxels.of(SOFTMAX, glioma((1, 4, 4)))
    for relabel in (Shift("ET", (1, 0, 0)), Grow("ET", (1,))):
        with pytest.raises(ConfigError, match="another number of axes"):
            asked(relabel, targets)
    for make in (lambda: Grow("ET", -1), lambda: Grow("ET", 1.5), lambda: Shift("ET", ()), lambda: Shift("ET", "1")):
        with unchecked(), pytest.raises(ConfigError, match="whole"):
            make()


def test_a_list_of_voxels_is_a_vector() -> None:
    with unchecked():
        assert Shift("ET", [1, 0]) == Shift("ET", (1, 0))
        assert Grow("ET", [1, 0]) == Grow("ET", (1, 0))


# The least likely class that follows


def test_what_follows_is_won_when_it_has_left_the_first_labels() -> None:
    truth = organs((1, 6))
    targets = Voxels.of(Softmax(ORGANS), truth)
    rng = Rng.seeded(0, 1)
    right = torch.nn.functional.one_hot(targets.labels, 3).movedim(-1, 1).double()
    wrong = right.roll(1, 1)
    goal = Towards(LeastLikely(), merit=dice_won, follow=True).prepare(right, targets, rng)
    assert (goal(right, 0.0).merit.item(), goal(wrong, 0.0).merit.item()) == (0, 1)
    assert goal(wrong, 0.0).done
    half = torch.where(torch.arange(6) < 3, right, wrong)
    assert goal(half, 0.0).merit.item() == 0.5


def test_a_part_of_a_batch_follows_as_it_did_in_the_whole() -> None:
    raw, targets = normal((3, 3, 6, 5)), Voxels.of(Softmax(ORGANS), organs((3, 6, 5)))
    goal = Towards(LeastLikely("liver"), follow=True).prepare(raw, targets, Rng.seeded(0, 3))
    index, later = torch.tensor([2, 0]), normal((3, 3, 6, 5), seed=4)
    whole, part = goal(later, 0.5).take(index), goal.take(index)(later[index], 0.5)
    torch.testing.assert_close(part.value, whole.value)
    torch.testing.assert_close(part.merit, whole.merit)


# One region alone


@HEADS
@pytest.mark.parametrize("name", ["WT", "TC", "ET", "oedema", "necrosis"])
def test_the_probability_of_a_region_is_that_of_all_answers_that_are_painted_as_it(head: Head, name: str) -> None:
    answer = 2 * normal((1, len(head.channels), 12), 7)
    two = head.alone(head.logits(answer), name).softmax(1)[0, 1].numpy()
    z = answer[0].numpy()
    numbers = [number for number, tissue in TISSUES.items() if tissue in BRATS_2018.members(name)]
    if head.name == "softmax":
        shares = np.exp(z) / np.exp(z).sum(0)
        expected = sum(shares[[0, 1, 2, 4].index(n)] for n in numbers)
    else:
        p = 1 / (1 + np.exp(-z))
        if name in ("WT", "TC", "ET"):
            expected = p[("WT", "TC", "ET").index(name)]
        else:
            expected = np.zeros(12)
            for answers in product((0, 1), repeat=3):
                painted = 4 if answers[2] else 1 if answers[1] else 2 if answers[0] else 0
                if painted in numbers:
                    expected += np.prod([q if a else 1 - q for q, a in zip(p, answers, strict=True)], 0)
    np.testing.assert_allclose(two, expected, rtol=1e-12)


@HEADS
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", ["TC", "oedema"])
def test_the_gradient_of_a_region_alone_is_that_of_finite_differences(head: Head, loss: str, name: str) -> None:
    targets = Voxels.of(head, glioma((1, 5)))
    raw = head.logits(normal((1, len(head.channels), 5), 8)).requires_grad_()
    goal = Away(loss, region=name).prepare(raw.detach(), targets, Rng.seeded(0, 1))
    with unchecked():  # a hundred calls
        assert torch.autograd.gradcheck(lambda z: goal(z, 0.0).value, raw, eps=1e-6, atol=1e-6)


@HEADS
def test_merits_of_a_region_alone_are_of_the_region(head: Head) -> None:
    truth, said = torch.tensor([[4, 4, 4, 2, 0]]), torch.tensor([[4, 0, 2, 4, 0]])
    answer = 9.0 * head.encode(said) - 4.5 if head.grouped else torch.eye(4)[head.encode(said)].movedim(-1, 1) * 9
    raw = head.logits(answer.double())
    goal = Away(merit=dice_lost, region="ET").prepare(raw, Voxels.of(head, truth), Rng.seeded(0, 1))
    assert goal(raw, 0.0).merit.item() == pytest.approx(1 - 2 * 1 / (2 + 3))
    share = Away(region="ET").prepare(raw, Voxels.of(head, truth), Rng.seeded(0, 1))
    assert share(raw, 0.0).merit.item() == pytest.approx(3 / 5)


def test_a_region_alone_keeps_its_void_targets_and_its_batch() -> None:
    targets = Voxels.of(SIGMOID, glioma((3, 8)))
    valid = torch.tensor([True] * 5 + [False] * 3).expand(3, 3, 8)
    alone = targets.within(valid).alone("oedema")
    assert alone.where.tolist() == [[True] * 5 + [False] * 3] * 3
    part = alone.take(torch.tensor([1]))
    assert (part.only, part.grouped) == ("oedema", False)
    assert torch.equal(part.labels, alone.labels[1:2])
    assert torch.equal(part.region("oedema"), part.labels == 1)
    assert torch.equal(part.mapped(glioma((1, 8), 9)).labels, (glioma((1, 8), 9) == 2).long())


def test_what_a_head_cannot_tell_cannot_be_attacked_alone() -> None:
    head = Sigmoid(BRATS_2018, ("WT",))
    with pytest.raises(ConfigError, match="cannot tell 'necrosis'"):
        head.alone(torch.zeros(1, 2, 1, 4), "necrosis")


# Whose labels


@given(st.integers(0, 200))
@settings(max_examples=20)
def test_the_prediction_is_the_deployed_label_map(seed: int) -> None:
    """Regions that contradict each other (inside ET, outside WT) are labelled as they are painted."""
    for head in (SOFTMAX, SIGMOID):
        raw = head.logits(normal((1, len(head.channels), 20), seed))
        targets = Voxels.of(head, glioma((1, 20), seed)).decided(raw)
        assert torch.equal(targets.truth, head.decide(raw))
        assert torch.equal(targets.labels, head.encode(head.decide(raw)))


def test_an_erased_region_of_the_prediction_lies_where_the_victim_sees_it() -> None:
    raw = torch.eye(4)[torch.tensor([[3, 3, 0, 2]])].movedim(-1, 1)
    targets = Voxels.of(SOFTMAX, torch.tensor([[0, 4, 4, 0]]))
    for labels, where in (("truth", [False, True, True, False]), ("prediction", [True, True, False, False])):
        goal = Towards(erase("ET"), labels=labels).prepare(raw, targets, Rng.seeded(0, 1))
        assert goal.targets.where.tolist() == [where]


def test_of_its_own_answer_all_counts_whatever_the_expert_calls_void() -> None:
    scheme = LabelScheme("zoo", {"background": 0, "cat": 1}, {"C": ("cat",)}, void=255)
    truth = torch.tensor([[0, 255, 1]])
    for head in (Softmax(scheme), Sigmoid(scheme, ("C",))):
        own = Voxels.of(head, truth).decided(head.logits(normal((1, len(head.channels), 3))))
        assert own.where.all()
        assert own.alone("C").where.all()
        assert not Voxels.of(head, truth).where.all()


def test_labels_of_nobody_are_refused() -> None:
    for make in (Away, lambda labels: Towards(erase("ET"), labels=labels)):
        with unchecked(), pytest.raises(ConfigError, match="no such labels"):
            make(labels="guess")
    assert replace(Away(), labels="prediction") != Away()


@HEADS
def test_a_drawing_of_another_shape_is_refused(head: Head) -> None:
    truth = glioma((1, 6, 5))
    targets = Voxels.of(head, truth)
    for drawn, advice in ((truth[0], "truth[None]"), (truth[:, :5], None), (torch.cat([truth, truth]), None)):
        with pytest.raises(ConfigError, match=r"Draw\.truth") as refusal:
            asked(Draw(drawn), targets)
        assert (advice is None) == (refusal.value.details["try"] is None)
    with unchecked(), pytest.raises(ConfigError, match=r"Draw\.where"):
        asked(Draw(truth, truth[:, 1:] > 0), targets)
