"""What an attack doubts about its victim, each with a typed error and advice."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch
from attack.stand_ins import LESION, ORGANS, Stateless, linear, normal, organs, scene
from torch import Tensor, nn

from medadv.attack.checks import check_answer, check_labels, check_steady, check_support
from medadv.attack.presets import fgsm, ifgsm, pgd
from medadv.errors import ConfigError, GradientError, GradientWarning, VictimError
from medadv.victims.head import Sigmoid, Softmax
from medadv.victims.normalize import Unchanged
from medadv.victims.segmentation import Segmenter

SHAPE = (6, 5)


def wrapped(victim: Segmenter, last: nn.Module) -> Segmenter:
    """The same victim with another layer at its end."""
    return replace(victim, network=nn.Sequential(victim.network, last))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused(dtype: torch.dtype) -> None:
    victim, x, truth = scene()
    with pytest.raises(VictimError, match="precision") as refusal:
        fgsm("0.1 sigma")(victim, x.to(dtype), truth)
    assert "float()" in refusal.value.details["try"]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_voxels_that_are_not_finite_are_refused(bad: float) -> None:
    victim, x, truth = scene()
    x[1, 0, 2, 2] = bad
    with pytest.raises(VictimError, match="not finite"):
        fgsm("0.1 sigma")(victim, x, truth)


def test_a_support_of_another_shape_or_type_is_refused() -> None:
    x = torch.ones(2, 4, 5, 5)
    for support in (torch.ones(2, 1, 5, 5).bool(), torch.ones(5, 5).bool(), torch.ones_like(x)):
        with pytest.raises(ConfigError, match="support does not fit") as refusal:
            check_support(x, support)
        assert "expand_as(x)" in refusal.value.details["try"]
    check_support(x, x > 0)


def test_truth_on_another_grid_is_refused() -> None:
    victim, x, truth = scene()
    with pytest.raises(VictimError, match="different grids") as refusal:
        fgsm("0.1 sigma")(Stateless(lambda z: victim(z)[..., :2], victim.head), x, truth)
    assert "labels (3, 6, 5)" in refusal.value.details["got"]
    with pytest.raises(VictimError, match="without an axis of channels"):
        check_labels(victim(x), truth.unsqueeze(1))


class Nan(nn.Module):
    """Answers NaN in one voxel."""

    def forward(self, x: Tensor) -> Tensor:
        return x.index_fill(3, torch.tensor(2), torch.nan)


def test_an_answer_that_is_not_finite_is_refused() -> None:
    victim, x, truth = scene()
    with pytest.raises(VictimError, match="NaN or infinity on the clean input"):
        pgd("0.1 sigma", steps=2)(wrapped(victim, Nan()), x, truth)


@pytest.mark.parametrize("attack", [fgsm("0.1 sigma"), pgd("0.1 sigma", steps=2)], ids=["fgsm", "pgd"])
def test_softmax_at_the_end_is_refused(attack: object) -> None:
    victim, x, truth = scene()
    with pytest.raises(VictimError, match="probabilities instead of logits") as refusal:
        attack(wrapped(victim, nn.Softmax(1)), x, truth)
    assert "remove the last softmax or sigmoid" in refusal.value.details["try"]


def test_sigmoid_at_the_end_of_a_region_head_is_refused() -> None:
    torch.manual_seed(0)
    network = nn.Conv2d(2, 1, 3, padding=1).double()
    victim = Segmenter(network, Sigmoid(LESION, ("L",)), ("a", "b"), Unchanged())
    truth = (organs((3, *SHAPE)) > 0).long()
    fgsm("0.1 sigma")(victim, normal((3, 2, *SHAPE)), truth)  # as logits it is welcome
    with pytest.raises(VictimError, match="probabilities instead of logits"):
        fgsm("0.1 sigma")(wrapped(victim, nn.Sigmoid()), normal((3, 2, *SHAPE)), truth)


def test_logits_that_happen_to_lie_between_zero_and_one_are_welcome() -> None:
    check_answer(torch.rand(2, 3, 5) * 0.9)
    check_answer(torch.zeros(2, 3, 5))


class Noisy(nn.Module):
    """Draws new numbers at each call, in evaluation mode too."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * torch.randn_like(x)


