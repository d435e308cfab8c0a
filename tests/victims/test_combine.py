"""Networks made of networks: their answers are means, their gradients exact, their cost is told."""

from __future__ import annotations

from itertools import chain, combinations

import pytest
import torch
from runtime_types import unchecked
from torch import Tensor, nn

from medadv.attack.victim import Passes
from medadv.errors import ConfigError
from medadv.labels import BRATS_2018
from medadv.victims.combine import Mean, Mirrored, Scaled, passes
from medadv.victims.head import Softmax
from medadv.victims.segmentation import Segmenter
from medadv.victims.window import SlidingWindow


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
