"""A first draft of a study: what a data set and a model tell of themselves, and marked defaults for the rest.

The draft is a file to be read and changed. It loads, and fits its data, before it is written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import yaml

from medadv.atomic import write_text
from medadv.data.case import Cohort, Volume
from medadv.errors import CaseError, ConfigError
from medadv.plain_yaml import parse
from medadv.study.checking.facts import facts_of
from medadv.study.checking.remarks import whole_head
from medadv.study.discover import Found, discover
from medadv.study.inputs import read_labelled
from medadv.study.load import as_study
from medadv.study.progress import Silent, Watch
from medadv.study.sources import PATHS, imported
from medadv.study.spec import NAME
from medadv.victims.formats.opening import format_of

DEFAULT = "  # medadv default"
FACTOR = 16
"""Windows are multiples of it: every network named here halves its input at most four times."""
LARGEST_WINDOW = 128
LARGEST_CROP = 96


def init(
    data: Path, model: Path | None, out: Path, given: Mapping[str, Any] | None = None, watch: Watch | None = None
) -> Path:
    """Write a study's YAML for a data set, and a model to be attacked.

    Args:
        data: a folder, a datalist, or a study, whose data are taken.
        model: a model on the disk; None for a victim that is trained.
        out: the file to be written.
        given: what names do not tell of the data.
        watch: told of what was found.

    Returns:
        the file.

    Raises:
        ConfigError: the file exists; no data set there, or something that must be declared; too few patients.
        VictimError: no model there, of a format that is known.
        RunError: the file cannot be written.
    """
    if out.exists():
        raise ConfigError(
            f"{out} is there already, and is not overwritten",
            advice="name another file with --out, or move this one away",
        )
    kind = None if model is None else format_of(model.expanduser())
    found = discover(data, given or {})
    if found.data.importer == "phantom":
        raise ConfigError("phantoms need no draft", advice="start from pipelines/demo.yaml")
    if found.data.axes == 2:
        raise ConfigError("studies of pictures are not drafted", advice="start from pipelines/demo_pictures.yaml")
    cohort = imported(found.data, Path(), found.seed, alone=True)
    text = draft(found, cohort, _first(cohort), kind, model)
    as_study(parse(text), out.name).check(cohort.modalities, cohort.scheme)
    write_text(out, text)
    told = watch or Silent()
    for line in (*found.declared(cohort), *([f"model: {kind}"] if kind else [])):
        told.say(line)
    return out


def draft(found: Found, cohort: Cohort, volume: Volume, kind: str | None, model: Path | None) -> str:
    """The text of the study.

    Args:
        found: what the path of the data holds.
        cohort: what was imported from there.
        volume: a case of it, which tells sizes.
        kind: the model's format; None for a victim that is trained.
        model: where it lies.

    Raises:
        ConfigError: fewer than three patients, and a victim to be trained on them.
    """
    scheme = cohort.scheme
    region = next((name for name in ("WT", "foreground") if name in scheme.regions), scheme.names[0])
    facts = facts_of(volume)
    notes = "".join(f"\n#   {' '.join(line.split())}" for line in found.declared(cohort))
    head = whole_head(facts)
    support = "otsu" if head else "nonzero"
    why = "the first case has no zeros around the head: it is not skull-stripped" if head else "skull-stripped images"
    return f"""# A draft by medadv init: read it, and change what is not meant. Values marked "medadv default" follow
# from nothing in your data. What was taken for granted of the data:{notes}
study: {_plain(_study_name(found.title))}
question: How far do small, deliberate changes of the stored voxels lower the Dice of {region}?{DEFAULT}
seed: 0{DEFAULT}
ids: pseudonyms  # medadv default; as-is for public data only

data:
{_block(found.data.model_dump(mode="json", exclude_unset=True) | {"importer": found.data.importer}, 2)}
{_split(cohort, trained=model is None)}
victims:
  {_victim_name(kind)}:
{_victim(kind, model, cohort, facts.shape)}
# What may change, and by how much. sigma: the standard deviation of a modality inside its support.
support: {support}  # {why}
legal: clean{DEFAULT}
budgets: [0.05 sigma, 0.1 sigma, 0.2 sigma]{DEFAULT}

attacks:{DEFAULT}
  fgsm: {{preset: fgsm}}
  ifgsm: {{preset: ifgsm, steps: 10}}
  tifgsm: {{preset: tifgsm, steps: 10, goal: {{erase: {_plain(region)}}}}}

controls: [identity, noise, permuted]{DEFAULT}

# The labels have {", ".join(map(str, scheme.names))}; all that every victim can tell are scored.
# Declare what the study is about before any score exists; everything else is exploratory.
primary:
  region: {_plain(region)}{DEFAULT}
  metric: dice{DEFAULT}
  budgets: [0.1 sigma]{DEFAULT}

