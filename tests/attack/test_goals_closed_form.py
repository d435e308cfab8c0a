"""Each goal on a linear victim, both heads: which labels, where, and so which bound each voxel goes to.

Each class (softmax) or region (sigmoid) reads a modality of its own, so that the sign of every gradient is known:
the answers here are computed in NumPy, from the definitions alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from attack.stand_ins import Stateless, normal
from scipy import ndimage
from torch import Tensor

from medadv.attack.budget import Budget, Unit
from medadv.attack.losses import cross_entropy, logit_margin
from medadv.attack.objective import Away, Towards
from medadv.attack.presets import ifgsm
from medadv.attack.relabel import Draw, Fill, Grow, LeastLikely, Permute, Relabel, Shift, Turn, erase
from medadv.attack.steps import Plain
from medadv.attack.threat import Linf
from medadv.labels import BRATS_2018
from medadv.victims.head import Head, Sigmoid, Softmax

RADIUS = 0.4
SHAPE = (2, 7, 6)
NUMBERS = np.array([0, 1, 2, 4])
REGIONS = {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]}
HEADS: dict[str, Head] = {"softmax": Softmax(BRATS_2018), "sigmoid": Sigmoid(BRATS_2018, ("WT", "TC", "ET"))}
ATTACK = ifgsm(Linf(Budget(RADIUS, Unit.STORED), None), steps=4)

Map = np.ndarray
"""A label map in stored numbers, (b, *s)."""


def victim(head: Head) -> tuple[Stateless, np.ndarray]:
    """Each channel of the answer is its own modality times a weight; and the weights."""
    weight = normal((1, len(head.channels), *SHAPE[1:]), seed=11)
    return Stateless(lambda x: head.logits(weight * x), head), weight.numpy()


def decided(head: Head, z: np.ndarray) -> Map:
    """The deployed label map."""
    if head.name == "softmax":
        return NUMBERS[z.argmax(1)]
    out = np.zeros((len(z), *z.shape[2:]), int)
    for r, number in enumerate((2, 1, 4)):  # each region is painted over the larger one
        out[z[:, r] > 0] = number
    return out


def uphill(head: Head, weight: np.ndarray, labels: Map) -> np.ndarray:
    """Where each modality goes for the cross entropy of a label map to rise: the sign of weight · (p - y)."""
    own = (
        np.stack([labels == n for n in NUMBERS], 1)
        if head.name == "softmax"
        else np.stack([np.isin(labels, numbers) for numbers in REGIONS.values()], 1)
    )
    return np.sign(weight) * np.where(own, -1, 1)


def inside(labels: Map, name: str) -> np.ndarray:
    tissues = {"necrosis": [1], "oedema": [2], "enhancing": [4], "background": [0]}
    return np.isin(labels, (REGIONS | tissues)[name])


@dataclass(frozen=True)
class Wanted:
    """A relabelling and, from the definitions, what it makes of a label map and where it counts."""

    relabel: Relabel
    labels: Callable[[Map], Map]
    where: Callable[[Map, Map], np.ndarray]


def changed(before: Map, after: Map) -> np.ndarray:
    return before != after


def everywhere(before: Map, after: Map) -> np.ndarray:
    return np.ones_like(before, bool)


def of(name: str) -> Callable[[Map, Map], np.ndarray]:
    return lambda before, after: inside(before, name)


def grown(labels: Map, name: str, number: int, reach: tuple[int, int]) -> Map:
    mask = inside(labels, name)
    box = np.ones((1, 2 * reach[0] + 1, 2 * reach[1] + 1))
    return np.where(ndimage.binary_dilation(mask, box) & ~mask, number, labels)


def moved(labels: Map, name: str, by: tuple[int, int], behind: int) -> Map:
    out = np.where(inside(labels, name), behind, labels)
    for b, i, j in zip(*np.nonzero(inside(labels, name)), strict=True):
        k, m = i + by[0], j + by[1]
        if 0 <= k < labels.shape[1] and 0 <= m < labels.shape[2]:
            out[b, k, m] = labels[b, i, j]
    return out


def swapped(labels: Map) -> Map:
    return np.select([labels == 1, labels == 2, labels == 4], [2, 4, 1], labels)


DRAWN = NUMBERS[np.random.default_rng(5).integers(0, 4, SHAPE)]
CYCLE = {"necrosis": "oedema", "oedema": "enhancing", "enhancing": "necrosis"}

GOALS: dict[str, Wanted] = {
    "erase": Wanted(erase("TC"), lambda m: np.where(inside(m, "TC"), 0, m), of("TC")),
    "turn": Wanted(Turn("ET", "oedema"), lambda m: np.where(m == 4, 2, m), of("ET")),
    "all background": Wanted(Fill(), lambda m: np.zeros_like(m), changed),
    "all background everywhere": Wanted(Fill(where="everywhere"), lambda m: np.zeros_like(m), everywhere),
    "all oedema in WT": Wanted(Fill("WT", "WT"), lambda m: np.full_like(m, 2), of("WT")),
    "a permutation": Wanted(Permute(CYCLE), swapped, changed),
    "grow": Wanted(Grow("ET", 1), lambda m: grown(m, "ET", 4, (1, 1)), changed),
    "grow by a box": Wanted(Grow("TC", (0, 2), "enhancing"), lambda m: grown(m, "TC", 4, (0, 2)), changed),
    "shift": Wanted(Shift("WT", (2, -1)), lambda m: moved(m, "WT", (2, -1), 0), changed),
    "shift in tumour": Wanted(
        Shift("ET", (-1, 0), "necrosis", "everywhere"), lambda m: moved(m, "ET", (-1, 0), 1), everywhere
    ),
    "draw": Wanted(Draw(torch.from_numpy(DRAWN)), lambda m: DRAWN, changed),
    "draw in a region": Wanted(Draw(torch.from_numpy(DRAWN), "oedema"), lambda m: DRAWN, of("oedema")),
}


def scene(head: Head) -> tuple[Stateless, np.ndarray, Tensor, Tensor]:
    """A victim, its weights, an image and a truth that has little to do with the victim's answer."""
    network, weight = victim(head)
    x = normal((SHAPE[0], len(head.channels), *SHAPE[1:]), seed=12)
    truth = torch.tensor([0, 1, 2, 4])[torch.randint(0, 4, SHAPE, generator=torch.Generator().manual_seed(13))]
    return network, weight, x, truth


