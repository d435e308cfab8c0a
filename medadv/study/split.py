"""Which patients train, choose the checkpoint, and are attacked: once, or fold by fold of a cross-validation.

The first split is remembered: a case that is found or mended later joins the test part, and none ever leaves its part.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from medadv.atomic import write_text
from medadv.data.case import Case
from medadv.errors import ConfigError
from medadv.study.names import Names
from medadv.study.sections import Split

ROLES = ("train", "validate", "test")

Patients = Mapping[str, Sequence[Case]]


@dataclass(frozen=True)
class Fold:
    """One division of the cases. A study without cross-validation has one, without a number.

    Attributes:
        number: of a cross-validation's fold, from 0; None without one.
        train, validate: what its victims learn from, and are chosen by.
        test: what they are attacked on, and have not seen.
        made: whether medadv made the fold, so that nobody outside can have trained by it.
    """

    number: int | None
    train: Sequence[Case]
    validate: Sequence[Case]
    test: Sequence[Case]
    made: bool = False


def divide(
    split: Split, seed: int, cases: Sequence[Case], refused: Set[str], names: Names, path: Path
) -> tuple[Fold, ...]:
    """Divide the usable cases as the study asks, or as they were divided before.

    Args:
        split: what is asked.
        seed: of the order of patients.
        cases: those that can be used.
        refused: the ids of those that cannot: a list that names them goes on without them.
        names: what ids are remembered as.
        path: of the memory.

    Raises:
        ConfigError: a split that the data cannot serve.
    """
    asked = split.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    asked = {k: [names[i] for i in v] if isinstance(v, list) else v for k, v in asked.items()} | {"seed": seed}
    roles, learnt = _memory(path, asked)
    if not roles:
        roles = {names[case.case]: role for role, case in _first(split, seed, cases, refused)}
    patients = {names[c.case]: names[c.patient] for c in cases if c.patient}
    learnt |= {patients[name] for name, role in roles.items() if name in patients and role in ("train", "validate")}
    homes = {patients[name]: role for name, role in roles.items() if name in patients}
    declared = {names[case.case]: role for role, case in _declared_folds(cases)} if split.folds == "data" else {}
    if moved := sorted(name for name, fold in declared.items() if roles.get(name, fold) != fold):
        raise ConfigError(
            "the data declare other folds than those that this study was begun with",
            got=f"{len(moved)} cases, such as {moved[0]}: {declared[moved[0]]}, and {roles[moved[0]]} before",
            cause="a datalist or splits_final.json that was corrected: its victims have seen what they are tested on",
            advice="give the study another name",
        )
    for name in (names[case.case] for case in cases):
        if name in roles:
            continue
        if split.folds is None:
            new = "test" if split.test == "rest" and patients.get(name) not in learnt else "unused"
        elif split.folds == "data":  # a victim from outside may have seen the case: only its own fold has not
            new = declared[name]
        else:  # a scan of a patient stays with the patient; a new patient is new to every fold
            new = homes.get(patients.get(name, ""), "fold 0")
        roles[name] = new
    write_text(path, json.dumps({"asked": asked, "roles": roles, "learnt": sorted(learnt)}, indent=1))
    place = {name: i for i, name in enumerate(roles)}
    ordered = sorted(cases, key=lambda case: place[names[case.case]])
    with_role = {role: [c for c in ordered if roles[names[c.case]] == role] for role in dict.fromkeys(roles.values())}
    if split.folds is None:
        train, validate, test = (with_role.get(role, []) for role in ROLES)
        return (Fold(None, train, validate, test),)
    return tuple(_fold(role, with_role, split, seed) for role in sorted(with_role, key=_number))


def _memory(path: Path, asked: Mapping[str, object]) -> tuple[dict[str, str], set[str]]:
    """Case → role, and the patients learnt from, of the same split made before."""
    try:
        memory = json.loads(path.read_text(encoding="utf-8"))
        return (dict(memory["roles"]), set(memory["learnt"])) if memory["asked"] == asked else ({}, set())
    except (OSError, ValueError, KeyError, TypeError):
        return {}, set()


def _first(split: Split, seed: int, cases: Sequence[Case], refused: Set[str]) -> list[tuple[str, Case]]:
    if split.folds is None:
        return _parts(split, seed, cases, refused)
    if split.folds == "data":
        return _declared_folds(cases)
    patients = _patients(cases)
    if split.folds > len(patients):
        raise ConfigError("there are more folds than patients", got=split.folds, expected=f"at most {len(patients)}")
    order = _ordered(patients, seed)
    return [(f"fold {i % split.folds}", case) for i, patient in enumerate(order) for case in patients[patient]]


def _declared_folds(cases: Sequence[Case]) -> list[tuple[str, Case]]:
    return [(f"fold {_declared(patient, own)}", case) for patient, own in _patients(cases).items() for case in own]


def _declared(patient: str, cases: Sequence[Case]) -> int:
    """The fold that the data set says for a patient's scans."""
    said = {case.fold for case in cases}
    fold = said.pop()
    if said or fold is None:
        raise ConfigError(
            "the data do not say one fold for each patient",
            got=f"{patient}: {sorted(str(f) for f in {*said, fold})}",
            expected="a fold for every case, and the same for all scans of a patient",
            cause="no fold in the data list, no splits_final.json, or folds that part a patient",
            advice="set split.folds to a number: medadv then makes folds of whole patients",
        )
    return fold


def _fold(role: str, with_role: Mapping[str, Sequence[Case]], split: Split, seed: int) -> Fold:
    others = [case for other, cases in with_role.items() if other != role for case in cases]
    patients = _patients(others)
    order = _ordered(patients, f"{seed}/{role}")
    assert isinstance(split.validate_, int)  # by Split
    if split.validate_ >= len(order):
        raise ConfigError(
            "no patient is left to train on", got=f"{len(order)} patients outside a fold, {split.validate_} to validate"
        )
    held = {case.case for patient in order[: split.validate_] for case in patients[patient]}
    train, validate = ([c for c in others if (c.case in held) == chosen] for chosen in (False, True))
    return Fold(_number(role), train, validate, with_role[role], made=split.folds != "data")


def _number(role: str) -> int:
    return int(role.removeprefix("fold "))


def _patients(cases: Sequence[Case]) -> dict[str, list[Case]]:
    patients: dict[str, list[Case]] = {}
    for case in cases:
        patients.setdefault(case.patient or case.case, []).append(case)
    return patients


def _ordered(patients: Patients | Set[str], seed: object) -> list[str]:
    """In the order of a seeded hash of their ids, so that one patient more or less changes no order."""
    return sorted(patients, key=lambda patient: hashlib.sha256(f"{seed}/{patient}".encode()).hexdigest())


def _parts(split: Split, seed: int, cases: Sequence[Case], refused: Set[str]) -> list[tuple[str, Case]]:
    """Whole patients: those that are named, then the others in their order."""
    patients = _patients(cases)
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
    rest = _ordered(set(patients) - set(named), seed)
    for role, number in wanted.items():
        if isinstance(number, tuple):
            continue
        count = len(rest) if number == "rest" else number
        if count > len(rest):
            raise ConfigError(f"split.{role} asks for more patients than are left", got=count, expected=len(rest))
        parts[role] = [case for patient in rest[:count] for case in patients[patient]]
        rest = rest[count:]
    return list(chain.from_iterable(((role, case) for case in parts[role]) for role in ROLES))


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
