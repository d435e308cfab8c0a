"""A victim of a study, before it is attacked: what it is made of, and its training on clean cases."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from medadv.attack.objective import dice_lost
from medadv.attack.victim import held_still
from medadv.data.case import Volume
from medadv.defense.checkpoints import Checkpoints
from medadv.defense.crops import Crops
from medadv.defense.lessons import Plain
from medadv.defense.ranks import ALONE, Group
from medadv.defense.training import Point, Validation, fit
from medadv.errors import ConfigError, VictimError
from medadv.study.entry import Entry
from medadv.study.examples import Examples
from medadv.study.inputs import read_labelled
from medadv.study.progress import Watch
from medadv.victims.checkpoint import save_victim
from medadv.victims.memory import is_full
from medadv.victims.networks import build_network
from medadv.victims.segmentation import Segmenter


def untrained(entry: Entry, seed: int, device: torch.device) -> Segmenter:
    """The victim as the study describes it, with fresh weights; it reads its own modalities."""
    declared = entry.intended
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build_network(entry.spec.network, *declared.channels).to(device)
    return declared.deployed(network)


def train_entry(entry: Entry, seed: int, device: torch.device, watch: Watch, group: Group = ALONE) -> Segmenter:
    """Train a victim on the clean training cases and keep it; all ranks do, and the main one writes.

    Raises:
        ConfigError: nothing to train on, or fewer cases than ranks.
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
    watch.say(f"training {_called(entry)} on {len(fold.train)} cases, validated on {len(fold.validate)}")
    with _memory_suffices(entry):
        bare = _learnt(entry, seed, device, watch, group)
    patients = [case.patient for case in (*fold.train, *fold.validate) if case.patient]
    if group.main:
        save_victim(bare, entry.spec.network, entry.folder, seen, patients)
        Checkpoints(entry.folder).clear()
    return bare


def _learnt(entry: Entry, seed: int, device: torch.device, watch: Watch, group: Group) -> Segmenter:
    """The victim with the weights of its best validation."""
    fold, spec, name = entry.fold, entry.spec, entry.name
    bare = untrained(entry, seed, device)
    network, head = bare.network, bare.head
    victim = bare.reading(entry.parts.modalities)
    crops = Crops(Examples(victim, entry), spec.training.roi, spec.training.batch, spec.training.flips, seed)

    def validate() -> Validation:
        own = fold.validate[group.rank :: group.size]
        mine = sum((_dice_lost(victim, read_labelled(case), device) for case in own), 0.0)
        group.barrier()  # ranks need not be equally fast
        (lost,) = group.sum(mine)
        return Validation(1 - lost / len(fold.validate))

    def told(point: Point, _steps: int) -> None:
        watch.step(f"loss {point.loss:.3f}" + (f", validation Dice {point.dice:.3f}" if point.dice is not None else ""))

    lesson = Plain(network, head)
    with sizes_fit(name), held_still([network]), torch.no_grad():
        lesson(crops(0).to(device))
        _dice_lost(victim, read_labelled(fold.validate[0]), device)
    watch.task(f"train {_called(entry)}", spec.training.steps)
    fit(
        lesson,
        network,
        lambda k: crops(k * group.size + group.rank).to(device),
        spec.training.schedule(seed),
        folder=Checkpoints(entry.folder, _identity(entry), watch.say),
        validate=validate,
        watch=told,
        group=group,
    )
    return bare


def _identity(entry: Entry) -> dict[str, object]:
    """What a checkpoint belongs to: all that the weights depend on, but for the schedule."""
    fold, digests, spec = entry.fold, entry.parts.digests, entry.spec
    made = spec.model_dump(mode="json", include={"modalities", "network", "head", "regions", "spatial", "normalise"})
    crops = spec.training.model_dump(mode="json", include={"batch", "roi", "flips"})
    cases = [str(digests[case.case]) for case in (*fold.train, *fold.validate)]
    return {**made, "crops": crops, "cases": hashlib.sha256("\n".join(cases).encode()).hexdigest(), "lesson": "plain"}


def _called(entry: Entry) -> str:
    return entry.name if entry.fold.number is None else f"{entry.name}, fold {entry.fold.number}"


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


def _dice_lost(victim: Segmenter, volume: Volume, device: torch.device) -> float:
    assert volume.truth is not None
    truth = volume.case.scheme.translate(volume.truth, victim.head.scheme)[None].to(device)
    targets = victim.targets(truth)
    return dice_lost(targets.where, victim.at(volume.affine)(volume.x[None].to(device)), targets).item()
