"""``init``: for every layout and every format a study that loads, fits its data, and can be planned."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from study.checking.sets import IDS, LISTED, PATTERN, change, datalist, decathlon, late, nnunet
from study.small_study import NETWORK
from typer.testing import CliRunner, Result

from medadv import cli
from medadv.data.brats import MODALITIES
from medadv.data.phantom import phantom
from medadv.errors import ConfigError, VictimError
from medadv.labels import BRATS_2018
from medadv.study.drafting import init
from medadv.study.load import load_study
from medadv.study.machine import Machine
from medadv.study.plan import plan
from medadv.study.sources import imported
from medadv.study.spec import Study
from medadv.victims.checkpoint import save_victim
from medadv.victims.formats.opening import format_of
from medadv.victims.head import Softmax
from medadv.victims.networks import Architecture, build_network
from medadv.victims.segmentation import Segmenter
from medadv.victims.window import SlidingWindow


@pytest.fixture
def own(three: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(three, tmp_path / "own"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A medadv victim."""
    folder = tmp_path_factory.mktemp("model")
    architecture = Architecture.model_validate(NETWORK)
    torch.manual_seed(2)
    save_victim(Segmenter(build_network(architecture, 4, 4), Softmax(BRATS_2018), MODALITIES), architecture, folder)
    return folder


def drafted(data: Path, out: Path, model: Path | None = None, **given: Any) -> Study:
    """The study that was written, held against its data once more."""
    study = load_study(init(data, model, out, given))
    cohort = imported(study.data, Path("unused"), 0, alone=True)
    study.check(cohort.modalities, cohort.scheme)
    assert [case.case for case in cohort.cases]
    return study


def as_brats(own: Path, _: Path) -> tuple[Path, dict[str, Any]]:
    return own, {}


def as_brats_2024(own: Path, _: Path) -> tuple[Path, dict[str, Any]]:
    return late(own, [f"BraTS-GLI-0000{n}-100" for n in range(3)]), {"release": "2024"}


def as_nnunet(own: Path, other: Path) -> tuple[Path, dict[str, Any]]:
    return nnunet(own, other), {"patient": "Phantom_{patient}"}


def as_decathlon(own: Path, other: Path) -> tuple[Path, dict[str, Any]]:
    return decathlon(own, other), {}


def as_datalist(own: Path, _: Path) -> tuple[Path, dict[str, Any]]:
    return datalist(own), LISTED


def as_pattern(own: Path, _: Path) -> tuple[Path, dict[str, Any]]:
    return own, PATTERN


Layout = Callable[[Path, Path], tuple[Path, dict[str, Any]]]
LAYOUTS: dict[str, tuple[Layout, str]] = {
    "brats": (as_brats, "WT"),
    "brats 2024": (as_brats_2024, "WT"),
    "nnunet": (as_nnunet, "WT"),
    "msd": (as_decathlon, "lesion"),
    "datalist": (as_datalist, "WT"),
    "pattern": (as_pattern, "WT"),
}


@pytest.mark.parametrize(("layout", "region"), LAYOUTS.values(), ids=LAYOUTS)
def test_a_victim_is_trained_on_any_layout(own: Path, tmp_path: Path, layout: Layout, region: str) -> None:
    data, given = layout(own, tmp_path / "other")
    study = drafted(data, tmp_path / "study.yaml", **given)
    assert (study.split.train, study.split.validate_, study.split.test) == (1, 1, "rest")
    assert study.primary.region == region
    assert study.attacks["tifgsm"].names == (region,)
    assert study.victims["unet"].weights is None
    assert study.ids == "pseudonyms"
    text = (tmp_path / "study.yaml").read_text()
    assert "# medadv default" in text
    assert "channels, in this order" in text
    counted = plan(study, Machine("cpu"), tmp_path / "runs", timed=False)
    assert (counted.cases, list(counted.trained)) == (1, ["unet"])


def test_a_medadv_victim_is_found_and_can_be_asked(own: Path, tmp_path: Path, model: Path) -> None:
    study = drafted(own, tmp_path / "study.yaml", model)
    assert study.victims["model"].model_dump(exclude_unset=True) == {"weights": str(model)}
    counted = plan(study, Machine("cpu"), tmp_path / "runs")  # asks the victim once
    assert (counted.cases, counted.trained) == (3, {})
    assert counted.seconds is not None


