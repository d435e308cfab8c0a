"""A study of three networks on volumes, run: a matrix of transfers, a sum with its controls, DAG, a joint attack."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from study.defended_study import by_place
from study.small_study import Glow, every_record, first_page, quarantine, records, small
from study.test_transfer import arrays
from torch import Tensor, nn

from medadv.attack.victim import Passes
from medadv.data.brats import brats
from medadv.data.files import read
from medadv.errors import Reason, RunError
from medadv.study.machine import Machine
from medadv.study.plan import plan
from medadv.study.records import Record, planned_cells
from medadv.study.run import run
from medadv.study.spec import Study

WHOLE = {"inference": {"name": "whole"}}
NAMES = ("a", "b", "c")
DAG = "dag-0.5-0-255"
BOTH = "both-0.2-sigma"
SUM = "sum-r-0.5-0-255"


class Shifted(nn.Module):
    """The small network, its background less or more likely."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.inner = Glow()
        with torch.no_grad():
            self.inner.answer.bias[0] += shift

    def forward(self, z: Tensor) -> Tensor:
        answer: Tensor = self.inner(z)
        return answer


def networks(**others: nn.Module) -> dict[str, nn.Module]:
    return {name: Shifted(0.2 * i) for i, name in enumerate(NAMES)} | others


def study(root: Path, **changes: Any) -> Study:
    content: dict[str, Any] = {
        "study": "matrix",
        "victims": dict.fromkeys(NAMES, WHOLE),
        "budgets": ["0.2 sigma"],
        "attacks": {
            "dag": {"preset": "dag", "goal": {"permute": "random", "background": True}, "steps": 4},
            "both": {"preset": "tifgsm", "steps": 2, "joint": {"a": {"erase": "ET"}, "b": {"fill": "oedema"}}},
        },
        "controls": ["rows"],
        "transfers": {"attacks": ["dag"]},
        "sums": {"r": {"of": ["a", "b"], "attack": "dag", "to": ["a", "c"]}},
        "primary": {"region": "WT", "attacks": ["dag"]},
        "regions": ["WT"],
        "volumes": {"keep": "all"},
    }
    return small(root, **(content | changes))


def go(asked: Study, runs: Path, victims: Mapping[str, nn.Module] | None = None) -> Path:
    return run(asked, victims=victims or networks(), runs=runs, tracked=False).folder


