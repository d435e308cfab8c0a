"""Random steps: closed forms of each draw, the way back, gradients, and draws that are fresh and yet come again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runtime_types import unchecked
from torch import Tensor, nn
from torch.nn import functional
from victims.grids import adjoint_gap, affine_of

from medadv.attack.checks import check_steady
from medadv.attack.presets import ifgsm
from medadv.attack.rng import Rng
from medadv.errors import ConfigError, VictimError
from medadv.labels import LabelScheme
from medadv.victims.checkpoint import load_victim, save_victim
from medadv.victims.defended import defended
from medadv.victims.head import Softmax
from medadv.victims.networks import Architecture, build_network
from medadv.victims.normalize import Unchanged
from medadv.victims.preprocess import Random, Way
from medadv.victims.random_transforms import RandomFlip, RandomNoise, RandomResizePad, RandomTransform, of_images
from medadv.victims.segmentation import Segmenter
from medadv.victims.window import WholeVolume

THINGS = LabelScheme("things", {"background": 0, "disc": 1, "square": 2}, {})
EVERY: list[RandomTransform] = [
    RandomResizePad((0.7, 1.3), nonzero=False),
    RandomResizePad((0.9, 1.1)),
    RandomNoise(0.3, nonzero=False),
    RandomNoise(0.3, "uniform", "sigma"),
    RandomFlip((0, 1)),
]
SHAPES = [(9, 11), (5, 7, 6)]


def image(*shape: int, samples: int = 1) -> Tensor:
    return torch.rand(samples, 2, *shape, dtype=torch.float64) * 2 + 1


def segmenter(axes: int = 2) -> Segmenter:
    torch.manual_seed(5)
    conv = nn.Conv2d if axes == 2 else nn.Conv3d
    network = nn.Sequential(conv(2, 4, 3, padding=1), nn.GELU(), conv(4, 3, 3, padding=1)).double().eval()
    return Segmenter(network, Softmax(THINGS), ("red", "green"), Unchanged())


# Another size, at another place


@pytest.mark.parametrize("shape", SHAPES)
def test_resized_images_are_torchs_in_a_frame(shape: tuple[int, ...]) -> None:
    x, step = image(*shape, samples=3), RandomResizePad((0.7, 1.3), value=-5.0)
    placed: Any = step.drawn(Rng.seeded(0, 3)).prepare(x, None)
    y, mode = placed(x), "bilinear" if len(shape) == 2 else "trilinear"
    assert y.shape[2:] == tuple(round(1.3 * n) for n in shape)
    assert len(set(placed.boxes)) == 3
    for one, framed, box in zip(x, y, placed.boxes, strict=True):
        there = (slice(None), *(slice(first, first + size) for first, size in box))
        sizes = [size for _, size in box]
        expected = functional.interpolate(one[None], sizes, mode=mode, align_corners=False)[0]
        torch.testing.assert_close(framed[there], expected, rtol=0, atol=1e-14)
        assert len({round(size / n, 1) for size, n in zip(sizes, shape, strict=True)}) <= 2  # one factor, rounded
        outside = framed.clone()
        outside[there] = -5.0
        assert (outside == -5.0).all()


def test_all_sizes_and_all_places_are_drawn() -> None:
    x = torch.zeros(400, 1, 20, 20)
    placed: Any = RandomResizePad((1.0, 1.2)).drawn(Rng.seeded(1, 400)).prepare(x, None)
    boxes = [axis for box in placed.boxes for axis in box]
    assert {size for _, size in boxes} == {20, 21, 22, 23, 24}
    assert {first for first, size in boxes if size == 20} == {0, 1, 2, 3, 4}
    assert {first for first, size in boxes if size == 24} == {0}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_frame_without_choice_changes_nothing(shape: tuple[int, ...]) -> None:
    x = image(*shape)
    placed = RandomResizePad((1.0, 1.0)).prepare(x, None)
    assert torch.equal(placed(x), x)
    assert torch.equal(placed.back(x, torch.zeros(2)), x)


@pytest.mark.parametrize("step", [RandomResizePad((0.6, 1.6)), RandomFlip((0, 1, 2), 1.0)], ids=lambda step: step.name)
def test_voxels_lie_where_the_affine_says(step: RandomTransform) -> None:
    """An image whose voxels hold their own place in mm, along each axis: interpolated inside, it still does."""
    shape, affine = (12, 10, 9), affine_of((1.0, 2.0, 0.7), "LPS", 0.3)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    x = torch.as_tensor((grid @ affine[:3, :3].T + affine[:3, 3]).transpose(3, 0, 1, 2))[None]
    placed = step.drawn(Rng.seeded(2, 1)).prepare(x, affine)
    y = placed(x)
    assert placed.affine is not None
    inner = np.argwhere((y[0] != 0).any(0).numpy())
    middle = inner[((inner > inner.min(0) + 1) & (inner < inner.max(0) - 1)).all(1)]
    there = middle @ placed.affine[:3, :3].T + placed.affine[:3, 3]
    np.testing.assert_allclose(y[0].numpy()[:, *middle.T].T, there, atol=1e-9)
    home = placed.back(y, torch.zeros(3))
    within = (..., *(slice(2, -2) for _ in shape))
    torch.testing.assert_close(home[within], x[within], rtol=0, atol=1e-9)
    truth = torch.as_tensor((grid[..., 0] > 5).astype(np.int64))[None]
    assert placed.labels(truth).shape[1:] == y.shape[2:]
    seen = placed.labels(truth)[0].numpy()[tuple(middle.T)]
    old = (there - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    sure = np.abs(old[:, 0] - 5.5) > 0.51
    assert (seen[sure] == (old[sure, 0] > 5.5)).all()


def test_a_batch_that_lies_somewhere_is_not_moved_apart() -> None:
    for step in (RandomResizePad(), RandomFlip()):
        with pytest.raises(VictimError, match="in another way"):
            step.prepare(image(6, 5, samples=2), affine_of())
        assert step.prepare(image(6, 5, samples=2), None).affine is None


@pytest.mark.parametrize("scales", [(0.7, 0.9), (1.1, 1.4)])
def test_the_border_of_a_head_is_not_darkened(scales: tuple[float, float]) -> None:
    x = torch.zeros(1, 1, 20, 18, 16)
    x[..., 3:15, 4:13, 2:12] = 250.0
    placed = RandomResizePad(scales).prepare(x, None)
    y = placed(x)
    torch.testing.assert_close(y[y != 0], torch.full_like(y[y != 0], 250.0))
    way = (RandomResizePad(scales, nonzero=False).prepare(x, None))(x)
    assert ((way > 0) & (way < 240)).any()  # what happens otherwise
    voxels = (y != 0).sum() / (x != 0).sum()
    assert scales[0] ** 3 * 0.8 < voxels < scales[1] ** 3 * 1.2
    balanced = torch.full((1, 1, 4, 4), -1.0)
    balanced[..., ::2] = 1.0
    assert (RandomResizePad((0.5, 0.5)).prepare(balanced, None)(balanced) != 0).all()


# Noise


def test_gaussian_noise_has_its_standard_deviation() -> None:
    x = torch.full((1, 2, 80, 80), 100.0)
    change = RandomNoise(8.0, nonzero=False).prepare(x, None)(x) - x
    assert change.std().item() == pytest.approx(8.0, rel=0.03)
    assert change.mean().item() == pytest.approx(0.0, abs=0.3)
    assert not torch.allclose(change[:, 0], change[:, 1])


def test_uniform_noise_ends_where_it_says() -> None:
    x = torch.full((1, 1, 80, 80), 100.0)
    change = RandomNoise(8.0, "uniform").prepare(x, None)(x) - x
    assert 7.9 < change.max() <= 8.0
    assert -8.0 <= change.min() < -7.9
    assert change.std().item() == pytest.approx(8 / 3**0.5, rel=0.03)


def test_noise_in_sigma_grows_with_each_modality_and_spares_zeros() -> None:
    head = torch.randn(1, 2, 60, 60) * torch.tensor([1.0, 50.0]).view(1, 2, 1, 1) + 300
    x = torch.where(torch.rand_like(head) < 0.4, 0.0, head)
    change = RandomNoise(0.1, unit="sigma").prepare(x, None)(x) - x
    assert (change[x == 0] == 0).all()
    for one, voxels in zip(change[0], x[0], strict=True):
        assert (one[voxels != 0].std() / voxels[voxels != 0].std()).item() == pytest.approx(0.1, rel=0.05)


def test_noise_makes_nothing_zero_but_in_pictures() -> None:
    x = torch.tensor([0.0, 1.0, 2.0]).view(1, 1, 1, 3)
    noise: Any = RandomNoise(1.0).prepare(x, None)
    cancelling = replace(noise, noise=-x)
    assert (cancelling(x) != 0).flatten().tolist() == [False, True, True]
    assert (replace(cancelling, nonzero=False)(x) == 0).all()


# Flips


def test_each_image_is_flipped_on_its_own_about_half_of_the_times() -> None:
    x = image(3, 4, samples=200)
    placed: Any = RandomFlip((0, 1)).prepare(x, None)
    assert set(placed.flips) == {(), (0,), (1,), (0, 1)}
    assert 70 < sum(0 in flips for flips in placed.flips) < 130
    for one, turned, flips in zip(x, placed(x), placed.flips, strict=True):
        assert torch.equal(turned, one.flip([axis + 1 for axis in flips]))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_flipped_network_answers_as_its_mirror_image(shape: tuple[int, ...]) -> None:
    victim, x = segmenter(len(shape)), image(*shape)
    always = defended(victim, RandomFlip((1,), 1.0))
    assert torch.equal(always(x), victim(x.flip(3)).flip(3))
    assert torch.equal(always.predict(x), victim.predict(x.flip(3)).flip(2))
    equivariant = replace(victim, network=(nn.Conv2d if len(shape) == 2 else nn.Conv3d)(2, 3, 1).double())
    flipped = defended(equivariant, RandomFlip((0, 1)))
    torch.testing.assert_close(flipped(x), equivariant(x), rtol=0, atol=1e-14)


# All of them, in front of a victim


@pytest.mark.parametrize("step", EVERY, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_gradient_of_a_prepared_victim_is_exact(step: RandomTransform, shape: tuple[int, ...]) -> None:
    x = image(*shape, samples=2)
    victim = defended(segmenter(len(shape)), step).prepare(x, Rng.seeded(0, 2))
    assert victim(x).shape == (2, 3, *shape)
    leaf, weight = x.clone().requires_grad_(), torch.randn(2, 3, *shape, dtype=torch.float64)
    (found,) = torch.autograd.grad((victim(leaf).sin() * weight).sum(), leaf)
    for place in torch.randperm(x.numel())[:12].tolist():
        h = torch.zeros_like(x)
        h.view(-1)[place] = 1e-6
        change = ((victim(x + h).sin() - victim(x - h).sin()) * weight).sum() / 2e-6
        torch.testing.assert_close(found.view(-1)[place], change, rtol=1e-5, atol=1e-7)
    if not getattr(step, "nonzero", False):  # which treats zeros in another way
        assert adjoint_gap(Way.prepared((step.drawn(Rng.seeded(0, 2)),), x, None), x) < 1e-9


@pytest.mark.parametrize("step", EVERY, ids=str)
def test_the_same_seed_draws_the_same_and_another_one_does_not(step: RandomTransform) -> None:
    victim, x = defended(segmenter(), step), image(9, 11)
    first, again = (victim.prepare(x, Rng.seeded(7, ["case"]))(x) for _ in range(2))
    assert torch.equal(first, again)
    others = [victim.prepare(x, Rng.seeded(seed, ["case"]))(x) for seed in range(8)]
    assert any(not torch.equal(first, other) for other in others)
    check_steady(victim, x)


@pytest.mark.parametrize("step", EVERY, ids=str)
def test_what_is_scored_is_fresh_to_the_attack_and_yet_comes_again(step: RandomTransform) -> None:
    victim, images = defended(segmenter(), step), [image(9, 11) for _ in range(6)]
    frozen = [victim.prepare(x, Rng.seeded(0, 1).fork("victim")) for x in images]
    for x, prepared in zip(images, frozen, strict=True):
        assert torch.equal(prepared.predict(x), victim.predict(x))
        assert torch.equal(victim.predict(x), victim.head.decide(victim(x)))
        assert victim.agreement(x) == 1.0
    assert any(not torch.equal(p(x), victim(x)) for x, p in zip(images, frozen, strict=True))
    draws = [of_images(x).uniform(torch.empty(1, 3)) for x in images]
    assert len({tuple(draw.flatten().tolist()) for draw in draws}) == len(images)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("step", EVERY, ids=str)
def test_batch_mates_do_not_change_what_is_drawn(step: RandomTransform, seed: int) -> None:
    victim, x = defended(segmenter(), step), image(9, 11, samples=3)
    rng, last = Rng.seeded(seed, ["a", "b", "c"]), torch.tensor([2])
    together = victim.prepare(x, rng)
    alone = victim.prepare(x[last], rng.take(last))
    torch.testing.assert_close(together.take(last)(x[last]), together(x)[last], rtol=0, atol=1e-13)
    torch.testing.assert_close(alone(x[last]), together(x)[last], rtol=0, atol=1e-13)
    torch.testing.assert_close(victim(x)[last], victim(x[last]), rtol=0, atol=1e-13)
    truth = torch.arange(9 * 11).view(1, 9, 11).expand(3, 9, 11)
    assert torch.equal(together.take(last).way.labels(truth[last]), together.way.labels(truth)[last])


@pytest.mark.parametrize("step", EVERY, ids=str)
def test_an_attack_runs_through_it_with_samples_that_leave(step: RandomTransform) -> None:
    victim, x = defended(segmenter(), step), image(9, 11, samples=3)
    held = victim.prepare(x, Rng.seeded(0, 3).fork("victim"))
    truth = held.head.decide(held(x))
    truth[1] = (truth[1] + 1) % 3  # wrong everywhere: nothing is left to gain
    attack, support = replace(ifgsm("0.5 stored", steps=12), keep="best"), torch.ones_like(x, dtype=torch.bool)
    found, again = (attack(victim, x, truth, support=support) for _ in range(2))
    assert torch.equal(found.x, again.x)
    assert (found.merit > 0.1).all()  # 0 before
    assert found.trace["merit"][-1].isnan().tolist() == [False, True, False]
    fooled = (held.head.decide(held(found.x)) != truth).flatten(1).double().mean(1)
    torch.testing.assert_close(found.merit, fooled.to(found.merit))


@pytest.mark.parametrize("step", EVERY, ids=str)
def test_a_random_victim_is_the_same_again_from_the_disk(step: RandomTransform, tmp_path: Path) -> None:
    architecture = Architecture(arguments={"spatial_dims": 2, "channels": [4, 4], "strides": [2]})
    network = build_network(architecture, 2, 3).eval()
    plain = Segmenter(network, Softmax(THINGS), ("red", "green"), Unchanged(), WholeVolume(multiple=2))
    victim, x = defended(plain, step), image(8, 12).float()
    save_victim(victim, architecture, tmp_path)
    again = load_victim(tmp_path)
    assert again.preprocessing() == victim.preprocessing()
    assert torch.equal(again.predict(x), victim.predict(x))
    with pytest.raises(VictimError, match="already begins"):
        defended(again, step)


def test_random_steps_say_so_and_others_do_not() -> None:
    assert all(isinstance(step, Random) for step in EVERY)
    assert not isinstance(Unchanged(), Random)
    victim = segmenter().prepare(image(4, 4, samples=2), Rng.seeded(0, 2))
    assert victim.take(torch.tensor([0])) is victim


def test_streams_that_are_too_few_are_refused() -> None:
    for step in EVERY:
        with pytest.raises(ConfigError, match="one random stream for each sample"):
            step.drawn(Rng.seeded(0, 1)).prepare(image(4, 4, samples=2), None)


# What is refused


def scored_apart() -> Segmenter:
    class Own:
        def __call__(self, x: Tensor, affine: Any) -> Tensor:
            return x[:, 0].long()

        def describe(self) -> dict[str, Any]:
            return {}

    return replace(segmenter(), deployed=Own())


@pytest.mark.parametrize("step", EVERY, ids=str)
def test_a_formats_own_predictor_stands_behind_no_random_step(step: RandomTransform) -> None:
    with pytest.raises(ConfigError, match="own predictor cannot be put behind"):
        defended(scored_apart(), step)


def test_a_flip_along_an_axis_that_is_not_there_is_refused() -> None:
    with pytest.raises(VictimError, match="axes of space"):
        defended(segmenter(), RandomFlip((2,)))(image(4, 4))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        *((lambda s=s: RandomResizePad(s), "two factors") for s in ((1.2, 1.0), (0, 1), (1.0,), 1.0, ("1", "2"))),
        (lambda: RandomResizePad((1.0, float("inf"))), "two factors"),
        (lambda: RandomResizePad(value=float("nan")), "filled with a number"),
        *((lambda n=n: RandomNoise(n), "positive size") for n in (0, -1.0, float("nan"), "1", True)),
        (lambda: RandomNoise(1.0, "salt"), "no such noise"),
        (lambda: RandomNoise(1.0, unit="percent"), "no such noise"),
        *((lambda a=a: RandomFlip(a), "each once") for a in ((), (0, 0), (-1,), 1, (True,))),
        *((lambda p=p: RandomFlip((0,), p), "probability") for p in (0, 1.5, "1", float("nan"))),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(make: Callable[[], object], words: str) -> None:
    with unchecked(), pytest.raises(ConfigError, match=words):
        make()
