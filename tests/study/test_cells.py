"""The numbers of a cell, recomputed from what lies on the disk by means that are not medadv's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from attack.stand_ins import curved, normal
from monai.inferers import sliding_window_inference
from monai.metrics import DiceMetric
from monai.transforms import NormalizeIntensity
from study.small_study import Glow, contents, every_record, go, quarantine, records, small

from medadv.attack.presets import dag
from medadv.attack.relabel import Turn
from medadv.attack.victim import Passes
from medadv.data.brats import MODALITIES, brats
from medadv.data.case import Volume
from medadv.data.files import read
from medadv.errors import GradientError, Reason, RunError
from medadv.study import bench, cells
from medadv.study.conditions import Attacked, Scene, Shown
from medadv.study.records import Record

NUMBERS = {"WT": (1, 2, 4), "ET": (4,)}


def by_nibabel(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj, np.float64)


def by_sitk(path: Path) -> np.ndarray:
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))).astype(np.float64).transpose()


Reader = Callable[[Path], np.ndarray]
READERS = pytest.mark.parametrize("voxels", [by_nibabel, by_sitk])


def clean_files(root: Path, case: str) -> list[Path]:
    return [root / case / f"{case}_{modality}.nii.gz" for modality in MODALITIES]


def delivered_files(folder: Path, record: Record) -> list[Path]:
    if record.condition == "clean":
        return []
    place = folder / "volumes" / record.victim / record.condition / record.case
    return [place / f"ADVERSARIAL_{record.case}_{modality}.nii.gz" for modality in MODALITIES]


def changed(finished: Path) -> Iterator[Record]:
    """The records of what was delivered as files."""
    for record in every_record(finished):
        if record.condition != "clean":
            yield record


@READERS
def test_the_size_is_the_largest_change_between_the_files(finished: Path, three: Path, voxels: Reader) -> None:
    sizes = []
    for record in changed(finished):
        if record.size is None or record.radii is None:
            continue
        changes = {
            modality: np.abs(voxels(after) - voxels(before)).max()
            for modality, before, after in zip(
                MODALITIES, clean_files(three, record.case), delivered_files(finished, record), strict=True
            )
        }
        for modality, change in changes.items():
            assert change <= record.radii["stored"][modality], (record.condition, modality)
        assert record.size == max(change / record.radii["stored"][m] for m, change in changes.items())
        sizes.append(record.size)
    assert len(sizes) == 3 * (4 + 2 + 4)
    assert max(sizes) <= 1
    assert min(sizes) > 0.99  # the whole budget is used, but for what float32 cannot hold


@READERS
def test_what_was_zero_stays_zero_and_nothing_else_becomes_it(finished: Path, three: Path, voxels: Reader) -> None:
    for record in changed(finished):
        for before, after in zip(clean_files(three, record.case), delivered_files(finished, record), strict=True):
            assert np.array_equal(voxels(before) == 0, voxels(after) == 0)


@READERS
def test_identity_delivers_the_clean_voxels(finished: Path, three: Path, voxels: Reader) -> None:
    found = [record for record in changed(finished) if record.condition == "identity"]
    assert len(found) == 3
    for record in found:
        for before, after in zip(clean_files(three, record.case), delivered_files(finished, record), strict=True):
            assert np.array_equal(voxels(before), voxels(after))
            assert np.array_equal(nib.load(before).affine, nib.load(after).affine)


def test_identity_scores_exactly_as_clean(finished: Path) -> None:
    found = {(record.condition, record.case): record for record in every_record(finished)}
    cases = {case for _, case in found}
    for case in cases:
        assert found["identity", case].scores == found["clean", case].scores
        assert found["identity", case].fidelity == found["clean", case].fidelity


def test_the_budget_is_a_share_of_sigma_of_the_support(finished: Path, three: Path) -> None:
    for record in changed(finished):
        if record.radii is None:
            continue
        for modality, path in zip(MODALITIES, clean_files(three, record.case), strict=True):
            clean = by_nibabel(path)
            sigma = clean[clean != 0].std()
            assert record.radii["sigma"][modality] == pytest.approx(record.presented.amount, rel=1e-12)
            assert record.radii["stored"][modality] == pytest.approx(record.presented.amount * sigma, rel=1e-12)


def test_a_control_has_the_budget_of_its_attack(finished: Path) -> None:
    found = {(record.condition, record.case): record for record in every_record(finished)}
    for (condition, case), record in found.items():
        for control in (f"permuted-{condition}", condition.replace("fgsm", "noise").replace("inoise", "noise")):
            if record.presented.role == "attack":
                assert found[control, case].radii == record.radii
                assert found[control, case].presented.amount == record.presented.amount


def test_the_scores_are_those_of_the_delivered_files(finished: Path, three: Path) -> None:
    """Read, normalised, predicted and scored by MONAI and the bare network."""
    network = Glow().eval()
    normalise = NormalizeIntensity(nonzero=True, channel_wise=True)
    for record in every_record(finished):
        files = delivered_files(finished, record) or clean_files(three, record.case)
        x = normalise(np.stack([by_nibabel(path) for path in files]).astype(np.float32))
        with torch.no_grad():
            z = torch.as_tensor(np.asarray(x))[None]
            logits = sliding_window_inference(z, roi_size=(24, 24, 24), sw_batch_size=1, predictor=network)
        predicted = np.array([0, 1, 2, 4])[logits.argmax(1)[0].numpy()]
        truth = by_nibabel(three / record.case / f"{record.case}_seg.nii.gz")
        for score in (score for score in record.scores if score.metric == "dice"):
            one, other = (np.isin(labels, NUMBERS[score.region]) for labels in (predicted, truth))
            assert (score.predicted, score.truth, score.hit) == (one.sum(), other.sum(), (one & other).sum())
            dice = DiceMetric(include_background=True)(*(torch.as_tensor(m)[None, None].float() for m in (one, other)))
            assert score.value == pytest.approx(dice.item(), abs=1e-7)


def test_the_files_are_those_of_the_record(finished: Path) -> None:
    for record in changed(finished):
        files = delivered_files(finished, record)
        assert record.delivered == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
        note = json.loads((files[0].parent / "ADVERSARIAL.json").read_text())
        assert note["files"] == record.delivered
        assert note["adversarial"] is True
        for path in files:
            assert bytes(nib.load(path).header["descrip"]).startswith(b"ADVERSARIAL")


def test_attacks_are_worse_than_their_own_changes_shuffled(finished: Path) -> None:
    """Of any attack worth the name; on this network, whose gradient is honest, in every case."""
    found = {(record.condition, record.case): record.scores[0].value for record in every_record(finished)}
    for (condition, case), dice in found.items():
        if condition.startswith(("fgsm", "ifgsm")):
            assert dice < found[f"permuted-{condition}", case]
            assert dice < found["clean", case]


def test_a_result_depends_on_its_case_alone(three: Path, tmp_path: Path, finished: Path, no_report: None) -> None:
    """Another folder, another order, other cases missing: the same bytes."""
    names = sorted(path.name for path in three.iterdir())
    study = small(three, split={"test": [names[2], names[0]]}, volumes={"keep": "all"})
    folder = go(study, tmp_path).folder
    alone = contents(folder / "records") | contents(folder / "volumes")
    whole = contents(finished / "records") | contents(finished / "volumes")
    assert alone == {path: content for path, content in whole.items() if names[1] not in path}
    assert len(alone) == len(whole) * 2 // 3


def test_the_same_study_twice_is_the_same_bytes(three: Path, tmp_path: Path, finished: Path, no_report: None) -> None:
    folder = go(small(three, volumes={"keep": "all"}), tmp_path).folder
    for part in ("records", "volumes"):
        assert contents(folder / part) == contents(finished / part)
    for table in ("scores.csv", "comparisons.csv", "study.yaml", "quarantine.json"):
        assert (folder / table).read_bytes() == (finished / table).read_bytes()


# What must not happen


def test_voxels_that_leave_the_budget_on_their_way_are_never_scored(
    three: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(volume: Volume, x: torch.Tensor, *args: object, **kwargs: object) -> object:
        return write(volume, torch.where(x != 0, x + 1000, x), *args, **kwargs)

    write = cells.write
    monkeypatch.setattr(cells, "write", wrong)
    with pytest.raises(RunError, match="left its budget on the way through the file"):
        go(small(three, controls=[]), tmp_path)
    assert [record.condition for record in every_record(tmp_path / "small")] == ["clean"]


def test_a_case_that_changes_while_the_study_runs_is_no_result(
    three: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "digests_of", lambda volume: None)
    with pytest.raises(RunError, match="has changed since the study began"):
        go(small(three), tmp_path)
    assert not records(tmp_path / "small")


def test_a_case_without_a_finite_gradient_is_set_aside(
    three: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_report: None, finished: Path
) -> None:
    shown, name = Attacked.show, "Phantom_00001"
    of_name = read(brats(three / name)).x

    def broken(condition: Attacked, scene: Scene) -> Shown:
        if torch.equal(scene.x[0], of_name):
            raise GradientError("the victim's gradient is not finite")
        return shown(condition, scene)

    monkeypatch.setattr(Attacked, "show", broken)
    outcome = go(small(three, volumes={"keep": "all"}), tmp_path)
    assert (outcome.scored, outcome.quarantined) == (2, 1)
    assert quarantine(outcome.folder) == {name: Reason.GRADIENT_NOT_FINITE}
    others = {path: content for path, content in records(finished).items() if name not in path}
    assert others.items() <= records(outcome.folder).items()
    assert name not in (outcome.folder / "scores.csv").read_text()
    assert not [path for path in contents(outcome.folder / "volumes") if name in path]


def test_a_network_whose_gradient_is_zero_is_doubted_aloud(three: Path, tmp_path: Path) -> None:
    class Blind(Glow):
        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return super().forward(z.detach()) + 0 * z.sum()

    with pytest.warns(match="of the gradients are exactly zero"):
        go(small(three, attacks={"fgsm": {"preset": "fgsm"}}, controls=[]), tmp_path, network=Blind())


def test_steps_and_trace_end_when_the_attack_stands_still() -> None:
    """The host asks in the end only, and pays for what it did not know; the steps are those that moved the image."""
    victim, x = curved(), normal((1, 2, 6, 5))
    attack = dag("0.2 stored", Turn("liver", "spleen"), 9)
    found = attack(victim, x, victim.predict(x))
    effort = cells._effort(Shown(found.x, found, step_cost=Passes(1, 1)))
    assert effort is not None
    assert 0 < effort.steps < effort.backward
    assert len(effort.trace["active"]) == effort.steps + 1
    assert [number > 0 for number in effort.trace["active"]] == [True] * effort.steps + [False]