volumes: {{keep: worst, count: 1}}{DEFAULT}
"""


def _first(cohort: Cohort) -> Volume:
    """The first case that can be read."""
    trouble: CaseError | None = None
    for case in cohort.cases:
        try:
            return read_labelled(case)
        except CaseError as error:
            trouble = trouble or error
    raise ConfigError(
        "no case of the data can be used",
        got=(str(trouble) if trouble else "\n".join(r.message for r in cohort.refused[:1])).splitlines()[0],
        advice="`medadv check` tells what is wrong with each case",
    )


def _study_name(title: str) -> str:
    """A name that makes a folder."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", title).strip("-._")[:56]
    return f"{name}-attacked" if NAME.fullmatch(name) else "attacked"


def _split(cohort: Cohort, *, trained: bool) -> str:
    patients = len({case.patient or case.case for case in cohort.cases})
    unit = "patients" if all(case.patient for case in cohort.cases) else "cases, since patients are unknown"
    folds = "  # the data declare folds: {folds: data} tests every case by a model that has not seen it"
    declared = f"\n{folds}" if cohort.cases and all(case.fold is not None for case in cohort.cases) else ""
    if not trained:
        what = f"# All {patients} {unit}. Leave out those that the model has learnt from: split.test may list ids."
        return f"\n{what}\nsplit:{declared}\n  train: 0\n  validate: 0\n  test: rest\n"
    if patients < 3:
        raise ConfigError(
            "a victim that is trained needs patients to learn from, to be chosen by, and to be attacked on",
            got=f"{patients} {unit}",
            expected="3 or more",
            advice="name a model: medadv init DATA MODEL",
        )
    test, validate = max(1, patients // 5), max(1, patients // 10)
    return (
        f"\n# Of {patients} {unit}.\nsplit:{declared}\n  train: {patients - test - validate}{DEFAULT}\n"
        f"  validate: {validate}{DEFAULT}\n  test: rest\n"
    )


def _victim_name(kind: str | None) -> str:
    return "unet" if kind is None else "model"


def _victim(kind: str | None, model: Path | None, cohort: Cohort, shape: Sequence[int]) -> str:
    """A victim's entry: as much as its format leaves open."""
    window, crop = (_window(shape, most) for most in (LARGEST_WINDOW, LARGEST_CROP))
    batch = 4 if prod(window) <= 64**3 else 1
    channels = _plain(list(cohort.modalities))
    deployed = f"""    modalities: {channels}  # its input channels in order: check it against its training
    head: softmax  # softmax over {_plain(list(cohort.scheme.tissues))}, or sigmoid over regions
    normalise: {{name: z-score}}  # as it was trained
    inference: {{name: window, roi: {window}, overlap: 0.5, blend: gaussian, batch: {batch}}}  # as it is deployed
"""
    network = """    network:  # the network that these weights belong to: put its own name and arguments here
      name: UNet
      arguments: {spatial_dims: 3, channels: [16, 32, 64, 128], strides: [2, 2, 2], num_res_units: 1}
"""
    if model is None:
        training = f"steps: 2000, batch: 2, rate: 0.001, roi: {crop}, flips: [0], validate_every: 200"
        deployed = "\n".join(line.partition("  #")[0] + DEFAULT for line in deployed.splitlines()[1:]) + "\n"
        network = "\n".join(line.partition("  #")[0] + DEFAULT for line in network.splitlines()[1:])
        return f"    network:\n{network}\n{deployed}    training: {{{training}}}{DEFAULT}\n"
    weights = f"    weights: {_plain(str(model.expanduser().resolve()))}  # {kind}"
    if kind == "weights":
        return f"{weights}\n{network}{deployed}"
    if kind == "program":
        return f"{weights}: run with --trust if you know who made it\n{deployed}"
    hint = "    # names: {its word: the data's}  where its words for modalities, tissues and regions are not the data's"
    return f"{weights}: says itself how it is deployed\n{hint}\n"


def _window(shape: Sequence[int], most: int) -> list[int]:
    """As much of a case as is a multiple of ``FACTOR``, and no more than a graphics card holds."""
    return [min(most, max(FACTOR, n // FACTOR * FACTOR)) for n in shape]


def _block(content: Mapping[str, Any], indent: int) -> str:
    order = {"importer": content["importer"]} | dict(content)
    paths = {key: str(Path(order[key]).expanduser().resolve()) for key in PATHS if order.get(key)}
    text = yaml.safe_dump(order | paths, sort_keys=False, allow_unicode=True, width=1000)
    return "\n".join(" " * indent + line for line in text.splitlines())


def _plain(value: object) -> str:
    """A value as YAML on one line, wherever on a line it stands."""
    return yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=10_000).strip()[1:-1]
