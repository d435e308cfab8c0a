"""A trained nnU-Net decides as nnU-Net's own predictor does, and its gradient is exact."""

from __future__ import annotations

import json
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from victims.formats.nnunet_model import FLAT, ISOTROPIC, REGIONAL, Recipe, volume

from medadv.attack.presets import ifgsm
from medadv.attack.rng import Rng
from medadv.errors import VictimError
from medadv.victims.declared import Declared
from medadv.victims.formats.nnunet.format import load, recognises
from medadv.victims.head import Sigmoid, Softmax
from medadv.victims.normalize import ZScore
from medadv.victims.segmentation import Segmenter, weights_digest

own = pytest.importorskip("nnunetv2.inference.predict_from_raw_data")

Trained = Callable[[Recipe], Path]
SHAPES = [(26, 22, 20), (25, 31, 17), (12, 14, 10)]  # the last is smaller than a patch along two axes


def placed(recipe: Recipe, folder: Path) -> Segmenter:
    return load(folder, None, False).at(np.diag([*recipe.spacing, 1.0]))


def image(recipe: Recipe, shape: tuple[int, ...], seed: int = 5) -> tuple[Tensor, Tensor]:
    x, truth = volume(seed, shape, channels=len(recipe.channels))
    return x[None], truth[None]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("recipe", [ISOTROPIC, REGIONAL, FLAT], ids=lambda recipe: recipe.name)
def test_the_differentiable_way_decides_as_nnunet_does(recipe: Recipe, shape: tuple[int, ...], nnunet: Trained) -> None:
    victim, (x, truth) = placed(recipe, nnunet(recipe)), image(recipe, shape)
    assert victim.agreement(x) >= 0.999
    decided = victim.predict(x)
    assert (decided != 0).any()
    assert (decided == truth).double().mean() > 0.8  # it has learnt: nothing here agrees by being empty


@pytest.mark.parametrize("fold", ["fold_0", "fold_1", "fold_0/checkpoint_final.pth"])
def test_one_fold_alone_decides_as_nnunet_does(fold: str, nnunet: Trained) -> None:
    victim, (x, _) = placed(ISOTROPIC, nnunet(ISOTROPIC) / fold), image(ISOTROPIC, (21, 24, 19))
    assert recognises(nnunet(ISOTROPIC) / fold)
    assert len(victim.deployed.members) == 1
    assert victim.agreement(x) >= 0.999


