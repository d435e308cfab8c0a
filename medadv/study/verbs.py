"""The verbs that look before a study is run: at the data, at the machine; and a first draft of the study.

As in ``medadv.cli``, heavy imports are inside the verbs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medadv.study.terminal import QUARANTINED, advice, watched

app = typer.Typer()

DataPath = Annotated[
    Path, typer.Argument(metavar="DATA", help="A folder, a MONAI datalist (JSON), or a study whose data are taken.")
]
Importer = Annotated[
    str | None, typer.Option(help="brats, msd, nnunet, datalist or pattern; by the names of files if left out.")
]
Release = Annotated[str | None, typer.Option(help="The BraTS release, where names do not tell it.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Declare anything else of a study's data, e.g. labels=brats2018."),
]


@app.command()
def check(
    data: DataPath,
    importer: Importer = None,
    release: Release = None,
    settings: Settings = None,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Everything, for programs.")] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="A page with small histograms.")] = None,
    pseudonyms: Annotated[bool, typer.Option("--pseudonyms", help="Put other names in the place of ids.")] = False,
) -> None:
    """What a data set holds, what to look at, and which cases a run would leave out. Nothing is attacked."""
    with advice():
        from rich.console import Console

        from medadv.study.checking import check, text

        with watched() as watch:
            found = check(data, _declared(importer, release, settings), watch, pseudonyms=pseudonyms)
        if json is not None or html is not None:
            from medadv.study.checking import page

            for path, write in ((json, page.write_json), (html, page.write_page)):
                if path is not None:
                    write(found, path)
        text.told(found, Console(highlight=False))
        for path in (json, html):
            if path is not None:
                typer.echo(f"written: {path}", err=True)
        if found.refused:
            raise typer.Exit(QUARANTINED)


@app.command()
def init(
    data: DataPath,
    model: Annotated[
        Path | None, typer.Argument(metavar="[MODEL]", help="A model of any format; one is trained if left out.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The file to be written; it must not exist.")] = Path("study.yaml"),
    importer: Importer = None,
    release: Release = None,
    settings: Settings = None,
) -> None:
    """Draft a study's YAML from a data set, and a model if there is one; what was not found is marked a default."""
    with advice():
        from medadv.study.drafting import init

        with watched() as watch:
            written = init(data, model, out, _declared(importer, release, settings), watch)
        typer.echo(f"study: {written}; read it, then `medadv plan {written}`")


@app.command()
def doctor(
    runs: Annotated[Path, typer.Option(help="The folder of all runs, whose disk is looked at.")] = Path("runs"),
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="The same for programs.")] = None,
) -> None:
    """What this machine offers, and what of it is known to be bad."""
    with advice():
        from medadv.study.doctor import examine, told, write_json

        findings = examine(runs)
        if json is not None:
            write_json(findings, json)
        for line in told(findings):
            typer.echo(line)
        if any(finding.state == "bad" for finding in findings):
            raise typer.Exit(1)


def _declared(importer: str | None, release: str | None, settings: list[str] | None) -> dict[str, Any]:
    """What is said of the data on the command line, under the keys of a study's ``data``."""
    from medadv.study.load import put

    declared: dict[str, Any] = {}
    for setting in settings or ():
        put(declared, setting)
    return declared | {key: said for key, said in (("importer", importer), ("release", release)) if said is not None}
