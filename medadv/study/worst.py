"""The worst case of each case: of all that was delivered within a threat, attacks and controls, what did most harm.

The mean over patients of the minimum over these, never the minimum of means: whoever attacks a patient chooses the
attack for that patient (Carlini et al. 2019, arXiv:1902.06705, section 5.8). What made a perturbation, and what it was
meant for, does not matter: a targeted attack or noise that does more harm is an attack that an attacker may choose.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from medadv.study.judgement import Judgement
from medadv.study.metrics import METRICS
from medadv.study.records import SCHEMA, Presented, Record, Score, digest

FAMILY = "worst"


def worst_cases(records: Iterable[Record], judgement: Judgement | None) -> list[Record]:
    """A record for each victim, budget and case, made of the others and stored nowhere.

    Each score is that of the condition which was worst in its region and metric: the lowest Dice, the highest HD95; the
    score says which one, of equals the first. A case that lacks one of them has no worst case: a minimum over fewer
    would flatter the victim.

    Args:
        records: the finished cells that count.
        judgement: which conditions each worst case is of; None in a study without a defence, which has none.
    """
    if judgement is None:
        return []
    cells: dict[tuple[str, str], dict[str, Record]] = {}
    for record in records:
        cells.setdefault((record.victim, record.case), {})[record.condition] = record
    return [
        _worst(name, [mine[attack] for attack in attacks])
        for (victim, _), mine in cells.items()
        for name, attacks in judgement.worst.get(victim, {}).items()
        if attacks and set(attacks) <= set(mine)
    ]


def _worst(name: str, attacks: Sequence[Record]) -> Record:
    first, widest = attacks[0], _widest(attacks)
    regions, threat = first.inputs["regions"], widest.inputs["condition"].get("threat")
    inputs: dict[str, Any] = {
        "condition": {"kind": FAMILY, "of": [record.condition for record in attacks], "threat": threat},
        "records": [record.key for record in attacks],
        "regions": regions,
        "schema": SCHEMA,
    }
    agreed = [record.agreement for record in attacks if record.agreement is not None]
    return first.model_copy(
        update={
            "key": digest(inputs),
            "condition": name,
            "presented": _presented(attacks),
            "inputs": inputs,
            "radii": widest.radii,
            "size": max((record.size for record in attacks if record.size is not None), default=None),
            "delivered": {},
            "agreement": min(agreed, default=None),
            "effort": None,
            "fidelity": [],
            "distortion": None,
            "found": None,
            "scores": list(_scores(attacks)),
        }
    )


def _presented(attacks: Sequence[Record]) -> Presented:
    roles = [record.presented.role for record in attacks]
    counts = ((roles.count(role), role) for role in ("attack", "control"))
    told = " and ".join(f"{count} {role}{'s' * (count > 1)}" for count, role in counts if count)
    shown = {"role": "attack", "family": FAMILY, "title": f"worst case of {told}", "of": None, "source": None}
    return attacks[0].presented.model_copy(update=shown)


def _scores(attacks: Sequence[Record]) -> Iterator[Score]:
    tables = {record.condition: _table(record) for record in attacks}
    for place in _table(attacks[0]):
        worse = METRICS[place[1]].worse
        attack = max(tables, key=lambda name: worse * tables[name][place].value)  # of equals the first
        yield tables[attack][place].model_copy(update={"attack": attack})


def _table(record: Record) -> Mapping[tuple[str, str, str], Score]:
    return {(score.region, score.metric, score.policy): score for score in record.scores}


def _widest(attacks: Sequence[Record]) -> Record:
    """What reaches the most modalities: its radii are those of the threat."""
    return max(attacks, key=lambda record: sum(r > 0 for r in (record.radii or {}).get("stored", {}).values()))
