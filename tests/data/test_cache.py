"""A cache never gives what it was not asked for: another content, other settings, or a damaged file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medadv.data.cache import Cache, Tensors

KEY = {"voxels": "ab", "steps": [{"name": "z-score"}]}


class Maker:
    """Makes something new each time, and counts."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> Tensors:
        self.made += 1
        return {"z": torch.full((2, 3), float(self.made)), "truth": torch.tensor([[1, 2]])}


def test_what_was_made_is_given_again_bit_for_bit(tmp_path: Path) -> None:
    make = Maker()
    first, again = (Cache(tmp_path / "cache").get(KEY, make) for _ in range(2))
    assert make.made == 1
    assert again.keys() == first.keys()
    assert all(torch.equal(again[name], first[name]) and again[name].dtype == first[name].dtype for name in first)


@pytest.mark.parametrize("other", [{**KEY, "voxels": "ac"}, {**KEY, "steps": []}, {**KEY, "version": "2"}])
def test_another_key_is_made_anew(tmp_path: Path, other: dict[str, object]) -> None:
    make = Maker()
    Cache(tmp_path).get(KEY, make)
    assert Cache(tmp_path).get(other, make)["z"][0, 0] == 2


def test_the_order_of_the_key_does_not_matter(tmp_path: Path) -> None:
    make = Maker()
    Cache(tmp_path).get(KEY, make)
    Cache(tmp_path).get(dict(reversed(KEY.items())), make)
    assert make.made == 1


@pytest.mark.parametrize("place", [0, 40, 100, -1])
def test_a_single_flipped_bit_is_seen(tmp_path: Path, place: int) -> None:
    make = Maker()
    Cache(tmp_path).get(KEY, make)
    (path,) = tmp_path.glob("*.tensors")
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert Cache(tmp_path).get(KEY, make)["z"][0, 0] == 2
    assert Cache(tmp_path).get(KEY, make)["z"][0, 0] == 2


@pytest.mark.parametrize("size", [0, 10, 60])
def test_a_truncated_file_is_made_anew(tmp_path: Path, size: int) -> None:
    make = Maker()
    Cache(tmp_path).get(KEY, make)
    (path,) = tmp_path.glob("*.tensors")
    path.write_bytes(path.read_bytes()[:size])
    assert Cache(tmp_path).get(KEY, make)["z"][0, 0] == 2


def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    make = Maker()
    assert [Cache(tmp_path / "cache").get(KEY, make)["z"][0, 0].item() for _ in range(2)] == [1, 2]


def test_only_its_user_may_read_it_and_it_can_be_cleared(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    cache.get(KEY, Maker())
    (path,) = cache.folder.glob("*")
    assert path.stat().st_mode & 0o077 == 0
    cache.clear()
    assert not cache.folder.exists()
    cache.clear()
