"""Segmentations that came back: the same statistics as if medadv had run the model itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from study.outside import by_cell, comparisons, predict, scored, voxels
from study.small_study import contents, every_record, go, small, tables

from medadv.errors import ConfigError, RunError
from medadv.labels import BRATS_2018, MSD_TASK01
from medadv.study.export import read_key
from medadv.study.records import planned_cells, present_records, write_manifest, write_record
from medadv.study.results import read_results
from medadv.study.returned import scheme_of
from medadv.study.run import finish

# The same statistics


def test_the_same_network_outside_gets_the_same_scores_and_tests(there: Path, three: Path, no_report: None) -> None:
    before = tables(there / "small")
    ours = comparisons(there / "small", "glow")
    came = scored(there, three)
    records = present_records(came.folder)
    inside, outside = by_cell(records, "glow"), by_cell(records, "hospital")
    assert came.scored == len(outside) == len(inside) == 36
    assert came.missing == ()
    for cell, record in outside.items():
        assert [s.model_copy(update={"computed": s.value}) for s in inside[cell].scores] == record.scores
        assert (record.radii, record.size) == (inside[cell].radii, inside[cell].size)
        assert record.fidelity == inside[cell].fidelity
    assert comparisons(came.folder, "glow") == ours
    theirs = comparisons(came.folder, "hospital")
    declared = {"victim", "family", "p_adjusted"}
    assert [{k: v for k, v in row.items() if k not in declared} for row in theirs] == [
        {k: v for k, v in row.items() if k not in declared} for row in ours
    ]
    assert {row["family"] for row in theirs} == {"exploratory"}
    assert {row["p_adjusted"] for row in theirs} == {""}
    assert before["scores.csv"].decode() in (came.folder / "scores.csv").read_text()
    clean = {s.region: [] for record in records for s in record.scores}  # type: ignore[var-annotated]
    for (condition, _), record in inside.items():
        if condition == "clean":
            for row in record.scores:
                if row.metric == "dice":
                    clean[row.region].append(row.value)
    assert came.clean == {region: pytest.approx(np.mean(values)) for region, values in clean.items()}


def test_records_say_that_the_attack_never_saw_this_victim(there: Path, three: Path) -> None:
    folder = scored(there, three).folder
    records = present_records(folder)
    inside = by_cell(records, "glow")
    for cell, record in by_cell(records, "hospital").items():
        source = inside[cell]
        assert record.inputs["source"] == {"victim": "glow", "condition": source.condition, "key": source.key}
        assert record.effort is None
        assert not {"weights", "network", "deployed"} & set(record.inputs)
        transferred = source.presented.role == "attack" or source.presented.of is not None
        assert record.presented.title.endswith("transferred from glow") == transferred
        assert record.presented.source == ("glow" if transferred else None)
        told = {"title": source.presented.title, "source": None}
        assert record.presented.model_copy(update=told) == source.presented
    page = (folder / "report" / "index.html").read_text()
    assert "The attacker never saw this victim: the changes were computed on glow" in page
    assert page.count("The attacker knows the network and its whole pipeline") == 1
    assert "FGSM (transferred from glow)" in page
    assert read_results(folder).victims == ("glow", "hospital")


def test_a_model_outside_takes_over_what_is_the_cases_and_nothing_of_the_surrogate(
    there: Path, three: Path, no_report: None
) -> None:
    own = {"agreement": 0.9, "savings": ("one window at a time",), "fold": 1}
    for record in present_records(there / "small"):
        write_record(there / "small", record.model_copy(update={**own, "stratum": "HGG"}))
    outside = by_cell(present_records(scored(there, three).folder), "hospital").values()
    assert len(outside) == 36
    assert {(r.stratum, r.agreement, r.savings, r.fold) for r in outside} == {("HGG", None, (), None)}


def test_scoring_twice_changes_nothing(there: Path, three: Path, no_report: None) -> None:
    folder = scored(there, three).folder
    before = contents(folder)
    scored(there, three)
    assert contents(folder) == before


def test_the_same_content_in_another_file_is_the_same(there: Path, three: Path, no_report: None) -> None:
    """Uncompressed, in another data type, stored with a slope."""
    folder = scored(there, three).folder
    before = contents(folder)
    for path in (there / "back").iterdir():
        array, image = voxels(path)
        other = nib.Nifti1Image(array.astype(np.int16), image.affine)
        other.header.set_slope_inter(1, 0)
        path.unlink()
        nib.save(other, there / "back" / path.name.removesuffix(".gz"))
    scored(there, three)
    assert contents(folder) == before


def test_other_segmentations_want_another_name(answered: Path, there: Path, three: Path, no_report: None) -> None:
    folder = scored(there, three).folder
    before = contents(folder)
    shutil.rmtree(there / "back")
    predict(answered / "out", there / "back", shift=2.0)
    with pytest.raises(RunError, match="under another name"):
        scored(there, three)
    assert contents(folder) == before
    scored(there, three, "clinic")
    records = present_records(folder)
    assert {record.victim for record in records} == {"glow", "hospital", "clinic"}
    assert by_cell(records, "clinic")[cell_of(folder, "m0001")].scores != []


def cell_of(folder: Path, name: str) -> tuple[str, str]:
    item = read_key(folder / "exports" / "out.json").ids[name]
    return item.condition, item.case


# Numbers of labels


def test_label_numbers_are_told_by_a_scheme(there: Path, three: Path, tmp_path: Path, no_report: None) -> None:
    """The model answers in the Decathlon's numbers: oedema 1, necrosis 2, enhancing 3."""
    for path in (there / "back").iterdir():
        array, image = voxels(path)
        nib.save(nib.Nifti1Image(np.array([0, 2, 1, 9, 3], np.uint8)[array], image.affine), path)
    with pytest.raises(ConfigError, match="nothing was") as caught:
        scored(there, three)
    assert "--scheme" in str(caught.value)
    declared = tmp_path / "dataset.json"
    labels = {"background": 0, "edema": 1, "non-enhancing tumor": 2, "enhancing tumor": 3}
    declared.write_text(json.dumps({"labels": labels, "channel_names": {"0": "T1"}}))
    folder = scored(there, three, scheme=scheme_of("msd-task01")).folder
    before = contents(folder)
    scored(there, three, scheme=scheme_of(str(declared)))
    assert contents(folder) == before
    ours, theirs = (
        {cell: [s.value for s in record.scores] for cell, record in by_cell(present_records(folder), name).items()}
        for name in ("glow", "hospital")
    )
    assert theirs == ours


