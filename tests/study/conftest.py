"""A run's folder without a run: plausible records of a small study, and the slices of its worst cases."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
import yaml
from scipy import ndimage
from study.defended_study import judged, one  # noqa: F401  (fixtures)
from study.outside import answered, there  # noqa: F401  (fixtures)
from study.small_study import finished, no_report, own_configuration, runs, three  # noqa: F401  (fixtures)

from medadv.atomic import write_text
from medadv.attack.budget import Budget
from medadv.data.case import Case, Volume
from medadv.labels import BRATS_2018
from medadv.study.records import (
    POLICY,
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
from medadv.study.stats import PrimaryFamily, compare
from medadv.study.tables import comparisons_table, scores_table

MODALITIES = ("t1", "t1ce", "t2", "flair")
REGIONS = {"WT": 0.90, "TC": 0.83, "ET": 0.79}
VOXELS = {"WT": 9000, "TC": 4000, "ET": 2200}
DIAGONAL = 83.1
SIGMA = {"t1": 172.0, "t1ce": 214.0, "t2": 187.0, "flair": 156.0}
ATTACKS = {
    "fgsm": ("FGSM", 0.35, 1),
    "ifgsm": ("i-FGSM, 10 steps", 0.75, 10),
    "tifgsm": ("ti-FGSM, erase WT, 10 steps", 0.55, 10),
}
BUDGETS = (0.05, 0.1, 0.2)


@dataclass(frozen=True)
class Planned:
    """A condition and how much of the Dice it takes away."""

    name: str
    presented: Presented
    loss: float
    steps: int = 0


def conditions(budgets: tuple[float | str, ...] = BUDGETS) -> Iterator[Planned]:
    yield Planned("clean", Presented(role="clean", family="clean", title="clean"), 0.0)
    yield Planned("identity", Presented(role="control", family="identity", title="identity"), 0.0)
    for budget in map(Budget.parse, budgets):
        amount = float(np.mean(budget.amounts))
        single = budget.amounts[0] if len(set(budget.amounts)) == 1 else None
        size = {"budget": str(budget), "amount": single, "unit": str(budget.unit)}
        slug = str(budget).replace(" ", "-").replace("/", "_")
        noise = Presented(role="control", family="noise", title="sign noise", **size)
        yield Planned(f"noise-{slug}", noise, 0.012 * amount)
        for family, (title, strength, steps) in ATTACKS.items():
            name = f"{family}-{slug}"
            shown = Presented(role="attack", family=family, title=title, **size)
            yield Planned(name, shown, strength * (1 - np.exp(-amount / 0.06)), steps)
            own = Presented(
                role="control",
                family=f"permuted {family}",
                title=f"{title}, permuted",
                of=name,
                **size,
            )
            yield Planned(f"permuted-{name}", own, 0.015 * amount)


def scores(dice: dict[str, float], empty: str | None) -> list[Score]:
    rows = []
    for region, value in dice.items():
        truth = 0 if region == empty else VOXELS[region]
        predicted = 40 if value == 0.0 and not truth else 0 if value == 0.0 else int(truth * 0.9)
        both = not truth and value == 1.0
        predicted = 0 if both else predicted
        hit = int(value * (truth + predicted) / 2)
        distance = 0.0 if both else DIAGONAL if value == 0.0 else 2 + 40 * (1 - value)
        for metric, number in (("dice", value), ("hd95", distance)):
            found = {"value": number, "computed": number + (2e-4 if metric == "dice" and 0 < number < 1 else 0.0)}
            rows.append(
                Score(region=region, metric=metric, policy=POLICY, truth=truth, predicted=predicted, hit=hit, **found)
            )
    return rows


def record(victim: str, planned: Planned, case: str, patient: str | None, place: int, skill: float) -> Record:
    """One finished cell. The fifth case has no enhancing tumour; clean is repeatable, everything else wobbles."""
    random = np.random.default_rng([place, sum(planned.name.encode())])
    shown = planned.presented
    quiet = shown.family in ("clean", "identity")
    ease = np.random.default_rng(place).normal(0, 0.035)
    dice = {}
    for region, best in REGIONS.items():
        lost = planned.loss * (1 + 0.25 * random.normal()) + (0.0 if quiet else 0.002 * random.normal())
        value = float(np.clip(skill * best + ease - lost, 0, 0.985))
        dice[region] = 0.0 if value < 0.04 else round(value, 6)
    if place == 4:
        dice["ET"] = 1.0 if planned.loss < 0.3 else 0.0
    amounts = Budget.parse(shown.budget).amounts if shown.budget else (0.0,)
    amount = float(np.mean(amounts))
    each = dict(zip(MODALITIES, amounts if len(amounts) > 1 else amounts * 4, strict=True))
    radii = {
        "sigma": each,
        "stored": {m: each[m] * SIGMA[m] * (1 + 0.02 * place) for m in MODALITIES},
        "p1-p99": {m: each[m] / 4.4 for m in MODALITIES},
        "minmax": {m: each[m] / 6.3 for m in MODALITIES},
        "0-255": {m: 255 * each[m] / 6.3 for m in MODALITIES},
    }
    trace = {"value": [0.2 + 0.1 * k for k in range(planned.steps)], "merit": [0.1 * k for k in range(planned.steps)]}
    effort = Effort(
        steps=planned.steps,
        forward=16 * planned.steps,
        backward=8 * planned.steps,
        zero_gradient_share=0.002,
        trace=trace,
    )
    likeness = [
        Fidelity(modality=m, ssim=1 - 0.8 * min(amount, 1) ** 2, psnr_db=35 - 60 * amount if amount else None)
        for m in MODALITIES
    ]
    threat = {"ball": "linf", "budget": {"amounts": list(amounts), "unit": "sigma"}}
    threat |= {"support": "nonzero", "legal": "clean"}
    attack = {"preset": shown.family, "loss": "cross entropy", "steps": planned.steps, "size": None}
    inputs = {
        "voxels": digest(case),
        "label": digest([case, "label"]),
        "weights": digest(victim),
        "network": digest([victim, "network"]),
        "deployed": {"modalities": list(MODALITIES), "normalise": {"name": "z-score"}, "head": {"name": "softmax"}},
        "condition": {"kind": shown.role, "name": planned.name, "attack": attack, "threat": threat},
        "regions": list(REGIONS),
        "seed": 0,
        "precision": "float32",
        "schema": 2,
    }
    return Record(
        key=digest(inputs),
        victim=victim,
        condition=planned.name,
        case=case,
        patient=patient,
        presented=shown,
        inputs=inputs,
        radii=radii if shown.budget else None,
        size=1.0 if shown.budget else None,
        delivered={} if quiet else {"image.nii.gz": digest(planned.name)},
        versions={"medadv": "0.1.0", "torch": "2.15.0", "monai": "1.6.1"},
        effort=effort if planned.steps else None,
        fidelity=[] if shown.role == "clean" else likeness,
        scores=scores(dice, "ET" if place == 4 else None),
    )


def brain(size: int = 48, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Four modalities ``(4, n, n, n)`` that look a little like MR, and a lesion in BraTS 2018 numbers."""
    random = np.random.default_rng(seed)
    z = (np.mgrid[:size, :size, :size] - size / 2 + 0.5) / (size / 2)
    wave = ndimage.gaussian_filter(random.normal(size=(size,) * 3), 2.2)
    wave /= np.abs(wave).max()
    inside = (z[0] / 0.78) ** 2 + (z[1] / 0.92) ** 2 + (z[2] / 0.74) ** 2 < 1 + 0.05 * wave
    white = inside & ((z[0] / 0.62) ** 2 + (z[1] / 0.76) ** 2 + (z[2] / 0.58) ** 2 < 1 + 0.7 * wave)
    hole = (np.abs(z[0]) < 0.28) & (np.abs(z[1]) < 0.38) & (np.abs(z[2]) < 0.22) & (np.abs(z[0]) > 0.05)
    centre = np.array([0.33, -0.22, 0.12])[:, None, None, None]
    reach = np.sqrt((((z - centre) / np.array([1.0, 1.15, 0.9])[:, None, None, None]) ** 2).sum(0)) + 0.12 * wave
    label = np.where(reach < 0.14, 1, np.where(reach < 0.22, 4, np.where(reach < 0.38, 2, 0))) * inside
    table = {
        "t1": (480, 620, 180, (300, 420, 330)),
        "t1ce": (500, 640, 190, (280, 420, 1000)),
        "t2": (520, 400, 900, (850, 760, 640)),
        "flair": (480, 400, 130, (420, 880, 720)),
    }
    x = []
    for grey_value, white_value, fluid, (necrosis, oedema, rim) in table.values():
        image = np.where(white, white_value, grey_value).astype(float)
        image[hole] = fluid
        for number, value in ((1, necrosis), (2, oedema), (4, rim)):
            image[label == number] = value
        image = ndimage.gaussian_filter(image, 0.7) * (1 + 0.15 * z[0]) + random.normal(0, 22, image.shape)
        x.append(np.where(inside, np.maximum(image, 1), 0))
    return np.stack(x).astype(np.float32), label.astype(np.int64)


