"""``run``: a study from its specification to its verdict. It strings the rooms together and decides nothing itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medadv.atomic import write_text
from medadv.data.case import Case, Refusal
from medadv.errors import CaseError, ConfigError, RunError
from medadv.study.cells import Bench, Cell, Contestant
from medadv.study.cohort import Parts, gather
from medadv.study.conditions import Condition, conditions, primary_conditions
from medadv.study.folder import RunFolder
from medadv.study.lineup import Given, line_up, try_out
from medadv.study.load import load_study
from medadv.study.names import Names
from medadv.study.progress import Silent, Watch
from medadv.study.records import read_records
from medadv.study.report import build
from medadv.study.spec import Study
from medadv.study.stats import PrimaryFamily, compare
from medadv.study.tables import comparisons_table, scores_table
from medadv.study.tracking import track


@dataclass(frozen=True)
class Outcome:
    """Where a run's results lie, and how many cases it had to leave out."""

    folder: Path
    scored: int
    quarantined: int


@dataclass(frozen=True)
class Part:
    """One of n parts of a study's cases, for as many processes; parts neither train nor make tables."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Part:
        """Read ``"2/4"``: the second of four.

        Raises:
            ConfigError: not i/n with 1 <= i <= n.
        """
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise ConfigError("a part is i/n", got=text, expected="for example 1/4, 2/4, 3/4 and 4/4")
        return cls(int(index), int(count))


def run(
    study: Study | str | Path,
    *,
    overrides: Sequence[str] = (),
    victims: Mapping[str, Given] | None = None,
    runs: str | Path = "runs",
    part: Part | None = None,
    tracked: bool = True,
    watch: Watch | None = None,
) -> Outcome:
    """Run a study: train what must be trained, attack, score the files, compare, report. Finished cells are not redone.

    Args:
        study: a specification, or the path of its YAML.
        overrides: ``"a.b=value"`` each, over the YAML.
        victims: victims from Python, or networks to be deployed as the study says, by the name that it gives them.
        runs: the folder of all runs.
        part: only these cases, no training and no tables; ``finish`` makes them when all parts are done.
        tracked: whether MLflow is given a copy of the results.
        watch: told of the progress.

    Raises:
        ConfigError: a specification that cannot be meant, or data and victims that do not fit.
        RunError: the run's folder cannot be used.
    """
    watch = watch or Silent()
    stage = _Stage.prepared(_specified(study, overrides), victims or {}, Path(runs), watch, part)
    scored = stage.attack(watch)
    if part is not None:
        return Outcome(stage.folder.path, scored, len(stage.folder.quarantined()))
    stage.tidy()
    outcome = finish(stage.folder.path, watch)
    if tracked:
        _track(stage.folder.path, watch)
    return outcome


def _track(folder: Path, watch: Watch) -> None:
    """A copy for MLflow. Its trouble is not the run's: the folder is complete, and can be tracked later."""
    try:
        watch.say(f"MLflow: run {track(folder)}")
    except RunError as error:
        watch.say(str(error))


def train(
    study: Study | str | Path,
    *,
    overrides: Sequence[str] = (),
    runs: str | Path = "runs",
    watch: Watch | None = None,
) -> Path:
    """Train the victims of a study and attack nothing; returns the run's folder."""
    return _Stage.prepared(_specified(study, overrides), {}, Path(runs), watch or Silent()).folder.path


def _specified(study: Study | str | Path, overrides: Sequence[str]) -> Study:
    if not isinstance(study, Study):
        return load_study(study, overrides)
    if overrides:
        raise ConfigError("overrides go over a YAML file", got=list(overrides), advice="change the Study instead")
    return study


