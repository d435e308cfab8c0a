"""Which cases a study has, what they are called in it, and which of them train, choose and are attacked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

from medadv.atomic import write_text
from medadv.data.case import Case, Cohort, Refusal
from medadv.data.census import ENDING
from medadv.errors import ConfigError, Reason
from medadv.labels import LabelScheme
from medadv.study.inputs import Digests, examine
from medadv.study.names import Names
from medadv.study.progress import Watch
from medadv.study.sources import PATHS, imported
from medadv.study.spec import NAME, Split, Study

ROLES = ("train", "validate", "test")


@dataclass(frozen=True)
class Parts:
    """A study's cases by their use, under the names that its results give them.

    Attributes:
        refused: the cases that are not used.
        digests: case → the digests of its voxels and label.
        names, ids: what ids are told as, and all ids (and other names of files) that the data have.
    """

    train: Sequence[Case]
    validate: Sequence[Case]
    test: Sequence[Case]
    refused: Sequence[Refusal]
    modalities: tuple[str, ...]
    scheme: LabelScheme
    digests: Mapping[str, Digests]
    names: Names
    ids: Set[str]

    def disguised(self, text: str) -> str:
        """A message as results may hold it: files are called after cases."""
        return self.names.disguised(text, self.ids)


def gather(study: Study, folder: Path, names: Names, watch: Watch, alone: bool = True) -> Parts:
    """Import the study's data, pass every case through the gate, and split what is left.

    Cases are examined before the split, so that one bad case moves no other from one part to another. The first split
    is remembered: a case that is found or mended later joins the test part, and none ever leaves its part.

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
    cohort = _named_plainly(imported(study.data, folder, study.seed, alone), names)
    digests, refused = examine(cohort.cases, folder / "inputs.json", watch)
    refused = [*cohort.refused, *refused]
    usable = [case for case in cohort.cases if case.case in digests]
    if not usable:
        places = [place for key in PATHS if (place := getattr(study.data, key, None))]
        raise ConfigError(
            f"no case in {' and '.join(places) or 'the data'} can be used",
            got="\n       ".join(f"{r.case}: {r.message.splitlines()[0]}" for r in refused[:3]),
            advice="check the study's data: its importer, and what is declared of the files",
        )
    parts = _remembered(study, usable, {refusal.case for refusal in refused}, names, folder / "split.json")
    if not parts[2]:
        raise ConfigError(
            "no case is left to be attacked",
            got=f"{len(usable)} usable cases, {len(parts[0])} to train, {len(parts[1])} to validate",
            advice="lower split.train and split.validate",
        )
    ids = {c.case for c in cohort.cases} | {r.case for r in refused} | {c.patient for c in cohort.cases if c.patient}
    names.keep(ids, folder / "ids.local.json")
    train, validate, test = ([names.renamed(case) for case in part] for part in parts)
    known = {names[case]: digest for case, digest in digests.items()}
    spoken = ids | _file_names(cohort)
    hidden = [Refusal(names[r.case], r.reason, names.disguised(r.message, spoken)) for r in refused]
    return Parts(train, validate, test, hidden, cohort.modalities, cohort.scheme, known, names, spoken)


def _file_names(cohort: Cohort) -> set[str]:
    """What files are called that only one case has, where that is not its id: a list may call them after people."""
    owners: dict[str, set[str]] = {}
    for case in cohort.cases:
        for path in (*case.images.values(), case.label, case.mask):
            name = ENDING.sub("", path.name) if path else case.case
            if case.case not in name:
                owners.setdefault(name, set()).add(case.case)
    plain = {"image", "label", "mask", "seg", *cohort.modalities}
    return {name for name, cases in owners.items() if len(cases) == 1 and name.lower() not in plain}


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


def _remembered(
    study: Study, cases: Sequence[Case], refused: Set[str], names: Names, path: Path
) -> tuple[list[Case], list[Case], list[Case]]:
    """The split as it was first made; cases that are new since then are tested, or not used."""
    split = study.split.model_dump(mode="json", by_alias=True)
    asked = {k: [names[i] for i in v] if isinstance(v, list) else v for k, v in split.items()} | {"seed": study.seed}
    try:
        memory = json.loads(path.read_text(encoding="utf-8"))
        same = memory["asked"] == asked
        roles: dict[str, str] = memory["roles"] if same else {}
        learnt: set[str] = set(memory["learnt"]) if same else set()
    except (OSError, ValueError, KeyError, TypeError):
        roles, learnt = {}, set()
    if not roles:
        for role, part in zip(ROLES, _split(cases, study.split, study.seed, refused), strict=True):
            roles |= {names[case.case]: role for case in part}
    patients = {names[c.case]: names[c.patient] for c in cases if c.patient}
    learnt |= {patient for name, patient in patients.items() if roles.get(name) in ("train", "validate")}
    for name in (names[case.case] for case in cases):
        new = "test" if study.split.test == "rest" and patients.get(name) not in learnt else "unused"
        roles.setdefault(name, new)
    write_text(path, json.dumps({"asked": asked, "roles": roles, "learnt": sorted(learnt)}, indent=1))
    place = {name: i for i, name in enumerate(roles)}
    ordered = sorted(cases, key=lambda case: place[names[case.case]])
    train, validate, test = ([c for c in ordered if roles[names[c.case]] == role] for role in ROLES)
    return train, validate, test


def _split(
    cases: Sequence[Case], split: Split, seed: int, refused: Set[str]
) -> tuple[list[Case], list[Case], list[Case]]:
    """Whole patients: those that are named, then the others in the order of a seeded hash of their ids."""
    patients: dict[str, list[Case]] = {}
    for case in cases:
        patients.setdefault(case.patient or case.case, []).append(case)
    by_id = {case.case: case for case in cases}
    wanted = {"train": split.train, "validate": split.validate_, "test": split.test}
    parts = {
        role: _named(by_id, names, role, refused) if isinstance(names, tuple) else []
        for role, names in wanted.items()
    }
    named = [patient for part in parts.values() for patient in {case.patient or case.case for case in part}]
    if len(set(named)) < len(named):
        raise ConfigError(
            "a patient stands in two parts of the split", got=sorted(p for p in set(named) if named.count(p) > 1)
        )
    rest = sorted(set(patients) - set(named), key=lambda p: hashlib.sha256(f"{seed}/{p}".encode()).hexdigest())
    for role, number in wanted.items():
        if isinstance(number, tuple):
            continue
        count = len(rest) if number == "rest" else number
        if count > len(rest):
            raise ConfigError(f"split.{role} asks for more patients than are left", got=count, expected=len(rest))
        parts[role] = [case for patient in rest[:count] for case in patients[patient]]
        rest = rest[count:]
    return parts["train"], parts["validate"], parts["test"]


def _named(cases: Mapping[str, Case], names: Sequence[str], role: str, refused: Set[str]) -> list[Case]:
    """The cases of a list. Those that were refused are in quarantine, and the others go on without them."""
    if unknown := [name for name in names if name not in cases and name not in refused]:
        raise ConfigError(
            f"split.{role} names cases that the data does not have",
            got=unknown[:5],
            expected=f"some of {list(cases)[:5]} …",
        )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"split.{role} names a case twice", got=twice)
    return [cases[name] for name in names if name in cases]
