"""What the report says beside its figures: metric, budgets, threat model, versions, and how a run is repeated."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from medadv.errors import RunError
from medadv.study.records import Record
from medadv.study.report import build, delivery, provenance, threat
from medadv.study.report.curves import budget_units, off_axis
from medadv.study.report.paired import attack_families, paired_lines
from medadv.study.report.summary import summary
from medadv.study.report.worst import worst_kept
from medadv.study.results import Arm, Results, read_results


@pytest.fixture(scope="module")
def results(run_folder: Path) -> Results:
    return read_results(run_folder)


@pytest.fixture(scope="module")
def distances(tmp_path_factory: pytest.TempPathFactory, write_run: Callable[..., Path]) -> Results:
    """A study whose primary metric is a distance, and whose budgets differ between modalities."""
    folder = tmp_path_factory.mktemp("distances") / "study"
    budgets = ("0.1/0.2/0.3/0.4 sigma", "0.1/5/5/5 sigma")
    return read_results(write_run(folder, budgets=budgets, metric="hd95", cases=tuple("abcdef")))


def with_records(results: Results, change: Callable[[Record], Record]) -> Results:
    """The same results with other records."""
    arms = (
        replace(arm, records={case: change(record) for case, record in arm.records.items()}) for arm in results.arms
    )
    return replace(results, arms=tuple(arms))


def test_a_study_of_distances_is_told_in_distances(distances: Results) -> None:
    page = re.sub(r"<[^>]+>", "", build(distances.folder).read_text(encoding="utf-8"))
    text = " ".join(html.unescape(page).split())
    assert "HD95 against the budget" in text
    assert "the mean 95 % Hausdorff distance of WT" in text
    assert "nothing to answer" not in text
    assert "Primary, HD95 (6)" in text
    assert "A shift above 0 is a change for the worse." in text
    assert "whose HD95 of WT got worst against clean" in text
    assert "the HD95 of a file and the HD95 of the same voxels" in text
    clean = distances.clean("unet")
    assert clean is not None
    before = clean.values("WT", "hd95")
    for arm, case, _ in worst_kept(distances, "unet", "WT"):
        family = [a for a in distances.of("unet") if a.presented.family == arm.presented.family]
        kept = [
            a.values("WT", "hd95")[c] - before[c]
            for a in family
            for c in a.records
            if (distances.folder / "volumes" / "unet" / a.condition / c).is_dir()
        ]
        assert arm.values("WT", "hd95")[case] - before[case] == max(kept)
    arms = attack_families(distances, "unet", "WT")["ifgsm"]
    axes = paired_lines(distances, "unet", "WT", arms).axes[0]
    drawn = [line.get_ydata() for line in axes.lines]
    assert sorted(line[-1] for line in drawn[:-1]) == sorted(arms[-1].values("WT", "hd95").values())
    assert axes.get_ylim()[1] > max(max(line) for line in drawn) > 2
    assert axes.get_ylabel() == "HD95 of WT (mm)"


def test_budgets_of_modalities_are_in_the_threat_table_and_on_no_axis(distances: Results, results: Results) -> None:
    rows = [row for row in threat.radii(distances, "unet").rows if row[1] == "σ"]
    assert rows == [
        ["0.1/0.2/0.3/0.4\N{NO-BREAK SPACE}σ", "σ", *map(pytest.approx, (0.1, 0.2, 0.3, 0.4))],
        ["0.1/5/5/5\N{NO-BREAK SPACE}σ", "σ", *map(pytest.approx, (0.1, 5, 5, 5))],
    ]
    assert budget_units(distances, "unet") == ()
    assert off_axis(distances, "unet").count(" at 0.1/5/5/5\N{NO-BREAK SPACE}σ") == 3
    assert off_axis(results, "unet") == ""


@pytest.mark.parametrize(
    ("legal", "words"),
    [
        ("clean", "No voxel leaves the range of its modality in the clean scan"),
        (None, "There is no legal range beside the budget"),
        ([0.0, 4095.0], "legal range, 0 to 4095 stored units"),
    ],
)
def test_the_legal_range_is_a_sentence(results: Results, legal: object, words: str) -> None:
    said = threat.words(with_threat(results, legal=legal), "unet")
    assert sum("range" in sentence for sentence in said) == 1
    assert any(words in sentence for sentence in said)


@pytest.mark.parametrize("part", [{"legal": "tissue"}, {"ball": "l2"}, {"support": "elsewhere"}])
def test_a_threat_that_cannot_be_told_is_not_passed_over(results: Results, part: dict[str, str]) -> None:
    with pytest.raises(RunError, match="none that this version of medadv knows how to tell"):
        threat.words(with_threat(results, **part), "unet")


def with_threat(results: Results, **parts: object) -> Results:
    def changed(record: Record) -> Record:
        condition = record.inputs["condition"]
        inputs = {**record.inputs, "condition": {**condition, "threat": {**condition["threat"], **parts}}}
        return record.model_copy(update={"inputs": inputs})

    return with_records(results, changed)


def test_the_relative_reduction_is_a_mean_over_cases(results: Results) -> None:
    """Of .8 and .4 the attack leaves .4 and .1: half and three quarters are lost; of 0 nothing can be lost."""
    dice = {"clean": (0.8, 0.4, 0.0), "ifgsm-0.1-sigma": (0.4, 0.1, 0.0)}

    def arm(condition: str, values: tuple[float, ...]) -> Arm:
        found = results.arm("unet", condition)
        assert found is not None
        records = {}
        for (case, record), value in zip(found.records.items(), values, strict=False):
            scores = [score.model_copy(update={"value": value}) for score in record.scores if score.region == "WT"]
            records[case] = record.model_copy(update={"scores": scores})
        return replace(found, records=records)

    few = replace(results, arms=tuple(arm(condition, values) for condition, values in dice.items()))
    table = summary(few, "unet", "WT")
    lost = [row[[column.title for column in table.columns].index("relative reduction")] for row in table.rows]
    assert lost == [None, pytest.approx((0.5 + 0.75) / 2)]
    assert "1 with a clean Dice of 0 had none to lose" in table.caption
    assert "none to lose" not in summary(results, "unet", "WT").caption


def test_every_version_is_listed_and_a_mixture_stamped(results: Results) -> None:
    assert dict(provenance.environment(results))["torch"] == "2.15.0"
    assert provenance.mixed(results) == ""
    other = with_records(
        results, lambda r: r.model_copy(update={"versions": {"torch": "2.11.0"}}) if r.case == "PHANTOM_003" else r
    )
    assert dict(provenance.environment(other))["torch"] == "2.11.0, 2.15.0"
    assert dict(provenance.environment(other))["python"] == "3.11.7"
    assert "more than one version of torch (2.11.0, 2.15.0)." in provenance.mixed(other)


@pytest.mark.parametrize(
    ("ids", "root", "split", "weights", "command", "words"),
    [
        ("as-is", "/data/brats", {}, None, "medadv run study.yaml", ()),
        ("as-is", "../data", {"test": ["a"]}, None, "medadv run study.yaml", ("data.root (../data)", "holds runs/")),
        ("as-is", None, {}, "nets/a", "medadv run study.yaml", ("victims.unet.weights (nets/a)",)),
        ("pseudonyms", None, {"test": "rest"}, None, "medadv run study.yaml", ()),
        ("pseudonyms", "private", {}, None, "medadv run STUDY.yaml", ("The author’s own YAML repeats it",)),
        ("pseudonyms", None, {"test": ["c01"]}, None, "medadv run STUDY.yaml", ("The author’s own YAML",)),
        ("pseudonyms", None, {}, "private", "medadv run STUDY.yaml", ("The author’s own YAML",)),
    ],
)
def test_the_command_repeats_the_run_or_says_what_does(
    results: Results, ids: str, root: str, split: dict[str, object], weights: str, command: str, words: tuple[str, ...]
) -> None:
    content = {"ids": ids, "data": {"root": root}, "split": split, "victims": {"unet": {"weights": weights}}}
    how = provenance.repetition(replace(results, specification=content))
    told = " ".join(how.notes)
    assert how.command == command
    assert ("This command repeats the run" in told) == (command == "medadv run study.yaml")
    assert all(part in told for part in words)
    assert ("Relative paths" in told) == (len(words) > 0 and command == "medadv run study.yaml")


def test_networks_from_python_are_named(results: Results) -> None:
    told = provenance.repetition(replace(results, training={})).notes
    assert "No training is on record of unet" in told[-1]


def test_image_fidelity_says_over_what(results: Results) -> None:
    assert "over the whole image" in delivery.fidelity(results, "unet").caption
    assert "over the whole image" in delivery.least_alike(results, "unet")