def finish(folder: Path, watch: Watch | None = None) -> Outcome:
    """Make the tables and the report of a run from its folder alone.

    Raises:
        RunError: nothing has been scored yet, or a record is damaged.
    """
    place = RunFolder(folder)
    records = list(read_records(folder))
    refused = place.quarantined() if place.path.is_dir() else []
    if not records:
        raise RunError(
            f"there is nothing to report in {folder}",
            got="; ".join(f"{entry['case']}: {entry['reason']}" for entry in refused[:5]) or None,
            cause="every case is in quarantine" if refused else None,
            advice="look into quarantine.json" if refused else "run the study first: `medadv run STUDY.yaml`",
        )
    regions = records[0].inputs["regions"]
    primary = place.declared()
    comparisons = [row for metric in ("dice", "hd95") for row in compare(records, primary, regions, metric)]
    write_text(folder / "scores.csv", scores_table(records))
    write_text(folder / "comparisons.csv", comparisons_table(comparisons))
    page = build(folder)
    (watch or Silent()).say(f"report: {page}")
    return Outcome(folder, len({record.case for record in records}), len(refused))


@dataclass(frozen=True, eq=False)
class _Stage:
    """A study with everything that it needs at hand."""

    study: Study
    folder: RunFolder
    parts: Parts
    cases: Sequence[Case]
    contestants: Sequence[Contestant]
    conditions: Sequence[Condition]
    regions: Sequence[str]

    @classmethod
    def prepared(
        cls, study: Study, given: Mapping[str, Given], runs: Path, watch: Watch, part: Part | None = None
    ) -> _Stage:
        names = Names.pseudonyms() if study.ids == "pseudonyms" else Names(None)
        folder = RunFolder.open(study, runs, names)
        watch.say(f"study {study.study} in {folder.path}")
        parts = gather(study, folder.path, names, watch)
        cases = parts.test if part is None else parts.test[part.index - 1 :: part.count]
        folder.release(None if part is None else [case.case for case in cases])
        for refusal in parts.refused:
            folder.quarantine(refusal)
            watch.say(f"quarantined {refusal.case}: {refusal.message.splitlines()[0]}")
        study.check(parts.modalities, parts.scheme)
        primary = study.primary
        folder.declare(
            PrimaryFamily(metric=primary.metric, region=primary.region, conditions=primary_conditions(study))
        )
        contestants = line_up(study, parts, folder, given, watch, may_train=part is None)
        return cls(study, folder, parts, cases, contestants, conditions(study), study.regions or parts.scheme.names)

    def attack(self, watch: Watch) -> int:
        """All cells of all cases; how many cases went through. One that cannot be attacked is set aside."""
        watch.task("attack", len(self.cases) * len(self.contestants) * len(self.conditions))
        steady: set[str] = set()
        failed = 0
        for case in self.cases:
            try:
                for contestant in self.contestants:
                    self._attack(Bench(self.folder, contestant, case, self.parts.digests[case.case]), steady, watch)
            except CaseError as error:
                failed += 1
                self.folder.set_aside(case.case)
                self.folder.quarantine(Refusal(case.case, error.reason, self.parts.disguised(str(error))))
                watch.say(f"quarantined {self.parts.disguised(error.problem)}")
        return len(self.cases) - failed

    def _attack(self, bench: Bench, steady: set[str], watch: Watch) -> None:
        contestant = bench.contestant
        cells = {c.name: Cell(bench, c, self.regions, self.study.seed) for c in self.conditions}
        for name, cell in cells.items():
            if not cell.finished():
                if contestant.name not in steady:
                    try_out(contestant, bench.volume.x[None])
                    steady.add(contestant.name)
                for need in cell.condition.needs:
                    if not bench.fetch(need):  # its files were not kept: the same again
                        cells[need].compute(pictured=False)
                cell.compute(self.study.volumes.keep != "none" and cell.condition.presented.role == "attack")
            watch.step(f"{bench.case.case} {name}")
        for name in cells:
            self.folder.prune(contestant.name, name, self.study.primary.region, self.study.volumes)

    def tidy(self) -> None:
        """Only what the study asks for now stays among the records."""
        self.folder.keep_only(
            [c.name for c in self.contestants], [c.name for c in self.conditions], [c.case for c in self.parts.test]
        )
