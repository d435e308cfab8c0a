"""``medadv train`` on two ranks, as it is typed: torchrun starts them, kills are survived, one rank writes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from study.small_study import TRAINED, contents
from typer.testing import CliRunner

from medadv import cli
from medadv.study.load import load_study
from medadv.study.run import train

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cases to learn from, long enough to be killed on the way."""
    content = {
        "study": "ranks",
        "ids": "as-is",
        "data": {"importer": "phantom", "cases": 4, "shape": [24, 24, 24]},
        "split": {"train": 2, "validate": 1},
        "victims": {"unet": {**TRAINED, "training": {**TRAINED["training"], "steps": 60, "validate_every": 5}}},
        "budgets": ["0.2 sigma"],
        "attacks": {"fgsm": {"preset": "fgsm"}},
        "primary": {"region": "WT"},
    }
    path = tmp_path_factory.mktemp("study") / "study.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def torchrun(study: Path, runs: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    command += ["-m", "medadv", "train", str(study), "--runs", str(runs), "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def lasting(folder: Path) -> dict[str, bytes]:
    return {path: content for path, content in contents(folder).items() if path.startswith("victims/")}


@pytest.mark.long
def test_two_ranks_train_one_victim_and_a_killed_rank_is_gone_on_from(study: Path, tmp_path: Path) -> None:
    undisturbed = torchrun(study, tmp_path / "undisturbed")
    told, _ = undisturbed.communicate(timeout=300)
    assert undisturbed.returncode == 0, told
    assert told.count("study ranks in") == 1  # one rank tells
    reference = lasting(tmp_path / "undisturbed" / "ranks")
    assert set(reference) == {f"victims/unet/{n}" for n in ("training.csv", "victim.json", "weights.safetensors")}

    disturbed = torchrun(study, tmp_path / "killed")
    victim = tmp_path / "killed" / "ranks" / "victims" / "unet"
    until = time.monotonic() + 200
    while not list(victim.glob("checkpoint-*.pt")) and time.monotonic() < until:
        time.sleep(0.02)
    ranks = Path(f"/proc/{disturbed.pid}/task/{disturbed.pid}/children").read_text().split()
    assert len(ranks) == 2
    os.kill(int(ranks[1]), signal.SIGKILL)
    told, _ = disturbed.communicate(timeout=200)
    assert disturbed.returncode != 0
    assert not (victim / "victim.json").exists()

    resumed = torchrun(study, tmp_path / "killed")
    told, _ = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, told
    assert lasting(tmp_path / "killed" / "ranks") == reference


@pytest.mark.long
def test_sigterm_to_torchrun_saves(study: Path, tmp_path: Path) -> None:
    running = torchrun(study, tmp_path)
    victim = tmp_path / "ranks" / "victims" / "unet"
    until = time.monotonic() + 200
    while not list(victim.glob("checkpoint-*.pt")) and time.monotonic() < until:
        time.sleep(0.02)
    running.send_signal(signal.SIGTERM)
    told, _ = running.communicate(timeout=200)
    assert running.returncode != 0
    assert "stopped by SIGTERM after step" in told, told
    again = torchrun(study, tmp_path)
    told, _ = again.communicate(timeout=300)
    assert again.returncode == 0, told


def test_a_run_of_many_ranks_is_refused(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(cli.app, ["run", str(study), "--runs", str(tmp_path)])
    assert result.exit_code == 2
    assert "a study is attacked by parts" in result.stderr
    assert "--part i/n" in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_stopped_training_tells_by_its_exit_code(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """143, as a shell tells of SIGTERM; and the same command goes on."""
    from medadv.defense.training import _Course

    learn, steps = _Course.learn, []

    def signalled(course: _Course, *given: object) -> object:
        steps.append(given[-1])
        if len(steps) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return learn(course, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(_Course, "learn", signalled)
    settings = ("--set", "victims.unet.training.steps=8")
    command = ["train", str(study), "--runs", str(tmp_path), *settings]
    stopped = CliRunner().invoke(cli.app, command)
    assert stopped.exit_code == 143
    assert "stopped by SIGTERM after step 3 of 8" in stopped.stderr
    assert "the same command goes on from there" in stopped.stderr
    finished = CliRunner().invoke(cli.app, command)
    assert finished.exit_code == 0, finished.output
    assert steps == list(range(8))
    undisturbed = train(load_study(study, settings[1:]), runs=tmp_path / "undisturbed")
    assert lasting(tmp_path / "ranks") == lasting(undisturbed)


def test_other_cases_are_another_training(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint knows what it has learnt from."""
    from medadv.study import schooling

    identities = []
    kept = schooling.Checkpoints

    def noted(folder: Path, *given: object) -> object:
        identities.extend(given[:1])
        return kept(folder, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(schooling, "Checkpoints", noted)
    short = ["victims.unet.training.steps=1"]
    train(load_study(study, short), runs=tmp_path / "one")
    train(load_study(study, [*short, "seed=1", "victims.unet.training.batch=2"]), runs=tmp_path / "other")
    one, other = identities
    assert {name for name in one if one[name] != other[name]} == {"cases", "crops"}
