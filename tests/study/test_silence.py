"""Where an attack has nothing to follow: by the goal that it ascends, and not by another."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from medadv.attack.budget import Budget
from medadv.attack.rng import Rng
from medadv.attack.threat import Linf
from medadv.data.brats import MODALITIES
from medadv.errors import GradientWarning
from medadv.labels import BRATS_2018
from medadv.study.attacks import Ifgsm, Tifgsm
from medadv.study.conditions import Attacked, Scene
from medadv.study.silence import silent_share
from medadv.victims.head import Sigmoid, Softmax
from medadv.victims.segmentation import Segmenter

SHAPE = (6, 6, 6)
WIDE = Linf(Budget(0.3), None)


class Said(nn.Module):
    """Answers what it is told, whatever it sees."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = nn.Parameter(answer[None])

    def forward(self, z: Tensor) -> Tensor:
        return self.answer + 0 * z.sum()


def asked(victim: Segmenter, truth: Tensor, **settings: Any) -> float:
    """What the record of an attack tells of a victim."""
    x = 100 + torch.rand((1, 4, *SHAPE), generator=torch.Generator().manual_seed(0))
    spec = (Tifgsm if "goal" in settings else Ifgsm)(
        **{"preset": "tifgsm" if "goal" in settings else "ifgsm", "steps": 1, **settings}
    )
    scene = Scene(victim, x, truth, Rng.seeded(0, ["case"]), {}, x != 0, MODALITIES, (1.0, 1.0, 1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GradientWarning)  # no answer depends on the input
        shown = Attacked("mine", spec, WIDE, listens=True).show(scene)
    assert shown.silent is not None
    return shown.silent


def softmax(tumour: float, between: float) -> Segmenter:
    """All voxels the same: ``tumour`` above background, its tissues ``between`` apart."""
    logits = torch.tensor([0.0, tumour, tumour - between, tumour - between])
    return Segmenter(Said(logits.view(4, 1, 1, 1).expand(4, *SHAPE).clone()), Softmax(BRATS_2018), MODALITIES)


NECROSIS = torch.ones((1, *SHAPE), dtype=torch.long)
OEDEMA = torch.full((1, *SHAPE), 2)


def test_a_region_is_asked_as_inside_against_outside() -> None:
    """Of oedema called necrosis all classes have a gradient; that it is tumour is sure, and WT alone has none."""
    victim = softmax(200.0, 1.0)
    assert asked(victim, OEDEMA) == 0
    assert asked(victim, OEDEMA, region="WT") == 1


def test_the_victims_own_labels_are_asked_where_the_attack_has_no_others() -> None:
    """It is sure of a wrong label: away from the truth there is a gradient, away from its own decision none."""
    victim = softmax(200.0, 200.0)
    assert asked(victim, OEDEMA) == 0
    assert asked(victim, OEDEMA, labels="prediction") == 1


def test_a_goal_is_asked_where_it_wants_something() -> None:
    """Sure and right, so the expert's label has no gradient; towards background all that is to be erased has one."""
    victim = softmax(200.0, 200.0)
    half = NECROSIS.clone()
    half[:, :3] = 0
    assert asked(victim, NECROSIS) == 1
    assert asked(victim, half, goal={"erase": "WT"}) == 0
    assert asked(victim, half) == 0.5


def test_one_region_of_many_is_a_target_a_voxel() -> None:
    regions = ("ET", "TC", "WT")
    answer = torch.tensor([0.5, 0.5, 200.0]).view(3, 1, 1, 1).expand(3, *SHAPE).clone()
    victim = Segmenter(Said(answer), Sigmoid(BRATS_2018, regions), MODALITIES)
    assert asked(victim, NECROSIS) == pytest.approx(1 / 3)
    assert asked(victim, NECROSIS, region="WT") == 1
    assert asked(victim, NECROSIS, region="ET") == 0


def test_nothing_is_left_in_training_mode() -> None:
    victim = softmax(1.0, 1.0)
    victim.network.train()
    x = torch.rand((1, 4, *SHAPE))
    spec = Ifgsm(preset="ifgsm", steps=1).attack(WIDE, (1.0, 1.0, 1.0))
    assert silent_share(victim, x, NECROSIS, spec.objective, Rng.seeded(0, 1)).shape == (1,)
    assert victim.network.training
