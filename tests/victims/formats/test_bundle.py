"""A MONAI bundle becomes a victim: its answers are MONAI's own, and its gradient is that of the way it is deployed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from victims.formats.written_bundle import (
    INPUTS,
    REGIONS,
    TISSUES,
    brats,
    by_monai,
    described,
    oblique,
    of_tissues,
    scan,
    write,
)

from medadv.attack.rng import Rng
from medadv.errors import ConfigError, VictimError
from medadv.labels import BRATS_2018, BRATS_2023, BRATS_2024, LabelScheme
from medadv.victims.declared import Declared
from medadv.victims.formats.bundle import format as bundle
from medadv.victims.head import Sigmoid, Softmax
from medadv.victims.networks import Architecture
from medadv.victims.normalize import ZScore
from medadv.victims.segmentation import Segmenter, weights_digest
from medadv.victims.spatial import Orientation
from medadv.victims.window import SlidingWindow, WholeVolume

Change = Callable[[dict[str, Any]], None]


def steps(config: dict[str, Any], section: str) -> list[dict[str, Any]]:
    return config[section]["transforms"]


# The same answers as MONAI's


def with_nearest(config: dict[str, Any]) -> None:
    steps(config, "postprocessing")[1]["nearest_interp"] = True


def decided_first(config: dict[str, Any]) -> None:
    activation, inversion, decision, saving = steps(config, "postprocessing")
    config["postprocessing"]["transforms"] = [activation, decision, inversion, saving]
    inversion["nearest_interp"] = True


def without_activation(config: dict[str, Any]) -> None:
    del steps(config, "postprocessing")[0]


def cropped(config: dict[str, Any]) -> None:
    """Without margin: beside the first plane, MONAI goes back with a share of 1e-17, and its argmax takes that."""
    crop = {"_target_": "CropForegroundd", "keys": ["image"], "source_key": "image", "margin": [0, 0, 0]}
    steps(config, "preprocessing").insert(4, crop)
    steps(config, "preprocessing").append({"_target_": "DivisiblePadd", "keys": "image", "k": 4})


def in_windows(config: dict[str, Any]) -> None:
    config["inferer"] |= {"roi_size": [16, -1, 8], "overlap": 0.625, "mode": "gaussian", "sigma_scale": 0.2}
    config["inferer"]["sw_batch_size"] = 3


def padded(config: dict[str, Any]) -> None:
    steps(config, "preprocessing").append({"_target_": "DivisiblePadd", "keys": "image", "k": 2, "method": "end"})


def whole(config: dict[str, Any]) -> None:
    config["inferer"] = {"_target_": "SimpleInferer"}


def by_regions(config: dict[str, Any]) -> None:
    for key in ("network_def", "postprocessing"):
        config[key] = brats()[key]


def jointly(config: dict[str, Any]) -> None:
    config["preprocessing"]["transforms"] = [
        {"_target_": "LoadImaged", "keys": "image", "reader": "ITKReader"},
        {"_target_": "ScaleIntensityd", "keys": "image", "minv": -1.0, "maxv": 1.0},
        {"_target_": "NormalizeIntensityd", "keys": "image"},
    ]


def ranged(config: dict[str, Any]) -> None:
    config["preprocessing"]["transforms"] = [
        {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": -57, "a_max": 1640, "b_min": 0, "b_max": 1,
         "clip": True},
        {"_target_": "ScaleIntensityRangePercentilesd", "keys": "image", "lower": 1, "upper": 99, "b_min": 0,
         "b_max": 1, "channel_wise": True},
        {"_target_": "NormalizeIntensityd", "keys": "image", "subtrahend": 0.2, "divisor": 0.5},
        {"_target_": "SpatialPadd", "keys": "image", "spatial_size": [28, -1, 28]},
        {"_target_": "CenterSpatialCropd", "keys": "image", "roi_size": [24, 16, 28]},
    ]  # fmt: skip


PIPELINES: dict[str, tuple[Change, ...]] = {
    "probabilities go back": (),
    "nearest neighbours go back": (with_nearest,),
    "decided labels go back": (decided_first,),
    "logits go back": (without_activation,),
    "cropped and padded": (cropped,),
    "logits, cropped and padded": (without_activation, cropped),
    "nearest neighbours, cropped and padded": (with_nearest, cropped),
    "regions": (by_regions,),
    "regions, cropped and padded": (by_regions, cropped),
    "weighted windows": (padded, in_windows),
    "whole volume": (padded, whole),
    "all modalities together": (jointly,),
    "ranges and sizes": (ranged,),
}


def written(root: Path, *changes: Change) -> Path:
    config = of_tissues(grid=True)
    for change in changes:
        change(config)
    return write(root, config, described(outputs=REGIONS if by_regions in changes else TISSUES))


@pytest.mark.parametrize("trust", [False, True], ids=["data", "trusted"])
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_both_ways_agree_with_monai(tmp_path: Path, pipeline: str, trust: bool) -> None:
    root = written(tmp_path, *PIPELINES[pipeline])
    x, affine = scan(16, 15, 18), oblique()
    victim = bundle.load(root, None, trust).at(affine)
    expected = by_monai(root, x, affine)[0].long()
    assert (torch.bincount(expected.flatten()) > 20).sum() >= 3, "a test image that asks for nothing"
    assert torch.equal(victim.predict(x[None])[0], expected)
    assert victim.agreement(x[None]) >= 0.999


@pytest.mark.parametrize("trust", [False, True], ids=["data", "trusted"])
def test_the_model_zoos_brats_bundle_is_read(tmp_path: Path, trust: bool) -> None:
    """Without affine, since nothing has to know where voxels lie; painted by the bundle's own lambda."""
    root, x = write(tmp_path, brats()), scan(16, 12, 18)
    victim = bundle.load(root, None, trust)
    assert victim.modalities == ("t1ce", "t1", "t2", "flair")
    assert victim.head == Sigmoid(LabelScheme("bundle", BRATS_2018.numbers, BRATS_2018.regions), ("TC", "WT", "ET"))
    assert victim.steps == (ZScore(),)
    assert victim.inference == SlidingWindow((12, 12, 16), overlap=0.5, blend="constant")
    assert not victim.network.training
    assert torch.equal(victim.predict(x[None])[0], by_monai(root, x, np.eye(4))[0].long())
    assert victim.agreement(x[None]) == 1.0


