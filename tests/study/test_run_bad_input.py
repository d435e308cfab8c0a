"""One bad case among twenty: the other nineteen give the numbers of a run without it, and the reason has a code."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from study.small_study import Glow, first_page, go, quarantine, records, small, tables

from medadv.data.phantom import phantom
from medadv.errors import CaseError, ConfigError, Reason, RunError
from medadv.study.cells import Cell
from medadv.study.run import finish, run
from medadv.study.spec import Study

BAD = "Phantom_00003"

Damage = Callable[[Path], None]


def file(case: Path, kind: str) -> Path:
    return case / f"{case.name}_{kind}.nii.gz"


def voxels(kind: str, change: Callable[[np.ndarray], np.ndarray]) -> Damage:
    """Other voxels in the same place."""

    def damage(case: Path) -> None:
        image = nib.load(file(case, kind))
        nib.save(nib.Nifti1Image(change(np.asarray(image.dataobj)), image.affine), file(case, kind))

    return damage


def spoilt(stored: np.ndarray) -> np.ndarray:
    changed = stored.astype(np.float32)
    changed[12, 12, 12] = np.nan
    return changed


def truncated(case: Path) -> None:
    path = file(case, "t1ce")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def moved(case: Path) -> None:
    image = nib.load(file(case, "t2"))
    affine = image.affine.copy()
    affine[0, 3] += 5
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), file(case, "t2"))


def doubled(case: Path) -> None:
    file(case, "t1").with_suffix("").write_bytes(file(case, "t1").read_bytes())


DAMAGES: dict[Reason, Damage] = {
    Reason.NOT_FINITE: voxels("flair", spoilt),
    Reason.UNREADABLE: truncated,
    Reason.MISSING_MODALITY: lambda case: file(case, "t2").unlink(),
    Reason.LABEL_OUTSIDE_SCHEME: voxels("seg", lambda labels: np.where(labels == 2, 7, labels).astype(np.uint8)),
}
MORE: dict[Reason, Damage] = {
    Reason.MISSING_LABEL: lambda case: file(case, "seg").unlink(),
    Reason.CONSTANT_MODALITY: voxels("t1", lambda stored: stored * 0),
    Reason.AFFINE_MISMATCH: moved,
    Reason.SHAPE_MISMATCH: voxels("t1ce", lambda stored: stored[1:]),
    Reason.EXTRA_MODALITY: doubled,
    Reason.DATA_TYPE: voxels("t2", lambda stored: stored.astype(np.complex64)),
}
Cohort = Callable[..., Path]


@pytest.fixture(scope="module")
def twenty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("twenty")
    phantom(root, 20, (24, 24, 24), seed=11)
    return root


def short(root: Path, **changes: object) -> Study:
    return small(
        root,
        **{
            "budgets": ["0.2 sigma"],
            "attacks": {"fgsm": {"preset": "fgsm"}},
            "controls": ["identity"],
            "regions": ["WT"],
            "volumes": {"keep": "none"},
            **changes,
        },
    )


@pytest.fixture(scope="module")
def without_it(twenty: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """The run of the others."""

    @cache
    def others(count: int = 20) -> Path:
        root = tmp_path_factory.mktemp("others")
        for case in sorted(twenty.iterdir())[:count]:
            if case.name != BAD:
                (root / case.name).symlink_to(case)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("medadv.study.run.build", first_page)
            return go(short(root), tmp_path_factory.mktemp("runs")).folder

    return others


@pytest.fixture
def with_a_bad_one(twenty: Path, tmp_path: Path) -> Cohort:
    """So many of the twenty, one of them damaged."""

    def damaged(damage: Damage, count: int = 20) -> Path:
        root = tmp_path / "data"
        root.mkdir()
        for case in sorted(twenty.iterdir())[:count]:
            if case.name != BAD:
                (root / case.name).symlink_to(case)
        shutil.copytree(twenty / BAD, root / BAD)
        damage(root / BAD)
        return root

    return damaged


@pytest.mark.parametrize("reason", DAMAGES)
def test_one_bad_case_costs_one_case(
    with_a_bad_one: Cohort, without_it: Callable[..., Path], tmp_path: Path, no_report: None, reason: Reason
) -> None:
    outcome = go(short(with_a_bad_one(DAMAGES[reason])), tmp_path)
    assert (outcome.scored, outcome.quarantined) == (19, 1)
    assert quarantine(outcome.folder) == {BAD: reason}
    assert tables(outcome.folder) == tables(without_it())
    assert records(outcome.folder) == records(without_it())


def test_many_bad_cases_cost_themselves(
    twenty: Path, tmp_path: Path, no_report: None, without_it: Callable[..., Path]
) -> None:
    """Every other reason at once, among the twenty."""
    root = Path(shutil.copytree(twenty, tmp_path / "data"))
    bad = dict(zip(sorted(case.name for case in root.iterdir()), MORE.items(), strict=False))
    for name, (_, damage) in bad.items():
        damage(root / name)
    outcome = go(short(root), tmp_path)
    assert quarantine(outcome.folder) == {name: reason for name, (reason, _) in bad.items()}
    assert (outcome.scored, outcome.quarantined) == (14, 6)
    others = {path: content for path, content in records(without_it()).items() if path.split("/")[2][:13] not in bad}
    assert records(outcome.folder) == others


def test_a_bad_case_that_was_named_costs_one_case(
    with_a_bad_one: Cohort, without_it: Callable[..., Path], tmp_path: Path, no_report: None
) -> None:
    root = with_a_bad_one(truncated)
    outcome = go(short(root, split={"test": sorted(case.name for case in root.iterdir())}), tmp_path)
    assert (outcome.scored, outcome.quarantined) == (19, 1)
    assert tables(outcome.folder) == tables(without_it())


def test_a_case_that_was_mended_joins_the_others(
    with_a_bad_one: Cohort, twenty: Path, tmp_path: Path, no_report: None
) -> None:
    root = with_a_bad_one(truncated, 5)
    assert go(short(root), tmp_path).quarantined == 1
    shutil.rmtree(root / BAD)
    shutil.copytree(twenty / BAD, root / BAD)
    outcome = go(short(root), tmp_path)
    assert (outcome.scored, outcome.quarantined) == (5, 0)
    assert quarantine(outcome.folder) == {}


def test_a_case_that_breaks_after_it_was_scored_leaves_the_tables(
    with_a_bad_one: Cohort, without_it: Callable[..., Path], tmp_path: Path, no_report: None
) -> None:
    root = with_a_bad_one(lambda case: None, 5)
    assert go(short(root), tmp_path).scored == 5
    truncated(root / BAD)
    outcome = go(short(root), tmp_path)
    assert (outcome.scored, outcome.quarantined) == (4, 1)
    assert tables(outcome.folder) == tables(without_it(5))


def test_a_bad_case_that_was_taken_away_is_forgotten(
    with_a_bad_one: Cohort, without_it: Callable[..., Path], tmp_path: Path, no_report: None
) -> None:
    root = with_a_bad_one(truncated, 5)
    go(short(root), tmp_path)
    shutil.rmtree(root / BAD)
    outcome = go(short(root), tmp_path)
    assert (outcome.scored, outcome.quarantined) == (4, 0)
    assert quarantine(outcome.folder) == {}


def test_no_part_forgets_what_another_left_out(with_a_bad_one: Cohort, tmp_path: Path, no_report: None) -> None:
    study = short(with_a_bad_one(truncated, 5))
    for part in ("1/2", "2/2", "1/2"):
        go(study, tmp_path, part)
        assert finish(tmp_path / "small").quarantined == 1


def test_two_folders_of_one_id_are_told_though_one_is_used(twenty: Path, tmp_path: Path, no_report: None) -> None:
    root = tmp_path / "data"
    for place in ("one", "two"):
        shutil.copytree(twenty / BAD, root / place / BAD)
    outcome = go(short(root), tmp_path / "runs")
    assert (outcome.scored, outcome.quarantined) == (1, 1)
    assert list(quarantine(outcome.folder).values()) == [Reason.EXTRA_MODALITY]
    assert records(outcome.folder)


def test_a_region_that_nobody_has_is_data(twenty: Path, tmp_path: Path, no_report: None) -> None:
    """An all-background label map and integer files are normal."""
    root = tmp_path / "data"
    shutil.copytree(twenty / BAD, root / BAD)
    voxels("seg", lambda labels: labels * 0)(root / BAD)
    outcome = go(short(root), tmp_path / "runs")
    assert (outcome.scored, outcome.quarantined) == (1, 0)


def test_a_study_of_bad_cases_alone_ends_in_advice(twenty: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(twenty / BAD, root / BAD)
    truncated(root / BAD)
    with pytest.raises(ConfigError, match=r"(?s)no case .* can be used.*unreadable"):
        run(short(root), victims={"glow": Glow()}, runs=tmp_path / "runs", tracked=False)


def test_cases_that_all_fail_under_attack_end_in_advice(
    three: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(cell: Cell, pictured: bool) -> None:
        raise CaseError(Reason.GRADIENT_NOT_FINITE, f"{cell.bench.case.case}: no gradient")

    monkeypatch.setattr(Cell, "compute", refuse)
    with pytest.raises(RunError, match=r"(?s)nothing to report.*Phantom_00000: gradient_not_finite.*quarantine"):
        go(short(three), tmp_path)
    assert len(quarantine(tmp_path / "small")) == 3
