"""A study with a defence that runs in seconds: a network, the same with logits a hundredfold, and its teacher."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from study.small_study import Glow, first_page, small
from torch import Tensor, nn

from medadv.data.phantom import phantom
from medadv.study.records import Record
from medadv.study.run import Outcome, Part, run
from medadv.study.spec import Study

DISTILLED = {"like": "glow", "defence": {"name": "distillation", "at": 100}}
BUDGET = "0.3 sigma"


class Loud(nn.Module):
    """A network whose logits are so large that the softmax has no gradient: what distillation leaves at T = 1."""

    def __init__(self, scale: float = 100.0, shift: float = 0.0) -> None:
        super().__init__()
        self.inner = Glow()
        self.scale = scale
        with torch.no_grad():
            self.inner.answer.bias += shift * torch.tensor([0.0, 1.0, 1.0, 1.0])

    def forward(self, z: Tensor) -> Tensor:
        return self.scale * self.inner(z)


def networks() -> dict[str, nn.Module]:
    """The victims of the study by name; weights all differ."""
    return {"glow": Glow(), "loud-teacher": Loud(100.0, 0.2), "loud": Loud(100.0, 0.1)}


def defended(root: Path, **changes: Any) -> Study:
    """The study: one attack at one budget, no controls but those that the defence brings."""
    content: dict[str, Any] = {
        "study": "defended",
        "victims": {"glow": {"inference": {"name": "whole"}}, "loud": DISTILLED},
        "budgets": [BUDGET],
        "attacks": {"ifgsm": {"preset": "ifgsm", "steps": 2}},
        "controls": [],
        "regions": ["WT"],
    }
    return small(root, **(content | changes))


def go_defended(
    study: Study, runs: Path, part: str | None = None, victims: Mapping[str, nn.Module] | None = None
) -> Outcome:
    """Run it, without MLflow."""
    return run(
        study, victims=victims or networks(), runs=runs, part=Part.parse(part) if part else None, tracked=False
    )


def by_place(records: list[Record]) -> dict[tuple[str, str, str], Record]:
    """Records by victim, condition, case."""
    return {(record.victim, record.condition, record.case): record for record in records}


@pytest.fixture(scope="session")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One case; not to be changed by a test."""
    root = tmp_path_factory.mktemp("one")
    phantom(root, 1, (24, 24, 24), seed=3)
    return root


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory, three: Path) -> Path:
    """The folder of a finished run that kept all its files; not to be changed by a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("medadv.study.run.build", first_page)
        study = defended(three, volumes={"keep": "all"})
        return go_defended(study, tmp_path_factory.mktemp("judged")).folder

