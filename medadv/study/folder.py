"""The run's folder: whose it is, what was declared in it, which cases were refused, which files stay."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml

from medadv.atomic import UNFINISHED, remove, write_text, writing
from medadv.data.case import Refusal
from medadv.data.files import MARK
from medadv.errors import RunError
from medadv.study.defences import HARDENED
from medadv.study.judgement import Judgement
from medadv.study.names import Names, key_file
from medadv.study.records import MANIFEST, RETURNED, Record, read_record, record_path, write_manifest, write_record
from medadv.study.sources import PATHS, without_names
from medadv.study.spec import Study
from medadv.study.stats import PrimaryFamily

Read = TypeVar("Read")

THREAT = ("legal", "modalities", "support")
"""What a study says of where and how far voxels may change, beside budgets."""

FINGERPRINT = "pseudonyms.json"
"""The file that says under whose key a run's names were made."""


@dataclass(frozen=True)
class RunFolder:
    """``runs/<study>``: the truth of a run. Everything else can be made from it."""

    path: Path

    @classmethod
    def open(cls, study: Study, runs: Path, names: Names) -> RunFolder:
        """The folder of a study, made if it is missing; its resolved specification is written.

        Raises:
            RunError: the folder is another study's or was begun under another key of pseudonyms, has a victim outside
                of the same name, or cannot be written.
        """
        path = runs / study.study
        specification = path / "study.yaml"
        if outside := [name for name in study.entrants if (path / RETURNED / f"{name}.json").exists()]:
            raise RunError(
                "segmentations from outside were scored under the name of a victim",
                got=outside,
                advice="give the victim another name: the two are not the same",
            )
        _refuse_another_key(path, names)
        content = _public(_written(study), names)
        if specification.exists():
            _refuse_another(_stored(specification), content, path)
        elif path.is_dir() and any(not there.name.startswith(UNFINISHED) for there in path.iterdir()):
            raise RunError(
                f"the folder {path} holds something that is no study",
                advice="give the study another name, or another folder with --runs",
            )
        write_text(specification, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
        if names.key is not None:
            write_text(path / FINGERPRINT, _fingerprint(names))
        write_text(path / "environment.json", json.dumps(_environment(), indent=1))
        return cls(path)

    @classmethod
    def reopen(cls, study: Study, runs: Path, names: Names) -> RunFolder:
        """The folder of a study that was run before, as it lies: nothing is written.

        Raises:
            RunError: the study has not been run, or the folder is another study's or another key's.
        """
        path = runs / study.study
        if not (path / MANIFEST).is_file():
            raise RunError(
                f"the study {study.study!r} has not been run",
                got=f"no {MANIFEST} in {path}",
                advice="run it first: `medadv run STUDY.yaml`; name its folder with --runs if that is another",
            )
        _refuse_another_key(path, names)
        content = _public(_written(study), names)
        _refuse_another(_stored(path / "study.yaml"), content, path)
        return cls(path)

    def declare(self, family: PrimaryFamily, judgement: Judgement | None = None) -> None:
        """Append the primary family and how defences are judged, dated, unless the last declaration is the same.

        One that comes after a score exists says so: it was chosen by somebody who could have looked.
        """
        path = self.path / "declarations.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        if lines:
            last = json.loads(lines[-1])
            if (PrimaryFamily.model_validate(last["primary"]), Judgement.of(last)) == (family, judgement):
                return
        scored = any(not path.name.startswith(UNFINISHED) for path in (self.path / "records").glob("*/*/*.json"))
        empty = {name for name in ("rivals", "metrics") if not getattr(family, name)}
        entry = {
            "primary": family.model_dump(mode="json", exclude=empty),
            **({} if judgement is None else {"judgement": judgement.model_dump(mode="json")}),
            "declared": datetime.now(UTC).isoformat(timespec="seconds"),
            "after_scores": scored,
        }
        write_text(path, "".join(f"{line}\n" for line in [*lines, json.dumps(entry, sort_keys=True)]))

    def declared(self) -> PrimaryFamily:
        """The family that was declared last.

        Raises:
            RunError: none was, or the file is damaged.
        """
        return self._declaration(lambda last: PrimaryFamily.model_validate(last["primary"]))

    def judgement(self) -> Judgement | None:
        """How the study judges its defences, as it was declared last; None where it has none.

        Raises:
            RunError: nothing was declared, or the file is damaged.
        """
        return self._declaration(Judgement.of)

    def _declaration(self, read: Callable[[dict[str, Any]], Read]) -> Read:
        path = self.path / "declarations.jsonl"
        try:
            return read(json.loads(path.read_text(encoding="utf-8").splitlines()[-1]))
        except (OSError, ValueError, IndexError, KeyError, AttributeError) as error:
            raise RunError(
                "the run's declaration of comparisons cannot be read", got=error, advice="run the study again"
            ) from error

    def plan(self, cells: Mapping[tuple[str, str, str], str]) -> None:
        """Say which cells count from now on: (victim, condition, case) → key."""
        write_manifest(self.path, cells)

    def find(self, victim: str, condition: str, case: str, key: str) -> Record | None:
        """The record of a cell, if it is finished."""
        path = record_path(self.path, victim, condition, case, key)
        return read_record(path) if path.exists() else None

    def finish(self, record: Record, seconds: float) -> None:
        """Put a cell under its final name, and its time beside it."""
        path = record_path(self.path, record.victim, record.condition, record.case, record.key)
        timing = self.path / "timings" / path.relative_to(self.path / "records")
        write_text(timing, json.dumps({"seconds": round(seconds, 3)}))
        write_record(self.path, record)

    def quarantine(self, refusal: Refusal) -> None:
        """Note a case that is not used: a file a case, so that parts of a study do not race."""
        entry = {"case": refusal.case, "reason": str(refusal.reason), "message": refusal.message}
        write_text(self.path / "quarantine" / f"{refusal.case}.json", json.dumps(entry, indent=1))

    def release(self, cases: Iterable[str] | None = None) -> None:
        """Cases that are used are not in quarantine (any more); None for all."""
        if cases is None:
            remove(self.path / "quarantine")
        for case in cases or ():
            remove(self.path / "quarantine" / f"{case}.json")

    def quarantined(self) -> list[dict[str, str]]:
        """All cases that are not used, gathered into ``quarantine.json``."""
        files = sorted((self.path / "quarantine").glob("*.json"))
        entries = [json.loads(path.read_text("utf-8")) for path in files if not path.name.startswith(UNFINISHED)]
        write_text(self.path / "quarantine.json", json.dumps(entries, indent=1))
        return entries

    def volume(self, victim: str, condition: str, case: str) -> Path:
        """Where the files of a cell lie."""
        return self.path / "volumes" / victim / condition / case

    def holds(self, record: Record) -> bool:
        """Whether the files that a cell delivered are still there, and are this record's and no other form's."""
        note = self.volume(record.victim, record.condition, record.case) / f"{MARK}.json"
        try:
            return bool(json.loads(note.read_text(encoding="utf-8"))["files"] == record.delivered)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def drop(self, victim: str, condition: str, cases: Iterable[str]) -> None:
        """Delete the delivered files of these cases; their records stay."""
        for case in cases:
            remove(self.volume(victim, condition, case))


def _public(content: dict[str, Any], names: Names) -> dict[str, Any]:
    """A specification with the names that results give: ids and paths are private where names are pseudonyms."""
    split = content["split"]
    content["split"] = {k: [names[i] for i in v] if isinstance(v, list) else v for k, v in split.items()}
    if names.key is not None:
        content["data"] = without_names(content["data"], names)
        for victim in content["victims"].values():
            if victim.get("weights") is not None:
                victim["weights"] = "private"
        for attack in content["attacks"].values():
            if "draw" in (attack.get("goal") or {}):
                attack["goal"]["draw"] = "private"
    return content


def _stored(specification: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(specification.read_text(encoding="utf-8"))
        if isinstance(content, dict) and all(isinstance(content[key], dict) for key in ("data", "victims")):
            return content
        problem: object = "no study"
    except (OSError, ValueError, KeyError, yaml.YAMLError) as error:
        problem = error
    raise RunError(f"{specification} is damaged", got=problem, advice="give the study another name")


def _fingerprint(names: Names) -> str:
    return json.dumps({"fingerprint": names.fingerprint})


def _refuse_another_key(path: Path, names: Names) -> None:
    """Under another key every case has another name: the split that was remembered would mean nobody."""
    place = path / FINGERPRINT
    with writing(place):
        same = names.key is None or not place.exists() or place.read_bytes() == _fingerprint(names).encode()
    if not same:
        raise RunError(
            f"the folder {path} was begun under another key of pseudonyms",
            got=f"the key in {key_file()}, which is not the one that {FINGERPRINT} in the folder tells of",
            cause=f"somebody else began the run, your key was made anew since, or {FINGERPRINT} is damaged",
            advice=f"copy the key of whoever began the run to {key_file()} (keep yours: your other studies need it), "
            "or give this study another name",
        )


def _refuse_another(old: dict[str, Any], new: dict[str, Any], path: Path) -> None:
    """A folder belongs to one study: what its results rest on may not change under them.

    Where nothing rests on a setting yet, it may change: a first attempt may have failed.
    """
    made = {place for place in ("records", "victims", "phantom") if (path / place).is_dir()}

    def identity(content: dict[str, Any]) -> dict[str, Any]:
        parts: dict[str, Any] = {}
        if made:
            parts |= {"seed": content.get("seed")}
            parts |= {f"data.{k}": v for k, v in content["data"].items() if k not in PATHS}
        if made - {"phantom"}:
            parts |= {name: content.get(name) for name in ("ids", "split")}
        for name in set(old["victims"]) & set(new["victims"]):
            # Where weights lie may change; what they are is in every record's key. A distillation's students are
            # called after it and their temperatures.
            if any(there.is_dir() for place in ("records", "victims") for there in _called(path / place, name)):
                told = content["victims"][name]
                parts[f"victims.{name}"] = {k: v for k, v in told.items() if k != "weights" and v is not None}
                if (told.get("defence") or {}).get("name") in HARDENED:  # it was trained in this threat
                    parts |= {key: content.get(key) for key in THREAT}
        return parts

    before, now = identity(old), identity(new)
    changed = list(_differences("", before, now))
    if changed:
        raise RunError(
            f"the folder {path} belongs to another study",
            got="; ".join(changed),
            cause="two studies with one name, or a victim, the data, the split or the threat that a victim was trained "
            "in was changed after results, or a training, had begun",
            advice="give this study another name; budgets, attacks, controls and new victims may be added at any time",
        )


def _written(study: Study) -> dict[str, Any]:
    """The specification with every default told, but of victims like another: of those only what was said of them.

    A default that was written would be said, and no more be taken from the other one when the file is run again.
    """
    content: dict[str, Any] = study.model_dump(mode="json", by_alias=True)
    said = study.model_dump(mode="json", by_alias=True, exclude_unset=True)["victims"]
    likes = {name: said[name] for name, spec in study.victims.items() if spec.like is not None}
    return {**content, "victims": content["victims"] | likes}


def _differences(place: str, there: object, here: object) -> Iterator[str]:
    """Where two specifications differ, key by key."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted(there | here):
            yield from _differences(f"{place}.{key}" if place else key, there.get(key), here.get(key))
    elif there != here:
        yield f"{place}: {there} there, {here} here"


def _called(folder: Path, victim: str) -> Iterator[Path]:
    return chain([folder / victim], folder.glob(f"{victim}-T*"))


@cache
def versions() -> dict[str, str]:
    """The packages whose versions could change a number."""
    return {name: version(name) for name in ("medadv", "torch", "monai", "numpy", "scipy", "nibabel")}


def _environment() -> dict[str, str]:
    return {
        **versions(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": str(torch.get_num_threads()),
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }
