"""The attack inside a lesson: the one attack loop on crops as the network is fed them, around the bare network.

Whole-case statistics come first and crops after, so the attacked network has no preprocessing, and the radius is the
whole case's. It never goes through a wrapper of several processes: ranks would wait for each other's steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NoReturn

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from medadv.attack.budget import Budget, Scales, Unit
from medadv.attack.loop import Attack, clean, counted, random
from medadv.attack.losses import Logits, Loss, as_loss, dice_cross_entropy
from medadv.attack.objective import Away, Objective
from medadv.attack.steps import Plain
from medadv.attack.targets import Targets
from medadv.attack.threat import Box, Image
from medadv.defense.crops import Batch
from medadv.errors import ConfigError, VictimError
from medadv.victims.head import Head
from medadv.victims.segmentation import Segmenter

MEASURED = (Unit.SIGMA, Unit.PERCENTILE, Unit.MINMAX)
"""Units that a normalised case has, too."""


def radius_on(budget: Budget, z: Float[Tensor, "c *s"], support: Bool[Tensor, "c *s"]) -> Float[Tensor, "c"]:
    """A budget in units of a whole normalised case, by channel; float64.

    Where the normalisation is affine (a z-score, a scaling without clipping) and changes no grid, this is the stored
    budget exactly: slope × σ of the stored voxels = σ of the normalised ones. Resampling changes σ a little.

    Args:
        budget: in σ, or in shares of p1 to p99 or of minimum to maximum.
        z: the whole clean case on the network's grid.
        support: where it may change, on the same grid.

    Raises:
        ConfigError: stored units or 0–255, which mean nothing after normalisation.
    """
    check_measured(budget)
    return budget.resolve(Scales(z[None], support[None]))[0]


def check_measured(budget: Budget) -> None:
    """Refuse a budget that means nothing once images are normalised.

    Raises:
        ConfigError: stored units or 0–255.
    """
    if budget.unit not in MEASURED:
        raise ConfigError(
            "a network is trained on normalised images, where this unit means nothing",
            got=str(budget),
            expected=f"a budget in one of {[unit.value for unit in MEASURED]}",
            advice="give the budget of a training in sigma; the attacks of the study may keep their own unit",
        )


@dataclass(frozen=True)
class InnerAttack:
    """How a batch is attacked while a network learns from it.

    ``steps=1`` is FGSM from a clean start (Goodfellow et al. 2015, arXiv:1412.6572); from a random start with a size of
    1.25 it is "fast" adversarial training (Wong et al. 2020, arXiv:2001.03994); more steps are PGD (Madry et al. 2018,
    arXiv:1706.06083).

    Attributes:
        steps: gradients a batch.
        size: a step as a share of the radius; None for 2.5 / steps, at most 1.
        start: where it begins: at the ``"clean"`` crop, or at a ``"random"`` allowed one.
        lowest: the radius of each crop is drawn evenly from this share of the largest radius up to all of it.
        loss: what it ascends; a name in ``LOSSES`` will do.

    Raises:
        ConfigError: no such start or loss, no whole number of steps, or a share outside [0, 1].
    """

    steps: int = 7
    size: float | None = None
    start: Literal["clean", "random"] = "random"
    lowest: float = 1.0
    loss: Loss | str = dice_cross_entropy

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", counted(self.steps))
        as_loss(self.loss)
        if self.start not in ("clean", "random"):
            raise ConfigError("an attack has another start", got=self.start, expected='"clean" or "random"')
        if self.size is not None and not self.size > 0:
            raise ConfigError("a step is a positive share of the radius", got=self.size, expected="for example 1.25")
        if not 0 <= self.lowest <= 1:
            raise ConfigError(
                "the lowest radius is a share of the largest one",
                got=self.lowest,
                expected="0 to 1",
                advice="for budgets from 0.02 to 0.1 sigma give the examples 0.1 sigma, and lowest=0.2",
            )

    def __call__(self, network: nn.Module, head: Head, batch: Batch, objective: Objective | None = None) -> Image:
        """Attack the crops of a batch; the network is in evaluation mode meanwhile, and restored.

        Args:
            network: the bare network, not its wrapper.
            head: what its channels mean.
            batch: crops with their radius; without a support they may change everywhere.
            objective: what the attacker wants; None: away from the truth by ``loss``.

        Returns:
            The last iterate ``(b, c, *roi)``, without graph. NaN for a crop that is not finite, or whose radius is not,
            and for all where an answer or a gradient is not: then the loss is NaN, too, and the training skips the step
            and names its cases. Learnt from as it was, such a crop would pass for one that was attacked.

        Raises:
            ConfigError: crops without a radius, or a network inside a wrapper of several processes.
        """
        if any(isinstance(module, DistributedDataParallel) for module in network.modules()):
            raise ConfigError(
                "an attack goes through the bare network, not through DistributedDataParallel",
                cause="ranks would wait for each other's steps, and could differ in how many they take",
                advice="wrap the lesson: the network inside it stays bare",
            )
        if batch.radius is None:
            raise ConfigError(
                "there is no radius to attack these crops with",
                got="examples without radius",
                advice="give each Example its radius: radius_on(budget, z, support)",
            )
        sound = torch.isfinite(batch.z).flatten(1).all(1) & torch.isfinite(batch.radius).all(1)
        where, found = sound.nonzero().flatten(), torch.full_like(batch.z, torch.nan)
        if len(where) == 0:
            return found
        try:
            part = self._ascended(network, head, batch if sound.all() else batch.take(where), objective)
        except _NotFiniteError:
            return found
        return found.index_copy(0, where, part)

    def _ascended(self, network: nn.Module, head: Head, batch: Batch, objective: Objective | None) -> Image:
        """The last iterate from crops that are finite."""
        assert batch.radius is not None  # by __call__
        victim = Segmenter(network, head, tuple(map(str, range(batch.z.shape[1]))), preprocess=())
        rng = batch.streams.fork("inner attack")
        share = self.lowest + (1 - self.lowest) * rng.fork("radius").uniform(batch.radius.new_empty(len(batch.z)))
        support = torch.ones_like(batch.z, dtype=torch.bool) if batch.support is None else batch.support
        threat = _Around.of(batch.z, batch.radius * share[:, None], support)
        goal, x, start = objective or Away(self.loss), batch.z, clean if self.start == "clean" else random
        if objective is None and start is random:
            # The labels are all that the loss asks for: nobody needs a pass on the clean crops.
            x, start = threat.box.sample(rng.fork("start")), clean
        attack = _Inside(threat, goal, Plain(self.size), self.steps, start=start, keep="last")
        return attack(victim, x, batch.truth, support=support, rng=rng).x


class _NotFiniteError(VictimError):
    """An answer or a gradient that is not finite."""


class _Inside(Attack):
    """The loop on a network that learns: it is asked at every step, and most of what it may answer is no reason to end.

    The first logits of a sigmoid head may all lie between 0 and 1. That they are no probabilities is for whoever
    deploys the network to find.
    """

    def doubt(self, raw: Logits) -> None:
        """Let only a finite answer be attacked.

        Raises:
            _NotFiniteError: it is not.
        """
        if not torch.isfinite(torch.stack(torch.aminmax(raw))).all():
            raise _NotFiniteError("an answer is not finite")

    def refuse(self, broken: Bool[Tensor, "b"], step: int) -> NoReturn:
        """Tell of a gradient that is not finite.

        Raises:
            _NotFiniteError: always.
        """
        raise _NotFiniteError("a gradient is not finite", got=f"{broken.sum().item()} crops, by step {step}")


@dataclass(frozen=True, eq=False)
class _Around:
    """An L∞ threat around normalised crops, wherever an attack begins: without legal range, its bounds known before."""

    box: Box

    @classmethod
    def of(cls, z: Image, radius: Float[Tensor, "b c"], support: Bool[Tensor, "b c *s"]) -> _Around:
        """So far from each voxel of the support; nothing is written to a file, so bounds are rounded as they come."""
        reach = radius.to(z.dtype).view(*radius.shape, *[1] * (z.ndim - 2)) * support
        # Nobody finds the head by the zeros of a normalised crop: voxels may become zero.
        return cls(Box(z, z - reach, z + reach, radius.double(), support, zeros=False))

    def __call__(self, x0: Image, support: Bool[Tensor, "b c *s"]) -> Box:  # noqa: ARG002
        """The same box, in which an attack begins at ``x0``."""
        return replace(self.box, clean=x0)

    def scaled(self, factor: float) -> _Around:
        """So many times the radius."""
        return _Around.of(self.box.clean, self.box.radius * factor, self.box.support)


def divergence(clean: Logits, logits: Logits, targets: Targets) -> Float[Tensor, "b"]:
    """KL(softmax(clean) ‖ softmax(logits)), summed over the targets that count; differentiable in both."""
    before, after = clean.log_softmax(1), logits.log_softmax(1)
    each = (before.exp() * (before - after)).sum(1)
    return torch.where(targets.where, each, 0).flatten(1).sum(1)
