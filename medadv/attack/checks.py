"""What an attack doubts about its victim. An attack that fails silently looks like robustness."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from medadv.attack.losses import Logits, Loss, as_loss, cross_entropy
from medadv.attack.rng import Rng
from medadv.attack.victim import Victim, held_still, tensors
from medadv.errors import ConfigError, GradientError, GradientWarning, VictimError
from medadv.objects import Objects, Truth

MOSTLY = 0.99
"""From this share of exactly zero gradients on, an attack warns."""


def check_victim(victim: object) -> None:
    """Refuse what does not say how it is deployed.

    Raises:
        VictimError: a bare network, or something else that is no victim.
    """
    if not isinstance(victim, Victim):
        raise VictimError(
            "this is no victim",
            got=type(victim).__name__,
            expected="how a network is deployed: its head, modalities, normalisation and windows",
            advice="wrap the network: Segmenter(network, Softmax(scheme), modalities)",
        )


def check_truth(truth: object, samples: int) -> None:
    """Refuse to attack without labels.

    Raises:
        ConfigError: neither a tensor nor one ``Objects`` a sample; of a tuple for several victims, one that is neither.
    """
    if isinstance(truth, Tensor):
        return
    if isinstance(truth, tuple) and any(isinstance(each, Tensor | list) for each in truth):
        for each in truth:
            check_truth(each, samples)
        return
    listed = isinstance(truth, Sequence) and all(isinstance(each, Objects) for each in truth)
    if not isinstance(truth, Sequence) or not listed:
        raise ConfigError(
            "an attack needs the truth of its input",
            got=type(truth).__name__,
            expected="a tensor of stored label numbers, e.g. volume.truth[None]; for a detector one Objects a sample",
            advice="put the objects of a picture into a list: [objects]"
            if isinstance(truth, Objects)
            else "where there are no labels, attack the victim's own answer: truth = victim.predict(x)",
        )
    if len(truth) != samples:
        raise ConfigError(
            "the truth is of another number of samples than the input",
            got=len(truth),
            expected=f"a list of {samples}, one Objects a sample",
        )


def check_input(x: Float[Tensor, "b c *s"]) -> None:
    """Refuse what cannot be attacked.

    Raises:
        VictimError: no tensor, not float32 or float64, or voxels that are not finite.
    """
    if not isinstance(x, Tensor):
        raise VictimError(
            "the input is no tensor",
            got=type(x).__name__,
            expected="(b, c, *s)",
            advice="of a volume, pass volume.x[None]",
        )
    if x.dtype not in (torch.float32, torch.float64):
        raise VictimError(
            "the input cannot be attacked in this precision",
            got=x.dtype,
            expected="float32 or float64",
            cause="integer tensors have no gradient, and half precision cannot hold small budgets",
            advice="pass x.float()",
        )
    if not torch.isfinite(torch.stack(torch.aminmax(x))).all():
        raise VictimError(
            "the input has voxels that are not finite", advice="medadv.read refuses such files; mend the case"
        )


def check_support(x: Tensor, support: Tensor) -> None:
    """Refuse a support that does not say of each voxel whether it may change.

    Raises:
        ConfigError: another shape than the input's, or no booleans.
    """
    if support.shape != x.shape or support.dtype != torch.bool:
        raise ConfigError(
            "the support does not fit the input",
            got=f"{tuple(support.shape)}, {support.dtype}",
            expected=f"{tuple(x.shape)}, {torch.bool}",
            advice="one mask for all modalities: mask.bool().expand_as(x)",
        )


def check_labels(raw: Any, labels: Any) -> None:
    """Refuse labels that are not one for each target of the answer, or of each of its parts.

    Raises:
        VictimError: labels and answer lie on different grids.
    """
    if isinstance(raw, tuple):
        for part, its in zip(raw, labels, strict=True):
            check_labels(part, its)
        return
    targets = (raw.shape[0], *raw.shape[2:])
    if labels.shape != targets:
        raise VictimError(
            "truth and answer lie on different grids",
            got=f"labels {tuple(labels.shape)}",
            expected=f"{targets}: batch, then the targets, without an axis of channels",
            advice="for a segmentation give truth (b, *s) on the grid of x (b, c, *s), e.g. volume.truth[None]",
        )


def check_finite(raw: Logits) -> None:
    """Refuse a raw answer that is not finite.

    Raises:
        VictimError: NaN or infinite logits.
    """
    if raw.numel() and not torch.isfinite(torch.stack(torch.aminmax(raw))).all():
        raise VictimError(
            "the victim answers NaN or infinity on the clean input",
            cause="broken weights, or a normalisation that divides by zero",
            advice="look at victim(x) for this case before attacking it",
        )


def _lone(raw: Logits) -> bool:
    """Whether an answer is ``stack([0, z])``, as that of a region head is: then z alone was answered."""
    return raw.shape[1] == 2 and bool((raw[:, 0] == 0).all())


def check_answer(raw: Logits) -> None:
    """Refuse a raw answer that is not finite, or that looks like probabilities.

    Raises:
        VictimError: NaN or infinite logits, or probabilities.
    """
    check_finite(raw)
    if raw.numel() == 0:  # no targets: a detector without proposals
        return
    low, high = torch.aminmax(raw)
    if low < 0 or high > 1 or low == high:
        return
    if _lone(raw) or bool(((raw.sum(1) - 1).abs() < 1e-3).all()):
        raise VictimError(
            "the victim answers probabilities instead of logits",
            got=f"values between {low:.3g} and {high:.3g}",
            expected="logits, before any softmax or sigmoid",
            cause="the network ends in an activation, whose saturation makes gradients exactly zero",
            advice="remove the last softmax or sigmoid; the head applies it",
        )


def check_steady(victim: Victim, x: Float[Tensor, "b c *s"], tolerance: float = 1e-4) -> None:
    """Ask a victim twice; refuse one that answers differently.

    Raises:
        VictimError: an answer is NaN or infinite, or two answers to one input differ by more than ``tolerance`` of
            their spread.
    """
    with held_still(victim.modules()), torch.no_grad():
        still = victim.prepare(x, Rng.seeded(0, x.shape[0]))
        first, second = tensors(still(x)), tensors(still(x))
    for answer in (*first, *second):
        check_finite(answer)
    difference = max(_difference(one, two) for one, two in zip(first, second, strict=True))
    if not difference <= tolerance:
        raise VictimError(
            "the victim answers the same input differently between calls",
            got=f"a difference of {difference:.2g} of the answers' spread",
            expected=f"at most {tolerance:g}",
            cause="noise, dropout or batch statistics that stay on in evaluation mode",
            advice="switch the randomness off, or freeze its draws in the victim's prepare()",
        )


def _difference(one: Tensor, other: Tensor) -> float:
    """Between two answers, as a share of the first one's spread."""
    if one.numel() == 0 == other.numel():
        return 0.0
    spread = (one.amax() - one.amin()).clamp(min=torch.finfo(one.dtype).tiny)
    return ((one - other).abs().amax() / spread).item()