def labels_of(source: str, head: Head, weight: np.ndarray, x: Tensor, truth: Tensor) -> Map:
    return truth.numpy() if source == "truth" else decided(head, weight * x.numpy())


def moves(objective: Away | Towards, network: Stateless, x: Tensor, truth: Tensor) -> np.ndarray:
    """Where each voxel went, in radii."""
    found = replace(ATTACK, objective=objective)(network, x, truth)
    return np.asarray((found.x - x).numpy() / RADIUS)


@pytest.mark.parametrize("source", ["truth", "prediction"])
@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("goal", GOALS)
def test_a_goal_moves_each_voxel_to_its_bound(goal: str, kind: str, source: str) -> None:
    wanted, head = GOALS[goal], HEADS[kind]
    network, weight, x, truth = scene(head)
    before = labels_of(source, head, weight, x, truth)
    after = wanted.labels(before)
    where = wanted.where(before, after)
    expected = np.where(where[:, None], -uphill(head, weight, after), 0)
    found = moves(Towards(wanted.relabel, labels=source), network, x, truth)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert 0 < where.sum() <= where.size


@pytest.mark.parametrize("loss", [cross_entropy, logit_margin])
@pytest.mark.parametrize("kind", HEADS)
def test_away_goes_from_the_labels_that_the_attacker_has(kind: str, loss: object) -> None:
    head = HEADS[kind]
    network, weight, x, truth = scene(head)
    found = {}
    for source in ("truth", "prediction"):
        before = labels_of(source, head, weight, x, truth)
        found[source] = moves(Away(loss, labels=source), network, x, truth)
        expected = uphill(head, weight, before)
        if loss is cross_entropy or kind == "sigmoid":
            np.testing.assert_allclose(found[source], expected, atol=1e-9)
        else:  # of a margin only the label's own class and the best other one move, and that one may change
            own = np.stack([before == n for n in NUMBERS], 1)
            np.testing.assert_allclose(found[source][own], expected[own], atol=1e-9)
    assert not np.array_equal(found["truth"], found["prediction"])


@pytest.mark.parametrize("source", ["truth", "prediction"])
@pytest.mark.parametrize("region", ["WT", "TC", "ET", "oedema", "necrosis"])
@pytest.mark.parametrize("kind", HEADS)
def test_a_region_is_attacked_as_the_problem_of_its_inside_and_outside(kind: str, region: str, source: str) -> None:
    """Inside, what speaks for the region goes down and what speaks against it up; outside the other way round."""
    head = HEADS[kind]
    network, weight, x, truth = scene(head)
    before = labels_of(source, head, weight, x, truth)
    if kind == "softmax":
        tissues = ("background", "necrosis", "oedema", "enhancing")
        numbers = dict(zip(tissues, NUMBERS, strict=True))
        speaks = [1 if inside(np.array(numbers[tissue]), region) else -1 for tissue in tissues]
    else:
        speaks = {  # of WT, TC, ET; necrosis is painted where TC holds and ET does not, whatever WT says
            "WT": [1, 0, 0],
            "TC": [0, 1, 0],
            "ET": [0, 0, 1],
            "oedema": [1, -1, -1],
            "necrosis": [0, 1, -1],
        }[region]
    side = np.where(inside(before, region), -1, 1)
    expected = np.sign(weight) * side[:, None] * np.array(speaks)[None, :, None, None]
    found = moves(Away(labels=source, region=region), network, x, truth)
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("kind", HEADS)
def test_the_least_likely_class_is_fixed_or_follows_the_answer(kind: str, follow: bool) -> None:
    head = HEADS[kind]
    network, weight, x, truth = scene(head)

    def towards(z: np.ndarray) -> np.ndarray:
        if kind == "sigmoid":
            return -np.sign(weight) * np.sign(z)  # the other side
        least = np.arange(z.shape[1])[None, :, None, None] == z.argmin(1)[:, None]
        return np.sign(weight) * np.where(least, 1, -1)

    steps, size, clean = 5, 0.5, x.numpy()
    at, fixed = clean, towards(weight * clean)
    for _ in range(steps):
        way = towards(weight * at) if follow else fixed
        at = np.clip(at + size * RADIUS * way, clean - RADIUS, clean + RADIUS)
    attack = replace(ATTACK, objective=Towards(LeastLikely(), follow=follow), step=Plain(size), steps=steps)
    found = attack(network, x, truth)
    np.testing.assert_allclose(found.x.numpy(), at, atol=1e-9)
    if follow:
        assert not np.allclose(at, np.clip(clean + steps * size * RADIUS * fixed, clean - RADIUS, clean + RADIUS))
