"""The chain of preprocessing, the victim's own modalities, and a predictor that is scored instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medadv.attack.rng import Rng
from medadv.errors import ConfigError
from medadv.labels import BRATS_2018
from medadv.victims.head import SURE, Head, Sigmoid, Softmax
from medadv.victims.normalize import Unchanged, ZScore
from medadv.victims.preprocess import Affine, Image, Placed, Step
from medadv.victims.segmentation import Segmenter

HEADS = [Softmax(BRATS_2018), Sigmoid(BRATS_2018, ("WT", "TC", "ET"))]


@dataclass(frozen=True, eq=False)
class Cut:
    """A crop to the box of what is brighter than a threshold, along the first axis."""

    above: float
    name: str = "cut"

    def prepare(self, x: Image, affine: Affine | None) -> Placed:
        bright = (x > self.above).flatten(3).any(3).any(1).any(0).nonzero().flatten()
        return PlacedCut(int(bright.min()), int(bright.max()) + 1, x.shape[2], affine)


@dataclass(frozen=True, eq=False)
class PlacedCut:
    start: int
    stop: int
    size: int
    affine: Affine | None

    def __call__(self, x: Tensor) -> Tensor:
        return x[:, :, self.start : self.stop]

    def back(self, answer: Tensor, outside: Tensor) -> Tensor:
        whole = outside.view(1, -1, *[1] * (answer.ndim - 2)).expand(len(answer), -1, self.size, *answer.shape[3:])
        return torch.cat([whole[:, :, : self.start], answer, whole[:, :, self.stop :]], 2)

    def labels(self, truth: Tensor) -> Tensor:
        return truth[:, self.start : self.stop]


def victim(head: Head = HEADS[0], preprocess: Any = None, modalities: tuple[str, ...] = ("t1", "t2")) -> Segmenter:
    torch.manual_seed(0)
    network = nn.Conv2d(len(modalities), len(head.channels), 3, padding=1).double()
    return Segmenter(network, head, modalities, preprocess or (Cut(0.5), ZScore()))


def image() -> Tensor:
    torch.manual_seed(1)
    x = torch.rand(1, 2, 8, 5, dtype=torch.float64) / 4
    x[:, :, 2:6] += 1
    return x


def test_steps_and_placed_steps_are_what_they_claim() -> None:
    step = Cut(0.5)
    assert isinstance(step, Step)
    assert isinstance(ZScore(), Step)
    assert isinstance(step.prepare(image(), None), Placed)
    assert isinstance(ZScore().prepare(image(), None), Placed)


@pytest.mark.parametrize("head", HEADS, ids=["softmax", "sigmoid"])
def test_what_is_cut_away_is_background(head: Head) -> None:
    answered = victim(head)(image())
    outside = torch.cat([answered[..., :2, :], answered[..., 6:, :]], -2)
    assert {round(v) for v in outside.flatten().tolist()} <= {0, -int(SURE)}
    decided = victim(head).predict(image())
    assert not decided[:, [0, 1, 6, 7]].any()
    assert decided[:, 2:6].any()


def test_the_crop_is_frozen_for_the_gradient_and_fresh_for_the_score() -> None:
    x, moved = image(), image()
    moved[:, :, 0, 0] = 2.0  # now the box begins at 0
    frozen = victim().prepare(x, Rng.seeded(0, 1))
    assert bool((frozen(moved)[:, 1:, 0] == -SURE).all())
    assert not bool((victim()(moved)[:, 1:, 0] == -SURE).any())
    assert torch.equal(frozen.predict(moved), victim().predict(moved))


def test_the_gradient_passes_every_step() -> None:
    x = image()
    frozen = victim().prepare(x, Rng.seeded(0, 1))
    leaf = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(frozen(leaf).tanh().sum(), leaf)
    for place in [(0, 0, 3, 3), (0, 1, 2, 0), (0, 0, 0, 0)]:
        h = torch.zeros_like(x)
        h[place] = 1e-6
        change = (frozen(x + h).tanh().sum() - frozen(x - h).tanh().sum()) / 2e-6
        torch.testing.assert_close(found[place], change, rtol=1e-6, atol=1e-8)


def test_the_affine_reaches_every_step() -> None:
    seen: list[Affine | None] = []

    @dataclass(frozen=True, eq=False)
    class Asking(Unchanged):
        def prepare(self, x: Image, affine: Affine | None) -> Placed:
            seen.append(affine)
            return super().prepare(x, affine)

    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    victim(preprocess=(Asking(), ZScore(), Asking())).at(affine)(image())
    assert [np.array_equal(a, affine) for a in seen] == [True, True]


def test_a_victim_takes_its_own_modalities_in_its_own_order() -> None:
    two, x = victim(), image()
    more = torch.cat([x[:, 1:], torch.full_like(x[:, :1], 7.0), x[:, :1]], 1)
    reading = two.reading(("t2", "flair", "t1"))
    assert torch.equal(reading(more), two(x))
    leaf = more.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(reading(leaf).sum(), leaf)
    assert not gradient[:, 1].any()
    assert gradient[:, 0].any()
    reading.check_fit(("t2", "flair", "t1"), BRATS_2018)
    with pytest.raises(ConfigError, match="another order"):
        reading.check_fit(("t1", "t2"), BRATS_2018)
    assert two.preprocessing() != reading.preprocessing()
    assert two.reading(("t1", "t2")).preprocessing() == two.preprocessing()


def test_a_modality_that_the_data_lack_is_told() -> None:
    with pytest.raises(ConfigError, match="do not have") as told:
        victim().reading(("t1", "t2f"))
    assert "['t2']" in str(told.value)


class Constant:
    """A predictor of its own: everything is oedema, but in one voxel."""

    def __call__(self, x: Tensor, affine: Affine | None) -> Tensor:
        answer = torch.full((1, *x.shape[2:]), 2)
        answer[0, 0, 0] = 0 if affine is None else 1
        return answer

    def describe(self) -> dict[str, Any]:
        return {"name": "constant"}


def test_a_deployed_predictor_is_scored_and_not_differentiated() -> None:
    own = victim()
    scored = Segmenter(own.network, own.head, own.modalities, own.preprocess, deployed=Constant())
    x = image().repeat(2, 1, 1, 1)
    assert scored.predict(x)[:, 0, 0].tolist() == [0, 0]
    assert scored.at(np.eye(4)).predict(x)[:, 0, 0].tolist() == [1, 1]
    assert torch.equal(scored(x), own(x))
    assert torch.equal(scored.decided(x), own.predict(x))
    assert scored.agreement(x) == (own.predict(x) == scored.predict(x)).double().mean().item() < 1
    assert own.agreement(x) == 1
    assert scored.preprocessing()["deployed"] == {"name": "constant"}
