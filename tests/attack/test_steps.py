"""How a gradient becomes a move, one step at a time."""

from __future__ import annotations

import pytest
import torch
from attack.stand_ins import normal

from medadv.attack.budget import Budget, Unit
from medadv.attack.steps import Momentum, Plain, State, Step
from medadv.attack.threat import Box, Linf

RADIUS = 0.5


def scene() -> tuple[Box, State]:
    """Three samples with a background that may not change, and a gradient that is largest there."""
    x, gradient = normal((3, 2, 6)), normal((3, 2, 6), seed=1)
    support = torch.ones_like(x, dtype=torch.bool)
    support[..., :2] = False
    gradient[..., :2] *= 1e6
    return Linf(Budget(RADIUS, Unit.STORED), None)(x, support), State(x, gradient, torch.zeros(3), 0, 4, {})


@pytest.mark.parametrize(("n", "share"), [(1, 1.0), (2, 1.0), (3, 2.5 / 3), (10, 0.25), (100, 0.025)])
def test_the_default_length_reaches_the_far_side(n: int, share: float) -> None:
    box, state = scene()
    for step in (Plain(), Momentum()):
        moved = step(State(state.x, state.gradient, state.value, 0, n, {}), box).x - state.x
        torch.testing.assert_close(moved, share * RADIUS * state.gradient.sign() * box.support)


@pytest.mark.parametrize("step", [Plain(0.3), Momentum(1.0, 0.3)])
def test_a_length_is_a_share_of_the_budget(step: Step) -> None:
    box, state = scene()
    moved = step(state, box).x - state.x
    torch.testing.assert_close(moved, 0.3 * RADIUS * state.gradient.sign() * box.support)


def test_each_gradient_counts_alike_whatever_its_size_and_whatever_the_background_says() -> None:
    box, state = scene()
    velocity = Momentum()(state, box).memory["velocity"]
    inside = state.gradient * box.support
    torch.testing.assert_close(velocity, inside / inside.abs().sum((1, 2), keepdim=True))
    large = State(state.x, state.gradient * 1e9, state.value, 0, 4, {})
    torch.testing.assert_close(Momentum()(large, box).memory["velocity"], velocity)


def test_velocity_decays() -> None:
    box, state = scene()
    once = Momentum(0.7)(state, box)
    again = Momentum(0.7)(once, box)
    torch.testing.assert_close(again.memory["velocity"], 1.7 * once.memory["velocity"])


def test_no_gradient_is_no_move() -> None:
    box, state = scene()
    still = State(state.x, torch.zeros_like(state.x), state.value, 0, 4, {})
    for step in (Plain(), Momentum()):
        assert torch.equal(step(still, box).x, state.x)


def test_steps_write_to_nothing_that_they_were_given() -> None:
    box, state = scene()
    state = Momentum()(state, box)
    before = (state.x.clone(), state.gradient.clone(), state.memory["velocity"].clone())
    for step in (Plain(), Momentum()):
        step(state, box)
    assert all(
        torch.equal(a, b) for a, b in zip(before, (state.x, state.gradient, state.memory["velocity"]), strict=True)
    )


def test_a_part_of_the_batch_has_its_own_state() -> None:
    box, state = scene()
    state = Momentum()(state, box)
    kept = torch.tensor([2, 0])
    part = Momentum()(state.take(kept), box.take(kept))
    whole = Momentum()(state, box)
    assert torch.equal(part.x, whole.x[kept])
    assert torch.equal(part.memory["velocity"], whole.memory["velocity"][kept])
