"""A victim on disk: the same bits again, nothing executed, nothing half written, and errors that advise."""

from __future__ import annotations

import errno
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from medadv.errors import ConfigError, MedadvError, RunError, VictimError
from medadv.labels import BRATS_2018, LabelScheme
from medadv.victims.checkpoint import CARD, WEIGHTS, load_victim, save_victim
from medadv.victims.head import Head, Sigmoid, Softmax
from medadv.victims.mean_field import MeanField
from medadv.victims.networks import Architecture, build_network
from medadv.victims.normalize import Unchanged, ZScore
from medadv.victims.segmentation import Segmenter
from medadv.victims.window import SlidingWindow, WholeVolume

SMALL = Architecture(arguments={"spatial_dims": 3, "channels": [4, 8], "strides": [2], "num_res_units": 1})
HEADS: list[Head] = [Softmax(BRATS_2018), Sigmoid(BRATS_2018, ("WT", "ET"))]


def made(seed: int = 0, head: Head = HEADS[0], **settings: object) -> Segmenter:
    torch.manual_seed(seed)
    return Segmenter(build_network(SMALL, 2, len(head.channels)).eval(), head, ("t1", "flair"), **settings)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_victim(made(), SMALL, tmp_path / "victim")
    return tmp_path / "victim"


@pytest.mark.parametrize("head", HEADS, ids=["softmax", "sigmoid"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"preprocess": Unchanged(), "inference": WholeVolume(2)},
        {"preprocess": ZScore(False), "inference": SlidingWindow((8, 8, 4), 0.25, "constant", 2)},
        {"refine": MeanField(beta=0.5, unit="sigma", radius=1, iterations=2, gradient="by-passed")},
    ],
)
def test_what_is_loaded_answers_the_same_bits(tmp_path: Path, head: Head, settings: dict[str, object]) -> None:
    victim = made(1, head, **settings)
    save_victim(victim, SMALL, tmp_path)
    x = torch.randn(1, 2, 8, 8, 8)
    for path in (tmp_path, tmp_path / WEIGHTS, str(tmp_path)):
        again = load_victim(path)
        assert torch.equal(again(x), victim(x))
        assert torch.equal(again.predict(x), victim.predict(x))
        assert again.preprocessing() == victim.preprocessing()
        assert (again.preprocess, again.inference, again.head) == (victim.preprocess, victim.inference, victim.head)
        assert not any(part.training for part in again.network.modules())
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([WEIGHTS, CARD])


def edit(change: Callable[[dict], object]) -> Callable[[Path], None]:
    """A change of the card."""

    def apply(folder: Path) -> None:
        card = json.loads((folder / CARD).read_text())
        change(card)
        (folder / CARD).write_text(json.dumps(card))

    return apply


def reweigh(change: Callable[[dict], object]) -> Callable[[Path], None]:
    """A change of the weights."""

    def apply(folder: Path) -> None:
        state = load_file(folder / WEIGHTS)
        change(state)
        save_file(state, folder / WEIGHTS)

    return apply


def first(state: dict) -> str:
    return sorted(name for name in state if name.endswith("weight"))[0]


