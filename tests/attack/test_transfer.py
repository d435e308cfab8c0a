"""Transfer: what was found for one victim, shown to another."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from attack.stand_ins import LESION, Stateless, curved, linear, normal, scene
from attack.test_loop import Counted
from runtime_types import unchecked
from torch import Tensor, nn

from medadv.attack.budget import Budget, Unit
from medadv.attack.loop import Attack, random
from medadv.attack.objective import Away, dice_lost, share_won
from medadv.attack.presets import fgsm, ifgsm, pgd
from medadv.attack.rng import Rng
from medadv.attack.steps import Plain
from medadv.attack.threat import Linf
from medadv.attack.victim import Passes
from medadv.attack.wrappers import Restarts, Transfer, WorstOf
from medadv.errors import ConfigError, GradientWarning, VictimError
from medadv.labels import BRATS_2018
from medadv.victims.head import Sigmoid, Softmax
from medadv.victims.segmentation import Segmenter

RADIUS = 0.3
BALL = Linf(Budget(RADIUS, Unit.STORED), None)
STREAMS = Rng.seeded(7, ["a", "b", "c"])
SHARE = Away(merit=share_won)


def other(seed: int = 5) -> Segmenter:
    """Another network for the same images."""
    victim = curved()
    torch.manual_seed(seed)
    for parameter in victim.network.parameters():
        nn.init.normal_(parameter, std=0.5)
    return victim


def test_on_linear_victims_it_is_the_sources_corner_and_the_victims_answer() -> None:
    x, own, source = (normal((2, 2, 40), seed) for seed in (1, 2, 3))
    truth = (normal((2, 40), 4) > 0).long()
    found = Transfer(fgsm(BALL), linear(source), SHARE)(linear(own), x, truth)
    away = np.where(truth.numpy() == 1, -1, 1)[:, None]
    corner = x.numpy() + RADIUS * np.sign(source.numpy()) * away
    np.testing.assert_allclose(found.x.numpy(), corner, rtol=0, atol=1e-12)
    said = (own.numpy() * corner).sum(1) > 0
    np.testing.assert_allclose(found.merit.numpy(), (said != truth.numpy()).mean(1), rtol=1e-6)
    direct = WorstOf([fgsm(BALL)], SHARE)(linear(own), x, truth)
    assert (direct.merit > found.merit).all()  # who knows the victim itself does better


def test_what_was_found_is_the_sources_own_record() -> None:
    victim, x, truth = scene()
    support = torch.rand(x.shape) < 0.6
    attack = Attack(Linf(Budget(0.2)), Away(merit=dice_lost), Plain(), 3, random)
    source = other()
    found = Transfer(attack, source)(victim, x, truth, support=support, rng=STREAMS)
    alone = attack(source, x, truth, support=support, rng=STREAMS)
    (part,) = found.parts
    for one, two in ((found.x, alone.x), (part.x, alone.x), (part.merit, alone.merit)):
        assert torch.equal(one, two)
    assert torch.equal(found.zero_gradient_share, alone.zero_gradient_share)
    assert torch.equal(found.size, alone.size)
    assert found.passes == alone.passes + Passes(2, 0)
    assert not torch.equal(found.merit, alone.merit)  # the victim asked for is not the source
    with torch.no_grad():
        goal = Away(merit=dice_lost).prepare(victim(x), victim.targets(truth), STREAMS)
        assert torch.equal(found.merit, goal(victim(found.x), 1.0).merit)


def test_transfer_from_the_victim_itself_is_the_attack() -> None:
    victim, x, truth = scene()
    attack = pgd(BALL, 4)
    found, itself = Transfer(attack, victim)(victim, x, truth), attack(victim, x, truth)
    assert torch.equal(found.x, itself.x)
    assert torch.equal(found.merit, itself.merit)


def test_the_victim_asked_for_gives_no_gradient() -> None:
    victim, x, truth = scene(batch=1)
    source = other()
    asked, attacked = Counted(victim.network), Counted(source.network)
    Transfer(ifgsm(BALL, 4), source)(victim, x, truth)
    assert asked.seen == {"forward": 2}
    assert attacked.seen == {"forward": 4, "backward": 4}


def test_transfer_finds_what_a_masked_gradient_hides() -> None:
    """The same network, its logits a thousand times larger: cross entropy is blind on it, and not on the plain one."""
    plain, x, _ = scene()
    plain.network.float()
    x = x.float()
    truth = plain.predict(x)
    masked = replace(plain, network=nn.Sequential(plain.network, Larger(1e5)))
    ball = Linf(Budget(0.5, Unit.STORED))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GradientWarning)
        blind = WorstOf([ifgsm(ball, 4)])(masked, x, truth)
    found = Transfer(ifgsm(ball, 4), plain)(masked, x, truth)
    assert (blind.zero_gradient_share > 0.5).all()
    assert (found.zero_gradient_share < 0.5).all()
    assert (found.merit > blind.merit + 0.1).all()
    worst = WorstOf([ifgsm(ball, 4, "logit margin"), Transfer(ifgsm(ball, 4), plain)])(masked, x, truth)
    assert (worst.merit >= found.merit).all()


class Larger(nn.Module):
    """Logits so many times larger."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


