"""The victims of a study: loaded, given by Python, or trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import overload

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medadv.attack.checks import check_answer, check_steady
from medadv.attack.objective import dice_lost
from medadv.attack.victim import held_still
from medadv.data.case import Case, Volume
from medadv.defense.crops import Crops, Example
from medadv.defense.lessons import Plain
from medadv.defense.training import CHECKPOINT, Point, fit
from medadv.errors import ConfigError, GradientError, RunError, VictimError
from medadv.labels import BACKGROUND, LabelScheme
from medadv.study.cells import Contestant
from medadv.study.cohort import Parts
from medadv.study.folder import RunFolder
from medadv.study.inputs import read_labelled
from medadv.study.progress import Watch
from medadv.study.spec import Study, VictimSpec
from medadv.victims.checkpoint import CARD, load_victim, save_victim, training_cases
from medadv.victims.head import make_head
from medadv.victims.networks import build_network
from medadv.victims.preprocess import Way
from medadv.victims.segmentation import Segmenter

MEMORY = 4 * 2**30
"""How many bytes of training cases are kept in memory."""

Given = Segmenter | nn.Module
"""What Python may bring in: a victim, or a bare network."""


def line_up(
    study: Study, parts: Parts, folder: RunFolder, given: Mapping[str, Given], watch: Watch, may_train: bool
) -> list[Contestant]:
    """All victims of a study, ready to be attacked.

    Args:
        study: the specification.
        parts: the cases, of which the training and validation ones are used here.
        folder: where trained victims are kept, and found again.
        given: victims from Python, or networks to be deployed as the study says, by the name that it gives them.
        watch: told of the training.
        may_train: a part of a study may not: two parts would train the same victim.

    Raises:
        ConfigError: a given victim that the study does not name, or modalities and labels that do not fit the data.
        RunError: a victim that must be trained first.
    """
    if unknown := set(given) - set(study.victims):
        raise ConfigError(
            "victims were given that the study does not name", got=sorted(unknown), expected=list(study.victims)
        )
    contestants = []
    for name, spec in study.victims.items():
        own = folder.path / "victims" / name
        victim = _deployed(given[name], spec, parts) if name in given else _loaded(spec, own, parts, name)
        if victim is None and not may_train:
            raise RunError(f"the victim {name!r} is not trained yet", advice="run `medadv train` on this study first")
        if victim is None:
            watch.say(f"training {name} on {len(parts.train)} cases, validated on {len(parts.validate)}")
            victim = _train(name, spec, study.seed, parts, own, watch)
        victim.check_fit(parts.modalities, parts.scheme)
        contestants.append(Contestant(name, victim))
    return contestants


def _deployed(given: Given, spec: VictimSpec, parts: Parts) -> Segmenter:
    """A victim from Python; a bare network is deployed as the study's specification says."""
    if isinstance(given, Segmenter):
        return given
    head = make_head(spec.head, parts.scheme, spec.regions)
    return Segmenter(given, head, parts.modalities, spec.normalise, spec.inference)


def _loaded(spec: VictimSpec, own: Path, parts: Parts, name: str) -> Segmenter | None:
    """A victim from the disk: the weights that the study names, or those that it has trained before."""
    folder = own if spec.weights is None else Path(spec.weights).expanduser()
    if spec.weights is None and not (own / CARD).exists():
        return None
    victim = load_victim(folder)
    _check_unseen(name, folder, parts)
    return victim


def _check_unseen(name: str, folder: Path, parts: Parts) -> None:
    """Refuse weights that have seen what they would be tested on."""
    seen = training_cases(folder)
    if leaked := [case.case for case in parts.test if parts.digests[case.case].voxels in seen]:
        raise ConfigError(
            f"the victim {name!r} was trained on cases that it would be tested on",
            got=leaked[:5],
            advice="test on other cases, or train the victim anew under another study's name",
        )


def answerable(study: Study, scheme: LabelScheme, contestants: Sequence[Contestant]) -> tuple[str, ...]:
    """What is scored: what the study names, or else all that every victim can tell.

    Raises:
        ConfigError: a victim's head cannot tell a region that the study scores or attacks.
    """
    goals = [name for attack in study.attacks.values() for name in attack.names]
    for contestant in contestants:
        head = contestant.victim.head
        asked = [n for n in (*(study.regions or ()), study.primary.region, *goals) if n != BACKGROUND]
        if mute := sorted({name for name in asked if not head.answers(name)}):
            raise ConfigError(
                f"the head of the victim {contestant.name!r} cannot tell what the study asks for",
                got=mute,
                expected=f"what its channels {list(head.channels)} can tell",
                advice="ask for other regions, or give the victim a head with these channels",
            )
    every = study.regions or scheme.names
    return tuple(name for name in every if all(c.victim.head.answers(name) for c in contestants))


