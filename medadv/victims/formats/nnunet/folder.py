"""A trained-model folder of nnU-Net v2, read as data and held against itself: plans, dataset, one checkpoint a fold."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from medadv.errors import VictimError
from medadv.victims.formats.numpy_numbers import NUMBERS

FINAL = "checkpoint_final.pth"
KEYS: dict[str, type] = {"network_weights": dict, "init_args": dict, "trainer_name": str}
LARGEST = 16_000_000


@dataclass(frozen=True, eq=False)
class Trained:
    """What a trained-model folder says of itself.

    Attributes:
        plans, dataset: ``plans.json`` and ``dataset.json``, as they are.
        configuration: which of the plans' configurations was trained: ``3d_fullres``, ``2d`` …
        trainer: the name of nnU-Net's class that trained it.
        mirroring: the axes along which its predictor mirrors; empty for none.
        weights: fold → name → tensor.
    """

    plans: dict[str, Any]
    dataset: dict[str, Any]
    configuration: str
    trainer: str
    mirroring: tuple[int, ...]
    weights: Mapping[str, dict[str, Tensor]]


def root_of(path: Path) -> Path | None:
    """The trained-model folder that a path names: itself, one of its folds, or a fold's checkpoint; None for none."""
    path = path.absolute()
    for root in (path, path.parent, path.parent.parent):
        inside = path.relative_to(root).parts
        fold = not inside or inside[0].startswith("fold_")
        file = len(inside) < 2 or path.suffix == ".pth"
        if fold and file and all((root / name).is_file() for name in ("plans.json", "dataset.json")):
            return root
    return None


