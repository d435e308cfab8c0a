"""``run``: a study from its specification to its verdict. It strings the rooms together and decides nothing itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medadv.atomic import write_text
from medadv.attack.checks import check_steady
from medadv.data.case import Case, Refusal
from medadv.errors import CaseError, ConfigError, RunError
from medadv.study.cells import Bench, Cell, Contestant
from medadv.study.cohort import Parts, gather
from medadv.study.conditions import Condition, conditions, primary_conditions
from medadv.study.folder import RunFolder
from medadv.study.lineup import Given, line_up
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
        part: only these cases, and no tables; ``finish`` makes them when all parts are done.
        tracked: whether MLflow is given a copy of the results.
        watch: told of the progress.

    Raises:
        ConfigError: a specification that cannot be meant, or data and victims that do not fit.
        RunError: the run's folder cannot be used.
    """
    watch = watch or Silent()
    study = study if isinstance(study, Study) else load_study(study, overrides)
    stage = _Stage.prepared(study, victims or {}, Path(runs), watch, may_train=part is None)
    if part is not None:
        cases = stage.parts.test[part.index - 1 :: part.count]
        stage.attack(cases, watch)
        return Outcome(stage.folder.path, len(cases), 0)
    stage.attack(stage.parts.test, watch)
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
    study = study if isinstance(study, Study) else load_study(study, overrides)
    return _Stage.prepared(study, {}, Path(runs), watch or Silent(), may_train=True).folder.path


def finish(folder: Path, watch: Watch | None = None) -> Outcome:
    """Make the tables and the report of a run from its folder alone.

    Raises:
        RunError: nothing has been scored yet, or a record is damaged.
    """
    place = RunFolder(folder)
    records = list(read_records(folder))
    if not records:
        raise RunError(f"there is nothing to report in {folder}", advice="run the study first: `medadv run STUDY.yaml`")
    regions = records[0].inputs["regions"]
    primary = place.declared()
    comparisons = [row for metric in ("dice", "hd95") for row in compare(records, primary, regions, metric)]
    refused = place.quarantined()
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
    contestants: Sequence[Contestant]
    conditions: Sequence[Condition]
    regions: Sequence[str]

    @classmethod
    def prepared(
        cls, study: Study, given: Mapping[str, Given], runs: Path, watch: Watch, may_train: bool
    ) -> _Stage:
        names = Names.pseudonyms() if study.ids == "pseudonyms" else Names(None)
        folder = RunFolder.open(study, runs, names)
        watch.say(f"study {study.study} in {folder.path}")
        parts = gather(study, folder.path, names, watch)
        for case in (*parts.train, *parts.validate):
            folder.release(case.case)
        for refusal in parts.refused:
            folder.quarantine(refusal)
            watch.say(f"quarantined {refusal.case}: {refusal.message.splitlines()[0]}")
        regions = study.regions or parts.scheme.names
        for name in (*regions, study.primary.region):
            parts.scheme.members(name)
        if study.primary.region not in regions:
            raise ConfigError("the primary region is not scored", got=study.primary.region, expected=list(regions))
        folder.declare(
            PrimaryFamily(
                metric=study.primary.metric, region=study.primary.region, conditions=primary_conditions(study)
            )
        )
        contestants = line_up(study, parts, folder, given, watch, may_train)
        return cls(study, folder, parts, contestants, conditions(study), regions)

    def attack(self, cases: Sequence[Case], watch: Watch) -> None:
        """All cells of these cases. A case that cannot be attacked is set aside, and the others go on."""
        watch.task("attack", len(cases) * len(self.contestants) * len(self.conditions))
        steady: set[str] = set()
        for case in cases:
            self.folder.release(case.case)
            for contestant in self.contestants:
                bench = Bench(self.folder, contestant, case, self.parts.digests[case.case])
                try:
                    self._attack(bench, steady, watch)
                except CaseError as error:
                    self.folder.set_aside(case.case)
                    self.folder.quarantine(Refusal(case.case, error.reason, str(error)))
                    watch.say(f"quarantined {error.problem}")
                    break

    def _attack(self, bench: Bench, steady: set[str], watch: Watch) -> None:
        contestant = bench.contestant
        cells = {c.name: Cell(bench, c, self.regions, self.study.seed) for c in self.conditions}
        for name, cell in cells.items():
            if not cell.finished():
                if contestant.name not in steady:
                    check_steady(contestant.victim, bench.volume.x[None])
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
