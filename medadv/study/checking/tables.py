"""A survey as tables: one row a case."""

from __future__ import annotations

from collections import Counter
from math import prod

from markupsafe import Markup

from medadv.study.checking.facts import Facts, Intensities
from medadv.study.checking.remarks import counted
from medadv.study.checking.survey import Survey
from medadv.study.report.numbers import percent, significant, tenth, whole
from medadv.study.report.style import COLOURS
from medadv.study.report.tables import Cell, Column, Table

_HEIGHT = 14


def grids_and_labels(survey: Survey) -> Table:
    """Where each case lies, and how much of each tissue it has."""
    if survey.facts and survey.facts[0].picture:
        return _pictures(survey)
    names = [*(n for n in survey.scheme.regions), *(n for n in survey.scheme.names if n not in survey.scheme.regions)]
    known = any(f.patient not in (None, f.case) for f in survey.facts)
    strata = any(f.stratum for f in survey.facts)
    folds = any(f.fold is not None for f in survey.facts)
    extra = [name for name, there in (("patient", known), ("stratum", strata), ("fold", folds)) if there]
    columns = [Column("case"), *map(Column, extra), Column("shape"), Column("mm"), Column("axes"), Column("stored")]
    columns += [Column(f"{name}, ml", tenth) for name in names]
    columns += [Column("parts"), Column("foreground", percent)]
    rows: list[list[Cell]] = []
    for f in survey.facts:
        sizes = {**f.labels.tissues, **f.labels.regions}
        row: list[Cell] = [f.case, *(getattr(f, name) for name in extra), _times(f.shape), _spacing(f), f.orientation]
        row.append("/".join(dict.fromkeys(each.stored for each in f.intensities.values())))
        row += [sizes[name] * f.millilitres for name in names]
        rows.append([*row, "/".join(str(f.labels.components.get(name, 0)) for name in names), f.labels.foreground])
    order = ", ".join(names)
    caption = (
        f"Parts: how many connected parts {order} have, in this order. Foreground: share of voxels that are not 0."
    )
    return Table("cases", caption, columns, rows)


def _pictures(survey: Survey) -> Table:
    """Of pictures, which have no millimetres: the classes in each, as pixels and as objects."""
    strata = any(f.stratum for f in survey.facts)
    columns = [Column("case"), *([Column("stratum")] if strata else []), Column("height × width")]
    columns += [Column("classes"), Column("foreground", percent), Column("objects")]
    rows: list[list[Cell]] = []
    for f in survey.facts:
        row: list[Cell] = [f.case, *([f.stratum] if strata else []), _times(f.shape)]
        classes = ", ".join(name for name in survey.scheme.names if f.shown(name)) or "none"
        share = sum(f.labels.tissues.values()) / prod(f.shape)
        told = "not listed" if f.objects is None else _objects(f.objects)
        rows.append([*row, classes, share, told])
    caption = "Classes that a picture shows; the share of its pixels that they take; and its objects that count."
    return Table("cases", caption, columns, rows)


def _objects(objects: dict[str, int]) -> str:
    """``dog (2), person (1)``, or none."""
    return ", ".join(f"{name} ({n})" for name, n in objects.items()) or "none"


def intensities(survey: Survey) -> Table:
    """One cell a modality: p1 to p99, mean ± σ, zeros."""
    rows: list[list[Cell]] = [[f.case, *(_told(f.intensities[m]) for m in survey.modalities)] for f in survey.facts]
    caption = "p1 to p99, mean ± σ in stored units, where the image is not 0; and the share of the grid that is 0."
    return Table("intensities", caption, [Column("case"), *map(Column, survey.modalities)], rows)


def of_modality(survey: Survey, modality: str) -> Table:
    """All that is known of one modality, with a small histogram."""
    columns = [Column("case"), Column("stored")]
    columns += [Column(name, significant) for name in ("minimum", "p1", "mean", "σ", "p99", "maximum")]
    columns += [Column("zeros", percent), Column("below 0", percent), Column("p1 to p99", _as_it_is)]
    rows: list[list[Cell]] = []
    for f in survey.facts:
        each = f.intensities[modality]
        numbers = [each.low, each.p1, each.mean, each.sigma, each.p99, each.high, each.zeros, each.negative]
        rows.append([f.case, each.stored, *numbers, bars(each.histogram)])
    return Table(modality, f"{modality} in stored units; statistics where it is not 0.", columns, rows)


def summary(survey: Survey) -> list[tuple[str, str]]:
    """What the whole data set is: heading and words."""
    facts = survey.facts
    patients = Counter(f.patient for f in facts if f.patient is not None)
    several = [n for n in patients.values() if n > 1]
    rows = [("cases", f"{len(facts)} can be used, {len(survey.refused)} would be left out")]
    if survey.refused:
        rows.append(("left out", counted([r.reason for r in survey.refused])))
    if patients:
        rows.append(("patients", f"{len(patients)}" + (f", {len(several)} with several scans" if several else "")))
    if any(f.stratum for f in facts):
        rows.append(("strata", counted([f.stratum or "none" for f in facts])))
    if any(f.fold is not None for f in facts):
        rows.append(("folds", counted(["none" if f.fold is None else f.fold for f in facts])))
    if facts:
        rows += [("shapes", counted([_times(f.shape) for f in facts]))]
    if facts and not facts[0].picture:
        rows += [("spacings, mm", counted(map(_spacing, facts)))]
        rows += [("axes lead to", counted([f.orientation for f in facts]))]
    return rows


def bars(histogram: tuple[int, ...]) -> Markup:
    """A histogram as inline SVG."""
    top = max(*histogram, 1)
    path = "".join(f"V{_HEIGHT - round(_HEIGHT * n / top, 1):g}h1" for n in histogram)
    return Markup(
        '<svg class="bars" role="img" aria-label="histogram" preserveAspectRatio="none" width="96" height="{h}" '
        'viewBox="0 0 {n} {h}"><path fill="{colour}" d="M0 {h}{path}V{h}z"/></svg>'
    ).format(h=_HEIGHT, n=len(histogram), colour=COLOURS[0], path=path)


def _as_it_is(value: str) -> str:
    return value


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def _spacing(facts: Facts) -> str:
    return "×".join(f"{mm:.3g}" for mm in facts.spacing)


def _told(each: Intensities) -> str:
    told = f"{significant(each.p1)} to {significant(each.p99)}, {significant(each.mean)} ± {significant(each.sigma)}"
    return f"{told}, {whole(100 * each.zeros)} %"