def read_folder(path: Path, folds: Sequence[int] | None, trust: bool) -> Trained:
    """Read a trained model.

    Args:
        path: the folder, one of its folds, or a checkpoint in a fold.
        folds: which; None for all that were trained.
        trust: whether a checkpoint may run code.

    Raises:
        VictimError: a file that is missing, damaged, another version's or a program's; folds that do not belong
            together, or not to these plans.
    """
    path, root = path.absolute(), root_of(path)
    if root is None:
        raise VictimError("this is no trained-model folder of nnU-Net v2", expected="plans.json, dataset.json, fold_*")
    plans, dataset = _json(root / "plans.json"), _json(root / "dataset.json")
    _check_version(plans, dataset)
    checkpoints = {place.parent.name.removeprefix("fold_"): _checkpoint(place, trust) for place in _chosen(path, folds)}
    first = next(iter(checkpoints.values()))
    for fold, checkpoint in checkpoints.items():
        _check_fold(fold, checkpoint, first, plans, dataset)
    return Trained(
        plans,
        dataset,
        first["init_args"]["configuration"],
        first["trainer_name"],
        _mirroring(first),
        {fold: dict(checkpoint["network_weights"]) for fold, checkpoint in checkpoints.items()},
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST:
            raise VictimError(f"{path.name} is too large to be nnU-Net's", got=f"{path.stat().st_size} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise VictimError(f"{path.name} cannot be read", got=error, advice="copy the folder anew") from error
    if not isinstance(content, dict):
        raise VictimError(f"{path.name} is not nnU-Net's", got=type(content).__name__, expected="keys and values")
    return content


def _check_version(plans: Mapping[str, Any], dataset: Mapping[str, Any]) -> None:
    needed = {"configurations", "transpose_forward", "foreground_intensity_properties_per_channel"}
    if missing := sorted(needed - set(plans)):
        raise VictimError(
            "plans.json is of another version of nnU-Net",
            got=f"no {', '.join(missing)}",
            expected="the plans of nnU-Net 2",
            advice="train with nnU-Net 2; nnU-Net 1 plans in another way, and its networks are others",
        )
    labels = dataset.get("labels")
    channels = dataset.get("channel_names", dataset.get("modality"))
    if not (isinstance(labels, dict) and isinstance(channels, dict) and isinstance(labels.get("background"), int)):
        raise VictimError(
            "dataset.json does not name labels and channels as nnU-Net 2 does",
            got=f"labels: {labels}, channel_names: {channels}",
            expected="for example labels: {background: 0, tumor: 1}, channel_names: {'0': T1}",
            cause="a dataset.json of nnU-Net 1 or of the Medical Segmentation Decathlon: numbers first",
            advice="nnUNetv2_convert_old_nnUNet_dataset writes it anew",
        )


def _chosen(path: Path, folds: Sequence[int] | None) -> list[Path]:
    """The checkpoints that are meant: one file, one fold, the folds asked for, or all."""
    if path.is_file():
        return [path]
    if path.name.startswith("fold_"):
        places = [path]
    elif folds is not None:
        places = [path / f"fold_{fold}" for fold in folds]
    else:
        places = sorted(place for place in path.glob("fold_*") if any(place.glob("checkpoint_*.pth")))
        # As nnU-Net's own predictor: a model of all cases is no member of a cross-validation.
        places = [place for place in places if place.name != "fold_all"] or places
    if not places:
        raise VictimError("no fold of this nnU-Net was trained", got=path.name, expected=f"fold_0/{FINAL}")
    if missing := [place for place in places if not (place / FINAL).is_file()]:
        there = sorted(f"{place.parent.name}/{place.name}" for place in places[0].parent.glob("fold_*/*.pth"))
        raise VictimError(
            f"{', '.join(place.name for place in missing)} has no {FINAL}",
            got=there or "no checkpoint at all",
            cause="a training that was not finished, or a fold that was never trained",
            advice="choose among the folds that are finished, or give a checkpoint's own path (fold_0/"
            "checkpoint_best.pth)",
        )
    return [place / FINAL for place in places]


def _checkpoint(path: Path, trust: bool) -> dict[str, Any]:
    where = f"{path.parent.name}/{path.name}"
    try:
        with torch.serialization.safe_globals(NUMBERS):
            content = torch.load(path, map_location="cpu", weights_only=not trust)
    except UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise VictimError(
            f"{where} holds more than weights, and loading it could run a program",
            got=named.group(1) if named else str(error).splitlines()[-1],
            expected="tensors, numbers and words",
            advice="--trust loads it all the same; only for a file whose makers you trust with this machine",
        ) from error
    except Exception as error:  # torch raises what its readers meet: OSError, EOFError, RuntimeError, struct.error …
        raise VictimError(f"{where} cannot be read", got=error, advice="copy the file anew") from error
    if lacking := _lacking(content):
        raise VictimError(
            f"{where} is no checkpoint of nnU-Net 2",
            got=sorted(map(str, content))[:8] if isinstance(content, dict) else type(content).__name__,
            expected=f"among others {', '.join(lacking)}",
            advice="for another model's weights name its network: victims.<name>.network",
        )
    checkpoint: dict[str, Any] = content
    weights = checkpoint["network_weights"]
    if strange := [str(name) for name, value in weights.items() if not isinstance(value, Tensor)]:
        raise VictimError(f"the weights in {where} are no tensors", got=strange[:3])
    if broken := sorted(name for name, value in weights.items() if not torch.isfinite(value).all()):
        raise VictimError(f"the weights in {where} are not finite", got=broken[:3], cause="a training that diverged")
    return checkpoint


def _lacking(content: Any) -> list[str]:
    """The keys that nnU-Net's trainer writes and a predictor needs, where they are missing or of another kind."""
    if not isinstance(content, dict):
        return list(KEYS)
    own, axes = content.get("init_args"), content.get("inference_allowed_mirroring_axes")
    lacking = [key for key, kind in KEYS.items() if not isinstance(content.get(key), kind)]
    if not (isinstance(own, dict) and isinstance(own.get("configuration"), str)):
        lacking.append("init_args.configuration")
    if axes is not None and not (isinstance(axes, list | tuple) and all(type(a) is int and 0 <= a < 3 for a in axes)):
        lacking.append("inference_allowed_mirroring_axes")
    return lacking


def _check_fold(
    fold: str,
    checkpoint: Mapping[str, Any],
    first: Mapping[str, Any],
    plans: Mapping[str, Any],
    dataset: Mapping[str, Any],
) -> None:
    """A fold belongs to the other folds and to the files beside it: its checkpoint says what it was trained with."""
    own = checkpoint["init_args"]
    name = own.get("configuration")
    if name not in plans["configurations"]:
        raise VictimError(
            f"fold_{fold} was trained in a configuration that plans.json does not have",
            got=name,
            expected=f"one of {sorted(plans['configurations'])}",
            advice="put the plans.json beside the folds that they were trained with",
        )
    alike = (name, checkpoint["trainer_name"], _mirroring(checkpoint))
    if alike != (first["init_args"].get("configuration"), first["trainer_name"], _mirroring(first)):
        raise VictimError(f"fold_{fold} is of another training than the fold before it", got=alike)
    keys = {
        "plans": ("configurations", "transpose_forward", "foreground_intensity_properties_per_channel"),
        "dataset_json": ("labels", "channel_names", "modality", "regions_class_order"),
    }
    for file, there in (("plans", plans), ("dataset_json", dataset)):
        then = own.get(file, there)
        # Compared as text: the order of regions is the order of channels.
        if other := [key for key in keys[file] if json.dumps(then.get(key)) != json.dumps(there.get(key))]:
            raise VictimError(
                f"{file.removesuffix('_json')}.json is not the one that fold_{fold} was trained with",
                got=f"other values of {', '.join(other)}",
                advice="copy the whole folder from where it was trained",
            )


def _mirroring(checkpoint: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(checkpoint.get("inference_allowed_mirroring_axes") or ())
