"""A victim behind an input transform: one pipeline for attack and score, on disk, in less memory, and under attack."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attack.stand_ins import LESION
from runtime_types import unchecked
from torch import Tensor, nn
from victims.formats.written_bundle import TISSUES, by_monai, described, oblique, of_tissues, scan, write

from medadv.attack.presets import ifgsm
from medadv.attack.rng import Rng
from medadv.errors import ConfigError, GradientWarning, MedadvError, VictimError
from medadv.labels import BRATS_2018
from medadv.study.scores import score
from medadv.victims.checkpoint import load_victim, save_victim
from medadv.victims.declared import Declared
from medadv.victims.defended import defended
from medadv.victims.formats.bundle import format as bundle
from medadv.victims.formats.opening import open_victim
from medadv.victims.head import Softmax
from medadv.victims.networks import Architecture, build_network
from medadv.victims.normalize import Unchanged, ZScore
from medadv.victims.segmentation import Segmenter
from medadv.victims.spatial import CropForeground, DivisiblePad
from medadv.victims.thrift import SAVINGS, Visiting
from medadv.victims.transforms import (
    BitDepth,
    GaussianSmoothing,
    InputTransform,
    MedianSmoothing,
    Resampled,
    StraightThrough,
)
from medadv.victims.window import SlidingWindow

EVERY = [
    GaussianSmoothing(0.8),
    MedianSmoothing(3),
    BitDepth(3),
    Resampled(2.0),
    StraightThrough(MedianSmoothing(3), GaussianSmoothing(1.0)),
]
SMALL = Architecture(arguments={"spatial_dims": 3, "channels": [4, 8], "strides": [2], "num_res_units": 1})


def segmenter(seed: int = 0) -> Segmenter:
    """With steps that look for the head by its zeros, and windows."""
    torch.manual_seed(seed)
    network = build_network(SMALL, 2, len(BRATS_2018.tissues)).eval()
    steps = (CropForeground(margin=1), ZScore(), DivisiblePad(4))
    return Segmenter(network, Softmax(BRATS_2018), ("t1", "flair"), steps, SlidingWindow((4, 4, 4), 0.5))


def stored(*shape: int) -> Tensor:
    x = torch.zeros(1, 3, *shape)
    inner = (..., *(slice(1, -2) for _ in shape))
    x[inner] = torch.randn_like(x[inner]) * 30 + 200
    return x


# One pipeline for the attack and for the score


@pytest.mark.parametrize("step", EVERY, ids=str)
def test_the_attack_and_the_score_see_the_same_transformed_image(step: InputTransform | StraightThrough) -> None:
    plain, x = segmenter().reading(("t1", "t2", "flair")), stored(9, 10, 8)
    behind = defended(plain, step)
    transformed = step(x)
    logits = behind(x.clone().requires_grad_())
    assert torch.equal(logits, plain(transformed))
    assert torch.equal(behind(x), logits)
    assert torch.equal(behind.predict(x), plain.predict(transformed))
    assert torch.equal(behind.head.decide(logits.detach()), behind.predict(x))
    assert behind.agreement(x) == 1.0
    assert not torch.equal(logits, plain(x))


def test_the_gradient_of_the_whole_way_is_that_of_finite_differences() -> None:
    plain = segmenter()
    plain = replace(plain, network=plain.network.double())
    x = stored(6, 7, 6)[:, :2].double()
    for step in (GaussianSmoothing(0.7), MedianSmoothing(3), Resampled(1.5)):
        behind, leaf = defended(plain, step), x.clone().requires_grad_()
        weight = torch.randn_like(behind(x))
        (found,) = torch.autograd.grad((behind(leaf).sin() * weight).sum(), leaf)
        for place in (x != 0).nonzero()[::7]:
            there, back = x.clone(), x.clone()
            there[tuple(place)] += 1e-4
            back[tuple(place)] -= 1e-4
            measured = ((behind(there).sin() - behind(back).sin()) * weight).sum() / 2e-4
            torch.testing.assert_close(found[tuple(place)], measured, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("step", EVERY, ids=str)
def test_a_formats_own_predictor_sees_the_transformed_image(
    tmp_path: Path, step: InputTransform | StraightThrough
) -> None:
    """MONAI's own prediction, of a bundle that changes the grid and looks for what is not zero."""
    root = write(tmp_path, of_tissues(grid=True), described(outputs=TISSUES))
    x, affine = scan(16, 15, 18), oblique()
    plain = bundle.load(root, None, False)
    behind = defended(plain, step).at(affine)
    expected = by_monai(root, step(x[None])[0], affine)[0].long()
    assert torch.equal(behind.predict(x[None])[0], expected)
    assert behind.agreement(x[None]) >= 0.999
    assert not torch.equal(plain.at(affine).predict(x[None])[0], expected)


