"""A segmenter behind a mean-field CRF: its gradient, its three ways to be attacked, its answers, and what it tells."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from runtime_types import unchecked
from torch import Tensor, nn

from medadv.attack.presets import ifgsm
from medadv.attack.rng import Rng
from medadv.attack.victim import Victim
from medadv.errors import ConfigError, VictimError
from medadv.labels import BRATS_2018
from medadv.victims.defended import defended
from medadv.victims.head import Head, Sigmoid, Softmax
from medadv.victims.mean_field import MeanField
from medadv.victims.normalize import ZScore
from medadv.victims.segmentation import Refinement, Segmenter
from medadv.victims.spatial import CropForeground
from medadv.victims.transforms import GaussianSmoothing
from medadv.victims.window import SlidingWindow, WholeVolume

CRF = MeanField(appearance=2.0, smoothness=1.0, alpha=3.0, beta=0.8, gamma=1.5, iterations=2, radius=2, unit="sigma")
HEADS = [Softmax(BRATS_2018), Sigmoid(BRATS_2018, ("WT", "TC", "ET"))]


class Label:
    """A predictor of somebody else's, who answers with labels."""

    def __call__(self, x: Tensor, affine: object) -> Tensor:
        return torch.zeros_like(x[:, 0], dtype=torch.int64)

    def describe(self) -> dict[str, object]:
        return {"name": "label"}


def segmenter(dimensions: int = 2, head: Head = HEADS[0], **settings: object) -> Segmenter:
    torch.manual_seed(2)
    conv = nn.Conv2d if dimensions == 2 else nn.Conv3d
    network = nn.Sequential(conv(2, 4, 3, padding=1), nn.GELU(), conv(4, len(head.channels), 3, padding=1))
    return Segmenter(network.double().eval(), head, ("t1", "flair"), **settings)


def stored(*shape: int) -> Tensor:
    """Stored voxels: offset, on different scales, with a background of zeros."""
    x = torch.randn(1, 2, *shape, dtype=torch.float64) + 4
    x *= torch.tensor([1.0, 300.0], dtype=torch.float64).view(1, 2, *[1] * len(shape))
    return torch.where(torch.rand(1, 2, *shape) < 0.3, 0.0, x)


def loss(logits: Tensor) -> Tensor:
    weight = torch.linspace(-1.0, 2.0, logits.numel(), dtype=logits.dtype).view_as(logits)
    return (weight * logits.tanh()).sum() + (logits[:, 1] * logits[:, 0].sin()).sum()


def slope(victim: Segmenter, x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(victim(leaf)), leaf)
    return found


@pytest.mark.parametrize("head", HEADS, ids=["softmax", "sigmoid"])
@pytest.mark.parametrize(
    ("shape", "inference"),
    [
        ((5, 4), WholeVolume(multiple=4)),
        ((7, 5), SlidingWindow((4, 4), overlap=0.5)),
        ((4, 5, 3), SlidingWindow((3, 3, 4), overlap=0.5)),
    ],
)
def test_the_gradient_passes_windows_and_crf(shape: tuple[int, ...], inference: object, head: Head) -> None:
    """The stitched logits are refined, by the whole image: finite differences in every voxel."""
    victim, x = segmenter(len(shape), head, inference=inference, refine=CRF), stored(*shape)
    found = slope(victim, x)
    scale = (1.0, 300.0)
    for place in (x != 0).nonzero():
        h = 1e-6 * scale[place[1]]
        moved = torch.zeros_like(x)
        moved[tuple(place)] = h
        expected = (loss(victim(x + moved)) - loss(victim(x - moved))).item() / (2 * h)
        assert found[tuple(place)].item() * scale[place[1]] == pytest.approx(
            expected * scale[place[1]], rel=2e-5, abs=2e-6
        )


@pytest.mark.parametrize("head", HEADS, ids=["softmax", "sigmoid"])
def test_it_is_a_victim_whose_answer_is_the_refined_one(head: Head) -> None:
    bare, x = segmenter(head=head), stored(9, 8)
    victim = replace(bare, refine=CRF)
    assert isinstance(CRF, Refinement)
    assert isinstance(victim, Victim)
    assert torch.equal(victim(x), CRF(bare(x), x))
    assert torch.equal(victim.prepare(x, Rng.seeded(0, 1))(x), victim(x))
    assert torch.equal(victim.predict(x), head.decide(CRF(bare(x), x)))
    assert not torch.equal(victim.predict(x), bare.predict(x))
    assert victim.one_way
    assert victim.agreement(x) == 1.0


def test_the_kernel_sees_the_modalities_of_the_victim_alone() -> None:
    victim, x = segmenter(refine=CRF), stored(6, 5)
    reading = victim.reading(("t2", "flair", "t1"))
    seen = torch.cat([torch.rand(1, 1, 6, 5, dtype=torch.float64), x.flip(1)], 1)
    torch.testing.assert_close(reading(seen), victim(x), rtol=1e-12, atol=1e-12)
    by_passed = replace(reading, refine=replace(CRF, gradient="by-passed"))
    assert torch.equal(by_passed.predict(seen), victim.predict(x))


