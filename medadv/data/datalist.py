"""Lists of files as MONAI writes them (after the Decathlon's): ``{"training": [{"image": …, "label": …, "fold": 0}]}``.

Such a list says neither what its channels show nor what its numbers mean: whoever imports it declares both.
Source: MONAI, ``monai.data.load_decathlon_datalist`` and ``monai.apps.auto3dseg.utils.datafold_read``.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from medadv.data.case import Case, Cohort
from medadv.data.census import ENDING, Census, hidden, present
from medadv.errors import CaseError, ConfigError, Reason
from medadv.labels import LabelScheme
from medadv.vocabulary import modalities as own_names
from medadv.vocabulary import modality

_SECTIONS = {"test": "testing", "testing": "test"}


def datalist_cohort(
    path: str | Path,
    modalities: Sequence[str],
    scheme: LabelScheme,
    root: str | Path | None = None,
    section: str = "training",
    *,
    case: str | None = None,
    patient: str | None = None,
    stratum: str | None = None,
) -> Cohort:
    """The labelled cases of one section of a list, in its order.

    An entry has ``label`` and either ``image`` (one path, to a 4-D file where there are several modalities; or a path
    a modality, in their order) or a key for each modality, in any spelling. ``mask`` may name where the head is. Paths
    are relative to ``root``, or absolute. An entry that cannot be used becomes a refusal; one whose files begin with
    ``.`` or ``_`` is passed over.

    Args:
        path: the list, a JSON file.
        modalities: what the channels show, in their order.
        scheme: what the label numbers mean.
        root: what paths start from; the list's own folder where left out.
        section: ``training``, ``validation``, ``testing`` or ``test``; the last two are one.
        case: the entries' key that holds the id of the scan. Where left out, the id is what the images' names have in
            common (``a_t1.nii.gz``, ``a_t2.nii.gz`` → ``a``), or their folder's name where that is nothing, or where
            several scans of the list would have one id (``sub1/image.nii.gz``, ``sub2/image.nii.gz``).
        patient: the entries' key that holds the id of the patient; unknown where left out.
        stratum: the entries' key that holds a group for the tables (a site, a grade).

    Raises:
        ConfigError: the list cannot be read, has no such section, or the modalities cannot be meant; or neither files
            nor folders tell its scans apart.
    """
    path = Path(path)
    root = path.parent if root is None else Path(root)
    channels = own_names(modalities)
    listed = [{"image": entry} if isinstance(entry, str) else entry for entry in _section(path, section)]
    entries = [entry for entry in listed if not _passed_over(entry)]
    told = _own(entries, channels) if case is None else [_declared(entry, case) for entry in entries]
    names = [name or f"entry-{place}" for place, name in enumerate(told, start=1)]
    census = Census(names)
    for place, (name, entry) in enumerate(zip(names, entries, strict=True), start=1):
        with census.at(name, f"{name}-entry-{place}"):
            if not isinstance(entry, dict):
                raise _strange(name, "is no object", '{"image": …, "label": …}')
            if case is not None:
                _told(name, entry, case)
            found = _case(root, name, entry, channels, scheme)
            who = None if patient is None else _told(name, entry, patient)
            group = None if stratum is None else _told(name, entry, stratum)
            census.take(replace(found, patient=who, stratum=group))
    return census.cohort(channels, scheme)


def _case(root: Path, name: str, entry: Mapping[str, Any], channels: Sequence[str], scheme: LabelScheme) -> Case:
    """The files of an entry, all of them there."""
    images = _images(name, entry, channels)
    label, mask = _path(name, entry, "label"), _path(name, entry, "mask")
    if label is None:
        raise CaseError(Reason.MISSING_LABEL, f"{name}: its entry names no label")
    return Case(
        name,
        None,
        {m: present(root / image, name, m) for m, image in images.items()},
        present(root / label, name, "the label", Reason.MISSING_LABEL),
        scheme,
        mask=present(root / mask, name, "the mask") if mask else None,
        fold=_fold(name, entry),
    )


def _section(path: Path, section: str) -> list[Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read", got=error, expected="a list of files in JSON") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is no JSON", got=error) from error
    sections = [k for k, v in content.items() if isinstance(v, list)] if isinstance(content, dict) else []
    name = next((name for name in (section, _SECTIONS.get(section)) if name in sections), None)
    if name is None or not content[name]:
        raise ConfigError(
            f"{path.name} has no entry in a section {section!r}",
            got=f"sections {sections}" if isinstance(content, dict) else type(content).__name__,
            expected=f'{{"{section}": [{{"image": …, "label": …}}, …]}}',
            advice="name another section",
        )
    return list(content[name])


def _passed_over(entry: Any) -> bool:
    """Whether an entry lists what a system left behind beside an image."""
    paths = entry.get("image") if isinstance(entry, dict) else None
    first = paths[0] if isinstance(paths, list) and paths else paths
    return isinstance(first, str) and hidden(PurePosixPath(first).name)


def _images(name: str, entry: Mapping[str, Any], channels: Sequence[str]) -> dict[str, str]:
    """Modality → path, as the entry has it."""
    image = entry.get("image")
    if image is None:
        keys = [key for key in entry if modality(key) in channels]
        spelt = {modality(key): _path(name, entry, key) for key in keys}
        if len(spelt) < len(keys):
            raise CaseError(Reason.EXTRA_MODALITY, f"{name}: two keys for one modality", got=keys)
        if missing := [channel for channel in channels if not spelt.get(channel)]:
            raise CaseError(
                Reason.MISSING_MODALITY,
                f"{name}: its entry names no {' and no '.join(missing)}",
                got=f"keys {list(entry)}",
                expected="image, or a key for each modality",
            )
        return {channel: str(spelt[channel]) for channel in channels}
    if isinstance(image, str) and image:
        return dict.fromkeys(channels, image)  # one file: with a channel for each, which the reader checks
    if not isinstance(image, list) or not all(isinstance(path, str) and path for path in image):
        raise _strange(name, "has images that are no paths", "a path, or a list of paths")
    if len(image) != len(channels) and len(image) != 1:
        few = len(image) < len(channels)
        raise CaseError(
            Reason.MISSING_MODALITY if few else Reason.EXTRA_MODALITY,
            f"{name}: not a file for each modality",
            got=f"{len(image)} files",
            expected=f"{len(channels)}: {', '.join(channels)}",
        )
    return dict(zip(channels, image * (len(channels) if len(image) == 1 else 1), strict=True))


def _declared(entry: Any, key: str) -> str | None:
    """The id that stands in an entry; None where it has none."""
    try:
        return _told("", entry, key)
    except (CaseError, AttributeError):
        return None


def _own(entries: Sequence[Any], channels: Sequence[str]) -> list[str | None]:
    """The id of each entry's scan by its files; None where it has none. Entries with the same files are one scan."""
    scans = [_files(entry, channels) for entry in entries]
    ids = {scan: _name(scan) for scan in scans if scan}
    ((common, often),) = Counter(name for name in ids.values() if name).most_common(1) or [("", 0)]
    if often > 1:
        ids = {scan: _folder(scan) for scan in ids}
    if often <= 1 or (all(ids.values()) and len(set(ids.values())) == len(ids)):
        return [ids.get(scan) for scan in scans]
    raise ConfigError(
        "the names of files and folders do not tell the scans of the list apart",
        got=f"{len(ids)} scans, {often} of them named {common!r}",
        expected="file names, or names of folders, that are each scan's own",
        advice="give each entry an id, and name its key with case: data.case in a study, case= in Python",
    )


