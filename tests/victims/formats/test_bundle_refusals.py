"""A bundle is data: nothing in it runs, and what cannot be read is named by its key."""

from __future__ import annotations

import ast
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from victims.formats.written_bundle import RELABEL, brats, described, of_tissues, write

from medadv.errors import ConfigError, MedadvError, VictimError
from medadv.labels import BRATS_2018
from medadv.victims.declared import Declared
from medadv.victims.formats.bundle import format as bundle

PACKAGE = Path(bundle.__file__).parents[2]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("sound"), brats())


@pytest.fixture
def changed(sound: Path, tmp_path: Path) -> Callable[..., Path]:
    """The sound bundle's weights beside another configuration."""

    def build(config: dict[str, Any], metadata: dict[str, Any] | None = None) -> Path:
        return write(tmp_path, config, metadata, torch.load(sound / "models" / "model.pt"))

    return build


def put(config: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = [int(part) if part.isdecimal() else part for part in key.split(".")]
    place: Any = config
    for part in parents:
        place = place[part]
    place[last] = value


# Nothing runs

KEYS = [
    "network_def",
    "network_def.init_filters",
    "network_def._target_",
    "network_def.norm",
    "inferer",
    "inferer._target_",
    "inferer.roi_size",
    "inferer.overlap",
    "inferer.mode",
    "preprocessing",
    "preprocessing.transforms",
    "preprocessing.transforms.1",
    "preprocessing.transforms.1._target_",
    "preprocessing.transforms.1.nonzero",
    "preprocessing.transforms.1.keys",
    "postprocessing",
    "postprocessing.transforms.0.sigmoid",
    "postprocessing.transforms.1.nearest_interp",
    "postprocessing.transforms.2.threshold",
    "postprocessing.transforms.3.func",
]


@pytest.mark.parametrize("key", KEYS)
def test_an_expression_is_refused_by_its_key_and_never_run(changed: Callable[..., Path], key: str) -> None:
    config = brats()
    marker = Path(os.environ.get("TMPDIR", "/tmp")) / "medadv-an-expression-ran"
    put(config, key, f"$__import__('os').system('touch {marker}')")
    with pytest.raises(VictimError) as refusal:
        bundle.load(changed(config), None, trust=False)
    assert key in refusal.value.problem
    assert "os" in refusal.value.details["got"]
    assert "--trust" in refusal.value.details["try"]
    assert not marker.exists()


@pytest.mark.parametrize(
    ("key", "component"),
    [
        ("network_def", {"_target_": "os.system", "command": "exit 1"}),
        ("network_def", {"_target_": "builtins.exec"}),
        ("network_def", {"_target_": "scripts.networks.UNesT", "in_channels": 4}),
        ("inferer", {"_target_": "os.system", "command": "exit 1"}),
        ("inferer", {"_target_": "SliceInferer", "roi_size": [8, 8]}),
        ("preprocessing.transforms.1", {"_target_": "os.system", "command": "exit 1"}),
        ("preprocessing.transforms.1", {"_target_": "RandGaussianNoised", "keys": "image"}),
        ("preprocessing.transforms.1", {"_target_": "Lambdad", "keys": "image", "func": "$lambda x: x"}),
        ("postprocessing.transforms.2", {"_target_": "builtins.eval", "keys": "pred"}),
        ("postprocessing.transforms.2", {"_target_": "MeanEnsembled", "keys": "pred"}),
    ],
)
def test_a_class_outside_the_table_is_refused(
    changed: Callable[..., Path], key: str, component: dict[str, Any]
) -> None:
    config = brats()
    put(config, key, component)
    with pytest.raises(VictimError, match=f"{key}._target_"):
        bundle.load(changed(config), None, trust=False)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("inferer.padding_mode", "replicate"),
        ("inferer.roi_size", "all"),
        ("inferer.sw_batch_size", "3"),
        ("inferer.overlap", [0.5, 0.25, 0.5]),
        ("inferer.with_coord", True),
        ("preprocessing.transforms.1.keys", ["image", "label"]),
        ("preprocessing.transforms.1.nonzero", "False"),
        ("preprocessing.transforms.1.dtype", "int16"),
        ("preprocessing.transforms.1.surprise", 1),
        ("preprocessing.transforms.1._requires_", "something"),
        ("preprocessing.lazy", True),
        ("postprocessing.transforms.0.other", {"_target_": "os.system"}),
        ("postprocessing.transforms.1.transform", "@network"),
        ("postprocessing.transforms.1.post_func", "$print"),
        ("postprocessing.transforms.3.func", RELABEL.replace("torch.where", "print", 1)),
    ],
)
def test_a_value_that_is_not_understood_is_refused(changed: Callable[..., Path], key: str, value: Any) -> None:
    config = brats()
    put(config, key, value)
    with pytest.raises(VictimError) as refusal:
        bundle.load(changed(config), None, trust=False)
    assert key in refusal.value.problem


