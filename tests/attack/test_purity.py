"""An attack leaves nothing behind: inputs, weights, buffers, flags and random numbers are as they were."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import pytest
import torch
from attack.stand_ins import curved, linear, normal, organs
from torch import Tensor, nn

from medadv.attack.budget import Budget
from medadv.attack.loop import Attack, random
from medadv.attack.objective import Away
from medadv.attack.presets import fgsm, ifgsm, klpgd, mifgsm, pgd
from medadv.attack.steps import Plain
from medadv.attack.threat import Linf
from medadv.attack.victim import held_still
from medadv.attack.wrappers import Attacker, Restarts, Transfer, WorstOf
from medadv.errors import GradientError
from medadv.victims.normalize import ZScore
from medadv.victims.segmentation import Segmenter
from medadv.victims.window import SlidingWindow

SHAPE = (6, 5)
ATTACKS = [fgsm("0.1 sigma"), mifgsm("0.1 sigma", steps=3), pgd("0.1 sigma", steps=3)]
MADE = [
    Restarts(ATTACKS[2], 2),
    WorstOf([ATTACKS[1], klpgd("0.1 sigma", 2)]),
    Transfer(ATTACKS[0], replace(curved(), preprocess=ZScore())),
]


def scene() -> tuple[Segmenter, Tensor, Tensor]:
    victim = replace(curved(), preprocess=ZScore(), inference=SlidingWindow((4, 4)))
    victim.network.layers[3].train()  # a part in another mode than its parent
    victim.network.layers[2].training = True
    return victim, normal((2, 2, *SHAPE)), organs((2, *SHAPE))


def everything(network: nn.Module, *tensors: Tensor) -> list[object]:
    """All that an attack could disturb, as values."""
    return [
        [(name, value.clone()) for name, value in network.state_dict().items()],
        [(name, p.requires_grad, p.grad) for name, p in network.named_parameters()],
        [part.training for part in network.modules()],
        [(t.clone(), t.requires_grad, t.grad, t._version) for t in tensors],
        torch.get_rng_state(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_default_dtype(),
    ]


def same(a: object, b: object) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(same, a, b))
    return a == b


@contextmanager
def undisturbed(network: nn.Module, *tensors: Tensor) -> Iterator[None]:
    before = everything(network, *tensors)
    yield
    assert same(before, everything(network, *tensors))


@pytest.mark.parametrize(
    "attack", [*ATTACKS, *MADE], ids=["fgsm", "momentum", "pgd", "restarts", "worst of", "transfer"]
)
def test_an_attack_disturbs_nothing(attack: Attacker) -> None:
    victim, x, truth = scene()
    with undisturbed(victim.network, x, truth):
        found = attack(victim, x, truth)
    assert not found.x.requires_grad
    assert not torch.equal(found.x, x)


def test_the_disturbance_would_be_seen() -> None:
    """Planted faults, one for each thing that is compared."""
    faults: list[Callable[[Segmenter, Tensor], object]] = [
        lambda v, x: v.network.layers[0].bias.data.add_(1e-9),
        lambda v, x: v.network.layers[1].running_mean.add_(1e-9),
        lambda v, x: v.network.layers[0].bias.requires_grad_(False),
        lambda v, x: v.network.layers[3].eval(),
        lambda v, x: x.mul_(1.0),
        lambda v, x: x.requires_grad_(),
        lambda v, x: torch.rand(1),
    ]
    for fault in faults:
        victim, x, truth = scene()
        with pytest.raises(AssertionError), undisturbed(victim.network, x, truth):
            fault(victim, x)


class InterruptionError(Exception):
    """Raised in the middle of an attack."""


@pytest.mark.parametrize("call", [1, 2, 9, 20])
@pytest.mark.parametrize("attack", [*ATTACKS[1:], *MADE[:2]], ids=["momentum", "pgd", "restarts", "worst of"])
def test_an_attack_that_breaks_off_disturbs_nothing(attack: Attacker, call: int) -> None:
    victim, x, truth = scene()
    calls = 0

    def explode(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise InterruptionError

    hook = victim.network.register_forward_pre_hook(explode)
    with undisturbed(victim.network, x, truth), pytest.raises(InterruptionError):
        attack(victim, x, truth)
    hook.remove()


@pytest.mark.parametrize("fails", ["objective", "step", "gradient"])
def test_other_faults_disturb_nothing_either(fails: str) -> None:
    victim, x, truth = scene()

    def explode(*_: object) -> Tensor:
        raise InterruptionError

    attack = Attack(Linf(Budget(0.1)), Away(), Plain(), 3, random)
    if fails == "objective":
        attack = replace(attack, objective=Away(loss=explode))
    if fails == "step":
        attack = replace(attack, step=explode)
    if fails == "gradient":
        attack = replace(attack, objective=Away(loss=lambda raw, t: torch.sqrt((raw - raw).flatten(1).sum(1))))
    with undisturbed(victim.network, x, truth), pytest.raises((InterruptionError, GradientError)):
        attack(victim, x, truth)


@pytest.mark.parametrize("around", [nullcontext, torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_callers_may_have_switched_gradients_off(around: Callable[[], object]) -> None:
    victim, x, truth = scene()
    expected = ifgsm("0.1 sigma", steps=3)(victim, x, truth)
    with around(), undisturbed(victim.network, x, truth):
        found = ifgsm("0.1 sigma", steps=3)(victim, x, truth)
    assert torch.equal(found.x, expected.x)


def test_inputs_made_in_inference_mode_can_be_attacked() -> None:
    victim, x, truth = scene()
    expected = ifgsm("0.1 sigma", steps=3)(victim, x, truth)
    with torch.inference_mode():
        inference = x.clone()
        assert torch.equal(victim.predict(inference), victim.predict(x))
    assert inference.is_inference()
    assert torch.equal(ifgsm("0.1 sigma", steps=3)(victim, inference, truth).x, expected.x)


def test_an_input_that_wants_a_gradient_gets_none() -> None:
    victim, x, truth = scene()
    leaf = x.clone().requires_grad_()
    found = ifgsm("0.1 sigma", steps=2)(victim, leaf * 1, truth)
    assert leaf.grad is None
    assert not found.x.requires_grad


def test_the_network_is_in_evaluation_mode_meanwhile() -> None:
    victim, x, truth = scene()
    victim.network.train()
    modes: set[bool] = set()
    flags: set[bool] = set()
    victim.network.layers[3].register_forward_hook(lambda m, i, o: modes.add(m.training))
    victim.network.register_forward_hook(lambda m, i, o: flags.update(p.requires_grad for p in m.parameters()))
    pgd("0.1 sigma", steps=2)(victim, x, truth)
    victim.predict(x)
    assert modes == {False}
    assert flags == {False}
    assert victim.network.training


def test_modules_that_share_a_weight_are_restored() -> None:
    shared = nn.Conv2d(2, 2, 1)
    other = nn.Conv2d(2, 2, 1)
    other.weight = shared.weight
    other.bias.requires_grad_(False)
    with held_still([shared, other]):
        assert not shared.weight.requires_grad
    assert [p.requires_grad for p in (shared.weight, shared.bias, other.weight, other.bias)] == [True] * 3 + [False]


def test_the_host_asks_the_device_once_in_ten_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would wait for a device: item, tolist, a truth value, nonzero. A CPU cannot show the wait, only the call."""
    asked: list[str] = []
    x, truth = normal((2, 1, 9)), torch.zeros(2, 9, dtype=torch.int64)

    def watch(name: str) -> None:
        original = getattr(Tensor, name)

        def watched(self: Tensor, *args: object, **keywords: object) -> object:
            asked.append(name)
            return original(self, *args, **keywords)

        monkeypatch.setattr(Tensor, name, watched)

    def cost(attack: Attack) -> int:
        asked.clear()
        attack(linear(torch.ones(1)), x, truth)
        return len(asked)

    for name in ("item", "tolist", "__bool__", "__int__", "__float__", "nonzero", "cpu", "numpy"):
        watch(name)
    for make in (lambda n: ifgsm("0.1 sigma", n), lambda n: mifgsm("0.1 sigma", n), lambda n: pgd("0.1 sigma", n)):
        few, many = cost(make(2)), cost(make(32))
        assert many - few <= 3
        assert few > 0  # the watch sees something