def _files(entry: Any, channels: Sequence[str]) -> tuple[PurePosixPath, ...]:
    """The images of an entry; none where it cannot be used."""
    try:
        files = dict.fromkeys(_images("", entry, channels).values())
    except (CaseError, AttributeError, TypeError):
        return ()
    return tuple(PurePosixPath(file.replace("\\", "/")) for file in files)


def _folder(paths: Sequence[PurePosixPath]) -> str | None:
    """The name of the folder that holds all of a scan's images, at whatever depth."""
    return next((folder.name for folder in paths[0].parents if all(folder in path.parents for path in paths)), None)


def _name(paths: Sequence[PurePosixPath]) -> str | None:
    """What the names of a scan's images have in common, or their folder's name."""
    # Parts with what stands after them: "a-", "b_", "t1".
    each = [re.findall(r"[^-_. ]*[-_. ]?", ENDING.sub("", path.name)) for path in paths]
    alike = 0
    while all(alike < len(parts) and parts[alike] == each[0][alike] for parts in each):
        alike += 1
    return "".join(each[0][:alike]).rstrip("-_. ") or paths[0].parent.name or None


def _told(name: str, entry: Mapping[str, Any], key: str) -> str:
    """What stands under a declared key: a word or a number."""
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise _strange(name, f"does not say its {key}", f'"{key}": a word or a number')
    return str(value).strip()


def _path(name: str, entry: Mapping[str, Any], key: str) -> str | None:
    path = entry.get(key)
    if path is not None and (not isinstance(path, str) or not path):
        raise _strange(name, f"has something under {key!r} that is no path", "one path")
    return path


def _fold(name: str, entry: Mapping[str, Any]) -> int | None:
    fold = entry.get("fold")
    if fold is not None and (isinstance(fold, bool) or not isinstance(fold, int) or fold < 0):
        raise _strange(name, "has a fold that is none", "a whole number, from 0")
    return fold


def _strange(name: str, problem: str, expected: str) -> CaseError:
    return CaseError(
        Reason.DECLARATION, f"{name}: its entry {problem}", expected=expected, advice="correct the list's entry"
    )
