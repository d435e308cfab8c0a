"""Who is a defence of whom, who taught whom, and who is judged: read from the run's own specification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pydantic import ValidationError

from medadv.errors import RunError
from medadv.study.defences import Defence, temperature
from medadv.study.entrants import Entrant, VictimSpec, entrants
from medadv.study.results import Results
from medadv.study.spec import WORST


@dataclass(frozen=True)
class Lineage:
    """The victims of a study as they entered it, in its order.

    Attributes:
        entrants: name → victim; empty in a study without a defence, and without victims outside.
    """

    entrants: Mapping[str, Entrant]

    @property
    def defended(self) -> tuple[Entrant, ...]:
        """The judged victims that are defences of another one."""
        return tuple(e for e in self.entrants.values() if e.judged and e.undefended is not None)

    @property
    def teachers(self) -> tuple[Entrant, ...]:
        """The teachers that are there for a student alone."""
        return tuple(e for e in self.entrants.values() if not e.judged)

    def students(self, teacher: str) -> tuple[str, ...]:
        """Whom a victim taught."""
        return tuple(e.name for e in self.entrants.values() if e.teacher == teacher)

    def judged(self, results: Results) -> Results:
        """The results of the judged victims alone, in the order of the study; unchanged where nothing is defended."""
        if not self.entrants:
            return results
        places = {name: place for place, name in enumerate(self.entrants)}
        silent = {entrant.name for entrant in self.teachers}
        arms = sorted(
            (arm for arm in results.arms if arm.victim not in silent),
            key=lambda arm: places.get(arm.victim, len(places)),
        )
        rows = sorted(
            (row for row in results.comparisons if not {row.victim, row.rival} & silent),
            key=lambda row: places.get(row.victim, len(places)),
        )
        return replace(results, arms=tuple(arms), comparisons=tuple(rows))


def lineage(results: Results) -> Lineage:
    """Who is who in a run.

    Raises:
        RunError: the specification names a defence that cannot be understood.
    """
    written = results.specification["victims"]
    if not any(isinstance(victim, dict) and victim.get("defence") for victim in written.values()):
        return Lineage({})
    return Lineage(entered(results))


def entered(results: Results) -> dict[str, Entrant]:
    """The victims as they entered the study, students of each temperature and their teachers among them.

    Raises:
        RunError: the specification names a victim that cannot be understood.
    """
    written = results.specification["victims"]
    try:
        return entrants({name: VictimSpec.model_validate(victim) for name, victim in written.items()})
    except (ValueError, ValidationError) as error:
        raise RunError(
            "the run does not say who is a defence of whom",
            got=str(error).splitlines()[0],
            cause="study.yaml was edited, or the run was made by another version",
            advice="make the report with the version that made the run; environment.json names it",
        ) from error


def computed(results: Results) -> Results:
    """The same results without the conditions that are derived from others, of which no file was ever delivered."""
    arms = tuple(arm for arm in results.arms if arm.presented.family != WORST)
    return results if len(arms) == len(results.arms) else replace(results, arms=arms)


def declared(results: Results) -> Results:
    """The same results without the attacks that were added to judge defences, and without what was transferred."""
    added = set(results.judgement.added) if results.judgement else set()
    arms = tuple(arm for arm in results.arms if arm.condition not in added)
    return results if len(arms) == len(results.arms) else replace(results, arms=arms)


def called(defence: Defence | None) -> str:
    """A defence in words; what is no defence is undefended."""
    if defence is None:
        return "undefended"
    said = {"trades": "TRADES", "elsewhere": "defence made elsewhere"}.get(defence.name, str(defence.name))
    if (at := temperature(defence)) != 1:
        said += f" at T\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{at:g}"
    steps = getattr(defence, "steps", None)
    if steps is not None:
        said += ", FGSM" if steps == 1 else f", {steps} steps"
    return said
