"""Windows answer as MONAI's do, and their gradient is that of full autograd through all of them."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from monai.inferers import sliding_window_inference
from monai.networks.nets import UNet
from runtime_types import unchecked
from torch import Tensor, nn

from medadv.errors import ConfigError, VictimError
from medadv.victims.window import SlidingWindow, WholeVolume

CASES = [
    *product([(11, 8)], [(5, 4)], [0.25, 0.5, 0.75], ["gaussian", "constant"]),
    *product(
        [(3, 9), (3, 2)], [(5, 4)], [0.5], ["gaussian", "constant"]
    ),  # smaller than the window in one axis, in both
    *product([(7, 4, 6)], [(4, 4, 4)], [0.25, 0.5, 0.75], ["gaussian", "constant"]),
    *product([(7, 3, 6), (2, 3, 3)], [(4, 4, 4)], [0.5], ["gaussian"]),
    *product([(8, 8)], [(4, 4)], [0.0], ["constant"]),
]


def network(dimensions: int, channels: int = 2, classes: int = 3) -> nn.Module:
    """Bent, with a wide view, and unlike at a window's border."""
    torch.manual_seed(5)
    conv = nn.Conv2d if dimensions == 2 else nn.Conv3d
    layers = nn.Sequential(conv(channels, 5, 3, padding=1), nn.GELU(), conv(5, classes, 3, padding=1))
    return layers.double().requires_grad_(False)


def reference(way: SlidingWindow, layers: nn.Module, z: Tensor) -> Tensor:
    return sliding_window_inference(
        z, way.roi, way.batch, lambda w: layers(w), overlap=way.overlap, mode=way.blend, padding_mode="constant"
    )


def loss(logits: Tensor) -> Tensor:
    """Not linear, so that the loss's gradient differs from voxel to voxel."""
    return (logits.softmax(1)[:, 0] * logits.tanh()[:, 1]).square().sum() + logits[:, 2].sin().sum()


@pytest.mark.parametrize(("shape", "roi", "overlap", "blend"), CASES)
@pytest.mark.parametrize(("samples", "batch"), [(1, 1), (2, 3)])
def test_values_are_monais_and_the_gradient_is_that_of_full_autograd(
    shape: tuple[int, ...], roi: tuple[int, ...], overlap: float, blend: str, samples: int, batch: int
) -> None:
    layers, way = network(len(shape)), SlidingWindow(roi, overlap, blend, batch)
    z = torch.randn(samples, 2, *shape, dtype=torch.float64, requires_grad=True)
    ours, theirs = way(layers, z), reference(way, layers, z)
    torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-10)
    torch.testing.assert_close(way(layers, z.detach()), ours.detach(), rtol=0, atol=0)
    (found,) = torch.autograd.grad(loss(ours), z)
    (expected,) = torch.autograd.grad(loss(theirs), z)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-10)


def test_the_gradient_is_that_of_finite_differences() -> None:
    layers, way = network(2), SlidingWindow((3, 3), 0.5, "gaussian", 2)
    z = torch.randn(2, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: way(layers, v), z)


def test_gradients_of_windows_alone_would_be_found_out() -> None:
    """The planted fault: one window at a time, each with its own loss, as attacks on tiles do."""
    layers, way = network(2), SlidingWindow((4, 4), 0.5, "constant")
    z = torch.randn(1, 2, 6, 4, dtype=torch.float64, requires_grad=True)
    tiles = loss(layers(z[..., :4, :])) + loss(layers(z[..., 2:, :]))
    (wrong,) = torch.autograd.grad(tiles, z)
    (right,) = torch.autograd.grad(loss(reference(way, layers, z)), z)
    assert (wrong - right).abs().max() > 1e-2 * right.abs().max()


def test_one_window_of_the_volumes_size_is_the_whole_volume() -> None:
    layers, z = network(2), torch.randn(2, 2, 6, 5, dtype=torch.float64)
    for blend in ("gaussian", "constant"):
        torch.testing.assert_close(SlidingWindow((6, 5), 0.5, blend)(layers, z), layers(z), rtol=1e-7, atol=1e-10)


def test_the_batch_of_windows_does_not_matter() -> None:
    layers, z = network(3), torch.randn(1, 2, 7, 6, 5, dtype=torch.float64)
    answers = [SlidingWindow((4, 4, 4), 0.5, "gaussian", batch)(layers, z) for batch in (1, 2, 5, 100)]
    for other in answers[1:]:
        torch.testing.assert_close(other, answers[0], rtol=0, atol=1e-13)


