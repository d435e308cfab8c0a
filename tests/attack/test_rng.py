"""One stream a sample, forked by name: a draw depends on nothing but its seed and its names."""

from __future__ import annotations

import pytest
import torch

from medadv.attack.rng import Rng
from medadv.errors import ConfigError


def test_asking_twice_gives_the_same_numbers() -> None:
    rng, like = Rng.seeded(3, 2), torch.empty(2, 50)
    assert torch.equal(rng.uniform(like), rng.uniform(like))


def test_seeds_names_and_samples_differ() -> None:
    like = torch.empty(2, 50)
    draws = [
        *Rng.seeded(3, 2).uniform(like),
        *Rng.seeded(4, 2).uniform(like),
        *Rng.seeded(3, ["a", "b"]).uniform(like),
        *Rng.seeded(3, 2).fork("start").uniform(like),
        *Rng.seeded(3, 2).fork("start").fork("start").uniform(like),
    ]
    assert len({tuple(draw.tolist()) for draw in draws}) == len(draws)


def test_batch_mates_do_not_matter() -> None:
    together = Rng.seeded(0, ["p1", "p2", "p3"]).fork("noise")
    like = torch.empty(3, 4, 5, dtype=torch.float64)
    alone = Rng.seeded(0, ["p3"]).fork("noise")
    assert torch.equal(together.uniform(like)[2:], alone.uniform(like[:1]))
    assert together.take(torch.tensor([2])) == alone


def test_numbers_are_uniform_and_of_the_inputs_type() -> None:
    draws = Rng.seeded(1, 1).uniform(torch.empty(1, 20000, dtype=torch.float64))
    assert draws.dtype == torch.float64
    assert 0 <= draws.min() < 0.01
    assert 0.99 < draws.max() < 1
    assert abs(draws.mean() - 0.5) < 0.01


def test_the_global_stream_is_not_touched() -> None:
    before = torch.get_rng_state()
    Rng.seeded(0, 3).uniform(torch.empty(3, 9))
    assert torch.equal(before, torch.get_rng_state())


def test_each_sample_needs_a_stream() -> None:
    with pytest.raises(ConfigError, match="one random stream for each sample"):
        Rng.seeded(0, 1).uniform(torch.empty(3, 9))
