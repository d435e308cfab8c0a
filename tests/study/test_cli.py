"""The command line, verb by verb: what it does, what it says, and what it returns."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
import typer
import yaml
from study.small_study import NETWORK, TRAINED, quarantine, tables
from typer.testing import CliRunner, Result

from medadv import cli
from medadv.data.brats import MODALITIES
from medadv.labels import BRATS_2018
from medadv.study.entrants import VictimSpec
from medadv.victims.checkpoint import save_victim
from medadv.victims.head import Sigmoid, Softmax
from medadv.victims.networks import Architecture, build_network
from medadv.victims.segmentation import Segmenter

VERBS = ("demo", "run", "train", "plan", "check", "init", "doctor", "attack", "export", "score", "report", "track")


def medadv(*arguments: object) -> Result:
    """As typed; what would be a traceback is raised here."""
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained victim on the disk."""
    folder = tmp_path_factory.mktemp("model")
    architecture = Architecture.model_validate(NETWORK)
    torch.manual_seed(2)
    network = build_network(architecture, 4, 4)
    save_victim(Segmenter(network, Softmax(BRATS_2018), MODALITIES), architecture, folder)
    return folder


@pytest.fixture
def study(three: Path, model: Path, tmp_path: Path) -> Path:
    """A study on the disk that attacks the victim on the disk."""
    content = {
        "study": "typed",
        "ids": "as-is",
        "data": {"importer": "brats", "root": str(three), "release": "2021"},
        "victims": {"net": {"weights": str(model)}},
        "budgets": ["0.2 sigma"],
        "attacks": {"fgsm": {"preset": "fgsm"}},
        "controls": ["identity"],
        "primary": {"region": "WT"},
        "regions": ["WT"],
    }
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def advised(result: Result, *words: str) -> None:
    """A mistake of the user's: exit code 2, what is wrong, no traceback, nothing on standard output but progress."""
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    for word in words:
        assert word in result.stderr


# Help


def test_every_verb_has_help() -> None:
    group = typer.main.get_command(cli.app)
    assert set(group.commands) == set(VERBS)  # type: ignore[attr-defined]
    assert all(verb in medadv("--help").stdout for verb in VERBS)
    for verb in VERBS:
        result = medadv(verb, "--help")
        assert result.exit_code == 0
        assert "Usage" in result.stdout


def test_no_argument_is_a_question_for_help() -> None:
    assert "Usage" in medadv().output


def test_the_pipelines_that_come_along_are_found() -> None:
    assert yaml.safe_load(cli.pipeline("demo").read_text())["study"] == "demo"


# run, report, track


def test_a_run_leaves_tables_and_a_report(study: Path, tmp_path: Path, no_report: None) -> None:
    result = medadv("run", study, "--runs", tmp_path / "runs", "--no-track")
    assert result.exit_code == 0, result.output
    folder = tmp_path / "runs" / "typed"
    assert f"study typed in {folder}" in result.stdout
    assert "attack: 9/9" in result.stdout
    assert str(folder / "report" / "index.html") in result.stdout
    before = tables(folder)
    for name in before:
        (folder / name).unlink()
    again = medadv("report", folder)
    assert again.exit_code == 0, again.output
    assert tables(folder) == before


def test_values_are_set_over_the_file(study: Path, tmp_path: Path, no_report: None) -> None:
    settings = ("--set", "study=other", "--set", "budgets=[0.1 sigma]", "--set", "attacks.fgsm.loss=dice")
    assert medadv("run", study, "--runs", tmp_path, "--no-track", *settings).exit_code == 0
    stored = yaml.safe_load((tmp_path / "other" / "study.yaml").read_text())
    assert (stored["budgets"], stored["attacks"]["fgsm"]["loss"]) == (["0.1 sigma"], "dice")


def test_parts_and_then_a_report(study: Path, tmp_path: Path, no_report: None) -> None:
    medadv("run", study, "--runs", tmp_path / "whole", "--no-track")
    for part in ("1/2", "2/2"):
        assert medadv("run", study, "--runs", tmp_path / "parts", "--no-track", "--part", part).exit_code == 0
    assert medadv("report", tmp_path / "parts" / "typed").exit_code == 0
    assert tables(tmp_path / "parts" / "typed") == tables(tmp_path / "whole" / "typed")


def test_files_go_out_and_segmentations_come_back(study: Path, tmp_path: Path, no_report: None) -> None:
    settings = ("--runs", tmp_path, "--set", "volumes.keep=all")
    assert medadv("run", study, *settings, "--no-track").exit_code == 0
    out, key = tmp_path / "out", tmp_path / "typed" / "exports" / "out.json"
    told = medadv("export", study, out, *settings, "--labels", "--conditions", "fgsm-*")
    assert (told.exit_code, out.is_dir(), str(key) in told.stdout.replace("\n", "")) == (0, True, True), told.output
    score = ("score", study, out / "labelsTs", "--key", key, "--victim", "expert", *settings)
    told = medadv(*score)
    assert told.exit_code == 0, told.output
    assert "mean Dice on clean files: WT 1.000" in told.stdout.replace("\n", " ")
    (out / "labelsTs" / "m0002.nii.gz").unlink()
    again = medadv(*score[:-4], "--victim", "another", *settings)
    assert again.exit_code == cli.QUARANTINED
    assert "1 segmentations did not come back: m0002" in again.stderr
    advised(medadv("score", study, out, "--key", key, "--victim", "net", *settings), "a victim of the study itself")