def test_memory_holds_the_graph_of_one_window() -> None:
    """What is alive between the windows: the graph of all of them is never built."""
    seen: list[int] = []
    alive = 0

    class Watch(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            nonlocal alive
            alive += torch.is_grad_enabled() or x.requires_grad
            seen.append(alive)
            return x.clone()

        @staticmethod
        def backward(ctx: object, g: Tensor) -> Tensor:
            nonlocal alive
            alive -= 1
            return g

    layers, way = network(2), SlidingWindow((4, 4), 0.5, batch=1)
    z = torch.randn(1, 2, 10, 10, dtype=torch.float64, requires_grad=True)
    loss(way(lambda w: layers(Watch.apply(w)), z)).backward()
    assert len(seen) == 2 * 16
    assert max(seen) == 1
    loss(reference(way, nn.Sequential(layers), z)).backward()


def test_the_recomputation_keeps_the_callers_autocast() -> None:
    """Outside autocast the windows would be differentiated in float32, which is another function."""
    layers = network(2).float()
    z = torch.randn(1, 2, 8, 6, requires_grad=True)
    seen: list[torch.dtype] = []

    def watched(w: Tensor) -> Tensor:
        answer = layers(w)
        seen.append(answer.dtype)
        return answer

    with torch.autocast("cpu", torch.bfloat16):
        value = loss(SlidingWindow((4, 4))(watched, z))
    value.backward()
    assert set(seen) == {torch.bfloat16}
    seen.clear()
    loss(SlidingWindow((4, 4))(watched, z)).backward()
    assert set(seen) == {torch.float32}


def test_a_plan_made_in_inference_mode_serves_training() -> None:
    layers = network(2).requires_grad_(True)
    way = SlidingWindow((4, 3), 0.4)
    z = torch.randn(1, 2, 9, 7, dtype=torch.float64)
    with torch.inference_mode():
        way(layers, z)
    loss(way(layers, z)).backward()
    found = layers[0].weight.grad.clone()
    layers.zero_grad()
    loss(reference(way, layers, z)).backward()
    torch.testing.assert_close(found, layers[0].weight.grad, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("shape", [(8, 6), (7, 5), (1, 3), (5, 4, 3)])
@pytest.mark.parametrize("multiple", [1, 2, 4])
def test_whole_volumes_are_padded_with_zeros_and_cut_back(shape: tuple[int, ...], multiple: int) -> None:
    layers = network(len(shape))
    z = torch.randn(2, 2, *shape, dtype=torch.float64, requires_grad=True)
    sizes: list[tuple[int, ...]] = []

    def watched(w: Tensor) -> Tensor:
        sizes.append(tuple(w.shape[2:]))
        return layers(w)

    answer = WholeVolume(multiple)(watched, z)
    assert answer.shape == (2, 3, *shape)
    assert sizes == [tuple(-(-n // multiple) * multiple for n in shape)]
    larger = torch.zeros(2, 2, *sizes[0], dtype=torch.float64)
    inside = (..., *(slice(n) for n in shape))
    larger[inside] = z.detach()
    torch.testing.assert_close(answer, layers(larger)[inside])
    assert torch.autograd.grad(loss(answer), z)[0].abs().min() > 0


@pytest.mark.parametrize(
    "fault",
    [
        {"roi": (-1, 4)},
        {"sigma": 0.0},
        {"overlap": 1.0},
        {"overlap": -0.1},
        {"batch": 0},
        {"blend": "gausian"},
        {"grid": "nunet"},
    ],
)
def test_windows_that_cannot_be_laid_are_refused(fault: dict[str, object]) -> None:
    with unchecked(), pytest.raises(ConfigError, match="cannot be laid"):
        SlidingWindow(**({"roi": (4, 4)} | fault))


def test_windows_and_volumes_of_other_axes_are_refused() -> None:
    with pytest.raises(VictimError, match="another number of axes"):
        SlidingWindow((4, 4))(network(3), torch.zeros(1, 2, 5, 5, 5, dtype=torch.float64))


def test_a_network_that_changes_the_grid_is_refused() -> None:
    halved = nn.Conv2d(2, 3, 2, stride=2).double()
    with pytest.raises(VictimError, match="does not answer on its input's grid") as refusal:
        SlidingWindow((4, 4))(halved, torch.zeros(1, 2, 8, 8, dtype=torch.float64))
    assert "answers of (2, 2) to inputs of (4, 4)" in refusal.value.details["got"]
    assert "roi" in refusal.value.details["try"]


@pytest.mark.parametrize("way", [WholeVolume(), SlidingWindow((25, 25, 25))])
def test_an_answer_on_a_larger_grid_is_refused_and_never_cropped(way: WholeVolume | SlidingWindow) -> None:
    """A network that answers five voxels more an axis, and a UNet of stride 2 on an odd grid: 25 → 13 → 26."""
    x = torch.randn(1, 1, 25, 25, 25)
    widened = nn.Conv3d(1, 2, 1, padding=5 // 2 + 1)
    halving = UNet(3, 1, 2, channels=(2, 4), strides=(2,))
    for layers, size in ((widened, 31), (halving, 26)):
        assert layers(x).shape[2:] == (size,) * 3
        with pytest.raises(VictimError, match="does not answer on its input's grid") as refusal:
            way(layers, x)
        assert f"({size}, {size}, {size}) to inputs of (25, 25, 25)" in refusal.value.details["got"]
        assert "2**n" in refusal.value.details["try"]
    assert WholeVolume(2)(halving, x).shape == (1, 2, 25, 25, 25)


@pytest.mark.parametrize("multiple", [0, -4, 2.0])
def test_paddings_that_cannot_be_laid_are_refused(multiple: object) -> None:
    with unchecked(), pytest.raises(ConfigError, match="padded to multiples"):
        WholeVolume(multiple)


def test_a_list_is_a_window_and_a_number_is_none() -> None:
    with unchecked():
        listed = SlidingWindow([4, 5])
    assert listed == SlidingWindow((4, 5))
    layers, z = network(2), torch.randn(1, 2, 6, 7, dtype=torch.float64)
    assert torch.equal(listed(layers, z), SlidingWindow((4, 5))(layers, z))
    for roi in (16, "16", (16.0, 16.0), None):
        with unchecked(), pytest.raises(ConfigError, match="whole number along each axis") as refusal:
            SlidingWindow(roi)
        assert "SlidingWindow((64, 64, 64))" in refusal.value.details["try"]