def test_weights_may_be_safetensors(tmp_path: Path) -> None:
    root = write(tmp_path, brats())
    before = bundle.load(root, None, trust=False)
    save_file(torch.load(root / "models" / "model.pt"), root / "models" / "model.safetensors")
    (root / "models" / "model.pt").unlink()
    assert weights_digest(bundle.load(root, None, trust=False).network) == weights_digest(before.network)


def test_a_yaml_configuration_is_read_alike(tmp_path: Path) -> None:
    import yaml

    root = write(tmp_path, brats())
    before = bundle.load(root, None, trust=False)
    (root / "configs" / "inference.json").unlink()
    (root / "configs" / "inference.yaml").write_text(yaml.safe_dump(brats()))
    assert bundle.load(root, None, trust=False).preprocessing() == before.preprocessing()


def test_references_to_literals_are_followed(tmp_path: Path) -> None:
    config = brats() | {"shown": {"overlap": 0.25, "batch": 2}, "key": "image", "roi": [8, 8, 8], "own_roi": "@roi"}
    config["inferer"] |= {"overlap": "@shown#overlap", "sw_batch_size": "@shown::batch", "roi_size": "@own_roi"}
    steps(config, "preprocessing")[1]["keys"] = "@key"
    victim = bundle.load(write(tmp_path, config), None, trust=False)
    assert victim.inference == SlidingWindow((8, 8, 8), overlap=0.25, blend="constant", batch=2)


# The gradient


