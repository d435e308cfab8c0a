"""A support that holds zeros: the air around a head that is not skull-stripped, and all of a volume."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from attack.stand_ins import linear, normal
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from medadv.attack.budget import Budget, Unit
from medadv.attack.loop import near
from medadv.attack.presets import ifgsm, mifgsm
from medadv.attack.rng import Rng
from medadv.attack.threat import Linf


def head_in_air(seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Two modalities; half of the voxels are air, exactly zero, some of it -0.0."""
    x = 200 + 90 * normal((2, 2, 8, 8), seed)
    air = normal((2, 2, 8, 8), seed + 1) > 0
    sign = torch.where(normal((2, 2, 8, 8), seed + 2) > 1, -1.0, 1.0)
    return torch.where(air, 0 * sign, x).to(dtype)


EVERYWHERE = torch.ones(2, 2, 8, 8, dtype=torch.bool)


@given(st.integers(0, 500), st.sampled_from(["clean", None, (-100.0, 600.0), (0.0, 600.0)]), st.floats(0.1, 400))
@settings(max_examples=40)
def test_air_moves_freely_and_tissue_never_becomes_air(seed: int, legal: object, radius: float) -> None:
    x = head_in_air(seed)
    box = Linf(Budget(radius, Unit.STORED), legal)(x, EVERYWHERE)
    wild = x + 3 * radius * normal((2, 2, 8, 8), seed + 3).float()
    for y in (box.project(wild), box.sample(Rng.seeded(seed, 2)), box.project(torch.zeros_like(x)), box.project(-wild)):
        assert box.inside(y).all()
        assert not ((y == 0) & (x != 0)).any()
    y, air = box.project(wild), x == 0
    low, high = (
        (x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True))
        if legal == "clean"
        else (legal if isinstance(legal, tuple) else (-torch.inf, torch.inf))
    )
    nearest = wild.clamp(x - radius, x + radius).clamp(torch.as_tensor(low), torch.as_tensor(high))
    torch.testing.assert_close(y[air], nearest.clamp(-radius, radius)[air], rtol=1e-6, atol=1e-6)


def test_an_attack_on_the_whole_volume_uses_the_air() -> None:
    x = head_in_air(dtype=torch.float64)
    truth = torch.zeros(2, 8, 8, dtype=torch.int64)
    weight = torch.ones(1, 2, 1, 1, dtype=torch.float64)
    attack = replace(ifgsm("5 stored", steps=3), threat=Linf(Budget(5.0, Unit.STORED), None))
    found = attack(linear(weight), x, truth, support=EVERYWHERE)
    torch.testing.assert_close(found.x, x + 5)
    left = attack(linear(weight), x, truth)
    assert torch.equal(left.x == 0, x == 0)


def test_sigma_is_that_of_the_support() -> None:
    x = head_in_air(dtype=torch.float64)
    for support in (EVERYWHERE, x != 0, x > 200):
        box = Linf(Budget(0.5))(x, support)
        for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
            voxels = x[i, j][support[i, j]]
            assert box.radius[i, j].item() == pytest.approx(0.5 * voxels.std(correction=0).item())


@pytest.mark.parametrize("make", [ifgsm, mifgsm])
def test_modalities_outside_the_support_stay_what_they_are_to_the_last_bit(make: object) -> None:
    x = head_in_air()
    support = (x != 0) & torch.tensor([False, True]).view(1, 2, 1, 1)
    attack = make("0.4 sigma", steps=5)
    found = attack(
        linear(torch.tensor([0.03, 0.02]).view(1, 2, 1, 1)),
        x,
        torch.zeros(2, 8, 8, dtype=torch.int64),
        support=support,
    )
    assert torch.equal(found.x[:, 0].view(torch.int32), x[:, 0].view(torch.int32))
    assert (found.x[:, 1] != x[:, 1]).any()
    box = attack.threat(x, support)
    assert box.radius[:, 0].tolist() == [0, 0]
    assert box.radius[:, 1].gt(0).all()
    elsewhere = near(x + 1)(box, Rng.seeded(0, 2))
    assert torch.equal(elsewhere[:, 0], x[:, 0])