def test_a_case_that_was_left_out_is_told_by_the_exit_code(
    study: Path, three: Path, tmp_path: Path, no_report: None
) -> None:
    data = Path(shutil.copytree(three, tmp_path / "data"))
    (data / "Phantom_00001" / "Phantom_00001_t2.nii.gz").unlink()
    result = medadv("run", study, "--runs", tmp_path / "runs", "--no-track", "--set", f"data.root={data}")
    assert result.exit_code == cli.QUARANTINED == 3
    assert "quarantined Phantom_00001: [missing_modality]" in result.stdout
    assert "1 case" in result.stderr
    assert "quarantine.json says why" in result.stderr
    assert quarantine(tmp_path / "runs" / "typed") == {"Phantom_00001": "missing_modality"}
    assert medadv("report", tmp_path / "runs" / "typed").exit_code == 3


def test_a_run_is_tracked_unless_that_is_refused(
    study: Path, tmp_path: Path, no_report: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracked: list[Path] = []
    monkeypatch.setattr("medadv.study.run.track", lambda folder: str(tracked.append(folder)))
    medadv("run", study, "--runs", tmp_path, "--no-track")
    assert tracked == []
    assert medadv("run", study, "--runs", tmp_path).exit_code == 0
    assert tracked == [tmp_path / "typed"]


def test_trouble_of_mlflow_is_not_the_runs(
    study: Path, tmp_path: Path, no_report: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medadv.errors import RunError

    def refuse(folder: Path) -> str:
        raise RunError("the store is locked", advice="track it later")

    monkeypatch.setattr("medadv.study.run.track", refuse)
    result = medadv("run", study, "--runs", tmp_path)
    assert result.exit_code == 0
    assert "the store is locked" in result.stdout
    assert "track it later" in result.stdout


# train


def test_train_trains_and_attacks_nothing(tmp_path: Path) -> None:
    content = {
        "study": "learnt",
        "ids": "as-is",
        "data": {"importer": "phantom", "cases": 3, "shape": [24, 24, 24]},
        "split": {"train": 1, "validate": 1},
        "victims": {"unet": TRAINED},
        "attacks": {"fgsm": {"preset": "fgsm"}},
        "primary": {"region": "WT"},
    }
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(content))
    result = medadv("train", path, "--runs", tmp_path)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "learnt"
    assert "training unet on 1 cases, validated on 1" in result.stdout
    assert str(folder / "victims") in result.stdout
    victim = {path.name for path in (folder / "victims" / "unet").iterdir()}
    assert victim == {"training.csv", "victim.json", "weights.safetensors"}
    assert not (folder / "records").exists()


# attack


def picture(path: Path) -> np.ndarray:
    return matplotlib.image.imread(path)


def test_one_case_is_attacked_and_drawn(model: Path, three: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = medadv("attack", model, three / "Phantom_00000", "--budget", "0.3 sigma", "--steps", 2, "--out", out)
    assert result.exit_code == 0, result.output
    for word in ("Phantom_00000", "0.3 sigma", "2 steps", "2 forward and 2 backward", "Dice WT", "->"):
        assert word in result.stdout
    names = {path.name for path in out.iterdir()}
    files = {f"ADVERSARIAL_Phantom_00000_{modality}.nii.gz" for modality in MODALITIES}
    assert names == files | {"ADVERSARIAL.json", "slices.npz", "attack.png"}
    drawn = picture(out / "attack.png")
    assert min(drawn.shape[:2]) > 300
    assert drawn[..., :3].std() > 0.1
    assert len(np.unique(drawn[..., :3].reshape(-1, 3), axis=0)) > 100


def test_a_region_is_erased(model: Path, three: Path, tmp_path: Path) -> None:
    options = ("--erase", "ET", "--steps", 1, "--out", tmp_path / "out")
    result = medadv("attack", model, three / "Phantom_00000", *options)
    assert result.exit_code == 0, result.output
    assert "erase ET" in result.stdout


def test_only_what_a_model_can_tell_is_told(three: Path, tmp_path: Path) -> None:
    """A head for the whole tumour alone says nothing of its parts."""
    architecture = Architecture(arguments={"spatial_dims": 3, "channels": [4, 8], "strides": [2]})
    head = Sigmoid(BRATS_2018, ("WT",))
    save_victim(Segmenter(build_network(architecture, 4, 1), head, MODALITIES), architecture, tmp_path / "net")
    case = three / "Phantom_00000"
    result = medadv("attack", tmp_path / "net", case, "--steps", 1, "--out", tmp_path / "out")
    assert re.findall(r"Dice (\w+)", result.stdout) == ["WT"]
    advised(medadv("attack", tmp_path / "net", case, "--erase", "ET", "--out", tmp_path), "cannot tell the region")


@pytest.mark.parametrize("verb", ["run", "train", "plan", "attack"])
def test_the_machine_is_chosen_by_the_same_words_everywhere(
    verb: str, study: Path, model: Path, three: Path, tmp_path: Path
) -> None:
    names = {option for p in typer.main.get_command(cli.app).commands[verb].params for option in p.opts}  # type: ignore[attr-defined]
    assert {"--device", "--memory", "--trust"} <= names
    place = (model, three / "Phantom_00000", "--out", tmp_path) if verb == "attack" else (study, "--runs", tmp_path)
    advised(medadv(verb, *place, "--device", "cuda:99"), "no such device")
    advised(medadv(verb, *place, "--memory", "1 MiB"), "spent before anything runs", "try: give more memory")
    advised(medadv(verb, *place, "--memory", "much"), "no amount of memory")
    assert not list(tmp_path.glob("typed"))


# Mistakes


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("stepz=1", ("unknown key", "The keys here are")),
        ("budgets=[-1 sigma]", ("not negative",)),
        ("attacks.fgsm={preset: ifgsm, steps: 0}", ("at least one step",)),
        ("data.root=/nowhere", ("no BraTS case under /nowhere", "try:")),
        ("victims.net.weights=/nowhere", ("there is no model at this path", "check the path")),
        ("primary.region=brain", ("'brain' is no region", "WT")),
        ("split.train=9", ("more patients than are left",)),
        ("victims.net={}", ("nothing to train it on", "split.train")),
    ],
)
def test_a_mistake_ends_in_advice(study: Path, tmp_path: Path, setting: str, words: tuple[str, ...]) -> None:
    advised(medadv("run", study, "--runs", tmp_path, "--no-track", "--set", setting), *words)


