"""What a study would do, before it does it: cells, passes, disk, time, and what its tests could show. Nothing is run.

One forward pass and one gradient are timed on the first case, with fresh weights where none are trained yet: what they
cost does not depend on the weights.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from medadv.attack.victim import Passes, held_still
from medadv.data.case import Case, Cohort, Volume
from medadv.data.phantom import phantom
from medadv.errors import CaseError, ConfigError
from medadv.study.cohort import Parts
from medadv.study.conditions import Attacked, Condition
from medadv.study.defences import AdversarialTraining, Augmentation, Defence, Distillation, Trades
from medadv.study.defending import Company
from medadv.study.entry import Entry
from medadv.study.folder import RunFolder
from medadv.study.inputs import read_labelled
from medadv.study.lineup import Terms, prospective
from medadv.study.machine import Machine
from medadv.study.names import Names
from medadv.study.sources import PhantomData, imported
from medadv.study.spec import Study
from medadv.study.split import Fold, divide
from medadv.study.suite import conditions, primary_family
from medadv.study.tasks import Subject

LEVEL = 0.05
"""What an adjusted p must stay below for a claim."""

_PACKED = 0.9
"""What compression leaves of adversarial float32 voxels; their last bits are noise."""


@dataclass(frozen=True)
class Line:
    """One kind of condition with one victim.

    Attributes:
        cells: how many there are over all cases.
        passes: of the network over a volume, for all of them, scoring included.
        seconds: at the measured speed; None where nothing was measured.
    """

    victim: str
    what: str
    cells: int
    passes: Passes
    seconds: float | None


@dataclass(frozen=True)
class Plan:
    """What a study would do.

    Attributes:
        lines: by victim, then by family of conditions.
        trained: victim → optimiser steps of trainings still to be done, over all folds.
        dearer: victim → about how many steps without a defence one of its steps costs, where it is more than one.
        copied: victim → attacks on training cases that are made before its training, over all folds.
        finished: cells that lie in the run's folder; they are computed again only if what they rest on has changed.
        cases, patients: that are attacked; patients None where they are unknown.
        kept: bytes of delivered files that stay.
        family: how many comparisons the declared family has.
        reachable: the smallest p, after Holm, that so many pairs can reach; above ``LEVEL`` nothing can be claimed.
    """

    lines: tuple[Line, ...]
    trained: dict[str, int]
    dearer: dict[str, float]
    copied: dict[str, int]
    finished: int
    cases: int
    patients: int | None
    kept: int
    family: int
    reachable: float

    @property
    def cells(self) -> int:
        """All cells."""
        return sum(line.cells for line in self.lines)

    @property
    def seconds(self) -> float | None:
        """Of all cells one after the other, without training; None where nothing was measured."""
        known = [line.seconds for line in self.lines if line.seconds is not None]
        return sum(known) if len(known) == len(self.lines) else None


def plan(study: Study, machine: Machine, runs: Path, *, timed: bool = True) -> Plan:
    """Count what a study would do, and time its parts.

    Args:
        study: the specification.
        machine: the device to time on.
        runs: the folder of all runs: what is trained already is not trained again.
        timed: whether to read the first case and ask every victim once.

    Raises:
        ConfigError: data, split or victims that the study could not use.
    """
    with machine.used() as device, tempfile.TemporaryDirectory(prefix="medadv-plan-") as scratch:
        cohort = _cohort(study, Path(scratch))
        study.check(cohort.modalities, cohort.scheme)
        memory = Path(scratch) / "split.json"
        folds = divide(study.split, study.seed, cohort.cases, {r.case for r in cohort.refused}, Names(None), memory)
        parts = Parts(folds, cohort.refused, cohort.modalities, cohort.scheme, {}, Names(None), {})
        if not parts.test:
            raise ConfigError(
                "no case would be attacked", got=f"{len(cohort.cases)} cases", advice="look at split, and at the data"
            )
        met = {name: conditions(study, entrant) for name, entrant in study.entrants.items()}
        declared = primary_family(study)
        family = len(declared.victims) * len(declared.conditions)
        volume = _first_volume(parts.test)
        lines: list[Line] = []
        trained: dict[str, int] = {}
        made: dict[tuple[str, int | None], Subject] = {}
        terms = Terms({}, device, may_train=False, trust=machine.trust)
        for name, entrant in study.entrants.items():
            victims = [Entry.of(study, entrant, parts, fold, RunFolder(runs / study.study).path) for fold in folds]
            if missing := [entry for entry in victims if not entry.made]:
                trained[name] = entrant.spec.training.steps * len(missing)
            company = Company.among(made, victims[0])
            victim = made[name, folds[0].number] = prospective(victims[0], company, terms)
            speed = _timed(victim, volume, device) if timed and volume is not None else None
            lines += _lines(name, victim, met[name], len(parts.test), speed)
        return Plan(
            tuple(lines),
            trained,
            {name: cost for name in trained if (cost := _step_cost(study.entrants[name].spec.defence)) != 1},
            {name: copies for name in trained if (copies := _copies(study.entrants[name].spec.defence, folds))},
            _finished(runs / study.study, met),
            len(parts.test),
            _patients(parts.test),
            _kept(study, [c for every in met.values() for c in every], len(parts.test), volume),
            family,
            _reachable(_patients(parts.test) or len(parts.test), family),
        )


def told(plan: Plan) -> Iterator[str]:
    """A plan in lines for people."""
    units = f"{plan.patients} patients, {plan.cases} cases" if plan.patients else f"{plan.cases} cases"
    done = f", of which {plan.finished} are finished already" if plan.finished else ""
    yield f"{units}; {plan.cells} cells{done}"
    for name, steps in plan.trained.items():
        dear = f", each as dear as {plan.dearer[name]:.2g} plain ones" if name in plan.dearer else ""
        made = f", after {plan.copied[name]} attacks on training cases" if name in plan.copied else ""
        yield f"  {name}: to be trained, {steps} steps{dear}{made}"
    for line in plan.lines:
        seconds = "" if line.seconds is None else f", about {duration(line.seconds)}"
        cost = f"{line.passes.forward} forward and {line.passes.backward} backward passes"
        yield f"  {line.victim} {line.what}: {line.cells} cells, {cost}{seconds}"
    if plan.seconds is not None:
        yield f"all cells: about {duration(plan.seconds)} on this machine, one after the other"
    size = f"{plan.kept / 2**30:.1f} GiB" if plan.kept >= 2**30 else f"{plan.kept / 2**20:.0f} MiB"
    yield f"files that stay: about {size}"
    verdict = "enough to claim something" if plan.reachable < LEVEL else "too few: nothing could be claimed"
    yield f"primary family: {plan.family} comparisons; smallest adjusted p within reach {plan.reachable:.2g}, {verdict}"


def duration(seconds: float) -> str:
    """A stretch of time, to two digits."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def _cohort(study: Study, scratch: Path) -> Cohort:
    """The data as the study would find them; of phantoms that are not made yet, one stands for all."""
    data = study.data
    if isinstance(data, PhantomData) and not (data.root and Path(data.root).expanduser().is_dir()):
        one = phantom(scratch / "phantom", 1, data.shape, study.seed)
        case = one.cases[0]
        names = [f"Phantom_{i:05}" for i in range(data.cases)]
        return replace(one, cases=[replace(case, case=name, patient=name) for name in names])
    return imported(data, scratch, study.seed, alone=True)


def _first_volume(cases: Sequence[Case]) -> Volume | None:
    for case in cases:
        try:
            return read_labelled(case)
        except CaseError:
            continue
    return None


@dataclass(frozen=True)
class _Speed:
    """Seconds of one deployed answer, of one gradient, and of everything around them."""

    answer: float
    gradient: float
    around: float


def _timed(victim: Subject, volume: Volume, device: torch.device) -> _Speed:
    x = volume.x[None].to(device)
    victim = victim.at(volume.affine)

    def gradient() -> None:
        with held_still(victim.modules()):
            leaf = x.clone().requires_grad_()
            torch.autograd.grad(victim(leaf).sum(), leaf)

    answer = _seconds(lambda: victim.predict(x), device)
    return _Speed(answer, _seconds(gradient, device), _seconds(lambda: read_labelled(volume.case), device))


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Of the second of two rounds: the first also plans windows and fills caches."""
    spent = 0.0
    for _ in range(2):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        spent = time.perf_counter() - began
    return spent


def _step_cost(defence: Defence | None) -> float:
    """In steps without a defence, each of which is a forward and a backward: a third and two thirds of it."""
    if isinstance(defence, Trades):
        return defence.steps + 2 + 1 / 3  # the clean answer beforehand; clean and attacked crops together
    if isinstance(defence, AdversarialTraining):
        return 1 + defence.share * defence.steps
    return 1 + 1 / 3 if isinstance(defence, Distillation) and defence.labels == "on line" else 1.0


def _copies(defence: Defence | None, folds: Sequence[Fold]) -> int:
    if not isinstance(defence, Augmentation):
        return 0
    return len(defence.attacks) * len(defence.budgets) * sum(len(fold.train) for fold in folds)


def _lines(
    name: str, victim: Subject, every: Sequence[Condition], cases: int, speed: _Speed | None
) -> Iterator[Line]:
    families: dict[str, list[Condition]] = {}
    for condition in every:
        families.setdefault(condition.presented.family, []).append(condition)
    for family, members in families.items():
        cells = len(members) * cases
        attacks = [c for c in members if isinstance(c, Attacked)]
        steps = sum(c.spec.steps_at(c.threat.budget) * c.spec.gradients for c in attacks) * cases
        answers = 2 + (not victim.one_way)  # to the file, to the voxels in memory; how far both ways agree
        asked = answers * cells + sum(c.listens for c in attacks) * cases
        scored = victim.answer_cost * asked
        passes = victim.gradient_cost * steps + scored
        spent = None
        if speed is not None:  # a cell reads back what it wrote
            spent = steps * speed.gradient + asked * speed.answer + cells * speed.around
        yield Line(name, family, cells, passes, spent)


def _finished(folder: Path, met: Mapping[str, Sequence[Condition]]) -> int:
    """The records of these victims and conditions that lie there, a case once."""
    places = [folder / "records" / victim / condition.name for victim, every in met.items() for condition in every]
    return sum(len({path.name.split(".")[0] for path in place.glob("[!.]*.json")}) for place in places)


def _patients(cases: Sequence[Case]) -> int | None:
    known = {case.patient for case in cases}
    return None if None in known else len(known)


def _kept(study: Study, every: Sequence[Condition], cases: int, volume: Volume | None) -> int:
    """Bytes of delivered files that stay when all is done, of the conditions of all victims."""
    if volume is None or study.volumes.keep == "none":
        return 0
    delivered = [c for c in every if c.presented.role != "clean"]
    if study.volumes.keep == "worst":
        count = min(study.volumes.count, cases) * sum(c.presented.role == "attack" for c in delivered)
    else:
        count = cases * len(delivered)
    share = (volume.x != 0).double().mean().item() * _PACKED
    return int(count * volume.x.nbytes * share)


def _reachable(pairs: int, family: int) -> float:
    """The smallest two-sided signed-rank p of so many pairs, 2 / 2**n, times the size of the family (Holm)."""
    return float(min(1.0, family * 2.0 ** (1 - pairs)))
