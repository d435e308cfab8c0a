"""What an attack found for one victim, shown to another: the same voxels, keyed by whom they were found for."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import pytest
import torch
from study.defended_study import Loud, by_place, defended, go_defended, networks
from study.small_study import contents, every_record, quarantine, records, tables

from medadv.data.brats import brats
from medadv.data.files import MARK, read
from medadv.errors import GradientError
from medadv.study.conditions import Attacked, Scene, Shown
from medadv.study.records import planned_cells

SLUG = "0.3-sigma"
TEACHER = "loud-teacher"
ADDED = {f"ifgsm-{SLUG}", f"ifgsm-T100-{SLUG}", f"ifgsm-margin-{SLUG}", f"noise-{SLUG}"}
MET = {
    "glow": {"clean", *ADDED},
    "loud": {"clean", *ADDED, f"transfer-from-glow-{SLUG}", f"transfer-from-{TEACHER}-{SLUG}"},
    TEACHER: {"clean", f"ifgsm-T100-{SLUG}"},
}


def arrays(folder: Path, victim: str, condition: str, case: str) -> list[torch.Tensor]:
    """The delivered voxels, modality by modality."""
    place = folder / "volumes" / victim / condition / case
    return [torch.tensor(nib.load(path).get_fdata()) for path in sorted(place.glob("*.nii.gz"))]


def test_every_judged_victim_meets_the_suite_and_a_teacher_only_what_is_transferred(judged: Path) -> None:
    found = by_place(every_record(judged))
    for victim, conditions in MET.items():
        assert {condition for name, condition, _ in found if name == victim} == conditions
    assert set(found) == set(planned_cells(judged))


def test_a_transferred_case_is_the_file_that_the_other_victim_was_shown(judged: Path) -> None:
    """Planted fault: voxels of the victim that is asked, or of the other source, are other voxels."""
    found = by_place(every_record(judged))
    for target, source, attack in (("loud", "glow", "ifgsm"), ("loud", TEACHER, "ifgsm-T100")):
        for case in {case for _, _, case in found}:
            shown = arrays(judged, target, f"transfer-from-{source}-{SLUG}", case)
            assert len(shown) == 4
            for mine, theirs in zip(shown, arrays(judged, source, f"{attack}-{SLUG}", case), strict=True):
                assert torch.equal(mine, theirs)
            own = arrays(judged, target, f"ifgsm-{SLUG}", case)
            assert not all(torch.equal(mine, other) for mine, other in zip(shown, own, strict=True))


def test_it_is_scored_by_the_victim_that_it_is_shown_to(judged: Path) -> None:
    found = by_place(every_record(judged))
    name = f"transfer-from-{TEACHER}-{SLUG}"
    pairs = [(found["loud", name, c], found[TEACHER, f"ifgsm-T100-{SLUG}", c]) for _, _, c in set(found)]
    assert any(mine.scores != theirs.scores for mine, theirs in pairs)
    for mine, theirs in pairs:
        assert (mine.presented.role, mine.presented.source) == ("attack", TEACHER)
        assert mine.presented.title == f"i-FGSM, 2 steps, logits / 100, transferred from {TEACHER}"
        assert mine.effort is None  # nothing was computed for it
        assert (mine.size, mine.radii) == (theirs.size, theirs.radii)


def test_large_logits_weaken_the_naive_attack_and_not_what_was_added(judged: Path) -> None:
    found = by_place(every_record(judged))
    for case in {case for _, _, case in found}:
        naive, margin = (found["loud", f"{name}-{SLUG}", case].scores[0].value for name in ("ifgsm", "ifgsm-margin"))
        assert margin < naive


def test_records_tell_where_the_loss_is_silent_though_no_gradient_of_the_input_is_zero(judged: Path) -> None:
    """The z-score of the pipeline gives every voxel a little of every target's gradient."""
    found = by_place(every_record(judged))
    for (victim, condition, _), record in found.items():
        if record.effort is None or record.effort.silent_share is None:
            assert condition in ("clean", f"noise-{SLUG}") or condition.startswith("transfer-from")
            continue
        large = (victim, condition) == ("loud", f"ifgsm-{SLUG}")  # the teacher is attacked at its own temperature
        assert (record.effort.silent_share > 0.5) == large
        assert record.effort.zero_gradient_share < 0.1


def test_the_key_of_what_is_transferred_holds_whom_it_was_found_for(judged: Path) -> None:
    found = by_place(every_record(judged))
    (case, *_) = sorted({case for _, _, case in found})
    transferred = found["loud", f"transfer-from-glow-{SLUG}", case].inputs
    source = found["glow", f"ifgsm-{SLUG}", case].inputs
    assert transferred["attacked"] == [{name: source[name] for name in ("weights", "network", "deployed")}]
    assert transferred["weights"] != source["weights"]
    assert transferred["condition"]["of"] == source["condition"]
    other = found["loud", f"transfer-from-{TEACHER}-{SLUG}", case]
    assert other.key != found["loud", f"transfer-from-glow-{SLUG}", case].key


