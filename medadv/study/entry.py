"""A victim of a study, before it is made: what it is to be, and which cases it may see."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

from medadv.data.cache import Cache
from medadv.errors import ConfigError
from medadv.study.cohort import Parts
from medadv.study.defences import Teacher, temperature
from medadv.study.entrants import Entrant, VictimSpec
from medadv.study.progress import Learner
from medadv.study.records import digest
from medadv.study.spec import Study
from medadv.study.split import Fold
from medadv.victims.checkpoint import CARD
from medadv.victims.declared import Declared
from medadv.victims.declared_detector import DeclaredDetector
from medadv.victims.defended import Protection

SAID = frozenset(("modalities", "head", "regions", "network", "spatial", "normalise", "inference", "names", "folds"))
"""The settings of a victim that its own file may contradict, or leave open."""


@dataclass(frozen=True)
class Entry:
    """One victim of one fold, as the study asks for it.

    Attributes:
        study: the specification.
        entrant: how it is made and deployed, and by whom it is taught.
        parts: the study's cases.
        fold: which of them it may see, and is attacked on.
        folder: where it is kept when it was trained here.
        cache: where preprocessed training cases lie that do not all fit into memory.
    """

    study: Study
    entrant: Entrant
    parts: Parts
    fold: Fold
    folder: Path
    cache: Cache

    @classmethod
    def of(cls, study: Study, entrant: Entrant, parts: Parts, fold: Fold, folder: Path) -> Entry:
        """A victim of a fold in a run's folder."""
        own = folder / "victims" / entrant.name
        place = own if fold.number is None else own / f"fold_{fold.number}"
        return cls(study, entrant, parts, fold, place, Cache(folder / "cache"))

    @property
    def name(self) -> str:
        """In the study."""
        return self.entrant.name

    @property
    def spec(self) -> VictimSpec:
        """What the study says of it, with what it takes from the victim that it is like."""
        return self.entrant.spec

    @property
    def soft_labels(self) -> Path:
        """Where its teacher's soft labels lie while it learns."""
        return self.folder / "soft_labels"

    @property
    def seed(self) -> int:
        """Of its weights and of its crops: the study's, so that a defence begins like the undefended victim.

        A teacher has one of its own. Else it would be the undefended network again, and what transfers from it no news.
        """
        own = isinstance(self.spec.defence, Teacher)
        return int(digest([self.study.seed, self.name])[:8], 16) if own else self.study.seed

    @property
    def temperature(self) -> float:
        """At which it is trained."""
        return temperature(self.spec.defence)

    @property
    def made(self) -> bool:
        """Whether there is nothing to be trained: it has weights, was trained before, or is put behind a protection."""
        return bool(self.weights) or isinstance(self.spec.defence, Protection) or (self.folder / CARD).exists()

    @property
    def learner(self) -> Learner:
        """What it is called while it is trained."""
        defence = self.spec.defence
        return Learner(self.name, self.fold.number, "none" if defence is None else defence.name)

    @property
    def declared(self) -> Declared | DeclaredDetector:
        """What the study says of it, and no default; of a detector all of it."""
        if self.spec.detects:
            return self.intended
        written = {name: getattr(self.spec, name) for name in sorted(SAID & self.spec.model_fields_set)}
        return Declared(self.parts.scheme, data=self.parts.modalities, **written)

    @property
    def intended(self) -> Declared | DeclaredDetector:
        """How it is deployed where the study makes it, or Python brings a bare network: defaults included."""
        spec, parts = self.spec, self.parts
        if spec.detects:
            modalities = spec.modalities or parts.modalities
            return DeclaredDetector(parts.scheme, spec.network, modalities, spec.normalise, spec.matching, spec.sight)
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
