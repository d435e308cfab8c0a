"""Batch mates, the moment a sample leaves, and the scale of a scan change nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from attack.stand_ins import curved, linear, normal, organs, scene
from torch import Tensor

from medadv.attack import loop
from medadv.attack.budget import Budget, Unit
from medadv.attack.loop import Attack, random
from medadv.attack.losses import dice_cross_entropy, logit_margin
from medadv.attack.objective import Away
from medadv.attack.presets import fgsm, ifgsm, mifgsm, pgd, tifgsm
from medadv.attack.relabel import erase
from medadv.attack.rng import Rng
from medadv.attack.steps import Momentum, Plain
from medadv.attack.threat import Linf
from medadv.victims.normalize import ZScore

SHAPE = (6, 5)


@dataclass(frozen=True, eq=False)
class Untiring:
    """A goal that is never done."""

    goal: object

    def __call__(self, raw: Tensor, progress: float) -> object:
        judgement = self.goal(raw, progress)
        return replace(judgement, done=torch.zeros_like(judgement.done))

    def take(self, index: Tensor) -> Untiring:
        return Untiring(self.goal.take(index))


@dataclass(frozen=True)
class NeverDone:
    """An objective whose samples never leave."""

    objective: Away

    def prepare(self, raw0: Tensor, targets: object, rng: Rng) -> Untiring:
        return Untiring(self.objective.prepare(raw0, targets, rng))


EASY = Away(logit_margin, pending=True)


@pytest.mark.parametrize("step", [Plain(0.1), Momentum(1.0, 0.1)])
def test_leaving_early_changes_nothing(step: Plain | Momentum, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SYNC_EVERY", 1)
    victim = linear(torch.ones(2, 1))
    x = normal((3, 2, 20)) * torch.tensor([0.3, 1.0, 9.0], dtype=torch.float64).view(3, 1, 1)
    truth = victim.predict(x)  # right everywhere at first: the first two finish at their own times, the third never
    wide = Linf(Budget(4.0, Unit.STORED), None)
    leaving = Attack(wide, EASY, step, 20)(victim, x, truth)
    staying = Attack(wide, NeverDone(EASY), step, 20)(victim, x, truth)
    torch.testing.assert_close(leaving.x, staying.x, rtol=0, atol=0)
    assert torch.equal(leaving.merit, staying.merit)
    left = leaving.trace["merit"].isnan().sum(0)
    assert left[0] > left[1] > left[2] == 0
    rows = leaving.trace["merit"]
    assert ((rows == staying.trace["merit"]) | rows.isnan()).all()


@pytest.mark.parametrize(
    "attack",
    [
        fgsm("0.2 sigma"),
        ifgsm("0.2 sigma", steps=12),
        mifgsm("0.2 sigma", steps=12),
        tifgsm("0.2 sigma", erase("liver"), steps=12),
        pgd("0.2 sigma", steps=12),
        Attack(Linf(Budget(2.0)), EASY, Momentum(1.0, 0.2), 25, random),
    ],
    ids=["fgsm", "ifgsm", "momentum", "targeted", "pgd", "leaving"],
)
def test_batch_mates_do_not_matter(attack: Attack) -> None:
    victim, x, truth = scene()
    x = x * torch.tensor([0.1, 1.0, 7.0], dtype=torch.float64).view(3, 1, 1, 1)
    rng = Rng.seeded(11, ["a", "b", "c"])
    together = attack(victim, x, truth, rng=rng)
    for i in range(3):
        part = torch.tensor([i])
        alone = attack(victim, x[part], truth[part], rng=rng.take(part))
        torch.testing.assert_close(together.x[part], alone.x, rtol=0, atol=1e-12)
        torch.testing.assert_close(together.merit[part], alone.merit, rtol=0, atol=1e-6, equal_nan=True)
        torch.testing.assert_close(together.size[part], alone.size)


@pytest.mark.parametrize(
    "attack",
    [
        fgsm("0.2 sigma"),
        mifgsm("0.1 sigma", steps=8),
        tifgsm("0.2 sigma", erase("liver"), steps=5, loss=dice_cross_entropy),
        pgd("0.02 p1-p99", steps=6),
    ],
    ids=["fgsm", "momentum", "targeted", "pgd"],
)
def test_the_scale_of_a_scan_does_not_matter(attack: Attack) -> None:
    """Exact, because a power of two rounds nothing. The background, whose gradient does not scale, has no say."""
    victim = replace(curved(), preprocess=ZScore())
    x, truth = normal((3, 2, *SHAPE)) + 2, organs((3, *SHAPE))
    x[:, :, :2] = 0
    assert torch.equal(attack(victim, x * 2**17, truth).x, attack(victim, x, truth).x * 2**17)


def test_each_sample_has_its_own_start_and_seed() -> None:
    victim, x, truth = scene()
    attack = Attack(Linf(Budget(0.3)), Away(), Plain(), 1, random, keep="last")
    same = [attack(victim, x, truth, rng=Rng.seeded(seed, 3)).x for seed in (1, 1, 2)]
    assert torch.equal(same[0], same[1])
    assert not torch.equal(same[0], same[2])
