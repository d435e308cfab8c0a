"""Spellings become one name, tables of labels become schemes, and what cannot be meant is told."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medadv.errors import ConfigError
from medadv.labels import BRATS_2018, BRATS_2023, BRATS_2024, MSD_TASK01
from medadv.vocabulary import declared_scheme, modalities, modality, region, tissue


@pytest.mark.parametrize(
    ("declared", "own"),
    [
        (("T1", "T1ce", "T2", "Flair"), ("t1", "t1ce", "t2", "flair")),  # nnU-Net, Dataset137
        (("T1", "T1C", "T2W", "T2F"), ("t1", "t1ce", "t2", "flair")),  # nnU-Net, Dataset226
        (("FLAIR", "T1w", "t1gd", "T2w"), ("flair", "t1", "t1ce", "t2")),  # Decathlon, Task01
        (("t1n", "t1c", "t2w", "t2f"), ("t1", "t1ce", "t2", "flair")),  # BraTS 2023
        (("CT",), ("CT",)),
        (("T2", "ADC"), ("t2", "ADC")),
    ],
)
def test_channels_are_told_in_one_spelling(declared: Sequence[str], own: tuple[str, ...]) -> None:
    assert modalities(declared) == own


@pytest.mark.parametrize("declared", [[], ["t1c", "T1Gd"], ["CT", "CT"], ["../t1"], [""], [".t1"], ["a/b"]])
def test_channels_that_cannot_be_told_apart_or_written_are_refused(declared: list[str]) -> None:
    with pytest.raises(ConfigError, match="channel"):
        modalities(declared)


@given(st.text())
def test_a_name_here_stays_as_it_is(name: str) -> None:
    assert modality(modality(name)) == modality(name)
    assert tissue(tissue(name)) == tissue(name)
    assert region(region(name)) == region(name)


def test_spellings_of_tissues_and_regions_are_unified() -> None:
    assert {tissue(n) for n in ("edema", "Peritumoral_Oedema", "SNFH", "ED")} == {"oedema"}
    names = ("NCR", "NETC", "NCR/NET", "non-enhancing tumour", "non_enhancing_and_necrosis")
    assert {tissue(n) for n in names} == {"necrosis"}
    assert (tissue("Resection Cavity"), tissue("BACKGROUND"), tissue("liver")) == ("cavity", "background", "liver")
    assert [region(n) for n in ("Whole Tumour", "tumor_core", "ET", "prostate")] == ["WT", "TC", "ET", "prostate"]


def test_a_gliomas_tissues_bring_their_regions() -> None:
    edema = {"background": 0, "edema": 1, "non_enhancing_and_necrosis": 2, "enhancing_tumor": 3}
    scheme = declared_scheme("mine", edema)
    assert (scheme.name, scheme.numbers, scheme.regions) == ("mine", MSD_TASK01.numbers, MSD_TASK01.regions)
    after = declared_scheme("226", {"background": 0, "NETC": 1, "SNFH": 2, "ET": 3, "RC": 4})
    assert (after.numbers, after.regions) == (BRATS_2024.numbers, BRATS_2024.regions)


def test_other_tissues_keep_their_names_and_gain_a_foreground() -> None:
    scheme = declared_scheme("prostate", {"background": 0, "PZ": 1, "TZ": 2})
    assert scheme.numbers == {"background": 0, "PZ": 1, "TZ": 2}
    assert scheme.names == ("foreground", "PZ", "TZ")
    assert declared_scheme("heart", {"background": 0, "atrium": 1}).names == ("atrium",)


def test_lists_of_one_number_are_tissues() -> None:
    """As nnU-Net reads them: only a list of several numbers makes a region."""
    assert declared_scheme("a", {"background": 0, "PZ": [1], "TZ": [2]}) == declared_scheme(
        "a", {"background": 0, "PZ": 1, "TZ": 2}
    )


GLIOMA = {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": [3]}


def test_a_gliomas_regions_bring_their_tissues() -> None:
    scheme = declared_scheme("137", GLIOMA, (1, 2, 3))
    assert scheme.numbers == MSD_TASK01.numbers
    assert {name: set(members) for name, members in scheme.regions.items()} == {
        name: set(members) for name, members in MSD_TASK01.regions.items()
    }
    assert declared_scheme("2023", {**GLIOMA, "tumor core": [1, 3]}).numbers == BRATS_2023.numbers


def test_a_cavity_may_lie_beside_a_gliomas_regions() -> None:
    scheme = declared_scheme("post", {**GLIOMA, "resection cavity": 4}, (1, 2, 3, 4))
    assert scheme.numbers == {**MSD_TASK01.numbers, "cavity": 4}
    labels = torch.arange(5)
    assert scheme.mask(labels, "WT").tolist() == [False, True, True, True, False]
    assert scheme.mask(labels, "resection cavity").tolist() == [False] * 4 + [True]


def test_other_regions_hold_numbers_without_names() -> None:
    scheme = declared_scheme("kidney", {"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumour": 2}, (1, 3, 2))
    assert scheme.tissues == ("background", "label 1", "label 2", "label 3")
    assert [len(members) for members in scheme.regions.values()] == [3, 2, 1]
    assert scheme.regions["masses"] == ("label 2", "label 3")
    masks = torch.tensor([[True, True, True, False], [False, True, True, False], [False, False, True, False]])
    assert scheme.paint(masks[None], list(scheme.regions)).tolist() == [[1, 3, 2, 0]]


@pytest.mark.parametrize(
    ("labels", "order", "told"),
    [
        ({"edema": 1, "necrosis": 2}, (), "has no 'background'"),
        ({"background": 0, "edema": 1, "oedema": 2}, (), "one name"),
        ({"background": 0, "a": 1, "b": 1}, (), "one number twice"),
        ({"background": 0, "whole": [1, 2], "WT": [1]}, (), "one name"),
        ({"background": 0, "Background": 0, "a": [1, 2]}, (), "one name"),
        ({"background": 0, "a": [1, 2], "b": []}, (), "no number"),
        (GLIOMA, (1, 2), "a number for each region"),
        (GLIOMA, (3, 2, 1), "a later region holds"),
        ({"background": 1, "a": [1, 2]}, (), "one number twice"),
    ],
)
def test_a_table_that_cannot_be_meant_is_advice(
    labels: dict[str, int | list[int]], order: tuple[int, ...], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        declared_scheme("x", labels, order)


def test_the_named_schemes_are_their_own_declarations() -> None:
    for scheme in (BRATS_2018, BRATS_2023, BRATS_2024, MSD_TASK01):
        assert declared_scheme(scheme.name, scheme.numbers) == scheme
