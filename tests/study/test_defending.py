"""Defences trained by a study: what each makes of a training, and by what its checkpoint is chosen."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from study.small_study import TRAINED, trained

from medadv.data.cache import Cache
from medadv.data.phantom import phantom
from medadv.defense.crops import Mixed
from medadv.defense.lessons import Distilled, Hardened, Plain, Trades
from medadv.errors import ConfigError, RunError
from medadv.study.cohort import gather
from medadv.study.defending import Company, Examination, lesson, training_set
from medadv.study.entry import Entry
from medadv.study.folder import RunFolder
from medadv.study.inputs import read_labelled
from medadv.study.lineup import Terms, line_up
from medadv.study.names import Names
from medadv.study.progress import Silent
from medadv.study.run import train
from medadv.study.schooling import untrained
from medadv.study.spec import Study
from medadv.victims.checkpoint import load_victim
from medadv.victims.combine import Scaled
from medadv.victims.ranges import MinMax
from medadv.victims.transforms import GaussianSmoothing

CPU = torch.device("cpu")

DEFENCES: dict[str, dict[str, Any]] = {
    "distilled": {"name": "distillation", "at": 10},
    "augmented": {
        "name": "augmentation",
        "attacks": {"fgsm": {"preset": "fgsm"}},
        "budgets": ["0.1 sigma", "0.2 sigma"],
        "share": 0.75,
        "validation_steps": 1,
    },
    "hardened": {
        "name": "adversarial training",
        "steps": 2,
        "budgets": ["0.05 sigma", "0.2 sigma"],
        "validation_steps": 1,
    },
    "trades": {"name": "trades", "steps": 1, "budgets": ["0.2 sigma"], "validation_steps": 1},
    "smoothed": {"name": "gaussian smoothing", "sigma": 1.0},
}


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("five")
    phantom(root, 5, (24, 24, 24), seed=4)
    return root


def study(root: Path, **changes: Any) -> Study:
    defended = {name: {"like": "unet", "defence": defence} for name, defence in DEFENCES.items()}
    data = {"importer": "brats", "root": str(root), "release": "2021"}
    return trained(**{"data": data, "victims": {"unet": TRAINED, **defended}, **changes})


@pytest.fixture(scope="module")
def learnt(five: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study whose victims are trained."""
    return train(study(five), runs=tmp_path_factory.mktemp("runs"))


def entry(name: str, made: Study, folder: Path) -> Entry:
    parts = gather(made, folder, Names(None), Silent(), alone=True)
    return Entry.of(made, made.entrants[name], parts, parts.folds[0], folder)


def curve(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / "victims" / name / "training.csv").open() as table:
        return [row for row in csv.DictReader(table) if row["dice"]]


def test_every_trained_victim_has_a_folder_and_a_transformed_one_has_none(learnt: Path) -> None:
    there = {path.name for path in (learnt / "victims").iterdir()}
    assert there == {"unet", "distilled-teacher", "distilled", "augmented", "hardened", "trades"}


@pytest.mark.parametrize(
    ("name", "attacked"),
    [("unet", False), ("distilled", False), ("augmented", True), ("hardened", True), ("trades", True)],
)
def test_hardened_victims_are_validated_under_attack_and_others_are_not(
    learnt: Path, name: str, attacked: bool
) -> None:
    assert all(bool(row["attacked"]) is attacked for row in curve(learnt, name))


def test_student_and_teacher_deploy_logits_as_large_as_their_temperature(learnt: Path) -> None:
    for name in ("distilled", "distilled-teacher"):
        network = load_victim(learnt / "victims" / name).network
        assert isinstance(network, Scaled)
        assert network.factor == 10
    assert not isinstance(load_victim(learnt / "victims" / "hardened").network, Scaled)


def test_the_saved_layers_of_a_student_are_those_of_the_undefended_architecture(learnt: Path) -> None:
    student, plain = (load_victim(learnt / "victims" / name) for name in ("distilled", "unet"))
    assert isinstance(student.network, Scaled)
    assert list(student.network.network.state_dict()) == list(plain.network.state_dict())
    card = json.loads((learnt / "victims" / "distilled" / "victim.json").read_text())
    assert card["scale"] == 10


def test_a_teacher_is_no_copy_of_the_undefended_victim(learnt: Path) -> None:
    teacher, plain = (load_victim(learnt / "victims" / name) for name in ("distilled-teacher", "unet"))
    assert isinstance(teacher.network, Scaled)
    first = next(iter(teacher.network.network.parameters())), next(iter(plain.network.parameters()))
    assert not torch.equal(*first)