def write_slices(path: Path, amount: float, seed: int) -> None:
    x, label = brain(seed=seed)
    random = np.random.default_rng(seed + 1)
    sigma = np.array([image[image != 0].std() for image in x], dtype=np.float32)
    sign = np.sign(ndimage.gaussian_filter(random.normal(size=x.shape), (0, 0.7, 0.7, 0.7)))
    altered = np.where(x != 0, x + sign * amount * sigma[:, None, None, None], 0).astype(np.float32)
    guess = np.where(ndimage.binary_dilation(label > 0), np.where(label > 0, label, 2), 0)
    missed = np.where(ndimage.binary_erosion(label > 0, iterations=4), label, 0)
    missed[8:14, 20:26, 20:26] = 2
    affine = np.diag([-3.0, -3.5, 3.0, 1.0])  # towards left, posterior, superior, as BraTS lies
    case = Case("PHANTOM_000", None, {m: Path(m) for m in MODALITIES}, None, BRATS_2018)
    volume = Volume(case, torch.from_numpy(x), None, affine)
    maps = (torch.from_numpy(np.asarray(m, dtype=np.int64)) for m in (label, guess, missed))
    save_slices(path.parent, Views(volume.x, torch.from_numpy(altered), *maps), volume, BRATS_2018)


def written(
    folder: Path,
    victims: tuple[str, ...] = ("unet",),
    cases: tuple[str, ...] = tuple(f"PHANTOM_{i:03d}" for i in range(12)),
    patients: bool = False,
    budgets: tuple[float | str, ...] = BUDGETS,
    quarantine: tuple[dict[str, str], ...] = (),
    metric: Literal["dice", "hd95"] = "dice",
) -> Path:
    """Write a whole run's folder."""
    planned = list(conditions(budgets))
    records = [
        record(victim, each, case, f"patient-{place}" if patients else None, place, 1.0 - 0.06 * order)
        for order, victim in enumerate(victims)
        for each in planned
        for place, case in enumerate(cases)
    ]
    write_manifest(folder, {(r.victim, r.condition, r.case): r.key for r in records})
    for each in records:
        write_record(folder, each)
        timing = folder / "timings" / each.victim / each.condition / f"{each.case}.{each.key[:16]}.json"
        write_text(timing, json.dumps({"seconds": 0.2 + 0.15 * (each.effort.steps if each.effort else 0)}))
    attacks = tuple(each.name for each in planned if each.presented.role == "attack")
    primary = PrimaryFamily(region="WT", metric=metric, conditions=attacks)
    compared = [row for each in ("dice", "hd95") for row in compare(records, primary, list(REGIONS), each)]
    write_text(folder / "comparisons.csv", comparisons_table(compared))
    write_text(folder / "scores.csv", scores_table(records))
    specification = {
        "study": folder.name,
        "question": "How much does a small change of the scan cost a small network on phantom MR?",
        "data": {"phantom": {"cases": len(cases), "size": 48}, "root": "/home/jdoe/secret/brats"},
        "ids": "as-is",
        "victims": {victim: {"training": {"steps": 250, "rate": 0.001}} for victim in victims},
        "budgets": [str(Budget.parse(budget)) for budget in budgets],
        "attacks": {
            name: {"preset": name, "loss": "cross entropy", "steps": steps} for name, (_, _, steps) in ATTACKS.items()
        },
        "primary": primary.model_dump(mode="json"),
    }
    write_text(folder / "study.yaml", yaml.safe_dump(specification, sort_keys=False))
    versions = {
        "medadv": "0.1.0",
        "python": "3.11.7",
        "torch": "2.15.0",
        "monai": "1.6.1",
        "host": "ward-7",
        "cpu": "x86_64",
    }
    write_text(folder / "environment.json", json.dumps(versions))
    write_text(
        folder / "declarations.jsonl",
        json.dumps({"primary": {"region": "WT"}, "declared": "2026-11-20T09:00:00+00:00", "after_scores": False})
        + "\n",
    )
    write_text(folder / "quarantine.json", json.dumps(list(quarantine)))
    for victim in victims:
        lines = ["step,loss,dice,rate"]
        lines += [
            f"{k},{1.4 * np.exp(-k / 70) + 0.2},{0.9 * (1 - np.exp(-k / 60)) if k % 25 == 0 else ''},0.001"
            for k in range(1, 251)
        ]
        write_text(folder / "victims" / victim / "training.csv", "\n".join(lines) + "\n")
        for attack in (each for each in planned if each.presented.role == "attack"):
            case = min(cases, key=lambda c, n=attack.name, v=victim: wt(records, v, n, c))
            amount = Budget.parse(attack.presented.budget or "").amounts[-1]
            write_slices(folder / "volumes" / victim / attack.name / case / "slices.npz", amount, seed=3)
    return folder


def wt(records: list[Record], victim: str, condition: str, case: str) -> float:
    """The Dice of WT of a cell."""
    cell = next(r for r in records if (r.victim, r.condition, r.case) == (victim, condition, case))
    return cell.scores[0].value


@pytest.fixture(scope="session")
def write_run() -> Callable[..., Path]:
    """How a run's folder is written: ``written``, for tests that want another one."""
    return written


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of twelve cases of unknown patients, 23 conditions; not to be changed by a test."""
    return written(tmp_path_factory.mktemp("runs") / "phantom")
