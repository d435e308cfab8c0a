"""What a detector learns from, and what it is told to learn."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn
from victims.small_detectors import LESIONS, SIZES, detector, lesions, own
from victims.small_pictures import SHAPES, picture

from medadv.defense.detecting import Detecting
from medadv.defense.pictures import Batch, Picture, Pictures
from medadv.errors import ConfigError, VictimError
from medadv.objects import Objects
from medadv.victims.sight import turned

BATCH = Batch(
    torch.stack([picture(i, (32, 48))[0] / 255 for i in (1, 2)]), tuple(picture(i, (32, 48))[1] for i in (1, 2))
)


def lesson(kind: str, frozen: bool = False) -> Detecting:
    victim = detector(kind)
    return Detecting(victim.network, victim.looking, SHAPES, frozen)


@pytest.mark.parametrize("kind", SIZES)
def test_the_loss_is_the_networks_own(kind: str) -> None:
    learning = lesson(kind).train()
    network = deepcopy(learning.network).train()
    objects = [{"boxes": turned(each.boxes), "labels": SHAPES.classes(each.labels)} for each in BATCH.objects]
    torch.manual_seed(5)
    expected = sum(network(list(BATCH.z), objects).values())
    torch.manual_seed(5)
    loss = learning(BATCH)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    loss.backward()
    silent = [name for name, p in learning.network.named_parameters() if p.grad is None or not p.grad.any()]
    # Where no object has the size of a map's boxes, nothing is learnt of their corners there.
    assert [name for name in silent if "bias" not in name and "regression" not in name] == []


def test_lesions_are_learnt_by_monais_loss() -> None:
    victim = lesions()
    learning = Detecting(victim.network, victim.looking, LESIONS).train()
    z = torch.randn(2, 1, 16, 16, 16)
    objects = (Objects(torch.tensor([[2.0, 2, 2, 9, 9, 9]]), torch.tensor([9])), Objects.none(3))
    loss = learning(Batch(z, objects))
    loss.backward()
    assert loss > 0
    assert all(p.grad is not None for p in learning.network.parameters())


def test_difficult_objects_are_not_learnt() -> None:
    learning = lesson("SSD").train()
    first, second = BATCH.objects
    doubtful = Objects(first.boxes, first.labels, difficult=torch.ones(len(first), dtype=torch.bool))
    none = Batch(BATCH.z, (Objects.none(2), second))
    assert learning(Batch(BATCH.z, (doubtful, second))).item() == learning(none).item()
    assert learning(BATCH).item() != learning(none).item()


@pytest.mark.parametrize("kind", SIZES)
def test_pictures_without_objects_teach_the_background(kind: str) -> None:
    loss = lesson(kind).train()(Batch(BATCH.z, (Objects.none(2), Objects.none(2))))
    assert (loss == 0) if kind == "SSD" else (loss > 0)  # SSD learns three backgrounds an object


@pytest.mark.parametrize("frozen", [True, False])
def test_batch_norm_keeps_its_statistics_where_it_is_frozen(frozen: bool) -> None:
    learning = lesson("RetinaNet", frozen)
    norm = nn.BatchNorm2d(3)
    backbone = learning.network.backbone
    learning.network.backbone = nn.Sequential(norm, backbone)
    learning.train()
    learning(BATCH)
    assert bool(norm.running_mean.any()) is not frozen
    assert learning.network.training


def test_a_module_of_ones_own_has_no_lesson() -> None:
    victim = own()
    with pytest.raises(VictimError, match="no loss"):
        Detecting(victim.network, victim.looking, SHAPES)(BATCH)


# What it learns from


def test_a_mirror_image_shows_the_same_objects_in_mirrored_places() -> None:
    z, objects = picture(2, (32, 48))
    one = Picture(z, objects)
    for axis in (0, 1):
        two = one.mirrored(axis)
        for box, mirrored in zip(objects.boxes.long(), two.objects.boxes.long(), strict=True):
            there = one.z[:, box[0] : box[2], box[1] : box[3]]
            here = two.z[:, mirrored[0] : mirrored[2], mirrored[1] : mirrored[3]]
            assert torch.equal(here, there.flip(axis + 1))
        again = two.mirrored(axis)
        assert torch.equal(again.z, one.z)
        assert torch.equal(again.objects.boxes, one.objects.boxes)


def examples(count: int) -> list[Picture]:
    made = [picture(i, (32, 48)) for i in range(count)]
    return [Picture(z, objects, f"case {i}") for i, (z, objects) in enumerate(made)]


def test_every_epoch_shows_every_picture_once_and_the_same_step_the_same_batch() -> None:
    source = Pictures(examples(6), 2, (0, 1), seed=3)
    epochs = [[case for step in range(3 * e, 3 * e + 3) for case in source(step).cases] for e in range(2)]
    assert [sorted(epoch) for epoch in epochs] == [sorted(f"case {i}" for i in range(6))] * 2
    assert epochs[0] != epochs[1]
    again = Pictures(examples(6), 2, (0, 1), seed=3)(4)
    assert torch.equal(again.z, source(4).z)
    assert torch.equal(again.objects[0].boxes, source(4).objects[0].boxes)
    kinds = {tuple(torch.equal(one, z) for z in _turns(case)) for b in range(40) for case, one in _pairs(source(b))}
    assert len(kinds) == 4


def _pairs(batch: Batch) -> list[tuple[str, torch.Tensor]]:
    return list(zip(batch.cases, batch.z, strict=True))


def _turns(case: str) -> list[torch.Tensor]:
    z = picture(int(case.split()[1]), (32, 48))[0]
    return [z, z.flip(1), z.flip(2), z.flip(1, 2)]


def test_two_ranks_see_together_what_one_sees() -> None:
    one = Pictures(examples(4), 2)(1)
    parts = [Pictures(examples(4), 1, rank=rank, ranks=2)(1) for rank in range(2)]
    assert torch.equal(one.z, torch.cat([part.z for part in parts]))
    assert one.cases == parts[0].cases + parts[1].cases


def test_pictures_of_several_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match="one size"):
        Pictures([*examples(1), Picture(torch.zeros(3, 8, 8), Objects.none(2))])
    with pytest.raises(ConfigError, match="no pictures"):
        Pictures([])
