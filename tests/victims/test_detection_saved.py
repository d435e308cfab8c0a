"""A detector on disk: the same bits again, by the doors that serve segmentations."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from victims.small_detectors import LESIONS, SIZES, architecture, detector, own
from victims.small_pictures import SHAPES, picture

from medadv.attack.rng import Rng
from medadv.errors import ConfigError, VictimError
from medadv.victims.checkpoint import CARD, WEIGHTS, load_victim, save_victim, training_cases, training_patients
from medadv.victims.declared import Declared
from medadv.victims.declared_detector import DeclaredDetector
from medadv.victims.detection import Detector
from medadv.victims.detectors.build import DETECTORS, build_detector
from medadv.victims.detectors.two_stage import TwoStage
from medadv.victims.formats.opening import open_victim, segmenter
from medadv.victims.networks import Architecture
from medadv.victims.normalize import ZScore
from medadv.victims.proposals import Matching

X = picture(1, (32, 48))[0][None]
LIKE_TORCHVISION = Architecture(name="SSDLite320_MobileNet_V3_Large", arguments={"score_thresh": 0.2})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_victim(detector("RetinaNet"), architecture("RetinaNet"), tmp_path / "victim", ["f00"], ["P1"])
    return tmp_path / "victim"


@pytest.mark.parametrize("kind", SIZES)
def test_what_is_loaded_answers_the_same_bits(tmp_path: Path, kind: str) -> None:
    victim = detector(kind, seed=2)
    if kind == "FasterRCNN":
        victim = replace(victim, sight=TwoStage(None, 40), matching=Matching(0.2, 0.05))
    save_victim(victim, architecture(kind), tmp_path)
    for again in (load_victim(tmp_path), open_victim(tmp_path / WEIGHTS)):
        assert isinstance(again, Detector)
        one, two = (each.prepare(X, Rng.seeded(0, 1)) for each in (victim, again))
        assert torch.equal(one(X), two(X))
        assert torch.equal(victim.predict(X)[0].boxes, again.predict(X)[0].boxes)
        assert again.preprocessing() == victim.preprocessing()
        assert (again.sight, again.matching, again.scheme) == (victim.sight, victim.matching, victim.scheme)
        assert not any(part.training for part in again.network.modules())


def test_a_detector_of_volumes_is_saved_alike(tmp_path: Path) -> None:
    small = Architecture(name="RetinaNet3d", arguments={"width": 8, "sides": [[6], [12]], "score_thresh": 0.3})
    torch.manual_seed(0)
    victim = Detector(build_detector(small, 2, 3).eval(), LESIONS, ("t1", "t2"), ZScore())
    save_victim(victim, small, tmp_path)
    again = load_victim(tmp_path)
    x = torch.rand(1, 2, 16, 16, 16) + 1
    assert torch.equal(again(x), victim(x))
    assert again.preprocessing()["deployment"]["score"] == 0.3


def test_a_card_tells_what_the_detector_has_seen(folder: Path) -> None:
    assert training_cases(folder) == {"f00"}
    assert training_patients(folder / WEIGHTS) == {"P1"}
    assert json.loads((folder / CARD).read_text())["format"] == "medadv detector 1"


def test_damaged_weights_are_refused(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    name = next(iter(weights))
    save_file(weights | {name: weights[name] + 1e-3}, folder / WEIGHTS)
    with pytest.raises(VictimError, match="not the ones"):
        load_victim(folder)
    save_file({key: tensor for key, tensor in weights.items() if key != name}, folder / WEIGHTS)
    with pytest.raises(VictimError, match="not those of the network"):
        load_victim(folder)
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:100])
    with pytest.raises(VictimError, match="cannot be read"):
        load_victim(folder)


@pytest.mark.parametrize(
    "change", [{"sight": {"name": "seeing"}}, {"matching": {"overlap": 2}}, {"format": "medadv victim 9"}, {"odd": 1}]
)
def test_a_card_that_says_something_else_is_refused(folder: Path, change: dict[str, object]) -> None:
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps(card | change))
    with pytest.raises(VictimError, match="no victim of this version"):
        load_victim(folder)


def test_a_network_that_was_changed_after_it_was_built_is_not_saved(tmp_path: Path) -> None:
    victim = detector("RetinaNet")
    victim.network.score_thresh = 0.4
    with pytest.raises(ConfigError, match="among the arguments"):
        save_victim(victim, architecture("RetinaNet"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_detector_is_no_segmentation(folder: Path) -> None:
    with pytest.raises(ConfigError, match="a detector cannot be attacked here"):
        segmenter(open_victim(folder), "attacked")
    with pytest.raises(ConfigError, match="averaged"):
        open_victim([folder, folder])
    with pytest.raises(ConfigError, match="says that it is a detector"):
        open_victim(folder, Declared(SHAPES, modalities=("red", "green", "blue")))


def test_settings_beside_a_card_are_held_against_it(folder: Path) -> None:
    said = DeclaredDetector(SHAPES, architecture("RetinaNet"), matching=Matching(0.1, 0.0))
    assert isinstance(open_victim(folder, said), Detector)
    with pytest.raises(ConfigError, match="otherwise"):
        open_victim(folder, replace(said, matching=Matching(0.3, 0.0)))


def test_weights_of_torchvision_are_opened_as_they_are_declared(tmp_path: Path) -> None:
    torch.manual_seed(4)
    trained = build_detector(LIKE_TORCHVISION, 3, 4).eval()
    torch.save({"model": trained.state_dict()}, tmp_path / "model_25.pth")
    victim = open_victim(tmp_path / "model_25.pth", DeclaredDetector(SHAPES, LIKE_TORCHVISION))
    with torch.no_grad():
        expected = trained(list(X / 255))
    assert torch.equal(victim.predict(X)[0].scores, expected[0]["scores"])
    assert victim.preprocessing()["deployment"]["score"] == 0.2
    with pytest.raises(VictimError, match="are not those of"):
        open_victim(tmp_path / "model_25.pth", DeclaredDetector(SHAPES, architecture("RetinaNet")))


@pytest.mark.parametrize("name", [name for name in DETECTORS if "_" in name])
def test_names_of_torchvision_build_its_networks_without_asking_for_weights(name: str) -> None:
    """The network of the tests cannot be reached: a download would raise."""
    with torch.device("meta"):
        network = build_detector(Architecture(name=name, arguments={}), 3, 21)
    assert sum(parameter.numel() for parameter in network.parameters()) > 2e6


@pytest.mark.parametrize(
    ("built", "problem"),
    [
        (Architecture(name="YOLO", arguments={}), "no detector of this name"),
        (Architecture(name="FasterRCNN", arguments={"weights": "DEFAULT"}), "fresh weights"),
        (Architecture(name="FasterRCNN", arguments={"wdith": 8}), "does not know these arguments"),
        (Architecture(name="FCOS", arguments={"width": 40}), "refuses its arguments"),
    ],
)
def test_detectors_that_cannot_be_built_are_refused(built: Architecture, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        build_detector(built, 3, 4)


def test_detectors_of_torchvision_take_three_channels() -> None:
    with pytest.raises(ConfigError, match="three channels"):
        build_detector(LIKE_TORCHVISION, 1, 4)
    assert build_detector(architecture("SSD"), 1, 4)


def test_a_detector_of_ones_own_is_not_saved_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no detector of this name"):
        save_victim(own(), Architecture(name="Grid", arguments={}), tmp_path)
