"""What targets say of their truth, so that one goal serves label maps and objects alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import pytest
import torch
from attack.stand_ins import LESION, ORGANS, Stateless, normal, organs
from torch import Tensor

from medadv.attack.exchange import Exchange
from medadv.attack.presets import dag, fgsm_ll, ifgsm, tifgsm
from medadv.attack.relabel import Draw, Fill, Grow, LeastLikely, Permute, Rank, Relabel, Shift, Turn, erase
from medadv.attack.rng import Rng
from medadv.attack.shape import Shape
from medadv.errors import ConfigError
from medadv.labels import BRATS_2018, LabelScheme
from medadv.objects import Objects
from medadv.victims.head import Sigmoid, Softmax, Voxels

VOID = LabelScheme("void", ORGANS.numbers, ORGANS.regions, 255)


@dataclass(frozen=True, eq=False)
class Boxed:
    """Targets that objects label: the first of each sample's targets, in order; no label map anywhere."""

    truth: tuple[Objects, ...]
    labels: Tensor
    where: Tensor
    scheme: LabelScheme = ORGANS
    grouped: bool = False

    @classmethod
    def of(cls, truth: Sequence[Objects], n: int = 6) -> Boxed:
        labels, where = torch.zeros(len(truth), n, dtype=torch.int64), torch.zeros(len(truth), n, dtype=torch.bool)
        for i, objects in enumerate(truth):
            labels[i, : len(objects)], where[i, : len(objects)] = ORGANS.classes(objects.labels), True
        return cls(tuple(truth), labels, where)

    def logits(self, raw: Tensor) -> Tensor:
        return raw

    def decided(self, raw: Tensor) -> Boxed:
        return replace(self, labels=raw.argmax(1))

    def alone(self, region: str) -> NoReturn:
        raise NotImplementedError

    def region(self, name: str) -> Tensor:
        return ORGANS.mask(ORGANS.stored(self.labels), name) & self.where

    def present(self) -> list[frozenset[str]]:
        names = {number: name for name, number in ORGANS.numbers.items()}
        return [frozenset(names[n] for n in each.labels.tolist()) for each in self.truth]

    def renumbered(self, tables: Sequence[Mapping[int, int]]) -> Boxed:
        truth = [each.renumbered(table) for each, table in zip(self.truth, tables, strict=True)]
        return replace(Boxed.of(truth, self.labels.shape[1]), where=self.where)

    def mapped(self, truth: Tensor) -> NoReturn:
        raise AssertionError("a goal that renames asks for no label map")

    def labelled(self, labels: Tensor) -> Boxed:
        return replace(self, labels=labels)

    def within(self, where: Tensor) -> Boxed:
        return replace(self, where=where)

    def take(self, index: Tensor) -> Boxed:
        truth = tuple(self.truth[i] for i in index.tolist())
        return replace(self, truth=truth, labels=self.labels[index], where=self.where[index])


class Detecting(Stateless):
    """Six targets a picture, scored by a linear look at it."""

    def targets(self, truth: Sequence[Objects]) -> Boxed:
        return Boxed.of(truth)


def objects(*numbers: int) -> Objects:
    return Objects(torch.zeros(len(numbers), 4), torch.tensor(numbers, dtype=torch.int64))


TRUTH = [objects(2, 5, 2), objects(5), objects()]


def detector() -> Detecting:
    weight = normal((3, 6, 40), 9)
    return Detecting(lambda x: torch.einsum("cnp,bp->bcn", weight, x.flatten(1)), Softmax(ORGANS))


def test_a_label_map_says_which_tissues_it_shows() -> None:
    truth = torch.tensor([[0, 2, 255], [5, 5, 255], [0, 2, 5]])
    expected = [{"background", "liver"}, {"spleen"}, {"background", "liver", "spleen"}]
    assert Voxels.of(Softmax(VOID), truth).present() == expected
    assert Voxels.of(Sigmoid(BRATS_2018, ("WT",)), torch.tensor([[4, 4]])).present() == [{"enhancing"}]


def test_numbers_change_at_once_and_each_sample_by_its_own_table() -> None:
    targets = Voxels.of(Softmax(VOID), torch.tensor([[0, 2, 5, 255], [0, 2, 5, 255]]))
    turned = targets.renumbered([{2: 5, 5: 2}, {0: 2}])
    assert turned.truth.tolist() == [[0, 5, 2, 255], [2, 2, 5, 255]]
    assert turned.labels.tolist() == [[0, 2, 1, 0], [1, 1, 2, 0]]
    assert torch.equal(turned.where, targets.where)
    assert targets.truth.tolist() == [[0, 2, 5, 255]] * 2
    alone = Voxels.of(Softmax(VOID), targets.truth, "both").within(targets.truth == 2)
    assert alone.renumbered([{2: 0}, {}]).labels.tolist() == [[0, 0, 1, 0], [0, 1, 1, 0]]
    assert torch.equal(alone.renumbered([{}, {}]).where, targets.truth == 2)