def test_what_is_typed_wrong_ends_in_advice(study: Path, model: Path, three: Path, tmp_path: Path) -> None:
    case = three / "Phantom_00000"
    (tmp_path / "file").write_text("")
    advised(medadv("run", tmp_path / "none.yaml"), "there is no study at", "check the path")
    advised(medadv("run", study, "--part", "3/2", "--runs", tmp_path), "there is no such part")
    advised(medadv("run", study, "--set", "seed", "--runs", tmp_path), "an override is key=value")
    advised(medadv("run", study, "--runs", tmp_path / "file"), "could not be written")
    advised(medadv("train", tmp_path / "none.yaml"), "there is no study at")
    advised(medadv("report", tmp_path / "none"), "medadv run STUDY.yaml")
    advised(medadv("track", tmp_path / "none"))
    advised(medadv("attack", tmp_path, case), "no model of a format that is known")
    advised(medadv("attack", model, tmp_path / "none"), "this is no case")
    advised(medadv("attack", model, case, "--budget", "much"), "this is no budget")
    advised(medadv("attack", model, case, "--erase", "brain", "--out", tmp_path), "'brain' is no region")
    advised(medadv("attack", model, case, "--release", "1999"), "unknown BraTS release")
    advised(medadv("attack", model, case, "--release", "2023"), "missing_modality")
    advised(medadv("attack", model, case, "--steps", 1, "--out", tmp_path / "file"), "could not be written")
    assert medadv("attack", model, case, "--steps", 0).exit_code == 2
    assert medadv("fly").exit_code == 2


@pytest.mark.parametrize("name", ["net.pt", "net.pt2"])
def test_a_model_that_does_not_say_how_it_is_deployed_is_not_attacked_by_hand(
    three: Path, tmp_path: Path, name: str
) -> None:
    """The advice is a study's lines, and names `medadv run`."""
    net = torch.nn.Conv3d(4, 4, 1).eval()
    if name == "net.pt":
        torch.save(net.state_dict(), tmp_path / name)
    else:
        torch.export.save(torch.export.export(net, (torch.zeros(1, 4, 8, 8, 8),)), tmp_path / name)
    result = medadv("attack", tmp_path / name, three / "Phantom_00000", "--trust", "--out", tmp_path / "out")
    advised(result, "needs a model that says itself how it is deployed", "medadv run")
    lines = result.stderr.split("victims:\n")[1]
    victims = yaml.safe_load("victims:\n" + lines)["victims"]
    spec = VictimSpec.model_validate(victims["mine"])
    asked = {"weights", "modalities", "normalise", "inference"} | ({"network"} if name == "net.pt" else set())
    assert spec.model_fields_set == asked
    assert spec.modalities == ("t1", "t1ce", "t2", "flair")
    assert not (tmp_path / "out").exists()


def test_a_run_that_is_interrupted_says_how_to_go_on(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object, **settings: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("medadv.study.run.run", interrupt)
    result = medadv("run", study)
    assert result.exit_code == 130
    assert "the same command goes on from here" in result.stderr
