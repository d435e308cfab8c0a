"""Which conditions each victim of a study meets, and which comparisons are declared about them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from medadv.attack.budget import Budget
from medadv.attack.threat import Linf
from medadv.errors import ConfigError
from medadv.study.adaptive import (
    added,
    bases,
    budgets_of,
    check_worst,
    on_margin,
    temperatures_of,
    tempered,
    transferable,
    transfers,
    watchful,
)
from medadv.study.conditions import CLEAN, IDENTITY, Attacked, Condition, Need, Perturbation, attacked, slug
from medadv.study.controls import Permuted, Planes, SignNoise
from medadv.study.entrants import Entrant
from medadv.study.judgement import Judgement, Varied
from medadv.study.spec import WORST, Study
from medadv.study.stats import PrimaryFamily
from medadv.study.sums import sums
from medadv.study.transfer import Shared, matrix


def conditions(study: Study, entrant: Entrant) -> tuple[Condition, ...]:
    """All conditions of one victim, each after those that it needs of its own.

    Clean, each attack with the controls that need its perturbation, other controls; in a study with a defence the
    adaptive suite; what is transferred, and sums with their controls, last. A teacher that is not judged meets clean,
    and what is transferred from it.

    Raises:
        ConfigError: two conditions would be called the same, or there is no attack that could be adapted.
    """
    if not entrant.judged:
        return (CLEAN, *transferable(study, entrant.name))
    attacks = _met(study, entrant.name)
    if study.defended:
        attacks = [watchful(attack) if isinstance(attack, Attacked) else attack for attack in attacks]
    every: list[Condition] = [CLEAN]
    permuted = {study.family(name) for name in study.permuted or study.attacks}
    for attack in attacks:
        every += [attack, *(_permutations(study, attack) if attack.family in permuted else ())]
    if "identity" in study.controls:
        every.append(IDENTITY)
    if "noise" in study.controls:  # of a size; where only steps are bounded there is none
        sizes = [(attack.threat, attack.reach) for attack in attacks if isinstance(attack.threat, Linf)]
        every += [SignNoise(*size) for size in dict.fromkeys(sizes)]
    return _joined(every, [*(added(study, entrant) if study.defended else ()), *_lent(study, entrant.name)])


def depths(met: Mapping[str, Sequence[Condition]]) -> dict[Need, int]:
    """How often something is handed from victim to victim before a condition of a victim can be made.

    Args:
        met: victim → its conditions.
    """
    needs = {
        Need(condition.name, victim): [Need(need.condition, need.victim or victim) for need in condition.needs]
        for victim, every in met.items()
        for condition in every
    }
    found: dict[Need, int] = {}

    def depth(place: Need) -> int:
        if place not in found:
            found[place] = max((depth(need) + (need.victim != place.victim) for need in needs[place]), default=0)
        return found[place]

    return {place: depth(place) for place in needs}


def _named(study: Study) -> list[Attacked]:
    """The study's own attacks."""
    return [attacked(study, name, budget) for name in study.attacks for budget in study.budgets_of(name)]


def _met(study: Study, victim: str) -> list[Attacked | Shared]:
    """Those that a victim meets; what is found for several together is found once, for the first of them."""
    met: list[Attacked | Shared] = []
    for name in study.attacks:
        first, *_ = among = study.victims_of(name)
        shared = bool(study.attacks[name].together) and victim != first
        for budget in study.budgets_of(name) if victim in among else ():
            attack = attacked(study, name, budget)
            met.append(Shared(attack, first) if shared else attack)
    return met


def _permutations(study: Study, of: Perturbation) -> Iterator[Permuted]:
    """The controls that shuffle a perturbation."""
    kinds: dict[str, Planes | None] = {"permuted": None, "rows": "rows", "columns": "columns", "slices": "slices"}
    for name, planes in kinds.items():
        if name in study.controls:
            yield from (Permuted(of, planes, draw) for draw in range(1, study.permutations + 1))


def _lent(study: Study, victim: str) -> Iterator[Condition]:
    """What a victim is shown that the study asks to be found for others: transfers, and sums with their controls."""
    yield from matrix(study, victim)
    for summed in sums(study, victim):
        yield summed
        if not summed.rescaled:
            yield from _permutations(study, summed)


def _joined(own: Iterable[Condition], others: Iterable[Condition]) -> tuple[Condition, ...]:
    """The study's own conditions, and others; what it runs already is not run again under another name."""
    names: dict[str, Condition] = {}
    known: list[object] = []
    for condition, may_be_known in [*((one, False) for one in own), *((one, True) for one in others)]:
        settings = condition.settings(), condition.needs
        if may_be_known and settings in known:
            continue
        if condition.name in names:
            raise ConfigError(
                "two conditions of the study would be called the same",
                got=condition.name,
                cause="an attack has the name of one that is added because of a defence, or of a control",
                advice="give the attack another name",
            )
        names[condition.name] = condition
        known.append(settings)
    return tuple(names.values())


def worst_name(budget: str) -> str:
    """The worst of all that is delivered at a budget, as a condition is called."""
    return f"{WORST}-{slug(Budget.parse(budget))}"


def primary_conditions(study: Study) -> tuple[str, ...]:
    """The names of the conditions in the declared family."""
    found: list[str] = []
    for name in study.primary.attacks or study.attacks:
        for budget in budgets_of(study) if name == WORST else study.budgets_of(name):
            if study.primary.budgets is None or budget in study.primary.budgets:
                found.append(worst_name(budget) if name == WORST else attacked(study, name, budget).name)
    return tuple(found)


