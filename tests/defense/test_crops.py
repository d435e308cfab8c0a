"""What a network learns from: functions of (seed, step), augmented without touching what labels mean."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medadv.defense.crops import Batch, Crops, Example, Mixed
from medadv.errors import ConfigError

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


def attacked(seed: int, shape: tuple[int, ...] = (12, 10, 14)) -> Example:
    """An example with all that an attacking or taught lesson needs, each voxel of it telling its own place."""
    plain = example(seed, shape)
    soft = torch.nn.functional.one_hot(plain.truth, 5).movedim(-1, 0).half()
    support = torch.stack([plain.truth > 0, plain.truth == 4])
    return Example(plain.z, plain.truth, support, torch.tensor([0.1, 0.2]), soft, f"case-{seed}")


def digest(batches: Crops) -> str:
    state = hashlib.sha256()
    for step in range(8):
        batch = batches(step)
        state.update(batch.z.numpy().tobytes())
        state.update(batch.truth.numpy().tobytes())
    return state.hexdigest()


ONE_LABEL = [replace(attacked(i), truth=torch.zeros(12, 10, 14, dtype=torch.int64)) for i in range(3)]

PUBLISHED = [
    (
        Crops([attacked(i) for i in range(3)], (8, 8, 8), 2, (0, 2), 7),
        "a295c7ff64342486953644eeb8319c4bf45d825a1a2ee556ac4559d460db4218",
    ),
    (
        Crops([attacked(i, (6, 10)) for i in range(3)], (8, 8), 3, (1,), 0),
        "547ee166e14716470638f75ba5518f625c283425dec07458ec34fc11ac66d824",
    ),
    (Crops(ONE_LABEL, (8, 8, 8), 1, (0,), 3), "debf755870876386e46597695883c918908666e31221981bd7e177316c8ed1f8"),
]
"""What crops were before examples had supports and soft labels: published figures depend on these bits."""


@pytest.mark.parametrize(("batches", "bits"), PUBLISHED)
@pytest.mark.parametrize("bare", [True, False])
def test_crops_are_bit_for_bit_what_they_were(batches: Crops, bits: str, bare: bool) -> None:
    assert isinstance(batches.examples, list)
    given = [Example(e.z, e.truth) for e in batches.examples] if bare else batches.examples
    assert digest(replace(batches, examples=given)) == bits


def test_support_and_soft_labels_move_with_the_labels() -> None:
    batches = Crops([attacked(i, (6, 10, 14)) for i in range(3)], (8, 8, 8), 2, (0, 1, 2))
    for step in range(8):
        batch = batches(step)
        assert batch.support is not None
        assert batch.soft is not None
        assert torch.equal(batch.support, torch.stack([batch.truth > 0, batch.truth == 4], 1))
        assert batch.soft.dtype is torch.float16
        padded = batch.soft.sum(1) == 0
        assert padded.any()
        assert torch.equal(batch.soft.argmax(1)[~padded], batch.truth[~padded])
        assert not batch.support[:, 0][padded].any()
        assert torch.equal(batch.radius, torch.tensor([[0.1, 0.2]] * 2))


def test_two_ranks_see_what_one_would_with_twice_the_batch() -> None:
    cases = [attacked(i) for i in range(5)]
    whole = Crops(cases, (8, 8, 8), size=2, seed=4)
    ranks = [Crops(cases, (8, 8, 8), size=1, seed=4, rank=rank, ranks=2) for rank in range(2)]
    for step in range(7):
        one, parts = whole(step), [rank(step) for rank in ranks]
        assert torch.equal(one.z, torch.cat([part.z for part in parts]))
        assert torch.equal(one.truth, torch.cat([part.truth for part in parts]))
        assert one.cases == tuple(case for part in parts for case in part.cases)
        assert one.streams.keys == tuple(key for part in parts for key in part.streams.keys)


def test_a_crops_random_stream_is_its_cases_in_its_epoch() -> None:
    batches = Crops([attacked(i) for i in range(3)], (8, 8, 8), size=3, seed=4)
    first, second = batches(0), batches(1)
    assert sorted(first.streams.keys) == [f"4/0/case-{i}" for i in range(3)]
    assert sorted(second.streams.keys) == [f"4/1/case-{i}" for i in range(3)]


def test_a_part_of_a_batch_is_that_part_of_everything() -> None:
    batch = Crops([attacked(i) for i in range(3)], (8, 8, 8), size=3)(0)
    part = batch.take(torch.tensor([2, 0]))
    assert part.cases == (batch.cases[2], batch.cases[0])
    assert part.streams.keys == (batch.streams.keys[2], batch.streams.keys[0])
    for name in ("z", "truth", "support", "radius", "soft"):
        assert torch.equal(getattr(part, name), getattr(batch, name)[[2, 0]])
    assert Batch(batch.z, batch.truth).take(torch.tensor([1])).streams.keys == ("0/1",)


def copied(cases: list[Example], by: float) -> list[Example]:
    return [replace(case, z=case.z + by) for case in cases]


def test_copies_are_drawn_by_seed_epoch_and_case_alone() -> None:
    cases = [attacked(i, (4, 4)) for i in range(4)]
    mixed = Mixed(cases, [copied(cases, 100), copied(cases, 200)], 0.5)
    turned = Mixed(cases[::-1], [copies[::-1] for copies in mixed.adversarial], 0.5)

    def drawn(which: Mixed, index: int, seed: int, epoch: int) -> int:
        return round(which.drawn(index, seed, epoch).z.mean().item() / 100)

    counts = Counter(drawn(mixed, index, 2, epoch) for index in range(4) for epoch in range(40))
    assert 60 <= counts[0] <= 100
    assert min(counts[1], counts[2]) >= 25
    one, other = ([drawn(mixed, index, seed, 0) for index in range(4) for seed in range(s, s + 9)] for s in (0, 9))
    assert one != other
    again = [drawn(turned, 3 - index, seed, 0) for index in range(4) for seed in range(9)]
    assert one == again


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_every_case_is_seen_in_all_its_copies_as_epochs_go_by(share: float) -> None:
    cases = [attacked(i, (4, 4)) for i in range(4)]
    mixed = Mixed(cases, [copied(cases, 100), copied(cases, 200)], share)
    for index in range(4):
        seen = Counter(round(mixed.drawn(index, 2, epoch).z.mean().item() / 100) for epoch in range(40))
        wanted = {0: 40 * (1 - share), 1: 20 * share, 2: 20 * share}
        assert all(abs(seen[which] - count) <= 10 for which, count in wanted.items())
        assert min(seen[1], seen[2]) >= 4
        assert (seen[0] > 0) == (share < 1)


def test_crops_are_drawn_from_the_mixture() -> None:
    cases = [attacked(i, (10, 10)) for i in range(3)]
    mixed = Mixed(cases, [copied(cases, 100)], 0.5)
    batches = Crops(mixed, (8, 8), size=2, seed=2)
    for step in range(6):
        batch = batches(step)
        for z, case, key in zip(batch.z, batch.cases, batch.streams.keys, strict=True):
            seed, epoch, _ = key.split("/")
            wanted = mixed.drawn(int(case.split("-")[1]), int(seed), int(epoch))
            assert round(z.mean().item() / 100) == round(wanted.z.mean().item() / 100)


@pytest.mark.parametrize(("share", "which"), [(0.0, 0), (1.0, 1)])
def test_a_share_of_none_or_all(share: float, which: int) -> None:
    """Without copies crops are bit for bit those of the clean cases; with copies alone, those of the copies."""
    cases = [attacked(i) for i in range(3)]
    sets = [cases, copied(cases, 100)]
    mixed = Crops(Mixed(cases, [sets[1]], share), (8, 8, 8))
    assert all(equal(mixed(step), Crops(sets[which], (8, 8, 8))(step)) for step in range(4))


@pytest.mark.parametrize(("copies", "share"), [(0, 0.5), (1, 1.5), (1, -0.1)])
def test_a_mixture_that_cannot_be_made_is_refused(copies: int, share: float) -> None:
    cases = [attacked(i) for i in range(2)]
    with pytest.raises(ConfigError):
        Mixed(cases, [cases] * copies, share)
    with pytest.raises(ConfigError, match="every training case"):
        Mixed(cases, [cases[:1]], 0.5)
