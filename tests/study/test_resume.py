"""A run that is killed or refused by the disk at any moment: the same command finishes it, to the same bytes."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from study.processes import Moment, run_until
from study.small_study import contents, every_record, go, tables, trained

from medadv.atomic import UNFINISHED
from medadv.data.phantom import phantom
from medadv.errors import RunError
from medadv.study.spec import Study

DATED = ("declarations.jsonl", "environment.json", "timings/", "report/")
"""What may differ between two runs of one study: days and seconds."""


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study with a training, on data that lie outside its folder."""
    root = tmp_path_factory.mktemp("data")
    phantom(root, 3, (24, 24, 24))
    return trained(data={"importer": "brats", "root": str(root), "release": "2021"})


@pytest.fixture(scope="session")
def undisturbed(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study's folder after a run that nothing happened to; in a process of its own, as the others."""
    runs = tmp_path_factory.mktemp("undisturbed")
    assert run_until(study, runs, None) == 0
    return runs / study.study


def lasting(folder: Path) -> dict[str, bytes]:
    """What must be the same in every run."""
    return {path: content for path, content in contents(folder).items() if not path.startswith(DATED)}


# Kills

MOMENTS: dict[str, Moment] = {
    "mid training": ("medadv.defense.training:_Course.learn", 4),
    "mid attack": ("medadv.attack.steps:Plain.__call__", 1),
    "mid report": ("matplotlib.figure:Figure.savefig", 3),
}


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_a_killed_run_is_finished_by_the_same_command(
    study: Study, undisturbed: Path, tmp_path: Path, moment: Moment
) -> None:
    quick = "report" not in moment[0] and "figure" not in moment[0]
    assert run_until(study, tmp_path, moment, quick) == -signal.SIGKILL
    folder = tmp_path / study.study
    assert not (folder / "report" / "index.html").exists()
    assert (folder / "victims" / "unet" / "victim.json").exists() == (moment != MOMENTS["mid training"])
    assert run_until(study, tmp_path, None) == 0
    assert tables(folder) == tables(undisturbed)
    assert lasting(folder) == lasting(undisturbed)


def test_a_resumed_training_goes_on_from_its_checkpoint(study: Study, tmp_path: Path) -> None:
    """Killed at step 4 of 6, after the checkpoint at 2: what was learnt is not learnt again."""
    learn = "medadv.defense.training:_Course.learn"
    assert run_until(study, tmp_path, (learn, 4)) == -signal.SIGKILL
    assert list((tmp_path / study.study / "victims" / "unet").glob("checkpoint-*.pt"))
    assert run_until(study, tmp_path, (learn, 5)) == 0  # four steps are left, and a fifth would be killed


def test_a_kill_before_the_first_file_has_its_name_is_nothing(study: Study, undisturbed: Path, tmp_path: Path) -> None:
    assert run_until(study, tmp_path, ("os:fsync", 1)) == -signal.SIGKILL
    (left,) = (tmp_path / study.study).iterdir()
    assert left.name.startswith(UNFINISHED)
    assert run_until(study, tmp_path, None) == 0
    assert tables(tmp_path / study.study) == tables(undisturbed)


@pytest.mark.long
def test_twenty_kills(tmp_path: Path) -> None:
    """Each while some file is being written, all over the run; the folder is never worse for it."""
    phantom(tmp_path / "data", 9, (24, 24, 24))
    study = trained(data={"importer": "brats", "root": str(tmp_path / "data"), "release": "2021"})
    assert run_until(study, tmp_path / "undisturbed", None) == 0
    reference = lasting(tmp_path / "undisturbed" / study.study)
    folder = tmp_path / "runs" / study.study
    finished: list[int] = []
    for writes in random.Random(0).choices(range(9, 19), k=20):
        assert run_until(study, tmp_path / "runs", ("os:fsync", writes)) == -signal.SIGKILL
        passing = ("volumes/", "victims/unet/checkpoint-")
        found = {path: content for path, content in lasting(folder).items() if not path.startswith(passing)}
        assert found.items() <= reference.items()
        finished.append(len(every_record(folder)))
    assert finished == sorted(finished), finished
    assert len(set(finished)) > 5
    assert run_until(study, tmp_path / "runs", None) == 0
    assert lasting(folder) == reference


# A disk that refuses


class FullDisk:
    """Every place at which a file is made, flushed, named, moved or removed fails once, and never again."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.failed: Counter[tuple[str, str]] = Counter()
        patch.setattr("tempfile.mkstemp", self._mkstemp)
        patch.setattr("os.fsync", self._wrapped("flush", os.fsync, opened))
        patch.setattr(Path, "replace", self._wrapped("name", Path.replace, lambda path, target: str(target)))
        patch.setattr("shutil.rmtree", self._wrapped("remove", shutil.rmtree, str))

    def _mkstemp(self, **where: Any) -> tuple[int, str]:

        place = Path(where["dir"])
        if self.folder in (place, *place.parents):
            self._refuse("make", f"{place}/{where['suffix']}")
        return self._real_mkstemp(**where)

    _real_mkstemp = staticmethod(tempfile.mkstemp)

    def _wrapped(self, act: str, real: Callable[..., Any], place: Callable[..., str]) -> Callable[..., Any]:
        def refusing(*args: Any, **kwargs: Any) -> Any:
            where = place(*args, **kwargs)
            if where.startswith(str(self.folder)):
                self._refuse(act, where)
            return real(*args, **kwargs)

        return refusing

    def _refuse(self, act: str, where: str) -> None:
        # Temporary names are random; what they will be called is in their folder and suffix.
        head, dot, tail = where.partition(UNFINISHED)
        site = act, head + (tail.partition(".")[2] if dot else "")
        if not self.failed[site]:
            self.failed[site] += 1
            raise OSError(errno.ENOSPC, "No space left on device", where)


def opened(descriptor: int) -> str:
    """The path of an open file."""
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())


def scribbled(figure: Figure, file: Path | io.BytesIO, **settings: Any) -> None:
    """A figure at once: how it looks has its own tests."""
    if isinstance(file, Path):
        file.write_bytes(b"a figure")
    else:
        file.write(b"a figure")


@pytest.fixture
def plain_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Figure, "savefig", scribbled)
    monkeypatch.setattr(Figure, "draw_without_rendering", lambda figure: None)


def check_whole(folder: Path, undisturbed: dict[str, bytes]) -> None:
    """Under final names nothing is partial: each file is what it will be, and every record validates."""
    assert not [path for path in folder.rglob("*") if path.name.startswith(UNFINISHED)]
    for path, content in lasting(folder).items():
        if Path(path).name.startswith("checkpoint-"):
            assert set(torch.load(folder / path, weights_only=True)) >= {"network", "optimiser", "curve"}
        elif path in undisturbed:
            assert content == undisturbed[path], path
        else:  # a volume that the end of its case will prune
            assert path.startswith("volumes/"), path
    for path in folder.glob("timings/*/*/*.json"):
        assert json.loads(path.read_text())["seconds"] >= 0
    every_record(folder)


def attempts(study: Study, runs: Path) -> Iterator[RunError]:
    """The same command again and again, until it goes through."""
    while True:
        try:
            go(study, runs)
        except RunError as error:
            yield error
        else:
            return


def test_a_disk_that_refuses_any_write_costs_that_write_alone(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain_figures: None
) -> None:
    """One chain of runs, in which every write of an undisturbed run fails once: the sum is little more than one run."""
    go(study, tmp_path / "undisturbed")
    reference = lasting(tmp_path / "undisturbed" / study.study)
    folder = tmp_path / "runs" / study.study
    disk = FullDisk(folder, monkeypatch)
    for error in attempts(study, tmp_path / "runs"):
        assert error.details["try"] is not None
        assert "the disk is full" in error.problem
        check_whole(folder, reference)
    assert lasting(folder) == reference
    assert tables(folder) == tables(tmp_path / "undisturbed" / study.study)
    acts = Counter(act for act, _ in disk.failed)
    cells = len(every_record(folder))
    assert cells == 5
    files = {path for path in contents(folder) if not path.startswith("volumes/")}
    assert acts["name"] >= len(files)
    assert acts["flush"] >= 20
    assert acts["make"] >= 20
    assert acts["remove"] >= 2
    undone = [path for path in files if ("name", str(folder / path)) not in disk.failed]
    assert undone == []
