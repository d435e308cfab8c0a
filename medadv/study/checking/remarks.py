"""What of a data set a person should look at before it is attacked. Nothing here refuses a case."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import inf
from statistics import median

from medadv.study.checking.facts import Facts
from medadv.study.checking.survey import Survey
from medadv.study.spec import NAME

MOSTLY_EMPTY = 0.95
"""A region that is empty in more than this share of the cases is doubted."""
FEW_ZEROS = 0.1
"""A head without its skull leaves more of the grid at 0."""
CUT_OUT = 100.0
"""A field of view below this along an axis, in mm, is no whole head."""
MAGNITUDE = 10.0
"""How many times larger or smaller than the median a modality's spread may be."""


@dataclass(frozen=True)
class Remark:
    """Something to look at.

    Attributes:
        message: what was found.
        cases: where; empty where it is the whole data set.
        advice: what to do about it.
    """

    message: str
    cases: tuple[str, ...] = ()
    advice: str | None = None


def remarks(survey: Survey) -> list[Remark]:
    """Everything that deserves a look, the gravest first."""
    if not survey.facts:
        return []
    rules: tuple[Callable[[Survey], Iterator[Remark]], ...] = (
        *(_duplicates, _copies, _empty, _glioma, _filled),
        *(_skull, _scales, _negative, _grids, _names, _patients),
    )
    if survey.facts[0].picture:
        rules = (_duplicates, _absent, _names)
    return [remark for rule in rules for remark in rule(survey)]


def whole_head(facts: Facts) -> bool:
    """Whether a grid is large enough to hold a head, and hardly any of it is 0."""
    if facts.picture:
        return False
    spans = (n * mm for n, mm in zip(facts.shape, facts.spacing, strict=True))
    return min(spans) >= CUT_OUT and min(each.zeros for each in facts.intensities.values()) < FEW_ZEROS


def _duplicates(survey: Survey) -> Iterator[Remark]:
    voxels: dict[str, set[str]] = {}
    labels: dict[str, set[str]] = {}
    for facts in survey.facts:
        for each in facts.intensities.values():
            voxels.setdefault(each.digest, set()).add(facts.case)
        if any(facts.labels.tissues.values()):
            labels.setdefault(facts.labels.digest, set()).add(facts.case)
    advice = "keep one of them; in two parts of a split, a network would be tested on what it has learnt"
    patients = {facts.case: facts.patient for facts in survey.facts}
    told: set[tuple[str, ...]] = set()
    for what, found in (("the same voxels", voxels), ("the same label map", labels)):
        for group in sorted({tuple(sorted(cases)) for cases in found.values() if len(cases) > 1} - told):
            told.add(group)
            known = {patients[case] for case in group}
            whose = " of different patients" if len(known) > 1 and None not in known else ""
            yield Remark(f"{what} under {len(group)} ids{whose}: {', '.join(group)}", group, advice)


def _copies(survey: Survey) -> Iterator[Remark]:
    for one, other in combinations(survey.modalities, 2):
        same = [f for f in survey.facts if f.intensities[one].digest == f.intensities[other].digest]
        if same:
            yield _of(survey, same, f"the same voxels in {one} and {other}", "check which file shows what")


def _empty(survey: Survey) -> Iterator[Remark]:
    for name in survey.scheme.names:
        without = [f for f in survey.facts if not f.labels.regions.get(name, f.labels.tissues.get(name))]
        if len(without) > MOSTLY_EMPTY * len(survey.facts):
            advice = "check that the declared label numbers are this data set's; the primary region is not to be this"
            yield _of(survey, without, f"no voxel of {name}", advice)
    blank = [f for f in survey.facts if not any(f.labels.tissues.values())]
    if blank:
        yield _of(survey, blank, "the label map is all background", "this is data, and scored: check that it is meant")


def _absent(survey: Survey) -> Iterator[Remark]:
    """Many classes are rare in pictures; one that is nowhere is a mistake, or is not scored."""
    absent = [name for name in survey.scheme.names if not any(f.shown(name) for f in survey.facts)]
    if absent:
        advice = "check that the declared classes are this data set's; what is nowhere cannot be scored"
        yield Remark(f"no pixel and no object of {', '.join(absent)}", (), advice)


