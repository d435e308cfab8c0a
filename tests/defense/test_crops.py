"""What a network learns from: functions of (seed, step), augmented without touching what labels mean."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medadv.defense.crops import Batch, Crops, Example

NUMBERS = {0, 1, 2, 4}


def example(seed: int, shape: tuple[int, ...] = (12, 10, 14)) -> Example:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn((2, *shape), generator=generator)
    truth = torch.tensor([0, 1, 2, 4])[torch.randint(0, 4, shape, generator=generator)]
    return Example(z, truth)


def crops(cases: int = 3, **settings: object) -> Crops:
    return Crops([example(i) for i in range(cases)], (8, 8, 8), **settings)  # type: ignore[arg-type]


def equal(one: Batch, other: Batch) -> bool:
    return torch.equal(one.z, other.z) and torch.equal(one.truth, other.truth)


@given(st.integers(0, 2**32), st.integers(0, 10_000))
@settings(max_examples=15)
def test_a_batch_is_a_function_of_seed_and_step(seed: int, step: int) -> None:
    first = crops(seed=seed)(step)
    torch.manual_seed(step + 1)
    again = crops(seed=seed)
    again(step + 3)
    assert equal(again(step), first)
    assert first.z.shape == (2, 2, 8, 8, 8)
    assert first.z.dtype is torch.float32
    assert first.truth.shape == (2, 8, 8, 8)
    assert first.truth.dtype is torch.int64
    assert type(first.z) is torch.Tensor


def test_steps_and_seeds_differ() -> None:
    batches = [crops(seed=seed)(step) for seed in range(2) for step in range(3)]
    assert not any(equal(one, other) for i, one in enumerate(batches) for other in batches[:i])


def test_global_random_numbers_are_neither_used_nor_moved() -> None:
    before = torch.get_rng_state()
    crops()(0)
    assert torch.equal(torch.get_rng_state(), before)


def test_augmentation_keeps_label_numbers() -> None:
    found: Counter[int] = Counter()
    for step in range(12):
        found.update(crops()(step).truth.flatten().tolist())
    assert set(found) == NUMBERS


def test_labels_move_with_the_image() -> None:
    """An image that shows its own labels still does after cropping and mirroring: intensities may drift, order not."""
    truth = example(0).truth
    shown = Example(torch.stack([truth.float()] * 2) * 100, truth)
    batches = Crops([shown], (8, 8, 8), size=2, flips=(0, 1, 2))
    for step in range(8):
        batch = batches(step)
        for z, labels in zip(batch.z, batch.truth, strict=True):
            for number in NUMBERS:
                spread = z[:, labels == number]
                assert spread.std() < 1
            means = [z[:, labels == number].mean() for number in sorted(NUMBERS)]
            assert means == sorted(means)


def test_an_epoch_shows_every_case_once() -> None:
    constant = [Example(torch.full((1, 8, 8, 8), float(10 * i)), example(i, (8, 8, 8)).truth) for i in range(5)]
    batches = Crops(constant, (8, 8, 8), size=1)
    orders = []
    for epoch in range(6):
        means = [batches(5 * epoch + step).z.mean().item() / 10 for step in range(5)]
        orders.append(tuple(round(mean / 1.0) for mean in means))
        assert sorted(orders[-1]) == [0, 1, 2, 3, 4]
    assert len(set(orders)) > 1


def test_only_the_named_axes_are_mirrored() -> None:
    ramp = torch.arange(8.0)
    z = (ramp.view(8, 1, 1) + 10 * ramp.view(1, 8, 1) + 100 * ramp.view(1, 1, 8)).unsqueeze(0)
    truth = torch.ones(8, 8, 8, dtype=torch.int64)
    turned = set()
    for step in range(30):
        (image,) = Crops([Example(z, truth)], (8, 8, 8), size=1, flips=(1,))(step).z[:, 0]
        means = (image.mean([other for other in range(3) if other != axis]) for axis in range(3))
        turned.add(tuple(bool(mean[-1] < mean[0]) for mean in means))
    assert turned == {(False, False, False), (False, True, False)}


def test_a_small_case_is_padded_with_zeros() -> None:
    batch = Crops([example(0, (4, 8, 8))], (8, 8, 8), size=2)(0)
    assert batch.z.shape == (2, 2, 8, 8, 8)
    assert set(batch.truth[:, :2].flatten().tolist()) == {0}


def test_two_axes_are_crops_too() -> None:
    assert Crops([example(0, (12, 10))], (8, 8))(0).z.shape == (2, 2, 8, 8)


@pytest.mark.parametrize("number", [0, 1])
def test_a_case_of_one_label_is_data(number: int) -> None:
    """All background is a normal answer of an expert, and no reason for a warning a crop."""
    only = Example(example(0).z, torch.full((12, 10, 14), number))
    assert set(Crops([only], (8, 8, 8))(0).truth.flatten().tolist()) == {number}
