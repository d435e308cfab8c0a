"""Who enters a study: victims like others, students at each temperature, teachers."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from medadv.errors import ConfigError
from medadv.study.adaptive import sources_of
from medadv.study.defences import HARDENED, AdversarialTraining, Augmentation, Hardening, OnLine, Trained
from medadv.study.load import as_study
from medadv.study.spec import Study
from medadv.study.suite import judgement

UNDEFENDED: dict[str, Any] = {
    "network": {"name": "UNet", "arguments": {"spatial_dims": 3, "channels": [4, 8], "strides": [2]}},
    "training": {"steps": 40, "rate": 0.004},
}


def study(**victims: Any) -> Study:
    content = {
        "study": "t",
        "data": {"importer": "phantom"},
        "victims": {"unet": UNDEFENDED, **victims},
        "attacks": {"ifgsm": {"preset": "ifgsm"}, "tifgsm": {"preset": "tifgsm", "goal": {"erase": "ET"}}},
        "primary": {"region": "WT"},
    }
    return as_study(content)


def test_a_victim_like_another_shares_all_settings_but_weights_and_what_is_said() -> None:
    made = study(other={"like": "unet", "training": {"steps": 80}}).entrants
    assert made["other"].spec.network == made["unet"].spec.network
    assert made["other"].spec.training.rate == 0.004
    assert made["other"].spec.training.steps == 80
    assert made["other"].undefended is None  # another victim, no defence


def test_each_temperature_has_a_student_and_each_student_a_teacher() -> None:
    made = study(distilled={"like": "unet", "defence": {"name": "distillation", "at": [10, 2.5]}}).entrants
    assert list(made) == ["unet", "distilled-T10-teacher", "distilled-T10", "distilled-T2.5-teacher", "distilled-T2.5"]
    student, teacher = made["distilled-T2.5"], made["distilled-T2.5-teacher"]
    assert (student.undefended, student.teacher, student.judged) == ("unet", "distilled-T2.5-teacher", True)
    assert (teacher.undefended, teacher.teacher, teacher.judged) == (None, None, False)
    for entrant in (student, teacher):
        assert entrant.spec.defence is not None
        assert entrant.spec.defence.temperature == 2.5
        assert entrant.spec.training == made["unet"].spec.training


def test_a_named_teacher_teaches_and_is_judged_like_any_victim() -> None:
    made = study(
        teacher={"like": "unet", "defence": {"name": "teacher", "at": 10}},
        student={"like": "unet", "defence": {"name": "distillation", "at": 10, "teacher": "teacher"}},
    ).entrants
    assert made["student"].teacher == "teacher"
    assert made["teacher"].judged
    assert made["teacher"].undefended is None


def test_a_study_with_a_defence_knows_that_it_has_one() -> None:
    assert not study(other={"like": "unet"}).defended
    hardened = {"like": "unet", "defence": {"name": "adversarial training", "budgets": ["0.05 sigma", "0.1sigma"]}}
    assert study(hardened=hardened).defended


SMOOTHING = {"name": "gaussian smoothing", "sigma": 1.0}
TRADES = {"name": "trades", "budgets": ["0.1"]}


def test_a_defence_of_a_defence_is_held_against_the_victim_that_has_none() -> None:
    made = study(
        other={"like": "unet", "training": {"steps": 80}},
        hardened={"like": "other", "defence": TRADES},
        smoothed={"like": "hardened", "defence": SMOOTHING},
        twice={"like": "smoothed", "defence": {"name": "bit depth", "bits": 4}},
        wider={"like": "hardened", "defence": {"name": "trades", "budgets": ["0.2"]}},
        teacher={"like": "hardened", "defence": {"name": "teacher", "at": 10}},
        taught={"like": "teacher", "defence": {"name": "distillation", "at": 10, "teacher": "teacher"}},
    )
    undefended = {name: entrant.undefended for name, entrant in made.entrants.items()}
    assert undefended == {"unet": None, "other": None, "teacher": None} | dict.fromkeys(
        ("hardened", "smoothed", "twice", "wider", "taught"), "other"
    )
    behind = {name: entrant.behind for name, entrant in made.entrants.items() if entrant.behind}
    assert behind == {"smoothed": "hardened", "twice": "smoothed"}
    declared = judgement(made)
    assert declared is not None
    assert set(declared.undefended.values()) == {"other"}
    transfers = {source for entrant in made.entrants.values() for source in sources_of(entrant)}
    assert transfers == {"other", "teacher"}


ODD = {
    "no such victim": ({"d": {"like": "nobody"}}, "is like 'nobody'"),
    "like one below": ({"d": {"like": "e"}, "e": {"like": "unet"}}, "has to stand above it"),
    "nobody to be held against": ({"d": {"defence": {"name": "distillation", "at": 10}}}, "like: <its name>"),
    "T = 0": ({"d": {"like": "unet", "defence": {"name": "distillation", "at": 0}}}, "greater than 0"),
    "T < 0 in a list": ({"d": {"like": "unet", "defence": {"name": "distillation", "at": [10, -1]}}}, "greater than 0"),
    "T twice": ({"d": {"like": "unet", "defence": {"name": "distillation", "at": [10, 10]}}}, "given twice"),
    "no such teacher": (
        {"d": {"like": "unet", "defence": {"name": "distillation", "at": 10, "teacher": "x"}}},
        "does not stand above it",
    ),
    "a teacher that was never tempered": (
        {"d": {"like": "unet", "defence": {"name": "distillation", "at": 10, "teacher": "unet"}}},
        "trained at 1",
    ),
    "a teacher of another temperature": (
        {
            "t": {"like": "unet", "defence": {"name": "teacher", "at": 20}},
            "d": {"like": "unet", "defence": {"name": "distillation", "at": 10, "teacher": "t"}},
        },
        "trained at 20",
    ),
    "a teacher with another head": (
        {
            "t": {"like": "unet", "head": "sigmoid", "defence": {"name": "teacher", "at": 10}},
            "d": {"like": "unet", "defence": {"name": "distillation", "at": 10, "teacher": "t"}},
        },
        "head says something else",
    ),
    "one teacher for two temperatures": (
        {"d": {"like": "unet", "defence": {"name": "distillation", "at": [5, 10], "teacher": "t"}}},
        "a teacher has one temperature",
    ),
    "weights of what is to be trained": (
        {"d": {"like": "unet", "weights": "w", "defence": {"name": "distillation", "at": 10}}},
        "has no weights yet",
    ),
    "elsewhere without weights": ({"d": {"like": "unet", "defence": {"name": "elsewhere"}}}, "say where they are"),
    "budgets of two units": (
        {"d": {"like": "unet", "defence": {"name": "trades", "budgets": ["0.1 sigma", "3 stored"]}}},
        "one unit",
    ),
    "three budgets of a range": (
        {"d": {"like": "unet", "defence": {"name": "trades", "budgets": ["0.1", "0.2", "0.3"]}}},
        "lowest and the highest",
    ),
    "a range that goes up in one modality and down in another": (
        {"d": {"like": "unet", "defence": {"name": "trades", "budgets": ["0.1/0.2 sigma", "0.2/0.1 sigma"]}}},
        "all amounts in one ratio",
    ),
    "a range whose one modality stays": (
        {"d": {"like": "unet", "defence": {"name": "augmentation", "budgets": ["0.1/0.2 sigma", "0.2 sigma"]}}},
        "all amounts in one ratio",
    ),
    "a training against nothing": (
        {"d": {"like": "unet", "defence": {"name": "trades", "budgets": ["0 sigma"]}}},
        "leave out the budget of 0",
    ),
    "an inner attack in stored units": (
        {"d": {"like": "unet", "defence": {"name": "adversarial training", "budgets": ["20 stored"]}}},
        "give the budget of a training in sigma",
    ),
    "an inner attack in grey levels": (
        {"d": {"like": "unet", "defence": {"name": "trades", "budgets": ["2 0-255", "8 0-255"]}}},
        "give the budget of a training in sigma",
    ),
    "an augmentation's attack with budgets of its own": (
        {
            "d": {
                "like": "unet",
                "defence": {
                    "name": "augmentation",
                    "budgets": ["0.1"],
                    "attacks": {"a": {"preset": "fgsm", "budgets": ["0.3"]}},
                },
            }
        },
        "are those of the defence",
    ),
    "a transform with settings of its own": (
        {"d": {"like": "unet", "defence": SMOOTHING, "inference": {"name": "whole"}, "mirror": [0]}},
        "inference, mirror would change nothing",
    ),
    "a transform that is to be trained": (
        {"d": {"like": "unet", "defence": SMOOTHING, "training": {"steps": 80}}},
        "say it of a victim above",
    ),
    "a defence of a teacher that is like nobody": (
        {"t": {"defence": {"name": "teacher", "at": 10}}, "d": {"like": "t", "defence": TRADES}},
        "has no undefended victim",
    ),
    "a defence behind which weights come from outside": (
        {
            "w": {"weights": "there"},
            "s": {"like": "w", "defence": SMOOTHING},
            "d": {"like": "s", "defence": TRADES},
        },
        "say network and training",
    ),
    "a student's name that is taken": (
        {
            "d-T5": {"like": "unet"},
            "d": {"like": "unet", "defence": {"name": "distillation", "at": [5, 10]}},
        },
        "two victims are called 'd-T5'",
    ),
    "like weights from outside, of an unknown training": (
        {
            "w": {"weights": "there"},
            "d": {"like": "w", "defence": {"name": "distillation", "at": 5}},
        },
        "say network and training",
    ),
}


@pytest.mark.parametrize("odd", ODD)
def test_what_cannot_be_meant_is_refused_with_advice(odd: str) -> None:
    victims, told = ODD[odd]
    with pytest.raises(ConfigError) as refused:
        study(**victims)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("budgets", "highest", "lowest"),
    [
        (["0.1 sigma"], "0.1 sigma", 1.0),
        (["0.02/0.04 sigma", "0.1/0.2 sigma"], "0.1/0.2 sigma", 0.2),
        (["0.1/0.2/0/0.3 sigma", "0.05/0.1/0/0.15 sigma"], "0.1/0.2/0/0.3 sigma", 0.5),
        (["0.1 sigma", "0.2/0.2 sigma"], "0.2/0.2 sigma", 0.5),
    ],
)
def test_a_range_has_one_ratio_in_every_modality(budgets: list[str], highest: str, lowest: float) -> None:
    defence = study(d={"like": "unet", "defence": {"name": "trades", "budgets": budgets}}).entrants["d"].spec.defence
    assert isinstance(defence, OnLine)
    assert str(defence.highest) == highest
    assert defence.lowest == pytest.approx(lowest)


def test_an_augmentation_may_be_in_the_files_own_units() -> None:
    """Its copies are attacked as files are."""
    made = study(d={"like": "unet", "defence": {"name": "augmentation", "budgets": ["20 stored"]}})
    defence = made.entrants["d"].spec.defence
    assert isinstance(defence, Augmentation)
    assert str(defence.highest) == "20 stored"


@pytest.mark.parametrize(
    ("steps", "start", "begins"), [(1, None, "clean"), (2, None, "random"), (1, "random", "random")]
)
def test_fgsm_training_begins_at_the_clean_crop_and_pgd_at_random(steps: int, start: str | None, begins: str) -> None:
    defence = {"name": "adversarial training", "budgets": ["0.1"], "steps": steps, "start": start}
    made = study(d={"like": "unet", "defence": defence}).entrants["d"].spec.defence
    assert isinstance(made, AdversarialTraining)
    assert made.begins == begins


def test_all_trainings_on_attacked_inputs_are_called_hardened() -> None:
    kinds = [kind for kind in get_args(Trained) if issubclass(kind, Hardening)]
    assert tuple(get_args(kind.model_fields["name"].annotation)[0] for kind in kinds) == HARDENED


def test_declarations_about_defences_need_a_defence() -> None:
    with pytest.raises(ConfigError, match="studies with a defence"):
        as_study(
            {
                "study": "t",
                "data": {"importer": "phantom"},
                "victims": {"unet": UNDEFENDED},
                "attacks": {"ifgsm": {"preset": "ifgsm"}},
                "primary": {"region": "WT", "margin": 0.05},
            }
        )


def test_a_detector_like_another_may_be_looked_at_otherwise() -> None:
    """The network is that of the victim that it is like: what is a detector's setting is known once they are merged."""
    dense, sparse = ({"sight": {"name": "two-stage", "nms": nms}} for nms in (0.9, 0.6))
    made = study(dense={"network": {"name": "FasterRCNN"}, **dense}, sparse={"like": "dense", **sparse}).entrants
    assert (made["dense"].spec.sight.nms, made["sparse"].spec.sight.nms) == (0.9, 0.6)
    assert made["sparse"].spec.detects
    with pytest.raises(ConfigError, match="sight are settings of a detector, and UNet is a segmentation network"):
        study(sparse={"like": "unet", **sparse})
    with pytest.raises(ConfigError, match="sight are settings of a detector"):
        study(silent={}, sparse={"like": "silent", **sparse})
    with pytest.raises(ConfigError, match="head are settings of a segmentation"):
        study(dense={"network": {"name": "FasterRCNN"}}, other={"like": "dense", "head": "sigmoid"})
