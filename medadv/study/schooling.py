"""A victim of a study, before it is attacked: what it is made of, and its training on clean cases."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch

from medadv.atomic import remove
from medadv.attack.victim import held_still
from medadv.data.case import Case
from medadv.defense.checkpoints import Checkpoints
from medadv.defense.ranks import ALONE, Group
from medadv.defense.training import Validation, fit
from medadv.errors import ConfigError, VictimError
from medadv.study.courses import Course, course
from medadv.study.defending import Company
from medadv.study.entry import Entry
from medadv.study.inputs import read_labelled
from medadv.study.progress import Watch
from medadv.study.tasks import Subject
from medadv.victims.checkpoint import save_victim
from medadv.victims.combine import Scaled
from medadv.victims.detection import Detector
from medadv.victims.memory import is_full
from medadv.victims.segmentation import weights_digest


def untrained(entry: Entry, device: torch.device) -> Subject:
    """The victim as the study describes it, with fresh weights; it reads its own modalities."""
    declared = entry.intended
    with torch.random.fork_rng():
        torch.manual_seed(entry.seed)
        network = declared.build().to(device)
    return declared.deployed(network if entry.temperature == 1 else Scaled(network, entry.temperature))


def train_entry(entry: Entry, company: Company, device: torch.device, watch: Watch, group: Group = ALONE) -> Subject:
    """Train a victim on the training cases, as its defence says, and keep it; all ranks do, and the main one writes.

    Raises:
        ConfigError: nothing to train on, fewer cases than ranks, or a teacher with another head.
        VictimError: crops or windows of sizes that the network cannot answer, or that do not fit into the memory.
    """
    fold, name = entry.fold, entry.name
    if not fold.train or not fold.validate:
        raise ConfigError(
            f"the victim {name!r} has no weights, and there is nothing to train it on",
            got=f"{len(fold.train)} training and {len(fold.validate)} validation cases",
            advice=f"set split.train and split.validate, or victims.{name}.weights",
        )
    seen = [entry.parts.digests[case.case].voxels for case in (*fold.train, *fold.validate)]
    entry.check_unseen(set(seen))  # one scan may be there under two ids
    group.check_enough(len(fold.train))
    watch.say(f"training {entry.learner.title} on {len(fold.train)} cases, validated on {len(fold.validate)}")
    with _memory_suffices(entry):
        bare = _learnt(entry, company, device, watch, group)
    patients = [case.patient for case in (*fold.train, *fold.validate) if case.patient]
    if group.main:
        save_victim(bare, entry.spec.network, entry.folder, seen, patients)
        Checkpoints(entry.folder).clear()
        remove(entry.soft_labels)
    return bare


def _learnt(entry: Entry, company: Company, device: torch.device, watch: Watch, group: Group) -> Subject:
    """The victim with the weights of its best validation."""
    training = entry.spec.training
    bare = untrained(entry, device)
    taught = course(entry, bare, company, group, watch)
    with sizes_fit(entry.name), held_still([bare.network]), torch.no_grad():
        if not isinstance(bare, Detector):  # whose losses need its training mode
            taught.lesson(taught.batches(0).to(device))
        taught.asked(taught.deployed, read_labelled(entry.fold.validate[0]))
    watch.task(f"train {entry.learner.title}", training.steps)
    fit(
        taught.lesson,
        bare.network,
        lambda k: taught.batches(k).to(device),
        training.schedule(entry.seed),
        folder=Checkpoints(entry.folder, _identity(entry, company), watch.say),
        validate=partial(validated, taught, entry.fold.validate, group),
        watch=partial(watch.learnt, entry.learner),
        group=group,
    )
    return bare


def validated(taught: Course, cases: Sequence[Case], group: Group = ALONE) -> Validation:
    """Mean Dice over the validation cases, clean and under attack; each rank asks for cases of its own.

    Args:
        taught: the victim as it is deployed, and what it is asked on each case.
        cases: of all ranks together.
        group: the ranks; they need not be equally fast.
    """
    asked = [taught.asked(taught.deployed, read_labelled(case)) for case in cases[group.rank :: group.size]]
    group.barrier()
    own = sum((dice for dice, _ in asked), 0.0), sum((found or 0.0 for _, found in asked), 0.0)
    dice, attacked = group.sum(*own)
    return Validation(dice / len(cases), attacked / len(cases) if taught.attacked else None)


def _identity(entry: Entry, company: Company) -> dict[str, object]:
    """What a checkpoint belongs to: all that the weights depend on, and by what they are chosen, but the schedule."""
    fold, digests, spec, study = entry.fold, entry.parts.digests, entry.spec, entry.study
    settings = {"modalities", "network", "head", "regions", "spatial", "normalise", "defence", "mirror", "inference"}
    cases = [str(digests[case.case]) for case in (*fold.train, *fold.validate)]
    others = {"teacher": company.teacher, "undefended": company.undefended}
    return {
        **spec.model_dump(mode="json", include=settings),
        "crops": spec.training.model_dump(mode="json", include={"batch", "roi", "flips"}),
        "cases": hashlib.sha256("\n".join(cases).encode()).hexdigest(),
        "threat": study.model_dump(mode="json", include={"legal", "support", "modalities"}),
        **{name: weights_digest(victim.network) for name, victim in others.items() if victim is not None},
    }


@contextmanager
def _memory_suffices(entry: Entry) -> Iterator[None]:
    """A training does not save memory by itself: smaller crops or batches would be another training."""
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_full(error):
            raise
        training = entry.spec.training
        raise VictimError(
            f"the training of the victim {entry.name!r} does not fit into the memory",
            got=(str(error).splitlines() or [type(error).__name__])[0],
            cause=f"a batch of {training.batch} crops of {' × '.join(map(str, training.roi))} voxels, or the windows "
            "of its validation",
            advice=f"lower training.batch or training.roi of victims.{entry.name}, or its inference.roi; give more "
            "memory (--memory), or take another device (--device)",
        ) from error


@contextmanager
def sizes_fit(name: str) -> Iterator[None]:
    """What networks raise about sizes is torch's; what is wrong is the study's."""
    try:
        yield
    except RuntimeError as error:
        if is_full(error):
            raise
        raise VictimError(
            f"the victim {name!r} cannot answer crops, windows or volumes of this size",
            got=str(error).splitlines()[0],
            cause="sizes that the network cannot halve and double again, or a network for another number of axes",
            advice="let training.roi and inference.roi be multiples of all strides together, e.g. of 16",
        ) from error
