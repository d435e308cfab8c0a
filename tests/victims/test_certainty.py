"""Confidence, entropy and lead: SciPy's values, closed forms, and numbers that are right where probabilities are 1."""

from __future__ import annotations

from math import exp, inf, isnan, log, log1p

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from medadv.errors import VictimError
from medadv.victims.certainty import Certainty
from medadv.victims.mean_field import MeanField

SHAPES = [(2, 5, 6, 4), (1, 4, 3, 2, 5), (2, 2, 3, 4, 5), (1, 7, 9)]  # two axes, three, regions, proposals


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_scipys(shape: tuple[int, ...]) -> None:
    logits = 3 * torch.randn(*shape, dtype=torch.float64)
    shares, found = special.softmax(logits.numpy(), 1), Certainty.of(logits)
    ordered = np.sort(shares, 1)
    np.testing.assert_allclose(found.confidence, ordered[:, -1], rtol=1e-12)
    np.testing.assert_allclose(found.doubt, 1 - ordered[:, -1], rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(found.entropy, stats.entropy(shares, axis=1), rtol=1e-9)
    np.testing.assert_allclose(found.lead.exp(), ordered[:, -1] / ordered[:, -2], rtol=1e-9)


@given(lead=st.floats(0, 80), shift=st.floats(-50, 50))
def test_two_classes_have_a_closed_form_however_sure_they_are(lead: float, shift: float) -> None:
    """In single precision, at odds of e**80, where 1 - p is 0 and p log p is lost."""
    first, second = (torch.tensor(v, dtype=torch.float32) for v in (shift, shift - lead))
    lead = first.item() - second.item()  # as rounded
    found = Certainty.of(torch.stack([second, first]).view(1, 2, 1))
    odds = exp(-lead)
    assert found.doubt.item() == pytest.approx(odds / (1 + odds), rel=1e-5)
    assert found.confidence.item() == pytest.approx(1 / (1 + odds), rel=1e-6)
    assert found.entropy.item() == pytest.approx(log1p(odds) + lead * odds / (1 + odds), rel=1e-5)
    assert found.lead.item() == pytest.approx(lead, rel=1e-6)


def test_ties_are_one_class_and_impossible_classes_are_none() -> None:
    even = Certainty.of(torch.full((1, 5, 1), 3.0))
    assert (even.confidence.item(), even.lead.item()) == (pytest.approx(0.2), 0.0)
    assert even.entropy.item() == pytest.approx(log(5))
    bound = Certainty.of(torch.tensor([0.0, 0.0, -inf]).view(1, 3, 1))
    assert bound.entropy.item() == pytest.approx(log(2))
    assert bound.confidence.item() == pytest.approx(0.5)
    certain = Certainty.of(torch.tensor([0.0, -inf, -inf]).view(1, 3, 1))
    assert (certain.confidence.item(), certain.doubt.item(), certain.entropy.item()) == (1, 0, 0)
    assert certain.lead.item() == inf


def test_means_are_over_the_targets_that_count() -> None:
    logits = torch.randn(2, 3, 4, 5)
    where = torch.rand(2, 4, 5) < 0.5
    where[1] = False
    certainty = Certainty.of(logits)
    one, none = certainty.mean(where)
    assert (one.targets, none.targets) == (int(where[0].sum()), 0)
    assert one.entropy == pytest.approx(certainty.entropy[0][where[0]].double().mean().item())
    assert one.confidence + one.doubt == pytest.approx(1)
    assert all(isnan(value) for value in (none.confidence, none.doubt, none.entropy, none.lead))


def test_one_class_is_nothing_to_compare() -> None:
    with pytest.raises(VictimError, match="compares classes"):
        Certainty.of(torch.zeros(1, 1, 4))


def test_a_crf_makes_surer() -> None:
    """What Arnab et al. found, on noise: messages add to whatever is likeliest nearby."""
    logits = torch.randn(1, 4, 16, 16)
    logits[:, 1, :, :8] += 2
    x = torch.full((1, 1, 16, 16), 100.0)
    every = torch.ones(1, 16, 16, dtype=torch.bool)
    (before,), (after,) = (Certainty.of(z).mean(every) for z in (logits, MeanField()(logits, x)))
    assert after.confidence > before.confidence
    assert after.doubt < before.doubt / 3
    assert after.entropy < before.entropy / 2
    assert after.lead > 2 * before.lead