def _glioma(survey: Survey) -> Iterator[Remark]:
    """Oedema lies around a glioma's core, and what enhances lies at it. Where it is not so, numbers were exchanged."""
    shown = [f for f in survey.facts if f.labels.surface]
    outside = [f for f in shown if f.labels.surface["necrosis"] > f.labels.surface["oedema"]]
    advice = "compare the declared label numbers with the data set's own description"
    if len(outside) > len(shown) / 2:
        yield _of(survey, outside, "necrosis lies outside the oedema", advice)
    enhancing = [f for f in survey.facts if f.labels.enhancing_alone is not None]
    alone = [f for f in enhancing if (f.labels.enhancing_alone or 0) > 0.5]
    if len(alone) > len(enhancing) / 2:
        yield _of(survey, alone, "most of the enhancing tissue touches no other tumour", advice)


def _filled(survey: Survey) -> Iterator[Remark]:
    found = [f for f in survey.facts if f.labels.foreground > 0.5]
    if found:
        yield _of(survey, found, "the labels take more than half of the image", "check that it is no mask of the head")


def _skull(survey: Survey) -> Iterator[Remark]:
    found = [f for f in survey.facts if whole_head(f)]
    if found:
        advice = "set support: otsu, or name a mask of the head: else voxels of air would be attacked too"
        yield _of(survey, found, "hardly a voxel is 0: the images are not skull-stripped", advice)


def _scales(survey: Survey) -> Iterator[Remark]:
    for name in survey.modalities:
        middle = median(f.intensities[name].sigma for f in survey.facts)
        found = [f for f in survey.facts if not middle / MAGNITUDE <= f.intensities[name].sigma <= middle * MAGNITUDE]
        if found:
            ratios = [_ratio(f.intensities[name].sigma, middle) for f in found]
            least, most = f"{min(ratios):.3g}", f"{max(ratios):.3g}"
            how = least if least == most else f"{least} to {most}"
            advice = "check the conversion; a budget in stored units means another thing there"
            yield _of(survey, found, f"another scale of {name}: σ is {how} times the median", advice)


def _ratio(value: float, middle: float) -> float:
    return value / middle if middle else inf


def _negative(survey: Survey) -> Iterator[Remark]:
    for name in survey.modalities:
        found = [f for f in survey.facts if f.intensities[name].negative > 0.01]
        if found and name.lower() != "ct":
            advice = "if the files are normalised already, say so in the victims' normalise"
            yield _of(survey, found, f"values below 0 in {name}", advice)


def _grids(survey: Survey) -> Iterator[Remark]:
    axes = Counter(f.orientation for f in survey.facts)
    if len(axes) > 1:
        usual = axes.most_common(1)[0][0]
        found = [f for f in survey.facts if f.orientation != usual]
        told = ", ".join(f"{name} ({count})" for name, count in axes.most_common())
        advice = "if the network expects one orientation, add it to the spatial steps"
        yield _of(survey, found, f"the axes lead into different directions: {told}", advice)
    for axis in range(3):
        middle = median(f.spacing[axis] for f in survey.facts)
        if found := [f for f in survey.facts if not 0.8 <= f.spacing[axis] / middle <= 1.25]:
            sizes = [f.spacing[axis] for f in survey.facts]
            message = f"voxels differ in size: {min(sizes):.3g} to {max(sizes):.3g} mm along axis {axis}"
            yield _of(survey, found, message, "if the network expects one spacing, add it to the spatial steps")


def _names(survey: Survey) -> Iterator[Remark]:
    odd = [f for f in survey.facts if not NAME.fullmatch(f.case)]
    if odd:
        yield _of(survey, odd, "ids that make no file names", "leave ids: pseudonyms, as it is by default")


def _patients(survey: Survey) -> Iterator[Remark]:
    unknown = [f for f in survey.facts if f.patient is None]
    if unknown:
        advice = "if patients were scanned twice, say how an id tells the patient: data.patient"
        yield _of(survey, unknown, "patients are unknown, and every case counts as one", advice)


def _of(survey: Survey, found: Sequence[Facts], message: str, advice: str) -> Remark:
    whole = len(found) == len(survey.facts)
    return Remark(
        f"{message}, in {'all' if whole else len(found)} of {len(survey.facts)} cases".replace("all of ", "all "),
        () if whole else tuple(f.case for f in found),
        advice,
    )


def counted(values: Iterable[object]) -> str:
    """``a (3), b (1)``, the most frequent first."""
    counts: Mapping[str, int] = Counter(str(value) for value in values)
    return ", ".join(f"{name} ({n})" for name, n in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))
