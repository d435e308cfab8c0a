"""Modalities, supports, regions and labels of a study's attacks: what changes, what it is called, what is recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from study.small_study import every_record, go, small
from study.test_conditions import CLIPPED, WIDE, met, scene

from medadv.attack.budget import Budget
from medadv.attack.objective import Away, Towards
from medadv.attack.threat import Linf
from medadv.data.brats import MODALITIES, brats
from medadv.data.files import read
from medadv.errors import ConfigError
from medadv.labels import BRATS_2018
from medadv.study.attacks import Fgsm, Ifgsm, Mifgsm, Pgd, Tifgsm
from medadv.study.conditions import Attacked, Condition, Need
from medadv.study.controls import Permuted, SignNoise
from medadv.study.reach import Reach
from medadv.study.records import digest
from medadv.study.suite import primary_conditions

FLAIR = Reach(modalities=("flair",))
IFGSM = Ifgsm(preset="ifgsm", steps=2)
OTHERS = [0, 1, 2]


def study(**changes: Any) -> Any:
    return small(Path("data"), **changes)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SignNoise(WIDE, FLAIR),
        lambda: Attacked("a", IFGSM, WIDE, FLAIR),
        lambda: Attacked("a", Pgd(preset="pgd", steps=2), CLIPPED, FLAIR),
        lambda: Attacked("a", IFGSM, Linf(Budget.parse("0.1/0.2/0.1/0.3 sigma")), FLAIR),
    ],
)
def test_modalities_that_are_not_attacked_are_what_they_were(make: Callable[[], Condition]) -> None:
    s = scene()
    shown = make().show(s)
    assert torch.equal(shown.x[:, OTHERS].view(torch.int32), s.x[:, OTHERS].view(torch.int32))
    assert (shown.x[:, 3] != s.x[:, 3]).float().mean() > 0.3


def test_the_control_shuffles_where_the_attack_was() -> None:
    s = scene()
    attack = Attacked("a", IFGSM, WIDE, FLAIR)
    delivered = attack.show(s).x
    shown = Permuted(attack).show(replace(s, stored={Need(attack.name): delivered}))
    assert torch.equal(shown.x[:, OTHERS], s.x[:, OTHERS])
    assert not torch.equal(shown.x, delivered)


def test_the_support_of_the_scene_is_where_things_move() -> None:
    s = scene()
    inner = torch.zeros_like(s.support)
    inner[..., 4:, :] = True
    for condition in (SignNoise(WIDE), Attacked("a", IFGSM, WIDE)):
        x = condition.show(replace(s, support=inner)).x
        assert torch.equal(x[~inner], s.x[~inner])
        assert (x[inner] != s.x[inner]).any()


def test_background_moves_only_where_the_support_is_the_volume() -> None:
    s = scene()
    everywhere = replace(s, support=torch.ones_like(s.support))
    noise = SignNoise(WIDE, Reach("volume"))
    air = s.x == 0
    assert (noise.show(everywhere).x[air] != 0).all()
    assert (SignNoise(WIDE).show(s).x[air] == 0).all()


# Names


def test_a_name_says_which_modalities_and_a_title_too() -> None:
    named = study(
        attacks={
            "ifgsm": {"preset": "ifgsm", "modalities": ["flair"]},
            "fgsm-t1ce": {"preset": "fgsm", "modalities": ["t1ce", "flair"]},
            "all": {"preset": "fgsm"},
        },
        budgets=["0.1 sigma"],
        primary={"region": "WT", "attacks": ["ifgsm"]},
    )
    shown = {c.name: c.presented for c in met(named)}
    assert set(shown) == {
        *("clean", "identity", "all-0.1-sigma", "permuted-all-0.1-sigma", "noise-0.1-sigma"),
        *("ifgsm-flair-0.1-sigma", "permuted-ifgsm-flair-0.1-sigma", "noise-flair-0.1-sigma"),
        *("fgsm-t1ce-flair-0.1-sigma", "permuted-fgsm-t1ce-flair-0.1-sigma", "noise-flair-t1ce-0.1-sigma"),
    }
    alone = shown["ifgsm-flair-0.1-sigma"]
    assert (alone.family, alone.title, alone.amount) == ("ifgsm-flair", "i-FGSM, 10 steps, only flair", 0.1)
    assert shown["noise-flair-0.1-sigma"].title == "sign noise, only flair"
    assert shown["permuted-ifgsm-flair-0.1-sigma"].title == "i-FGSM, 10 steps, only flair, permuted"
    assert primary_conditions(named) == ("ifgsm-flair-0.1-sigma",)


def test_the_whole_volume_is_a_threat_of_its_own_name() -> None:
    names = {c.name: c.presented.title for c in met(study(support="volume", budgets=["0.1 sigma"]))}
    assert names["fgsm-volume-0.1-sigma"] == "FGSM, background too"
    assert names["noise-volume-0.1-sigma"] == "sign noise, background too"
    for kind in ("otsu", "mask"):
        assert {c.name for c in met(study(support=kind))} == {c.name for c in met(study())}


def test_the_studys_modalities_are_those_of_attacks_that_name_none() -> None:
    attacks = {"a": {"preset": "fgsm"}, "b": {"preset": "fgsm", "modalities": ["t1"]}}
    mixed = study(modalities=["t2", "flair"], attacks=attacks, budgets=["0.1 sigma"], controls=())
    assert [c.name for c in met(mixed)] == ["clean", "a-flair-t2-0.1-sigma", "b-t1-0.1-sigma"]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "one modality twice": ({"modalities": ["t1", "t1"]}, "given twice"),
    "no modality": ({"modalities": []}, "at least 1 item"),
    "an attack's modality twice": ({"attacks": {"a": {"preset": "fgsm", "modalities": ["t1", "t1"]}}}, "given twice"),
    "a name for two attacks": (
        {
            "attacks": {
                "a": {"preset": "fgsm", "modalities": ["t1"]},
                "a-t1": {"preset": "ifgsm", "modalities": ["t1"]},
            }
        },
        r"called the same in tables: \['a-t1'\]",
    ),
    "an attack called like a noise": ({"attacks": {"noise-t1": {"preset": "fgsm"}}}, "cannot be the name"),
    "another support": ({"support": "brain"}, "'nonzero', 'mask', 'otsu', 'volume' or 'everywhere'"),
    "other labels": ({"attacks": {"a": {"preset": "fgsm", "labels": "guess"}}}, "'truth' or 'prediction'"),
}


@pytest.mark.parametrize(("changes", "told"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_meant_is_told(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        study(**changes)


def test_what_the_data_does_not_have_is_told() -> None:
    for changes, told in (
        ({"modalities": ["adc"]}, "modalities that the data does not have"),
        ({"attacks": {"a": {"preset": "fgsm", "modalities": ["t1", "adc"]}}}, "modalities that the data does not have"),
        ({"attacks": {"a": {"preset": "fgsm", "region": "brain"}}}, "'brain' is no region"),
    ):
        with pytest.raises(ConfigError, match=told):
            study(**changes).check(MODALITIES, BRATS_2018)
    study(modalities=["t1"], attacks={"a": {"preset": "fgsm", "region": "ET"}}).check(MODALITIES, BRATS_2018)


# Settings and keys


def test_settings_that_came_later_leave_older_keys_alone() -> None:
    """Literally what records of the first version hold."""
    threat = {
        "ball": "linf",
        "budget": {"amounts": [0.3], "unit": "sigma"},
        "legal": "clean",
        "support": "nonzero",
    }
    attack = {"loss": "cross entropy", "steps": 2, "preset": "ifgsm", "size": None}
    assert Attacked("a", IFGSM, CLIPPED).settings() == {"kind": "attack", "attack": attack, "threat": threat}
    assert SignNoise(CLIPPED).settings() == {"kind": "noise", "threat": threat}
    targeted = Tifgsm(preset="tifgsm", steps=2, goal={"erase": "ET"})
    assert targeted.settings() == attack | {"preset": "tifgsm", "goal": {"erase": "ET"}}
    turned = Tifgsm(preset="tifgsm", goal={"turn": "ET", "into": "oedema"})
    assert turned.settings()["goal"] == {"turn": "ET", "into": "oedema"}


def test_whatever_changes_the_numbers_changes_the_key() -> None:
    others = [
        Attacked("a", IFGSM, CLIPPED),
        Attacked("a", IFGSM, CLIPPED, FLAIR),
        Attacked("a", IFGSM, CLIPPED, Reach(modalities=("t1",))),
        Attacked("a", IFGSM, CLIPPED, Reach("volume")),
        Attacked("a", IFGSM, CLIPPED, Reach("otsu")),
        Attacked("a", IFGSM.model_copy(update={"labels": "prediction"}), CLIPPED),
        Attacked("a", IFGSM.model_copy(update={"region": "ET"}), CLIPPED),
        Attacked("a", IFGSM.model_copy(update={"region": "TC"}), CLIPPED),
        SignNoise(CLIPPED),
        SignNoise(CLIPPED, FLAIR),
        Permuted(Attacked("a", IFGSM, CLIPPED, FLAIR)),
    ]
    assert len({digest(condition.settings()) for condition in others}) == len(others)


def test_modalities_are_a_set() -> None:
    a, b = (Fgsm(preset="fgsm", modalities=order) for order in (("t1", "flair"), ("flair", "t1")))
    assert a == b
    assert "modalities" not in a.settings()  # they are told with the threat


# What a study says is what the attack is asked


@pytest.mark.parametrize("kind", [Fgsm, Ifgsm, Mifgsm, Pgd])
def test_labels_and_region_reach_the_objective(kind: Any) -> None:
    spec = kind(preset=kind.__name__.lower(), labels="prediction", region="ET", loss="logit margin")
    objective = spec.attack(CLIPPED, (1.0, 1.0, 1.0)).objective
    assert isinstance(objective, Away)
    assert (objective.labels, objective.region) == ("prediction", "ET")
    assert spec.title.endswith(", ET alone, from its own prediction")
    plain = kind(preset=kind.__name__.lower()).attack(CLIPPED, (1.0, 1.0, 1.0)).objective
    assert (plain.labels, plain.region) == ("truth", None)


def test_labels_reach_a_targeted_objective() -> None:
    spec = Tifgsm(preset="tifgsm", labels="prediction", goal={"least_likely": "each step"})
    objective = spec.attack(CLIPPED, (1.0, 1.0, 1.0)).objective
    assert isinstance(objective, Towards)
    assert (objective.labels, objective.follow) == ("prediction", True)


def test_a_run_delivers_what_its_threat_says(tmp_path: Path, three: Path, no_report: None) -> None:
    """Only FLAIR, background too: as the files hold it, and as the records tell it."""
    attacks = {"noisy": {"preset": "fgsm", "region": "ET", "labels": "prediction"}}
    one = study(
        data={"importer": "brats", "root": str(three), "release": "2021"},
        split={"test": ["Phantom_00000"]},
        attacks=attacks,
        support="volume",
        modalities=["flair"],
        budgets=["0.3 sigma"],
        controls=["noise"],
        volumes={"keep": "all"},
    )
    folder = go(one, tmp_path).folder
    clean = read(brats(three / "Phantom_00000")).x
    found = {record.condition: record for record in every_record(folder)}
    assert set(found) == {"clean", "noisy-flair-volume-0.3-sigma", "noise-flair-volume-0.3-sigma"}
    for name in set(found) - {"clean"}:
        record = found[name]
        threat = record.inputs["condition"]["threat"]
        assert (threat["support"], threat["modalities"]) == ("volume", ["flair"])
        assert record.radii is not None
        assert {m: r > 0 for m, r in record.radii["stored"].items()} == {m: m == "flair" for m in MODALITIES}
        assert record.radii["stored"]["flair"] == pytest.approx(0.3 * clean[3].double().std(correction=0).item())
        (place,) = (folder / "volumes" / "glow" / name).glob("Phantom_00000*")
        files = {path.name.rsplit("_", 1)[1].split(".")[0]: path for path in place.glob("ADVERSARIAL_*.nii.gz")}
        import nibabel as nib

        for channel, modality in enumerate(MODALITIES):
            after = torch.from_numpy(nib.load(files[modality]).get_fdata(dtype="float32"))
            assert torch.equal(after, clean[channel]) == (modality != "flair")
    noise = found["noise-flair-volume-0.3-sigma"]
    assert noise.size == pytest.approx(1, abs=1e-6)
