"""Real trained-model folders: nnU-Net plans its own data set, trains a few steps, writes its own checkpoints.

Its plans are then made smaller in the two places that nnU-Net's documentation invites to edit: patch size and features.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from torch import Tensor

from medadv.victims.formats.nnunet.predictor import quiet

NAMES = {1: "edema", 2: "necrosis", 3: "enhancing tumor"}
REGIONS = {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": [3]}


@dataclass(frozen=True)
class Recipe:
    """What sets one model apart from another."""

    name: str
    folds: tuple[int | str, ...] = (0,)
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    labels: dict[str, Any] = field(default_factory=lambda: {"background": 0, **{n: k for k, n in NAMES.items()}})
    channels: tuple[str, ...] = ("T1", "FLAIR")
    configuration: str = "3d_fullres"
    mirror: bool = True
    plans: dict[str, Any] = field(default_factory=dict)
    """Changes to the configuration, as its user would edit them."""


def volume(seed: int, shape: Sequence[int] = (26, 22, 20), channels: int = 2, rim: int = 2) -> tuple[Tensor, Tensor]:
    """Noise with three nested lesions, and nothing at the rim: image ``(c, x, y, z)``, labels ``(x, y, z)``."""
    rng = np.random.default_rng(seed)
    middle = np.array([n / 2 + rng.uniform(-1, 1) for n in shape]).reshape(3, 1, 1, 1)
    scale = np.array([n / 20 for n in shape]).reshape(3, 1, 1, 1)
    distance = np.sqrt((((np.indices(shape) - middle) / scale) ** 2).sum(0))
    labels = (distance < 7).astype(np.int64) + (distance < 5) + (distance < 3)
    levels = np.array([[0, 90, 30, 150], [0, 40, 120, 170], [0, 20, 60, 90]])[:channels]
    image = 200 + 12 * rng.standard_normal((channels, *shape)) + levels[:, labels]
    inside = np.zeros(shape, bool)
    inside[tuple(slice(rim, n - rim) for n in shape)] = True
    return torch.from_numpy(image * inside).float(), torch.from_numpy(labels * inside)


def train(recipe: Recipe, root: Path, steps: int = 60) -> Path:
    """The trained-model folder of a recipe, made below ``root`` by nnU-Net."""
    for name in ("raw", "preprocessed", "results"):
        (root / name).mkdir(exist_ok=True)
        os.environ[f"nnUNet_{name}"] = str(root / name)
    with quiet():
        plans, dataset = _planned(recipe, root)
        folder = None
        for fold in recipe.folds:
            folder = _trained(recipe, plans, dataset, fold, steps)
    assert folder is not None
    return folder


def _planned(recipe: Recipe, root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    raw, cases = root / "raw" / recipe.name, []
    for place in ("imagesTr", "labelsTr"):
        (raw / place).mkdir(parents=True)
    for number in range(2):
        x, truth = volume(number, channels=len(recipe.channels))
        affine = np.diag([*recipe.spacing, 1.0])
        images = [raw / "imagesTr" / f"case_{number}_{c:04}.nii.gz" for c in range(len(x))]
        for image, channel in zip(images, x, strict=True):
            nib.save(nib.Nifti1Image(channel.numpy(), affine), image)
        nib.save(nib.Nifti1Image(truth.numpy().astype(np.uint8), affine), raw / "labelsTr" / f"case_{number}.nii.gz")
        cases.append(
            DatasetFingerprintExtractor.analyze_case(
                [str(image) for image in images], str(raw / "labelsTr" / f"case_{number}.nii.gz"), SimpleITKIO
            )
        )
    regional = any(isinstance(value, list) for value in recipe.labels.values())
    dataset = {
        "channel_names": {str(c): name for c, name in enumerate(recipe.channels)},
        "labels": recipe.labels,
        **({"regions_class_order": [1, 2, 3]} if regional else {}),
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(dataset))
    statistics = [{key: float(value) for key, value in of.items()} for of in cases[0][3]]
    fingerprint = {
        "spacings": [[float(mm) for mm in case[1]] for case in cases],
        "shapes_after_crop": [[int(n) for n in case[0]] for case in cases],
        "foreground_intensity_properties_per_channel": {
            str(c): {**of, "std": float(np.std(cases[0][2][c]))} for c, of in enumerate(statistics)
        },
        "median_relative_size_after_cropping": float(np.median([case[4] for case in cases])),
    }
    there = root / "preprocessed" / recipe.name
    there.mkdir()
    (there / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
    ExperimentPlanner(recipe.name).plan_experiment()
    plans = json.loads((there / "nnUNetPlans.json").read_text())
    _shrink(plans["configurations"][recipe.configuration], recipe)
    return plans, dataset


def _shrink(configuration: dict[str, Any], recipe: Recipe) -> None:
    dimensions = len(configuration["patch_size"])
    configuration["patch_size"] = [16, 12, 16][:dimensions]
    arguments = configuration["architecture"]["arch_kwargs"]
    # Three stages at least: with two, nnU-Net's deep supervision weighs its one answer with 0 / 0.
    arguments |= {"n_stages": 3, "features_per_stage": [8, 12, 16]}
    arguments |= {"n_conv_per_stage": [1, 1, 1], "n_conv_per_stage_decoder": [1, 1]}
    arguments |= {"strides": [[1] * dimensions, *[[2] * dimensions] * 2], "kernel_sizes": [[3] * dimensions] * 3}
    configuration |= recipe.plans


def _trained(recipe: Recipe, plans: dict[str, Any], dataset: dict[str, Any], fold: int | str, steps: int) -> Path:
    from batchgenerators.utilities.file_and_folder_operations import save_json
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetNumpy
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    torch.manual_seed(recipe.folds.index(fold))
    trainer = nnUNetTrainer(
        {**plans, "continue_training": False}, recipe.configuration, fold, dataset, torch.device("cpu")
    )
    patch, (data, target) = trainer.configuration_manager.patch_size, _preprocessed(trainer, recipe)
    there = Path(trainer.preprocessed_dataset_folder)
    there.mkdir(exist_ok=True)
    nnUNetDatasetNumpy.save_case(data.numpy(), target.numpy(), {}, str(there / "case_0"))  # the trainer looks for it
    trainer.initialize()
    trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    if not recipe.mirror:
        trainer.inference_allowed_mirroring_axes = None
    trainer.network.decoder.deep_supervision = True
    scales = trainer._get_deep_supervision_scales()
    losses = []
    trainer.on_epoch_start()
    trainer.logger.log("lrs", trainer.optimizer.param_groups[0]["lr"], 0)
    for step in range(steps):
        rng = np.random.default_rng(1000 * step + 7)
        batch = [_patch(data, target, patch, rng) for _ in range(2)]
        whole = torch.stack([truth for _, truth in batch])
        targets = [
            torch.nn.functional.interpolate(whole.float(), scale_factor=tuple(map(float, scale)), mode="nearest")
            for scale in scales
        ]
        targets = [t.bool().float() if trainer.label_manager.has_regions else t for t in targets]
        losses.append(trainer.train_step({"data": torch.stack([x for x, _ in batch]), "target": targets}))
    trainer.on_train_epoch_end(losses)
    for key, value in (("mean_fg_dice", np.float64(0.5)), ("dice_per_class_or_region", [np.float32(0.5)])):
        trainer.logger.log(key, value, 0)
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    folder = Path(trainer.output_folder_base)
    save_json(plans, str(folder / "plans.json"), sort_keys=False)
    save_json(dataset, str(folder / "dataset.json"), sort_keys=False)
    return folder


def _preprocessed(trainer: Any, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """A training case through nnU-Net's own preprocessor."""
    x, truth = volume(11, channels=len(recipe.channels))
    preprocessor = trainer.configuration_manager.preprocessor_class(verbose=False)
    data, seg, _ = preprocessor.run_case_npy(
        x.numpy().transpose(0, 3, 2, 1),
        truth.numpy().transpose(2, 1, 0)[None].astype(np.int16),
        {"spacing": list(recipe.spacing[::-1])},
        trainer.plans_manager,
        trainer.configuration_manager,
        trainer.dataset_json,
    )
    labels = torch.from_numpy(seg.astype(np.int64)).clamp(min=0)
    if trainer.label_manager.has_regions:
        numbers = [torch.tensor(region) for region in trainer.label_manager.foreground_regions]
        labels = torch.cat([torch.isin(labels, number) for number in numbers])
    return torch.from_numpy(data), labels


