"""The run's folder: whose it is, what was declared in it, which cases were refused, which files stay."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml

from medadv.atomic import UNFINISHED, move, remove, write_text
from medadv.data.case import Refusal
from medadv.data.files import MARK
from medadv.errors import RunError
from medadv.study.names import Names
from medadv.study.records import Record, read_record, record_path, write_record
from medadv.study.spec import Study, Volumes
from medadv.study.stats import PrimaryFamily


@dataclass(frozen=True)
class RunFolder:
    """``runs/<study>``: the truth of a run. Everything else can be made from it."""

    path: Path

    @classmethod
    def open(cls, study: Study, runs: Path, names: Names) -> RunFolder:
        """The folder of a study, made if it is missing; its resolved specification is written.

        Raises:
            RunError: the folder is another study's, or cannot be written.
        """
        path = runs / study.study
        specification = path / "study.yaml"
        content = _public(study.model_dump(mode="json", by_alias=True), names)
        if specification.exists():
            _refuse_another(_stored(specification), content, path)
        elif path.is_dir() and any(not there.name.startswith(UNFINISHED) for there in path.iterdir()):
            raise RunError(
                f"the folder {path} holds something that is no study",
                advice="give the study another name, or another folder with --runs",
            )
        write_text(specification, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
        write_text(path / "environment.json", json.dumps(_environment(), indent=1))
        return cls(path)

    def declare(self, family: PrimaryFamily) -> None:
        """Append the primary family, dated, unless the last declaration is the same.

        One that comes after a score exists says so: it was chosen by somebody who could have looked.
        """
        path = self.path / "declarations.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        declared = family.model_dump(mode="json")
        if lines and json.loads(lines[-1])["primary"] == declared:
            return
        scored = any(True for _ in self._records())
        entry = {
            "primary": declared,
            "declared": datetime.now(UTC).isoformat(timespec="seconds"),
            "after_scores": scored,
        }
        write_text(path, "".join(f"{line}\n" for line in [*lines, json.dumps(entry, sort_keys=True)]))

    def declared(self) -> PrimaryFamily:
        """The family that was declared last.

        Raises:
            RunError: none was, or the file is damaged.
        """
        path = self.path / "declarations.jsonl"
        try:
            last = path.read_text(encoding="utf-8").splitlines()[-1]
            return PrimaryFamily.model_validate(json.loads(last)["primary"])
        except (OSError, ValueError, IndexError, KeyError) as error:
            raise RunError(
                "the run's declaration of comparisons cannot be read", got=error, advice="run the study again"
            ) from error

    def find(self, victim: str, condition: str, case: str, key: str) -> Record | None:
        """The record of a finished cell; one that was set aside by an earlier form of the study comes back."""
        path = record_path(self.path, victim, condition, case, key)
        aside = self._aside(path)
        if not path.exists() and aside.exists():
            move(aside, path)
        if not path.exists():
            return None
        record = read_record(path)
        self._set_aside(other for other in self._records(victim, condition, case) if other != path)
        self._disown(record)
        return record

    def finish(self, record: Record, seconds: float) -> None:
        """Put a cell under its final name, its time beside it, and what it replaces aside."""
        path = record_path(self.path, record.victim, record.condition, record.case, record.key)
        timing = self.path / "timings" / path.relative_to(self.path / "records")
        write_text(timing, json.dumps({"seconds": round(seconds, 3)}))
        write_record(self.path, record)
        others = self._records(record.victim, record.condition, record.case)
        self._set_aside(other for other in others if other != path)

    def keep_only(self, victims: Sequence[str], conditions: Sequence[str], cases: Sequence[str]) -> None:
        """Set aside the records of what the study no longer asks for."""
        for path in list(self._records()):
            victim, condition, case = path.parts[-3], path.parts[-2], _case_of(path)
            if victim not in victims or condition not in conditions or case not in cases:
                self._set_aside([path])

    def quarantine(self, refusal: Refusal) -> None:
        """Note a case that is not used: a file a case, so that parts of a study do not race."""
        entry = {"case": refusal.case, "reason": str(refusal.reason), "message": refusal.message}
        write_text(self.path / "quarantine" / f"{refusal.case}.json", json.dumps(entry, indent=1))

    def set_aside(self, case: str) -> None:
        """A case that is refused half way has no records and no files."""
        self._set_aside(self._records(case=case))
        for condition in (self.path / "volumes").glob("*/*"):
            remove(condition / case)

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

    def prune(self, victim: str, condition: str, region: str, volumes: Volumes) -> None:
        """Delete the files that need not stay. The worst of all are among the worst so far, so none is missed."""
        folder = self.path / "volumes" / victim / condition
        if volumes.keep == "all" or not folder.is_dir():
            return
        finished = [
            read_record(path)
            for case in folder.iterdir()
            for path in self._records(victim, condition, case.name)
        ]
        dice = {
            record.case: score.value
            for record in finished
            for score in record.scores
            if (score.region, score.metric) == (region, "dice") and record.presented.role == "attack"
        }
        worst = sorted(dice, key=lambda case: (dice[case], case))[: volumes.count if volumes.keep == "worst" else 0]
        for record in finished:
            if record.case not in worst:
                remove(folder / record.case)

    def _records(self, victim: str = "*", condition: str = "*", case: str | None = None) -> Iterator[Path]:
        """The finished cells of one case, or of all."""
        for path in (self.path / "records").glob(f"{victim}/{condition}/*.json"):
            # Compared whole: one case's name may begin with another's and a dot.
            if not path.name.startswith(UNFINISHED) and case in (None, _case_of(path)):
                yield path

    def _disown(self, record: Record) -> None:
        """Delete files that lie where a cell's belong, and are those of another form of the study."""
        folder = self.volume(record.victim, record.condition, record.case)
        try:
            delivered = json.loads((folder / f"{MARK}.json").read_text(encoding="utf-8"))["files"]
        except (OSError, ValueError, KeyError):
            return  # without this note nobody takes the files for a result
        if delivered != record.delivered:
            remove(folder)

    def _aside(self, path: Path) -> Path:
        return self.path / "superseded" / path.relative_to(self.path / "records")

    def _set_aside(self, paths: Iterable[Path]) -> None:
        for path in list(paths):
            move(path, self._aside(path))


