"""``fit``: it learns, it is the same again, and it keeps the best; what is not finite is skipped, and told."""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from defense.small_training import ORGAN, SCHEDULE, accuracy, batches, fresh, same, train, unshared, weights
from torch import Tensor

from medadv.defense.checkpoints import Checkpoints
from medadv.defense.crops import Batch
from medadv.defense.lessons import Plain
from medadv.defense.schedule import Schedule
from medadv.defense.training import CURVE, Validation, fit
from medadv.errors import ConfigError, MedadvWarning, VictimError
from medadv.victims.head import Sigmoid, Softmax


def test_a_network_learns(tmp_path: Path) -> None:
    network, curve = train(tmp_path, replace(SCHEDULE, steps=60, validate_every=20))
    losses = [point.loss for point in curve]
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])
    assert accuracy(network)().dice > 0.9 > accuracy(fresh())().dice
    assert not network.training


def test_a_region_head_learns_by_the_same_lesson(tmp_path: Path) -> None:
    network = fresh(channels=1)
    lesson = Plain(network, Sigmoid(ORGAN, ("all",)))
    schedule = replace(SCHEDULE, steps=40, validate_every=40)
    curve = fit(lesson, network, batches, schedule, folder=tmp_path, validate=lambda: Validation(0.0))
    losses = [point.loss for point in curve]
    assert sum(losses[-10:]) < 0.75 * sum(losses[:10])


def test_the_same_training_twice_gives_the_same_bits(tmp_path: Path) -> None:
    first, curve = train(tmp_path / "first")
    torch.manual_seed(77)
    second, again = train(tmp_path / "second")
    assert same(weights(first), weights(second))
    assert curve == again
    assert (tmp_path / "first" / CURVE).read_bytes() == (tmp_path / "second" / CURVE).read_bytes()


def test_another_seed_is_another_training(tmp_path: Path) -> None:
    one, _ = train(tmp_path / "one")
    other, _ = train(tmp_path / "other", replace(SCHEDULE, seed=6))
    assert not same(weights(one), weights(other))


def test_global_random_numbers_stay_where_they_are(tmp_path: Path) -> None:
    network = fresh()
    before = torch.get_rng_state()
    train(tmp_path, network=network)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_best_validation_is_kept(tmp_path: Path) -> None:
    network = fresh()
    kept: list[dict[str, Tensor]] = []
    marks = iter([0.3, 0.8, 0.5])

    def validate() -> Validation:
        assert not network.training
        assert not torch.is_grad_enabled()
        kept.append(weights(network))
        return Validation(next(marks))

    _, curve = train(tmp_path, network=network, validate=validate)
    assert [(point.step, point.dice) for point in curve if point.dice is not None] == [(3, 0.3), (7, 0.8), (11, 0.5)]
    assert same(weights(network), kept[1])
    assert not same(kept[1], kept[2])


def test_of_equals_the_first_is_kept(tmp_path: Path) -> None:
    network = fresh()
    kept: list[dict[str, Tensor]] = []
    train(tmp_path, network=network, validate=lambda: kept.append(weights(network)) or Validation(0.5))
    assert same(weights(network), kept[0])


def test_the_last_step_is_validated_whatever_the_interval(tmp_path: Path) -> None:
    _, curve = train(tmp_path, replace(SCHEDULE, steps=5, validate_every=3))
    assert [point.step for point in curve if point.dice is not None] == [2, 4]


def test_the_curve_is_a_table(tmp_path: Path) -> None:
    _, curve = train(tmp_path)
    with (tmp_path / CURVE).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["step"]) for row in rows] == list(range(12))
    assert [float(row["loss"]) for row in rows] == [point.loss for point in curve]
    assert [float(row["dice"]) if row["dice"] else None for row in rows] == [point.dice for point in curve]


def test_a_watch_sees_every_step(tmp_path: Path) -> None:
    network = fresh()
    seen: list[tuple[int, int]] = []
    fit(
        Plain(network, Softmax(ORGAN)),
        network,
        batches,
        SCHEDULE,
        folder=tmp_path,
        validate=lambda: Validation(0.0),
        watch=lambda point, steps: seen.append((point.step, steps)),
    )
    assert seen == [(step, 12) for step in range(12)]


