"""A whole deployed pipeline: oriented, resampled, cropped, normalised, padded, answered, and all the way back."""

from __future__ import annotations

from dataclasses import replace

import monai.transforms as mt
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor, nn
from victims.grids import affine_of, meta

from medadv.attack.rng import Rng
from medadv.errors import VictimError
from medadv.labels import BRATS_2018
from medadv.victims.crop import CropForeground, CropNonzero, DivisiblePad
from medadv.victims.head import Head, Sigmoid, Softmax
from medadv.victims.normalize import ZScore
from medadv.victims.resample import Resample
from medadv.victims.segmentation import Segmenter
from medadv.victims.spacing import Spacing
from medadv.victims.spatial import Orientation, Transpose

HEADS = [Softmax(BRATS_2018), Sigmoid(BRATS_2018, ("WT", "TC", "ET"))]
AFFINE = affine_of((1.5, 0.8, 1.9), "PIR", 0.2)
SHAPE = (6, 7, 5)
MONAI = (Orientation("RAS"), Spacing((1.0, 1.0, 2.0)), CropForeground(), ZScore(), DivisiblePad(4))
NNUNET = (Transpose((2, 1, 0)), CropNonzero(), ZScore(joint=True), Resample((1.5, 1.0, 1.2)))


def segmenter(steps: tuple, head: Head = HEADS[0]) -> Segmenter:
    torch.manual_seed(2)
    channels = len(head.channels)
    network = nn.Sequential(nn.Conv3d(2, 4, 3, padding=1), nn.GELU(), nn.Conv3d(4, channels, 3, padding=1))
    return Segmenter(network.double().eval(), head, ("t1", "flair"), steps, affine=AFFINE)


def stored() -> Tensor:
    """A head of positive voxels in a background of zeros."""
    x = torch.zeros(1, 2, *SHAPE, dtype=torch.float64)
    x[..., 1:5, 2:6, 1:4] = torch.rand(1, 2, 4, 4, 3, dtype=torch.float64) * 40 + 100
    x[0, 1] *= 0.01
    x[0, 0, 2, 3, 2] = 0
    return x


def loss(logits: Tensor) -> Tensor:
    weight = torch.linspace(-1.0, 2.0, logits.numel(), dtype=logits.dtype).view_as(logits)
    return (weight * logits.tanh()).sum() + 0.1 * logits.clamp(-5, 5).square().sum()


@pytest.mark.parametrize("steps", [MONAI, NNUNET], ids=["monai", "nnunet"])
@pytest.mark.parametrize("head", HEADS, ids=["softmax", "sigmoid"])
def test_the_gradient_reaches_the_stored_voxel(steps: tuple, head: Head) -> None:
    x = stored()
    victim = segmenter(steps, head).prepare(x, Rng.seeded(0, 1))
    leaf = x.clone().requires_grad_()
    answer = victim(leaf)
    assert answer.shape[-3:] == SHAPE
    (found,) = torch.autograd.grad(loss(answer), leaf)
    places = (x != 0).nonzero()
    for place in places[:: max(len(places) // 40, 1)]:
        h = 1e-6 * x[tuple(place)].item()
        moved = torch.zeros_like(x)
        moved[tuple(place)] = h
        slope = (loss(victim(x + moved)) - loss(victim(x - moved))).item() / (2 * h)
        assert found[tuple(place)].item() == pytest.approx(slope, rel=1e-4, abs=1e-6)


def test_the_answer_is_that_of_monais_transforms_and_their_inverse() -> None:
    """One transform after another by MONAI, the network, and MONAI's way back; decided as MONAI decides."""
    x, victim = stored(), segmenter(MONAI)
    places = [
        mt.Orientation("RAS", labels=None),
        mt.Spacing((1.0, 1.0, 2.0)),
        mt.CropForeground(allow_smaller=False),
    ]
    seen = meta(x[0].float(), AFFINE)
    for transform in places:
        seen = transform(seen)
    pad = mt.DivisiblePad(4)
    fed = pad(MetaTensor(mt.NormalizeIntensity(nonzero=True, channel_wise=True)(seen.as_tensor()), meta=seen.meta))
    way = victim.prepare(x, Rng.seeded(0, 1)).way
    assert way is not None
    torch.testing.assert_close(way(x)[0].float(), fed.as_tensor(), rtol=1e-4, atol=1e-4)
    answer = MetaTensor(victim.network(fed.as_tensor()[None].double())[0].detach(), affine=fed.affine)
    answer.applied_operations = [*seen.applied_operations, *fed.applied_operations[-1:]]
    for transform in reversed([*places, pad]):
        answer = transform.inverse(answer)
    expected = victim.head.scheme.stored(answer.as_tensor().argmax(0))
    # At the box's border MONAI blends with logits of 0, and the victim with a logit beyond doubt: compared inside.
    inside = way.back(x.new_ones(1, 1, *way(x).shape[2:]), x.new_zeros(1))[0, 0] > 1 - 1e-6
    assert inside.sum() > 20
    assert torch.equal(victim.predict(x)[0][inside], expected[inside])


@pytest.mark.parametrize("steps", [MONAI, NNUNET], ids=["monai", "nnunet"])
def test_the_box_is_frozen_for_the_attack_and_chosen_anew_for_the_score(steps: tuple) -> None:
    x = stored()
    victim = segmenter(steps)
    frozen = victim.prepare(x, Rng.seeded(0, 1))
    assert torch.equal(frozen(x), victim(x))
    moved = x.clone()
    moved[0, 1, :2, :2, :2] = 50
    assert frozen.way is not None
    assert frozen.way(moved).shape == frozen.way(x).shape
    assert not torch.equal(frozen(moved), victim(moved))
    assert torch.equal(frozen.predict(moved), victim.predict(moved))
    assert torch.equal(frozen.prepare(moved, Rng.seeded(0, 1))(moved), victim(moved))


@pytest.mark.parametrize("head", HEADS, ids=["softmax", "sigmoid"])
def test_voxels_that_were_cut_away_are_background(head: Head) -> None:
    x = stored()
    victim = segmenter((CropNonzero(),), head)
    away = torch.ones(SHAPE, dtype=torch.bool)
    away[1:5, 2:6, 1:4] = False
    assert (victim.predict(x)[0][away] == 0).all()
    assert (victim.predict(x)[0][~away] != 0).any()
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(victim.prepare(x, Rng.seeded(0, 1))(leaf)), leaf)
    assert (gradient[..., away] == 0).all()


def test_without_an_affine_the_advice_is_to_tell_it() -> None:
    x, victim = stored(), replace(segmenter(MONAI), affine=None)
    for ask in (victim, victim.predict, lambda x: victim.prepare(x, Rng.seeded(0, 1))):
        with pytest.raises(VictimError, match="where voxels lie") as refusal:
            ask(x)
        assert "victim.at(volume.affine)" in refusal.value.details["try"]
    assert torch.equal(victim.at(AFFINE).predict(x), segmenter(MONAI).predict(x))


def test_the_way_there_and_back_keeps_an_even_answer() -> None:
    """A constant survives every interpolation: no step leaks at a border."""
    x = stored()
    way = segmenter((Orientation("LPS"), Spacing((0.7, 1.3, 2.0)), DivisiblePad(8))).prepare(x, Rng.seeded(0, 1)).way
    assert way is not None
    answer = torch.full((1, 2, *way(x).shape[2:]), 3.25, dtype=torch.float64)
    np.testing.assert_allclose(way.back(answer, torch.zeros(2, dtype=torch.float64)).numpy(), 3.25, rtol=1e-12)