@pytest.mark.parametrize("changes", [(), (by_regions,), (with_nearest,)], ids=["softmax", "sigmoid", "nearest"])
def test_the_gradient_is_that_of_the_deployed_way(tmp_path: Path, changes: tuple[Change, ...]) -> None:
    """From stored voxels through the grids, the windows and the way back as probabilities: finite differences."""
    victim = double(bundle.load(written(tmp_path, *changes), None, trust=False).at(oblique()))
    x = scan(9, 8, 10)[None].double()
    victim = victim.prepare(x, Rng.seeded(0, 1))
    weight = torch.linspace(-1, 2, victim(x).numel(), dtype=x.dtype).view_as(victim(x))

    def loss(image: torch.Tensor) -> torch.Tensor:
        return (weight * victim(image).tanh()).sum()

    leaf = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(leaf), leaf)
    inside = (x != 0).nonzero()
    for place in inside[torch.randperm(len(inside))[:6]]:
        h = 1e-6 * x[tuple(place)].abs().item()
        moved = torch.zeros_like(x)
        moved[tuple(place)] = h
        slope = (loss(x + moved) - loss(x - moved)).item() / (2 * h)
        assert found[tuple(place)].item() == pytest.approx(slope, rel=1e-4, abs=1e-7)


def double(victim: Segmenter) -> Segmenter:
    victim.network.double()
    return victim


def test_answers_that_are_sure_keep_a_gradient(tmp_path: Path) -> None:
    """Probabilities of 1 in single precision are logits that still differ, and can be moved."""
    victim = bundle.load(written(tmp_path), None, trust=False).at(oblique())
    with torch.no_grad():
        list(victim.network.parameters())[-1].add_(torch.tensor([60.0, 0, 0, 0]))
    leaf = scan(9, 8, 10)[None].requires_grad_()
    logits = victim(leaf)
    margin = (logits[:, 0] - logits[:, 1]).clamp(min=0)
    assert margin.mean() > 30
    (found,) = torch.autograd.grad(margin.sum(), leaf)
    assert (found != 0).double().mean() > 0.2
    assert torch.isfinite(found).all()


# Labels


def declared(scheme: LabelScheme = BRATS_2018, **settings: Any) -> Declared:
    return Declared(scheme, ("t1ce", "t1", "t2", "flair"), **settings)


@pytest.mark.parametrize("trust", [False, True], ids=["data", "trusted"])
def test_answers_are_told_in_the_datas_numbers(tmp_path: Path, trust: bool) -> None:
    """What the bundle paints 4 is enhancing tumour, which is 3 from 2023 on."""
    root, x = write(tmp_path, brats()), scan(16, 12, 18)[None]
    victim = bundle.load(root, declared(BRATS_2023), trust)
    assert victim.head == Sigmoid(BRATS_2023, ("TC", "WT", "ET"))
    own = bundle.load(root, None, trust)
    assert torch.equal(victim.predict(x), own.head.scheme.translate(own.predict(x), BRATS_2023))


def test_classes_in_another_order_keep_their_names(tmp_path: Path) -> None:
    """oedema is the bundle's channel 1, and number 2 of the data."""
    root, x = write(tmp_path, of_tissues(), described(outputs=TISSUES)), scan(16, 12, 18)[None]
    victim = bundle.load(root, declared(), trust=False)
    assert victim.head.scheme.numbers == {"background": 0, "oedema": 1, "necrosis": 2, "enhancing": 3}
    assert victim.head.scheme.regions == BRATS_2018.regions
    told = victim.head.scheme.translate(victim.predict(x), BRATS_2018)
    classes = by_monai(root, x[0], np.eye(4))[0].long()
    assert torch.equal(told[0], torch.tensor([0, 2, 1, 4])[classes])
    in_order = described(outputs=(TISSUES[0], TISSUES[2], TISSUES[1], TISSUES[3]))
    (root / "configs" / "metadata.json").write_text(json.dumps(in_order))
    assert bundle.load(root, declared(), trust=False).head == Softmax(BRATS_2018)