def test_the_best_is_chosen_under_attack_where_that_is_known(tmp_path: Path) -> None:
    """And the curve tells both."""
    network = fresh()
    kept: list[dict[str, Tensor]] = []
    marks = iter([Validation(0.9, 0.1), Validation(0.5, 0.4), Validation(0.7, 0.2)])
    _, curve = train(tmp_path, network=network, validate=lambda: kept.append(weights(network)) or next(marks))
    assert same(weights(network), kept[1])
    assert [(p.dice, p.attacked) for p in curve if p.dice is not None] == [(0.9, 0.1), (0.5, 0.4), (0.7, 0.2)]
    header, *rows = (tmp_path / CURVE).read_text().splitlines()
    assert header == "step,loss,rate,dice,attacked"
    assert rows[3].endswith(",0.9,0.1")
    assert rows[4].endswith(",,")


def test_a_plain_training_is_what_it_was_before_ranks_and_bf16(tmp_path: Path) -> None:
    """Figures that were published rest on these bits; recorded with torch 2.15 on a processor with AVX-512."""
    network, _ = train(tmp_path, replace(SCHEDULE, steps=30))
    if not torch.__version__.startswith("2.15") or torch.backends.cpu.get_cpu_capability() != "AVX512":
        pytest.skip("other versions and processors have bits of their own")
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    assert digest.hexdigest().startswith("a7030ccd1d594b0ca53f7241923f337e")


# The schedule


def test_the_rate_rises_and_falls_along_a_cosine() -> None:
    schedule = Schedule(steps=200, rate=1.0)
    rates = [schedule.rate_at(step) for step in range(200)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    expected = [0.01 + 0.99 * (1 + math.cos(math.pi * k / 190)) / 2 for k in range(190)]
    assert rates[10:] == pytest.approx(expected)


def test_the_rate_of_the_schedule_is_the_optimisers(tmp_path: Path) -> None:
    _, curve = train(tmp_path)
    assert [point.rate for point in curve] == [SCHEDULE.rate_at(step) for step in range(12)]


@pytest.mark.parametrize(
    "wrong",
    [{"steps": 0}, {"validate_every": 0}, {"steps": -3}, {"accumulate": 0}, {"skips": -1}, {"save_every": -1}],
)
def test_a_schedule_of_nothing_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="at least one step"):
        Schedule(**wrong)  # type: ignore[arg-type]


# Numbers


def halves(k: int) -> Batch:
    """The two samples of a batch, one after the other."""
    whole, half = batches(k // 2), k % 2
    return Batch(whole.z[half : half + 1], whole.truth[half : half + 1])


def test_accumulated_batches_are_one_batch_up_to_rounding(tmp_path: Path) -> None:
    """Without what a batch shares: its statistics and its mask of dropout."""
    whole, parts = unshared(), unshared()
    _, curve = train(tmp_path / "whole", network=whole)
    _, same_curve = train(tmp_path / "parts", replace(SCHEDULE, accumulate=2), network=parts, source=halves)
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)
    assert [p.loss for p in same_curve] == pytest.approx([p.loss for p in curve], rel=1e-4)


def test_every_micro_batch_is_asked_for_once_in_order(tmp_path: Path) -> None:
    seen: list[int] = []
    train(tmp_path, replace(SCHEDULE, steps=3, accumulate=4), source=lambda k: seen.append(k) or batches(k))
    assert seen == list(range(12))


def test_bf16_is_inside_the_lesson_alone(tmp_path: Path) -> None:
    network = fresh()
    seen: set[torch.dtype] = set()
    network.layers[-1].register_forward_hook(lambda module, given, answer: seen.add((module.training, answer.dtype)))
    answers: set[torch.dtype] = set()

    class Watching(Plain):
        def forward(self, batch: Batch) -> Tensor:
            answers.add(self.network(batch.z).dtype)
            return super().forward(batch)

    lesson = Watching(network, Softmax(ORGAN))
    schedule = replace(SCHEDULE, precision="bf16", steps=40, validate_every=20)
    curve = fit(lesson, network, batches, schedule, folder=tmp_path, validate=accuracy(network))
    assert seen == {(True, torch.bfloat16), (False, torch.float32)}
    assert answers == {torch.float32}
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert sum(p.loss for p in curve[-10:]) < 0.75 * sum(p.loss for p in curve[:10])
    exact, _ = train(tmp_path / "exact", replace(schedule, precision="float32"))
    assert not same(weights(network), weights(exact))