def test_defences_begin_with_the_weights_that_the_undefended_victim_begins_with(five: Path, tmp_path: Path) -> None:
    made = study(five)
    plain, hardened = (untrained(entry(name, made, tmp_path), CPU) for name in ("unet", "hardened"))
    assert all(
        torch.equal(a, b) for a, b in zip(plain.network.parameters(), hardened.network.parameters(), strict=True)
    )


def test_nothing_of_the_cache_is_left(learnt: Path) -> None:
    assert not (learnt / "cache").exists()


def test_the_same_study_elsewhere_gives_the_same_weights(five: Path, learnt: Path, tmp_path: Path) -> None:
    torch.manual_seed(8)
    again = train(study(five), runs=tmp_path)
    for path in sorted((learnt / "victims").glob("*/weights.safetensors")):
        assert (again / path.relative_to(learnt)).read_bytes() == path.read_bytes(), path.parent.name


def test_each_defence_is_its_own_lesson(five: Path, tmp_path: Path) -> None:
    made = study(five)
    expected = {
        "unet": Plain,
        "distilled-teacher": Plain,
        "distilled": Distilled,
        "augmented": Plain,
        "hardened": Hardened,
        "trades": Trades,
    }
    for name, kind in expected.items():
        one = entry(name, made, tmp_path)
        victim = untrained(one, CPU)
        learning = lesson(one, victim, Company(teacher=victim))
        assert type(learning) is kind
        assert learning.network is victim.network
    teacher = entry("distilled-teacher", made, tmp_path)
    tempered = lesson(teacher, untrained(teacher, CPU), Company())
    assert isinstance(tempered, Plain)
    assert tempered.temperature == 10


def test_an_augmentation_shows_a_copy_for_each_attack_and_budget(five: Path, tmp_path: Path) -> None:
    made = study(five)
    one = entry("augmented", made, tmp_path)
    victim = untrained(one, CPU).reading(one.parts.modalities)
    examples = training_set(one, victim, Company(undefended=victim))
    assert isinstance(examples, Mixed)
    assert examples.share == 0.75
    assert len(examples.adversarial) == 2
    clean = examples.clean[0].z
    small, large = (copies[0].z for copies in examples.adversarial)
    inside = clean != 0
    assert ((small != clean) & inside).any()
    assert (small[~inside] == 0).all()  # the copy's background is the case's
    assert (large - clean).abs().mean() > 1.5 * (small - clean).abs().mean()


def test_copies_are_found_once_and_again_for_another_victim(five: Path, tmp_path: Path) -> None:
    made = study(five)
    one = entry("augmented", made, tmp_path)
    victim = untrained(one, CPU).reading(one.parts.modalities)
    folder = one.cache.folder
    training_set(one, victim, Company(undefended=victim))
    first = {path.name for path in folder.iterdir()}
    training_set(one, victim, Company(undefended=victim))
    assert {path.name for path in folder.iterdir()} == first
    with torch.no_grad():
        next(iter(victim.network.parameters())).add_(0.1)
    training_set(one, victim, Company(undefended=victim))
    assert {path.name for path in folder.iterdir()} > first


def test_lessons_that_attack_know_radius_and_support_of_each_case(five: Path, tmp_path: Path) -> None:
    one = entry("hardened", study(five), tmp_path)
    victim = untrained(one, CPU).reading(one.parts.modalities)
    example = training_set(one, victim, Company())[0]
    assert not isinstance(example, list)
    assert example.support is not None
    assert example.radius is not None
    inside = [z[where].std(correction=0) for z, where in zip(example.z, example.support, strict=True)]
    assert example.radius == pytest.approx(0.2 * torch.stack(inside), rel=1e-4)


def test_an_examination_attacks_within_the_studys_threat(five: Path, tmp_path: Path) -> None:
    """The drill of a validation stays inside the budget, in the support, and is the one that the spec says."""
    one = entry("hardened", study(five, modalities=["t1"]), tmp_path)
    victim = untrained(one, CPU).reading(one.parts.modalities)
    volume = read_labelled(one.fold.validate[0])
    drill = Examination(one).drill
    assert drill is not None
    change = drill(victim, volume)[0] - volume.x
    sigma = volume.x[0][volume.x[0] != 0].double().std(correction=0)
    assert change[0].abs().max().item() == pytest.approx(0.2 * sigma.item(), rel=1e-5)
    assert (change[1:] == 0).all()
    assert (change[:, (volume.x == 0).all(0)] == 0).all()
    dice, attacked = Examination(one)(victim, volume)
    assert attacked is not None
    assert 0 <= attacked <= 1
    assert 0 <= dice <= 1


