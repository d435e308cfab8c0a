"""Networks made of networks: their answers are means, their gradients exact, their cost is told."""

from __future__ import annotations

from itertools import chain, combinations

import pytest
import torch
from runtime_types import unchecked
from torch import Tensor, nn
from torch.nn import functional

from medadv.attack.presets import fgsm
from medadv.attack.victim import Passes
from medadv.errors import ConfigError, VictimError
from medadv.labels import BRATS_2018
from medadv.victims.combine import Mean, Mirrored, Scaled, Upsampled, passes
from medadv.victims.head import Softmax
from medadv.victims.normalize import Unchanged
from medadv.victims.segmentation import Segmenter, weights_digest
from medadv.victims.window import SlidingWindow, WholeVolume


def network(seed: int, axes: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    conv = nn.Conv3d if axes == 3 else nn.Conv2d
    return nn.Sequential(conv(2, 4, 3, padding=1), nn.GELU(), conv(4, 4, 3, padding=1)).double().eval()


def by_hand(net: nn.Module, axes: tuple[int, ...], x: Tensor) -> Tensor:
    flips = list(chain.from_iterable(combinations([a + 2 for a in axes], n) for n in range(len(axes) + 1)))
    return torch.stack([net(x.flip(f)).flip(f) for f in flips]).mean(0)


@pytest.mark.parametrize("axes", [(0,), (0, 2), (0, 1, 2)])
def test_mirroring_is_the_mean_over_all_mirror_images(axes: tuple[int, ...]) -> None:
    net, x = network(0), torch.randn(2, 2, 4, 5, 3, dtype=torch.float64, requires_grad=True)
    mirrored = Mirrored(net, axes)
    torch.testing.assert_close(mirrored(x), by_hand(net, axes, x), rtol=0, atol=1e-14)
    weight = torch.randn(2, 4, 4, 5, 3, dtype=torch.float64)
    (found,) = torch.autograd.grad((mirrored(x).sin() * weight).sum(), x)
    (wanted,) = torch.autograd.grad((by_hand(net, axes, x).sin() * weight).sum(), x)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-13)


