"""A run's folder of pictures without a run: two segmenters and a detector, sweeps, transfers, sums, permutations."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from medadv.atomic import write_text
from medadv.data.case import Case, Volume
from medadv.labels import LabelScheme
from medadv.objects import Objects
from medadv.study.object_list import ObjectList
from medadv.study.records import (
    ALL,
    POLICY,
    Distortion,
    Effort,
    Fidelity,
    Presented,
    Record,
    Score,
    digest,
    write_manifest,
    write_record,
)
from medadv.study.slices import Views, save_slices
from medadv.study.stats import PrimaryFamily, compare, occurring
from medadv.study.tables import comparisons_table, scores_table

SCHEME = LabelScheme("shapes", {"background": 0, "disc": 1, "square": 2, "triangle": 3}, void=255)
CLASSES = ("background", "disc", "square", "triangle")
COLOURS = ("red", "green", "blue")
SEGMENTERS = {"fcn": 0.9, "deeplab": 0.95}
DETECTOR = "frcnn"
EPSILONS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
STEPS = 12
SIZE = (24, 32)


@dataclass(frozen=True)
class Shown:
    """A condition of the study, and how much of the score it takes.

    Attributes:
        settings: what goes into the key.
        harm: victim → the share of its score that is lost.
    """

    name: str
    presented: Presented
    settings: Mapping[str, Any]
    harm: Mapping[str, float]


def everyone(harm: float) -> dict[str, float]:
    return dict.fromkeys((*SEGMENTERS, DETECTOR), harm)


def attack(family: str, amount: float) -> dict[str, Any]:
    budget = {"amounts": [amount], "unit": "0-255"}
    threat = {"ball": "linf", "budget": budget, "legal": [0, 255], "support": "nonzero"}
    return {"kind": "attack", "attack": {"preset": family, "steps": STEPS}, "threat": threat}


def told(role: str, family: str, title: str, amount: float | None, **more: str) -> Presented:
    size = {} if amount is None else {"budget": f"{amount:g} 0-255", "amount": amount, "unit": "0-255"}
    return Presented(role=role, family=family, title=title, **size, **more)  # type: ignore[arg-type]


def conditions(victim: str, epsilons: tuple[float, ...] = EPSILONS) -> Iterator[Shown]:
    yield Shown("clean", told("clean", "clean", "clean", None), {"kind": "clean"}, everyone(0.0))
    for amount in epsilons:
        harm = everyone(0.9 * amount / (amount + 1.5))
        yield Shown(
            f"ifgsm-{amount:g}", told("attack", "ifgsm", "i-FGSM", amount), attack("ifgsm", amount), harm
        )
    yield from exchanged(victim)


def exchanged(victim: str) -> Iterator[Shown]:
    """DAG on each, shown to each; the sum for two of them; and what is left when its values are permuted."""
    own, title = attack("dag", 0.5), "DAG"
    yield Shown("dag-0.5", told("attack", "dag", title, 0.5), own, everyone(0.95))
    for planes in (None, "rows", "columns"):
        for draw in (1, 2):
            how = {**({"planes": planes} if planes else {}), **({"draw": draw} if draw > 1 else {})}
            name = "-".join(["permuted", *([planes] if planes else []), *([str(draw)] if draw > 1 else []), "dag-0.5"])
            family = name.replace("-", " ").removesuffix("-0.5")
            shown = told("control", family, f"{title}, {planes or ''} permuted", 0.5, of="dag-0.5")
            yield Shown(name, shown, {"kind": "permuted", "of": own, **how}, everyone(0.01 * draw))
    for source in (*SEGMENTERS, DETECTOR):
        if source != victim:
            name = f"transfer-dag-from-{source}"
            shown = told("attack", name, f"{title}, transferred from {source}", 0.5, source=source)
            settings = {"kind": "transfer", "of": own, "threat": own["threat"]}
            yield Shown(f"{name}-0.5", shown, settings, everyone(0.3 if DETECTOR not in (source, victim) else 0.1))
    both = " + ".join(("fcn", DETECTOR))
    added = {"kind": "sum", "of": [own, own], "rescaled": None, "threat": attack("dag", 1.0)["threat"]}
    title = f"{title}, found for fcn and {DETECTOR}, added"
    yield Shown("sum-r", told("attack", "sum-r", title, 1.0, source=both), added, everyone(0.9))
    scaled = told("control", "rescaled-sum-r", f"{title}, brought to their mean norm", 1.0, source=both, of="sum-r")
    yield Shown("rescaled-sum-r", scaled, {**added, "rescaled": "mean"}, everyone(0.85))
    shuffled = told("control", "permuted sum-r", f"{title}, permuted", 1.0, of="sum-r")
    yield Shown("permuted-sum-r", shuffled, {"kind": "permuted", "of": added}, everyone(0.01))


def segmented(quality: float, place: int) -> list[Score]:
    """IoU of each class, from counts, and their mean; the third class is in every other picture."""
    rows: list[Score] = []
    for number, name in enumerate(CLASSES):
        truth = 0 if number == 3 and place % 2 else 100 * (4 - number) + 7 * place
        hit = round(quality * truth)
        predicted = hit + round((1 - quality) * truth / 2)
        union = truth + predicted - hit
        counts = {"truth": truth, "predicted": predicted, "hit": hit}
        rows.append(score(name, "iou", hit / union if union else 1.0, **counts))
    seen = [row.value for row in rows if row.truth + row.predicted]
    counts = {name: sum(getattr(row, name) for row in rows) for name in ("truth", "predicted", "hit")}
    return [*rows, score(ALL, "iou", float(np.mean(seen)), **counts)]


def score(region: str, metric: str, value: float, **counts: int) -> Score:
    told = {"value": value, "computed": value, "eight_bit": min(value + 0.01, 1.0)}
    return Score(region=region, metric=metric, policy=POLICY, **told, **counts)  # type: ignore[arg-type]


def objects(place: int) -> Objects:
    """Two or three objects of a picture, the last of which counts for nothing."""
    boxes = torch.tensor([[2.0, 3, 10, 12], [12, 15, 22, 28], [1, 20, 8, 30]])[: 2 + place % 2]
    labels = torch.tensor([1, 2, 3])[: len(boxes)]
    return Objects(boxes, labels, None, torch.tensor([False, False, True])[: len(boxes)])


def found(place: int, quality: float) -> Objects:
    """Those that are found, a little beside; and an object that nobody drew."""
    drawn = objects(place).take(torch.tensor([0, 1]))
    kept = drawn.take(torch.rand(2, generator=torch.Generator().manual_seed(place)) < quality)
    boxes = torch.cat([kept.boxes + 0.5, torch.tensor([[5.0, 5, 9, 9]])])
    labels = torch.cat([kept.labels, torch.tensor([3])])
    return Objects(boxes, labels, torch.linspace(0.9, 0.3, len(labels)))


def detected(place: int, quality: float) -> list[Score]:
    kept = len(found(place, quality)) - 1
    counts = {"truth": 2, "predicted": kept + 1, "hit": kept}
    return [score(ALL, "recall", kept / 2, **counts), score(ALL, "false positives", 1.0, **counts)]


def record(victim: str, shown: Shown, place: int) -> Record:
    """One finished cell."""
    wobble = np.random.default_rng([place, len(victim), sum(shown.name.encode())]).normal(0, 0.03)
    lost = 0.0 if shown.presented.role == "clean" else shown.harm[victim] + wobble
    case, quality = f"picture_{place}", SEGMENTERS.get(victim, 0.98) * (1 - min(max(lost, 0.0), 1.0)) - 0.01 * place
    regions = [ALL] if victim == DETECTOR else [*CLASSES, ALL]
    inputs = {"voxels": digest(case), "network": victim, "condition": dict(shown.settings), "regions": regions}
    amount = shown.presented.amount or 0.0
    left = 0.4 + 0.05 * len(victim)
    active = [float(round(1000 * left**k)) for k in range(STEPS - place % 3)] if shown.name == "dag-0.5" else []
    trace = {"value": active, "merit": active, "active": active} if active else {"value": [0.1], "merit": [0.1]}
    effort = Effort(steps=max(len(active), 1), forward=9, backward=9, zero_gradient_share=0.0, trace=trace)
    alike = [Fidelity(modality=c, ssim=0.98, psnr_db=38.0) for c in COLOURS]
    changed = Distortion(perceptibility=0.001 * amount, linf=amount, l2=amount * 48)
    lists = {}
    if victim == DETECTOR:
        told = {"found": found(place, quality), "objects": objects(place)}
        lists = {name: ObjectList.of(each, SCHEME) for name, each in told.items()}
    quiet = shown.presented.role == "clean"
    return Record(
        key=digest([victim, inputs]),
        victim=victim,
        condition=shown.name,
        case=case,
        patient=None,
        presented=shown.presented,
        inputs=inputs,
        radii={u: dict.fromkeys(COLOURS, amount) for u in ("stored", "0-255")} if amount else None,
        size=1.0 if amount else None,
        delivered={} if quiet else {"a.npy": digest(case)},
        effort=effort if shown.settings["kind"] == "attack" else None,
        fidelity=[] if quiet else alike,
        distortion=None if quiet else changed,
        tissues=() if victim == DETECTOR else CLASSES,
        scores=detected(place, quality) if victim == DETECTOR else segmented(quality, place),
        **lists,
    )


def picture(place: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture ``(3, h, w)`` with two shapes, and its label map with a void rim."""
    random = np.random.default_rng(place)
    x = 120 + 15 * random.normal(size=(3, *SIZE))
    label = np.zeros(SIZE, dtype=np.int64)
    label[2:10, 3:12], label[12:22, 15:28] = 1, 2
    label[10, 3:12] = 255
    for number, colour in ((1, (210, 70, 60)), (2, (60, 80, 200))):
        x[:, label == number] = np.array(colour)[:, None] + 6 * random.normal(size=(3, (label == number).sum()))
    return np.clip(x, 0, 255).astype(np.float32), label


