"""What is no nnU-Net of this version, not whole, or a program is refused, and the refusal says what to do."""

from __future__ import annotations

import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from victims.formats.nnunet_model import REGIONAL

from medadv.errors import ConfigError, MedadvError, VictimError
from medadv.labels import MSD_TASK01
from medadv.victims.declared import Declared
from medadv.victims.formats.nnunet.format import load, recognises
from medadv.victims.networks import Architecture
from medadv.victims.normalize import ZScore
from medadv.victims.window import WholeVolume

pytest.importorskip("nnunetv2")

Edit = Callable[[dict[str, Any]], object]
FINAL = "checkpoint_final.pth"


def configuration(key: str, value: object) -> Edit:
    return lambda plans: plans["configurations"]["3d_fullres"].update({key: value})


def architecture(key: str, value: object) -> Edit:
    return lambda plans: plans["configurations"]["3d_fullres"]["architecture"].update({key: value})


def argument(key: str, value: object) -> Edit:
    return lambda plans: plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"].update({key: value})


def refusal(folder: Path, **given: Any) -> MedadvError:
    with pytest.raises((VictimError, ConfigError)) as refused:
        load(folder, given.get("declared"), given.get("trust", False))
    return refused.value


PLANS: dict[str, tuple[Edit, str]] = {
    "version 1": (lambda plans: plans.pop("configurations"), "another version"),
    "no architecture": (lambda plans: plans["configurations"]["3d_fullres"].pop("architecture"), "another version"),
    "a cascade": (configuration("previous_stage", "3d_lowres"), "second stage of a cascade"),
    "a preprocessor": (configuration("preprocessor_name", "Mine"), "no differentiable counterpart"),
    "a resampling": (configuration("resampling_fn_data", "resample_torch_fornnunet"), "no differentiable counterpart"),
    "a normalisation": (configuration("normalization_schemes", ["Mine"] * 2), "no differentiable counterpart"),
    "a reader": (lambda plans: plans.update(image_reader_writer="Tiff3DIO"), "no differentiable counterpart"),
    "three channels": (configuration("normalization_schemes", ["NoNormalization"] * 3), "numbers of channels"),
    "a wider network": (argument("features_per_stage", [9, 12, 16]), "not those of the network"),
    "no such argument": (argument("colour", "red"), "cannot build the network"),
}


@pytest.mark.parametrize("fault", PLANS)
def test_plans_that_cannot_be_meant_are_refused(fault: str, copied: Callable[..., Path]) -> None:
    edit, message = PLANS[fault]
    assert message in str(refusal(copied(plans=edit)))


DATASETS: dict[str, tuple[Edit, str]] = {
    "numbers first": (lambda dataset: dataset.update(labels={"0": "background", "1": "tumour"}), "as nnU-Net 2 does"),
    "no channels": (lambda dataset: dataset.pop("channel_names"), "as nnU-Net 2 does"),
    "a gap": (lambda dataset: dataset["labels"].update({"enhancing tumor": 4}), "not numbered"),
    "one name twice": (lambda dataset: dataset.update(channel_names={"0": "T1", "1": "t1w"}), "by one name"),
    "channels from 1": (lambda dataset: dataset.update(channel_names={"1": "T1", "2": "T2"}), "numbers its channels"),
    "a class more": (lambda dataset: dataset["labels"].update(cavity=4), "not those of the network"),
}


@pytest.mark.parametrize("fault", DATASETS)
def test_a_dataset_json_that_cannot_be_meant_is_refused(fault: str, copied: Callable[..., Path]) -> None:
    edit, message = DATASETS[fault]
    assert message in str(refusal(copied(dataset=edit)))


def test_regions_that_do_not_say_how_they_are_painted_are_refused(copied: Callable[..., Path]) -> None:
    folder = copied(REGIONAL, dataset=lambda dataset: dataset.update(regions_class_order=[1, 2]))
    assert "in which number" in str(refusal(folder))


