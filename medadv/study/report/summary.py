"""The scores of every condition on one region, in one table; those of many classes together in another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from medadv.study.metrics import METRICS, Metric
from medadv.study.report.numbers import budget, percent, tenth, thousandths, titled, whole
from medadv.study.report.style import slug
from medadv.study.report.tables import Cell, Column, Table
from medadv.study.results import Arm, Results
from medadv.study.scores import relative_reduction

MANY = 6
"""Of pictures with more regions than these, only the first has a table and a curve of its own; one table tells all."""

ALL = "all"
"""The region of what is scored over all classes."""

_HEADINGS = {"recall": "mean recall", "false positives": "false positives per image"}


def shown_alone(results: Results, victim: str) -> tuple[str, ...]:
    """The regions that have tables and curves of their own: all, but of pictures with many classes."""
    regions = results.regions_of(victim)
    if not results.pictures or len(regions) <= MANY:
        return regions
    return tuple(dict.fromkeys([regions[0], *(region for region in regions if region == ALL)]))


def summary(results: Results, victim: str, region: str) -> Table:
    """One row a condition: clean, attacks, controls; the columns are what the victim is scored in."""
    lead = results.share_of(victim)
    arms = [arm for arm in results.of(victim) if arm.scores(region, lead.name)]
    has = results.subjects(victim)
    others = [results.named(name) for name in METRICS if name != lead.name and (name, region) in has]
    copied = any(_copies(arm, region, lead) for arm in arms)
    columns = [
        Column("condition"),
        Column("budget"),
        Column(f"mean {lead.words}", thousandths),
        Column(f"median {lead.words}", thousandths),
        *([Column(f"mean {lead.words}, 8-bit copy", thousandths)] if copied else []),
        Column("relative reduction", percent),
        *(Column(_HEADINGS.get(m.name, f"mean {m.headed}"), tenth if m.unit else thousandths) for m in others),
        *([] if region == ALL else [Column("deletions", whole), Column("hallucinations", whole)]),
    ]
    clean = results.clean(victim)
    before = clean.values(region, lead.name) if clean else {}
    families = [(arm.presented.role, arm.presented.family) for arm in arms]
    breaks = {i for i in range(1, len(arms)) if families[i] != families[i - 1]}
    return Table(
        name=slug("summary", victim, region),
        caption=_caption(results, region, (lead, *others), before, copied),
        columns=columns,
        rows=[_row(arm, region, (lead, *others), before, copied) for arm in arms],
        breaks=frozenset(breaks),
    )


def _caption(
    results: Results, region: str, metrics: Sequence[Metric], before: Mapping[str, float], copied: bool
) -> str:
    lead, *others = metrics
    without = sum(relative_reduction(value, value) is None for value in before.values())
    said = (
        f"{region}, {results.units} {results.unit}. Scores of the delivered files. Relative reduction: the share "
        f"of its clean {lead.words} that each of the {results.unit} loses, mean over {results.unit}"
        + (f"; {without} with a clean {lead.words} of 0 had none to lose and are not counted in it" if without else "")
        + "."
    )
    if copied:
        said += f" 8-bit copy: the {lead.words} of the picture as a file of whole grey levels holds it."
    if lead.name == "recall":
        said += (
            " Recall: the share of the expert’s objects that are found, by a box of their class with score ≥ .5 and "
            "IoU ≥ .5."
        )
    if region == ALL:
        pooled = "all classes pooled" if lead.name == "recall" else "the mean over the classes that either side shows"
        ghosts = "" if lead.name == "recall" else "; one that is predicted where the expert shows none of it counts 0"
        return f"{said} All: of each picture, {pooled}{ghosts}."
    return (
        f"{said} Deletions and hallucinations count cases: nothing predicted where the "
        "expert drew the region; the region predicted where the expert drew none. Such a case scores "
        f"{lead.words} 0"
        + (", and the image's diagonal as HD95." if any(metric.name == "hd95" for metric in others) else ".")
    )


def _row(arm: Arm, region: str, metrics: Sequence[Metric], before: Mapping[str, float], copied: bool) -> list[Cell]:
    lead, *others = metrics
    after = {} if arm.presented.role == "clean" else arm.values(region, lead.name)
    shares = [relative_reduction(before[unit], after[unit]) for unit in sorted(before.keys() & after.keys())]
    lost = [share for share in shares if share is not None]
    copies = _copies(arm, region, lead)
    return [
        arm.presented.title,
        budget(arm),
        arm.mean(region, lead.name),
        arm.median(region, lead.name),
        *([fmean(copies) if copies else None] if copied else []),
        fmean(lost) if lost else None,
        *(arm.mean(region, metric.name) for metric in others),
        *([] if region == ALL else [arm.deletions(region), arm.hallucinations(region)]),
    ]


def _copies(arm: Arm, region: str, metric: Metric) -> list[float]:
    """The scores of the 8-bit copies, of those cases that have one."""
    found = (score.eight_bit for score in arm.scores(region, metric.name).values())
    return [score for score in found if score is not None]


def by_class(results: Results, victim: str) -> Table | None:
    """The mean of each class under every condition, of a victim with too many for tables of their own; else None."""
    regions = results.regions_of(victim)
    if len(shown_alone(results, victim)) == len(regions):
        return None
    lead = results.share_of(victim)
    arms = results.of(victim)
    return Table(
        name=slug("classes", victim),
        caption=f"Mean {lead.words} of each class, over {results.units} {results.unit}; a picture that lacks a class, "
        "and where none is predicted, counts 1.",
        columns=[Column("condition"), *(Column(region, thousandths) for region in regions)],
        rows=[[titled(arm), *(arm.mean(region, lead.name) for region in regions)] for arm in arms],
    )