def test_the_users_words_translate_the_bundles(tmp_path: Path) -> None:
    metadata = described(("post", *INPUTS[1:]), ("air", "swelling", *TISSUES[2:]))
    root = write(tmp_path, of_tissues(), metadata)
    words = {"post": "t1ce", "air": "background", "swelling": "oedema"}
    victim = bundle.load(root, declared(names=words), trust=False)
    assert victim.modalities == ("t1ce", "t1", "t2", "flair")
    assert set(victim.head.scheme.numbers) == set(BRATS_2018.numbers)
    with pytest.raises(ConfigError, match="other tissues") as refusal:
        bundle.load(root, declared(names={"air": "background"}), trust=False)
    assert "victims.<name>.names" in refusal.value.details["try"]


def test_data_that_the_bundle_was_not_made_for_are_refused(tmp_path: Path) -> None:
    victim = bundle.load(write(tmp_path, of_tissues(), described(outputs=TISSUES)), None, trust=False)
    four = ("t1", "t1ce", "t2", "flair")
    with pytest.raises(ConfigError, match="modalities that the data do not have"):
        victim.reading(("t1", "t2", "flair", "pd"))
    with pytest.raises(ConfigError, match="other modalities, or for another order"):
        victim.check_fit(four, BRATS_2018)
    with pytest.raises(ConfigError, match="other tissues than the data"):
        victim.reading(four).check_fit(four, BRATS_2024)
    victim.reading(four).check_fit(four, BRATS_2018)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("modalities", {"modalities": ("t1", "t1ce", "t2", "flair")}),
        ("head", {"head": "softmax"}),
        ("regions", {"regions": ("WT", "TC", "ET")}),
        ("normalise", {"normalise": ZScore(nonzero=False)}),
        ("spatial", {"spatial": (Orientation("RAS"),)}),
        ("network", {"network": Architecture()}),
        ("inference", {"inference": WholeVolume()}),
    ],
)
def test_a_setting_that_the_bundle_says_otherwise_is_refused(
    tmp_path: Path, setting: str, said: dict[str, Any]
) -> None:
    root = write(tmp_path, brats())
    agreed = {"head": "sigmoid", "modalities": ("t1ce", "t1", "t2", "flair"), "regions": ("TC", "WT", "ET")}
    bundle.load(root, Declared(BRATS_2018, **agreed), trust=False)
    with pytest.raises(ConfigError, match="says otherwise") as refusal:
        bundle.load(root, Declared(BRATS_2018, **agreed | said), trust=False)
    assert list(refusal.value.details["got"]) == [setting]


# Identity


def test_what_could_change_an_answer_is_in_the_record(tmp_path: Path) -> None:
    def identity(name: str, config: dict[str, Any]) -> str:
        return json.dumps(bundle.load(write(tmp_path / name, config), None, trust=False).preprocessing())

    first = identity("first", brats())
    assert "workspace" not in first
    assert str(tmp_path) not in first
    moved = brats() | {"dataset_dir": "/elsewhere"}
    assert identity("moved", moved) == first
    config = brats()
    steps(config, "postprocessing").insert(3, {"_target_": "FillHolesd", "keys": "pred"})
    assert identity("filled", config) != first


def test_a_place_that_nobody_has_told_is_asked_for(tmp_path: Path) -> None:
    victim = bundle.load(written(tmp_path), None, trust=False)
    for answer in (victim.predict, victim):
        with pytest.raises(VictimError) as refusal:
            answer(scan(9, 8, 10)[None])
        assert "victim.at(volume.affine)" in refusal.value.details["try"]


def test_the_how_to_does_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Through the one door, on files, with modalities in the data's order: the bundle's own comes first in T1ce."""
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "monai-bundle.md").read_text()
    names: dict[str, Any] = {}
    exec(page.split("```python\n")[1].split("```")[0], names)
    config = brats()
    config["inferer"]["roi_size"] = [24, 24, 24]
    names["ma"].phantom(tmp_path / "data", cases=1, shape=(24, 24, 24))
    case = names["ma"].brats(tmp_path / "data" / "Phantom_00000", release="2021")
    adversarial = names["open_bundle"](write(tmp_path / "bundle", config), case)
    assert float(capsys.readouterr().out) >= 0.999
    assert adversarial.x.shape[1] == len(case.modalities)
    assert 0 < adversarial.size.item() <= 1 + 1e-6
