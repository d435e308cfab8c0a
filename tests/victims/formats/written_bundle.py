"""Real bundles, written as the model zoo's are, and MONAI's own prediction from them."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor, nn

RELABEL = "$lambda x: torch.where(x[[2]] > 0, 4, torch.where(x[[0]] > 0, 1, torch.where(x[[1]] > 0, 2, 0)))"
Z_SCORE = {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True, "channel_wise": True}

BRATS: dict[str, Any] = {
    "imports": ["$import glob", "$import os"],
    "bundle_root": ".",
    "ckpt_dir": "$@bundle_root + '/models'",
    "output_dir": "$@bundle_root + '/eval'",
    "dataset_dir": "/workspace/data/medical/brats2018challenge",
    "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
    "amp": True,
    "network_def": {
        "_target_": "SegResNet",
        "blocks_down": [1, 1],
        "blocks_up": [1],
        "init_filters": 8,
        "in_channels": 4,
        "out_channels": 3,
        "dropout_prob": 0.2,
    },
    "network": "$@network_def.to(@device)",
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [{"_target_": "LoadImaged", "keys": "image"}, Z_SCORE],
    },
    "inferer": {
        "_target_": "SlidingWindowInferer",
        "roi_size": [12, 12, 16],
        "sw_batch_size": 1,
        "overlap": 0.5,
    },
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "Activationsd", "keys": "pred", "sigmoid": True},
            {
                "_target_": "Invertd",
                "keys": "pred",
                "transform": "@preprocessing",
                "orig_keys": "image",
                "meta_keys": "pred_meta_dict",
                "nearest_interp": False,
                "to_tensor": True,
            },
            {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5},
            {"_target_": "Lambdad", "keys": "pred", "func": RELABEL},
            {
                "_target_": "SaveImaged",
                "keys": "pred",
                "meta_keys": "pred_meta_dict",
                "output_dir": "@output_dir",
                "resample": False,
                "squeeze_end_dims": True,
            },
        ],
    },
    "handlers": [{"_target_": "CheckpointLoader", "load_path": "$@bundle_root + '/models/model.pt'"}],
    "evaluator": {"_target_": "SupervisedEvaluator", "device": "@device", "network": "@network", "amp": True},
    "evaluating": ["$setattr(torch.backends.cudnn, 'benchmark', True)", "$@evaluator.run()"],
}
"""``brats_mri_segmentation`` of the model zoo, with a smaller network and smaller windows."""

INPUTS = ("T1c", "T1", "T2", "FLAIR")
REGIONS = ("Tumor core", "Whole tumor", "Enhancing tumor")
TISSUES = ("background", "edema", "non-enhancing tumor", "enhancing tumor")


def brats() -> dict[str, Any]:
    """A configuration to be changed."""
    return copy.deepcopy(BRATS)


def of_tissues(grid: bool = False) -> dict[str, Any]:
    """The same with a softmax over four tissues, a UNet, and, if asked for, steps that change the grid."""
    config = brats()
    config["network_def"] = {
        "_target_": "UNet",
        "spatial_dims": 3,
        "in_channels": 4,
        "out_channels": 4,
        "channels": [4, 8],
        "strides": [2],
        "norm": "batch",
    }
    activation, inversion, decision, _, saving = config["postprocessing"]["transforms"]
    del activation["sigmoid"], decision["threshold"]
    config["postprocessing"]["transforms"] = [activation, inversion, decision, saving]
    activation["softmax"] = decision["argmax"] = True
    if grid:
        config["preprocessing"]["transforms"] = [
            {"_target_": "LoadImaged", "keys": "image"},
            {"_target_": "EnsureChannelFirstd", "keys": "image"},
            {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
            {"_target_": "Spacingd", "keys": "image", "pixdim": [1.47, 1.83, 2.06], "mode": "bilinear"},
            Z_SCORE,
            {"_target_": "EnsureTyped", "keys": "image"},
        ]
    return config


def described(inputs: tuple[str, ...] = INPUTS, outputs: tuple[str, ...] = REGIONS) -> dict[str, Any]:
    """``metadata.json``."""
    shape = {"spatial_shape": ["8*n", "8*n", "8*n"], "dtype": "float32", "is_patch_data": True}
    image = {"type": "image", "num_channels": len(inputs), **shape, "channel_def": numbered(inputs)}
    pred = {"type": "image", "num_channels": len(outputs), **shape, "channel_def": numbered(outputs)}
    return {"version": "0.1.0", "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": pred}}}


def numbered(names: tuple[str, ...]) -> dict[str, str]:
    return {str(i): name for i, name in enumerate(names)}


def opinionated(network: nn.Module) -> nn.Module:
    """Weights whose answers differ from voxel to voxel, and are decided both ways."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.5 if parameter.ndim > 1 else 0.2)
    return network.eval()


