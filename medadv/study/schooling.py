"""A victim of a study, before it is attacked: what it is made of, and its training on clean cases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import overload

import torch

from medadv.attack.objective import dice_lost
from medadv.attack.victim import held_still
from medadv.data.cache import Cache
from medadv.data.case import Case, Volume
from medadv.defense.crops import Crops, Example
from medadv.defense.lessons import Plain
from medadv.defense.training import CHECKPOINT, Point, fit
from medadv.errors import ConfigError, VictimError
from medadv.study.cohort import Parts
from medadv.study.folder import versions
from medadv.study.inputs import read_labelled
from medadv.study.progress import Watch
from medadv.study.spec import VictimSpec
from medadv.study.split import Fold
from medadv.victims.checkpoint import save_victim
from medadv.victims.declared import Declared
from medadv.victims.memory import is_full
from medadv.victims.networks import build_network
from medadv.victims.preprocess import Way
from medadv.victims.segmentation import Segmenter

SAID = frozenset(
    ("modalities", "head", "regions", "network", "spatial", "normalise", "inference", "names", "folds")
)
"""The settings of a victim that its own file may contradict, or leave open."""

MEMORY = 4 * 2**30
"""How many bytes of training cases are kept in memory."""


@dataclass(frozen=True)
class Entry:
    """One victim of one fold, as the study asks for it.

    Attributes:
        name: in the study.
        spec: how it is made and deployed.
        parts: the study's cases.
        fold: which of them it may see, and is attacked on.
        folder: where it is kept when it was trained here.
        cache: where preprocessed training cases lie that do not all fit into memory.
    """

    name: str
    spec: VictimSpec
    parts: Parts
    fold: Fold
    folder: Path
    cache: Cache

    @property
    def declared(self) -> Declared:
        """What the study says of it, and no default."""
        written = {name: getattr(self.spec, name) for name in sorted(SAID & self.spec.model_fields_set)}
        return Declared(self.parts.scheme, data=self.parts.modalities, **written)

    @property
    def intended(self) -> Declared:
        """How it is deployed where the study makes it, or Python brings a bare network: defaults included."""
        spec, parts = self.spec, self.parts
        return Declared(
            scheme=parts.scheme,
            modalities=spec.modalities or parts.modalities,
            head=spec.head,
            regions=spec.regions or (tuple(parts.scheme.regions) if spec.head == "sigmoid" else None),
            network=spec.network,
            spatial=spec.spatial,
            normalise=spec.normalise,
            inference=spec.inference,
        )

    @property
    def weights(self) -> tuple[Path, ...]:
        """The files or folders that the study names, those of this fold."""
        named = self.spec.weights
        every = () if named is None else (named,) if isinstance(named, str) else named
        number = "" if self.fold.number is None else str(self.fold.number)
        if self.fold.number is not None and every and not any("{fold}" in path for path in every):
            raise ConfigError(
                f"the victim {self.name!r} would be tested on cases that it may have seen",
                got=f"the same weights for every fold: {list(every)}",
                expected="weights of each fold, {fold} in the place of its number",
                advice=f'set victims.{self.name}.weights to e.g. "models/unet/fold_{{fold}}"',
            )
        return tuple(Path(path.replace("{fold}", number)).expanduser() for path in every)

    def check_from_outside(self, what: str, seen: Set[str]) -> None:
        """Refuse a victim of a fold that medadv made, if nothing tells what it has seen: it cannot know such a fold.

        Raises:
            ConfigError: it may have seen any case of the fold.
        """
        if self.fold.made and not seen:
            raise ConfigError(
                f"the victim {self.name!r} cannot be one of a fold that this study made",
                got=f"{what}, which does not say what it was trained on",
                expected="victims that medadv trained, or folds that the data set declares",
                cause="its training had folds of its own, and most cases would be scored by a model that has seen them",
                advice="set split.folds to data, and declare the folds of that training in the data; or "
                "leave out split.folds, and name the cases that it has not seen in split.test",
            )

    def check_unseen(self, voxels: Set[str], patients: Set[str] = frozenset()) -> None:
        """Refuse weights that have seen what they would be tested on.

        Args:
            voxels: the digests of what they have seen.
            patients: whom they have seen, by the names that results give them.

        Raises:
            ConfigError: a case, or another scan of a patient, would be tested.
        """
        digests = self.parts.digests
        if leaked := [c.case for c in self.fold.test if c.case in digests and digests[c.case].voxels in voxels]:
            raise ConfigError(
                f"the victim {self.name!r} was trained on cases that it would be tested on",
                got=leaked[:5],
                cause="weights of another split, or one scan under two ids",
                advice="test on other cases, or train the victim anew under another study's name",
            )
        if met := [c.case for c in self.fold.test if c.patient in patients]:
            raise ConfigError(
                f"the victim {self.name!r} was trained on other scans of patients that it would be tested on",
                got=met[:5],
                cause="weights of another split; or other people, whom both data sets call by one id",
                advice="test on other patients; give other people other ids",
            )


def untrained(entry: Entry, seed: int, device: torch.device) -> Segmenter:
    """The victim as the study describes it, with fresh weights; it reads its own modalities."""
    declared = entry.intended
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build_network(entry.spec.network, *declared.channels).to(device)
    return declared.deployed(network)


def train_entry(entry: Entry, seed: int, device: torch.device, watch: Watch) -> Segmenter:
    """Train a victim on the clean training cases and keep it.

    Raises:
        ConfigError: nothing to train on.
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
    watch.say(f"training {_called(entry)} on {len(fold.train)} cases, validated on {len(fold.validate)}")
    with _memory_suffices(entry):
        bare = _learnt(entry, seed, device, watch)
    patients = [case.patient for case in (*fold.train, *fold.validate) if case.patient]
    save_victim(bare, entry.spec.network, entry.folder, seen, patients)
    (entry.folder / CHECKPOINT).unlink(missing_ok=True)
    return bare


