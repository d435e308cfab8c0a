"""``export``: what a run delivered, as a data set under blind names that somebody else's model can predict.

Clean scans, controls and attacks are written anew in one way and one order that tells nothing. Which is which stands in
the key, which stays in the run's folder.
"""

from __future__ import annotations

import random
import secrets
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Shaped
from pydantic import BaseModel, ConfigDict, ValidationError

from medadv.atomic import UNFINISHED, write_atomically, writing
from medadv.data.case import Case, Volume
from medadv.data.files import MARK, read, written
from medadv.data.layout import ENDING, Layout, layout_of
from medadv.data.nifti import packed
from medadv.errors import ConfigError, RunError
from medadv.study.cohort import Parts, gather
from medadv.study.folder import RunFolder
from medadv.study.inputs import Digests, digests_of, read_labelled
from medadv.study.load import load_study
from medadv.study.names import Names
from medadv.study.progress import Silent, Watch
from medadv.study.records import Record, file_digest, planned_cells, present_records, record_path
from medadv.study.sources import BratsData
from medadv.study.spec import Study

SCHEMA = 1
KEYS = "exports"
"""The folder of a run that keeps the keys of its exports."""

DESCRIPTION = f"{MARK} test set; may be altered, not a scan to be read; made by medadv"


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Exported(_Row):
    """What an id stands for.

    Attributes:
        victim, condition, case, key: the cell whose delivered file it is, and the key of its record.
        files: file below the exported folder → its SHA-256.
    """

    victim: str
    condition: str
    case: str
    key: str
    files: dict[str, str]


class ExportKey(_Row):
    """Which id is which: for the owner of the run alone.

    Attributes:
        study: the study's name.
        layout: as it was asked for.
        seed: of the order of the ids.
        labels: tissue → number that returned label maps are taken to have.
        ids: id → what it stands for.
    """

    schema_version: int = SCHEMA
    study: str
    layout: str
    seed: int
    labels: dict[str, int]
    ids: dict[str, Exported]


@dataclass(frozen=True)
class Opened:
    """A study that was run before, with its data at hand; its victims are not loaded."""

    study: Study
    folder: RunFolder
    parts: Parts

    @classmethod
    def again(cls, study: Study | str | Path, runs: str | Path, watch: Watch) -> Opened:
        """Open the run of a study as it lies.

        Raises:
            ConfigError: no study, or no data.
            RunError: it has not been run, or the folder is another study's.
        """
        study = study if isinstance(study, Study) else load_study(study)
        names = Names.pseudonyms() if study.ids == "pseudonyms" else Names(None)
        folder = RunFolder.reopen(study, Path(runs), names)
        return cls(study, folder, gather(study, folder.path, names, watch, alone=False))

    def volume(self, record: Record) -> Volume:
        """The clean case of a record, which must be what it was when the record was made.

        Raises:
            RunError: it is not there any more, or has changed.
        """
        case = next((case for case in self.parts.test if case.case == record.case), None)
        volume = read_labelled(case) if case else None
        if volume is None or digests_of(volume) != Digests(record.inputs["voxels"], record.inputs["label"]):
            raise RunError(
                f"the case {record.case} is no longer what was attacked",
                cause="its files were moved, lost or written anew since the run",
                advice="run the study again: the case is then attacked anew, or left out",
            )
        return volume