@pytest.mark.parametrize(
    "goal", [Turn("both", "background"), Fill("spleen"), Permute({"liver": "spleen", "spleen": "liver"})]
)
def test_void_voxels_stay_void(goal: Relabel) -> None:
    truth = torch.where(organs((2, 9)) == 2, organs((2, 9), 1), 255)
    targets = Voxels.of(Softmax(VOID), truth)
    wanted = goal(targets, normal((2, 3, 9)), Rng.seeded(0, 2))
    assert not wanted.where[truth == 255].any()
    assert wanted.where.any()


@pytest.mark.parametrize(
    ("goal", "labels", "where"),
    [
        (erase("liver"), [0, 2, 0], [1, 0, 1]),
        (Turn("spleen", "liver"), [1, 1, 1], [0, 1, 0]),
        (Fill("spleen"), [2, 2, 2], [1, 0, 1]),
        (Permute({"liver": "spleen", "spleen": "liver"}), [2, 1, 2], [1, 1, 1]),
        (Permute(), [2, 1, 2], [1, 1, 1]),  # of two there is one
    ],
)
def test_goals_that_rename_serve_objects(goal: Relabel, labels: list[int], where: list[int]) -> None:
    wanted = goal(Boxed.of(TRUTH), normal((3, 3, 6)), Rng.seeded(0, 3))
    assert wanted.labels[0, :3].tolist() == labels
    assert wanted.where[0].tolist() == [*map(bool, where), False, False, False]
    assert not wanted.where[2].any()


def test_absent_classes_are_asked_of_the_objects() -> None:
    wanted = Permute(absent=True)(Boxed.of([objects(5, 5)]), normal((1, 3, 6)), Rng.seeded(0, 1))
    assert wanted.labels[0, :2].tolist() == [1, 1]
    wanted = Permute(absent=True)(Boxed.of([objects(2, 5)]), normal((1, 3, 6)), Rng.seeded(0, 1))
    assert not wanted.where.any()  # nothing is left to exchange them for


def test_goals_of_the_answer_serve_objects() -> None:
    raw = normal((3, 3, 6))
    order = raw.sort(1, descending=True).indices
    for goal, rank in ((LeastLikely(), 2), (Rank(3), 2), (Rank(2), 1)):
        assert torch.equal(goal(Boxed.of(TRUTH), raw, Rng.seeded(0, 3)).labels, order[:, rank])


@pytest.mark.parametrize(
    "goal",
    [Grow("liver", 1), Shift("liver", (1, 0)), Draw(torch.zeros(3, 4, 4, dtype=torch.int64)), Shape("square", "liver")],
)
def test_goals_that_draw_refuse_objects(goal: Relabel) -> None:
    with pytest.raises(ConfigError, match="draws on a label map"):
        goal(Boxed.of(TRUTH), normal((3, 3, 6)), Rng.seeded(0, 3))


def test_what_is_attacked_by_objects_is_attacked_as_all_else() -> None:
    """Also beside a sample without objects, of which nothing is left to win."""
    victim, x = detector(), normal((3, 1, 8, 5))
    for attack in (ifgsm("0.5 sigma", 4), tifgsm("0.5 sigma", erase("liver"), 4), fgsm_ll("0.5 sigma")):
        found = attack(victim, x, TRUTH)
        assert (found.trace["value"][-1] >= found.trace["value"][0]).all()
        assert not torch.equal(found.x[:2], x[:2])
    found = dag("0.05 sigma", Permute(), 100)(victim, x, TRUTH)
    assert torch.equal(found.x[2], x[2])
    assert found.merit.tolist() == [1, 1, 1]
    assert found.trace["active"][0].tolist()[2] == 0
    swapped = [objects(5, 2, 5), objects(2), objects()]
    seen, own = victim(found.x).argmax(1), Boxed.of(TRUTH)
    assert (seen != own.labels)[own.where].all()
    released = dag("0.05 sigma", Permute(), 100, active="released")(victim, x, TRUTH)
    assert torch.equal(victim(released.x).argmax(1)[own.where], Boxed.of(swapped).labels[own.where])


def test_an_exchange_of_nothing_is_won() -> None:
    goal = Exchange(Fill("lesion")).prepare(
        torch.zeros(1, 2, 4), Voxels.of(Softmax(LESION), torch.ones(1, 4, dtype=torch.int64)), Rng.seeded(0, 1)
    )
    judged = goal(normal((1, 2, 4)), 0.0)
    assert (judged.value.item(), judged.merit.item(), judged.done.item()) == (0, 1, True)
