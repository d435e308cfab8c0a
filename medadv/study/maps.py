"""Given maps: the label maps that attacks are to draw, one a case, each called after it in a folder.

All are read once before anything is trained. What passed is remembered by path, size and time of change.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jaxtyping import Int
from torch import Tensor

from medadv.atomic import write_text
from medadv.data.case import Case, Refusal, Volume
from medadv.data.files import label_digest, read_label
from medadv.errors import CaseError, ConfigError, Reason
from medadv.study.inputs import read_labelled, stamp_of
from medadv.study.progress import Watch

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".png")
"""How the files' names go on after the case's id."""


@dataclass(frozen=True)
class GivenMap:
    """Where a map lies, and the SHA-256 of what it says."""

    path: Path
    digest: str


def read_map(path: Path, volume: Volume) -> tuple[Int[Tensor, "*s"], str]:
    """A given map in the data's numbers, and its digest.

    Raises:
        CaseError: it is damaged, lies on another grid than the volume, or holds other numbers than the data's.
    """
    try:
        labels = read_label(path, volume, volume.case.scheme)
    except CaseError as error:
        problem = error.problem.removeprefix(f"[{error.reason}] ")
        raise CaseError(
            error.reason,
            f"the given map {path.name}: {problem}",
            got=error.details["got"],
            expected=error.details["expected"],
            advice=error.details["try"] or "a given map has the case's grid and the data's label numbers",
        ) from error
    digest = label_digest(replace(volume, truth=labels))
    assert digest is not None  # there is a map
    return labels, digest


def examine_maps(
    cases: Mapping[str, Case], folders: Sequence[str], memory: Path, watch: Watch
) -> tuple[dict[str, dict[str, GivenMap]], list[Refusal]]:
    """Find and read the maps of every case.

    Args:
        cases: the id that the data give it → the case.
        folders: each of which must hold a map for each case.
        memory: the file that remembers what passed.
        watch: told of the reading.

    Returns:
        Case → folder → map, of those that have all of them, and why the others have not.

    Raises:
        ConfigError: a folder that does not exist.
    """
    places = {folder: _folder(folder) for folder in folders}
    if missing := [folder for folder, place in places.items() if not place.is_dir()]:
        raise ConfigError("there is no such folder of given maps", got=missing, advice="check goal.draw")
    remembered = _remembered(memory)
    kept: dict[str, str] = {}
    found: dict[str, dict[str, GivenMap]] = {}
    refused: list[Refusal] = []
    watch.task("read maps", len(cases))
    for own, case in cases.items():
        watch.step()
        try:
            paths = {folder: _path(place, own) for folder, place in places.items()}
            digests = _digests(case, paths.values(), remembered)
        except CaseError as error:
            refused.append(Refusal(case.case, error.reason, str(error)))
            continue
        found[case.case] = {folder: GivenMap(path, digests[path][1]) for folder, path in paths.items()}
        kept |= dict(digests.values())
    if kept != remembered:
        write_text(memory, json.dumps(kept, indent=1))
    return found, refused


def _folder(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:  # the home of nobody
        return Path(text)


def _path(folder: Path, own: str) -> Path:
    """The one map of a case in a folder."""
    try:
        files = [path for ending in ENDINGS if (path := folder / f"{own}{ending}").is_file()]
    except (OSError, ValueError):  # an id that makes no file name
        files = []
    if len(files) != 1:
        raise CaseError(
            Reason.GIVEN_MAP,
            f"the case {own} has {'several given maps' if files else 'no given map'}",
            got=[path.name for path in files] or None,
            expected=f"one file: {own}.nii.gz, .nii, .nrrd or .mha; of a picture, .png",
            advice="call each map after its case, or leave the case out of the split's test",
        )
    return files[0]


def _digests(case: Case, paths: Iterable[Path], remembered: Mapping[str, str]) -> dict[Path, tuple[str, str]]:
    """Path → the stamp of a case with this map, and the map's digest. The case is read if one is not remembered."""
    stamps = {path: stamp_of(case, path) for path in paths}
    volume = None if remembered.keys() >= set(stamps.values()) else read_labelled(case)
    return {path: (stamp, read_map(path, volume)[1] if volume else remembered[stamp]) for path, stamp in stamps.items()}


def _remembered(memory: Path) -> dict[str, str]:
    try:
        content = json.loads(memory.read_text(encoding="utf-8"))
        return {stamp: str(digest) for stamp, digest in content.items()}
    except (OSError, ValueError, AttributeError):
        return {}  # nothing is lost: every map is read again
