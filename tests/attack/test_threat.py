"""What may change, held without tolerance: ball, legal range, support, and zeros that stay zeros."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from attack.stand_ins import normal
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from medadv.attack.budget import Budget, Unit
from medadv.attack.loop import near
from medadv.attack.rng import Rng
from medadv.attack.threat import Box, Linf

TINY = float(np.finfo(np.float32).tiny)

KINDS = {
    "stored integers": lambda r, n: r.integers(-1024, 4096, n),
    "shares": lambda r, n: r.random(n),
    "z-scores": lambda r, n: r.normal(size=n),
    "huge": lambda r, n: r.normal(size=n) * 1e30,
    "large offset": lambda r, n: 1e6 + r.normal(size=n),
    "denormal": lambda r, n: r.normal(size=n) * TINY / 8,
    "denormal among large": lambda r, n: np.where(r.random(n) < 0.5, r.normal(size=n) * TINY, r.normal(size=n) * 100),
    "spike": lambda r, n: np.where(r.random(n) < 0.1, 1e7, r.random(n)),
    "constant": lambda r, n: np.full(n, 0.1),
    "mostly zero": lambda r, n: np.where(r.random(n) < 0.7, 0.0, r.normal(size=n)),
    "negative zeros": lambda r, n: np.where(r.random(n) < 0.5, -0.0, r.normal(size=n)),
}


@dataclass(frozen=True)
class Scene:
    """A threat around clean inputs, and an input that comes from anywhere."""

    x: Tensor
    support: Tensor
    radius: float
    legal: object
    box: Box
    wild: Tensor
    projected: Tensor


@dataclass(frozen=True)
class Recipe:
    """What a scene is made of; drawn apart from it, because the run-time type checks draw random numbers themselves."""

    seed: int
    shape: tuple[int, ...]
    kind: str
    mask: str
    radius: float | str
    legal: str
    scale: float
    dtype: torch.dtype

    def scene(self) -> Scene:
        r = np.random.default_rng(self.seed)
        x = torch.tensor(KINDS[self.kind](r, self.shape), dtype=self.dtype)
        random = torch.tensor(r.random(self.shape) < 0.5)
        support = {"non-zero": x != 0, "random": random & (x != 0), "empty": torch.zeros_like(random)}[self.mask]
        reach = float(x.abs().max()) or 1.0
        relative = {"reach": reach, "a third": reach / 3, "ten": 10 * reach}
        radius = relative[self.radius] if isinstance(self.radius, str) else self.radius
        a, b = sorted(r.normal(size=2) * reach)
        legal = {"clean": "clean", "none": None, "pair": (a, b), "positive": (0.0, reach), "negative": (-reach, 0.0)}
        box = Linf(Budget(radius, Unit.STORED), legal[self.legal])(x, support)
        far = min(self.scale * (radius + reach / 100), 1e37)
        wild = x + torch.tensor(r.normal(size=self.shape), dtype=self.dtype) * far
        return Scene(x, support, radius, legal[self.legal], box, wild, box.project(wild))


def recipes(*dtypes: torch.dtype) -> st.SearchStrategy[Recipe]:
    return st.builds(
        Recipe,
        seed=st.integers(0, 2**32 - 1),
        shape=st.lists(st.integers(1, 6), min_size=3, max_size=5).map(lambda s: (min(s[0], 2), min(s[1], 3), *s[2:])),
        kind=st.sampled_from(sorted(KINDS)),
        mask=st.sampled_from(["non-zero", "random", "empty"]),
        radius=st.sampled_from([0.0, 0.3, 1e-6, 2.0**-24 - 2.0**-60, "reach", "a third", "ten"]) | st.floats(0, 1e30),
        legal=st.sampled_from(["clean", "none", "pair", "positive", "negative"]),
        scale=st.sampled_from([0.0, 0.1, 1.0, 10.0]),
        dtype=st.sampled_from(dtypes or [torch.float32]),
    )


@given(recipes(torch.float32, torch.float64))
def test_the_ball_is_exact(recipe: Recipe) -> None:
    scene = recipe.scene()
    change = (scene.projected.double() - scene.x.double()).abs()
    assert change.max() <= scene.radius


@given(recipes(torch.float32, torch.float64))
def test_the_legal_range_is_exact(recipe: Recipe) -> None:
    scene = recipe.scene()
    if scene.legal is None:
        return
    for i, j in np.ndindex(*scene.x.shape[:2]):
        clean, now = scene.x[i, j].double(), scene.projected[i, j].double()
        inside = clean[scene.support[i, j]]
        if inside.numel() == 0:
            continue
        low, high = (
            (inside.min(), inside.max()) if scene.legal == "clean" else torch.tensor(scene.legal, dtype=torch.float64)
        )
        assert (now >= clean.minimum(low))[scene.support[i, j]].all()
        assert (now <= clean.maximum(high))[scene.support[i, j]].all()


def bits(x: Tensor) -> Tensor:
    """The bytes as integers: -0.0 is not 0.0."""
    return x.view(torch.int32 if x.dtype == torch.float32 else torch.int64)


@given(recipes())
def test_outside_the_support_nothing_changes(recipe: Recipe) -> None:
    scene = recipe.scene()
    for moved in (scene.projected, scene.box.sample(Rng.seeded(0, len(scene.x)))):
        assert torch.equal(bits(moved)[~scene.support], bits(scene.x)[~scene.support])
    assert (scene.box.ascent(scene.wild)[~scene.support] == 0).all()


@given(recipes())
def test_zeros_stay_zero_and_others_stay_others(recipe: Recipe) -> None:
    scene = recipe.scene()
    assert torch.equal(scene.projected != 0, scene.x != 0)
    assert torch.equal(scene.box.sample(Rng.seeded(1, len(scene.x))) != 0, scene.x != 0)


@given(recipes())
def test_no_budget_or_no_support_means_no_change(recipe: Recipe) -> None:
    scene = recipe.scene()
    still = Linf(Budget(0.0), scene.legal)(scene.x, scene.support)
    empty = Linf(Budget(scene.radius, Unit.STORED), scene.legal)(scene.x, torch.zeros_like(scene.support))
    for box in (still, empty):
        for moved in (box.project(scene.wild), box.sample(Rng.seeded(0, len(scene.x)))):
            assert torch.equal(bits(moved), bits(scene.x))
        assert (box.size(scene.x) == 0).all()


@given(recipes())
def test_projection_keeps_what_is_allowed(recipe: Recipe) -> None:
    scene = recipe.scene()
    assert torch.equal(bits(scene.box.project(scene.projected)), bits(scene.projected))
    assert scene.box.inside(scene.projected).all()
    assert torch.equal(bits(scene.box.project(scene.x)), bits(scene.x))
    assert scene.box.inside(scene.x).all()


@given(recipes())
def test_projection_is_the_nearest_allowed_input(recipe: Recipe) -> None:
    """Voxel by voxel the distance is at most one rounding above that to the float64 box."""
    scene = recipe.scene()
    for i, j in np.ndindex(*scene.x.shape[:2]):
        where = scene.support[i, j]
        if not where.any():
            continue
        clean = scene.x[i, j].double()[where].numpy()
        if scene.legal == "clean":
            low, high = clean.min(), clean.max()
        else:
            low, high = scene.legal or (-np.inf, np.inf)
        nearest = np.clip(
            scene.wild[i, j].double()[where].numpy(),
            np.minimum(np.maximum(clean - scene.radius, low), clean),
            np.maximum(np.minimum(clean + scene.radius, high), clean),
        )
        rounding = np.maximum(np.abs(nearest) * 2.0**-23, 2 * TINY)
        assert (np.abs(scene.projected[i, j].double()[where].numpy() - nearest) <= rounding).all()


@given(recipes())
def test_samples_are_allowed_and_use_no_more_than_the_budget(recipe: Recipe) -> None:
    scene = recipe.scene()
    sample = scene.box.sample(Rng.seeded(7, len(scene.x)))
    assert scene.box.inside(sample).all()
    assert (scene.box.size(sample) <= 1).all()
    assert (scene.box.size(scene.projected) <= 1).all()


@given(recipes())
def test_inside_sees_one_step_too_far(recipe: Recipe) -> None:
    """Planted: the number next above the upper bound, in one voxel."""
    scene = recipe.scene()
    above = scene.projected.clone().flatten()
    place = int(scene.radius * 1e3) % above.numel()
    above[place] = scene.box.upper.flatten()[place].nextafter(torch.tensor(torch.inf))
    inside = scene.box.inside(above.view_as(scene.x))
    sample = place // scene.x[0].numel()
    assert not inside[sample]
    assert inside.sum() == len(scene.x) - 1


def test_bounds_hold_where_float64_rounds_too() -> None:
    """1 - (2**-24 - 2**-60) rounds in float64 to 1 - 2**-24, which float32 holds and which is outside the ball."""
    x, radius = torch.ones(1, 1, 4), 2.0**-24 - 2.0**-60
    for clean in (x, -x, x.double(), -x.double()):
        box = Linf(Budget(radius, Unit.STORED), None)(clean, clean != 0)
        for bound in (box.lower, box.upper):
            assert ((bound.double() - clean.double()).abs() <= radius).all()
            assert (bound.double() - clean.double()).abs().max() > 0 or clean.dtype == torch.float32


def test_naive_bounds_would_leave_the_ball() -> None:
    """The property above is not idle: plain float32 arithmetic breaks it on most voxels of a usual scan."""
    x = torch.rand(1, 1, 4000) * 4095
    assert (((x + 0.3).double() - x.double()).abs() > 0.3).double().mean() > 0.2
    assert (Linf(Budget(0.3, Unit.STORED), None)(x, x != 0).upper.double() - x.double()).max() <= 0.3


def test_bounds_are_tight() -> None:
    x = torch.rand(1, 1, 4000) * 4095 + 1
    box = Linf(Budget(0.3, Unit.STORED), None)(x, x != 0)
    farther = box.upper.nextafter(torch.tensor(torch.inf)).double() - x.double()
    assert (farther > 0.3).all()


def test_ascent_is_the_steepest_move_of_unit_budget() -> None:
    x, gradient = normal((2, 3, 4, 5)), normal((2, 3, 4, 5), seed=1)
    gradient[0, 0, 0] = 0
    support = normal((2, 3, 4, 5), seed=2) > 0
    box = Linf(Budget((0.1, 2.0, 30.0), Unit.STORED))(x, support)
    expected = np.sign(gradient.numpy()) * np.array([0.1, 2.0, 30.0])[None, :, None, None] * support.numpy()
    np.testing.assert_array_equal(box.ascent(gradient).numpy(), expected)


def test_size_and_zero_share_by_hand() -> None:
    x = torch.tensor([[[1.0, 2.0, 0.0, 4.0], [1.0, 1.0, 0.0, 0.0]]])
    box = Linf(Budget((0.5, 2.0), Unit.STORED), None)(x, x != 0)
    moved = x + torch.tensor([[[0.25, 0.0, 0.0, -0.125], [0.0, -1.5, 0.0, 0.0]]])
    assert box.size(moved).tolist() == [0.75]
    gradient = torch.tensor([[[0.0, 3.0, 0.0, -1.0], [0.0, 0.0, 5.0, 5.0]]])
    assert box.zero_share(gradient).item() == pytest.approx(0.6)  # three of the five voxels that may change


def test_a_change_without_a_budget_is_infinite() -> None:
    x = torch.ones(2, 1, 3)
    box = Linf(Budget(0.0, Unit.STORED))(x, x != 0)
    assert box.size(torch.stack([x[0], x[0] + 1])).tolist() == [0.0, float("inf")]


def test_a_part_of_the_batch_has_the_bounds_of_the_whole() -> None:
    x = normal((3, 2, 5))
    box = Linf(Budget(0.2))(x, x > -0.5)
    part, wild = box.take(torch.tensor([2, 0])), normal((3, 2, 5), seed=4)
    assert torch.equal(part.project(wild[[2, 0]]), box.project(wild)[[2, 0]])
    assert torch.equal(part.size(wild[[2, 0]]), box.size(wild)[[2, 0]])
    assert torch.equal(part.ascent(wild[[2, 0]]), box.ascent(wild)[[2, 0]])


def test_scaled_budgets_are_nested() -> None:
    x, support = normal((1, 1, 50)), torch.ones(1, 1, 50, dtype=torch.bool)
    threat = Linf(Budget(0.2, Unit.MINMAX))
    small, large = threat(x, support), threat.scaled(1.5)(x, support)
    torch.testing.assert_close(large.radius, small.radius * 1.5)
    assert ((large.lower <= small.lower) & (large.upper >= small.upper)).all()


def test_a_sample_depends_on_its_own_key_alone() -> None:
    x, support = normal((3, 1, 20)), torch.ones(3, 1, 20, dtype=torch.bool)
    threat, rng = Linf(Budget(0.5)), Rng.seeded(5, ["a", "b", "c"])
    together = threat(x, support).sample(rng)
    alone = threat(x[1:2], support[1:2]).sample(rng.take(torch.tensor([1])))
    assert torch.equal(together[1:2], alone)
    assert not torch.equal(together, threat(x, support).sample(rng.fork("other")))


def test_near_starts_at_the_nearest_allowed_input() -> None:
    x = torch.tensor([[[1.0, 2.0, 3.0]]])
    box = Linf(Budget(0.5, Unit.STORED), None)(x, x != 0)
    assert near(torch.tensor([[[9.0, 2.25, -9.0]]]))(box, Rng.seeded(0, 1)).tolist() == [[[1.5, 2.25, 2.5]]]


@pytest.mark.parametrize("value", [0.25, 2.0**-10, 50.0])
def test_a_voxel_that_would_land_on_zero_keeps_its_sign(value: float) -> None:
    x = torch.tensor([[[value, -value, 2 * value]]])
    box = Linf(Budget(value, Unit.STORED), None)(x, x != 0)
    assert box.zeros
    landed = box.project(torch.zeros(1, 1, 3))
    assert torch.equal(landed.sign(), torch.tensor([[[1.0, -1.0, 1.0]]]))
    assert landed[0, 0, :2].abs().max() <= TINY
    assert landed[0, 0, 2] == value
