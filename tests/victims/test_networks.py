"""Networks by name: each is built from literals, answers one map on its own grid, and lets a gradient through."""

from __future__ import annotations

from typing import Any

import monai.networks.nets as nets
import pytest
import torch
import torchvision.models.segmentation as pictured

from medadv.errors import ConfigError
from medadv.victims.networks import NETWORKS, USUAL, Architecture, build_network

UNET = {"spatial_dims": 2, "channels": [4, 8], "strides": [2]}
SMALL: dict[str, dict[str, Any]] = {
    "AttentionUnet": UNET,
    "BasicUNet": {"spatial_dims": 2, "features": [4] * 6},
    "BasicUNetPlusPlus": {"spatial_dims": 2, "features": [4] * 6, "deep_supervision": True},
    "DynUNet": {
        "spatial_dims": 2,
        "kernel_size": [3, 3, 3],
        "strides": [1, 2, 2],
        "upsample_kernel_size": [2, 2],
        "filters": [4, 8, 8],
        "deep_supervision": True,
    },
    "FlexibleUNet": {"backbone": "efficientnet-b0", "decoder_channels": [8, 8, 8, 4, 4]},
    "HighResNet": {
        "spatial_dims": 2,
        "layer_params": [
            {"name": "conv_0", "n_features": 4, "kernel_size": 3},
            {"name": "res_1", "n_features": 4, "kernels": [3, 3], "repeat": 1},
            {"name": "conv_1", "n_features": 8, "kernel_size": 1},
            {"name": "conv_2", "kernel_size": 1},
        ],
    },
    "MedNeXt": {
        "spatial_dims": 2,
        "init_filters": 4,
        "kernel_size": 3,
        "blocks_down": [1, 1, 1, 1],
        "blocks_bottleneck": 1,
        "blocks_up": [1, 1, 1, 1],
        "deep_supervision": True,
    },
    "SegResNet": {"spatial_dims": 2, "init_filters": 8},
    "SegResNetDS": {"spatial_dims": 2, "init_filters": 4, "blocks_down": [1, 1, 1], "dsdepth": 2},
    "SegResNetVAE": {"spatial_dims": 2, "input_image_size": [64, 64], "vae_nz": 4},
    "SwinUNETR": {
        "spatial_dims": 2,
        "feature_size": 12,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 1, 1, 1],
        "window_size": 2,
    },
    "UNETR": {
        "spatial_dims": 2,
        "img_size": [64, 64],
        "feature_size": 4,
        "hidden_size": 12,
        "mlp_dim": 8,
        "num_heads": 2,
    },
    "UNet": UNET,
    "VNet": {"spatial_dims": 2, "dropout_dim": 2},
}
PICTURED = {
    "DeepLabV3_MobileNetV3": pictured.deeplabv3_mobilenet_v3_large,
    "DeepLabV3_ResNet101": pictured.deeplabv3_resnet101,
    "DeepLabV3_ResNet50": pictured.deeplabv3_resnet50,
    "FCN_ResNet101": pictured.fcn_resnet101,
    "FCN_ResNet50": pictured.fcn_resnet50,
    "LRASPP_MobileNetV3": pictured.lraspp_mobilenet_v3_large,
}
SEVERAL = {"BasicUNetPlusPlus": -1, "DynUNet": 0, "MedNeXt": 0, "SegResNetDS": 0, "SegResNetVAE": 0}


def built(name: str, **arguments: object) -> torch.nn.Module:
    return build_network(Architecture(name=name, arguments=SMALL.get(name, {}) | arguments), channels(name), 3)


def channels(name: str) -> int:
    return 3 if name in PICTURED else 2


@pytest.mark.parametrize("name", NETWORKS)
def test_each_answers_one_map_on_its_grid_with_a_gradient(name: str) -> None:
    network = built(name).eval()
    x = torch.randn(1, channels(name), 64, 64, requires_grad=True)
    answer = network(x)
    assert answer.shape == (1, 3, 64, 64)
    (gradient,) = torch.autograd.grad(answer.square().sum(), x)
    assert gradient.isfinite().all()
    assert (gradient != 0).any(1).any()


