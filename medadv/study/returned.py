"""``score``: segmentations that came back from a model outside, taken into the statistics of the run they left.

The model becomes a further victim of the run. It was never seen by the attack: each of its records names the cell of
the surrogate whose delivered file was segmented.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from jaxtyping import Int
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from medadv.data.case import Volume
from medadv.data.files import label_digest, read_label
from medadv.errors import CaseError, ConfigError, Reason, RunError
from medadv.labels import SCHEMES, LabelScheme
from medadv.study.export import ExportKey, Opened, read_key
from medadv.study.folder import versions
from medadv.study.metrics import MetricName, in_order
from medadv.study.progress import Silent, Watch
from medadv.study.records import (
    RETURNED,
    SCHEMA,
    Record,
    ReturnedCell,
    digest,
    present_records,
    record_path,
    returned_cells,
    write_record,
    write_returned,
)
from medadv.study.run import finish
from medadv.study.scores import rows, score
from medadv.study.spec import NAME, RESERVED, Study
from medadv.study.stats import occurring
from medadv.vocabulary import declared_scheme

ENDINGS = (".nii.gz", ".nii")


@dataclass(frozen=True)
class Returned:
    """What scoring came to.

    Attributes:
        folder: the run's folder.
        scored: how many segmentations count now, earlier ones of the same victim among them.
        missing: the ids of the key that no segmentation came back for.
        clean: region → mean score on the clean files: low where label numbers were misunderstood.
        metric: which score: Dice, or the first one of a study without it.
    """

    folder: Path
    scored: int
    missing: tuple[str, ...]
    clean: Mapping[str, float]
    metric: MetricName


def score_returned(
    study: Study | str | Path,
    segmentations: str | Path,
    key: str | Path,
    victim: str,
    *,
    scheme: LabelScheme | None = None,
    runs: str | Path = "runs",
    watch: Watch | None = None,
) -> Returned:
    """Score what came back for an export, as one more victim of the run, and make its tables and report anew.

    Nothing is recorded unless every file that came back can be scored. A segmentation that did not come back leaves its
    cell without a record, as ``missing`` says in each comparison; it can be scored later under the same name.

    Args:
        study: the study whose run was exported.
        segmentations: a folder with one label map an id: ``m0001.nii.gz`` …; files that are no NIfTI are passed over.
        key: the export's key.
        victim: what the model is called in the results.
        scheme: what its label numbers mean; what the export declared if left out.
        runs: the folder of all runs.
        watch: told of the progress.

    Raises:
        ConfigError: a name, key or scheme that cannot be meant, or files that cannot be scored: all of them are told.
        RunError: the run has changed since the export, or other segmentations have this victim's name.
    """
    watch = watch or Silent()
    opened = Opened.again(study, runs, watch)
    place = opened.folder.path
    _check_name(victim, opened)
    told = read_key(Path(key))
    scheme = scheme or LabelScheme("exported", told.labels)
    if set(scheme.numbers) != set(opened.parts.scheme.numbers):
        raise ConfigError(
            "the scheme of the segmentations does not have the tissues of the data",
            got=list(scheme.tissues),
            expected=list(opened.parts.scheme.tissues),
            advice="name the tissues in the model's declaration as the data do",
        )
    sources = _sources(told, opened)
    files = _files(Path(segmentations), told)
    records = _scored(_Room(opened, victim, scheme), {name: sources[name] for name in files}, files, watch)
    count = _taken_in(records, victim, place)
    finish(place, watch)
    mine = [record for record in present_records(place) if record.victim == victim]
    metric = occurring(mine)[0]
    return Returned(place, count, tuple(sorted(set(told.ids) - set(files))), _clean(mine, metric), metric)


def scheme_of(text: str) -> LabelScheme:
    """A named scheme, or the one that a model's ``dataset.json`` declares (its ``labels``, as nnU-Net writes them).

    Raises:
        ConfigError: neither.
    """
    if text in SCHEMES:
        return SCHEMES[text]
    try:
        declared = _Declared.model_validate_json(Path(text).read_bytes())
    except (OSError, ValidationError) as error:
        raise ConfigError(
            "this is no label scheme",
            got=f"{text}: {str(error).splitlines()[0]}",
            expected=f'one of {list(SCHEMES)}, or a JSON file with "labels" {{"background": 0, …}}',
            advice="take the dataset.json of the model's training data",
        ) from error
    return declared_scheme("returned", declared.labels, declared.regions_class_order or ())


class _Declared(BaseModel):
    """The part of nnU-Net's ``dataset.json`` that says what label numbers mean."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    labels: dict[str, int | list[int]]
    regions_class_order: list[int] | None = None


