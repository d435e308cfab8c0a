"""From YAML to a study: faults are told where they stand, with what would have been right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from study.small_study import small

from medadv.errors import ConfigError
from medadv.study.load import as_study, load_study

MINIMAL = """\
study: tiny
data: {importer: brats, root: cases, release: "2021"}
victims: {unet: {}}
attacks: {fgsm: {preset: fgsm}}
primary: {region: WT}
"""


@pytest.fixture
def yaml_file(tmp_path: Path) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(MINIMAL)
    return path


def test_a_study_is_read(yaml_file: Path) -> None:
    study = load_study(yaml_file)
    assert (study.study, study.data.importer, study.ids) == ("tiny", "brats", "pseudonyms")
    assert load_study(str(yaml_file)) == study


UNKNOWN: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "study.stepz": ({"stepz": 1}, ("unknown key", "study", "seed", "attacks")),
    "data": ({"data": {"importer": "brats", "root": "x", "release": "2021", "sise": 1}}, ("release", "root")),
    "split": ({"split": {"training": 3}}, ("Did you mean 'train'", "test", "validate")),
    "split's python name": ({"split": {"validate_": 3}}, ("Did you mean 'validate'",)),
    "victim": ({"victims": {"a": {"heads": "softmax"}}}, ("Did you mean 'head'", "network", "weights", "training")),
    "network": ({"victims": {"a": {"network": {"nme": "UNet"}}}}, ("Did you mean 'name'", "arguments")),
    "training": ({"victims": {"a": {"training": {"epochs": 3}}}}, ("batch", "rate", "roi", "steps")),
    "windows": (
        {"victims": {"a": {"inference": {"name": "window", "roi": [8, 8, 8], "overlp": 0.5}}}},
        ("Did you mean 'overlap'", "blend", "roi"),
    ),
    "z-score": ({"victims": {"a": {"normalise": {"name": "z-score", "mean": 1}}}}, ("The keys here are",)),
    "attack": ({"attacks": {"a": {"preset": "ifgsm", "stpes": 2}}}, ("Did you mean 'steps'", "budgets", "loss")),
    "goal": ({"attacks": {"a": {"preset": "tifgsm", "goal": {"erase": "ET", "where": "all"}}}}, ("The keys here are",)),
    "primary": ({"primary": {"region": "WT", "metrics": "dice"}}, ("Did you mean 'metric'", "attacks", "budgets")),
    "volumes": ({"volumes": {"keeps": "all"}}, ("Did you mean 'keep'", "count")),
}


@pytest.mark.parametrize(("changes", "told"), UNKNOWN.values(), ids=UNKNOWN)
def test_an_unknown_key_is_told_with_the_right_ones(changes: dict[str, Any], told: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        small(Path("data"), **changes)
    for word in ("unknown key", *told):
        assert word in str(caught.value)


def test_an_attack_does_not_offer_the_keys_of_others() -> None:
    with pytest.raises(ConfigError) as caught:
        small(Path("data"), attacks={"a": {"preset": "fgsm", "decay": 1}})
    keys = "budgets, draws, joint, labels, loss, modalities, preset, region, victims"
    told = f"decay: unknown key. The keys here are: {keys}."
    assert told in str(caught.value)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        small(Path("data"), seed="x", colour="red", attacks={"a": {"preset": "ifgsm", "steps": 0}})
    for place in ("seed:", "colour:", "attacks.a.ifgsm.steps:"):
        assert place in str(caught.value)


def test_a_wrong_type_is_told_with_what_was_got() -> None:
    with pytest.raises(ConfigError, match=r"attacks\.a\.ifgsm\.steps.*: .*integer.*\(got 'ten'\)"):
        small(Path("data"), attacks={"a": {"preset": "ifgsm", "steps": "ten"}})


NO_STUDY: dict[str, tuple[str | bytes, str]] = {
    "nothing": ("", "is no study"),
    "a list": ("- study: a\n", "is no study"),
    "a sentence": ("study", "is no study"),
    "a duplicate key": (MINIMAL + "study: other\n", "the key 'study' is given twice"),
    "a duplicate key inside": (MINIMAL.replace("{region: WT}", "{region: WT, region: ET}"), "'region' is given twice"),
    "an alias": ("a: &a [1]\nb: *a\n", "aliases are not allowed"),
    "a bomb of aliases": ("a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "aliases are not allowed"),
    "code": ("study: !!python/object/apply:os.system ['true']\n", "tags are not allowed"),
    "a tag": ("!!map", "tags are not allowed"),
    "a tab": ("study:\n\t- a\n", "no plain YAML"),
    "a key that is a list": ("? [a]\n: b\n", "no plain YAML"),
    "a date that is none": (MINIMAL + "question: 2024-13-45\n", "no plain YAML"),
    "a number of ten thousand digits": (MINIMAL + f"seed: {'9' * 10_000}\n", "no plain YAML"),
    "brackets without end": ("[" * 20_000, "no plain YAML"),
    "bytes that are no text": (b"study: \xff\xfe\n", "no plain YAML"),
    "bytes of zero": (b"study: \x00\n", "no plain YAML"),
    "a megabyte": ("#" * 1_000_001, "too large"),
}


@pytest.mark.parametrize(("content", "told"), NO_STUDY.values(), ids=NO_STUDY)
def test_a_file_that_is_no_study_is_told(tmp_path: Path, content: str | bytes, told: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=told):
        load_study(path)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.yaml", tmp_path):
        with pytest.raises(ConfigError, match="there is no study at"):
            load_study(path)


TAGS = ("map", "seq", "set", "omap", "pairs", "int", "float", "bool", "null", "binary", "timestamp", "merge", "value")
YAML = [*(f"!!{tag} " for tag in TAGS), *"a0.-+e{}[]|>'\"#%~=\n", "1:2", "2024-01-01", ": ", "- ", "? ", ", "]
YAML += ["&a ", "*a", "<<", "!x ", "\n  ", "---", "\t"]


@given(st.text(max_size=60) | st.lists(st.sampled_from(YAML), max_size=12).map("".join))
@settings(max_examples=300)
def test_whatever_the_file_says_it_is_a_study_or_advice(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ConfigError):
        load_study(path)


# Overrides


def test_an_override_goes_over_the_file(yaml_file: Path) -> None:
    study = load_study(yaml_file, ["seed=7", "data.root=/data/b=c", "split.train=[a, b]", "volumes.keep=all"])
    assert (study.seed, study.data.root, study.split.train, study.volumes.keep) == (7, "/data/b=c", ("a", "b"), "all")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("seed", "an override is key=value"),
        ("=3", "an override is key=value"),
        ("seed.more=1", "seed"),
        ("study.more=1", "goes into 'study', which holds a value"),
        ("seed=[1", "the value of seed is no YAML"),
        ("question=2024-13-45", "the value of question is no YAML"),
        ("seed={a: 1, a: 2}", "the value of seed is no YAML"),
        ("volume.keep=all", "Did you mean 'volumes'"),
        ("attacks.fgsm.stepz=1", "unknown key"),
    ],
)
def test_an_override_that_cannot_be_meant_is_told(yaml_file: Path, override: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_study(yaml_file, [override])


def test_plain_content_needs_no_file() -> None:
    assert as_study(yaml.safe_load(MINIMAL)).study == "tiny"
