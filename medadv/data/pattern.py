"""A plain folder, its files named by a pattern: ``{case}/{case}_t1.nii.gz``, without regular expressions.

``{case}``, ``{patient}`` and ``{stratum}`` stand for a part of a file's or folder's name, ``*`` for anything in one.
What a folder's files show and what their numbers mean is declared, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medadv.data.case import Case, Cohort, Refusal
from medadv.data.census import Census, hidden
from medadv.errors import CaseError, ConfigError, Reason
from medadv.labels import LabelScheme
from medadv.vocabulary import modalities

PLACEHOLDERS = ("case", "patient", "stratum")
_WILD = re.compile(r"(\{[^{}]*\}|\*)")

Said = tuple[tuple[str, str], ...]
"""What a path says: placeholder and value, in the order of ``PLACEHOLDERS``."""


@dataclass(frozen=True)
class _Pattern:
    """A pattern's folders and last name, and what it was written as."""

    key: str
    text: str
    parts: tuple[str, ...]
    placeholders: frozenset[str]


def pattern_cohort(
    root: str | Path,
    images: Mapping[str, str],
    label: str,
    scheme: LabelScheme,
    *,
    mask: str | None = None,
    patient: str | None = None,
    stratum: str | None = None,
) -> Cohort:
    """The cases of a folder whose files follow a pattern, in the order of their ids.

    Patterns are relative to ``root`` and have ``{case}``; a placeholder that is there twice means the same twice. The
    patterns of all modalities have the same placeholders; label and mask may have fewer. A pattern may name a folder (a
    DICOM series). All modalities may have one pattern: a 4-D file, whose channels are then in their order. What begins
    with ``.`` or ``_`` is passed over, unless the pattern itself begins so.

    Args:
        root: the folder.
        images: modality → pattern, in the order of the channels.
        label: the pattern of the label maps.
        scheme: what their numbers mean.
        mask: the pattern of masks that say where the head is.
        patient: how a case's id tells its patient, where no path does: ``BraTS-GLI-{patient}-*``.
        stratum: how a case's id tells its group: ``{stratum}_*``.

    Raises:
        ConfigError: a pattern leaves the folder, lacks ``{case}``, can be read in two ways, or finds the files of
            another; or there is no case.
    """
    root = Path(root)
    channels = modalities(list(images))
    patterns = [_parsed(f"images.{key}", text) for key, text in images.items()]
    others = {key: _parsed(key, text) for key, text in (("label", label), ("mask", mask)) if text is not None}
    _agree(patterns, others)
    if len({pattern.text for pattern in patterns}) == 1:
        patterns = patterns[:1]  # one file with all modalities
    found = [_found(root, pattern) for pattern in patterns]
    beside = {key: _found(root, pattern) for key, pattern in others.items()}
    _apart([*patterns, others["label"]], [*found, beside["label"]])
    scans = sorted({said for hits in found for said in hits} | _alone(found, beside["label"]))
    if not any(found):
        advice = "write patterns from the folder on, for instance {case}/{case}_t1.nii.gz"
        raise ConfigError(f"no image in {root}", got=images, expected="patterns that files match", advice=advice)
    census = Census(dict(said)["case"] for said in scans)
    for said in scans:
        words = dict(said)
        name = words["case"]
        with census.at(name, "/".join(words[key] for key in ("stratum", "patient", "case") if key in words)):
            each = {m: _one(hits, said, name, m) for m, hits in zip(channels, found * len(channels), strict=False)}
            truth = _one(beside["label"], said, name, "the label", Reason.MISSING_LABEL)
            head = _one(beside["mask"], said, name, "the mask") if mask is not None else None
            census.take(Case(name, words.get("patient"), each, truth, scheme, head, stratum=words.get("stratum")))
    return told(census.cohort(channels, scheme), patient, stratum)


