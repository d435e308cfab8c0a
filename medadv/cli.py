"""The command line. Heavy imports are inside the verbs: ``medadv --help`` imports neither torch nor monai."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any

import typer

from medadv.study import verbs
from medadv.study.terminal import QUARANTINED, advice

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
Means = tuple[str, str | None, bool]
"""Device, memory, trust: what a study may use of the machine."""

ANY: Means = ("auto", None, False)

Tracked = Annotated[
    bool, typer.Option("--track/--no-track", help="Give MLflow (mlflow.db) trainings as they go on, and all results.")
]


def on_machine(verb: Callable[..., None]) -> Callable[..., None]:
    """A verb with ``--device``, ``--memory`` and ``--trust`` in the place of its parameter ``machine``."""

    @wraps(verb)
    def typed(*, device: str, memory: str | None, trust: bool, **others: Any) -> None:
        verb(machine=(device, memory, trust), **others)

    own = [parameter for parameter in signature(verb, eval_str=True).parameters.values() if parameter.name != "machine"]
    options = {"device": (Device, "auto"), "memory": (Memory, None), "trust": (Trust, False)}
    shown = [Parameter(n, Parameter.KEYWORD_ONLY, default=d, annotation=a) for n, (a, d) in options.items()]
    # The verb's own may come in any order: Typer gives all of them by name.
    own = [parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in own]
    typed.__signature__ = Signature([*own, *shown])  # type: ignore[attr-defined]
    typed.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *shown)}
    return typed


@app.command()
def demo(runs: Runs = Path("runs"), tracked: Tracked = True, overrides: Overrides = None) -> None:
    """Phantom MR, a UNet trained on it, three attacks, the report: minutes on a laptop."""
    _run(pipeline("demo"), overrides, runs, None, tracked)


@app.command()
@on_machine
def run(
    study: StudyFile,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    part: Annotated[
        str | None,
        typer.Option(metavar="i/n", help="Only the i-th of n parts of the cases; neither trains nor reports."),
    ] = None,
    tracked: Tracked = True,
    machine: Means = ANY,
) -> None:
    """Train what must be trained, attack, score the files, compare, report. The same command resumes."""
    _run(study, overrides, runs, part, tracked, machine)


@app.command()
@on_machine
def train(
    study: StudyFile,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    tracked: Tracked = True,
    machine: Means = ANY,
) -> None:
    """Train the victims of a study, and attack nothing."""
    with advice():
        from rich.console import Console

        from medadv.defense.ranks import launched
        from medadv.study.machine import Machine
        from medadv.study.progress import watching
        from medadv.study.run import train

        with watching(Console(quiet=launched().rank > 0)) as watch:
            settled = Machine(*machine)
            folder = train(study, overrides=overrides or (), runs=runs, tracked=tracked, watch=watch, machine=settled)
            watch.say(f"victims: {folder / 'victims'}")


@app.command()
@on_machine
def plan(
    study: StudyFile,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    machine: Means = ANY,
    timed: Annotated[bool, typer.Option("--time/--no-time", help="Time one answer and one gradient.")] = True,
) -> None:
    """What a study would do: cells, passes, disk, time, and what its tests could show. Nothing is run."""
    with advice():
        from medadv.study.load import load_study
        from medadv.study.machine import Machine
        from medadv.study.plan import plan, told

        for line in told(plan(load_study(study, overrides or ()), Machine(*machine), runs, timed=timed)):
            typer.echo(line)


@app.command()
@on_machine
def attack(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A victim that medadv wrote, a MONAI bundle or an nnU-Net folder.")
    ],
    case: Annotated[Path, typer.Argument(metavar="CASE", help="A BraTS case folder, or one image of an MSD task.")],
    budget: Annotated[str, typer.Option(help='How much may change, e.g. "0.1 sigma".')] = "0.1 sigma",
    steps: Annotated[int, typer.Option(min=1, help="Steps of i-FGSM; 1 is FGSM.")] = 10,
    erase: Annotated[str | None, typer.Option(metavar="REGION", help="Make this region vanish (ti-FGSM).")] = None,
    release: Annotated[str, typer.Option(help="The BraTS release, whose names and labels the case has.")] = "2021",
    out: Annotated[Path, typer.Option(help="Where the files and the picture go.")] = Path("attacked"),
    machine: Means = ANY,
) -> None:
    """Attack one case, and draw a picture of what happened."""
    with advice():
        from medadv.study.machine import Machine
        from medadv.study.single import attack_one, one_case

        source = one_case(case, release)
        for line in attack_one(model, source, budget, steps, erase, out, Machine(*machine)):
            typer.echo(line)


@app.command()
def export(
    study: StudyFile,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to be written; it must not exist.")],
    layout: Annotated[
        str, typer.Option(help="nnunet, nnunet:flair,t1,t1ce,t2 (channels in this order), brats, or brats:2023.")
    ] = "nnunet",
    victim: Annotated[str | None, typer.Option(help="Whose files; the only victim's if left out.")] = None,
    conditions: Annotated[
        list[str] | None, typer.Option(help='Conditions, e.g. "fgsm-*"; all if left out. Clean always goes along.')
    ] = None,
    labels: Annotated[bool, typer.Option("--labels", help="Let the expert's label maps go along.")] = False,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
) -> None:
    """Lay out what a run delivered, under blind names, for a model that is elsewhere."""
    with advice():
        from rich.console import Console

        from medadv.study.export import export
        from medadv.study.load import load_study
        from medadv.study.progress import watching

        with watching(Console()) as watch:
            key = export(
                load_study(study, overrides or ()),
                out,
                layout=layout,
                victim=victim,
                conditions=conditions or (),
                labels=labels,
                runs=runs,
                watch=watch,
            )
            watch.say(f"data: {out}, for whoever predicts")
            watch.say(f"key: {key}, which stays with you")


@app.command()
def score(
    study: StudyFile,
    segmentations: Annotated[Path, typer.Argument(metavar="SEGMENTATIONS", help="A folder, one label map an id.")],
    key: Annotated[Path, typer.Option(help="The export's key: runs/<study>/exports/<OUT>.json.")],
    victim: Annotated[str, typer.Option(help="What the model is called in the results.")],
    scheme: Annotated[
        str | None,
        typer.Option(help="What its label numbers mean: a scheme's name, or its dataset.json; as exported if none."),
    ] = None,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
) -> None:
    """Take segmentations that came back into the tables, tests and report of the run, as one more victim."""
    with advice():
        from rich.console import Console

        from medadv.study.load import load_study
        from medadv.study.metrics import METRICS
        from medadv.study.progress import watching
        from medadv.study.returned import scheme_of, score_returned

        with watching(Console()) as watch:
            whole, told = load_study(study, overrides or ()), scheme_of(scheme) if scheme else None
            came = score_returned(whole, segmentations, key, victim, scheme=told, runs=runs, watch=watch)
            words = METRICS[came.metric].words
            clean = ", ".join(f"{region} {value:.3f}" for region, value in came.clean.items())
            watch.say(f"{victim}: {came.scored} segmentations scored; mean {words} on clean files: {clean or 'none'}")
        if came.missing:
            shown = ", ".join(came.missing[:10]) + (" …" if len(came.missing) > 10 else "")
            typer.echo(f"{len(came.missing)} segmentations did not come back: {shown}", err=True)
            raise typer.Exit(QUARANTINED)


@app.command()
def report(run: RunFolder) -> None:
    """Make the tables and the report of a run anew, from its folder alone."""
    with advice():
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
    with advice():
        from medadv.study.tracking import track

        typer.echo(f"MLflow: {track(run, uri)}")


app.add_typer(verbs.app)


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
    machine: Means = ANY,
) -> None:
    with advice():
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
