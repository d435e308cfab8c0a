"""What a training of a study learns from and is chosen by: its threat, its ranks, its deployed pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from study.small_study import TRAINED, contents, trained
from torch import nn

from medadv.attack.budget import Budget
from medadv.data.case import Volume
from medadv.data.phantom import phantom
from medadv.defense.crops import Example, Mixed
from medadv.defense.lessons import Hardened, Trades
from medadv.defense.ranks import Group, Launch
from medadv.study import courses
from medadv.study.attacks import Ifgsm
from medadv.study.cohort import gather
from medadv.study.courses import course
from medadv.study.defending import Company, Examination, lesson, training_set
from medadv.study.drill import Drill
from medadv.study.entry import Entry
from medadv.study.inputs import read_labelled
from medadv.study.names import Names
from medadv.study.progress import Silent
from medadv.study.run import train
from medadv.study.schooling import untrained, validated
from medadv.study.spec import Study
from medadv.victims.combine import Mirrored
from medadv.victims.segmentation import Segmenter

CPU = torch.device("cpu")
BIG = {"name": "trades", "budgets": ["0.5 sigma", "2 sigma"], "steps": 1, "validation_steps": 1}
DEFENCES: dict[str, dict[str, Any]] = {
    "trades": BIG,
    "fgsm": {"name": "adversarial training", "budgets": ["0.5 sigma", "2 sigma"], "steps": 1},
    "augmented": {
        "name": "augmentation",
        "attacks": {"fgsm": {"preset": "fgsm"}},
        "budgets": ["0.1 sigma", "0.2 sigma"],
        "validation_steps": 1,
    },
    "taught": {"name": "distillation", "at": 10, "labels": "cached"},
    "smoothed": {"name": "gaussian smoothing", "sigma": 1.0},
}


class Telling(Silent):
    """Notes every task and its steps."""

    def __init__(self) -> None:
        self.tasks: list[list[Any]] = []

    def task(self, title: str, total: int) -> None:
        self.tasks.append([title, total, 0])

    def step(self, note: str = "") -> None:
        self.tasks[-1][2] += 1


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("five")
    phantom(root, 5, (24, 24, 24), seed=4)
    return root


def study(root: Path, victim: dict[str, Any] = TRAINED, **changes: Any) -> Study:
    data = {"importer": "brats", "root": str(root), "release": "2021"}
    defended = {name: {"like": "unet", "defence": defence} for name, defence in DEFENCES.items()}
    split = {"train": 2, "validate": 2}
    return trained(**{"data": data, "split": split, "victims": {"unet": victim, **defended}, **changes})


def entry(name: str, made: Study, folder: Path) -> Entry:
    parts = gather(made, folder, Names(None), Silent(), alone=True)
    return Entry.of(made, made.entrants[name], parts, parts.folds[0], folder)


def ready(one: Entry) -> Segmenter:
    return untrained(one, CPU).reading(one.parts.modalities)


# The threat


def test_dice_under_attack_is_the_dice_of_what_the_attack_found(five: Path, tmp_path: Path) -> None:
    one, plain = (entry(name, study(five), tmp_path) for name in ("trades", "unet"))
    victim, volume = ready(one), read_labelled(one.fold.validate[0])
    drill = Examination(one).drill
    assert drill is not None
    clean, attacked = Examination(one)(victim, volume)
    found = replace(volume, x=drill(victim, volume)[0])
    assert Examination(plain)(victim, found) == (attacked, None)
    assert Examination(plain)(victim, volume) == (clean, None)
    assert attacked is not None
    assert attacked < clean


def lowest_and_highest(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x.amin((1, 2, 3)), x.amax((1, 2, 3))


@pytest.mark.parametrize("legal", ["clean", [0.0, 300.0], None])
def test_a_drill_stays_in_the_legal_range(five: Path, tmp_path: Path, legal: Any) -> None:
    one = entry("trades", study(five, legal=legal), tmp_path)
    volume = read_labelled(one.fold.validate[0])
    if legal == [0.0, 300.0]:
        volume = replace(volume, x=volume.x.clamp(max=250))
    drill = Drill(one.study, Ifgsm(preset="ifgsm", steps=1), Budget.parse("2 sigma"))
    found = lowest_and_highest(drill(ready(one), volume)[0])
    low, high = lowest_and_highest(volume.x) if legal != [0.0, 300.0] else map(torch.tensor, legal)
    inside = bool((found[0] >= low).all() and (found[1] <= high).all())
    assert inside is (legal is not None)


def test_on_line_trainings_reach_as_far_as_the_studys_attacks(five: Path, tmp_path: Path) -> None:
    one = entry("trades", study(five, support="volume", modalities=["t2"]), tmp_path)
    examples = training_set(one, ready(one), Company())
    assert not isinstance(examples, Mixed)
    example = examples[0]
    assert isinstance(example, Example)
    assert example.support is not None
    place = one.parts.modalities.index("t2")
    assert example.support[place].all()  # the background, too
    assert example.support.sum() == example.support[place].sum()  # no other modality


def test_a_lesson_knows_both_ends_of_its_range_and_where_it_begins(five: Path, tmp_path: Path) -> None:
    starts = {}
    for name, kind in {"trades": Trades, "fgsm": Hardened}.items():
        one = entry(name, study(five), tmp_path)
        learning = lesson(one, ready(one), Company())
        assert isinstance(learning, kind)
        assert isinstance(learning, Trades | Hardened)
        assert learning.attack.lowest == 0.25
        starts[name] = learning.attack.start
    assert starts == {"trades": "random", "fgsm": "clean"}


def test_a_teacher_begins_with_other_weights_than_the_undefended_victim(five: Path, tmp_path: Path) -> None:
    made = study(five)
    plain, student, teacher = (
        list(untrained(entry(name, made, tmp_path), CPU).network.parameters())
        for name in ("unet", "taught", "taught-teacher")
    )
    assert all(torch.equal(a, b) for a, b in zip(plain, student, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(plain, teacher, strict=True) if a.ndim > 1)


def test_a_transform_stands_in_front_of_the_victim_that_it_is_like(five: Path, tmp_path: Path) -> None:
    victims = {"unet": TRAINED, "trades": {"like": "unet", "defence": BIG}}
    made = study(five, victims={**victims, "smoothed": {"like": "trades", "defence": DEFENCES["smoothed"]}})
    there: dict[tuple[str, int | None], Segmenter] = {
        (name, None): ready(entry(name, made, tmp_path)) for name in victims
    }
    company = Company.among(there, entry("smoothed", made, tmp_path))
    assert company.undefended is there["unet", None]
    assert company.behind is there["trades", None]
    assert company.teacher is None


# Ranks


def test_each_rank_validates_cases_of_its_own(five: Path, tmp_path: Path) -> None:
    one = entry("trades", study(five), tmp_path)
    asked: list[str] = []

    class Noting(Examination):
        def __call__(self, victim: Segmenter, volume: Volume) -> tuple[float, float | None]:
            asked.append(volume.case.case)
            return super().__call__(victim, volume)

    cases = one.fold.validate
    taught = replace(course(one, ready(one), Company()), asked=Noting(one))
    whole = validated(taught, cases)
    halves = [validated(taught, cases, Group(Launch(rank, 2))) for rank in range(2)]
    assert asked == [case.case for case in cases] * 2
    assert sum(half.dice for half in halves) == pytest.approx(whole.dice)
    assert sum(half.attacked or 0 for half in halves) == pytest.approx(whole.attacked)


@pytest.mark.parametrize(("name", "total"), [("augmented", 4), ("taught", 2)])
def test_copies_and_soft_labels_are_made_before_the_training_by_all_ranks(
    five: Path, tmp_path: Path, name: str, total: int
) -> None:
    """What each rank makes is its own share; after both nothing is left to be made."""
    one = entry(name, study(five), tmp_path)
    victim, other = ready(one), ready(entry("unet", study(five, seed=3), tmp_path / "other"))
    company = Company(undefended=other, teacher=untrained(entry("taught-teacher", study(five), tmp_path), CPU))
    place = {"augmented": "cache", "taught": "victims/taught/soft_labels"}[name]
    for rank in range(2):
        watch = Telling()
        training_set(one, victim, company, Group(Launch(rank, 2)), watch)
        assert [task[1:] for task in watch.tasks] == [[total // 2, total // 2]]
    made = set(contents(tmp_path / place))
    assert len(made - {"soft_labels.json"}) == total
    examples = training_set(one, victim, company, watch=Silent())
    for index in range(2):
        every: Sequence[Any] = examples.adversarial if isinstance(examples, Mixed) else [examples]
        assert all(isinstance(each[index], Example) for each in every)
    assert set(contents(tmp_path / place)) == made


# The deployed pipeline


def test_a_mirrored_victim_is_validated_mirrored(five: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And it learns unmirrored."""
    seen: list[tuple[nn.Module, float]] = []
    kept = Examination.__call__

    def noted(self: Examination, victim: Segmenter, volume: Volume) -> tuple[float, float | None]:
        answer = kept(self, victim, volume)
        seen.append((victim.network, answer[0]))
        return answer

    learnt: list[nn.Module] = []

    def observed(one: Entry, victim: Segmenter, company: Company) -> nn.Module:
        learnt.append(victim.network)
        return lesson(one, victim, company)

    monkeypatch.setattr(Examination, "__call__", noted)
    mirroring = {**TRAINED, "mirror": [0, 2], "training": {**TRAINED["training"], "steps": 2}}
    made = study(five, victims={"unet": mirroring}, split={"train": 1, "validate": 1})
    monkeypatch.setattr(courses, "lesson", observed)
    train(made, runs=tmp_path)
    assert len(seen) >= 2
    assert all(isinstance(network, Mirrored) and network.axes == (0, 2) for network, _ in seen)
    assert all(network.network is learnt[0] for network, _ in seen)