@dataclass(frozen=True)
class _Room:
    """What all segmentations are scored with."""

    opened: Opened
    victim: str
    scheme: LabelScheme

    def record(self, source: Record, prediction: Int[Tensor, "*s"], volume: Volume) -> Record:
        """One segmentation of a cell's delivered file. There are no voxels in memory to compute another score of."""
        case = volume.case
        answer = self.scheme.translate(prediction, case.scheme)
        assert volume.truth is not None  # read_labelled
        regions = source.inputs["regions"]
        metrics = in_order(row.metric for row in source.scores)
        measures = score(answer, volume.truth, case.scheme, volume.spacing, regions, metrics)
        inputs: dict[str, Any] = {
            "source": {"victim": source.victim, "condition": source.condition, "key": source.key},
            "segmentation": label_digest(replace(volume, truth=answer)),
            "voxels": source.inputs["voxels"],
            "label": source.inputs["label"],
            "condition": source.inputs["condition"],
            "regions": regions,
            "schema": SCHEMA,
        }
        shown = source.presented
        if shown.source is None and (shown.role == "attack" or shown.of is not None):
            title = f"{shown.title}, transferred from {source.victim}"
            shown = shown.model_copy(update={"title": title, "source": source.victim})
        return source.model_copy(
            update={
                "key": digest(inputs),
                "victim": self.victim,
                "presented": shown,
                "inputs": inputs,
                "versions": versions(),
                "effort": None,
                "fold": None,
                "agreement": None,
                "savings": (),
                "found": None,
                "scores": rows(measures, measures),
            }
        )


def _check_name(victim: str, opened: Opened) -> None:
    if not NAME.fullmatch(victim) or victim in RESERVED:
        raise ConfigError(
            "this cannot be the name of a victim",
            got=victim,
            expected=f"at most 64 letters, digits, dots, dashes and underscores, none of {', '.join(RESERVED)}",
        )
    place = opened.folder.path
    ours = (place / "records" / victim).is_dir() and not (place / RETURNED / f"{victim}.json").exists()
    if victim in opened.study.entrants or ours:
        raise ConfigError(
            f"{victim!r} is a victim of the study itself", advice="give the model outside a name of its own"
        )


def _sources(key: ExportKey, opened: Opened) -> dict[str, Record]:
    """Id → the record of the cell whose file it is; every one must still count."""
    if key.study != opened.study.study:
        raise ConfigError("the key is of another study's export", got=key.study, expected=opened.study.study)
    present = {record.key: record for record in present_records(opened.folder.path)}
    found = {name: present.get(item.key) for name, item in key.ids.items()}
    lost = [f"{item.condition} {item.case}" for name, item in key.ids.items() if found[name] is None]
    if lost:
        raise RunError(
            f"{len(lost)} exported cells do not count any more",
            got=", ".join(lost[:5]) + (" …" if len(lost) > 5 else ""),
            cause="since the export the study was changed, or a case came into quarantine",
            advice="run the study as it was exported, or export it anew",
        )
    return {name: record for name, record in found.items() if record}


