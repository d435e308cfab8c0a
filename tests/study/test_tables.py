"""The CSV files: columns, spelling of numbers, one order, and no formulas."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medadv.study.records import Presented, Record, Score
from medadv.study.spreadsheet import listed, read_rows, told, write_rows
from medadv.study.stats import Comparison, PrimaryFamily
from medadv.study.tables import comparisons_table, scores_table, write_tables

HOSTILE = ["=1+1", "+a", "-b", "@SUM(A1)", "\t=1", "\r=1", "\n@a", "a\r=1", "b\n=1", '",=1', "a,=1"]
ROW = Comparison(
    victim="unet",
    region="WT",
    metric="dice",
    condition="fgsm",
    against="clean",
    family="primary",
    unit="cases",
    n=12,
    zeros=0,
    ties=2,
    method="exact",
    zero_method="pratt",
    sided="two-sided",
    w_plus=0.0,
    w_minus=78.0,
    p=0.00048828125,
    p_adjusted=0.001,
    estimate=-0.1 - 0.2,
    low=-1e-05,
    high=None,
    confidence=0.95751953125,
    rank_biserial=-1.0,
    mean_condition=0.5,
    mean_against=0.8,
    missing=("a", "=b"),
    verdict="",
)


def record(case: str, value: float = 1 / 3, condition: str = "fgsm") -> Record:
    return Record(
        key="k",
        victim="unet",
        condition=condition,
        case=case,
        patient=None,
        stratum="HGG",
        fold=2,
        presented=Presented(role="attack", family="fgsm", title="FGSM", budget="0.1 sigma", amount=0.1, unit="sigma"),
        inputs={},
        radii=None,
        size=None,
        delivered={},
        effort=None,
        fidelity=[],
        scores=[
            Score(
                region=region,
                metric="dice",
                policy="strict",
                value=value,
                computed=-0.5,
                truth=9,
                predicted=8,
                hit=7,
            )
            for region in ("WT", "ET")
        ],
    )


def test_scores_have_one_spelling() -> None:
    assert scores_table([record("b"), record("a", 1.0)]) == (
        "victim,condition,role,family,budget,amount,unit,of,source,case,patient,stratum,fold,region,metric,policy,value,computed,truth,predicted,hit,attack,eight_bit\n"
        "unet,fgsm,attack,fgsm,0.1 sigma,0.1,sigma,,,a,,HGG,2,WT,dice,strict,1.0,-0.5,9,8,7,,\n"
        "unet,fgsm,attack,fgsm,0.1 sigma,0.1,sigma,,,a,,HGG,2,ET,dice,strict,1.0,-0.5,9,8,7,,\n"
        "unet,fgsm,attack,fgsm,0.1 sigma,0.1,sigma,,,b,,HGG,2,WT,dice,strict,0.3333333333333333,-0.5,9,8,7,,\n"
        "unet,fgsm,attack,fgsm,0.1 sigma,0.1,sigma,,,b,,HGG,2,ET,dice,strict,0.3333333333333333,-0.5,9,8,7,,\n"
    )


def test_comparisons_have_one_spelling() -> None:
    assert comparisons_table([ROW]) == (
        "victim,region,metric,condition,against,rival,margin,family,unit,n,zeros,ties,method,zero_method,sided,w_plus,w_minus,p,"
        "p_adjusted,estimate,low,high,confidence,rank_biserial,mean_condition,mean_against,missing,verdict\n"
        "unet,WT,dice,fgsm,clean,,,primary,cases,12,0,2,exact,pratt,two-sided,0.0,78.0,0.00048828125,"
        "0.001,-0.30000000000000004,-1e-05,,0.95751953125,-1.0,0.5,0.8,a;'=b,\n"
    )


def test_the_order_of_records_does_not_change_a_byte() -> None:
    records = [record(case, condition=condition) for case in "abc" for condition in ("x", "y")]
    assert scores_table(records) == scores_table(records[::-1])


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_is_a_formula_or_breaks_its_row(text: str) -> None:
    hostile = ROW.model_copy(update={"victim": text, "missing": (text, text)})
    for table in (scores_table([record(text)]), comparisons_table([hostile])):
        cells = list(csv.reader(io.StringIO(table, newline="")))
        assert len({len(row) for row in cells}) == 1
        # Numbers may begin with a minus; what is no number may not begin as a formula does.
        assert [c for row in cells for c in row if c.lstrip()[:1] in {*"=+-@"} and not is_number(c)] == []
        assert any(text.strip()[-2:] in c for row in cells[1:] for c in row), "the text is still there"


def is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp")), min_size=1), min_size=1))
def test_text_comes_back_as_it_was(words: list[str]) -> None:
    names = [f"c{i}" for i in range(len(words))]
    (row,) = read_rows(write_rows(names, [words]))
    assert [told(row[name]) for name in names] == words
    parts = tuple(word for word in words if ";" not in word)
    (row,) = read_rows(write_rows(["a", "b"], [(parts, 1)]))
    assert listed(row["a"]) == parts


def test_headings_are_no_formulas_either() -> None:
    assert write_rows(["=1+1", "b"], []) == "'=1+1,b\n"


def test_numbers_are_no_formulas_and_come_back_exactly() -> None:
    (row,) = csv.DictReader(io.StringIO(comparisons_table([ROW])))
    assert float(row["estimate"]) == ROW.estimate
    assert float(row["low"]) == ROW.low


def test_a_metric_that_nobody_has_a_score_in_keeps_its_place_in_the_declared_family(tmp_path: Path) -> None:
    """Planted fault: of a detector all of whose cells failed, nothing is declared, and the segmenter's p is its own."""
    records = [
        record(str(k), 0.5 + 0.1 * (condition == "clean") + k / 100, condition).model_copy(
            update={"inputs": {"regions": ["WT"]}}
        )
        for condition in ("clean", "fgsm")
        for k in range(6)
    ]
    primary = PrimaryFamily(
        region="WT", victims=("unet", "frcnn"), conditions=("fgsm",), metrics={"frcnn": "recall"}
    )
    write_tables(tmp_path, records, primary)
    rows = read_rows((tmp_path / "comparisons.csv").read_text())
    family = {row["victim"]: row for row in rows if row["family"] == "primary"}
    assert (family["frcnn"]["metric"], family["frcnn"]["n"], family["frcnn"]["p"]) == ("recall", "0", "1.0")
    assert float(family["unet"]["p_adjusted"]) == 2 * float(family["unet"]["p"])
