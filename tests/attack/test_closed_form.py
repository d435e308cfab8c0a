"""On a linear victim the optimum in the box is known: each voxel goes to the bound that its weight's sign says."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from attack.stand_ins import linear, normal
from torch import Tensor

from medadv.attack.budget import Budget, Unit
from medadv.attack.loop import Attack
from medadv.attack.losses import cross_entropy, logit_margin
from medadv.attack.objective import Away, Towards
from medadv.attack.presets import fgsm, ifgsm, mifgsm, pgd
from medadv.attack.relabel import Draw
from medadv.attack.threat import Linf

SHAPES = {1: (23,), 2: (7, 5), 3: (4, 3, 5)}
RADII = (0.3, 0.05)
LEGAL = {"both sides": (-1.1, 1.4), "below": (-0.9, 1e9), "above": (-1e9, 0.7), "clean": "clean", "none": None}
ATTACKS = {
    "fgsm": fgsm("0 stored"),
    "ifgsm": ifgsm("0 stored", steps=7),
    "momentum": mifgsm("0 stored", steps=6),
    "pgd": replace(pgd("0 stored", steps=8), keep="last"),
}


def optimum(x: Tensor, uphill: Tensor, legal: object, where: Tensor) -> np.ndarray:
    """The corner of the box that a linear loss likes best, in NumPy, from the definitions alone."""
    clean, mask = x.numpy(), where.numpy()
    best = clean.copy()
    for sample, channel in product(range(clean.shape[0]), range(clean.shape[1])):
        here, inside = clean[sample, channel], mask[sample, channel]
        low, high = (here[inside].min(), here[inside].max()) if legal == "clean" else legal or (-np.inf, np.inf)
        low, high = np.minimum(low, here), np.maximum(high, here)  # what is already illegal may stay
        moved = np.clip(here + RADII[channel] * np.sign(uphill[sample, channel].numpy()), low, high)
        best[sample, channel] = np.where(inside, moved, here)
    return best


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("legal", LEGAL.values(), ids=LEGAL)
@pytest.mark.parametrize(("dimensions", "batch"), [(1, 1), (1, 3), (2, 1), (2, 3), (3, 1), (3, 3)])
def test_every_attack_reaches_the_optimum(name: str, legal: object, dimensions: int, batch: int) -> None:
    shape = SHAPES[dimensions]
    x, weight = normal((batch, 2, *shape), seed=1), normal((batch, 2, *shape), seed=2)
    weight[..., 0] = 0  # no weight: no reason to move
    truth = (normal((batch, *shape), seed=3) > 0).long()
    support = normal((batch, 2, *shape), seed=4) > -0.8
    wanted = (normal((batch, *shape), seed=5) > 0).long()
    everywhere = torch.ones_like(wanted, dtype=torch.bool)

    lesion_uphill = weight  # the lesion's logit climbs along its weights
    away = torch.where(truth.unsqueeze(1) == 1, -lesion_uphill, lesion_uphill)
    towards = torch.where(wanted.unsqueeze(1) == 1, lesion_uphill, -lesion_uphill)
    objectives = {
        Away(): away,
        Away(logit_margin): away,
        Towards(Draw(wanted, everywhere)): towards,
        Towards(Draw(wanted, everywhere), logit_margin): towards,
    }
    for objective, uphill in objectives.items():
        attack = replace(ATTACKS[name], threat=Linf(Budget(RADII, Unit.STORED), legal), objective=objective)
        found = attack(linear(weight), x, truth, support=support)
        expected = optimum(x, uphill, legal, support)
        if name == "pgd":  # a random start is not drawn back where there is no gradient
            flat = (weight == 0).numpy()
            assert (np.abs(found.x.numpy() - x.numpy())[flat & support.numpy()] > 0).any()
            expected[flat] = found.x.numpy()[flat]
        np.testing.assert_allclose(found.x.numpy(), expected, rtol=0, atol=1e-6)
        assert np.abs(expected - x.numpy()).max() > 0.2  # the figure means something


def test_the_radius_is_resolved_for_each_sample() -> None:
    x = normal((3, 1, 50)) * torch.tensor([1.0, 10.0, 1e5], dtype=torch.float64).view(3, 1, 1)
    found = fgsm("0.1 sigma")(linear(torch.ones(3, 1, 50, dtype=torch.float64) * 1e-5), x, torch.zeros(3, 50).long())
    low, high = x.amin(2, keepdim=True), x.amax(2, keepdim=True)
    expected = (x + 0.1 * x.std(2, correction=0, keepdim=True)).clamp(low, high)
    torch.testing.assert_close(found.x, expected, rtol=1e-14, atol=0)


def test_steps_come_back_when_the_gradient_turns() -> None:
    """The projection is of the iterate, not of the move: a voxel at the bound can leave it at the next step."""

    def answer(x: Tensor) -> Tensor:
        z = -((x[:, 0] - 0.55) ** 2)  # best at 0.55, whichever side one comes from
        return torch.stack([torch.zeros_like(z), z], 1)

    victim = replace(linear(torch.zeros(1)), answer=answer)
    x = torch.full((1, 1, 1), 0.1, dtype=torch.float64)
    attack = Attack(
        Linf(Budget(1.0, Unit.STORED), None),
        Away(cross_entropy),
        ifgsm("1 stored", size=0.2).step,
        steps=5,
        keep="last",
    )
    path = [replace(attack, steps=n)(victim, x, torch.zeros(1, 1).long()).x.item() for n in range(1, 6)]
    np.testing.assert_allclose(path, [0.3, 0.5, 0.7, 0.5, 0.7], atol=1e-12)