@pytest.fixture(scope="module")
def matrix(one: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the finished run; not to be changed by a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("medadv.study.run.build", first_page)
        return go(study(one), tmp_path_factory.mktemp("matrix"))


def found(folder: Path) -> dict[tuple[str, str], Record]:
    return {(victim, condition): record for (victim, condition, _), record in by_place(every_record(folder)).items()}


def voxels(folder: Path, victim: str, condition: str) -> Tensor:
    (case,) = {record.case for record in every_record(folder)}
    return torch.stack(arrays(folder, victim, condition, case))


def clean(root: Path) -> Tensor:
    volume = read(brats(root / "Phantom_00000"))
    order = sorted(range(4), key=lambda i: ("flair", "t1", "t1ce", "t2").index(volume.case.modalities[i]))
    return volume.x[order].double()


def test_every_cell_of_the_matrix_is_scored_and_no_other(matrix: Path) -> None:
    rows = found(matrix)
    for target in NAMES:
        others = {f"transfer-dag-from-{source}-0.5-0-255" for source in NAMES if source != target}
        own = {"clean", DAG, f"permuted-rows-{DAG}"} | others
        own |= {BOTH, f"permuted-rows-{BOTH}"} if target in "ab" else set()
        own |= {SUM, f"rescaled-{SUM}", f"permuted-rows-{SUM}"} if target in "ac" else set()
        assert {condition for victim, condition in rows if victim == target} == own
    assert {cell[:2] for cell in planned_cells(matrix)} == set(rows)


def test_what_is_transferred_is_the_file_of_its_source(matrix: Path) -> None:
    for source in NAMES:
        for target in set(NAMES) - {source}:
            shown = voxels(matrix, target, f"transfer-dag-from-{source}-0.5-0-255")
            assert torch.equal(shown, voxels(matrix, source, DAG))
            assert not torch.equal(shown, voxels(matrix, target, DAG))


def test_the_sum_is_that_of_the_files_and_the_same_for_everyone(matrix: Path, one: Path) -> None:
    x = clean(one)
    changes = [voxels(matrix, victim, DAG) - x for victim in "ab"]
    total = voxels(matrix, "c", SUM) - x
    legal = torch.stack([x[i][x[i] != 0].aminmax().max for i in range(4)]).view(4, 1, 1, 1)
    free = (x != 0) & (x + sum(changes) < legal) & (x + sum(changes) > 1)
    assert free.double().sum() > 0.9 * (x != 0).double().sum()
    torch.testing.assert_close(total[free], sum(changes)[free], rtol=0, atol=2e-3)
    assert torch.equal(voxels(matrix, "a", SUM), voxels(matrix, "c", SUM))
    rescaled = voxels(matrix, "c", f"rescaled-{SUM}") - x
    mean = sum(change.norm().item() for change in changes) / 2
    assert rescaled.norm().item() == pytest.approx(mean, rel=1e-2)  # but for what the legal range cuts
    permuted = voxels(matrix, "c", f"permuted-rows-{SUM}") - x
    assert not torch.equal(permuted, total)
    assert permuted.norm().item() == pytest.approx(total.norm().item(), rel=2e-2)


def test_one_perturbation_attacks_two_networks_towards_a_goal_each(matrix: Path) -> None:
    rows = found(matrix)
    assert torch.equal(voxels(matrix, "a", BOTH), voxels(matrix, "b", BOTH))
    holder, other = rows["a", BOTH], rows["b", BOTH]
    assert holder.presented == other.presented
    assert holder.presented.title == "ti-FGSM, erase ET and all oedema, 2 steps, on a and b together"
    assert holder.effort is not None
    assert (holder.effort.steps, holder.effort.backward) == (2, 4)  # of both networks
    assert other.effort is None
    alike = {key: other.inputs[key] for key in ("weights", "network", "deployed")}
    assert holder.inputs["together"] == [alike]
    assert other.inputs["attacked"] == [{key: holder.inputs[key] for key in alike}, alike]


def test_dag_steps_are_of_its_length_and_its_trace_counts_active_targets(matrix: Path) -> None:
    record = found(matrix)["a", DAG]
    assert record.inputs["condition"]["threat"]["ball"] == "unbounded"
    assert record.effort is not None
    active = record.effort.trace["active"]
    assert len(active) == 5  # the last iterate is looked at, too
    assert active[0] > 0
    assert record.size is not None
    assert 1 <= record.size <= 4 + 1e-3  # in γ: no step is shorter, and four are not longer together
    assert record.effort.steps == 4


@pytest.mark.usefixtures("no_report")
def test_another_network_changes_all_that_was_made_from_it_and_no_more(
    matrix: Path, one: Path, tmp_path: Path
) -> None:
    """The permuted sum on c rests on b by way of the sum: planted fault, its key is lost on the way."""
    folder = go(study(one), tmp_path, networks(b=Shifted(0.9)))
    new = {path.rsplit("/", 1)[0] for path in set(records(folder)) - set(records(matrix))}
    of_sum = {f"{kind}{SUM}" for kind in ("", "rescaled-", "permuted-rows-")}
    from_b = {f"{target}/transfer-dag-from-b-0.5-0-255" for target in "ac"}
    assert new == from_b | {f"{victim}/{name}" for victim in "ac" for name in of_sum} | {
        f"a/{name}" for name in (BOTH, f"permuted-rows-{BOTH}")
    } | {path for path in new if path.startswith("b/")}
    assert f"b/{DAG}" in new


@pytest.mark.usefixtures("no_report")
def test_a_chain_is_made_again_from_its_beginning_where_no_file_was_kept(
    matrix: Path, one: Path, tmp_path: Path
) -> None:
    asked = study(one, volumes={"keep": "none"})
    folder = go(asked, tmp_path)
    assert records(folder) == records(matrix)
    for condition in (f"permuted-rows-{SUM}", f"rescaled-{SUM}"):
        (path,) = (folder / "records" / "c" / condition).iterdir()
        path.unlink()
    go(asked, tmp_path)
    assert records(folder) == records(matrix)


def test_the_plan_counts_what_the_run_did(matrix: Path, one: Path, tmp_path: Path) -> None:
    layers = {"network": {"arguments": {"spatial_dims": 3, "channels": [4, 8], "strides": [2], "num_res_units": 0}}}
    built = {name: {**layers, "inference": {"name": "whole", "multiple": 2}} for name in NAMES}
    two = {name: {"like": "a"} for name in "bc"}
    asked = study(one, victims={"a": built["a"]} | two, split={"train": 0, "validate": 0})
    planned = plan(asked, Machine("cpu"), tmp_path, timed=False)
    ran = every_record(matrix)
    assert planned.cells == len(ran)
    spent = sum((Passes(r.effort.forward, r.effort.backward) for r in ran if r.effort), Passes())
    assert sum((line.passes for line in planned.lines), Passes()).backward == spent.backward


@pytest.mark.usefixtures("no_report")
def test_a_case_that_a_goal_means_nothing_in_is_set_aside_and_told(one: Path, tmp_path: Path) -> None:
    """The phantom shows every tissue: there is none that a figure could be drawn in."""
    dag = {"preset": "dag", "goal": {"shape": "square"}, "steps": 1}
    with pytest.raises(RunError, match="goal"):
        go(study(one, attacks={"dag": dag}), tmp_path)
    assert list(quarantine(tmp_path / "matrix").values()) == [Reason.GOAL]


@pytest.mark.usefixtures("no_report")
def test_a_case_with_nothing_to_exchange_is_scored_and_not_set_aside(one: Path, tmp_path: Path) -> None:
    """It shows every tissue: there is none that another could be taken for."""
    dag = {"preset": "dag", "goal": {"permute": "random", "absent": True}, "steps": 1}
    go(study(one, attacks={"dag": dag}), tmp_path)
    assert not quarantine(tmp_path / "matrix")
