"""How a run tells where it stands: on a terminal, in a log, and to nobody."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from medadv.defense.training import Point
from medadv.study import progress
from medadv.study.progress import Bars, Learner, Lines, Silent, Watch, watching

UNET = Learner("unet", 2)
BRACKETS = "quarantined a: [not_finite] flair holds NaN [/red] in /runs/[x]"


def listening(terminal: bool) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, force_terminal=terminal, width=100, color_system=None), out


@pytest.mark.parametrize(("terminal", "kind"), [(True, Bars), (False, Lines)])
def test_words_are_told_as_they_are(terminal: bool, kind: type) -> None:
    """Reason codes stand in brackets, which rich would take for a style."""
    console, out = listening(terminal)
    with watching(console) as watch:
        assert isinstance(watch, kind)
        watch.say(BRACKETS)
        watch.task("train [bold]", 2)
        watch.step("loss [red] 0.3")
        watch.step()
    assert BRACKETS in out.getvalue()
    assert "train [bold]" in out.getvalue()


def test_a_log_has_a_line_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    console, out = listening(False)
    clock = iter([0.0, 0.0, *[float(second) for second in range(1, 31)]])
    monkeypatch.setattr("medadv.study.progress.time.monotonic", lambda: next(clock))
    with watching(console) as watch:
        watch.task("attack", 30)
        for number in range(30):
            watch.step(f"case {number}")
    lines = out.getvalue().splitlines()
    assert lines[0] == "attack: 30 to do"
    assert [line.split(",")[0] for line in lines[1:]] == ["attack: 10/30", "attack: 20/30", "attack: 30/30"]
    assert "20 s left case 9" in lines[1]


def test_a_long_path_stays_in_one_line() -> None:
    console, out = listening(False)
    Lines(console).say("/" + "runs/" * 60)
    assert len(out.getvalue().splitlines()) == 1


def test_nobody_is_told_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    silent: Watch = Silent()
    silent.say("a")
    silent.task("b", 1)
    silent.step()
    silent.learnt(UNET, Point(0, 1.0, 0.1), 1)
    assert capsys.readouterr() == ("", "")
    assert progress.EVERY_SECONDS == 10


def test_a_training_is_told_with_its_last_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on at step 40 of 100: what was learnt before took no time here."""
    console, out = listening(False)
    clock = iter([0.0, 0.0, *[float(second) for second in range(10, 1000, 10)]])
    monkeypatch.setattr("medadv.study.progress.time.monotonic", lambda: next(clock))
    watch = Lines(console)
    watch.task(f"train {UNET.title}", 100)
    watch.learnt(UNET, Point(40, 0.5, 0.1), 100)
    watch.learnt(UNET, Point(41, 0.4, 0.1, 0.8, 0.25), 100)
    watch.learnt(UNET, Point(42, 0.3, 0.1), 100)
    watch.task("train unet, fold 3", 100)
    watch.learnt(Learner("unet", 3), Point(0, 0.2, 0.1, 0.7), 100)
    assert out.getvalue().splitlines() == [
        "train unet, fold 2: 100 to do",
        "train unet, fold 2: 41/100, 10 s, 590 s left loss 0.500",
        "train unet, fold 2: 42/100, 20 s, 580 s left loss 0.400, Dice 0.800, attacked 0.250 (step 42)",
        "train unet, fold 2: 43/100, 30 s, 570 s left loss 0.300, Dice 0.800, attacked 0.250 (step 42)",
        "train unet, fold 3: 100 to do",
        "train unet, fold 3: 1/100, 10 s, 990 s left loss 0.200, Dice 0.700 (step 1)",
    ]


def test_a_bar_goes_on_where_a_training_was() -> None:
    """On 100 columns every number is told."""
    console, out = listening(True)
    with watching(console) as watch:
        watch.task("train unet", 100)
        watch.learnt(UNET, Point(40, 0.5, 0.1), 100)
        watch.learnt(UNET, Point(41, 0.4, 0.1, 0.8, 0.25), 100)
    assert "42/100" in out.getvalue()
    assert "loss 0.400, Dice 0.800, attacked 0.250" in out.getvalue()
