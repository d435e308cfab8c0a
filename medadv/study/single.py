"""One case attacked by hand: the files, a picture, and a few lines of what happened. No study, no statistics."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from medadv.atomic import write_atomically
from medadv.attack.budget import Budget
from medadv.attack.checks import check_steady
from medadv.attack.loop import Adversarial
from medadv.attack.presets import ifgsm, tifgsm
from medadv.attack.relabel import erase
from medadv.attack.rng import Rng
from medadv.data.brats import brats
from medadv.data.case import Case
from medadv.data.files import content_digest, read, write
from medadv.data.msd import msd_cohort
from medadv.errors import ConfigError
from medadv.study.inputs import read_labelled
from medadv.study.machine import Machine
from medadv.study.report.montage import montage
from medadv.study.report.style import style
from medadv.study.scores import score
from medadv.study.slices import SLICES, Views, read_slices, save_slices
from medadv.victims.declared import Declared, lines
from medadv.victims.formats.opening import open_victim, segmenter, silent_format


def attack_one(
    model: Path, case: Case, budget: str, steps: int, region: str | None, out: Path, machine: Machine
) -> Iterator[str]:
    """Attack one case, write the adversarial files and ``attack.png`` into a folder, and tell what happened.

    Args:
        model: a victim that says itself how it is deployed: medadv's folder, a MONAI bundle, an nnU-Net folder.
        case: what is attacked.
        budget: how much may change.
        steps: of i-FGSM; one of the whole budget is FGSM.
        region: to be erased (ti-FGSM); None for untargeted.
        out: where to.
        machine: the device, the memory, and whether the model may run code of its own.

    Yields:
        lines for people.

    Raises:
        ConfigError: a model that does not say how it is deployed.
        MedadvError: a victim, case or budget that cannot be used.
    """
    _check_speaks(model, case)
    with machine.used() as device:
        victim = segmenter(open_victim(model, trust=machine.trust, device=device), "attacked")
        volume = read_labelled(case)
        assert volume.truth is not None
        victim = victim.reading(volume.case.modalities).at(volume.affine)
        victim.check_fit(volume.case.modalities, volume.case.scheme)
        scheme = victim.scheme
        told = [name for name in scheme.names if victim.head.answers(name)]
        if region is not None and not victim.head.answers(region):
            raise ConfigError("the model cannot tell the region that is to be erased", got=region, expected=told)
        x = volume.x[None].to(device)
        check_steady(victim, x)
        truth = volume.case.scheme.translate(volume.truth, scheme)
        amount = Budget.parse(budget)
        attack = ifgsm(amount, steps) if region is None else tifgsm(amount, erase(region), steps)
        digest = content_digest(volume)
        result: Adversarial = attack(victim, x, truth[None].to(device), rng=Rng.seeded(0, [digest]))
        note = {"budget": str(amount), "steps": steps, "erased": region, "source_voxels_sha256": digest}
        delivered = read(write(volume, result.x[0].cpu(), out, stem=volume.case.case, note=note)).x
        answer, fooled = (victim.predict(x[None].to(device))[0].cpu() for x in (volume.x, delivered))
        agreement = victim.agreement(delivered[None].to(device))
    before, after = (score(p, truth, scheme, volume.spacing, told) for p in (answer, fooled))
    title = f"ti-FGSM, erase {region}, {steps} steps" if region else "FGSM" if steps == 1 else f"i-FGSM, {steps} steps"
    spent = f"{result.passes.forward} forward and {result.passes.backward} backward passes"
    yield f"{volume.case.case}: {title}, {amount}; {spent}, {result.seconds:.1f} s"
    for clean, adversarial in zip(before, after, strict=True):
        if clean.metric == "dice":
            yield f"  Dice {clean.region:<12} {clean.value:.3f} -> {adversarial.value:.3f}"
    if victim.deployed is not None:
        yield f"  scored by the model's own predictor, which decides like the attacked way on {agreement:.2%} of voxels"
    save_slices(out, Views(volume.x, delivered, truth, answer, fooled), volume, scheme)
    shown = region or told[0]
    dice = next((c.value, a.value) for c, a in zip(before, after, strict=True) if c.region == shown)
    _draw(out, shown, f"{volume.case.case}: {title}, {amount}", dice)
    yield f"  files and attack.png in {out}"


def _draw(out: Path, shown: str, title: str, dice: tuple[float, float]) -> None:
    """``attack.png``, from the slices that were kept: clean and attacked, with the Dice of each."""
    with style():
        clean, attacked = dice
        labels = (f"Dice {shown} {clean:.3f}", f"Dice {shown} {attacked:.3f}")
        picture = montage(read_slices(out / SLICES), shown, title, labels)
        write_atomically(out / "attack.png", lambda path: picture.savefig(path, dpi=150))


def _check_speaks(model: Path, case: Case) -> None:
    """A command line is too short to say how a model is deployed that does not say it itself.

    Raises:
        ConfigError: it does not.
    """
    if (kind := silent_format(model)) is None:
        return
    asked = {"weights": str(model)} | Declared(case.scheme, data=tuple(case.modalities)).missing(kind == "weights")
    raise ConfigError(
        "`medadv attack` needs a model that says itself how it is deployed",
        got=f"a {kind} file" if kind == "program" else f"{kind} alone: {model.name}",
        expected="medadv's own folder, a MONAI bundle or an nnU-Net folder",
        advice="say it in a study, with the values of your training, and `medadv run` that:\nvictims:\n  mine:\n"
        + lines(asked),
    )


def one_case(source: Path, release: str) -> Case:
    """A BraTS case folder, or one image of an MSD task.

    Raises:
        ConfigError: neither.
    """
    if source.is_dir():
        return brats(source, release)
    task = source.parent.parent
    if (task / "dataset.json").is_file():
        for case in msd_cohort(task).cases:
            if source.resolve() in {image.resolve() for image in case.images.values()}:
                return case
    raise ConfigError(
        "this is no case",
        got=source,
        expected="a BraTS case folder, or an image in imagesTr of an MSD task that its dataset.json lists",
    )