def test_a_call_without_gradient_costs_the_next_none_in_bf16(tmp_path: Path) -> None:
    """autocast would keep the narrowed weights of the first, which have no gradient."""
    network = fresh()

    class Twice(Plain):
        def forward(self, batch: Batch) -> Tensor:
            with torch.no_grad():
                self.network(batch.z)
            return super().forward(batch)

    lesson = Twice(network, Softmax(ORGAN))
    before = weights(network)
    schedule = replace(SCHEDULE, precision="bf16", steps=2, validate_every=2)
    fit(lesson, network, batches, schedule, folder=tmp_path, validate=lambda: Validation(0.0))
    assert all(not torch.equal(before[name], p) for name, p in network.named_parameters() if "0.bias" not in name)


# What is not finite


def poisoned(*steps: int, by: float = math.nan) -> Callable[[int], Batch]:
    def source(k: int) -> Batch:
        batch = batches(k)
        return Batch(batch.z * by, batch.truth, cases=("Kim", "Lee")) if k in steps else batch

    return source


@pytest.mark.parametrize("by", [math.nan, math.inf])
def test_a_step_that_is_not_finite_is_skipped_and_told(tmp_path: Path, by: float) -> None:
    said: list[str] = []
    network = fresh()
    seen: list[dict[str, Tensor]] = []
    source = poisoned(5, by=by)
    _, curve = train(
        Checkpoints(tmp_path, say=said.append),
        network=network,
        source=lambda k: seen.append(weights(network)) or source(k),
    )
    assert same(seen[5], seen[6])  # running statistics, too
    assert not same(seen[6], seen[7])
    assert said == ["the training's loss is nan at step 5; the step is skipped (cases: Kim, Lee)"]
    assert [point.step for point in curve if not math.isfinite(point.loss)] == [5]
    assert all(torch.isfinite(tensor).all() for tensor in network.state_dict().values())


def test_a_gradient_that_is_not_finite_is_skipped_though_the_loss_is(tmp_path: Path) -> None:
    said: list[str] = []
    network = fresh()

    class Steep(Plain):
        def forward(self, batch: Batch) -> Tensor:
            loss = super().forward(batch)
            return loss + torch.sqrt(loss - loss.detach()) if batch.cases else loss

    kept = Checkpoints(tmp_path, say=said.append)
    lesson = Steep(network, Softmax(ORGAN))
    fit(lesson, network, poisoned(5, by=1.0), SCHEDULE, folder=kept, validate=accuracy(network))
    assert said == ["the training's gradient is not finite at step 5; the step is skipped (cases: Kim, Lee)"]
    assert all(torch.isfinite(tensor).all() for tensor in network.state_dict().values())


def test_too_many_in_a_row_end_the_training_and_name_the_cases(tmp_path: Path) -> None:
    said: list[str] = []
    kept = Checkpoints(tmp_path, say=said.append)
    with pytest.raises(VictimError, match="the training's loss is nan at step 8") as caught:
        train(kept, source=poisoned(2, 5, 6, 7, 8))
    assert "the cases Kim, Lee, after 3 steps in a row" in str(caught.value)
    assert "training.rate" in str(caught.value)
    assert len(said) == 4
    state = torch.load(kept.files()[0], weights_only=True)
    assert all(torch.isfinite(tensor).all() for tensor in state["network"].values())
    with pytest.raises(VictimError, match="at step 8"):  # the row goes on over the checkpoint at 8
        train(kept, source=poisoned(2, 5, 6, 7, 8))


def test_who_is_not_listening_is_warned_of_a_skip(tmp_path: Path) -> None:
    with pytest.warns(MedadvWarning, match="the step is skipped"):
        train(tmp_path, source=poisoned(5))


def test_a_validation_that_is_no_number_is_not_the_best(tmp_path: Path) -> None:
    with pytest.raises(VictimError, match="validation of a training is no finite number"):
        train(tmp_path, validate=lambda: Validation(math.nan))
