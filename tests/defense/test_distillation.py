"""A teacher's soft labels: what they are, where they are kept, and whose they are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from runtime_types import unchecked
from torch import Tensor, nn

from medadv.defense.crops import Batch
from medadv.defense.lessons import Distilled, Plain, soft_answer, spread
from medadv.defense.precision import bf16
from medadv.defense.soft_labels import CARD, SoftLabels
from medadv.errors import ConfigError, RunError
from medadv.labels import LabelScheme
from medadv.victims.combine import Scaled
from medadv.victims.head import Head, Sigmoid, Softmax
from medadv.victims.normalize import Unchanged
from medadv.victims.segmentation import Segmenter
from medadv.victims.window import SlidingWindow

ORGANS = LabelScheme(
    "organs", {"background": 0, "liver": 2, "spleen": 5}, {"both": ("liver", "spleen"), "liver only": ("liver",)}
)
SOFTMAX, SIGMOID = Softmax(ORGANS), Sigmoid(ORGANS, ("both", "liver only"))
HEADS = [SOFTMAX, SIGMOID]
Layers = nn.Sequential


def layers(head: Head, seed: int) -> Layers:
    torch.manual_seed(seed)
    k = len(head.channels)
    return Layers(nn.Conv2d(2, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(), nn.Dropout(0.4), nn.Conv2d(5, k, 1))


def taught(head: Head, temperature: float = 10.0, seed: int = 1) -> Segmenter:
    network = Scaled(layers(head, seed), temperature)
    return Segmenter(network, head, ("a", "b"), Unchanged(), SlidingWindow((8, 8), 0.5, batch=2))


def batch() -> Batch:
    generator = torch.Generator().manual_seed(4)
    truth = torch.tensor([0, 2, 5])[torch.randint(0, 3, (2, 8, 8), generator=generator)]
    return Batch(torch.randn((2, 2, 8, 8), generator=generator), truth)


def softened(victim: Segmenter, z: Tensor, temperature: float) -> Tensor:
    """By hand: probabilities over the classes of each target, of the network alone."""
    victim.network.eval()
    with torch.no_grad():
        logits = victim.network(z) / temperature
    if victim.head.grouped:
        return torch.stack([torch.sigmoid(-logits), torch.sigmoid(logits)], 1)
    return torch.softmax(logits, 1)


@pytest.mark.parametrize("head", HEADS)
def test_the_loss_is_cross_entropy_and_dice_with_the_teachers_answer(head: Head) -> None:
    teacher, student, given = taught(head), Scaled(layers(head, 2), 10.0).eval(), batch()
    q = softened(teacher, given.z, 10.0)
    teacher.network.train()
    found = Distilled(student, head, teacher, 10.0)(given)
    p = softened(Segmenter(student, head, ("a", "b")), given.z, 10.0)
    entropy = -(q * p.log()).sum(1).flatten(1).mean(1)
    dice = []
    for b in range(2):
        classes = [(p[b, c], q[b, c]) for c in range(1, p.shape[1])]
        parts = [(s[r], t[r]) for s, t in classes for r in range(2)] if head.grouped else classes
        each = [1 - (2 * (s * t).sum() + 1) / ((s**2).sum() + (t**2).sum() + 1) for s, t in parts]
        dice.append(sum(each) / len(each))
    torch.testing.assert_close(found, (entropy + torch.stack(dice)).mean(), rtol=1e-5, atol=1e-6)
    assert teacher.network.training  # as it was


@pytest.mark.parametrize("head", HEADS)
def test_nothing_is_better_than_the_teachers_own_answer(head: Head) -> None:
    """The gradient is zero there, and every step away from it costs."""
    teacher, given = taught(head), batch()
    teacher.network.eval()
    lesson = Distilled(teacher.network, head, teacher, 10.0)
    best = lesson(given)
    best.backward()
    assert max(p.grad.abs().max().item() for p in teacher.network.parameters() if p.grad is not None) < 1e-6
    for seed in range(3):
        torch.manual_seed(seed)
        moved = taught(head)
        moved.network.eval()
        with torch.no_grad():
            for weight in moved.network.parameters():
                weight += 0.05 * torch.randn_like(weight)
        assert Distilled(moved.network, head, teacher, 10.0)(given) > best


def test_at_temperature_the_loss_sees_what_the_layers_say() -> None:
    """A scaled network learns at T exactly as its layers would without scale or temperature."""
    given = batch()
    bare, scaled = layers(SOFTMAX, 3).eval(), Scaled(layers(SOFTMAX, 3), 16.0).eval()
    plain, tempered = Plain(bare, SOFTMAX)(given), Plain(scaled, SOFTMAX, temperature=16.0)(given)
    plain.backward()
    tempered.backward()
    assert torch.equal(plain, tempered)
    for one, other in zip(bare.parameters(), scaled.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-7)


def test_the_teacher_is_no_part_of_the_student() -> None:
    teacher = taught(SOFTMAX)
    lesson = Distilled(layers(SOFTMAX, 2), SOFTMAX, teacher, 10.0)
    before = {name: tensor.clone() for name, tensor in teacher.network.state_dict().items()}
    lesson.train()
    lesson(batch()).backward()
    assert not set(map(id, lesson.parameters())) & set(map(id, teacher.network.parameters()))
    assert all(p.grad is None and p.requires_grad for p in teacher.network.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.network.state_dict().items())


@pytest.mark.parametrize("head", HEADS)
def test_cached_soft_labels_teach_the_same(tmp_path: Path, head: Head) -> None:
    """Half precision holds a probability to 2.5e-4; one window is the network itself."""
    teacher, given = taught(head), batch()
    labels = SoftLabels(tmp_path, teacher, 10.0)
    soft = torch.stack([labels(z) for z in given.z])
    assert soft.dtype is torch.float16
    wanted = softened(teacher, given.z, 10.0)
    assert (spread(head, soft.float()) - wanted).abs().max() < 2.5e-4
    student = layers(head, 2).eval()
    online = Distilled(student, head, teacher, 10.0)(given)
    cached = Distilled(student, head, None, 10.0)(replace(given, soft=soft))
    torch.testing.assert_close(online, cached, rtol=1e-4, atol=1e-4)


def test_the_teacher_answers_in_float32_whatever_the_student_learns_in() -> None:
    teacher, given, student = taught(SOFTMAX), batch(), layers(SOFTMAX, 2).eval()
    with torch.no_grad():  # an answer that bf16 does not hold
        teacher.network.network[-1].weight.mul_(30)  # type: ignore[operator, index, union-attr]
    wanted = soft_answer(teacher, given.z, 10.0)
    with bf16(student, given.z.device):
        found = soft_answer(teacher, given.z, 10.0)
    assert found.dtype is torch.float32
    assert torch.equal(found, wanted)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        narrow = (teacher.network.eval()(given.z).float() / 10).softmax(1)
    assert (narrow - wanted).abs().max() > 1e-3


def test_soft_labels_come_from_the_deployed_windows(tmp_path: Path) -> None:
    teacher = taught(SOFTMAX)
    z = torch.randn(2, 13, 11)
    teacher.network.eval()
    with torch.no_grad():
        wanted = (teacher(z[None])[0] / 10).softmax(0)
        whole = (teacher.network(z[None])[0] / 10).softmax(0)
    teacher.network.train()
    found = SoftLabels(tmp_path, teacher, 10.0)(z).float()
    assert (found - wanted).abs().max() < 2.5e-4
    assert (whole - wanted).abs().max() > 1e-2


def test_padding_is_background() -> None:
    soft = torch.zeros(1, 3, 2, 2)
    soft[0, :, 0, 0] = torch.tensor([0.2, 0.3, 0.5])
    found = spread(SOFTMAX, soft)
    torch.testing.assert_close(found[0, :, 0, 0], torch.tensor([0.2, 0.3, 0.5]))
    torch.testing.assert_close(found[0, :, 1, 1], torch.tensor([1.0, 0.0, 0.0]), rtol=0, atol=1e-9)
    torch.testing.assert_close(spread(SIGMOID, torch.zeros(1, 2, 2, 2))[:, 0], torch.ones(1, 2, 2, 2))


def test_a_case_is_asked_about_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, z = taught(SOFTMAX), torch.randn(2, 9, 9)
    first = SoftLabels(tmp_path, teacher, 10.0)(z)
    monkeypatch.setattr(Scaled, "forward", lambda self, x: pytest.fail("asked again"))
    assert torch.equal(SoftLabels(tmp_path, teacher, 10.0)(z), first)
    with pytest.raises(pytest.fail.Exception, match="asked again"):
        SoftLabels(tmp_path, teacher, 10.0)(z + 1)


def test_a_damaged_file_is_made_anew(tmp_path: Path) -> None:
    teacher, z = taught(SOFTMAX), torch.randn(2, 9, 9)
    first = SoftLabels(tmp_path, teacher, 10.0)(z)
    (file,) = tmp_path.glob("*.tensors")
    content = bytearray(file.read_bytes())
    content[-3] ^= 16
    file.write_bytes(content)
    assert torch.equal(SoftLabels(tmp_path, teacher, 10.0)(z), first)


def test_another_teachers_soft_labels_are_refused(tmp_path: Path) -> None:
    teacher = taught(SOFTMAX)
    SoftLabels(tmp_path, teacher, 10.0)
    SoftLabels(tmp_path, teacher, 10.0)
    windows = replace(teacher, inference=SlidingWindow((8, 8), 0.25))
    scale = replace(teacher, network=Scaled(teacher.network.network, 3.0))  # type: ignore[arg-type]
    for other in (taught(SOFTMAX, seed=2), windows, scale):
        with pytest.raises(RunError, match="another teacher"):
            SoftLabels(tmp_path, other, 10.0)
    with pytest.raises(RunError, match=r"temperature.*10\.0"):
        SoftLabels(tmp_path, teacher, 20.0)
    with pytest.raises(ConfigError, match="temperature"):
        SoftLabels(tmp_path / "new", teacher, 0.0)
    assert json.loads((tmp_path / CARD).read_text())["temperature"] == 10
    (tmp_path / CARD).write_text("{")
    with pytest.raises(RunError, match="whose they are"):
        SoftLabels(tmp_path, teacher, 10.0)


def test_lessons_that_teach_nothing_are_refused() -> None:
    renamed = LabelScheme("organs", {"background": 0, "liver": 2, "spleen": 6}, {"both": ("liver", "spleen")})
    for other in (SIGMOID, Softmax(renamed), Sigmoid(ORGANS, ("both",))):
        with pytest.raises(ConfigError, match="different heads"):
            Distilled(layers(SOFTMAX, 1), SOFTMAX, taught(other), 10.0)
    with pytest.raises(ConfigError, match="different heads"):
        Distilled(layers(SIGMOID, 1), SIGMOID, taught(Sigmoid(ORGANS, ("liver only", "both"))), 10.0)
    for temperature in (0.0, -1.0, float("nan"), float("inf")):
        with unchecked(), pytest.raises(ConfigError, match="temperature"):
            Distilled(layers(SOFTMAX, 1), SOFTMAX, taught(SOFTMAX), temperature)
    with pytest.raises(ConfigError, match="no teacher"):
        Distilled(layers(SOFTMAX, 1), SOFTMAX, None, 10.0)(batch())