CHECKPOINTS: dict[str, tuple[Edit, str]] = {
    "no weights": (lambda one: one.pop("network_weights"), "network_weights"),
    "no configuration": (lambda one: one["init_args"].pop("configuration"), "init_args.configuration"),
    "strange axes": (lambda one: one.update(inference_allowed_mirroring_axes=["x"]), "mirroring_axes"),
    "NaN": (lambda one: next(iter(one["network_weights"].values())).fill_(torch.nan), "not finite"),
    "words": (lambda one: one["network_weights"].update(more="words"), "no tensors"),
    "a layer missing": (lambda one: one["network_weights"].popitem(), "not those of the network"),
    "another trainer": (lambda one: one.update(trainer_name="nnUNetTrainerOurs"), "another training"),
    "other axes": (lambda one: one.update(inference_allowed_mirroring_axes=(0,)), "another training"),
    "other plans": (lambda one: one["init_args"]["plans"].update(transpose_forward=[1, 0, 2]), "plans.json is not"),
    "other labels": (lambda one: one["init_args"]["dataset_json"]["labels"].update(rim=4), "dataset.json is not"),
    "another configuration": (lambda one: one["init_args"].update(configuration="3d_huge"), "does not have"),
}


@pytest.mark.parametrize("fault", CHECKPOINTS)
def test_a_fold_that_does_not_belong_is_refused_by_its_name(fault: str, copied: Callable[..., Path]) -> None:
    edit, message = CHECKPOINTS[fault]
    refused = str(refusal(copied(fold_1=edit)))
    assert message in refused
    assert "fold_1" in refused


def test_a_trainer_that_nnunet_does_not_have_is_refused(copied: Callable[..., Path]) -> None:
    def edit(one: dict[str, Any]) -> None:
        one["trainer_name"] = "nnUNetTrainerOurs"

    folder = copied(fold_0=edit, fold_1=edit)
    assert "not part of nnU-Net" in str(refusal(folder))
    assert "not part of nnU-Net" in str(refusal(folder, trust=True))


def test_folds_that_are_missing_or_unfinished_are_named(copied: Callable[..., Path]) -> None:
    folder = copied()
    declared = Declared(MSD_TASK01, ("t1", "flair"), folds=(0, 3))
    assert "fold_3 has no checkpoint_final.pth" in str(refusal(folder, declared=declared))
    (folder / "fold_1" / FINAL).rename(folder / "fold_1" / "checkpoint_best.pth")
    assert "fold_1 has no checkpoint_final.pth" in str(refusal(folder))
    best = load(folder / "fold_1" / "checkpoint_best.pth", None, False)
    assert len(best.deployed.members) == 1
    for fold in ("fold_0", "fold_1"):
        shutil.rmtree(folder / fold)
    assert recognises(folder)
    assert "no fold" in str(refusal(folder))


def test_a_fold_is_found_from_where_one_stands(copied: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copied()
    monkeypatch.chdir(folder / "fold_1")
    for path in (Path(), Path(FINAL)):
        assert recognises(path)
        assert len(load(path, None, False).deployed.members) == 1


def test_what_is_no_trained_folder_is_not_recognised(copied: Callable[..., Path]) -> None:
    folder = copied()
    assert recognises(folder)
    assert recognises(folder / "fold_0" / FINAL)
    for other in (folder.parent, folder / "plans.json", folder / "fold_0" / "nothing.txt", folder / "elsewhere"):
        assert not recognises(other)
    (folder / "dataset.json").unlink()
    assert not recognises(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000], ids=range(5))
def test_damaged_plans_are_refused(content: bytes, copied: Callable[..., Path]) -> None:
    folder = copied()
    (folder / "plans.json").write_bytes(content)
    assert "plans.json" in refusal(folder).problem


@pytest.mark.parametrize("kept", [0, 10, 5000])
def test_a_checkpoint_cut_short_is_refused(kept: int, copied: Callable[..., Path]) -> None:
    path = copied() / "fold_0" / FINAL
    path.write_bytes(path.read_bytes()[:kept])
    refused = refusal(path)
    assert f"fold_0/{FINAL} cannot be read" in refused.problem


