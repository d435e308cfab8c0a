"""What arrives: scores of the file beside those in memory, and how like the clean scan the altered one looks."""

from __future__ import annotations

import math
from statistics import fmean

from medadv.study.report.numbers import decimal, in_column, tenth, thousandths, titled
from medadv.study.report.style import slug
from medadv.study.report.tables import Cell, Column, Table
from medadv.study.report.wording import worded
from medadv.study.results import Arm, Results

AGREEING = 0.999
"""The share of voxels on which two predictors must decide alike to be called one victim."""


def _fine(value: float | None) -> str:
    return decimal(value, 4)


def gap(results: Results, victim: str, region: str) -> Table:
    """The score of the delivered file against that of the same voxels in memory, in the study's metric."""
    metric = results.metric_of(victim)
    rows: list[list[Cell]] = []
    for arm in results.of(victim):
        scores = list(arm.scores(region, metric.name).values())
        if scores:
            differences = [score.value - score.computed for score in scores]
            means = (fmean(score.value for score in scores), fmean(score.computed for score in scores))
            rows.append([titled(arm), *means, fmean(differences), max(map(abs, differences))])
    return Table(
        name=slug("file-and-memory", victim, region),
        caption=worded(
            results,
            f"{metric.headed} of {region}: the file, written and read again, against the voxels in memory. A gap would "
            "mean that saving weakened or strengthened the attack. Headline scores are those of the file.",
        ),
        columns=(
            Column("condition"),
            Column("file", in_column(metric)),
            Column("memory", in_column(metric)),
            Column("mean gap", _fine),
            Column("largest gap", _fine),
        ),
        rows=rows,
    )


def largest_gap(results: Results, victim: str) -> str:
    """The largest difference between a file's score and that of the same voxels in memory, in a sentence."""
    metric = results.metric_of(victim)
    records = (record for arm in results.of(victim) for record in arm.records.values())
    rows = (score for record in records for score in record.scores if score.metric == metric.name)
    largest = max((abs(score.value - score.computed) for score in rows), default=0.0)
    told = f"{_fine(largest)} {metric.unit}".rstrip() + " at most" if largest >= 0.00005 else "less than 0.0001"
    return (
        f"Over all cases, conditions and regions, the {metric.title} of a file and the {metric.title} of the same "
        f"{worded(results, 'voxels')} in memory differ by {told}."
    )


HALF = 0.5
"""A change of less than half a grey level is nothing in a file of 8 bits."""


def vanishing(results: Results, victim: str) -> str:
    """Which attacks on pictures are nothing in a file of 8 bits, in a sentence; empty where none is."""
    attacks = [arm for arm in results.of(victim) if arm.presented.role == "attack"]
    named = [titled(arm) for arm in attacks if (largest := _largest(arm)) is not None and largest < HALF]
    if not results.pictures or not named:
        return ""
    return (
        f"No pixel changes by half a grey level under {'; '.join(named)}: rounded to whole grey levels, the 8-bit copy "
        "is the clean picture. What is scored is the float32 file."
    )


def _largest(arm: Arm) -> float | None:
    """The largest change of any pixel in grey levels, measured, else allowed; None where neither is known."""
    found = [record.distortion.linf for record in arm.records.values() if record.distortion is not None]
    radii = (record.radii.get("stored", {}) for record in arm.records.values() if record.radii)
    return max(found or [amount for by_name in radii for amount in by_name.values()], default=None)


def least_alike(results: Results, victim: str) -> str:
    """The lowest structural similarity of an attacked scan to its clean self, in a sentence; empty where unknown."""
    attacks = [arm for arm in results.of(victim) if arm.presented.role == "attack"]
    found = [(row.ssim, row.modality, arm) for arm in attacks for r in arm.records.values() for row in r.fidelity]
    if not found:
        return ""
    ssim, modality, arm = min(found, key=lambda row: row[0])
    if results.pictures:
        return (
            f"The attacked picture least like its clean self is so in its {modality} channel, SSIM {thousandths(ssim)} "
            f"over the whole picture: {titled(arm)}."
        )
    return (
        f"The attacked image least like its clean self is a {modality}, SSIM {thousandths(ssim)} over the whole image "
        f"with its empty background: {titled(arm)}."
    )


def agreement(results: Results, victim: str) -> tuple[str, bool]:
    """How alike the way that is differentiated and the predictor that is scored decide, and whether that is too little.

    Empty where they are one.
    """
    found = [r.agreement for arm in results.of(victim) for r in arm.records.values() if r.agreement is not None]
    if not found:
        return "", False
    lowest, enough = min(found), sum(share >= AGREEING for share in found)
    # Rounded down: what is below the limit must not look as if it reached it.
    voxels = worded(results, "voxels")
    told = (
        f"{victim} is scored by its format’s own predictor, or behind a CRF that its attacks by-pass, and attacked "
        "through medadv’s differentiable way. On the "
        f"delivered {voxels} the two decide alike on at least {decimal(math.floor(1e4 * lowest) / 1e4, 4)} of the "
        f"{voxels} of a case; on {AGREEING} or more in {enough} of {len(found)} cells."
    )
    if enough == len(found):
        return told, False
    return (
        f"{told} Below that, part of an attack is spent on another network than the deployed one: scores of the "
        "deployed one hold, but a stronger attack may be near.",
        True,
    )


def fidelity(results: Results, victim: str) -> Table:
    """SSIM and PSNR of each modality against the clean scan, mean over cases."""
    columns = [Column("condition")]
    for modality in results.modalities:
        columns += [Column(f"{modality} SSIM", thousandths), Column(f"{modality} PSNR (dB)", tenth)]
    rows: list[list[Cell]] = []
    for arm in results.of(victim):
        if arm.presented.role != "clean" and any(record.fidelity for record in arm.records.values()):
            rows.append([titled(arm), *(cell for modality in results.modalities for cell in _likeness(arm, modality))])
    return Table(
        name=slug("fidelity", victim),
        caption=f"How like its clean self each {worded(results, 'modality')} still looks, mean over cases. "
        "SSIM 1 is identical; a PSNR of – means that nothing changed. Both are taken over the whole image"
        + (
            ", with a data range of 255."
            if results.pictures
            else ". Its empty background never changes, so neither is lower than it would be inside the head alone; "
            "their data range is that of non-zero voxels."
        ),
        columns=columns,
        rows=rows,
    )


def _likeness(arm: Arm, modality: str) -> tuple[float | None, float | None]:
    found = [row for record in arm.records.values() for row in record.fidelity if row.modality == modality]
    ratios = [row.psnr_db for row in found if row.psnr_db is not None]
    return (fmean(row.ssim for row in found) if found else None, fmean(ratios) if ratios else None)
