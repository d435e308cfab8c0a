"""What a study may say, and what it is told where it says something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from study.small_study import small, trained

from medadv.cli import pipeline
from medadv.data.brats import MODALITIES
from medadv.errors import BudgetError, ConfigError
from medadv.labels import BRATS_2018
from medadv.study.folder import RunFolder
from medadv.study.load import as_study, load_study
from medadv.study.names import Names
from medadv.study.spec import Study, json_schema

ROOT = Path(__file__).parents[2]
PIPELINES = sorted((ROOT / "pipelines").glob("*.yaml"))


def study(**changes: Any) -> Study:
    return small(Path("data"), **changes)


UNMEANT: dict[str, tuple[dict[str, Any], str]] = {
    "a negative budget": ({"budgets": ["-0.1 sigma"]}, "not negative"),
    "a budget in no unit": ({"budgets": ["0.1 furlong"]}, "this is no budget"),
    "an infinite budget": ({"budgets": ["1e999 sigma"]}, "finite"),
    "a budget that is twice the same": ({"budgets": ["0.1 sigma", "0.10sigma"]}, "given twice"),
    "no budget": ({"budgets": []}, "budgets: .* at least 1 item"),
    "an attack without budgets": ({"attacks": {"a": {"preset": "fgsm", "budgets": []}}}, "at least 1 item"),
    "an attack's negative budget": ({"attacks": {"a": {"preset": "fgsm", "budgets": ["-1"]}}}, "not negative"),
    "zero steps": ({"attacks": {"a": {"preset": "ifgsm", "steps": 0}}}, "steps: .*at least one step"),
    "a step of nothing": ({"attacks": {"a": {"preset": "pgd", "size": 0}}}, "size: .*greater than 0"),
    "no attack": ({"attacks": {}}, "attacks: .*at least 1 item"),
    "an unknown attack": ({"attacks": {"a": {"preset": "cw"}}}, "preset.*'fgsm', 'ifgsm', .*'dag', 'mifgsm', 'pgd'"),
    "an unknown loss": ({"attacks": {"a": {"preset": "fgsm", "loss": "hinge"}}}, "there is no loss 'hinge'.*dice"),
    "no victim": ({"victims": {}}, "victims: .*at least 1 item"),
    "a victim called like a condition": ({"victims": {"clean": {}}}, "'clean' cannot be the name of a victim"),
    "an attack called like a control": ({"attacks": {"noise": {"preset": "fgsm"}}}, "'noise' cannot be the name"),
    "an attack called like another's control": ({"attacks": {"permuted-a": {"preset": "fgsm"}}}, "cannot be the name"),
    "a study called like a path": ({"study": "../other"}, "'../other' cannot be the name of a study"),
    "a study called like a hidden folder": ({"study": ".git"}, "cannot be the name of a study"),
    "a study with a long name": ({"study": "a" * 65}, "cannot be the name of a study"),
    "a negative number of patients": ({"split": {"train": -1}}, "split.train"),
    "a negative number of test patients": ({"split": {"test": -1}}, "split.test"),
    "a negative seed": ({"seed": -1}, "seed: .*greater than or equal to 0"),
    "a seed that is no number": ({"seed": "zero"}, "seed: .*valid integer"),
    "regions but none": ({"regions": []}, "regions: .*at least 1 item"),
    "a legal range upside down": ({"legal": [100, 0]}, "a lower and a higher intensity"),
    "a legal range without end": ({"legal": [0, float("inf")]}, "a lower and a higher intensity"),
    "a primary attack that is not run": ({"primary": {"region": "WT", "attacks": ["x"]}}, r"names 'x'.*\['fgsm'"),
    "a primary budget that is not run": ({"primary": {"region": "WT", "budgets": ["9"]}}, "names '9 sigma'"),
    "a primary family of no attacks": ({"primary": {"region": "WT", "attacks": []}}, "at least 1 item"),
    "no primary family": ({"primary": None}, "primary"),
    "an unknown control": ({"controls": ["placebo"]}, "controls.0: .*'identity', 'noise', .*'columns' or 'slices'"),
    "still windows": ({"victims": {"a": {"inference": {"name": "window", "roi": [8], "overlap": 1}}}}, "be laid"),
    "crops of nothing": ({"victims": {"a": {"training": {"roi": [8, 0, 8]}}}}, "at least 1 for each axis"),
    "a flip of a fourth axis": ({"victims": {"a": {"training": {"flips": [3]}}}}, "flips name axes"),
    "a channel given twice": ({"victims": {"a": {"modalities": ["t1", "t1", "t2", "flair"]}}}, "given twice"),
    "no training step": ({"victims": {"a": {"training": {"steps": 0}}}}, "steps: .*greater than or equal to 1"),
}


@pytest.mark.parametrize(("changes", "told"), UNMEANT.values(), ids=UNMEANT)
def test_what_cannot_be_meant_is_told(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){told}"):
        study(**changes)


AGAINST_DATA: dict[str, tuple[dict[str, Any], str]] = {
    "a primary region": ({"primary": {"region": "brain"}, "regions": None}, "'brain' is no region.*WT.*oedema"),
    "a scored region": ({"regions": ["WT", "brain"]}, "'brain' is no region"),
    "a region to be erased": ({"attacks": {"a": {"preset": "tifgsm", "goal": {"erase": "brain"}}}}, "'brain' is no"),
    "a tissue to turn into": (
        {"attacks": {"a": {"preset": "tifgsm", "goal": {"turn": "ET", "into": "brain"}}}},
        "'brain' is no",
    ),
    "a primary region that is not scored": ({"regions": ["ET"]}, "the primary region is not scored"),
    "a budget for three modalities": ({"budgets": ["0.1/0.2/0.3 sigma"]}, "4: t1, t1ce, t2, flair"),
    "an attack's budget for two modalities": (
        {"attacks": {"a": {"preset": "fgsm", "budgets": ["0.1/0.2 sigma"]}}},
        "another number of amounts",
    ),
}


def augmented(**attack: Any) -> dict[str, Any]:
    defence = {"name": "augmentation", "budgets": ["0.1"], "attacks": {"a": {"preset": "fgsm", **attack}}}
    return {"victims": {"glow": {}, "d": {"like": "glow", "defence": defence}}}


def hardened(name: str, budget: str, **victim: Any) -> dict[str, Any]:
    return {"victims": {"glow": victim, "d": {"like": "glow", "defence": {"name": name, "budgets": [budget]}}}}


AGAINST_DATA |= {
    "a training's budget for two modalities": (hardened("trades", "0.1/0.2 sigma"), "budget of victims.d.defence"),
    "an augmentation's budget for two modalities": (hardened("augmentation", "0.1/0.2 sigma"), "number of amounts"),
    "an adaptive budget for two modalities": ({"adaptive": {"budgets": ["0.1/0.2 sigma"]}}, "budget of adaptive"),
    "a region to be attacked for copies": (augmented(region="brain"), "'brain' is no"),
    "a tissue to be permuted for copies": (
        augmented(preset="tifgsm", goal={"permute": {"WT": "ET", "ET": "WT"}}),
        "only tissues are permuted",
    ),
    "a shift along two axes for copies": (
        augmented(preset="tifgsm", goal={"shift": "WT", "by": [1, 1]}),
        "'a' of victims.d.defence is for images of another number of axes",
    ),
    "modalities to be changed for copies": (augmented(modalities=["ct"]), r"'a' of victims.d.defence.*\['ct'\]"),
}


@pytest.mark.parametrize(("changes", "told"), AGAINST_DATA.values(), ids=AGAINST_DATA)
def test_what_the_data_does_not_have_is_told(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){told}"):
        study(**changes).check(MODALITIES, BRATS_2018)


def test_one_amount_a_modality_is_a_budget_of_a_training() -> None:
    for name in ("trades", "augmentation"):
        study(**hardened(name, "0.1/0.2/0.3/0.4 sigma")).check(MODALITIES, BRATS_2018)


def test_one_amount_a_modality_is_a_budget() -> None:
    study(budgets=["0.1/0.2/0.3/0.4 sigma"]).check(MODALITIES, BRATS_2018)
    with pytest.raises(BudgetError):
        study(budgets=["0.1/0.2/0.3/0.4 sigma"]).check(("t1",), BRATS_2018)


def test_budgets_are_one_condition_however_they_are_spelt() -> None:
    spelt = study(budgets=["0.10sigma", "0.3"], primary={"region": "WT", "budgets": [".1 σ"]})
    assert spelt.budgets == ("0.1 sigma", "0.3 sigma")
    assert spelt.primary.budgets == ("0.1 sigma",)


def test_a_study_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        study().seed = 1  # type: ignore[misc]


@pytest.mark.parametrize("spelt", [study(), trained(), *map(load_study, PIPELINES)], ids=lambda s: s.study)
def test_a_resolved_study_is_the_same_study(spelt: Study, tmp_path: Path) -> None:
    """What lies in a run's folder can be run."""
    folder = RunFolder.open(spelt, tmp_path, Names(None)).path
    again = as_study(yaml.safe_load((folder / "study.yaml").read_text(encoding="utf-8")))
    assert again == spelt
    assert again.entrants == spelt.entrants


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.stem)
def test_every_pipeline_is_a_study_that_its_name_finds(path: Path) -> None:
    assert load_study(pipeline(path.stem)).study == path.stem


def test_the_schema_for_editors_is_the_specification() -> None:
    """To renew it: see the command in the assertion's message."""
    stored = (ROOT / "docs" / "reference" / "study.schema.json").read_text(encoding="utf-8")
    renew = (
        "python -c 'import json, medadv.study.spec as s; print(json.dumps(s.json_schema(), indent=1))' "
        "> docs/reference/study.schema.json"
    )
    assert json.loads(stored) == json_schema(), renew


def test_the_schema_knows_every_key_and_no_other() -> None:
    schema = json_schema()
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == {field.alias or name for name, field in Study.model_fields.items()}
    loose = [
        name
        for name, part in schema["$defs"].items()
        if part.get("type") == "object" and part.get("additionalProperties") is not False
    ]
    assert loose == []