def test_cached_soft_labels_are_those_that_are_asked_on_line(five: Path, tmp_path: Path) -> None:
    """Of whole cases in one window, which is what crops without augmentation would be."""
    defence = {"name": "distillation", "at": 10, "labels": "cached"}
    made = study(five, victims={"unet": TRAINED, "distilled": {"like": "unet", "defence": defence}})
    one = entry("distilled", made, tmp_path)
    victim, teacher = (untrained(entry(n, made, tmp_path), CPU) for n in ("distilled", "distilled-teacher"))
    company = Company(teacher=teacher)
    example = training_set(one, victim.reading(one.parts.modalities), company)[0]
    assert not isinstance(example, list)
    assert example.soft is not None
    with torch.no_grad():
        asked = (teacher.inference(teacher.network, example.z[None]) / 10).softmax(1)[0]
    assert (example.soft.float() - asked).abs().max() < 1e-3
    other = untrained(entry("distilled-teacher", made.model_copy(update={"seed": 5}), tmp_path), CPU)
    with pytest.raises(RunError, match="another teacher"):
        training_set(one, victim.reading(one.parts.modalities), Company(teacher=other))


def test_a_student_with_cached_labels_is_trained_and_they_are_removed(five: Path, tmp_path: Path) -> None:
    defence = {"name": "distillation", "at": 10, "labels": "cached"}
    folder = train(
        study(five, victims={"unet": TRAINED, "distilled": {"like": "unet", "defence": defence}}), runs=tmp_path
    )
    assert (folder / "victims" / "distilled" / "weights.safetensors").exists()
    assert not (folder / "victims" / "distilled" / "soft_labels").exists()


def test_a_teacher_that_is_shown_other_images_is_refused(five: Path, tmp_path: Path) -> None:
    """What the study says is told when it is read; what a teacher from elsewhere says, before anything is learnt."""
    teacher = {"like": "unet", "normalise": {"name": "min-max"}, "defence": {"name": "teacher", "at": 10}}
    student = {"like": "unet", "defence": {"name": "distillation", "at": 10, "teacher": "teacher"}}
    with pytest.raises(ConfigError, match="would be shown other images: both have the same normalise"):
        study(five, victims={"unet": TRAINED, "teacher": teacher, "student": student})
    made = study(five)
    taught = untrained(entry("distilled", made, tmp_path), CPU)
    other = replace(untrained(entry("distilled-teacher", made, tmp_path), CPU), preprocess=(MinMax(),))
    with pytest.raises(ConfigError, match="would be shown other images"):
        lesson(entry("distilled", made, tmp_path), taught, Company(teacher=other))


def test_a_distilled_victim_is_taken_along_as_a_defence_made_elsewhere(
    five: Path, learnt: Path, tmp_path: Path
) -> None:
    """Its own file names the layers; that the undefended victim's study names them too is no contradiction."""
    weights = str(learnt / "victims" / "distilled")
    taken = {"like": "unet", "weights": weights, "defence": {"name": "elsewhere", "at": 10}}
    seen = json.loads((learnt / "split.json").read_text())["roles"]
    test = [case for case, role in seen.items() if role == "test"]
    split = {
        "train": [c for c in seen if c not in test][:1],
        "validate": [c for c in seen if c not in test][1:],
        "test": test,
    }
    made = study(five, study="other", split=split, victims={"unet": TRAINED, "taken": taken})
    folder = train(made, runs=tmp_path)
    parts = gather(made, folder, Names(None), Silent(), alone=True)
    contestants = {c.name: c for c in line_up(made, parts, RunFolder(folder), Terms({}, CPU), Silent())}
    network = next(iter(contestants["taken"].victims.values())).network
    assert isinstance(network, Scaled)
    assert network.factor == 10


def test_a_transformed_victim_is_the_undefended_one_behind_its_transform(five: Path, learnt: Path) -> None:
    made = study(five)
    folder = RunFolder(learnt)
    parts = gather(made, learnt, Names(None), Silent(), alone=True)
    contestants = {c.name: c for c in line_up(made, parts, folder, Terms({}, CPU), Silent())}
    smoothed = next(iter(contestants["smoothed"].victims.values()))
    plain = next(iter(contestants["unet"].victims.values()))
    assert smoothed.steps == (GaussianSmoothing(1.0), *plain.steps)
    assert smoothed.network is plain.network


def test_the_cache_is_where_the_run_is(five: Path, tmp_path: Path) -> None:
    assert entry("unet", study(five), tmp_path).cache == Cache(tmp_path / "cache")