def _patch(data: Tensor, target: Tensor, patch: Sequence[int], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    if len(patch) < 3:
        at = int(rng.integers(data.shape[1]))
        data, target = data[:, at], target[:, at]
    missing = [max(n - size, 0) for n, size in zip(patch, data.shape[1:], strict=True)]
    widths = [n for more in reversed(missing) for n in (0, more)]
    data, target = torch.nn.functional.pad(data, widths), torch.nn.functional.pad(target, widths)
    starts = [int(rng.integers(size - n + 1)) for n, size in zip(patch, data.shape[1:], strict=True)]
    box = (slice(None), *(slice(start, start + n) for start, n in zip(starts, patch, strict=True)))
    return data[box], target[box]


ISOTROPIC = Recipe("Dataset001_Isotropic", folds=(0, 1))
"""Two folds, softmax, mirrored; the rim of zeros is cropped away."""

REGIONAL = Recipe(
    "Dataset002_Regional",
    folds=("all",),
    spacing=(4.0, 1.2, 1.0),
    labels=REGIONS,
    mirror=False,
    plans={"spacing": [3.2, 1.0, 1.3], "use_mask_for_norm": [True, True]},
)
"""Regions; coarse along the first axis of the file, so that the plans transpose, and resampled onwards and back;
normalised inside the head."""

FLAT = Recipe("Dataset003_Flat", channels=("CT", "T1", "rescale_to_0_1"), configuration="2d")
"""The 2-D configuration: slices; each channel with a normalisation of its own."""
