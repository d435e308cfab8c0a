"""Which kept case shows best what an attack did."""

from __future__ import annotations

from pathlib import Path

from medadv.study.results import Arm, Results
from medadv.study.slices import SLICES


def worst_kept(results: Results, victim: str, region: str) -> list[tuple[Arm, str, Path]]:
    """For each attack the kept case that lost most on the region against clean, in the victim's metric.

    Of equals it is the one that comes first: with the smaller budget.
    """
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
            if path.is_file() and (family not in worst or loss > worst[family][0] + 1e-6):
                worst[family] = (loss, arm, case, path)
    return [(arm, case, path) for _, arm, case, path in worst.values()]