def test_references_that_lead_nowhere_or_in_circles_are_refused(changed: Callable[..., Path]) -> None:
    for value in ("@nowhere", "@one", "@device", "@###roi_size", "%other.json::roi_size"):
        config = brats() | {"one": "@two", "two": "@one"}
        config["inferer"]["roi_size"] = value
        with pytest.raises(VictimError):
            bundle.load(changed(config), None, trust=False)


def test_keys_that_decide_nothing_are_not_looked_at(changed: Callable[..., Path], sound: Path) -> None:
    config = brats() | {"train": {"_target_": "os.system"}, "more": "$1/0", "initialize": ["$1/0"]}
    config["inferer"] |= {"device": "$1/0", "progress": False}
    root = changed(config)
    (root / "configs" / "logging.conf").write_text("[handlers]\nkeys=h\n[handler_h]\nclass=__import__('os').abort()\n")
    (root / "scripts").mkdir()
    (root / "scripts" / "__init__.py").write_text("raise SystemExit('run')")
    (root / "models" / "other.pkl").write_bytes(b"cos\nabort\n(tR.")
    assert bundle.load(root, None, False).preprocessing() == bundle.load(sound, None, False).preprocessing()


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.abort, ()


def test_a_payload_among_the_weights_is_refused(changed: Callable[..., Path]) -> None:
    root = changed(brats())
    state = torch.load(root / "models" / "model.pt")
    torch.save({"model": state, "extra": Payload()}, root / "models" / "model.pt")
    with pytest.raises(VictimError, match="program"):
        bundle.load(root, None, trust=False)
    (root / "models" / "model.pt").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(VictimError):
        bundle.load(root, None, trust=False)


def test_neither_monais_parser_nor_eval_is_asked(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    from monai.bundle import ConfigParser

    def forbidden(*_: Any, **__: Any) -> Any:
        raise AssertionError("run without trust")

    for name in ("__init__", "read_config", "parse", "load_config_file"):
        monkeypatch.setattr(ConfigParser, name, forbidden)
    monkeypatch.setattr(builtins, "eval", forbidden)
    bundle.load(sound, None, trust=False)
    with pytest.raises(AssertionError, match="without trust"):
        bundle.load(sound, None, trust=True)


def test_one_file_alone_knows_monais_parser() -> None:
    knowing = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.startswith("monai.bundle") or name == "monai.apps" for name in names):
                knowing.add(path.name)
    assert knowing == {"trusted.py"}


# What contradicts itself


def without(*kinds: str) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        left = [t for t in config["postprocessing"]["transforms"] if t["_target_"] not in kinds]
        config["postprocessing"]["transforms"] = left

    return change


def in_both_ways(config: dict[str, Any]) -> None:
    config["postprocessing"]["transforms"][0]["softmax"] = True


def elsewhere(config: dict[str, Any]) -> None:
    config["postprocessing"]["transforms"][2]["threshold"] = 0.3


def by_argmax(config: dict[str, Any]) -> None:
    config["postprocessing"]["transforms"][2] = {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}


@pytest.mark.parametrize(
    "change", [without("Activationsd"), without("AsDiscreted", "Lambdad"), in_both_ways, elsewhere, by_argmax]
)
def test_how_answers_are_decided_is_never_guessed(changed: Callable[..., Path], change: Callable[..., None]) -> None:
    config = brats()
    change(config)
    with pytest.raises(VictimError, match="how its answers are decided"):
        bundle.load(changed(config), None, trust=False)


