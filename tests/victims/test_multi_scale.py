"""One network at several sizes: torch's interpolation, the base's own bits, fused logits and their gradients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from runtime_types import unchecked
from torch import Tensor, nn
from torch.nn import functional

from medadv.attack.presets import ifgsm
from medadv.attack.victim import Passes
from medadv.errors import ConfigError, VictimError
from medadv.labels import LabelScheme
from medadv.victims.checkpoint import load_victim, save_victim
from medadv.victims.combine import Scaled, passes
from medadv.victims.declared import Declared
from medadv.victims.defended import defended
from medadv.victims.formats.opening import open_victim
from medadv.victims.head import Softmax
from medadv.victims.multi_scale import MultiScale, MultiScaled
from medadv.victims.networks import Architecture, build_network
from medadv.victims.normalize import Unchanged
from medadv.victims.segmentation import Segmenter
from medadv.victims.window import SlidingWindow

SHAPES = [(8, 12), (8, 4, 8)]
THINGS = LabelScheme("things", {"background": 0, "disc": 1, "square": 2}, {})


def network(axes: int) -> nn.Module:
    torch.manual_seed(4)
    conv = nn.Conv2d if axes == 2 else nn.Conv3d
    return nn.Sequential(conv(2, 4, 3, padding=1), nn.GELU(), conv(4, 3, 3, padding=1)).double().eval()


def image(*shape: int) -> Tensor:
    return torch.randn(2, 2, *shape, dtype=torch.float64)


def by_torch(net: nn.Module, x: Tensor, scale: float) -> Tensor:
    mode = "bilinear" if x.ndim == 4 else "trilinear"
    small = functional.interpolate(x, [round(n * scale) for n in x.shape[2:]], mode=mode, align_corners=False)
    return functional.interpolate(net(small), x.shape[2:], mode=mode, align_corners=False)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fusion", ["max", "mean"])
def test_one_scale_of_one_is_the_base_itself(shape: tuple[int, ...], fusion: Any) -> None:
    net, x = network(len(shape)), image(*shape).requires_grad_()
    once = MultiScaled(net, MultiScale((1.0,), fusion))
    assert torch.equal(once(x), net(x))
    gradients = [torch.autograd.grad(one(x).square().sum(), x)[0] for one in (once, net)]
    assert torch.equal(*gradients)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fusion", ["max", "mean"])
def test_logits_of_all_scales_are_fused_on_the_inputs_grid(shape: tuple[int, ...], fusion: Any) -> None:
    net, x = network(len(shape)), image(*shape)
    each = torch.stack([by_torch(net, x, 0.5), by_torch(net, x, 0.75), net(x)])
    expected = each.amax(0) if fusion == "max" else each.mean(0)
    fused = MultiScaled(net, MultiScale(fusion=fusion))
    torch.testing.assert_close(fused(x), expected, rtol=0, atol=1e-14)
    assert not torch.allclose(expected, net(x), atol=0.05)


@pytest.mark.parametrize("shape", SHAPES)
def test_one_branch_is_a_victim_of_its_own(shape: tuple[int, ...]) -> None:
    net, x = network(len(shape)), image(*shape)
    torch.testing.assert_close(MultiScaled(net, MultiScale((0.5,)))(x), by_torch(net, x, 0.5), rtol=0, atol=1e-14)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fusion", ["max", "mean"])
def test_the_gradient_is_that_of_finite_differences(shape: tuple[int, ...], fusion: Any) -> None:
    fused, x = MultiScaled(network(len(shape)), MultiScale(fusion=fusion)), image(*shape)
    weight = torch.randn_like(fused(x))
    leaf = x.clone().requires_grad_()
    (found,) = torch.autograd.grad((fused(leaf).sin() * weight).sum(), leaf)
    for place in torch.randperm(x.numel())[:25].tolist():
        h = torch.zeros_like(x)
        h.view(-1)[place] = 1e-6
        change = ((fused(x + h).sin() - fused(x - h).sin()) * weight).sum() / 2e-6
        torch.testing.assert_close(found.view(-1)[place], change, rtol=1e-5, atol=1e-7)


class Marked(nn.Module):
    """Logits that tell the size of the input: 1 at half the size in class 0, at the full size in class 1."""

    def forward(self, x: Tensor) -> Tensor:
        half = float(x.shape[-1] == 4)
        ramp = x.sum(1, keepdim=True) * 1e-3
        return torch.cat([ramp + half, ramp + 1 - half, ramp], 1)


def test_the_gradient_of_a_maximum_goes_to_the_winning_scale_alone() -> None:
    x = torch.rand(1, 2, 8, 8, dtype=torch.float64).requires_grad_()
    fused = MultiScaled(Marked(), MultiScale((0.5, 1.0)))(x)
    (half,) = torch.autograd.grad(fused[:, 0].sum(), x, retain_graph=True)
    (full,) = torch.autograd.grad(fused[:, 1].sum(), x)
    (expected,) = torch.autograd.grad(by_torch(Marked(), x, 0.5)[:, 0].sum(), x)
    torch.testing.assert_close(half, expected, rtol=0, atol=1e-15)
    torch.testing.assert_close(full, torch.full_like(x, 1e-3), rtol=0, atol=1e-15)


def test_of_equal_logits_the_first_scale_has_the_whole_gradient() -> None:
    class Same(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            half = x.shape[-1] == 4
            return (x * 0 if half else x - x.detach()).sum(1, keepdim=True)

    x = torch.rand(1, 2, 8, 8, dtype=torch.float64).requires_grad_()
    for scales, share in (((0.5, 1.0), 0.0), ((1.0, 0.5), 1.0)):
        fused = MultiScaled(Same(), MultiScale(scales))(x)
        assert (fused == 0).all()
        assert torch.equal(torch.autograd.grad(fused.sum(), x)[0], torch.full_like(x, share))


def test_sizes_are_rounded_to_multiples_and_the_whole_one_never() -> None:
    setting = MultiScale((0.5, 0.75, 1.0), multiple=8)
    assert [setting.size(50, scale) for scale in setting.scales] == [24, 40, 50]
    assert setting.size(3, 0.5) == 8
    assert MultiScale((0.3,)).size(2, 0.3) == 1


def test_networks_that_halve_their_grid_answer_at_rounded_sizes() -> None:
    arguments = {"spatial_dims": 2, "channels": [4, 4, 4], "strides": [2, 2]}
    unet = build_network(Architecture(name="UNet", arguments=arguments), 2, 3).eval()
    x = torch.randn(1, 2, 24, 40)
    with pytest.raises(VictimError, match=r"at the scale 0\.75") as refusal:
        MultiScaled(unet, MultiScale((0.75,)))(x)
    assert "multiple=2**n" in refusal.value.details["try"]
    assert MultiScaled(unet, MultiScale((0.75,), multiple=4))(x).shape == (1, 3, 24, 40)


def test_an_answer_off_the_grid_is_refused_at_every_scale() -> None:
    halved = nn.Conv2d(2, 3, 2, stride=2)
    with pytest.raises(VictimError, match="does not answer on its input's grid"):
        MultiScaled(halved, MultiScale())(torch.zeros(1, 2, 8, 8))


def test_the_memory_of_a_gradient_does_not_grow_with_the_scales() -> None:
    """The graph keeps inputs and answers of each scale, and not their activations."""

    def kept(setting: MultiScale) -> int:
        sizes: list[int] = []
        conv = nn.Conv2d(2, 64, 3, padding=1)
        net = nn.Sequential(conv, *(nn.Sequential(nn.GELU(), nn.Conv2d(64, 64, 1)) for _ in range(4)))
        net.append(nn.Conv2d(64, 1, 1))
        x = torch.randn(1, 2, 16, 16, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            MultiScaled(net, setting)(x)
        return sum(sizes)

    assert kept(MultiScale((0.75, 0.9, 1.0))) < kept(MultiScale((1.0,))) / 4


def segmenter(axes: int, **settings: Any) -> Segmenter:
    return Segmenter(network(axes), Softmax(THINGS), ("red", "green"), Unchanged(), **settings)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_victim_at_several_scales_is_attacked_and_scored_as_one(shape: tuple[int, ...]) -> None:
    victim, x = segmenter(len(shape)), image(*shape)[:1]
    fused = defended(victim, MultiScale(fusion="mean"))
    assert torch.equal(fused(x), MultiScaled(victim.network, MultiScale(fusion="mean"))(x))
    assert torch.equal(fused.predict(x), fused.head.decide(fused(x)))
    assert passes(fused.network) == 3
    assert (fused.answer_cost, fused.gradient_cost) == (Passes(3, 0), Passes(6, 3))
    truth = fused.predict(x)
    found = ifgsm("0.5 stored", steps=3)(fused, x, truth, support=torch.ones_like(x, dtype=torch.bool))
    assert (fused.predict(found.x) != truth).double().mean() > 0.1


def test_inside_sliding_windows_each_window_is_seen_at_all_scales() -> None:
    x = image(12, 12)[:1]
    fused = defended(segmenter(2, inference=SlidingWindow((8, 8), 0.5)), MultiScale())
    leaf = x.clone().requires_grad_()
    weight = torch.randn_like(fused(x))
    (found,) = torch.autograd.grad((fused(leaf).sin() * weight).sum(), leaf)
    for place in [(0, 0, 3, 4), (0, 1, 11, 0), (0, 1, 6, 6)]:
        h = torch.zeros_like(x)
        h[place] = 1e-6
        change = ((fused(x + h).sin() - fused(x - h).sin()) * weight).sum() / 2e-6
        torch.testing.assert_close(found[place], change, rtol=1e-5, atol=1e-7)


def test_a_victim_at_several_scales_is_the_same_again_from_the_disk(tmp_path: Path) -> None:
    architecture = Architecture(arguments={"spatial_dims": 2, "channels": [4, 4], "strides": [2]})
    layers = build_network(architecture, 2, 3).eval()
    plain = Segmenter(Scaled(layers, 4.0), Softmax(THINGS), ("red", "green"), Unchanged())
    fused, x = defended(plain, MultiScale((0.5, 1.0), "mean")), torch.randn(1, 2, 8, 12)
    save_victim(fused, architecture, tmp_path)
    again = load_victim(tmp_path)
    assert torch.equal(again(x), fused(x))
    assert repr(again.network) == repr(fused.network)
    said = Declared(THINGS, ("red", "green"), network=architecture, normalise=Unchanged())
    assert torch.equal(open_victim(tmp_path, said)(x), fused(x))
    with pytest.raises(VictimError, match="already begins"):
        defended(again, MultiScale((0.5, 1.0), "mean"))
    assert passes(defended(again, MultiScale((0.5, 1.0))).network) == 4


def test_networks_at_other_scales_print_themselves_apart() -> None:
    net = network(2)
    settings = [MultiScale(), MultiScale(fusion="mean"), MultiScale((0.5,)), MultiScale(multiple=2)]
    assert len({repr(MultiScaled(net, setting)) for setting in settings}) == len(settings)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        *((lambda s=s: MultiScale(s), "positive numbers, each") for s in ((), (0.0,), (-1.0,), (1, 1.0), 0.5, "1")),
        *((lambda s=s: MultiScale(s), "positive") for s in ((float("nan"),), (float("inf"),), (True,), ("0.5",))),
        (lambda: MultiScale(fusion="sum"), "max or mean"),
        *((lambda m=m: MultiScale(multiple=m), "multiples of this") for m in (0, -2, 2.0, True)),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(make: Callable[[], object], words: str) -> None:
    with unchecked(), pytest.raises(ConfigError, match=words):
        make()