def silent_share(
    victim: Victim, x: Float[Tensor, "b c *s"], truth: Truth, loss: Loss | str = cross_entropy
) -> Float[Tensor, "b"]:
    """The share of the targets at whose logits a loss has no gradient at all: one forward, and none backward.

    A gradient that is masked by the scale of the logits is lost there. The share that an attack records is that of the
    input's gradient, which says less: normalised by its own statistics, every voxel of an image has a little of the
    gradient of all others, and no gradient is exactly zero although most targets are silent.

    Raises:
        ConfigError: no such loss.
    """
    with held_still(victim.modules()):
        with torch.no_grad():
            raw = victim.prepare(x, Rng.seeded(0, len(x)))(x)
        raw = raw.detach().requires_grad_()
        targets = victim.targets(truth)
        (gradient,) = torch.autograd.grad(as_loss(loss)(targets.logits(raw), targets).sum(), raw)
    counted = targets.where.flatten(1)
    answered = gradient[:, 1:] if _lone(raw) else gradient
    silent = (answered == 0).all(1).flatten(1) & counted
    return silent.sum(1) / counted.sum(1).clamp(min=1)


def check_connected(value: Float[Tensor, "b"]) -> None:
    """Refuse a victim whose answer has no gradient at all.

    Raises:
        GradientError: nothing leads from the answer back to the input.
    """
    if not value.requires_grad:
        raise GradientError(
            "the victim's answer does not depend on its input in a way that can be differentiated",
            cause="a detach(), a no_grad(), a step through NumPy or a rounding inside the victim, or a constant answer",
            advice="look for what cuts the graph between victim(x) and x",
        )


def refuse_broken(broken: Bool[Tensor, "b"], step: int) -> NoReturn:
    """Refuse to go on after a gradient that was not finite.

    Raises:
        GradientError: always, naming the samples.
    """
    raise GradientError(
        "the victim's gradient is not finite",
        got=f"samples {broken.nonzero().flatten().tolist()}, by step {step}",
        cause="an overflow, a square root or division at zero, or broken weights",
        advice="run in float32, and look for a layer whose gradient is infinite at a constant input",
    )


def doubt_zero(share: Float[Tensor, "b"]) -> None:
    """Warn where nearly every gradient was exactly zero: the attack could not see."""
    if bool((share >= MOSTLY).any()):
        warnings.warn(
            f"{share.max().item():.1%} of the gradients are exactly zero: this attack cannot tell whether the victim "
            "withstands it. Likely causes: saturated logits (a distilled or very confident network), or a step without "
            "gradient in the victim. Try the logit margin loss, which does not saturate, or Tempered(loss, T).",
            GradientWarning,
            stacklevel=3,
        )
