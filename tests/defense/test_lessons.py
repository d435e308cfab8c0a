"""What a network learns: closed forms on a linear network, and what a lesson must not disturb."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from runtime_types import unchecked
from torch import Tensor, nn

from medadv.attack import loop
from medadv.attack.losses import dice_cross_entropy
from medadv.attack.rng import Rng
from medadv.defense.crops import Batch
from medadv.defense.inner import InnerAttack
from medadv.defense.lessons import Hardened, Plain, Trades
from medadv.errors import ConfigError
from medadv.labels import LabelScheme
from medadv.victims.head import Head, Sigmoid, Softmax, Voxels

ORGANS = LabelScheme("organs", {"background": 0, "liver": 2, "spleen": 5}, {"both": ("liver", "spleen")})
REGIONS = Sigmoid(ORGANS, ("both",))
HEADS = [Softmax(ORGANS), REGIONS]


class Network(nn.Module):
    """A smooth network with batch norm and dropout, whose answers differ between training and evaluation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Softplus(), nn.Dropout(0.3), nn.Conv2d(6, channels, 1)
        )
        self.modes: list[bool] = []

    def forward(self, z: Tensor) -> Tensor:
        self.modes.append(self.training)
        answer: Tensor = self.layers(z)
        return answer


def network(head: Head, seed: int = 1) -> Network:
    torch.manual_seed(seed)
    net = Network(len(head.channels)).double()
    net(torch.randn(8, 2, 6, 6, dtype=torch.float64))  # running statistics that are not those of any batch
    net.modes.clear()
    return net.train()


def linear(head: Head, weight: Tensor | None = None) -> nn.Conv2d:
    net = nn.Conv2d(2, len(head.channels), 1).double()
    if weight is not None:
        net.weight.data, net.bias.data = weight.view_as(net.weight), torch.zeros_like(net.bias)
    return net


def batch(crops: int = 3, radius: float = 0.2) -> Batch:
    generator = torch.Generator().manual_seed(4)
    z = torch.randn((crops, 2, 6, 6), generator=generator, dtype=torch.float64)
    truth = torch.tensor([0, 2, 5])[torch.randint(0, 3, (crops, 6, 6), generator=generator)]
    radii = torch.tensor([[radius, radius / 2]] * crops, dtype=torch.float64)
    names = [f"0/case-{i}" for i in range(crops)]
    return Batch(z, truth, z > -0.5, radii, None, tuple(names), Rng.seeded(7, names))


