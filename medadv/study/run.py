"""``run``: a study from its specification to its verdict. It strings the rooms together and decides nothing itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medadv.data.case import Case, Refusal
from medadv.defense.ranks import joined, launched
from medadv.errors import CaseError, ConfigError, RunError
from medadv.study.bench import Bench, Contestant
from medadv.study.cells import Cell
from medadv.study.cohort import Parts, gather, with_maps
from medadv.study.conditions import Attacked, Condition, Need
from medadv.study.folder import RunFolder
from medadv.study.gallery import Gallery
from medadv.study.impostors import check_defended
from medadv.study.lineup import Given, Terms, answerable, asked, line_up, try_out
from medadv.study.load import load_study
from medadv.study.machine import Machine
from medadv.study.names import Names
from medadv.study.progress import Silent, Watch
from medadv.study.records import Record, present_records
from medadv.study.report import build
from medadv.study.spec import Study
from medadv.study.suite import conditions, depths, judgement, primary_family
from medadv.study.tables import write_tables
from medadv.study.tracking import live, track
from medadv.study.worst import worst_cases


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

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise ConfigError("there is no such part", got=self, expected="parts 1 to n of n")

    @classmethod
    def parse(cls, text: str) -> Part:
        """Read ``"2/4"``: the second of four.

        Raises:
            ConfigError: not i/n with 1 <= i <= n.
        """
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal()):
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
    machine: Machine = Machine(),  # noqa: B008  (a frozen value)
) -> Outcome:
    """Run a study: train what must be trained, attack, score the files, compare, report. Finished cells are not redone.

    Args:
        study: a specification, or the path of its YAML.
        overrides: ``"a.b=value"`` each, over the YAML.
        victims: victims from Python, or networks to be deployed as the study says, by the name that it gives them.
        runs: the folder of all runs.
        part: only these cases, no training and no tables; ``finish`` makes them when all parts are done.
        tracked: whether MLflow is given the curves of trainings while they go on, and a copy of the results.
        watch: told of the progress.
        machine: the device, the memory, and whether models may run code of their own.

    Raises:
        ConfigError: a specification that cannot be meant, or data and victims that do not fit.
        RunError: the run's folder cannot be used.
    """
    watch = watch or Silent()
    if part is None:
        _refuse_ranks(launched().size)
    with machine.used() as device:
        terms = Terms(victims or {}, device, part is None, machine.trust)
        stage = _Stage.prepared(_specified(study, overrides), terms, Path(runs), watch, part, tracked)
        scored = stage.attack(watch)
    if part is not None:
        return Outcome(stage.folder.path, scored, len(stage.cases) - scored)
    outcome = finish(stage.folder.path, watch)
    if tracked:
        _track(stage.folder.path, watch)
    return outcome


def _try_out(bench: Bench, tried: set[object]) -> None:
    """Ask a network once before its answers count."""
    if (network := (bench.contestant.name, bench.case.fold)) not in tried:
        bench.within_memory(lambda: try_out(bench.contestant.name, bench.victim, bench.x))
        tried.add(network)


def _supply(cell: Cell, tried: set[object]) -> None:
    """Everything that a cell needs to be computed: victims that answer, and what others delivered."""
    for bench in (cell.bench, *cell.partners.values()):
        _try_out(bench, tried)
    for source in cell.sources.values():
        if not source.fetch():  # its files were not kept: the same again
            _supply(source, tried)
            source.compute(pictured=False)


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
    tracked: bool = True,
    watch: Watch | None = None,
    machine: Machine = Machine(),  # noqa: B008  (a frozen value)
) -> Path:
    """Train the victims of a study and attack nothing; returns the run's folder.

    MLflow shows the curves meanwhile. Under torchrun or srun all ranks train together; the main rank prepares the
    folder, writes and tells.

    Raises:
        ConfigError: a specification that cannot be meant, data that do not fit, or more ranks than training cases.
        RunError: the run's folder cannot be used, or a rank is gone.
        StoppedError: a signal asked for it; the same command goes on.
    """
    with machine.used() as device, joined(device) as group:
        terms = Terms({}, device, True, machine.trust, group)
        told = (watch if group.main else None) or Silent()
        return _Stage.prepared(_specified(study, overrides), terms, Path(runs), told, tracked=tracked).folder.path


def _refuse_ranks(ranks: int) -> None:
    if ranks > 1:
        raise ConfigError(
            "a study is attacked by parts, not by ranks",
            got=f"{ranks} ranks, all of which would do the same",
            advice="train under torchrun or srun (`medadv train`), then start `medadv run --part i/n` n times",
        )


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
    records = present_records(folder)
    refused = place.quarantined()
    if not records:
        raise RunError(
            f"there is nothing to report in {folder}",
            got="; ".join(f"{entry['case']}: {entry['reason']}" for entry in refused[:5]) or None,
            cause="every case is in quarantine" if refused else None,
            advice="look into quarantine.json" if refused else "run the study first: `medadv run STUDY.yaml`",
        )
    declared = place.judgement()
    write_tables(folder, [*records, *worst_cases(records, declared)], place.declared(), declared)
    page = build(folder)
    (watch or Silent()).say(f"report: {page}")
    return Outcome(folder, len({record.case for record in records}), len(refused))


def _gathered(study: Study, terms: Terms, runs: Path, watch: Watch, alone: bool) -> tuple[RunFolder, Parts]:
    """The run's folder and the study's cases by their use."""
    names = Names.pseudonyms() if study.ids == "pseudonyms" else Names(None)
    folder = RunFolder.open(study, runs, names)
    watch.say(f"study {study.study} in {folder.path}")
    parts = gather(study, folder.path, names, watch, alone, asked(study, terms.given))
    return folder, with_maps(study, parts, folder.path, watch)


@dataclass(frozen=True, eq=False)
class _Stage:
    """A study with everything that it needs at hand."""

    study: Study
    folder: RunFolder
    parts: Parts
    cases: Sequence[Case]
    contestants: Sequence[Contestant]
    conditions: Mapping[str, Sequence[Condition]]
    regions: Mapping[str, Sequence[str]]

    @classmethod
    def prepared(
        cls, study: Study, terms: Terms, runs: Path, watch: Watch, part: Part | None = None, tracked: bool = True
    ) -> _Stage:
        with terms.group.main_first():
            folder, parts = _gathered(study, terms, runs, watch, part is None and terms.group.main)
        cases = parts.test if part is None else parts.test[part.index - 1 :: part.count]
        if terms.group.main:
            folder.release(None if part is None else [case.case for case in cases])
            for refusal in parts.refused:
                folder.quarantine(refusal)
                watch.say(f"quarantined {refusal.case}: {refusal.message.splitlines()[0]}")
        study.check(parts.modalities, parts.scheme)
        if terms.group.main:
            folder.declare(primary_family(study), judgement(study))
        with live(watch, folder.path, tracked and terms.group.main) as listening:
            contestants = line_up(study, parts, folder, terms, listening)
        check_defended(study, contestants)
        regions = answerable(study, parts.scheme, contestants)
        met = {name: conditions(study, entrant) for name, entrant in study.entrants.items()}
        stage = cls(study, folder, parts, cases, contestants, met, regions)
        if terms.group.main:
            folder.plan({cell.place: cell.key for case in parts.test for cell in stage.cells(case)})
        return stage

    def bench(self, contestant: Contestant, case: Case) -> Bench:
        """One case with one victim."""
        return Bench(self.folder, contestant, case, self.parts.digests[case.case], self.parts.maps.get(case.case, {}))

    def cells(self, case: Case) -> list[Cell]:
        """All cells of one case, each after those that it needs: what one victim takes from another comes last."""
        benches = {contestant.name: self.bench(contestant, case) for contestant in self.contestants}
        met = [(name, condition) for name in benches for condition in self.conditions[name]]
        depth = depths({name: self.conditions[name] for name in benches})
        made: dict[Need, Cell] = {}
        for name, condition in sorted(met, key=lambda one: depth[Need(one[1].name, one[0])]):
            sources = {need: made[need if need.victim else Need(need.condition, name)] for need in condition.needs}
            bench, together = benches[name], condition.spec.together[1:] if isinstance(condition, Attacked) else ()
            partners = {other: benches[other] for other in together}
            metrics = bench.task.metrics(self.study.metrics, self.study.data.axes)
            made[Need(condition.name, name)] = Cell(
                bench,
                condition,
                self.regions[name],
                self.study.seed,
                sources,
                metrics,
                partners,
                self.study.certainty,
            )
        return list(made.values())

    def attack(self, watch: Watch) -> int:
        """All cells of all cases; how many cases went through. One that cannot be attacked goes into quarantine."""
        watch.task("attack", len(self.cases) * sum(map(len, self.conditions.values())))
        tried: set[object] = set()
        gallery = Gallery(self.study.volumes, primary_family(self.study))
        failed = 0
        for case in self.cases:
            try:
                shown = list(self._attack(self.cells(case), tried, gallery, watch))
            except CaseError as error:
                failed += 1
                for victim, met in self.conditions.items():
                    for condition in met:
                        self.folder.drop(victim, condition.name, [case.case])
                self.folder.quarantine(Refusal(case.case, error.reason, self.parts.disguised(str(error))))
                watch.say(f"quarantined {self.parts.disguised(error.problem)}")
                continue
            for record in shown:
                gallery.hang(record)
                self.folder.drop(record.victim, record.condition, gallery.unwanted(record))
        return len(self.cases) - failed

    def _attack(self, cells: Sequence[Cell], tried: set[object], gallery: Gallery, watch: Watch) -> Iterator[Record]:
        """The records of all cells of one case, of which those that are missing are computed."""
        for count, cell in enumerate(cells, 1):
            bench, later = cell.bench, cells[count:]
            record = cell.finished()
            held = record is not None and self.folder.holds(record)
            if record is None or (gallery.wants(record) and not held):
                _supply(cell, tried)
                record = cell.compute(gallery.pictures(cell.condition.presented))
            elif not held:  # what lies there is of another form of the study, or unfinished
                self.folder.drop(*cell.place[:2], [bench.case.case])
            for one in {one.bench for one in cells}:
                one.keep({s.condition.name for other in later for s in other.sources.values() if s.bench is one})
                if one is not bench or not later or later[0].bench is not bench:
                    one.rest()
            watch.step(f"{bench.case.case} {cell.condition.name}")
            yield record