def export(
    study: Study | str | Path,
    out: str | Path,
    *,
    layout: str = "nnunet",
    victim: str | None = None,
    conditions: Sequence[str] = (),
    labels: bool = False,
    runs: str | Path = "runs",
    watch: Watch | None = None,
) -> Path:
    """Write what a run delivered of one victim as a data set of somebody else's layout, under blind ids.

    Args:
        study: the study, which has been run with ``volumes: {keep: all}``.
        out: a folder that does not exist yet.
        layout: ``nnunet``, ``nnunet:flair,t1`` (channels in this order), ``brats`` or ``brats:2023``.
        victim: the surrogate, whose files are exported; may be left out where the study has one.
        conditions: patterns such as ``fgsm-*``; all if left out. Clean is always among them.
        labels: whether the expert's label maps go along.
        runs: the folder of all runs.
        watch: told of the progress.

    Returns:
        the key, in the run's folder.

    Raises:
        ConfigError: a layout, victim or condition that is none, or a folder that exists.
        RunError: the run is not complete, its files were not kept, or the data have changed.
    """
    out, watch = Path(out), watch or Silent()
    opened = Opened.again(study, runs, watch)
    place = opened.folder.path / KEYS / f"{out.name}.json"
    for taken in (out, place):
        if taken.exists():
            raise ConfigError(
                f"there is {taken} already", advice="export into a folder of another name; a key is never overwritten"
            )
    data, parts = opened.study.data, opened.parts
    arranged = layout_of(
        layout, parts.modalities, parts.scheme, data.release if isinstance(data, BratsData) else "2021"
    )
    chosen = _chosen(opened, victim, conditions)
    seed = secrets.randbits(64)
    watch.task("export", len(chosen))
    with _whole(out) as folder:
        writer = _Writer(opened, arranged, folder, labels)
        ids = dict(sorted(writer.write(_blind(chosen, seed), watch)))
        writer.describe()
        numbers = dict(arranged.scheme.numbers)
        content = ExportKey(study=opened.study.study, layout=layout, seed=seed, labels=numbers, ids=ids)
        # The key first: a data set whose key is lost could never be scored.
        text = content.model_dump_json(indent=1)
        write_atomically(place, lambda file: file.write_text(text, encoding="utf-8"), mode=0o600)
    return place


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """A folder beside its place, which gets its name when all is in it, or vanishes."""
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(dir=out.parent, prefix=UNFINISHED)
    with temporary as parent:
        yield Path(parent) / out.name
        with writing(out):
            (Path(parent) / out.name).replace(out)


def read_key(path: Path) -> ExportKey:
    """Read the key of an export.

    Raises:
        ConfigError: it is none, or of another version.
    """
    try:
        key = ExportKey.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ConfigError(
            f"{path.name} is no key of an export",
            got=str(error).splitlines()[0],
            expected=f"runs/<study>/{KEYS}/<folder>.json, as `medadv export` wrote it",
        ) from error
    if key.schema_version != SCHEMA:
        raise ConfigError(f"{path.name} is of another version of medadv", got=key.schema_version, expected=SCHEMA)
    return key


def _chosen(opened: Opened, victim: str | None, conditions: Sequence[str]) -> list[Record]:
    """The records of the surrogate's cells that are exported; each of its files is there."""
    folder = opened.folder
    surrogates = [name for name in opened.study.entrants if victim in (None, name)]
    if len(surrogates) != 1:
        raise ConfigError(
            "whose files are to be exported?", got=victim, expected=f"--victim, one of {list(opened.study.entrants)}"
        )
    cells = {cell: key for cell, key in planned_cells(folder.path).items() if cell[0] == surrogates[0]}
    known = list(dict.fromkeys(condition for _, condition, _ in cells))
    for pattern in conditions:
        if not any(fnmatchcase(name, pattern) for name in known):
            raise ConfigError("no condition of the run is called so", got=pattern, expected=known)
    wanted = {c for c in known if c == "clean" or not conditions or any(fnmatchcase(c, p) for p in conditions)}
    records = [r for r in present_records(folder.path) if r.victim == surrogates[0] and r.condition in wanted]
    refused = {entry.stem for entry in (folder.path / "quarantine").glob("*.json")}
    unfinished = [
        f"{condition} {case}"
        for (name, condition, case), key in cells.items()
        if condition in wanted and case not in refused
        if not record_path(folder.path, name, condition, case, key).exists()
    ]
    _refuse("are not finished", unfinished, "run the study again: `medadv run STUDY.yaml` goes on from there")
    lost = [f"{r.condition} {r.case}" for r in records if r.delivered and not folder.holds(r)]
    _refuse(
        "have no files any more",
        lost,
        "set `volumes: {keep: all}` in the study and run it again: what is missing is made anew, the same as before; "
        "the few worst that a run keeps by itself would be a choice by their scores",
    )
    if not records:
        raise RunError("there is nothing to export", cause="every case is in quarantine", advice="see quarantine.json")
    return records


