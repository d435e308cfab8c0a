"""One name for what data sets and models call differently: modalities, tissues and regions of glioma MR.

Only spelling is unified here. What a channel shows and what a number means is declared by whoever knows, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from medadv.errors import ConfigError
from medadv.labels import BACKGROUND, BRATS_2018, LabelScheme

_MODALITIES = {
    "t1": ("t1", "t1w", "t1n", "t1 native", "t1 weighted"),
    "t1ce": ("t1ce", "t1c", "t1gd", "t1 gd", "t1 ce", "t1 contrast", "t1 post", "t1wce"),
    "t2": ("t2", "t2w", "t2 weighted"),
    "flair": ("flair", "t2f", "fla", "t2 flair"),
}
_TISSUES = {
    BACKGROUND: ("background",),
    "oedema": ("edema", "oedema", "peritumoral edema", "ed", "snfh"),
    "necrosis": ("necrosis", "necrotic", "ncr", "ncr net", "netc", "non enhancing", "non enhancing tumor"),
    "enhancing": ("enhancing", "enhancing tumor", "et"),
    "cavity": ("cavity", "resection cavity", "rc"),
}
_REGIONS = {
    "WT": ("wt", "whole tumor", "whole"),
    "TC": ("tc", "tumor core", "core"),
    "ET": ("et", "enhancing tumor", "enhancing"),
}


def modality(name: str) -> str:
    """``T1c``, ``t1gd`` → ``t1ce``; ``T2w`` → ``t2``; what is not known stays as it is."""
    return _canonical(name, _MODALITIES)


def tissue(name: str) -> str:
    """``edema`` → ``oedema``; what is not known stays as it is."""
    return _canonical(name, _TISSUES)


def region(name: str) -> str:
    """``whole tumor`` → ``WT``; what is not known stays as it is."""
    return _canonical(name, _REGIONS)


def declared_scheme(name: str, labels: Mapping[str, int | Sequence[int]], order: Sequence[int] = ()) -> LabelScheme:
    """The scheme of a ``labels`` table as data sets and models declare it: name → number, or name → numbers.

    Numbers alone are tissues. Lists are regions; their numbers have no names of their own, so that a tissue is called
    after its number (``label 2``), except where the regions are whole tumour, tumour core and enhancing tumour.

    Args:
        name: of the scheme.
        labels: with ``background`` 0.
        order: nnU-Net's ``regions_class_order``, the number that each region paints, without background's.

    Raises:
        ConfigError: no background, a number given twice, or an order that does not paint what the regions say.
    """
    plain = {tissue(k): v for k, v in labels.items() if isinstance(v, int)}
    regional = any(not isinstance(numbers, int) for numbers in labels.values())
    lists = {region(k): (v,) if isinstance(v, int) else tuple(v) for k, v in labels.items() if tissue(k) != BACKGROUND}
    if len(lists) + (BACKGROUND in plain) < len(labels):
        raise ConfigError("two labels have one name", got=dict(labels))
    if not regional:
        known = set(plain) == set(BRATS_2018.numbers)
        every = tuple(t for t in plain if t != BACKGROUND)
        foreground = {"foreground": every} if len(every) > 1 else {}
        return LabelScheme(name, plain, BRATS_2018.regions if known else foreground)
    numbers = sorted({number for members in lists.values() for number in members})
    names = _glioma(lists) or {number: f"label {number}" for number in numbers}
    scheme = LabelScheme(
        name,
        {BACKGROUND: plain.get(BACKGROUND, 0), **{names[number]: number for number in numbers}},
        {r: tuple(names[number] for number in members) for r, members in lists.items()},
    )
    for place, (members, painted) in enumerate(zip(lists.values(), order, strict=False)):
        later = {n for other in list(lists.values())[place + 1 :] for n in other}
        own = [n for n in members if n not in later] or list(members)
        if painted != own[0]:
            raise ConfigError(
                "regions_class_order paints a region with a number that a later region holds",
                got=f"{list(lists)[place]} is painted {painted}",
                expected=own[0],
                advice="list the regions from the largest to the smallest, as nnU-Net's documentation does",
            )
    return scheme


def _glioma(regions: Mapping[str, tuple[int, ...]]) -> dict[int, str] | None:
    """Number → tissue, where the regions are those of a glioma, nested as they must be."""
    if set(regions) != set(BRATS_2018.regions):
        return None
    whole, core, enhancing = (set(regions[r]) for r in ("WT", "TC", "ET"))
    parts = {"oedema": whole - core, "necrosis": core - enhancing, "enhancing": enhancing}
    if not (enhancing < core < whole) or any(len(part) != 1 for part in parts.values()):
        return None
    return {number: name for name, part in parts.items() for number in part}


def _canonical(name: str, table: Mapping[str, Sequence[str]]) -> str:
    plain = re.sub(r"[\s_/-]+", " ", name).strip().lower().replace("tumour", "tumor")
    return next((own for own, others in table.items() if plain in others), name)
