"""Studies of pipelines/ on a few small generated cases, with small networks that learn for a few steps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.picture_files import grain, saved
from study.miniature_pictures import on_pictures
from study.small_study import NETWORK

from medadv.data.phantom import phantom
from medadv.data.pictures import DEFAULT, pictures
from medadv.study.entrants import VictimSpec
from medadv.study.load import load_study
from medadv.study.spec import Study
from medadv.victims.crop import Pad

PIPELINES = {path.stem: path for path in sorted((Path(__file__).parents[2] / "pipelines").glob("*.yaml"))}
CASES = 5
ROI = [32, 32, 32]
SIZE = (32, 48)
PADDED = 64  # more than a tenth larger than a picture, and what small networks can halve
BASIC = {"name": "BasicUNet", "arguments": {"spatial_dims": 3, "features": [4, 4, 4, 4, 4, 4]}}


def miniature(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> Study:
    """The same study: its victims, attacks and comparisons; other data, other networks, one budget."""
    written = load_study(PIPELINES[name])
    if name.startswith("xie2017"):
        return _changed(name, on_pictures(written, tmp_path))
    changes: dict[str, Any] = {"split": {"train": 2, "validate": 1, "test": 2}, **_data(written, tmp_path, request)}
    if written.data.axes == 3:
        changes["controls"] = ["noise"]
    if "0.1 sigma" in written.budgets:
        changes["budgets"] = ["0.1 sigma"]
    elif written.primary.budgets or "8 0-255" in written.budgets:
        changes["budgets"] = list(written.primary.budgets or ["8 0-255"])
    for number, (victim, spec) in enumerate(written.victims.items()):
        changes |= {f"victims.{victim}.{key}": value for key, value in _small(spec, number, written.data.axes).items()}
    return _changed(name, changes)


def _changed(name: str, changes: Mapping[str, Any]) -> Study:
    return load_study(PIPELINES[name], [f"{key}={json.dumps(value)}" for key, value in changes.items()])


def _data(written: Study, tmp_path: Path, request: pytest.FixtureRequest) -> dict[str, Any]:
    root = tmp_path / "data"
    match written.data.importer:
        case "msd":
            return {"data.root": str(request.getfixturevalue("data_root") / "Task04_Hippocampus_subset")}
        case "phantom":
            return {"data.cases": CASES, "data.shape": ROI}
        case "brats":
            phantom(root, CASES, (32, 32, 32))
            return {"data.root": str(root), "data.release": "2021"}
        case "pictures":
            return {"data.cases": CASES, "data.size": SIZE}
        case "voc":
            pictures(root, CASES, SIZE)
            return {"data.root": str(root), "data.year": None, "data.split": "trainval", "data.classes": DEFAULT}
        case "cityscapes":
            _streets(root)
            return {"data.root": str(root)}
    raise AssertionError(written.data.importer)


def _streets(root: Path) -> None:
    """Noise with a road, a car and something that is not judged, as Cityscapes lays it out."""
    for seed in range(CASES):
        labels = np.full(SIZE, 7, np.uint8)
        labels[4:16, 6 + seed : 30], labels[:, 40:] = 26, 4
        stem = f"bonn_{seed:06}_000019"
        saved(root / "leftImg8bit" / "val" / "bonn" / f"{stem}_leftImg8bit.png", grain(seed, *SIZE))
        saved(root / "gtFine" / "val" / "bonn" / f"{stem}_gtFine_labelIds.png", labels)


def _small(spec: VictimSpec, number: int, axes: int) -> dict[str, Any]:
    """What changes of a victim: where it says them itself, its network, its weights, its windows and its training."""
    own = spec.model_fields_set
    changes: dict[str, Any] = {"weights": None} if "weights" in own and spec.defence is None else {}
    plain = spec.like is None
    if not spec.detects and (plain or "network" in own):
        flat = {"spatial_dims": 2, "channels": [4, 4 + number], "strides": [2], "num_res_units": 0}
        basic = spec.network.name == "BasicUNet"
        changes["network"] = {"name": "UNet", "arguments": flat} if axes == 2 else BASIC if basic else NETWORK
    if plain:
        size = list(SIZE) if axes == 2 else ROI
        changes["training"] = {"steps": 4, "batch": 1, "roi": size, "flips": [0], "validate_every": 2}
        if axes == 3:
            changes["inference"] = {"name": "window", "roi": ROI, "overlap": 0.25}
        if spec.spatial:
            assert all(isinstance(step, Pad) for step in spec.spatial)
            value = next(step.value for step in spec.spatial if isinstance(step, Pad))
            changes["spatial"] = [{"name": "pad", "to": PADDED, "method": "end", "value": value}]
    return changes