def _learnt(entry: Entry, seed: int, device: torch.device, watch: Watch) -> Segmenter:
    """The victim with the weights of its best validation."""
    fold, spec, name = entry.fold, entry.spec, entry.name
    bare = untrained(entry, seed, device)
    network, head = bare.network, bare.head
    victim = bare.reading(entry.parts.modalities)
    crops = Crops(_Examples(victim, entry), spec.training.roi, spec.training.batch, spec.training.flips, seed)

    def validate() -> float:
        return 1 - sum(_dice_lost(victim, read_labelled(case), device) for case in fold.validate) / len(fold.validate)

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
        lambda step: crops(step).to(device),
        spec.training.schedule(seed),
        folder=entry.folder,
        validate=validate,
        watch=told,
    )
    return bare


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


class _Examples(Sequence[Example]):
    """The training cases, preprocessed whole. As many as fit into ``MEMORY`` stay there, the others in the cache."""

    def __init__(self, victim: Segmenter, entry: Entry) -> None:
        self._cases = cases = entry.fold.train
        pipeline = victim.preprocessing()
        made_by = {name: pipeline.get(name) for name in ("modalities", "given", "preprocess", "scheme")}
        everything_fits = True

        def prepared(index: int) -> Example:
            if everything_fits:
                return Example(**_preprocessed(victim, cases[index]))
            digests = entry.parts.digests[cases[index].case]
            key = {"voxels": digests.voxels, "label": digests.label, **made_by, "versions": versions()}
            return Example(**entry.cache.get(key, lambda: _preprocessed(victim, cases[index])))

        first = prepared(0)
        room = max(1, MEMORY // (first.z.nbytes + first.truth.nbytes))
        everything_fits = room >= len(cases)
        self._prepared = lru_cache(maxsize=room)(prepared)

    def __len__(self) -> int:
        return len(self._cases)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self._prepared(i) for i in range(*index.indices(len(self)))]
        return self._prepared(index)


def _preprocessed(victim: Segmenter, case: Case) -> dict[str, torch.Tensor]:
    """A case as the network is fed it, ``z (c, *s)``, and its label map on that grid, in the victim's numbers."""
    volume = read_labelled(case)
    assert volume.truth is not None
    x = victim.own(volume.x[None])
    way = Way.prepared(victim.steps, x, volume.affine)
    truth = volume.case.scheme.translate(volume.truth, victim.head.scheme)
    return {"z": way(x)[0], "truth": way.labels(truth[None])[0]}


def _dice_lost(victim: Segmenter, volume: Volume, device: torch.device) -> float:
    assert volume.truth is not None
    truth = volume.case.scheme.translate(volume.truth, victim.head.scheme)[None].to(device)
    targets = victim.targets(truth)
    return dice_lost(targets.where, victim.at(volume.affine)(volume.x[None].to(device)), targets).item()