def _refuse(what: str, cells: Sequence[str], advice: str) -> None:
    if cells:
        shown = ", ".join(cells[:10]) + (f" and {len(cells) - 10} more" if len(cells) > 10 else "")
        raise RunError(f"{len(cells)} cells of the run {what}", got=shown, advice=advice)


def _blind(records: Sequence[Record], seed: int) -> dict[str, Record]:
    """Blind id → record, in the order of the ids. Without the seed an id tells nothing."""
    order = sorted(records, key=lambda record: record.key)
    random.Random(seed).shuffle(order)
    width = max(4, len(str(len(order))))
    return {f"m{number:0{width}}": record for number, record in enumerate(order, 1)}


@dataclass(frozen=True)
class _Writer:
    opened: Opened
    layout: Layout
    folder: Path
    labels: bool

    def write(self, named: Mapping[str, Record], watch: Watch) -> Iterator[tuple[str, Exported]]:
        """All ids, case by case, and inside a case in the order of the ids: times of files tell no condition either."""
        for case in sorted({record.case for record in named.values()}):
            mine = {name: record for name, record in named.items() if record.case == case}
            clean = self.opened.volume(next(iter(mine.values())))
            for name, record in mine.items():
                yield name, self._write(name, record, clean)
                watch.step(name)

    def _write(self, name: str, record: Record, clean: Volume) -> Exported:
        """One id: every file written in the same way, whatever the condition."""
        x = clean.x if not record.delivered else read(self._delivered(clean.case, record)).x
        files: dict[str, str] = {}
        voxels = dict(zip(clean.case.modalities, x.numpy(), strict=True))
        for modality in self.layout.channels:
            files |= self._file(self.layout.image(name, modality), voxels[modality], clean)
        if self.labels:
            assert clean.truth is not None  # read_labelled
            truth = clean.case.scheme.translate(clean.truth, self.layout.scheme)
            files |= self._file(self.layout.label(name), truth.numpy().astype(np.uint16), clean)
        return Exported(victim=record.victim, condition=record.condition, case=record.case, key=record.key, files=files)

    def describe(self) -> None:
        """What the folder is, for whoever opens it."""
        numbers = ", ".join(f"{self.layout.scheme.numbers[t]} {t}" for t in self.layout.scheme.tissues)
        for file, text in {**self.layout.declarations(DESCRIPTION), "README.txt": _README.format(numbers)}.items():
            write_atomically(self.folder / file, partial(Path.write_text, data=text, encoding="utf-8"))

    def _delivered(self, case: Case, record: Record) -> Case:
        delivered = written(case, self.opened.folder.volume(record.victim, record.condition, record.case))
        if delivered is None:
            raise RunError(
                f"the files of {record.condition} {record.case} are damaged",
                advice="delete their folder below volumes/ and run the study again: they are made anew",
            )
        return delivered

    def _file(self, file: str, voxels: Shaped[np.ndarray, "*s"], clean: Volume) -> Mapping[str, str]:
        path = self.folder / file
        content = packed(voxels, clean.affine, DESCRIPTION)
        write_atomically(path, lambda temporary: temporary.write_bytes(content))
        return {file: file_digest(path)}


_README = f"""{MARK} TEST SET

Images in this folder may have been altered on purpose, to find out how well a segmentation model withstands it. They
are no scans to be read: nothing may be concluded from them about a patient, and they must never enter a clinical
system. Which of them are altered is not told here, so that nobody who predicts them can know.

To take part: predict every image as it is, with the model as it is deployed, and send back one label map an id, called
after it: m0001{ENDING}, m0002{ENDING} and so on, in one folder. A label map lies on the grid of its image. Its numbers
are {{}}; if the model's are others, send its declaration of them along.

Made by medadv.
"""
