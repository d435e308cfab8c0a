"""Whoever is in the data is nowhere in what a run leaves behind: every byte of every sink is looked through."""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from rich.console import Console
from study.identities import CANARY, MRN, REFUSED, SECRETS, SOURCES, study_of
from study.small_study import quarantine

from medadv.study.progress import Lines
from medadv.study.run import run

# MLflow's tables are older than pandas 3.
pytestmark = pytest.mark.filterwarnings("ignore:For backward compatibility, 'str' dtypes are included")

TABLE = "ids.local.json"


# Looking


def layers(content: bytes) -> Iterator[bytes]:
    """A content and everything that is packed into it: gzip, zip, deflated streams of a PDF, base64 of a page."""
    yield content
    inner: list[bytes] = []
    if content.startswith(b"\x1f\x8b"):
        inner.append(gzip.decompress(content))
    elif content.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            inner += [archive.read(name) for name in archive.namelist()]
    elif content.startswith(b"%PDF"):
        for stream in re.findall(rb"stream\r?\n(.*?)endstream", content, re.DOTALL):
            try:
                inner.append(zlib.decompressobj().decompress(stream))
            except zlib.error:
                continue  # not deflated: it was looked at as it is
    inner += [base64.b64decode(found) for found in re.findall(rb"base64,([A-Za-z0-9+/=]{16,})", content)]
    for each in inner:
        yield from layers(each)


def found_in(content: bytes) -> set[str]:
    """The secrets that a content tells, in any case of letters, in bytes or in wide characters."""
    seen = [layer.lower() for layer in layers(content)]
    return {
        secret
        for secret in SECRETS
        for spelt in (secret.lower().encode(), secret.lower().encode("utf-16-le"))
        if any(spelt in layer for layer in seen)
    }


def told_in(folder: Path, beside: tuple[str, ...] = ()) -> dict[str, set[str]]:
    """File → secrets that its path or its content tells, under a folder, but for some files."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in beside]
    names = {path.relative_to(folder).as_posix(): path for path in files}
    told = {name: found_in(name.encode()) | found_in(path.read_bytes()) for name, path in names.items()}
    return {name: secrets for name, secrets in told.items() if secrets}


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda b: b"..." + b + b"...",
    "wide": lambda b: b.decode().encode("utf-16-le"),
    "lower case": bytes.lower,
    "gzip": gzip.compress,
    "twice": lambda b: gzip.compress(gzip.compress(b)),
    "page": lambda b: b"<img src='data:image/png;base64," + base64.b64encode(b * 3) + b"'>",
    "pdf": lambda b: b"%PDF-1.4\nstream\n" + zlib.compress(b) + b"\nendstream",
}


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_is_found_however_it_is_packed(kind: str, secret: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(PACKED[kind](secret.encode()))
    assert told_in(tmp_path) == {"file": {secret}}
    with zipfile.ZipFile(tmp_path / "file", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", PACKED[kind](secret.encode()))
    assert told_in(tmp_path) == {"file": {secret}}
    assert told_in(tmp_path, beside=("file",)) == {}


# Runs


class Ran:
    """What a study of one kind of source left behind."""

    def __init__(self, kind: str, source: Path, runs: Path) -> None:
        console = io.StringIO()
        self.outcome = run(study_of(kind, source), runs=runs, watch=Lines(Console(file=console, width=1000)))
        self.folder, self.console = self.outcome.folder, console.getvalue()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where ``runs`` and ``mlflow.db`` are: no part of the data's own path."""
    return tmp_path_factory.mktemp("ward")


@pytest.fixture(scope="module")
def ran(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Ran]:
    """Kind → its run, made once."""

    @cache
    def one(kind: str) -> Ran:
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("MLFLOW_TRACKING_URI", raising=False)
            source = tmp_path_factory.mktemp(f"{CANARY}_{kind}")
            patch.chdir(source)  # MLflow would note where it was started
            return Ran(kind, source, place / "runs")

    return one


@pytest.mark.parametrize("kind", SOURCES)
def test_nobody_is_named_in_what_a_run_leaves_behind(
    ran: Callable[[str], Ran], kind: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    left = ran(kind)
    assert (left.outcome.scored, left.outcome.quarantined) == (2, len(REFUSED[kind]))
    assert sorted(quarantine(left.folder).values()) == REFUSED[kind]
    assert len(list(left.folder.rglob("ADVERSARIAL_*.nii.gz"))) == (8 if kind == "brats" else 2)
    assert (left.folder / "report" / "index.html").is_file()
    assert told_in(left.folder, beside=(TABLE,)) == {}
    said = capfd.readouterr()
    assert "quarantined c" in left.console
    assert found_in("\n".join((left.console, said.out, said.err, caplog.text)).encode()) == set()


@pytest.mark.parametrize("kind", SOURCES)
def test_the_table_of_names_is_its_owners_alone(ran: Callable[[str], Ran], kind: str) -> None:
    table = ran(kind).folder / TABLE
    assert stat.S_IMODE(table.stat().st_mode) == 0o600
    names = json.loads(table.read_text())
    assert set(quarantine(ran(kind).folder)) <= set(names.values())
    assert found_in(table.read_bytes()) or kind == "datalist"


def test_mlflow_knows_nobody(ran: Callable[[str], Ran], place: Path) -> None:
    for kind in SOURCES:
        assert "MLflow: run" in ran(kind).console
    beside = {path.name for path in place.iterdir()} - {"runs"}
    assert {"mlflow.db", "mlartifacts"} <= beside
    assert b"brats" in (place / "mlflow.db").read_bytes()
    assert told_in(place, beside=(TABLE,)) == {}


def test_messages_still_say_what_is_wrong(ran: Callable[[str], Ran]) -> None:
    """A name is told as a pseudonym that its owner can look up, and the rest of the sentence stays."""

    def messages(kind: str) -> dict[str, str]:
        entries = json.loads((ran(kind).folder / "quarantine.json").read_text())
        return {entry["reason"]: entry["message"] for entry in entries}

    gaps = messages("dicom")["series_gaps"]
    assert gaps.startswith("[series_gaps] the slices in image are not evenly spaced\n  got: 9 slices, 2 to 4 mm from")
    assert re.match(r"\[header_size\] c[0-9a-f]{12}_image\.nrrd does not hold", messages("nrrd")["header_size"])
    stray = re.search(r"got: \['(c[0-9a-f]{12})'\]\n", messages("brats")["extra_modality"])
    assert stray is not None
    names = {told: name for name, told in json.loads((ran("brats").folder / TABLE).read_text()).items()}
    assert names[stray[1]] == f"photo of {CANARY}^JANE {MRN}.nii.gz"
