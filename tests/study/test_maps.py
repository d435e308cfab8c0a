"""Given maps, from a folder to the attack that draws them: what is refused, what a key follows from, who may know."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from study.small_study import Glow, contents, every_record, first_page, go, quarantine, records, small, trained
from torch import Tensor

from medadv.attack.presets import tifgsm
from medadv.attack.relabel import Draw
from medadv.data.brats import MODALITIES, brats
from medadv.data.files import read
from medadv.errors import ConfigError, Reason, RunError
from medadv.labels import BRATS_2018
from medadv.study.attacks import Tifgsm
from medadv.study.machine import Machine
from medadv.study.plan import plan
from medadv.study.records import Record
from medadv.study.report.provenance import repetition
from medadv.study.report.threat import settings
from medadv.study.results import read_results
from medadv.study.spec import Study
from medadv.victims.head import Softmax
from medadv.victims.segmentation import Segmenter

FIRST, SECOND, THIRD = (f"Phantom_0000{i}" for i in range(3))
DRAW = "draw-0.3-sigma"

pytestmark = pytest.mark.usefixtures("no_report")


def label(root: Path, case: str) -> nib.Nifti1Image:
    return nib.load(root / case / f"{case}_seg.nii.gz")


def give(folder: Path, root: Path, *cases: str, change: Callable[[np.ndarray], np.ndarray] = np.flipud) -> Path:
    """A folder of maps, made from the experts'."""
    folder.mkdir(exist_ok=True)
    for case in cases:
        expert = label(root, case)
        wanted = np.ascontiguousarray(change(np.asarray(expert.dataobj))).astype(np.uint8)
        nib.save(nib.Nifti1Image(wanted, expert.affine), folder / f"{case}.nii.gz")
    return folder


def study(root: Path, folder: Path, *cases: str, **changes: Any) -> Study:
    goal = {"draw": str(folder), "where": changes.pop("where", "changed")}
    content: dict[str, Any] = {
        "split": {"test": list(cases or (FIRST,))},
        "attacks": {"draw": {"preset": "tifgsm", "steps": 2, "goal": goal}, "fgsm": {"preset": "fgsm"}},
        "budgets": ["0.3 sigma"],
        "controls": ["permuted"],
        "volumes": {"keep": "all"},
    }
    return small(root, **(content | changes))


def by_condition(folder: Path) -> dict[str, Record]:
    return {record.condition: record for record in every_record(folder)}


@pytest.mark.parametrize("where", ["changed", "everywhere", "WT"])
def test_a_study_draws_what_python_draws(three: Path, tmp_path: Path, where: str) -> None:
    maps = give(tmp_path / "maps", three, FIRST)
    folder = go(study(three, maps, where=where, controls=[]), tmp_path).folder
    volume = read(brats(three / FIRST))
    wanted = torch.from_numpy(np.asarray(nib.load(maps / f"{FIRST}.nii.gz").dataobj).astype(np.int64))
    victim = Segmenter(Glow(), Softmax(BRATS_2018), MODALITIES)
    assert volume.truth is not None
    found = tifgsm("0.3 sigma", Draw(wanted[None], where), 2)(victim, volume.x[None], volume.truth[None])
    place = folder / "volumes" / "glow" / DRAW / FIRST
    for modality, expected in zip(MODALITIES, found.x[0], strict=True):
        (file,) = place.glob(f"*_{modality}.nii.gz")
        assert torch.equal(torch.from_numpy(nib.load(file).get_fdata(dtype=np.float32)), expected), modality
    assert not torch.equal(found.x, volume.x[None])


def test_the_title_and_the_settings_tell_no_folder() -> None:
    spec = Tifgsm(preset="tifgsm", goal={"draw": "/home/jdoe/maps", "where": "WT"})
    assert spec.title == "ti-FGSM, draw given maps in WT, 10 steps"
    assert spec.settings()["goal"] == {"draw": "given maps", "where": "WT"}
    assert spec.names == ("WT",)


@pytest.mark.parametrize("goal", [{"draw": ""}, {"draw": "maps", "into": "ET"}, {"draw": ["maps"]}])
def test_a_drawing_that_cannot_be_meant_is_told(goal: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        small(Path("data"), attacks={"a": {"preset": "tifgsm", "goal": goal}})


# Keys


def test_the_key_follows_the_map_and_not_its_file(three: Path, tmp_path: Path) -> None:
    """In what is drawn, and in its control; in nothing else."""
    maps = give(tmp_path / "maps", three, FIRST)
    folder = go(study(three, maps), tmp_path / "runs").folder
    before, files = by_condition(folder), records(folder)
    assert {name for name, record in before.items() if "given_map" in record.inputs} == {DRAW, f"permuted-{DRAW}"}

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    nib.save(nib.load(maps / f"{FIRST}.nii.gz"), elsewhere / f"{FIRST}.nii")
    go(study(three, elsewhere), tmp_path / "runs")
    assert records(folder) == files

    give(maps, three, FIRST, change=np.fliplr)
    go(study(three, maps), tmp_path / "runs")
    added = [path for path in records(folder) if path not in files]
    assert sorted(path.split("/")[1] for path in added) == [DRAW, f"permuted-{DRAW}"]


def test_a_run_that_is_resumed_asks_the_victim_nothing(three: Path, tmp_path: Path) -> None:
    asked = study(three, give(tmp_path / "maps", three, FIRST))
    folder = go(asked, tmp_path / "runs").folder

    class Silent(Glow):
        def forward(self, z: Tensor) -> Tensor:
            raise AssertionError("asked again")

    before = contents(folder / "volumes")
    Silent.__name__ = Silent.__qualname__ = "Glow"  # by its name and layers, the same victim
    assert go(asked, tmp_path / "runs", network=Silent()).scored == 1
    assert contents(folder / "volumes") == before


def test_a_map_that_is_written_anew_during_the_run_is_told(three: Path, tmp_path: Path) -> None:
    maps = give(tmp_path / "maps", three, FIRST)

    class Writing(Glow):
        def forward(self, z: Tensor) -> Tensor:
            give(maps, three, FIRST, change=np.fliplr)
            return super().forward(z)

    with pytest.raises(RunError, match="the given map of Phantom_00000 has changed"):
        go(study(three, maps), tmp_path / "runs", network=Writing())


# Bad input


def moved(path: Path) -> None:
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine + np.diag([0, 0, 0.5, 0])), path)


