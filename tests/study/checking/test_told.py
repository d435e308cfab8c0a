"""How a check is told: on the terminal, as JSON, as a page; and what it returns."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from study.checking.sets import IDS, PATTERN, change, datalist
from study.small_study import contents
from typer.testing import CliRunner, Result

from medadv import cli
from medadv.data.brats import MODALITIES
from medadv.errors import ConfigError
from medadv.study.checking import check
from medadv.study.checking.page import write_json, write_page


def checked(*arguments: object) -> Result:
    result = CliRunner().invoke(cli.app, ["check", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def torn(own: Path) -> Path:
    """One of three cases is damaged."""
    (own / IDS[1] / f"{IDS[1]}_t2.nii.gz").write_bytes(b"torn")
    return own


def test_sound_data_return_0_and_a_row_a_case(three: Path) -> None:
    result = checked(three)
    assert result.exit_code == 0, result.output
    said = result.stdout
    assert said.index("3 can be used") < said.index("Nothing to look at") < said.index("Cases")
    for case in IDS:
        assert len(re.findall(rf"^{case} ", said, re.MULTILINE)) == 2
    assert "release 2021: file names and label numbers are those of 2018 to 2022" in said
    assert "channels, in this order: t1, t1ce, t2, flair" in said
    assert "0 background, 1 necrosis, 2 oedema, 4 enhancing" in said
    assert "check: 3/3" in result.stderr


def test_what_would_be_left_out_returns_3(torn: Path) -> None:
    before = contents(torn)
    result = checked(torn)
    assert result.exit_code == cli.QUARANTINED
    assert f"- {IDS[1]}: [unreadable]" in result.stdout
    assert "2 can be used, 1 would be left out" in result.stdout
    assert contents(torn) == before


def test_a_mistake_returns_2(own: Path, tmp_path: Path) -> None:
    for arguments in ([tmp_path / "none"], [datalist(own)], [own, "--set", "x"], [own, "--release", "1999"]):
        result = checked(*arguments)
        assert result.exit_code == 2, result.output
        assert "Traceback" not in result.output
        assert result.stdout == ""


def test_declarations_are_taken_from_the_command_line(own: Path) -> None:
    modalities = f"modalities=[{', '.join(MODALITIES)}]"
    assert checked(datalist(own), "--set", modalities, "--set", "labels=brats2018").exit_code == 0
    result = checked(own, "--importer", "brats", "--release", "2019", "--set", "grid=t1")
    assert result.exit_code == 0
    assert "release 2019: declared" in result.stdout


def test_files_hold_what_was_found_and_appear_whole(torn: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = checked(torn, "--json", out / "a.json", "--html", out / "a.html")
    assert result.exit_code == cli.QUARANTINED
    assert sorted(path.name for path in out.iterdir()) == ["a.html", "a.json"]
    content = json.loads((out / "a.json").read_text())
    assert [case["case"] for case in content["cases"]] == [IDS[0], IDS[2]]
    assert content["cases"][0]["intensities"]["t1"]["sigma"] > 0
    assert [(q["case"], q["reason"]) for q in content["quarantined"]] == [(IDS[1], "unreadable")]
    assert content["scheme"]["numbers"] == {"background": 0, "necrosis": 1, "oedema": 2, "enhancing": 4}


class _Page(HTMLParser):
    """What a page would fetch or run, and how many histograms it draws."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.bars = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.bars += tag == "svg"
        self.fetched += [tag] if tag in ("script", "img", "link", "iframe") else []
        self.fetched += [name for name, _ in attrs if name in ("src", "href", "style") or name.startswith("on")]


def test_the_page_needs_nothing_and_runs_nothing(own: Path, tmp_path: Path) -> None:
    folder = own.rename(own.parent / "<script>alert(1)")
    (folder / IDS[0]).rename(folder / "<b onclick=x>")
    for kind in (*MODALITIES, "seg"):
        (folder / "<b onclick=x>" / f"{IDS[0]}_{kind}.nii.gz").rename(
            folder / "<b onclick=x>" / f"<b onclick=x>_{kind}.nii.gz"
        )
    change(folder, IDS[1], "seg", lambda v: v * 9)
    survey = check(folder)
    write_page(survey, tmp_path / "a.html")
    text = (tmp_path / "a.html").read_text()
    page = _Page(text)
    assert page.fetched == []
    assert page.bars == 2 * 4
    assert "default-src 'none'" in text.replace("&#39;", "'")
    assert "&lt;b onclick=x&gt;" in text
    assert "Ids are the data set's own" in text


def test_under_pseudonyms_no_id_is_told(torn: Path, tmp_path: Path) -> None:
    change(torn, IDS[0], "t1", lambda v: v / 30)  # a remark that names its case
    survey = check(torn, pseudonyms=True)
    write_page(survey, tmp_path / "a.html")
    write_json(survey, tmp_path / "a.json")
    said = checked(torn, "--pseudonyms").output
    for text in (said, (tmp_path / "a.html").read_text(), (tmp_path / "a.json").read_text()):
        assert "Phantom" not in text
        assert str(torn.parent) not in text
        assert survey.facts[0].case in text
    assert survey.refused[0].case.startswith("c")
    assert "Ids are pseudonyms" in (tmp_path / "a.html").read_text()


def test_a_studys_phantoms_are_checked_where_nobody_sees_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "study.yaml").write_text(
        "study: s\ndata: {importer: phantom, cases: 1, shape: [24, 24, 24]}\nvictims: {net: {}}\n"
        "attacks: {fgsm: {preset: fgsm}}\nprimary: {region: WT}\n"
    )
    monkeypatch.chdir(tmp_path)
    assert checked("study.yaml").exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]


def test_strata_that_undo_pseudonyms_are_refused(own: Path) -> None:
    declared = {**PATTERN, "stratum": "Phantom_{stratum}"}
    assert [facts.stratum for facts in check(own, declared).facts] == ["00000", "00001", "00002"]
    with pytest.raises(ConfigError, match="would tell who is who"):
        check(own, declared, pseudonyms=True)
