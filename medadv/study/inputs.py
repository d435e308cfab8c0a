"""Every case once through the gate, before anything is decided about it; and the digests that name its content.

What passed is remembered by path, size and time of change, so that a study that is resumed need not read its finished
cases. When a case is attacked it is read anyway, and its digests are compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from medadv.atomic import write_text
from medadv.data.case import Case, Refusal, Volume
from medadv.data.files import content_digest, label_digest, read
from medadv.errors import CaseError, Reason
from medadv.study.progress import Watch


@dataclass(frozen=True)
class Digests:
    """SHA-256 of a case's voxels (with shape and affine), and of its label map."""

    voxels: str
    label: str | None


def examine(cases: Sequence[Case], memory: Path, watch: Watch) -> tuple[dict[str, Digests], list[Refusal]]:
    """Read every case that is not remembered.

    Args:
        cases: what an importer found.
        memory: the file that remembers what passed.
        watch: told of the reading.

    Returns:
        Case → digests of those that can be used, and why the others cannot.
    """
    remembered = _remembered(memory)
    passed: dict[str, Digests] = {}
    refused: list[Refusal] = []
    kept: dict[str, Digests] = {}
    watch.task("read", len(cases))
    for case in cases:
        stamp = stamp_of(case)
        watch.step()
        try:
            digests = remembered.get(stamp) or digests_of(read_labelled(case))
        except CaseError as error:
            refused.append(Refusal(case.case, error.reason, str(error), error.names))
            continue
        passed[case.case] = kept[stamp] = digests
    if kept != remembered:
        write_text(memory, json.dumps({stamp: asdict(digests) for stamp, digests in kept.items()}, indent=1))
    return passed, refused


def read_labelled(case: Case) -> Volume:
    """Read a case that must have a label map, or boxes.

    Raises:
        CaseError: it cannot be used.
    """
    volume = read(case)
    if volume.truth is None and case.objects is None:
        raise CaseError(Reason.MISSING_LABEL, f"{case.case} has no label map")
    return volume


def digests_of(volume: Volume) -> Digests:
    """The digests of a volume's content."""
    return Digests(content_digest(volume), label_digest(volume))


def stamp_of(case: Case, *others: Path) -> str:
    """What a case's files (and others) are called, their size and time of change: a digest, since names are private."""
    files = [*case.images.values(), *(path for path in (case.label, case.mask) if path), *others]
    facts: list[object] = [case.modalities, sorted(case.scheme.numbers.items())]
    facts += [case.grid] if case.grid else []
    facts += [case.scheme.void, case.picture] if case.picture else []
    if (objects := case.objects) is not None:
        facts += [objects.boxes.tolist(), objects.labels.tolist(), objects.counted.tolist()]
    for file in files:
        # Of a folder with a DICOM series, the slices count: its own time tells nothing of a slice that is overwritten.
        for part in (file, *(sorted(file.iterdir()) if file.is_dir() else ())):
            status = part.stat() if part.exists() else None
            facts.append((str(part), status and status.st_size, status and status.st_mtime_ns))
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _remembered(memory: Path) -> Mapping[str, Digests]:
    try:
        content = json.loads(memory.read_text(encoding="utf-8"))
        return {stamp: Digests(**digests) for stamp, digests in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # nothing is lost: every case is read again
