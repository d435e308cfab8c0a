"""One case with one victim, side by side: the volume in memory, the victim that has not seen it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import chain
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from medadv.data.case import Case, Volume
from medadv.data.support import Support, support
from medadv.errors import CaseError, Reason, RunError
from medadv.objects import Truth
from medadv.study.conditions import Image
from medadv.study.folder import RunFolder
from medadv.study.inputs import Digests, digests_of, read_labelled
from medadv.study.maps import GivenMap, read_map
from medadv.study.records import digest
from medadv.study.tasks import Answer, Subject, Task, task_of
from medadv.victims.memory import is_full
from medadv.victims.segmentation import weights_digest
from medadv.victims.thrift import Visiting

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Contestant:
    """A victim with its name in the study: one for all cases, or in a cross-validation one for each fold.

    Attributes:
        victims: case → the victim that is attacked on it, and has not seen it.
        savings: what was done so far to need less memory; grows when the device is full.
    """

    name: str
    victims: Mapping[str, Subject]
    savings: list[str] = field(default_factory=list)

    @property
    def first(self) -> Subject:
        """The victim of one fold: what they are asked, and can answer, is the same for every fold."""
        return next(iter(self.victims.values()))

    def identity(self, case: str) -> dict[str, Any]:
        """What the victim of a case is: weights, the network's layers as they print themselves, and the pipeline.

        What a network of one's own does in its ``forward`` beyond its layers is not seen.
        """
        return _identity(self.victims[case])


@lru_cache(maxsize=64)
def _identity(victim: Subject) -> dict[str, Any]:
    network = victim.network
    return {
        "weights": weights_digest(network),
        "network": digest([type(network).__qualname__, repr(network)]),
        "deployed": victim.preprocessing(),
    }


class Bench:
    """One case with one victim: the volume in memory, and what its conditions have delivered so far.

    The volume is read when the first unfinished cell asks for it; a case whose cells are all done is never read.
    Voxels lie on the victim's device, answers in the computer's own memory.
    """

    def __init__(
        self,
        folder: RunFolder,
        contestant: Contestant,
        case: Case,
        digests: Digests,
        maps: Mapping[str, GivenMap] = MappingProxyType({}),
    ) -> None:
        self.folder = folder
        self.contestant = contestant
        self.case = case
        self.digests = digests
        self.maps = maps
        self.stored: dict[str, Image] = {}
        self._supports: dict[Support, Bool[Tensor, "1 c *s"]] = {}

    @cached_property
    def volume(self) -> Volume:
        """The case, which must be what it was when the study began."""
        volume = read_labelled(self.case)
        if digests_of(volume) != self.digests:
            raise RunError(
                f"the case {self.case.case} has changed since the study began",
                cause="its files were written anew while the study ran",
                advice="run the same command again: the case is then a new one",
            )
        return volume

    @cached_property
    def victim(self) -> Subject:
        """The victim of this case, told where its voxels lie, with all savings made so far."""
        victim: Subject = self.contestant.victims[self.case.case].at(self.volume.affine)
        for saving in self.task.savings:
            if saving.name in self.contestant.savings:
                victim = saving.apply(victim) or victim
        return victim

    def within_memory(self, work: Callable[[], Result]) -> Result:
        """Do what may fill the memory, with one saving after the other, for this case and all later ones.

        Raises:
            CaseError: OUT_OF_MEMORY, when no saving is left.
        """
        while True:
            try:
                return work()
            except (RuntimeError, MemoryError, OSError) as error:
                if not is_full(error):
                    raise
                problem = (str(error).splitlines() or [type(error).__name__])[0]
            gc.collect()  # now that the error, whose frames hold the volumes, is gone
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self._save(problem)

    def _save(self, problem: str) -> None:
        made = self.contestant.savings
        for saving in self.task.savings:
            thrifty = None if saving.name in made else saving.apply(self.victim)
            if thrifty is not None:
                made.append(saving.name)
                self.victim = thrifty
                self._move()
                return
        raise CaseError(
            Reason.OUT_OF_MEMORY,
            f"{self.case.case} does not fit into the memory",
            got=problem,
            advice=f"tried already: {', '.join(made) or 'nothing that would help'}; give more, or take another device",
        )

    def _move(self) -> None:
        """What lies where volumes lay before is brought to where they lie now, or found anew."""
        self.__dict__.pop("x", None)
        self._supports.clear()
        self.stored = {name: x.to(self.device) for name, x in self.stored.items()}

    @property
    def device(self) -> torch.device:
        """Where volumes lie: with the victim, unless only windows visit it."""
        if isinstance(self.victim.network, Visiting):
            return torch.device("cpu")
        return next(chain(self.victim.network.parameters(), self.victim.network.buffers()), self.volume.x).device

    @cached_property
    def x(self) -> Image:
        """The clean voxels, ``(1, c, *s)``."""
        return self.volume.x[None].to(self.device)

    @cached_property
    def task(self) -> Task:
        """What the victim is asked."""
        return task_of(self.contestant.victims[self.case.case])

    @property
    def truth(self) -> Answer:
        """What the expert says, in the data's numbers."""
        return self.task.truth(self.volume)

    @property
    def posed(self) -> Truth:
        """The same as the victim is attacked on it: a batch of one, in its own numbers."""
        posed = self.task.posed(self.truth, self.case.scheme, self.victim.scheme)
        return posed.to(self.device) if isinstance(posed, Tensor) else [each.to(self.device) for each in posed]

    def given(self, folder: str) -> Int[Tensor, "1 *s"]:
        """The map that a folder gives for this case, in the victim's numbers.

        Raises:
            RunError: it is not what it was when the study began.
        """
        labels, found = read_map(self.maps[folder].path, self.volume)
        if found != self.maps[folder].digest:
            raise RunError(
                f"the given map of {self.case.case} has changed since the study began",
                cause="its file was written anew while the study ran",
                advice="run the same command again: it is then another map",
            )
        return self.case.scheme.translate(labels, self.victim.scheme)[None].to(self.device)

    @cached_property
    def answer(self) -> Answer:
        """The deployed answer to the clean case."""
        return self.predict(self.x)

    def predict(self, x: Image) -> Answer:
        """The deployed answer, told in the data's numbers."""
        return self._told(self.victim.predict(x))

    def agreement(self, x: Image, answer: Answer) -> float:
        """The share of voxels on which the way that is differentiated decides like the deployed answer to ``x``."""
        return self.task.agreement(self._told(self.victim.decided(x)), answer)

    def certainty(self, x: Image) -> dict[str, float] | None:
        """How sure the deployed answer to ``x`` is; None where nobody knows."""
        return self.task.certainty(self.victim, x, self.posed)

    def _told(self, decision: Any) -> Answer:
        return self.task.told(decision, self.victim.scheme, self.case.scheme)

    def support(self, kind: Support) -> Bool[Tensor, "1 c *s"]:
        """Where voxels may change, by the study's rule.

        Raises:
            CaseError: the rule needs a mask that the case does not have, or finds nothing.
        """
        if kind not in self._supports:
            self._supports[kind] = support(self.volume, kind)[None].to(self.device)
        return self._supports[kind]

    def rest(self) -> None:
        """Give back the memory while other victims have their turn; what conditions still to come need stays."""
        for name in ("volume", "x", "victim", "answer"):
            self.__dict__.pop(name, None)
        self._supports.clear()
        self.stored = {name: x.cpu() for name, x in self.stored.items()}

    def keep(self, needed: Collection[str]) -> None:
        """Let go of what no condition still to come needs."""
        self.stored = {name: x for name, x in self.stored.items() if name in needed}
