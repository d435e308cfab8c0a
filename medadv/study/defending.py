"""What a defence makes of a training: its lesson, what it learns from, and what its checkpoint is chosen by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medadv.attack.budget import Budget
from medadv.attack.objective import dice_lost
from medadv.data.case import Case, Volume
from medadv.defense.crops import Example, Mixed
from medadv.defense.inner import InnerAttack
from medadv.defense.lessons import Distilled, Hardened, Plain, Trades, check_same_head
from medadv.defense.ranks import ALONE, Group
from medadv.defense.soft_labels import SoftLabels
from medadv.errors import ConfigError
from medadv.study import defences
from medadv.study.attacks import Ifgsm
from medadv.study.defences import Augmentation, Distillation, Hardening, OnLine, Teacher
from medadv.study.drill import Drill
from medadv.study.entry import Entry
from medadv.study.examples import MEMORY, Examples, Inner
from medadv.study.folder import versions
from medadv.study.inputs import read_labelled
from medadv.study.progress import Silent, Watch
from medadv.study.reach import Reach
from medadv.study.tasks import Subject
from medadv.victims.formats.opening import segmenter
from medadv.victims.segmentation import Segmenter, weights_digest

Part = TypeVar("Part")


@dataclass(frozen=True, eq=False)
class Company:
    """The other victims of a fold that a victim is made with.

    Attributes:
        undefended: the one that it is held against, for which attacked copies are found.
        behind: the one that is put behind its protection.
        teacher: whose soft labels it learns.
    """

    undefended: Segmenter | None = None
    behind: Segmenter | None = None
    teacher: Segmenter | None = None

    @classmethod
    def among(cls, made: Mapping[tuple[str, int | None], Subject], entry: Entry) -> Company:
        """Those of an entry, of its fold, among victims that stand above it in the study."""
        entrant, fold = entry.entrant, entry.fold.number
        names = (entrant.undefended, entrant.behind, entrant.teacher)
        return cls(*(None if name is None else segmenter(made[name, fold]) for name in names))


def lesson(entry: Entry, victim: Segmenter, company: Company) -> nn.Module:
    """What the network of a victim is to learn.

    Raises:
        ConfigError: a teacher with another head, or who is shown other images.
    """
    network, head, defence = victim.network, victim.head, entry.spec.defence
    if isinstance(defence, Teacher):
        return Plain(network, head, temperature=defence.temperature)
    if isinstance(defence, Distillation):
        teacher = company.teacher
        assert teacher is not None  # entrants
        _check_taught_alike(victim, teacher)
        return Distilled(network, head, None if defence.labels == "cached" else teacher, defence.temperature)
    if isinstance(defence, defences.AdversarialTraining):
        inner = InnerAttack(defence.steps, defence.size, defence.begins, defence.lowest)
        return Hardened(network, head, inner, defence.share)
    if isinstance(defence, defences.Trades):
        inner = InnerAttack(defence.steps, defence.size, "random", defence.lowest)
        return Trades(network, head, inner, defence.beta)
    return Plain(network, head)


def training_set(
    entry: Entry, victim: Segmenter, company: Company, group: Group = ALONE, watch: Watch | None = None
) -> Sequence[Example] | Mixed:
    """The cases that a victim learns from: for an augmentation with the copies that were found for the undefended one.

    What takes long, copies and cached soft labels, is all made here, each by one rank: in the training ranks would wait
    for each other for minutes at most.

    Args:
        entry: the victim, and its cases.
        victim: whose preprocessing it is.
        company: the undefended victim, the teacher.
        group: the ranks that learn together.
        watch: told of what takes long.

    Raises:
        ConfigError: a budget of the training in units that a normalised image does not have.
        RunError: soft labels of another teacher lie where this one's are to be.
    """
    defence = entry.spec.defence
    if isinstance(defence, OnLine):
        reach = Reach(entry.study.support, entry.study.modalities)
        return Examples(victim, entry, inner=Inner(defence.highest, reach))
    if isinstance(defence, Distillation) and defence.labels == "cached":
        assert company.teacher is not None  # entrants
        taught = Examples(victim, entry, soft=SoftLabels(entry.soft_labels, company.teacher, defence.temperature))
        _beforehand(f"soft labels of {entry.learner.title}", taught.__getitem__, range(len(taught)), group, watch)
        return taught
    if not isinstance(defence, Augmentation):
        return Examples(victim, entry)
    assert company.undefended is not None  # entrants
    drills = [
        Drill(entry.study, spec, Budget.parse(budget))
        for spec in defence.attacks.values()
        for budget in defence.budgets
    ]
    memory = MEMORY // (1 + len(drills))
    found = [_Found(drill, company.undefended, entry) for drill in drills]
    every = [(one, case) for case in entry.fold.train for one in found]
    _beforehand(f"attacked copies of {entry.learner.title}", lambda pair: pair[0](pair[1]), every, group, watch)
    copies = [Examples(victim, entry, voxels=voxels, memory=memory) for voxels in found]
    return Mixed(Examples(victim, entry, memory=memory), copies, defence.share)


def _beforehand(
    title: str, make: Callable[[Part], object], parts: Sequence[Part], group: Group, watch: Watch | None
) -> None:
    """Make what will be found on the disk, each rank its share; then all have it."""
    own, watch = parts[group.rank :: group.size], watch or Silent()
    watch.task(title, len(own))
    for part in own:
        make(part)
        watch.step()
    group.barrier()


def _check_taught_alike(student: Segmenter, teacher: Segmenter) -> None:
    """Both are shown the same normalised crops.

    Raises:
        ConfigError: they are not: other channels, another normalisation or another grid.
    """
    own, other = ({key: v.preprocessing()[key] for key in ("modalities", "preprocess")} for v in (student, teacher))
    check_same_head(student.head, teacher.head)
    if own != other:
        raise ConfigError(
            "teacher and student would be shown other images",
            got=f"a teacher with {other}",
            expected=str(own),
            advice="give both the same modalities, spatial steps and normalisation",
        )


@dataclass(frozen=True, eq=False)
class _Found:
    """Case → the voxels that an attack finds for a victim; asked once, then they lie in the cache."""

    drill: Drill
    victim: Segmenter
    entry: Entry

    def __call__(self, case: Case) -> Float[Tensor, "c *s"]:
        digests = self.entry.parts.digests[case.case]
        key = {
            "voxels": digests.voxels,
            "label": digests.label,
            "found": self.drill.settings(),
            "weights": weights_digest(self.victim.network),
            "deployed": self.victim.preprocessing(),
            "versions": versions(),
        }
        return self.entry.cache.get(key, lambda: {"x": self.drill(self.victim, read_labelled(case))[0].cpu()})["x"]


@dataclass(frozen=True)
class Examination:
    """What a victim is asked on a validation case: Dice as it is deployed, and under attack where it is hardened."""

    entry: Entry

    @property
    def drill(self) -> Drill | None:
        """The attack under which a checkpoint is chosen; None where it is chosen by clean Dice."""
        defence = self.entry.spec.defence
        if not isinstance(defence, Hardening):
            return None
        attack = Ifgsm(preset="ifgsm", steps=defence.validation_steps, loss="dice + cross entropy")
        return Drill(self.entry.study, attack, defence.highest)

    def __call__(self, victim: Segmenter, volume: Volume) -> tuple[float, float | None]:
        """Mean Dice over the tissues, and the same under attack."""
        attacked = None if self.drill is None else self.drill(victim, volume)
        return (
            _dice(victim, volume, volume.x[None].to(victim.device)),
            None if attacked is None else _dice(victim, volume, attacked),
        )


def _dice(victim: Segmenter, volume: Volume, x: torch.Tensor) -> float:
    assert volume.truth is not None  # of labelled cases alone
    truth = volume.case.scheme.translate(volume.truth, victim.scheme)[None].to(x.device)
    targets = victim.targets(truth)
    with torch.no_grad():
        return 1 - dice_lost(targets.where, victim.at(volume.affine)(x), targets).item()
