"""How certain logits are: confidence, entropy, and how far the likeliest class leads, from logits alone.

A CRF makes a network over-confident, and over-confidence hides gradients: Arnab et al. 2018 (arXiv:1711.09856) tell by
these why single-step attacks fail on CRF-RNN. A probability of 1 - 1e-9 is 1 in float32. So nothing here goes through
probabilities: what is small, the odds of all other classes together, is what is computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from medadv.errors import VictimError


@dataclass(frozen=True, eq=False)
class Certainty:
    """How certain each target is, for two axes or three, for tissues or for regions one by one.

    Attributes:
        confidence: the largest probability.
        doubt: 1 - confidence, to full precision where confidence is 1 in the numbers at hand.
        entropy: -Σ p log p, nats.
        lead: the logarithm of the largest probability over the second largest: the difference of their logits.
    """

    confidence: Float[Tensor, "b *targets"]
    doubt: Float[Tensor, "b *targets"]
    entropy: Float[Tensor, "b *targets"]
    lead: Float[Tensor, "b *targets"]

    @classmethod
    def of(cls, logits: Float[Tensor, "b classes *targets"]) -> Certainty:
        """The certainty of a softmax over classes.

        With m the largest logit, d = m - z, and r the sum of exp(-d) over the other classes: the largest probability is
        1 / (1 + r), and the entropy log(1 + r) + Σ d exp(-d) / (1 + r).

        Raises:
            VictimError: fewer than two classes.
        """
        if logits.shape[1] < 2:
            raise VictimError("certainty compares classes", got=f"{logits.shape[1]} of them", expected="2 or more")
        first, second = logits.topk(2, dim=1).values.unbind(1)
        odds = (logits - first.unsqueeze(1)).exp()  # e**-d, and 1 for the likeliest class
        rest = odds.scatter(1, logits.argmax(1, keepdim=True), 0).sum(1)
        entropy = rest.log1p() + torch.special.entr(odds).sum(1) / (1 + rest)
        return cls(1 / (1 + rest), rest / (1 + rest), entropy, first - second)

    def mean(self, where: Bool[Tensor, "b *targets"]) -> tuple[Summary, ...]:
        """Means over the targets that count, one summary a sample; NaN where none counts."""

        def means(maps: Float[Tensor, "b *targets"]) -> list[float]:
            return [one[counted].double().mean().item() for one, counted in zip(maps, where, strict=True)]

        columns = (means(self.confidence), means(self.doubt), means(self.entropy), means(self.lead))
        return tuple(map(Summary, *columns, where.flatten(1).sum(1).tolist()))


@dataclass(frozen=True)
class Summary:
    """Means over the targets of one image.

    Attributes:
        confidence: mean largest probability.
        doubt: 1 - confidence, to full precision.
        entropy: mean entropy, nats.
        lead: mean logarithm of the largest probability over the second largest: e**lead is the geometric mean of the
            ratios, whose arithmetic mean would be that of the few surest targets, and soon infinite.
        targets: how many count.
    """

    confidence: float
    doubt: float
    entropy: float
    lead: float
    targets: int
