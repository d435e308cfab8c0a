"""One picture in the report: what is drawn of masks, boxes and changes, and that names do not cover each other."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from study.pictured import COLOURS, SCHEME, keep, objects, picture

from medadv.data.case import Case, Volume
from medadv.objects import Objects
from medadv.study.report.montage import montage
from medadv.study.report.pictures.marks import FLOOR, sure, worn
from medadv.study.slices import SLICES, Slices, Views, read_slices, save_slices


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Slices:
    folder = tmp_path_factory.mktemp("masks")
    keep(folder, detector=False, amount=8.0)
    return read_slices(folder / SLICES)


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Slices:
    folder = tmp_path_factory.mktemp("boxes")
    keep(folder, detector=True, amount=0.25)
    return read_slices(folder / SLICES)


def drawn(slices: Slices) -> Figure:
    figure = montage(slices, "all", "title", ("IoU .9", "IoU .1"))
    FigureCanvasAgg(figure).draw()
    return figure


def titled(figure: Figure, beginning: str) -> Axes:
    return next(axes for axes in figure.axes if axes.get_title("left").startswith(beginning))


def test_clean_and_attacked_are_shown_as_they_are(masks: Slices) -> None:
    figure = drawn(masks)
    for name, image in (("clean", masks.clean[0]), ("adversarial", masks.adversarial[0])):
        shown = titled(figure, name).images[0].get_array()
        assert np.allclose(shown, np.clip(np.moveaxis(image, 0, -1) / 255, 0, 1), atol=1e-6)


def test_the_change_is_grey_where_nothing_is_and_its_scale_is_told(masks: Slices) -> None:
    figure = drawn(masks)
    shown = titled(figure, "change, ×").images[0].get_array()
    change = np.moveaxis(masks.adversarial[0] - masks.clean[0], 0, -1)
    limit = np.abs(change).max()
    assert limit == pytest.approx(8, abs=1e-4)
    assert np.allclose(shown, 0.5 + change / (2 * limit), atol=1e-6)
    ticks = [[t.get_text() for t in axes.get_xticklabels()] for axes in figure.axes]
    assert ["−8", "0", "+8"] in ticks


def test_masks_are_outlined_in_every_answer_and_named(masks: Slices) -> None:
    figure = drawn(masks)
    for heading, names in (
        ("expert", {"disc", "square"}), ("network, clean", {"disc", "square"}), ("network, attacked", {"triangle"})
    ):  # fmt: skip
        assert {text.get_text() for text in titled(figure, heading).texts} == names
    legend = {text.get_text() for legend in figure.legends for text in legend.get_texts()}
    assert legend == {"disc", "square", "triangle"}


def test_boxes_lie_where_rows_and_columns_say(boxes: Slices) -> None:
    figure = drawn(boxes)
    expert = objects(1)
    frames = [p for p in titled(figure, "expert").patches if isinstance(p, Rectangle) and not p.get_fill()]
    found = {(f.get_y(), f.get_x(), f.get_y() + f.get_height(), f.get_x() + f.get_width()) for f in frames}
    assert found == {tuple(box) for box in expert.boxes.tolist()}
    axes = titled(figure, "expert")
    assert axes.yaxis_inverted()
    assert len(expert.boxes) == 3


def test_what_a_detector_is_not_sure_of_is_counted_and_not_drawn(boxes: Slices) -> None:
    figure = drawn(boxes)
    found = boxes.predicted_clean
    assert isinstance(found, Objects)
    assert found.scores is not None
    unsure = int((found.scores < FLOOR).sum())
    assert unsure > 0
    axes = titled(figure, "network, clean")
    assert axes.get_title("left").splitlines() == ["network, clean", "IoU .9", f"{unsure} more of score < .50"]
    assert len(sure(found)) == len(found) - unsure
    assert all(" ." in t.get_text() for t in axes.texts)


def test_half_a_grey_level_is_shaded_and_counted(boxes: Slices, masks: Slices) -> None:
    for slices, told in ((boxes, "100 %"), (masks, "0 %")):
        assert titled(drawn(slices), f"{told} of changes below ½ grey level")


@pytest.mark.parametrize("size", [(40, 40), (30, 64), (64, 30)])
def test_names_of_crowded_objects_do_not_cover_each_other(tmp_path: Path, size: tuple[int, int]) -> None:
    x = torch.full((3, *size), 128.0)
    generator = torch.Generator().manual_seed(size[1])
    corner = torch.rand(40, 2, generator=generator) * torch.tensor([size[0] - 8.0, size[1] - 8.0])
    crowd = Objects(torch.cat([corner, corner + 7], 1), torch.arange(40) % 3 + 1, torch.linspace(1, 0.5, 40))
    volume = Volume(Case("a", None, {c: Path("a") for c in COLOURS}, None, SCHEME), x, None, np.eye(4))
    save_slices(tmp_path, Views(x, x, crowd, crowd, crowd), volume, SCHEME)
    figure = drawn(read_slices(tmp_path / SLICES))
    for heading in ("expert", "network, clean", "network, attacked"):
        axes = titled(figure, heading)
        places = [text.get_window_extent() for text in axes.texts]
        assert 5 < len(places) < 40
        assert not any(one.overlaps(other) for one, other in combinations(places, 2))
        inside = axes.get_window_extent()
        assert all(inside.x0 - 1 <= p.x0 and p.x1 <= inside.x1 + 1 for p in places)


def test_nothing_that_is_written_beside_the_pictures_overlaps(masks: Slices, boxes: Slices) -> None:
    for slices in (masks, boxes):
        figure = drawn(slices)
        left = [axes._left_title.get_window_extent() for axes in figure.axes if axes.get_title("left")]  # type: ignore[attr-defined]
        assert len(left) == 7
        legends = [legend.get_window_extent() for legend in figure.legends]
        pictures = [axes.get_window_extent() for axes in figure.axes if axes.images]
        every = [*left, *legends, *pictures]
        assert not any(a.padded(-1).overlaps(b.padded(-1)) for a, b in combinations(every, 2))


def test_classes_that_share_a_colour_have_other_strokes() -> None:
    looks = worn({"background": 0, **{f"class {n}": n for n in range(1, 22)}})
    assert 0 not in looks
    assert len({(look.colour, str(look.stroke)) for look in looks.values()}) == 21


def test_a_plain_picture_without_a_change_is_drawn(tmp_path: Path) -> None:
    """No class, no change, no object: limits of zero width would raise."""
    x = torch.from_numpy(picture(0)[0])
    volume = Volume(Case("a", None, {c: Path("a") for c in COLOURS}, None, SCHEME), x, None, np.eye(4))
    nothing = torch.zeros(x.shape[1:], dtype=torch.int64)
    for shown in (nothing, Objects.none(2)):
        save_slices(tmp_path, Views(x, x, shown, shown, shown), volume, SCHEME)
        assert not drawn(read_slices(tmp_path / SLICES)).legends


def test_boxes_of_a_volume_are_outlined_where_a_plane_cuts_them(tmp_path: Path) -> None:
    x = torch.rand(1, 16, 16, 16) + 1
    truth = Objects(torch.tensor([[2.0, 3, 4, 9, 10, 11]]), torch.tensor([1]))
    unsure = Objects(truth.boxes, truth.labels, torch.tensor([0.2]))
    volume = Volume(Case("a", None, {"t1": Path("a")}, None, SCHEME), x, None, np.diag([-1.0, -1, 1, 1]))
    save_slices(tmp_path, Views(x, x, truth, truth, unsure), volume, SCHEME)
    figure = drawn(read_slices(tmp_path / SLICES))
    outlines = [len(axes.collections) for axes in figure.axes if axes.images][:9]
    assert outlines == [2, 1, 0] * 3
