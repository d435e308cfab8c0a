"""The run's folder: whose it is, what was declared in it, which cases were refused, which files stay."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml

from medadv.atomic import write_text
from medadv.data.case import Refusal
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
            _refuse_another(yaml.safe_load(specification.read_text(encoding="utf-8")), content, path)
        elif path.is_dir() and any(path.iterdir()):
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
        scored = next((self.path / "records").glob("*/*/*.json"), None) is not None
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
            path.parent.mkdir(parents=True, exist_ok=True)
            aside.replace(path)
        if not path.exists():
            return None
        record = read_record(path)
        self._set_aside(other for other in path.parent.glob(f"{case}.*.json") if other != path)
        return record

    def finish(self, record: Record, seconds: float) -> None:
        """Put a cell under its final name, its time beside it, and what it replaces aside."""
        path = record_path(self.path, record.victim, record.condition, record.case, record.key)
        timing = self.path / "timings" / path.relative_to(self.path / "records")
        write_text(timing, json.dumps({"seconds": round(seconds, 3)}))
        write_record(self.path, record)
        self._set_aside(other for other in path.parent.glob(f"{record.case}.*.json") if other != path)

    def keep_only(self, victims: Sequence[str], conditions: Sequence[str], cases: Sequence[str]) -> None:
        """Set aside the records of what the study no longer asks for."""
        for path in (self.path / "records").glob("*/*/*.json"):
            victim, condition, case = path.parts[-3], path.parts[-2], path.name.rsplit(".", 2)[0]
            if victim not in victims or condition not in conditions or case not in cases:
                self._set_aside([path])

    def quarantine(self, refusal: Refusal) -> None:
        """Note a case that is not used: a file a case, so that parts of a study do not race."""
        entry = {"case": refusal.case, "reason": str(refusal.reason), "message": refusal.message}
        write_text(self.path / "quarantine" / f"{refusal.case}.json", json.dumps(entry, indent=1))

    def set_aside(self, case: str) -> None:
        """A case that is refused half way has no records."""
        self._set_aside((self.path / "records").glob(f"*/*/{case}.*.json"))

    def release(self, case: str) -> None:
        """A case that is used is not in quarantine (any more)."""
        (self.path / "quarantine" / f"{case}.json").unlink(missing_ok=True)

    def quarantined(self) -> list[dict[str, str]]:
        """All cases that are not used, gathered into ``quarantine.json``."""
        entries = [json.loads(path.read_text("utf-8")) for path in sorted((self.path / "quarantine").glob("*.json"))]
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
            for path in (self.path / "records" / victim / condition).glob(f"{case.name}.*.json")
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
                shutil.rmtree(folder / record.case)

    def _aside(self, path: Path) -> Path:
        return self.path / "superseded" / path.relative_to(self.path / "records")

    def _set_aside(self, paths: Iterable[Path]) -> None:
        for path in list(paths):
            aside = self._aside(path)
            aside.parent.mkdir(parents=True, exist_ok=True)
            path.replace(aside)


def _public(content: dict[str, Any], names: Names) -> dict[str, Any]:
    """A specification with the names that results give: ids and paths are private where names are pseudonyms."""
    split = content["split"]
    content["split"] = {k: [names[i] for i in v] if isinstance(v, list) else v for k, v in split.items()}
    if names.key is not None and content["data"].get("root") is not None:
        content["data"]["root"] = "private"
    return content


def _refuse_another(old: Any, new: dict[str, Any], path: Path) -> None:
    """A folder belongs to one study: its data, split, seed and the victims it has may not change under its results."""

    def identity(content: dict[str, Any]) -> dict[str, Any]:
        parts = {name: content.get(name) for name in ("seed", "ids", "split")}
        parts |= {f"data.{k}": v for k, v in content.get("data", {}).items() if k != "root"}
        shared = set(old.get("victims", {})) & set(new["victims"])
        for name in shared:  # where weights lie may change; what they are is in every record's key
            parts[f"victims.{name}"] = {k: v for k, v in content["victims"][name].items() if k != "weights"}
        return parts

    if not isinstance(old, dict):
        raise RunError(f"{path / 'study.yaml'} is damaged", advice="give the study another name")
    before, now = identity(old), identity(new)
    changed = [f"{key}: {before.get(key)} there, {now.get(key)} here" for key in now if before.get(key) != now.get(key)]
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
