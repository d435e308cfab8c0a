"""Named attacks: settings of the one loop, each a few lines with its source. None has a loop of its own.

``budget`` is a ``Budget``, a text such as ``"0.1 sigma"``, a bare number of σ, or a whole threat; ``loss`` is a
function, or its name in ``LOSSES``; ``labels`` and ``region`` are those of ``Away`` and ``Towards``.
"""

from __future__ import annotations

import math

from medadv.attack.budget import Budget, Unit
from medadv.attack.exchange import Active, Exchange, Strong
from medadv.attack.loop import Attack, counted, random
from medadv.attack.losses import Loss, cross_entropy
from medadv.attack.objective import Apart, Away, Labels, Towards, dice_lost
from medadv.attack.relabel import LeastLikely, Permute, Rank, Relabel
from medadv.attack.steps import Momentum, Plain
from medadv.attack.threat import Linf, Threat
from medadv.attack.unbounded import Unbounded
from medadv.errors import BudgetError

Amount = int | float | str | Budget | Threat

_PERMUTED = Permute()


def _threat(budget: Amount) -> Threat:
    """A budget alone means L∞ with the clean range as legal."""
    return budget if isinstance(budget, Threat) else Linf(Budget.parse(budget))


def fgsm(
    budget: Amount, loss: Loss | str = cross_entropy, *, labels: Labels = "truth", region: str | None = None
) -> Attack:
    """One step of the whole budget along the sign of the gradient (Goodfellow et al. 2015, arXiv:1412.6572)."""
    return Attack(_threat(budget), Away(loss, labels=labels, region=region), Plain(), steps=1, keep="last")


def ifgsm(
    budget: Amount,
    steps: int = 10,
    loss: Loss | str = cross_entropy,
    size: float | None = None,
    *,
    labels: Labels = "truth",
    region: str | None = None,
) -> Attack:
    """Many projected steps (Kurakin et al. 2017, arXiv:1607.02533); ``size``: a share of the budget, or 2.5 / steps."""
    return Attack(_threat(budget), Away(loss, labels=labels, region=region), Plain(size), steps, keep="last")


def tifgsm(
    budget: Amount,
    relabel: Relabel,
    steps: int = 10,
    loss: Loss | str = cross_entropy,
    size: float | None = None,
    *,
    labels: Labels = "truth",
    follow: bool = False,
) -> Attack:
    """I-FGSM towards other labels; ``relabel`` says which and where, e.g. ``erase("ET")``."""
    objective = Towards(relabel, loss, labels=labels, follow=follow)
    return Attack(_threat(budget), objective, Plain(size), steps, keep="last")


def fgsm_ll(
    budget: Amount, loss: Loss | str = cross_entropy, *, rank: int | None = None, labels: Labels = "truth"
) -> Attack:
    """One step towards the class that is least likely at the clean input (Kurakin et al. 2017, arXiv:1611.01236).

    ``rank``: towards another rank of the clean answer, as ``Rank`` counts them (Arnab et al. 2018, arXiv:1711.09856).
    ``labels`` say here what is void: of the ``"truth"``, the expert's void; of the ``"prediction"``, nothing.
    """
    return tifgsm(budget, LeastLikely() if rank is None else Rank(rank), 1, loss, labels=labels)


def ifgsm_ll(
    budget: Amount,
    steps: int = 10,
    loss: Loss | str = cross_entropy,
    size: float | None = None,
    *,
    rank: int | None = None,
    follow: bool = False,
    labels: Labels = "truth",
) -> Attack:
    """Many steps towards the least likely classes (Kurakin et al. 2017, arXiv:1607.02533).

    ``follow``: those of the current answer, found anew at each step, as Arnab et al. 2018 (arXiv:1711.09856) do.
    """
    relabel = LeastLikely() if rank is None else Rank(rank)
    return tifgsm(budget, relabel, steps, loss, size, labels=labels, follow=follow)


def kurakin(budget: int | float | str | Budget) -> tuple[int, float]:
    """Kurakin et al.'s schedule of a budget of ε grey levels: how many steps, and each as a share of the budget.

    max(⌈min(ε + 4, 1.25 ε)⌉, 1) steps of one grey level, at most ε: 1, 1, 2, 3, 5, 10, 20, 36 for ε = .25, .5, 1, 2, 4,
    8, 16, 32 (arXiv:1607.02533; Arnab et al. 2018, arXiv:1711.09856). For ``ifgsm(budget, steps, size=size)``.

    Raises:
        BudgetError: no budget in grey levels, or another one for each modality.
    """
    budget = Budget.parse(budget)
    if budget.unit is not Unit.GREY or len(set(budget.amounts)) > 1:
        raise BudgetError(
            "Kurakin's schedule counts in grey levels, for all modalities alike",
            got=str(budget),
            expected='one amount of grey levels, e.g. "8 0-255"',
            advice="for another unit give a number of steps",
        )
    amount = budget.amounts[0]
    return max(math.ceil(min(amount + 4, 1.25 * amount)), 1), 1 / max(amount, 1.0)


def mifgsm(
    budget: Amount,
    steps: int = 10,
    decay: float = 1.0,
    loss: Loss | str = cross_entropy,
    *,
    labels: Labels = "truth",
    region: str | None = None,
) -> Attack:
    """I-FGSM along a momentum, steps of budget / n (Dong et al. 2018, arXiv:1710.06081)."""
    objective = Away(loss, labels=labels, region=region)
    return Attack(_threat(budget), objective, Momentum(decay, 1 / counted(steps)), steps, keep="last")


def pgd(
    budget: Amount,
    steps: int = 20,
    loss: Loss | str = cross_entropy,
    size: float | None = None,
    *,
    labels: Labels = "truth",
    region: str | None = None,
) -> Attack:
    """I-FGSM from a random start, the best iterate kept by Dice (Madry et al. 2018, arXiv:1706.06083)."""
    objective = Away(loss, dice_lost, labels=labels, region=region)
    return Attack(_threat(budget), objective, Plain(size), steps, start=random)


def klpgd(budget: Amount, steps: int = 10, size: float | None = None) -> Attack:
    """PGD apart from the clean answer, without labels: TRADES' inner attack (Zhang et al. 2019, arXiv:1901.08573).

    Starts at random in the whole ball; their code starts beside the clean input, in steps of a tenth of the budget.
    """
    return Attack(_threat(budget), Apart(), Plain(size), steps, start=random, keep="last")


def dag(
    gamma: Amount = "0.5 0-255",
    relabel: Relabel = _PERMUTED,
    steps: int = 200,
    *,
    active: Active = "written",
    tolerance: float = 0.0,
    let_vanish: bool = False,
    labels: Labels = "truth",
    strong: Strong | None = None,
) -> Attack:
    """Dense adversary generation: steps of γ g / ‖g‖∞ until no target is active (Xie et al. 2017, arXiv:1703.08603).

    ``gamma`` is the length of one step, or a whole threat: of pictures ``Unbounded("0.5 0-255", span=(0, 255))``, half
    a grey level, as theirs. They take 150 steps in detection and 200 in segmentation; their code draws l' among the
    classes that the picture lacks, ``Permute(absent=True)``, and pushes the ``"released"`` targets.
    """
    threat = gamma if isinstance(gamma, Threat) else Unbounded(Budget.parse(gamma))
    objective = Exchange(relabel, active, tolerance, let_vanish, labels, strong)
    return Attack(threat, objective, Plain(1.0), steps, keep="until done")