def strange(path: Path) -> None:
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.full(image.shape, 3, np.uint8), image.affine), path)


BAD: dict[str, tuple[Callable[[Path], object], Reason]] = {
    "no map": (Path.unlink, Reason.GIVEN_MAP),
    "two maps": (lambda path: shutil.copy(path, path.with_suffix("")), Reason.GIVEN_MAP),
    "half a file": (lambda path: path.write_bytes(path.read_bytes()[:100]), Reason.UNREADABLE),
    "another grid": (moved, Reason.LABEL_GRID),
    "numbers of another scheme": (strange, Reason.LABEL_OUTSIDE_SCHEME),
}


@pytest.fixture(scope="module")
def without_it(three: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The records of the other cases, run alone."""
    folder = tmp_path_factory.mktemp("without")
    maps = give(folder / "maps", three, FIRST, THIRD)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("medadv.study.run.build", first_page)
        return records(go(study(three, maps, FIRST, THIRD, controls=[]), folder).folder)


@pytest.mark.parametrize(("spoil", "reason"), BAD.values(), ids=BAD)
def test_a_bad_map_costs_its_case(
    three: Path, tmp_path: Path, without_it: dict[str, bytes], spoil: Callable[[Path], object], reason: Reason
) -> None:
    maps = give(tmp_path / "maps", three, FIRST, SECOND, THIRD)
    spoil(maps / f"{SECOND}.nii.gz")
    outcome = go(study(three, maps, FIRST, SECOND, THIRD, controls=[]), tmp_path)
    assert (outcome.scored, outcome.quarantined) == (2, 1)
    assert quarantine(outcome.folder) == {SECOND: reason}
    assert "given map" in (outcome.folder / "quarantine.json").read_text()
    assert records(outcome.folder) == without_it


def test_maps_for_none_of_the_cases_are_refused(three: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no case has a map"):
        go(study(three, give(tmp_path / "maps", three, SECOND)), tmp_path)


def test_a_folder_that_does_not_exist_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    goal = {"draw": str(tmp_path / "nowhere")}
    asked = trained(attacks={"draw": {"preset": "tifgsm", "goal": goal}})
    assert plan(asked, Machine("cpu"), tmp_path / "runs", timed=False).cells > 0  # a plan needs no maps
    with pytest.raises(ConfigError, match="no such folder of given maps"):
        go(asked, tmp_path / "runs")
    assert not (tmp_path / "runs" / "trained" / "victims").exists()


def test_only_cases_that_are_attacked_need_maps(three: Path, tmp_path: Path) -> None:
    asked = study(three, give(tmp_path / "maps", three, THIRD), split={"train": [FIRST, SECOND], "test": [THIRD]})
    outcome = go(asked, tmp_path)
    assert (outcome.scored, outcome.quarantined) == (1, 0)


# Privacy


def test_neither_ids_nor_the_folder_are_in_any_file_of_a_run(three: Path, tmp_path: Path) -> None:
    maps = give(tmp_path / "of-jane-doe", three, FIRST, SECOND)
    strange(maps / f"{SECOND}.nii.gz")
    asked = study(three, maps, FIRST, SECOND, THIRD, ids="pseudonyms")
    outcome = go(asked, tmp_path / "runs")
    assert (outcome.scored, outcome.quarantined) == (1, 2)
    found = contents(outcome.folder)
    del found["ids.local.json"]
    for path, content in found.items():
        for word in ("Phantom", "jane-doe"):
            assert word not in path
            assert word.encode() not in content, path


@pytest.mark.parametrize(("ids", "told"), [("as-is", "…/maps"), ("pseudonyms", "private")])
def test_a_report_names_no_folder_above_the_maps(run_folder: Path, tmp_path: Path, ids: str, told: str) -> None:
    folder = tmp_path / "phantom"
    shutil.copytree(run_folder, folder, ignore=shutil.ignore_patterns("report", "volumes"))
    content = yaml.safe_load((folder / "study.yaml").read_text())
    place = "private" if ids == "pseudonyms" else "/home/jdoe/maps"
    content |= {"ids": ids, "attacks": {"drawn": {"preset": "tifgsm", "goal": {"draw": place, "where": "WT"}}}}
    (folder / "study.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    results = read_results(folder)
    assert dict(settings(results))["drawn"] == f"preset: tifgsm, goal: draw: {told}, where: WT"
    whole = "with the study.yaml that lies in the run" in repetition(results).notes[0]
    assert whole == (ids == "as-is")