def test_a_mirrored_answer_does_not_change_when_its_image_is_mirrored() -> None:
    mirrored, x = Mirrored(network(0), (1,)), torch.randn(1, 2, 4, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(mirrored(x.flip(3)), mirrored(x).flip(3), rtol=0, atol=1e-14)


def test_folds_answer_with_their_mean() -> None:
    folds = [network(seed) for seed in range(3)]
    x = torch.randn(1, 2, 4, 4, 4, dtype=torch.float64, requires_grad=True)
    wanted = sum(fold(x) for fold in folds) / 3
    torch.testing.assert_close(Mean(folds)(x), wanted, rtol=0, atol=1e-14)
    (found,) = torch.autograd.grad(Mean(folds)(x).square().sum(), x)
    torch.testing.assert_close(found, torch.autograd.grad(wanted.square().sum(), x)[0], rtol=0, atol=1e-12)


def test_each_window_is_mirrored_and_the_gradient_stays_exact() -> None:
    """A window grid is not symmetric: mirroring the windows is not mirroring the volume."""
    net = network(1, axes=2)
    x = torch.randn(1, 2, 7, 9, dtype=torch.float64) + 3
    victim = Segmenter(Mirrored(net, (0, 1)), Softmax(BRATS_2018), ("t1", "t2"), inference=SlidingWindow((4, 4), 0.4))
    leaf = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(victim(leaf).tanh().sum(), leaf)
    for place in [(0, 0, 0, 0), (0, 1, 3, 4), (0, 0, 6, 8)]:
        h = torch.zeros_like(x)
        h[place] = 1e-6
        change = (victim(x + h).tanh().sum() - victim(x - h).tanh().sum()) / 2e-6
        torch.testing.assert_close(found[place], change, rtol=1e-5, atol=1e-8)


def test_members_are_counted() -> None:
    net = Mirrored(Mean([network(0), network(1)]), (0, 1))
    assert (passes(net), passes(network(0))) == (8, 1)
    victim = Segmenter(net, Softmax(BRATS_2018), ("t1", "t2"))
    assert victim.answer_cost == Passes(forward=8)
    assert victim.gradient_cost == Passes(forward=16, backward=8)


def test_the_memory_of_a_gradient_does_not_grow_with_the_members() -> None:
    """What the graph keeps for the backward pass: the members' inputs, and not their activations."""

    def kept(net: nn.Module) -> int:
        sizes: list[int] = []
        x = torch.randn(1, 2, 8, 8, 8, dtype=torch.float64, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            net(x)
        return sum(sizes)

    # One member alone keeps more than eight that are answered again.
    assert kept(Mirrored(network(0), (0, 1, 2))) < kept(network(0)) * 4


@pytest.mark.parametrize("axes", [(), (0, 0), (-1,)])
def test_axes_that_are_none_are_refused(axes: tuple[int, ...]) -> None:
    with unchecked(), pytest.raises(ConfigError, match="each once"):
        Mirrored(network(0), axes)


def test_a_mean_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="no networks"):
        Mean([])


def test_a_scaled_network_says_so_many_times_what_its_layers_say() -> None:
    net, x = network(0), torch.randn(1, 2, 4, 5, 3, dtype=torch.float64)
    scaled = Scaled(net, 10.0)
    assert torch.equal(scaled(x), net(x) * 10)
    assert set(scaled.state_dict()) == {f"network.{name}" for name in net.state_dict()}
    assert "factor=10" in repr(scaled)
    assert passes(Scaled(Mean([net, net]), 2.0)) == 2


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_none_is_refused(factor: float) -> None:
    with pytest.raises(ConfigError, match="positive number"):
        Scaled(network(0), factor)


class Coarse(nn.Module):
    """Logits of a quarter of the size, among others."""

    def __init__(self, answers: str, axes: int = 2) -> None:
        super().__init__()
        self.answers = answers
        self.layers = (nn.Conv2d if axes == 2 else nn.Conv3d)(2, 4, 4, stride=4).double()

    def forward(self, x: Tensor) -> object:
        logits = self.layers(x)
        several = {"one": logits, "dictionary": {"out": logits, "aux": logits + 1}, "list": [logits + 1, logits]}
        return several[self.answers]


@pytest.mark.parametrize(("answers", "key"), [("one", "out"), ("dictionary", "out"), ("list", 1)])
@pytest.mark.parametrize("shape", [(8, 12), (8, 4, 8)])
def test_coarse_logits_are_picked_out_and_interpolated(answers: str, key: str | int, shape: tuple[int, ...]) -> None:
    net, x = Coarse(answers, len(shape)), torch.randn(2, 2, *shape, dtype=torch.float64)
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    expected = functional.interpolate(net.layers(x), shape, mode=mode, align_corners=False)
    fine = Upsampled(net, key)
    assert torch.equal(fine(x), expected)
    victim = Segmenter(fine, Softmax(BRATS_2018), ("t1", "t2"), Unchanged())
    assert torch.equal(victim(x), expected)
    assert passes(Upsampled(Mirrored(network(0), (0,)))) == 2
    assert f"key={key!r}" in repr(fine)


def test_logits_on_their_own_grid_stay_as_they_are() -> None:
    net, x = network(0, axes=2), torch.randn(1, 2, 5, 6, dtype=torch.float64)
    assert torch.equal(Upsampled(net)(x), net(x))


@pytest.mark.parametrize("inference", [WholeVolume(), SlidingWindow((8, 8))], ids=["whole", "windows"])
@pytest.mark.parametrize(("answers", "words"), [("one", "own grid|its input's grid"), ("dictionary", "several things")])
def test_what_needs_a_wrapper_is_told_which(answers: str, words: str, inference: WholeVolume | SlidingWindow) -> None:
    victim = Segmenter(Coarse(answers), Softmax(BRATS_2018), ("t1", "t2"), Unchanged(), inference)
    with unchecked(), pytest.raises(VictimError, match=words) as refusal:
        victim(torch.randn(1, 2, 8, 8, dtype=torch.float64))
    assert "Segmenter(Upsampled(network" in refusal.value.details["try"]


def test_an_answer_that_is_not_there_is_refused() -> None:
    x = torch.randn(1, 2, 8, 8, dtype=torch.float64)
    for net, key in ((Coarse("dictionary"), "logits"), (Coarse("list"), 2), (Coarse("list"), "out")):
        with unchecked(), pytest.raises(VictimError, match="nothing under this name"):
            Upsampled(net, key)(x)
    flat = nn.Sequential(nn.Flatten(), nn.LazyLinear(3, dtype=torch.float64))
    with unchecked(), pytest.raises(VictimError, match="else than logits over a grid"):
        Upsampled(flat)(x)


@pytest.mark.parametrize("axes", [2, 3])
def test_probabilities_are_refused_in_pictures_and_dictionaries(axes: int) -> None:
    class Sure(Coarse):
        def forward(self, x: Tensor) -> object:
            return {"out": self.layers(x).softmax(1)}

    victim = Segmenter(Upsampled(Sure("one", axes)), Softmax(BRATS_2018), ("t1", "t2"), Unchanged())
    x = torch.rand(1, 2, *(8,) * axes, dtype=torch.float64)
    with pytest.raises(VictimError, match="probabilities instead of logits"):
        fgsm("0.1 stored")(victim, x, victim.predict(x))


def test_a_network_left_in_training_is_attacked_as_it_is_deployed() -> None:
    net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5)).double().train()
    victim = Segmenter(Upsampled(net), Softmax(BRATS_2018), ("t1", "t2"), Unchanged())
    x = torch.rand(1, 2, 8, 8, dtype=torch.float64)
    before = weights_digest(net)
    found = fgsm("0.1 stored")(victim, x, victim.predict(x))
    assert net.training
    assert weights_digest(net) == before
    net.eval()
    assert torch.equal(fgsm("0.1 stored")(victim, x, victim.predict(x)).x, found.x)