def test_a_victim_that_answers_differently_is_refused() -> None:
    victim, x, _ = scene()
    victim.network.train()  # its dropout is switched off for the question
    check_steady(victim, x)
    check_steady(wrapped(victim, Noisy(1e-9)), x)  # rounding is no noise
    with pytest.raises(VictimError, match="differently between calls") as refusal:
        check_steady(wrapped(victim, Noisy(0.1)), x)
    assert "freeze its draws" in refusal.value.details["try"]
    assert victim.network.training


def test_a_constant_victim_is_steady() -> None:
    check_steady(Stateless(lambda x: torch.zeros(len(x), 2, 9, dtype=x.dtype)), normal((1, 1, 9)))


def test_a_detached_answer_is_refused() -> None:
    x, truth = normal((2, 1, 9)), torch.zeros(2, 9, dtype=torch.int64)
    for cut in (lambda z: z.detach(), lambda z: torch.tensor(z.detach().numpy()), torch.ones_like):
        victim = Stateless(lambda z, cut=cut: torch.stack([-cut(z)[:, 0], cut(z)[:, 0]], 1))
        with pytest.raises(GradientError, match="does not depend on its input") as refusal:
            ifgsm("0.1 sigma", steps=2)(victim, x, truth)
        assert "detach()" in refusal.value.details["likely cause"]


def root(x: Tensor) -> Tensor:
    """Its gradient is infinite at 0, and 0 · infinity is NaN."""
    z = (x[:, 0] * 0).sqrt() + x[:, 0]
    return torch.stack([-z, z], 1)


@pytest.mark.parametrize("attack", [fgsm("0.1 sigma"), ifgsm("0.1 sigma", steps=15), pgd("0.1 sigma", steps=4)])
def test_a_gradient_that_is_not_finite_names_its_samples(attack: object) -> None:
    x, truth = normal((3, 1, 9)), torch.zeros(3, 9, dtype=torch.int64)
    straight = linear(torch.ones(1))

    def answer(z: Tensor) -> Tensor:
        return torch.cat([straight(z[:1]), root(z[1:2]), straight(z[2:])])

    with pytest.raises(GradientError, match="not finite") as refusal:
        attack(Stateless(answer), x, truth)
    assert "samples [1]" in refusal.value.details["got"]


def test_a_gradient_that_breaks_on_the_way_is_seen_at_the_end() -> None:
    """Finite at the clean input, NaN as soon as a voxel has moved."""

    def answer(z: Tensor) -> Tensor:
        line = z[:, 0] * torch.where(z[:, 0] > 2.05, torch.nan, 1.0)
        return torch.stack([torch.zeros_like(line), line], 1)

    x, truth = torch.full((1, 1, 4), 2.0), torch.zeros(1, 4, dtype=torch.int64)
    attack = ifgsm("0.1 stored", steps=4, size=0.3)
    attack = replace(attack, threat=replace(attack.threat, legal=None))
    with pytest.raises(GradientError, match="not finite"):
        attack(Stateless(answer), x, truth)


def test_saturation_is_warned_of() -> None:
    """A distilled network: cross entropy's gradient is exactly zero, and the margin's is not."""
    victim = linear(torch.full((1, 1, 1), 1e5))
    x = normal((2, 1, 9)).float()
    truth = victim.predict(x)
    with pytest.warns(GradientWarning, match="100.0% of the gradients are exactly zero.*logit margin"):
        found = fgsm("0.01 sigma")(victim, x, truth)
    assert torch.equal(found.x, x)
    assert found.zero_gradient_share.tolist() == [1, 1]


def test_one_blind_sample_is_enough_for_a_warning() -> None:
    weight = torch.ones(3, 1, 9)
    weight[1] = 0
    x = normal((3, 1, 9)).float()
    with pytest.warns(GradientWarning, match="exactly zero"):
        found = ifgsm("0.1 sigma", steps=3)(linear(weight), x, torch.zeros(3, 9, dtype=torch.int64))
    assert found.zero_gradient_share.tolist() == [0, 1, 0]


def test_healthy_gradients_are_not_warned_of() -> None:
    victim, x, truth = scene()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = ifgsm("0.1 sigma", steps=3)(victim, x, truth)
    assert (found.zero_gradient_share < 0.01).all()
    assert Softmax(ORGANS) == victim.head