def test_another_head_serves_as_a_source() -> None:
    x = normal((2, 4, 6, 5))
    truth = torch.tensor([0, 1, 2, 4])[torch.randint(0, 4, (2, 6, 5))]
    regions, tissues = Sigmoid(BRATS_2018, ("WT", "TC", "ET")), Softmax(BRATS_2018)
    source = Stateless(lambda image: regions.logits(3 * image[:, 1:]), regions)
    victim = Stateless(lambda image: 3 * image, tissues)
    for one, two in ((source, victim), (victim, source)):
        found = Transfer(ifgsm(BALL, 3), one)(two, x, truth)
        assert torch.equal(found.x, ifgsm(BALL, 3)(one, x, truth).x)
        with torch.no_grad():
            goal = Away(merit=dice_lost).prepare(two(x), two.targets(truth), Rng.seeded(0, 2))
            assert torch.equal(found.merit, goal(two(found.x), 1.0).merit)


def test_a_source_of_other_images_is_refused_and_named() -> None:
    victim, x, truth = scene()
    with pytest.raises(VictimError, match="another number of modalities") as refusal:
        Transfer(pgd(BALL, 2), curved(channels=3))(victim, x, truth)
    assert "source of a transfer" in refusal.value.__notes__[0]
    with pytest.raises(VictimError) as refusal:
        Transfer(pgd(BALL, 2), victim)(curved(channels=3), x, truth)
    assert not hasattr(refusal.value, "__notes__")
    strange = truth.masked_fill(truth == 2, 7)
    with pytest.raises(VictimError, match="does not know"):
        Transfer(pgd(BALL, 2), other())(victim, x, strange)


def test_what_is_no_source_is_refused() -> None:
    with unchecked():
        with pytest.raises(VictimError, match="is no victim"):
            Transfer(pgd(BALL, 2), curved().network)
        victim, x, truth = scene()
        with pytest.raises(VictimError, match="is no victim"):
            Transfer(pgd(BALL, 2), victim)(victim.network, x, truth)
        with pytest.raises(ConfigError, match="is no attack"):
            Transfer(BALL, curved())


@dataclass(frozen=True, eq=False)
class Fussy(Stateless):
    """A victim that answers only when it has been prepared, and says with which streams it was."""

    seen: tuple[list[str], ...] = ()
    ready: bool = False

    def prepare(self, x0: Tensor, rng: Rng) -> Fussy:
        self.seen[0].append(rng.keys[0])
        return replace(self, ready=True)

    def __call__(self, x: Tensor) -> Tensor:
        assert self.ready
        return super().__call__(x)


def test_victims_are_prepared_anew_for_the_judge_with_streams_of_its_own() -> None:
    x, truth = normal((1, 1, 9)), torch.zeros(1, 9, dtype=torch.int64)
    answer = linear(10 * torch.ones(1)).answer
    victim, source = Fussy(answer, Softmax(LESION), seen=([],)), Fussy(answer, Softmax(LESION), seen=([],))
    rng = Rng.seeded(3, ["case"])
    Transfer(Restarts(pgd(BALL, 2), 2), source)(victim, x, truth, rng=rng)
    assert victim.seen[0] == ["3/case/judge"]
    assert source.seen[0] == ["3/case/victim", "3/case/restart 1/victim", "3/case/judge"]


def test_answers_that_cannot_be_judged_are_refused() -> None:
    """The victim asked for is looked at as an attacked one is, though no attack ran on it."""
    x, truth = normal((2, 2, 6, 5)), torch.zeros(2, 6, 5, dtype=torch.int64)
    source = Stateless(lambda image: 3 * image, Softmax(LESION))
    nan = Stateless(lambda image: image * torch.nan, Softmax(LESION))
    with pytest.raises(VictimError, match="NaN or infinity"):
        Transfer(fgsm(BALL), source)(nan, x, truth)
    coarse = Stateless(lambda image: image[:, :, ::2], Softmax(LESION))
    with pytest.raises(VictimError, match="different grids"):
        Transfer(fgsm(BALL), source)(coarse, x, truth)


def test_batch_mates_do_not_matter_and_both_victims_stay_as_they_were() -> None:
    victim, x, truth = scene()
    source = other()
    for network in (victim.network, source.network):
        network.train()
    before = [{k: v.clone() for k, v in n.state_dict().items()} for n in (victim.network, source.network)]
    attack = Transfer(Restarts(pgd(BALL, 3), 2), source)
    together = attack(victim, x, truth, rng=STREAMS)
    for i in range(3):
        part = torch.tensor([i])
        alone = attack(victim, x[part], truth[part], rng=STREAMS.take(part))
        torch.testing.assert_close(together.x[part], alone.x, rtol=0, atol=1e-12)
        torch.testing.assert_close(together.merit[part], alone.merit, rtol=0, atol=1e-6)
    for network, state in zip((victim.network, source.network), before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
        assert all(part.training for part in network.modules())
        assert all(parameter.grad is None for parameter in network.parameters())


def test_the_judge_sees_the_victim_in_evaluation_mode() -> None:
    """Batch statistics and dropout would make its answer another one for every batch."""
    victim, x, truth = scene()
    expected = Transfer(fgsm(BALL), other())(victim, x, truth).merit
    victim.network.train()
    assert torch.equal(Transfer(fgsm(BALL), other())(victim, x, truth).merit, expected)