def test_channels_that_contradict_the_activation_are_refused(changed: Callable[..., Path]) -> None:
    root = changed(brats(), described(outputs=("background", "edema", "enhancing tumor")))
    with pytest.raises(VictimError, match="channels are no regions"):
        bundle.load(root, None, trust=False)
    root = changed(of_tissues(), described(outputs=("TC", "WT", "ET", "other")))
    with pytest.raises(VictimError, match="channels are no tissues"):
        bundle.load(root, None, trust=False)


def test_regions_of_unknown_tissues_want_a_scheme(changed: Callable[..., Path]) -> None:
    config = brats()
    without("Lambdad")(config)
    root = changed(config)
    with pytest.raises(ConfigError, match="nobody says which tissues"):
        bundle.load(root, None, trust=False)
    four = ("t1ce", "t1", "t2", "flair")
    assert bundle.load(root, Declared(BRATS_2018, four), trust=False).head.channels == ("TC", "WT", "ET")


def test_tissues_that_are_painted_alike_are_refused(changed: Callable[..., Path]) -> None:
    config = brats()
    config["postprocessing"]["transforms"][3]["func"] = RELABEL.replace("4", "1")
    with pytest.raises(VictimError, match="paints tissues alike"):
        bundle.load(changed(config), Declared(BRATS_2018, ("t1ce", "t1", "t2", "flair")), trust=False)


def test_a_grid_that_is_not_undone_is_refused(tmp_path: Path) -> None:
    config = of_tissues(grid=True)
    without("Invertd")(config)
    root = write(tmp_path, config, described(outputs=("background", "edema", "ncr", "et")))
    with pytest.raises(VictimError, match="does not go back"):
        bundle.load(root, None, trust=False)


@pytest.mark.parametrize(
    ("metadata", "problem"),
    [
        ({"version": "1"}, "does not name one"),
        (described(inputs=("T1", "T1", "T2", "FLAIR")), "two input channels one name"),
        (described(inputs=("T1", "T2")), "another number of channels"),
        (described(outputs=("Tumor core", "Whole tumor")), "another number of channels|nobody says"),
    ],
)
def test_metadata_that_do_not_fit_are_refused(
    changed: Callable[..., Path], metadata: dict[str, Any], problem: str
) -> None:
    with pytest.raises(MedadvError, match=problem):
        bundle.load(changed(brats(), metadata), None, trust=False)


# Files


def test_files_that_are_none_are_refused(sound: Path, tmp_path: Path) -> None:
    root = write(tmp_path, brats(), state={"a": torch.zeros(1)})
    with pytest.raises(VictimError, match="weights are not those"):
        bundle.load(root, None, trust=False)
    configuration = root / "configs" / "inference.json"
    for content, problem in (
        ("[1]", "holds no keys"),
        ('{"a": 1, "a": 2}', "no plain JSON"),
        ("{" * 9, "no plain JSON"),
        ("[" * 100_000, "no plain JSON"),
        (" " * 1_000_001, "too large"),
    ):
        configuration.write_text(content)
        with pytest.raises(VictimError, match=problem):
            bundle.load(root, None, trust=False)
    configuration.unlink()
    for content in ("a: !!python/object/apply:os.abort []", "a: &b 1\nc: *b", "a: 1\na: 2", "<<: {a: 1}", "? [1]\n: 2"):
        (root / "configs" / "inference.yaml").write_text(content)
        with pytest.raises(VictimError, match="no plain YAML"):
            bundle.load(root, None, trust=False)
    (root / "configs" / "inference.yaml").unlink()
    assert bundle.recognises(root)
    with pytest.raises(VictimError, match="how it is deployed"):
        bundle.load(root, None, trust=False)
    assert not bundle.recognises(tmp_path / "models")
    assert not bundle.recognises(sound / "models" / "model.pt")


def test_words_and_folds_that_a_bundle_does_not_have_are_refused(tmp_path: Path) -> None:
    root = write(tmp_path, brats())
    with pytest.raises(ConfigError, match="does not have") as refusal:
        bundle.load(root, Declared(BRATS_2018, names={"T1 gad": "t1ce"}), trust=False)
    assert refusal.value.details["got"] == ["T1 gad"]
    with pytest.raises(ConfigError, match="has none"):
        bundle.load(root, Declared(BRATS_2018, folds=(0,)), trust=False)