def gradients(lesson: nn.Module, net: nn.Module, given: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss and all that one step of training sees and leaves behind."""
    torch.manual_seed(11)
    net.zero_grad()
    loss = lesson(given)
    loss.backward()
    grads = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    return loss.detach(), grads | {name: b.clone() for name, b in net.named_buffers()}


def same(one: tuple[Tensor, dict[str, Tensor]], other: tuple[Tensor, dict[str, Tensor]]) -> bool:
    return (
        torch.equal(one[0], other[0])
        and one[1].keys() == other[1].keys()
        and all(torch.equal(one[1][name], other[1][name]) for name in one[1])
    )


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("case", ["share 0", "radius 0", "no support", "beta 0"])
def test_nothing_attacked_is_plain_bit_for_bit(head: Head, case: str) -> None:
    """Loss, gradients, batch statistics and dropout: the inner attack leaves no trace but what it changes."""
    given = batch(radius=0.0 if case == "radius 0" else 0.2)
    if case == "no support":
        given = replace(given, support=torch.zeros_like(given.z, dtype=torch.bool))
    plain, net = network(head), network(head)
    attack, share = InnerAttack(2), 0.0 if case == "share 0" else 1.0
    lesson = Trades(net, head, attack, beta=0.0) if case == "beta 0" else Hardened(net, head, attack, share)
    assert same(gradients(Plain(plain, head), plain, given), gradients(lesson, net, given))


@pytest.mark.parametrize("start", ["clean", "random"])
def test_fgsm_on_a_linear_network_is_its_closed_form(start: str) -> None:
    """Two classes by one weight: the loss climbs along -w inside, +w outside, whatever the start."""
    weight = torch.tensor([[0.0, 0.0], [1.0, -3.0]], dtype=torch.float64)
    lesion = Softmax(LabelScheme("lesion", {"background": 0, "lesion": 1}))
    net, given = linear(lesion, weight), batch()
    given = replace(given, truth=(given.truth > 0).long())
    attack = InnerAttack(1, size=2.0, start=start, loss="cross entropy")  # type: ignore[arg-type]
    found = attack(net, lesion, given)
    away = torch.where(given.truth > 0, -1, 1)[:, None] * torch.tensor([1.0, -1.0]).view(1, 2, 1, 1)
    assert given.radius is not None
    wanted = given.z + away * given.radius.view(3, 2, 1, 1) * given.support
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-15)
    lesson = Hardened(net, lesion, attack)
    targets = Voxels.of(lesion, given.truth)
    torch.testing.assert_close(lesson(given), dice_cross_entropy(net(wanted), targets).mean(), rtol=0, atol=1e-14)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("lesson", ["hardened", "trades"])
def test_parameters_learn_from_the_attacked_crops_and_not_through_the_attack(head: Head, lesson: str) -> None:
    """The gradient is that of the loss with the attacked crops as constants: by hand, and by finite differences."""
    net, given, attack = linear(head), batch(), InnerAttack(3)
    torch.manual_seed(3)
    nn.init.normal_(net.weight)
    made = Hardened(net, head, attack) if lesson == "hardened" else Trades(net, head, attack, beta=2.0)
    _, found = gradients(made, net, given)
    targets = Voxels.of(head, given.truth)
    attacked = attack(net, head, given) if lesson == "hardened" else _attacked_of(made, given)

    def loss() -> Tensor:
        if lesson == "hardened":
            return dice_cross_entropy(head.logits(net(attacked)), targets).mean()
        clean, moved = head.logits(net(given.z)), head.logits(net(attacked))
        p, q = clean.softmax(1), moved.softmax(1)
        kl = (p * (p / q).log()).sum(1).flatten(1).mean(1)
        return (dice_cross_entropy(clean, targets) + 2 * kl).mean()

    net.zero_grad()
    loss().backward()
    assert net.weight.grad is not None
    torch.testing.assert_close(found["weight"], net.weight.grad, rtol=1e-12, atol=1e-14)
    h, place = 1e-6, (0, 1, 0, 0)
    with torch.no_grad():
        net.weight[place] += h
        above = loss()
        net.weight[place] -= 2 * h
        below = loss()
        net.weight[place] += h
    assert found["weight"][place].item() == pytest.approx((above - below).item() / (2 * h), rel=1e-6)


def _attacked_of(lesson: nn.Module, given: Batch) -> Tensor:
    """What a TRADES lesson learns from: the second half of what its network is fed in training mode."""
    fed: list[Tensor] = []
    assert isinstance(lesson, Trades)
    handle = lesson.network.register_forward_pre_hook(lambda _, args: fed.append(args[0].detach()))
    lesson(given)
    handle.remove()
    clean, attacked = fed[-1].chunk(2)
    assert torch.equal(clean, given.z)
    return attacked


def test_trades_pushes_answers_apart_inside_the_threat() -> None:
    head = Softmax(ORGANS)
    net, given = linear(head), batch()
    attacked = _attacked_of(Trades(net, head, InnerAttack(5)), given)
    assert given.radius is not None
    assert given.support is not None
    change = (attacked - given.z).abs()
    assert bool((change <= given.radius.view(3, 2, 1, 1) * (1 + 1e-12)).all())
    assert not change[~given.support].any()
    random = _attacked_of(Trades(net, head, InnerAttack(1, size=1e-9)), given)

    def kl(z: Tensor) -> Tensor:
        p, q = net(given.z).softmax(1), net(z).softmax(1)
        return (p * (p / q).log()).sum(1).flatten(1).sum(1)

    assert bool((kl(attacked) > 2 * kl(random)).all())


@contextmanager
def train_mode_inside() -> Iterator[None]:
    """The planted fault: an attack that leaves the network in training mode."""

    @contextmanager
    def careless(modules: object) -> Iterator[None]:
        with torch.enable_grad():
            yield

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "held_still", careless)
        yield


def disturbed(lesson: str) -> bool:
    """Whether the inner attack met training mode, moved a running statistic, or left parameters with gradients."""
    head = Softmax(ORGANS)
    net, given, attack = network(head), batch(), InnerAttack(2)
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    made: nn.Module = Hardened(net, head, attack) if lesson == "hardened" else Trades(net, head, attack)
    made(given)
    inner, last = net.modes[:-1], net.modes[-1]
    fresh = network(head)
    torch.manual_seed(0)
    attack(fresh, head, given)
    unmoved = all(torch.equal(before[name], buffer) for name, buffer in fresh.named_buffers())
    clean = all(p.grad is None and p.requires_grad for p in fresh.parameters())
    return any(inner) or not last or not net.training or not unmoved or not clean


@pytest.mark.parametrize("lesson", ["hardened", "trades"])
def test_the_attack_meets_evaluation_mode_and_the_lesson_training_mode(lesson: str) -> None:
    assert not disturbed(lesson)
    with train_mode_inside():
        assert disturbed(lesson)


def test_all_is_learnt_in_one_pass() -> None:
    """Batch norm sees attacked and clean crops together."""
    head, given = Softmax(ORGANS), batch(8)
    for trades in (True, False):
        net = network(head)
        made = Trades(net, head, InnerAttack(1)) if trades else Hardened(net, head, InnerAttack(1), 0.5)
        made(given)
        assert net.modes.count(True) == 1


@pytest.mark.parametrize("lesson", ["hardened", "trades", "half"])
def test_what_a_crop_becomes_does_not_depend_on_its_batch_mates(lesson: str) -> None:
    """Which crops are attacked, with which radius, from which start: each by its own stream."""
    head, given = Softmax(ORGANS), batch(6)
    net = linear(head)

    def fed(part: Batch) -> Tensor:
        seen: list[Tensor] = []
        attack, share = InnerAttack(2, lowest=0.25), 0.5 if lesson == "half" else 1.0
        made = Trades(net, head, attack) if lesson == "trades" else Hardened(net, head, attack, share)
        handle = net.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
        made(part)
        handle.remove()
        return seen[-1][-len(part.z) :]

    whole = fed(given)
    for i in range(6):
        torch.testing.assert_close(fed(given.take(torch.tensor([i])))[0], whole[i], rtol=0, atol=1e-12)
    if lesson == "half":
        untouched = (whole == given.z).flatten(1).all(1)
        assert untouched.any()
        assert not untouched.all()


def test_the_radius_is_drawn_from_its_range() -> None:
    head, given = Softmax(ORGANS), batch(64)
    attack = InnerAttack(1, size=9.0, lowest=0.25)
    assert given.radius is not None
    shares = (attack(linear(head), head, given) - given.z).abs().amax((2, 3)) / given.radius
    torch.testing.assert_close(shares[:, 0], shares[:, 1], rtol=1e-9, atol=0)  # one factor for all channels
    assert 0.25 <= shares.min() < 0.35
    assert 0.9 < shares.max() <= 1


def test_a_crop_that_is_not_finite_makes_a_loss_that_is_not_and_spares_the_others() -> None:
    head, given = Softmax(ORGANS), batch()
    broken = replace(given, z=given.z.clone())
    broken.z[1, 0, 2, 2] = math.nan
    net, attack = linear(head), InnerAttack(2)
    found = attack(net, head, broken)
    torch.testing.assert_close(found[[0, 2]], attack(net, head, given)[[0, 2]], rtol=0, atol=1e-12)
    assert Hardened(net, head, attack)(broken).isnan()
    assert Hardened(net, head, attack)(replace(given, z=given.z * math.nan)).isnan()


@pytest.mark.parametrize("lesson", ["hardened", "trades"])
def test_half_precision_is_allowed_around_a_lesson(lesson: str) -> None:
    head, given = Softmax(ORGANS), batch()
    net = linear(head).float()
    given = replace(given, z=given.z.float())
    made: nn.Module = Hardened(net, head, InnerAttack(2)) if lesson == "hardened" else Trades(net, head, InnerAttack(2))
    whole = made(given)
    with torch.autocast("cpu", torch.bfloat16):
        half = made(given)
    half.backward()
    assert half.item() == pytest.approx(whole.item(), rel=0.05)
    assert net.weight.grad is not None
    assert net.weight.grad.dtype is torch.float32


def refused() -> list[tuple[str, object]]:
    head = Softmax(ORGANS)
    net, given = linear(head), batch()
    return [
        ("no radius", lambda: Hardened(net, head, InnerAttack())(replace(given, radius=None))),
        ("no radius", lambda: Trades(net, head, InnerAttack())(replace(given, radius=None))),
        ("start", lambda: InnerAttack(start="near")),  # type: ignore[arg-type]
        ("random start", lambda: Trades(net, head, InnerAttack(start="clean"))),
        ("share", lambda: Hardened(net, head, InnerAttack(), share=1.2)),
        ("share", lambda: InnerAttack(lowest=-0.1)),
        ("no such loss", lambda: InnerAttack(loss="cross entropies")),
        ("positive share", lambda: InnerAttack(size=0.0)),
        ("at least one step", lambda: InnerAttack(0)),
        ("not negative", lambda: Trades(net, head, InnerAttack(), beta=-1.0)),
        ("temperature", lambda: Plain(net, head, temperature=-2.0)),
        ("temperature", lambda: Plain(net, head, temperature=math.nan)),
    ]


@pytest.mark.parametrize("index", range(12))
def test_what_cannot_be_meant_is_refused(index: int) -> None:
    word, act = refused()[index]
    with unchecked(), pytest.raises(ConfigError, match=word):
        act()  # type: ignore[operator]


def test_the_attack_never_goes_through_a_wrapper_of_processes(tmp_path: object) -> None:
    from torch import distributed

    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        head = Softmax(ORGANS)
        wrapped = nn.parallel.DistributedDataParallel(linear(head))
        with pytest.raises(ConfigError, match="bare network"):
            Hardened(wrapped, head, InnerAttack())(batch())
    finally:
        distributed.destroy_process_group()
