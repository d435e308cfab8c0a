"""Label numbers mean what their scheme declares, and nothing is guessed."""

from __future__ import annotations

import pytest
import torch

from medadv.errors import CaseError, ConfigError, Reason
from medadv.labels import (
    BRATS_2018,
    BRATS_2023,
    BRATS_2024,
    CITYSCAPES,
    MSD_TASK01,
    SCHEMES,
    VOC,
    LabelScheme,
    fitting,
)

MAP_2018 = torch.tensor([[0, 1, 2, 4], [4, 4, 0, 2]])


@pytest.mark.parametrize(
    ("name", "numbers"), [("WT", {1, 2, 4}), ("TC", {1, 4}), ("ET", {4}), ("oedema", {2}), ("background", {0})]
)
def test_masks_of_regions_and_tissues(name: str, numbers: set[int]) -> None:
    expected = [[int(voxel) in numbers for voxel in row] for row in MAP_2018]
    assert BRATS_2018.mask(MAP_2018, name).tolist() == expected


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64])
def test_every_integer_type_is_read(dtype: torch.dtype) -> None:
    labels = MAP_2018.to(dtype)
    assert BRATS_2018.mask(labels, "ET").sum() == 3
    assert BRATS_2018.unknown(labels) == []
    assert BRATS_2018.translate(labels, BRATS_2023).dtype == dtype
    assert BRATS_2018.classes(labels).tolist() == [[0, 1, 2, 3], [3, 3, 0, 2]]


def test_translation_between_the_years_of_brats() -> None:
    in_2023 = BRATS_2018.translate(MAP_2018, BRATS_2023)
    assert in_2023.tolist() == [[0, 1, 2, 3], [3, 3, 0, 2]]
    assert torch.equal(BRATS_2023.translate(in_2023, BRATS_2018), MAP_2018)
    in_msd = BRATS_2018.translate(MAP_2018, MSD_TASK01)
    assert in_msd.tolist() == [[0, 2, 1, 3], [3, 3, 0, 1]]
    for name in BRATS_2018.names:
        assert torch.equal(BRATS_2018.mask(MAP_2018, name), MSD_TASK01.mask(in_msd, name))


def test_other_tissues_cannot_be_translated() -> None:
    with pytest.raises(ConfigError, match="cannot be told in scheme 'brats2024'"):
        BRATS_2018.translate(MAP_2018, BRATS_2024)


@pytest.mark.parametrize("to", [BRATS_2018, BRATS_2023])
def test_unknown_numbers_are_not_translated_into_background(to: LabelScheme) -> None:
    with pytest.raises(CaseError, match="numbers that the scheme 'brats2018' does not know") as refusal:
        BRATS_2018.translate(torch.tensor([0, 3, 1]), to)
    assert refusal.value.reason is Reason.LABEL_OUTSIDE_SCHEME
    assert refusal.value.details["got"] == [3]
    assert "brats2023" in refusal.value.details["try"]
    assert "brats2018" not in refusal.value.details["try"]


def test_unknown_numbers_are_listed_in_order() -> None:
    assert BRATS_2018.unknown(torch.tensor([9, 0, 3, -1, 3, 4])) == [-1, 3, 9]


@pytest.mark.parametrize(
    ("numbers", "schemes"),
    [
        ([0, 4], ["brats2018", "brats2024"]),
        ([0, 1, 3], ["brats2023", "brats2024", "msd-task01"]),
        ([3, 4], ["brats2024"]),
        ([0, 1, 2], ["brats2018", "brats2023", "brats2024", "msd-task01"]),
        ([5], []),
    ],
)
def test_schemes_that_would_fit(numbers: list[int], schemes: list[str]) -> None:
    assert fitting(numbers) == schemes


def test_classes_and_stored_numbers_are_inverse() -> None:
    for scheme in SCHEMES.values():
        stored = torch.tensor(sorted(scheme.numbers.values()))
        assert torch.equal(scheme.stored(scheme.classes(stored)), stored)
        assert [scheme.numbers[t] for t in scheme.tissues] == stored.tolist()


def test_regions_of_the_gliomas_schemes_nest() -> None:
    for scheme in (BRATS_2018, BRATS_2023, BRATS_2024, MSD_TASK01):
        assert set(scheme.members("ET")) < set(scheme.members("TC")) < set(scheme.members("WT"))
        assert "cavity" not in scheme.members("WT")
        assert scheme.names[:3] == ("WT", "TC", "ET")
        assert "background" not in scheme.names


def test_void_is_judged_nowhere_and_known() -> None:
    labels = torch.tensor([0, 15, 255, 20])
    assert VOC.unknown(labels) == []
    assert VOC.judged(labels).tolist() == [True, True, False, True]
    assert fitting([0, 20]) == []  # what fits a photograph is no advice for a scan


def test_some_names_are_every_tissue_once_or_nothing() -> None:
    named = LabelScheme("animals", {"background": 0, "cat": 1, "dog": 2}, {"pets": ("cat", "dog"), "feline": ("cat",)})
    assert named.partition(["pets", "feline", "dog", "background"]) == ("background", "feline", "dog")
    assert named.partition(["cat", "feline", "dog", "background"]) == ("background", "cat", "dog")
    assert named.partition(["pets", "feline", "dog"]) == ()


def test_a_scheme_without_background_says_what_is_not_judged() -> None:
    assert LabelScheme("streets", {"road": 0, "sky": 1}, void=255).tissues == ("road", "sky")
    assert CITYSCAPES.classes(torch.tensor([18, 255])).tolist() == [18, 0]


@pytest.mark.parametrize(
    ("numbers", "regions", "complaint"),
    [
        ({"liver": 1}, {}, "has no 'background'"),
        ({"background": 0, "liver": 1, "spleen": 1}, {}, "one number twice"),
        ({"background": 0, "liver": 1}, {"both": ("liver", "spleen")}, "names unknown tissues"),
    ],
)
def test_schemes_that_cannot_be_meant(
    numbers: dict[str, int], regions: dict[str, tuple[str, ...]], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        LabelScheme("wrong", numbers, regions)


def test_an_unknown_name_lists_the_right_ones() -> None:
    with pytest.raises(ConfigError, match="'core' is no region and no tissue") as refusal:
        BRATS_2018.mask(MAP_2018, "core")
    assert "'WT', 'TC', 'ET', 'necrosis', 'oedema', 'background'" in refusal.value.details["expected"]
