"""The matrix of transfers: who is in it, what its cells are, and what is beside it of permuted perturbations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.patches import Rectangle
from study.pictured import DETECTOR, pictured

from medadv.study.judgement import Judgement
from medadv.study.report.pictures.convergence import convergence, iterations_table
from medadv.study.report.pictures.heat import heat_map
from medadv.study.report.pictures.matrix import Cells, Matrix, matrices, matrix_table, settings_of
from medadv.study.report.pictures.over_data import OverData
from medadv.study.report.pictures.permuted import permuted_table
from medadv.study.results import Arm, Results, read_results

SHOWN = ("deeplab", "fcn", DETECTOR)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return read_results(pictured(tmp_path_factory.mktemp("pictured") / "study", epsilons=(0.25, 8.0)))


@pytest.fixture(scope="module")
def cells(results: Results) -> Cells:
    return Cells(results, OverData.of(results))


def only(results: Results) -> Matrix:
    (matrix,) = matrices(results)
    return matrix


def test_rows_are_what_was_found_and_columns_who_was_shown_it(results: Results) -> None:
    matrix = only(results)
    assert matrix.title == "DAG, 0.5\N{NO-BREAK SPACE}of 0–255"  # i-FGSM was shown to nobody else
    assert matrix.targets == SHOWN
    assert [line.kind for line in matrix.lines] == ["clean", *["attack"] * 3, "sum", "control", "control"]
    named = [line.title for line in matrix.lines[:5]]
    assert named == ["clean", *SHOWN, f"fcn + {DETECTOR}"]
    rest = {line.title for line in matrix.lines[5:]}
    assert rest == {f"fcn + {DETECTOR}, permuted", f"fcn + {DETECTOR}, rescaled"}
    assert all(set(line.arms) == set(SHOWN) for line in matrix.lines)


def test_cells_are_the_data_set_scores_of_the_arms(results: Results, cells: Cells) -> None:
    table = matrix_table(only(results), cells)
    heads = [column.title for column in table.columns[1:]]
    assert heads == ["deeplab, mIoU (%)", "fcn, mIoU (%)", f"{DETECTOR}, mAP VOC07 (%)"]
    rows = {row[0]: row[1:] for row in table.rows}

    def score(victim: str, condition: str) -> float | None:
        return cells.over.value(results.arm(victim, condition), "voc07" if victim == DETECTOR else "iou")

    for source in SHOWN:
        names = {v: "dag-0.5" if v == source else f"transfer-dag-from-{source}-0.5" for v in SHOWN}
        assert rows[source] == [score(v, name) for v, name in names.items()]
    assert rows["clean"] == [score(v, "clean") for v in SHOWN]
    assert rows[f"fcn + {DETECTOR}"] == [score(v, "sum-r") for v in SHOWN]
    assert rows[f"fcn + {DETECTOR}, permuted"] == [score(v, "permuted-sum-r") for v in SHOWN]
    assert None not in [cell for row in rows.values() for cell in row]


def test_the_heat_map_prints_every_cell_and_frames_white_boxes(results: Results, cells: Cells) -> None:
    matrix = only(results)
    axes = heat_map(matrix, cells).axes[0]
    table = matrix_table(matrix, cells)
    printed = [text.get_text() for text in axes.texts]
    assert printed == [cell for row in table.spelled() for cell in row[1:]]
    frames = {(f.get_x() // 1, f.get_y() // 1) for f in axes.patches if isinstance(f, Rectangle) and not f.get_fill()}
    assert frames == {(0, 1), (1, 2), (2, 3), (1, 4), (2, 4)}  # the diagonal, and the sum on its two victims
    assert axes.yaxis_inverted()


def test_attacks_that_were_added_to_each_other_share_a_matrix(results: Results) -> None:
    """A sum of two attacks' findings links them; without it each has its own."""

    def other(condition: dict[str, object]) -> dict[str, object]:
        if condition["kind"] == "attack":
            return {**condition, "attack": {"preset": "dag", "steps": 150}}
        of = condition.get("of")
        if condition["kind"] == "sum" and isinstance(of, list):
            return {**condition, "of": [of[0], other(of[1])]}
        return {**condition, "of": other(of)} if isinstance(of, dict) else condition

    def of_detector(arm: Arm) -> bool:
        own = arm.victim == DETECTOR and arm.condition == "dag-0.5"
        return own or arm.presented.source in (DETECTOR, f"fcn + {DETECTOR}") or arm.condition == "permuted-sum-r"

    def changed(arm: Arm) -> Arm:
        if not of_detector(arm):
            return arm
        records = {
            case: r.model_copy(update={"inputs": {**r.inputs, "condition": other(r.inputs["condition"])}})
            for case, r in arm.records.items()
        }
        return replace(arm, records=records)

    two = replace(results, arms=tuple(map(changed, results.arms)))
    matrix = only(two)
    assert len(matrix.titles) == 2
    assert [line.title for line in matrix.lines[:5]] == ["clean", *SHOWN, f"fcn + {DETECTOR}"]
    apart = replace(two, arms=tuple(arm for arm in two.arms if "sum-r" not in arm.condition))
    one, other_one = matrices(apart)
    assert {line.title for line in one.lines} | {line.title for line in other_one.lines} == {"clean", *SHOWN}


