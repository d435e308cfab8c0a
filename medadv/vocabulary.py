"""One name for what data sets and models call differently: modalities, tissues and regions of glioma MR.

Only spelling is unified here. What a channel shows and what a number means is declared by whoever knows, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from medadv.errors import ConfigError
from medadv.labels import BACKGROUND, BRATS_2018, BRATS_2024, LabelScheme

_MODALITIES = {
    "t1": ("t1", "t1w", "t1n", "t1 native", "t1 weighted"),
    "t1ce": ("t1ce", "t1c", "t1gd", "t1 gd", "t1 ce", "t1 contrast", "t1 post", "t1wce"),
    "t2": ("t2", "t2w", "t2 weighted"),
    "flair": ("flair", "t2f", "fla", "t2 flair"),
}
_TISSUES = {
    BACKGROUND: ("background",),
    "oedema": ("edema", "oedema", "peritumoral edema", "peritumoral oedema", "ed", "snfh"),
    "necrosis": (
        *("necrosis", "necrotic", "ncr", "net", "ncr net", "netc", "non enhancing", "non enhancing tumor"),
        *("non enhancing and necrosis", "non enhancing tumor core", "necrotic tumor core"),
    ),
    "enhancing": ("enhancing", "enhancing tumor", "et"),
    "cavity": ("cavity", "resection cavity", "rc"),
}
_PLAIN = re.compile(r"\w[\w .+-]*")
_REGIONS = {
    "WT": ("wt", "whole tumor", "whole"),
    "TC": ("tc", "tumor core", "core"),
    "ET": ("et", "enhancing tumor", "enhancing"),
}


def modality(name: str) -> str:
    """``T1c``, ``t1gd`` → ``t1ce``; ``T2w`` → ``t2``; what is not known stays as it is."""
    return _canonical(name, _MODALITIES)


def modalities(names: Sequence[str]) -> tuple[str, ...]:
    """Declared channels under their own names here, in their order.

    Raises:
        ConfigError: there are none, two have one name, or one makes no file name.
    """
    own = tuple(modality(name) for name in names)
    if not own or len(set(own)) < len(own):
        raise ConfigError(
            "two channels have one name" if own else "no channel is declared",
            got=list(names),
            expected="a name of its own for each, such as t1, t1ce, t2, flair",
            advice="spellings of one modality are one name: T1Gd and t1ce are the same",
        )
    if odd := [name for name in own if not _PLAIN.fullmatch(name)]:
        raise ConfigError("a channel's name makes no file name", got=odd, expected="letters, digits, spaces, . _ + -")
    return own


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
        ConfigError: no background, a name or a number given twice, or an order that does not paint what the regions
            say.
    """
    single = {k: v if isinstance(v, int) else v[0] for k, v in labels.items() if isinstance(v, int) or len(v) == 1}
    if len(single) == len(labels):
        return _of_tissues(name, single)
    background = [number for k, number in single.items() if tissue(k) == BACKGROUND]
    lists = {region(k): (v,) if isinstance(v, int) else tuple(v) for k, v in labels.items() if tissue(k) != BACKGROUND}
    if len(lists) + len(background) < len(labels) or len(background) > 1 or not all(lists.values()):
        raise ConfigError("two labels have one name, or a region has no number", got=dict(labels))
    if order and len(order) != len(lists):
        raise ConfigError("regions_class_order does not have a number for each region", got=order, expected=list(lists))
    numbers = sorted({number for members in lists.values() for number in members})
    names = _glioma(lists) or {number: f"label {number}" for number in numbers}
    scheme = LabelScheme(
        name,
        {BACKGROUND: background[0] if background else 0, **{names[number]: number for number in numbers}},
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


def _of_tissues(name: str, labels: Mapping[str, int]) -> LabelScheme:
    """One number a name. Where they are a glioma's tissues, the three regions are known; else ``foreground`` is all."""
    numbers = {tissue(k): number for k, number in labels.items()}
    if len(numbers) < len(labels):
        raise ConfigError("two labels have one name", got=dict(labels))
    if set(BRATS_2018.numbers) <= set(numbers) <= set(BRATS_2024.numbers):
        return LabelScheme(name, numbers, BRATS_2018.regions)
    every = tuple(t for t in numbers if t != BACKGROUND)
    return LabelScheme(name, numbers, {"foreground": every} if len(every) > 1 else {})


def _glioma(regions: Mapping[str, tuple[int, ...]]) -> dict[int, str] | None:
    """Number → tissue, where the regions are a glioma's, nested as they must be; a cavity may lie beside them."""
    beside = {tissue(r): set(numbers) for r, numbers in regions.items() if r not in BRATS_2018.regions}
    if not set(BRATS_2018.regions) <= set(regions) or not set(beside) <= {"cavity"}:
        return None
    whole, core, enhancing = (set(regions[r]) for r in ("WT", "TC", "ET"))
    parts = {"oedema": whole - core, "necrosis": core - enhancing, "enhancing": enhancing, **beside}
    if not (enhancing < core < whole) or any(len(part) != 1 for part in parts.values()):
        return None
    names = {number: name for name, part in parts.items() for number in part}
    return names if len(names) == len(parts) else None


def _canonical(name: str, table: Mapping[str, Sequence[str]]) -> str:
    plain = re.sub(r"[\s_/-]+", " ", name).strip().lower().replace("tumour", "tumor")
    return next((own for own, others in table.items() if plain in others), name)
