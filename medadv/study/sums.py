"""Sums: what was found for several victims, added, and shown to any (Xie et al. 2017, arXiv:1703.08603, section 4)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from medadv.attack.threat import Linf
from medadv.study.attack_base import Limits
from medadv.study.conditions import Attacked, Need, Scene, Shown, attacked, slug, threat_settings, told_of
from medadv.study.reach import Reach
from medadv.study.records import Presented
from medadv.study.spec import Study

Rescaled = Literal["mean", "first"]


@dataclass(frozen=True)
class Summed:
    """The perturbations that attacks delivered for several victims on the same case, added.

    Within a ball of radius ε each, n perturbations add up to one within nε, which is what the sum may use. Where only
    steps are bounded, the legal range is all that bounds it.

    Attributes:
        called: its name in the study.
        of: victim → the attack on it, in order. The victims' identities go into the key of the cell.
        rescaled: to which L2 norm the sum is brought: the summands' mean, or the first one's; None for none.
    """

    called: str
    of: tuple[tuple[str, Attacked], ...]
    rescaled: Rescaled | None = None

    @property
    def family(self) -> str:
        """What tables call it."""
        return f"{'rescaled-' if self.rescaled else ''}sum-{self.called}"

    @property
    def name(self) -> str:
        """A folder's name, with the budget of each summand."""
        return f"{self.family}-{slug(self.of[0][1].threat.budget)}"

    @property
    def title(self) -> str:
        """For people."""
        titles = {attack.title for _, attack in self.of}
        if len(titles) == 1:
            told = f"{titles.pop()}, found for {' and '.join(victim for victim, _ in self.of)}, added"
        else:
            told = f"{' and '.join(f'{attack.title} for {victim}' for victim, attack in self.of)}, added"
        norm = {"mean": "their mean norm", "first": f"the norm of that for {self.of[0][0]}"}
        return told + (f", brought to {norm[self.rescaled]}" if self.rescaled else "")

    @property
    def threat(self) -> Limits:
        """All summands' together."""
        threat = self.of[0][1].threat
        if not isinstance(threat, Linf):
            return threat
        amounts = tuple(float(f"{len(self.of) * amount:.12g}") for amount in threat.budget.amounts)
        return replace(threat, budget=replace(threat.budget, amount=amounts if len(amounts) > 1 else amounts[0]))

    @property
    def reach(self) -> Reach:
        """Wherever one of them reaches."""
        reaches = [attack.reach for _, attack in self.of]
        if any(reach.modalities is None for reach in reaches):
            return replace(reaches[0], modalities=None)
        every = {name for reach in reaches for name in reach.modalities or ()}
        return replace(reaches[0], modalities=tuple(sorted(every)))

    @property
    def needs(self) -> tuple[Need, ...]:
        """What each attack delivered for its victim, also where that is the one that is asked."""
        return tuple(Need(attack.name, victim) for victim, attack in self.of)

    @property
    def maps(self) -> str | None:
        """Those of the first that has any."""
        return next((attack.maps for _, attack in self.of if attack.maps is not None), None)

    @property
    def presented(self) -> Presented:
        """What tables say of it."""
        shown = told_of("control" if self.rescaled else "attack", self.family, self.title, self.threat)
        plain = replace(self, rescaled=None).name if self.rescaled else None
        return shown.model_copy(update={"of": plain, "source": " + ".join(victim for victim, _ in self.of)})

    def settings(self) -> dict[str, Any]:
        """The attacks' settings, and what the sum may use."""
        return {
            "kind": "sum",
            "of": [attack.settings() for _, attack in self.of],
            "rescaled": self.rescaled,
            "threat": threat_settings(self.threat, self.reach),
        }

    def show(self, scene: Scene) -> Shown:
        """Clean plus the sum, inside what it may use."""
        changes = [scene.stored[need].double() - scene.x.double() for need in self.needs]
        change = torch.stack(changes).sum(0)
        if self.rescaled:
            change = to_norm_of(change, changes[:1] if self.rescaled == "first" else changes)
        x = (scene.x.double() + change).to(scene.x.dtype)
        return Shown(scene.allowed(self.threat, self.reach).project(x))


def to_norm_of(change: Float[Tensor, "1 c *s"], others: list[Tensor]) -> Float[Tensor, "1 c *s"]:
    """The same direction at the mean L2 norm of others, over all modalities; nothing stays nothing."""
    norm, wanted = change.norm(), torch.stack([other.norm() for other in others]).mean()
    return change * (wanted / norm) if norm > 0 else change


def sums(study: Study, target: str) -> Iterator[Summed]:
    """What a victim is shown of the study's sums, each before its rescaled control."""
    for name, wanted in study.sums.items():
        if target not in (wanted.to or study.judged):
            continue
        for budget in wanted.budgets or study.offer.shared(wanted):
            of = tuple((victim, attacked(study, attack, budget)) for victim, attack in wanted.summands().items())
            yield Summed(name, of)
            if wanted.rescaled:
                yield Summed(name, of, wanted.rescaled)
