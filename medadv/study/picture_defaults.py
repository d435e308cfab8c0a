"""What a study of pictures means where it is silent: they have no air around a head, and hold grey levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from medadv.victims.defended import Protection
from medadv.victims.detectors.build import DETECTORS

PICTURES: dict[str, Any] = {
    "legal": (0.0, 255.0),
    "support": "everywhere",
    "budgets": ["2 0-255", "4 0-255", "8 0-255"],
}
"""What a study of pictures says where it is silent; where it pads them, the support is the pictures themselves."""

PICTURE_IMPORTERS = ("pictures", "voc", "cityscapes", "coco")

NORMALISE: dict[str, Any] = {"name": "standard", "mean": [127.5], "std": [64.0]}
"""Of networks that the study trains: fixed numbers, so that a pixel's value does not hang on all others."""

PROTECTIONS = {kind.name: kind for kind in get_args(Protection)}

HEADED = frozenset(name for name, kind in PROTECTIONS.items() if "nonzero" in kind.__dataclass_fields__)
"""Protections that leave zeros alone unless they are told otherwise: in a head these are air, in a picture black."""


def of_pictures(written: Mapping[str, Any]) -> dict[str, Any]:
    """A study as written, with what is usual of pictures where it says nothing; one of volumes as it is."""
    data = _written(written.get("data"))
    if data.get("importer") not in PICTURE_IMPORTERS:
        return dict(written)
    usual = PICTURES if data.get("pad") is None else {**PICTURES, "support": "mask"}
    victims = written.get("victims")
    if not isinstance(victims, Mapping):
        return {**usual, **written}  # for others to refuse
    told: dict[str, Any] = {}
    lines: dict[str, list[dict[str, Any]]] = {}  # a victim, and those above that it is like
    for name, victim in victims.items():
        if not isinstance(victim, Mapping | BaseModel):
            told[name] = victim
            continue
        spec = _written(victim)
        lines[name] = [spec, *lines.get(str(spec.get("like")), [])]
        told[name] = spec
        _say(spec, lines[name])
    return {**usual, **written, "victims": told}


def _written(what: Any) -> dict[str, Any]:
    """What somebody wrote, in YAML or as a model in Python."""
    if isinstance(what, BaseModel):
        return what.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return dict(what) if isinstance(what, Mapping) else {}


def _name(what: Any) -> str:
    return str(_written(what).get("name"))


def _say(spec: dict[str, Any], line: Sequence[Mapping[str, Any]]) -> None:
    """In a victim, say that its zeros count; and fixed numbers, if it is trained and nobody of its line normalises."""
    defence = _name(spec.get("defence"))
    if defence in HEADED:
        spec["defence"] = {"nonzero": False, **_written(spec["defence"])}
    normalise = _written(spec.get("normalise"))
    if _name(normalise) == "z-score" and not normalise.get("joint"):
        spec["normalise"] = {"nonzero": False, **normalise}
    idle = defence in PROTECTIONS or spec.get("weights")  # it is normalised as the other one, or as its file says
    if not idle and not any("normalise" in one or _detects(one) for one in line):
        spec["normalise"] = dict(NORMALISE)


def _detects(spec: Mapping[str, Any]) -> bool:
    return spec.get("task") == "detection" or _name(spec.get("network")) in DETECTORS
