"""Which cases a study has, what they are called in it, and how they are divided."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

from medadv.data.brats import brats_cohort
from medadv.data.case import Case, Cohort, Refusal
from medadv.data.msd import msd_cohort
from medadv.data.phantom import phantom
from medadv.errors import ConfigError, Reason, RunError
from medadv.labels import LabelScheme
from medadv.study.inputs import Digests, examine
from medadv.study.names import Names
from medadv.study.progress import Watch
from medadv.study.spec import NAME, BratsData, MsdData, Study
from medadv.study.split import Fold, divide


@dataclass(frozen=True)
class Parts:
    """A study's cases by their use, under the names that its results give them.

    Attributes:
        folds: the division of the cases: one, or those of a cross-validation.
        refused: the cases that are not used.
        digests: case → the digests of its voxels and label.
        names, ids: what ids are told as, and all ids that the data have.
    """

    folds: tuple[Fold, ...]
    refused: Sequence[Refusal]
    modalities: tuple[str, ...]
    scheme: LabelScheme
    digests: Mapping[str, Digests]
    names: Names
    ids: Set[str]

    @property
    def test(self) -> Sequence[Case]:
        """The cases that are attacked, of all folds."""
        return [case for fold in self.folds for case in fold.test]

    def disguised(self, text: str) -> str:
        """A message as results may hold it: files are called after cases."""
        return self.names.disguised(text, self.ids)


def gather(study: Study, folder: Path, names: Names, watch: Watch, alone: bool = True) -> Parts:
    """Import the study's data, pass every case through the gate, and split what is left.

    Cases are examined before the split, so that one bad case moves no other from one part to another.

    Args:
        study: the specification.
        folder: the run's folder; phantoms are written into it, and the table of pseudonyms.
        names: what the cases are called in the results.
        watch: told of the reading.
        alone: whether this is the only process; parts of a study write no data.

    Raises:
        ConfigError: no such data, or a split that the data cannot serve.
        RunError: phantoms that must be made first.
    """
    cohort = _named_plainly(_imported(study, folder, alone), names)
    digests, refused = examine(cohort.cases, folder / "inputs.json", watch)
    refused = [*cohort.refused, *refused]
    usable = [case for case in cohort.cases if case.case in digests]
    if not usable:
        raise ConfigError(
            f"no case in {getattr(study.data, 'root', None)} can be used",
            got="\n       ".join(f"{r.case}: {r.message.splitlines()[0]}" for r in refused[:3]),
            advice="check data.root, data.importer and data.release",
        )
    unused = {refusal.case for refusal in refused}
    folds = divide(study.split, study.seed, usable, unused, names, folder / "split.json")
    if not any(fold.test for fold in folds):
        raise ConfigError(
            "no case is left to be attacked",
            got=f"{len(usable)} usable cases, {len(folds[0].train)} to train, {len(folds[0].validate)} to validate",
            advice="lower split.train and split.validate",
        )
    ids = {c.case for c in cohort.cases} | {r.case for r in refused} | {c.patient for c in cohort.cases if c.patient}
    names.keep(ids, folder / "ids.local.json")
    told = tuple(
        Fold(fold.number, *([names.renamed(case) for case in part] for part in (fold.train, fold.validate, fold.test)))
        for fold in folds
    )
    hidden = [Refusal(names[r.case], r.reason, names.disguised(r.message, ids)) for r in refused]
    known = {names[case]: digest for case, digest in digests.items()}
    return Parts(told, hidden, cohort.modalities, cohort.scheme, known, names, ids)


def _imported(study: Study, folder: Path, alone: bool) -> Cohort:
    data = study.data
    if isinstance(data, BratsData):
        return brats_cohort(Path(data.root).expanduser(), data.release)
    if isinstance(data, MsdData):
        return msd_cohort(Path(data.root).expanduser())
    root = Path(data.root).expanduser() if data.root else folder / "phantom"
    if alone:
        return phantom(root, data.cases, data.shape, study.seed)
    if len(list(root.glob("Phantom_*"))) < data.cases:
        raise RunError("the phantoms are not made yet", advice="run `medadv train` on this study first, then its parts")
    return brats_cohort(root, "2021")


def _named_plainly(cohort: Cohort, names: Names) -> Cohort:
    """Ids that become file names as they are must be able to."""
    odd = [] if names.key is not None else [case for case in cohort.cases if not NAME.fullmatch(case.case)]
    refused = [
        Refusal(
            "case-" + hashlib.sha256(case.case.encode()).hexdigest()[:12],
            Reason.NAME,
            f"the id {case.case!r} makes no file name; rename the case, or let ids be pseudonyms",
        )
        for case in odd
    ]
    return replace(cohort, cases=[c for c in cohort.cases if c not in odd], refused=[*cohort.refused, *refused])