def test_the_three_gradients_are_three() -> None:
    bare, x = segmenter(), stored(9, 8)
    ways = {g: replace(bare, refine=replace(CRF, gradient=g)) for g in ("full", "detached", "by-passed")}
    slopes = {name: slope(victim, x) for name, victim in ways.items()}
    assert torch.equal(slopes["by-passed"], slope(bare, x))
    for one, other in (("full", "detached"), ("full", "by-passed"), ("detached", "by-passed")):
        assert (slopes[one] - slopes[other]).norm() > 0.01 * slopes[other].norm()
    assert torch.equal(ways["full"](x), ways["detached"](x))
    answers = [victim.predict(x) for victim in ways.values()]
    assert torch.equal(answers[0], answers[1])
    assert torch.equal(answers[0], answers[2])


def test_a_by_passed_crf_is_attacked_as_if_it_were_not_there() -> None:
    bare, x = segmenter(), stored(9, 8)
    truth = bare.predict(x)
    victim = replace(bare, refine=replace(CRF, gradient="by-passed"))
    found, expected = (ifgsm("0.3 sigma", steps=4)(v, x, truth) for v in (victim, bare))
    assert torch.equal(found.x, expected.x)
    assert not torch.equal(ifgsm("0.3 sigma", steps=4)(replace(bare, refine=CRF), x, truth).x, expected.x)
    assert not torch.equal(victim.predict(found.x), bare.predict(found.x))


def test_how_far_the_attacked_way_is_from_the_deployed_one_is_told() -> None:
    bare, x = segmenter(), stored(9, 8)
    victim = replace(bare, refine=replace(CRF, gradient="by-passed"))
    assert not victim.one_way
    assert torch.equal(victim.decided(x), bare.predict(x))
    alike = (bare.predict(x) == replace(bare, refine=CRF).predict(x)).double().mean().item()
    assert victim.agreement(x) == alike < 1


@pytest.mark.parametrize("gradient", ["full", "by-passed"])
def test_scoring_makes_everything_anew(gradient: str) -> None:
    """The box that an attack has frozen is not the scored one's."""
    steps = (CropForeground(), ZScore())
    victim, x = segmenter(preprocess=steps, refine=replace(CRF, gradient=gradient)), stored(9, 8)
    small = x.clone()
    small[..., 4:] = 0
    frozen = victim.prepare(small, Rng.seeded(0, 1))
    assert not torch.equal(frozen(x), victim(x))
    assert torch.equal(frozen.predict(x), victim.predict(x))


def test_each_way_has_a_key_of_its_own() -> None:
    bare = segmenter()
    told = [bare.preprocessing()]
    told += [replace(bare, refine=r).preprocessing() for r in (CRF, replace(CRF, gradient="detached"), MeanField())]
    told.append(replace(bare, refine=replace(CRF, gradient="by-passed")).preprocessing())
    assert len({json.dumps(one) for one in told}) == len(told)
    assert "refine" not in told[0]
    assert told[1]["refine"]["gradient"] == "full"
    assert {key: value for key, value in told[1].items() if key != "refine"} == told[0]


def test_a_victim_is_put_behind_a_crf_once() -> None:
    bare, x = segmenter(), stored(6, 5)
    victim = defended(bare, CRF)
    assert torch.equal(victim(x), replace(bare, refine=CRF)(x))
    assert victim.preprocessing() == replace(bare, refine=CRF).preprocessing()
    smoothed = defended(victim, GaussianSmoothing(0.7))
    assert torch.equal(smoothed(x), CRF(defended(bare, GaussianSmoothing(0.7))(x), x))  # the CRF sees stored voxels
    with pytest.raises(VictimError, match="already"):
        defended(victim, MeanField())
    with pytest.raises(ConfigError, match="own predictor"):
        defended(segmenter(deployed=Label()), CRF)


def test_a_refinement_needs_logits() -> None:
    assert not segmenter(deployed=Label()).one_way
    with pytest.raises(ConfigError, match="works on its logits") as refusal:
        segmenter(refine=CRF, deployed=Label())
    assert "labels" in refusal.value.details["got"]
    with unchecked(), pytest.raises(ConfigError, match="works on its logits"):
        segmenter(refine="CRF")


@pytest.mark.parametrize("gradient", ["full", "by-passed"])
def test_the_deployed_logits_are_refined_whatever_is_attacked(gradient: str) -> None:
    bare, x = segmenter(), stored(9, 8)
    victim = replace(bare, refine=replace(CRF, gradient=gradient))
    logits = victim.deployed_logits(x)
    assert logits is not None
    assert not logits.requires_grad
    assert torch.equal(logits, CRF(bare(x), x))
    assert torch.equal(victim.head.decide(logits), victim.predict(x))
    assert torch.equal(bare.deployed_logits(x), bare(x))  # type: ignore[arg-type]
    assert segmenter(deployed=Label()).deployed_logits(x) is None
