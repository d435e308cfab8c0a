"""What this machine offers, and what of it is known to be bad: versions, devices, disk, the MLflow store.

Versions are read from what is installed, without importing it; of the libraries only torch is imported, for devices.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from medadv.atomic import write_text

NEEDED = ("medadv", "torch", "torchvision", "monai", "numpy", "scipy", "nibabel", "simpleitk", "safetensors", "mlflow")
EXTRA = ("nnunetv2", "itk", "pydicom")
EVER = "9999"
LITTLE_DISK = 10 * 2**30

State = Literal["good", "note", "bad"]


@dataclass(frozen=True)
class Finding:
    """One line.

    Attributes:
        topic: what was looked at.
        state: ``bad`` is what should not be worked with.
        found: what is there.
        advice: what to do about it.
    """

    topic: str
    state: State
    found: str
    advice: str | None = None


@dataclass(frozen=True)
class Trouble:
    """A combination of versions that is known to be bad.

    Attributes:
        packages: package → the first version that has it and the first that has not; all must be there.
        state: how bad.
        why: what happens.
        advice: what to do.
    """

    packages: Mapping[str, tuple[str, str]]
    state: State
    why: str
    advice: str


TROUBLES = (
    Trouble(
        {"torch": ("0", "2.11")},
        "bad",
        "files of weights could run code or damage memory although weights_only=True is set (CVE-2025-32434 below 2.6, "
        "CVE-2026-24747 below 2.10)",
        'pip install "torch>=2.11"',
    ),
    Trouble(
        {"monai": ("0", "1.6.1")},
        "bad",
        "zip slip, unsafe pickles and command injection, twelve advisories until 1.6.1 (for instance CVE-2025-58755, "
        "CVE-2025-58757, GHSA-rghg-q7wp-9767)",
        'pip install "monai>=1.6.1"',
    ),
    Trouble(
        {"mlflow": ("0", "3.17")},
        "bad",
        "a tracking server of these versions ships a default password (CVE-2026-2635), and stores can be traversed",
        'pip install "mlflow>=3.17", or run with --no-track',
    ),
    Trouble(
        {"nnunetv2": ("2", EVER), "torch": ("2.9", "2.10")},
        "bad",
        "nnU-Net excludes torch 2.9",
        'pip install "torch>=2.11"',
    ),
    Trouble(
        {"nnunetv2": ("0", "2.8")},
        "note",
        "medadv reads trained folders with nnU-Net 2.8 or later",
        "pip install medadv[nnunet]",
    ),
    Trouble(
        {"nnunetv2": ("2.8", EVER), "monai": ("0", "1.6.2")},
        "note",
        "monai.apps.nnunet raises a TypeError with this nnU-Net, and has no gradient; medadv does not use it",
        "give medadv the trained folder itself",
    ),
    Trouble(
        {"pydicom": ("0", "3.0.2")},
        "note",
        "a DICOMDIR can lead out of its folder (CVE-2026-32711); medadv reads DICOM with SimpleITK",
        'pip install "pydicom>=3.0.2", if something else uses it',
    ),
    Trouble(
        {"itk": ("0", EVER)},
        "note",
        "itk takes 1.4 GB, and medadv does not need it: SimpleITK reads DICOM, NRRD and MHA",
        "pip uninstall itk, if nothing else uses it",
    ),
)
"""Known bad combinations."""


def examine(runs: Path) -> list[Finding]:
    """Look at everything.

    Args:
        runs: the folder of all runs; it need not be there yet, and is not made.
    """
    there = {name: found for name in (*NEEDED, *EXTRA) if (found := _installed(name))}
    return [*_versions(there), *troubles(there), *_machine(), *_disk(runs), *_store(runs)]


def troubles(there: Mapping[str, str]) -> list[Finding]:
    """The known bad combinations among installed versions.

    Args:
        there: package → version.
    """
    found = []
    for trouble in TROUBLES:
        present = {name: there[name] for name in trouble.packages if name in there}
        within = [
            _number(least) <= _number(there.get(name, EVER)) < _number(below)
            for name, (least, below) in trouble.packages.items()
        ]
        if all(within):
            what = " with ".join(f"{name} {number}" for name, number in present.items())
            found.append(Finding(what, trouble.state, trouble.why, trouble.advice))
    return found


def told(findings: Sequence[Finding]) -> list[str]:
    """The findings as lines."""
    marks = {"good": "  ", "note": "- ", "bad": "! "}
    lines = []
    for finding in findings:
        lines.append(f"{marks[finding.state]}{finding.topic}: {finding.found}")
        lines += [f"    → {finding.advice}"] if finding.advice else []
    bad = sum(finding.state == "bad" for finding in findings)
    return [*lines, f"{bad} to be mended" if bad else "nothing to be mended"]


def write_json(findings: Sequence[Finding], path: Path) -> None:
    """Write the findings for programs.

    Raises:
        RunError: the file cannot be written.
    """
    write_text(path, json.dumps([asdict(finding) for finding in findings], indent=1) + "\n")


def _number(text: str) -> tuple[int, ...]:
    """``2.9.1+cu130`` → (2, 9, 1): a local or development build has the faults of its number."""
    return tuple(int(part) for part in re.findall(r"\d+", text.partition("+")[0])[:3])


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _versions(there: Mapping[str, str]) -> Iterator[Finding]:
    yield Finding("python", "good", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for name in (*NEEDED, *EXTRA):
        if name in there:
            yield Finding(name, "good", there[name])
        elif name in NEEDED:
            yield Finding(name, "bad", "not installed", "pip install medadv")


def _machine() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding("devices", "bad", f"torch cannot be imported: {error}", "install torch again")
        return
    threads = f"{os.cpu_count()} cores, torch takes {torch.get_num_threads()} threads"
    yield Finding("cpu", "good", f"{threads}, {torch.backends.cpu.get_cpu_capability()}{_memory()}")
    fast = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    yield Finding("cpu precision", "good", f"float32{', and bf16 in hardware' if fast else '; bf16 is slower here'}")
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            card = torch.cuda.get_device_properties(number)
            size = f"{card.total_memory / 2**30:.0f} GiB, compute {card.major}.{card.minor}"
            yield Finding(f"cuda:{number}", "good", f"{card.name}, {size}, CUDA {torch.version.cuda}")
    else:
        yield from _no_cuda(torch.version.cuda)
    if torch.backends.mps.is_available():
        yield Finding("mps", "good", "Apple's GPU")


def _no_cuda(built: str | None) -> Iterator[Finding]:
    """Why there is no GPU: there may be one that this torch cannot use."""
    driver = shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia").exists()
    if driver and built is None:
        advice = "install a torch that is built for CUDA, from pytorch.org"
        yield Finding("cuda", "bad", "there is an NVIDIA driver, and this torch is built for CPUs alone", advice)
    elif driver:
        advice = f"check that the driver is new enough for CUDA {built}, and CUDA_VISIBLE_DEVICES"
        yield Finding("cuda", "bad", "there is an NVIDIA driver, and torch cannot use it", advice)
    else:
        yield Finding("cuda", "note", "no NVIDIA driver: everything runs on the CPU")


def _memory() -> str:
    try:
        return f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB of memory"
    except (ValueError, OSError, AttributeError):  # not every system tells
        return ""


def _disk(runs: Path) -> Iterator[Finding]:
    place = _existing(runs)
    free = shutil.disk_usage(place).free
    if not os.access(place, os.W_OK):
        yield Finding("disk", "bad", f"{place} may not be written", "run elsewhere, or name a folder with --runs")
    little = free < LITTLE_DISK
    advice = "`medadv plan` tells what a study needs" if little else None
    yield Finding("disk", "note" if little else "good", f"{free / 2**30:.1f} GiB free where {runs} lies", advice)


def _store(runs: Path) -> Iterator[Finding]:
    """Whether MLflow's default store, a database beside the runs, may be written."""
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        if uri.startswith(("file:", "/", ".")) and not uri.endswith(".db"):
            advice = "set MLFLOW_TRACKING_URI to sqlite:///…/mlflow.db, or unset it"
            yield Finding("mlflow store", "bad", "MLFLOW_TRACKING_URI names a folder: MLflow gave these up", advice)
        else:
            yield Finding("mlflow store", "note", f"MLFLOW_TRACKING_URI names one ({uri.partition(':')[0]}); not tried")
        return
    path = runs.resolve().parent / "mlflow.db"
    if not path.exists():
        fine = os.access(_existing(path.parent), os.W_OK)
        if fine:
            yield Finding("mlflow store", "good", f"{path} can be made")
        else:
            yield Finding("mlflow store", "bad", f"{path} cannot be made", "run elsewhere, or with --no-track")
        return
    try:
        with closing(sqlite3.connect(path, timeout=1)) as store:
            store.execute("BEGIN IMMEDIATE")  # the lock of somebody who writes, and nothing written
            store.execute("SELECT name FROM sqlite_master LIMIT 1").fetchall()
            store.rollback()
    except sqlite3.Error as error:
        advice = "let other runs finish, restore it, or move it away: `medadv track RUN` makes it anew"
        yield Finding("mlflow store", "bad", f"{path} cannot be written: {error}", advice)
    else:
        yield Finding("mlflow store", "good", f"{path} can be written")


def _existing(path: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    path = path.resolve()
    while not path.is_dir() and path != path.parent:
        path = path.parent
    return path