def told(cohort: Cohort, patient: str | None = None, stratum: str | None = None) -> Cohort:
    """A cohort whose cases' ids tell their patient, or their group.

    Args:
        cohort: as imported.
        patient: a pattern of the id with ``{patient}``, such as ``{patient}_*``.
        stratum: a pattern of the id with ``{stratum}``.

    Returns:
        The cohort; cases whose ids do not match are refused, since a patient that is not known could be parted.

    Raises:
        ConfigError: a pattern without its placeholder, or that can read an id in two ways.
    """
    for key, text in (("patient", patient), ("stratum", stratum)):
        if text is None:
            continue
        if set(re.findall(r"\{[^{}]*\}", text)) != {f"{{{key}}}"} or "/" in text:
            raise ConfigError(f"{key} is no pattern of a case's id", got=text, expected=f"such as {{{key}}}_*")
        kept, refused = [], list(cohort.refused)
        for case in cohort.cases:
            words = _match(text, case.case, {}, key)
            if words is None:
                message = f"{case.case}: the id does not match data.{key}, so that its {key} is not known"
                refused.append(Refusal(case.case, Reason.DECLARATION, message))
            else:
                said = {"patient": case.patient, "stratum": case.stratum, **words}
                kept.append(replace(case, patient=said["patient"], stratum=said["stratum"]))
        cohort = replace(cohort, cases=kept, refused=refused)
    return cohort


def _parsed(key: str, text: str) -> _Pattern:
    parts = text.rstrip("/").split("/")
    if not text.strip("/ ") or text.startswith("/") or "\\" in text or re.match(r"[A-Za-z]:", text) or ".." in parts:
        raise ConfigError(
            f"data.{key} leaves the folder", got=text, expected="a path from the folder on, with / between its parts"
        )
    placeholders = frozenset(word[1:-1] for word in _WILD.findall(text) if word != "*")
    if strange := placeholders - set(PLACEHOLDERS):
        raise ConfigError(f"data.{key} has unknown placeholders", got=sorted(strange), expected=list(PLACEHOLDERS))
    if "case" not in placeholders:
        raise ConfigError(f"data.{key} does not say whose a file is", got=text, expected="a pattern with {case}")
    if re.search(r"[{}]", _WILD.sub("", text)):
        raise ConfigError(f"data.{key} has a brace too many", got=text)
    return _Pattern(key, text, tuple(part for part in parts if part not in ("", ".")), placeholders)


def _agree(patterns: Sequence[_Pattern], others: Mapping[str, _Pattern]) -> None:
    """Which file belongs to which case must be plain from the patterns themselves."""
    texts = [pattern.text for pattern in patterns]
    if len(set(texts)) not in (1, len(texts)):
        raise ConfigError("two modalities have one pattern", got=texts, expected="a pattern each, or one for all")
    for pattern in (*patterns[1:], *others.values()):
        more = pattern.placeholders - patterns[0].placeholders
        if more or (pattern in patterns and pattern.placeholders != patterns[0].placeholders):
            raise ConfigError(
                f"data.{pattern.key} has other placeholders than data.{patterns[0].key}",
                got=pattern.text,
                expected=f"those of {patterns[0].text}",
            )


def _found(root: Path, pattern: _Pattern) -> dict[Said, list[Path]]:
    """What paths say → the paths that say so."""
    hits: dict[Said, list[Path]] = {}
    for path, words in _paths(root, pattern.parts, {}, pattern.key):
        hits.setdefault(tuple((key, words[key]) for key in PLACEHOLDERS if key in words), []).append(path)
    return hits


def _paths(
    folder: Path, parts: Sequence[str], words: Mapping[str, str], key: str
) -> Iterator[tuple[Path, Mapping[str, str]]]:
    """Walk down one part of the pattern at a time; links are followed, and no deeper than the pattern goes."""
    head, *rest = parts
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if hidden(path.name) and not head.startswith(path.name[0]):
            continue
        more = _match(head, path.name, words, key)
        if more is None:
            continue
        if not rest:
            yield path, {**words, **more}
        elif path.is_dir():
            yield from _paths(path, rest, {**words, **more}, key)