def _case_of(path: Path) -> str:
    """The case in the name of a record, ``<case>.<key>.json``."""
    return path.name.rsplit(".", 2)[0]


def _public(content: dict[str, Any], names: Names) -> dict[str, Any]:
    """A specification with the names that results give: ids and paths are private where names are pseudonyms."""
    split = content["split"]
    content["split"] = {k: [names[i] for i in v] if isinstance(v, list) else v for k, v in split.items()}
    if names.key is not None and content["data"].get("root") is not None:
        content["data"]["root"] = "private"
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


def _refuse_another(old: dict[str, Any], new: dict[str, Any], path: Path) -> None:
    """A folder belongs to one study: what its results rest on may not change under them.

    Where nothing rests on a setting yet, it may change: a first attempt may have failed.
    """
    made = {place for place in ("records", "superseded", "victims", "phantom") if (path / place).is_dir()}

    def identity(content: dict[str, Any]) -> dict[str, Any]:
        parts: dict[str, Any] = {}
        if made:
            parts |= {"seed": content.get("seed")}
            parts |= {f"data.{k}": v for k, v in content["data"].items() if k != "root"}
        if made - {"phantom"}:
            parts |= {name: content.get(name) for name in ("ids", "split")}
        for name in set(old["victims"]) & set(new["victims"]):
            # Where weights lie may change; what they are is in every record's key.
            if any((path / place / name).is_dir() for place in ("records", "superseded", "victims")):
                parts[f"victims.{name}"] = {k: v for k, v in content["victims"][name].items() if k != "weights"}
        return parts

    before, now = identity(old), identity(new)
    changed = [
        f"{name}: {before.get(name)} there, {now.get(name)} here"
        for name in sorted(before | now)
        if before.get(name) != now.get(name)
    ]
    if changed:
        raise RunError(
            f"the folder {path} belongs to another study",
            got="; ".join(changed),
            cause="two studies with one name, or a victim, the data or the split was changed after results existed",
            advice="give this study another name; budgets, attacks, controls and new victims may be added at any time",
        )


def _environment() -> dict[str, str]:
    packages = ("medadv", "torch", "monai", "numpy", "scipy", "nibabel")
    return {
        **{name: version(name) for name in packages},
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": str(torch.get_num_threads()),
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }
