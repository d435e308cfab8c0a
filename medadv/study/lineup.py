"""The victims of a study: loaded, given by Python, or trained; one for each fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medadv.attack.checks import check_answer, check_steady
from medadv.attack.victim import held_still
from medadv.data.cache import Cache
from medadv.defense.ranks import ALONE, Group
from medadv.errors import ConfigError, GradientError, RunError
from medadv.labels import BACKGROUND, LabelScheme
from medadv.study.bench import Contestant
from medadv.study.cohort import Parts
from medadv.study.defending import Company
from medadv.study.entry import Entry
from medadv.study.folder import RunFolder
from medadv.study.progress import Watch
from medadv.study.schooling import sizes_fit, train_entry, untrained
from medadv.study.spec import Study
from medadv.study.tasks import DETECTION, SEGMENTATION, Subject, Task, task_of
from medadv.victims.checkpoint import CARD, training_cases, training_patients
from medadv.victims.defended import Protection, defended
from medadv.victims.detection import Detector
from medadv.victims.formats.opening import mirrored, open_victim, segmenter
from medadv.victims.memory import is_full
from medadv.victims.segmentation import Segmenter

Given = Subject | nn.Module
"""What Python may bring in: a victim, or a bare network."""


@dataclass(frozen=True)
class Terms:
    """On what terms victims are made ready.

    Attributes:
        given: victims from Python, or networks to be deployed as the study says, by the name that it gives them.
        device: where they are to answer.
        may_train: a part of a study may not: two parts would train the same victim.
        trust: whether models that are programs may be loaded.
        group: the ranks that train together.
    """

    given: Mapping[str, Given]
    device: torch.device
    may_train: bool = True
    trust: bool = False
    group: Group = ALONE


def asked(study: Study, given: Mapping[str, Given]) -> frozenset[Task]:
    """What the victims of a study are asked: those from Python by what they are, the others by their network's name."""
    tasks = set[Task]()
    for name, entrant in study.entrants.items():
        victim = given.get(name)
        if isinstance(victim, Segmenter | Detector):
            tasks.add(task_of(victim))
        else:
            tasks.add(DETECTION if entrant.spec.detects else SEGMENTATION)
    return frozenset(tasks)


def line_up(study: Study, parts: Parts, folder: RunFolder, terms: Terms, watch: Watch) -> list[Contestant]:
    """All victims of a study, ready to be attacked.

    Args:
        study: the specification.
        parts: the cases, of which the training and validation ones are used here.
        folder: where trained victims are kept, and found again.
        terms: what is given, and what is allowed.
        watch: told of the training.

    Raises:
        ConfigError: a given victim that the study does not name, or modalities and labels that do not fit the data.
        RunError: a victim that must be trained first.
    """
    if unknown := set(terms.given) - set(study.entrants):
        raise ConfigError(
            "victims were given that the study does not name", got=sorted(unknown), expected=list(study.entrants)
        )
    contestants = []
    made: dict[tuple[str, int | None], Subject] = {}
    for name, entrant in study.entrants.items():
        victims: dict[str, Subject] = {}
        for fold in parts.folds:
            entry = Entry.of(study, entrant, parts, fold, folder.path)
            victim = made[name, fold.number] = _ready(entry, Company.among(made, entry), terms, watch)
            victims |= dict.fromkeys((case.case for case in fold.test), victim)
        contestants.append(Contestant(name, victims))
    if terms.may_train:
        terms.group.barrier()
        if terms.group.main:
            Cache(folder.path / "cache").clear()
    return contestants


def prospective(entry: Entry, company: Company, terms: Terms) -> Subject:
    """The victim as it would be: from Python, from the disk, or with fresh weights; nothing is trained."""
    behind = _behind(entry, company, terms)
    return behind or _placed(_found(entry, terms) or untrained(entry, terms.device), entry, terms)


def _placed(victim: Subject, entry: Entry, terms: Terms) -> Subject:
    """On its device, mirrored if the study says so, reading the data's modalities."""
    if entry.spec.mirror:
        victim = mirrored(segmenter(victim, "mirrored"), entry.spec.mirror)
    victim = replace(victim, network=victim.network.to(terms.device)).reading(entry.parts.modalities)
    victim.check_fit(entry.parts.modalities, entry.parts.scheme)
    return victim


def _behind(entry: Entry, company: Company, terms: Terms) -> Subject | None:
    """The victim that it is like behind a protection, if that is what defends it."""
    defence = entry.spec.defence
    if not isinstance(defence, Protection) or entry.name in terms.given:
        return None
    assert company.behind is not None  # entrants
    return defended(company.behind, defence)


def _found(entry: Entry, terms: Terms) -> Subject | None:
    """A victim from Python, from the weights that the study names, or from an earlier training."""
    if entry.name in terms.given:
        given = terms.given[entry.name]
        entry.check_from_outside("a network from Python", frozenset())
        return given if isinstance(given, Segmenter | Detector) else entry.intended.deployed(given)
    if entry.weights:
        for path in entry.weights:
            seen = training_cases(path)
            entry.check_from_outside(str(path), seen)
            entry.check_unseen(seen, training_patients(path))
        return open_victim(entry.weights, entry.declared, trust=terms.trust)
    if (entry.folder / CARD).exists():
        entry.check_unseen(training_cases(entry.folder), training_patients(entry.folder))
        return open_victim(entry.folder)
    return None


def _ready(entry: Entry, company: Company, terms: Terms, watch: Watch) -> Subject:
    """A victim that is there, or is trained now."""
    if (behind := _behind(entry, company, terms)) is not None:
        return behind
    victim = _found(entry, terms)
    if victim is None and not terms.may_train:
        raise RunError(f"the victim {entry.name!r} is not trained yet", advice="run `medadv train` on this study first")
    return _placed(victim or train_entry(entry, company, terms.device, watch, terms.group), entry, terms)


def answerable(study: Study, scheme: LabelScheme, contestants: Sequence[Contestant]) -> dict[str, tuple[str, ...]]:
    """What is scored of each victim: what the study names, or else all that every victim of its task can tell.

    Raises:
        ConfigError: a victim cannot tell a region that the study scores or attacks.
    """
    scored: dict[str, tuple[str, ...]] = {}
    for contestant in contestants:
        victim, task = contestant.first, task_of(contestant.first)
        met = (spec for name, spec in study.attacks.items() if contestant.name in study.victims_of(name))
        goals = [name for spec in met for name in spec.names]
        asked = [n for n in (*(study.regions or ()), study.primary.region, *goals) if n != BACKGROUND]
        if mute := sorted({name for name in asked if not task.answers(victim, name)}):
            raise ConfigError(
                f"the victim {contestant.name!r} cannot tell what the study asks for",
                got=mute,
                expected=f"what it can tell: {[n for n in scheme.names if task.answers(victim, n)]}",
                advice="ask for other regions, or give the victim a head with these channels",
            )
        alike = [other.first for other in contestants if task_of(other.first) == task]
        every = study.regions or task.regions(scheme, study.data.axes)
        scored[contestant.name] = tuple(n for n in every if all(task.answers(other, n) for other in alike))
    return scored


def try_out(name: str, victim: Subject, x: Float[Tensor, "1 c *s"]) -> None:
    """Ask a victim once before a study rests on its answers.

    Raises:
        VictimError: it cannot answer this case, answers differently when it is asked again, or in probabilities.
        GradientError: its answer has no gradient.
    """
    with sizes_fit(name):
        check_steady(victim, x)
    with held_still(victim.modules()):
        x = x.clone().requires_grad_()
        try:
            answer = victim(x)
            if answer.numel():  # a detector may have nothing to answer for
                torch.autograd.grad(answer.sum(), x)
        except RuntimeError as error:
            if is_full(error):
                raise
            raise GradientError(
                f"the answer of the victim {name!r} cannot be differentiated",
                got=str(error).splitlines()[0],
                cause="a detach(), a no_grad(), a step through NumPy or a rounding inside the network",
                advice="look for what cuts the graph between the network's input and its answer",
            ) from error
    check_answer(answer.detach())
