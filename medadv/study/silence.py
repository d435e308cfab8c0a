"""At how many targets an attack has nothing to follow: a gradient that the scale of the logits has hidden."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from medadv.attack.exchange import Exchanging
from medadv.attack.objective import Contest, Divergence, Following, Goal, Objective
from medadv.attack.rng import Rng
from medadv.attack.victim import Victim, held_still
from medadv.objects import Truth


def silent_share(
    victim: Victim, x: Float[Tensor, "b c *s"], truth: Truth, objective: Objective, rng: Rng
) -> Float[Tensor, "b"]:
    """The share of the targets of a goal at whose logits it has no gradient at all; one forward, none backward.

    The goal is the attack's own, prepared on the clean answer as the attack does: its region, its labels, its wanted
    classes. Only targets that it counts are asked; one of a region alone is silent where no logit of its voxel moves.

    Args:
        victim: who would be attacked.
        x: the clean input.
        truth: what the victim's ``targets`` understands.
        objective: what the attack wants.
        rng: the attack's streams.
    """
    with held_still(victim.modules()):
        with torch.no_grad():
            raw = victim.prepare(x, rng.fork("victim"))(x)
        goal = objective.prepare(raw.detach(), victim.targets(truth), rng.fork("objective"))
        raw = raw.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(goal(raw, 0.0).value.sum(), raw)
    lone = raw.shape[1] == 2 and bool((raw[:, 0] == 0).all())  # stack([0, z]): only z was answered
    counted, loud = _counted(goal, raw.detach()), (gradient[:, 1:] if lone else gradient).ne(0).any(1)
    if loud.ndim > counted.ndim:  # a region alone, of a head that answers several
        loud = loud.any(1)
    return (~loud & counted).flatten(1).sum(1) / counted.flatten(1).sum(1).clamp(min=1)


def _counted(goal: Goal, raw: Float[Tensor, "b k *all"]) -> Bool[Tensor, "b *targets"]:
    """The targets that a goal looks at."""
    match goal:
        case Following():
            return goal.relabel(goal.first, raw, goal.rng).where
        case Exchanging():
            return goal.active(raw)
        case Contest() | Divergence():
            return goal.targets.where
    return torch.ones_like(raw[:, 0], dtype=torch.bool)
