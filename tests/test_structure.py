"""The house itself: walls, sizes, names, docstrings, and the files around the code that must agree."""

from __future__ import annotations

import ast
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from jaxtyping import TypeCheckError
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PACKAGE = sorted((ROOT / "medadv").rglob("*.py"))
PYTHON_FILES = [*PACKAGE, *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "benchmarks").rglob("*.py"))]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    command += ["--config", str(ROOT / "pyproject.toml"), "--no-cache", "--no-logo"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


# The walls


def test_the_walls_hold() -> None:
    outcome = lint_imports(ROOT)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


@pytest.mark.parametrize(
    ("module", "line", "wall"),
    [
        ("data/case.py", "import medadv.victims", "imports run one way"),
        ("victims/__init__.py", "import medadv.data", "imports run one way"),
        ("labels.py", "import medadv.attack", "imports run one way"),
        ("attack/budget.py", "import scipy", "the attack is torch alone"),
        ("study/records.py", "def later():\n    import mlflow", "only study/tracking knows MLflow"),
    ],
)
def test_a_breach_is_seen(tmp_path: Path, module: str, line: str, wall: str) -> None:
    shutil.copytree(ROOT / "medadv", tmp_path / "medadv", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "medadv" / module).open("a") as stream:
        stream.write(f"\n{line}\n")
    outcome = lint_imports(tmp_path)
    assert outcome.returncode != 0
    assert re.search(rf"{re.escape(wall)}.*BROKEN", outcome.stdout), outcome.stdout


def imported(path: Path) -> Iterator[str]:
    """The modules that a file names in its import statements."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(path)} imports relatively"
            yield node.module or ""


@pytest.mark.parametrize("path", sorted((ROOT / "medadv" / "attack").rglob("*.py")), ids=relative)
def test_the_attack_imports_nothing_but_torch_and_jaxtyping(path: Path) -> None:
    allowed = {"torch", "jaxtyping", *sys.stdlib_module_names}
    own = re.compile(r"medadv\.(attack(\..+)?|labels|objects|errors)$")
    strange = [name for name in imported(path) if name.split(".")[0] not in allowed and not own.match(name)]
    assert strange == []


# Sizes, names, docstrings


def test_no_file_is_a_drawer_for_everything() -> None:
    drawers = re.compile(r"_?(utils?|helpers?|commons?|misc)\b")
    assert [relative(path) for path in PYTHON_FILES if drawers.match(path.stem)] == []


def test_files_are_short() -> None:
    lengths = {relative(path): len(path.read_text().splitlines()) for path in PYTHON_FILES}
    assert {path: length for path, length in lengths.items() if length > 350} == {}


def definitions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node


def test_functions_are_short_and_take_few_parameters() -> None:
    faults = []
    for path in PACKAGE:
        for node in definitions(path):
            if isinstance(node, ast.ClassDef):
                continue
            where = f"{relative(path)}: {node.name}"
            parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            if sum(parameter.arg not in ("self", "cls") for parameter in parameters) > 8:
                faults.append(f"{where} takes more than eight parameters")
            if (node.end_lineno or node.lineno) - node.lineno >= 60:
                faults.append(f"{where} has sixty lines or more")
    assert faults == []


def test_what_is_public_has_a_docstring() -> None:
    bare = []
    for path in PACKAGE:
        module = ast.parse(path.read_text())
        if not ast.get_docstring(module):
            bare.append(relative(path))
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        for node in module.body:
            if isinstance(node, kinds) and not node.name.startswith("_") and not ast.get_docstring(node):
                bare.append(f"{relative(path)}: {node.name}")
    assert bare == []


# The command line


def test_help_imports_neither_torch_nor_monai() -> None:
    program = (
        "import sys\n"
        "from medadv.cli import main\n"
        "sys.argv = ['medadv', '--help']\n"
        "try:\n    main()\n"
        "except SystemExit as stop:\n    assert stop.code in (0, None), stop.code\n"
        "print('heavy:', sorted({'torch', 'monai', 'mlflow', 'numpy', 'scipy', 'matplotlib'} & set(sys.modules)))\n"
    )
    outcome = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr
    assert "demo" in outcome.stdout
    assert outcome.stdout.rstrip().endswith("heavy: []"), outcome.stdout.splitlines()[-1]


# The tests themselves


def test_a_test_reaches_this_machine_only() -> None:
    with pytest.raises(PermissionError, match=r"192\.0\.2\.1"):
        socket.create_connection(("192.0.2.1", 443), timeout=1)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as caller:
        assert caller.getpeername() == server.getsockname()


def test_shapes_are_checked_while_tests_run() -> None:
    from medadv.labels import BRATS_2018

    with pytest.raises(TypeCheckError):
        BRATS_2018.mask(torch.zeros(2, 2), "WT")


# Files that must agree

DIRECT = [Requirement(line) for line in PROJECT["dependencies"]]


def test_conda_environment_agrees_with_the_project() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    plain = [line for line in environment["dependencies"] if isinstance(line, str)]
    (from_registry,) = (block["pip"] for block in environment["dependencies"] if isinstance(block, dict))
    assert f"python{PROJECT['requires-python']}" in plain
    assert {str(Requirement(line)) for line in from_registry if not line.startswith("-")} == {str(r) for r in DIRECT}


def locked() -> dict[str, Version]:
    pins = re.findall(r"^([a-z0-9.-]+)==([^ ;\\]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    return {name: Version(version) for name, version in pins}


def test_lock_satisfies_every_direct_dependency() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    wanted = DIRECT + [Requirement(line) for group in groups.values() for line in group if isinstance(line, str)]
    pins = locked()
    unmet = [str(r) for r in wanted if r.name not in pins or not r.specifier.contains(pins[r.name])]
    assert unmet == []


def test_everything_in_the_lock_has_a_hash() -> None:
    entries = re.split(r"^(?=[a-z0-9])", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE)[1:]
    assert len(entries) >= len(locked()) > len(DIRECT)
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_the_lock_names_no_place() -> None:
    place = re.compile(r"://| @ |(^|\s)--(index|extra-index|find-links|trusted-host)")
    assert [line for line in (ROOT / "requirements.lock").read_text().splitlines() if place.search(line)] == []


def test_changelog_and_citation_know_the_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    versions = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == "Unreleased" or versions[0] == PROJECT["version"]


def tracked() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: nothing says which files are tracked")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listing.split("\0") if name and (ROOT / name).is_file()]


def test_nothing_tracked_names_a_machine_or_a_registry() -> None:
    place = re.compile(
        rb"(?<![\w.~/-])/(?:home|root|work|Users|mnt|media|opt|srv)/(?!jdoe/)\w"  # somebody's folders; J. Doe is nobody
        rb"|https?://[^\s/'\"]+(?:/[^\s/'\"]+)*/simple\b"  # a package index
        rb"|--(?:extra-)?index-url|--trusted-host|--find-links",
    )
    found = []
    for path in tracked():
        content = path.read_bytes()
        if b"\0" not in content[:1024] and path != Path(__file__):
            found += [f"{relative(path)}: {hit.group().decode()}" for hit in place.finditer(content)]
    assert found == []


def test_actions_are_pinned_to_commits() -> None:
    uses = re.findall(r"uses: (\S+)", "".join(p.read_text() for p in (ROOT / ".github" / "workflows").glob("*.yml")))
    assert uses
    assert [action for action in uses if not re.search(r"@[0-9a-f]{40}$", action)] == []