def test_what_weights_do_not_say_is_put_there_to_be_changed(own: Path, tmp_path: Path, model: Path) -> None:
    state = tmp_path / "model.safetensors"
    save_file(build_network(Architecture.model_validate(NETWORK), 4, 4).state_dict(), state)
    study = drafted(own, tmp_path / "study.yaml", state)
    victim = study.victims["model"]
    assert victim.weights == str(state)
    assert victim.modalities == MODALITIES
    assert {"network", "head", "normalise", "inference"} <= victim.model_fields_set
    text = (tmp_path / "study.yaml").read_text()
    assert "put its own name and arguments here" in text
    (tmp_path / "study.yaml").write_text(text.replace("[16, 32, 64, 128]", "[4, 8]").replace("[2, 2, 2]", "[2]"))
    changed = load_study(tmp_path / "study.yaml", ["victims.model.network.arguments.num_res_units=0"])
    assert plan(changed, Machine("cpu"), tmp_path / "runs").seconds is not None


def test_other_formats_are_known_without_being_run(own: Path, tmp_path: Path) -> None:
    bundle, trained = tmp_path / "bundle", tmp_path / "trained"
    for path, content in (
        (bundle / "configs" / "metadata.json", {}),
        (bundle / "configs" / "inference.json", {"bad": "$exit(1)"}),
        (trained / "plans.json", {}),
        (trained / "dataset.json", {}),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    for path in (bundle / "models" / "model.pt", trained / "fold_0" / "checkpoint_final.pth"):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"never read")
    program = torch.export.export(torch.nn.Conv3d(4, 4, 1), (torch.zeros(1, 4, 4, 4, 4),))
    torch.export.save(program, tmp_path / "model.pt2")
    kinds = {bundle: "MONAI bundle", trained: "nnU-Net", tmp_path / "model.pt2": "program"}
    for number, (path, kind) in enumerate(kinds.items()):
        assert format_of(path) == kind
        out = tmp_path / f"{number}.yaml"
        victim = drafted(own, out, path).victims["model"]
        assert victim.weights == str(path)
        assert f"# {kind}" in out.read_text()
        assert ("inference" in victim.model_fields_set) == (kind == "program")


def test_names_that_yaml_would_misread_are_quoted(own: Path, tmp_path: Path) -> None:
    labels = {"background": 0, "yes": 1, "null": 2, "a: {b, [c] # d": 4}
    root = own.rename(tmp_path / "data: # set, {x}")
    study = drafted(root, tmp_path / "study.yaml", **{**PATTERN, "labels": labels})
    assert study.study == "data-set-x-attacked"
    scheme = imported(study.data, Path("unused"), 0, alone=True).scheme
    assert scheme.numbers == labels
    assert study.primary.region == "foreground"


def test_a_head_with_its_skull_gets_another_support(own: Path, tmp_path: Path) -> None:
    phantom(tmp_path / "heads", 3, (24, 24, 24), spacing=5.0)
    assert drafted(tmp_path / "heads", tmp_path / "a.yaml").support == "nonzero"
    for case in IDS:
        for kind in MODALITIES:
            change(tmp_path / "heads", case, kind, lambda v: (v + 1).astype(np.int16))
    assert drafted(tmp_path / "heads", tmp_path / "b.yaml").support == "otsu"


def test_windows_are_as_large_as_the_cases_allow(own: Path, tmp_path: Path) -> None:
    phantom(tmp_path / "flat", 3, (54, 40, 30))
    study = drafted(tmp_path / "flat", tmp_path / "study.yaml")
    assert study.victims["unet"].inference == SlidingWindow((48, 32, 16), 0.5, "gaussian", batch=4)
    assert study.victims["unet"].training.roi == (48, 32, 16)


def test_what_cannot_be_drafted_is_advised_and_nothing_is_written(own: Path, tmp_path: Path, model: Path) -> None:
    out = tmp_path / "study.yaml"
    with pytest.raises(VictimError, match="no model at this path"):
        init(own, tmp_path / "none", out)
    shutil.rmtree(own / IDS[0])
    with pytest.raises(ConfigError, match=r"(?s)2 patients.*medadv init DATA MODEL"):
        init(own, None, out)
    for case in IDS[1:]:
        (own / case / f"{case}_t1.nii.gz").write_bytes(b"torn")
    with pytest.raises(ConfigError, match=r"(?s)no case of the data can be used.*unreadable.*medadv check"):
        init(own, model, out)
    assert not out.exists()


# The command


def typed(*arguments: object) -> Result:
    result = CliRunner().invoke(cli.app, ["init", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_a_file_that_is_there_stays(own: Path, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = typed("own", model)
    assert result.exit_code == 0, result.output
    assert "study: study.yaml" in result.stdout
    assert "release 2021" in result.stderr
    before = (tmp_path / "study.yaml").read_bytes()
    again = typed("own", model)
    assert again.exit_code == 2
    assert "not overwritten" in again.stderr
    assert (tmp_path / "study.yaml").read_bytes() == before
    assert typed("own", model, "--out", "other.yaml", "--release", "2020").exit_code == 0
    assert "release: '2020'" in (tmp_path / "other.yaml").read_text()
