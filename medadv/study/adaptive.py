"""What a study with a defence runs beside its own attacks, so that hidden gradients cannot pass for robustness.

Distillation makes logits so large that the cross entropy's gradient is exactly zero in float32, and an attack that
follows it stands still (Carlini & Wagner 2017, arXiv:1608.04644). So the study's strongest attack is run again on the
loss at logits / T and on the logit margin, what it found for the undefended victim and the teacher is shown to the
defended one, and sign noise tells what its size alone does (Athalye et al. 2018, arXiv:1802.00420; Carlini et al. 2019,
arXiv:1902.06705). A teacher that was trained at a temperature is as masked as its student: what is transferred from it
was found at logits / T. Every judged victim meets the same suite, the undefended one too, but for what is transferred.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from medadv.errors import ConfigError
from medadv.study.attack_base import OnLoss, TemperedLoss
from medadv.study.conditions import Attacked, Condition, attacked
from medadv.study.controls import SignNoise
from medadv.study.defences import temperature
from medadv.study.entrants import Entrant
from medadv.study.spec import WORST, Study
from medadv.study.transfer import Transferred

SATURATED = 10.0
"""T where no victim of the study was trained at one: other networks may saturate as well."""

MARGIN = "logit margin"


def base_of(study: Study) -> str:
    """The attack that is varied: the one that the study names, or its untargeted attack of most steps.

    Of those that take as many steps, one on the whole answer comes before one on a region, and then the first.

    Raises:
        ConfigError: the study has no untargeted attack that every victim meets.
    """
    if study.adaptive.attack is not None:
        return study.adaptive.attack
    untargeted = {name: spec for name, spec in study.attacks.items() if study.may_be_varied(name)}
    if not untargeted:
        raise ConfigError(
            "a study with a defence has no untargeted attack that could be adapted to it",
            got=list(study.attacks),
            advice="add one to attacks, such as `ifgsm: {preset: ifgsm}`",
        )
    return max(untargeted, key=lambda name: (study.steps_of(name), not untargeted[name].names))


def budgets_of(study: Study) -> tuple[str, ...]:
    """The budgets at which it is varied: those that the study names, or the primary ones, or all of the attack."""
    return study.adaptive.budgets or study.primary.budgets or study.budgets_of(base_of(study))


def temperatures_of(study: Study) -> tuple[float, ...]:
    """Every temperature above 1 at which a victim of the study was trained, and those that it names; else 10."""
    trained = (temperature(entrant.spec.defence) for entrant in study.entrants.values())
    every = {*trained, *study.adaptive.temperatures}
    return tuple(sorted(t for t in every if t > 1)) or (SATURATED,)


def sources_of(entrant: Entrant) -> tuple[str, ...]:
    """Whose attacks are shown to a victim: to a defended one those of its undefended one and of its teacher.

    To the undefended one none is shown: a defence meets all that it meets and these, so that their difference is never
    made by a longer list on the other side.
    """
    return tuple(dict.fromkeys(name for name in (entrant.undefended, entrant.teacher) if name is not None))


def bases(study: Study) -> list[Attacked]:
    """The varied attack itself, at each of its budgets, on the watch for silent targets."""
    return [watchful(attacked(study, base_of(study), budget)) for budget in budgets_of(study)]


def watchful(attack: Attacked) -> Attacked:
    """The same attack, whose records also tell at how many targets its loss has no gradient."""
    return replace(attack, listens=True)


def tempered(study: Study, base: Attacked, t: float) -> Attacked:
    """The varied attack on its loss at logits / T."""
    assert isinstance(base.spec, OnLoss)  # base_of: it is untargeted
    plain = base.spec.loss.of if isinstance(base.spec.loss, TemperedLoss) else base.spec.loss
    spec = base.spec.model_copy(update={"loss": TemperedLoss(of=plain, temperature=t)})
    return _own(study, replace(base, family=f"{base.family}-T{t:g}", spec=spec))


def on_margin(study: Study, base: Attacked) -> Attacked:
    """The varied attack on the logit margin."""
    spec = base.spec.model_copy(update={"loss": MARGIN})
    return _own(study, replace(base, family=f"{base.family}-margin", spec=spec, note=f", {MARGIN}"))


def _own(study: Study, attack: Attacked) -> Attacked:
    """The same attack as the study calls it, where it runs it itself."""
    every = (attacked(study, name, budget) for name in study.attacks for budget in study.budgets_of(name))
    return next((watchful(own) for own in every if own.settings() == attack.settings()), attack)


def transferable(study: Study, source: str) -> list[Attacked]:
    """What is transferred from a victim, at each budget: what was found at its own temperature, where that is above 1.

    The plain attack would stand still on a network that was trained at a temperature, and transfer nothing.
    """
    t = temperature(study.entrants[source].spec.defence)
    return [tempered(study, base, t) for base in bases(study)] if t > 1 else bases(study)


def transfers(study: Study, entrant: Entrant) -> list[Transferred]:
    """What was found for others and is shown to a judged victim."""
    sources = ((source, attack) for source in sources_of(entrant) for attack in transferable(study, source))
    return [Transferred(attack, source) for source, attack in sources]


def added(study: Study, entrant: Entrant) -> Iterator[Condition]:
    """What a judged victim meets beside the study's own conditions; what needs another victim comes last."""
    for base in bases(study):
        yield base
        yield SignNoise(base.threat, base.reach)
    for base in bases(study):
        yield from (tempered(study, base, t) for t in temperatures_of(study))
        yield on_margin(study, base)
    yield from transfers(study, entrant)


def check_worst(study: Study) -> None:
    """A worst case can only be declared where the suite is run.

    Raises:
        ConfigError: at a primary budget it is not.
    """
    lacking = set(study.primary.budgets or ()) - set(budgets_of(study))
    if WORST in (study.primary.attacks or ()) and lacking:
        raise ConfigError(
            "the worst case is declared at budgets at which the adaptive attacks are not run",
            got=sorted(lacking),
            expected=list(budgets_of(study)),
            advice="leave out adaptive.budgets, or name all primary budgets there",
        )
