"""What the documentation says is run: Python as it is, studies by the schema, commands by the real parser."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if not {"_build", "_generated"} & set(page.parts)]


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language with all that follows on that line, its text, and where it begins."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    tokens = MarkdownIt().parse(page.read_text())
    fences = [token for token in tokens if token.type == "fence" and token.map]
    return [Block(page, token.map[0] + 1, token.info.strip(), token.content) for token in fences]


EVERY = [block for page in PAGES for block in blocks(page)]
WITH_PYTHON = sorted({block.page for block in EVERY if block.language == "python"})
STUDIES = [block for block in EVERY if block.language == "yaml study"]
FRAGMENTS = [block for block in EVERY if block.language == "yaml"]


def test_every_block_says_what_it_is() -> None:
    """Output and fragments are `text`; nothing is Python, yet not run."""
    known = {"python", "bash", "text", "yaml", "yaml study", "json", "toml"}
    strange = [f"{b}: {b.language!r}" for b in EVERY if b.language not in known and not b.language.startswith("{")]
    assert strange == []
    assert [str(b) for b in EVERY if b.language.startswith("{code") or b.language.startswith("{doctest")] == []


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """The blocks of a page share their names and run in an empty folder."""
    own = [block for block in EVERY if block.page == page and block.language == "python"]
    if any("MEDADV_DATA" in block.text for block in own):
        request.getfixturevalue("data_root")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in own:
        # Blank lines in front, so that a traceback shows the page's own line.
        exec(compile("\n" * block.line + block.text, str(page), "exec"), names)


@pytest.mark.parametrize("block", STUDIES, ids=str)
def test_studies_are_valid(block: Block) -> None:
    from medadv.study.spec import Study

    Study.model_validate(yaml.safe_load(block.text))


@pytest.mark.parametrize("block", FRAGMENTS, ids=str)
def test_fragments_use_the_studys_words(block: Block) -> None:
    from pydantic import TypeAdapter

    from medadv.study.entrants import VictimSpec
    from medadv.study.sources import Data
    from medadv.study.spec import Study

    fragment = yaml.safe_load(block.text)
    assert set(fragment) <= set(Study.model_fields)
    for victim in fragment.get("victims", {}).values():
        VictimSpec.model_validate(victim)
    if "importer" in fragment.get("data", {}):
        TypeAdapter(Data).validate_python(fragment["data"])


def test_the_table_of_victims_names_all_that_a_study_can_say() -> None:
    from typing import get_args

    from medadv.study.entrants import VictimSpec
    from medadv.victims.networks import NETWORKS
    from medadv.victims.normalize import Normalisation
    from medadv.victims.spatial import Spatial

    page = (ROOT / "docs" / "how-to" / "run-a-study.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)[.\w]*` \| (.*) \| .* \|$", page.split("## Victims")[1], re.MULTILINE))
    assert set(VictimSpec.model_fields) <= set(rows)
    steps = {"normalise": Normalisation, "spatial": Spatial}
    named = {key: {part.name for part in get_args(kind)} for key, kind in steps.items()} | {"network": set(NETWORKS)}
    for key, names in named.items():
        assert {name for name in names if not re.search(rf"\b{name}\b", rows[key])} == set()


def commands(program: str) -> list[tuple[str, list[str]]]:
    """Where a page shows a command line of the program, and its arguments."""
    found = []
    for block in EVERY:
        if block.language == "bash":
            for line in re.sub(r"\\\n\s*", " ", block.text).splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] == [program]:
                    found.append((str(block), words[1:]))
    return found


def test_commands_parse() -> None:
    """Every `medadv` line names a verb that exists, with options that the verb knows."""
    shown = commands("medadv")
    if not shown:
        return
    import typer

    from medadv.cli import app

    group: Any = typer.main.get_command(app)
    for where, words in shown:
        verb = None if words[0].startswith("-") else words[0]
        assert verb is None or verb in group.commands, f"{where}: no verb {verb!r}"
        command = group if verb is None else group.commands[verb]
        options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        given = {word.split("=")[0] for word in words if word.startswith("-")}
        assert given <= options | {"--help"}, f"{where}: {verb} has no {sorted(given - options)}"


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = commands("make")
    assert {"demo", "test"} <= {word for _, words in shown for word in words}
    assert [f"{where}: make {' '.join(words)}" for where, words in shown if words and words[0] not in targets] == []


def test_links_between_pages_lead_somewhere() -> None:
    dead = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target and not target.startswith("mailto:") and not (page.parent / target).exists():
                dead.append(f"{page.relative_to(ROOT)} → {target}")
    assert dead == []