def write(
    root: Path, config: dict[str, Any], metadata: dict[str, Any] | None = None, state: dict[str, Tensor] | None = None
) -> Path:
    """The folder of a bundle. Without a state dict, MONAI's parser builds the network and its weights are drawn."""
    from monai.bundle import ConfigParser

    (root / "configs").mkdir(parents=True, exist_ok=True)
    (root / "models").mkdir(exist_ok=True)
    (root / "configs" / "inference.json").write_text(json.dumps(config))
    (root / "configs" / "metadata.json").write_text(json.dumps(metadata or described()))
    if state is None:
        parser = ConfigParser(config)
        state = opinionated(parser.get_parsed_content("network_def")).state_dict()
    torch.save(state, root / "models" / "model.pt")
    return root


def by_monai(root: Path, x: Tensor, affine: np.ndarray) -> Tensor:
    """The bundle's prediction as MONAI makes it: ``(k, *s)``, after all but reading and saving."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI's, of its own defaults and of inverting nothing
        return _by_monai(root, x, affine)


def _by_monai(root: Path, x: Tensor, affine: np.ndarray) -> Tensor:
    from monai.bundle import ConfigParser

    config = json.loads((root / "configs" / "inference.json").read_text()) | {"bundle_root": str(root)}
    first = config["preprocessing"]["transforms"][0]
    first.pop("reader", None)  # one that is not installed
    parser = ConfigParser(config)
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(root / "models" / "model.pt", weights_only=True))
    inferer = parser.get_parsed_content("inferer")
    data: dict[Any, Any] = {"image": MetaTensor(x.clone(), affine=torch.as_tensor(affine))}
    for transform in parser.get_parsed_content("preprocessing").transforms:
        if type(transform).__name__ not in ("LoadImaged", "EnsureChannelFirstd"):
            data = transform(data)
    with torch.no_grad():
        data["pred"] = MetaTensor(inferer(data["image"].as_tensor()[None], network.eval())[0])
    for transform in parser.get_parsed_content("postprocessing").transforms:
        if type(transform).__name__ != "SaveImaged":
            data = transform(data)
    return MetaTensor(data["pred"]).as_tensor()


def oblique() -> np.ndarray:
    """An affine that is turned, flipped and anisotropic: axes go to the left, upwards and to the front."""
    around = np.linalg.qr(np.array([[1.0, 0.2, -0.1], [-0.2, 1.0, 0.25], [0.15, -0.2, 1.0]]))[0]
    around = around * np.sign(np.diag(around))
    affine = np.eye(4)
    affine[:3, :3] = around @ np.array([[-1.1, 0, 0], [0, 0, 1.3], [0, 2.1, 0]])
    affine[:3, 3] = 30, -10, 5
    return affine


def scan(*shape: int, channels: int = 4) -> Tensor:
    """Stored voxels ``(c, *s)``: smooth, on different scales, in a head around which everything is zero.

    The head keeps away from the border: where a new grid's plane lies on the old one's, MONAI interpolates 0 to 1e-12,
    which its z-score over non-zero voxels takes for foreground.
    """
    generator = torch.Generator().manual_seed(3)
    coarse = torch.randn(1, channels, *[max(n // 3, 2) for n in shape], generator=generator)
    x = torch.nn.functional.interpolate(coarse, shape, mode="trilinear", align_corners=False)[0] + 4
    x *= torch.tensor([1.0, 300.0, 20.0, 7.0])[:channels].view(-1, *[1] * len(shape))
    middle = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, n) for n in shape], indexing="ij"))
    return x * (middle.square().sum(0) < 0.5)