def _files(folder: Path, key: ExportKey) -> dict[str, Path]:
    """Id → its label map, of those that came back.

    Raises:
        ConfigError: there is none, two are of one id, or one is of no id.
    """
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder}", expected="a folder with one label map an id")
    found: defaultdict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.iterdir()):
        ending = next((ending for ending in ENDINGS if path.name.endswith(ending)), None)
        if ending and not path.name.startswith("."):
            found[path.name.removesuffix(ending)].append(path)
    strange = [path.name for name, paths in found.items() if name not in key.ids for path in paths]
    twice = [path.name for paths in found.values() if len(paths) > 1 for path in paths]
    for problem, files in (("are of no id of the export", strange), ("are of one id", twice)):
        if files:
            raise ConfigError(
                f"{len(files)} files {problem}; nothing was scored",
                got=files[:10],
                expected=f"one of {next(iter(key.ids))}.nii.gz to {list(key.ids)[-1]}.nii.gz each",
                cause="another export's segmentations or key, or a channel's number left in the name",
                advice="give the key of this export, or move what does not belong here out of the folder",
            )
    if not found:
        raise ConfigError(
            f"there is no segmentation in {folder}", expected=f"{next(iter(key.ids))}.nii.gz, one label map an id"
        )
    return {name: paths[0] for name, paths in found.items()}


def _scored(room: _Room, sources: Mapping[str, Record], files: Mapping[str, Path], watch: Watch) -> list[Record]:
    """The records of all that came back, case by case.

    Raises:
        ConfigError: files that cannot be scored; all of them are told.
    """
    watch.task("score", len(files))
    records, faults = [], []
    for case in sorted({record.case for record in sources.values()}):
        mine = {name: record for name, record in sources.items() if record.case == case}
        volume = room.opened.volume(next(iter(mine.values())))
        for name, source in mine.items():
            try:
                records.append(room.record(source, read_label(files[name], volume, room.scheme), volume))
            except CaseError as error:
                faults.append((error.reason, f"{files[name].name}: {error}"))
            watch.step(name)
    if faults:
        raise ConfigError(
            f"{len(faults)} of {len(files)} segmentations cannot be scored; nothing was:\n"
            + "\n".join(text for _, text in faults[:5])
            + (f"\nand {len(faults) - 5} more" if len(faults) > 5 else ""),
            advice="; ".join(dict.fromkeys(_ADVICE.get(reason, _ANEW) for reason, _ in faults)),
        )
    return records


def _taken_in(records: Sequence[Record], victim: str, place: Path) -> int:
    """Put the records into the run's folder, their list last; how many the victim has now.

    Raises:
        RunError: another segmentation of one of the cells was scored before.
    """
    known = returned_cells(place, victim)
    cells = dict(known)
    for record in records:
        source = record.inputs["source"]
        cell = ReturnedCell(record.key, source["victim"], source["key"])
        if known.get((record.condition, record.case), cell) != cell:
            raise RunError(
                f"other segmentations were scored under the name {victim!r} before",
                got=f"another label map of {record.condition} {record.case}",
                advice="score these under another name; a victim's answers are never exchanged",
            )
        cells[record.condition, record.case] = cell
    write_returned(place, victim, known)  # the name is taken, whatever happens next
    for record in records:
        if not record_path(place, victim, record.condition, record.case, record.key).exists():
            write_record(place, record)
    write_returned(place, victim, cells)
    return len(cells)


_ANEW = "ask for these files again; one that is taken out of the folder is missing, and is told as missing"
_ADVICE = {
    Reason.LABEL_OUTSIDE_SCHEME: "say what the model's numbers mean: --scheme with a name, or its dataset.json",
    Reason.LABEL_GRID: "ask for label maps on the grid of the images as they were sent, not on the model's own",
    Reason.LABEL_NOT_INTEGER: "ask for label maps, not for probabilities; resample with nearest neighbour",
}


def _clean(records: Sequence[Record], metric: MetricName) -> dict[str, float]:
    """Region → mean score on the clean files."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for record in records:
        if record.presented.role == "clean":
            for row in record.scores:
                if row.metric == metric:
                    found[row.region].append(row.value)
    return {region: fmean(values) for region, values in found.items()}