FAULTS: dict[str, tuple[Callable[[Path], object], type[MedadvError], str]] = {
    "pickle": (
        lambda f: torch.save(made().network.state_dict(), f / WEIGHTS),
        VictimError,
        "a pickle, which is a program",
    ),
    "bare pickle": (lambda f: (f / WEIGHTS).write_bytes(pickle.dumps({})), VictimError, "a pickle, which is a program"),
    "truncated": (lambda f: os.truncate(f / WEIGHTS, 1000), VictimError, "copied whole"),
    "empty": (lambda f: (f / WEIGHTS).write_bytes(b""), VictimError, "copied whole"),
    "missing weights": (lambda f: (f / WEIGHTS).unlink(), VictimError, "check the path"),
    "missing card": (lambda f: (f / CARD).unlink(), VictimError, "no victim.json beside the weights"),
    "card is no JSON": (lambda f: (f / CARD).write_text("{"), VictimError, "no victim of this version"),
    "card is no text": (lambda f: (f / CARD).write_bytes(b"\xff\xfe\x00"), VictimError, "no victim of this version"),
    "card of another format": (edit(lambda c: c.update(format="x 9")), VictimError, "no victim of this version"),
    "unknown key": (edit(lambda c: c.update(extra=1)), VictimError, "extra"),
    "overlap of 1": (
        edit(lambda c: c.update(inference={"name": "window", "roi": [4, 4, 4], "overlap": 1})),
        VictimError,
        "cannot be laid",
    ),
    "unknown inference": (edit(lambda c: c["inference"].update(name="tiles")), VictimError, "tiles"),
    "unknown network": (edit(lambda c: c["architecture"].update(name="HAL")), ConfigError, "no network of this name"),
    "import string": (
        edit(lambda c: c["architecture"].update(name="os.system")),
        ConfigError,
        "no network of this name",
    ),
    "unknown argument": (
        edit(lambda c: c["architecture"]["arguments"].update({"_target_": "os.system"})),
        ConfigError,
        "does not know these arguments",
    ),
    "refused argument": (
        edit(lambda c: c["architecture"]["arguments"].update(strides=[])),
        ConfigError,
        "refuses its arguments",
    ),
    "unknown activation": (
        edit(lambda c: c["architecture"]["arguments"].update(act="os.system")),
        ConfigError,
        "refuses its arguments",
    ),
    "activation of another type": (
        edit(lambda c: c["architecture"]["arguments"].update(act={"a": 1})),
        ConfigError,
        "refuses its arguments",
    ),
    "negative channels": (
        edit(lambda c: c["architecture"]["arguments"].update(channels=[-4, 8])),
        ConfigError,
        "refuses its arguments",
    ),
    "scheme without background": (
        edit(lambda c: c["scheme"]["numbers"].pop("background")),
        ConfigError,
        "has no 'background'",
    ),
    "other head": (
        edit(lambda c: c["head"].update(name="sigmoid", channels=["WT"])),
        VictimError,
        "are not those of the network",
    ),
    "other keys": (reweigh(lambda s: s.update(strange=s.pop(first(s)))), VictimError, "keys missing, unknown"),
    "missing key": (reweigh(lambda s: s.pop(first(s))), VictimError, "keys missing, unknown"),
    "other shape": (reweigh(lambda s: s.update({first(s): torch.zeros(2, 2)})), VictimError, "another shape"),
    "NaN": (reweigh(lambda s: s[first(s)].view(-1)[0].fill_(torch.nan)), VictimError, "not finite"),
    "infinity": (reweigh(lambda s: s[first(s)].view(-1)[0].fill_(torch.inf)), VictimError, "training that diverged"),
    "one weight changed": (
        reweigh(lambda s: s[first(s)].view(-1)[0].add_(1)),
        VictimError,
        "not the ones that victim.json",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_has_its_error(folder: Path, name: str) -> None:
    fault, kind, words = FAULTS[name]
    fault(folder)
    with pytest.raises(kind) as refusal:
        load_victim(folder)
    assert type(refusal.value) is kind
    assert words in str(refusal.value)
    assert any(value for value in refusal.value.details.values())


def test_weights_of_another_victim_are_noticed(folder: Path, tmp_path: Path) -> None:
    save_victim(made(7), SMALL, tmp_path / "other")
    (tmp_path / "other" / WEIGHTS).replace(folder / WEIGHTS)
    with pytest.raises(VictimError, match=r"not the ones that victim\.json was written for"):
        load_victim(folder)


def test_a_lone_pickle_is_refused_as_one(tmp_path: Path) -> None:
    torch.save(made().network.state_dict(), tmp_path / "model.pt")
    with pytest.raises(VictimError, match="a pickle, which is a program") as refusal:
        load_victim(tmp_path / "model.pt")
    assert "save_file" in refusal.value.details["try"]


def test_a_pickle_is_not_executed(folder: Path, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "executed",)

    (folder / WEIGHTS).write_bytes(pickle.dumps(Payload()))
    with pytest.raises(VictimError):
        load_victim(folder)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
@pytest.mark.parametrize("call", ["write_bytes", "write_text", "replace", "fsync"])
def test_a_failed_write_leaves_the_old_victim_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    save_victim(made(0), SMALL, tmp_path / "old")
    for name in ("old", "new"):
        with monkeypatch.context() as patch:
            patch.setattr(os if call == "fsync" else Path, call, fail)
            with pytest.raises(RunError, match="could not be written"):
                save_victim(made(1), SMALL, tmp_path / name)
        left = {path.name for path in (tmp_path / name).iterdir()}
        assert left <= {WEIGHTS, CARD}
    if call != "write_text":  # the weights are written first
        assert torch.equal(load_victim(tmp_path / "old").network.model[0].conv.unit0.conv.weight, _weight(made(0)))
        assert not left
    else:  # weights and card belong to two victims: told, not used
        with pytest.raises(VictimError, match="not the ones that"):
            load_victim(tmp_path / "old")


def _weight(victim: Segmenter) -> torch.Tensor:
    return victim.network.model[0].conv.unit0.conv.weight


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="could not be written"):
        save_victim(made(), SMALL, tmp_path / "file" / "victim")


def test_the_default_architecture_is_a_small_unet() -> None:
    assert build_network(Architecture(), 4, 3)(torch.randn(1, 4, 16, 16, 16)).shape == (1, 3, 16, 16, 16)


def test_schemes_survive(tmp_path: Path) -> None:
    scheme = LabelScheme("odd", {"kidney": 2, "background": 7, "cyst": 31}, {"all": ("kidney", "cyst"), "C": ("cyst",)})
    save_victim(made(0, Sigmoid(scheme, ("C", "all"))), SMALL, tmp_path)
    assert load_victim(tmp_path).head == Sigmoid(scheme, ("C", "all"))
