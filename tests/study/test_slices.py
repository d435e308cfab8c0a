"""Which planes are kept of a delivered case."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from medadv.attack.budget import Scales, Unit
from medadv.data.case import Case, Volume
from medadv.errors import ConfigError
from medadv.labels import BRATS_2018, LabelScheme
from medadv.objects import Objects
from medadv.study.slices import SLICES, Views, read_slices, save_slices


def position(tmp_path: Path, truth: torch.Tensor, fooled: torch.Tensor) -> tuple[int, ...]:
    x = torch.rand(1, *truth.shape) + 1
    volume = Volume(Case("a", None, {"t1": Path("a")}, None, BRATS_2018), x, truth, np.eye(4))
    save_slices(tmp_path, Views(x, x, truth, truth, fooled), volume, BRATS_2018)
    return read_slices(tmp_path / SLICES).position


def test_planes_go_through_the_lesion_even_where_most_errors_lie_elsewhere(tmp_path: Path) -> None:
    truth = torch.zeros(12, 12, 12, dtype=torch.int64)
    truth[2:5, 2:5, 2:5] = 2
    fooled = truth.clone()
    fooled[8:12, 8:12, 8:12] = 2
    fooled[3, 3, 3] = 0
    assert position(tmp_path, truth, fooled) == (3, 3, 3)


def test_sigma_is_that_of_the_voxels_that_may_change(tmp_path: Path) -> None:
    """The unit of a study's budgets, whatever its support."""
    x = torch.rand(2, 6, 6, 6, generator=torch.Generator().manual_seed(0)) * (torch.arange(6) > 2)
    labels = torch.zeros(6, 6, 6, dtype=torch.int64)
    volume = Volume(Case("a", None, {"t1": Path("a"), "t2": Path("b")}, None, BRATS_2018), x, labels, np.eye(4))
    views = Views(x, x, labels, labels, labels)
    nothing = torch.zeros_like(x, dtype=torch.bool)
    supports = (None, x != 0, torch.ones_like(nothing), nothing)
    found = []
    for support in supports:
        save_slices(tmp_path, views, volume, BRATS_2018, support)
        found.append(read_slices(tmp_path / SLICES).sigma)
    for sigma, where in zip(found[1:3], supports[1:3], strict=True):
        scales = Scales(x[None], where[None]).of(Unit.SIGMA)  # type: ignore[index]
        assert sigma == pytest.approx(scales[0].tolist(), rel=1e-12)
    assert found[0] == found[1] != found[2]
    assert found[3] == (0.0, 0.0)


def test_without_a_lesion_planes_go_through_what_was_invented(tmp_path: Path) -> None:
    truth = torch.zeros(12, 12, 12, dtype=torch.int64)
    fooled = truth.clone()
    fooled[9, 8, 7] = 4
    assert position(tmp_path, truth, fooled) == (9, 8, 7)


SHAPES = LabelScheme("shapes", {"background": 0, "disc": 1, "square": 2}, void=255)


def picture(size: tuple[int, ...], modalities: tuple[str, ...] = ("red", "green", "blue")) -> Volume:
    x = torch.rand(len(modalities), *size, generator=torch.Generator().manual_seed(3)) * 255
    return Volume(Case("a", None, {m: Path("a.png") for m in modalities}, None, SHAPES), x, None, np.eye(4))


def test_a_picture_is_kept_whole_with_its_label_maps(tmp_path: Path) -> None:
    volume = picture((7, 9))
    truth = torch.arange(63).reshape(7, 9) % 3
    save_slices(tmp_path, Views(volume.x, volume.x + 1, truth, 2 - truth, 0 * truth), volume, SHAPES)
    kept = read_slices(tmp_path / SLICES)
    assert kept.picture
    assert (kept.position, kept.directions, kept.spacing) == ((), (), (1.0, 1.0))
    for found, wanted in ((kept.clean, volume.x), (kept.adversarial, volume.x + 1), (kept.truth, truth)):
        assert isinstance(found, tuple)
        assert len(found) == 1
        assert np.array_equal(found[0], wanted.numpy())
    assert kept.members("all") == ("all labelled tissue", [1, 2])


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("count", [0, 3])
def test_objects_come_back_with_all_that_is_known_of_them(tmp_path: Path, axes: int, count: int) -> None:
    volume = picture((7, 9, 8)[:axes])
    low = torch.arange(count * axes).reshape(count, axes).float() / 4
    truth = Objects(torch.cat([low, low + 2], 1), torch.arange(count) % 2 + 1, None, torch.arange(count) > 1)
    found = Objects(torch.cat([low, low + 1.5], 1), torch.ones(count, dtype=torch.int64), torch.rand(count))
    save_slices(tmp_path, Views(volume.x, volume.x, truth, found, Objects.none(axes)), volume, SHAPES)
    kept = read_slices(tmp_path / SLICES)
    assert kept.picture == (axes == 2)
    assert len(kept.clean) == (1 if axes == 2 else 3)
    for again, wanted in (
        (kept.truth, truth), (kept.predicted_clean, found), (kept.predicted_adversarial, Objects.none(axes))
    ):  # fmt: skip
        assert isinstance(again, Objects)
        for part in ("boxes", "labels", "scores", "difficult"):
            one, other = getattr(again, part), getattr(wanted, part)
            assert (one is None) == (other is None)
            assert one is None or (torch.equal(one, other) and one.dtype == other.dtype)


def test_planes_go_through_the_objects_of_a_volume(tmp_path: Path) -> None:
    volume = picture((12, 12, 12), ("t1",))
    truth = Objects(torch.tensor([[2.0, 3, 4, 5, 6, 7], [9, 9, 9, 10, 10, 10]]), torch.tensor([1, 2]))
    save_slices(tmp_path, Views(volume.x, volume.x, truth, truth, truth.take(torch.tensor([1]))), volume, SHAPES)
    position = read_slices(tmp_path / SLICES).position
    assert all(low <= place < low + 3 for place, low in zip(position, (2, 3, 4), strict=True))


def test_what_is_neither_volume_nor_picture_is_not_kept(tmp_path: Path) -> None:
    volume = picture((7,))
    with pytest.raises(ConfigError, match="volumes and pictures"):
        save_slices(tmp_path, Views(volume.x, volume.x, *[torch.zeros(7, dtype=torch.int64)] * 3), volume, SHAPES)


def test_the_file_of_a_volume_holds_what_it_always_held(tmp_path: Path) -> None:
    """Older versions read it, and what they wrote is read."""
    truth = torch.zeros(6, 6, 6, dtype=torch.int64)
    truth[2:4, 2:4, 2:4] = 2
    position(tmp_path, truth, truth)
    kinds = ("clean", "adversarial", "truth", "predicted_clean", "predicted_adversarial")
    beside = {"modalities", "meaning", "spacing", "position", "directions", "sigma"}
    with np.load(tmp_path / SLICES, allow_pickle=False) as file:
        assert set(file) == {f"{kind}_{axis}" for kind in kinds for axis in range(3)} | beside
        assert file["position"].dtype == np.int64
        assert file["directions"].tolist() == ["R", "A", "S"]
