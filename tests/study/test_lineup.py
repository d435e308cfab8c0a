"""The victims of a study: given, loaded or trained; what they have seen, and what they can tell."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from study.small_study import TRAINED, Glow, go, quarantine, records, small, tables, trained
from torch import Tensor, nn

from medadv.data.brats import MODALITIES
from medadv.data.phantom import phantom
from medadv.errors import ConfigError, Reason
from medadv.labels import BRATS_2018, BRATS_2023
from medadv.study.run import run, train
from medadv.victims.checkpoint import load_victim
from medadv.victims.head import Sigmoid, Softmax
from medadv.victims.segmentation import Segmenter


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("five")
    phantom(root, 5, (24, 24, 24), seed=4)
    return root


@pytest.fixture(scope="module")
def learnt(five: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study whose victim is trained."""
    return train(study(five), runs=tmp_path_factory.mktemp("runs"))


def study(root: Path, **changes: object) -> object:
    return trained(**{"data": {"importer": "brats", "root": str(root), "release": "2021"}, **changes})


def roles(folder: Path) -> dict[str, set[str]]:
    """Which cases a study uses for what."""
    stored = json.loads((folder / "split.json").read_text())["roles"]
    return {role: {case for case, its in stored.items() if its == role} for role in set(stored.values())}