def keep(folder: Path, detector: bool, amount: float) -> None:
    """``slices.npz`` of an attacked picture."""
    x, label = picture(0)
    altered = np.clip(x + amount * np.sign(np.random.default_rng(9).normal(size=x.shape)), 0, 255).astype(np.float32)
    missed = np.where(np.roll(label, 2, 1) == 1, 3, 0)
    case = Case("picture_0", None, {c: Path("a.png") for c in COLOURS}, None, SCHEME)
    volume = Volume(case, torch.from_numpy(x), None, np.eye(4))
    maps = [torch.from_numpy(m.astype(np.int64)) for m in (label, np.where(label == 255, 0, label), missed)]
    told = [objects(1), found(1, 1.0), found(1, 0.3)] if detector else maps
    save_slices(folder, Views(volume.x, torch.from_numpy(altered), *told), volume, SCHEME)


def pictured(
    folder: Path,
    images: int = 7,
    epsilons: tuple[float, ...] = EPSILONS,
    victims: tuple[str, ...] = (*SEGMENTERS, DETECTOR),
) -> Path:
    """Write the whole run's folder."""
    records = [record(v, shown, place) for v in victims for shown in conditions(v, epsilons) for place in range(images)]
    write_manifest(folder, {(r.victim, r.condition, r.case): r.key for r in records})
    for each in records:
        write_record(folder, each)
    attacks = tuple(f"ifgsm-{amount:g}" for amount in epsilons)
    segmenters = tuple(victim for victim in victims if victim in SEGMENTERS)
    primary = PrimaryFamily(region=ALL, metric="iou", victims=segmenters, conditions=attacks)
    rows = []
    for metric in occurring(records):
        regions = [region for region in (ALL, "disc") if any(scored(r, region, metric) for r in records)]
        rows += compare([r for r in records if scored(r, ALL, metric)], primary, regions, metric)
    write_text(folder / "comparisons.csv", comparisons_table(rows))
    write_text(folder / "scores.csv", scores_table(records))
    plain = {
        "study": folder.name,
        "data": {"voc": {"root": "/home/jdoe/VOCdevkit"}},
        "victims": {victim: {"weights": "x"} for victim in victims},
        "attacks": {"ifgsm": {"preset": "ifgsm", "steps": STEPS}, "dag": {"preset": "dag", "steps": STEPS}},
        "transfers": {"attacks": ["dag"]},
    }
    write_text(folder / "study.yaml", yaml.safe_dump(plain))
    write_text(folder / "environment.json", json.dumps({"medadv": "0.1.0", "host": "x"}))
    write_text(folder / "quarantine.json", "[]")
    for victim in victims:
        for name, amount in ((attacks[-1], epsilons[-1]), ("dag-0.5", 0.4)):
            keep(folder / "volumes" / victim / name / "picture_0", victim == DETECTOR, amount)
    return folder


def scored(record: Record, region: str, metric: str) -> bool:
    return any((score.region, score.metric) == (region, metric) for score in record.scores)
