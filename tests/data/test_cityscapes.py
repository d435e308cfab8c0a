"""Cityscapes folders: 34 ids become 19 classes and void, a city is a stratum."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data.picture_files import HEIGHT, WIDTH, grain, saved

from medadv.data.cityscapes import TRAIN_IDS, cityscapes_cohort
from medadv.data.files import read
from medadv.errors import CaseError, ConfigError, Reason
from medadv.labels import CITYSCAPES

IDS = np.random.default_rng(0).integers(0, 34, (HEIGHT, WIDTH)).astype(np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed, name in enumerate(("aachen_000000_000019", "aachen_000001_000019", "bonn_000000_000019")):
        city = name.split("_")[0]
        saved(tmp_path / "leftImg8bit" / "val" / city / f"{name}_leftImg8bit.png", grain(seed))
        saved(tmp_path / "gtFine" / "val" / city / f"{name}_gtFine_labelIds.png", IDS)
    return tmp_path


def test_ids_become_the_19_classes_and_void(root: Path) -> None:
    cohort = cityscapes_cohort(root)
    assert [case.case for case in cohort.cases][2] == "bonn_000000_000019"
    assert [case.stratum for case in cohort.cases] == ["aachen", "aachen", "bonn"]
    volume = read(cohort.cases[0])
    assert volume.truth is not None
    assert np.array_equal(volume.x.numpy(), np.moveaxis(grain(), -1, 0))
    # By name and id, as the data set's own table has them (cityscapesScripts, helpers/labels.py).
    table = {"road": 7, "building": 11, "pole": 17, "traffic light": 19, "sky": 23, "car": 26, "bus": 28, "train": 31}
    table |= {"bicycle": 33, "sidewalk": 8, "person": 24, "rider": 25, "motorcycle": 32, "terrain": 22}
    for name, number in table.items():
        assert np.array_equal(CITYSCAPES.mask(volume.truth, name).numpy(), number == IDS), name
    unjudged = np.isin(IDS, [0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30])
    assert np.array_equal((volume.truth == 255).numpy(), unjudged)


def test_there_is_no_background_and_every_class_has_its_train_id() -> None:
    assert len(CITYSCAPES.tissues) == 19
    assert "background" not in CITYSCAPES.numbers
    assert sorted(set(TRAIN_IDS.values())) == [*range(19), 255]
    assert CITYSCAPES.tissues[:2] == ("road", "sidewalk")
    assert CITYSCAPES.tissues[-1] == "bicycle"


def test_train_ids_are_read_where_there_are_no_others(root: Path) -> None:
    trained = np.array([TRAIN_IDS[number] for number in range(34)], np.uint8)[IDS]
    folder = root / "gtFine" / "val" / "aachen"
    expected = read(cityscapes_cohort(root).cases[0]).truth
    saved(folder / "aachen_000000_000019_gtFine_labelTrainIds.png", trained * 0)
    assert expected is not None
    assert expected.equal(read(cityscapes_cohort(root).cases[0]).truth)
    (folder / "aachen_000000_000019_gtFine_labelIds.png").unlink()
    saved(folder / "aachen_000000_000019_gtFine_labelTrainIds.png", trained)
    assert expected.equal(read(cityscapes_cohort(root).cases[0]).truth)


def test_a_picture_without_mask_or_with_unknown_ids_is_refused(root: Path) -> None:
    (root / "gtFine" / "val" / "bonn" / "bonn_000000_000019_gtFine_labelIds.png").unlink()
    saved(root / "gtFine" / "val" / "aachen" / "aachen_000001_000019_gtFine_labelIds.png", IDS + 1)
    cohort = cityscapes_cohort(root)
    assert [(refusal.case, refusal.reason) for refusal in cohort.refused] == [
        ("bonn_000000_000019", Reason.MISSING_LABEL)
    ]
    with pytest.raises(CaseError) as refused:
        read(cohort.cases[1])
    assert refused.value.reason == Reason.LABEL_OUTSIDE_SCHEME
    assert refused.value.details["got"] == [34]


def test_a_split_that_is_not_there_is_refused(root: Path) -> None:
    for split in ("train", "../val"):
        with pytest.raises(ConfigError, match=r"(?s)no picture of Cityscapes.*\['val'\]"):
            cityscapes_cohort(root, split)


def test_a_list_says_which(root: Path) -> None:
    (root / "mine.txt").write_text("bonn_000000_000019\naachen_000000_000019\n")
    cohort = cityscapes_cohort(root, listing=root / "mine.txt")
    assert [case.case for case in cohort.cases] == ["bonn_000000_000019", "aachen_000000_000019"]
    assert cohort.refused == []
