"""What people write at a first try: taken as it is meant, or answered with advice; never a traceback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from attack.stand_ins import scene
from runtime_types import unchecked
from torch import nn

from medadv.attack import presets
from medadv.attack.budget import Budget, Unit
from medadv.attack.checks import check_steady
from medadv.attack.loop import Attack
from medadv.attack.losses import LOSSES
from medadv.attack.objective import Away, Towards
from medadv.attack.relabel import erase
from medadv.attack.steps import Plain
from medadv.attack.threat import Linf
from medadv.errors import BudgetError, ConfigError, VictimError


@pytest.fixture(autouse=True)
def as_users_call() -> Iterator[None]:
    """Without the tests' check of annotations."""
    with unchecked():
        yield


ATTACK = Attack(Linf(Budget(0.1)), Away(), Plain(), 2)


@pytest.mark.parametrize("amount", [0.1, "0.1", "0.1 sigma", Budget(0.1), Linf(Budget(0.1))])
def test_a_bare_number_is_sigma_wherever_a_budget_is_meant(amount: Any) -> None:
    wanted = Linf(Budget(0.1, Unit.SIGMA))
    made = [
        presets.fgsm(amount),
        presets.ifgsm(amount),
        presets.mifgsm(amount),
        presets.pgd(amount),
        presets.tifgsm(amount, erase("liver")),
    ]
    assert all(attack.threat == wanted for attack in made)
    assert isinstance(amount, Linf) or Linf(amount) == wanted


@pytest.mark.parametrize("amount", [None, [0.1, 0.2], "8/255", "0.1 parsec", object])
def test_what_is_no_budget_is_advice(amount: Any) -> None:
    for take in (presets.fgsm, Linf):
        with pytest.raises(BudgetError):
            take(amount)


@pytest.mark.parametrize("legal", ["claen", (0.0,), (1.0, 0.0), 5.0])
def test_a_legal_range_that_is_none_is_advice(legal: Any) -> None:
    with pytest.raises(ConfigError, match="no legal range"):
        Linf(Budget(0.1), legal)
    assert Linf(Budget(0.1), [0.0, 9.0]) == Linf(Budget(0.1), (0.0, 9.0))


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_may_be_named(name: str) -> None:
    victim, x, truth = scene()
    for by_name, by_hand in (
        (presets.ifgsm(0.3, 2, name), presets.ifgsm(0.3, 2, LOSSES[name])),
        (presets.tifgsm(0.3, erase("liver"), 2, name), presets.tifgsm(0.3, erase("liver"), 2, LOSSES[name])),
    ):
        assert torch.equal(by_name(victim, x, truth).x, by_hand(victim, x, truth).x)


@pytest.mark.parametrize("loss", ["dcie", "", None, 3])
def test_an_unknown_loss_is_told_the_known_ones(loss: Any) -> None:
    for make in (presets.ifgsm, lambda *_, loss: Away(loss), lambda *_, loss: Towards(erase("liver"), loss)):
        with pytest.raises(ConfigError, match="no such loss") as refusal:
            make("0.1 sigma", loss=loss)
        assert all(name in refusal.value.details["expected"] for name in LOSSES)


def test_a_bare_region_is_no_goal() -> None:
    for make in (lambda goal: presets.tifgsm("0.1 sigma", goal), Towards):
        with pytest.raises(ConfigError, match="what to make of which voxels") as refusal:
            make("ET")
        assert 'erase("ET")' in refusal.value.details["try"]
        with pytest.raises(ConfigError, match="what to make of which voxels"):
            make(None)


def test_whole_steps_may_be_written_as_a_float() -> None:
    victim, x, truth = scene()
    two = Attack(ATTACK.threat, Away(), Plain(), 2.0)
    assert two == ATTACK
    assert torch.equal(two(victim, x, truth).x, ATTACK(victim, x, truth).x)
    assert presets.mifgsm(0.1, 4.0) == presets.mifgsm(0.1, 4)


@pytest.mark.parametrize("steps", [0, -1, 2.5, float("nan"), float("inf"), "2", None])
@pytest.mark.parametrize("preset", [presets.ifgsm, presets.mifgsm, presets.pgd])
def test_other_numbers_of_steps_are_advice(preset: Callable[..., Attack], steps: Any) -> None:
    with pytest.raises(ConfigError, match="at least one step"):
        preset("0.1 sigma", steps)


def test_a_misspelt_keep_is_advice() -> None:
    with pytest.raises(ConfigError, match="best iterate or its last") as refusal:
        Attack(ATTACK.threat, Away(), Plain(), 2, keep="lsat")
    assert refusal.value.details["got"] == "lsat"


def test_a_bare_network_is_no_victim() -> None:
    _, x, truth = scene()
    for thing in (nn.Conv2d(2, 3, 1), None, lambda x: x):
        with pytest.raises(VictimError, match="no victim") as refusal:
            ATTACK(thing, x, truth)
        assert "Segmenter(network, Softmax(scheme), modalities)" in refusal.value.details["try"]


def test_no_truth_is_advice() -> None:
    victim, x, truth = scene()
    for thing in (None, truth.numpy()):
        with pytest.raises(ConfigError, match="needs the truth") as refusal:
            ATTACK(victim, x, thing)
        assert "victim.predict(x)" in refusal.value.details["try"]


def test_an_image_that_is_no_tensor_is_advice() -> None:
    victim, x, truth = scene()
    with pytest.raises(VictimError, match="no tensor") as refusal:
        ATTACK(victim, x.numpy(), truth)
    assert "volume.x[None]" in refusal.value.details["try"]


def test_a_victim_that_answers_nan_is_not_called_unsteady() -> None:
    victim, x, _ = scene()
    next(iter(victim.network.parameters())).data.fill_(torch.nan)
    with pytest.raises(VictimError, match="answers NaN or infinity"):
        check_steady(victim, x)
