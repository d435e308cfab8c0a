"""Which cases a study has, what they are called in it, and how they are divided."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medadv.data.brats import GRADES
from medadv.data.case import Case, Cohort, Refusal
from medadv.data.census import ENDING
from medadv.errors import CaseError, ConfigError, Reason
from medadv.labels import LabelScheme
from medadv.study.inputs import Digests, examine
from medadv.study.maps import GivenMap, examine_maps
from medadv.study.names import Names
from medadv.study.progress import Watch
from medadv.study.sources import PATHS, imported
from medadv.study.spec import NAME, Study
from medadv.study.split import Fold, divide
from medadv.study.tasks import SEGMENTATION, Task

MOST_STRATA = 20
FEWEST_IN_A_STRATUM = 3
"""On the average. One whose stratum is all but a name of its own can be told by whoever knows the data set."""


@dataclass(frozen=True)
class Parts:
    """A study's cases by their use, under the names that its results give them.

    Attributes:
        folds: the division of the cases: one, or those of a cross-validation.
        refused: the cases that are not used.
        digests: case → the digests of its voxels and label.
        names: what ids are told as.
        words: ids and names of files → what messages tell them as.
        own: case → the id that the data give it.
        maps: case → folder → the label map that is to be drawn.
    """

    folds: tuple[Fold, ...]
    refused: Sequence[Refusal]
    modalities: tuple[str, ...]
    scheme: LabelScheme
    digests: Mapping[str, Digests]
    names: Names
    words: Mapping[str, str]
    own: Mapping[str, str] = field(default_factory=dict)
    maps: Mapping[str, Mapping[str, GivenMap]] = field(default_factory=dict)

    @property
    def test(self) -> Sequence[Case]:
        """The cases that are attacked, of all folds."""
        return [case for fold in self.folds for case in fold.test]

    def disguised(self, text: str) -> str:
        """A message as results may hold it: files are called after cases."""
        return self.names.disguised(text, self.words)


def gather(
    study: Study,
    folder: Path,
    names: Names,
    watch: Watch,
    alone: bool = True,
    tasks: Collection[Task] = (SEGMENTATION,),
) -> Parts:
    """Import the study's data, pass every case through the gate, and split what is left.

    Cases are examined before the split, so that one bad case moves no other from one part to another.

    Args:
        study: the specification.
        folder: the run's folder; phantoms are written into it, and the table of pseudonyms.
        names: what the cases are called in the results.
        watch: told of the reading.
        alone: whether this is the only process; parts of a study write no data.
        tasks: what the victims are asked: a case whose truth is not known for one of them is not used.

    Raises:
        ConfigError: no such data, strata that would tell who is who, or a split that the data cannot serve.
        RunError: phantoms that must be made first.
    """
    cohort = _named_plainly(imported(study.data, folder, study.seed, alone), names)
    if names.key is not None:
        check_strata(cohort)
    asked, mute = _labelled(cohort.cases, tasks)
    digests, refused = examine(asked, folder / "inputs.json", watch)
    refused = [*cohort.refused, *mute, *refused, *_twins(cohort.cases, digests)]
    twins = {refusal.case for refusal in refused}
    usable = [case for case in cohort.cases if case.case in digests and case.case not in twins]
    if not usable:
        raise _none_usable(study, refused)
    unused = {refusal.case for refusal in refused}
    folds = divide(study.split, study.seed, usable, unused, names, folder / "split.json")
    if not any(fold.test for fold in folds):
        raise ConfigError(
            "no case is left to be attacked",
            got=f"{len(usable)} usable cases, {len(folds[0].train)} to train, {len(folds[0].validate)} to validate",
            advice="lower split.train and split.validate",
        )
    ids = {c.case for c in cohort.cases} | {r.case for r in refused} | {c.patient for c in cohort.cases if c.patient}
    ids |= {name for refusal in refused for name in refusal.names}
    names.keep(ids, folder / "ids.local.json")
    home = {case.case: fold.number for fold in folds for case in fold.test}

    def told(cases: Sequence[Case]) -> list[Case]:
        return [replace(names.renamed(case), fold=home.get(case.case)) for case in cases]

    renamed = tuple(Fold(f.number, told(f.train), told(f.validate), told(f.test), f.made) for f in folds)
    known = {names[case]: digest for case, digest in digests.items()}
    words = {name: names[name] for name in ids} | file_names(cohort.cases, names)
    hidden = [Refusal(names[r.case], r.reason, names.disguised(r.message, words)) for r in refused]
    own = {names[case]: case for case in digests}
    return Parts(renamed, hidden, cohort.modalities, cohort.scheme, known, names, words, own)


def with_maps(study: Study, parts: Parts, folder: Path, watch: Watch) -> Parts:
    """The parts with the maps that the study's attacks are to draw; a case that lacks one is not attacked.

    The split is not touched: it must not depend on which attacks a study names.

    Raises:
        ConfigError: a folder that does not exist, or maps for none of the cases.
    """
    folders = list(dict.fromkeys(spec.maps for spec in study.attacks.values() if spec.maps is not None))
    if not folders:
        return parts
    maps, refused = examine_maps({parts.own[c.case]: c for c in parts.test}, folders, folder / "maps.json", watch)
    hidden = [replace(refusal, message=parts.disguised(refusal.message)) for refusal in refused]
    if not maps:
        raise ConfigError(
            "no case has a map that an attack could draw",
            got="\n       ".join(refusal.message.splitlines()[0] for refusal in hidden[:3]),
            expected="for each case a file that is called after its id, such as BraTS2021_00006.nii.gz",
            advice="check goal.draw",
        )
    folds = tuple(replace(fold, test=[case for case in fold.test if case.case in maps]) for fold in parts.folds)
    return replace(parts, folds=folds, refused=[*parts.refused, *hidden], maps=maps)


def _none_usable(study: Study, refused: Sequence[Refusal]) -> ConfigError:
    places = [place for key in PATHS if (place := getattr(study.data, key, None))]
    return ConfigError(
        f"no case in {' and '.join(places) or 'the data'} can be used",
        got="\n       ".join(f"{r.case}: {r.message.splitlines()[0]}" for r in refused[:3]),
        advice="check the study's data: its importer, and what is declared of the files",
    )


def _labelled(cases: Sequence[Case], tasks: Collection[Task]) -> tuple[list[Case], list[Refusal]]:
    """The cases whose truth is known for all tasks, and the others."""
    known: list[Case] = []
    refused: list[Refusal] = []
    for case in cases:
        try:
            for task in tasks:
                task.check(case)
            known.append(case)
        except CaseError as error:
            refused.append(Refusal(case.case, error.reason, str(error), error.names))
    return known, refused


def _twins(cases: Sequence[Case], digests: Mapping[str, Digests]) -> Iterator[Refusal]:
    """The cases whose voxels another case has, too: one scan under two ids would count as two patients."""
    first: dict[str, str] = {}
    for case in cases:
        if case.case not in digests:
            continue
        other = first.setdefault(digests[case.case].voxels, case.case)
        if other != case.case:
            message = f"{case.case} has the same voxels as {other}, which is used: one scan under two ids"
            yield Refusal(case.case, Reason.DUPLICATE, message, names=(other,))


def check_strata(cohort: Cohort) -> None:
    """Strata are told as they are, beside pseudonyms: they must be groups, and no names of people.

    The grades of a release are known words. Of other words only their numbers can be judged.

    Raises:
        ConfigError: they are not.
    """
    members: dict[str, set[str]] = {}
    for case in cohort.cases:
        if case.stratum is not None and case.stratum not in GRADES:
            members.setdefault(case.stratum, set()).add(case.patient or case.case)
    people = set[str]().union(*members.values())
    ids = {name.casefold() for case in cohort.cases for name in (case.case, case.patient) if name}
    named = [word for word, who in members.items() if word.casefold() in ids and len(who) < FEWEST_IN_A_STRATUM]
    crowded = len(members) > MOST_STRATA or len(people) < FEWEST_IN_A_STRATUM * len(members)
    if named or crowded:
        raise ConfigError(
            "the strata of the data would tell who is who, and results show them as they are",
            got=f"{len(named)} strata called after a case or patient"
            if named
            else f"{len(members)} strata of {len(people)} patients (cases, where patients are unknown)",
            expected=f"at most {MOST_STRATA} groups, of at least {FEWEST_IN_A_STRATUM} patients on the average",
            cause="{stratum} stands where {patient} or {case} belongs, or the groups are too fine",
            advice="correct or leave out data.stratum (or {stratum} in patterns); of public data, let ids be as-is",
        )


def file_names(cases: Sequence[Case], names: Names) -> dict[str, str]:
    """What files and series are called → case and modality: a list or a folder may call them after people.

    A name that several cases' files have says no more than the modality.
    """
    words: dict[str, str] = {}
    owners: dict[str, str] = {}
    for case in cases:
        one = len(set(case.images.values())) == 1
        kinds = [("image" if one else kind, path) for kind, path in case.images.items()]
        for kind, path in (*kinds, ("label", case.label), ("mask", case.mask)):
            stem = ENDING.sub("", path.name) if path else "label"
            if path is None or stem.lower() in ("image", "label", "mask", "seg", *case.modalities):
                continue
            shared = owners.setdefault(path.name, case.case) != case.case
            words[path.name] = (kind if shared else f"{names[case.case]}_{kind}") + path.name.removeprefix(stem)
    return words


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