def _match(part: str, name: str, words: Mapping[str, str], key: str) -> dict[str, str] | None:
    """What a name says by one part of a pattern; None where it does not match."""
    first = re.fullmatch(_expression(part, words), name)
    if first is None:
        return None
    for placeholder, value in first.groupdict().items():
        if other := re.fullmatch(_expression(part, words, {placeholder: value}), name):
            raise ConfigError(
                f"data.{key} can be read in two ways",
                got=f"{part} on {name}: {first.groupdict()} or {other.groupdict()}",
                advice="write more of the names out, or separate placeholders by folders",
            )
    return first.groupdict()


def _expression(part: str, words: Mapping[str, str], unlike: Mapping[str, str] | None = None) -> str:
    """One part of a pattern as a regular expression; what is known of the path already stands for itself.

    A placeholder of ``unlike`` stands for anything but that value, so that a match is another reading, wherever stars
    and other placeholders stop.
    """
    known, written = dict(words), ""
    for piece in _WILD.split(part):
        name = piece[1:-1]
        if piece == "*":
            written += ".*"
        elif not _WILD.fullmatch(piece):
            written += re.escape(piece)
        elif f"(?P<{name}>" in written:
            written += f"(?P={name})"
        else:
            meant = _other((unlike or {}).get(name))
            written += re.escape(known[name]) if name in known else f"(?P<{name}>{meant})"
    return written


def _other(value: str | None) -> str:
    """An expression for anything but a value: what begins otherwise, goes on after it, or stops before its end."""
    if value is None:
        return ".+"
    shorter = f"|.{{1,{len(value) - 1}}}" if len(value) > 1 else ""
    return f"(?!{re.escape(value)}).+|{re.escape(value)}.+{shorter}"


def _apart(patterns: Sequence[_Pattern], found: Sequence[Mapping[Said, list[Path]]]) -> None:
    """Refuse patterns of which one finds the files of another.

    The label's may find images under another id: ``{case}.nii.gz`` finds ``a_t1.nii.gz`` as that of ``a_t1``.
    """
    owner: dict[Path, tuple[_Pattern, str]] = {}
    for pattern, hits in zip(patterns, found, strict=True):
        for said, paths in hits.items():
            case = dict(said)["case"]
            for path in paths:
                other, of = owner.setdefault(path, (pattern, case))
                if other is not pattern and (pattern.key != "label" or of == case):
                    raise ConfigError(
                        f"data.{pattern.key} and data.{other.key} find the same file",
                        got=f"{pattern.text} and {other.text}, both {path.name}",
                        advice="write more of the names out, so that each pattern finds its own files",
                    )


def _alone(found: Sequence[Mapping[Said, list[Path]]], labels: Mapping[Said, list[Path]]) -> set[Said]:
    """Scans of which there is a label and no image at all."""
    images = {path for hits in found for paths in hits.values() for path in paths}
    cases = {dict(said)["case"] for hits in found for said in hits}
    return {
        said for said, paths in labels.items() if dict(said)["case"] not in cases and not images.intersection(paths)
    }


def _one(
    hits: Mapping[Said, list[Path]], said: Said, case: str, name: str, missing: Reason = Reason.MISSING_MODALITY
) -> Path:
    """The one path that says the same as the scan's images, of what its pattern asks."""
    kinds = {key for key, _ in next(iter(hits), ())}
    paths = hits.get(tuple(pair for pair in said if pair[0] in kinds), [])
    if not paths:
        raise CaseError(
            missing, f"{case}: {name} has no file that matches its pattern", advice="check the pattern and the folder"
        )
    if len(paths) > 1:
        raise CaseError(
            Reason.EXTRA_MODALITY,
            f"{case}: {name} has {len(paths)} files that match its pattern",
            expected="one",
            advice="narrow the pattern, or keep the file that is right",
        )
    return paths[0]