def test_an_attack_on_several_victims_together_is_one_row_of_them_all(results: Results) -> None:
    """Its change is stored for the first of them, and the others' records call it shared."""

    def as_shared(arm: Arm) -> Arm:
        if (arm.victim, arm.condition) != ("deeplab", "dag-0.5"):
            return arm
        own = settings_of(arm)
        condition = {"kind": "shared", "of": own, "threat": own["threat"]}
        records = {
            case: r.model_copy(update={"inputs": {**r.inputs, "condition": condition}, "effort": None})
            for case, r in arm.records.items()
        }
        return replace(arm, records=records)

    apart = (a for a in results.arms if a.presented.source == "fcn" or a.condition in ("clean", "dag-0.5"))
    both = tuple(as_shared(a) for a in apart if {a.victim, a.presented.source} != {"deeplab", "fcn"})
    joint = replace(results, arms=tuple(a for a in both if a.victim != DETECTOR or a.condition != "dag-0.5"))
    line = only(joint).lines[1]
    assert (line.title, line.own) == ("fcn and deeplab together", ("fcn", "deeplab"))
    assert set(line.arms) == set(SHOWN)
    assert len(only(joint).lines) == 2
    assert [row[1] for row in iterations_table(joint).rows] == ["fcn and deeplab together"]
    figure = convergence(joint)
    assert figure is not None
    assert [drawn.get_label() for drawn in figure.axes[0].lines] == ["fcn and deeplab together"]


def test_transfers_of_a_worst_case_are_told_with_the_defences(results: Results) -> None:
    judged = replace(results, judgement=Judgement(worst={}, varied={}, judged=(), undefended={}, added=(), margin=None))
    assert len(matrices(judged)) == 1  # the study asks for transfers
    silent = {key: value for key, value in judged.specification.items() if key != "transfers"}
    assert matrices(replace(judged, specification=silent)) == []
    assert len(replace(judged, specification=silent).met("fcn")) == len(results.of("fcn"))
    assert len(results.met("fcn")) == len(results.of("fcn")) - 5  # two transfers, a sum, its two controls


def test_volumes_have_a_matrix_of_dice(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    results = read_results(write_run(tmp_path / "study", victims=("a", "b"), cases=tuple("cdefgh"), budgets=(0.1,)))
    assert matrices(results) == []
    attack = results.arm("a", "fgsm-0.1-sigma")
    assert attack is not None
    settings = next(iter(attack.records.values())).inputs["condition"]
    made = {"kind": "transfer", "of": settings, "threat": settings["threat"]}
    records = {
        case: r.model_copy(update={"inputs": {**r.inputs, "condition": made}}) for case, r in attack.records.items()
    }
    shown = attack.presented.model_copy(update={"source": "a", "family": "transfer-from-a"})
    borrowed = replace(attack, victim="b", condition="transfer-from-a", presented=shown, records=records)
    both = replace(results, arms=(*results.arms, borrowed))
    matrix = only(both)
    table = matrix_table(matrix, Cells(both, OverData.of(both)))
    assert [column.title for column in table.columns] == ["made for", "a, mean Dice of WT", "b, mean Dice of WT"]
    own = both.arm("b", "fgsm-0.1-sigma")
    assert own is not None
    assert table.rows[1] == ["a", attack.mean("WT"), borrowed.mean("WT")]
    assert table.rows[2] == ["b", None, own.mean("WT")]


def test_permuted_perturbations_stand_beside_the_attack(results: Results, cells: Cells) -> None:
    table = permuted_table(results, cells, "fcn")
    assert table is not None
    rows = [dict(zip([c.title for c in table.columns], row, strict=True)) for row in table.rows]
    assert [(row["attack"], row["moved"]) for row in rows[:3]] == [
        ("DAG, 0.5\N{NO-BREAK SPACE}of 0–255", kind) for kind in ("pixels", "rows", "columns")
    ]
    values = [cells.value(results.arm("fcn", name)) for name in ("clean", "dag-0.5")]
    draws = [cells.value(results.arm("fcn", f"permuted-rows-{n}dag-0.5")) for n in ("", "2-")]
    clean, attacked, one, two = (value or 0.0 for value in (*values, *draws))
    row = rows[1]
    assert (row["ORIG"], row["ADVR"]) == (clean, attacked)
    assert row["PERM"] == pytest.approx((one + two) / 2)
    assert (row["least"], row["most"], row["draws"]) == (min(one, two), max(one, two), 2)
    assert row["share of the drop"] == pytest.approx((clean - (one + two) / 2) / (clean - attacked))
    assert row["L2 kept"] == 1


def test_what_clipping_took_of_a_permuted_change_is_told(results: Results) -> None:
    def clipped(arm: Arm) -> Arm:
        shorter = {
            case: r.model_copy(update={"distortion": r.distortion and r.distortion.model_copy(update={"l2": 12.0})})
            for case, r in arm.records.items()
        }
        return replace(arm, records=shorter) if arm.condition.startswith("permuted-rows-dag") else arm

    fewer = replace(results, arms=tuple(map(clipped, results.arms)))
    table = permuted_table(fewer, Cells(fewer, OverData.of(fewer)), "fcn")
    assert table is not None
    assert [column.title for column in table.columns][-2:] == ["L2 kept", "share of the drop"]
    assert [row[-2] for row in table.rows[:3]] == [1, pytest.approx((12 / 24 + 1) / 2), 1]
    assert "until what would leave the legal range is clipped" in table.caption


def test_one_permutation_of_voxels_of_volumes_needs_no_table(run_folder: Path) -> None:
    results = read_results(run_folder)
    assert permuted_table(results, Cells(results, OverData.of(results)), "unet") is None