@pytest.mark.parametrize("name", SEVERAL)
def test_of_several_answers_it_is_the_deployed_one(name: str) -> None:
    """MONAI's own class with the same weights: its answer, or the one of its list that is on the full grid."""
    torch.manual_seed(1)
    network = built(name)
    own = getattr(nets, name)(in_channels=2, out_channels=3, **SMALL[name])
    own.load_state_dict(network.state_dict())
    assert list(own.state_dict()) == list(network.state_dict())
    x = torch.randn(2, 2, 64, 64)
    expected = own.eval()(x)
    expected = expected if isinstance(expected, torch.Tensor) else expected[SEVERAL[name]]
    assert torch.equal(network.eval()(x), expected)
    assert network.train()(x).shape == (2, 3, 64, 64)


@pytest.mark.parametrize(
    ("name", "former", "today"),
    [
        ("SwinUNETR", {"img_size": [64, 64]}, {}),
        ("UNETR", {"pos_embed": "conv"}, {"proj_type": "conv"}),
        ("UNet", {"dimensions": 2}, {"spatial_dims": 2}),
    ],
)
def test_former_arguments_build_the_same_network(name: str, former: dict[str, Any], today: dict[str, Any]) -> None:
    base = {key: value for key, value in SMALL[name].items() if key not in today}
    old, new = (build_network(Architecture(name=name, arguments=base | more), 2, 3) for more in (former, today))
    assert repr(old) == repr(new)
    assert {k: v.shape for k, v in old.state_dict().items()} == {k: v.shape for k, v in new.state_dict().items()}


def test_an_argument_under_both_of_its_names_is_refused() -> None:
    with pytest.raises(ConfigError, match="under its old name and its new one"):
        built("UNet", dimensions=3)


def test_nothing_is_downloaded() -> None:
    with pytest.raises(ConfigError, match="would download weights"):
        built("FlexibleUNet", pretrained=True)
    for argument in ("weights", "weights_backbone", "pretrained"):
        with pytest.raises(ConfigError, match="does not know these arguments"):
            built("FCN_ResNet50", **{argument: "DEFAULT"})


def test_every_network_is_built_here() -> None:
    assert set(NETWORKS) == set(SMALL) | set(PICTURED)


@pytest.mark.parametrize("name", PICTURED)
def test_networks_of_pictures_are_torchvisions_own(name: str) -> None:
    """The same keys, so that a file of weights fits; with these the bare network's logits."""
    torch.manual_seed(2)
    network = built(name).eval()
    bare = PICTURED[name](weights=None, weights_backbone=None, num_classes=3).eval()
    assert list(network.state_dict()) == list(bare.state_dict())
    bare.load_state_dict(network.state_dict())
    x = torch.randn(1, 3, 40, 56)
    with torch.no_grad():
        assert torch.equal(network(x), bare(x)["out"])


def test_the_auxiliary_classifier_of_published_weights_has_its_place() -> None:
    network = built("FCN_ResNet50", aux_loss=True)
    bare = pictured.fcn_resnet50(weights=None, weights_backbone=None, num_classes=3, aux_loss=True)
    assert list(network.state_dict()) == list(bare.state_dict())
    with pytest.raises(ConfigError, match="auxiliary loss"):
        built("LRASPP_MobileNetV3", aux_loss=True)


def test_networks_of_pictures_take_three_channels() -> None:
    with pytest.raises(ConfigError, match="3 channels, not of 4"):
        build_network(Architecture(name="LRASPP_MobileNetV3"), 4, 3)


def test_a_unet_alone_has_arguments_of_which_nothing_is_said() -> None:
    assert Architecture().arguments == Architecture(name="UNet").arguments == USUAL
    assert Architecture(name="FCN_ResNet50").arguments == {}
    with pytest.raises(ValueError, match="name"):
        Architecture(name=3)  # type: ignore[arg-type]