@dataclass(frozen=True)
class Brightest:
    """A predictor of its own, which is not the differentiable way."""

    def __call__(self, x: Tensor, affine: np.ndarray | None) -> Tensor:
        return (x[:, 0] > x[:, 0].mean()).long() * 4

    def describe(self) -> dict[str, Any]:
        return {"predictor": "brightest"}


def test_records_tell_a_defended_victim_and_its_predictor_apart() -> None:
    plain = segmenter()
    own = replace(plain, deployed=Brightest())
    steps = [*EVERY, GaussianSmoothing(0.9), StraightThrough(GaussianSmoothing(0.9))]
    told = [victim.preprocessing() for s in steps for victim in (defended(plain, s), defended(own, s))]
    told += [plain.preprocessing(), own.preprocessing()]
    assert len({json.dumps(one, sort_keys=True) for one in told}) == len(told)
    described_ = defended(own, BitDepth(3)).preprocessing()
    assert described_["deployed"] == {"transform": described_["preprocess"][0], "deployed": {"predictor": "brightest"}}
    assert described_["preprocess"][0] == {
        "name": "straight-through",
        "step": {"name": "bit depth", "bits": 3},
        "backward": None,
    }


def test_the_predictors_disagreement_is_seen_behind_a_transform() -> None:
    x = stored(9, 10, 8)[:, :2]
    behind = defended(replace(segmenter(), deployed=Brightest()), GaussianSmoothing(1.0))
    share = (behind.decided(x) == Brightest()(GaussianSmoothing(1.0)(x), None)).double().mean().item()
    assert behind.agreement(x) == share < 1


def test_the_undefended_victim_stays_what_it_is() -> None:
    plain, x = segmenter(), stored(9, 10, 8)[:, :2]
    before = (plain.preprocessing(), plain(x))
    behind = defended(plain, GaussianSmoothing(1.0))
    behind(x)
    assert plain.preprocessing() == before[0]
    assert torch.equal(plain(x), before[1])
    assert behind.network is plain.network


def test_a_victim_frozen_on_an_image_is_defended_all_the_same() -> None:
    plain, x = segmenter(), stored(9, 10, 8)[:, :2]
    frozen = plain.prepare(x, Rng.seeded(0, 1))
    assert torch.equal(defended(frozen, GaussianSmoothing(1.0))(x), defended(plain, GaussianSmoothing(1.0))(x))


def test_transforms_can_stand_behind_one_another() -> None:
    plain, x = segmenter(), stored(9, 10, 8)[:, :2]
    twice = defended(defended(plain, GaussianSmoothing(1.0)), MedianSmoothing(3))
    assert torch.equal(twice(x), plain(GaussianSmoothing(1.0)(MedianSmoothing(3)(x))))


def test_what_saves_memory_changes_no_answer_behind_a_transform() -> None:
    behind = defended(replace(segmenter(), inference=SlidingWindow((4, 4, 4), batch=2)), Resampled(2.0))
    x = stored(9, 10, 8)[:, :2]

    def answer(victim: Segmenter) -> tuple[Tensor, Tensor]:
        leaf = x.clone().requires_grad_()
        logits = victim(leaf)
        return logits.detach(), torch.autograd.grad(logits.sin().sum(), leaf)[0]

    logits, gradient = answer(behind)
    saved = [saving.apply(behind) for saving in SAVINGS]
    saved.append(replace(behind, network=Visiting(behind.network, torch.device("cpu"))))
    assert sum(victim is not None for victim in saved) >= 3
    for victim in saved:
        if victim is not None:
            assert victim.preprocessing()["preprocess"] == behind.preprocessing()["preprocess"]
            for found, expected in zip(answer(victim), (logits, gradient), strict=True):
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


# On the disk


@pytest.mark.parametrize("step", EVERY, ids=str)
def test_a_defended_victim_is_the_same_again(tmp_path: Path, step: InputTransform | StraightThrough) -> None:
    behind, x = defended(segmenter(), step), stored(9, 10, 8)[:, :2]
    save_victim(behind, SMALL, tmp_path)
    again = load_victim(tmp_path)
    assert again.preprocess == behind.preprocess
    assert again.preprocessing() == behind.preprocessing()
    assert torch.equal(again(x), behind(x))
    with pytest.raises(VictimError, match="already begins with this transform") as refusal:
        defended(again, step)
    assert "take the victim as it is" in refusal.value.details["try"]


