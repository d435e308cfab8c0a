"""MLflow holds what the run's folder holds, once, and nothing about who ran it where."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

from medadv.atomic import write_text
from medadv.errors import ConfigError, RunError
from medadv.study.records import present_records, write_record
from medadv.study.report import build
from medadv.study.results import read_results
from medadv.study.tracking import plain, track

# MLflow's tables are older than pandas 3.
pytestmark = pytest.mark.filterwarnings("ignore:For backward compatibility, 'str' dtypes are included")

LOGIN = "dr-strangelove"
WAIT_S = 120


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, write_run: Callable[..., Path]) -> Path:
    """A small run with its report, tracked into the default place."""
    root = tmp_path_factory.mktemp("ward-7")
    folder = write_run(root / "runs" / "small", budgets=(0.1,), cases=tuple(f"c{i}" for i in range(6)))
    build(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
            patch.setenv(name, LOGIN)
        track(folder)
    return folder


def client_of(folder: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{folder.parent.parent / 'mlflow.db'}")


def every_run(folder: Path, view: int = ViewType.ACTIVE_ONLY) -> list[Run]:
    client = client_of(folder)
    experiment = client.get_experiment_by_name("small")
    return list(client.search_runs([experiment.experiment_id], run_view_type=view))


def runs_of(folder: Path, view: int = ViewType.ACTIVE_ONLY) -> list[Run]:
    """The parent and the conditions: trainings are as they were, whatever becomes of those."""
    return [run for run in every_run(folder, view) if "medadv.training" not in run.data.tags]


def trainings_of(folder: Path) -> list[Run]:
    return [run for run in every_run(folder) if "medadv.training" in run.data.tags]


def parent_of(runs: list[Run]) -> Run:
    (parent,) = (run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    return parent


def content(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_there_is_a_child_for_each_condition_and_its_numbers_are_the_records(run: Path) -> None:
    runs, results = runs_of(run), read_results(run)
    parent = parent_of(runs)
    children = {r.data.params["condition"]: r for r in runs if r is not parent}
    assert set(children) == {arm.condition for arm in results.arms}
    for arm in results.arms:
        child = children[arm.condition]
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.data.metrics["dice_mean/WT"] == arm.mean("WT")
        assert child.data.metrics["hd95_median/ET"] == arm.median("ET", "hd95")
        assert child.data.metrics["deletions/ET"] == arm.deletions("ET")
        assert child.info.status == "FINISHED"


def test_curves_are_there_step_by_step(run: Path) -> None:
    client, runs = client_of(run), runs_of(run)
    (attack,) = (r for r in runs if r.data.params.get("condition") == "ifgsm-0.1-sigma")
    history = client.get_metric_history(attack.info.run_id, "attack_merit")
    assert [(m.step, round(m.value, 9)) for m in history] == [(k, round(0.1 * k, 9)) for k in range(10)]
    (training,) = trainings_of(run)
    assert training.data.tags["mlflow.parentRunId"] == parent_of(runs).info.run_id
    loss = client.get_metric_history(training.info.run_id, "training_loss")
    assert [m.step for m in loss] == list(range(1, 251))
    assert loss[-1].value == read_results(run).training["unet"][-1].loss


def test_the_settings_are_parameters(run: Path) -> None:
    client, runs = client_of(run), runs_of(run)
    (attack,) = (r for r in runs if r.data.params.get("condition") == "tifgsm-0.1-sigma")
    told, record = attack.data.params, read_results(run).arms[-1].records["c0"]
    wanted = {
        "condition.attack.steps": "10",
        "condition.attack.loss": "cross entropy",
        "condition.attack.size": "none",
        "condition.threat.legal": "clean",
        "condition.threat.support": "nonzero",
        "condition.threat.budget.amounts": "0.1",
        "budget": "0.1 sigma",
        "regions": "WT TC ET",
        "seed": "0",
        "precision": "float32",
        "weights": record.inputs["weights"],
        "network": record.inputs["network"],
    }
    assert {name: told.get(name) for name in wanted} == wanted
    assert not {"voxels", "label"} & set(told)  # they differ from case to case
    parent = parent_of(runs)
    assert parent.data.params["victims.unet.training.steps"] == "250"
    assert parent.data.params["torch"] == "2.15.0"
    path = client.download_artifacts(parent.info.run_id, "study.yaml", str(run.parent.parent))
    text = Path(path).read_text(encoding="utf-8")
    assert yaml.safe_load(text)["victims"] == read_results(run).specification["victims"]
    assert "jdoe" not in text


def test_agreement_is_a_metric_and_groups_are_columns(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "small"
    shutil.copytree(run, folder)
    for record in present_records(folder):
        number = int(record.case[1])
        told = {"stratum": ("HGG", "LGG")[number % 2], "fold": number % 3, "agreement": 1 - number / 1000}
        write_record(folder, record.model_copy(update=told))
    track(folder)
    runs = runs_of(folder)
    attack = next(r for r in runs if r.data.params.get("condition") == "ifgsm-0.1-sigma")
    assert attack.data.metrics["agreement_lowest"] == 0.995
    assert not any("agreement_lowest" in r.data.metrics for r in runs_of(run))
    path = client_of(folder).download_artifacts(attack.info.run_id, "cases.json", str(tmp_path))
    table = json.loads(Path(path).read_text(encoding="utf-8"))
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [(row["case"], row["stratum"], row["fold"]) for row in rows] == [
        (f"c{i}", ("HGG", "LGG")[i % 2], i % 3) for i in range(6)
    ]


def test_students_of_several_temperatures_and_their_teachers_have_settings_and_tags(
    tmp_path: Path, write_run: Callable[..., Path]
) -> None:
    """A study writes one victim where several enter."""
    names = ("unet", "x-T10-teacher", "x-T10")
    folder = write_run(tmp_path / "runs" / "small", budgets=(0.1,), cases=("a", "b"), victims=names)
    content = yaml.safe_load((folder / "study.yaml").read_text(encoding="utf-8"))
    x = {"like": "unet", "defence": {"name": "distillation", "at": [5, 10]}}
    content["victims"] = {"unet": {"training": {"steps": 250}}, "x": x}
    write_text(folder / "study.yaml", yaml.safe_dump(content))
    track(folder, f"sqlite:///{tmp_path / 'mlflow.db'}")
    tags = {run.data.tags["medadv.victim"]: run.data.tags.get("medadv.defence") for run in trainings_of(folder)}
    assert tags == {"unet": "none", "x-T10-teacher": "teacher", "x-T10": "distillation"}
    told = parent_of(runs_of(folder)).data.params
    assert told["victims.x-T10.training.steps"] == "250"
    assert (told["victims.x-T10.defence.name"], told["victims.x-T10.defence.at"]) == ("distillation", "10.0")
    assert told["victims.x-T10-teacher.defence.at"] == "10.0"
    assert not any(name.startswith("victims.x.") for name in told)


def test_doing_it_twice_changes_nothing(run: Path) -> None:
    before = {r.info.run_id for r in every_run(run, ViewType.ALL)}
    assert track(run, f"sqlite:///{run.parent.parent / 'mlflow.db'}") == parent_of(runs_of(run)).info.run_id
    assert {r.info.run_id for r in every_run(run, ViewType.ALL)} == before


def test_no_tag_says_who_ran_it_or_where(run: Path) -> None:
    client = client_of(run)
    experiment = client.get_experiment_by_name("small")
    tags = [experiment.tags, *(r.data.tags | r.data.params for r in every_run(run))]
    written = "\n".join(f"{name}={value}" for table in tags for name, value in table.items())
    for secret in (LOGIN, socket.gethostname(), str(run), str(Path.cwd()), str(Path.home()), "ward-7", "jdoe"):
        assert secret not in written
    allowed = {"medadv.study", "medadv.folder", "medadv.unit", "mlflow.note.content"}
    allowed |= {"mlflow.runName", "mlflow.parentRunId", "mlflow.loggedArtifacts"}
    allowed |= {"medadv.training", "medadv.victim", "medadv.defence"}
    assert {name for r in every_run(run) for name in r.data.tags} <= allowed
    assert {r.info.user_id for r in every_run(run)} <= {"unknown", ""}


def test_a_changed_folder_replaces_what_was_there(run: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(run, root / "runs" / "small")
    shutil.copy(run.parent.parent / "mlflow.db", root / "mlflow.db")
    folder = root / "runs" / "small"
    uri = f"sqlite:///{root / 'mlflow.db'}"
    before = {r.info.run_id for r in runs_of(folder)}
    write_text(folder / "report" / "index.html", "made anew")
    after = track(folder, uri)
    now = {r.info.run_id for r in runs_of(folder)}
    assert after in now
    assert now.isdisjoint(before)
    assert len(now) == len(before)
    # Another study of the same name, declared at another time, stands beside it.
    write_text(folder / "declarations.jsonl", json.dumps({"declared": "another day"}) + "\n")
    track(folder, uri)
    assert len(runs_of(folder)) == 2 * len(before)


def test_an_unfinished_projection_is_made_again(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "runs" / "small"
    shutil.copytree(run, folder)
    shutil.copy(run.parent.parent / "mlflow.db", tmp_path / "mlflow.db")
    write_text(folder / "environment.json", "{}")
    uri, before = f"sqlite:///{tmp_path / 'mlflow.db'}", {r.info.run_id for r in runs_of(folder)}
    real, calls = MlflowClient.log_table, []

    def failing(self: MlflowClient, *given: Any) -> None:
        calls.append(given)
        if len(calls) == 4:
            raise OSError(28, "No space left on device")
        real(self, *given)

    kept = content(folder)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_table", failing)
        with pytest.raises(RunError, match="MLflow did not take the results") as raised:
            track(folder, uri)
    assert "run medadv track again" in str(raised.value)
    assert content(folder) == kept
    torn = {r.info.run_id for r in runs_of(folder)}
    assert before < torn
    track(folder, uri)
    assert {r.info.run_id for r in runs_of(folder)}.isdisjoint(torn)
    assert len(runs_of(folder)) == len(before)


@pytest.mark.parametrize(
    "uri", ["file:./mlruns", "file:///tmp/mlruns", "./mlruns", "/tmp/mlruns", "mlruns", "ftp://x/y"]
)
def test_a_store_of_files_is_refused_with_advice(run: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"mlflow\.db beside runs/"):
        track(run, uri)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(ConfigError, match="no store"):
        track(run)


def test_the_environment_names_the_store(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken.db"
    broken.write_text("this is no database, and long enough to be looked at" * 40)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{broken}")
    kept = content(run)
    with pytest.raises(RunError, match="MLflow did not take the results"):
        track(run)
    assert content(run) == kept


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (("ifgsm@0.1σ",), "ifgsm at 0.1sigma"),
        (("dice", "WT"), "dice/WT"),
        (("../../x", "a<b>"), "_.._x/a_b_"),
        (("..",), "_"),
        (("é",), "_"),
    ],
)
def test_names_are_such_as_mlflow_accepts(parts: tuple[str, ...], name: str) -> None:
    assert plain(*parts) == name


@pytest.fixture
def server(run: Path, tmp_path: Path) -> Iterator[str]:
    """The real MLflow server on a free port of this machine, on the store that was written."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    store = f"sqlite:///{run.parent.parent / 'mlflow.db'}"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1"]
    quiet = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    quiet["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path, env=quiet, start_new_session=True)
    try:
        until(f"http://127.0.0.1:{port}/health", process, tmp_path / "server.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def until(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server answers."""
    for _ in range(WAIT_S * 2):
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    pytest.fail(f"the server did not come up:\n{log.read_text(errors='replace')[-3000:]}")


def ask(address: str, body: dict[str, Any] | None = None) -> Any:
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, content, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def test_the_server_tells_the_run_over_http(run: Path, server: str) -> None:
    api = f"{server}/api/2.0/mlflow"
    experiment = ask(f"{api}/experiments/get-by-name?experiment_name=small")["experiment"]
    found = ask(f"{api}/runs/search", {"experiment_ids": [experiment["experiment_id"]]})["runs"]
    assert len(found) == 1 + len(read_results(run).arms) + len(read_results(run).training)
    (parent,) = (r for r in found if not any(t["key"] == "mlflow.parentRunId" for t in r["data"]["tags"]))
    identity = parent["info"]["run_id"]
    files = ask(f"{api}/artifacts/list?run_id={identity}&path=report")["files"]
    assert "report/index.html" in {file["path"] for file in files}
    page = f"{server}/get-artifact?run_id={identity}&path=report/index.html"
    with urllib.request.urlopen(page, timeout=60) as answer:
        assert answer.read() == (run / "report" / "index.html").read_bytes()
