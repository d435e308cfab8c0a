"""The command line. Heavy imports are inside the verbs: ``medadv --help`` imports neither torch nor monai."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

QUARANTINED = 3
"""The exit code of a run that finished, but left cases out."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="How well image models withstand adversarial input, measured on files, patient by patient.",
)

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Put a value over the YAML's, e.g. data.root=/data"),
]
Runs = Annotated[Path, typer.Option(help="The folder of all runs.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps; auto takes CUDA where there is any.")]
Memory = Annotated[
    str | None, typer.Option(metavar="AMOUNT", help='The most to allocate on the device, e.g. "8 GiB"; uses less then.')
]
Trust = Annotated[
    bool, typer.Option("--trust", help="Load models that are programs, and may do anything on this machine.")
]
StudyFile = Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="The study.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, runs/<study>.")]
Tracked = Annotated[bool, typer.Option("--track/--no-track", help="Give MLflow (mlflow.db) a copy of the results.")]


@app.command()
def demo(runs: Runs = Path("runs"), tracked: Tracked = True, overrides: Overrides = None) -> None:
    """Phantom MR, a UNet trained on it, three attacks, the report: minutes on a laptop."""
    _run(pipeline("demo"), overrides, runs, None, tracked)


@app.command()
def run(
    study: StudyFile,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    part: Annotated[
        str | None,
        typer.Option(metavar="i/n", help="Only the i-th of n parts of the cases; neither trains nor reports."),
    ] = None,
    tracked: Tracked = True,
    device: Device = "auto",
    memory: Memory = None,
    trust: Trust = False,
) -> None:
    """Train what must be trained, attack, score the files, compare, report. The same command resumes."""
    _run(study, overrides, runs, part, tracked, (device, memory, trust))


@app.command()
def train(
    study: StudyFile,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    device: Device = "auto",
    memory: Memory = None,
    trust: Trust = False,
) -> None:
    """Train the victims of a study, and attack nothing."""
    with _advice():
        from rich.console import Console

        from medadv.study.machine import Machine
        from medadv.study.progress import watching
        from medadv.study.run import train

        with watching(Console()) as watch:
            machine = Machine(device, memory, trust)
            folder = train(study, overrides=overrides or (), runs=runs, watch=watch, machine=machine)
            watch.say(f"victims: {folder / 'victims'}")


@app.command()
def plan(
    study: StudyFile,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    device: Device = "auto",
    trust: Trust = False,
    timed: Annotated[bool, typer.Option("--time/--no-time", help="Time one answer and one gradient.")] = True,
) -> None:
    """What a study would do: cells, passes, disk, time, and what its tests could show. Nothing is run."""
    with _advice():
        from medadv.study.load import load_study
        from medadv.study.machine import Machine
        from medadv.study.plan import plan, told

        for line in told(plan(load_study(study, overrides or ()), Machine(device, None, trust), runs, timed=timed)):
            typer.echo(line)


@app.command()
def attack(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The folder of a victim that medadv wrote.")],
    case: Annotated[Path, typer.Argument(metavar="CASE", help="A BraTS case folder, or one image of an MSD task.")],
    budget: Annotated[str, typer.Option(help='How much may change, e.g. "0.1 sigma".')] = "0.1 sigma",
    steps: Annotated[int, typer.Option(min=1, help="Steps of i-FGSM; 1 is FGSM.")] = 10,
    erase: Annotated[str | None, typer.Option(metavar="REGION", help="Make this region vanish (ti-FGSM).")] = None,
    release: Annotated[str, typer.Option(help="The BraTS release, whose names and labels the case has.")] = "2021",
    out: Annotated[Path, typer.Option(help="Where the files and the picture go.")] = Path("attacked"),
) -> None:
    """Attack one case, and draw a picture of what happened."""
    with _advice():
        from medadv.study.single import attack_one

        for line in attack_one(model, case, budget, steps, erase, release, out):
            typer.echo(line)


@app.command()
def report(run: RunFolder) -> None:
    """Make the tables and the report of a run anew, from its folder alone."""
    with _advice():
        from medadv.study.run import finish

        outcome = finish(run)
        typer.echo(f"report: {outcome.folder / 'report' / 'index.html'}")
        _tell_quarantined(outcome.quarantined)


@app.command()
def track(
    run: RunFolder,
    uri: Annotated[str | None, typer.Option(help="An MLflow store; mlflow.db beside runs/ if left out.")] = None,
) -> None:
    """Give MLflow a copy of a run, made from its folder alone. Twice makes no duplicate."""
    with _advice():
        from medadv.study.tracking import track

        typer.echo(f"MLflow: {track(run, uri)}")


def pipeline(name: str) -> Path:
    """A study that comes with medadv: inside the wheel, or beside the package in a checkout."""
    here = Path(__file__).parent
    inside = here / "pipelines" / f"{name}.yaml"
    return inside if inside.exists() else here.parent / "pipelines" / f"{name}.yaml"


def main() -> None:
    """The entry point."""
    app()


def _run(
    study: Path,
    overrides: list[str] | None,
    runs: Path,
    part: str | None,
    tracked: bool,
    machine: tuple[str, str | None, bool] = ("auto", None, False),
) -> None:
    with _advice():
        from rich.console import Console

        from medadv.study.machine import Machine
        from medadv.study.progress import watching
        from medadv.study.run import Part, run

        with watching(Console()) as watch:
            outcome = run(
                study,
                overrides=overrides or (),
                runs=runs,
                part=Part.parse(part) if part else None,
                tracked=tracked,
                watch=watch,
                machine=Machine(*machine),
            )
        _tell_quarantined(outcome.quarantined)


def _tell_quarantined(cases: int) -> None:
    if cases:
        typer.echo(f"{cases} cases were left out; quarantine.json says why", err=True)
        raise typer.Exit(QUARANTINED)


@contextmanager
def _advice() -> Iterator[None]:
    """A user's mistake ends in advice, not in a traceback."""
    from medadv.errors import MedadvError

    try:
        yield
    except MedadvError as error:
        typer.echo(str(error), err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on from here", err=True)
        sys.exit(130)