def test_a_card_with_a_setting_that_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    save_victim(defended(segmenter(), MedianSmoothing(3)), SMALL, tmp_path)
    card = tmp_path / "victim.json"
    card.write_text(card.read_text().replace('"size": 3', '"size": 4'))
    with pytest.raises(VictimError, match="no victim of this version") as refusal:
        load_victim(tmp_path)
    assert "odd number" in str(refusal.value)


def test_a_saved_transform_contradicts_no_declaration_of_the_steps_behind_it(tmp_path: Path) -> None:
    behind = defended(segmenter(), GaussianSmoothing(1.0))
    save_victim(behind, SMALL, tmp_path)
    said = Declared(BRATS_2018, spatial=(CropForeground(margin=1), DivisiblePad(4)), normalise=ZScore())
    assert open_victim(tmp_path, said).preprocess == behind.preprocess
    with pytest.raises(ConfigError, match="says otherwise"):
        open_victim(tmp_path, replace(said, normalise=ZScore(nonzero=False)))


# Under attack


def bright(*steps: Any) -> Segmenter:
    """A lesion is where a voxel is brighter than 100: linear in the voxel."""
    network = nn.Conv3d(1, 2, 1)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([0.0, 0.1]).view(2, 1, 1, 1, 1))
        network.bias.copy_(torch.tensor([0.0, -10.0]))
    return Segmenter(network, Softmax(LESION), ("t1",), (*steps, Unchanged()))


def lesion() -> tuple[Tensor, Tensor]:
    """Grey values from 60 to 140; bright ones are the lesion. The extremes, whose levels cannot move, are few."""
    x = 60 + 80 * torch.rand(1, 1, 12, 12, 12)
    x[..., 0] = 0
    return x, (x[:, 0] > 100).long()


def dice(victim: Segmenter, x: Tensor, truth: Tensor) -> float:
    found, _ = score(victim.predict(x)[0], truth[0], LESION, (1.0, 1.0, 1.0), ["L"])
    assert found.value is not None
    return found.value


def test_an_attack_through_bare_rounding_is_blind_and_straight_through_it_is_not() -> None:
    x, truth = lesion()
    bare, adaptive = bright(BitDepth(4)), defended(bright(), BitDepth(4))
    attack = ifgsm("0.5 sigma", steps=5)
    with pytest.warns(GradientWarning, match="exactly zero"):
        blind = attack(bare, x, truth)
    with warnings.catch_warnings():
        warnings.simplefilter("error", GradientWarning)
        seeing = attack(adaptive, x, truth)
    assert blind.zero_gradient_share.item() > 0.99
    assert seeing.zero_gradient_share.item() < 0.1
    clean = dice(bare, x, truth)
    assert clean > 0.9
    assert torch.equal(bare.predict(x), adaptive.predict(x))  # one defence, attacked in two ways
    assert dice(bare, blind.x, truth) > clean - 0.02
    # Straight through, rounding costs the attack nothing: half of σ turns the voxels within 11.5 of the threshold.
    undefended = dice(bright(), attack(bright(), x, truth).x, truth)
    assert abs(dice(bare, seeing.x, truth) - undefended) < 0.01
    assert undefended < clean - 0.25


def test_an_adaptive_attack_on_smoothing_beats_one_that_does_not_know_of_it() -> None:
    x, _ = lesion()
    smooth = defended(bright(), GaussianSmoothing(1.0))
    truth = smooth.predict(x)
    attack = ifgsm("0.1 sigma", steps=5)
    unaware, adaptive = attack(bright(), x, truth).x, attack(smooth, x, truth).x
    assert dice(smooth, adaptive, truth) < dice(smooth, unaware, truth) - 0.03  # .034 to .057 over seeds


# What is refused


@pytest.mark.parametrize(
    ("victim", "step", "kind", "words"),
    [
        (nn.Conv3d(1, 2, 1), BitDepth(4), VictimError, "only a victim"),
        (bright(), ZScore(), ConfigError, "protects no victim"),
        (bright(), "median smoothing", ConfigError, "protects no victim"),
        (defended(bright(), BitDepth(4)), BitDepth(4), VictimError, "already begins"),
    ],
)
def test_what_cannot_be_defended_is_refused(victim: Any, step: Any, kind: type[MedadvError], words: str) -> None:
    with unchecked(), pytest.raises(kind, match=words) as refusal:
        defended(victim, step)
    assert refusal.value.details["try"]
