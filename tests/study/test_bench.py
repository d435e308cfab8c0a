"""A full memory: what is saved, in which order, what the records say, and that the numbers stay."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from study.small_study import Glow, every_record, go, quarantine, small, three  # noqa: F401
from torch import Tensor, nn

from medadv.study.records import Record


class Hungry(nn.Module):
    """The small study's network in two blocks; memory is full at more than a batch, or at whole activations."""

    def __init__(self, most: int, holds: bool = False) -> None:
        super().__init__()
        self.inner = nn.Sequential(Glow())
        self.most, self.holds = most, holds

    def forward(self, z: Tensor) -> Tensor:
        if len(z) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        kept: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(1) or t, lambda t: t):
            answer = self.inner(z)
        if self.holds and torch.is_grad_enabled() and z.requires_grad and len(kept) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return answer


def run_with(network: nn.Module, root: Path, runs: Path) -> list[Record]:
    study = small(
        root,
        victims={"glow": {"inference": {"name": "window", "roi": [16, 16, 16], "batch": 4}}},
        budgets=["0.3 sigma"],
        controls=[],
    )
    return every_record(go(study, runs, network=network).folder)


def scores(records: list[Record]) -> list[float]:
    return [score.value for record in sorted(records, key=lambda r: (r.condition, r.case)) for score in record.scores]


@pytest.mark.usefixtures("no_report")
def test_windows_go_one_by_one_where_a_group_is_too_much(three: Path, tmp_path: Path) -> None:  # noqa: F811
    roomy = run_with(Hungry(9), three, tmp_path / "roomy")
    tight = run_with(Hungry(1), three, tmp_path / "tight")
    assert {record.savings for record in roomy} == {()}
    assert {record.savings for record in tight} == {("one window at a time",)}
    assert scores(tight) == pytest.approx(scores(roomy), abs=0.02)


@pytest.mark.usefixtures("no_report")
def test_then_activations_are_forgotten(three: Path, tmp_path: Path) -> None:  # noqa: F811
    hungry = run_with(Hungry(9, holds=True), three, tmp_path)
    expected = ("one window at a time", "activation checkpointing")
    assert {r.savings for r in hungry if r.condition != "clean"} == {expected}
    assert len(hungry) == 9


@pytest.mark.usefixtures("no_report")
def test_a_case_that_never_fits_is_quarantined_with_what_was_tried(three: Path, tmp_path: Path) -> None:  # noqa: F811
    from medadv.errors import RunError

    with pytest.raises(RunError, match="nothing to report"):
        run_with(Hungry(0), three, tmp_path)
    reasons = quarantine(tmp_path / "small")
    assert set(reasons.values()) == {"out_of_memory"}
    told = (tmp_path / "small" / "quarantine.json").read_text()
    assert "one window at a time" in told


