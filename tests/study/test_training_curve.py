"""The figure of all trainings: what is drawn is what was learnt, and the ring is where the weights are from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from medadv.atomic import write_text
from medadv.study.report.training_curve import chosen, training_curves, training_picture
from medadv.study.results import TrainingStep, read_curve, read_results

OLD = "step,loss,rate,dice\n0,2.0,0.1,\n1,1.0,0.1,0.5\n2,0.5,0.1,\n3,0.25,0.1,0.5\n"
NEW = "step,loss,rate,dice,attacked\n0,2.0,0.1,,\n1,1.0,0.1,0.6,0.1\n2,nan,0.1,,\n3,0.25,0.1,0.5,0.3\n"


@pytest.fixture
def curve(tmp_path: Path) -> Callable[[str], tuple[TrainingStep, ...]]:
    """A ``training.csv`` read back."""

    def read(text: str) -> tuple[TrainingStep, ...]:
        write_text(tmp_path / "training.csv", text)
        return read_curve(tmp_path / "training.csv")

    return read


def test_the_ring_is_where_fit_took_the_weights(curve: Callable[[str], tuple[TrainingStep, ...]]) -> None:
    old, new = chosen(curve(OLD)), chosen(curve(NEW))
    assert old is not None
    assert new is not None
    assert old.step == 1  # the first of equals
    assert (new.step, new.attacked) == (3, 0.3)  # the best under attack, though not the best clean
    assert chosen(()) is None


def test_each_victim_has_its_two_panels(curve: Callable[[str], tuple[TrainingStep, ...]]) -> None:
    figure = training_curves({"unet": [curve(OLD), curve(OLD)], "hardened": [curve(NEW)]})
    loss, plain, hardened = figure.axes[0], figure.axes[2], figure.axes[3]
    assert [axes.get_title(loc="left") for axes in figure.axes[:2]] == ["unet", "hardened"]
    assert loss.get_yscale() == "log"
    assert (loss.get_ylabel(), plain.get_ylabel(), plain.get_xlabel()) == (
        "training loss",
        "validation Dice",
        "optimiser step",
    )
    assert len(plain.lines) == 4  # a line and a ring for each of two folds
    clean, attacked, ring = hardened.lines
    assert [list(axis) for axis in clean.get_data()] == [[1, 3], [0.6, 0.5]]
    assert [list(axis) for axis in attacked.get_data()] == [[1, 3], [0.1, 0.3]]
    assert attacked.is_dashed()
    assert not clean.is_dashed()
    assert [list(axis) for axis in ring.get_data()] == [[3], [0.3]]
    assert [list(line.get_xdata()) for line in figure.axes[1].lines] == [[0, 1, 3], [0, 1, 3]]  # what is not finite
    (legend,) = figure.legends
    assert "Dice under attack" in [text.get_text() for text in legend.get_texts()]
    alone = training_curves({"unet": [curve(OLD)]}).legends[0]
    assert "Dice under attack" not in [text.get_text() for text in alone.get_texts()]


@pytest.mark.parametrize("text", ["step,loss\n", "step,loss\n0,-1.0\n", "step,loss\n0,nan\n"])
def test_little_can_be_drawn_of_little(curve: Callable[[str], tuple[TrainingStep, ...]], text: str) -> None:
    training_curves({"unet": [curve(text)]}).draw_without_rendering()


def test_one_picture_shows_all_that_was_trained(run_folder: Path, tmp_path: Path) -> None:
    results = read_results(run_folder)
    one = results.training["unet"]
    picture = training_picture(replace(results, training={"teacher": one, "unet": one}), tmp_path)
    assert picture is not None
    assert picture.alt.startswith("Training of unet, teacher: ")
    assert (tmp_path / "training.png").is_file()
    assert training_picture(replace(results, training={}), tmp_path) is None
