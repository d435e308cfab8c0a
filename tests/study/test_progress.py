"""How a run tells where it stands: on a terminal, in a log, and to nobody."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from medadv.study import progress
from medadv.study.progress import Bars, Lines, Silent, Watch, watching

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
    assert capsys.readouterr() == ("", "")
    assert progress.EVERY_SECONDS == 10