class Payload:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_checkpoint_that_is_a_program_does_not_run(copied: Callable[..., Path], tmp_path: Path) -> None:
    path, fired = copied() / "fold_0" / FINAL, tmp_path / "fired"
    for zipped in (True, False):
        torch.save({"network_weights": Payload(fired)}, path, _use_new_zipfile_serialization=zipped)
        assert "could run a program" in refusal(path).problem
        assert not fired.exists()
    path.write_bytes(pickle.dumps(Payload(fired)))
    assert "cannot be read" in refusal(path).problem
    assert not fired.exists()
    torch.save({"network_weights": Payload(fired)}, path)
    refusal(path, trust=True)
    assert fired.exists()  # it was alive


def test_a_refused_checkpoint_is_loaded_with_trust(copied: Callable[..., Path]) -> None:
    """An array in the log is a function call to pickle. What it would call is named, and --trust."""
    folder = copied(fold_0=lambda one: one["logging"].update(more=np.zeros(3)))
    refused = refusal(folder)
    assert "_reconstruct" in str(refused.details["got"])
    assert "--trust" in refused.details["try"]
    assert len(load(folder, None, True).deployed.members) == 2


@pytest.mark.parametrize(
    "edit",
    [
        architecture("network_class_name", "antigravity.Network"),
        argument("conv_op", "antigravity.Conv"),
        argument("nonlin", "torch.nn.modules.antigravity.sys"),
        lambda plans: (
            argument("norm_op_kwargs", "antigravity.Norm")(plans),
            architecture("_kw_requires_import", ["norm_op_kwargs"])(plans),
        ),
    ],
    ids=["network", "layer", "attribute", "any argument"],
)
def test_plans_import_nothing_but_nnunets_own_classes(edit: Edit, copied: Callable[..., Path]) -> None:
    refused = refusal(copied(plans=edit))
    assert "not nnU-Net's own" in refused.problem
    assert "antigravity" in str(refused.details["got"])
    assert "antigravity" not in sys.modules


def test_a_network_of_the_users_own_is_imported_with_trust(
    copied: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "from dynamic_network_architectures.architectures.unet import PlainConvUNet\nclass Ours(PlainConvUNet): ..."
    (tmp_path / "networks_of_ours.py").write_text(lines)
    monkeypatch.syspath_prepend(tmp_path)
    folder = copied(plans=architecture("network_class_name", "networks_of_ours.Ours"))
    assert "networks_of_ours.Ours" in str(refusal(folder))
    assert "networks_of_ours" not in sys.modules
    victim = load(folder, None, True)
    assert type(victim.deployed.members[0]).__name__ == "Ours"
    monkeypatch.delitem(sys.modules, "networks_of_ours")


def test_without_nnunet_the_refusal_says_what_to_install(
    copied: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nnunetv2.utilities.plans_handling.plans_handler", None)
    assert refusal(copied()).details["try"] == "pip install medadv[nnunet]"


def test_channels_that_are_declared_otherwise_are_refused(copied: Callable[..., Path]) -> None:
    folder = copied()
    declared = Declared(MSD_TASK01, ("t1", "t2"))
    assert "names" in refusal(folder, declared=declared).details["try"]


OTHERWISE: dict[str, Any] = {
    "head": "sigmoid",
    "network": Architecture(),
    "inference": WholeVolume(),
    "spatial": (),
    "normalise": ZScore(nonzero=False),
    "regions": ("ET",),
}


@pytest.mark.parametrize("setting", OTHERWISE)
def test_settings_that_the_folder_says_otherwise_are_refused(setting: str, copied: Callable[..., Path]) -> None:
    error = refusal(copied(), declared=Declared(MSD_TASK01, ("t1", "flair"), **{setting: OTHERWISE[setting]}))
    assert "says otherwise" in error.problem
    assert list(error.details["got"]) == [setting]


def test_a_word_that_the_folder_does_not_have_is_refused(copied: Callable[..., Path]) -> None:
    error = refusal(copied(), declared=Declared(MSD_TASK01, names={"tumour center": "necrosis"}))
    assert error.details["got"] == ["tumour center"]


def test_an_ignore_label_is_no_class(copied: Callable[..., Path]) -> None:
    folder = copied(dataset=lambda dataset: dataset["labels"].update(ignore=4))
    assert load(folder, None, False).head.channels == ("background", "oedema", "necrosis", "enhancing")