@pytest.mark.parametrize("recipe", [ISOTROPIC, REGIONAL, FLAT], ids=lambda recipe: recipe.name)
def test_nothing_but_half_precision_lies_between_them(
    recipe: Recipe, nnunet: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nnU-Net's predictor made to blend in single precision gives the same probabilities to the last digits."""
    victim, (x, _) = placed(recipe, nnunet(recipe)), image(recipe, (25, 31, 17))
    single = types.ModuleType("single")
    single.__dict__.update(vars(torch), half=torch.float32, inference_mode=torch.inference_mode)
    monkeypatch.setattr(own, "torch", single)
    predictor = victim.deployed._predictor(torch.device("cpu"))
    spacing = {"spacing": [float(mm) for mm in recipe.spacing[::-1]]}
    _, theirs = predictor.predict_single_npy_array(x[0].numpy().transpose(0, 3, 2, 1), spacing, None, None, True)
    with torch.no_grad():
        logits = victim(x)
    ours = logits[:, 1].sigmoid() if isinstance(victim.head, Sigmoid) else logits.softmax(1)
    torch.testing.assert_close(ours[0], torch.from_numpy(theirs.transpose(0, 3, 2, 1)).float(), rtol=0, atol=2e-4)


@pytest.mark.parametrize("recipe", [ISOTROPIC, REGIONAL, FLAT], ids=lambda recipe: recipe.name)
def test_the_gradient_is_that_of_finite_differences(recipe: Recipe, nnunet: Trained) -> None:
    victim, (x, _) = placed(recipe, nnunet(recipe)), image(recipe, (9, 8, 7))
    victim.network.double()
    x = x.double()
    victim = victim.prepare(x, Rng.seeded(0, 1))

    def value(x: Tensor) -> Tensor:
        return victim(x).mul(0.1).tanh().square().sum()

    (gradient,) = torch.autograd.grad(value(x.requires_grad_()), x)
    where = x.detach() != 0
    for seed in range(3):
        along = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * where
        with torch.no_grad():
            slope = (value(x + 1e-6 * along) - value(x - 1e-6 * along)) / 2e-6
        torch.testing.assert_close((gradient * along).sum(), slope, rtol=1e-4, atol=1e-8)


def test_what_is_scored_changes_no_weight_that_is_attacked(nnunet: Trained) -> None:
    victim, (x, _) = placed(ISOTROPIC, nnunet(ISOTROPIC)), image(ISOTROPIC, (14, 14, 12))
    before, logits = weights_digest(victim.network), victim(x)
    first, second = victim.deployed.members
    victim.predict(x)
    assert weights_digest(victim.network) == before
    assert weights_digest(first) != weights_digest(second)
    torch.testing.assert_close(victim(x), logits, rtol=0, atol=0)


def test_the_weights_that_are_attacked_are_those_that_are_scored(nnunet: Trained) -> None:
    victim, (x, _) = placed(REGIONAL, nnunet(REGIONAL)), image(REGIONAL, (14, 14, 12))
    before = victim.predict(x)
    with torch.no_grad():
        for weight in victim.network.parameters():
            weight.neg_()
    assert not torch.equal(victim.predict(x), before)
    assert victim.agreement(x) > 0.98


def test_an_attack_through_the_windows_fools_nnunet_itself(nnunet: Trained) -> None:
    victim, (x, truth) = placed(ISOTROPIC, nnunet(ISOTROPIC) / "fold_0"), image(ISOTROPIC, (18, 14, 18))
    before = (victim.predict(x) == truth).double().mean()
    found = ifgsm(budget="0.5 sigma", steps=2)(victim, x, truth)
    assert (victim.predict(found.x) == truth).double().mean() < before - 0.05


def test_a_volume_that_lies_nowhere_is_refused(nnunet: Trained) -> None:
    victim, (x, _) = load(nnunet(ISOTROPIC), None, False), image(ISOTROPIC, (12, 12, 12))
    for answer in (victim, victim.predict):
        with pytest.raises(VictimError, match="where voxels lie"):
            answer(x)


def test_logits_that_half_precision_cannot_hold_are_refused(nnunet: Trained) -> None:
    victim, (x, _) = placed(REGIONAL, nnunet(REGIONAL)), image(REGIONAL, (12, 12, 12))
    with torch.no_grad():
        victim.network.decoder.seg_layers[-1].weight.mul_(1e6)
    with pytest.raises(VictimError, match="gives no answer") as refused:
        victim.predict(x)
    assert "65504" in refused.value.details["likely cause"]


def test_it_tells_its_channels_tissues_and_settings(nnunet: Trained) -> None:
    victim = load(nnunet(ISOTROPIC), None, False)
    assert victim.modalities == ("t1", "flair")
    assert isinstance(victim.head, Softmax)
    assert victim.head.scheme.numbers == {"background": 0, "oedema": 1, "necrosis": 2, "enhancing": 3}
    assert victim.inference.roi == (16, 12, 16)
    told = json.loads(json.dumps(victim.preprocessing()))
    assert told["deployed"]["folds"] == 2
    assert told["deployed"]["mirroring"] == [0, 1, 2]
    assert told["inference"]["grid"] == "nnunet"
    assert not victim.network.training
    regional = load(nnunet(REGIONAL), None, False)
    assert isinstance(regional.head, Sigmoid)
    assert regional.head.regions == ("WT", "TC", "ET")
    assert regional.head.scheme.numbers == victim.head.scheme.numbers
    assert [step.name for step in regional.steps] == ["transpose", "crop-nonzero", "z-score", "resample"]
    assert regional.steps[0].order == (0, 2, 1)  # transpose_forward is (2, 0, 1): the coarse axis first
    assert regional.steps[2] == ZScore(joint=True)
    flat = load(nnunet(FLAT), None, False)
    assert [step.name for step in flat.steps[2].steps] == ["standard", "z-score", "min-max"]


def test_what_is_declared_picks_folds_and_renames(nnunet: Trained) -> None:
    scheme = load(nnunet(ISOTROPIC), None, False).head.scheme
    names = {"T1": "native", "enhancing tumor": "rim"}
    declared = Declared(scheme, ("native", "flair"), names=names, folds=(1,))
    victim = load(nnunet(ISOTROPIC), declared, False)
    assert victim.modalities == ("native", "flair")
    assert victim.head.scheme.numbers["rim"] == 3
    (member,) = victim.deployed.members
    assert weights_digest(member) == weights_digest(load(nnunet(ISOTROPIC) / "fold_1", None, False).deployed.members[0])
