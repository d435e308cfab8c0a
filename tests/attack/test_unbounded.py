"""A threat whose steps are measured and whose sum is not; and what a grey level is worth."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from attack.stand_ins import curved, linear, normal, organs
from hypothesis import given, settings
from hypothesis import strategies as st
from runtime_types import unchecked

from medadv.attack.budget import Budget, Unit
from medadv.attack.exchange import Exchange
from medadv.attack.loop import Attack, random
from medadv.attack.losses import logit_margin
from medadv.attack.objective import Away
from medadv.attack.presets import fgsm
from medadv.attack.relabel import Fill
from medadv.attack.rng import Rng
from medadv.attack.steps import Momentum, Plain
from medadv.attack.threat import Box, Linf
from medadv.attack.unbounded import Space, Unbounded
from medadv.errors import BudgetError, ConfigError


def space(
    gamma: float | tuple[float, ...], shape: tuple[int, ...] = (2, 3, 7), dtype: torch.dtype = torch.float64
) -> Space:
    x = (normal(shape) * 50).to(dtype)
    return Unbounded(Budget(gamma, Unit.STORED))(x, normal(shape, 1) > -0.5)


@given(st.sampled_from([torch.float32, torch.float64]), st.floats(1e-3, 1e3), st.floats(1e-12, 1e6), st.integers(0, 9))
@settings(max_examples=15)
def test_a_move_is_as_long_as_gamma(dtype: torch.dtype, gamma: float, scale: float, seed: int) -> None:
    model = space(gamma, dtype=dtype)
    gradient = (normal((2, 3, 7), seed + 2) * scale).to(dtype)
    move = model.ascent(gradient)
    lengths = move.abs().flatten(1).amax(1).double()
    torch.testing.assert_close(lengths, torch.full_like(lengths, gamma), rtol=1e-5, atol=0)
    assert not move[~model.support].any()
    inside = gradient * model.support
    expected = gamma * inside / inside.abs().flatten(1).amax(1).view(2, 1, 1)
    torch.testing.assert_close(move, expected, rtol=1e-5, atol=0)


def test_no_gradient_is_no_move() -> None:
    model = space(0.5)
    gradient = normal((2, 3, 7), 5)
    gradient[0] = 0
    gradient[1] = torch.where(model.support[1], 0, gradient[1])  # none where it may change
    assert not model.ascent(gradient).any()
    assert not space(0.0).ascent(normal((2, 3, 7))).any()


def test_modalities_are_measured_in_their_own_gamma() -> None:
    """Stored in other units, modality by modality, the same scan is attacked alike."""
    gammas = (0.1, 2.0, 30.0)
    model = space(gammas)
    gradient = normal((2, 3, 7), 5)
    units = torch.tensor([10.0, 0.5, 3.0], dtype=torch.float64).view(1, 3, 1)
    other = Unbounded(Budget(tuple(g * u for g, u in zip(gammas, units.flatten().tolist(), strict=True)), Unit.STORED))
    there = other(model.clean * units, model.support)
    torch.testing.assert_close(there.ascent(gradient / units), model.ascent(gradient) * units, rtol=1e-12, atol=0)
    shares = model.ascent(gradient).abs() / torch.tensor(gammas, dtype=torch.float64).view(1, 3, 1)
    torch.testing.assert_close(shares.flatten(1).amax(1), torch.ones(2, dtype=torch.float64))


def test_inside_is_finite_legal_and_in_the_support() -> None:
    x = torch.tensor([[[0.0, 10.0, 200.0, 300.0]]])
    support = torch.tensor([[[False, True, True, True]]])
    for legal, high in ((None, 1e30), ((5.0, 255.0), 255.0), ("clean", 300.0)):
        model = Unbounded(Budget(1.0, Unit.STORED), legal)(x, support)
        assert model.inside(x).all()  # also what is already illegal
        far = model.project(torch.full_like(x, 1e30))
        assert model.inside(far).all()
        expected = torch.tensor([0.0, high, high, max(high, 300.0)])
        assert torch.equal(far[0, 0], expected)
        low = model.project(torch.full_like(x, -1e30))[0, 0]
        assert torch.equal(low[1:], torch.full((3,), {255.0: 5.0, 300.0: 10.0}.get(high, -1e30)))
        for strange in (torch.inf, torch.nan):
            assert not model.inside(torch.where(support, strange, x)).any()
        assert not model.inside(x + torch.tensor([1.0, 0, 0, 0])).any()
    assert not Unbounded(Budget(1.0), (5.0, 255.0))(x, support).inside(x - torch.tensor([0, 6.0, 0, 0])).any()


def test_size_counts_steps() -> None:
    model = space((0.5, 1.0, 2.0))
    change = torch.zeros_like(model.clean)
    change[0, 0, 1], change[0, 2, 3], change[1, 1, 0] = 3.0, -4.0, 7.0
    torch.testing.assert_close(model.size(model.clean + change), torch.tensor([6.0, 7.0], dtype=torch.float64))
    assert model.size(model.clean).tolist() == [0, 0]


def test_a_part_of_the_batch_is_what_it_was() -> None:
    model = space(0.5)
    part, gradient = model.take(torch.tensor([1])), normal((2, 3, 7), 5)
    assert type(part) is Space
    assert torch.equal(part.ascent(gradient[1:]), model.ascent(gradient)[1:])


def test_a_random_start_is_within_one_step() -> None:
    model = space(0.5)
    start = model.sample(Rng.seeded(0, 2))
    assert 0.3 < model.size(start).min() <= model.size(start).max() <= 1
    assert model.inside(start).all()
    assert not torch.equal(model.sample(Rng.seeded(1, 2)), start)


@pytest.mark.parametrize("step", [Plain(1.0), Momentum(0.5, 1.0)])
def test_the_sum_of_steps_has_no_bound_but_their_number(step: Plain | Momentum) -> None:
    victim = linear(torch.ones(1, dtype=torch.float64))
    x, truth = normal((2, 1, 9)) + 5, torch.ones(2, 9, dtype=torch.int64)
    found = Attack(Unbounded(Budget(0.25, Unit.STORED)), Away(logit_margin), step, 13, keep="last")(victim, x, truth)
    torch.testing.assert_close(found.x, x - 13 * 0.25)
    torch.testing.assert_close(found.size, torch.full((2,), 13.0, dtype=torch.float64))


def test_every_step_is_as_long_as_gamma_in_an_attack_in_float32() -> None:
    """Prefixes of one another: the difference of two runs is a step."""
    victim = curved()
    victim.network.float()
    x, truth = normal((1, 2, 6, 5)).float(), organs((1, 6, 5))
    attack = Attack(Unbounded(Budget(0.02, Unit.STORED)), Exchange(Fill("liver")), Plain(1.0), 1, random, "last")
    ends = [
        Attack(attack.threat, attack.objective, attack.step, n, random, "last")(victim, x, truth).x
        for n in (1, 2, 3, 4)
    ]
    for before, after in pairwise(ends):
        assert (after - before).abs().max().item() == pytest.approx(0.02, rel=1e-5)


@pytest.mark.parametrize("kind", [Linf, Unbounded])
def test_grey_levels_share_the_span_where_no_range_is_legal(kind: type[Linf] | type[Unbounded]) -> None:
    x = torch.rand(2, 3, 5, 4) * 100 + 20
    everywhere = torch.ones_like(x, dtype=torch.bool)
    eight = Budget.parse("8 0-255")
    for legal, span, expected in [
        (None, (0, 255), 8.0),
        (None, (0, 510), 16.0),
        ((0, 2550), (0, 255), 80.0),  # a legal pair says it already
        ("clean", (0, 255), 8.0),
    ]:
        radius = kind(eight, legal, span)(x, everywhere).radius
        torch.testing.assert_close(radius, torch.full_like(radius, expected))
    widths = (x.flatten(2).amax(2) - x.flatten(2).amin(2)).double()
    torch.testing.assert_close(kind(eight, None)(x, everywhere).radius, 8 / 255 * widths)


def test_threats_are_settings() -> None:
    with unchecked():
        assert Unbounded("0.5 0-255") == Unbounded(Budget(0.5, Unit.GREY), None, None)
        assert Unbounded("1 stored").scaled(3.0) == Unbounded("3 stored")
        assert type(Unbounded("1 stored").scaled(3.0)) is Unbounded
        assert Linf("1 stored", None) != Unbounded("1 stored")
        assert Linf("1 stored", span=(0, 255)).scaled(2.0) == Linf("2 stored", span=(0, 255))
        assert type(Linf("1 stored")(normal((1, 1, 3)), normal((1, 1, 3)) != 0)) is Box
        assert fgsm(Unbounded("1 stored")).threat == Unbounded("1 stored")


def test_what_is_no_threat_is_advice() -> None:
    with unchecked():
        for span in ((255, 0), (0.0,), "clean", (3, 3)):
            with pytest.raises(ConfigError, match="no such range"):
                Unbounded("1 stored", None, span)
        with pytest.raises(ConfigError, match="no legal range"):
            Unbounded("1 stored", (3, 1))
        with pytest.raises(BudgetError):
            Unbounded("8/255")
        assert Unbounded("1 stored", [0, 255], [0, 255]) == Unbounded("1 stored", (0, 255), (0, 255))


def test_no_voxel_becomes_exactly_zero() -> None:
    x = torch.tensor([[[0.0, 1.0, -1.0]]])
    model = Unbounded(Budget(1.0, Unit.STORED))(x, x != 0)
    moved = model.project(torch.zeros_like(x))
    assert (moved[0, 0] == 0).tolist() == [True, False, False]
    assert model.inside(moved).all()
    assert not model.inside(torch.zeros_like(x)).any()