def test_a_scheme_is_a_name_or_a_declaration(tmp_path: Path) -> None:
    assert scheme_of("msd-task01") is MSD_TASK01
    regions = {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": 3}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": regions, "regions_class_order": [1, 2, 3]}))
    assert scheme_of(str(tmp_path / "dataset.json")).numbers == MSD_TASK01.numbers
    for text in ("brats1999", str(tmp_path)):
        with pytest.raises(ConfigError, match="no label scheme"):
            scheme_of(text)
    (tmp_path / "plans.json").write_text(json.dumps({"labels": ["background"]}))
    with pytest.raises(ConfigError, match="no label scheme"):
        scheme_of(str(tmp_path / "plans.json"))


def test_a_scheme_of_other_tissues_is_refused_at_once(there: Path, three: Path) -> None:
    with pytest.raises(ConfigError, match="does not have the tissues"):
        scored(there, three, scheme=scheme_of("brats2024"))


# What did not come back, and what is not asked for any more


def test_what_did_not_come_back_is_missing_and_is_told(there: Path, three: Path, no_report: None) -> None:
    key = read_key(there / "small" / "exports" / "out.json")
    absent = next(name for name, item in key.ids.items() if item.condition == "fgsm-0.1-sigma")
    kept = (there / "back" / f"{absent}.nii.gz").read_bytes()
    (there / "back" / f"{absent}.nii.gz").unlink()
    came = scored(there, three)
    assert (came.scored, came.missing) == (35, (absent,))
    rows = comparisons(came.folder, "hospital")
    concerned = [row for row in rows if "fgsm-0.1-sigma" in (row["condition"], row["against"])]
    told = {row["missing"] for row in concerned if row["condition"] == "fgsm-0.1-sigma"}
    assert told == {key.ids[absent].case}
    assert {row["n"] for row in concerned if row["condition"] == "fgsm-0.1-sigma"} == {"2"}
    assert {row["missing"] for row in rows if row["condition"] == "noise-0.1-sigma"} == {""}
    before = by_cell(present_records(came.folder), "hospital")
    (there / "back" / f"{absent}.nii.gz").write_bytes(kept)
    assert scored(there, three).missing == ()
    after = by_cell(present_records(came.folder), "hospital")
    assert before.items() <= after.items()
    assert len(after) == 36


def test_answers_count_as_long_as_the_cells_they_answer(there: Path, three: Path, no_report: None) -> None:
    """A condition that is dropped, an attack that changes; and both come back."""
    folder = scored(there, three).folder
    before, planned = tables(folder), planned_cells(folder)
    for changed in (
        {cell: key for cell, key in planned.items() if cell[1] != "fgsm-0.1-sigma"},
        {cell: "another" if cell[1] == "fgsm-0.1-sigma" else key for cell, key in planned.items()},
    ):
        write_manifest(folder, changed)
        left = {condition for condition, _ in by_cell(present_records(folder), "hospital")}
        assert left == {condition for _, condition, _ in planned} - {"fgsm-0.1-sigma"}
        with pytest.raises(RunError, match="3 exported cells do not count any more"):
            scored(there, three, "clinic")
    write_manifest(folder, planned)
    finish(folder)
    assert tables(folder) == before


def test_a_victim_that_was_declared_beforehand_is_in_the_family(
    there: Path, three: Path, tmp_path: Path, no_report: None
) -> None:
    """The family has its size from the beginning: what is still to come has no pair and p = 1."""
    study = small(three, primary={"region": "WT", "returned": ["hospital"]}, volumes={"keep": "all"})
    go(study, there)
    folder = there / "small"
    rows = [row for row in comparisons(folder, "hospital") if row["metric"] == "dice"]
    attacks = ["fgsm-0.1-sigma", "fgsm-0.3-sigma", "ifgsm-0.1-sigma", "ifgsm-0.3-sigma"]
    assert [(row["condition"], row["family"], row["n"], row["p"]) for row in rows] == [
        (name, "primary", "0", "1.0") for name in attacks
    ]
    scored(there, three, study=study)
    rows = [row for row in comparisons(folder, "hospital") if row["family"] == "primary"]
    assert [(row["condition"], row["n"]) for row in rows] == [(name, "3") for name in attacks]
    assert all(row["p_adjusted"] for row in rows)
    scored(there, three, "clinic", study=study)
    assert {row["family"] for row in comparisons(folder, "clinic")} == {"exploratory"}


def test_a_killed_scoring_goes_on(there: Path, three: Path, no_report: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("medadv.study.returned.finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            scored(there, three)
    (there / "small" / "returned" / "hospital.json").write_text("[]")  # as it stands before the last record
    assert scored(there, three).scored == 36
    assert len(by_cell(every_record(there / "small"), "hospital")) == 36


def test_exported_numbers_are_the_datas_own(there: Path) -> None:
    assert read_key(there / "small" / "exports" / "out.json").labels == dict(BRATS_2018.numbers)