def primary_family(study: Study) -> PrimaryFamily:
    """What the study declares before any score exists.

    Raises:
        ConfigError: victims outside cannot be in a family about defences, or no victim meets all attacks of the family,
            or one that it names does not.
    """
    primary = study.primary
    rivals = _rivals(study) if primary.against == "undefended" else {}
    if primary.returned and (rivals or WORST in (primary.attacks or ())):
        raise ConfigError(
            "victims outside cannot be held against an undefended victim, or have a worst case",
            got=list(primary.returned),
            cause="they meet only what comes back of one export, and adaptive attacks on them cannot be made",
            advice="leave out primary.returned: their comparisons are then exploratory",
        )
    if study.defended:
        check_worst(study)
    victims = tuple(rivals) or (*_declared(study), *primary.returned)
    metrics = {name: study.metric_of(name) for name in study.entrants}  # who is beside the family has files to keep
    metric = primary.metric or next(metrics[name] for name in victims if name in metrics)
    if metric not in metrics.values():
        raise ConfigError(
            "no victim of the study is scored in the primary metric",
            got=metric,
            expected=f"what they are scored in, such as {', '.join(dict.fromkeys(metrics.values()))}",
            advice="leave primary.metric out, or name it among `metrics`, the scores of segmentations",
        )
    return PrimaryFamily(
        metric=metric,
        metrics={name: own for name, own in metrics.items() if own != metric},
        region=primary.region,
        victims=victims,
        conditions=primary_conditions(study),
        rivals=rivals,
    )


def _declared(study: Study) -> tuple[str, ...]:
    """The victims that meet every attack of the family: only they can be declared under all of its conditions."""
    attacks = [name for name in study.primary.attacks or study.attacks if name != WORST]
    met = tuple(name for name in study.judged if all(name in study.victims_of(attack) for attack in attacks))
    declared = _chosen(study, met, "victims that meet all attacks of the primary family")
    if not declared:
        raise ConfigError(
            "no victim meets all attacks of the primary family",
            got={attack: list(study.victims_of(attack)) for attack in attacks},
            advice="name attacks in primary.attacks that the same victims meet; all others are exploratory",
        )
    return declared


def _rivals(study: Study) -> dict[str, str]:
    """Those of the family, each with the victim that it is held against."""
    undefended = _undefended(study)
    return {name: undefended[name] for name in _chosen(study, tuple(undefended), "victims with a defence")}


def _chosen(study: Study, able: tuple[str, ...], expected: str) -> tuple[str, ...]:
    """The victims that can be in the family, or those of them that the study names."""
    wanted = study.primary.victims
    if wanted is None:
        return able
    if unfit := [name for name in wanted if name not in able]:
        raise ConfigError("primary.victims cannot all be in it", got=unfit, expected=f"{expected}: {list(able)}")
    return tuple(name for name in able if name in wanted)


def judgement(study: Study) -> Judgement | None:
    """How the study judges its defences; None where it has none."""
    if not study.defended:
        return None
    own = {attack.name for attack in _named(study)}
    worst: dict[str, dict[str, tuple[str, ...]]] = {}
    varied = {worst_name(str(base.threat.budget)): _varied(study, base) for base in bases(study)}
    added: dict[str, None] = {}
    for entrant in study.entrants.values():
        if entrant.judged:
            met = conditions(study, entrant)
            worst[entrant.name] = {
                worst_name(str(base.threat.budget)): tuple(c.name for c in met if _within(c, base))
                for base in bases(study)
            }
            asked = own | {condition.name for condition in _lent(study, entrant.name)}
            added |= dict.fromkeys(c.name for c in met if c.presented.role == "attack" and c.name not in asked)
    known = {"judged": tuple(worst), "undefended": _undefended(study), "added": tuple(added)}
    return Judgement(worst=worst, varied=varied, margin=study.primary.margin, **known)


def _varied(study: Study, base: Attacked) -> Varied:
    """What is run at the budget of a varied attack, by name."""
    judged = (study.entrants[name] for name in study.judged)
    shown = (transfer for entrant in judged for transfer in transfers(study, entrant))
    return Varied(
        base=base.name,
        tempered=tuple((t, tempered(study, base, t).name) for t in temperatures_of(study)),
        margin=on_margin(study, base).name,
        noise=SignNoise(base.threat, base.reach).name,
        sources={transfer.source: transfer.name for transfer in shown if transfer.threat == base.threat},
    )


def _within(condition: Condition, base: Attacked) -> bool:
    """Whether what a condition delivers is allowed by the threat of the varied attack, whoever made it, and how.

    It has the same budget, and reaches no further: fewer modalities are within it, the background is another threat.
    """
    if not isinstance(condition.threat, Linf) or condition.threat.budget != base.threat.budget:
        return False
    ours, theirs = base.reach, condition.reach
    if ours.modalities is None:
        return theirs.kind == ours.kind
    return theirs.kind == ours.kind and theirs.modalities is not None and set(theirs.modalities) <= {*ours.modalities}


def _undefended(study: Study) -> dict[str, str]:
    """Defended victim → the one that it is held against."""
    judged = (study.entrants[name] for name in study.judged)
    return {entrant.name: entrant.undefended for entrant in judged if entrant.undefended is not None}
