"""A defence with the weights of the victim that it is held against is refused before anything is attacked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from study.defended_study import DISTILLED, Loud, defended, go_defended
from study.small_study import Glow, records, small
from torch import Tensor, nn

from medadv.errors import ConfigError
from medadv.study.spec import Study

ADVERSARIAL = {"like": "glow", "defence": {"name": "adversarial training", "budgets": ["0.1 sigma"]}}


class Wrapped(nn.Module):
    """The same weights under other names, with logits a hundredfold."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Glow()

    def forward(self, z: Tensor) -> Tensor:
        return 100 * self.network(z)


def refused(study: Study, runs: Path, victims: dict[str, nn.Module]) -> str:
    with pytest.raises(ConfigError) as error:
        go_defended(study, runs, victims=victims)
    assert not records(runs / "defended")
    return str(error.value)


SAME: dict[str, Callable[[], nn.Module]] = {"the same": Glow, "wrapped": Wrapped}


@pytest.mark.parametrize("make", SAME.values(), ids=SAME)
def test_a_trained_defence_with_the_undefended_ones_weights(
    three: Path,
    tmp_path: Path,
    make: Callable[[], nn.Module],
) -> None:
    study = defended(three, victims={"glow": {"inference": {"name": "whole"}}, "hard": ADVERSARIAL})
    told = refused(study, tmp_path, {"glow": Glow(), "hard": make()})
    assert "'hard' is the victim 'glow' under another name" in told


def test_a_trained_defence_with_the_same_weights_and_another_pipeline(three: Path, tmp_path: Path) -> None:
    other = ADVERSARIAL | {"inference": {"name": "window", "roi": [16, 16, 16]}}
    study = defended(three, victims={"glow": {"inference": {"name": "whole"}}, "hard": other})
    told = refused(study, tmp_path, {"glow": Glow(), "hard": Glow()})
    assert "weights of its own" in told
    assert "same pipeline" not in told


def test_a_student_that_is_its_teacher(three: Path, tmp_path: Path) -> None:
    victims = {"glow": Glow(), "loud-teacher": Loud(100.0, 0.2), "loud": Loud(100.0, 0.2)}
    assert "'loud' is the victim 'loud-teacher' under another name" in refused(defended(three), tmp_path, victims)


def test_one_weight_that_differs_is_another_victim(three: Path, tmp_path: Path) -> None:
    from medadv.study.impostors import _alike

    other = Glow()
    with torch.no_grad():
        other.answer.bias[0] += 1e-6
    assert _alike(Glow(), Glow())
    assert not _alike(Glow(), other)
    assert not _alike(nn.ReLU(), nn.ReLU())  # nothing learnt, nothing to be the same


@pytest.mark.usefixtures("no_report")
def test_an_input_transform_has_the_same_weights_and_is_judged(one: Path, tmp_path: Path) -> None:
    smoothed = {"like": "glow", "defence": {"name": "gaussian smoothing", "sigma": 1.0}}
    study = defended(one, victims={"glow": {"inference": {"name": "whole"}}, "smooth": smoothed})
    folder = go_defended(study, tmp_path, victims={"glow": Glow()}).folder
    assert {path.split("/")[0] for path in records(folder)} == {"glow", "smooth"}
    assert (folder / "records" / "smooth" / "transfer-from-glow-0.3-sigma").is_dir()


def test_victims_that_are_no_defence_may_be_one_network(three: Path) -> None:
    from medadv.study.bench import Contestant
    from medadv.study.impostors import check_defended

    study = small(three, victims={"a": {}, "b": {"like": "a"}})
    check_defended(study, [Contestant(name, {}) for name in study.entrants])
    assert DISTILLED["like"] == "glow"