@pytest.mark.usefixtures("no_report")
def test_another_source_is_another_cell_and_its_own_victim_is_not_attacked_anew(one: Path, tmp_path: Path) -> None:
    study = defended(one)
    folder = go_defended(study, tmp_path).folder
    before = records(folder)
    go_defended(study, tmp_path, victims=networks() | {TEACHER: Loud(100.0, 0.4)})
    new = {path.rsplit("/", 1)[0] for path in set(records(folder)) - set(before)}
    assert new == {f"{TEACHER}/clean", f"{TEACHER}/ifgsm-T100-{SLUG}", f"loud/transfer-from-{TEACHER}-{SLUG}"}


@pytest.mark.usefixtures("no_report")
def test_a_transfer_that_is_missing_is_made_again_though_no_file_was_kept(one: Path, tmp_path: Path) -> None:
    study = defended(one, volumes={"keep": "none"})
    folder = go_defended(study, tmp_path).folder
    assert not [path for path in contents(folder / "volumes") if MARK in path]
    whole, made = records(folder), tables(folder)
    for path in (folder / "records" / "loud" / f"transfer-from-glow-{SLUG}").iterdir():
        path.unlink()
    go_defended(study, tmp_path)
    assert records(folder) == whole
    assert tables(folder) == made
    assert not [path for path in contents(folder / "volumes") if MARK in path]


@pytest.mark.usefixtures("no_report")
def test_parts_of_a_study_have_all_that_their_transfers_need(three: Path, tmp_path: Path, judged: Path) -> None:
    study = defended(three)
    for part in ("1/2", "2/2"):
        go_defended(study, tmp_path, part)
    assert records(tmp_path / "defended") == records(judged)


@pytest.mark.usefixtures("no_report")
def test_a_case_that_fails_for_one_victim_is_set_aside_for_all(
    three: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, name = Attacked.show, "Phantom_00001"
    of_name = read(brats(three / name)).x

    def broken(condition: Attacked, scene: Scene) -> Shown:
        if torch.equal(scene.x[0], of_name) and isinstance(scene.victim.network, Loud):
            raise GradientError("the victim's gradient is not finite")
        return shown(condition, scene)

    monkeypatch.setattr(Attacked, "show", broken)
    folder = go_defended(defended(three, volumes={"keep": "all"}), tmp_path).folder
    assert set(quarantine(folder)) == {name}
    assert not [path for path in contents(folder / "volumes") if name in path]
    assert name not in (folder / "scores.csv").read_text()


@pytest.mark.usefixtures("no_report")
def test_a_victim_that_reads_fewer_modalities_is_shown_the_same_images(one: Path, tmp_path: Path) -> None:
    class Two(torch.nn.Module):
        """Glow on t1ce and flair alone."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = Loud(100.0, 0.1)

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            first, last = z[:, :1], z[:, 1:]
            return self.inner(torch.cat([0 * first, first, 0 * first, last], 1))

    narrow = {"like": "glow", "modalities": ["t1ce", "flair"], "defence": {"name": "trades", "budgets": ["0.1 sigma"]}}
    study = defended(
        one,
        victims={"glow": {"inference": {"name": "whole"}}, "narrow": narrow},
        volumes={"keep": "all"},
        adaptive={"temperatures": [5]},
    )
    folder = go_defended(study, tmp_path, victims={"glow": networks()["glow"], "narrow": Two()}).folder
    for case in {record.case for record in every_record(folder)}:
        shown = arrays(folder, "narrow", f"transfer-from-glow-{SLUG}", case)
        source = arrays(folder, "glow", f"ifgsm-{SLUG}", case)
        assert len(shown) == 4
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(shown, source, strict=True))
        unread = arrays(folder, "narrow", f"ifgsm-T5-{SLUG}", case)
        assert len(unread) == 4


def test_the_declaration_says_who_is_judged_by_what(judged: Path) -> None:
    (line,) = (judged / "declarations.jsonl").read_text().splitlines()
    told = json.loads(line)["judgement"]
    assert told["judged"] == ["glow", "loud"]
    assert told["undefended"] == {"loud": "glow"}
    assert set(told["worst"]["loud"][f"worst-{SLUG}"]) == MET["loud"] - {"clean"}
    assert set(told["worst"]["glow"][f"worst-{SLUG}"]) == MET["glow"] - {"clean"}