def try_out(contestant: Contestant, x: Float[Tensor, "1 c *s"]) -> None:
    """Ask a victim once before a study rests on its answers.

    Raises:
        VictimError: it cannot answer this case, answers differently when it is asked again, or in probabilities.
        GradientError: its answer has no gradient.
    """
    victim = contestant.victim
    with _sizes_fit(contestant.name):
        check_steady(victim, x)
    with held_still(victim.modules()):
        x = x.clone().requires_grad_()
        try:
            answer = victim(x)
            torch.autograd.grad(answer.sum(), x)
        except RuntimeError as error:
            raise GradientError(
                f"the answer of the victim {contestant.name!r} cannot be differentiated",
                got=str(error).splitlines()[0],
                cause="a detach(), a no_grad(), a step through NumPy or a rounding inside the network",
                advice="look for what cuts the graph between the network's input and its answer",
            ) from error
    check_answer(answer.detach())


@contextmanager
def _sizes_fit(name: str) -> Iterator[None]:
    """What networks raise about sizes is torch's; what is wrong is the study's."""
    try:
        yield
    except RuntimeError as error:
        raise VictimError(
            f"the victim {name!r} cannot answer crops, windows or volumes of this size",
            got=str(error).splitlines()[0],
            cause="sizes that the network cannot halve and double again, or a network for another number of axes",
            advice="let training.roi and inference.roi be multiples of all strides together, e.g. of 16",
        ) from error


def _train(name: str, spec: VictimSpec, seed: int, parts: Parts, folder: Path, watch: Watch) -> Segmenter:
    """Train a victim on the clean training cases and keep it."""
    if not parts.train or not parts.validate:
        raise ConfigError(
            f"the victim {name!r} has no weights, and there is nothing to train it on",
            got=f"{len(parts.train)} training and {len(parts.validate)} validation cases",
            advice=f"set split.train and split.validate, or victims.{name}.weights",
        )
    head = make_head(spec.head, parts.scheme, spec.regions)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build_network(spec.network, len(parts.modalities), len(head.channels))
    victim = Segmenter(network, head, parts.modalities, spec.normalise, spec.inference)
    crops = Crops(_Examples(victim, parts.train), spec.training.roi, spec.training.batch, spec.training.flips, seed)

    def validate() -> float:
        return 1 - sum(_dice_lost(victim, read_labelled(case)) for case in parts.validate) / len(parts.validate)

    def told(point: Point, _steps: int) -> None:
        watch.step(f"loss {point.loss:.3f}" + (f", validation Dice {point.dice:.3f}" if point.dice is not None else ""))

    lesson = Plain(network, head)
    with _sizes_fit(name), held_still([network]), torch.no_grad():
        lesson(crops(0))
        victim(read_labelled(parts.validate[0]).x[None])
    watch.task(f"train {name}", spec.training.steps)
    fit(
        lesson,
        network,
        crops,
        spec.training.schedule(seed),
        folder=folder,
        validate=validate,
        watch=told,
    )
    seen = [parts.digests[case.case].voxels for case in (*parts.train, *parts.validate)]
    save_victim(victim, spec.network, folder, seen)
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return victim


class _Examples(Sequence[Example]):
    """The training cases, normalised whole. As many as fit into ``MEMORY`` stay there; the others are read again."""

    def __init__(self, victim: Segmenter, cases: Sequence[Case]) -> None:
        self._cases = cases

        def prepared(index: int) -> Example:
            volume = read_labelled(cases[index])
            assert volume.truth is not None
            way = Way.prepared(victim.steps, volume.x[None], volume.affine)
            return Example(way(volume.x[None])[0], way.labels(volume.truth[None])[0])

        first = prepared(0)
        size = first.z.nbytes + first.truth.nbytes
        self._prepared = lru_cache(maxsize=max(1, MEMORY // size))(prepared)

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


def _dice_lost(victim: Segmenter, volume: Volume) -> float:
    assert volume.truth is not None
    targets = victim.targets(volume.truth[None])
    return dice_lost(targets.where, victim(volume.x[None]), targets).item()
