"""Training cases as a network is fed them: their support and radius, their soft labels, and what lies in the cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from study.small_study import trained
from torch import Tensor

from medadv.attack.budget import Budget, Scales
from medadv.data.case import Case
from medadv.data.support import support
from medadv.defense.crops import Example
from medadv.defense.inner import radius_on
from medadv.defense.soft_labels import SoftLabels
from medadv.errors import BudgetError, ConfigError
from medadv.study import examples as module
from medadv.study.entry import Entry
from medadv.study.examples import Examples, Inner
from medadv.study.inputs import read_labelled
from medadv.study.lineup import Terms
from medadv.study.progress import Silent
from medadv.study.reach import Reach
from medadv.study.run import _gathered
from medadv.study.schooling import untrained
from medadv.victims.crop import CropForeground
from medadv.victims.normalize import MinMax, ZScore
from medadv.victims.preprocess import Step, Way
from medadv.victims.segmentation import Segmenter
from medadv.victims.spacing import Spacing


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> Entry:
    study = trained(data={"importer": "phantom", "cases": 4, "shape": [24, 24, 24]}, split={"train": 2, "validate": 1})
    folder, parts = _gathered(study, Terms({}, torch.device("cpu")), tmp_path_factory.mktemp("runs"), Silent(), True)
    return Entry.of(study, study.entrants["unet"], parts, parts.folds[0], folder.path)


def victim(entry: Entry, *steps: Step) -> Segmenter:
    made = untrained(entry, torch.device("cpu")).reading(entry.parts.modalities)
    return replace(made, preprocess=steps or made.preprocess)


def same(one: Example, other: Example) -> bool:
    names = ("z", "truth", "support", "radius", "soft")
    pairs = [(getattr(one, name), getattr(other, name)) for name in names]
    return one.case == other.case and all(a is b is None or torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("budget", ["0.1 sigma", "0.1/0.2/0/0.3 sigma", "0.05 p1-p99", "0.02 minmax"])
@pytest.mark.parametrize("step", [ZScore(), MinMax()])
def test_a_radius_is_the_stored_budget_times_the_slope(entry: Entry, budget: str, step: Step) -> None:
    """An affine normalisation changes nothing: the same budget, on the other scale, modality by modality."""
    amount = Budget.parse(budget)
    for case, example in zip(entry.fold.train, Examples(victim(entry, step), entry, inner=Inner(amount)), strict=True):
        volume = read_labelled(case)
        inside = support(volume, "nonzero")
        stored = amount.resolve(Scales(volume.x[None], inside[None]))[0]
        assert example.support is not None
        assert example.radius is not None
        assert torch.equal(example.support, inside)
        assert example.case == case.case
        for c in range(4):
            x, z = volume.x[c][inside[c]].double(), example.z[c][inside[c]].double()
            slope = (z.max() - z.min()) / (x.max() - x.min())
            assert example.radius[c].item() == pytest.approx((stored[c] * slope).item(), rel=1e-5, abs=1e-12)


@pytest.mark.parametrize("budget", ["20 stored", "8 0-255"])
def test_units_that_a_normalised_image_does_not_have_are_refused(budget: str) -> None:
    with pytest.raises(ConfigError, match="means nothing") as refusal:
        Inner(Budget.parse(budget))
    assert "sigma" in str(refusal.value)
    with pytest.raises(ConfigError, match="means nothing"):
        radius_on(Budget.parse(budget), torch.randn(1, 4, 4), torch.ones(1, 4, 4, dtype=torch.bool))


def test_a_modality_out_of_reach_has_neither_support_nor_radius(entry: Entry) -> None:
    inner = Inner(Budget.parse("0.1 sigma"), Reach(modalities=("t2",)))
    (example, *_) = Examples(victim(entry), entry, inner=inner)
    reached = [name == "t2" for name in entry.parts.modalities]
    assert example.support is not None
    assert example.radius is not None
    assert example.support.flatten(1).any(1).tolist() == reached
    assert (example.radius > 0).tolist() == reached


@pytest.mark.parametrize("order", [("flair", "t2", "t1ce", "t1"), ("t2", "t1")])
def test_a_victim_with_modalities_of_its_own_gets_their_amounts_and_their_support(
    entry: Entry, order: tuple[str, ...]
) -> None:
    """Both are told in the order of the data."""
    amounts = dict(zip(entry.parts.modalities, (0.1, 0.2, 0.05, 0.3), strict=True))
    budget = Budget(tuple(amounts.values()))
    own = replace(victim(entry), modalities=order)
    (example, *_) = Examples(own, entry, inner=Inner(budget))
    assert example.support is not None
    assert example.radius is not None
    for name, z, inside, radius in zip(order, example.z, example.support, example.radius, strict=True):
        assert radius.item() == pytest.approx(amounts[name] * z[inside].double().std(correction=0).item(), rel=1e-6)
    (example, *_) = Examples(own, entry, inner=Inner(budget, Reach(modalities=("t2",))))
    assert example.support is not None
    assert example.radius is not None
    reached = [name == "t2" for name in order]
    assert example.support.flatten(1).any(1).tolist() == reached
    assert (example.radius > 0).tolist() == reached


def test_amounts_for_the_victims_modalities_alone_are_refused(entry: Entry) -> None:
    own = replace(victim(entry), modalities=("t2", "t1"))
    with pytest.raises(BudgetError, match="another number of modalities than the data") as refusal:
        Examples(own, entry, inner=Inner(Budget((0.1, 0.2))))
    assert "one amount, or 4" in str(refusal.value)


def test_support_lies_where_the_voxels_lie_on_the_networks_grid(entry: Entry) -> None:
    """After cropping and resampling: where the nearest stored voxel is in the support."""
    bare = victim(entry, CropForeground(), Spacing((1.5, 1.5, 1.5)), ZScore())
    (example, *_) = Examples(bare, entry, inner=Inner(Budget.parse("0.1 sigma")))
    volume = read_labelled(entry.fold.train[0])
    way = Way.prepared(bare.steps, volume.x[None], volume.affine)
    wanted = torch.stack([way.labels((channel != 0).long()[None])[0] for channel in volume.x]).bool()
    assert example.support is not None
    assert example.radius is not None
    assert example.support.shape == example.z.shape != volume.x.shape
    assert torch.equal(example.support, wanted)
    sigma = torch.stack([z[s].double().std(correction=0) for z, s in zip(example.z, wanted, strict=True)])
    torch.testing.assert_close(example.radius, 0.1 * sigma, rtol=1e-9, atol=0)


def test_what_does_not_fit_into_memory_comes_from_the_cache_the_same(
    entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare, inner = victim(entry), Inner(Budget.parse("0.1 sigma"))
    soft = SoftLabels(tmp_path / "soft", bare, 10.0)
    held = list(Examples(bare, entry, inner=inner, soft=soft))
    poor = Examples(bare, entry, inner=inner, soft=soft, memory=1)
    assert all(same(a, b) for a, b in zip(poor, held, strict=True))
    monkeypatch.setattr(module, "_preprocessed", lambda *_: pytest.fail("preprocessed again"))
    assert same(poor[1], held[1])  # from the disk: one fits
    assert same(poor[0], held[0])
    assert held[0].soft is not None
    assert held[0].soft.shape == (4, *held[0].truth.shape)


def test_another_budget_is_another_entry_of_the_cache(entry: Entry) -> None:
    bare = victim(entry)
    radii = []
    for budget in ("0.1 sigma", "0.2 sigma"):
        one = Examples(bare, entry, inner=Inner(Budget.parse(budget)), memory=1)
        assert one[1].radius is not None
        radii.append(one[1].radius)
    torch.testing.assert_close(radii[1], 2 * radii[0])
    assert Examples(bare, entry, memory=1)[1].radius is None


@pytest.fixture(params=[None, 1])
def memory(request: pytest.FixtureRequest) -> Iterator[int | None]:
    return request.param


def test_other_voxels_are_normalised_by_their_own_statistics(entry: Entry, memory: int | None) -> None:
    bare = victim(entry)

    def brighter(case: Case) -> Tensor:
        x = read_labelled(case).x.clone()
        x[:, 10] *= 3
        return x

    for case, example in zip(entry.fold.train, Examples(bare, entry, voxels=brighter, memory=memory), strict=True):
        assert torch.equal(example.z, ZScore()(brighter(case)[None])[0])
        assert torch.equal(example.truth, Examples(bare, entry)[0].truth) == (case is entry.fold.train[0])
