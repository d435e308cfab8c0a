"""Which kept case shows best what an attack did."""

from __future__ import annotations

from pathlib import Path

from medadv.study.results import Arm, Results
from medadv.study.slices import SLICES

NOTHING = 1e-6
"""A loss up to this is none: of equal scores, computed twice."""


def worst_kept(results: Results, victim: str, region: str) -> list[tuple[Arm, str, Path]]:
    """For each attack the kept case that lost most on the region against clean, in the victim's metric; none of an
    attack under which no kept case got worse.

    Of equals it is the one that comes first: with the smaller budget.
    """
    most = _losses(results, victim, region)
    return [(arm, case, path) for loss, arm, case, path in most.values() if loss > NOTHING]


def none_worse(results: Results, victim: str, region: str) -> str:
    """Under which attacks no kept case got worse, in a sentence; empty where there is none such."""
    unharmed = [arm.presented.title for loss, arm, _, _ in _losses(results, victim, region).values() if loss <= NOTHING]
    title = results.metric_of(victim).title
    return f"No kept case got worse in {title} of {region} under {'; '.join(unharmed)}." if unharmed else ""


def _losses(results: Results, victim: str, region: str) -> dict[str, tuple[float, Arm, str, Path]]:
    """Family → the largest loss among its kept cases, and where."""
    clean = results.clean(victim)
    metric = results.metric_of(victim)
    before = clean.scores(region, metric.name) if clean else {}
    worst: dict[str, tuple[float, Arm, str, Path]] = {}
    for arm in results.met(victim):
        if arm.presented.role != "attack":
            continue
        after = arm.scores(region, metric.name)
        for case in sorted(set(before) & set(after)):
            path = results.folder / "volumes" / victim / arm.condition / case / SLICES
            loss = metric.loss(before[case].value, after[case].value)
            family = arm.presented.family
            if path.is_file() and (family not in worst or loss > worst[family][0] + NOTHING):
                worst[family] = (loss, arm, case, path)
    return worst