def test_a_trained_victim_is_not_trained_again(five: Path, learnt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medadv.study.schooling.fit", None)
    before = (learnt / "victims" / "unet" / "weights.safetensors").read_bytes()
    assert train(study(five), runs=learnt.parent) == learnt
    assert (learnt / "victims" / "unet" / "weights.safetensors").read_bytes() == before


def test_the_same_training_elsewhere_gives_the_same_weights(five: Path, learnt: Path, tmp_path: Path) -> None:
    torch.manual_seed(8)
    again = train(study(five), runs=tmp_path)
    for name in ("weights.safetensors", "victim.json", "training.csv"):
        assert (again / "victims" / "unet" / name).read_bytes() == (learnt / "victims" / "unet" / name).read_bytes()


def test_a_victim_is_never_tested_on_what_it_has_seen(five: Path, learnt: Path, tmp_path: Path) -> None:
    """Not even by another study, with another split, that takes the weights along."""
    weights = str(learnt / "victims" / "unet")
    other = study(five, study="other", split={}, victims={"taken": {**TRAINED, "weights": weights}})
    with pytest.raises(ConfigError, match="trained on cases that it would be tested on") as caught:
        go(other, tmp_path)  # type: ignore[arg-type]
    seen = roles(learnt)["train"] | roles(learnt)["validate"]
    assert all(case in str(caught.value) for case in seen)
    assert not any(case in str(caught.value) for case in roles(learnt)["test"])


def test_weights_taken_along_are_tested_on_what_is_new(
    five: Path, learnt: Path, tmp_path: Path, no_report: None
) -> None:
    weights = str(learnt / "victims" / "unet")
    test = sorted(roles(learnt)["test"])
    other = study(five, study="other", split={"test": test}, victims={"taken": {**TRAINED, "weights": weights}})
    assert go(other, tmp_path).scored == len(test) == 3  # type: ignore[arg-type]


def test_a_given_victim_and_its_bare_network_are_the_same(
    three: Path, tmp_path: Path, finished: Path, no_report: None
) -> None:
    victim = Segmenter(Glow(), Softmax(BRATS_2018), MODALITIES)
    folder = run(small(three), victims={"glow": victim}, runs=tmp_path, tracked=False).folder
    assert tables(folder) == tables(finished)


def test_a_victim_with_other_numbers_for_the_same_tissues_has_the_same_scores(
    three: Path, tmp_path: Path, finished: Path, no_report: None
) -> None:
    """Enhancing tumour is 3 to the victim and 4 to the data."""
    victim = Segmenter(Glow(), Softmax(BRATS_2023), MODALITIES)
    folder = run(small(three), victims={"glow": victim}, runs=tmp_path, tracked=False).folder
    assert tables(folder) == tables(finished)


class Ramp(nn.Module):
    """One channel a region."""

    def __init__(self, regions: int) -> None:
        super().__init__()
        self.answer = nn.Conv3d(4, regions, 1)
        torch.manual_seed(0)
        nn.init.normal_(self.answer.weight)

    def forward(self, z: Tensor) -> Tensor:
        return self.answer(z)


def test_a_head_that_cannot_tell_is_told(three: Path, tmp_path: Path) -> None:
    victim = Segmenter(Ramp(1), Sigmoid(BRATS_2018, ("WT",)), MODALITIES)
    with pytest.raises(ConfigError, match=r"(?s)'glow' cannot tell what the study asks for.*ET"):
        run(small(three), victims={"glow": victim}, runs=tmp_path, tracked=False)


def test_what_no_head_can_tell_is_not_scored_unless_asked_for(three: Path, tmp_path: Path, no_report: None) -> None:
    victim = Segmenter(Ramp(2), Sigmoid(BRATS_2018, ("WT", "ET")), MODALITIES)
    folder = run(small(three, regions=None), victims={"glow": victim}, runs=tmp_path, tracked=False).folder
    (regions,) = {tuple(json.loads(content)["inputs"]["regions"]) for content in records(folder).values()}
    assert {"WT", "ET"} <= set(regions)
    assert "TC" not in regions


def test_a_network_of_its_own_class_is_another_victim(
    three: Path, runs: Path, no_report: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same weights under other layers are another network."""

    class Duller(Glow):
        pass

    before = records(runs / "small")
    go(small(three), runs, network=Duller())
    assert len(records(runs / "small")) == 2 * len(before)


def test_a_case_of_another_size_is_one_case(three: Path, tmp_path: Path, no_report: None) -> None:
    """A network that takes whole volumes of one size alone: the others go on."""

    class Fixed(Glow):
        def forward(self, z: Tensor) -> Tensor:
            if z.shape[2:] != (24, 24, 24):
                raise RuntimeError("Sizes of tensors must match")
            return super().forward(z)

    root = Path(shutil.copytree(three, tmp_path / "data"))
    phantom(tmp_path / "larger", 1, (26, 24, 24))
    for path in (tmp_path / "larger" / "Phantom_00000").iterdir():
        (root / "Phantom_00009").mkdir(exist_ok=True)
        shutil.copy(path, root / "Phantom_00009" / path.name.replace("00000", "00009"))
    names = sorted(case.name for case in root.iterdir())
    study = small(root, split={"test": names})
    outcome = go(study, tmp_path / "runs", network=Fixed())
    assert (outcome.scored, outcome.quarantined) == (3, 1)
    assert quarantine(outcome.folder) == {"Phantom_00009": Reason.VICTIM_FAILED}


# The split is remembered


def test_a_case_that_comes_later_moves_no_other(five: Path, tmp_path: Path, no_report: None) -> None:
    root = Path(shutil.copytree(five, tmp_path / "data"))
    moved = root / "Phantom_00002"
    shutil.move(moved, tmp_path / "aside")
    first = go(study(root), tmp_path)  # type: ignore[arg-type]
    before = roles(first.folder)
    shutil.move(tmp_path / "aside", moved)
    second = go(study(root), tmp_path)  # type: ignore[arg-type]
    after = roles(second.folder)
    assert after == {**before, "test": before["test"] | {"Phantom_00002"}}
    assert (first.scored, second.scored) == (2, 3)


def test_a_case_that_comes_back_stays_what_it_was(five: Path, tmp_path: Path, no_report: None) -> None:
    root = Path(shutil.copytree(five, tmp_path / "data"))
    before = roles(go(study(root), tmp_path).folder)  # type: ignore[arg-type]
    (learnt_from,) = before["train"]
    label = root / learnt_from / f"{learnt_from}_seg.nii.gz"
    content = label.read_bytes()
    label.unlink()
    outcome = go(study(root), tmp_path)  # type: ignore[arg-type]
    assert (outcome.scored, outcome.quarantined) == (3, 1)
    label.write_bytes(content)
    outcome = go(study(root), tmp_path)  # type: ignore[arg-type]
    assert (outcome.scored, outcome.quarantined) == (3, 0)
    assert roles(outcome.folder) == before


def test_a_number_of_test_cases_stays_that_number(five: Path, tmp_path: Path, no_report: None) -> None:
    root = Path(shutil.copytree(five, tmp_path / "data"))
    shutil.move(root / "Phantom_00002", tmp_path / "aside")
    counted = study(root, split={"train": 1, "validate": 1, "test": 1})
    assert go(counted, tmp_path).scored == 1  # type: ignore[arg-type]
    shutil.move(tmp_path / "aside", root / "Phantom_00002")
    outcome = go(counted, tmp_path)  # type: ignore[arg-type]
    assert outcome.scored == 1
    assert roles(outcome.folder)["unused"] >= {"Phantom_00002"}


def test_an_id_that_makes_no_file_name_is_told(three: Path, tmp_path: Path, no_report: None) -> None:
    root = Path(shutil.copytree(three, tmp_path / "data"))
    odd = "Mary [1]"
    (root / "Phantom_00001").rename(root / odd)
    for path in (root / odd).iterdir():
        path.rename(path.with_name(path.name.replace("Phantom_00001", odd)))
    outcome = go(small(root), tmp_path / "plain")
    assert (outcome.scored, outcome.quarantined) == (2, 1)
    assert list(quarantine(outcome.folder).values()) == [Reason.NAME]
    outcome = go(small(root, ids="pseudonyms"), tmp_path / "hidden")
    assert (outcome.scored, outcome.quarantined) == (3, 0)


def test_what_was_trained_can_be_loaded_alone(learnt: Path) -> None:
    victim = load_victim(learnt / "victims" / "unet")
    assert victim.modalities == MODALITIES
    assert not victim.network.training


def test_a_new_scan_of_a_patient_who_was_learnt_from_is_not_tested(
    five: Path, tmp_path: Path, no_report: None
) -> None:
    """Even when the scan that was learnt from is gone."""
    root = tmp_path / "data"

    def scan(source: str, patient: int, time: int) -> Path:
        name = f"BraTS-GLI-{patient:05d}-{time:03d}"
        (root / name).mkdir(parents=True)
        for ours, theirs in {"t1": "t1n", "t1ce": "t1c", "t2": "t2w", "flair": "t2f", "seg": "seg"}.items():
            shutil.copy(five / source / f"{source}_{ours}.nii.gz", root / name / f"{name}-{theirs}.nii.gz")
        return root / name

    folders = [scan(f"Phantom_{i:05d}", i, 0) for i in range(4)]
    asked = study(root, data={"importer": "brats", "root": str(root), "release": "2024"})
    first = go(asked, tmp_path)  # type: ignore[arg-type]
    (learnt_from,) = roles(first.folder)["train"]
    shutil.rmtree(next(folder for folder in folders if folder.name == learnt_from))
    later = scan("Phantom_00004", int(learnt_from.split("-")[2]), 1)
    second = go(asked, tmp_path)  # type: ignore[arg-type]
    assert later.name in roles(second.folder)["unused"]
    assert second.scored == first.scored == 2
